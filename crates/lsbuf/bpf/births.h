/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * What the flight recorder and the programs of `lsbuf trace` have in common: both run when buffers
 * are made and freed, and read the stack of whoever does that.
 */
#ifndef LSBUF_BIRTHS_H
#define LSBUF_BIRTHS_H

#include "lsbuf.h"

#define S_IFREG 0100000
#define MAX_ERRNO 0xfff

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

/* A field of struct inode that no other program reads. */
struct inode___generation {
	u32 i_generation;
};

#pragma clang attribute pop

static long (*const map_delete)(void *map, const void *key) = (void *)3;
static u64 (*const current_pid_tgid)(void) = (void *)14;
static u64 (*const current_uid_gid)(void) = (void *)15;
static long (*const current_comm)(void *to, u32 size) = (void *)16;
static u64 (*const current_task)(void) = (void *)35;
static long (*const get_stack)(void *context, void *to, u32 size, u64 flags) = (void *)67;
static u64 (*const current_cgroup)(void) = (void *)80;
static u64 (*const boot_ns)(void) = (void *)125;
static long (*const seq_printf)(void *seq, const char *format, u32 size, const void *data, u32 length) = (void *)126;

#define current_uid() ((u32)current_uid_gid())
#define barrier() asm volatile("" ::: "memory")

/* Flags of get_stack. */
#define USER_STACK (1ULL << 8)
#define USER_BUILD_ID (1ULL << 11)

#define MOST_KERNEL_FRAMES 24
#define MOST_USER_FRAMES 48

/* struct bpf_stack_build_id of include/uapi/linux/bpf.h */
struct user_frame {
	/* 1: build id and offset in the file. 2: address. */
	s32 status;
	u8 build_id[20];
	u64 place;
};

/* Whether a file that is in no folder is a System V segment: the kernel has chosen its name. */
static always_inline int begins_as_segment(struct dentry *dentry)
{
	const unsigned char *name = 0;
	char begin[5] = {};

	peek(name, dentry->d_name.name);
	probe_read_str(begin, sizeof(begin), name);
	return begin[0] == 'S' && begin[1] == 'Y' && begin[2] == 'S' && begin[3] == 'V';
}

/* Whether a function that returns a pointer has failed: the last addresses are error numbers. */
#define is_error(address) (!(address) || (address) >= (u64)-MAX_ERRNO)

/*
 * The result of a function with so many arguments. Written as one instruction, because the compiler
 * would choose the place before it loads, and the verifier allows no other place than a constant.
 */
#define result_after(context, arguments)                                                         \
	({                                                                                       \
		u64 result;                                                                      \
		asm volatile("%0 = *(u64 *)(%1 + %2)"                                            \
			     : "=r"(result)                                                      \
			     : "r"(context), "i"(8 * (arguments)));                              \
		result;                                                                          \
	})

#endif
