//! The tests that run in real kernels.
//!
//! A scenario makes a situation whose answer it knows, asks, and compares. It states one claim, says what it needs
//! of the kernel, and runs in a process of its own, once by each way to ask that it lists. Add one by writing a function and a
//! row in the `SCENARIOS` of a module here; a new module gets a row in [`crate::suite`].

pub(crate) mod boots;
pub mod check;
pub(crate) mod formats;
pub(crate) mod hanging;
pub(crate) mod hiding;
pub(crate) mod holding;
pub(crate) mod impostors;
pub(crate) mod kernel_refs;
pub(crate) mod machine;
pub(crate) mod making;
pub(crate) mod mapping;
pub(crate) mod names;
pub(crate) mod probes;
pub(crate) mod procmap;
pub(crate) mod reconcile;
pub(crate) mod rights;
pub(crate) mod shmem;
pub(crate) mod soaking;
pub(crate) mod sources;
pub(crate) mod unlisted;
pub(crate) mod video;
