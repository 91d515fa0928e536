/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * Lists every process, and every thread with an fd table or an address space of its own. Also
 * writes for each thread how long it has been on a processor, and its system call (run.h). If
 * shared memory is looked for, it also writes IPC namespaces, threads that have their own, how
 * often each address space was changed, and the file that each process runs if that is shared
 * memory.
 */
#include "shmem.h"
#include "run.h"

struct context {
	struct bpf_iter_meta *meta;
	struct task_struct *task;
};

/*
 * Copies a number that changes whenever the address space is locked for writing. The kernel keeps
 * it for readers that lock a single VMA.
 */
static always_inline void count_writes(struct task *found, struct mm_struct *mm)
{
	struct mm_struct___6_14 *newer = (void *)mm;
	struct mm_struct___6_4 *old = (void *)mm;

	if (exists(newer->mm_lock_seq.sequence))
		peek(found->mm_writes, newer->mm_lock_seq.sequence);
	else if (exists(old->mm_lock_seq))
		peek(found->mm_writes, old->mm_lock_seq);
	else
		return;
	found->state |= TASK_MM_WRITES;
}

/* Copies how many references there are to a namespace. */
static always_inline void count_namespace(u32 *count, struct ns_common *ns)
{
	struct ns_common___6_18 *newer = (void *)ns;

	/* Or the compiler would compute the place of a field that this kernel does not have. */
	if (exists(newer->__ns_ref)) {
		asm volatile("" : "+r"(newer));
		peek(*count, newer->__ns_ref);
	} else {
		asm volatile("" : "+r"(ns));
		peek(*count, ns->count);
	}
}

/*
 * Describes the namespaces of a process, if no other process has the same set of them: each of its
 * threads has one reference to the set, and the set has one to each namespace.
 */
static always_inline void add_namespaces(struct task *found, struct task_struct *task)
{
	struct signal_struct *signal = 0;
	struct mnt_namespace *mounts = 0;
	struct ipc_namespace *ipc = 0;
	struct nsproxy *spaces = 0;
	u32 users = 0, threads = 0;

	peek(spaces, task->nsproxy);
	peek(users, spaces->count);
	peek(signal, task->signal);
	peek(threads, signal->nr_threads);
	if (!spaces || users != threads)
		return;
	peek(mounts, spaces->mnt_ns);
	peek(ipc, spaces->ipc_ns);
	peek(found->mounts, mounts->ns.inum);
	count_namespace(&found->mounts_count, &mounts->ns);
	count_namespace(&found->ipc_count, &ipc->ns);
	found->state |= TASK_ALONE;
}

/* A process whose program is a file of shared memory. */
struct shm_exe {
	struct head head;
	u64 mm;
	/* As in struct shm_fd. */
	u64 object;
	u64 file;
	u64 count;
};

/* Writes which file a process runs, if that is shared memory. */
static never_inline int write_exe(void *seq, struct mm_struct *mm)
{
	struct super_block *fs = 0;
	struct inode *inode = 0;
	struct file *exe = 0;
	record(shm_exe, found);
	u64 magic = 0;
	u16 mode = 0;

	peek(exe, mm->exe_file);
	peek(inode, exe->f_inode);
	peek(mode, inode->i_mode);
	peek(fs, inode->i_sb);
	peek(magic, fs->s_magic);
	/* No program can run from the others. */
	if (!exe || !is_listed(magic) || !is_shmem(magic, mode))
		return 0;
	found.mm = mixed((u64)mm);
	found.object = object_id(inode);
	found.file = file_id(exe);
	/* references() leaves out the iterator's own reference, but here it holds none. */
	found.count = references(exe, 0) + 1;
	put(seq, found, SHM_EXE);
	return 0;
}

/*
 * What a thread has of its own, or shares with its leader. IPC namespaces matter only for shared
 * memory.
 */
struct own {
	struct mm_struct *mm;
	void *files;
	struct ipc_namespace *ipc;
};

static always_inline struct own own_of(struct task_struct *task)
{
	struct nsproxy *spaces = 0;
	struct own own = {};

	peek(own.mm, task->mm);
	peek(own.files, task->files);
	if (shmem) {
		peek(spaces, task->nsproxy);
		peek(own.ipc, spaces->ipc_ns);
	}
	return own;
}

RECORDS(struct task task; struct run run; struct shm_inode shm_inode; struct shm_exe shm_exe; struct end end;);

SEC("iter/task")
int tasks(struct context *context)
{
	struct task_struct *task = context->task, *leader = task;
	struct css_set *cgroups = 0;
	struct cgroup *cgroup = 0;
	struct kernfs_node *node = 0;
	const struct cred *cred = 0;
	struct own own;
	u32 flags = 0;
	record(task, found);

	if (!task) {
		write_end(context->meta);
		return 0;
	}
	found.tgid = task->tgid;
	found.tid = task->pid;
	if (task->flags & PF_KTHREAD) {
		/* A kernel thread is counted, but holds nothing. */
		found.state = TASK_KERNEL;
		put(context->meta->seq, found, TASK);
		return 0;
	}
	write_run(context->meta->seq, task);
	own = own_of(task);
	if (task->flags & PF_EXITING)
		found.state |= TASK_EXITING;
	if (task->pid != task->tgid) {
		struct own leaders;

		peek(leader, task->group_leader);
		leaders = own_of(leader);
		if (!found.state && own.mm == leaders.mm && own.files == leaders.files && own.ipc == leaders.ipc)
			return 0;
	}
	if (task->exit_state)
		found.state |= TASK_DEAD;
	/* A thread that is not the leader always has the flag. */
	peek(flags, leader->flags);
	if (flags & PF_FORKNOEXEC)
		found.state |= TASK_FORKED;
	found.program = program_of(task);
	found.mm = mixed((u64)own.mm);
	found.files = mixed((u64)own.files);
	peek(found.started, leader->start_boottime);
	if (shmem) {
		peek(found.ipc, own.ipc->ns.inum);
		if (task->pid == task->tgid)
			add_namespaces(&found, task);
		if (own.mm) {
			count_writes(&found, own.mm);
			peek(found.locked_pages, own.mm->locked_vm);
			write_exe(context->meta->seq, own.mm);
		}
	}
	peek(cred, leader->real_cred);
	peek(found.uid, cred->uid.val);
	peek(cgroups, leader->cgroups);
	peek(cgroup, cgroups->dfl_cgrp);
	peek(node, cgroup->kn);
	peek(found.cgroup, node->id);
	probe_read(found.comm, sizeof(found.comm), &leader->comm);
	put(context->meta->seq, found, TASK);
	return 0;
}
