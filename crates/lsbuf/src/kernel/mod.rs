//! Asking the kernel: one module per interface.
//!
//! A source yields facts, or a typed reason why not; it never decides what an answer means, never
//! compares kernel versions and never prints. Parsers are pure functions of bytes, so that recorded
//! text and hostile text reach them the same way. This is the only home of `unsafe`: system calls that rustix does not
//! have, in [`kcmp`], [`procmap`] and [`shmem`], and in [`own`] what lsbuf maps itself.
//!
//! What is read is a running kernel's procfs or a recording of one: [`tree`] has what differs.
//!
//! **What may touch a stranger's file.** A holder's fd can point at a file on a network mount whose
//! server is gone, and any call that asks that filesystem would hang. Therefore:
//! - `readlink` of `/proc/P/fd/N` and of `map_files` entries prints the path from the dentry cache and
//!   never enters the filesystem;
//! - `fdinfo` is read only for links that start with `/dmabuf:` and for sockets and io_urings; the file's
//!   `show_fdinfo` is called, which network filesystems and FUSE do not have; an io_uring's gives up when the ring is
//!   busy; DRM files, whose `show_fdinfo` takes driver locks, are left alone;
//! - where shmem is looked for, `statx` (`AT_STATX_DONT_SYNC`) asks what has a name of the kernel's own tmpfs or a path below
//!   a mounted one, as the innermost mount of its holder's namespace says ([`shmem`]). Left over is a file of a dead network
//!   server that was received from another mount namespace, in which its path is below no such mount;
//! - only mount points of a tmpfs are asked for what is used, looked up from the kernel's cache alone where it can be told
//!   to ([`shmem::usage`]);
//! - only what is thereby proven to be a dma-buf, or passed the tests in [`identity`], is opened
//!   (`O_PATH`) and asked for its inode.
//!
//! Who may not follow links, with CAP_SYS_PTRACE alone, cannot choose by them. Then the `fdinfo` of every fd is read, which
//! takes locks of the files' drivers for a moment: that of a DRM file its client's tables, that of an inotify or epoll
//! instance its list ([`fdinfo_table`]). Still no network filesystem or FUSE is asked. And one fd that is proven to be a
//! dma-buf's is duplicated for a moment, to learn the device of their filesystem ([`duplicate::device`]); that
//! buffer's count is one higher while it lasts, and nothing of this scan reads it then.

pub(crate) mod activity;
pub(crate) mod bpf;
#[cfg_attr(
    not(all(feature = "bpf", feature = "check")),
    allow(dead_code, reason = "each part of it is for one of the two")
)]
pub(crate) mod btf;
pub(crate) mod bufinfo;
pub(crate) mod devices;
pub(crate) mod duplicate;
pub(crate) mod fdinfo;
pub(crate) mod fdinfo_table;
pub(crate) mod fds;
pub(crate) mod gem_info;
pub(crate) mod guard;
pub(crate) mod hidden_refs;
pub(crate) mod identity;
pub(crate) mod kcmp;
pub(crate) mod magic;
pub(crate) mod map_files;
pub(crate) mod mapped_as;
pub(crate) mod maps;
pub(crate) mod meminfo;
#[cfg_attr(not(feature = "check"), allow(dead_code, reason = "most of it is for checks"))]
pub(crate) mod own;
pub(crate) mod parse;
pub(crate) mod path;
pub(crate) mod pending;
pub(crate) mod process;
pub(crate) mod procmap;
pub(crate) mod read;
pub(crate) mod rights;
pub(crate) mod root;
pub(crate) mod sharing;
pub(crate) mod shmem;
pub(crate) mod task;
pub(crate) mod tree;

/// Where the name of every dma-buf's path begins (`dmabuffs_dname` in drivers/dma-buf/dma-buf.c). A
/// filter, never a proof: an ordinary file at the root of a container can be called so.
pub(crate) const LINK_PREFIX: &[u8] = b"/dmabuf:";
