//! How many references a GEM object has besides fds and mappings.

/// References to the dma-buf of an exported GEM object, besides fds: that of the object, and that
/// of the device file's PRIME cache.
pub(in crate::scenarios) const EXPORTED: u64 = 2;
/// References to an imported dma-buf, besides fds: those of an exported one, and that of the
/// attachment.
pub(in crate::scenarios) const IMPORTED: u64 = 3;
