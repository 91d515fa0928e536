//! Figures summed by a key: by name, by command, by pod.
//!
//! A buffer has one name and one kind, but may have holders in several pods. Then it counts in each
//! of these groups, and what is counted more than once is known: the sum of all groups less
//! [`SumTotals::counted_again`] is what the buffers come to. PSS is divided among the holders as in
//! [`ProcessFigures`](super::ProcessFigures), so it adds up without that.
//!
//! The key `payer` is another: each page has one payer, so a buffer counts in each group with what
//! that cgroup pays, and nothing counts twice. It also counts the files that nobody holds.
//!
//! To add a key, add a row to [`SumKey`]: its word, what it needs to be asked for, and the group of
//! a buffer or of a holder.
//!
//! Limits: memory that two buffers share counts for both, as far as it does in their sizes;
//! [`Totals::same_memory`](super::Totals::same_memory) says how much that is.

use std::collections::{BTreeMap, BTreeSet};

use super::charges::part_of;
use super::freed::Freeing;
use super::{
    Buffer, Bytes, Detail, Details, Holder, Kind, Label, Ledger, Origin, Pid, Process, ProcessDetails,
    Snapshot, Workload, folded,
};

/// By what buffers are grouped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SumKey {
    /// The buffer's name, with numbers folded ([`folded`]).
    Name,
    /// The holder's command.
    Command,
    /// The holder's cgroup ([`Process::cgroup`](super::Process::cgroup)).
    Cgroup,
    /// The holder's systemd unit.
    Unit,
    /// The holder's container.
    Container,
    /// The holder's pod.
    Pod,
    /// The holder's workload ([`WorkloadName`](super::WorkloadName)): its container in its pod, or
    /// its unit.
    Workload,
    /// The holder's user: the name, or else the number.
    User,
    /// The exporter of a dma-buf.
    Exporter,
    /// The kind.
    Kind,
    /// The filesystem of a file of tmpfs or hugetlbfs: `MAJOR:MINOR`, and where it is mounted.
    Mount,
    /// The cgroup that the kernel charges the pages to ([`Buffer::payers`]).
    Payer,
    /// The command that made the buffer ([`Buffer::origin`]). Those older than the flight recorder
    /// have none.
    Origin,
    /// The calls of the program that made the buffer, from its first own function outwards.
    Stack,
    /// The command that received the buffer first from its maker ([`Birth::client`]).
    ///
    /// [`Birth::client`]: super::Birth::client
    Client,
}

impl SumKey {
    /// Every key, in the order in which help lists them.
    pub const ALL: &'static [SumKey] = &[
        SumKey::Name,
        SumKey::Command,
        SumKey::Cgroup,
        SumKey::Unit,
        SumKey::Container,
        SumKey::Pod,
        SumKey::Workload,
        SumKey::User,
        SumKey::Exporter,
        SumKey::Kind,
        SumKey::Mount,
        SumKey::Payer,
        SumKey::Origin,
        SumKey::Stack,
        SumKey::Client,
    ];

    /// The word for it on the command line and in JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            SumKey::Name => "name",
            SumKey::Command => "command",
            SumKey::Cgroup => "cgroup",
            SumKey::Unit => "unit",
            SumKey::Container => "container",
            SumKey::Pod => "pod",
            SumKey::Workload => "workload",
            SumKey::User => "user",
            SumKey::Exporter => "exporter",
            SumKey::Kind => "kind",
            SumKey::Mount => "mount",
            SumKey::Payer => "payer",
            SumKey::Origin => "origin",
            SumKey::Stack => "stack",
            SumKey::Client => "client",
        }
    }

    /// The key of which [`SumKey::as_str`] has that word.
    #[must_use]
    pub fn of_word(word: &str) -> Option<SumKey> {
        SumKey::ALL.iter().copied().find(|key| key.as_str() == word)
    }

    /// What a scan must be asked for ([`Options::details`](crate::scan::Options::details)), or else
    /// all groups are unknown.
    #[must_use]
    pub fn details(self) -> Details {
        match self {
            SumKey::Unit | SumKey::Container | SumKey::Pod | SumKey::Workload => Detail::Workload.into(),
            SumKey::User => Detail::User.into(),
            SumKey::Mount => Detail::MountPoints.into(),
            SumKey::Origin | SumKey::Client => Detail::Origin.into(),
            SumKey::Stack => [Detail::Origin, Detail::Stacks].into_iter().collect(),
            _ => Details::NONE,
        }
    }

    /// Whether it is a key of the holders, so that a buffer can be in several groups.
    #[must_use]
    pub fn is_of_holders(self) -> bool {
        matches!(
            self,
            SumKey::Command
                | SumKey::Cgroup
                | SumKey::Unit
                | SumKey::Container
                | SumKey::Pod
                | SumKey::Workload
                | SumKey::User
        )
    }

    /// The group of a buffer, by a key of buffers.
    fn of_buffer(self, snapshot: &Snapshot, buffer: &Buffer) -> Group {
        let kind = buffer.id.kind;
        match self {
            // A segment's name is its key, which numbers nothing.
            SumKey::Name if kind == Kind::Sysv => Group::known(buffer.name.clone()),
            SumKey::Name => Group::known(buffer.name.as_ref().map(folded)),
            SumKey::Exporter if kind == Kind::DmaBuf => Group::known(buffer.exporter.clone()),
            SumKey::Kind => Group::Key(kind.as_str().into()),
            SumKey::Mount if matches!(kind, Kind::Tmpfs | Kind::Hugetlbfs) => {
                let shown = buffer.id.dev.map(|dev| match snapshot.mount_points.get(&dev) {
                    Some(point) => [dev.to_string().as_bytes(), b" ", point.as_bytes()].concat(),
                    None => dev.to_string().into_bytes(),
                });
                Group::known(shown.map(|text| Label::from(&text[..])))
            }
            SumKey::Origin | SumKey::Stack => self.of_origin(buffer.origin.as_deref()),
            SumKey::Client => {
                let client = buffer.origin.as_deref().and_then(Origin::client);
                Group::known(client.map(|client| client.command.clone()))
            }
            _ => Group::None,
        }
    }

    /// The group of a buffer by who made it.
    fn of_origin(self, origin: Option<&Origin>) -> Group {
        match origin {
            None | Some(Origin::Unknown(_)) => Group::Unknown,
            Some(Origin::Before) => Group::None,
            Some(Origin::Made(birth)) if self == SumKey::Origin => Group::known(Some(birth.command.clone())),
            Some(Origin::Made(birth)) => Group::known(birth.stack.as_ref().and_then(|stack| stack.key())),
        }
    }

    /// The group of a holder, by a key of holders.
    pub(crate) fn of_holder(self, process: &Process) -> Group {
        let details = process.details.as_deref();
        let workload = |part: fn(&Workload) -> Option<Label>| match details {
            Some(ProcessDetails { workload: Some(workload), .. }) => {
                part(workload).map_or(Group::None, |text| Group::known(Some(text)))
            }
            _ => Group::Unknown,
        };
        match self {
            SumKey::Command => Group::known(Some(process.comm.clone())),
            SumKey::Cgroup => Group::known(process.cgroup.clone()),
            SumKey::Unit => workload(|workload| workload.unit.clone()),
            SumKey::Container => workload(|workload| workload.container.clone()),
            SumKey::Pod => workload(|workload| Some(workload.pod.as_ref()?.to_string().as_str().into())),
            SumKey::Workload => workload(|workload| Some(workload.name()?.label())),
            SumKey::User => {
                let number = || process.uid.map(|uid| Label::from(uid.to_string().as_str()));
                Group::known(details.and_then(|details| details.user.clone()).or_else(number))
            }
            _ => Group::Unknown,
        }
    }
}

/// Which group.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Group {
    /// Those with this key, which is not empty.
    Key(Label),
    /// Those without such a key: unnamed buffers, processes in no container.
    None,
    /// The key could not be read.
    Unknown,
    /// Buffers that no process holds, where the key is one of holders.
    Unheld,
}

impl Group {
    fn known(key: Option<Label>) -> Group {
        match key {
            None => Group::Unknown,
            Some(key) if key.as_bytes().is_empty() => Group::None,
            Some(key) => Group::Key(key),
        }
    }
}

/// The figures of one group. Sizes are costs ([`Buffer::cost`]) unless they say otherwise. `None`:
/// one is unknown, or the sum does not fit into 64 bits.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct GroupFigures {
    /// Which group.
    pub group: Group,
    /// Distinct buffers in it.
    pub buffers: u64,
    /// Their sizes together.
    pub size: Option<Bytes>,
    /// Their cost.
    pub cost: Option<Bytes>,
    /// The sum of the known costs, at most 2^64 - 1.
    pub at_least: Bytes,
    /// The parts of their holders in this group: each cost is split evenly among its holders.
    pub pss: Option<Bytes>,
    /// What the kernel would free if all processes of the group exited: buffers that nobody else
    /// holds. `None` also if that takes a residual that is unknown.
    pub uss: Option<Bytes>,
    /// The cost of those that count in another group too.
    pub shared: Option<Bytes>,
    /// References by fd. An fd table that processes share counts once, with one of them.
    pub fds: u64,
    /// References by mapping, likewise.
    pub maps: u64,
    /// Distinct processes of the group that hold one of them.
    pub processes: u64,
}

/// What all groups come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SumTotals {
    /// Distinct buffers.
    pub buffers: u64,
    /// Their cost, each once.
    pub cost: Option<Bytes>,
    /// The sum of the known costs, at most 2^64 - 1.
    pub at_least: Bytes,
    /// The cost of those that a process holds: the sum of PSS of all groups.
    pub held: Option<Bytes>,
    /// What the groups count more than once: the sum of their costs less `cost`.
    pub counted_again: Option<Bytes>,
    /// How many buffers are in more than one group.
    pub in_several: u64,
}

/// Buffers in groups.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Sum {
    /// The key.
    pub by: SumKey,
    /// Each group, ordered by its key; those without a key last.
    pub groups: Vec<GroupFigures>,
    /// All of them together.
    pub totals: SumTotals,
}

impl Sum {
    /// Sums up some buffers of a ledger, by their indices.
    ///
    /// ```
    /// use lsbuf::model::{Ledger, Sum, SumKey};
    ///
    /// let snapshot = lsbuf::scan(lsbuf::scan::Options::default())?;
    /// let ledger = Ledger::of(&snapshot);
    /// let all: Vec<usize> = (0..snapshot.buffers.len()).collect();
    /// for group in Sum::of(&ledger, &all, SumKey::Command).groups {
    ///     println!("{:?}: {} buffers", group.group, group.buffers);
    /// }
    /// # Ok::<(), lsbuf::Error>(())
    /// ```
    #[must_use]
    pub fn of(ledger: &Ledger<'_>, buffers: &[usize], by: SumKey) -> Sum {
        if by == SumKey::Payer {
            return Sum::by_payer(ledger, buffers);
        }
        let mut groups: BTreeMap<Group, Adding> = BTreeMap::new();
        let mut all = Adding::default();
        let (mut held, mut again) = (Amount::default(), Amount::default());
        let mut in_several = 0;
        let freeing = Freeing::new(&ledger.snapshot().buffers, &ledger.snapshot().devices);
        for &index in buffers {
            let row = ledger.row(index);
            let buffer = row.buffer;
            let parts = Parts::of(ledger.snapshot(), buffer, by);
            all.add_buffer(buffer);
            if !buffer.holders.is_empty() {
                held.add(buffer.cost());
            }
            let others = parts.0.len() as u64 - 1;
            in_several += u64::from(others > 0);
            again.add_times(buffer.cost(), others);
            for (group, holders) in parts.0 {
                let adding = groups.entry(group).or_default();
                adding.add_buffer(buffer);
                if others > 0 {
                    adding.shared.add(buffer.cost());
                } else if !holders.is_empty() {
                    adding.uss.add(freeing.of_all_holders(buffer, &row.account));
                }
                for (nth, holder) in holders {
                    adding.add_holder(buffer, nth, holder);
                }
            }
        }
        let totals = SumTotals {
            buffers: all.buffers,
            cost: all.cost.total(),
            at_least: all.cost.at_least(),
            held: held.total(),
            counted_again: again.total(),
            in_several,
        };
        let groups = groups.into_iter().map(|(group, adding)| adding.figures(group)).collect();
        Sum { by, groups, totals }
    }

    /// Sums up by who pays. Indices behind the last buffer are those of [`Snapshot::unheld`].
    fn by_payer(ledger: &Ledger<'_>, buffers: &[usize]) -> Sum {
        let snapshot = ledger.snapshot();
        let mut groups: BTreeMap<Group, Adding> = BTreeMap::new();
        let (mut all, mut held) = (Adding::default(), Amount::default());
        let mut in_several = 0;
        for &index in buffers {
            let unheld = || snapshot.unheld.as_ref()?.get(index.checked_sub(snapshot.buffers.len())?);
            let made;
            let buffer = match snapshot.buffers.get(index) {
                Some(buffer) => buffer,
                None => {
                    let Some(file) = unheld() else { continue };
                    made = file.to_buffer();
                    &made
                }
            };
            all.buffers += 1;
            let parts = paid(buffer);
            in_several += u64::from(parts.len() > 1);
            let is_shared = parts.len() > 1;
            for (group, bytes) in parts {
                all.cost.add(bytes);
                let adding = groups.entry(group).or_default();
                adding.buffers += 1;
                adding.size.add(buffer.size);
                adding.cost.add(bytes);
                adding.uss.add(None);
                if is_shared {
                    adding.shared.add(bytes);
                }
                if !buffer.holders.is_empty() {
                    held.add(bytes);
                    adding.pss.add(bytes);
                }
                for holder in &buffer.holders {
                    adding.add_references(holder);
                }
            }
        }
        let totals = SumTotals {
            buffers: all.buffers,
            cost: all.cost.total(),
            at_least: all.cost.at_least(),
            held: held.total(),
            counted_again: Some(Bytes(0)),
            in_several,
        };
        let groups = groups.into_iter().map(|(group, adding)| adding.figures(group)).collect();
        Sum { by: SumKey::Payer, groups, totals }
    }
}

/// What each payer pays of a buffer. The parts add up to what was counted of its pages, or to its
/// cost if they were not.
fn paid(buffer: &Buffer) -> Vec<(Group, Option<Bytes>)> {
    let Some(payers) = &buffer.payers else { return vec![(Group::Unknown, buffer.cost())] };
    let cgroups = payers.cgroups.iter().map(|payer| {
        let cgroup = &payer.cgroup;
        let mark = if cgroup.removed { &b" (removed)"[..] } else { b"" };
        (Group::Key(Label::from(&[cgroup.path.as_bytes(), mark].concat()[..])), Some(payer.bytes))
    });
    let unknown = payers.swapped + payers.unknown;
    let others = [(Group::None, payers.nobody), (Group::Unknown, unknown)];
    let others = others.into_iter().filter(|(_, bytes)| *bytes > Bytes(0));
    cgroups.chain(others.map(|(group, bytes)| (group, Some(bytes)))).collect()
}

/// The groups of one buffer, each with its holders and their places among all holders.
struct Parts<'b>(BTreeMap<Group, Vec<(usize, &'b Holder)>>);

impl<'b> Parts<'b> {
    fn of(snapshot: &Snapshot, buffer: &'b Buffer, by: SumKey) -> Parts<'b> {
        let holders = buffer.holders.iter().enumerate();
        let mut parts: BTreeMap<Group, Vec<(usize, &Holder)>> = BTreeMap::new();
        if !by.is_of_holders() {
            parts.insert(by.of_buffer(snapshot, buffer), holders.collect());
        } else if buffer.is_unheld() {
            parts.insert(Group::Unheld, Vec::new());
        } else if buffer.holders.is_empty() {
            // Processes that could not be read hold it.
            parts.insert(Group::Unknown, Vec::new());
        } else {
            for (nth, holder) in holders {
                let process = snapshot.process(holder.pid);
                let group = process.map_or(Group::Unknown, |process| by.of_holder(process));
                parts.entry(group).or_default().push((nth, holder));
            }
        }
        Parts(parts)
    }
}

/// A sum of sizes, some of which may be unknown.
#[derive(Clone, Copy, Debug, Default)]
struct Amount {
    known: u128,
    is_partial: bool,
}

impl Amount {
    fn add(&mut self, size: Option<Bytes>) {
        self.add_times(size, 1);
    }

    fn add_times(&mut self, size: Option<Bytes>, times: u64) {
        match size {
            Some(size) => self.known = self.known.saturating_add(u128::from(size.0) * u128::from(times)),
            None => self.is_partial |= times > 0,
        }
    }

    fn total(self) -> Option<Bytes> {
        u64::try_from(self.known).ok().filter(|_| !self.is_partial).map(Bytes)
    }

    fn at_least(self) -> Bytes {
        Bytes(u64::try_from(self.known).unwrap_or(u64::MAX))
    }
}

/// A group while it is added up.
#[derive(Debug, Default)]
struct Adding {
    buffers: u64,
    size: Amount,
    cost: Amount,
    pss: Amount,
    uss: Amount,
    shared: Amount,
    fds: u64,
    maps: u64,
    pids: BTreeSet<Pid>,
}

impl Adding {
    fn add_buffer(&mut self, buffer: &Buffer) {
        self.buffers += 1;
        self.size.add(buffer.size);
        self.cost.add(buffer.cost());
    }

    fn add_holder(&mut self, buffer: &Buffer, nth: usize, holder: &Holder) {
        self.pss.add(buffer.cost().map(|cost| part_of(cost, buffer.holders.len(), nth)));
        self.add_references(holder);
    }

    fn add_references(&mut self, holder: &Holder) {
        self.fds += holder.fd_refs();
        self.maps += holder.map_refs();
        self.pids.insert(holder.pid);
    }

    fn figures(self, group: Group) -> GroupFigures {
        GroupFigures {
            group,
            buffers: self.buffers,
            size: self.size.total(),
            cost: self.cost.total(),
            at_least: self.cost.at_least(),
            pss: self.pss.total(),
            uss: self.uss.total(),
            shared: self.shared.total(),
            fds: self.fds,
            maps: self.maps,
            processes: self.pids.len() as u64,
        }
    }
}

#[cfg(test)]
#[path = "sum_tests.rs"]
mod tests;
