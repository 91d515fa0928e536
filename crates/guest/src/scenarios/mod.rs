//! The tests that run in real kernels.
//!
//! A scenario makes a situation whose true account it knows, runs lsbuf, and compares. It makes one
//! claim and lists what it needs of the kernel. It runs in a process of its own, once in each way
//! that it lists. To add one, write a function and a row in the `SCENARIOS` of a module here. A new
//! module gets a row in [`crate::suite`].

pub(crate) mod boots;
pub(crate) mod cases;
pub mod check;
pub(crate) mod everything;
pub(crate) mod formats;
pub(crate) mod hanging;
pub(crate) mod hiding;
pub(crate) mod holding;
pub(crate) mod huge_pages;
pub(crate) mod impostors;
pub(crate) mod kernel_refs;
pub(crate) mod leaking;
pub(crate) mod machine;
pub(crate) mod making;
pub(crate) mod mapping;
pub(crate) mod names;
pub(crate) mod naming;
pub(crate) mod origins;
pub(crate) mod people;
pub(crate) mod probes;
pub(crate) mod procmap;
pub(crate) mod reconcile;
pub(crate) mod recording;
pub(crate) mod rights;
pub(crate) mod serving;
pub(crate) mod shmem;
pub(crate) mod soaking;
pub(crate) mod sources;
pub(crate) mod tracing;
pub(crate) mod unlisted;
pub(crate) mod video;
