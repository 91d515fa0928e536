/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * What the programs of `lsbuf trace` write to their ring buffer, and what they keep for each other.
 */
#ifndef LSBUF_TRACE_H
#define LSBUF_TRACE_H

#include "passing.h"
#include "registers.h"

static void *(*const ring_reserve)(void *ring, u64 size, u64 flags) = (void *)131;
static long (*const probe_read_user)(void *to, u32 size, const void *from) = (void *)112;
static struct task_struct *(*const current_task_btf)(void) = (void *)158;
static void (*const ring_submit)(void *data, u64 flags) = (void *)132;

/* event.what */
enum event_what {
	/* A buffer is there now. */
	EVENT_MADE = 1,
	/* An fd of it was put into the table of the process that does this. */
	EVENT_FD = 2,
	EVENT_MAPPED = 3,
	EVENT_ATTACHED = 4,
	EVENT_DETACHED = 5,
	EVENT_RENAMED = 6,
	/* It is gone, with its memory. */
	EVENT_FREED = 7,
};

/* event.of: what the buffer is. */
#define EVENT_OF_FILE 1
#define EVENT_OF_DMABUF 2

/* event.flags */
/* The file is in no folder: the kernel has made it for itself, and chosen its name. */
#define EVENT_NO_FOLDER 1
/* The fd is one with O_PATH. */
#define EVENT_PATH_ONLY 2
/* The name did not fit. */
#define EVENT_NAME_CUT 4

/*
 * event.way, beside those of passing.h. PASSED_UNKNOWN: the fd was not received. This one: it was
 * received in another way, so the kernel has not told from whom.
 */
#define PASSED_OTHERWISE 3

/* How many bytes of a name are kept, with a NUL at the end. */
#define EVENT_NAME 128

/* The only kind of record. */
enum trace_kind {
	/* struct event, or struct event_stacks, or with a copied stack struct event_copied. */
	EVENT = 1,
};

struct event {
	struct head head;
	/* By the clock since boot. */
	u64 at;
	/* The id of the buffer: the same in all its events. */
	u64 object;
	u64 ino;
	u64 size;
	/* Of a file: bytes of memory that it has. */
	u64 memory;
	u64 started;
	u64 cgroup;
	/* The address range of a mapping. */
	u64 start;
	u64 length;
	/* How many events had no room in the ring until now. */
	u64 lost;
	/* Of an fd that was received: when the process that gave it was started. */
	u64 from_started;
	u32 what;
	u32 of;
	u32 flags;
	u32 magic;
	u32 dev;
	/* Of a segment: the inode number of its IPC namespace. */
	u32 ipc;
	u32 tgid;
	u32 tid;
	u32 uid;
	u32 task_flags;
	s32 fd;
	/* Of a mapping: PROT_* as in <sys/mman.h>. */
	u32 protection;
	/* Of a mapping: MAP_SHARED, MAP_PRIVATE or MAP_SHARED_VALIDATE. */
	u32 sharing;
	s32 kernel_bytes;
	s32 user_bytes;
	u32 unused;
	/* Of an fd that was received: how, and which process gave it. 0: not known. */
	u32 way;
	u32 from;
	char comm[16];
	char thread[16];
	char from_comm[16];
	char name[EVENT_NAME];
	/* The exporter of a dma-buf, or the device that it was attached to or detached from. */
	char exporter[64];
	char device[64];
};

struct event_stacks {
	struct event event;
	u64 kernel[MOST_KERNEL_FRAMES];
	struct user_frame user[MOST_USER_FRAMES];
};

/*
 * How much of a stack is copied. Every event with a copy takes so much room in the ring, whatever
 * the stack needs. perf copies 8 KiB unless it is told otherwise, and at most 64 KiB. The copy is
 * made in pieces, because a read fails as a whole if a part of it cannot be read: behind the end of
 * the stack, or in a page that is swapped out. A piece is a part of a page, whatever the size of
 * pages is.
 */
#define COPIED_STACK (32 << 10)
#define COPIED_PIECE (1 << 10)

/* The words of struct pt_regs up to the last that is read: 21 of x86-64, 34 of arm64. */
#define MOST_REGISTERS 34

/*
 * An event with the registers and the stack of its thread, for a reader that finds the calls by
 * them. The size is always the same: before Linux 5.19 (commit bc34dee65a65) a program can ask for
 * room of a constant size only, and a copy that is made outside of the ring first could be
 * overwritten, because another task may run the same program on the same processor meanwhile.
 */
struct event_copied {
	struct event_stacks stacks;
	/* As the kernel keeps them. Zeros: the thread has none, or the kernel does not tell. */
	u64 registers[MOST_REGISTERS];
	/*
	 * Where the stack and the code of the process begin. They were chosen when it executed its
	 * program, so they tell whether it has executed another one since.
	 */
	u64 start_stack;
	u64 start_code;
	/* The address of the first byte that is copied: the stack pointer or a little below. */
	u64 copied_from;
	/* How many bytes are. */
	u32 copied;
	u32 unused;
	u8 copy[COPIED_STACK];
};

/* What was lost, by cause. */
struct losses {
	/* Events for which the ring had no room. */
	u64 ring;
	/* Processes of the command that is traced, or their buffers, without room in a map. */
	u64 map;
};

#endif
