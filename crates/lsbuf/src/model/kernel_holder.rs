//! What holds a buffer inside the kernel, where the kernel gives it a name.

use super::{Label, Pid};

/// Something in the kernel that has, or may have, a reference to a buffer.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub struct KernelHolder {
    /// What sort of thing it is.
    pub what: KernelHolderKind,
    /// Its name: a loop device's such as `loop0`, the path that an io_uring prints for its file, a
    /// socket such as `socket:[18583]`, the mount point of an overlay, or a path below it.
    pub name: Label,
    /// The process that has the io_uring, the receiving socket, or a file of the overlay open.
    /// `None`: a loop device and a mount are no process's.
    pub pid: Option<Pid>,
    /// Whether it is certain. If not, it is a candidate: the name or the number of fds fits.
    pub is_proven: bool,
}

/// A sort of [`KernelHolder`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum KernelHolderKind {
    /// A loop device whose backing file it is.
    Loop,
    /// An io_uring with a fixed file of that name.
    IoUring,
    /// A socket with fds in messages that nobody has received.
    Message,
    /// An overlay with a layer that the file is below. If a process is named, it has a file open
    /// through the overlay that may be this one.
    Overlay,
}

impl KernelHolderKind {
    /// Every sort.
    pub const ALL: &'static [KernelHolderKind] = &[
        KernelHolderKind::Loop,
        KernelHolderKind::IoUring,
        KernelHolderKind::Message,
        KernelHolderKind::Overlay,
    ];

    /// The sort for which [`KernelHolderKind::as_str`] has that word.
    #[must_use]
    pub fn of_word(word: &str) -> Option<KernelHolderKind> {
        KernelHolderKind::ALL.iter().copied().find(|kind| kind.as_str() == word)
    }

    /// The word for it in JSON and on the terminal.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            KernelHolderKind::Loop => "loop",
            KernelHolderKind::IoUring => "io_uring",
            KernelHolderKind::Message => "message",
            KernelHolderKind::Overlay => "overlay",
        }
    }
}
