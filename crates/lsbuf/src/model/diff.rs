//! What changed from one snapshot to another: which buffers were born and died, which grew, which
//! got other holders; summed up by process, or by a key as in [`Sum`].
//!
//! Limits: what was born and has died between the two is in neither. Two snapshots of different
//! boots, or of one where the boot is unknown, have no buffer in common: identities belong to a
//! boot.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Buffer, BufferId, Bytes, Group, GroupFigures, Kind, Ledger, Pid, Process, ProcessFigures, Snapshot, Sum,
    SumKey,
};

/// How a buffer changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Change {
    /// It is only in the later snapshot.
    Born,
    /// It is only in the earlier snapshot.
    Died,
    /// It costs more.
    Grown,
    /// It costs less.
    Shrunk,
    /// Other processes hold it, and it costs the same.
    Holders,
}

impl Change {
    /// Every change.
    pub const ALL: &'static [Change] =
        &[Change::Born, Change::Died, Change::Grown, Change::Shrunk, Change::Holders];

    /// The word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Change::Born => "born",
            Change::Died => "died",
            Change::Grown => "grown",
            Change::Shrunk => "shrunk",
            Change::Holders => "holders",
        }
    }
}

/// A buffer that changed.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ChangedBuffer<'a> {
    /// How. A buffer that grew or shrank may have other holders, too.
    pub change: Change,
    /// Its index in the earlier snapshot. `None`: it was not there.
    pub before: Option<usize>,
    /// Its index in the later snapshot. `None`: it is not there any more.
    pub after: Option<usize>,
    /// As it is, or as it was before it died.
    pub buffer: &'a Buffer,
    /// By how much its cost has changed. `None`: one of the costs is unknown.
    pub cost: Option<i128>,
    /// Processes that hold it now and did not before.
    pub gained: Vec<Pid>,
    /// Processes that held it and do not now.
    pub lost: Vec<Pid>,
}

/// A process whose figures changed.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ChangedProcess<'a> {
    /// As it is, or as it was last.
    pub process: &'a Process,
    /// What it held. `None`: nothing, or it was not there.
    pub before: Option<ProcessFigures>,
    /// What it holds. `None`: nothing, or it has exited.
    pub after: Option<ProcessFigures>,
}

/// A group whose figures changed.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ChangedGroup {
    /// Which.
    pub group: Group,
    /// What it came to. `None`: it was not there.
    pub before: Option<GroupFigures>,
    /// What it comes to. `None`: it is not there any more.
    pub after: Option<GroupFigures>,
    /// Those of its buffers that were born.
    pub born: Option<GroupFigures>,
    /// Those of its buffers that died.
    pub died: Option<GroupFigures>,
}

/// The difference of two snapshots.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Diff<'a> {
    /// The earlier one.
    pub before: &'a Ledger<'a>,
    /// The later one.
    pub after: &'a Ledger<'a>,
    /// The buffers that changed, those whose cost changed most first.
    pub buffers: Vec<ChangedBuffer<'a>>,
    /// How many buffers did not change.
    pub same: u64,
}

impl<'a> Diff<'a> {
    /// Compares two snapshots, as far as their buffers pass a filter.
    pub fn of(before: &'a Ledger<'a>, after: &'a Ledger<'a>, passes: impl Fn(&Buffer) -> bool) -> Diff<'a> {
        let (old, new) = (before.snapshot(), after.snapshot());
        let comparable = is_same_boot(old, new);
        let earlier: BTreeMap<&BufferId, usize> = if comparable {
            old.buffers.iter().enumerate().map(|(index, buffer)| (&buffer.id, index)).collect()
        } else {
            BTreeMap::new()
        };
        let mut met = BTreeSet::new();
        let (mut buffers, mut same) = (Vec::new(), 0);
        for (index, buffer) in new.buffers.iter().enumerate() {
            let was = earlier.get(&buffer.id).filter(|&&was| old.buffers[was].is_same(buffer)).copied();
            met.extend(was);
            if !passes(buffer) && !was.is_some_and(|was| passes(&old.buffers[was])) {
                continue;
            }
            let changed = changed(was.map(|was| &old.buffers[was]), Some(buffer), (old, new));
            match changed {
                Some(changed) => buffers.push(ChangedBuffer { before: was, after: Some(index), ..changed }),
                None => same += 1,
            }
        }
        for (index, buffer) in old.buffers.iter().enumerate() {
            if !met.contains(&index) && passes(buffer) {
                let died = changed(Some(buffer), None, (old, new));
                buffers.extend(died.map(|died| ChangedBuffer { before: Some(index), ..died }));
            }
        }
        let size = |changed: &ChangedBuffer<'_>| changed.cost.map(i128::abs);
        buffers.sort_by_key(|changed| std::cmp::Reverse(size(changed)));
        Diff { before, after, buffers, same }
    }

    /// The cost of the buffers with that change, and how many these are. `None`: a cost is unknown.
    #[must_use]
    pub fn total(&self, change: Change) -> (u64, Option<i128>) {
        let all = || self.buffers.iter().filter(|changed| changed.change == change);
        (all().count() as u64, all().map(|changed| changed.cost).sum())
    }

    /// The processes whose figures changed, by pid.
    #[must_use]
    pub fn processes(&self) -> Vec<ChangedProcess<'a>> {
        let comparable = is_same_boot(self.before.snapshot(), self.after.snapshot());
        let key = |process: &Process, later: bool| (process.pid, process.start_time, later && !comparable);
        let mut rows: BTreeMap<(Pid, u64, bool), ChangedProcess<'a>> = BTreeMap::new();
        for row in self.before.processes() {
            let changed = ChangedProcess { process: row.process, before: Some(*row.figures), after: None };
            rows.insert(key(row.process, false), changed);
        }
        for row in self.after.processes() {
            let new = ChangedProcess { process: row.process, before: None, after: None };
            let changed = rows.entry(key(row.process, true)).or_insert(new);
            (changed.process, changed.after) = (row.process, Some(*row.figures));
        }
        rows.into_values().filter(|changed| changed.before != changed.after).collect()
    }

    /// The groups whose figures changed, or in which a buffer was born or died; ordered by key.
    #[must_use]
    pub fn groups(&self, by: SumKey, passes: impl Fn(&Buffer) -> bool) -> Vec<ChangedGroup> {
        let all = |ledger: &Ledger<'_>| -> Vec<usize> {
            let buffers = ledger.snapshot().buffers.iter().enumerate();
            buffers.filter(|(_, buffer)| passes(buffer)).map(|(index, _)| index).collect()
        };
        let with = |change: Change| self.buffers.iter().filter(move |changed| changed.change == change);
        let born: Vec<usize> = with(Change::Born).filter_map(|changed| changed.after).collect();
        let died: Vec<usize> = with(Change::Died).filter_map(|changed| changed.before).collect();
        let mut groups: BTreeMap<Group, ChangedGroup> = BTreeMap::new();
        let mut add = |ledger: &Ledger<'_>, chosen: &[usize], put: fn(&mut ChangedGroup, GroupFigures)| {
            for figures in Sum::of(ledger, chosen, by).groups {
                let group = figures.group.clone();
                let none =
                    ChangedGroup { group: group.clone(), before: None, after: None, born: None, died: None };
                put(groups.entry(group).or_insert(none), figures);
            }
        };
        add(self.before, &all(self.before), |group, figures| group.before = Some(figures));
        add(self.after, &all(self.after), |group, figures| group.after = Some(figures));
        add(self.after, &born, |group, figures| group.born = Some(figures));
        add(self.before, &died, |group, figures| group.died = Some(figures));
        let has_changed = |group: &ChangedGroup| {
            group.before != group.after || group.born.is_some() || group.died.is_some()
        };
        groups.into_values().filter(has_changed).collect()
    }
}

/// Whether identities of both mean the same.
fn is_same_boot(before: &Snapshot, after: &Snapshot) -> bool {
    before.host.boot_id.is_some() && before.host.boot_id == after.host.boot_id
}

/// The difference of two costs. `None`: one is unknown.
fn difference(before: Option<Bytes>, after: Option<Bytes>) -> Option<i128> {
    Some(i128::from(after?.0) - i128::from(before?.0))
}

/// How a buffer changed. `None`: it did not.
fn changed<'a>(
    before: Option<&'a Buffer>,
    after: Option<&'a Buffer>,
    (old, new): (&Snapshot, &Snapshot),
) -> Option<ChangedBuffer<'a>> {
    let none = Some(Bytes(0));
    let cost = difference(before.map_or(none, Buffer::cost), after.map_or(none, Buffer::cost));
    let holders = |buffer: Option<&Buffer>, snapshot: &Snapshot| -> BTreeSet<(Pid, u64)> {
        let holders = buffer.into_iter().flat_map(|buffer| &buffer.holders);
        let started = |pid| snapshot.process(pid).map_or(0, |process| process.start_time);
        holders.map(|holder| (holder.pid, started(holder.pid))).collect()
    };
    let (held, holds) = (holders(before, old), holders(after, new));
    let gained: Vec<Pid> = holds.difference(&held).map(|(pid, _)| *pid).collect();
    let lost: Vec<Pid> = held.difference(&holds).map(|(pid, _)| *pid).collect();
    let change = match (before, after) {
        (None, _) => Change::Born,
        (_, None) => Change::Died,
        _ if cost.is_some_and(|cost| cost > 0) => Change::Grown,
        _ if cost.is_some_and(|cost| cost < 0) => Change::Shrunk,
        _ if !gained.is_empty() || !lost.is_empty() => Change::Holders,
        _ => return None,
    };
    let buffer = after.or(before)?;
    Some(ChangedBuffer { change, before: None, after: None, buffer, cost, gained, lost })
}

impl Buffer {
    /// Whether a buffer that was seen later in the same boot is this one. Another one with its
    /// identity has another time of creation. The times of a dma-buf can be changed by its owner,
    /// but its inode number is used once in a boot.
    #[must_use]
    pub fn is_same(&self, later: &Buffer) -> bool {
        self.id == later.id
            && (self.id.kind == Kind::DmaBuf
                || self.created_at.is_none()
                || later.created_at.is_none()
                || self.created_at == later.created_at)
    }
}

#[cfg(test)]
#[path = "diff_tests.rs"]
mod tests;
