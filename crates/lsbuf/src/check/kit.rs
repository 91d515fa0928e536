//! What a claim is tried with: buffers from every exporter that works here, and this process's own
//! files in `/proc/self`.
//!
//! Claims read these files with the readers and parsers of a scan, if it has some for them. So a
//! claim fails where those would fail.
//!
//! Limits: only this process's own references can be looked at.

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use dmabuf::{DmaBuf, DrmDevice, DumbBuffer, DumbSize, ErrorKind, Heap, Udmabuf};
use rustix::fs::{CWD, Mode, OFlags, openat, readlinkat_raw};
use rustix::param::page_size;

use super::child::{Child, Helper};
use super::judge::{Attempt, Fault, Tried, together};
use crate::kernel::bufinfo::{self, List, ListedBuffer};
use crate::kernel::fdinfo::{DmaBufInfo, Fdinfo};
use crate::kernel::identity::{self, InodeFact, LinkTarget};
use crate::kernel::own::Region;
use crate::kernel::parse::{cut, number};
use crate::kernel::read::LINK_ROOM;
use crate::kernel::{fdinfo, fds, map_files, maps, read};
use crate::model::{Dev, Fd, Inode, MapRef};

const SYS: &str = "/sys";

/// An exporter of buffers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Exporter {
    Heap,
    Udmabuf,
    Vgem,
}

impl Exporter {
    const ALL: [Exporter; 3] = [Exporter::Heap, Exporter::Udmabuf, Exporter::Vgem];

    /// Its name, for people.
    pub(super) fn name(self) -> &'static str {
        match self {
            Exporter::Heap => "system heap",
            Exporter::Udmabuf => "udmabuf",
            Exporter::Vgem => "vgem",
        }
    }

    /// Its name in fdinfo. For vgem the DRM core exports.
    pub(super) fn exp_name(self) -> &'static str {
        match self {
            Exporter::Heap => "system",
            Exporter::Udmabuf => "udmabuf",
            Exporter::Vgem => "drm",
        }
    }
}

/// An exporter that cannot be used, and why.
#[derive(Clone, Debug)]
pub(super) struct Missing {
    pub(super) what: Exporter,
    pub(super) why: String,
    /// Whether it exists, but this user may not use it.
    pub(super) denied: bool,
}

impl Missing {
    fn new(what: Exporter, error: &dmabuf::Error) -> Missing {
        Missing { what, why: error.to_string(), denied: error.kind() == ErrorKind::PermissionDenied }
    }
}

/// Everything that a claim may use.
#[derive(Debug)]
pub(super) struct Kit {
    heap: Option<Heap>,
    udmabuf: Option<Udmabuf>,
    vgem: Option<DrmDevice>,
    missing: Vec<Missing>,
    helper: Option<Helper>,
    process: OwnedFd,
}

impl Kit {
    /// Opens every exporter and makes a buffer with each, to be sure that it works. Perhaps none
    /// does.
    pub(super) fn open(helper: Option<Helper>) -> Result<Kit, Fault> {
        let page = bytes(1);
        let row = DumbSize { width: 1024, height: 1, bits_per_pixel: 32 };
        let mut missing = Vec::new();
        let mut note = |what, error: &dmabuf::Error| missing.push(Missing::new(what, error));
        let heap = Heap::open("system").and_then(|heap| heap.allocate(page).map(|_| heap));
        let heap = heap.inspect_err(|error| note(Exporter::Heap, error)).ok();
        let udmabuf = Udmabuf::open().and_then(|device| device.allocate(page).map(|_| device));
        let udmabuf = udmabuf.inspect_err(|error| note(Exporter::Udmabuf, error)).ok();
        let vgem = DrmDevice::find("vgem").and_then(|device| {
            device.create_dumb(row)?.handle.export()?;
            Ok(device)
        });
        let vgem = vgem.inspect_err(|error| note(Exporter::Vgem, error)).ok();
        let process = read::open_dir(CWD, c"/proc/self").attempt("/proc/self")?;
        Ok(Kit { heap, udmabuf, vgem, missing, helper, process })
    }

    /// The exporters that cannot be used, and why.
    pub(super) fn missing(&self) -> &[Missing] {
        &self.missing
    }

    /// The exporters that can be used.
    pub(super) fn exporters(&self) -> impl Iterator<Item = Exporter> {
        let usable = |exporter: &Exporter| match exporter {
            Exporter::Heap => self.heap.is_some(),
            Exporter::Udmabuf => self.udmabuf.is_some(),
            Exporter::Vgem => self.vgem.is_some(),
        };
        Exporter::ALL.into_iter().filter(usable)
    }

    /// Tries a claim on each exporter.
    pub(super) fn on_each(&self, trial: impl Fn(Exporter) -> Tried) -> Tried {
        together(self.exporters().map(|exporter| trial(exporter).map_err(|fault| fault.at(exporter.name()))))
    }

    /// Tries a claim with each exporter, on a buffer of `pages` pages to which one fd is the only
    /// reference.
    pub(super) fn on_each_buffer(&self, pages: u64, trial: impl Fn(&DmaBuf) -> Tried) -> Tried {
        self.on_each(|exporter| trial(&self.make(exporter, pages)?))
    }

    /// A buffer to which one fd is the only reference.
    pub(super) fn make(&self, exporter: Exporter, pages: u64) -> Result<DmaBuf, Fault> {
        let lacking = || Fault::Untried(format!("no {}", exporter.name()));
        Ok(match exporter {
            Exporter::Heap => self.heap.as_ref().ok_or_else(lacking)?.allocate(bytes(pages))?,
            Exporter::Udmabuf => self.udmabuf()?.allocate(bytes(pages))?,
            Exporter::Vgem => Self::make_gem(self.vgem()?, pages)?.handle.export()?,
        })
    }

    /// A buffer from the first exporter that works, for claims that are the same for all exporters.
    pub(super) fn make_any(&self) -> Result<DmaBuf, Fault> {
        let exporter = self.exporters().next().ok_or_else(|| Fault::Untried("no exporter".to_owned()))?;
        self.make(exporter, 1)
    }

    /// A GEM object with an open handle.
    pub(super) fn make_gem(device: &DrmDevice, pages: u64) -> Result<DumbBuffer<'_>, Fault> {
        let size =
            DumbSize::at_least(bytes(pages)).ok_or_else(|| Fault::Untried("no such size".to_owned()))?;
        Ok(device.create_dumb(size)?)
    }

    pub(super) fn udmabuf(&self) -> Result<&Udmabuf, Fault> {
        self.udmabuf.as_ref().ok_or_else(|| {
            Fault::Untried("needs udmabuf (modprobe udmabuf, and access to /dev/udmabuf)".into())
        })
    }

    pub(super) fn vgem(&self) -> Result<&DrmDevice, Fault> {
        self.vgem.as_ref().ok_or_else(|| {
            Fault::Untried("needs vgem (modprobe vgem, and access to its node under /dev/dri)".into())
        })
    }

    /// Another open file of the vgem device.
    pub(super) fn vgem_again(&self) -> Result<DrmDevice, Fault> {
        Ok(DrmDevice::open(self.vgem()?.path())?)
    }

    /// A buffer from another exporter: vgem has to attach to it to import it.
    pub(super) fn make_foreign(&self) -> Result<DmaBuf, Fault> {
        self.vgem()?;
        let foreign = self.exporters().find(|&exporter| exporter != Exporter::Vgem);
        let lacking =
            || Fault::Untried("needs a system heap or udmabuf, whose buffer vgem could import".into());
        self.make(foreign.ok_or_else(lacking)?, 1)
    }

    /// A second process that has inherited the buffer's fd.
    pub(super) fn child(&self, buf: &DmaBuf) -> Result<Child, Fault> {
        let helper = self
            .helper
            .as_ref()
            .ok_or_else(|| Fault::Untried("no program was given for the second process".into()))?;
        Child::start(helper, buf)
    }

    /// The mounts in mountinfo: ids and devices.
    pub(super) fn mounts(&self) -> Result<Vec<(u64, Dev)>, Fault> {
        let mut text = Vec::new();
        read::file(&self.process, c"mountinfo", &mut text).attempt("mountinfo")?;
        Ok(identity::mounts(&text).collect())
    }

    /// The text of an fd's fdinfo.
    pub(super) fn fdinfo_text(&self, fd: &impl AsFd) -> Result<Vec<u8>, Fault> {
        let mut text = Vec::new();
        let path = fds::fdinfo_path(Fd(raw(fd)));
        read::record(&self.process, path.as_str(), &mut text).attempt(path.as_str())?;
        Ok(text)
    }

    /// fdinfo as a scan reads it.
    pub(super) fn fdinfo(&self, fd: &impl AsFd) -> Result<Fdinfo, Fault> {
        fdinfo::parse(&self.fdinfo_text(fd)?).attempt("fdinfo")
    }

    /// fdinfo as a scan reads it, of an fd that holds a dma-buf open.
    pub(super) fn info(&self, fd: &impl AsFd) -> Result<DmaBufInfo, Fault> {
        let info = self.fdinfo(fd)?.dmabuf;
        info.ok_or_else(|| Fault::Broken("fdinfo without exp_name".to_owned()))
    }

    /// The inode behind an fd, as a scan reads it.
    pub(super) fn inode(&self, fd: &impl AsFd) -> Result<InodeFact, Fault> {
        self.inode_behind(&format!("fd/{}", raw(fd)))
    }

    /// The same for any link of this process.
    pub(super) fn inode_behind(&self, link: &str) -> Result<InodeFact, Fault> {
        match identity::ask(self.process.as_fd(), link, None).attempt(link)? {
            LinkTarget::DmaBuf(fact) => Ok(fact),
            LinkTarget::Other(dev) => {
                Err(Fault::Broken(format!("{link}: not a dma-buf, but a file on device {dev}")))
            }
        }
    }

    /// The text of a link of this process.
    pub(super) fn link(&self, path: &str) -> Result<Vec<u8>, Fault> {
        let mut room = [MaybeUninit::uninit(); LINK_ROOM];
        let (target, _) = readlinkat_raw(&self.process, path, &mut room[..]).attempt(path)?;
        Ok(target.to_vec())
    }

    /// The text of an fd's link.
    pub(super) fn fd_link(&self, fd: &impl AsFd) -> Result<Vec<u8>, Fault> {
        self.link(&format!("fd/{}", raw(fd)))
    }

    /// An `O_PATH` fd of the buffer.
    pub(super) fn path_fd(&self, fd: &impl AsFd) -> Result<OwnedFd, Fault> {
        let link = format!("fd/{}", raw(fd));
        openat(&self.process, link.as_str(), OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
            .attempt("opening with O_PATH")
    }

    /// The lines of maps inside a region, as text.
    pub(super) fn maps_lines(&self, region: &Region) -> Result<Vec<Vec<u8>>, Fault> {
        let mut text = Vec::new();
        read::file(&self.process, c"maps", &mut text).attempt("maps")?;
        Ok(mappings_in(&text, region.start(), region.end()))
    }

    /// The line of maps of a region that is one VMA.
    pub(super) fn maps_line(&self, region: &Region) -> Result<Vec<u8>, Fault> {
        let mut lines = self.maps_lines(region)?;
        match (lines.pop(), lines.is_empty()) {
            (Some(line), true) => Ok(line),
            (last, _) => {
                let count = lines.len() + usize::from(last.is_some());
                Err(Fault::Broken(format!("{count} lines of maps for one mapping")))
            }
        }
    }

    /// That line as a scan reads it.
    pub(super) fn map_fact(&self, region: &Region) -> Result<maps::MapFact, Fault> {
        let line = self.maps_line(region)?;
        let fact = maps::parse(&line).attempt("maps")?;
        fact.ok_or_else(|| Fault::Broken(format!("maps shows {}", line.escape_ascii())))
    }

    /// The kernel's list of dma-bufs.
    pub(super) fn listed(&self) -> Result<List, Fault> {
        bufinfo::read_list(Path::new(SYS)).map_err(|errno| {
            let path = Path::new(SYS).join(bufinfo::PATH);
            Fault::Untried(format!(
                "needs {}, as root (mount -t debugfs none /sys/kernel/debug): {}",
                path.display(),
                std::io::Error::from(errno)
            ))
        })
    }

    /// A buffer's row in the list, if it has one.
    pub(super) fn row(&self, ino: Inode) -> Result<Option<ListedBuffer>, Fault> {
        Ok(self.listed()?.buffers.into_iter().find(|row| row.ino == ino))
    }

    /// A buffer's row in the list, which it must have.
    pub(super) fn row_of(&self, ino: Inode) -> Result<ListedBuffer, Fault> {
        self.row(ino)?.ok_or_else(|| Fault::Broken("not in bufinfo".to_owned()))
    }
}

/// The number of an fd, as in procfs.
fn raw(fd: &impl AsFd) -> u32 {
    fd.as_fd().as_raw_fd().unsigned_abs()
}

/// Whether a claim about a count becomes true within a few attempts. A monitor that reads the same
/// fdinfo has a reference for that moment.
pub(super) fn retried(trial: impl Fn() -> Tried) -> Tried {
    let mut tried = trial();
    for _ in 0..3 {
        if !matches!(tried, Err(Fault::Broken(_))) {
            break;
        }
        std::thread::sleep(Duration::from_millis(5));
        tried = trial();
    }
    tried
}

/// The size of so many pages in bytes.
pub(super) fn bytes(pages: u64) -> u64 {
    pages * page_size() as u64
}

/// Maps so many pages of a buffer, beginning with page `from`.
pub(super) fn map(buf: &DmaBuf, from: u64, pages: u64) -> Result<Region, Fault> {
    let len = usize::try_from(bytes(pages)).unwrap_or(usize::MAX);
    Region::map(buf.as_fd(), bytes(from), len).attempt("mapping")
}

/// The map_files link of a region that is one VMA.
pub(super) fn map_files_link(region: &Region) -> String {
    let vma = MapRef { start: region.start(), end: region.end(), offset: None, perms: None };
    map_files::link(&vma).as_str().to_owned()
}

/// The lines that begin inside a range of addresses.
fn mappings_in(maps: &[u8], start: u64, end: u64) -> Vec<Vec<u8>> {
    let begins = |line: &&[u8]| {
        let address = cut(line, b'-').and_then(|(at, _)| number(at, 16));
        address.is_ok_and(|at| (start..end).contains(&at))
    };
    maps.split(|&b| b == b'\n').filter(begins).map(<[u8]>::to_vec).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::judge::same;

    /// Check that a temporary reference is waited for, and that a lasting one makes the claim
    /// false.
    #[test]
    fn temporary_references() {
        let seen = std::cell::Cell::new(4);
        let falling = || {
            seen.set(seen.get() - 1);
            same("count", 1, seen.get())
        };
        assert_eq!(retried(falling), Ok(()));
        assert!(retried(|| same("count", 1, 2)).is_err());
    }

    /// Check that lines are found by their start address, and that the end of the range is
    /// excluded.
    #[test]
    fn lines_of_a_range() {
        let maps = b"1000-2000 rw-s x\n2000-3000 rw-s y\n3000-4000 rw-s z\n\n";
        assert_eq!(mappings_in(maps, 0x1000, 0x3000), [b"1000-2000 rw-s x", b"2000-3000 rw-s y"]);
        assert!(mappings_in(maps, 0x4000, 0x5000).is_empty());
    }
}
