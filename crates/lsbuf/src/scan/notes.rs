//! Makes the notes of an answer: what was not read, why residuals are not exact, and which memory
//! may be counted twice.
//!
//! A reader must know these to judge the figures.
//!
//! Limits: notes follow from the figures and never change them.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::driver_shmem;
use super::settle::Settled;
use crate::model::{
    Buffer, BufferId, Bytes, Coverage, Gaps, HiddenRefs, Kind, Note, Owner, Snapshot, UnheldGaps, Why,
};

/// What was read and what was not, with all notes except those that [`add`] adds.
pub(super) fn coverage(outcome: &Settled) -> Coverage {
    let seen = &outcome.seen;
    let mut notes = of_gaps(&seen.gaps);
    notes.extend(seen.notes.iter().cloned());
    let shmem = || outcome.buffers.iter().filter(|buffer| buffer.id.kind != Kind::DmaBuf);
    let unsized_ = shmem().filter(|buffer| buffer.size.is_none()).count() as u64;
    let uncounted = shmem().filter(|buffer| buffer.count.is_none()).count() as u64;
    if seen.unread_segments > 0 {
        notes.push(Note::NoSegments { namespaces: seen.unread_segments });
    }
    if unsized_ > 0 {
        notes.push(Note::Unsized { buffers: unsized_ });
    }
    if uncounted > 0 {
        notes.push(Note::Uncounted { buffers: uncounted });
    }
    if let Some(processes) = &outcome.may_miss {
        notes.push(Note::MayMiss { processes: processes.iter().copied().collect() });
    }
    let mut inexact: BTreeMap<Why, u64> = BTreeMap::new();
    for buffer in &outcome.buffers {
        // A segment's attachments are read once, after its mappings. That they differ does not mean
        // that the count changed.
        let is_reported = |why: &Why| *why != Why::CountMoved || buffer.id.kind != Kind::Sysv;
        if let Some(why) = buffer.residual.why().filter(is_reported) {
            *inexact.entry(why).or_default() += 1;
        }
    }
    notes.extend(inexact.into_iter().filter_map(|(why, buffers)| of_residuals(why, buffers, outcome)));
    Coverage {
        sources: seen.sources.clone(),
        processes: seen.processes,
        unreadable: seen.unreadable.clone(),
        gaps: seen.gaps.clone(),
        hidden_refs: seen.hidden_refs,
        notes,
        ..Coverage::default()
    }
}

fn of_gaps(gaps: &Gaps) -> Vec<Note> {
    let mut notes = Vec::new();
    if gaps.denied + gaps.failed > 0 {
        notes.push(Note::Unreadable { denied: gaps.denied, failed: gaps.failed });
    }
    if !gaps.unlisted.is_empty() {
        notes.push(Note::Unlisted { processes: gaps.unlisted.clone() });
    }
    if !gaps.stuck.is_empty() {
        notes.push(Note::Stuck { processes: gaps.stuck.clone() });
    }
    notes.extend(gaps.malformed.iter().map(|(&source, &facts)| Note::Malformed { source, facts }));
    if gaps.unproven > 0 {
        notes.push(Note::Unproven { references: gaps.unproven });
    }
    if gaps.new_processes > 0 {
        notes.push(Note::UnreadNewProcesses { processes: gaps.new_processes });
    }
    if gaps.not_whole_machine {
        notes.push(Note::NotWholeMachine);
    }
    notes
}

/// The note about so many residuals that are not exact for this reason. `None`: it needs none.
fn of_residuals(why: Why, buffers: u64, outcome: &Settled) -> Option<Note> {
    Some(match why {
        Why::Overcounted => Note::Overcounted { buffers },
        Why::Uncompared => Note::Uncompared { buffers },
        Why::MaybeInFlight => Note::MaybeHiddenRefs {
            buffers,
            refs: outcome.seen.hidden_refs.filter(|hidden| *hidden != HiddenRefs::default())?,
        },
        Why::CountMoved => Note::CountMoved { buffers },
        Why::Moved => Note::Moved { buffers },
        Why::InCall => Note::InCall { buffers, processes: outcome.in_call.iter().copied().collect() },
        Why::ProcessesChanged => Note::ProcessesChanged { buffers },
        Why::Ran => Note::Ran { buffers, processes: outcome.ran.iter().copied().collect() },
        Why::NotWatched => Note::NotWatched { buffers },
        // Other notes say these.
        Why::NotCounted | Why::Unread => return None,
        Why::Pinned => Note::Pinned { buffers },
    })
}

/// Adds the notes that follow from the finished snapshot.
pub(super) fn add(snapshot: &mut Snapshot) {
    let unheld_by_any = |b: &&Buffer| b.is_held_unseen() || b.id.kind == Kind::DmaBuf && b.holders.is_empty();
    let unheld = snapshot.buffers.iter().filter(unheld_by_any).count() as u64;
    let unheld_size = snapshot.buffers.iter().filter(unheld_by_any).filter_map(|b| b.size).sum();
    let (doubles, doubles_size) = maybe_doubles(&snapshot.buffers);
    let of_queues = snapshot.buffers.iter().filter(|b| Owner::of(b) == Owner::Queue).count() as u64;
    let saw_every_process = snapshot.coverage.saw_every_process();
    let notes = &mut snapshot.coverage.notes;
    if let Some(files) = &snapshot.unheld {
        if files.gaps() != UnheldGaps::default() {
            notes.push(Note::UnheldMissing(files.gaps()));
        }
        if !files.is_proven() && !files.is_empty() {
            notes.push(Note::UnheldUnproven { files: files.len() as u64 });
        }
    }
    if doubles > 0 {
        notes.push(Note::MaybeSameMemory { buffers: doubles, size: doubles_size });
    }
    if of_queues > 0 {
        notes.push(Note::OfQueues { buffers: of_queues });
    }
    if unheld > 0 && !saw_every_process {
        notes.push(Note::Unexplained { buffers: unheld, size: unheld_size });
    }
}

/// How many buffers may be the same memory as others, and what they cost together: udmabufs beside
/// memfds or one another, and drivers' shmem beside dma-bufs of drivers. Not if it was found out
/// which they are.
fn maybe_doubles(buffers: &[Buffer]) -> (u64, Bytes) {
    let any_memfd = buffers.iter().any(|b| b.id.kind == Kind::Memfd);
    let exporter = |b: &Buffer| b.exporter.as_ref().is_some_and(|e| e.as_bytes() == b"udmabuf");
    // Pages whose memfd is gone belong to no file, so two udmabufs may share them unseen.
    let common = |b: &Buffer| b.overlaps.iter().flatten().map(|o| o.bytes).sum::<Bytes>();
    let has_nobodys =
        |b: &Buffer| b.overlaps.is_some() && exporter(b) && b.size.is_some_and(|size| common(b) < size);
    let several_have = buffers.iter().filter(|b| has_nobodys(b)).count() > 1;
    // If nobody holds the memfd of two held udmabufs, it is unknown which parts of it each has.
    let unheld = |id| {
        let at = buffers.binary_search_by_key(&id, |b| b.id);
        at.is_ok_and(|at| buffers[at].holders.is_empty())
    };
    let mut parts = HashMap::<BufferId, u64>::new();
    for overlap in buffers.iter().filter(|b| !b.holders.is_empty()).flat_map(|b| b.overlaps.iter().flatten())
    {
        *parts.entry(overlap.of).or_default() += 1;
    }
    let parts_unknown = |b: &Buffer| {
        let mut of = b.overlaps.iter().flatten().map(|overlap| overlap.of);
        !b.holders.is_empty() && of.any(|id| parts.get(&id) > Some(&1) && unheld(id))
    };
    let udmabuf = |b: &Buffer| b.overlaps.is_none() && exporter(b);
    let may_be_driver_shmem = buffers.iter().any(driver_shmem::may_show_as_shmem);
    let linked: HashSet<BufferId> =
        buffers.iter().flat_map(|b| b.overlaps.iter().flatten()).map(|overlap| overlap.of).collect();
    let double = |b: &&Buffer| match b.id.kind {
        Kind::DmaBuf => udmabuf(b) && any_memfd || several_have && has_nobodys(b) || parts_unknown(b),
        Kind::GemShmem => may_be_driver_shmem && !linked.contains(&b.id),
        _ => false,
    };
    let doubles = buffers.iter().filter(double);
    (doubles.clone().count() as u64, doubles.filter_map(Buffer::cost).sum())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Fd, Holder, Inode, Overlap, Pid};

    /// Check that two held udmabufs of one memfd may be the same memory if nobody holds the memfd,
    /// and only then.
    #[test]
    fn parts_of_an_unheld_memfd() {
        let doubles = |memfd_is_held: bool, udmabufs: u64| {
            let held = Holder { fds: vec![Fd(3)].into(), ..Holder::new(Pid(7)) };
            let mut memfd = Buffer::new(BufferId::new(Kind::Memfd, None, Inode(9)));
            memfd.holders.extend(memfd_is_held.then(|| held.clone()));
            let udmabuf = |ino| Buffer {
                size: Some(Bytes(50)),
                exporter: Some("udmabuf".into()),
                overlaps: Some(vec![Overlap { of: memfd.id, bytes: Bytes(50) }]),
                holders: vec![held.clone()],
                ..Buffer::new(BufferId::new(Kind::DmaBuf, None, Inode(ino)))
            };
            maybe_doubles(&(0..udmabufs).map(udmabuf).chain([memfd.clone()]).collect::<Vec<_>>())
        };
        assert_eq!(doubles(false, 2), (2, Bytes(100)));
        assert_eq!([doubles(true, 2), doubles(false, 1)], [(0, Bytes(0)); 2]);
    }
}
