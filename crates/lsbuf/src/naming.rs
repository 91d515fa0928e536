//! Sets the name of somebody's dma-buf, to mark it while one hunts for its users.
//!
//! A dma-buf has one name of at most 31 bytes, which every tool shows, and whoever has an fd of it
//! may set it. [`set_name`] takes a holder's fd (`pidfd_getfd(2)`), sets the name and lets go. It
//! says what the name was before, so that the change can be undone.
//!
//! Limits: dma-bufs alone have such a name. A holder with an fd is needed: a mapping, an `O_PATH`
//! fd, a GEM handle or a message gives none. Another process can rename the buffer at any time,
//! also between the moment when the old name is read and the one when the new name is set.

use std::ffi::CString;
use std::fmt;

use rustix::io::Errno;

use crate::error::Error;
use crate::escape::escape;
use crate::kernel::rename::{Duplicate, NoDuplicate, duplicate};
use crate::kernel::root::ProcRoot;
use crate::model::{Buffer, Fd, Kind, Label, Pid, Snapshot, Tid};
use crate::scan::Options;

/// The longest name that the kernel takes (`DMA_BUF_NAME_LEN` less the NUL).
pub const MOST_BYTES: usize = 31;

/// What to make of the name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The new name, or what goes before the old one.
    pub text: Vec<u8>,
    /// Whether `text` goes before the old name.
    pub is_prefix: bool,
    /// Whether an existing name may be replaced.
    pub may_replace: bool,
}

/// A name that was set.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Named {
    /// What the name was. Empty: there was none.
    pub before: Label,
    /// What it is now.
    pub after: Label,
    /// Whose fd was used.
    pub through: Pid,
    /// Which fd.
    pub fd: Fd,
}

/// Why a name was not set. `Display` explains it in one line.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refusal {
    /// It is no dma-buf.
    NotDmaBuf(Kind),
    /// The buffer is one of a recording.
    NotLive,
    /// The pids of that procfs are of another pid namespace.
    OtherPids,
    /// No process that could be read has an fd of it.
    NoFd {
        /// Whether a process has it mapped.
        is_mapped: bool,
        /// Whether a process has an `O_PATH` fd of it.
        has_opath: bool,
    },
    /// The new name has more than [`MOST_BYTES`] bytes.
    TooLong(usize),
    /// The new name contains a NUL.
    HasNul,
    /// It has this name, and [`Change::may_replace`] is not set.
    IsNamed(Label),
    /// The kernel does not let this process take an fd of the holder.
    Denied {
        /// The holder that was tried last.
        holder: Pid,
        /// `kernel.yama.ptrace_scope`. `None`: the kernel has no Yama, or it cannot be read.
        yama: Option<u32>,
    },
    /// Every holder with an fd has exited, or closed it.
    Gone(Pid),
    /// Only threads with fd tables of their own have an fd, and this kernel opens no pidfd of one.
    NoThreads(Pid),
    /// The kernel has no pidfd_getfd(2).
    NotSupported,
    /// A device is attached, and this kernel refuses to rename the buffer then.
    Attached,
    /// The kernel has no names of dma-bufs.
    NoNames,
    /// Another process has renamed it at the same moment, to this name.
    Raced(Label),
    /// Anything else that the system says.
    Failed(String),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::NotDmaBuf(kind) => write!(f, "it is of kind {kind}, and only dma-bufs have a name to set"),
            Refusal::NotLive => f.write_str("a recorded tree cannot be changed"),
            Refusal::OtherPids => {
                f.write_str("that procfs is another pid namespace's, so its pids cannot be used here")
            }
            Refusal::NoFd { is_mapped: true, .. } => f.write_str(
                "no process has an fd of it, only mappings, and a mapping gives no fd to set a name through",
            ),
            Refusal::NoFd { has_opath: true, .. } => f.write_str(
                "no process has an fd of it but O_PATH ones, and the kernel sets no name through those",
            ),
            Refusal::NoFd { .. } => f.write_str(
                "no process that could be read has an fd of it: what only the kernel holds cannot be named",
            ),
            Refusal::TooLong(bytes) => {
                write!(f, "the name would have {bytes} bytes, and the kernel takes {MOST_BYTES}")
            }
            Refusal::HasNul => f.write_str("a name cannot contain a NUL"),
            Refusal::IsNamed(name) => write!(
                f,
                "its name is {} already: --force replaces it, --prefix keeps it",
                escape(name.as_bytes())
            ),
            Refusal::Denied { holder, yama: Some(scope @ 1..) } => write!(
                f,
                "no permission to take an fd of process {holder}: kernel.yama.ptrace_scope is {scope}, which \
                 allows it only to {}",
                match scope {
                    1 => "its ancestors and to CAP_SYS_PTRACE (root)",
                    2 => "CAP_SYS_PTRACE (root)",
                    _ => "nobody until the next boot",
                }
            ),
            Refusal::Denied { holder, .. } => write!(
                f,
                "no permission to take an fd of process {holder}: it takes the right to trace it (the same user \
                 and a process that may dump core, or CAP_SYS_PTRACE)"
            ),
            Refusal::Gone(holder) => write!(f, "process {holder} has exited or closed its fd since the scan"),
            Refusal::NoThreads(holder) => write!(
                f,
                "only threads of process {holder} with fd tables of their own have an fd, and this kernel cannot \
                 take one of a thread (Linux 6.9 can)"
            ),
            Refusal::NotSupported => f.write_str(
                "this kernel has no pidfd_getfd (Linux 5.6), or a filter of system calls forbids it",
            ),
            Refusal::Attached => f.write_str(
                "a device is attached to it, and this kernel does not rename a dma-buf then (Linux 5.10 does not)",
            ),
            Refusal::NoNames => f.write_str("this kernel has no names of dma-bufs (Linux 5.3)"),
            Refusal::Raced(name) => {
                write!(f, "another process has renamed it at the same moment, to {}", escape(name.as_bytes()))
            }
            Refusal::Failed(why) => f.write_str(why),
        }
    }
}

/// Sets the name of the buffer at that index of [`Snapshot::buffers`], through the fd of a holder.
/// Until it is done, the buffer's count is one higher.
///
/// # Errors
/// If the procfs of the options cannot be opened. That the name was not set is a [`Refusal`], not
/// an error.
///
/// # Panics
/// If there is no such buffer.
pub fn set_name(
    options: &Options,
    snapshot: &Snapshot,
    index: usize,
    change: &Change,
) -> Result<Result<Named, Refusal>, Error> {
    let root = ProcRoot::open(&options.proc_root)?;
    Ok(try_to_set(&root, snapshot, &snapshot.buffers[index], change))
}

fn try_to_set(
    root: &ProcRoot,
    snapshot: &Snapshot,
    buffer: &Buffer,
    change: &Change,
) -> Result<Named, Refusal> {
    if buffer.id.kind != Kind::DmaBuf {
        return Err(Refusal::NotDmaBuf(buffer.id.kind));
    }
    if !root.is_live() {
        return Err(Refusal::NotLive);
    }
    if !root.has_own_pids() {
        return Err(Refusal::OtherPids);
    }
    // Also a name that no kernel takes should be refused before anybody's fd is taken.
    new_name(&Label::default(), change)?;
    let (pid, fd, duplicate) = take(root, snapshot, buffer)?;
    let before = duplicate.name(root).map_err(|errno| failed("read the name", errno))?;
    if !before.is_empty() && !change.is_prefix && !change.may_replace {
        return Err(Refusal::IsNamed(before));
    }
    let name = new_name(&before, change)?;
    duplicate.set_name(&name).map_err(|errno| match errno {
        Errno::BUSY => Refusal::Attached,
        Errno::NOTTY | Errno::INVAL => Refusal::NoNames,
        errno => failed("set the name", errno),
    })?;
    let after = duplicate.name(root).map_err(|errno| failed("read the name again", errno))?;
    if after.as_bytes() != name.as_bytes() {
        return Err(Refusal::Raced(after));
    }
    Ok(Named { before, after, through: pid, fd })
}

fn failed(what: &str, errno: Errno) -> Refusal {
    Refusal::Failed(format!("cannot {what}: {}", std::io::Error::from(errno)))
}

/// The name that a change makes of another one.
fn new_name(before: &Label, change: &Change) -> Result<CString, Refusal> {
    let mut name = change.text.clone();
    if change.is_prefix {
        name.extend_from_slice(before.as_bytes());
    }
    if name.len() > MOST_BYTES {
        return Err(Refusal::TooLong(name.len()));
    }
    CString::new(name).map_err(|_| Refusal::HasNul)
}

/// The fds of one buffer that can be tried: a process's own first, then those of threads with fd
/// tables of their own.
fn candidates(buffer: &Buffer) -> impl Iterator<Item = (Pid, Option<Tid>, Fd)> {
    let own = buffer.holders.iter().filter_map(|holder| Some((holder.pid, None, *holder.fds.first()?)));
    let threads = buffer.holders.iter().flat_map(|holder| {
        let table = holder.threads.iter();
        table.filter_map(|table| Some((holder.pid, Some(table.tid), *table.fds.first()?)))
    });
    own.chain(threads)
}

/// A duplicate of the first fd that can be had. If there is none: why the last one was refused, or
/// that it is not allowed, which outweighs the rest.
fn take(root: &ProcRoot, snapshot: &Snapshot, buffer: &Buffer) -> Result<(Pid, Fd, Duplicate), Refusal> {
    let of = (buffer.id.dev.ok_or_else(|| Refusal::Failed("its device is unknown".into()))?, buffer.id.ino);
    let mut refusal = None;
    for (pid, thread, fd) in candidates(buffer) {
        let Some(process) = snapshot.process(pid) else { continue };
        let why = match duplicate(root, (pid, process.start_time), thread, fd, of) {
            Ok(duplicate) => return Ok((pid, fd, duplicate)),
            Err(NoDuplicate::Gone | NoDuplicate::Replaced) => Refusal::Gone(pid),
            Err(NoDuplicate::Denied) => Refusal::Denied { holder: pid, yama: yama(root) },
            Err(NoDuplicate::NotSupported) => return Err(Refusal::NotSupported),
            Err(NoDuplicate::NoThreads) => Refusal::NoThreads(pid),
            Err(NoDuplicate::Failed(errno)) => failed("take an fd of the holder", errno),
        };
        if !matches!(refusal, Some(Refusal::Denied { .. })) {
            refusal = Some(why);
        }
    }
    let any = |has: fn(&crate::model::Holder) -> bool| buffer.holders.iter().any(has);
    Err(refusal.unwrap_or_else(|| Refusal::NoFd {
        is_mapped: any(|holder| !holder.maps.is_empty()),
        has_opath: any(|holder| holder.slots().1 > 0),
    }))
}

/// `kernel.yama.ptrace_scope`.
fn yama(root: &ProcRoot) -> Option<u32> {
    let mut text = Vec::new();
    root.dir().read_record(c"sys/kernel/yama/ptrace_scope", &mut text).ok()?;
    std::str::from_utf8(&text).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{BufferId, Holder, Inode, ThreadFds};

    fn change(text: &str, is_prefix: bool) -> Change {
        Change { text: text.into(), is_prefix, may_replace: false }
    }

    /// Check that 31 bytes are a name and 32 are not, that a prefix counts with the old name, and
    /// that a NUL is refused.
    #[test]
    fn names() {
        let long = |bytes| change(&"x".repeat(bytes), false);
        assert!(new_name(&"old".into(), &long(31)).is_ok());
        assert_eq!(new_name(&"old".into(), &long(32)), Err(Refusal::TooLong(32)));
        assert_eq!(new_name(&"old".into(), &change("?", true)).unwrap().as_c_str(), c"?old");
        assert_eq!(new_name(&"o".repeat(31).as_str().into(), &change("?", true)), Err(Refusal::TooLong(32)));
        assert_eq!(new_name(&"".into(), &change("a\0b", false)), Err(Refusal::HasNul));
    }

    /// Check that fds of processes are tried before those of threads, and that mappings and
    /// `O_PATH` fds are not.
    #[test]
    fn which_fds() {
        let mut buffer = Buffer::new(BufferId::new(Kind::DmaBuf, None, Inode(1)));
        let table = |tid| ThreadFds {
            tid: Tid(tid),
            fds: vec![Fd(9)].into(),
            opaths: vec![].into(),
            fd_table_of: None,
        };
        let threads = Holder { threads: vec![table(8)].into(), ..Holder::new(Pid(7)) };
        let opath = Holder { opaths: vec![Fd(3)].into(), ..Holder::new(Pid(10)) };
        let fds = Holder { fds: vec![Fd(5), Fd(6)].into(), ..Holder::new(Pid(11)) };
        buffer.holders = vec![threads, opath, fds];
        let tried: Vec<_> = candidates(&buffer).collect();
        assert_eq!(tried, [(Pid(11), None, Fd(5)), (Pid(7), Some(Tid(8)), Fd(9))]);
    }

    /// Check that every refusal is one line.
    #[test]
    fn refusals_are_one_line() {
        let all = [
            Refusal::NotDmaBuf(Kind::Memfd),
            Refusal::NotLive,
            Refusal::OtherPids,
            Refusal::NoFd { is_mapped: true, has_opath: false },
            Refusal::NoFd { is_mapped: false, has_opath: true },
            Refusal::NoFd { is_mapped: false, has_opath: false },
            Refusal::TooLong(40),
            Refusal::HasNul,
            Refusal::IsNamed("a\nb".into()),
            Refusal::Denied { holder: Pid(1), yama: Some(1) },
            Refusal::Denied { holder: Pid(1), yama: None },
            Refusal::Gone(Pid(1)),
            Refusal::NoThreads(Pid(1)),
            Refusal::NotSupported,
            Refusal::Attached,
            Refusal::NoNames,
            Refusal::Raced("a\nb".into()),
            failed("read", Errno::IO),
        ];
        for refusal in all {
            let text = refusal.to_string();
            assert!(!text.is_empty() && !text.contains('\n'), "{refusal:?}");
        }
    }
}
