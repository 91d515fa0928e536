//! What of a finished answer is in doubt, buffer by buffer, made into notes: the accounts that do not balance or may not, and
//! memory that may be counted twice.

use std::collections::HashMap;

use super::disguises;
use crate::model::{Account, Buffer, BufferId, Bytes, KeptElsewhere, Kind, Note, Snapshot};

/// Adds the notes that follow from the joined answer.
pub(super) fn note(snapshot: &mut Snapshot) {
    let accounts = Account::of_each(snapshot);
    let count = |doubtful: fn(&Buffer, &Account) -> bool| {
        snapshot.buffers.iter().zip(&accounts).filter(|(b, a)| doubtful(b, a)).count() as u64
    };
    // A segment's attachments are read once, after its mappings: what is left over says nothing of a count that moved.
    let unsteady = count(|b, _| b.count.is_some() && !b.steady && b.id.kind != Kind::Sysv);
    let overcounted = count(|_, a| a.kernel.is_none() && a.estimate);
    let unattributed =
        count(|b, a| b.steady && a.kernel > Some(0) && (a.in_flight.is_none() || a.io_uring.is_none()));
    let uncompared = count(|b, _| b.uncompared);
    let unheld_by_any = |b: &&Buffer| b.is_held_unseen() || b.id.kind == Kind::DmaBuf && b.holders.is_empty();
    let unheld = snapshot.buffers.iter().filter(unheld_by_any).count() as u64;
    let unheld_size = snapshot.buffers.iter().filter(unheld_by_any).filter_map(|b| b.size).sum();
    let (doubles, doubles_size) = maybe_doubles(&snapshot.buffers);
    let saw_every_process = snapshot.coverage.saw_every_process();
    let notes = &mut snapshot.coverage.notes;
    if unsteady > 0 {
        notes.push(Note::Unsteady { buffers: unsteady });
    }
    if overcounted > 0 {
        notes.push(Note::Overcounted { buffers: overcounted });
    }
    if doubles > 0 {
        notes.push(Note::MaybeSameMemory { buffers: doubles, size: doubles_size });
    }
    if uncompared > 0 {
        notes.push(Note::Uncompared { buffers: uncompared });
    }
    if let Some(kept) =
        snapshot.coverage.kept.filter(|kept| unattributed > 0 && *kept != KeptElsewhere::default())
    {
        notes.push(Note::MaybeElsewhere { buffers: unattributed, kept });
    }
    if unheld > 0 && !saw_every_process {
        notes.push(Note::Unexplained { buffers: unheld, size: unheld_size });
    }
}

/// How many buffers may be other ones' memory too, and what they cost together: udmabufs beside memfds or one another, and
/// drivers' shmem beside dma-bufs of drivers, unless that was found out.
fn maybe_doubles(buffers: &[Buffer]) -> (u64, Bytes) {
    let any = |kind| buffers.iter().any(|b| b.id.kind == kind);
    let exporter = |b: &Buffer| b.exporter.as_ref().is_some_and(|e| e.as_bytes() == b"udmabuf");
    // Pages whose file has gone are nobody's, and may be those of two udmabufs.
    let common = |b: &Buffer| b.overlaps.iter().flatten().map(|o| o.bytes).sum::<Bytes>();
    let has_nobodys =
        |b: &Buffer| b.overlaps.is_some() && exporter(b) && b.size.is_some_and(|size| common(b) < size);
    let several_have = buffers.iter().filter(|b| has_nobodys(b)).count() > 1;
    // Nor is it known which parts two held ones have of a memfd that nobody holds.
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
    let masked = buffers.iter().any(disguises::may_be);
    let told =
        |mask: &Buffer| buffers.iter().flat_map(|b| b.overlaps.iter().flatten()).any(|o| o.of == mask.id);
    let double = |b: &&Buffer| match b.id.kind {
        Kind::DmaBuf => udmabuf(b) && any(Kind::Memfd) || several_have && has_nobodys(b) || parts_unknown(b),
        Kind::GemShmem => masked && !told(b),
        _ => false,
    };
    let doubles = buffers.iter().filter(double);
    (doubles.clone().count() as u64, doubles.filter_map(Buffer::cost).sum())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Fd, Holder, Inode, Overlap, Pid};

    /// Check that two held udmabufs over one memfd may be one memory if nobody holds that, and only then.
    #[test]
    fn parts_of_an_unheld_memfd() {
        let doubles = |memfd_is_held: bool, udmabufs: u64| {
            let held = Holder { fds: vec![Fd(3)], ..Holder::new(Pid(7)) };
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
