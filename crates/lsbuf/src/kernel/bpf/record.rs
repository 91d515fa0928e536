//! The meaning of the records that the BPF iterators write. [`layout`] has their structures.
//!
//! The records come from programs of lsbuf, but through a file whose path a caller may choose. So
//! they are not trusted: a record that is incomplete, or has an unknown kind or a wrong size, is an
//! error.

mod shmem;

use std::mem::offset_of;

pub(crate) use shmem::{
    MountedIn, PagesOfOne, ShmCgroup, ShmExe, ShmFilesystem, ShmFilesystemRecord, ShmInFlight,
    ShmInodeRecord, ShmOpen, ShmVma, ShmWalk,
};

use super::layout::{self, Field, Whole};
use crate::kernel::identity::{self, InodeFact, since_epoch};
use crate::kernel::parse::Malformed;
use crate::model::{Bytes, Dev, Fd, Inode, IpcNamespace, Label, Perms, Pid, Tid};

/// The version of the records: which there are, their layout and their meaning. It goes up with
/// every change of any of these, so that records of other pinned programs are not read.
pub(crate) const LAYOUT: u32 = 10;

/// An id of a kernel object: the same for one object as long as it lives. It says nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Id(u64);

#[cfg(test)]
impl From<u64> for Id {
    fn from(id: u64) -> Id {
        Id(id)
    }
}

/// An id of a program run: it changes with every exec, and differs in a process that reuses the
/// pid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ExecId(pub(crate) u64);

/// One record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Record<'r> {
    Task(TaskRecord),
    Fd(FdRecord<Inode>),
    Buffer(BufferRecord<'r>),
    /// The name of a device that is attached to the buffer in the next buffer record; `None`: it is
    /// too long.
    Attachment(Option<&'r [u8]>),
    Vma(Vma<Inode>),
    Device(DeviceFd),
    InFlight(InFlight<Inode>),
    Keeper(KeeperRecord),
    SyncFile(SyncFd),
    ShmInode(ShmInodeRecord<'r>),
    ShmFd(FdRecord<ShmOpen>),
    ShmVma(ShmVma),
    ShmInFlight(ShmInFlight),
    ShmExe(ShmExe),
    ShmFilesystem(ShmFilesystemRecord),
    ShmWalk(ShmWalk),
    ShmCgroup(ShmCgroup<'r>),
    ShmPages(PagesOfOne<'r>),
    /// `None`: for some of the dma-buf's pages it is not known whose they are.
    MemfdPages(Option<MemfdPages>),
    /// The file that a graphics driver has for the buffer in the next buffer record.
    GemFile(Dev, Inode),
    Run(RunRecord),
    /// In place of a VMA that changed while it was read.
    Torn,
    /// The last record of an iterator over tasks: it has reached its end.
    End,
}

/// A thread-group leader, or a thread with an fd table, an address space or an IPC namespace of its
/// own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TaskRecord {
    pub(crate) pid: Pid,
    pub(crate) tid: Tid,
    /// `None`: it has no address space, or no longer.
    pub(crate) mm: Option<Id>,
    pub(crate) files: Option<Id>,
    /// When it was started, in nanoseconds after boot.
    pub(crate) started: u64,
    /// The number of its cgroup in the unified hierarchy.
    pub(crate) cgroup: u64,
    pub(crate) program: ExecId,
    /// How many pages of its address space are locked in memory. The copy of an address space that
    /// fork(2) makes begins with 0.
    pub(crate) locked_pages: u64,
    /// The thread's own IPC namespace.
    pub(crate) ipc: Option<IpcNamespace>,
    /// `None`: it is no process's leader, or another process has the same set of namespaces.
    pub(crate) alone: Option<AloneRecord>,
    /// The sequence number of its address space's lock (32 bits). It changes whenever the lock was
    /// held for writing and released, and every change of a mapping holds it. While the lock is
    /// held, the number is odd from Linux 6.14 on (commit eb449bd96954); on older kernels it has
    /// not changed yet. `None`: it has no address space, or the kernel has no such number (before
    /// Linux 6.4, commit 5e31275cc997, or without locks of single VMAs).
    pub(crate) mm_writes: Option<u64>,
    pub(crate) uid: u32,
    pub(crate) kernel: bool,
    /// It has begun to exit, and may still hold references.
    pub(crate) exiting: bool,
    /// Its process was forked and has not started a program since (`PF_FORKNOEXEC` of its leader).
    /// So its address space began as a copy of another one, or is shared with another process.
    pub(crate) forked: bool,
    pub(crate) comm: [u8; 16],
}

/// The namespaces of a process that shares its set of namespaces (`struct nsproxy`) with no other
/// one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct AloneRecord {
    /// The inode number of its mount namespace.
    pub(crate) mounts: u32,
    /// How many references there are to its mount namespace, and to its IPC namespace. The set has
    /// one to each.
    pub(crate) mounts_count: u32,
    pub(crate) ipc: Option<IpcNamespace>,
    pub(crate) ipc_count: u32,
}

impl TaskRecord {
    /// Its command name.
    pub(crate) fn comm(&self) -> Label {
        text(&self.comm).unwrap_or(&self.comm).into()
    }
}

/// An fd of a dma-buf, which is identified by its inode number, or of shared memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FdRecord<K> {
    pub(crate) of: K,
    pub(crate) count: u64,
    pub(crate) files: Option<Id>,
    pub(crate) program: ExecId,
    pub(crate) pid: Pid,
    pub(crate) tid: Tid,
    pub(crate) fd: Fd,
    pub(crate) path_only: bool,
}

/// The description of a dma-buf.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BufferRecord<'r> {
    pub(crate) inode: InodeFact,
    /// Its counts before and after its mappings were listed; `None`: nothing holds it open.
    pub(crate) counts: Option<(u64, u64)>,
    /// `None`: nothing holds the buffer open, or the name is too long.
    pub(crate) exporter: Option<&'r [u8]>,
    /// `None`: it changed while it was read.
    pub(crate) name: Option<&'r [u8]>,
    /// Whether the records of all its attachments and mappings came before this one.
    pub(crate) whole: bool,
}

/// A VMA of a dma-buf, which is identified by its inode number, or of shared memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Vma<K> {
    pub(crate) of: K,
    pub(crate) mm: Option<Id>,
    pub(crate) start: u64,
    pub(crate) end: u64,
    /// In bytes.
    pub(crate) offset: u64,
    /// A process that uses this address space, if the kernel knows one. Others may share it.
    pub(crate) owner: Option<Pid>,
    pub(crate) perms: Perms,
}

/// An fd of a character device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DeviceFd {
    pub(crate) program: ExecId,
    pub(crate) pid: Pid,
    pub(crate) fd: Fd,
    pub(crate) dev: Dev,
}

/// A dma-buf, which is identified by its inode number, or a file of shared memory, in a message
/// that waits in a socket. The socket was found through the fd in `seen_by`.
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
    pub(crate) program: ExecId,
    pub(crate) files: Option<Id>,
    pub(crate) pid: Pid,
    pub(crate) fd: Fd,
}

/// How many pages of the dma-buf in the next buffer record belong to this file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MemfdPages {
    pub(crate) dev: Dev,
    pub(crate) ino: Inode,
    pub(crate) pages: u64,
}

/// What a thread has run. Every thread except the kernel's own has one record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RunRecord {
    pub(crate) pid: Pid,
    pub(crate) tid: Tid,
    /// How long it has been on a processor, in nanoseconds. Exact while it is on none.
    pub(crate) runtime: u64,
    /// How often it has left a processor.
    pub(crate) switches: u64,
    /// The number of the system call that it is in, or of the last one that it was in. -1: it has
    /// since entered the kernel in another way, by an interrupt or a fault. The numbers are those
    /// of 64-bit programs. `None`: a 32-bit program, a kernel before Linux 5.15 (commit
    /// dd6e10fbd9fb), or a machine other than x86 and arm64.
    pub(crate) call: Option<i32>,
    /// It is on a processor or waits for one, so it may be anywhere in a call.
    pub(crate) running: bool,
    /// It has begun to exit.
    pub(crate) exiting: bool,
    /// It has released everything that it had.
    pub(crate) dead: bool,
    /// The kernel has added this thread to the process, as io_uring and vhost do. It makes no
    /// system calls. Before Linux 5.12 this may also be set for a thread that runs a virtual
    /// processor, because `PF_VCPU` had the value of the flag.
    pub(crate) worker: bool,
    /// It is stopped or traced, so it is never in the middle of a call.
    pub(crate) stopped: bool,
    /// It has used an io_uring that still exists, or may have.
    pub(crate) rings: bool,
}

/// A socket or io_uring that may hold files for which there are no records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct KeeperRecord {
    pub(crate) ino: u64,
    pub(crate) pid: Pid,
    pub(crate) tid: Tid,
    pub(crate) fd: Fd,
    pub(crate) what: KeeperKind,
}

/// The kind of a keeper.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KeeperKind {
    /// An io_uring that an fd refers to.
    Ring,
    /// A socket with a queue that could not be read to its end.
    Socket,
    /// An io_uring that is mapped.
    RingMapped,
    /// A socket with another socket, or an io_uring, in its queue.
    Nested,
}

/// Calls `take` for each complete record. Returns how many bytes they take.
pub(crate) fn each<'r>(bytes: &'r [u8], mut take: impl FnMut(Record<'r>)) -> Result<usize, Malformed> {
    /// An upper limit that no record comes near.
    const LARGEST: usize = 8192;
    let mut rest = bytes;
    while let Some(layout::Head { kind, size }) = layout::Head::read(rest) {
        let size = size as usize;
        if !(size_of::<layout::Head>()..=LARGEST).contains(&size) {
            return Err(Malformed);
        }
        let Some(record) = rest.get(..size) else { break };
        take(parse(kind, record)?);
        rest = &rest[size..];
    }
    Ok(bytes.len() - rest.len())
}

fn parse(kind: u32, record: &[u8]) -> Result<Record<'_>, Malformed> {
    Ok(match kind {
        layout::TASK => Record::Task(TaskRecord::of(&Whole::only(record)?)),
        layout::FD => {
            let fd: layout::Fd = Whole::only(record)?;
            Record::Fd(FdRecord::of(&fd))
        }
        layout::BUFFER => Record::Buffer(BufferRecord::of(record)?),
        layout::ATTACHMENT => {
            let attached = layout::Attachment::only(record)?;
            let name = field(record, offset_of!(layout::Attachment, name), attached.name.len())?;
            Record::Attachment(text(name))
        }
        layout::VMA => {
            let vma: layout::Vma = Whole::only(record)?;
            Vma::of(Inode(vma.ino), &vma.range)?.map_or(Record::Torn, Record::Vma)
        }
        layout::DEVICE => Record::Device(DeviceFd::of(&Whole::only(record)?)),
        layout::IN_FLIGHT => {
            let message: layout::InFlight = Whole::only(record)?;
            let seen_by = (Tid(message.tid), Fd(message.fd));
            Record::InFlight(InFlight { of: Inode(message.ino), socket: message.socket, seen_by })
        }
        layout::KEEPER => Record::Keeper(KeeperRecord::of(&Whole::only(record)?)?),
        layout::END => {
            layout::End::only(record)?;
            Record::End
        }
        layout::SHM_INODE => {
            let (inode, names) = Whole::and_text(record)?;
            Record::ShmInode(ShmInodeRecord::of(&inode, names)?)
        }
        layout::SHM_FD => Record::ShmFd(FdRecord::of_shmem(&Whole::only(record)?)?),
        layout::SHM_VMA => ShmVma::of(&Whole::only(record)?)?.map_or(Record::Torn, Record::ShmVma),
        layout::SHM_IN_FLIGHT => Record::ShmInFlight(ShmInFlight::of(&Whole::only(record)?)?),
        layout::SHM_EXE => Record::ShmExe(ShmExe::of(&Whole::only(record)?)?),
        layout::SHM_FILESYSTEM => Record::ShmFilesystem(ShmFilesystemRecord::of(&Whole::only(record)?)?),
        layout::SHM_WALK => Record::ShmWalk(ShmWalk::of(&Whole::only(record)?)),
        layout::SHM_CGROUP => {
            let (cgroup, names) = Whole::and_text(record)?;
            Record::ShmCgroup(ShmCgroup::of(&cgroup, names))
        }
        layout::SHM_PAGES_OF => {
            let (pages, payers) = Whole::and_text(record)?;
            Record::ShmPages(PagesOfOne::of(&pages, payers)?)
        }
        layout::SYNC_FILE => Record::SyncFile(SyncFd::of(&Whole::only(record)?)),
        layout::MEMFD_PAGES => Record::MemfdPages(MemfdPages::of(&Whole::only(record)?)),
        layout::GEM_FILE => {
            let file: layout::GemFile = Whole::only(record)?;
            Record::GemFile(dev(file.dev), Inode(file.ino))
        }
        layout::RUN => Record::Run(RunRecord::of(&Whole::only(record)?)),
        _ => return Err(Malformed),
    })
}

/// A text within a record.
fn field(record: &[u8], at: usize, len: usize) -> Result<&[u8], Malformed> {
    record.get(at..).and_then(|rest| rest.get(..len)).ok_or(Malformed)
}

fn id(number: u64) -> Option<Id> {
    Some(number).filter(|&id| id != 0).map(Id)
}

fn some_id(number: u64) -> Result<Id, Malformed> {
    id(number).ok_or(Malformed)
}

fn ipc(number: u32) -> Option<IpcNamespace> {
    Some(number).filter(|&ipc| ipc != 0).map(|ipc| IpcNamespace(Inode(ipc.into())))
}

/// Splits a device number as the kernel stores it (`MINORBITS` in include/linux/kdev_t.h).
pub(super) fn dev(number: u32) -> Dev {
    Dev { major: number >> 20, minor: number & 0xf_ffff }
}

impl TaskRecord {
    fn of(task: &layout::Task) -> TaskRecord {
        const KERNEL: u32 = 1;
        const EXITING: u32 = 2;
        const DEAD: u32 = 4;
        const MM_WRITES: u32 = 8;
        const FORKED: u32 = 16;
        const ALONE: u32 = 32;
        let is = |bit| task.state & bit != 0;
        let &layout::Task { mounts, mounts_count, ipc_count, .. } = task;
        TaskRecord {
            pid: Pid(task.tgid),
            tid: Tid(task.tid),
            mm: id(task.mm),
            files: id(task.files),
            started: task.started,
            cgroup: task.cgroup,
            program: ExecId(task.program),
            locked_pages: task.locked_pages,
            ipc: ipc(task.ipc),
            alone: is(ALONE).then_some(AloneRecord { mounts, mounts_count, ipc: ipc(task.ipc), ipc_count }),
            mm_writes: is(MM_WRITES).then_some(task.mm_writes.into()),
            uid: task.uid,
            kernel: is(KERNEL),
            exiting: is(EXITING) && !is(DEAD),
            forked: is(FORKED),
            comm: task.comm,
        }
    }
}

impl FdRecord<Inode> {
    fn of(found: &layout::Fd) -> FdRecord<Inode> {
        FdRecord {
            of: Inode(found.ino),
            count: found.count,
            files: id(found.files),
            program: ExecId(found.program),
            pid: Pid(found.tgid),
            tid: Tid(found.tid),
            fd: Fd(found.fd),
            path_only: found.path_only != 0,
        }
    }
}

impl<'r> BufferRecord<'r> {
    fn of(record: &'r [u8]) -> Result<BufferRecord<'r>, Malformed> {
        const PATH_ONLY: u32 = 1;
        const CUT: u32 = 2;
        const RENAMED: u32 = 4;
        let buffer = layout::Buffer::only(record)?;
        let exporter = text(field(record, offset_of!(layout::Buffer, exporter), buffer.exporter.len())?);
        let name = text(field(record, offset_of!(layout::Buffer, name), buffer.name.len())?);
        let is = |bit| buffer.flags & bit != 0;
        let changed = since_epoch(buffer.changed, buffer.changed_ns);
        let modified = since_epoch(buffer.modified, buffer.modified_ns);
        Ok(BufferRecord {
            inode: InodeFact {
                dev: dev(buffer.dev),
                ino: Inode(buffer.ino),
                size: Bytes(buffer.size),
                creator_uid: buffer.uid,
                created_at: identity::created(changed, modified),
            },
            counts: (!is(PATH_ONLY)).then_some((buffer.count, buffer.count_after)),
            exporter: exporter.filter(|_| !is(PATH_ONLY)),
            name: name.filter(|_| !is(RENAMED)),
            whole: !is(CUT),
        })
    }
}

impl<K> Vma<K> {
    /// `None`: it changed while it was read.
    fn of(of: K, range: &layout::Range) -> Result<Option<Vma<K>>, Malformed> {
        let &layout::Range { mm, start, end, pgoff, tgid, flags } = range;
        if end < start {
            return Ok(None);
        }
        Ok(Some(Vma {
            of,
            mm: id(mm),
            start,
            end,
            // As `maps` prints it (`show_map_vma` in fs/proc/task_mmu.c): bits that do not fit are
            // lost.
            offset: pgoff.wrapping_mul(rustix::param::page_size() as u64),
            owner: Some(Pid(tgid)).filter(|&Pid(pid)| pid != 0),
            perms: perms(flags)?,
        }))
    }
}

impl DeviceFd {
    fn of(found: &layout::DeviceFd) -> DeviceFd {
        DeviceFd {
            program: ExecId(found.program),
            pid: Pid(found.tgid),
            fd: Fd(found.fd),
            dev: dev(found.rdev),
        }
    }
}

impl SyncFd {
    fn of(found: &layout::SyncFd) -> SyncFd {
        SyncFd {
            program: ExecId(found.program),
            files: id(found.files),
            pid: Pid(found.tgid),
            fd: Fd(found.fd),
        }
    }
}

impl MemfdPages {
    fn of(found: &layout::MemfdPages) -> Option<MemfdPages> {
        let pages = MemfdPages { dev: dev(found.dev), ino: Inode(found.ino), pages: found.pages };
        (found.untold == 0).then_some(pages)
    }
}

impl RunRecord {
    fn of(found: &layout::Run) -> RunRecord {
        const RUNNING: u32 = 1;
        const EXITING: u32 = 2;
        const DEAD: u32 = 4;
        const WORKER: u32 = 8;
        const STOPPED: u32 = 16;
        const RINGS: u32 = 32;
        let is = |bit| found.flags & bit != 0;
        RunRecord {
            pid: Pid(found.tgid),
            tid: Tid(found.tid),
            runtime: found.runtime,
            switches: found.switches,
            call: Some(found.call).filter(|&call| call != i32::MIN),
            running: is(RUNNING),
            exiting: is(EXITING),
            dead: is(DEAD),
            worker: is(WORKER),
            stopped: is(STOPPED),
            rings: is(RINGS),
        }
    }
}

impl KeeperRecord {
    fn of(found: &layout::Keeper) -> Result<KeeperRecord, Malformed> {
        let what = match found.what {
            1 => KeeperKind::Ring,
            2 => KeeperKind::Socket,
            3 => KeeperKind::RingMapped,
            4 => KeeperKind::Nested,
            _ => return Err(Malformed),
        };
        let (pid, tid, fd) = (Pid(found.tgid), Tid(found.tid), Fd(found.fd));
        Ok(KeeperRecord { ino: found.ino, pid, tid, fd, what })
    }
}

/// The text before the NUL; `None`: there is no NUL, so the text was cut.
pub(super) fn text(bytes: &[u8]) -> Option<&[u8]> {
    memchr::memchr(0, bytes).map(|end| &bytes[..end])
}

/// The protection that a VMA's flags stand for (include/linux/mm.h), as `maps` prints it.
fn perms(flags: u32) -> Result<Perms, Malformed> {
    const MAY_SHARE: u32 = 0x80;
    let letter = |bit, yes, no| if flags & bit != 0 { yes } else { no };
    let text =
        [letter(1, b'r', b'-'), letter(2, b'w', b'-'), letter(4, b'x', b'-'), letter(MAY_SHARE, b's', b'p')];
    Perms::parse(&text).ok_or(Malformed)
}

#[cfg(test)]
#[path = "record_tests.rs"]
pub(crate) mod tests;
