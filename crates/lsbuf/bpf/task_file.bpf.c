/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * Lists what every fd table holds: dma-bufs, devices whose drivers may hold dma-bufs, files in
 * messages that wait in sockets, io_urings and sync_files; and shared memory if that is looked for.
 *
 * The iterator itself leaves out threads that share the fd table of their leader.
 */
#include "shmem.h"
#include "udmabuf.h"

struct context {
	struct bpf_iter_meta *meta;
	struct task_struct *task;
	u32 fd;
	struct file *file;
};

/* The fd that is looked at, and the task that it belongs to. */
struct slot {
	void *seq;
	u32 tgid;
	u32 tid;
	u32 fd;
};

/*
 * What the records of all fds have, whatever they are of. `table` is the address of the fd table.
 */
#define fill_fd(found, slot, task, file, table)                   \
	({                                                        \
		(found).files = mixed(table);                     \
		(found).program = program_of(task);               \
		(found).tgid = (slot)->tgid;                      \
		(found).tid = (slot)->tid;                        \
		(found).fd = (slot)->fd;                          \
		(found).path_only = !!((file)->f_mode & FMODE_PATH); \
		(found).count = references(file, 1);              \
	})

/* Not inlined, like those below, to leave stack for the walk over the queues of sockets. */
static never_inline int dmabuf_fd(struct slot *slot, struct task_struct *task, struct file *file,
					       struct inode *inode)
{
	record(fd, found);
	u64 table = 0;

	peek(table, task->files);
	found.ino = inode->i_ino;
	fill_fd(found, slot, task, file, table);
	if (describe_each || found.path_only) {
		record(buffer, buffer);

		if (found.path_only) {
			/*
			 * An O_PATH file has no private_data. The dma-buf lives as long as its
			 * dentry, which points to it.
			 */
			struct dma_buf *dmabuf = 0;

			buffer.flags = BUFFER_PATH_ONLY;
			describe_inode(&buffer, inode);
			peek(dmabuf, file->f_path.dentry->d_fsdata);
			describe_name(&buffer, dmabuf);
		} else {
			describe(&buffer, file->private_data, inode);
			buffer.count = found.count;
			buffer.count_after = found.count;
		}
		put(slot->seq, buffer, BUFFER);
	}
	put(slot->seq, found, FD);
	return 0;
}

static never_inline int device_fd(struct slot *slot, struct task_struct *task, struct inode *inode)
{
	u32 major = inode->i_rdev >> 20;
	record(device_fd, found);

	/*
	 * Memory, terminals, input, sound and pseudo terminals: nearly all fds of character
	 * devices, and their drivers hold no dma-bufs.
	 */
	if (major == 1 || major == 4 || major == 5 || major == 13 || major == 116 || (major >= 136 && major <= 143))
		return 0;
	found.program = program_of(task);
	found.tgid = slot->tgid;
	found.fd = slot->fd;
	found.rdev = inode->i_rdev;
	put(slot->seq, found, DEVICE);
	return 0;
}

static never_inline int keeper(struct slot *slot, u64 ino, u32 what)
{
	record(keeper, found);

	found.ino = ino;
	found.tgid = slot->tgid;
	found.tid = slot->tid;
	found.fd = slot->fd;
	found.what = what;
	put(slot->seq, found, KEEPER);
	return 0;
}

static never_inline int shmem_fd(struct slot *slot, struct task_struct *task, struct file *file, struct inode *inode)
{
	union {
		const void *pointers[3];
		u64 numbers[3];
	} at = { .pointers = { file, inode, task->files } };
	u64 ino = inode->i_ino;
	record(shm_fd, found);

	if (!is_listed(inode->i_sb->s_magic))
		describe_unlisted(slot->seq, file);
	/*
	 * One read makes numbers of all pointers, where they are: this is done for each fd of
	 * shared memory, and there is little stack.
	 */
	probe_read(at.numbers, sizeof(at), at.pointers);
	found.object = object_id_of(at.numbers[1], ino);
	found.file = file_id_of(at.numbers[0], at.numbers[1], ino);
	fill_fd(found, slot, task, file, at.numbers[2]);
	put(slot->seq, found, SHM_FD);
	return 0;
}

/* The state of the walk over the files of one message. */
struct message {
	struct slot slot;
	u64 socket;
	struct scm_fp_list *files;
	u64 nested;
	/*
	 * The bytes that this step has written. All that waits in one socket must fit into one
	 * step.
	 */
	u64 written;
};

/*
 * When more than this is written, the walk ends: a description, the record of a file in a message
 * and two keepers would not fit any more.
 */
#define MOST_WRITTEN (STEP_ROOM - 512)

static always_inline int is_full(struct message *message)
{
	return unknown(&message->written) > MOST_WRITTEN;
}

static always_inline void add_written(struct message *message, u32 bytes)
{
	message->written = unknown(&message->written) + bytes;
}

#define fill_waiting(found, message)                  \
	({                                            \
		(found).socket = (message)->socket;   \
		(found).tgid = (message)->slot.tgid;  \
		(found).tid = (message)->slot.tid;    \
		(found).fd = (message)->slot.fd;      \
	})

/* Writes a file in a message. The verifier does not know its address. */
static never_inline int waiting_shmem(struct message *message, struct file *file, struct inode *inode)
{
	record(shm_in_flight, found);
	u32 mode = 0;

	peek(mode, file->f_mode);
	found.object = object_id(inode);
	found.file = file_id(file);
	/*
	 * references() leaves out the iterator's own reference, but here the iterator holds none.
	 */
	found.count = references(file, 0) + 1;
	found.path_only = !!(mode & FMODE_PATH);
	fill_waiting(found, message);
	put(message->slot.seq, found, SHM_IN_FLIGHT);
	add_written(message, sizeof(found));
	return 0;
}

static long one_file(u32 at, struct message *message)
{
	struct super_block *fs = 0;
	struct inode *inode = 0;
	struct file *file = 0;
	u64 magic = 0;

	if (is_full(message))
		return 1;
	probe_read(&file, sizeof(file), (char *)&message->files->fp + at * sizeof(file));
	peek(inode, file->f_inode);
	peek(fs, inode->i_sb);
	peek(magic, fs->s_magic);
	if (magic == DMA_BUF_MAGIC) {
		record(in_flight, found);

		peek(found.ino, inode->i_ino);
		fill_waiting(found, message);
		put(message->slot.seq, found, IN_FLIGHT);
		add_written(message, sizeof(found));
	} else if (magic == SOCKFS_MAGIC || magic == ANON_INODE_FS_MAGIC) {
		/* A value that the verifier knows would make it follow the loop once more. */
		message->nested++;
	} else if (shmem) {
		u16 mode = 0;

		peek(mode, inode->i_mode);
		if (!is_shmem(magic, mode))
			return 0;
		add_written(message, describe_unlisted(message->slot.seq, file));
		waiting_shmem(message, file, inode);
	}
	return 0;
}

/*
 * The state of the walk over the queue of a socket, and over the queues of the connections that
 * wait in it.
 */
struct queue {
	struct message message;
	void *end;
	struct sk_buff *next;
	/* Where the walk continues in the listener's queue when it has finished a connection's. */
	void *listener_end;
	struct sk_buff *listener_next;
	u8 state;
	u32 done;
};

static long one_message(u32 at, struct queue *queue)
{
	struct sk_buff *skb = queue->next;
	struct scm_fp_list *files = 0;
	struct sock *sk = 0;
	short count = 0;

	if (!skb || (void *)skb == queue->end) {
		if (!queue->listener_end) {
			queue->done = 1;
			return 1;
		}
		queue->end = queue->listener_end;
		queue->next = queue->listener_next;
		forget(queue->listener_end);
		return 0;
	}
	peek(queue->next, skb->next);
	if (queue->state == TCP_LISTEN && !queue->listener_end) {
		peek(sk, skb->sk);
		if (!sk)
			return 0;
		queue->listener_end = queue->end;
		queue->listener_next = queue->next;
		queue->end = &sk->sk_receive_queue;
		peek(queue->next, sk->sk_receive_queue.next);
		return 0;
	}
	peek(files, ((struct unix_skb_parms *)&skb->cb)->fp);
	if (!files)
		return 0;
	peek(count, files->count);
	queue->message.files = files;
	if (count > 0)
		loop(count, one_file, &queue->message, 0);
	return is_full(&queue->message);
}

static always_inline void socket_fd(struct slot *slot, struct file *file, struct inode *inode)
{
	struct socket *socket = file->private_data;
	struct sk_buff *next = 0;
	struct queue queue;
	struct sock *sk = 0;
	u16 family = 0;

	peek(sk, socket->sk);
	if (!sk)
		return;
	/* In most sockets nothing waits. */
	peek(next, sk->sk_receive_queue.next);
	if (!next || (void *)next == (void *)&sk->sk_receive_queue)
		return;
	peek(family, sk->__sk_common.skc_family);
	if (family != AF_UNIX)
		return;
	forget(queue);
	queue.message.slot = *slot;
	queue.message.socket = inode->i_ino;
	queue.next = next;
	queue.end = &sk->sk_receive_queue;
	peek(queue.state, sk->__sk_common.skc_state);
	loop(1 << 16, one_message, &queue, 0);
	if (!queue.done)
		keeper(slot, inode->i_ino, KEEPER_SOCKET);
	if (queue.message.nested)
		keeper(slot, inode->i_ino, KEEPER_NESTED);
}

static never_inline int sync_fd(struct slot *slot, struct task_struct *task)
{
	record(sync_fd, found);

	found.program = program_of(task);
	found.files = id_of(task->files);
	found.tgid = slot->tgid;
	found.tid = slot->tid;
	found.fd = slot->fd;
	put(slot->seq, found, SYNC_FILE);
	return 0;
}

static always_inline void anon_fd(struct slot *slot, struct task_struct *task, struct file *file, struct inode *inode)
{
	if (is_ring(file))
		keeper(slot, inode->i_ino, KEEPER_RING);
	else if (is_called(file, "sync_file", sizeof("sync_file") - 1))
		sync_fd(slot, task);
	else if (shmem && is_called(file, "[kvm-gmem]", sizeof("[kvm-gmem]") - 1))
		shmem_fd(slot, task, file, inode);
}

RECORDS(struct fd fd; struct buffer buffer; struct device_fd device_fd; struct in_flight in_flight; struct keeper keeper; struct shm_inode shm_inode; struct shm_fd shm_fd; struct shm_in_flight shm_in_flight; struct sync_fd sync_fd; struct memfd_pages memfd_pages; struct gem_file gem_file; struct end end;);

SEC("iter/task_file")
int fds(struct context *context)
{
	struct task_struct *task = context->task;
	struct file *file = context->file;
	struct slot slot = {};
	struct inode *inode;
	u64 magic;

	if (!task) {
		write_end(context->meta);
		return 0;
	}
	if (!file)
		return 0;
	slot.seq = context->meta->seq;
	slot.tgid = task->tgid;
	slot.tid = task->pid;
	slot.fd = context->fd;
	inode = file->f_inode;
	magic = inode->i_sb->s_magic;
	if (magic == DMA_BUF_MAGIC) {
		/*
		 * The pages come before the buffer's record, as in the iterator that lists the
		 * buffers.
		 */
		if (shmem && describe_each && !(file->f_mode & FMODE_PATH)) {
			show_pages(slot.seq, file->private_data);
			show_gem_file(slot.seq, file->private_data);
		}
		dmabuf_fd(&slot, task, file, inode);
	} else if (shmem && is_shmem(magic, inode->i_mode))
		shmem_fd(&slot, task, file, inode);
	else if (file->f_mode & FMODE_PATH)
		return 0;
	else if (magic == SOCKFS_MAGIC)
		socket_fd(&slot, file, inode);
	else if (magic == ANON_INODE_FS_MAGIC)
		anon_fd(&slot, task, file, inode);
	else if ((inode->i_mode & S_IFMT) == S_IFCHR)
		device_fd(&slot, task, inode);
	return 0;
}
