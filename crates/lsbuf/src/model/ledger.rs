//! The arithmetic: each buffer's account, each process's figures, the totals.
//!
//! Pure functions of a [`Snapshot`]. Every number is an integer and every split is exact: a size
//! that three processes share is handed out to the last byte, so that the parts always add up to
//! the whole. A sum that does not fit into 64 bits is unknown, never the largest number.

use std::collections::{BTreeMap, HashMap};

use super::charges::{Charges, Own};
use super::freed::Freeing;
use super::same_memory::{self, Common};
use super::{
    Buffer, Bytes, Device, DeviceClass, Holder, Kind, Label, Owner, Pid, Process, Residual, Snapshot, Why,
    candidates, openers,
};

/// From this many fds of one process to one buffer, its shape is an fd leak. Decoders and
/// compositors duplicate a buffer's fd a few times (one per plane, one per import). Leaks in the
/// field show hundreds.
pub const FD_LEAK_MIN: u64 = 16;

/// Where one buffer's references are.
///
/// `residual` is the count less every reference that was found ([`Buffer::residual`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Account {
    /// References by fd tables.
    pub fd: u64,
    /// References by VMAs.
    pub map: u64,
    /// The private ones among these. `None`: a source does not report it.
    pub private_map: Option<u64>,
    /// Fds in messages that nobody has received yet. `None`: unknown.
    pub in_flight: Option<u64>,
    /// Fixed files of io_uring. `None`: unknown.
    pub io_uring: Option<u64>,
    /// Address spaces of programs that run from it. `None`: unknown; they are part of the residual.
    pub exe: Option<u64>,
    /// The references that are not explained by the above: GEM handles, importers, queues, drivers,
    /// and whatever is unknown above.
    pub residual: Residual,
    /// `O_PATH` fds, which are not in the count.
    pub opath: u64,
}

impl Account {
    fn of(buffer: &Buffer, held: &HeldRefs) -> Account {
        let HeldRefs { fd, map, private_map, opath } = *held;
        let Buffer { in_flight, io_uring, exe, residual, .. } = *buffer;
        Account { fd, map, private_map, in_flight, io_uring, exe, residual, opath }
    }

    /// That of a buffer that no process holds.
    #[cfg(feature = "render")]
    pub(crate) fn of_unheld(buffer: &Buffer) -> Account {
        Account::of(buffer, &HeldRefs::of(buffer))
    }

    /// The residual's number. `None`: unknown.
    #[must_use]
    pub fn kernel(&self) -> Option<u64> {
        self.residual.number()
    }

    /// Whether there is a count, and the residual is not proven.
    #[must_use]
    pub fn is_estimate(&self) -> bool {
        !matches!(self.residual, Residual::Exact(_) | Residual::Unknown(Why::NotCounted))
    }
}

/// The part of an [`Account`] that is added up from the holders; the rest is the buffer's.
#[derive(Clone, Copy, Debug)]
struct HeldRefs {
    fd: u64,
    map: u64,
    private_map: Option<u64>,
    opath: u64,
}

impl HeldRefs {
    fn of(buffer: &Buffer) -> HeldRefs {
        let sum = |f: fn(&Holder) -> u64| buffer.holders.iter().map(f).sum::<u64>();
        let counted = buffer.holders.iter().filter(|h| h.address_space_of.is_none());
        HeldRefs {
            fd: sum(Holder::fd_refs),
            map: sum(Holder::map_refs),
            private_map: counted.map(Holder::private_maps).sum(),
            opath: sum(Holder::opath_refs),
        }
    }
}

/// The leak pattern that a buffer's references look like. It hints where to look and is no verdict:
/// to map a buffer and close its fd is good practice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum LeakShape {
    /// One process holds it by [`FD_LEAK_MIN`] fds or more.
    Fd,
    /// Mapped, and no fd left anywhere.
    Map,
    /// No fd and no mapping: only the kernel holds it, most often for a GEM handle.
    Handle,
    /// Held only by messages that nobody has received.
    InFlight,
    /// Kept only by `O_PATH` fds.
    OPath,
    /// A System V segment that nobody has attached.
    Unattached,
    /// A file in memory that nobody holds ([`UnheldFile`](super::UnheldFile)).
    Unheld,
}

impl LeakShape {
    /// The word for it in JSON and on the terminal.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            LeakShape::Fd => "fd",
            LeakShape::Map => "map",
            LeakShape::Handle => "handle",
            LeakShape::InFlight => "in-flight",
            LeakShape::OPath => "opath",
            LeakShape::Unattached => "unattached",
            LeakShape::Unheld => "unheld",
        }
    }

    /// The shape for which [`LeakShape::as_str`] has that word.
    #[cfg(feature = "history")]
    pub(crate) fn of_word(word: &str) -> Option<LeakShape> {
        use LeakShape::{Fd, Handle, InFlight, Map, OPath, Unattached, Unheld};
        [Fd, Map, Handle, InFlight, OPath, Unattached, Unheld]
            .into_iter()
            .find(|shape| shape.as_str() == word)
    }

    fn of(buffer: &Buffer, account: &Account, saw_every_process: bool) -> Option<LeakShape> {
        if buffer.holders.iter().any(|h| h.slots().0 >= FD_LEAK_MIN) {
            return Some(LeakShape::Fd);
        }
        if buffer.id.kind == Kind::Sysv {
            let unattached = buffer.segment.as_ref().is_some_and(|segment| segment.attached == 0);
            return (unattached && buffer.holders.is_empty()).then_some(LeakShape::Unattached);
        }
        // The other shapes claim that there is no fd, and a process that could not be read may have
        // one. A file that has a name is kept by that name.
        if !saw_every_process || !(buffer.id.kind.goes_unheld() || buffer.deleted == Some(true)) {
            return None;
        }
        // Other kinds are often mapped without an fd: those that never had one, and those that a
        // program runs from.
        let had_fds = matches!(buffer.id.kind, Kind::DmaBuf | Kind::Memfd | Kind::Ashmem | Kind::Secretmem);
        match (account.fd, account.map) {
            (1.., _) => None,
            (0, 1..) => (had_fds && account.exe.unwrap_or(0) == 0).then_some(LeakShape::Map),
            (0, 0) if account.in_flight.is_some_and(|n| n > 0) => Some(LeakShape::InFlight),
            (0, 0) if account.kernel() > Some(0) => Some(LeakShape::Handle),
            (0, 0) if account.opath > 0 => Some(LeakShape::OPath),
            (0, 0) => None,
        }
    }
}

/// What one process holds. Sizes are costs ([`Buffer::cost`]). `None`: the cost of a buffer that
/// they need is unknown, or they do not fit into 64 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ProcessFigures {
    /// The whole cost of every buffer held by at least one fd or mapping. Memory that two of them
    /// have in common counts once.
    pub rss: Option<Bytes>,
    /// Each cost split evenly among the processes that hold the buffer. Odd bytes go to the lowest
    /// pids. Memory of two buffers is split among the processes that hold either.
    pub pss: Option<Bytes>,
    /// Each cost split in proportion to the bytes that each process has mapped. A process that maps
    /// nothing gets nothing.
    pub mapped_pss: Option<Bytes>,
    /// What its exit would free: buffers that neither another process nor the kernel holds, and
    /// whose memory their references own ([`Owner`]). `None` also when one of this is unknown of a
    /// buffer that it alone holds.
    pub uss: Option<Bytes>,
    /// Distinct buffers.
    pub buffers: u64,
    /// Fd slots, `O_PATH` ones included.
    pub fds: u64,
    /// VMAs.
    pub maps: u64,
}

impl Default for ProcessFigures {
    fn default() -> ProcessFigures {
        let zero = Some(Bytes(0));
        ProcessFigures { rss: zero, pss: zero, mapped_pss: zero, uss: zero, buffers: 0, fds: 0, maps: 0 }
    }
}

/// What the machine's buffers cost ([`Buffer::cost`]), as far as they were found; each memory
/// counts once.
///
/// `size` = `held` + `kernel_only`, where all are known and every holder of every segment was found
/// ([`Buffer::is_held_unseen`]). The sum of PSS = `held`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Totals {
    /// Distinct buffers.
    pub buffers: u64,
    /// What they cost together. `None`: the cost of one is unknown, or the sum does not fit into 64
    /// bits. This holds for the other sums, too.
    pub size: Option<Bytes>,
    /// The sum of the known costs, at most 2^64 - 1. `size` is no less.
    pub at_least: Bytes,
    /// Memory that two buffers have in common, as far as that is known, at most 2^64 - 1. It counts
    /// once in `size`.
    pub same_memory: Bytes,
    /// The part that at least one process holds.
    pub held: Option<Bytes>,
    /// The part of `held` that only `O_PATH` fds keep. The kernel no longer lists these buffers.
    pub opath: Option<Bytes>,
    /// The part that no process holds. `None` also if the kernel's own list of dma-bufs was not
    /// read, because only that list has such dma-bufs. Of shmem: segments that nobody has attached,
    /// and buffers that only messages in flight hold.
    pub kernel_only: Option<Bytes>,
    /// The sum of the processes' RSS. A shared buffer counts once per holder.
    pub rss: Option<Bytes>,
    /// The sum of the processes' PSS.
    pub pss: Option<Bytes>,
    /// The sum of the buffers' residuals: references that no process explains. `None`: the residual
    /// of a dma-buf is unknown. Shmem without a count is left out.
    pub unattributed_refs: Option<u64>,
    /// Whether a residual in `unattributed_refs` is an estimate.
    pub estimate: bool,
}

/// The totals of one kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct KindTotals {
    /// The kind.
    pub kind: Kind,
    /// Distinct buffers.
    pub buffers: u64,
    /// Their sizes together. `None`: one is unknown, or the sum does not fit into 64 bits. This
    /// holds for the other sums, too.
    pub size: Option<Bytes>,
    /// The bytes charged for them. `None`: those of one are unknown, or the kernel does not report
    /// them.
    pub charged: Option<Bytes>,
    /// The cost of those that at least one process holds.
    pub held: Option<Bytes>,
    /// The cost of those that no process holds, as [`Totals::kernel_only`].
    pub kernel_only: Option<Bytes>,
    /// The sum of the known costs, at most 2^64 - 1.
    pub at_least: Bytes,
}

impl KindTotals {
    /// What they cost together ([`Buffer::cost`]). `None`: the cost of one is unknown.
    #[must_use]
    pub fn cost(&self) -> Option<Bytes> {
        self.kind.cost(self.size, self.charged)
    }
}

/// The totals of one exporter. Exporters have memory of different types (RAM, VRAM, device memory),
/// and one memory can be exported twice. So these sums are the exported bytes, not the RAM in use.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ExporterTotals {
    /// `None`: the buffers whose exporter could not be read.
    pub exporter: Option<Label>,
    /// Distinct buffers.
    pub buffers: u64,
    /// Their sizes together. `None`: one is unknown, or the sum does not fit into 64 bits.
    pub size: Option<Bytes>,
}

/// A snapshot with its figures: each buffer's account, each process's figures, the totals.
///
/// It borrows the snapshot, so that a figure cannot be taken for another snapshot's buffer.
///
/// ```
/// use lsbuf::model::Ledger;
///
/// let snapshot = lsbuf::scan(lsbuf::scan::Options::default())?;
/// for row in Ledger::of(&snapshot).rows() {
///     println!("{}: {} fds, {} mappings", row.buffer.id.ino, row.account.fd, row.account.map);
/// }
/// # Ok::<(), lsbuf::Error>(())
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Ledger<'s> {
    snapshot: &'s Snapshot,
    /// Of each of the snapshot's buffers, in their order.
    buffers: Vec<BufferFigures>,
    candidates: CandidateLists<'s>,
    /// Of each of the snapshot's processes, in their order.
    processes: Vec<ProcessFigures>,
    /// The whole machine.
    pub totals: Totals,
    /// The whole machine by kind, in the order of [`Kind::ALL`]; those that were found.
    pub kinds: Vec<KindTotals>,
    /// The dma-bufs of the whole machine by exporter, largest first.
    pub exporters: Vec<ExporterTotals>,
}

/// What is kept for each buffer, of which there may be very many.
#[derive(Clone, Copy, Debug)]
struct BufferFigures {
    held: HeldRefs,
    shape: Option<LeakShape>,
    /// An index into [`CandidateLists::lists`].
    candidates: usize,
}

/// Whether it is memory of a GPU driver, its exporter, and its attachments.
type CandidateFacts<'s> = (bool, Option<&'s Label>, Option<&'s [Label]>);

/// The lists of candidates. Buffers with the same facts have one list together.
#[derive(Clone, Debug)]
struct CandidateLists<'s> {
    /// The first one is empty.
    lists: Vec<Vec<Pid>>,
    /// The list for the same facts, where no handles are listed.
    known: HashMap<CandidateFacts<'s>, usize>,
    /// The list of those that have a video device open, if it was needed.
    of_queues: Option<usize>,
}

impl<'s> CandidateLists<'s> {
    fn new() -> CandidateLists<'s> {
        CandidateLists { lists: vec![Vec::new()], known: HashMap::new(), of_queues: None }
    }

    /// The index of the buffer's list.
    fn add(&mut self, buffer: &'s Buffer, account: &Account, devices: &[Device]) -> usize {
        let next = self.lists.len();
        if account.kernel() == Some(0) {
            // The references are explained, but a queue that owns the memory has none.
            if Owner::of(buffer) != Owner::Queue {
                return 0;
            }
            return *self.of_queues.get_or_insert_with(|| {
                self.lists.push(openers(devices, DeviceClass::Video));
                next
            });
        }
        if !buffer.handles.is_empty() {
            self.lists.push(candidates(buffer, devices));
            return next;
        }
        let is_driver_memory = buffer.id.kind == Kind::GemShmem;
        let facts = (is_driver_memory, buffer.exporter.as_ref(), buffer.attachments.as_deref());
        *self.known.entry(facts).or_insert_with(|| {
            self.lists.push(candidates(buffer, devices));
            next
        })
    }
}

/// One buffer and what the ledger says of it.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct BufferRow<'a> {
    /// The buffer and its holders.
    pub buffer: &'a Buffer,
    /// Where its references are.
    pub account: Account,
    /// The leak pattern that its references look like, if any.
    pub shape: Option<LeakShape>,
    /// Processes that could be behind its residual, because they have a fitting device open;
    /// ordered. Where the residual is 0: those that could have the queue that owns its memory
    /// ([`Owner::Queue`]), and none for other owners.
    pub candidates: &'a [Pid],
}

/// One process and its figures.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct ProcessRow<'a> {
    /// The process.
    pub process: &'a Process,
    /// What it holds.
    pub figures: &'a ProcessFigures,
}

/// Where one buffer's references are, and the leak pattern that they look like.
#[cfg(feature = "history")]
pub(crate) fn measure(buffer: &Buffer, saw_every_process: bool) -> (Account, Option<LeakShape>) {
    let account = Account::of(buffer, &HeldRefs::of(buffer));
    (account, LeakShape::of(buffer, &account, saw_every_process))
}

impl<'s> Ledger<'s> {
    /// Measures a snapshot.
    #[must_use]
    pub fn of(snapshot: &'s Snapshot) -> Ledger<'s> {
        let saw_every_process = snapshot.coverage.saw_every_process();
        let mut candidates = CandidateLists::new();
        let mut charges = Charges::new(&snapshot.processes);
        let freeing = Freeing::new(&snapshot.buffers, &snapshot.devices);
        let commons = same_memory::commons(&snapshot.buffers);
        let own = own_of_parts(&snapshot.buffers, &commons);
        let measure = |(index, buffer)| {
            let held = HeldRefs::of(buffer);
            let account = Account::of(buffer, &held);
            charges.add(buffer, &account, own.get(&index).copied().unwrap_or(Own::All), &freeing);
            BufferFigures {
                held,
                shape: LeakShape::of(buffer, &account, saw_every_process),
                candidates: candidates.add(buffer, &account, &snapshot.devices),
            }
        };
        let buffers: Vec<BufferFigures> = snapshot.buffers.iter().enumerate().map(measure).collect();
        charge_bases(&mut charges, &snapshot.buffers, &commons, &freeing);
        let costs = |counts: fn(&Buffer, &HeldRefs) -> bool| {
            let all = snapshot.buffers.iter().zip(&buffers);
            all.filter(move |(b, f)| counts(b, &f.held)).map(|(b, _)| b.cost())
        };
        let accounts = || snapshot.buffers.iter().zip(&buffers).map(|(b, f)| (b, Account::of(b, &f.held)));
        let (held_twice, same_memory) = same_memory::counted_twice(&snapshot.buffers, &commons);
        let kinds = by_kind(snapshot);
        let known_costs = snapshot.buffers.iter().filter_map(Buffer::cost).map(|cost| u128::from(cost.0));
        let totals = Totals {
            buffers: snapshot.buffers.len() as u64,
            size: less(costs(|_, _| true), same_memory),
            at_least: clamped(known_costs.sum::<u128>() - same_memory),
            same_memory: clamped(same_memory),
            held: less(costs(|b, _| !b.holders.is_empty()), held_twice),
            opath: less(costs(|b, h| h.opath > 0 && h.fd == 0 && h.map == 0 && b.count == Some(0)), 0),
            kernel_only: knows_unheld(snapshot)
                .then(|| less(costs(|b, _| b.is_unheld()), same_memory - held_twice))
                .flatten(),
            rss: Bytes::total(charges.each().map(|f| f.rss)),
            pss: Bytes::total(charges.each().map(|f| f.pss)),
            unattributed_refs: accounts().try_fold(0u64, |sum, (buffer, account)| {
                let counted = buffer.id.kind == Kind::DmaBuf || account.kernel().is_some();
                sum.checked_add(if counted { account.kernel()? } else { 0 })
            }),
            estimate: accounts().any(|(_, account)| account.is_estimate()),
        };
        let processes = charges.figures;
        let exporters = by_exporter(&snapshot.buffers);
        Ledger { snapshot, buffers, candidates, processes, totals, kinds, exporters }
    }

    /// The snapshot that was measured.
    #[must_use]
    pub fn snapshot(&self) -> &'s Snapshot {
        self.snapshot
    }

    /// Every buffer, in the snapshot's order.
    pub fn rows(&self) -> impl ExactSizeIterator<Item = BufferRow<'_>> + DoubleEndedIterator {
        (0..self.buffers.len()).map(|index| self.row(index))
    }

    /// The buffer at that index of [`Snapshot::buffers`].
    ///
    /// # Panics
    /// If there is none.
    #[must_use]
    pub fn row(&self, index: usize) -> BufferRow<'_> {
        let (buffer, figures) = (&self.snapshot.buffers[index], &self.buffers[index]);
        BufferRow {
            buffer,
            account: Account::of(buffer, &figures.held),
            shape: figures.shape,
            candidates: &self.candidates.lists[figures.candidates],
        }
    }

    /// Every process, in the snapshot's order.
    pub fn processes(&self) -> impl ExactSizeIterator<Item = ProcessRow<'_>> + DoubleEndedIterator {
        (0..self.processes.len()).map(|index| self.process_row(index))
    }

    /// The process at that index of [`Snapshot::processes`].
    ///
    /// # Panics
    /// If there is none.
    #[must_use]
    pub fn process_row(&self, index: usize) -> ProcessRow<'_> {
        ProcessRow { process: &self.snapshot.processes[index], figures: &self.processes[index] }
    }

    /// The process of that id; `None`: it holds nothing.
    #[must_use]
    pub fn process(&self, pid: Pid) -> Option<ProcessRow<'_>> {
        self.snapshot.process_index(pid).map(|index| self.process_row(index))
    }
}

/// The sum of costs, less what is counted in it twice. `None`: a cost is unknown, or the result
/// does not fit into 64 bits.
fn less(mut costs: impl Iterator<Item = Option<Bytes>>, twice: u128) -> Option<Bytes> {
    let sum = costs.try_fold(0u128, |sum, cost| Some(sum + u128::from(cost?.0)))?;
    u64::try_from(sum.saturating_sub(twice)).ok().map(Bytes)
}

/// Of each part and each base of memory that is in two buffers: what of its cost is its own.
fn own_of_parts(buffers: &[Buffer], commons: &[Common]) -> HashMap<usize, Own> {
    let mut own = HashMap::new();
    for of_part in commons.chunk_by(|a, b| a.part == b.part) {
        let cost = buffers[of_part[0].part].cost().unwrap_or_default();
        let common: u64 = of_part.iter().map(|common| common.bytes).sum();
        own.insert(of_part[0].part, Own::Part(cost.0 - common));
        own.extend(of_part.iter().map(|common| (common.base, Own::Base)));
    }
    own
}

/// Charges each base with what its parts have of it, and what an exit frees of it.
fn charge_bases(charges: &mut Charges<'_>, buffers: &[Buffer], commons: &[Common], freeing: &Freeing<'_>) {
    let mut by_base = commons.to_vec();
    by_base.sort_by_key(|common| common.base);
    for of_base in by_base.chunk_by(|a, b| a.base == b.base) {
        let base = of_base[0].base;
        charges.add_base(base, buffers, of_base);
        let account = |buffer: &Buffer| Account::of(buffer, &HeldRefs::of(buffer));
        if let Some((pid, freed)) = freeing.of_base(base, of_base, account) {
            charges.add_freed(pid, freed);
        }
    }
}

/// That number, or the largest size if it is larger.
fn clamped(bytes: u128) -> Bytes {
    Bytes(u64::try_from(bytes).unwrap_or(u64::MAX))
}

/// Whether a scan would have found buffers that no process holds.
pub(crate) fn knows_unheld(snapshot: &Snapshot) -> bool {
    let listed = snapshot.coverage.sources.iter().any(|source| source.lists_buffers());
    listed || !snapshot.kinds.has(Kind::DmaBuf)
}

fn by_kind(snapshot: &Snapshot) -> Vec<KindTotals> {
    let knows_unheld = knows_unheld(snapshot);
    let none = |kind: Kind| KindTotals {
        kind,
        buffers: 0,
        size: Some(Bytes(0)),
        charged: Some(Bytes(0)),
        held: Some(Bytes(0)),
        kernel_only: (kind != Kind::DmaBuf || knows_unheld).then_some(Bytes(0)),
        at_least: Bytes(0),
    };
    let mut kinds: Vec<KindTotals> = Kind::ALL.iter().map(|&kind| none(kind)).collect();
    let add = |sum: &mut Option<Bytes>, part| *sum = Bytes::total([*sum, part]);
    for buffer in &snapshot.buffers {
        let Some(totals) = kinds.iter_mut().find(|totals| totals.kind == buffer.id.kind) else { continue };
        totals.buffers += 1;
        add(&mut totals.size, buffer.size);
        add(&mut totals.charged, buffer.charged);
        totals.at_least = Bytes::at_least([Some(totals.at_least), buffer.cost()]);
        if !buffer.holders.is_empty() {
            add(&mut totals.held, buffer.cost());
        } else if buffer.is_unheld() {
            add(&mut totals.kernel_only, buffer.cost());
        }
    }
    kinds.retain(|totals| totals.buffers > 0);
    kinds
}

fn by_exporter(buffers: &[Buffer]) -> Vec<ExporterTotals> {
    let mut groups: BTreeMap<Option<&Label>, (u64, Option<Bytes>)> = BTreeMap::new();
    for buffer in buffers.iter().filter(|b| b.id.kind == Kind::DmaBuf) {
        let (number, sum) = groups.entry(buffer.exporter.as_ref()).or_insert((0, Some(Bytes(0))));
        *number += 1;
        *sum = Bytes::total([*sum, buffer.size]);
    }
    let total = |(exporter, (buffers, size)): (Option<&Label>, _)| {
        let exporter = exporter.cloned();
        ExporterTotals { exporter, buffers, size }
    };
    let mut totals: Vec<ExporterTotals> = groups.into_iter().map(total).collect();
    totals.sort_by_key(|t| std::cmp::Reverse(t.size));
    totals
}

#[cfg(test)]
#[path = "ledger_tests.rs"]
pub(crate) mod tests;
