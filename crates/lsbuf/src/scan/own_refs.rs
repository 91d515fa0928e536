//! Leaves out what the scanning process holds itself.
//!
//! A command that is started by a shell inherits every fd of it that is not close-on-exec. It is
//! then a holder of those buffers, but only while it looks. The same is true of its output, and of
//! its own program and libraries where these are on a tmpfs.
//!
//! Each reference that is left out is one that the kernel counts, so the count becomes less by as
//! much, and the residual stays what it was.
//!
//! Limit: a process that shares an fd table or an address space with another holder is not left out
//! of that buffer, because the references are the other's, too.

use super::assemble::is_kept;
use crate::model::{Buffer, Bytes, Device, Kind, Pid, UnheldSum};

/// Leaves these processes out of all buffers. Returns the buffers, as they were, that nobody else
/// holds; they are removed.
pub(super) fn leave_out(buffers: &mut Vec<Buffer>, own: &[Pid]) -> Vec<Buffer> {
    let mut only_own = Vec::new();
    buffers.retain_mut(|buffer| {
        let held = |buffer: &Buffer| own.iter().any(|&pid| at(buffer, pid).is_some());
        if !held(buffer) {
            return true;
        }
        let before = buffer.clone();
        own.iter().for_each(|&pid| forget(buffer, pid));
        let is_kept = is_kept(buffer);
        if !is_kept {
            only_own.push(before);
        }
        is_kept
    });
    only_own
}

/// Leaves these processes out of those that have a device open.
pub(super) fn leave_out_of_devices(devices: &mut Vec<Device>, own: &[Pid]) {
    devices.iter_mut().for_each(|device| device.holders.retain(|holder| !own.contains(&holder.pid)));
    devices.retain(|device| !device.holders.is_empty());
}

/// Adds files that only this process holds to what the kernel's lists say of the files that nobody
/// holds.
pub(super) fn add_unheld(unheld: &mut [UnheldSum], only_own: &[Buffer]) {
    for buffer in only_own.iter().filter(|buffer| buffer.id.kind == Kind::Tmpfs) {
        let sum = unheld.iter_mut().find(|sum| Some(sum.dev) == buffer.id.dev);
        let (Some(sum), Some(charged)) = (sum, buffer.charged) else { continue };
        let swapped = buffer.swapped.unwrap_or_default();
        sum.files += 1;
        sum.swapped = sum.swapped + swapped;
        sum.resident = sum.resident + Bytes(charged.0.saturating_sub(swapped.0));
    }
}

/// Where a process is among the holders.
fn at(buffer: &Buffer, pid: Pid) -> Option<usize> {
    buffer.holders.binary_search_by_key(&pid, |holder| holder.pid).ok()
}

/// Leaves one process out of one buffer.
fn forget(buffer: &mut Buffer, pid: Pid) {
    let Some(at) = at(buffer, pid) else { return };
    let is_shared = buffer.holders.iter().any(|other| {
        let of_threads = other.threads.iter().filter_map(|thread| thread.fd_table_of);
        of_threads.chain(other.fd_table_of).chain(other.address_space_of).any(|of| of == pid)
    });
    if is_shared {
        return;
    }
    let holder = buffer.holders.remove(at);
    let programs = u64::from(holder.runs && holder.address_space_of.is_none());
    let references = holder.fd_refs() + holder.map_refs() + programs;
    buffer.count = buffer.count.map(|count| count.saturating_sub(references));
    buffer.exe = buffer.exe.map(|exe| exe.saturating_sub(programs));
    if let Some(segment) = &mut buffer.segment {
        segment.attached = segment.attached.saturating_sub(holder.map_refs());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{BufferId, Dev, Fd, Holder, Inode, Residual};

    fn holder(pid: u32, fds: &[u32]) -> Holder {
        Holder { fds: fds.iter().copied().map(Fd).collect(), ..Holder::new(Pid(pid)) }
    }

    /// A file of 8 KiB, of which 2 KiB are in swap.
    fn file(count: Option<u64>, holders: Vec<Holder>) -> Buffer {
        let dev = Dev { major: 0, minor: 27 };
        Buffer {
            count,
            residual: Residual::Exact(1),
            charged: Some(Bytes(8192)),
            swapped: Some(Bytes(2048)),
            exe: Some(u64::from(holders.iter().any(|holder| holder.runs))),
            holders,
            ..Buffer::new(BufferId::new(Kind::Tmpfs, Some(dev), Inode(5)))
        }
    }

    /// Check that fds and a running program are taken from the count, which then adds up as before.
    #[test]
    fn the_count_follows() {
        let own = Holder { runs: true, ..holder(7, &[3, 4]) };
        let mut buffers = vec![file(Some(5), vec![own, holder(9, &[3])])];
        let before = buffers[0].count.unwrap() - buffers[0].found();
        assert!(leave_out(&mut buffers, &[Pid(7)]).is_empty());
        let [Buffer { count: Some(2), exe: Some(0), .. }] = buffers[..] else { panic!("{buffers:?}") };
        assert_eq!((buffers[0].holders.len(), buffers[0].count.unwrap() - buffers[0].found()), (1, before));
    }

    /// Check that a file which nobody else holds is removed and counts as held by nobody, and that
    /// one which the kernel holds, too, is not removed.
    #[test]
    fn nobody_else() {
        let of = |count| vec![file(count, vec![holder(7, &[3])])];
        let (mut counted, mut uncounted, mut kernels) = (of(Some(1)), of(None), of(Some(2)));
        let only_own = leave_out(&mut counted, &[Pid(7)]);
        assert_eq!((only_own.len(), counted.len()), (1, 0));
        assert_eq!((leave_out(&mut uncounted, &[Pid(7)]).len(), uncounted.len()), (1, 0));
        assert_eq!((leave_out(&mut kernels, &[Pid(7)]).len(), kernels[0].count), (0, Some(1)));
        let dev = Dev { major: 0, minor: 27 };
        let mut sums = [UnheldSum { dev, files: 1, resident: Bytes(1), swapped: Bytes(2) }];
        add_unheld(&mut sums, &only_own);
        assert_eq!((sums[0].files, sums[0].resident, sums[0].swapped), (2, Bytes(6145), Bytes(2050)));
    }

    /// Check that a process whose fd table another holder shares stays.
    #[test]
    fn a_shared_table_stays() {
        let sharer = Holder { fd_table_of: Some(Pid(7)), ..holder(9, &[3]) };
        let mut buffers = vec![file(Some(1), vec![holder(7, &[3]), sharer])];
        assert!(leave_out(&mut buffers, &[Pid(7)]).is_empty());
        assert_eq!((buffers[0].holders.len(), buffers[0].count), (2, Some(1)));
    }
}
