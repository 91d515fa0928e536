//! The figures of processes that share memory between buffers, against a model that knows every
//! page: a set of pages for each buffer, and a set of buffers for each process.

use std::collections::BTreeSet;

use proptest::collection::{btree_set, vec};
use proptest::prelude::*;

use super::*;
use crate::model::ledger::tests::snapshot;
use crate::model::{
    Fd, Gaps, Holder, Inode, Ledger, MapRef, Overlap, Pid, ProcessFigures, Residual, Snapshot,
};

/// A size that up to six processes can share without a remainder. It is no page size of a machine.
const PAGE: u64 = 60;

/// A memfd and udmabufs of ranges of it, and who holds which.
#[derive(Clone, Debug)]
struct World {
    memfd_pages: u64,
    /// First page and number of pages.
    parts: Vec<(u64, u64)>,
    /// Of the memfd, and then of each part: who holds it by an fd.
    holders: Vec<BTreeSet<u32>>,
    /// Whether something in the kernel holds it as well. What no process holds exists because of
    /// that.
    kernel: Vec<bool>,
}

impl World {
    /// The pages of the memfd (0), or of a part.
    fn pages(&self, buffer: usize) -> BTreeSet<u64> {
        match buffer.checked_sub(1) {
            None => (0..self.memfd_pages).collect(),
            Some(part) => (self.parts[part].0..self.parts[part].0 + self.parts[part].1).collect(),
        }
    }

    fn buffer(&self, nth: usize) -> Buffer {
        let pids = &self.holders[nth];
        let holder = |&pid: &u32| Holder { fds: vec![Fd(3)].into(), ..Holder::new(Pid(pid)) };
        let memfd = BufferId::new(Kind::Memfd, None, Inode(1));
        let size = Bytes(self.pages(nth).len() as u64 * PAGE);
        let mut buffer = match nth {
            0 => Buffer { charged: Some(size), ..Buffer::new(memfd) },
            _ => Buffer {
                exporter: Some("udmabuf".into()),
                overlaps: Some(vec![Overlap { of: memfd, bytes: size }]),
                ..Buffer::new(BufferId::new(Kind::DmaBuf, None, Inode(nth as u64)))
            },
        };
        buffer.size = Some(size);
        (buffer.in_flight, buffer.io_uring) = (Some(0), Some(0));
        buffer.residual = Residual::Exact(self.kernel[nth].into());
        buffer.count = Some(pids.len() as u64 + u64::from(self.kernel[nth]));
        buffer.holders = pids.iter().map(holder).collect();
        buffer
    }

    fn snapshot(&self) -> Snapshot {
        let mut buffers: Vec<Buffer> = (0..self.holders.len()).map(|nth| self.buffer(nth)).collect();
        buffers.sort_by_key(|buffer| buffer.id);
        snapshot(buffers, Gaps::default())
    }

    /// What one process holds, page by page.
    fn truth(&self, pid: u32) -> ProcessFigures {
        let buffers = 0..self.holders.len();
        let has = |page| buffers.clone().filter(move |&buffer| self.pages(buffer).contains(&page));
        let (mut rss, mut pss, mut uss) = (0, 0, 0);
        for page in 0..self.memfd_pages {
            let holders: BTreeSet<u32> =
                has(page).flat_map(|buffer| &self.holders[buffer]).copied().collect();
            if holders.contains(&pid) {
                rss += PAGE;
                pss += PAGE / holders.len() as u64;
                let stays = has(page).any(|buffer| self.kernel[buffer]);
                uss += if holders.len() == 1 && !stays { PAGE } else { 0 };
            }
        }
        let [rss, pss, uss] = [rss, pss, uss].map(|bytes| Some(Bytes(bytes)));
        ProcessFigures { rss, pss, uss, ..ProcessFigures::default() }
    }
}

/// A world whose parts begin at any page, or each where the one before it ends.
fn any_world(apart: bool) -> impl Strategy<Value = World> {
    let parts = vec((0..8u64, 1..8u64, btree_set(1..5u32, 0..3), prop::bool::weighted(0.2)), 0..4);
    let memfd = (8..24u64, btree_set(1..5u32, 0..3), prop::bool::weighted(0.2));
    (memfd, parts).prop_map(move |((memfd_pages, held, in_kernel), parts)| {
        let kernel = vec![in_kernel || held.is_empty()];
        let mut world = World { memfd_pages, parts: Vec::new(), holders: vec![held], kernel };
        let mut next = 0;
        for (first, pages, holders, in_kernel) in parts {
            let first = if apart { next } else { first };
            if first + pages > memfd_pages {
                break;
            }
            next = first + pages;
            world.parts.push((first, pages));
            world.kernel.push(in_kernel || holders.is_empty());
            world.holders.push(holders);
        }
        world
    })
}

proptest! {
    /// Check that RSS and PSS are those of the pages where parts do not overlap, and that PSS adds
    /// up.
    #[test]
    fn figures_are_those_of_the_pages(world in any_world(true)) {
        let s = world.snapshot();
        let ledger = Ledger::of(&s);
        for row in ledger.processes() {
            let truth = world.truth(row.process.pid.0);
            prop_assert_eq!((row.figures.rss, row.figures.pss), (truth.rss, truth.pss));
        }
        prop_assert_eq!(ledger.totals.pss, ledger.totals.held);
    }

    /// Check that an exit frees what USS says, however parts overlap, and that USS is known where
    /// they do not.
    #[test]
    fn uss_is_proven(apart in any_world(true), any in any_world(false)) {
        for (world, is_apart) in [(apart, true), (any, false)] {
            let s = world.snapshot();
            for row in Ledger::of(&s).processes() {
                let truth = world.truth(row.process.pid.0);
                if let Some(uss) = row.figures.uss {
                    prop_assert_eq!(Some(uss), truth.uss);
                } else {
                    prop_assert!(!is_apart || world.parts.len() > 1);
                }
            }
        }
    }
}

/// The RSS, PSS, MPSS and USS of each process.
fn figures(world: &World) -> Vec<[u64; 4]> {
    let of = |f: &ProcessFigures| [f.rss, f.pss, f.mapped_pss, f.uss].map(|bytes| bytes.unwrap().0);
    Ledger::of(&world.snapshot()).processes().map(|row| of(row.figures)).collect()
}

/// Check that a memfd of 64 and three udmabufs of 4 of it are 64 for the process that has them all.
#[test]
fn one_holder_of_all() {
    let world = World {
        memfd_pages: 64,
        parts: vec![(0, 4), (8, 4), (60, 4)],
        holders: vec![[7].into(); 4],
        kernel: vec![false; 4],
    };
    let all = 64 * PAGE;
    assert_eq!(figures(&world), [[all, all, 0, all]]);
}

/// Check that of a memfd and a udmabuf of it that two processes hold, the pages in both are shared:
/// neither exit frees them, and the memfd's holder frees the others.
#[test]
fn a_udmabuf_of_another_process() {
    let world = World {
        memfd_pages: 64,
        parts: vec![(0, 4)],
        holders: vec![[7].into(), [8].into()],
        kernel: vec![false; 2],
    };
    assert_eq!(figures(&world), [[64 * PAGE, 62 * PAGE, 0, 60 * PAGE], [4 * PAGE, 2 * PAGE, 0, 0]]);
}

/// Check that memory which two processes map through different buffers is divided by how much of
/// its buffer each maps: who maps all of a small part has as much of it as who maps all.
#[test]
fn mapped_through_different_buffers() {
    let world = World {
        memfd_pages: 64,
        parts: vec![(0, 4)],
        holders: vec![[7].into(), [8].into()],
        kernel: vec![false; 2],
    };
    let mut s = world.snapshot();
    for buffer in &mut s.buffers {
        let end = buffer.size.unwrap().0;
        buffer.holders[0].maps = vec![MapRef { start: 0, end, offset: Some(0), perms: None }].into();
    }
    let ledger = Ledger::of(&s);
    let mapped: Vec<_> = ledger.processes().map(|row| row.figures.mapped_pss.unwrap().0 / PAGE).collect();
    assert_eq!(mapped, [62, 2]);
}

/// Check that parts that do not fit into their base side by side are laid over one another, and
/// that no empty range is made.
#[test]
fn parts_beyond_the_end() {
    let world = World {
        memfd_pages: 10,
        parts: vec![(0, 6), (0, 4), (0, 10), (0, 3)],
        holders: vec![BTreeSet::new(), [1].into(), [1].into(), [2].into(), [3].into()],
        kernel: vec![true, false, false, false, false],
    };
    let s = world.snapshot();
    let edges = lay_out(&s.buffers, 10 * PAGE, &commons(&s.buffers));
    assert!(edges.is_sorted_by_key(|edge| edge.at));
    assert_eq!(edges.iter().filter(|edge| edge.begins).count() * 2, edges.len());
    let ledger = Ledger::of(&s);
    assert_eq!(ledger.totals.pss, Some(Bytes(10 * PAGE)));
    let rss: Vec<_> = ledger.processes().map(|row| row.figures.rss.unwrap().0 / PAGE).collect();
    assert_eq!(rss, [10, 10, 3]);
}
