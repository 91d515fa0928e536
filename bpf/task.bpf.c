/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* Who there is: every process, and the threads that have an fd table or an address space of their own. */
#include "lsbuf.h"

struct context {
	struct bpf_iter_meta *meta;
	struct task_struct *task;
};

SEC("iter/task")
int tasks(struct context *context)
{
	struct task_struct *task = context->task, *leader = 0;
	struct css_set *cgroups = 0;
	struct cgroup *cgroup = 0;
	struct kernfs_node *node = 0;
	const struct cred *cred = 0;
	struct ipc_namespace *ipc = 0;
	struct nsproxy *spaces = 0;
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
	found.program = program_of(task);
	found.mm = id_of(task->mm);
	found.files = id_of(task->files);
	if (task->flags & PF_EXITING)
		found.state |= TASK_EXITING;
	if (task->exit_state)
		found.state |= TASK_DEAD;
	if (task->pid != task->tgid) {
		peek(leader, task->group_leader);
		if (!(found.state & TASK_EXITING) && found.mm == id_of(leader->mm) && found.files == id_of(leader->files))
			return 0;
		peek(found.started, leader->start_boottime);
	} else {
		leader = task;
		found.started = task->start_boottime;
	}
	peek(mm, task->mm);
	if (mm) {
		peek(exe, mm->exe_file);
		found.exe = file_id(exe);
	}
	peek(spaces, task->nsproxy);
	peek(ipc, spaces->ipc_ns);
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
