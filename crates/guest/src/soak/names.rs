//! What things are called in a soak: modes of this program, and memfds.

/// The mode in which this program is a player that has called exec.
pub const PLAYER_MODE: &str = "soak-player";

/// The mode of a child that keeps running its program again.
pub const CHAIN_MODE: &str = "soak-chain";

/// The exporter that the journal names for a memfd, which has none.
pub(super) const MEMFD: &str = "memfd";

/// What stands in the journal for a memfd's inode number, which a dma-buf may have too.
pub(super) fn memfd_key(ino: u64) -> u64 {
    ino | 1 << 62
}

/// The name of memfds.
pub(super) const MEMFD_NAME: &[u8] = b"soak";
