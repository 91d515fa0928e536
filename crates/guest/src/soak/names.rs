//! Names that the soak test uses: modes of this program, and memfds.

/// The mode of a player that has called exec.
pub const PLAYER_MODE: &str = "soak-player";

/// The mode of a child that executes its program again and again.
pub const CHAIN_MODE: &str = "soak-chain";

/// The mode of the soak test of the kernel's lists.
pub const LISTS_MODE: &str = "soak-lists";

/// The exporter of a memfd in the journal. A memfd has none.
pub(super) const MEMFD: &str = "memfd";

/// The key of a memfd in the journal. A dma-buf may have the same inode number, so the key has an
/// extra bit.
pub(super) fn memfd_key(ino: u64) -> u64 {
    ino | 1 << 62
}

/// The name that memfds get.
pub(super) const MEMFD_NAME: &[u8] = b"soak";
