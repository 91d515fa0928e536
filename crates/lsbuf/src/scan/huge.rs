//! Reads what the account of huge pages needs besides a scan: the pools, and the huge pages that
//! are processes' own.
//!
//! Limits: it is read after the scan, so only a machine at rest adds up.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use rustix::io::Errno;

use crate::kernel::guard::{self, Guarded};
use crate::kernel::private_huge::{self, OwnPages};
use crate::kernel::process::ProcessDir;
use crate::kernel::root::ProcRoot;
use crate::model::{Bytes, Pid};
use crate::reconcile::{HugeOwner, PrivateHuge};

/// The huge pages that are processes' own, by the size of the pages.
#[derive(Debug, Default)]
pub(super) struct Private {
    pub(super) pages: BTreeMap<Bytes, PrivateHuge>,
    /// Processes that could not be read.
    pub(super) unread: u64,
    /// Whether frame numbers were not shown, so that shared pages may have been counted twice.
    pub(super) not_compared: bool,
}

/// Reads those of every process. A process that makes lsbuf wait for longer than the deadline is
/// left out.
pub(super) fn private(root: &Arc<ProcRoot>, deadline: Duration) -> std::io::Result<Private> {
    let mut private = Private::default();
    let mut known: HashSet<u64> = HashSet::new();
    for (pid, _) in root.processes()? {
        let is_gone = |error: Errno| matches!(error, Errno::NOENT | Errno::SRCH);
        match own_pages(root, pid, deadline) {
            Ok(own) => private.add(root, pid, &own, &mut known),
            Err(error) if is_gone(error) => {}
            Err(_) => private.unread += 1,
        }
    }
    for of_size in private.pages.values_mut() {
        of_size.owners.sort_by_key(|owner| std::cmp::Reverse(owner.bytes));
    }
    Ok(private)
}

/// The pages of one process.
fn own_pages(root: &Arc<ProcRoot>, pid: Pid, deadline: Duration) -> rustix::io::Result<OwnPages> {
    let process = ProcessDir::open(root, pid)?;
    if !private_huge::has_any(&process)? {
        return Ok(OwnPages::default());
    }
    match guard::guarded(deadline, move || private_huge::read(&process)) {
        Ok(Guarded { value, .. }) => value,
        Err(_) => Err(Errno::TIMEDOUT),
    }
}

impl Private {
    fn add(&mut self, root: &ProcRoot, pid: Pid, own: &OwnPages, known: &mut HashSet<u64>) {
        let mut of_size: HashMap<Bytes, Bytes> = HashMap::new();
        let mut add = |page: Bytes, is_new: bool| {
            let bytes = of_size.entry(page).or_default();
            *bytes = *bytes + page;
            let sum = &mut self.pages.entry(page).or_default().bytes;
            if is_new {
                *sum = *sum + page;
            }
        };
        own.frames.iter().for_each(|&(page, frame)| add(page, known.insert(frame)));
        own.unnumbered.iter().for_each(|&page| add(page, true));
        self.not_compared |= !own.unnumbered.is_empty();
        for (page, bytes) in of_size {
            let comm = ProcessDir::open(root, pid).and_then(|process| process.identify());
            let owner = HugeOwner { pid, comm: comm.ok().map(|process| process.comm), bytes };
            self.pages.entry(page).or_default().owners.push(owner);
        }
    }
}
