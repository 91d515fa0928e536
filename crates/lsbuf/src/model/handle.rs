//! GEM handles, as far as a driver's debugfs lists them.

use super::{Label, Pid};

/// A GEM handle that stands for a buffer, as a driver's debugfs lists it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub struct GemHandle {
    /// Who opened the device; the fd may have been handed on.
    pub pid: Pid,
    /// Its command name.
    pub comm: Label,
    /// The handle, a number of that client's.
    pub handle: u32,
    /// Whether the buffer came from elsewhere; else this device exported it.
    pub imported: bool,
}
