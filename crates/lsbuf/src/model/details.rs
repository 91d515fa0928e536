//! What can be told of a process beyond its identity: its command line, its user's name, its
//! container. Each needs further reads for each process, so it is read only if it is asked for.
//!
//! Limits: a detail is `None` if it was not asked for, and also if it could not be read.

use std::fmt;

use super::{Bytes, Label, Pid};

/// One detail, or several that are read together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Detail {
    /// [`ProcessDetails::args`].
    Args,
    /// [`ProcessDetails::exe`].
    Exe,
    /// [`ProcessDetails::user`].
    User,
    /// [`ProcessDetails::fd_limit`].
    FdLimit,
    /// [`ProcessDetails::rss_shmem`].
    RssShmem,
    /// [`ProcessDetails::parent`].
    Parent,
    /// [`ProcessDetails::workload`].
    Workload,
    /// Of System V segments: [`Segment::creator_comm`](super::Segment::creator_comm) and
    /// [`Segment::last_comm`](super::Segment::last_comm).
    SegmentUsers,
    /// [`Snapshot::mount_points`](super::Snapshot::mount_points).
    MountPoints,
    /// [`Buffer::open_files`](super::Buffer::open_files).
    OpenFiles,
    /// [`Buffer::origin`](super::Buffer::origin), without the stack.
    Origin,
    /// [`Birth::stack`](super::Birth::stack).
    Stacks,
}

impl Detail {
    /// Every detail.
    pub const ALL: &'static [Detail] = &[
        Detail::Args,
        Detail::Exe,
        Detail::User,
        Detail::FdLimit,
        Detail::RssShmem,
        Detail::Parent,
        Detail::Workload,
        Detail::SegmentUsers,
        Detail::MountPoints,
        Detail::OpenFiles,
        Detail::Origin,
        Detail::Stacks,
    ];
}

/// A set of details.
///
/// ```
/// use lsbuf::model::{Detail, Details};
/// let set: Details = [Detail::Args, Detail::User].into_iter().collect();
/// assert!(set.has(Detail::Args) && !set.has(Detail::Exe) && Details::ALL.has(Detail::Exe));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Details(u16);

impl Details {
    /// No detail.
    pub const NONE: Details = Details(0);

    /// Every detail.
    pub const ALL: Details = Details((1 << Detail::ALL.len()) - 1);

    /// Whether the set has that detail.
    #[must_use]
    pub fn has(self, detail: Detail) -> bool {
        self.0 & 1 << detail as u16 != 0
    }

    /// The details of both sets.
    #[must_use]
    pub fn and(self, others: Details) -> Details {
        Details(self.0 | others.0)
    }

    /// Whether the set has a detail of processes.
    #[must_use]
    pub fn has_any_of_processes(self) -> bool {
        let others =
            [Detail::SegmentUsers, Detail::MountPoints, Detail::OpenFiles, Detail::Origin, Detail::Stacks];
        let others: Details = others.into_iter().collect();
        self.0 & !others.0 != 0
    }
}

impl From<Detail> for Details {
    fn from(detail: Detail) -> Details {
        Details(1 << detail as u16)
    }
}

impl FromIterator<Detail> for Details {
    fn from_iter<I: IntoIterator<Item = Detail>>(details: I) -> Details {
        details.into_iter().fold(Details::NONE, |set, detail| set.and(detail.into()))
    }
}

/// The details of one process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ProcessDetails {
    /// Its command line, which it can change itself.
    pub args: Option<Args>,
    /// The path of its program as the kernel prints it (`/proc/P/exe`), with ` (deleted)` if that
    /// was unlinked.
    pub exe: Option<Label>,
    /// The name of its real user. `None` also if that has no name.
    pub user: Option<Label>,
    /// How many fds it may have open: the soft limit (`RLIMIT_NOFILE`).
    pub fd_limit: Option<u64>,
    /// Pages of shared memory that are in its page tables (`RssShmem` of `/proc/P/status`).
    pub rss_shmem: Option<Bytes>,
    /// Its parent now: another process adopts it if the first one exits. `None` also if it has no
    /// parent in the reader's pid namespace.
    pub parent: Option<Pid>,
    /// Where it runs, by its cgroup. `None` also if that is outside of the reader's cgroup
    /// namespace.
    pub workload: Option<Workload>,
}

impl ProcessDetails {
    /// Leaves out the details that are not in the set.
    pub(crate) fn keep(&mut self, wanted: Details) {
        let ProcessDetails { args, exe, user, fd_limit, rss_shmem, parent, workload } = self;
        *args = args.take().filter(|_| wanted.has(Detail::Args));
        *exe = exe.take().filter(|_| wanted.has(Detail::Exe));
        *user = user.take().filter(|_| wanted.has(Detail::User));
        *fd_limit = fd_limit.filter(|_| wanted.has(Detail::FdLimit));
        *rss_shmem = rss_shmem.filter(|_| wanted.has(Detail::RssShmem));
        *parent = parent.filter(|_| wanted.has(Detail::Parent));
        *workload = workload.take().filter(|_| wanted.has(Detail::Workload));
    }
}

/// A command line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Args {
    /// Its words. A process that shows a title in their place, as postgres does, has one word. A
    /// process that has erased them, or is exiting, has none.
    pub words: Vec<Label>,
    /// Whether all of it was read ([`Options::longest_args`](crate::scan::Options::longest_args)).
    pub is_whole: bool,
}

impl Args {
    /// The words with a blank between two of them.
    #[must_use]
    pub fn line(&self) -> Label {
        let words: Vec<&[u8]> = self.words.iter().map(Label::as_bytes).collect();
        Label::from(&words.join(&b' ')[..])
    }
}

/// The unit, the container and the pod that a process runs in, by the path of its cgroup. A field
/// that is `None` means that it runs in none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Workload {
    /// The innermost unit of systemd that is no slice.
    pub unit: Option<Label>,
    /// The innermost container: its id, or `RUNTIME:NAME` where the path has a name.
    pub container: Option<Label>,
    /// The pod of Kubernetes.
    pub pod: Option<Pod>,
}

/// A pod of Kubernetes.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Pod {
    /// Its UID, with dashes where it has any; of a static pod 32 hex digits.
    pub uid: Label,
    /// Its namespace and name. `None`: no folder of the pods' logs tells them.
    pub name: Option<PodName>,
    /// The name that the container has in the pod. `None`: no link to its log tells it.
    pub container: Option<Label>,
}

/// A pod's namespace and name, each made of letters, digits, dots and dashes.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PodName {
    /// The namespace.
    pub namespace: Label,
    /// The pod's name in it.
    pub name: Label,
}

impl Pod {
    /// A pod of which only the UID is known.
    #[must_use]
    pub fn new(uid: Label) -> Pod {
        Pod { uid, name: None, container: None }
    }
}

/// `NAMESPACE/NAME`, or else the UID, which has no slash.
impl fmt::Display for Pod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            Some(PodName { namespace, name }) => write!(f, "{namespace}/{name}"),
            None => write!(f, "{}", self.uid),
        }
    }
}

impl PodName {
    /// From a namespace and a name.
    #[must_use]
    pub fn new(namespace: Label, name: Label) -> PodName {
        PodName { namespace, name }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check that a set has the details that were put in and no others.
    #[test]
    fn sets() {
        let set: Details = [Detail::Exe, Detail::SegmentUsers].into_iter().collect();
        let members: Vec<Detail> = Detail::ALL.iter().copied().filter(|&detail| set.has(detail)).collect();
        assert_eq!(members, [Detail::Exe, Detail::SegmentUsers]);
        assert!(set.has_any_of_processes() && !Details::from(Detail::SegmentUsers).has_any_of_processes());
        let origins: Details = [Detail::Origin, Detail::Stacks].into_iter().collect();
        assert!(!origins.has_any_of_processes());
        assert_eq!(Detail::ALL.iter().copied().collect::<Details>(), Details::ALL);
    }

    /// Check that a command line is its words with blanks between them.
    #[test]
    fn lines() {
        let args = |words: &[&str]| Args { words: words.iter().map(|&w| w.into()).collect(), is_whole: true };
        assert_eq!(args(&["a", "", "b c"]).line(), Label::from("a  b c"));
        assert_eq!(args(&[]).line(), Label::default());
    }
}
