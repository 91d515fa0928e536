//! What the iterators tell in one round.
//!
//! The order is fds, then tasks, then buffers with their mappings: a count is thereby read before its references are
//! gathered and after, and an address space's mappings are looked for a moment after its process was.

use std::collections::HashMap;

use rustix::io::Errno;

use crate::kernel::bpf::record::{DeviceFd, FdRecord, Id, InFlight, Keeper, KeeperKind, Record, Task, Vma};
use crate::kernel::bpf::{Iterator, Probes};
use crate::kernel::identity::InodeFact;
use crate::model::{Inode, Label, Pid};

/// What is known of one buffer.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) inode: InodeFact,
    /// The latest reading; `None`: nothing holds it open.
    pub(super) count: Option<u64>,
    /// How many readings there were.
    pub(super) readings: u32,
    /// Whether they all agree.
    pub(super) agree: bool,
    pub(super) exporter: Option<Label>,
    pub(super) name: Option<Label>,
    /// `None`: no iterator tells, or not all of them.
    pub(super) attachments: Option<Vec<Label>>,
}

impl Known {
    fn new(inode: InodeFact) -> Known {
        Known { inode, count: None, readings: 0, agree: true, exporter: None, name: None, attachments: None }
    }

    /// Adds what another record tells of the same buffer.
    fn merge(&mut self, other: Known) {
        self.agree &= other.agree;
        if let Some(count) = other.count {
            self.counted(count);
            self.readings += other.readings - 1;
        }
        self.exporter = other.exporter.or(self.exporter.take());
        self.name = other.name.or(self.name.take());
        self.attachments = other.attachments.or(self.attachments.take());
    }

    /// Adds a reading of the count.
    pub(super) fn counted(&mut self, count: u64) {
        self.agree &= self.count.is_none_or(|before| before == count);
        self.count = Some(count);
        self.readings += 1;
    }
}

/// Everything that one round found.
#[derive(Debug, Default)]
pub(super) struct Round {
    /// Ordered by process and thread.
    pub(super) tasks: Vec<Task>,
    pub(super) fds: Vec<FdRecord>,
    pub(super) vmas: Vec<Vma>,
    /// Ordered by inode number, each once.
    pub(super) buffers: Vec<Known>,
    pub(super) devices: Vec<DeviceFd>,
    pub(super) in_flight: Vec<InFlight>,
    pub(super) keepers: Vec<Keeper>,
    /// Whether the mappings may lack some.
    pub(super) cut: bool,
}

impl Round {
    /// Makes a round. With `locked` every VMA of the machine is looked at under its lock; else those in the buffers' own
    /// trees are.
    pub(super) fn make(probes: &mut Probes, locked: bool) -> Result<Round, Errno> {
        let mut round = Round::default();
        let listed = probes.why_not(Iterator::DmaBuf).is_none();
        round.read(probes, Iterator::TaskFile, true)?;
        round.read(probes, Iterator::Task, true)?;
        round.tasks.sort_unstable_by_key(|task| (task.pid, task.tid));
        if locked || !listed {
            round.read(probes, Iterator::TaskVma, true)?;
        }
        if listed {
            round.read(probes, Iterator::DmaBuf, !locked)?;
        } else {
            // The counts once more.
            let mut again = Round::default();
            again.read(probes, Iterator::TaskFile, true)?;
            round.buffers.append(&mut again.buffers);
        }
        round.cut &= !locked;
        round.buffers.sort_by_key(|known| known.inode.ino);
        round.buffers.dedup_by(|later, first| {
            let same = later.inode.ino == first.inode.ino;
            if same {
                first.merge(std::mem::replace(later, Known::new(first.inode)));
            }
            same
        });
        // If what lists them was at hand when the others were pinned, these do not describe them.
        let described =
            |fd: &FdRecord| round.buffers.binary_search_by_key(&fd.ino, |known| known.inode.ino).is_ok();
        if listed || round.fds.iter().all(described) { Ok(round) } else { Err(Errno::BADMSG) }
    }

    /// Adds what one iterator tells; its mappings only `with_vmas`.
    fn read(&mut self, probes: &mut Probes, iterator: Iterator, with_vmas: bool) -> Result<(), Errno> {
        let mut attachments = Some(Vec::new());
        probes.read(iterator, |record| match record {
            Record::Task(task) => self.tasks.push(task),
            Record::Fd(fd) => self.fds.push(fd),
            Record::Attachment(name) => match (name, &mut attachments) {
                (Some(name), Some(attachments)) => attachments.push(name.into()),
                _ => attachments = None,
            },
            Record::Buffer(buffer) => {
                self.cut |= !buffer.whole;
                let attached = attachments.replace(Vec::new());
                let mut known = Known::new(buffer.inode);
                known.exporter = buffer.exporter.map(Label::from);
                known.name = buffer.name.map(Label::from);
                if let Some((before, after)) = buffer.counts {
                    known.counted(before);
                    if iterator == Iterator::DmaBuf {
                        known.counted(after);
                        known.attachments = attached.filter(|_| buffer.whole);
                    }
                }
                self.buffers.push(known);
            }
            Record::Vma(vma) if with_vmas => self.vmas.push(vma),
            Record::Vma(_) => {}
            Record::Device(device) => self.devices.push(device),
            Record::InFlight(message) => self.in_flight.push(message),
            Record::Keeper(keeper) => self.keepers.push(keeper),
            Record::End => {}
        })
    }

    /// How many processes there are.
    pub(super) fn processes(&self) -> u64 {
        self.tasks.iter().filter(|task| task.tid.0 == task.pid.0).count() as u64
    }

    /// How many of them are exiting, with what they held out of sight.
    pub(super) fn exiting(&self) -> u64 {
        let mut pids: Vec<Pid> =
            self.tasks.iter().filter(|task| task.exiting && !task.kernel).map(|task| task.pid).collect();
        pids.dedup();
        pids.len() as u64
    }

    /// Who a process is.
    pub(super) fn task(&self, pid: Pid) -> Option<&Task> {
        let at = self.tasks.partition_point(|task| task.pid < pid);
        self.tasks.get(at).filter(|task| task.pid == pid)
    }

    /// Which processes have an address space; a thread that has one of its own counts for its process.
    pub(super) fn address_spaces(&self) -> Vec<(Id, Pid)> {
        let mut spaces: Vec<(Id, Pid)> =
            self.tasks.iter().filter_map(|task| task.mm.map(|mm| (mm, task.pid))).collect();
        spaces.sort_unstable();
        spaces.dedup();
        spaces
    }

    /// How many references of each buffer wait in sockets, each socket asked once; `None`: more may wait than was seen.
    pub(super) fn waiting(&self) -> Option<HashMap<Inode, u64>> {
        let hidden = |keeper: &Keeper| matches!(keeper.what, KeeperKind::Socket | KeeperKind::Nested);
        if self.keepers.iter().any(hidden) {
            return None;
        }
        let mut first = HashMap::new();
        let mut waiting = HashMap::new();
        for message in &self.in_flight {
            if *first.entry(message.socket).or_insert(message.seen_by) == message.seen_by {
                *waiting.entry(message.ino).or_default() += 1;
            }
        }
        Some(waiting)
    }

    /// The io_urings that have an fd, each once; and whether one has none and is mapped, as far as mappings were looked at.
    pub(super) fn rings(&self) -> (Vec<Keeper>, bool) {
        let of = |what| self.keepers.iter().filter(move |keeper| keeper.what == what);
        let mut rings: Vec<Keeper> = of(KeeperKind::Ring).copied().collect();
        rings.sort_unstable_by_key(|ring| ring.ino);
        rings.dedup_by_key(|ring| ring.ino);
        let hidden = of(KeeperKind::RingMapped)
            .any(|mapped| rings.binary_search_by_key(&mapped.ino, |ring| ring.ino).is_err());
        (rings, hidden)
    }
}
