/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * The registers that a task had when it entered the kernel. Their layout is that of the kernel's
 * own types, which differs between architectures.
 */
#ifndef LSBUF_REGISTERS_H
#define LSBUF_REGISTERS_H

static void *(*const registers_of)(struct task_struct *task) = (void *)175;

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct pt_regs___x86 {
	u64 orig_ax;
	u64 cs;
	u64 sp;
	u64 ss;
};

struct pt_regs___arm64 {
	u64 sp;
	s32 syscallno;
	u64 pstate;
};

#pragma clang attribute pop

/*
 * Whether the kernel has the helper that returns a task's registers (Linux 5.15, commit
 * dd6e10fbd9fb). The verifiers of older kernels refuse a call of a helper that they do not know,
 * unless the call cannot be reached.
 */
volatile const u32 registers = 0;

#endif
