//! Collects who pays for the pages of each inode of shared memory.
//!
//! A record of a cgroup comes before the first one of an inode that the cgroup pays for. A cgroup
//! can come several times.
//!
//! Limits: an inode may have at most 32 payers that are told apart, and a cgroup's path at most
//! 4 KiB.

use std::collections::HashMap;
use std::sync::Arc;

use crate::kernel::bpf::record::{Id, PagesOfOne, ShmCgroup};
use crate::model::{Bytes, Dev, Inode, Label, Payer, Payers, PayingCgroup};

/// The pages of one inode, by who pays for them.
#[derive(Clone, Debug)]
struct PaidPages {
    /// Each cgroup by its number, and for how many pages.
    cgroups: Box<[(u64, u64)]>,
    nobody: u64,
    swapped: u64,
    unknown: u64,
}

/// Who pays for what, as far as one reading found it.
#[derive(Clone, Debug, Default)]
pub(super) struct KnownPayers {
    cgroups: HashMap<u64, Arc<PayingCgroup>>,
    of_inodes: HashMap<Id, PaidPages>,
    of_unheld: HashMap<(Dev, Inode), PaidPages>,
    /// The file that nobody holds whose record came last.
    unheld: Option<(Id, Dev, Inode)>,
}

impl KnownPayers {
    /// Adds a cgroup.
    pub(super) fn add_cgroup(&mut self, found: &ShmCgroup<'_>) {
        let cgroup = PayingCgroup {
            path: Label::from(&found.path()[..]),
            removed: found.removed,
            unified: found.unified,
            id: found.cgroup,
        };
        self.cgroups.insert(found.cgroup, Arc::new(cgroup));
    }

    /// Says that the payers that come next may be those of a file that nobody holds.
    pub(super) fn next_is_unheld(&mut self, object: Id, dev: Dev, ino: Inode) {
        self.unheld = Some((object, dev, ino));
    }

    /// Adds the payers of an inode.
    pub(super) fn add(&mut self, found: &PagesOfOne<'_>) {
        let pages = PaidPages {
            cgroups: found.payers().collect(),
            nobody: found.nobodys,
            swapped: found.in_swap,
            unknown: found.others.saturating_add(found.lost),
        };
        match self.unheld.filter(|(object, ..)| *object == found.object) {
            Some((_, dev, ino)) => self.of_unheld.insert((dev, ino), pages),
            None => self.of_inodes.insert(found.object, pages),
        };
    }

    /// Whether the payers of a file that nobody holds are known.
    pub(super) fn has_unheld(&self) -> bool {
        !self.of_unheld.is_empty()
    }

    /// Who pays for an inode. `huge_page` and `charged` are the inode's.
    pub(super) fn of(&self, object: Id, huge_page: Option<Bytes>, charged: Bytes) -> Option<Payers> {
        Some(self.payers(self.of_inodes.get(&object)?, huge_page, charged))
    }

    /// Who pays for a file that nobody holds.
    pub(super) fn of_unheld(
        &self,
        (dev, ino): (Dev, Inode),
        huge_page: Option<Bytes>,
        charged: Bytes,
    ) -> Option<Payers> {
        Some(self.payers(self.of_unheld.get(&(dev, ino))?, huge_page, charged))
    }

    fn payers(&self, pages: &PaidPages, huge_page: Option<Bytes>, charged: Bytes) -> Payers {
        let counted = pages.cgroups.iter().map(|&(_, pages)| pages);
        let all = counted.fold(pages.nobody.saturating_add(pages.unknown), u64::saturating_add);
        let page = rustix::param::page_size() as u64;
        // Before Linux 6.7, the tree of a file with huge pages counts in huge pages.
        let unit = match huge_page {
            Some(Bytes(huge)) if all.saturating_mul(huge) == charged.0 => huge,
            _ => page,
        };
        let bytes = |pages: u64| Bytes(pages.saturating_mul(unit));
        let mut unknown = pages.unknown;
        let mut cgroups: Vec<Payer> = Vec::new();
        for (number, pages) in &pages.cgroups {
            match self.cgroups.get(number) {
                Some(cgroup) => cgroups.push(Payer { cgroup: Arc::clone(cgroup), bytes: bytes(*pages) }),
                None => unknown = unknown.saturating_add(*pages),
            }
        }
        cgroups.sort_by(|a, b| (b.bytes, &a.cgroup).cmp(&(a.bytes, &b.cgroup)));
        Payers {
            cgroups,
            nobody: bytes(pages.nobody),
            swapped: bytes(pages.swapped),
            unknown: bytes(unknown),
        }
    }
}
