/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * The flight recorder's own structures: what its map keeps of a birth, and the records in which its
 * iterators show that.
 */
#ifndef LSBUF_ORIGINS_H
#define LSBUF_ORIGINS_H

#include "passing.h"

/* How many living buffers have a record, unless another number is chosen when it is installed. */
#define MOST_LIVING 65536

/* What is kept of a birth: less than 2 KiB, the size in which the kernel allocates it. */
struct birth {
	u64 ino;
	u64 born;
	u64 started;
	u64 cgroup;
	u32 dev;
	u32 what;
	u32 tgid;
	u32 tid;
	u32 uid;
	u32 generation;
	u32 task_flags;
	/* As get_stack returned it: bytes, or a negative error number. */
	s32 kernel_bytes;
	s32 user_bytes;
	/* The inode number of the maker's IPC namespace. */
	u32 ipc;
	u32 complete;
	/* 1: there may be a record of its client. */
	u16 passed;
	/* 1: there was no room for that. */
	u16 client_lost;
	char comm[16];
	char thread[16];
	u64 kernel[MOST_KERNEL_FRAMES];
	struct user_frame user[MOST_USER_FRAMES];
};

/* birth.what and origin.what: what the record's object is. */
#define ORIGIN_INODE 1
#define ORIGIN_DMABUF 2

/*
 * The buffer that a client is of: the address of the kernel's object, and when it was made. Another
 * object that gets the address later is another buffer.
 */
struct client_key {
	u64 object;
	u64 born;
};

/* The process that received a buffer first from its maker, as far as that is known. */
struct client {
	u64 started;
	u64 cgroup;
	/* When, by the clock since boot. */
	u64 received;
	u32 state;
	u32 tgid;
	u32 tid;
	u32 uid;
	char comm[16];
};

/* client.state */
/* Nobody was seen to receive the buffer from its maker. There is no such record. */
#define CLIENT_NONE 0
/* This process was given it, and it is not known yet, or never, whether it could take it. */
#define CLIENT_OFFERED 1
#define CLIENT_RECEIVED 2
/* Some process may have received it from its maker, and it is not known which. */
#define CLIENT_UNCLEAR 3
/* Only in records of the iterators: there was no room to keep it. */
#define CLIENT_LOST 4

/* What is counted from the installation on. */
struct counts {
	u64 births;
	u64 deaths;
	/* Births for which there was no room. */
	u64 full;
};

/* The recorder as a whole. All zero until all of it runs. */
struct about {
	/* From when on births are recorded: by the clock since boot, and by the wall clock. */
	u64 since;
	u64 since_wall;
	/* How many living buffers have room, and which births are recorded (hooks.rs). */
	u32 most;
	u32 watched;
};

/* What a record of the flight recorder's iterators describes. */
enum origin_kind {
	/* A birth. */
	ORIGIN = 1,
	/*
	 * The stack of the program in the record before: a header, and struct user_frame after it.
	 */
	ORIGIN_USER = 2,
	/*
	 * The stack in the kernel: a header, whose size is its own alone, and lines of text up to
	 * an empty one. The kernel writes its own names there, so no address of it is told.
	 */
	ORIGIN_KERNEL = 3,
	/* The last record. */
	ORIGIN_COUNTS = 4,
};

struct origin {
	struct head head;
	/* As it is now. That of a System V segment is changed after its birth. */
	u64 ino;
	u64 born;
	u64 started;
	u64 cgroup;
	u32 dev;
	u32 what;
	u32 tgid;
	u32 tid;
	u32 uid;
	u32 task_flags;
	s32 kernel_bytes;
	s32 user_bytes;
	u32 ipc;
	u32 flags;
	char comm[16];
	char thread[16];
	struct client client;
};

/* origin.flags: it is a System V segment. */
#define ORIGIN_SEGMENT 1

struct origin_counts {
	struct head head;
	struct counts counts;
	struct about about;
};

#endif
