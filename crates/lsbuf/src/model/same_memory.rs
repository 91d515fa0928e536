//! Which memory is in two buffers: a udmabuf has pages of a memfd, and a driver's shmem can be the
//! memory of a dma-buf.
//!
//! Of such a pair, the memfd or the driver's file is the *base*, and the dma-buf is the *part*. All
//! sums count the memory once.
//!
//! Limits: the kernel tells how much of a part is in a base, not which pages. Parts of one base are
//! taken for different pages of it, as far as it has room. So where two parts of one base overlap,
//! a process that holds several parts and not the base may be charged too much.

use std::collections::BTreeMap;

use super::{Buffer, BufferId, Bytes, Kind};

/// Bytes of one buffer that are also another's. Buffers are given by their index in the snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Common {
    pub(super) base: usize,
    pub(super) part: usize,
    /// At least 1, and no more than either costs.
    pub(super) bytes: u64,
}

/// Every pair, ordered by part. All that a part has in common is no more than it costs, whatever
/// overlaps are reported.
pub(super) fn commons(buffers: &[Buffer]) -> Vec<Common> {
    let known = |id: &BufferId| buffers.binary_search_by(|b| b.id.cmp(id)).ok();
    // A segment's memory is never another buffer's, and no base is a part.
    let may_be_base = |b: &Buffer| b.id.kind != Kind::Sysv && b.overlaps.iter().flatten().next().is_none();
    let mut commons = Vec::new();
    for (part, buffer) in buffers.iter().enumerate().filter(|(_, b)| b.id.kind != Kind::Sysv) {
        let mut left = buffer.cost().unwrap_or_default();
        for overlap in buffer.overlaps.iter().flatten() {
            let Some(base) = known(&overlap.of).filter(|&base| may_be_base(&buffers[base])) else { continue };
            let bytes = overlap.bytes.min(left).min(buffers[base].cost().unwrap_or_default());
            left = Bytes(left.0 - bytes.0);
            if bytes > Bytes(0) {
                commons.push(Common { base, part, bytes: bytes.0 });
            }
        }
    }
    commons
}

/// How much memory a sum of costs counts twice: over the held buffers, and over all of them.
pub(super) fn counted_twice(buffers: &[Buffer], commons: &[Common]) -> (u128, u128) {
    let is_held = |at: usize| !buffers[at].holders.is_empty();
    let (mut held, mut all) = (0, 0);
    // For each base that nobody holds: the memory that held buffers have in common with it.
    let mut parts: BTreeMap<usize, u128> = BTreeMap::new();
    for &Common { base, part, bytes } in commons {
        let bytes = u128::from(bytes);
        all += bytes;
        match (is_held(part), is_held(base)) {
            (false, _) => {}
            (true, true) => held += bytes,
            (true, false) => *parts.entry(base).or_default() += bytes,
        }
    }
    let whole = |base: usize| u128::from(buffers[base].cost().unwrap_or_default().0);
    let twice: u128 = parts.into_iter().map(|(base, of_held)| of_held.saturating_sub(whole(base))).sum();
    (held + twice, all)
}

/// Where a range of a base begins or ends that one of its parts has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Edge {
    pub(super) at: u64,
    pub(super) part: usize,
    pub(super) begins: bool,
}

/// Lays the parts of one base of `whole` bytes one after another, from its start again where its
/// end is reached. Held parts come first, so that they overlap as little as they can. The edges are
/// ordered by place.
pub(super) fn lay_out(buffers: &[Buffer], whole: u64, commons: &[Common]) -> Vec<Edge> {
    let is_held = |common: &&Common| !buffers[common.part].holders.is_empty();
    let held = commons.iter().filter(is_held);
    let order = held.chain(commons.iter().filter(|common| !is_held(common)));
    let mut edges = Vec::new();
    let mut start = 0;
    for &Common { part, bytes, .. } in order {
        let mut range = |from, to| {
            if from < to {
                edges.push(Edge { at: from, part, begins: true });
                edges.push(Edge { at: to, part, begins: false });
            }
        };
        // No more than the base has, so it reaches past the end once at most.
        let room = whole - start;
        if bytes < room {
            range(start, start + bytes);
            start += bytes;
        } else {
            range(start, whole);
            range(0, bytes - room);
            start = bytes - room;
        }
    }
    edges.sort_unstable_by_key(|edge| edge.at);
    edges
}

#[cfg(test)]
#[path = "same_memory_tests.rs"]
mod tests;
