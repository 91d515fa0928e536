//! The calls in a program, by a copy of its registers and of the top of its stack: unwound by the
//! tables that compilers write for exceptions (`.eh_frame`), which code without frame pointers has
//! too.
//!
//! The files that a process executes are found by its `maps` ([`space`]), and their tables are
//! copied ([`code`]). A process of its own walks through the stacks ([`walk`]), because a file may
//! be made to harm its reader; it is the same that reads symbols ([`child`]). It answers with
//! addresses, each of which must lie in code that the process had mapped.
//!
//! **No call is guessed.** A step that the tables do not say ends the walk. So does a value that is
//! outside of the copy. The crate framehop is not used: where tables do not help, it goes on by
//! frame pointers or assumes that a register has not changed, and does not tell. The crate gimli
//! reads the tables here, which blazesym brings anyway.
//!
//! Limits: `maps` is read after the event. Code that was unmapped in between is not found, and the
//! walk ends there. If other code was mapped at the same addresses in between, calls may be wrong.
//! That the process has not executed another program meanwhile is checked. Files without section
//! headers, code that was made at run time and the vDSO have no tables here. The tables of a file
//! may be at most [`code::MOST`] bytes. Programs of 32 bits are not unwound. A process whose first
//! thread has exited is not found.

mod code;
mod registers;
mod space;
#[cfg(test)]
mod tests;
mod walk;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use self::code::{Code, FileKey};
use self::space::{Owner, Space};
use self::walk::Walk;
use super::guard;
use super::root::ProcRoot;
use super::symbols::Maker;
use super::symbols::child;
use crate::model::CodePlace;

/// How many words the kernel's registers are: as many as arm64 has.
pub(crate) const REGISTERS: usize = 34;

/// The most calls of a stack that are told.
pub(crate) const MOST_CALLS: usize = 128;

/// The most bytes of tables that are kept for the next stack.
const MOST_KEPT: usize = 256 << 20;

/// Of how many processes it is remembered that they are not to be looked at.
const MOST_REFUSED: usize = 10_000;

/// How many times the deadline of one stack all stacks of one call may take.
const ALL: u32 = 4;

/// The registers and the stack of a thread.
#[derive(Clone, Debug)]
pub(crate) struct Copied {
    /// As the kernel keeps them (`struct pt_regs`). All 0: it has none.
    pub(crate) registers: [u64; REGISTERS],
    /// Where the stack and the code of the process began (`stat` of procfs).
    pub(crate) start_stack: u64,
    pub(crate) start_code: u64,
    /// The address of the first byte of `bytes`.
    pub(crate) from: u64,
    pub(crate) bytes: Vec<u8>,
}

/// The calls that were found, the innermost first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Unwound {
    /// Each as its address in the process and its place in a file.
    pub(crate) calls: Vec<(u64, CodePlace)>,
    /// The tables say that the outermost one has no caller.
    pub(crate) is_whole: bool,
}

/// Unwinds stacks, and keeps the tables of files for the next ones.
#[derive(Debug)]
pub(crate) struct Unwinder {
    root: Arc<ProcRoot>,
    /// How long to wait for one read of a file, and for one stack.
    deadline: Duration,
    files: HashMap<FileKey, Arc<Code>>,
    /// Processes whose files could not be read in time, or whose tables were too much for a reader.
    refused: HashSet<Maker>,
}

impl Unwinder {
    pub(crate) fn new(root: Arc<ProcRoot>, deadline: Duration) -> Unwinder {
        Unwinder { root, deadline, files: HashMap::new(), refused: HashSet::new() }
    }

    /// The calls of each of these stacks of one process. `None`: it has no registers that are
    /// understood, or the process has exited or executed another program.
    pub(crate) fn unwind(&mut self, maker: Maker, stacks: Vec<Copied>) -> Vec<Option<Unwound>> {
        let mut found = vec![None; stacks.len()];
        let mut of_program: HashMap<(u64, u64), Vec<usize>> = HashMap::new();
        for (nth, copied) in stacks.iter().enumerate() {
            of_program.entry((copied.start_code, copied.start_stack)).or_default().push(nth);
        }
        let stacks = Arc::new(stacks);
        for (start, of_it) in of_program {
            if self.refused.contains(&maker) {
                break;
            }
            let Some(space) = self.look_up(Owner { maker, start }, &stacks, &of_it) else { continue };
            self.walk(&Arc::new(space), maker, &stacks, &of_it, &mut found);
        }
        found
    }

    /// The code of a process, as far as addresses in these stacks lead to it.
    fn look_up(&mut self, owner: Owner, stacks: &Arc<Vec<Copied>>, of_it: &[usize]) -> Option<Space> {
        let mut words: Vec<u64> = of_it.iter().flat_map(|&nth| walk::words(&stacks[nth])).collect();
        words.sort_unstable();
        words.dedup();
        let (root, files) = (Arc::clone(&self.root), self.files.clone());
        let maker = owner.maker;
        match guard::guarded(self.deadline, move || space::read(&root, owner, &words, files)) {
            Ok(read) => {
                let (space, files) = read.value?;
                let size: usize = files.values().map(|code| code.size()).sum();
                self.files = if size > MOST_KEPT { HashMap::new() } else { files };
                Some(space)
            }
            Err(guard::Stuck { .. }) => {
                self.refuse(maker);
                None
            }
        }
    }

    /// Walks through these stacks, and puts what is found to the others.
    fn walk(
        &mut self,
        space: &Arc<Space>,
        maker: Maker,
        stacks: &Arc<Vec<Copied>>,
        of_it: &[usize],
        found: &mut [Option<Unwound>],
    ) {
        let (limit, end) = (self.deadline, Instant::now() + self.deadline.saturating_mul(ALL));
        let (left, of_child) = (of_it.to_vec(), Arc::clone(stacks));
        let in_child = Arc::clone(space);
        // The child is made in a helper, so that the program sees none.
        let answers = guard::guarded(limit, move || {
            child::run(Vec::new(), limit, end, |to| {
                for &nth in &left {
                    child::write_all(to, &Walk::through(&in_child, &of_child[nth]).to_bytes())?;
                }
                Ok(())
            })
        });
        let bytes = answers.ok().and_then(|answers| answers.value.ok()).unwrap_or_default();
        let walks = walk::all(&bytes);
        if walks.len() < of_it.len() {
            self.refuse(maker);
        }
        for (&nth, walk) in of_it.iter().zip(walks) {
            found[nth] = unwound(space, walk);
        }
    }

    fn refuse(&mut self, maker: Maker) {
        if self.refused.len() >= MOST_REFUSED {
            self.refused.clear();
        }
        self.refused.insert(maker);
    }
}

/// What an answer says. It comes from a process that read untrusted files, so each address must lie
/// in code.
fn unwound(space: &Space, walk: Walk) -> Option<Unwound> {
    let Walk { addresses, is_whole } = walk;
    let told = addresses.len();
    let place = |(nth, address): (usize, u64)| {
        let call = if nth == 0 { address } else { address.checked_sub(1)? };
        Some((address, space.at(call).or_else(|| space.at(address))?.place(address)))
    };
    let calls: Vec<_> = addresses.into_iter().take(MOST_CALLS).enumerate().map_while(place).collect();
    let is_whole = is_whole && calls.len() == told;
    (!calls.is_empty()).then_some(Unwound { calls, is_whole })
}
