//! Which events of a trace are of interest.
//!
//! Limits: when a file is freed its name is gone, and of one that is older than the trace its kind
//! is, too. So a filter by name or kind leaves out the end of such a file.

use clap::Args;
use clap::builder::NonEmptyStringValueParser;
use globset::GlobMatcher;
use lsbuf::model::{Bytes, Event, Kinds, Pid};
use lsbuf::trace::Trace;

use super::word;
use crate::args::{chosen_kinds, glob, kinds, pid, size};
use crate::select;

#[derive(Debug, Args)]
#[command(next_help_heading = "Filter")]
pub(super) struct ChosenEvents {
    /// Print these events alone: made, fd, received, mapped, attached, detached, renamed, freed
    #[arg(short, long = "event", value_name = "EVENT,…", value_delimiter = ',', value_parser = word)]
    events: Vec<&'static str>,
    /// Only of these kinds: dmabuf, memfd, sysv, shm-anon, tmpfs, hugetlbfs, gem-shmem, ashmem,
    /// shm-other, secretmem, guest_memfd, or all
    #[arg(
        long = "kind",
        value_name = "KIND,…",
        env = "LSBUF_KIND",
        hide_env_values = true,
        value_delimiter = ',',
        value_parser = kinds
    )]
    kinds: Vec<Kinds>,
    /// Only of dma-bufs, whatever --kind says
    #[arg(short, long)]
    dmabuf: bool,
    /// Only what these processes do: 12,13
    #[arg(short, long = "pid", value_name = "PID", value_delimiter = ',', value_parser = pid)]
    pids: Vec<Pid>,
    /// Only what processes do whose command matches, such as 'gst*'
    #[arg(long, value_name = "GLOB", value_parser = glob)]
    comm: Option<GlobMatcher>,
    /// Only what processes do whose cgroup matches, such as '/system.slice/*'
    #[arg(long, value_name = "GLOB", value_parser = glob)]
    cgroup: Option<GlobMatcher>,
    /// Only of dma-bufs of these exporters, by exact name: system,udmabuf
    #[arg(long = "exporter", value_name = "EXPORTER", value_delimiter = ',', value_parser = NonEmptyStringValueParser::new())]
    exporters: Vec<String>,
    /// Only of buffers whose name matches, such as 'cam*'
    #[arg(long, value_name = "GLOB", value_parser = glob)]
    name: Option<GlobMatcher>,
    /// Only of buffers of at least this SIZE, such as 10M
    #[arg(long, value_name = "SIZE", value_parser = size)]
    min_size: Option<Bytes>,
}

impl ChosenEvents {
    /// Whether the event passes all filters but that for its own sort.
    pub(super) fn has(&self, event: &Event, trace: &mut Trace) -> bool {
        let buffer = &event.buffer;
        let kinds = chosen_kinds(&self.kinds, self.dmabuf);
        (kinds == Kinds::ALL || buffer.kind.is_some_and(|kind| kinds.has(kind)))
            && (self.pids.is_empty() || self.pids.contains(&event.by.pid))
            && select::is_named(self.comm.as_ref(), Some(&event.by.command))
            && select::is_made_by(&self.exporters, buffer.exporter.as_ref())
            && select::is_named(self.name.as_ref(), buffer.name.as_ref())
            && self.min_size.is_none_or(|least| buffer.size >= least)
            && (self.cgroup.is_none()
                || select::is_named(self.cgroup.as_ref(), trace.cgroup(&event.by).as_ref()))
    }

    /// Whether events of this sort are printed.
    pub(super) fn has_word(&self, event: &Event) -> bool {
        self.events.is_empty() || self.events.contains(&event.what.word())
    }
}
