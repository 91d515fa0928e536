/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * Who there is: every process, and the threads that have an fd table, an address space or an IPC
 * namespace of their own; with the file that each runs, if shared memory is looked for and it is
 * some. And which threads have run (run.h).
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
		peek(found->mm_writes, newer->mm_lock_seq.sequence);
	else if (exists(old->mm_lock_seq))
		peek(found->mm_writes, old->mm_lock_seq);
	else
		return;
	found->state |= TASK_MM_WRITES;
}

/* Describes the file that a task runs: nothing else has to refer to it. */
static always_inline void describe_exe(struct bpf_iter_meta *meta, struct file *exe, u64 id)
{
	struct super_block *fs = 0;
	struct inode *inode = 0;
	u64 magic = 0;
	u16 mode = 0;

	peek(inode, exe->f_inode);
	peek(mode, inode->i_mode);
	peek(fs, inode->i_sb);
	peek(magic, fs->s_magic);
	if (is_shmem(magic, mode) && is_news(meta, id))
		describe_waiting(meta, meta->seq, exe, inode, id);
}

static always_inline struct ipc_namespace *ipc_space(struct task_struct *task)
{
	struct ipc_namespace *ipc = 0;
	struct nsproxy *spaces = 0;

	peek(spaces, task->nsproxy);
	peek(ipc, spaces->ipc_ns);
	return ipc;
}

RECORDS(struct task task; struct run run; struct shm_file shm_file; struct shm_undescribed shm_undescribed; struct end end;);

SEC("iter/task")
int tasks(struct context *context)
{
	struct task_struct *task = context->task, *leader = 0;
	struct css_set *cgroups = 0;
	struct cgroup *cgroup = 0;
	struct kernfs_node *node = 0;
	const struct cred *cred = 0;
	struct ipc_namespace *ipc = 0;
	struct mm_struct *mm = 0;
	struct file *exe = 0;
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
	found.program = program_of(task);
	peek(mm, task->mm);
	found.mm = mixed((u64)mm);
	found.files = id_of(task->files);
	ipc = ipc_space(task);
	if (task->flags & PF_EXITING)
		found.state |= TASK_EXITING;
	if (task->exit_state)
		found.state |= TASK_DEAD;
	if (task->pid != task->tgid) {
		peek(leader, task->group_leader);
		if (!(found.state & TASK_EXITING) && found.mm == id_of(leader->mm) &&
		    found.files == id_of(leader->files) && ipc == ipc_space(leader))
			return 0;
		peek(found.started, leader->start_boottime);
	} else {
		leader = task;
		found.started = task->start_boottime;
	}
	if (mm) {
		count_writes(&found, mm);
		peek(exe, mm->exe_file);
		found.exe = file_id(exe);
		if (shmem && exe)
			describe_exe(context->meta, exe, found.exe);
	}
	peek(found.ipc, ipc->ns.inum);
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
