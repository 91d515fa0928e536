/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * Shared by all iterators: the kernel structures that they read, the helpers that they call, and
 * the records that they write. The structures have only the fields that are read, and are relocated
 * to the running kernel when a program is loaded (CO-RE).
 *
 * A record begins with its kind and its length. Numbers are in the machine's byte order.
 * crates/lsbuf/src/kernel/bpf/record.rs reads the records. No kernel address leaves the kernel. In
 * its place there is an id, a keyed hash of the address: the same for one object as long as it
 * lives. The address cannot be computed from it.
 */
#ifndef LSBUF_H
#define LSBUF_H

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef int s32;
typedef unsigned long long u64;
typedef long long s64;

#define SEC(name) __attribute__((section(name), used))
#define always_inline inline __attribute__((always_inline))
#define never_inline __attribute__((noinline, unused))
/*
 * A function that the verifier looks at once, by itself, and not again at every call. It knows
 * nothing about the arguments: a number may be any, and a pointer may be null.
 */
#define verified_once __attribute__((noinline))

/* Helpers, by their number in include/uapi/linux/bpf.h. */
static long (*const map_update)(void *map, const void *key, const void *value, u64 flags) = (void *)2;
static void *(*const map_lookup)(void *map, const void *key) = (void *)1;
static long (*const probe_read)(void *to, u32 size, const void *from) = (void *)113;
static long (*const probe_read_str)(void *to, u32 size, const void *from) = (void *)115;
static long (*const seq_write)(void *seq, const void *data, u32 size) = (void *)127;
static long (*const loop)(u32 rounds, void *step, void *context, u64 flags) = (void *)181;

#define exists(field) __builtin_preserve_field_info(field, 2)
/* The offset of a field in its structure. */
#define place_of(field) __builtin_preserve_field_info(field, 0)
/*
 * The structure that has the member at this address. offsetof would give the offset in the
 * shortened structures below, not in the kernel's.
 */
#define container(address, type, member) \
	((type *)((char *)(address)-place_of(((type *)0)->member)))
/*
 * Reads one field through an address that the verifier knows nothing about. Pointers are followed
 * in this way even where the verifier knows the address: before Linux 7.0 it takes about 0.1 ms of
 * a program's loading time for each pointer that is read directly (btf_find_by_name_kind). Numbers
 * are better read directly.
 */
#define peek(to, address) probe_read(&(to), sizeof(to), &(address))

/*
 * Fills with zeros whose values the verifier does not know, as a read that fails writes zeros. For
 * values that it knows, the verifier would follow a loop once for every combination.
 */
#define forget(what) probe_read(&(what), sizeof(what), 0)

/*
 * Reads a number so that the verifier knows nothing about it. For a range that it knows, the
 * verifier would follow a loop once for every step.
 */
static always_inline u64 unknown(const u64 *number)
{
	u64 read = 0;

	probe_read(&read, sizeof(read), number);
	return read;
}

/*
 * How much the kernel keeps for one step of an iterator (bpf_seq_read in kernel/bpf/bpf_iter.c). A
 * step that writes more ends the whole reading with E2BIG.
 */
#define STEP_ROOM (32 << 10)

#define DMA_BUF_MAGIC 0x444d4142
#define TMPFS_MAGIC 0x01021994
#define HUGETLBFS_MAGIC 0x958458f6
#define SECRETMEM_MAGIC 0x5345434d
#define GUEST_MEMFD_MAGIC 0x474d454d
#define ANON_INODE_FS_MAGIC 0x09041934
#define SOCKFS_MAGIC 0x534f434b
#define FMODE_PATH 0x4000
#define S_IFMT 0170000
#define S_IFCHR 0020000
#define AF_UNIX 1
#define TCP_LISTEN 10
#define VM_MAYSHARE 0x80
#define PF_EXITING 0x00000004
#define PF_FORKNOEXEC 0x00000040
#define PF_KTHREAD 0x00200000

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct list_head {
	struct list_head *next;
	struct list_head *prev;
};

struct hlist_node {
	struct hlist_node *next;
};

struct hlist_head {
	struct hlist_node *first;
};

/* All fields of the kernel's structure, so that it can be copied whole. */
struct rb_node {
	u64 __rb_parent_color;
	struct rb_node *rb_right;
	struct rb_node *rb_left;
};

struct rb_root {
	struct rb_node *rb_node;
};

struct rb_root_cached {
	struct rb_root rb_root;
};

struct seq_file {
	u64 size;
	u64 count;
	struct file *file;
};

struct bpf_iter_meta {
	struct seq_file *seq;
	u64 session_id;
	u64 seq_num;
};

typedef struct {
	u32 val;
} kuid_t;

struct cred {
	kuid_t uid;
};

struct kernfs_node {
	u64 id;
};

struct counter {
	s32 counter;
};

struct ns_common {
	u32 inum;
	struct counter count;
};

/* From Linux 6.18 on. */
struct ns_common___6_18 {
	struct counter __ns_ref;
};

struct ipc_namespace {
	struct ns_common ns;
};

struct mnt_namespace {
	struct ns_common ns;
};

struct nsproxy {
	struct counter count;
	struct ipc_namespace *ipc_ns;
	struct mnt_namespace *mnt_ns;
};

struct signal_struct {
	s32 nr_threads;
};

struct cgroup {
	struct kernfs_node *kn;
};

struct css_set {
	struct cgroup *dfl_cgrp;
};

struct mm_struct;
struct files_struct;

struct task_struct {
	u32 flags;
	s32 pid;
	s32 tgid;
	int exit_state;
	u64 start_boottime;
	u64 self_exec_id;
	struct task_struct *group_leader;
	struct mm_struct *mm;
	struct files_struct *files;
	const struct cred *real_cred;
	struct css_set *cgroups;
	struct nsproxy *nsproxy;
	struct signal_struct *signal;
	char comm[16];
};

struct mm_struct {
	struct task_struct *owner;
	struct file *exe_file;
	u64 locked_vm;
};

/* From Linux 6.4 on, where each VMA has its own lock (commit 5e31275cc997). */
struct mm_struct___6_4 {
	s32 mm_lock_seq;
};

/* From Linux 6.14 on (commit eb449bd96954), and in older kernels with a backport of it. */
struct seqcount {
	u32 sequence;
};

struct mm_struct___6_14 {
	struct seqcount mm_lock_seq;
};

struct dentry;

struct super_block {
	struct list_head s_list;
	u32 s_dev;
	u64 s_flags;
	u64 s_magic;
	struct dentry *s_root;
	struct list_head s_inodes;
};

struct timespec64 {
	s64 tv_sec;
	s64 tv_nsec;
};

typedef struct {
	s32 counter;
} atomic_t;

struct inode;

struct address_space {
	struct inode *host;
	u64 nrpages;
	struct rb_root_cached i_mmap;
};

struct inode {
	u16 i_mode;
	kuid_t i_uid;
	u32 i_rdev;
	u32 i_nlink;
	atomic_t i_count;
	u8 i_blkbits;
	u64 i_blocks;
	u64 i_ino;
	s64 i_size;
	struct super_block *i_sb;
	struct address_space *i_mapping;
	struct timespec64 i_ctime;
	struct timespec64 i_mtime;
	struct list_head i_sb_list;
	struct hlist_head i_dentry;
	struct address_space i_data;
};

/* Linux 6.6 to 6.10. */
struct inode___6_6 {
	struct timespec64 __i_ctime;
	struct timespec64 __i_mtime;
};

/* From Linux 6.11 on. */
struct inode___6_11 {
	s64 i_ctime_sec;
	s64 i_mtime_sec;
	u32 i_ctime_nsec;
	u32 i_mtime_nsec;
};

struct qstr {
	u32 len;
	const unsigned char *name;
};

struct hlist_bl_node {
	struct hlist_bl_node **pprev;
};

struct lockref {
	s32 count;
};

struct dentry {
	struct hlist_bl_node d_hash;
	struct dentry *d_parent;
	struct qstr d_name;
	struct inode *d_inode;
	struct super_block *d_sb;
	struct lockref d_lockref;
	void *d_fsdata;
	struct {
		struct hlist_node d_alias;
	} d_u;
};

/* From Linux 7.2 on. */
struct dentry___7_2 {
	struct hlist_node d_alias;
};

struct vfsmount;

struct path {
	struct vfsmount *mnt;
	struct dentry *dentry;
};

typedef struct {
	s64 counter;
} atomic_long_t;

struct file {
	u32 f_mode;
	u32 f_flags;
	void *private_data;
	struct inode *f_inode;
	struct address_space *f_mapping;
	struct path f_path;
};

/* Up to Linux 6.12. */
struct file___6_12 {
	atomic_long_t f_count;
};

typedef struct {
	atomic_long_t refcnt;
} file_ref_t;

/* From Linux 6.13 on. */
struct file___6_13 {
	file_ref_t f_ref;
};

struct kobject {
	const char *name;
};

struct device {
	struct kobject kobj;
	const char *init_name;
};

struct dma_buf_attachment {
	struct device *dev;
	struct list_head node;
};

struct dma_buf {
	u64 size;
	struct file *file;
	struct list_head attachments;
	const char *exp_name;
	const char *name;
	void *priv;
};

struct vm_area_struct {
	u64 vm_start;
	u64 vm_end;
	u64 vm_flags;
	u64 vm_pgoff;
	struct mm_struct *vm_mm;
	struct file *vm_file;
	struct {
		struct rb_node rb;
	} shared;
};

struct sk_buff;

struct sk_buff_head {
	struct sk_buff *next;
};

struct sock_common {
	u16 skc_family;
	u8 skc_state;
};

struct sock {
	struct sock_common __sk_common;
	struct sk_buff_head sk_receive_queue;
};

struct socket {
	struct sock *sk;
};

struct sk_buff {
	struct sk_buff *next;
	struct sock *sk;
	char cb[48];
};

struct scm_fp_list {
	short count;
	struct file *fp[1];
};

struct unix_skb_parms {
	struct scm_fp_list *fp;
};

#pragma clang attribute pop

/* What a record describes. */
enum kind {
	/*
	 * A task: the leader of every process, and every other thread with an fd table, an address
	 * space or an IPC namespace of its own.
	 */
	TASK = 1,
	/* An fd of a dma-buf. */
	FD = 2,
	/* A dma-buf. */
	BUFFER = 3,
	/* A device that is attached to the dma-buf whose record follows. */
	ATTACHMENT = 4,
	/* A mapping of a dma-buf. */
	VMA = 5,
	/* An fd of a character device. */
	DEVICE = 6,
	/* A dma-buf in a message that nobody has received yet. */
	IN_FLIGHT = 7,
	/* A socket or an io_uring that may keep files which are not listed here. */
	KEEPER = 8,
	/* The last record of a reading. */
	END = 9,
	/* An inode of shared memory; see shm_inode in shmem.h. */
	SHM_INODE = 10,
	/* An fd of shared memory. */
	SHM_FD = 11,
	/* A mapping of shared memory. */
	SHM_VMA = 12,
	/* A file of shared memory in a message that nobody has received yet. */
	SHM_IN_FLIGHT = 13,
	/* An fd of a sync_file. */
	SYNC_FILE = 14,
	/* Pages of a memfd that belong to the dma-buf whose record follows. */
	MEMFD_PAGES = 15,
	/* What a thread has run; see run.h. */
	RUN = 16,
	/* A process whose program is a file of shared memory. */
	SHM_EXE = 17,
	/* A filesystem of shared memory whose inodes were listed. */
	SHM_FILESYSTEM = 18,
	/* How complete the lists of inodes were; see shm_walk in shmem_inodes.bpf.c. */
	SHM_WALK = 19,
	/* The file that a graphics driver has for the dma-buf whose record follows. */
	GEM_FILE = 20,
	/* A cgroup that pays for shared memory; see payers.h. */
	SHM_CGROUP = 21,
	/* Who pays for the pages of an inode of shared memory; see payers.h. */
	SHM_PAGES_OF = 22,
};

struct head {
	u32 kind;
	u32 size;
};

struct task {
	struct head head;
	u64 mm;
	u64 files;
	u64 started;
	u64 cgroup;
	u64 program;
	/* This, ipc and mm_writes are set only if shared memory is looked for. */
	u64 locked_pages;
	u32 tgid;
	u32 tid;
	u32 uid;
	u32 state;
	/* The inode number of its IPC namespace. */
	u32 ipc;
	/* A number that changes whenever the lock of its address space is taken for writing. */
	u32 mm_writes;
	/*
	 * The inode number of its mount namespace, and how many references there are to that and to
	 * the IPC namespace. Set only for a process that shares its set of namespaces with no other
	 * one (TASK_ALONE).
	 */
	u32 mounts;
	u32 mounts_count;
	u32 ipc_count;
	u32 unused;
	char comm[16];
};

/* task.state */
#define TASK_KERNEL 1
#define TASK_EXITING 2
#define TASK_DEAD 4
/* mm_writes is set. */
#define TASK_MM_WRITES 8
/* Its process was forked and has not started a program since: see PF_FORKNOEXEC. */
#define TASK_FORKED 16
/* The process shares its set of namespaces with no other one; mounts and what follows are set. */
#define TASK_ALONE 32

struct fd {
	struct head head;
	u64 ino;
	u64 count;
	u64 files;
	u64 program;
	u32 tgid;
	u32 tid;
	u32 fd;
	u32 path_only;
};

struct buffer {
	struct head head;
	u64 ino;
	u64 size;
	/* Read before and after its attachments and mappings were gathered. */
	u64 count;
	u64 count_after;
	s64 changed;
	s64 modified;
	u32 dev;
	u32 uid;
	u32 flags;
	u32 changed_ns;
	u32 modified_ns;
	u32 unused;
	char exporter[64];
	char name[32];
};

/* buffer.flags */
/* It has no open file any more, so count, exporter and attachments are not set. */
#define BUFFER_PATH_ONLY 1
/* Some of its attachments or mappings, whose records come before this one, are missing. */
#define BUFFER_CUT 2
/* The name changed while it was read. */
#define BUFFER_RENAMED 4

struct attachment {
	struct head head;
	char name[64];
};

/* What the record of every VMA has. */
struct range {
	u64 mm;
	u64 start;
	u64 end;
	/* Where in the file the mapping begins, in pages. */
	u64 pgoff;
	u32 tgid;
	u32 flags;
};

struct vma {
	struct head head;
	u64 ino;
	struct range range;
};

struct device_fd {
	struct head head;
	u64 program;
	u32 tgid;
	u32 fd;
	u32 rdev;
	u32 unused;
};

struct in_flight {
	struct head head;
	u64 ino;
	u64 socket;
	u32 tgid;
	u32 tid;
	u32 fd;
	u32 unused;
};

struct keeper {
	struct head head;
	u64 ino;
	u32 tgid;
	u32 tid;
	u32 fd;
	u32 what;
};

/* keeper.what */
#define KEEPER_RING 1
#define KEEPER_SOCKET 2
#define KEEPER_RING_MAPPED 3
#define KEEPER_NESTED 4

struct sync_fd {
	struct head head;
	u64 program;
	u64 files;
	u32 tgid;
	u32 tid;
	u32 fd;
	u32 unused;
};

struct memfd_pages {
	struct head head;
	u64 ino;
	u64 pages;
	u32 dev;
	/* 1 if it is not known which file these pages belong to, or whether they belong to one. */
	u32 untold;
};

struct gem_file {
	struct head head;
	u64 ino;
	u32 dev;
	u32 unused;
};

struct end {
	struct head head;
	u64 count;
};

/*
 * Puts the layout of the records that a program writes into its object. A test compares it with the
 * code that reads them.
 */
#define RECORDS(...)              \
	const union {             \
		enum kind kind;   \
		struct head head; \
		__VA_ARGS__       \
	} *const volatile records = 0

#define record(type, what) struct type what = { .head = { .size = sizeof(struct type) } }
#define put(seq, what, which) ({ (what).head.kind = (which); seq_write(seq, &(what), sizeof(what)); })

/*
 * Whether shared memory is looked for too. Every source is compiled with and without it, because
 * the code for shared memory takes as long to load as all the rest.
 */
#ifndef SHMEM
#define SHMEM 0
#endif
#define shmem SHMEM

/* The key of the hash that makes ids. It is chosen when the program is loaded. */
volatile const u64 secret[2] = {};

/*
 * Whether each reference to a dma-buf is preceded by a record of the buffer. Set if the kernel has
 * no iterator that lists the buffers.
 */
volatile const u32 describe_each = 0;

#define rotated(word, by) ((word) << (by) | (word) >> (64 - (by)))

#define sip_round(a, b, c, d)                             \
	({                                                \
		a += b, b = rotated(b, 13), b ^= a;       \
		a = rotated(a, 32);                       \
		c += d, d = rotated(d, 16), d ^= c;       \
		a += d, d = rotated(d, 21), d ^= a;       \
		c += b, b = rotated(b, 17), b ^= c;       \
		c = rotated(c, 32);                       \
	})

/*
 * The id of an address: its SipHash-1-3, without the final block that contains a message's length,
 * which is always the same here.
 *
 * Members of a group may read ids, and may know one address. If ids were made by a bijection with
 * one secret, that address and its id would reveal the secret, and with it all other addresses.
 * Here the key has 128 bits, and of the 256 bits of state only the XOR of its four words comes out.
 * No way is known to find an address or the key but guessing. Two addresses have the same id only
 * by accident, with a chance of one in 2^64.
 */
verified_once u64 mixed(u64 address)
{
	u64 a = secret[0] ^ 0x736f6d6570736575ULL, b = secret[1] ^ 0x646f72616e646f6dULL;
	u64 c = secret[0] ^ 0x6c7967656e657261ULL, d = secret[1] ^ 0x7465646279746573ULL;

	if (!address)
		return 0;
	d ^= address;
	sip_round(a, b, c, d);
	a ^= address;
	c ^= 0xff;
	sip_round(a, b, c, d);
	sip_round(a, b, c, d);
	sip_round(a, b, c, d);
	return a ^ b ^ c ^ d;
}

/*
 * The id of an open file. The inode is part of it, because while a reading goes on, another file
 * can get the address of a file that was closed.
 */
static always_inline u64 file_id_of(u64 file, u64 inode, u64 ino)
{
	return file ? mixed(file ^ rotated(inode, 17) ^ ino * 0x9e3779b97f4a7c15ULL) : 0;
}

/* The same, if the verifier may not know the address of the file. */
static never_inline u64 file_id(struct file *file)
{
	u64 address = 0, at = 0, number = 0;
	struct inode *inode = 0;

	probe_read(&address, sizeof(address), &file);
	peek(inode, file->f_inode);
	probe_read(&at, sizeof(at), &inode);
	peek(number, inode->i_ino);
	return file_id_of(address, at, number);
}

/* The id of the object that a field points to. */
#define id_of(field) ({ u64 address = 0; peek(address, field); mixed(address); })

/*
 * The number of references, as fdinfo prints it: without the one that the iterator itself holds.
 * From Linux 6.13 on, the kernel stores one less than the number of references (see file_ref.h).
 * `direct` says whether the verifier knows the address of the file.
 */
static always_inline u64 references(struct file *file, int direct)
{
	struct file___6_13 *new = (void *)file;
	struct file___6_12 *old = (void *)file;
	u64 count = 0;

	if (exists(new->f_ref)) {
		if (direct)
			count = new->f_ref.refcnt.counter;
		else
			peek(count, new->f_ref.refcnt.counter);
		return count;
	}
	if (direct)
		count = old->f_count.counter;
	else
		peek(count, old->f_count.counter);
	return count - 1;
}

/* Whether a file has this name, which may have at most 15 bytes. */
static always_inline int is_called(struct file *file, const char *what, u32 length)
{
	const unsigned char *name = 0;
	char text[16] = {};

	if (file->f_path.dentry->d_name.len != length)
		return 0;
	peek(name, file->f_path.dentry->d_name.name);
	probe_read_str(text, length + 1, name);
	for (u32 at = 0; at < length; at++)
		if (text[at] != what[at])
			return 0;
	return 1;
}

/* Whether a file on the filesystem of anonymous inodes is an io_uring. */
#define is_ring(file) is_called(file, "[io_uring]", sizeof("[io_uring]") - 1)

static always_inline void describe_inode(struct buffer *buffer, struct inode *inode)
{
	struct inode___6_6 *newer = (void *)inode;
	struct inode___6_11 *newest = (void *)inode;
	struct super_block *fs = 0;

	peek(buffer->ino, inode->i_ino);
	peek(buffer->size, inode->i_size);
	peek(buffer->uid, inode->i_uid.val);
	peek(fs, inode->i_sb);
	peek(buffer->dev, fs->s_dev);
	if (exists(newest->i_ctime_sec)) {
		peek(buffer->changed, newest->i_ctime_sec);
		peek(buffer->modified, newest->i_mtime_sec);
		peek(buffer->changed_ns, newest->i_ctime_nsec);
		peek(buffer->modified_ns, newest->i_mtime_nsec);
	} else if (exists(newer->__i_ctime)) {
		peek(buffer->changed, newer->__i_ctime.tv_sec);
		peek(buffer->modified, newer->__i_mtime.tv_sec);
		peek(buffer->changed_ns, newer->__i_ctime.tv_nsec);
		peek(buffer->modified_ns, newer->__i_mtime.tv_nsec);
	} else {
		peek(buffer->changed, inode->i_ctime.tv_sec);
		peek(buffer->modified, inode->i_mtime.tv_sec);
		peek(buffer->changed_ns, inode->i_ctime.tv_nsec);
		peek(buffer->modified_ns, inode->i_mtime.tv_nsec);
	}
}

/*
 * The name can be replaced and freed while it is copied. If the pointer is another one afterwards,
 * BUFFER_RENAMED says that the copy may be wrong.
 */
static always_inline void describe_name(struct buffer *buffer, struct dma_buf *dmabuf)
{
	const char *before = 0, *after = 0;

	peek(before, dmabuf->name);
	if (!before)
		return;
	probe_read_str(buffer->name, sizeof(buffer->name), before);
	peek(after, dmabuf->name);
	if (before != after)
		buffer->flags |= BUFFER_RENAMED;
}

static always_inline void describe(struct buffer *buffer, struct dma_buf *dmabuf, struct inode *inode)
{
	const char *exporter = 0;

	describe_inode(buffer, inode);
	peek(exporter, dmabuf->exp_name);
	probe_read_str(buffer->exporter, sizeof(buffer->exporter), exporter);
	describe_name(buffer, dmabuf);
}

/*
 * A number for the program that a process runs. It changes with exec, and another process that gets
 * the same pid later has another number.
 */
static always_inline u64 program_of(struct task_struct *task)
{
	struct task_struct *leader = 0;
	u64 started = task->start_boottime;

	if (task->pid != task->tgid) {
		peek(leader, task->group_leader);
		peek(started, leader->start_boottime);
	}
	return started + task->self_exec_id * 0x9e3779b97f4a7c15ULL;
}

static always_inline void write_end(struct bpf_iter_meta *meta)
{
	record(end, end);

	end.count = meta->seq_num;
	put(meta->seq, end, END);
}

/*
 * Everything here may be used under the GPL: the kernel lets only such programs read its
 * structures.
 */
char lsbuf_license[] SEC("license") = "Dual MIT/GPL";

#endif
