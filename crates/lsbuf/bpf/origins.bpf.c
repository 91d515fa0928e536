/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * The flight recorder: who made each living buffer, when, and where in its code; and which process
 * received it first from its maker.
 *
 * Some programs run when a buffer is born and when it dies. They keep one record for each living
 * buffer in a map, whose key is the address of the kernel's object. Two iterators show the map,
 * without that address: one with stacks and one without, which takes a tenth of the time.
 *
 * Every inode of tmpfs is a birth, also one of a memfd, a System V segment or anonymous shared
 * memory, because all of them are made by one function of the kernel. So is every inode of
 * hugetlbfs. Folders and links are left out.
 *
 * A program is not run while it is interrupted on the same processor (since Linux 5.12, commit
 * 9ed9e9ba2337). A kernel that preempts itself may run another task then, for milliseconds, and all
 * births in that would be lost. So each program that records births is attached several times: the
 * first copy that runs makes the record. What all copies missed the kernel has counted
 * (recursion_misses). What was lost because there was no room is counted here.
 */
#include "origins.h"

struct {
	/* BPF_MAP_TYPE_HASH */
	int (*type)[1];
	int (*max_entries)[MOST_LIVING];
	/* BPF_F_NO_PREALLOC: only what lives takes memory. */
	int (*map_flags)[1];
	u64 *key;
	struct birth *value;
} living SEC(".maps");

/* A record with nothing in it. The record is too large for the stack of a program. */
struct {
	/* BPF_MAP_TYPE_ARRAY */
	int (*type)[2];
	int (*max_entries)[1];
	u32 *key;
	struct birth *value;
} blank SEC(".maps");

struct {
	/* BPF_MAP_TYPE_ARRAY */
	int (*type)[2];
	int (*max_entries)[1];
	u32 *key;
	struct counts *value;
} counts SEC(".maps");

/* What lsbuf says of the recorder when all of it runs. */
struct {
	/* BPF_MAP_TYPE_ARRAY */
	int (*type)[2];
	int (*max_entries)[1];
	u32 *key;
	struct about *value;
} about SEC(".maps");

/*
 * Whether the object at this address is still the one that was recorded, and which inode number it
 * has now: that of a System V segment is changed after its birth. A death that was not noticed
 * leaves a record behind. Nothing refers to the inode then, or another one has got its address.
 */
static always_inline int is_same(struct birth *birth, u64 address, u64 *ino)
{
	struct dma_buf *dmabuf = (void *)address;
	struct inode *inode = (void *)address;
	struct file *file = 0;
	u32 generation = 0;
	s32 references = 0;

	if (birth->what == ORIGIN_DMABUF) {
		peek(file, dmabuf->file);
		peek(inode, file->f_inode);
	}
	peek(references, inode->i_count.counter);
	peek(*ino, inode->i_ino);
	peek(generation, ((struct inode___generation *)inode)->i_generation);
	return references > 0 && generation == birth->generation &&
	       (birth->what != ORIGIN_DMABUF || *ino == birth->ino);
}

#include "clients.h"

/*
 * How many arguments these functions have: shmem_get_inode or __shmem_get_inode, and
 * hugetlbfs_get_inode. The function's result comes after them.
 */
volatile const u32 shmem_arguments = 0;
volatile const u32 huge_arguments = 0;

#define count(what)                                               \
	({                                                        \
		u32 at = 0;                                       \
		struct counts *all = map_lookup(&counts, &at);    \
		if (all)                                          \
			__sync_fetch_and_add(&all->what, 1);      \
	})

/*
 * Begins the record of what is at this address. Returns null if there is no room, or if another
 * copy of the program has made the record.
 */
static always_inline struct birth *begin(u64 address, struct inode *inode)
{
	struct birth *empty, *birth;
	struct super_block *fs = 0;
	u32 at = 0, generation = 0;
	u64 ino = 0;

	peek(ino, inode->i_ino);
	peek(generation, ((struct inode___generation *)inode)->i_generation);
	birth = map_lookup(&living, &address);
	if (birth && birth->ino == ino && birth->generation == generation)
		return 0;
	empty = map_lookup(&blank, &at);
	birth = 0;
	if (empty && !map_update(&living, &address, empty, 0))
		birth = map_lookup(&living, &address);
	if (!birth) {
		count(full);
		return 0;
	}
	count(births);
	birth->ino = ino;
	birth->generation = generation;
	peek(fs, inode->i_sb);
	peek(birth->dev, fs->s_dev);
	return birth;
}

static always_inline void fill(void *context, struct birth *birth)
{
	struct task_struct *task = (void *)current_task(), *leader = 0;
	struct ipc_namespace *ipc = 0;
	struct nsproxy *spaces = 0;
	u64 ids = current_pid_tgid();
	long length;

	birth->born = boot_ns();
	birth->cgroup = current_cgroup();
	birth->uid = current_uid();
	birth->tid = ids;
	birth->tgid = ids >> 32;
	current_comm(birth->thread, sizeof(birth->thread));
	peek(leader, task->group_leader);
	peek(birth->started, leader->start_boottime);
	probe_read(birth->comm, sizeof(birth->comm), &leader->comm);
	peek(birth->task_flags, task->flags);
	peek(spaces, task->nsproxy);
	peek(ipc, spaces->ipc_ns);
	peek(birth->ipc, ipc->ns.inum);
	birth->kernel_bytes = get_stack(context, birth->kernel, sizeof(birth->kernel), 0);
	length = get_stack(context, birth->user, sizeof(birth->user), USER_STACK | USER_BUILD_ID);
	birth->user_bytes = length;
	/* Whoever reads the map now may take the record. */
	barrier();
	birth->complete = 1;
}

/* An inode is made: a regular file of tmpfs or hugetlbfs. */
static always_inline int inode_born(void *context, u64 result)
{
	u64 address = unknown(&result);
	struct inode *inode = (void *)address;
	struct birth *birth;
	u16 mode = 0;

	if (is_error(address))
		return 0;
	peek(mode, inode->i_mode);
	if ((mode & S_IFMT) != S_IFREG)
		return 0;
	birth = begin(address, inode);
	if (!birth)
		return 0;
	birth->what = ORIGIN_INODE;
	fill(context, birth);
	return 0;
}

static always_inline int died(u64 argument)
{
	u64 address = unknown(&argument);
	struct birth *birth = map_lookup(&living, &address);
	struct client_key key = { .object = address };

	if (!birth)
		return 0;
	if (birth->passed) {
		key.born = birth->born;
		map_delete(&clients, &key);
	}
	if (!map_delete(&living, &address))
		count(deaths);
	return 0;
}

/* struct inode *shmem_get_inode(…), and the same with __ before its name */
SEC("fexit/shmem_get_inode")
int shmem_born(u64 *context)
{
	u64 inode;

	if (shmem_arguments == 6)
		inode = result_after(context, 6);
	else
		inode = result_after(context, 5);
	return inode_born(context, inode);
}

/* struct inode *hugetlbfs_get_inode(…) */
SEC("fexit/hugetlbfs_get_inode")
int huge_born(u64 *context)
{
	u64 inode;

	if (huge_arguments == 5)
		inode = result_after(context, 5);
	else
		inode = result_after(context, 4);
	return inode_born(context, inode);
}

/* void shmem_evict_inode(struct inode *inode) */
SEC("fentry/shmem_evict_inode")
int shmem_died(u64 *context)
{
	return died(context[0]);
}

/* void hugetlbfs_evict_inode(struct inode *inode) */
SEC("fentry/hugetlbfs_evict_inode")
int huge_died(u64 *context)
{
	return died(context[0]);
}

/* struct dma_buf *dma_buf_export(const struct dma_buf_export_info *exp_info) */
SEC("fexit/dma_buf_export")
int dmabuf_born(u64 *context)
{
	u64 result = context[1], address = unknown(&result);
	struct dma_buf *dmabuf = (void *)address;
	struct inode *inode = 0;
	struct birth *birth;
	struct file *file = 0;

	if (is_error(address))
		return 0;
	peek(file, dmabuf->file);
	peek(inode, file->f_inode);
	birth = begin(address, inode);
	if (!birth)
		return 0;
	birth->what = ORIGIN_DMABUF;
	fill(context, birth);
	return 0;
}

/* void dma_buf_release(struct dentry *dentry): the buffer's memory is given back. */
SEC("fentry/dma_buf_release")
int dmabuf_died(u64 *context)
{
	struct dentry *dentry = (void *)context[0];
	u64 address = 0;

	peek(address, dentry->d_fsdata);
	return died(address);
}

struct context {
	struct bpf_iter_meta *meta;
	void *map;
	u64 *key;
	struct birth *value;
};

/*
 * Whether the inode is that of a System V segment: the kernel has chosen its file's name. A file
 * that the kernel makes for itself is in no folder.
 */
static always_inline int is_segment(struct inode *inode)
{
	struct dentry___7_2 *newer = 0;
	struct dentry *older = 0, *above = 0;
	struct hlist_node *node = 0;
	u64 place = exists(newer->d_alias) ? place_of(newer->d_alias) : place_of(older->d_u.d_alias);

	peek(node, inode->i_dentry.first);
	if (!node)
		return 0;
	older = (void *)((char *)node - place);
	peek(above, older->d_parent);
	if (above != older)
		return 0;
	return begins_as_segment(older);
}

static always_inline void show_client(struct birth *birth, u64 address, struct client *found)
{
	struct client_key key = { .object = address, .born = birth->born };
	struct client *client;

	if (!birth->passed)
		return;
	client = map_lookup(&clients, &key);
	if (birth->client_lost)
		found->state = CLIENT_LOST;
	else if (client)
		probe_read(found, sizeof(*found), client);
}

static always_inline int show(struct context *context, int stacks)
{
	struct seq_file *seq = context->meta->seq;
	struct birth *birth = context->value;
	u64 *key = context->key, address = 0, ino = 0;
	s32 kernel_bytes, user_bytes;
	u64 bytes;
	record(origin, found);

	if (!birth || !key) {
		record(origin_counts, sums);
		u32 at = 0;
		struct counts *all = map_lookup(&counts, &at);
		struct about *told = map_lookup(&about, &at);

		if (all)
			probe_read(&sums.counts, sizeof(sums.counts), all);
		if (told)
			probe_read(&sums.about, sizeof(sums.about), told);
		put(seq, sums, ORIGIN_COUNTS);
		return 0;
	}
	if (!birth->complete)
		return 0;
	address = *key;
	if (!is_same(birth, address, &ino))
		return 0;
	found.ino = ino;
	found.born = birth->born;
	found.started = birth->started;
	found.cgroup = birth->cgroup;
	found.dev = birth->dev;
	found.what = birth->what;
	found.tgid = birth->tgid;
	found.tid = birth->tid;
	found.uid = birth->uid;
	found.task_flags = birth->task_flags;
	found.ipc = birth->ipc;
	if (birth->what == ORIGIN_INODE && is_segment((void *)address))
		found.flags = ORIGIN_SEGMENT;
	probe_read(found.comm, sizeof(found.comm), birth->comm);
	probe_read(found.thread, sizeof(found.thread), birth->thread);
	kernel_bytes = birth->kernel_bytes;
	user_bytes = birth->user_bytes;
	found.kernel_bytes = kernel_bytes;
	found.user_bytes = user_bytes;
	show_client(birth, address, &found.client);
	put(seq, found, ORIGIN);
	if (!stacks)
		return 0;
	/* The verifier must see that the very register which is passed on was compared. */
	bytes = (u32)user_bytes;
	asm volatile("" : "+r"(bytes));
	if (user_bytes > 0 && bytes <= sizeof(birth->user)) {
		struct head head = { .kind = ORIGIN_USER, .size = sizeof(head) + bytes };

		seq_write(seq, &head, sizeof(head));
		asm volatile("" : "+r"(bytes));
		if (bytes <= sizeof(birth->user))
			seq_write(seq, birth->user, bytes);
	}
	/* The kernel's own names: no address leaves it. Each ends in a line feed. */
	{
		static const char format[] = "%pB\n";
		char end = '\n';
		struct head head = { .kind = ORIGIN_KERNEL, .size = sizeof(head) };

		seq_write(seq, &head, sizeof(head));
#pragma unroll
		for (u32 at = 0; at < MOST_KERNEL_FRAMES; at++) {
			u64 frame;

			if ((s32)(at * 8) >= kernel_bytes)
				break;
			frame = birth->kernel[at];
			seq_printf(seq, format, sizeof(format), &frame, sizeof(frame));
		}
		seq_write(seq, &end, sizeof(end));
	}
	return 0;
}

RECORDS(enum origin_kind origin_kind; struct origin origin; struct client client; struct origin_counts origin_counts; struct user_frame user_frame;);

SEC("iter/bpf_map_elem")
int origins(struct context *context)
{
	return show(context, 0);
}

SEC("iter/bpf_map_elem_stacks")
int origins_stacks(struct context *context)
{
	return show(context, 1);
}
