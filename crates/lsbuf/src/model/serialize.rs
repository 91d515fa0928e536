//! The model in the words of the JSON schema (`docs/lsbuf.snapshot-1.schema.json`), by serde.
//!
//! A [`Ledger`] serializes as a whole document. Its parts serialize as they stand in it, so that a
//! program which embeds lsbuf can put one buffer's row or one process into a document of its own.
//!
//! Sizes are bytes. What could not be known is `null`. Text that processes choose is UTF-8; where
//! its bytes are not, U+FFFD stands in their place, which makes different names equal. Then a key
//! with `_bytes` behind the text's own has all bytes, as [`unescape`](crate::escape::unescape)
//! reads them.
//!
//! Limit: control characters in text are escaped as JSON requires and no further. For a terminal,
//! `render::json` escapes more.

use std::fmt;
use std::time::SystemTime;

use jiff::Timestamp;
use serde::{Serialize, Serializer};

use super::*;
use crate::escape::escape;

mod details;
pub(crate) mod origin;
#[cfg(feature = "history")]
pub(crate) mod parts;

/// A list of what each item comes to.
struct Each<'a, T, J>(&'a [T], fn(&'a T) -> J);

impl<T, J: Serialize> Serialize for Each<'_, T, J> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(self.1))
    }
}

/// An address.
struct Hex(u64);

impl Serialize for Hex {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{:#x}", self.0))
    }
}

/// Serializes a type as what a function makes of it.
macro_rules! serialize_as {
    ($($type:ty, $of:expr;)*) => {$(
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                $of(self).serialize(serializer)
            }
        }
    )*};
}

/// Serializes a type as its text.
macro_rules! serialize_as_text {
    ($($type:ty),*) => {$(
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
    )*};
}

use origin::{JsonFunction, JsonKernelFrame, JsonOrigin, JsonStack, JsonUserFrame};

serialize_as! {
    Bytes, |bytes: &Bytes| bytes.0;
    Pid, |pid: &Pid| pid.0;
    Tid, |tid: &Tid| tid.0;
    Fd, |fd: &Fd| fd.0;
    Inode, |ino: &Inode| ino.0;
    Label, Label::to_utf8_lossy;
    Kind, |kind: &Kind| kind.as_str();
    Source, |source: &Source| source.as_str();
    Why, |why: &Why| why.as_str();
    LeakShape, |shape: &LeakShape| shape.as_str();
    Host, JsonHost::of;
    Seals, |&seals: &Seals| Rows(move || seals.words());
    Coverage, JsonCoverage::of;
    Totals, JsonTotals::of;
    KindTotals, JsonKindTotals::of;
    ExporterTotals, JsonExporter::of;
    Overlap, JsonOverlap::of;
    GemHandle, JsonHandle::of;
    KernelHolder, JsonKernelHolder::of;
    PrivateCopies, JsonPrivateCopies::of;
    KernelHolderKind, |what: &KernelHolderKind| what.as_str();
    Holder, JsonHolder::of;
    ThreadFds, JsonThread::of;
    MapRef, JsonMap::of;
    Device, JsonDevice::of;
    DeviceHolder, JsonDeviceHolder::of;
    BufferRow<'_>, JsonBuffer::of;
    ProcessRow<'_>, JsonProcess::of;
    UnheldFile, JsonUnheld::of;
    Payers, JsonPayers::of;
    Payer, JsonPayer::of;
    OpenFile, JsonOpenFile::of;
    Origin, JsonOrigin::of;
    Stack, JsonStack::of;
    KernelFrame, JsonKernelFrame::of;
    UserFrame, JsonUserFrame::of;
    Function, JsonFunction::of;
}

serialize_as_text!(Dev, Perms, Note, Time);

impl Serialize for Ledger<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let buffers = Rows(|| self.rows());
        let unheld = || self.snapshot().unheld.iter().flat_map(UnheldList::iter);
        let unheld = self.snapshot().unheld.as_ref().map(|_| Rows(unheld));
        let processes = Rows(|| self.processes());
        document(self, buffers, unheld, processes).serialize(serializer)
    }
}

/// A list of what an iterator yields.
pub(crate) struct Rows<F>(pub(crate) F);

impl<I: Iterator<Item: Serialize>, F: Fn() -> I> Serialize for Rows<F> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq((self.0)())
    }
}

/// The document of a ledger, with these lists of its buffers, of files that nobody holds, and of
/// processes.
pub(crate) fn document<'a, B: Serialize + 'a, U: Serialize + 'a, P: Serialize + 'a>(
    ledger: &'a Ledger<'_>,
    buffers: B,
    unheld: Option<U>,
    processes: P,
) -> impl Serialize + 'a {
    let snapshot = ledger.snapshot();
    let hidden = snapshot.coverage.hidden_refs.filter(|hidden| !hidden.unknown);
    Document {
        schema: "lsbuf.snapshot/1",
        taken_at: timestamp(snapshot.taken_at),
        host: &snapshot.host,
        scan: &snapshot.coverage,
        looked_for: Rows(|| snapshot.kinds.iter()),
        totals: DocumentTotals {
            totals: &ledger.totals,
            in_flight_fds: hidden.map(|hidden| hidden.in_flight),
            io_uring_files: hidden.map(|hidden| hidden.io_uring),
        },
        kinds: &ledger.kinds,
        exporters: &ledger.exporters,
        buffers,
        unheld,
        processes,
        devices: &snapshot.devices,
    }
}

/// A time that is printed as in RFC 3339, to the second.
pub(crate) struct Time(Timestamp);

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A time to be printed; `None`: it is out of range.
pub(crate) fn timestamp(time: SystemTime) -> Option<Time> {
    let stamp = Timestamp::try_from(time).ok()?;
    Some(Time(Timestamp::from_second(stamp.as_second()).ok()?))
}

/// All bytes of a label that is not UTF-8.
pub(crate) fn lost_bytes(label: Option<&Label>) -> Option<String> {
    let bytes = label?.as_bytes();
    std::str::from_utf8(bytes).is_err().then(|| escape(bytes))
}

/// The bytes that a text lost; left out if it lost none.
pub(crate) type Lost = Option<String>;

#[derive(Serialize)]
struct Document<'a, K, B, U, P> {
    schema: &'static str,
    taken_at: Option<Time>,
    host: &'a Host,
    scan: &'a Coverage,
    looked_for: K,
    totals: DocumentTotals<'a>,
    kinds: &'a [KindTotals],
    exporters: &'a [ExporterTotals],
    buffers: B,
    #[serde(skip_serializing_if = "Option::is_none")]
    unheld: Option<U>,
    processes: P,
    devices: &'a [Device],
}

#[derive(Serialize)]
struct DocumentTotals<'a> {
    #[serde(flatten)]
    totals: &'a Totals,
    in_flight_fds: Option<u64>,
    io_uring_files: Option<u64>,
}

#[derive(Serialize)]
struct JsonHost<'a> {
    hostname: Option<&'a str>,
    kernel: Option<&'a str>,
    boot_id: Option<&'a str>,
}

impl JsonHost<'_> {
    fn of(host: &Host) -> JsonHost<'_> {
        JsonHost {
            hostname: host.hostname.as_deref(),
            kernel: host.kernel.as_deref(),
            boot_id: host.boot_id.as_deref(),
        }
    }
}

#[derive(Serialize)]
struct JsonCoverage<'a> {
    sources: &'a [Source],
    complete: bool,
    duration_us: u64,
    notes: &'a [Note],
    processes: JsonProcessCounts,
    saw_every_process: bool,
}

#[derive(Serialize)]
struct JsonProcessCounts {
    total: u64,
    read: u64,
    unreadable: u64,
    vanished: u64,
}

impl JsonCoverage<'_> {
    fn of(coverage: &Coverage) -> JsonCoverage<'_> {
        let ProcessCounts { total, read, unreadable, vanished } = coverage.processes;
        JsonCoverage {
            sources: &coverage.sources,
            complete: coverage.is_complete(),
            duration_us: u64::try_from(coverage.duration.as_micros()).unwrap_or(u64::MAX),
            notes: &coverage.notes,
            processes: JsonProcessCounts { total, read, unreadable, vanished },
            saw_every_process: coverage.saw_every_process(),
        }
    }
}

#[derive(Serialize)]
struct JsonTotals {
    buffers: u64,
    size: Option<Bytes>,
    at_least: Bytes,
    same_memory: Bytes,
    held: Option<Bytes>,
    opath: Option<Bytes>,
    kernel_only: Option<Bytes>,
    rss: Option<Bytes>,
    pss: Option<Bytes>,
    unattributed_refs: Option<u64>,
    estimate: bool,
}

impl JsonTotals {
    fn of(totals: &Totals) -> JsonTotals {
        JsonTotals {
            buffers: totals.buffers,
            size: totals.size,
            at_least: totals.at_least,
            same_memory: totals.same_memory,
            held: totals.held,
            opath: totals.opath,
            kernel_only: totals.kernel_only,
            rss: totals.rss,
            pss: totals.pss,
            unattributed_refs: totals.unattributed_refs,
            estimate: totals.estimate,
        }
    }
}

#[derive(Serialize)]
struct JsonKindTotals {
    kind: Kind,
    buffers: u64,
    size: Option<Bytes>,
    charged: Option<Bytes>,
    held: Option<Bytes>,
    kernel_only: Option<Bytes>,
}

impl JsonKindTotals {
    fn of(totals: &KindTotals) -> JsonKindTotals {
        JsonKindTotals {
            kind: totals.kind,
            buffers: totals.buffers,
            size: totals.size,
            charged: totals.charged,
            held: totals.held,
            kernel_only: totals.kernel_only,
        }
    }
}

#[derive(Serialize)]
struct JsonExporter<'a> {
    exporter: Option<&'a Label>,
    #[serde(skip_serializing_if = "Option::is_none")]
    exporter_bytes: Lost,
    buffers: u64,
    size: Option<Bytes>,
}

impl JsonExporter<'_> {
    fn of(totals: &ExporterTotals) -> JsonExporter<'_> {
        let exporter = totals.exporter.as_ref();
        JsonExporter {
            exporter,
            exporter_bytes: lost_bytes(exporter),
            buffers: totals.buffers,
            size: totals.size,
        }
    }
}

#[derive(Serialize)]
struct JsonBuffer<'a> {
    kind: Kind,
    dev: Option<Dev>,
    ino: Inode,
    size: Option<Bytes>,
    ipc_namespace: Option<Inode>,
    charged: Option<Bytes>,
    swapped: Option<Bytes>,
    huge_page: Option<Bytes>,
    deleted: Option<bool>,
    /// Left out where the name stays.
    #[serde(skip_serializing_if = "Option::is_none")]
    name_stays: Option<Option<bool>>,
    seals: Option<Seals>,
    segment: Option<JsonSegment<'a>>,
    same_memory: Option<&'a [Overlap]>,
    name: Option<&'a Label>,
    #[serde(skip_serializing_if = "Option::is_none")]
    name_bytes: Lost,
    exporter: Option<&'a Label>,
    #[serde(skip_serializing_if = "Option::is_none")]
    exporter_bytes: Lost,
    count: Option<u64>,
    refs: JsonRefs,
    estimate: bool,
    estimate_reason: Option<Why>,
    leak_shape: Option<LeakShape>,
    memory_owner: Option<&'static str>,
    attachments: Option<&'a [Label]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    attachments_bytes: Option<Each<'a, Label, String>>,
    handles: &'a [GemHandle],
    kernel_holders: &'a [KernelHolder],
    private_copies: &'a [PrivateCopies],
    candidates: &'a [Pid],
    created_at: Option<Time>,
    creator_uid: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    payers: Option<&'a Payers>,
    #[serde(skip_serializing_if = "Option::is_none")]
    open_files: Option<&'a [OpenFile]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    origin: Option<&'a Origin>,
    holders: &'a [Holder],
}

#[derive(Serialize)]
struct JsonPayers<'a> {
    cgroups: &'a [Payer],
    nobody: Bytes,
    swapped: Bytes,
    unknown: Bytes,
}

impl JsonPayers<'_> {
    fn of(payers: &Payers) -> JsonPayers<'_> {
        let Payers { cgroups, nobody, swapped, unknown } = payers;
        JsonPayers { cgroups, nobody: *nobody, swapped: *swapped, unknown: *unknown }
    }
}

#[derive(Serialize)]
struct JsonPayer<'a> {
    cgroup: &'a Label,
    #[serde(skip_serializing_if = "Option::is_none")]
    cgroup_bytes: Lost,
    id: u64,
    unified: bool,
    removed: bool,
    bytes: Bytes,
}

impl JsonPayer<'_> {
    fn of(payer: &Payer) -> JsonPayer<'_> {
        let PayingCgroup { path, removed, unified, id } = &*payer.cgroup;
        JsonPayer {
            cgroup: path,
            cgroup_bytes: lost_bytes(Some(path)),
            id: *id,
            unified: *unified,
            removed: *removed,
            bytes: payer.bytes,
        }
    }
}

#[derive(Serialize)]
struct JsonUnheld<'a> {
    kind: Kind,
    dev: Option<Dev>,
    ino: Inode,
    size: Bytes,
    charged: Bytes,
    swapped: Option<Bytes>,
    huge_page: Option<Bytes>,
    deleted: bool,
    path: &'a Label,
    #[serde(skip_serializing_if = "Option::is_none")]
    path_bytes: Lost,
    owner: u32,
    created_at: Option<Time>,
    #[serde(skip_serializing_if = "Option::is_none")]
    payers: Option<&'a Payers>,
    proven: bool,
}

impl JsonUnheld<'_> {
    fn of(file: &UnheldFile) -> JsonUnheld<'_> {
        JsonUnheld {
            kind: file.id.kind,
            dev: file.id.dev,
            ino: file.id.ino,
            size: file.size,
            charged: file.charged,
            swapped: file.swapped,
            huge_page: file.huge_page,
            deleted: file.deleted,
            path: &file.path,
            path_bytes: lost_bytes(Some(&file.path)),
            owner: file.owner,
            created_at: file.created_at.and_then(timestamp),
            payers: file.payers.as_deref(),
            proven: file.proven,
        }
    }
}

#[derive(Serialize)]
struct JsonRefs {
    fd: u64,
    map: u64,
    private_map: Option<u64>,
    in_flight: Option<u64>,
    io_uring: Option<u64>,
    exe: Option<u64>,
    kernel: Option<u64>,
    opath: u64,
}

impl<'a> JsonBuffer<'a> {
    fn of(row: &BufferRow<'a>) -> JsonBuffer<'a> {
        let BufferRow { buffer, account, shape, candidates } = *row;
        let attachments = buffer.attachments.as_deref();
        let lost_any = attachments.is_some_and(|names| names.iter().any(|n| lost_bytes(Some(n)).is_some()));
        JsonBuffer {
            kind: buffer.id.kind,
            dev: buffer.id.dev,
            ino: buffer.id.ino,
            size: buffer.size,
            ipc_namespace: buffer.id.ipc.map(|ipc| ipc.0),
            charged: buffer.charged,
            swapped: buffer.swapped,
            huge_page: buffer.huge_page,
            deleted: buffer.deleted,
            name_stays: Some(buffer.name_lives.stays()).filter(|stays| *stays != Some(true)),
            seals: buffer.seals,
            segment: buffer.segment.as_deref().map(|segment| JsonSegment::of(segment, buffer.id.ino)),
            same_memory: buffer.overlaps.as_deref(),
            name: buffer.name.as_ref(),
            name_bytes: lost_bytes(buffer.name.as_ref()),
            exporter: buffer.exporter.as_ref(),
            exporter_bytes: lost_bytes(buffer.exporter.as_ref()),
            count: buffer.count,
            refs: JsonRefs {
                fd: account.fd,
                map: account.map,
                private_map: account.private_map,
                in_flight: account.in_flight,
                io_uring: account.io_uring,
                exe: account.exe,
                kernel: account.kernel(),
                opath: account.opath,
            },
            estimate: account.is_estimate(),
            estimate_reason: account.residual.why(),
            leak_shape: shape,
            memory_owner: Owner::of(buffer).as_str(),
            attachments,
            attachments_bytes: attachments
                .filter(|_| lost_any)
                .map(|names| Each(names, |name| escape(name.as_bytes()))),
            handles: &buffer.handles,
            kernel_holders: &buffer.kernel_holders,
            private_copies: &buffer.private_copies,
            candidates,
            created_at: buffer.created_at.and_then(timestamp),
            creator_uid: buffer.creator_uid,
            payers: buffer.payers.as_deref(),
            open_files: buffer.open_files.as_deref().map(|open| &open.files[..]),
            origin: buffer.origin.as_deref(),
            holders: &buffer.holders,
        }
    }
}

#[derive(Serialize)]
struct JsonPrivateCopies {
    pid: Pid,
    bytes: Bytes,
    huge_at_most: Bytes,
}

impl JsonPrivateCopies {
    fn of(copies: &PrivateCopies) -> JsonPrivateCopies {
        let PrivateCopies { pid, bytes, huge_at_most } = *copies;
        JsonPrivateCopies { pid, bytes, huge_at_most }
    }
}

#[derive(Serialize)]
struct JsonKernelHolder<'a> {
    what: KernelHolderKind,
    name: &'a Label,
    #[serde(skip_serializing_if = "Option::is_none")]
    name_bytes: Lost,
    pid: Option<Pid>,
    proven: bool,
}

impl JsonKernelHolder<'_> {
    fn of(holder: &KernelHolder) -> JsonKernelHolder<'_> {
        let KernelHolder { what, ref name, pid, is_proven } = *holder;
        JsonKernelHolder { what, name, name_bytes: lost_bytes(Some(name)), pid, proven: is_proven }
    }
}

#[derive(Serialize)]
struct JsonSegment<'a> {
    key: u32,
    owner: u32,
    creator_pid: Option<Pid>,
    #[serde(skip_serializing_if = "Option::is_none")]
    creator_comm: Option<&'a Label>,
    #[serde(skip_serializing_if = "Option::is_none")]
    creator_comm_bytes: Lost,
    last_pid: Option<Pid>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_comm: Option<&'a Label>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_comm_bytes: Lost,
    attached: u64,
    removed: bool,
    rss: Bytes,
    swap: Bytes,
    #[serde(skip_serializing_if = "Option::is_none")]
    reached_pid: Option<Pid>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reached_path: Option<&'a Label>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reached_path_bytes: Lost,
    remove_command: Option<String>,
}

impl JsonSegment<'_> {
    fn of(segment: &Segment, id: Inode) -> JsonSegment<'_> {
        let Segment { key, owner, creator, last, attached, removed, rss, swap, .. } = *segment;
        let reached_path = match &segment.reached {
            Some(SegmentReach::Path(path)) => Some(path),
            _ => None,
        };
        let (creator_comm, last_comm) = (segment.creator_comm.as_ref(), segment.last_comm.as_ref());
        JsonSegment {
            key,
            owner,
            creator_pid: creator,
            creator_comm,
            creator_comm_bytes: lost_bytes(creator_comm),
            last_pid: last,
            last_comm,
            last_comm_bytes: lost_bytes(last_comm),
            attached,
            removed,
            rss,
            swap,
            reached_pid: match segment.reached {
                Some(SegmentReach::Process(pid)) => Some(pid),
                _ => None,
            },
            reached_path,
            reached_path_bytes: lost_bytes(reached_path),
            remove_command: segment.remove_command(id),
        }
    }
}

#[derive(Serialize)]
struct JsonOverlap {
    kind: Kind,
    dev: Option<Dev>,
    ino: Inode,
    bytes: Bytes,
}

impl JsonOverlap {
    fn of(overlap: &Overlap) -> JsonOverlap {
        let BufferId { kind, dev, ino, ipc: _ } = overlap.of;
        JsonOverlap { kind, dev, ino, bytes: overlap.bytes }
    }
}

#[derive(Serialize)]
struct JsonHandle<'a> {
    pid: Pid,
    comm: &'a Label,
    #[serde(skip_serializing_if = "Option::is_none")]
    comm_bytes: Lost,
    handle: u32,
    imported: bool,
}

impl JsonHandle<'_> {
    fn of(handle: &GemHandle) -> JsonHandle<'_> {
        let GemHandle { pid, ref comm, handle, imported } = *handle;
        JsonHandle { pid, comm, comm_bytes: lost_bytes(Some(comm)), handle, imported }
    }
}

#[derive(Serialize)]
struct JsonHolder<'a> {
    pid: Pid,
    fds: &'a [Fd],
    opaths: &'a [Fd],
    maps: &'a [MapRef],
    runs: bool,
    threads: &'a [ThreadFds],
    fd_table_of: Option<Pid>,
    address_space_of: Option<Pid>,
}

/// The holders that have one open file.
#[derive(Serialize)]
struct JsonOpenFile<'a> {
    holders: Vec<JsonOpenFileHolder<'a>>,
}

#[derive(Serialize)]
struct JsonOpenFileHolder<'a> {
    pid: Pid,
    fds: &'a [Fd],
    inherited_from: Option<Pid>,
}

impl JsonOpenFile<'_> {
    fn of(file: &OpenFile) -> JsonOpenFile<'_> {
        JsonOpenFile { holders: file.holders.iter().map(JsonOpenFileHolder::of).collect() }
    }
}

impl JsonOpenFileHolder<'_> {
    fn of(holder: &OpenFileHolder) -> JsonOpenFileHolder<'_> {
        let OpenFileHolder { pid, ref fds, inherited_from } = *holder;
        JsonOpenFileHolder { pid, fds, inherited_from }
    }
}

impl JsonHolder<'_> {
    fn of(holder: &Holder) -> JsonHolder<'_> {
        JsonHolder {
            pid: holder.pid,
            fds: &holder.fds,
            opaths: &holder.opaths,
            maps: &holder.maps,
            runs: holder.runs,
            threads: &holder.threads,
            fd_table_of: holder.fd_table_of,
            address_space_of: holder.address_space_of,
        }
    }
}

#[derive(Serialize)]
struct JsonThread<'a> {
    tid: Tid,
    fds: &'a [Fd],
    opaths: &'a [Fd],
    fd_table_of: Option<Pid>,
}

impl JsonThread<'_> {
    fn of(thread: &ThreadFds) -> JsonThread<'_> {
        let ThreadFds { tid, ref fds, ref opaths, fd_table_of } = *thread;
        JsonThread { tid, fds, opaths, fd_table_of }
    }
}

#[derive(Serialize)]
struct JsonMap {
    start: Hex,
    end: Hex,
    offset: Option<u64>,
    perms: Option<Perms>,
}

impl JsonMap {
    fn of(map: &MapRef) -> JsonMap {
        let MapRef { start, end, offset, perms } = *map;
        JsonMap { start: Hex(start), end: Hex(end), offset, perms }
    }
}

#[derive(Serialize)]
struct JsonDevice<'a> {
    path: &'a Label,
    #[serde(skip_serializing_if = "Option::is_none")]
    path_bytes: Lost,
    name: Option<&'a Label>,
    #[serde(skip_serializing_if = "Option::is_none")]
    name_bytes: Lost,
    holders: &'a [DeviceHolder],
}

impl JsonDevice<'_> {
    fn of(device: &Device) -> JsonDevice<'_> {
        JsonDevice {
            path: &device.path,
            path_bytes: lost_bytes(Some(&device.path)),
            name: device.name.as_ref(),
            name_bytes: lost_bytes(device.name.as_ref()),
            holders: &device.holders,
        }
    }
}

#[derive(Serialize)]
struct JsonDeviceHolder<'a> {
    pid: Pid,
    comm: Option<&'a Label>,
    #[serde(skip_serializing_if = "Option::is_none")]
    comm_bytes: Lost,
    fds: &'a [Fd],
}

impl JsonDeviceHolder<'_> {
    fn of(holder: &DeviceHolder) -> JsonDeviceHolder<'_> {
        let comm = holder.comm.as_ref();
        JsonDeviceHolder { pid: holder.pid, comm, comm_bytes: lost_bytes(comm), fds: &holder.fds }
    }
}

#[derive(Serialize)]
struct JsonProcess<'a> {
    pid: Pid,
    start_time: u64,
    comm: &'a Label,
    #[serde(skip_serializing_if = "Option::is_none")]
    comm_bytes: Lost,
    uid: Option<u32>,
    cgroup: Option<&'a Label>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cgroup_bytes: Lost,
    rss: Option<Bytes>,
    pss: Option<Bytes>,
    mapped_pss: Option<Bytes>,
    uss: Option<Bytes>,
    buffers: u64,
    fds: u64,
    maps: u64,
    sync_files: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    details: Option<&'a ProcessDetails>,
}

impl<'a> JsonProcess<'a> {
    fn of(row: &ProcessRow<'a>) -> JsonProcess<'a> {
        let ProcessRow { process, figures } = *row;
        JsonProcess {
            pid: process.pid,
            start_time: process.start_time,
            comm: &process.comm,
            comm_bytes: lost_bytes(Some(&process.comm)),
            uid: process.uid,
            cgroup: process.cgroup.as_ref(),
            cgroup_bytes: lost_bytes(process.cgroup.as_ref()),
            rss: figures.rss,
            pss: figures.pss,
            mapped_pss: figures.mapped_pss,
            uss: figures.uss,
            buffers: figures.buffers,
            fds: figures.fds,
            maps: figures.maps,
            sync_files: process.sync_files,
            details: process.details.as_deref(),
        }
    }
}
