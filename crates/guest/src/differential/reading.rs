//! A plain reading of which process holds what, by procfs and kcmp alone. It shares no code with
//! lsbuf.
//!
//! It is slow and simple. It knows memory by device and inode number, and covers three sorts: the
//! kernel's internal tmpfs (memfds, segments, anonymous shared memory), the tmpfs on `/dev/shm`,
//! and dma-bufs.
//!
//! Limits: it is right only if the world does not change. It does not find fds in messages.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::thread;
use std::time::Duration;

use anyhow::{Context, bail};
use rustix::fs::{MemfdFlags, fstat, major, makedev, memfd_create, minor};

use crate::sys::task::{self, TaskResource};

/// A piece of memory.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum MemoryKey {
    /// A dma-buf, by its inode number.
    DmaBuf(u64),
    /// A System V segment, by its id.
    Segment(u64),
    /// A file, by its device and its inode number.
    File(String, u64),
}

/// A mapping: start address, end address, offset, and whether it is private.
pub(super) type MappedRange = (u64, u64, u64, bool);

/// The slots of an fd table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct FdSlots {
    pub(super) fds: BTreeSet<u32>,
    pub(super) opaths: BTreeSet<u32>,
}

/// What a process holds of one object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct ProcessRefs {
    pub(super) own: FdSlots,
    pub(super) maps: BTreeSet<MappedRange>,
    /// Fd tables of threads that do not use the process's table, by the first thread of each.
    pub(super) threads: BTreeMap<u32, FdSlots>,
    pub(super) fd_table_of: Option<u32>,
    pub(super) address_space_of: Option<u32>,
}

/// A piece of memory and its holders.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Memory {
    pub(super) size: u64,
    /// The bytes that are allocated for it.
    pub(super) charged: u64,
    pub(super) parts: BTreeMap<u32, ProcessRefs>,
}

/// Numbers of references.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct RefCounts {
    pub(super) fd: u64,
    pub(super) map: u64,
    pub(super) private: u64,
    pub(super) opath: u64,
}

impl Memory {
    /// The references. A shared fd table or address space counts once.
    pub(super) fn refs(&self) -> RefCounts {
        let mut refs = RefCounts::default();
        for part in self.parts.values() {
            let own = part.fd_table_of.is_none().then_some(&part.own);
            for slots in part.threads.values().chain(own) {
                refs.fd += slots.fds.len() as u64;
                refs.opath += slots.opaths.len() as u64;
            }
            if part.address_space_of.is_none() {
                refs.map += part.maps.len() as u64;
                refs.private += part.maps.iter().filter(|map| map.3).count() as u64;
            }
        }
        refs
    }
}

/// The plain reading.
#[derive(Debug)]
pub(super) struct PlainReading {
    /// The device of the kernel's internal tmpfs.
    internal_tmpfs: u64,
    /// The device of the tmpfs on `/dev/shm`.
    dev_shm: u64,
    pub(super) objects: BTreeMap<MemoryKey, Memory>,
    /// The processes of the world.
    world: BTreeSet<u32>,
}

impl PlainReading {
    /// Reads every process. Those of group `group` are the world's.
    pub(super) fn take(group: u32) -> anyhow::Result<PlainReading> {
        let internal_tmpfs = fstat(memfd_create("probe", MemfdFlags::CLOEXEC)?)?.st_dev;
        let dev_shm = fs::metadata("/dev/shm")?.dev();
        let mut reading =
            PlainReading { internal_tmpfs, dev_shm, objects: BTreeMap::new(), world: BTreeSet::new() };
        reading.segments()?;
        for pid in numbers("/proc")? {
            // Processes outside the world, also this one, may change meanwhile.
            let read = reading.process(pid);
            if group_of(pid) == Some(group) {
                read.with_context(|| format!("reading process {pid}"))?;
                reading.world.insert(pid);
            }
        }
        reading.shared()?;
        Ok(reading)
    }

    /// The object of an inode, if this reading covers it.
    pub(super) fn key(&self, dev: u64, ino: u64, path: &[u8]) -> Option<MemoryKey> {
        // Old kernels show a mapping of a driver's own memory as a file of the kernel's internal
        // tmpfs.
        if path.starts_with(b"/drm mm object") {
            return None;
        }
        if dev == self.internal_tmpfs && path.starts_with(b"/SYSV") {
            Some(MemoryKey::Segment(ino))
        } else if dev == self.internal_tmpfs || dev == self.dev_shm {
            Some(MemoryKey::File(device(dev), ino))
        } else if path.starts_with(b"/dmabuf:") {
            Some(MemoryKey::DmaBuf(ino))
        } else {
            None
        }
    }

    /// Whether this reading covers files of that device, given as lsbuf prints it.
    pub(super) fn looks_at(&self, device_: &str) -> bool {
        [self.internal_tmpfs, self.dev_shm].iter().any(|&dev| device(dev) == device_)
    }

    /// Whether only processes outside the world hold it. They may change meanwhile.
    pub(super) fn is_outside_only(&self, key: &MemoryKey) -> bool {
        let parts = self.objects.get(key).map(|object| &object.parts);
        parts.is_some_and(|parts| !parts.is_empty() && !parts.keys().any(|pid| self.world.contains(pid)))
    }

    /// Reads every segment of this IPC namespace, attached or not.
    fn segments(&mut self) -> anyhow::Result<()> {
        let text = fs::read_to_string("/proc/sysvipc/shm").context("reading the list of segments")?;
        for line in text.lines().skip(1) {
            let fields: Vec<&str> = line.split_ascii_whitespace().collect();
            let number = |nth: usize| fields.get(nth).and_then(|field| field.parse().ok());
            let (Some(id), Some(size)) = (number(1), number(3)) else {
                bail!("a malformed row of segments: {line}")
            };
            let charged = number(14).unwrap_or(0);
            self.objects.insert(MemoryKey::Segment(id), Memory { size, charged, ..Memory::default() });
        }
        Ok(())
    }

    fn part(&mut self, key: MemoryKey, pid: u32) -> &mut ProcessRefs {
        self.objects.entry(key).or_default().parts.entry(pid).or_default()
    }

    fn process(&mut self, pid: u32) -> anyhow::Result<()> {
        let mut tables = vec![pid];
        self.slots(pid, pid)?;
        for tid in numbers(&format!("/proc/{pid}/task"))?.into_iter().filter(|&tid| tid != pid) {
            let mut known = false;
            for &table in &tables {
                known |= task::share(table, tid, TaskResource::Files)?;
            }
            if !known {
                tables.push(tid);
                self.slots(pid, tid)?;
            }
        }
        self.maps(pid)
    }

    /// Reads the fd table of one thread of a process.
    fn slots(&mut self, pid: u32, tid: u32) -> anyhow::Result<()> {
        for number in numbers(&format!("/proc/{pid}/task/{tid}/fd"))? {
            let link = format!("/proc/{pid}/task/{tid}/fd/{number}");
            let path = fs::read_link(&link)?;
            let stat = fs::metadata(&link)?;
            let path = path.as_os_str().as_encoded_bytes();
            let Some(key) = self.key(stat.dev(), stat.ino(), path) else { continue };
            // The mode of a dma-buf's inode has no file type.
            if !stat.is_file() && !matches!(key, MemoryKey::DmaBuf(_)) {
                continue;
            }
            let info = fs::read(format!("/proc/{pid}/task/{tid}/fdinfo/{number}"))?;
            let info = String::from_utf8_lossy(&info);
            let flags = info.lines().find_map(|line| line.strip_prefix("flags:")).context("no flags")?;
            let is_path = u32::from_str_radix(flags.trim(), 8)? & 0o10_000_000 > 0;
            let object = self.objects.entry(key).or_default();
            (object.size, object.charged) = (stat.size(), stat.blocks() * 512);
            let part = object.parts.entry(pid).or_default();
            let slots = if tid == pid { &mut part.own } else { part.threads.entry(tid).or_default() };
            if is_path {
                slots.opaths.insert(number)
            } else {
                slots.fds.insert(number)
            };
        }
        Ok(())
    }

    fn maps(&mut self, pid: u32) -> anyhow::Result<()> {
        let text = fs::read(format!("/proc/{pid}/maps"))?;
        for line in text.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()) {
            let mut fields = line.splitn(6, |&byte| byte == b' ');
            let mut field = || fields.next().map(String::from_utf8_lossy).context("a short line of maps");
            let (range, perms, offset, dev, ino) = (field()?, field()?, field()?, field()?, field()?);
            let hex = |text: &str| u64::from_str_radix(text, 16);
            let (start, end) = range.split_once('-').context("no range")?;
            let (high, low) = dev.split_once(':').context("no device")?;
            let dev = makedev(u32::from_str_radix(high, 16)?, u32::from_str_radix(low, 16)?);
            let path = fields.next().unwrap_or_default().trim_ascii_start();
            let Some(key) = self.key(dev, ino.parse()?, path) else { continue };
            let map = (hex(start)?, hex(end)?, hex(&offset)?, perms.contains('p'));
            self.part(key.clone(), pid).maps.insert(map);
            let stat = fs::metadata(format!("/proc/{pid}/map_files/{:x}-{:x}", map.0, map.1))?;
            let object = self.objects.entry(key).or_default();
            (object.size, object.charged) = (stat.size(), stat.blocks() * 512);
        }
        Ok(())
    }

    /// Finds the processes that share a table or an address space. The references count for the
    /// lowest pid.
    fn shared(&mut self) -> anyhow::Result<()> {
        let holders: BTreeSet<u32> = self.objects.values().flat_map(|o| o.parts.keys()).copied().collect();
        let lowest = |pid: u32, what: TaskResource| -> anyhow::Result<Option<u32>> {
            for &other in holders.iter().take_while(|&&other| other < pid) {
                if task::share(other, pid, what)? {
                    return Ok(Some(other));
                }
            }
            Ok(None)
        };
        let mut of = BTreeMap::new();
        for &pid in &holders {
            of.insert(pid, (lowest(pid, TaskResource::Files)?, lowest(pid, TaskResource::Memory)?));
        }
        for object in self.objects.values_mut() {
            for (pid, part) in &mut object.parts {
                let (table, space) = of.get(pid).copied().unwrap_or_default();
                let slots = !part.own.fds.is_empty() || !part.own.opaths.is_empty();
                part.fd_table_of = table.filter(|_| slots);
                part.address_space_of = space.filter(|_| !part.maps.is_empty());
            }
        }
        Ok(())
    }
}

/// A device, as lsbuf prints it.
fn device(dev: u64) -> String {
    format!("{}:{}", major(dev), minor(dev))
}

/// The process group of a process.
fn group_of(pid: u32) -> Option<u32> {
    field_of(&format!("/proc/{pid}/stat"), 2)?.parse().ok()
}

/// A field of a `stat` file, by its place after the command name.
fn field_of(stat: &str, nth: usize) -> Option<String> {
    let stat = fs::read(stat).ok()?;
    let name_ends = stat.iter().rposition(|&byte| byte == b')')?;
    let fields = String::from_utf8_lossy(stat.get(name_ends + 1..)?);
    fields.split_ascii_whitespace().nth(nth).map(str::to_owned)
}

/// Waits until every thread of a process group sleeps.
pub(super) fn wait_for(group: u32) -> anyhow::Result<()> {
    loop {
        let mut asleep = true;
        for pid in numbers("/proc")?.into_iter().filter(|&pid| group_of(pid) == Some(group)) {
            for tid in numbers(&format!("/proc/{pid}/task"))? {
                asleep &=
                    field_of(&format!("/proc/{pid}/task/{tid}/stat"), 0).is_some_and(|state| state == "S");
            }
        }
        if asleep {
            return Ok(());
        }
        thread::sleep(Duration::from_millis(5));
    }
}

/// The names in a folder that are numbers, in ascending order.
fn numbers(folder: &str) -> anyhow::Result<Vec<u32>> {
    let entries = fs::read_dir(folder).with_context(|| format!("listing {folder}"))?;
    let mut numbers = Vec::new();
    for entry in entries {
        numbers.extend(entry?.file_name().to_str().and_then(|name| name.parse::<u32>().ok()));
    }
    numbers.sort_unstable();
    Ok(numbers)
}
