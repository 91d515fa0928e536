//! What runs inside the test kernels, and the words it shares with the host.
//!
//! Nothing about dma-bufs can be tested on an arbitrary developer's kernel, so `cargo xtask vm` boots stock kernels
//! with an initramfs whose only program is this crate's binary. Its [`init`] prepares the machine, its [`modes`] are
//! the jobs it can do there, and [`scenarios`] are the tests. The host links the same library, so the list of
//! scenarios it expects and the [`report`] it reads are compiled from the code that ran in the guest.
//!
//! Limits: x86-64 and arm64 guests only; no scenario may depend on a kernel version, only on a
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
pub mod make;
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
