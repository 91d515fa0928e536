//! Marks the system calls that another process can delay, so that a helper is killed inside such a
//! call and nowhere else.
//!
//! The mark is in memory that helper and caller share. A thread-local variable of the calling
//! thread points to it, and the helper uses the same thread-local storage. So functions that read
//! need no parameter for it. Outside of a helper, marking does nothing.

use std::cell::Cell;
use std::ffi::CStr;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, compiler_fence};

use rustix::fs::{
    AtFlags, Mode, OFlags, RawDir, RawDirEntry, Statx, StatxFlags, openat, readlinkat_raw, statx,
};
#[cfg(feature = "symbols")]
use rustix::fs::{ResolveFlags, openat2};
use rustix::io::{Errno, pread};

use crate::model::Pid;

/// Says whether a helper is in a marked call, and in which.
#[derive(Debug, Default)]
pub(super) struct Mark {
    /// Counts entries into marked calls and exits from them, so it is odd inside one.
    ticks: AtomicU64,
    /// The process that the call reads; 0 if none was named.
    about: AtomicU32,
}

impl Mark {
    /// The number of the marked call that the helper is in, and the process that the call reads.
    /// `None`: it is in none.
    pub(super) fn inside(&self) -> Option<(u64, Option<Pid>)> {
        let ticks = self.ticks.load(Ordering::SeqCst);
        let about = self.about.load(Ordering::SeqCst);
        (ticks % 2 == 1).then_some((ticks, (about != 0).then_some(Pid(about))))
    }
}

thread_local! {
    /// The mark of the innermost [`guarded`](super::guarded) call of this thread, or of a helper in
    /// its place.
    static CURRENT: Cell<*const Mark> = const { Cell::new(ptr::null()) };
}

/// Sets the mark for this thread and for the helper that it makes next. Returns the previous one.
pub(super) fn set_current(mark: *const Mark) -> *const Mark {
    CURRENT.replace(mark)
}

/// Names the process that the following marked calls read, unless they name one themselves.
pub(crate) fn now_about(pid: Option<Pid>) {
    // SAFETY: as in [`marked`].
    if let Some(mark) = unsafe { CURRENT.get().as_ref() } {
        mark.about.store(pid.map_or(0, |pid| pid.0), Ordering::Release);
    }
}

/// Makes a call that another process can delay. `about` names the process that the call reads, if
/// it has changed. A helper may be killed anywhere inside the call, and then never leaves it.
///
/// # Safety
///
/// `call` makes system calls and nothing else: it does not allocate or free, take or release a
/// lock, panic, or write data that other code relies on. Its system calls change neither this
/// process's mappings nor anything that must be undone.
#[inline]
pub(crate) unsafe fn marked<T>(about: Option<Pid>, call: impl FnOnce() -> T) -> T {
    // SAFETY: `guarded` sets it to a mark in its own stack frame, and resets it before it returns.
    let Some(mark) = (unsafe { CURRENT.get().as_ref() }) else { return call() };
    if let Some(pid) = about {
        mark.about.store(pid.0, Ordering::Release);
    }
    // No other thread writes the count. The watcher relies on what it reads only after the kernel
    // has stopped the helper, and by then all of the helper's writes are done.
    let outside = mark.ticks.load(Ordering::Relaxed);
    // The fences keep the compiler from moving other memory accesses between the two counts.
    compiler_fence(Ordering::SeqCst);
    mark.ticks.store(outside.wrapping_add(1), Ordering::Release);
    compiler_fence(Ordering::SeqCst);
    let result = call();
    compiler_fence(Ordering::SeqCst);
    mark.ticks.store(outside.wrapping_add(2), Ordering::Release);
    compiler_fence(Ordering::SeqCst);
    result
}

/// read(2), marked.
pub(crate) fn read(about: Option<Pid>, fd: BorrowedFd<'_>, into: &mut [u8]) -> Result<usize, Errno> {
    // SAFETY: one system call. If the helper is killed, the buffer that it writes to is lost with
    // it.
    unsafe { marked(about, || rustix::io::read(fd, into)) }
}

/// pread(2), marked.
pub(crate) fn read_at(
    about: Option<Pid>,
    fd: BorrowedFd<'_>,
    into: &mut [u8],
    at: u64,
) -> Result<usize, Errno> {
    // SAFETY: one system call. If the helper is killed, the buffer that it writes to is lost with
    // it.
    unsafe { marked(about, || pread(fd, into, at)) }
}

/// statx(2), marked.
pub(crate) fn stat_at(
    dir: BorrowedFd<'_>,
    path: &CStr,
    flags: AtFlags,
    mask: StatxFlags,
) -> Result<Statx, Errno> {
    // SAFETY: one system call; rustix takes a `CStr` as it is.
    unsafe { marked(None, || statx(dir, path, flags, mask)) }
}

/// The next entry of a folder. The call is marked if it needs getdents64(2).
pub(crate) fn next_entry<'d, Fd: AsFd>(
    entries: &'d mut RawDir<'_, Fd>,
) -> Option<Result<RawDirEntry<'d>, Errno>> {
    if !entries.is_buffer_empty() {
        return entries.next();
    }
    // SAFETY: one system call, then the first entry is taken from the buffer. If the helper is
    // killed, the buffer is lost with it.
    unsafe { marked(None, || entries.next()) }
}

/// openat(2), marked. A helper that is killed in it has opened nothing.
pub(crate) fn open_at(
    about: Option<Pid>,
    dir: BorrowedFd<'_>,
    path: &CStr,
    flags: OFlags,
) -> Result<OwnedFd, Errno> {
    // SAFETY: one system call; rustix takes a `CStr` as it is. The kernel puts the fd into the
    // table as the last step of the call.
    unsafe { marked(about, || openat(dir, path, flags, Mode::empty())) }
}

/// openat2(2), marked. A helper that is killed in it has opened nothing.
#[cfg(feature = "symbols")]
pub(crate) fn open_below(
    root: BorrowedFd<'_>,
    path: &CStr,
    flags: OFlags,
    resolve: ResolveFlags,
) -> Result<OwnedFd, Errno> {
    // SAFETY: as in [`open_at`].
    unsafe { marked(None, || openat2(root, path, flags, Mode::empty(), resolve)) }
}

/// fstatfs(2), marked. Returns the filesystem's magic number.
#[cfg(feature = "symbols")]
pub(crate) fn magic_of(file: BorrowedFd<'_>) -> Result<i64, Errno> {
    // SAFETY: one system call.
    unsafe { marked(None, || rustix::fs::fstatfs(file)) }.map(|facts| facts.f_type)
}

/// readlinkat(2), marked. Returns the link's target.
pub(crate) fn read_link_at<'r>(
    dir: BorrowedFd<'_>,
    path: &CStr,
    into: &'r mut [MaybeUninit<u8>],
) -> Result<&'r [u8], Errno> {
    // SAFETY: one system call; rustix takes a `CStr` as it is. If the helper is killed, the buffer
    // that it writes to is lost with it.
    unsafe { marked(None, || readlinkat_raw(dir, path, into)) }.map(|(link, _)| &*link)
}
