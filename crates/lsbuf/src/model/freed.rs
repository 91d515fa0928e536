//! What the exit of a process frees: USS, as far as it is proven.
//!
//! An exit frees a buffer if no other process and nothing in the kernel has a reference to it, if
//! it has no name to stay by ([`NameLives`]), and if its references own its memory ([`Owner`]).

use super::owner::LetsGo;
use super::same_memory::Common;
use super::{Account, Buffer, BufferId, Bytes, Device, Kind, NameLives, Owner, Pid, Residual};

/// What becomes of a buffer when its only holder exits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Freed {
    All,
    Nothing,
    Unknown,
}

/// What has to be known of the whole machine for that.
pub(super) struct Freeing<'s> {
    buffers: &'s [Buffer],
    devices: &'s [Device],
    /// Udmabufs that have, or may have, pages of no buffer in the snapshot. Two of them may have
    /// the same pages unseen.
    with_other_pages: u64,
    /// Buffers whose memory is in another one, too. Ordered.
    bases: Vec<BufferId>,
}

impl<'s> Freeing<'s> {
    pub(super) fn new(buffers: &'s [Buffer], devices: &'s [Device]) -> Freeing<'s> {
        let mut freeing = Freeing { buffers, devices, with_other_pages: 0, bases: Vec::new() };
        let overlaps = buffers.iter().flat_map(|buffer| buffer.overlaps.iter().flatten());
        freeing.bases.extend(overlaps.map(|overlap| overlap.of));
        freeing.bases.sort_unstable();
        let udmabufs = buffers.iter().filter(|buffer| Owner::of(buffer) == Owner::Pages);
        freeing.with_other_pages = udmabufs.filter(|buffer| freeing.has_other_pages(buffer)).count() as u64;
        freeing
    }

    /// What becomes of a buffer when its only holder exits. Memory that it has in common with a
    /// base is not meant.
    pub(super) fn of(&self, buffer: &Buffer, account: &Account) -> Freed {
        let by_references = by_references(buffer, account, 0);
        match (by_references, buffer.holders.first()) {
            (Freed::All, Some(holder)) => self.by_owner(buffer, holder.pid),
            _ => by_references,
        }
    }

    /// The bytes that the exit of all of a buffer's holders would free. `None`: unknown, as it is
    /// of memory that is in two buffers.
    pub(super) fn of_all_holders(&self, buffer: &Buffer, account: &Account) -> Option<Bytes> {
        match by_references(buffer, account, 0) {
            Freed::Nothing => return Some(Bytes(0)),
            Freed::Unknown => return None,
            Freed::All => {}
        }
        let is_holder = |pid| buffer.holders.iter().any(|holder| holder.pid == pid);
        let owner = Owner::of(buffer);
        let is_part = owner == Owner::Pages || buffer.overlaps.iter().flatten().next().is_some();
        let is_shared = is_part || self.bases.binary_search(&buffer.id).is_ok();
        match owner.lets_go(is_holder, self.devices) {
            LetsGo::Never => Some(Bytes(0)),
            LetsGo::Yes if !is_shared => buffer.cost(),
            LetsGo::Yes | LetsGo::Unknown => None,
        }
    }

    /// Whether the end of all references frees the memory.
    fn by_owner(&self, buffer: &Buffer, process: Pid) -> Freed {
        let owner = Owner::of(buffer);
        match owner.lets_go(|pid| pid == process, self.devices) {
            LetsGo::Never => Freed::Nothing,
            LetsGo::Unknown => Freed::Unknown,
            LetsGo::Yes if owner != Owner::Pages || self.knows_pages(buffer) => Freed::All,
            LetsGo::Yes => Freed::Unknown,
        }
    }

    /// Whether it is known which other buffers have the pages of a udmabuf.
    fn knows_pages(&self, udmabuf: &Buffer) -> bool {
        let is_listed = |id| self.buffers.binary_search_by(|b| b.id.cmp(id)).is_ok();
        let overlaps = udmabuf.overlaps.as_deref();
        overlaps.is_some_and(|overlaps| overlaps.iter().all(|overlap| is_listed(&overlap.of)))
            && (self.with_other_pages <= 1 || !self.has_other_pages(udmabuf))
    }

    fn has_other_pages(&self, udmabuf: &Buffer) -> bool {
        let known: Bytes = udmabuf.overlaps.iter().flatten().map(|overlap| overlap.bytes).sum();
        udmabuf.overlaps.is_none() || udmabuf.size.is_none_or(|size| known < size)
    }

    /// Who alone would free pages of a base by exiting, and how many bytes of it; `None` for these:
    /// unknown. `account` tells the account of a buffer.
    pub(super) fn of_base(
        &self,
        base: usize,
        commons: &[Common],
        account: impl Fn(&Buffer) -> Account,
    ) -> Option<(Pid, Option<Bytes>)> {
        let buffer = &self.buffers[base];
        let parts = || commons.iter().map(|common| (&self.buffers[common.part], common.bytes));
        // A driver's file is kept by the driver's object. The dma-buf is a reference to that.
        let is_drivers = buffer.id.kind == Kind::GemShmem;
        let of_base = buffer.holders.iter();
        let of_parts = parts().filter(|_| is_drivers).flat_map(|(part, _)| &part.holders);
        let mut holders = of_base.chain(of_parts).map(|holder| holder.pid);
        let process = holders.next()?;
        if holders.any(|pid| pid != process) {
            return None;
        }
        let objects = u64::from(is_drivers && parts().count() == 1);
        match by_references(buffer, &account(buffer), objects) {
            Freed::All => {}
            Freed::Nothing => return None,
            Freed::Unknown => return Some((process, None)),
        }
        let (mut stays, mut staying, mut unknown) = (0, 0, false);
        for (part, bytes) in parts() {
            let alone = matches!(&part.holders[..], [only] if only.pid == process);
            match self.of(part, &account(part)) {
                Freed::All if alone => {}
                Freed::Unknown if alone => unknown = true,
                _ => (stays, staying) = (stays + bytes, staying + 1),
            }
        }
        // Two parts that stay may have the same pages.
        let freed = buffer.cost().filter(|_| !unknown && staying < 2);
        Some((process, freed.map(|whole| Bytes(whole.0 - stays))))
    }
}

/// What becomes of a buffer when its only holder exits, by its references. So many of its residual
/// are the holder's own (`explained`).
fn by_references(buffer: &Buffer, account: &Account, explained: u64) -> Freed {
    if !buffer.id.kind.goes_unheld() && buffer.deleted != Some(true) {
        // Such a buffer stays until somebody removes it, or until its filesystem or namespace goes.
        match (buffer.deleted, buffer.name_lives) {
            (None, _) => return Freed::Unknown,
            (Some(_), NameLives::Stays) => return Freed::Nothing,
            (Some(_), NameLives::Unknown) => {
                let gone = by_hidden(account, explained);
                return if gone == Freed::All { Freed::Unknown } else { gone };
            }
            (Some(_), NameLives::GoesWithHolder) => {}
        }
    }
    by_hidden(account, explained)
}

/// What becomes of a buffer without a name when its only holder exits, by its references.
fn by_hidden(account: &Account, explained: u64) -> Freed {
    let hidden = account.in_flight.unwrap_or(0).saturating_add(account.io_uring.unwrap_or(0));
    let all_known = account.in_flight.is_some() && account.io_uring.is_some();
    match account.residual {
        Residual::Exact(number) if number <= explained && hidden == 0 && all_known => Freed::All,
        Residual::Exact(number) if number.saturating_add(hidden) > explained => Freed::Nothing,
        Residual::Estimate(1.., why) if why.is_anothers() && explained == 0 => Freed::Nothing,
        _ => Freed::Unknown,
    }
}
