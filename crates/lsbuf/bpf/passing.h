/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * From whom a process receives a file. The kernel puts a received file into the fd table of the
 * current process, and does not say there who gave it. These programs remember it meanwhile:
 *
 * - A message over a Unix socket. The list of its files that is queued when it is sent is handed
 *   over when it is received (scm_detach_fds). So the address of the list says who sent it. It is
 *   forgotten when the list is freed (__scm_destroy). Some kernels queue a copy of the sender's
 *   list (scm_fp_dup), and others that list itself (unix_prepare_fpl).
 * - pidfd_getfd, by which a process takes a file. The other process has not given it.
 *
 * What is received outside of these two is by another way: a supervisor of seccomp has added it, or
 * a driver has installed it.
 *
 * A message may be looked at before it is received (MSG_PEEK). The kernel copies the list for that.
 * Such a copy has the sender of the list that it was made from.
 *
 * Limits: who wrote a message is the process that called the kernel for it. If the copy was made
 * before these programs ran, or there was no room to remember it, the sender is not known. So it
 * is if a program was skipped: the kernel does not run one that is interrupted on the same
 * processor. Each can be attached several times, because each may do its work twice.
 */
#ifndef LSBUF_PASSING_H
#define LSBUF_PASSING_H

#include "births.h"

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct scm_cookie {
	struct scm_fp_list *fp;
};

struct upid {
	s32 nr;
};

struct pid {
	struct hlist_head tasks[1];
	struct upid numbers[1];
};

struct task_struct___pid_links {
	struct hlist_node pid_links[1];
};

#pragma clang attribute pop

/* giver.way */
/* It is not known by which. */
#define PASSED_UNKNOWN 0
/* By a message. If tgid is 0, it is not known who has sent that. */
#define PASSED_IN_MESSAGE 1
/* The receiver has taken it from that process. */
#define PASSED_TAKEN 2

/* A process that a file comes from, and by which way. */
struct giver {
	u64 started;
	/* The list of the message's files. */
	u64 list;
	u32 tgid;
	u32 way;
	char comm[16];
};

/* Who has sent a list of files that was not freed yet, by the address of the list. */
struct {
	/* BPF_MAP_TYPE_HASH */
	int (*type)[1];
	int (*max_entries)[16384];
	/* BPF_F_NO_PREALLOC */
	int (*map_flags)[1];
	u64 *key;
	struct giver *value;
} senders SEC(".maps");

/* From whom a thread receives files just now. */
struct {
	/* BPF_MAP_TYPE_HASH */
	int (*type)[1];
	int (*max_entries)[1024];
	int (*map_flags)[1];
	u32 *key;
	struct giver *value;
} givers SEC(".maps");

/* The process of a thread. */
static always_inline void describe_giver(struct giver *giver, struct task_struct *task)
{
	struct task_struct *leader = 0;

	peek(leader, task->group_leader);
	peek(giver->tgid, task->tgid);
	peek(giver->started, leader->start_boottime);
	probe_read(giver->comm, sizeof(giver->comm), &leader->comm);
}

/* From whom the current thread receives a file. */
static always_inline void giver_of_current(struct giver *giver)
{
	u32 tid = current_pid_tgid();
	struct giver *found = map_lookup(&givers, &tid);

	if (found)
		*giver = *found;
}

static always_inline void remember_giver(struct giver *giver)
{
	u32 tid = current_pid_tgid();

	/* Without room, what is received has no known giver. An older one must not stay. */
	if (map_update(&givers, &tid, giver, 0))
		map_delete(&givers, &tid);
}

static always_inline void forget_giver(void)
{
	u32 tid = current_pid_tgid();

	map_delete(&givers, &tid);
}

/* Remembers who has sent a list: the sender of the list that it is a copy of, or this process. */
static always_inline void remember_sender(u64 list, u64 copied_from)
{
	struct giver giver = { .way = PASSED_IN_MESSAGE };
	struct giver *peeked = copied_from ? map_lookup(&senders, &copied_from) : 0;

	if (peeked)
		giver = *peeked;
	else
		describe_giver(&giver, (void *)current_task());
	giver.list = list;
	if (map_update(&senders, &list, &giver, 0))
		map_delete(&senders, &list);
}

/* struct scm_fp_list *scm_fp_dup(struct scm_fp_list *fpl) */
SEC("fexit/scm_fp_dup")
int list_copied(u64 *context)
{
	u64 argument = context[0], result = context[1];
	u64 list = unknown(&argument), copy = unknown(&result);

	if (!is_error(copy))
		remember_sender(copy, list);
	return 0;
}

/* int unix_prepare_fpl(struct scm_fp_list *fpl): the list is about to be queued. */
SEC("fentry/unix_prepare_fpl")
int list_queued(u64 *context)
{
	u64 argument = context[0];

	remember_sender(unknown(&argument), 0);
	return 0;
}

/* void scm_detach_fds(struct msghdr *msg, struct scm_cookie *scm, …) */
SEC("fentry/scm_detach_fds")
int list_arrives(u64 *context)
{
	struct giver giver = { .way = PASSED_IN_MESSAGE }, *sender;
	struct scm_cookie *message = (void *)context[1];
	u64 list = 0;

	peek(list, message->fp);
	sender = map_lookup(&senders, &list);
	if (sender)
		giver = *sender;
	giver.list = list;
	remember_giver(&giver);
	return 0;
}

/* void __scm_destroy(struct scm_cookie *scm): it is the last thing that scm_detach_fds does. */
SEC("fentry/__scm_destroy")
int list_freed(u64 *context)
{
	struct scm_cookie *message = (void *)context[0];
	u32 tid = current_pid_tgid();
	struct giver *giver;
	u64 list = 0;

	peek(list, message->fp);
	map_delete(&senders, &list);
	giver = map_lookup(&givers, &tid);
	if (giver && giver->list == list)
		map_delete(&givers, &tid);
	return 0;
}

/* int pidfd_getfd(struct pid *pid, int fd) */
SEC("fentry/pidfd_getfd")
int file_taken(u64 *context)
{
	struct giver giver = { .way = PASSED_TAKEN };
	struct task_struct___pid_links *links = 0;
	struct pid *pid = (void *)context[0];
	struct hlist_node *node = 0;

	/* The first list has the thread whose number it is. */
	peek(node, pid->tasks[0].first);
	if (node && exists(links->pid_links))
		describe_giver(&giver, (void *)((char *)node - place_of(links->pid_links)));
	else
		peek(giver.tgid, pid->numbers[0].nr);
	remember_giver(&giver);
	return 0;
}

/* The end of scm_detach_fds and of pidfd_getfd: what comes later has another giver. */
SEC("fexit/scm_detach_fds")
int list_arrived(u64 *context)
{
	forget_giver();
	return 0;
}

SEC("fexit/pidfd_getfd")
int file_was_taken(u64 *context)
{
	forget_giver();
	return 0;
}

#endif
