//! The ways in which scenarios run lsbuf: the sources that lsbuf is told to use.
//!
//! An answer must not depend on the source, so a scenario runs once in each way that it lists. The
//! way reaches lsbuf as the default of its `--source`. It is in the environment of the scenario's
//! process and of all processes that it starts.

use std::fmt;
use std::process::Command;

use crate::need::Need;

/// The environment variable that names lsbuf's sources if there is no `--source`.
pub const VARIABLE: &str = "LSBUF_SOURCE";

/// The environment variable that names the kinds of buffer that lsbuf looks for if there is no
/// `--kind`.
pub const KINDS: &str = "LSBUF_KIND";

/// The sources that lsbuf is told to use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// BPF iterators, or no answer.
    Bpf,
    /// procfs, and the kernel's own list of dma-bufs.
    Procfs,
    /// What lsbuf chooses itself.
    Auto,
}

impl Way {
    /// The ways of a scenario that expects the same of both.
    pub const BOTH: &'static [Way] = &[Way::Bpf, Way::Procfs];

    const ALL: [Way; 3] = [Way::Bpf, Way::Procfs, Way::Auto];

    /// The name in reports and on the screen.
    pub fn name(self) -> &'static str {
        match self {
            Way::Bpf => "bpf",
            Way::Procfs => "procfs",
            Way::Auto => "auto",
        }
    }

    /// The value of `--source`.
    pub fn sources(self) -> &'static str {
        match self {
            Way::Bpf => "bpf",
            Way::Procfs => "procfs,bufinfo",
            Way::Auto => "auto",
        }
    }

    /// What the kernel must have for this way.
    pub fn needs(self) -> &'static [Need] {
        match self {
            Way::Bpf => &[Need::Iterators],
            Way::Procfs | Way::Auto => &[],
        }
    }

    /// Whether lsbuf, run by root in this way, uses BPF iterators on the running kernel.
    pub fn is_bpf(self) -> bool {
        match self {
            Way::Bpf => true,
            Way::Procfs => false,
            Way::Auto => Need::Iterators.probe(),
        }
    }

    /// The source of root's list of all dma-bufs on the running kernel.
    pub fn list(self) -> &'static str {
        if self.is_bpf() && Need::BufferIterator.probe() { "bpf:dmabuf" } else { "bufinfo" }
    }

    /// Makes a command, and all that it starts, use this way.
    pub fn choose(self, command: &mut Command) {
        command.env(VARIABLE, self.sources());
    }

    /// The way that this process was told to use, or [`Way::Auto`] if none.
    pub fn of_environment() -> Way {
        let told = std::env::var(VARIABLE).unwrap_or_default();
        Way::ALL.into_iter().find(|way| way.sources() == told).unwrap_or(Way::Auto)
    }
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}
