//! Who holds every shared buffer on this Linux machine, through what, and what each really costs.
//!
//! dma-bufs (camera frames, video surfaces, GPU images) are memory that `top`, `ps` and `free` cannot
//! attribute: a mapped one usually has no RSS, and one that is held only by an fd, by a message in flight or
//! by a driver appears in no process at all. This crate asks the kernel for every reference, joins the answers
//! into a [`model::Snapshot`] and measures it with [`model::Ledger`], which balances: what the kernel counts is
//! fds, mappings, and a named rest.
//!
//! ```
//! let snapshot = lsbuf::scan(lsbuf::scan::Options::default())?;
//! let ledger = lsbuf::model::Ledger::of(&snapshot);
//! for (buffer, account) in snapshot.buffers.iter().zip(&ledger.accounts) {
//!     println!("{}: {} fds, {} mappings", buffer.id.ino, account.fd, account.map);
//! }
//! if !snapshot.coverage.is_complete() {
//!     eprintln!("partial: {:?}", snapshot.coverage.notes);
//! }
//! # Ok::<(), lsbuf::Error>(())
//! ```
//!
//! Facts flow one way: `kernel` asks, [`mod@scan`] joins, [`model`] measures, [`render`] shows.
//!
//! [`mod@check`] stands apart: on buffers of its own it tries whether this kernel keeps what the ledger rests on.
//!
//! [`mod@reconcile`] sets what is found of shared memory against the kernel's own total.
//!
//! What it does not do: it never prints, exits or needs a daemon; a scan leaves nothing in the kernel: BPF programs that it
//! loads go with the scanner. Not yet: without them it tells how many fds are in flight, but not of which buffer.

#[cfg(feature = "bench")]
#[doc(hidden)]
pub mod benching;
pub mod check;
mod error;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
mod kernel;
pub mod model;
pub mod probes;
pub mod reconcile;
pub mod render;
pub mod scan;

pub use error::{Error, ErrorKind};

/// Takes one snapshot. For more than one keep a [`scan::Scanner`].
///
/// # Errors
/// See [`scan::Scanner::new`] and [`scan::Scanner::scan`].
pub fn scan(options: scan::Options) -> Result<model::Snapshot, Error> {
    scan::Scanner::new(options)?.scan()
}
