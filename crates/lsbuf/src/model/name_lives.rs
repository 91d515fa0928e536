//! What becomes of the name of a file or segment when its only holder exits.

/// What becomes of a buffer's name when its only holder exits.
///
/// A file of a tmpfs or hugetlbfs has a name in a filesystem, and a System V segment an id in an
/// IPC namespace. Both keep it, but only as long as the filesystem or the namespace lives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum NameLives {
    /// It stays, because another process sees the filesystem or is in the namespace. Also said of a
    /// buffer without such a name, and of one with several holders.
    #[default]
    Stays,
    /// It goes with the only holder, which is proven: nothing else keeps the filesystem or the
    /// namespace. So the exit of that process frees the buffer.
    GoesWithHolder,
    /// Nobody was found who keeps the filesystem or the namespace, but that proves nothing.
    Unknown,
}

impl NameLives {
    /// Whether the name stays. `None`: unknown.
    #[must_use]
    pub fn stays(self) -> Option<bool> {
        match self {
            NameLives::Stays => Some(true),
            NameLives::GoesWithHolder => Some(false),
            NameLives::Unknown => None,
        }
    }

    /// The value for which [`NameLives::stays`] returns that.
    #[must_use]
    pub fn of_stays(stays: Option<bool>) -> NameLives {
        match stays {
            Some(true) => NameLives::Stays,
            Some(false) => NameLives::GoesWithHolder,
            None => NameLives::Unknown,
        }
    }
}
