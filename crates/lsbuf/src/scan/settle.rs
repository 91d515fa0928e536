//! Whether one more round would mend the answer: what each account still lacks, and what earlier rounds say to it.

use std::collections::BTreeSet;

use crate::model::{Buffer, BufferId, Coverage, Holder, MapRef, Note, Perms, Pid};

/// What an earlier round of a scan found.
#[derive(Debug)]
pub(super) struct Round {
    pub(super) buffers: Vec<Buffer>,
    /// Private mappings were passed over.
    pub(super) only_shared: bool,
}

impl Round {
    /// Whether it found the same of a buffer, as far as it looked.
    fn agrees(&self, now: &Buffer) -> bool {
        let Ok(at) = self.buffers.binary_search_by_key(&now.id, |b| b.id) else { return false };
        let then = &self.buffers[at];
        let same = if self.only_shared {
            shared_only(&then.holders) == shared_only(&now.holders)
        } else {
            then.holders == now.holders
        };
        same && then.count == now.count
    }

    fn knows(&self, id: BufferId) -> bool {
        self.buffers.binary_search_by_key(&id, |b| b.id).is_ok()
    }
}

/// The holders without their private mappings.
fn shared_only(holders: &[Holder]) -> Vec<Holder> {
    let shared = |map: &MapRef| map.perms.is_some_and(Perms::is_shared);
    let mut left = holders.to_vec();
    for holder in &mut left {
        holder.maps.retain(shared);
        if holder.maps.is_empty() {
            holder.address_space_of = None;
        }
    }
    left.retain(|h| !(h.fds.is_empty() && h.opaths.is_empty() && h.threads.is_empty() && h.maps.is_empty()));
    left
}

/// Whether another round would find nothing to mend. References that are left over must have been left over by the same
/// holders in every earlier round, of which there must be one, and none of these may have been `forking`, which is asked of all
/// of them at once; else the buffer is unsteady. Unless some process was not seen, when they are an estimate in any case. What
/// was in the way of seeing every process for a moment may be gone in the next round.
pub(super) fn settle(
    buffers: &mut [Buffer],
    earlier: &[Round],
    coverage: &Coverage,
    forking: impl FnOnce(BTreeSet<Pid>) -> BTreeSet<Pid>,
) -> bool {
    if coverage.saw_every_process() {
        for buffer in buffers.iter_mut().filter(|b| has_rest(b)) {
            let mut before = earlier.iter().filter(|round| round.knows(buffer.id)).peekable();
            buffer.steady &= before.peek().is_some() && before.all(|round| round.agrees(buffer));
        }
        let suspects = holders_of_rests(buffers);
        let forking = if suspects.is_empty() { suspects } else { forking(suspects) };
        for buffer in buffers.iter_mut().filter(|b| has_rest(b)) {
            buffer.steady &= !buffer.holders.iter().any(|holder| forking.contains(&holder.pid));
        }
    }
    let counted = |buffer: &Buffer| buffer.count.is_none_or(|count| buffer.steady && count >= buffer.found());
    let seen = !coverage.notes.iter().any(|note| matches!(note, Note::Exiting { .. } | Note::Busy));
    seen && buffers.iter().all(counted)
}

/// Who holds a buffer of which the count stood still and references are left over.
pub(super) fn holders_of_rests(buffers: &[Buffer]) -> BTreeSet<Pid> {
    let rests = buffers.iter().filter(|buffer| buffer.steady && has_rest(buffer));
    rests.flat_map(|buffer| &buffer.holders).map(|holder| holder.pid).collect()
}

/// What stands in the way of telling a rest: who exits, and that no round was calm.
pub(super) fn disturbances(exiting: u64, calm: bool) -> impl Iterator<Item = Note> {
    let exiting = (exiting > 0).then_some(Note::Exiting { processes: exiting });
    exiting.into_iter().chain((!calm).then_some(Note::Busy))
}

/// Whether a mapping that was passed over could show in this account: as a rest, or hidden by a reference that counts
/// twice because its holders could not be compared, or by a count that moved.
pub(super) fn may_lack(buffer: &Buffer) -> bool {
    has_rest(buffer) || buffer.uncompared || !buffer.steady
}

/// Whether the kernel counts more references than were found.
pub(super) fn has_rest(buffer: &Buffer) -> bool {
    buffer.count > Some(buffer.found())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::{Fd, Inode, Kind, Pid};

    fn perms(shared: bool) -> Option<Perms> {
        Perms::parse(if shared { b"rw-s" } else { b"rw-p" })
    }

    /// Holders by fd numbers and mappings, each of which is shared or not.
    fn buffer(held: &[(Vec<u32>, Vec<bool>)]) -> Buffer {
        let mut buffer = Buffer::new(BufferId::new(Kind::DmaBuf, None, Inode(7)));
        for (nth, (fds, maps)) in
            held.iter().enumerate().filter(|(_, (fds, maps))| fds.len() + maps.len() > 0)
        {
            let map = |(at, &shared): (usize, &bool)| {
                let start = at as u64 * 8192;
                MapRef { start, end: start + 4096, offset: None, perms: perms(shared) }
            };
            let maps = maps.iter().enumerate().map(map).collect();
            let fds = fds.iter().copied().map(Fd).collect();
            buffer.holders.push(Holder { fds, maps, ..Holder::new(Pid(nth as u32)) });
        }
        buffer
    }

    fn held() -> impl Strategy<Value = Vec<(Vec<u32>, Vec<bool>)>> {
        let holder = (prop::collection::vec(3..6u32, 0..3), prop::collection::vec(any::<bool>(), 0..4));
        prop::collection::vec(holder, 0..4)
    }

    /// Check that what is left over stays an estimate for as long as a holder may be forking, and only then.
    #[test]
    fn a_fork_settles_nothing() {
        let buffer = Buffer { count: Some(2), steady: true, ..buffer(&[(vec![3], vec![])]) };
        let earlier = [Round { buffers: vec![buffer.clone()], only_shared: false }];
        let after = |forking: &[Pid]| {
            let mut now = [buffer.clone()];
            let settled = settle(&mut now, &earlier, &Coverage::default(), |suspects| {
                assert_eq!(suspects, BTreeSet::from([Pid(0)]));
                forking.iter().copied().collect()
            });
            (settled, now[0].steady)
        };
        assert_eq!(after(&[Pid(0)]), (false, false));
        assert_eq!((after(&[]), after(&[Pid(1)])), ((true, true), (true, true)));
    }

    proptest! {
        /// Check that a round which passed over private mappings agrees with one that found them exactly if all else is the
        /// same, and a round that looked at all of them only if they are, too.
        #[test]
        fn agreement(then in held(), now in held()) {
            let (then, now) = (buffer(&then), buffer(&now));
            let seen = Buffer { holders: shared_only(&then.holders), ..then.clone() };
            let round = |buffer: &Buffer, only_shared| Round { buffers: vec![buffer.clone()], only_shared };
            prop_assert!(round(&seen, true).agrees(&then));
            let same_but_private = shared_only(&then.holders) == shared_only(&now.holders);
            prop_assert_eq!(round(&seen, true).agrees(&now), same_but_private);
            prop_assert_eq!(round(&then, false).agrees(&now), then.holders == now.holders);
            let counted = Buffer { count: Some(1), ..now };
            prop_assert!(!round(&then, false).agrees(&counted));
        }

        /// Check that no account which lacks a reference passes for one that lacks none.
        #[test]
        fn what_is_missing_shows(held in held(), missing in 1..4u64) {
            let mut buffer = Buffer { steady: true, ..buffer(&held) };
            buffer.count = Some(buffer.found());
            prop_assert!(!may_lack(&buffer));
            buffer.count = Some(buffer.found() + missing);
            prop_assert!(may_lack(&buffer));
        }
    }
}
