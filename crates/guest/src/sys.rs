//! The system calls that scenarios need besides those of dma-bufs: fork, moving mappings, unusual
//! fds. All `unsafe` code of this crate is here and in the modules below.
//!
//! Why it is sound: no reference ever points into the mappings that are made here. Scenarios split,
//! shrink and move them to see what the kernel shows, and only [`shm::touch`] writes to them.
#![allow(unsafe_code)]

pub mod dumb;
pub mod fault;
pub mod loops;
pub mod measure;
pub mod pins;
pub mod ring;
pub mod shm;
pub mod shuttle;
pub mod task;
pub mod text;

use std::fs::File;
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;

use anyhow::{Context, bail, ensure};
use rustix::fs::{Mode, OFlags};
use rustix::mm::{MapFlags, MremapFlags, ProtFlags, mmap, mmap_anonymous, mremap, mremap_fixed, munmap};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};
pub use rustix::param::page_size;
use rustix::process::{Gid, Uid};
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};

/// An `O_PATH` fd of the file behind another fd.
///
/// # Errors
///
/// The kernel refuses.
pub fn open_path(fd: impl AsFd) -> anyhow::Result<OwnedFd> {
    // The number is a slot of this thread's fd table, which may differ from the process's.
    let link = format!("/proc/thread-self/fd/{}", number(fd));
    rustix::fs::open(link, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).context("opening with O_PATH")
}

/// Opens the file behind another fd again, for reading and writing: a new open file on the same
/// inode.
///
/// # Errors
///
/// The kernel refuses.
pub fn open_again(fd: impl AsFd) -> anyhow::Result<OwnedFd> {
    let link = format!("/proc/thread-self/fd/{}", number(&fd));
    rustix::fs::open(link, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).context("opening again")
}

/// The number of an fd, to be compared with what lsbuf prints.
pub fn number(fd: impl AsFd) -> u32 {
    fd.as_fd().as_raw_fd().unsigned_abs()
}

/// Takes ownership, by its number, of an fd that this process got through exec.
///
/// # Errors
///
/// There is no such fd.
pub fn inherited(number: u32) -> anyhow::Result<OwnedFd> {
    let number = RawFd::try_from(number)?;
    // SAFETY: only the number is used, to test whether it is open.
    let open = unsafe { libc::fcntl(number, libc::F_GETFD) } != -1;
    ensure!(open, "there is no fd {number}");
    // SAFETY: it is open. The program that ran in this process before passed its number to the
    // caller, so nothing in this program owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Sends fds of any type, with one byte.
///
/// # Errors
///
/// The kernel refuses.
pub fn send_any(socket: impl AsFd, fds: &[BorrowedFd<'_>]) -> anyhow::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    ensure!(control.push(SendAncillaryMessage::ScmRights(fds)), "no room for {} fds", fds.len());
    sendmsg(socket, &[IoSlice::new(b"x")], &mut control, SendFlags::empty()).context("sending")?;
    Ok(())
}

/// As [`send_any`], for one fd by its number. Another thread may close it once the kernel has
/// looked it up.
///
/// # Errors
///
/// There is no such fd, or the kernel refuses.
pub fn send_number(socket: impl AsFd, number: u32) -> anyhow::Result<()> {
    let number = RawFd::try_from(number)?;
    // SAFETY: the number is only handed to the kernel, which refuses one that is not open.
    send_any(socket, &[unsafe { BorrowedFd::borrow_raw(number) }])
}

/// Sends one fd of any type, with a payload.
///
/// # Errors
///
/// The kernel refuses to send, for example because the socket's buffer is full.
pub fn send_with(socket: impl AsFd, fd: BorrowedFd<'_>, payload: &[u8]) -> rustix::io::Result<()> {
    let fds = [fd];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    // The buffer has exactly the size of this message.
    let pushed = control.push(SendAncillaryMessage::ScmRights(&fds));
    debug_assert!(pushed, "no room for an fd");
    sendmsg(socket, &[IoSlice::new(payload)], &mut control, SendFlags::empty()).map(drop)
}

/// Receives the beginning of a payload, and up to eight fds. Returns the number of payload bytes
/// and the fds.
///
/// # Errors
///
/// The kernel refuses, or no message has arrived.
pub fn receive_with(socket: impl AsFd, payload: &mut [u8]) -> rustix::io::Result<(usize, Vec<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let message = recvmsg(socket, &mut [IoSliceMut::new(payload)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
    let mut fds = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(more) = message {
            fds.extend(more);
        }
    }
    Ok((message.bytes, fds))
}

/// Receives what [`send_any`] sent.
///
/// # Errors
///
/// The kernel refuses, or the message has no fd.
pub fn receive_any(socket: impl AsFd) -> anyhow::Result<Vec<OwnedFd>> {
    receive_flagged(socket, RecvFlags::empty())
}

/// As [`receive_any`], and leaves the message where it is (`MSG_PEEK`).
///
/// # Errors
///
/// As [`receive_any`].
pub fn receive_peeking(socket: impl AsFd) -> anyhow::Result<Vec<OwnedFd>> {
    receive_flagged(socket, RecvFlags::PEEK)
}

fn receive_flagged(socket: impl AsFd, flags: RecvFlags) -> anyhow::Result<Vec<OwnedFd>> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    recvmsg(socket, &mut [IoSliceMut::new(&mut [0])], &mut control, flags | RecvFlags::CMSG_CLOEXEC)
        .context("receiving")?;
    let mut fds = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(more) = message {
            fds.extend(more);
        }
    }
    ensure!(!fds.is_empty(), "a message without fds");
    Ok(fds)
}

/// Changes user and group for good, and drops all supplementary groups.
///
/// # Errors
///
/// The kernel refuses.
pub fn become_user(uid: u32) -> anyhow::Result<()> {
    let (user, group) = (Uid::from_raw(uid), Gid::from_raw(uid));
    set_thread_groups(&[]).context("dropping groups")?;
    set_thread_res_gid(group, group, group).context("changing the group")?;
    set_thread_res_uid(user, user, user).context("changing the user")
}

/// A range of this process's address space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region {
    /// First address.
    pub start: usize,
    /// Bytes.
    pub len: usize,
}

impl Region {
    /// The inode number of what is mapped at its start.
    ///
    /// # Errors
    ///
    /// Nothing is mapped there.
    pub fn inode(self) -> anyhow::Result<u64> {
        let maps = std::fs::read_to_string("/proc/self/maps")?;
        let start = format!("{:x}-", self.start);
        let found = maps.lines().find(|line| line.starts_with(&start)).context("the mapping is gone")?;
        Ok(found.split_ascii_whitespace().nth(4).context("no inode")?.parse()?)
    }
}

/// Forks. The child runs `script` and exits with its value as status; the parent gets the child's
/// pid.
///
/// # Errors
///
/// The kernel refuses.
pub fn fork(script: impl FnOnce() -> i32) -> anyhow::Result<u32> {
    // SAFETY: the processes that fork here have one thread. So the child inherits no lock that
    // another thread holds, and may run any code.
    match unsafe { libc::fork() } {
        -1 => Err(std::io::Error::last_os_error()).context("forking"),
        0 => {
            let status = script();
            // SAFETY: always sound. `_exit`, because the parent's exit handlers must not run twice.
            unsafe { libc::_exit(status) }
        }
        pid => Ok(pid.unsigned_abs()),
    }
}

/// Maps `len` bytes of `fd` from `offset`: shared, readable and writable.
///
/// # Errors
///
/// The kernel or the exporter refuses.
pub fn map(fd: impl AsFd, offset: u64, len: usize) -> anyhow::Result<Region> {
    map_as(MapFlags::SHARED, fd, offset, len)
}

/// As [`map`], but private.
///
/// # Errors
///
/// The kernel or the exporter refuses.
pub fn map_private(fd: impl AsFd, offset: u64, len: usize) -> anyhow::Result<Region> {
    map_as(MapFlags::PRIVATE, fd, offset, len)
}

/// Replaces a region by a private mapping of the start of `fd`.
///
/// # Errors
///
/// The kernel refuses.
pub fn map_private_over(region: Region, fd: impl AsFd) -> anyhow::Result<Region> {
    let start = ptr::with_exposed_provenance_mut(region.start);
    let flags = MapFlags::PRIVATE | MapFlags::FIXED;
    // SAFETY: the range is a region, as in `unmap`, so nothing that Rust knows of is replaced.
    unsafe { mmap(start, region.len, ProtFlags::READ, flags, fd, 0) }.context("mapping over a region")?;
    Ok(region)
}

/// As [`map`], with an inaccessible page before and behind it. Without them the kernel may merge
/// neighbouring mappings.
///
/// # Errors
///
/// The kernel or the exporter refuses.
pub fn map_apart(fd: impl AsFd, offset: u64, len: usize) -> anyhow::Result<Region> {
    // SAFETY: the kernel chooses a free range.
    let free = unsafe {
        mmap_anonymous(ptr::null_mut(), len + 2 * page_size(), ProtFlags::empty(), MapFlags::PRIVATE)
    };
    let start = free.context("reserving an address range")?.wrapping_byte_add(page_size());
    let (access, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED | MapFlags::FIXED);
    // SAFETY: it replaces a part of the range that was just reserved, which only this function
    // uses.
    let start = unsafe { mmap(start, len, access, flags, fd, offset) };
    Ok(Region { start: start.context("mapping")?.expose_provenance(), len })
}

fn map_as(flags: MapFlags, fd: impl AsFd, offset: u64, len: usize) -> anyhow::Result<Region> {
    // SAFETY: the kernel chooses a free range, so nothing that Rust knows of is replaced.
    let start = unsafe { mmap(ptr::null_mut(), len, ProtFlags::READ | ProtFlags::WRITE, flags, fd, offset) };
    Ok(Region { start: start.context("mapping")?.expose_provenance(), len })
}

/// Unmaps a range, which may be a part of a region.
///
/// # Errors
///
/// The kernel refuses.
pub fn unmap(region: Region) -> anyhow::Result<()> {
    // SAFETY: regions come from the functions of this module or are parts of those, and nothing
    // points into them.
    unsafe { munmap(ptr::with_exposed_provenance_mut(region.start), region.len) }.context("unmapping")
}

/// Shrinks a region to `len` bytes in place.
///
/// # Errors
///
/// The kernel refuses.
pub fn shrink(region: Region, len: usize) -> anyhow::Result<Region> {
    if len > region.len {
        bail!("{len} is more than the region's {} bytes", region.len);
    }
    let start = ptr::with_exposed_provenance_mut(region.start);
    // SAFETY: as in `unmap`; shrinking never moves.
    unsafe { mremap(start, region.len, len, MremapFlags::empty()) }.context("shrinking")?;
    Ok(Region { start: region.start, len })
}

/// Moves a region to another address, with an inaccessible page before and behind it. Without them
/// the kernel may merge neighbouring mappings.
///
/// # Errors
///
/// The kernel refuses.
pub fn relocate(region: Region) -> anyhow::Result<Region> {
    let flags = MapFlags::PRIVATE;
    // SAFETY: the kernel chooses a free range.
    let free =
        unsafe { mmap_anonymous(ptr::null_mut(), region.len + 2 * page_size(), ProtFlags::empty(), flags) };
    let free = free.context("reserving an address range")?.wrapping_byte_add(page_size());
    let start = ptr::with_exposed_provenance_mut(region.start);
    // SAFETY: the old range is a region, as in `unmap`. The new one is a part of the range that was
    // just reserved, which only this function uses.
    let moved = unsafe { mremap_fixed(start, region.len, region.len, MremapFlags::MAYMOVE, free) };
    Ok(Region { start: moved.context("moving")?.addr(), len: region.len })
}

/// Bytes of a page, in the type of sizes of files: 4, 16 or 64 KiB.
pub fn page() -> u64 {
    page_size() as u64
}

/// Makes `vmas` VMAs side by side that belong to no buffer. Every second one is a private mapping
/// of a file, with `pages_of_each` pages of each file in turn; the others are anonymous. Neighbours
/// differ, so that the kernel merges none.
///
/// # Errors
///
/// The kernel refuses, or there are too few files.
pub fn map_unrelated(vmas: usize, files: &[File], pages_of_each: usize) -> anyhow::Result<Region> {
    let len = vmas * page_size();
    let (readable, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE | MapFlags::NORESERVE);
    // SAFETY: the kernel chooses a free range, and nothing reads or writes it.
    let start = unsafe { mmap_anonymous(ptr::null_mut(), len, readable, flags) };
    let start = start.context("reserving an address range")?;
    for nth in 0..vmas / 2 {
        let (file, page) = (nth / pages_of_each, nth % pages_of_each);
        let file = files.get(file).context("too few files")?;
        // As a library's segments: headers, code, constants, data.
        let protection = match page {
            1 => ProtFlags::READ | ProtFlags::EXEC,
            3 => readable,
            _ => ProtFlags::READ,
        };
        let at = start.wrapping_byte_add((2 * nth + 1) * page_size());
        let flags = MapFlags::PRIVATE | MapFlags::FIXED;
        // SAFETY: it replaces a page of the range that was just reserved, which only this function
        // uses.
        let mapped = unsafe { mmap(at, page_size(), protection, flags, file, (page * page_size()) as u64) };
        mapped.context("mapping a page of a file")?;
    }
    Ok(Region { start: start.addr(), len })
}
