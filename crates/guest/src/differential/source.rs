//! The sources of lsbuf that are compared, and what each can know.

use crate::need::Need;

/// A value of `--source`.
#[derive(Clone, Copy, Debug)]
pub(super) struct ComparedSource {
    /// The value of `--source`.
    pub(super) name: &'static str,
    /// What the kernel must have for it.
    pub(super) need: Option<Need>,
    /// Whether it counts references to files and tells which are in messages.
    pub(super) counts: bool,
    /// Whether it tells offsets and protections of mappings.
    pub(super) detailed: bool,
}

impl ComparedSource {
    const BPF: ComparedSource =
        ComparedSource { name: "bpf", need: Some(Need::Iterators), counts: true, detailed: true };
    const MAPS: ComparedSource =
        ComparedSource { name: "maps,bufinfo", need: None, counts: false, detailed: true };

    pub(super) const ALL: &[ComparedSource] = &[
        ComparedSource::BPF,
        ComparedSource { name: "procfs,bufinfo", ..ComparedSource::MAPS },
        ComparedSource { name: "procmap,bufinfo", need: Some(Need::Procmap), ..ComparedSource::MAPS },
        ComparedSource::MAPS,
        ComparedSource { name: "map_files,bufinfo", detailed: false, ..ComparedSource::MAPS },
    ];
}
