//! Copied stacks of a trace: which of the two ways has found more of the calls.
//!
//! The calls that the tables say are taken. Only if these end early, and the kernel has found the
//! same ones by frame pointers and more beyond them, the kernel's are taken: code without tables,
//! or more stack than was copied. Where the two differ, frame pointers have missed calls.
//!
//! Limits: see `kernel::unwind`. Without the feature `symbols` no stack is copied.

#[cfg(feature = "symbols")]
pub(super) use self::with::{Copied, CopiedStacks, copied};
#[cfg(not(feature = "symbols"))]
pub(super) use self::without::{Copied, CopiedStacks, copied};

#[cfg(feature = "symbols")]
mod with {
    use std::collections::HashMap;
    use std::sync::Arc;
    use std::time::Duration;

    use super::super::UnnamedStack;
    use crate::kernel::bpf::tracing::CopiedStack;
    use crate::kernel::root::ProcRoot;
    pub(in super::super) use crate::kernel::unwind::Copied;
    use crate::kernel::unwind::{Unwinder, Unwound};
    use crate::model::{CodePlace, Pid, Stack, StackEnd, Unwind, UserFrame};

    /// What is kept of a copy until the other records are read.
    pub(in super::super) fn copied(copied: &CopiedStack<'_>) -> Copied {
        let CopiedStack { registers, start_stack, start_code, from, bytes } = *copied;
        Copied { registers, start_stack, start_code, from, bytes: bytes.to_vec() }
    }

    /// The stacks of one process, and their copies.
    type OfProcess<'s> = (Vec<&'s mut Stack>, Vec<Copied>);

    /// Unwinds copied stacks.
    #[derive(Debug)]
    pub(in super::super) struct CopiedStacks(Unwinder);

    impl CopiedStacks {
        pub(in super::super) fn new(root: &Arc<ProcRoot>, deadline: Duration) -> CopiedStacks {
            CopiedStacks(Unwinder::new(Arc::clone(root), deadline))
        }

        /// Finds the calls of those that have a copy. Returns of how many it could not.
        pub(in super::super) fn unwind<'s>(
            &mut self,
            stacks: impl Iterator<Item = &'s mut UnnamedStack>,
        ) -> u64 {
            let mut of_process: HashMap<(Pid, Duration), OfProcess<'_>> = HashMap::new();
            for one in stacks {
                if let Some(copied) = one.copied.take() {
                    let (stacks, copies) = of_process.entry((one.pid, one.started)).or_default();
                    stacks.push(&mut one.stack);
                    copies.push(copied);
                }
            }
            let mut not_unwound = 0;
            for (process, (stacks, copies)) in of_process {
                for (stack, found) in stacks.into_iter().zip(self.0.unwind(process, copies)) {
                    match found {
                        Some(unwound) => merge(stack, unwound),
                        None => not_unwound += 1,
                    }
                }
            }
            not_unwound
        }
    }

    /// Takes those calls of the two ways that are more.
    fn merge(stack: &mut Stack, unwound: Unwound) {
        let Unwound { calls, is_whole } = unwound;
        if !is_whole && goes_on(&stack.user, &calls) {
            return;
        }
        stack.user = calls.into_iter().map(|(_, place)| UserFrame::new(place)).collect();
        stack.user_end = if is_whole { StackEnd::Complete } else { StackEnd::Truncated };
        stack.unwind = Unwind::Dwarf;
    }

    /// Whether the kernel has found all of these calls, and more beyond them. A call of which it
    /// could not read the build id is only an address.
    fn goes_on(kernels: &[UserFrame], calls: &[(u64, CodePlace)]) -> bool {
        let is_same = |(frame, (address, place)): (&UserFrame, &(u64, CodePlace))| {
            frame.place == *place || frame.place == CodePlace::Address(*address)
        };
        kernels.len() > calls.len() && kernels.iter().zip(calls).all(is_same)
    }

    #[cfg(test)]
    mod tests {
        use super::*;
        use crate::model::BuildId;

        fn place(offset: u64) -> CodePlace {
            CodePlace::File { build_id: BuildId([1; 20]), offset }
        }

        /// What is left of these kernel's calls, and of those by the tables, at 0x2000 higher
        /// addresses.
        fn merged(kernels: &[CodePlace], by_tables: &[u64], is_whole: bool) -> (usize, StackEnd, Unwind) {
            let user = kernels.iter().map(|place| UserFrame::new(*place)).collect();
            let mut stack = Stack { user, user_end: StackEnd::Truncated, ..Stack::default() };
            let calls = by_tables.iter().map(|&offset| (0x2000 + offset, place(offset))).collect();
            merge(&mut stack, Unwound { calls, is_whole });
            (stack.user.len(), stack.user_end, stack.unwind)
        }

        /// Check that the tables' calls are taken, unless the kernel has the same ones and more.
        #[test]
        fn the_better_one() {
            use StackEnd::{Complete, Truncated};
            let both = |offsets: &[u64]| offsets.iter().map(|&offset| place(offset)).collect::<Vec<_>>();
            assert_eq!(merged(&both(&[1, 3]), &[1, 2, 3], true), (3, Complete, Unwind::Dwarf));
            assert_eq!(merged(&both(&[1, 3, 4]), &[1, 2], false), (2, Truncated, Unwind::Dwarf));
            assert_eq!(merged(&both(&[1, 2, 3]), &[1], false), (3, Truncated, Unwind::FramePointers));
            assert_eq!(merged(&both(&[1, 2, 3]), &[1], true), (1, Complete, Unwind::Dwarf));
            let untold = [CodePlace::Address(0x2001), place(2)];
            assert_eq!(merged(&untold, &[1], false), (2, Truncated, Unwind::FramePointers));
            assert_eq!(
                merged(&[CodePlace::Address(1), place(2)], &[1], false),
                (1, Truncated, Unwind::Dwarf)
            );
            assert_eq!(merged(&[], &[1], false), (1, Truncated, Unwind::Dwarf));
        }
    }
}

#[cfg(not(feature = "symbols"))]
mod without {
    use std::sync::Arc;
    use std::time::Duration;

    use super::super::UnnamedStack;
    use crate::kernel::bpf::tracing::CopiedStack;
    use crate::kernel::root::ProcRoot;

    /// No copy.
    #[derive(Debug)]
    pub(in super::super) struct Copied;

    pub(in super::super) fn copied(_: &CopiedStack<'_>) -> Copied {
        Copied
    }

    #[derive(Debug)]
    pub(in super::super) struct CopiedStacks;

    impl CopiedStacks {
        pub(in super::super) fn new(_: &Arc<ProcRoot>, _: Duration) -> CopiedStacks {
            CopiedStacks
        }

        /// Finds no calls. Returns of how many it could not.
        pub(in super::super) fn unwind<'s>(
            &mut self,
            stacks: impl Iterator<Item = &'s mut UnnamedStack>,
        ) -> u64 {
            stacks.map(|one| u64::from(one.copied.take().is_some())).sum()
        }
    }
}
