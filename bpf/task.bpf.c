/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * Who there is: every process, and the threads that have an fd table, an address space or an IPC
 * namespace of their own. And which threads have run (run.h). If shared memory is looked for, also
 * how often each address space was changed, and the file that each runs, if it is such memory.
 */
#include "shmem.h"
#include "run.h"

struct context {
	struct bpf_iter_meta *meta;
	struct task_struct *task;
};

/* How often the address space was written to, which is kept to tell readers of single VMAs. */
static always_inline void count_writes(struct task *found, struct mm_struct *mm)
{
	struct mm_struct___6_14 *newer = (void *)mm;
	struct mm_struct___6_4 *old = (void *)mm;

	if (exists(newer->mm_lock_seq.sequence))
		found->mm_writes = newer->mm_lock_seq.sequence;
	else if (exists(old->mm_lock_seq))
		found->mm_writes = old->mm_lock_seq;
	else
		return;
	found->state |= TASK_MM_WRITES;
}

/* Describes the file that a task runs: nothing else has to refer to it. */
static always_inline void describe_exe(struct bpf_iter_meta *meta, struct file *exe, u64 id)
{
	struct inode *inode = exe->f_inode;

	if (is_shmem(inode->i_sb->s_magic, inode->i_mode) && is_news(meta, id))
		describe_waiting(meta, meta->seq, exe, inode, id);
}

/* What a thread has of its own if it is not its leader's, as numbers. */
struct own {
	u64 mm;
	u64 files;
	u64 ipc;
};

static always_inline struct own own_of(struct task_struct *task)
{
	struct own own = {};

	peek(own.mm, task->mm);
	peek(own.files, task->files);
	peek(own.ipc, task->nsproxy->ipc_ns);
	return own;
}

RECORDS(struct task task; struct run run; struct shm_file shm_file; struct shm_undescribed shm_undescribed; struct end end;);

SEC("iter/task")
int tasks(struct context *context)
{
	struct task_struct *task = context->task, *leader;
	struct own own;
	record(task, found);

	if (!task) {
		write_end(context->meta);
		return 0;
	}
	found.tgid = task->tgid;
	found.tid = task->pid;
	if (task->flags & PF_KTHREAD) {
		/* It is counted, and holds nothing. */
		found.state = TASK_KERNEL;
		put(context->meta->seq, found, TASK);
		return 0;
	}
	write_run(context->meta->seq, task);
	own = own_of(task);
	leader = task->group_leader;
	if (task->flags & PF_EXITING)
		found.state |= TASK_EXITING;
	else if (task->pid != task->tgid) {
		struct own leaders = own_of(leader);

		if (own.mm == leaders.mm && own.files == leaders.files && own.ipc == leaders.ipc)
			return 0;
	}
	if (task->exit_state)
		found.state |= TASK_DEAD;
	found.program = program_of(task);
	found.mm = mixed(own.mm);
	found.files = mixed(own.files);
	found.started = leader->start_boottime;
	if (shmem && own.mm) {
		struct mm_struct *mm = task->mm;
		struct file *exe = mm->exe_file;

		count_writes(&found, mm);
		found.exe = file_id(exe);
		if (found.exe)
			describe_exe(context->meta, exe, found.exe);
	}
	if (own.ipc)
		found.ipc = task->nsproxy->ipc_ns->ns.inum;
	found.uid = leader->real_cred->uid.val;
	found.cgroup = leader->cgroups->dfl_cgrp->kn->id;
	probe_read(found.comm, sizeof(found.comm), &leader->comm);
	put(context->meta->seq, found, TASK);
	return 0;
}
