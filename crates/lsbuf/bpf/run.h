/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * How long each thread has been on a processor, and which system call it is in. A thread that used
 * no processor time between two readings has done nothing between them.
 *
 * Every thread except the kernel's own has one record.
 */

#include "registers.h"

#define PF_IO_WORKER 0x00000010
#define PF_USER_WORKER 0x00004000

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct thread_info___x86 {
	u32 status;
};

struct task_struct___x86 {
	struct thread_info___x86 thread_info;
};

struct sched_entity {
	u64 sum_exec_runtime;
};

struct task_struct___run {
	struct sched_entity se;
	int on_cpu;
	u64 nvcsw;
	u64 nivcsw;
};

struct xarray {
	void *xa_head;
};

/* The io_urings that a thread has used and that still exist. */
struct io_uring_task {
	struct xarray xa;
};

struct task_struct___io_uring {
	struct io_uring_task *io_uring;
};

/* From Linux 5.14 on (commit 2f064a59a11f). */
struct task_struct___5_14 {
	u32 __state;
};

struct task_struct___5_13 {
	s64 state;
};

#pragma clang attribute pop

/* The size of a field in bytes. Some fields are smaller in newer kernels. */
#define size_of_field(field) __builtin_preserve_field_info(field, 1)

/*
 * The code segment of 32-bit programs (__USER32_CS), and the flag of thread_info.status that says
 * that the current system call is a 32-bit one.
 */
#define X86_USER32_CS 0x23
#define X86_TS_COMPAT 2
/* The bit of pstate that is set for 32-bit programs on arm64. */
#define ARM64_MODE32 0x10

struct run {
	struct head head;
	/*
	 * Nanoseconds that it has spent on a processor. While it is on one, the value is about as
	 * old as the last timer tick.
	 */
	u64 runtime;
	/*
	 * How often it has left a processor. Where the clock stands still between two timer ticks,
	 * a thread can run without a change of its runtime, but not without leaving the processor.
	 */
	u64 switches;
	u32 tgid;
	u32 tid;
	/*
	 * The number of the system call that it is in, or of the last one that it was in. -1 if it
	 * has entered the kernel in another way since then.
	 */
	s32 call;
	u32 flags;
};

/* run.call: the system call is not known. */
#define CALL_UNKNOWN (-2147483647 - 1)

/* run.flags */
/* It is on a processor or waits for one, so it may be anywhere in a call. */
#define RUN_RUNNING 1
#define RUN_EXITING 2
#define RUN_DEAD 4
/*
 * A thread that the kernel has added to the process, as io_uring and vhost do. It makes no system
 * calls.
 */
#define RUN_WORKER 8
/* It has used an io_uring that still exists, or may have. */
#define RUN_RINGS 32
/* It is stopped or traced: on its way into a call or back from one, never in the middle. */
#define RUN_STOPPED 16

/* Bits of task->state (include/linux/sched.h): __TASK_STOPPED and __TASK_TRACED. */
#define STOPPED_STATES 0xc

/*
 * The number of the system call, from the registers that were saved when the thread entered the
 * kernel. It is unknown for 32-bit programs, whose calls have other numbers.
 */
static always_inline s32 call_of(struct task_struct *task)
{
	struct task_struct___x86 *x86_task = (void *)task;
	struct pt_regs___x86 *x86;
	struct pt_regs___arm64 *arm64;
	s32 call = CALL_UNKNOWN;

	if (!registers)
		return call;
	x86 = registers_of(task);
	arm64 = (void *)x86;
	if (exists(x86->orig_ax) && place_of(x86->cs) == place_of(x86->orig_ax) + 16) {
		struct {
			u64 call;
			u64 ip;
			u64 segment;
		} all = {};
		u32 status = 0;

		probe_read(&all, sizeof(all), &x86->orig_ax);
		if (exists(x86_task->thread_info.status))
			status = x86_task->thread_info.status;
		if ((all.segment & 0xffff) != X86_USER32_CS && !(status & X86_TS_COMPAT))
			call = all.call;
	} else if (exists(arm64->syscallno) && exists(arm64->pstate)) {
		u64 state = 0;

		peek(state, arm64->pstate);
		if (!(state & ARM64_MODE32))
			peek(call, arm64->syscallno);
	}
	return call;
}

static always_inline int may_have_rings(struct task_struct___io_uring *task)
{
	struct io_uring_task *rings = 0;
	void *first = 0;

	if (!exists(task->io_uring))
		return 0;
	peek(rings, task->io_uring);
	if (!rings)
		return 0;
	if (!exists(rings->xa.xa_head))
		return 1;
	peek(first, rings->xa.xa_head);
	return !!first;
}

/* Writes what a thread has run. Not inlined, so that the stack frame of its caller stays small. */
static never_inline void write_run(struct seq_file *seq, struct task_struct *task)
{
	struct task_struct___run *run = (void *)task;
	struct task_struct___5_14 *newer = (void *)task;
	struct task_struct___5_13 *older = (void *)task;
	record(run, found);
	u64 state = 0, barrier = 0;
	int on_cpu = 0;

	found.tgid = task->tgid;
	found.tid = task->pid;
	/*
	 * The runtime is read last. The kernel brings it up to date when a thread leaves its
	 * processor, before it clears on_cpu (finish_task in kernel/sched/core.c, a release). So
	 * for a thread that is not on a processor here, the runtime has all that it ran before. In
	 * the other order, a thread that leaves its processor between the two reads would show an
	 * old runtime and no RUN_RUNNING. A kernel for one processor may not have on_cpu; there,
	 * only the thread that reads this is on it.
	 */
	if (exists(run->on_cpu) && size_of_field(run->on_cpu) == 1) {
		u8 now = 0;

		probe_read(&now, sizeof(now), &run->on_cpu);
		on_cpu = now;
	} else if (exists(run->on_cpu))
		peek(on_cpu, run->on_cpu);
	if (exists(newer->__state))
		state = newer->__state;
	else if (exists(older->state))
		state = older->state;
	/* TASK_RUNNING is 0. */
	if (on_cpu || !state)
		found.flags |= RUN_RUNNING;
	if (state & STOPPED_STATES)
		found.flags |= RUN_STOPPED;
	found.call = call_of(task);
	/* Orders the reads above before the one below: an atomic exchange is a full barrier. */
	__sync_lock_test_and_set(&barrier, 1);
	found.runtime = run->se.sum_exec_runtime;
	found.switches = run->nvcsw + run->nivcsw;
	if (task->exit_state)
		found.flags |= RUN_DEAD;
	else if (task->flags & PF_EXITING)
		found.flags |= RUN_EXITING;
	if (task->flags & (PF_IO_WORKER | PF_USER_WORKER))
		found.flags |= RUN_WORKER;
	if (may_have_rings((void *)task))
		found.flags |= RUN_RINGS;
	put(seq, found, RUN);
}
