//! The parts of one buffer.

use std::sync::Arc;

use serde::Deserialize;

use super::super::{
    BufferId, Bytes, Dev, Fd, FdList, GemHandle, Holder, Inode, KernelHolder, KernelHolderKind, Kind, MapRef,
    OpenFile, OpenFileHolder, Overlap, Payer, Payers, PayingCgroup, Perms, Pid, PrivateCopies, Segment,
    SegmentReach, ShortList, ThreadFds, Tid,
};
use super::text::{address, label};
#[cfg(feature = "history")]
use super::{
    super::{Buffer, OpenFiles, Seals},
    text::labels,
};

#[derive(Deserialize)]
pub(super) struct JsonSegment {
    key: u32,
    owner: u32,
    creator_pid: Option<Pid>,
    creator_comm: Option<String>,
    creator_comm_bytes: Option<String>,
    last_pid: Option<Pid>,
    last_comm: Option<String>,
    last_comm_bytes: Option<String>,
    attached: u64,
    removed: bool,
    rss: Bytes,
    swap: Bytes,
    reached_pid: Option<Pid>,
    reached_path: Option<String>,
    reached_path_bytes: Option<String>,
    remove_command: Option<String>,
}

impl JsonSegment {
    pub(super) fn into_model(self) -> Result<Segment, String> {
        let path = label(self.reached_path, self.reached_path_bytes)?;
        // Where it is the reader's own, only the command line says so.
        let own = self.remove_command.map(|_| SegmentReach::Own);
        Ok(Segment {
            key: self.key,
            owner: self.owner,
            creator: self.creator_pid,
            creator_comm: label(self.creator_comm, self.creator_comm_bytes)?,
            last: self.last_pid,
            last_comm: label(self.last_comm, self.last_comm_bytes)?,
            attached: self.attached,
            reached: self.reached_pid.map(SegmentReach::Process).or(path.map(SegmentReach::Path)).or(own),
            removed: self.removed,
            rss: self.rss,
            swap: self.swap,
            changed: 0,
            used: 0,
        })
    }
}

#[derive(Deserialize)]
pub(super) struct JsonOverlap {
    kind: Kind,
    dev: Option<Dev>,
    ino: Inode,
    bytes: Bytes,
}

impl JsonOverlap {
    pub(super) fn into_model(self) -> Result<Overlap, String> {
        Ok(Overlap { of: BufferId::new(self.kind, self.dev, self.ino), bytes: self.bytes })
    }
}

#[derive(Deserialize)]
pub(super) struct JsonHandle {
    pid: Pid,
    comm: String,
    comm_bytes: Option<String>,
    handle: u32,
    imported: bool,
}

impl JsonHandle {
    pub(super) fn into_model(self) -> Result<GemHandle, String> {
        let comm = label(Some(self.comm), self.comm_bytes)?.unwrap_or_default();
        Ok(GemHandle { pid: self.pid, comm, handle: self.handle, imported: self.imported })
    }
}

#[derive(Deserialize)]
pub(super) struct JsonKernelHolder {
    what: KernelHolderKind,
    name: String,
    name_bytes: Option<String>,
    pid: Option<Pid>,
    proven: bool,
}

impl JsonKernelHolder {
    pub(super) fn into_model(self) -> Result<KernelHolder, String> {
        let name = label(Some(self.name), self.name_bytes)?.unwrap_or_default();
        Ok(KernelHolder { what: self.what, name, pid: self.pid, is_proven: self.proven })
    }
}

#[derive(Deserialize)]
pub(super) struct JsonPrivateCopies {
    pid: Pid,
    bytes: Bytes,
    huge_at_most: Bytes,
}

impl JsonPrivateCopies {
    pub(super) fn into_model(self) -> Result<PrivateCopies, String> {
        Ok(PrivateCopies::new(self.pid, self.bytes, self.huge_at_most))
    }
}

#[derive(Deserialize)]
pub(super) struct JsonPayers {
    cgroups: Vec<JsonPayer>,
    nobody: Bytes,
    swapped: Bytes,
    unknown: Bytes,
}

#[derive(Deserialize)]
struct JsonPayer {
    cgroup: String,
    cgroup_bytes: Option<String>,
    id: u64,
    unified: bool,
    removed: bool,
    bytes: Bytes,
}

impl JsonPayers {
    pub(super) fn into_model(self) -> Result<Payers, String> {
        let cgroups = self.cgroups.into_iter().map(|payer| {
            let path = label(Some(payer.cgroup), payer.cgroup_bytes)?.unwrap_or_default();
            let JsonPayer { id, unified, removed, bytes, .. } = payer;
            Ok(Payer { cgroup: Arc::new(PayingCgroup { path, removed, unified, id }), bytes })
        });
        let cgroups = cgroups.collect::<Result<_, String>>()?;
        Ok(Payers { cgroups, nobody: self.nobody, swapped: self.swapped, unknown: self.unknown })
    }
}

#[derive(Deserialize)]
pub(super) struct JsonOpenFile {
    holders: Vec<OpenFileHolder>,
}

impl JsonOpenFile {
    pub(super) fn into_model(self) -> Result<OpenFile, String> {
        Ok(OpenFile { holders: self.holders })
    }
}

#[derive(Deserialize)]
pub(super) struct JsonOpenFileHolder {
    pid: Pid,
    fds: FdList,
    inherited_from: Option<Pid>,
}

impl JsonOpenFileHolder {
    pub(super) fn into_model(self) -> Result<OpenFileHolder, String> {
        let JsonOpenFileHolder { pid, fds, inherited_from } = self;
        Ok(OpenFileHolder { pid, fds, inherited_from })
    }
}

#[derive(Deserialize)]
pub(super) struct JsonHolder {
    pid: Pid,
    fds: FdList,
    opaths: ShortList<Fd>,
    maps: ShortList<MapRef>,
    runs: bool,
    threads: ShortList<ThreadFds>,
    fd_table_of: Option<Pid>,
    address_space_of: Option<Pid>,
}

impl JsonHolder {
    pub(super) fn into_model(self) -> Result<Holder, String> {
        let JsonHolder { pid, fds, opaths, maps, runs, threads, fd_table_of, address_space_of } = self;
        Ok(Holder { pid, fds, opaths, maps, runs, threads, fd_table_of, address_space_of })
    }
}

#[derive(Deserialize)]
pub(super) struct JsonThread {
    tid: Tid,
    fds: FdList,
    opaths: ShortList<Fd>,
    fd_table_of: Option<Pid>,
}

impl JsonThread {
    pub(super) fn into_model(self) -> Result<ThreadFds, String> {
        let JsonThread { tid, fds, opaths, fd_table_of } = self;
        Ok(ThreadFds { tid, fds, opaths, fd_table_of })
    }
}

#[derive(Deserialize)]
pub(super) struct JsonMap {
    start: String,
    end: String,
    offset: Option<u64>,
    perms: Option<Perms>,
}

impl JsonMap {
    pub(super) fn into_model(self) -> Result<MapRef, String> {
        let (start, end) = (address(&self.start)?, address(&self.end)?);
        if end < start {
            return Err(format!("a mapping ends at {} and starts at {}", self.end, self.start));
        }
        Ok(MapRef { start, end, offset: self.offset, perms: self.perms })
    }
}

/// What a recording keeps of a buffer in one column. Each part may be missing.
#[cfg(feature = "history")]
#[derive(Deserialize)]
pub(crate) struct JsonParts {
    seals: Option<Seals>,
    segment: Option<Box<Segment>>,
    same_memory: Option<Vec<Overlap>>,
    attachments: Option<Vec<String>>,
    attachments_bytes: Option<Vec<String>>,
    #[serde(default)]
    handles: ShortList<GemHandle>,
    #[serde(default)]
    kernel_holders: ShortList<KernelHolder>,
    #[serde(default)]
    private_copies: ShortList<PrivateCopies>,
    payers: Option<Box<Payers>>,
    open_files: Option<Box<OpenFiles>>,
}

#[cfg(feature = "history")]
impl JsonParts {
    /// Gives a buffer its parts.
    pub(crate) fn fill(self, buffer: &mut Buffer) -> Result<(), String> {
        let attachments = self.attachments.map(|names| labels(names, self.attachments_bytes));
        buffer.attachments = attachments.transpose()?;
        (buffer.seals, buffer.segment, buffer.overlaps) = (self.seals, self.segment, self.same_memory);
        (buffer.handles, buffer.kernel_holders) = (self.handles, self.kernel_holders);
        (buffer.private_copies, buffer.payers) = (self.private_copies, self.payers);
        buffer.open_files = self.open_files;
        Ok(())
    }
}
