//! The records that the iterators write (`bpf/lsbuf.h`).
//!
//! They come from a program of ours, but through a file whose path a caller may choose, so nothing is taken on trust: what
//! is no whole record of a known kind and size is garbled.

use crate::kernel::identity::{self, InodeFact, since_epoch};
use crate::kernel::magic;
use crate::kernel::parse::Garbled;
use crate::kernel::shmem::inode::{self, BLOCK, ShmInode};
use crate::model::{Bytes, Dev, Fd, Inode, IpcNamespace, Label, Perms, Pid, Seals, Tid};

/// Which records there are, how they are laid out and what they mean. One more with every change of any of it, so that pinned
/// programs that write others are not read.
pub(crate) const LAYOUT: u32 = 4;

/// An object of the kernel: equal for one and the same while it lives. Tells nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Id(u64);

#[cfg(test)]
impl From<u64> for Id {
    fn from(id: u64) -> Id {
        Id(id)
    }
}

/// What a process runs: another one after exec, and in a process that comes by the same id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Program(pub(crate) u64);

/// One record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Record<'r> {
    Task(Task),
    Fd(FdRecord<Inode>),
    Buffer(BufferRecord<'r>),
    /// The name of a device attached to the buffer that follows; `None`: it is too long.
    Attachment(Option<&'r [u8]>),
    Vma(Vma<Inode>),
    Device(DeviceFd),
    InFlight(InFlight<Inode>),
    Keeper(Keeper),
    SyncFile(SyncFd),
    ShmFile(ShmFile<'r>),
    ShmFd(FdRecord<Id>),
    /// With the references to its file at that moment.
    ShmVma(Vma<Id>, u64),
    ShmInFlight(InFlight<Id>),
    /// `None`: of some of the dma-buf's pages it cannot be told whose they are.
    MemfdPages(Option<MemfdPages>),
    Run(Run),
    /// A file that could not be described: references to it may follow, and no other record of this reading may describe it.
    ShmUndescribed(Id),
    /// A VMA that changed while it was read, in place of it.
    Torn,
    /// The last one of an iterator over tasks: it came to its end.
    End,
}

/// A process's leader, or a thread with an fd table, an address space or an IPC namespace of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Task {
    pub(crate) pid: Pid,
    pub(crate) tid: Tid,
    /// `None`: it has none, or none any more.
    pub(crate) mm: Option<Id>,
    pub(crate) files: Option<Id>,
    /// Nanoseconds after boot.
    pub(crate) started: u64,
    /// The number of its cgroup in the unified hierarchy.
    pub(crate) cgroup: u64,
    pub(crate) program: Program,
    /// The file that it runs.
    pub(crate) exe: Option<Id>,
    /// The thread's own one.
    pub(crate) ipc: Option<IpcNamespace>,
    /// The sequence number of its address space's lock, of 32 bits: it is another one whenever that was held for writing and let go, as
    /// for every change of a mapping. While it is held it is odd from Linux 6.14 on, and the old one before. `None`: it has no
    /// address space, or the kernel keeps no such number (before Linux 6.4, or without locks of single VMAs).
    pub(crate) mm_writes: Option<u64>,
    pub(crate) uid: u32,
    pub(crate) kernel: bool,
    /// It has begun to exit, and may not have released everything yet.
    pub(crate) exiting: bool,
    pub(crate) comm: [u8; 16],
}

impl Task {
    /// The leader's command name.
    pub(crate) fn comm(&self) -> Label {
        text(&self.comm).unwrap_or(&self.comm).into()
    }
}

/// An fd of a dma-buf, by its inode number, or of an open file of shared memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FdRecord<K> {
    pub(crate) of: K,
    pub(crate) count: u64,
    pub(crate) files: Option<Id>,
    pub(crate) program: Program,
    pub(crate) pid: Pid,
    pub(crate) tid: Tid,
    pub(crate) fd: Fd,
    pub(crate) path_only: bool,
}

/// What is known of a dma-buf.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BufferRecord<'r> {
    pub(crate) inode: InodeFact,
    /// Before and after its mappings were gathered; `None`: nothing holds it open.
    pub(crate) counts: Option<(u64, u64)>,
    /// `None` for one that nothing holds open, or if it is too long.
    pub(crate) exporter: Option<&'r [u8]>,
    /// `None`: it changed while it was read.
    pub(crate) name: Option<&'r [u8]>,
    /// Whether all of its attachments and mappings came before it.
    pub(crate) whole: bool,
}

/// A VMA of a dma-buf, or of an open file of shared memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Vma<K> {
    pub(crate) of: K,
    pub(crate) mm: Option<Id>,
    pub(crate) start: u64,
    pub(crate) end: u64,
    /// Bytes.
    pub(crate) offset: u64,
    /// Whose address space it is, where the kernel keeps that: one of those that share it.
    pub(crate) owner: Option<Pid>,
    pub(crate) perms: Perms,
}

/// An fd of a character device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DeviceFd {
    pub(crate) program: Program,
    pub(crate) pid: Pid,
    pub(crate) fd: Fd,
    pub(crate) dev: Dev,
}

/// A dma-buf or an open file of shared memory in a message that waits in a socket, seen through that fd.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct InFlight<K> {
    pub(crate) of: K,
    /// The socket's inode number.
    pub(crate) socket: u64,
    pub(crate) seen_by: (Tid, Fd),
}

/// An fd of a sync_file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SyncFd {
    pub(crate) program: Program,
    pub(crate) files: Option<Id>,
    pub(crate) pid: Pid,
    pub(crate) fd: Fd,
}

/// What sort of filesystem a file of shared memory is on, by its magic number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ShmFilesystem {
    Tmpfs,
    Hugetlbfs,
    Secretmem,
    /// From Linux 7 on, and before that among anonymous inodes, of which the iterators tell no others.
    GuestMemfd,
}

impl ShmFilesystem {
    fn of(number: u64) -> Result<ShmFilesystem, Garbled> {
        Ok(match i64::try_from(number).map_err(|_| Garbled)? {
            magic::TMPFS => ShmFilesystem::Tmpfs,
            magic::HUGETLBFS => ShmFilesystem::Hugetlbfs,
            magic::SECRETMEM => ShmFilesystem::Secretmem,
            magic::GUEST_MEMFD | magic::ANON_INODES => ShmFilesystem::GuestMemfd,
            _ => return Err(Garbled),
        })
    }
}

/// What is known of an open file of shared memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ShmFile<'r> {
    pub(crate) file: Id,
    pub(crate) count: u64,
    pub(crate) filesystem: ShmFilesystem,
    pub(crate) inode: ShmInode,
    /// Pages in swap.
    pub(crate) swapped: Option<u64>,
    pub(crate) seals: Option<Seals>,
    /// Of a mapped System V segment: its namespace.
    pub(crate) ipc: Option<IpcNamespace>,
    /// It only names the inode (`O_PATH`).
    pub(crate) path_only: bool,
    /// The dentry that it was opened by: one and the same for every file that is opened by that name, or through `/proc`.
    pub(crate) dentry: Option<Id>,
    /// How many open files (`struct file`) that dentry has at most, `O_PATH` files among them: dup and mmap add none, and whatever
    /// else holds the dentry (a bind mount of the file, a path that is being looked up) counts as one. `None`: it is not told.
    pub(crate) opens: Option<u64>,
    /// References to the inode: one for each of its dentries, and those of whatever else in the kernel keeps it.
    pub(crate) inode_refs: Option<u32>,
    /// The whole path, or else the name alone.
    pub(crate) path: std::result::Result<&'r [u8], &'r [u8]>,
}

/// Pages of the dma-buf that is described next which are a file's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MemfdPages {
    pub(crate) dev: Dev,
    pub(crate) ino: Inode,
    pub(crate) pages: u64,
}

/// Whether a thread has run. Every thread but the kernel's own has one such record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) pid: Pid,
    pub(crate) tid: Tid,
    /// Nanoseconds on a processor; exact while it is on none.
    pub(crate) runtime: u64,
    /// The number of the system call that it is in, or else of the last one that it was in; -1: it has entered the kernel otherwise
    /// since, by an interrupt or a fault. Numbers are those of 64-bit programs; of 32-bit ones, before Linux 5.15, and on other
    /// machines than x86 and arm64 none is told.
    pub(crate) call: Option<i32>,
    pub(crate) on_cpu: bool,
    /// It has begun to exit.
    pub(crate) exiting: bool,
    /// It has released all that it had.
    pub(crate) dead: bool,
    /// The kernel has added it to the process, as io_uring and vhost do: it makes no system calls. Before Linux 5.12 this may also be
    /// said of a thread that runs a virtual processor (`PF_VCPU` had the flag's number).
    pub(crate) worker: bool,
}

/// Something that may keep files of which nothing is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Keeper {
    pub(crate) ino: u64,
    pub(crate) pid: Pid,
    pub(crate) tid: Tid,
    pub(crate) fd: Fd,
    pub(crate) what: KeeperKind,
}

/// What it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KeeperKind {
    /// An io_uring, as an fd.
    Ring,
    /// A socket whose queue could not be read to its end.
    Socket,
    /// An io_uring, as a mapping.
    RingMapped,
    /// A socket in whose queue another one waits, or an io_uring.
    Nested,
}

/// Hands over the records that are whole; returns how many bytes they take.
pub(crate) fn each<'r>(bytes: &'r [u8], mut take: impl FnMut(Record<'r>)) -> Result<usize, Garbled> {
    const HEAD: usize = 8;
    /// No record comes near.
    const LARGEST: usize = 8192;
    let mut rest = bytes;
    while rest.len() >= HEAD {
        let mut head = Fields(rest);
        let (kind, size) = (head.u32()?, head.u32()? as usize);
        if !(HEAD..=LARGEST).contains(&size) {
            return Err(Garbled);
        }
        let Some(record) = rest.get(HEAD..size) else { break };
        take(parse(kind, record)?);
        rest = &rest[size..];
    }
    Ok(bytes.len() - rest.len())
}

fn parse(kind: u32, record: &[u8]) -> Result<Record<'_>, Garbled> {
    let mut fields = Fields(record);
    let parsed = match kind {
        1 => Record::Task(fields.task()?),
        2 => {
            let of = Inode(fields.u64()?);
            Record::Fd(fields.fd(of)?)
        }
        3 => Record::Buffer(fields.buffer()?),
        4 => Record::Attachment(text(fields.bytes(64)?)),
        5 => {
            let of = Inode(fields.u64()?);
            fields.vma(of)?.map_or(Record::Torn, Record::Vma)
        }
        6 => Record::Device(fields.device()?),
        7 => {
            let of = Inode(fields.u64()?);
            Record::InFlight(fields.in_flight(of)?)
        }
        8 => Record::Keeper(fields.keeper()?),
        9 => {
            fields.u64()?;
            Record::End
        }
        10 => Record::ShmFile(fields.shm_file()?),
        11 => {
            let of = fields.some_id()?;
            Record::ShmFd(fields.fd(of)?)
        }
        12 => {
            let (of, count) = (fields.some_id()?, fields.u64()?);
            fields.vma(of)?.map_or(Record::Torn, |vma| Record::ShmVma(vma, count))
        }
        13 => {
            let of = fields.some_id()?;
            Record::ShmInFlight(fields.in_flight(of)?)
        }
        14 => Record::SyncFile(fields.sync_file()?),
        15 => Record::MemfdPages(fields.memfd_pages()?),
        16 => Record::Run(fields.run()?),
        17 => Record::ShmUndescribed(fields.some_id()?),
        _ => return Err(Garbled),
    };
    if fields.0.is_empty() { Ok(parsed) } else { Err(Garbled) }
}

/// What is left of a record.
struct Fields<'r>(&'r [u8]);

impl<'r> Fields<'r> {
    fn bytes(&mut self, len: usize) -> Result<&'r [u8], Garbled> {
        let (bytes, rest) = self.0.split_at_checked(len).ok_or(Garbled)?;
        self.0 = rest;
        Ok(bytes)
    }

    fn u32(&mut self) -> Result<u32, Garbled> {
        Ok(u32::from_ne_bytes(*self.bytes(4)?.first_chunk().ok_or(Garbled)?))
    }

    fn u64(&mut self) -> Result<u64, Garbled> {
        Ok(u64::from_ne_bytes(*self.bytes(8)?.first_chunk().ok_or(Garbled)?))
    }

    fn id(&mut self) -> Result<Option<Id>, Garbled> {
        Ok(Some(self.u64()?).filter(|&id| id != 0).map(Id))
    }

    fn some_id(&mut self) -> Result<Id, Garbled> {
        self.id()?.ok_or(Garbled)
    }

    fn ipc(&mut self) -> Result<Option<IpcNamespace>, Garbled> {
        Ok(Some(self.u32()?).filter(|&ipc| ipc != 0).map(|ipc| IpcNamespace(Inode(ipc.into()))))
    }

    /// A device number as the kernel itself keeps it (`MINORBITS` in include/linux/kdev_t.h).
    fn dev(&mut self) -> Result<Dev, Garbled> {
        let dev = self.u32()?;
        Ok(Dev { major: dev >> 20, minor: dev & 0xf_ffff })
    }

    fn task(&mut self) -> Result<Task, Garbled> {
        let (mm, files, started, cgroup) = (self.id()?, self.id()?, self.u64()?, self.u64()?);
        let (program, exe) = (Program(self.u64()?), self.id()?);
        let (pid, tid, uid, state) = (Pid(self.u32()?), Tid(self.u32()?), self.u32()?, self.u32()?);
        let (ipc, mm_writes) = (self.ipc()?, self.u32()?);
        let comm = *self.bytes(16)?.first_chunk().ok_or(Garbled)?;
        let (kernel, exiting, dead) = (state & 1 != 0, state & 2 != 0, state & 4 != 0);
        Ok(Task {
            pid,
            tid,
            mm,
            files,
            started,
            cgroup,
            program,
            exe,
            ipc,
            mm_writes: (state & 8 != 0).then_some(mm_writes.into()),
            uid,
            kernel,
            exiting: exiting && !dead,
            comm,
        })
    }

    fn fd<K>(&mut self, of: K) -> Result<FdRecord<K>, Garbled> {
        let (count, files) = (self.u64()?, self.id()?);
        let program = Program(self.u64()?);
        let (pid, tid, fd) = (Pid(self.u32()?), Tid(self.u32()?), Fd(self.u32()?));
        Ok(FdRecord { of, count, files, program, pid, tid, fd, path_only: self.u32()? != 0 })
    }

    fn buffer(&mut self) -> Result<BufferRecord<'r>, Garbled> {
        const PATH_ONLY: u32 = 1;
        const CUT: u32 = 2;
        const RENAMED: u32 = 4;
        let (ino, size) = (Inode(self.u64()?), Bytes(self.u64()?));
        let counts = (self.u64()?, self.u64()?);
        let (changed, modified) = (self.u64()?, self.u64()?);
        let (dev, creator_uid, flags) = (self.dev()?, self.u32()?, self.u32()?);
        let (changed_ns, modified_ns) = (self.u32()?, self.u32()?);
        self.u32()?;
        let (exporter, name) = (text(self.bytes(64)?), text(self.bytes(32)?));
        let open = flags & PATH_ONLY == 0;
        let created_at =
            identity::created(since_epoch(changed, changed_ns), since_epoch(modified, modified_ns));
        Ok(BufferRecord {
            inode: InodeFact { dev, ino, size, creator_uid, created_at },
            counts: open.then_some(counts),
            exporter: exporter.filter(|_| open),
            name: name.filter(|_| flags & RENAMED == 0),
            whole: flags & CUT == 0,
        })
    }

    /// `None`: it changed while it was read.
    fn vma<K>(&mut self, of: K) -> Result<Option<Vma<K>>, Garbled> {
        let mm = self.id()?;
        let (start, end, pgoff) = (self.u64()?, self.u64()?, self.u64()?);
        let (owner, flags) = (self.u32()?, self.u32()?);
        if end < start {
            return Ok(None);
        }
        // As `maps` prints it (`show_map_vma` in fs/proc/task_mmu.c): what does not fit is lost.
        let offset = pgoff.wrapping_mul(rustix::param::page_size() as u64);
        let owner = Some(Pid(owner)).filter(|&Pid(pid)| pid != 0);
        Ok(Some(Vma { of, mm, start, end, offset, owner, perms: perms(flags)? }))
    }

    fn device(&mut self) -> Result<DeviceFd, Garbled> {
        let program = Program(self.u64()?);
        let (pid, fd, dev) = (Pid(self.u32()?), Fd(self.u32()?), self.dev()?);
        self.u32()?;
        Ok(DeviceFd { program, pid, fd, dev })
    }

    fn in_flight<K>(&mut self, of: K) -> Result<InFlight<K>, Garbled> {
        let socket = self.u64()?;
        self.u32()?;
        let seen_by = (Tid(self.u32()?), Fd(self.u32()?));
        self.u32()?;
        Ok(InFlight { of, socket, seen_by })
    }

    fn sync_file(&mut self) -> Result<SyncFd, Garbled> {
        let (program, files, pid) = (Program(self.u64()?), self.id()?, Pid(self.u32()?));
        self.u32()?;
        let fd = Fd(self.u32()?);
        self.u32()?;
        Ok(SyncFd { program, files, pid, fd })
    }

    fn memfd_pages(&mut self) -> Result<Option<MemfdPages>, Garbled> {
        let (ino, pages, dev) = (Inode(self.u64()?), self.u64()?, self.dev()?);
        let told = self.u32()? == 0;
        Ok(told.then_some(MemfdPages { dev, ino, pages }))
    }

    fn run(&mut self) -> Result<Run, Garbled> {
        const ON_CPU: u32 = 1;
        const EXITING: u32 = 2;
        const DEAD: u32 = 4;
        const WORKER: u32 = 8;
        let (runtime, pid, tid) = (self.u64()?, Pid(self.u32()?), Tid(self.u32()?));
        let (call, flags) = (self.u32()?.cast_signed(), self.u32()?);
        let is = |bit| flags & bit != 0;
        Ok(Run {
            pid,
            tid,
            runtime,
            call: Some(call).filter(|&call| call != i32::MIN),
            on_cpu: is(ON_CPU),
            exiting: is(EXITING),
            dead: is(DEAD),
            worker: is(WORKER),
        })
    }

    /// What follows the numbers is a path.
    fn shm_file(&mut self) -> Result<ShmFile<'r>, Garbled> {
        const SEALS: u32 = 1;
        const PAGES: u32 = 2;
        const CREATED: u32 = 4;
        const PATH: u32 = 8;
        const PATH_ONLY: u32 = 16;
        const DENTRY_COUNT: u32 = 32;
        const HASHED: u32 = 64;
        let (file, count, ino) = (self.some_id()?, self.u64()?, Inode(self.u64()?));
        let (size, blocks) = (Bytes(self.u64()?), self.u64()?);
        let (pages, swapped, magic, created) = (self.u64()?, self.u64()?, self.u64()?, self.u64()?);
        let (dentry, dentry_count, inode_count) = (self.id()?, self.u32()?, self.u32()?);
        let (created_ns, dev) = (self.u32()?, self.dev()?);
        let (owner, links, block_bits) = (self.u32()?, self.u32()?, self.u32()?);
        let (seals, ipc, flags) = (Seals(self.u32()?), self.ipc()?, self.u32()?);
        let path = text(std::mem::take(&mut self.0)).unwrap_or_default();
        let counted = Bytes(blocks.saturating_mul(BLOCK));
        let page = rustix::param::page_size() as u64;
        // As stat(2) puts it right (`shmem_recalc_inode` in mm/shmem.c): pages that the kernel has dropped since are none.
        let there = Bytes(pages.saturating_add(swapped).saturating_mul(page));
        let charged = if flags & PAGES != 0 { counted.min(there) } else { counted };
        let known = |bit| flags & bit != 0;
        let filesystem = ShmFilesystem::of(magic)?;
        let huge_page = 1u64.checked_shl(block_bits).and_then(inode::huge);
        let inode = ShmInode {
            dev,
            ino,
            size,
            charged,
            links,
            huge_page: huge_page.filter(|_| filesystem == ShmFilesystem::Hugetlbfs),
            owner,
            created_at: if known(CREATED) { since_epoch(created, created_ns) } else { None },
        };
        Ok(ShmFile {
            file,
            count,
            filesystem,
            inode,
            swapped: known(PAGES).then_some(swapped),
            seals: known(SEALS).then_some(seals),
            ipc,
            path_only: known(PATH_ONLY),
            dentry,
            opens: if known(DENTRY_COUNT) { opens(dentry_count, known(HASHED)) } else { None },
            inode_refs: Some(inode_count).filter(|&count| count != 0),
            path: if known(PATH) && !path.is_empty() { Ok(path) } else { Err(path) },
        })
    }

    fn keeper(&mut self) -> Result<Keeper, Garbled> {
        let ino = self.u64()?;
        let (pid, tid, fd) = (Pid(self.u32()?), Tid(self.u32()?), Fd(self.u32()?));
        let what = match self.u32()? {
            1 => KeeperKind::Ring,
            2 => KeeperKind::Socket,
            3 => KeeperKind::RingMapped,
            4 => KeeperKind::Nested,
            _ => return Err(Garbled),
        };
        Ok(Keeper { ino, pid, tid, fd, what })
    }
}

/// The references to a dentry but the one that its directory has while it is linked. A dentry that is being freed has a negative
/// count (`lockref_mark_dead` in lib/lockref.c).
fn opens(count: u32, hashed: bool) -> Option<u64> {
    let count = u64::try_from(count.cast_signed()).ok()?;
    count.checked_sub(u64::from(hashed))
}

/// What stands before the NUL; `None`: there is none, so the text was cut.
fn text(bytes: &[u8]) -> Option<&[u8]> {
    memchr::memchr(0, bytes).map(|end| &bytes[..end])
}

/// Protection by a VMA's flags (include/linux/mm.h), as `maps` prints it.
fn perms(flags: u32) -> Result<Perms, Garbled> {
    const MAY_SHARE: u32 = 0x80;
    let letter = |bit, yes, no| if flags & bit != 0 { yes } else { no };
    let text =
        [letter(1, b'r', b'-'), letter(2, b'w', b'-'), letter(4, b'x', b'-'), letter(MAY_SHARE, b's', b'p')];
    Perms::parse(&text).ok_or(Garbled)
}

#[cfg(test)]
#[path = "record_tests.rs"]
pub(crate) mod tests;
