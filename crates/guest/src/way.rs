//! The ways by which scenarios have lsbuf ask the kernel.
//!
//! An answer must not depend on the way, so a scenario that asks runs once by each. The way reaches lsbuf as the default of
//! its `--source`, in the environment of the scenario's process and of all that it starts.

use std::fmt;
use std::process::Command;

use crate::need::Need;

/// The environment variable that names the sources which lsbuf asks where no `--source` does.
pub const VARIABLE: &str = "LSBUF_SOURCE";

/// The environment variable that names the kinds of buffer which lsbuf looks for where no `--kind` does.
pub const KINDS: &str = "LSBUF_KIND";

/// A way to ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// BPF iterators or no answer.
    Bpf,
    /// procfs and the kernel's own list.
    Procfs,
    /// What lsbuf chooses by itself.
    Auto,
}

impl Way {
    /// For what must be the same by either.
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

    /// What the kernel must have for it.
    pub fn needs(self) -> &'static [Need] {
        match self {
            Way::Bpf => &[Need::Iterators],
            Way::Procfs | Way::Auto => &[],
        }
    }

    /// Whether root is answered by BPF iterators in the running kernel.
    pub fn is_bpf(self) -> bool {
        match self {
            Way::Bpf => true,
            Way::Procfs => false,
            Way::Auto => Need::Iterators.probe(),
        }
    }

    /// The source by which root gets the list of all buffers in the running kernel.
    pub fn list(self) -> &'static str {
        if self.is_bpf() && Need::BufferIterator.probe() { "bpf:dmabuf" } else { "bufinfo" }
    }

    /// Has a command, and whatever it starts, ask by this way.
    pub fn choose(self, command: &mut Command) {
        command.env(VARIABLE, self.sources());
    }

    /// The way that this process was told to ask by; [`Way::Auto`] if none.
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
