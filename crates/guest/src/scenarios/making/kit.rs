//! What the scenarios about making buffers share: buffers of every exporter, and independent views of a buffer.
//!
//! The views read what the kernel itself prints (`/proc`, debugfs) and ask the crate under test nothing but for a
//! descriptor or an address.

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

/// A shape of `pages` pages.
pub(super) fn shape(pages: u64) -> anyhow::Result<DumbSize> {
    DumbSize::at_least(pages * page()).context("a shape of that size")
}

/// One buffer of `pages` pages from each exporter that the kernel has, held by its descriptor alone.
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

/// `len` bytes in which neither pages nor neighbours are alike.
pub(super) fn pattern(seed: u8, len: usize) -> Vec<u8> {
    (0..len).map(|at| (at % 251) as u8 ^ (at / page_size()) as u8 ^ seed).collect()
}

/// All bytes of a buffer, through a mapping of its own.
pub(super) fn read_all(buf: &DmaBuf) -> anyhow::Result<Vec<u8>> {
    let mut mapping = buf.map(MapMode::Read)?;
    let mut bytes = vec![0; mapping.size()];
    let access = mapping.begin(buf, Direction::Read)?;
    access.read_at(0, &mut bytes)?;
    access.end()?;
    Ok(bytes)
}

/// Writes to a buffer through a mapping of its own.
pub(super) fn write_at(buf: &DmaBuf, offset: usize, bytes: &[u8]) -> anyhow::Result<()> {
    let mut mapping = buf.map(MapMode::ReadWrite)?;
    let mut access = mapping.begin(buf, Direction::Write)?;
    access.write_at(offset, bytes)?;
    Ok(access.end()?)
}

/// Checks that `result` is an error of that kind, and returns its message.
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

/// The text that `/proc/self/fd` links a descriptor to.
pub(super) fn link(fd: impl AsFd) -> anyhow::Result<Vec<u8>> {
    let path = format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd());
    Ok(fs::read_link(&path).with_context(|| format!("reading {path}"))?.into_os_string().into_vec())
}

/// The value of a key in a descriptor's fdinfo; none if the kernel prints no such line.
///
/// The name comes last and may hold line breaks, so the first line with the key is the genuine one.
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

/// The reference count in debugfs of the buffer with that inode number; none if there is no such buffer.
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
pub(super) struct Vma {
    pub(super) permissions: String,
    /// Major and minor in hexadecimal, as printed.
    pub(super) dev: String,
    pub(super) ino: u64,
    pub(super) path: String,
}

impl Vma {
    /// Whether the file of the VMA is the buffer, and not one that the exporter put in its place.
    pub(super) fn is_of(&self, buf: dmabuf::Identity) -> bool {
        self.ino == buf.ino && self.dev == format!("{:02x}:{:02x}", buf.dev.major, buf.dev.minor)
    }
}

/// The VMA of a mapping.
pub(super) fn vma(mapping: &Mapping) -> anyhow::Result<Vma> {
    vma_at(mapping.as_ptr().addr())?.context("the mapping is not in /proc/self/maps")
}

/// The VMA at that address, if there is one.
pub(super) fn vma_at(address: usize) -> anyhow::Result<Option<Vma>> {
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
    // The path may hold spaces.
    let fields: Vec<&str> = line.splitn(6, ' ').collect();
    let [_, permissions, _, dev, ino, path] = fields[..] else { bail!("a short line in maps: {line:?}") };
    let (permissions, dev, path) = (permissions.to_owned(), dev.to_owned(), path.trim_start().to_owned());
    Ok(Some(Vma { permissions, dev, ino: ino.parse()?, path }))
}

/// How many descriptors this process has, always counted with the one that counts.
pub(super) fn descriptors() -> anyhow::Result<usize> {
    Ok(fs::read_dir("/proc/self/fd").context("listing the descriptors")?.count())
}

/// Runs `script` while this process has room for `room` more descriptors.
pub(super) fn with_room_for<T>(room: u64, script: impl FnOnce() -> T) -> anyhow::Result<T> {
    let highest = fs::read_dir("/proc/self/fd")
        .context("listing the descriptors")?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u64>().ok());
    // The highest one is at most that of the listing itself, which is closed by then. A gap below would be room that
    // was not meant, so it is filled first.
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
