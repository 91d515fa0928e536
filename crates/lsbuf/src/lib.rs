//! Which processes hold each shared buffer of this Linux machine, by what references, and at what
//! cost?
//!
//! Shared buffers are dma-bufs (camera frames, video surfaces, GPU images) and shared memory
//! (memfds, System V segments, files of tmpfs and hugetlbfs). `top`, `ps` and `free` cannot
//! attribute them: the memory of a mapped dma-buf is usually in no RSS, and a buffer that only an
//! fd, a message in flight or a driver holds appears in no process at all. This crate reads every
//! reference from the kernel and joins them.
//!
//! Processes that hold more than 64 MiB, largest first:
//!
//! ```
//! use std::cmp::Reverse;
//!
//! use lsbuf::model::{Bytes, Ledger, ProcessRow};
//! use lsbuf::scan::Options;
//!
//! let snapshot = lsbuf::scan(Options::default())?;
//! let ledger = Ledger::of(&snapshot);
//! let is_large = |row: &ProcessRow| row.figures.pss > Some(Bytes(64 << 20));
//! let mut large: Vec<_> = ledger.processes().filter(is_large).collect();
//! large.sort_by_key(|row| Reverse(row.figures.pss));
//! for ProcessRow { process, figures, .. } in large {
//!     println!("{:>8} {:>8} {}", process.pid, figures.pss.unwrap_or_default(), process.comm);
//! }
//! # Ok::<(), lsbuf::Error>(())
//! ```
//!
//! # Which item do I need?
//!
//! | question | start here |
//! |---|---|
//! | Who holds what, now? | [`scan()`], or [`scan::Scanner`] for more than one scan |
//! | What does each process cost? | [`model::Ledger::processes`] |
//! | Where are one buffer's references? | [`model::Ledger::rows`], [`model::Account`] |
//! | Is the answer complete? | [`model::Coverage::is_complete`], [`model::Coverage::notes`] |
//! | Is a residual proven? | [`model::Residual`] |
//! | Can I mark a dma-buf that another process made? | [`naming`] |
//! | As root, for ordinary users' scans? | [`probes`] |
//! | Does `Shmem:` of `/proc/meminfo` add up? | [`mod@reconcile`] |
//! | Does this kernel behave as lsbuf assumes? | `check` (feature `check`) |
//! | The tables and JSON of the command? | `render` (feature `render`) |
//! | What was there before? | `history` (feature `history`) |
//!
//! # What a scan needs, and what it leaves behind
//!
//! By default a scan reads procfs, and BPF iterators if root has pinned them. It loads nothing into
//! the kernel: that has to be asked for ([`scan::Sources::load_bpf`]), and goes with the scanner. A
//! scan of processes of other users needs root; without it the answer is partial and says so.
//!
//! Nothing here prints, exits or needs a daemon.
//!
//! # Features
//!
//! | feature | default | adds |
//! |---|---|---|
//! | `bpf` | yes | loading BPF iterators; without it those that root has pinned are still read |
//! | `check` | yes | `check`: does this kernel behave as lsbuf assumes? |
//! | `history` | no | `history`: snapshots in an SQLite file; needs a C compiler; implies `serde` |
//! | `serde` | with `render` | [`model`] in the words of the JSON schema, and back |
//! | `render` | yes | `render`: tables, CSV, JSON and text; implies `serde` |
//! | `symbols` | no | names of functions in programs, for the stacks of those that made buffers |
//!
//! # How the modules depend on each other
//!
//! Facts flow one way: `kernel` reads, [`mod@scan`] joins, [`model`] measures, `render` shows.
//! `check` tests the kernel on buffers of its own. [`mod@reconcile`] compares what was found of
//! shared memory with the kernel's total. `history` stores snapshots and reads them back.

#[cfg(feature = "bench")]
#[doc(hidden)]
pub mod benching;
#[cfg(feature = "check")]
pub mod check;
mod error;
pub mod escape;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
#[cfg(feature = "history")]
pub mod history;
mod kernel;
pub mod model;
pub mod naming;
pub mod origins;
pub mod probes;
pub mod reconcile;
#[cfg(feature = "render")]
pub mod render;
pub mod scan;
mod stacks;
#[cfg(feature = "bpf")]
pub mod trace;

pub use error::{Error, ErrorKind};

/// Takes one snapshot. For more than one keep a [`scan::Scanner`].
///
/// # Errors
/// See [`scan::Scanner::new`] and [`scan::Scanner::scan`].
pub fn scan(options: scan::Options) -> Result<model::Snapshot, Error> {
    scan::Scanner::new(options)?.scan()
}

/// The example of the README, which is compiled as this crate's documentation is.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
