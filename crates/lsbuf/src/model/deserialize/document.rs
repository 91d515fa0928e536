//! A whole document.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use serde::Deserialize;

use super::super::{
    Buffer, BufferId, Bytes, Coverage, Dev, Device, DeviceClass, DeviceHolder, Fd, Gaps, GemHandle,
    HiddenRefs, Holder, Host, Inode, IpcNamespace, KernelHolder, Kind, Kinds, NameLives, Note, OpenFiles,
    Origin, Overlap, Payers, Pid, PrivateCopies, Process, ProcessCounts, Residual, Seals, Segment, ShortList,
    Snapshot, Source, Why,
};
use super::text::{label, labels, time};

#[derive(Deserialize)]
pub(super) struct JsonDocument {
    schema: String,
    taken_at: Option<String>,
    host: JsonHost,
    scan: JsonScan,
    /// Older documents do not have it.
    looked_for: Option<Vec<Kind>>,
    totals: JsonTotals,
    buffers: Vec<JsonBuffer>,
    processes: Vec<Process>,
    devices: Vec<Device>,
}

#[derive(Deserialize)]
struct JsonHost {
    hostname: Option<String>,
    kernel: Option<String>,
    boot_id: Option<String>,
}

#[derive(Deserialize)]
struct JsonScan {
    sources: Vec<Source>,
    complete: bool,
    duration_us: u64,
    notes: Vec<String>,
    processes: JsonProcessCounts,
    /// Older documents do not have it.
    saw_every_process: Option<bool>,
}

#[derive(Deserialize)]
struct JsonProcessCounts {
    total: u64,
    read: u64,
    unreadable: u64,
    vanished: u64,
}

#[derive(Deserialize)]
struct JsonTotals {
    in_flight_fds: Option<u64>,
    io_uring_files: Option<u64>,
}

impl JsonDocument {
    pub(super) fn into_model(self) -> Result<Snapshot, String> {
        if self.schema != "lsbuf.snapshot/1" {
            return Err(format!("the schema is {:?}; valid: \"lsbuf.snapshot/1\"", self.schema));
        }
        let JsonHost { hostname, kernel, boot_id } = self.host;
        let kinds = self.looked_for.map_or(Kinds::ALL, |kinds| kinds.into_iter().collect());
        let hidden = self.totals.in_flight_fds.zip(self.totals.io_uring_files);
        let mut snapshot = Snapshot {
            taken_at: self.taken_at.as_deref().map_or(Ok(SystemTime::UNIX_EPOCH), time)?,
            host: Host { hostname, kernel, boot_id },
            kinds,
            coverage: self.scan.into_model(hidden),
            buffers: self.buffers.into_iter().map(JsonBuffer::into_model).collect::<Result<_, _>>()?,
            unheld: None,
            processes: self.processes,
            devices: self.devices,
            mount_points: BTreeMap::new(),
        };
        // The order of the model, in which buffers and processes are looked up.
        snapshot.buffers.sort_by_key(|buffer| buffer.id);
        snapshot.processes.sort_by_key(|process| process.pid);
        Ok(snapshot)
    }
}

impl JsonScan {
    fn into_model(self, hidden: Option<(u64, u64)>) -> Coverage {
        let JsonProcessCounts { total, read, unreadable, vanished } = self.processes;
        // Which of the notes made the answer a partial one is not in the document.
        let is_partial = !self.complete;
        Coverage {
            sources: self.sources,
            processes: ProcessCounts { total, read, unreadable, vanished },
            unreadable: Vec::new(),
            gaps: Gaps {
                not_whole_machine: !self.saw_every_process.unwrap_or(self.complete),
                ..Gaps::default()
            },
            hidden_refs: hidden.map(|(in_flight, io_uring)| HiddenRefs {
                in_flight,
                io_uring,
                unknown: false,
            }),
            duration: Duration::from_micros(self.duration_us),
            notes: self.notes.into_iter().map(|text| Note::Recorded { text, is_partial }).collect(),
        }
    }
}

#[derive(Deserialize)]
struct JsonBuffer {
    kind: Kind,
    dev: Option<Dev>,
    ino: Inode,
    size: Option<Bytes>,
    ipc_namespace: Option<Inode>,
    charged: Option<Bytes>,
    swapped: Option<Bytes>,
    huge_page: Option<Bytes>,
    deleted: Option<bool>,
    /// Left out where it does, and by older documents.
    #[serde(default = "yes")]
    name_stays: Option<bool>,
    seals: Option<Seals>,
    segment: Option<Box<Segment>>,
    same_memory: Option<Vec<Overlap>>,
    name: Option<String>,
    name_bytes: Option<String>,
    exporter: Option<String>,
    exporter_bytes: Option<String>,
    count: Option<u64>,
    refs: JsonRefs,
    estimate_reason: Option<Why>,
    attachments: Option<Vec<String>>,
    attachments_bytes: Option<Vec<String>>,
    handles: ShortList<GemHandle>,
    kernel_holders: ShortList<KernelHolder>,
    private_copies: ShortList<PrivateCopies>,
    created_at: Option<String>,
    creator_uid: Option<u32>,
    payers: Option<Box<Payers>>,
    open_files: Option<Box<OpenFiles>>,
    origin: Option<Box<Origin>>,
    holders: Vec<Holder>,
}

#[derive(Deserialize)]
struct JsonRefs {
    in_flight: Option<u64>,
    io_uring: Option<u64>,
    exe: Option<u64>,
    kernel: Option<u64>,
}

/// What is true where a document says nothing.
fn yes() -> Option<bool> {
    Some(true)
}

impl JsonBuffer {
    fn into_model(self) -> Result<Buffer, String> {
        let id = BufferId {
            kind: self.kind,
            dev: self.dev,
            ino: self.ino,
            ipc: self.ipc_namespace.map(IpcNamespace),
        };
        let residual = Residual::of_parts(self.refs.kernel, self.estimate_reason)
            .ok_or("a residual that is unknown has no estimate_reason")?;
        let attachments = self.attachments.map(|names| labels(names, self.attachments_bytes));
        Ok(Buffer {
            size: self.size,
            charged: self.charged,
            swapped: self.swapped,
            huge_page: self.huge_page,
            deleted: self.deleted,
            seals: self.seals,
            segment: self.segment,
            overlaps: self.same_memory,
            name: label(self.name, self.name_bytes)?,
            exporter: label(self.exporter, self.exporter_bytes)?,
            count: self.count,
            exe: self.refs.exe,
            residual,
            in_flight: self.refs.in_flight,
            io_uring: self.refs.io_uring,
            attachments: attachments.transpose()?,
            handles: self.handles,
            kernel_holders: self.kernel_holders,
            private_copies: self.private_copies,
            created_at: self.created_at.as_deref().map(time).transpose()?,
            creator_uid: self.creator_uid,
            name_lives: NameLives::of_stays(self.name_stays),
            payers: self.payers,
            open_files: self.open_files,
            origin: self.origin,
            holders: self.holders,
            ..Buffer::new(id)
        })
    }
}

#[derive(Deserialize)]
pub(super) struct JsonDevice {
    path: String,
    path_bytes: Option<String>,
    name: Option<String>,
    name_bytes: Option<String>,
    holders: Vec<DeviceHolder>,
}

impl JsonDevice {
    pub(super) fn into_model(self) -> Result<Device, String> {
        let path = label(Some(self.path), self.path_bytes)?.unwrap_or_default();
        let class = DeviceClass::of(path.as_bytes()).unwrap_or(DeviceClass::Other);
        Ok(Device { name: label(self.name, self.name_bytes)?, class, holders: self.holders, path })
    }
}

#[derive(Deserialize)]
pub(super) struct JsonDeviceHolder {
    pid: Pid,
    comm: Option<String>,
    comm_bytes: Option<String>,
    fds: Vec<Fd>,
}

impl JsonDeviceHolder {
    pub(super) fn into_model(self) -> Result<DeviceHolder, String> {
        Ok(DeviceHolder { pid: self.pid, comm: label(self.comm, self.comm_bytes)?, fds: self.fds })
    }
}
