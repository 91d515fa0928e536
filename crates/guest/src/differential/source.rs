//! The sources of lsbuf that are compared, and what each can know.

use crate::need::Need;

/// A value of `--source`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Source {
    /// The value of `--source`.
    pub(super) name: &'static str,
    /// What the kernel must have for it.
    pub(super) need: Option<Need>,
    /// Whether it counts references to files and tells which are in messages.
    pub(super) counts: bool,
    /// Whether it tells offsets and protections of mappings.
    pub(super) detailed: bool,
}

impl Source {
    const BPF: Source = Source { name: "bpf", need: Some(Need::Iterators), counts: true, detailed: true };
    const MAPS: Source = Source { name: "maps,bufinfo", need: None, counts: false, detailed: true };

    pub(super) const ALL: &[Source] = &[
        Source::BPF,
        Source { name: "procfs,bufinfo", ..Source::MAPS },
        Source { name: "procmap,bufinfo", need: Some(Need::Procmap), ..Source::MAPS },
        Source::MAPS,
        Source { name: "map_files,bufinfo", detailed: false, ..Source::MAPS },
    ];
}
