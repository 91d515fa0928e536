//! Dma-buf heaps: allocators in the kernel that each have a node under `/dev/dma_heap`.
//!
//! A heap is the simplest exporter, because it needs no device (`CONFIG_DMABUF_HEAPS`, Linux 5.6).
//! Most machines that have heaps have one called `system`. Limits: which other heaps exist, and
//! what kind of memory they give, depends on the machine. The kernel charges this memory to no
//! process. Newer kernels can charge memory of the heap `system` to the cgroup of the process that
//! allocates it (parameter `dma_heap.mem_accounting`, off by default; commit 3c227be90659). Older
//! ones charge it to no cgroup.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::system::sysinfo;

use crate::kernel::ioctl;
use crate::node::open_device;
use crate::{DmaBuf, Error, ErrorKind, Result};

const HEAPS: &str = "/dev/dma_heap";

/// The heap that takes its pages from the kernel's general page allocator.
const SYSTEM: &str = "system";

/// An open dma-buf heap.
///
/// ```
/// use dmabuf::{ErrorKind, Heap};
///
/// println!("heaps: {}", Heap::list()?.join(", "));
/// match Heap::open("system") {
///     Ok(heap) => println!("{} bytes", heap.allocate(1)?.size()?), // a whole page
///     // The message says what to do: enable a kernel option, or join a group.
///     Err(error) => eprintln!("{error}"),
/// }
/// # Ok::<(), dmabuf::Error>(())
/// ```
#[derive(Debug)]
pub struct Heap {
    fd: OwnedFd,
    name: String,
}

impl Heap {
    /// The names of the machine's heaps, sorted; an empty list if the kernel has none.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::PermissionDenied`] or [`ErrorKind::Other`] if `/dev/dma_heap` exists and cannot
    /// be read.
    pub fn list() -> Result<Vec<String>> {
        list_in(Path::new(HEAPS))
    }

    /// Opens the heap with this name, such as `system`.
    ///
    /// # Errors
    ///
    /// * [`ErrorKind::NoHeap`]: there is none; the message lists the heaps that exist.
    /// * [`ErrorKind::PermissionDenied`]: the message names the node's owner and group.
    pub fn open(name: &str) -> Result<Self> {
        open_in(Path::new(HEAPS), name)
    }

    /// The heap's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Allocates a zeroed buffer of `size` bytes. The kernel rounds the size up to whole pages.
    ///
    /// The request is `DMA_HEAP_IOCTL_ALLOC` of `include/uapi/linux/dma-heap.h`. The descriptor is
    /// read-write and close-on-exec.
    ///
    /// Do not ask the `system` heap for more memory than is free. It allocates one page after
    /// another, and when memory runs out on the way, the kernel kills processes in order to
    /// continue (seen on 6.12 and 7.2). This function refuses a size above the machine's total
    /// memory.
    ///
    /// # Errors
    ///
    /// * [`ErrorKind::InvalidSize`]: zero, or a size that the heap refuses.
    /// * [`ErrorKind::OutOfMemory`]: not enough memory. For the `system` heap also a size above the
    ///   total memory; no call was made then.
    /// * [`ErrorKind::OutOfDescriptors`].
    pub fn allocate(&self, size: u64) -> Result<DmaBuf> {
        let what = || format!("cannot allocate {size} bytes from the heap {}", self.name);
        if size == 0 {
            return Err(Error::new(ErrorKind::InvalidSize, format!("{}: ask for at least one byte", what())));
        }
        if self.name == SYSTEM && size > total_memory() {
            return Err(Error::new(
                ErrorKind::OutOfMemory,
                format!(
                    "{}: the machine has only {} in total, and the kernel would kill processes to free memory; ask for less",
                    what(),
                    total_memory()
                ),
            ));
        }
        match ioctl::heap_allocate(self.fd.as_fd(), size) {
            Ok(fd) => Ok(DmaBuf::from_exporter(fd)),
            Err(errno @ Errno::INVAL) => Err(Error::with_errno(
                ErrorKind::InvalidSize,
                format!("{}: the heap does not take that size; ask for less", what()),
                errno,
            )),
            Err(errno) => Err(Error::from_errno(what(), errno)),
        }
    }
}

impl AsFd for Heap {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// The total memory of the machine, as the kernel reports it, in bytes.
fn total_memory() -> u64 {
    let info = sysinfo();
    // The fields have at most 64 bits on every architecture, and fewer on some.
    #[allow(clippy::useless_conversion)]
    u64::from(info.totalram).saturating_mul(info.mem_unit.into())
}

fn list_in(dir: &Path) -> Result<Vec<String>> {
    let failed = |error: std::io::Error| {
        let errno = Errno::from_io_error(&error).unwrap_or(Errno::IO);
        Error::from_errno(format_args!("cannot list {}", dir.display()), errno)
    };
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    let mut names = Vec::new();
    for entry in entries {
        // The kernel's names of heaps are ASCII, so an entry that is not UTF-8 is no heap.
        if let Ok(name) = entry.map_err(failed)?.file_name().into_string() {
            names.push(name);
        }
    }
    names.sort_unstable();
    Ok(names)
}

fn open_in(dir: &Path, name: &str) -> Result<Heap> {
    // A path would lead out of the folder, to another kind of device, so only a plain name is
    // accepted.
    if name.is_empty() || name.contains(['/', '\0']) || name == "." || name == ".." {
        return Err(no_heap(dir, name, Errno::NOENT));
    }
    // Read-only, because allocating needs no write access to the node, and some systems grant none.
    let absent = |errno| no_heap(dir, name, errno);
    let fd = open_device(&dir.join(name), OFlags::RDONLY, ErrorKind::NoHeap, absent)?;
    Ok(Heap { fd, name: name.to_owned() })
}

fn no_heap(dir: &Path, name: &str, errno: Errno) -> Error {
    let existing = match list_in(dir) {
        Ok(names) if !names.is_empty() => format!("this machine has: {}", names.join(", ")),
        _ => format!(
            "this machine has none ({} is absent or empty); the kernel needs CONFIG_DMABUF_HEAPS and \
             CONFIG_DMABUF_HEAPS_SYSTEM",
            dir.display()
        ),
    };
    Error::with_errno(ErrorKind::NoHeap, format!("no heap named {name:?}: {existing}"), errno)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heaps(names: &[&str]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for name in names {
            std::fs::write(dir.path().join(name), "").unwrap();
        }
        dir
    }

    /// Check that a missing heap's message lists the existing ones.
    #[test]
    fn missing_heap_lists_the_others() {
        let error = open_in(heaps(&["system", "linux,cma"]).path(), "sytem").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NoHeap);
        assert!(error.to_string().contains("linux,cma, system"), "{error}");
    }

    /// Check that the error on a kernel without heaps differs from that for a wrong name.
    #[test]
    fn no_heaps_names_the_kernel_option() {
        let error = open_in(Path::new("/nonexistent/dma_heap"), "system").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NoHeap);
        assert!(error.to_string().contains("CONFIG_DMABUF_HEAPS"), "{error}");
    }

    /// Check that a name cannot lead out of the heaps' folder.
    #[test]
    fn name_is_not_a_path() {
        let dir = heaps(&["system"]);
        for name in ["", ".", "..", "../null", "/dev/null", "a\0b"] {
            assert_eq!(open_in(dir.path(), name).unwrap_err().kind(), ErrorKind::NoHeap, "{name:?}");
        }
    }

    /// Check that the list is empty, and no error, on a machine without heaps.
    #[test]
    fn lists_none() {
        assert!(list_in(Path::new("/nonexistent/dma_heap")).unwrap().is_empty());
    }

    /// Check that the `system` heap refuses more than all memory without a call, and other heaps do
    /// not.
    #[test]
    fn refuses_more_than_all_memory() {
        let heap = |name: &str| Heap { fd: tempfile::tempfile().unwrap().into(), name: name.into() };
        let error = heap("system").allocate(total_memory() + 1).unwrap_err();
        assert_eq!((error.kind(), error.raw_os_error()), (ErrorKind::OutOfMemory, None));
        // The file does not know the request, so this error shows that the request was made.
        let error = heap("carveout").allocate(total_memory() + 1).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
    }

    /// Check that size zero is refused before any call.
    #[test]
    fn refuses_size_zero() {
        let heap = Heap { fd: tempfile::tempfile().unwrap().into(), name: "system".into() };
        let error = heap.allocate(0).unwrap_err();
        assert_eq!((error.kind(), error.raw_os_error()), (ErrorKind::InvalidSize, None));
    }
}
