//! How many references a GEM object has beyond fds and mappings.

/// References of a GEM object that was exported, beyond fds: the object's own and the device file's PRIME cache.
pub(super) const EXPORTED: u64 = 2;
/// References of a GEM object that was imported: those of an exported one, and the attachment's.
pub(super) const IMPORTED: u64 = 3;
