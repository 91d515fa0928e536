//! Shared memory other than dma-bufs: System V segments, anonymous shared memory, secret memory,
//! ashmem; and what the kernel can do with it: leases and swap.
//!
//! System V segments outlive processes, so dropping a [`Segment`] removes it.

use std::ffi::CString;
use std::fs::{File, OpenOptions};
use std::io::Error;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::ptr;

use anyhow::{Context, ensure};
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mlock, mmap_anonymous};

use super::{Region, page_size};

/// A System V segment. Dropping this removes it; the kernel frees its memory with the last
/// attachment.
#[derive(Debug)]
pub struct Segment {
    id: libc::c_int,
    len: usize,
}

impl Segment {
    /// Makes a segment that only root may use. Key 0 makes a private one.
    ///
    /// # Errors
    ///
    /// The key is taken, or the kernel refuses.
    pub fn create(key: u32, pages: usize) -> anyhow::Result<Segment> {
        Segment::with(key, pages * page_size(), 0)
    }

    /// Makes a private one of huge pages of 2 MiB, which `len` is a multiple of.
    ///
    /// # Errors
    ///
    /// The kernel has not enough huge pages, or refuses.
    pub fn huge(len: usize) -> anyhow::Result<Segment> {
        // SHM_HUGE_2MB is the same number.
        Segment::with(0, len, libc::SHM_HUGETLB | libc::MAP_HUGE_2MB)
    }

    fn with(key: u32, len: usize, flags: libc::c_int) -> anyhow::Result<Segment> {
        let flags = libc::IPC_CREAT | libc::IPC_EXCL | flags | 0o600;
        // SAFETY: only numbers are passed.
        let id = unsafe { libc::shmget(key.cast_signed(), len, flags) };
        ensure!(id != -1, "making a segment: {}", Error::last_os_error());
        Ok(Segment { id, len })
    }

    /// The segment's id, which is also its inode number.
    pub fn id(&self) -> u64 {
        self.id.unsigned_abs().into()
    }

    /// Attaches it.
    ///
    /// # Errors
    ///
    /// The kernel refuses.
    pub fn attach(&self) -> anyhow::Result<Region> {
        // SAFETY: the kernel chooses a free range, so nothing that Rust knows of is replaced.
        let start = unsafe { libc::shmat(self.id, ptr::null(), 0) };
        ensure!(start.addr() != usize::MAX, "attaching a segment: {}", Error::last_os_error());
        Ok(Region { start: start.expose_provenance(), len: self.len })
    }

    /// Marks it for removal: it goes with the last attachment.
    ///
    /// # Errors
    ///
    /// The kernel refuses.
    pub fn remove(&self) -> anyhow::Result<()> {
        // SAFETY: this command does not use the pointer.
        let done = unsafe { libc::shmctl(self.id, libc::IPC_RMID, ptr::null_mut()) };
        ensure!(done == 0, "removing a segment: {}", Error::last_os_error());
        Ok(())
    }
}

impl Drop for Segment {
    fn drop(&mut self) {
        // The caller may have removed it already.
        let _ = self.remove();
    }
}

/// Undoes one [`Segment::attach`].
///
/// # Errors
///
/// No segment is attached there.
pub fn detach(region: Region) -> anyhow::Result<()> {
    // SAFETY: the region came from `attach`, and nothing points into it.
    let done = unsafe { libc::shmdt(ptr::with_exposed_provenance(region.start)) };
    ensure!(done == 0, "detaching a segment: {}", Error::last_os_error());
    Ok(())
}

/// Maps shared memory without a file, which children share.
///
/// # Errors
///
/// The kernel refuses.
pub fn map_anonymous(pages: usize) -> anyhow::Result<Region> {
    let protection = ProtFlags::READ | ProtFlags::WRITE;
    // SAFETY: the kernel chooses a free range, so nothing that Rust knows of is replaced.
    let start = unsafe { mmap_anonymous(ptr::null_mut(), pages * page_size(), protection, MapFlags::SHARED) };
    Ok(Region { start: start.context("mapping")?.expose_provenance(), len: pages * page_size() })
}

/// Maps huge pages of 2 MiB without a file: shared, so that children share them, or the process's
/// own.
///
/// # Errors
///
/// The kernel has not enough huge pages, or refuses.
pub fn map_huge(len: usize, shared: bool) -> anyhow::Result<Region> {
    let protection = ProtFlags::READ | ProtFlags::WRITE;
    let sort = if shared { MapFlags::SHARED } else { MapFlags::PRIVATE };
    let flags = sort | MapFlags::HUGETLB | MapFlags::HUGE_2MB;
    // SAFETY: the kernel chooses a free range, so nothing that Rust knows of is replaced.
    let start = unsafe { mmap_anonymous(ptr::null_mut(), len, protection, flags) };
    Ok(Region { start: start.context("mapping huge pages")?.expose_provenance(), len })
}

/// Writes to the first `len` bytes of a region, once in each page, so that the kernel must allocate
/// those pages.
///
/// # Errors
///
/// The region is shorter.
pub fn touch(region: Region, len: usize) -> anyhow::Result<()> {
    ensure!(len <= region.len, "{len} is more than the region's {} bytes", region.len);
    for offset in (0..len).step_by(page_size()) {
        let at = ptr::with_exposed_provenance_mut::<u8>(region.start + offset);
        // SAFETY: the address is inside a region that is mapped as writable, and no reference
        // points into it.
        unsafe { at.write_volatile(1) };
    }
    Ok(())
}

/// Keeps the pages of a region in memory.
///
/// # Errors
///
/// The kernel refuses.
pub fn lock(region: Region) -> anyhow::Result<()> {
    let start = ptr::with_exposed_provenance_mut(region.start);
    // SAFETY: the content of the memory stays the same.
    unsafe { mlock(start, region.len) }.context("locking memory")
}

/// A file of secret memory.
///
/// # Errors
///
/// The kernel has no secret memory, or does not let any process use it.
pub fn secret() -> anyhow::Result<OwnedFd> {
    // SAFETY: memfd_secret takes only flags.
    let fd = unsafe { libc::syscall(libc::SYS_memfd_secret, libc::O_CLOEXEC) };
    let fd = i32::try_from(fd).ok().filter(|&fd| fd >= 0);
    let fd = fd.ok_or_else(Error::last_os_error).context("making secret memory")?;
    // SAFETY: the kernel has just opened it, and nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// A file of Android's ashmem. Only its mappings are shared memory.
///
/// # Errors
///
/// The kernel has none.
pub fn ashmem(name: &str, size: usize) -> anyhow::Result<File> {
    // `ASHMEM_SET_NAME` and `ASHMEM_SET_SIZE` of drivers/staging/android/uapi/ashmem.h, on 64-bit
    // machines.
    const SET_NAME: libc::Ioctl = 0x4100_7701;
    const SET_SIZE: libc::Ioctl = 0x4008_7703;
    let file =
        OpenOptions::new().read(true).write(true).open("/dev/ashmem").context("opening /dev/ashmem")?;
    let mut text = [0u8; 256];
    text.get_mut(..name.len()).context("a long name")?.copy_from_slice(name.as_bytes());
    // SAFETY: the kernel reads 256 bytes, which `text` has.
    let named = unsafe { libc::ioctl(file.as_raw_fd(), SET_NAME, text.as_ptr()) };
    ensure!(named == 0, "naming: {}", Error::last_os_error());
    // SAFETY: only numbers are passed.
    let sized = unsafe { libc::ioctl(file.as_raw_fd(), SET_SIZE, size) };
    ensure!(sized == 0, "setting the size: {}", Error::last_os_error());
    Ok(file)
}

/// Takes a lease, which any other open of the file breaks. The holder then gets SIGIO, which kills
/// it.
///
/// # Errors
///
/// The kernel refuses, because another process has the file open.
pub fn take_lease(fd: impl AsFd) -> anyhow::Result<()> {
    // SAFETY: only numbers are passed.
    let done = unsafe { libc::fcntl(fd.as_fd().as_raw_fd(), libc::F_SETLEASE, libc::F_WRLCK) };
    ensure!(done == 0, "taking a lease: {}", Error::last_os_error());
    Ok(())
}

/// Whether the lease is unbroken.
pub fn has_lease(fd: impl AsFd) -> bool {
    // SAFETY: only numbers are passed.
    let lease = unsafe { libc::fcntl(fd.as_fd().as_raw_fd(), libc::F_GETLEASE) };
    lease == libc::F_WRLCK
}

/// Asks the kernel to swap out a region, as far as it can.
///
/// # Errors
///
/// The kernel refuses.
pub fn page_out(region: Region) -> anyhow::Result<()> {
    let start = ptr::with_exposed_provenance_mut(region.start);
    // SAFETY: the content of the memory stays the same.
    unsafe { madvise(start, region.len, Advice::LinuxPageOut) }.context("paging out")
}

/// A disk that the kernel swaps to, until this is dropped.
#[derive(Debug)]
pub struct Swap {
    path: CString,
}

impl Swap {
    /// Starts to swap to a disk that has been prepared for it.
    ///
    /// # Errors
    ///
    /// The kernel refuses.
    pub fn on(path: &str) -> anyhow::Result<Swap> {
        let path = CString::new(path)?;
        // SAFETY: the path is a string that ends with a NUL.
        let done = unsafe { libc::swapon(path.as_ptr(), 0) };
        ensure!(done == 0, "swapping to {path:?}: {}", Error::last_os_error());
        Ok(Swap { path })
    }
}

impl Drop for Swap {
    fn drop(&mut self) {
        // SAFETY: as in `on`.
        let done = unsafe { libc::swapoff(self.path.as_ptr()) };
        if done != 0 {
            eprintln!("still swapping to {:?}: {}", self.path, Error::last_os_error());
        }
    }
}
