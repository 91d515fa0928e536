//! The figures of the processes while they are added up.
//!
//! Memory is charged in pieces. A piece is a buffer, or a range of a buffer that is another one's
//! memory as well; it is charged once to each process that holds any of these buffers. What an exit
//! frees is added up separately, because it takes a proof.

use std::collections::BTreeMap;

use super::freed::{Freed, Freeing};
use super::same_memory::{Common, Edge, lay_out};
use super::{Account, Buffer, Bytes, Holder, Pid, Process, ProcessFigures};

/// What is charged so far.
pub(super) struct Charges<'s> {
    /// Ordered by pid.
    processes: &'s [Process],
    /// Of each process.
    pub(super) figures: Vec<ProcessFigures>,
    /// Of holders that are not among the processes, because they have exited since.
    gone: BTreeMap<Pid, ProcessFigures>,
}

/// How much of a part's cost is no other buffer's memory, and how much a base has for itself.
#[derive(Clone, Copy, Debug)]
pub(super) enum Own {
    /// The whole cost.
    All,
    /// So many bytes: the rest is charged with the bases.
    Part(u64),
    /// Nothing: it is a base, and is charged by [`Charges::add_base`].
    Base,
}

impl<'s> Charges<'s> {
    pub(super) fn new(processes: &'s [Process]) -> Charges<'s> {
        let figures = vec![ProcessFigures::default(); processes.len()];
        Charges { processes, figures, gone: BTreeMap::new() }
    }

    pub(super) fn each(&self) -> impl Iterator<Item = &ProcessFigures> {
        self.figures.iter().chain(self.gone.values())
    }

    /// A process's figures. `next` is the index of the process that probably has this pid: holders
    /// are ordered as the processes are.
    fn of(&mut self, pid: Pid, next: &mut usize) -> &mut ProcessFigures {
        let is_next = self.processes.get(*next).is_some_and(|process| process.pid == pid);
        let found = if is_next { Ok(*next) } else { self.processes.binary_search_by_key(&pid, |p| p.pid) };
        match found {
            Ok(index) => {
                *next = index + 1;
                &mut self.figures[index]
            }
            Err(_) => self.gone.entry(pid).or_default(),
        }
    }

    /// Counts a buffer with its holders, and charges what is its own.
    pub(super) fn add(&mut self, buffer: &Buffer, account: &Account, own: Own, freeing: &Freeing<'_>) {
        let mut next = 0;
        for holder in &buffer.holders {
            let figure = self.of(holder.pid, &mut next);
            figure.buffers += 1;
            let (fds, opaths) = holder.slots();
            figure.fds += fds + opaths;
            figure.maps += holder.maps.len() as u64;
        }
        let bytes = match own {
            Own::All => buffer.cost(),
            Own::Part(bytes) => Some(Bytes(bytes)),
            Own::Base => return,
        };
        let sharers = buffer.holders.iter().map(|holder| (holder.pid, u128::from(holder.mapped().0)));
        self.charge(bytes, sharers);
        if let [only] = &buffer.holders[..] {
            let freed = match freeing.of(buffer, account) {
                Freed::All => bytes,
                Freed::Nothing => Some(Bytes(0)),
                Freed::Unknown => None,
            };
            self.add_freed(only.pid, freed);
        }
    }

    /// Charges a base and what its parts have of it.
    pub(super) fn add_base(&mut self, base: usize, buffers: &[Buffer], commons: &[Common]) {
        let Some(Bytes(whole)) = buffers[base].cost() else { return };
        // Of each process that holds the current piece: by how many buffers, and how much of these
        // it has mapped.
        let mut sharers: BTreeMap<Pid, (u32, u128)> = BTreeMap::new();
        let enter = |sharers: &mut BTreeMap<Pid, (u32, u128)>, buffer: &Buffer, begins: bool| {
            for holder in &buffer.holders {
                let weight = mapped_share(buffer, holder);
                let (by, mapped) = sharers.entry(holder.pid).or_default();
                if begins {
                    (*by, *mapped) = (*by + 1, *mapped + weight);
                } else {
                    (*by, *mapped) = (*by - 1, *mapped - weight);
                    if *by == 0 {
                        sharers.remove(&holder.pid);
                    }
                }
            }
        };
        enter(&mut sharers, &buffers[base], true);
        let mut from = 0;
        for Edge { at, part, begins } in lay_out(buffers, whole, commons) {
            self.charge_piece(at - from, &sharers);
            from = at;
            enter(&mut sharers, &buffers[part], begins);
        }
        self.charge_piece(whole - from, &sharers);
    }

    fn charge_piece(&mut self, bytes: u64, sharers: &BTreeMap<Pid, (u32, u128)>) {
        if bytes > 0 {
            let sharers = sharers.iter().map(|(&pid, &(_, mapped))| (pid, mapped));
            self.charge(Some(Bytes(bytes)), sharers);
        }
    }

    /// Charges one piece to those who hold it, ordered by pid, each with how much of it it maps.
    fn charge(&mut self, bytes: Option<Bytes>, sharers: impl ExactSizeIterator<Item = (Pid, u128)> + Clone) {
        let number = sharers.len();
        let all_mapped: u128 = sharers.clone().map(|(_, mapped)| mapped).sum();
        let mut mapped_before: u128 = 0;
        let mut next = 0;
        for (nth, (pid, mapped)) in sharers.enumerate() {
            let figure = self.of(pid, &mut next);
            add(&mut figure.rss, bytes);
            add(&mut figure.pss, bytes.map(|bytes| part_of(bytes, number, nth)));
            let mapped_up_to = mapped_before + mapped;
            if mapped > 0 {
                let share = |size: Bytes| {
                    // Addresses have 64 bits, but a forged tree may sum up to more. Scaled down,
                    // the product fits.
                    let excess = 64 - all_mapped.leading_zeros().min(64);
                    let below = |part: u128| u128::from(size.0) * (part >> excess) / (all_mapped >> excess);
                    // Never above `size`, so it fits.
                    Bytes((below(mapped_up_to) - below(mapped_before)) as u64)
                };
                add(&mut figure.mapped_pss, bytes.map(share));
            }
            mapped_before = mapped_up_to;
        }
    }

    /// Adds what the exit of a process frees. `None`: unknown.
    pub(super) fn add_freed(&mut self, pid: Pid, freed: Option<Bytes>) {
        add(&mut self.of(pid, &mut 0).uss, freed);
    }
}

/// The part of one holder if a cost is split evenly among several. Odd bytes go to the first ones.
pub(super) fn part_of(cost: Bytes, holders: usize, nth: usize) -> Bytes {
    let (holders, nth) = (holders as u64, nth as u64);
    Bytes(cost.0 / holders + u64::from(nth < cost.0 % holders))
}

fn add(total: &mut Option<Bytes>, part: Option<Bytes>) {
    *total = total.and_then(|t| t.checked_add(part?));
}

/// How much of a buffer a holder has mapped, as a fraction of 2^32: of buffers of different sizes
/// that have the same memory, the fractions compare. At least 1 for whoever maps any of it.
fn mapped_share(buffer: &Buffer, holder: &Holder) -> u128 {
    let mapped = u128::from(holder.mapped().0);
    let whole = u128::from(buffer.cost().unwrap_or_default().0).max(1);
    if mapped == 0 { 0 } else { ((mapped << 32) / whole).max(1) }
}
