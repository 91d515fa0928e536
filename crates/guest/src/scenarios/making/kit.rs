//! What the scenarios about the `dmabuf` crate share: buffers of every exporter, and independent
//! views of a buffer.
//!
//! The views read what the kernel prints in `/proc` and debugfs. They use nothing of the tested
//! crate but a descriptor or an address.

use std::fmt::Debug;
use std::fs;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::ffi::OsStringExt;

use anyhow::{Context, bail};
use dmabuf::{Direction, DmaBuf, DrmDevice, DumbSize, ErrorKind, Heap, MapMode, Mapping, Udmabuf};
use rustix::param::page_size;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::need::{Need, vgem_node};
use crate::scenario::Ctx;
pub(super) use crate::sys::page;

/// The vgem device.
pub(super) fn vgem() -> anyhow::Result<DrmDevice> {
    Ok(DrmDevice::open(vgem_node("card").context("no vgem")?)?)
}

/// The dimensions of a dumb buffer of `pages` pages.
pub(super) fn shape(pages: u64) -> anyhow::Result<DumbSize> {
    DumbSize::at_least(pages * page()).context("a shape of that size")
}

/// One buffer of `pages` pages from each exporter that the kernel has. Only its descriptor keeps
/// it.
pub(super) fn one_of_each(pages: u64) -> anyhow::Result<Vec<(&'static str, DmaBuf)>> {
    let size = pages * page();
    let mut bufs = Vec::new();
    if Need::Heap.probe() {
        bufs.push(("heap", Heap::open("system")?.allocate(size)?));
    }
    if Need::Udmabuf.probe() {
        bufs.push(("udmabuf", Udmabuf::open()?.allocate(size)?));
    }
    if Need::Vgem.probe() {
        bufs.push(("vgem", vgem()?.create_dumb(shape(pages)?)?.handle.export()?));
    }
    Ok(bufs)
}

/// `len` bytes in which pages differ, and neighbouring bytes differ.
pub(super) fn pattern(seed: u8, len: usize) -> Vec<u8> {
    (0..len).map(|at| (at % 251) as u8 ^ (at / page_size()) as u8 ^ seed).collect()
}

/// All bytes of a buffer, read through a separate mapping.
pub(super) fn read_all(buf: &DmaBuf) -> anyhow::Result<Vec<u8>> {
    let mut mapping = buf.map(MapMode::Read)?;
    let mut bytes = vec![0; mapping.size()];
    let access = mapping.begin(buf, Direction::Read)?;
    access.read_at(0, &mut bytes)?;
    access.end()?;
    Ok(bytes)
}

/// Writes to a buffer through a separate mapping.
pub(super) fn write_at(buf: &DmaBuf, offset: usize, bytes: &[u8]) -> anyhow::Result<()> {
    let mut mapping = buf.map(MapMode::ReadWrite)?;
    let mut access = mapping.begin(buf, Direction::Write)?;
    access.write_at(offset, bytes)?;
    Ok(access.end()?)
}

/// Checks that `result` is an error of this kind, and returns its message.
pub(super) fn refused<T: Debug>(
    ctx: &mut Ctx,
    what: &str,
    kind: ErrorKind,
    result: dmabuf::Result<T>,
) -> anyhow::Result<String> {
    let (found, message) = match result {
        Ok(success) => (format!("{success:?}"), String::new()),
        Err(error) => (format!("{:?}", error.kind()), error.to_string()),
    };
    ctx.check_eq(what, format!("{kind:?}"), found)?;
    Ok(message)
}

/// The link text of a descriptor in `/proc/self/fd`.
pub(super) fn link(fd: impl AsFd) -> anyhow::Result<Vec<u8>> {
    let path = format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd());
    Ok(fs::read_link(&path).with_context(|| format!("reading {path}"))?.into_os_string().into_vec())
}

/// The value of a key in a descriptor's fdinfo; `None` if the kernel prints no such line.
///
/// The name comes last and may contain line breaks, so the first line with the key is the genuine
/// one.
pub(super) fn fdinfo(fd: impl AsFd, key: &str) -> anyhow::Result<Option<String>> {
    let path = format!("/proc/self/fdinfo/{}", fd.as_fd().as_raw_fd());
    let text = fs::read(&path).with_context(|| format!("reading {path}"))?;
    let text = String::from_utf8_lossy(&text).into_owned();
    let value = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(":\t"));
    Ok(value.map(str::to_owned))
}

/// The reference count in a descriptor's fdinfo.
pub(super) fn count(fd: impl AsFd) -> anyhow::Result<u64> {
    fdinfo(fd, "count")?.context("no count in fdinfo")?.parse().context("parsing the count")
}

/// The reference count in debugfs of the buffer with this inode number; `None` if there is no such
/// buffer.
pub(super) fn count_in_debugfs(ino: u64) -> anyhow::Result<Option<u64>> {
    let path = "/sys/kernel/debug/dma_buf/bufinfo";
    let text = fs::read(path).with_context(|| format!("reading {path}"))?;
    let text = String::from_utf8_lossy(&text);
    let row = text.lines().map(|line| line.split('\t').map(str::trim).collect::<Vec<_>>());
    let mut row = row.filter(|fields| fields.get(5).and_then(|field| field.parse().ok()) == Some(ino));
    Ok(row.next().and_then(|fields| fields.get(3)?.parse().ok()))
}

/// A line of `/proc/self/maps`.
#[derive(Debug)]
pub(super) struct MapsLine {
    pub(super) permissions: String,
    /// Major and minor number in hexadecimal, as printed.
    pub(super) dev: String,
    pub(super) ino: u64,
    pub(super) path: String,
}

impl MapsLine {
    /// Whether the VMA's file is the buffer's, and not one that the exporter put in its place.
    pub(super) fn is_of(&self, buf: dmabuf::Identity) -> bool {
        self.ino == buf.ino && self.dev == format!("{:02x}:{:02x}", buf.dev.major, buf.dev.minor)
    }
}

/// The VMA of a mapping.
pub(super) fn vma(mapping: &Mapping) -> anyhow::Result<MapsLine> {
    vma_at(mapping.as_ptr().addr())?.context("the mapping is not in /proc/self/maps")
}

/// The VMA at this address, if there is one.
pub(super) fn vma_at(address: usize) -> anyhow::Result<Option<MapsLine>> {
    let maps = fs::read("/proc/self/maps").context("reading /proc/self/maps")?;
    let maps = String::from_utf8_lossy(&maps).into_owned();
    let holds = |line: &&str| {
        let range = line.split_once(' ').and_then(|(range, _)| range.split_once('-'));
        let number = |text| usize::from_str_radix(text, 16).ok();
        range.is_some_and(|(start, end)| {
            number(start).is_some_and(|start| start <= address)
                && number(end).is_some_and(|end| address < end)
        })
    };
    let Some(line) = maps.lines().find(holds) else {
        return Ok(None);
    };
    // The path may contain spaces.
    let fields: Vec<&str> = line.splitn(6, ' ').collect();
    let [_, permissions, _, dev, ino, path] = fields[..] else { bail!("a short line in maps: {line:?}") };
    let (permissions, dev, path) = (permissions.to_owned(), dev.to_owned(), path.trim_start().to_owned());
    Ok(Some(MapsLine { permissions, dev, ino: ino.parse()?, path }))
}

/// How many descriptors this process has. The number always includes the one that is used to count.
pub(super) fn descriptors() -> anyhow::Result<usize> {
    Ok(fs::read_dir("/proc/self/fd").context("listing the descriptors")?.count())
}

/// Runs `script` while this process has room for `room` more descriptors.
pub(super) fn with_room_for<T>(room: u64, script: impl FnOnce() -> T) -> anyhow::Result<T> {
    let highest = fs::read_dir("/proc/self/fd")
        .context("listing the descriptors")?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u64>().ok());
    // The listing's own descriptor may be the highest; it is closed by now. Gaps below would be
    // additional room, so they are filled first.
    let highest = highest.max().context("no descriptors")?;
    let mut gaps = Vec::new();
    loop {
        let gap = fs::File::open("/dev/null").context("filling gaps")?;
        if u64::try_from(gap.as_raw_fd())? > highest {
            break;
        }
        gaps.push(gap);
    }
    let old = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: Some(highest + 1 + room), ..old })
        .context("lowering the limit of descriptors")?;
    let result = script();
    setrlimit(Resource::Nofile, old).context("raising the limit of descriptors")?;
    Ok(result)
}
