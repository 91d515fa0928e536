//! Marks the system calls that a stranger can delay, so that a helper is killed inside one and nowhere else.
//!
//! A mark lies in the memory that helper and caller share. The calling thread's own storage, which the helper uses, says where,
//! so readers need not be given it. Outside of a helper, marking does nothing.

use std::cell::Cell;
use std::ffi::CStr;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, compiler_fence};

use rustix::fs::{
    AtFlags, Mode, OFlags, RawDir, RawDirEntry, Statx, StatxFlags, openat, readlinkat_raw, statx,
};
use rustix::io::{Errno, pread};

use crate::model::Pid;

/// Where a helper is.
#[derive(Debug, Default)]
pub(super) struct Mark {
    /// Counts entries and exits: odd inside a marked call.
    ticks: AtomicU64,
    /// The process that the call is about; 0 if it names none.
    about: AtomicU32,
}

impl Mark {
    /// Which marked call the helper is in, and about which process, if it is in one.
    pub(super) fn inside(&self) -> Option<(u64, Option<Pid>)> {
        let ticks = self.ticks.load(Ordering::SeqCst);
        let about = self.about.load(Ordering::SeqCst);
        (ticks % 2 == 1).then_some((ticks, (about != 0).then_some(Pid(about))))
    }
}

thread_local! {
    /// The mark of the innermost [`guarded`](super::guarded) that this thread, or a helper in its place, runs in.
    static CURRENT: Cell<*const Mark> = const { Cell::new(ptr::null()) };
}

/// Has this thread, and the helper that it makes next, use that mark. Gives the one before.
pub(super) fn set_current(mark: *const Mark) -> *const Mark {
    CURRENT.replace(mark)
}

/// Says which process the marked calls that follow are about, as long as they name none themselves.
pub(crate) fn now_about(pid: Option<Pid>) {
    // SAFETY: as in [`marked`].
    if let Some(mark) = unsafe { CURRENT.get().as_ref() } {
        mark.about.store(pid.map_or(0, |pid| pid.0), Ordering::Release);
    }
}

/// Makes a call that a stranger may delay, and names the process that it is about, if it is another one than before. A helper may be killed
/// anywhere inside it, and then never leaves it.
///
/// # Safety
///
/// `call` makes system calls and nothing else: it does not allocate or free, take or give back a lock, panic, or write what
/// other code relies on. Its system calls change neither this process's mappings nor anything that must be undone.
#[inline]
pub(crate) unsafe fn marked<T>(about: Option<Pid>, call: impl FnOnce() -> T) -> T {
    // SAFETY: `guarded` sets it to a mark in its own frame, and sets it back before it returns.
    let Some(mark) = (unsafe { CURRENT.get().as_ref() }) else { return call() };
    if let Some(pid) = about {
        mark.about.store(pid.0, Ordering::Release);
    }
    // Nobody else counts. The watcher believes what it reads only of a helper that the kernel has stopped, which has then
    // written all that it had to.
    let outside = mark.ticks.load(Ordering::Relaxed);
    // The fences keep the compiler from moving other accesses in between the two counts.
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
    // SAFETY: one system call, which writes to a buffer that is lost with the helper.
    unsafe { marked(about, || rustix::io::read(fd, into)) }
}

/// pread(2), marked.
pub(crate) fn read_at(
    about: Option<Pid>,
    fd: BorrowedFd<'_>,
    into: &mut [u8],
    at: u64,
) -> Result<usize, Errno> {
    // SAFETY: one system call, which writes to a buffer that is lost with the helper.
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

/// The next entry of a folder, marked where that takes getdents64(2).
pub(crate) fn next_entry<'d, Fd: AsFd>(
    entries: &'d mut RawDir<'_, Fd>,
) -> Option<Result<RawDirEntry<'d>, Errno>> {
    if !entries.is_buffer_empty() {
        return entries.next();
    }
    // SAFETY: one system call, which fills a buffer that is lost with the helper; then the first entry is taken from it.
    unsafe { marked(None, || entries.next()) }
}

/// openat(2), marked. A helper killed in it has opened nothing.
pub(crate) fn open_at(
    about: Option<Pid>,
    dir: BorrowedFd<'_>,
    path: &CStr,
    flags: OFlags,
) -> Result<OwnedFd, Errno> {
    // SAFETY: one system call; rustix takes a `CStr` as it is. The fd is put into the table as the call's last step.
    unsafe { marked(about, || openat(dir, path, flags, Mode::empty())) }
}

/// readlinkat(2), marked: the target.
pub(crate) fn read_link_at<'r>(
    dir: BorrowedFd<'_>,
    path: &CStr,
    into: &'r mut [MaybeUninit<u8>],
) -> Result<&'r [u8], Errno> {
    // SAFETY: one system call; rustix takes a `CStr` as it is. It writes to a buffer that is lost with the helper.
    unsafe { marked(None, || readlinkat_raw(dir, path, into)) }.map(|(link, _)| &*link)
}
