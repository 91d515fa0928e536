//! What runs inside the test kernels, and the types that it shares with the host.
//!
//! dma-bufs cannot be tested on an arbitrary developer's kernel. So `cargo xtask vm` boots stock
//! kernels with an initramfs whose only test program is this crate's binary. [`init`] prepares the
//! machine, [`modes`] lists the jobs that the binary can do there, and [`scenarios`] are the tests.
//! The host links the same library. So the scenarios that it expects and the [`report`] that it
//! reads come from the code that ran in the guest.
//!
//! Limits: x86-64 and arm64 guests only. A scenario never depends on a kernel version, only on a
//! [`need::Need`] that is probed.

pub mod actor;
pub mod answer;
pub mod bench;
pub mod caller;
pub mod demo;
pub mod differential;
pub mod hanging;
pub mod hostile;
pub mod init;
pub mod kernels;
pub mod make;
pub mod maker;
pub mod modes;
pub mod need;
pub mod output;
pub mod pins;
pub mod processes;
pub mod programs;
pub mod record;
pub mod report;
pub mod runner;
pub mod scenario;
pub mod scenarios;
pub mod shell;
pub mod soak;
pub mod suite;
pub mod sys;
pub mod terminal;
pub mod tree;
pub mod way;
