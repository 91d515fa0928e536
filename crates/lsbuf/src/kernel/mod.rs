//! What lsbuf reads from the kernel: one module for each kernel interface.
//!
//! A module returns what the kernel says, or a typed reason why it could not be read. It does not
//! interpret an answer, compare kernel versions or print. Parsers are pure functions of bytes, so
//! tests, recordings and the fuzzer can give them any text.
//!
//! `unsafe` is allowed only in this folder. It is needed for system calls that rustix does not have
//! ([`kcmp`], [`procmap`], [`bpf`], [`shmem`], [`loops`]), for mappings that lsbuf makes itself
//! ([`own`]) and for the helper process ([`guard`]).
//!
//! | subject | modules |
//! |---|---|
//! | what is read: a running kernel's procfs or a recording of one | [`root`], [`tree`] |
//! | reading and parsing in general | [`read`], [`parse`], [`path`], [`magic`] |
//! | processes and threads | [`process`], [`task`], [`sharing`], [`kcmp`], [`activity`] |
//! | what else is told of a process | [`details`], [`workload`] |
//! | fds | [`fds`], [`fdinfo`], [`fdinfo_table`], [`duplicate`] |
//! | mappings | [`procmap`], [`maps`], [`map_files`], [`mapped_as`], [`smaps`], [`own`] |
//! | references that no process shows | [`hidden_refs`], [`pending`] |
//! | who has what holds them | [`hidden_holders`], [`loops`] |
//! | proof that a file is a dma-buf | [`identity`] |
//! | lists in debugfs and sysfs | [`bufinfo`], [`gem_info`], [`devices`] |
//! | shared memory that is no dma-buf | [`shmem`], [`meminfo`] |
//! | BPF iterators | [`bpf`], [`btf`] |
//! | reads that another process could block | [`guard`] |
//! | the one thing that is changed: a dma-buf's name | [`rename`] |
//! | names of functions in programs | `symbols` |
//! | calls in programs by a copy of their stack | `unwind` |
//! | the rights of lsbuf itself | [`rights`] |
//!
//! **What may touch a file of an untrusted process.** An fd of a holder can point at a file of a
//! network mount whose server is gone. A call that needs an answer of that filesystem would hang.
//! Therefore:
//! - `readlink` of `/proc/P/fd/N` and of entries of `map_files` prints the path from the dentry
//!   cache and never enters the file's filesystem.
//! - `fdinfo` is read only where the link begins with `/dmabuf:`, of sockets and io_urings, and of
//!   files of shared memory that may be opened with `O_PATH`. Reading it calls the file's
//!   `show_fdinfo`, which network filesystems and FUSE do not have. That of an io_uring gives up if
//!   the ring is busy. That of a DRM file takes driver locks, so it is not read.
//! - Where lsbuf looks for shared memory, it calls `statx` (`AT_STATX_DONT_SYNC`) on files with a
//!   name of the kernel's own tmpfs, and on files below a mounted tmpfs. Which mount a path is in
//!   is decided by the innermost mount of the holder's mount namespace ([`shmem`]). One case is
//!   left: a file of a dead network server that came from another mount namespace, where its path
//!   is below no such mount.
//! - The usage of a filesystem is read only at mount points of a tmpfs. They are looked up in the
//!   kernel's cache alone, where the kernel has a flag for that ([`shmem::usage`]).
//! - A file is opened (`O_PATH`) and its inode read only if it is already proven to be a dma-buf,
//!   or if it has passed the checks in [`identity`].
//!
//! Without the right to follow links, lsbuf cannot select fds by their target. A process that has
//! CAP_SYS_PTRACE alone is in that case. lsbuf then reads the `fdinfo` of every fd
//! ([`fdinfo_table`]). This takes locks for a moment: of a DRM file the tables of its client, of an
//! inotify or epoll instance its list. It still needs no answer of a network filesystem or FUSE.
//! lsbuf also duplicates one fd that is proven to be a dma-buf's, to learn the device of the
//! dma-buf filesystem ([`duplicate::device`]). The count of that buffer is one higher for that
//! moment, and nothing in the same scan reads it then.

pub(crate) mod activity;
pub(crate) mod bpf;
#[cfg_attr(
    not(all(feature = "bpf", feature = "check")),
    allow(dead_code, reason = "each part of it is for one of the two")
)]
pub(crate) mod btf;
#[cfg(any(feature = "bpf", feature = "check"))]
pub(crate) mod btf_file;
pub(crate) mod bufinfo;
pub(crate) mod cgroups;
#[cfg(feature = "bpf")]
pub(crate) mod clock;
pub(crate) mod details;
pub(crate) mod devices;
pub(crate) mod duplicate;
pub(crate) mod fdinfo;
pub(crate) mod fdinfo_table;
pub(crate) mod fds;
pub(crate) mod gem_info;
pub(crate) mod guard;
pub(crate) mod hidden_holders;
pub(crate) mod hidden_refs;
pub(crate) mod hugepages;
pub(crate) mod identity;
pub(crate) mod kcmp;
pub(crate) mod loops;
pub(crate) mod magic;
pub(crate) mod map_files;
pub(crate) mod mapped_as;
pub(crate) mod maps;
pub(crate) mod meminfo;
pub(crate) mod open_files;
#[cfg_attr(not(feature = "check"), allow(dead_code, reason = "much of it is for checks"))]
pub(crate) mod own;
pub(crate) mod page_payers;
pub(crate) mod parse;
pub(crate) mod path;
pub(crate) mod pending;
pub(crate) mod pinned;
pub(crate) mod private_huge;
pub(crate) mod process;
pub(crate) mod procmap;
pub(crate) mod read;
pub(crate) mod rename;
pub(crate) mod rights;
pub(crate) mod root;
pub(crate) mod sharing;
pub(crate) mod shmem;
pub(crate) mod smaps;
#[cfg(feature = "symbols")]
pub(crate) mod symbols;
pub(crate) mod task;
pub(crate) mod tree;
#[cfg(all(feature = "bpf", feature = "symbols"))]
pub(crate) mod unwind;
pub(crate) mod workload;

/// The beginning of every dma-buf's path (`dmabuffs_dname` in drivers/dma-buf/dma-buf.c). It is a
/// filter, never a proof: an ordinary file in the root folder of a container can have such a name.
pub(crate) const LINK_PREFIX: &[u8] = b"/dmabuf:";
