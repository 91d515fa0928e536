/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * Who received a buffer first from its maker: its client. Where a service makes buffers for others,
 * that is the process that it made one for.
 *
 * A client is proven if the maker itself has sent the buffer in a message over a Unix socket, and
 * this process has received it, and no other one before. Maker and sender are compared by pid and
 * start time. What another process passes on makes no client, and neither does what a process takes
 * (pidfd_getfd). If a process receives a buffer by another way, or the sender is not known, it may
 * have come from the maker. Nobody is called the client then, then or later.
 *
 * Two programs see a receipt: file_offered when it begins, and file_received when it is over. The
 * first makes the record, by an insertion that only the first process succeeds in. The second says
 * that the file is in the table. If the kernel skips one of them, the other leaves a record that
 * names nobody. So a later receipt is taken for the first one only if both were skipped, with all
 * their copies.
 */
#ifndef LSBUF_CLIENTS_H
#define LSBUF_CLIENTS_H

#include "origins.h"

/* Flag of map_update: only if there is no such entry. */
#define IF_NEW 1

struct {
	/* BPF_MAP_TYPE_HASH */
	int (*type)[1];
	int (*max_entries)[MOST_LIVING];
	/* BPF_F_NO_PREALLOC */
	int (*map_flags)[1];
	struct client_key *key;
	struct client *value;
} clients SEC(".maps");

static long (*const probe_read_user)(void *to, u32 size, const void *from) = (void *)112;

/*
 * By which function a file is received, by the place of its result behind its arguments, and by the
 * place of the file:
 * int scm_recv_one_fd(struct file *f, int *ufd, unsigned int flags, bool notrunc), Linux 7.3
 * int receive_fd(struct file *file, int *ufd, unsigned int o_flags), from Linux 6.12 on
 * int __receive_fd(struct file *file, int *ufd, unsigned int o_flags), Linux 6.1
 * int __receive_fd(int fd, struct file *file, int *ufd, unsigned int o_flags), Linux 5.10
 */
volatile const u32 receive_arguments = 0;
volatile const u32 received_file = 0;

/* What a receipt means for the buffer's client. */
enum receipt {
	/* Nothing. */
	RECEIPT_OF_NO_USE,
	RECEIPT_FROM_MAKER,
	/* It may be from the maker. */
	RECEIPT_UNCLEAR,
};

/* The record of the buffer that an open file is, or null. */
static always_inline struct birth *birth_of(struct file *file, struct client_key *key)
{
	struct super_block *fs = 0;
	struct inode *inode = 0;
	struct birth *birth;
	void *private = 0;
	u64 magic = 0, ino = 0;

	peek(inode, file->f_inode);
	peek(fs, inode->i_sb);
	peek(magic, fs->s_magic);
	if (magic == DMA_BUF_MAGIC) {
		peek(private, file->private_data);
		key->object = unknown((u64 *)&private);
	} else if (magic == TMPFS_MAGIC || magic == HUGETLBFS_MAGIC) {
		key->object = unknown((u64 *)&inode);
	} else {
		return 0;
	}
	birth = map_lookup(&living, &key->object);
	if (!birth || !birth->complete || !is_same(birth, key->object, &ino))
		return 0;
	key->born = birth->born;
	return birth;
}

/* What it means that the current process receives a buffer. Describes the process. */
static always_inline enum receipt judge(struct birth *birth, struct client *client)
{
	struct task_struct *task = (void *)current_task(), *leader = 0;
	u64 ids = current_pid_tgid();
	struct giver giver = {};
	u32 flags = 0;

	client->tid = ids;
	client->tgid = ids >> 32;
	peek(leader, task->group_leader);
	peek(client->started, leader->start_boottime);
	if (client->tgid == birth->tgid && client->started == birth->started)
		return RECEIPT_OF_NO_USE;
	giver_of_current(&giver);
	if (giver.way == PASSED_TAKEN)
		return RECEIPT_OF_NO_USE;
	peek(flags, task->flags);
	/*
	 * If a message is looked at, and its sender is not known, the receiver seems to be the
	 * sender.
	 */
	if (giver.way != PASSED_IN_MESSAGE || !giver.tgid || flags & PF_KTHREAD ||
	    (giver.tgid == client->tgid && giver.started == client->started))
		return RECEIPT_UNCLEAR;
	if (giver.tgid != birth->tgid || giver.started != birth->started)
		return RECEIPT_OF_NO_USE;
	client->cgroup = current_cgroup();
	client->uid = current_uid();
	client->received = boot_ns();
	probe_read(client->comm, sizeof(client->comm), &leader->comm);
	return RECEIPT_FROM_MAKER;
}

/* Makes the record, unless there is one. */
static always_inline void keep_client(struct birth *birth, struct client_key *key, struct client *client)
{
	birth->passed = 1;
	/* The buffer's end must find it. */
	barrier();
	if (map_update(&clients, key, client, IF_NEW) && !map_lookup(&clients, key))
		birth->client_lost = 1;
}

/* int security_file_receive(struct file *file): the current process is about to receive it. */
SEC("fentry/security_file_receive")
int file_offered(u64 *context)
{
	struct client_key key = {};
	struct birth *birth = birth_of((void *)context[0], &key);
	struct client client = {};

	if (!birth || map_lookup(&clients, &key))
		return 0;
	switch (judge(birth, &client)) {
	case RECEIPT_FROM_MAKER:
		client.state = CLIENT_OFFERED;
		break;
	case RECEIPT_UNCLEAR:
		client.state = CLIENT_UNCLEAR;
		break;
	default:
		return 0;
	}
	keep_client(birth, &key, &client);
	return 0;
}

static always_inline int received(struct file *file, s32 result)
{
	struct client client = { .state = CLIENT_UNCLEAR }, *known;
	struct client_key key = {};
	struct birth *birth = birth_of(file, &key);
	enum receipt receipt;

	if (!birth)
		return 0;
	known = map_lookup(&clients, &key);
	if (known && known->state != CLIENT_OFFERED)
		return 0;
	receipt = judge(birth, &client);
	if (receipt == RECEIPT_OF_NO_USE)
		return 0;
	if (known) {
		if (known->tid != client.tid || known->tgid != client.tgid || known->started != client.started)
			return 0;
		known->state = receipt == RECEIPT_FROM_MAKER && result >= 0 ? CLIENT_RECEIVED : CLIENT_UNCLEAR;
	} else if (result >= 0) {
		/* file_offered was skipped. */
		keep_client(birth, &key, &client);
	}
	return 0;
}

/*
 * Whether scm_recv_one_fd has received a file. If the socket asks for it (notrunc), one that could
 * not be received has an error number in the place of its fd, and that is no error of the function.
 */
static always_inline s32 with_fd(u64 *context)
{
	s32 result = result_after(context, 4), fd = -1;

	if (result >= 0 && (u8)context[3]) {
		probe_read_user(&fd, sizeof(fd), (void *)context[1]);
		return fd;
	}
	return result;
}

/* One of the functions above. */
SEC("fexit/receive_fd")
int file_received(u64 *context)
{
	if (receive_arguments == 3)
		return received((void *)context[0], result_after(context, 3));
	if (received_file == 1)
		return received((void *)context[1], result_after(context, 4));
	return received((void *)context[0], with_fd(context));
}

#endif
