//! JSON, schema `lsbuf.snapshot/1`: the contract with programs, as in `docs/lsbuf.snapshot-1.schema.json`.
//!
//! Keys are stable: additions are free, a change of meaning makes a new schema. Sizes are bytes. What could not
//! be known is `null`. Strangers' text is UTF-8, and what a terminal would obey is escaped even
//! where JSON need not. Where the bytes are no UTF-8, the text has U+FFFD in their place, which
//! makes different names equal; then a key with `_bytes` behind the text's own has them all, as
//! [`unescape`](super::unescape) reads them.
//!
//! It is written as it is made, one buffer after the other: a document can be many times as large as the snapshot.

use std::borrow::Cow;
use std::io::{self, Write};

use serde::{Serialize, Serializer};

use super::View;
use super::columns::timestamp;
use super::escape::escape;
use super::layout;
use crate::model::{
    Bytes, Coverage, Dev, Device, DeviceHolder, ExporterTotals, Fd, GemHandle, Holder, KindTotals, Label,
    MapRef, Note, Overlap, Perms, Pid, Source, ThreadFds, Why,
};

/// Writes the view as one JSON document.
///
/// # Errors
/// Those of `out`.
pub fn json(out: &mut dyn Write, view: &View<'_>) -> io::Result<()> {
    layout::document(out, &document(view))
}

/// A list of what each item comes to.
struct Each<'a, T, J>(&'a [T], fn(&'a T) -> J);

impl<T, J: Serialize> Serialize for Each<'_, T, J> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(self.1))
    }
}

/// A list of what those items of a view come to that are shown.
struct Rows<'a, J>(&'a View<'a>, &'a [usize], fn(&'a View<'a>, usize) -> J);

impl<J: Serialize> Serialize for Rows<'_, J> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Rows(view, shown, each) = *self;
        serializer.collect_seq(shown.iter().map(|&i| each(view, i)))
    }
}

/// An address.
struct Hex(u64);

impl Serialize for Hex {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{:#x}", self.0))
    }
}

/// What is written as it is shown.
struct Shown<T>(T);

impl<T: std::fmt::Display> Serialize for Shown<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

type Numbers<'a, T> = Each<'a, T, u32>;
type Text<'a> = Cow<'a, str>;
/// The bytes that a text lost; left out if it lost none.
pub(super) type Lost = Option<String>;

#[derive(Serialize)]
struct JsonDocument<'a> {
    schema: &'static str,
    taken_at: Option<String>,
    host: JsonHost<'a>,
    scan: JsonScan<'a>,
    totals: JsonTotals,
    kinds: Each<'a, KindTotals, JsonKind>,
    exporters: Each<'a, ExporterTotals, JsonExporter<'a>>,
    buffers: Rows<'a, JsonBuffer<'a>>,
    processes: Rows<'a, JsonProcess<'a>>,
    devices: Each<'a, Device, JsonDevice<'a>>,
}

#[derive(Serialize)]
pub(super) struct JsonHost<'a> {
    hostname: Option<&'a str>,
    kernel: Option<&'a str>,
    boot_id: Option<&'a str>,
}

#[derive(Serialize)]
pub(super) struct JsonScan<'a> {
    sources: Each<'a, Source, &'static str>,
    complete: bool,
    duration_us: u64,
    notes: Each<'a, Note, Shown<&'a Note>>,
    processes: ScanProcesses,
}

#[derive(Serialize)]
struct ScanProcesses {
    total: u64,
    read: u64,
    unreadable: u64,
    vanished: u64,
}

#[derive(Serialize)]
struct JsonTotals {
    buffers: u64,
    size: Option<u64>,
    at_least: u64,
    same_memory: u64,
    held: Option<u64>,
    opath: Option<u64>,
    kernel_only: Option<u64>,
    rss: Option<u64>,
    pss: Option<u64>,
    unattributed_refs: Option<u64>,
    estimate: bool,
    in_flight_fds: Option<u64>,
    io_uring_files: Option<u64>,
}

#[derive(Serialize)]
struct JsonKind {
    kind: &'static str,
    buffers: u64,
    size: Option<u64>,
    charged: Option<u64>,
    held: Option<u64>,
    kernel_only: Option<u64>,
}

#[derive(Serialize)]
struct JsonExporter<'a> {
    exporter: Option<Text<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    exporter_bytes: Lost,
    buffers: u64,
    size: Option<u64>,
}

#[derive(Serialize)]
struct JsonBuffer<'a> {
    kind: &'static str,
    dev: Option<Shown<Dev>>,
    ino: u64,
    size: Option<u64>,
    ipc_namespace: Option<u64>,
    charged: Option<u64>,
    swapped: Option<u64>,
    huge_page: Option<u64>,
    deleted: Option<bool>,
    seals: Option<Vec<&'static str>>,
    segment: Option<JsonSegment>,
    same_memory: Option<Each<'a, Overlap, JsonOverlap>>,
    name: Option<Text<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    name_bytes: Lost,
    exporter: Option<Text<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    exporter_bytes: Lost,
    count: Option<u64>,
    refs: JsonRefs,
    estimate: bool,
    estimate_reason: Option<&'static str>,
    leak_shape: Option<&'static str>,
    attachments: Option<Each<'a, Label, Text<'a>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    attachments_bytes: Option<Each<'a, Label, String>>,
    handles: Each<'a, GemHandle, JsonHandle<'a>>,
    candidates: Numbers<'a, Pid>,
    created_at: Option<String>,
    creator_uid: Option<u32>,
    holders: Each<'a, Holder, JsonHolder<'a>>,
}

#[derive(Serialize)]
struct JsonSegment {
    key: u32,
    owner: u32,
    creator_pid: Option<u32>,
    last_pid: Option<u32>,
    attached: u64,
    removed: bool,
    rss: u64,
    swap: u64,
}

#[derive(Serialize)]
struct JsonOverlap {
    kind: &'static str,
    dev: Option<Shown<Dev>>,
    ino: u64,
    bytes: u64,
}

#[derive(Serialize)]
struct JsonHandle<'a> {
    pid: u32,
    comm: Text<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    comm_bytes: Lost,
    handle: u32,
    imported: bool,
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

#[derive(Serialize)]
struct JsonHolder<'a> {
    pid: u32,
    fds: Numbers<'a, Fd>,
    opaths: Numbers<'a, Fd>,
    maps: Each<'a, MapRef, JsonMap>,
    runs: bool,
    threads: Each<'a, ThreadFds, JsonThread<'a>>,
    fd_table_of: Option<u32>,
    address_space_of: Option<u32>,
}

#[derive(Serialize)]
struct JsonThread<'a> {
    tid: u32,
    fds: Numbers<'a, Fd>,
    opaths: Numbers<'a, Fd>,
    fd_table_of: Option<u32>,
}

#[derive(Serialize)]
struct JsonDevice<'a> {
    path: Text<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    path_bytes: Lost,
    name: Option<Text<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    name_bytes: Lost,
    holders: Each<'a, DeviceHolder, JsonDeviceHolder<'a>>,
}

#[derive(Serialize)]
struct JsonDeviceHolder<'a> {
    pid: u32,
    comm: Option<Text<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    comm_bytes: Lost,
    fds: Numbers<'a, Fd>,
}

#[derive(Serialize)]
struct JsonMap {
    start: Hex,
    end: Hex,
    offset: Option<u64>,
    perms: Option<Shown<Perms>>,
}

#[derive(Serialize)]
struct JsonProcess<'a> {
    pid: u32,
    start_time: u64,
    comm: Text<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    comm_bytes: Lost,
    uid: Option<u32>,
    cgroup: Option<Text<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cgroup_bytes: Lost,
    rss: Option<u64>,
    pss: Option<u64>,
    mapped_pss: Option<u64>,
    uss: Option<u64>,
    buffers: u64,
    fds: u64,
    maps: u64,
    sync_files: Option<u64>,
}

fn document<'a>(view: &'a View<'a>) -> JsonDocument<'a> {
    let (snapshot, ledger) = (view.snapshot, view.ledger);
    let (coverage, totals) = (&snapshot.coverage, &ledger.totals);
    let hidden = coverage.hidden_refs.filter(|hidden| !hidden.unknown);
    JsonDocument {
        schema: "lsbuf.snapshot/1",
        taken_at: timestamp(snapshot.taken_at),
        host: host(&snapshot.host),
        scan: scan(coverage),
        totals: JsonTotals {
            buffers: totals.buffers,
            size: bytes(totals.size),
            at_least: totals.at_least.0,
            same_memory: totals.same_memory.0,
            held: bytes(totals.held),
            opath: bytes(totals.opath),
            kernel_only: bytes(totals.kernel_only),
            rss: bytes(totals.rss),
            pss: bytes(totals.pss),
            unattributed_refs: totals.unattributed_refs,
            estimate: totals.estimate,
            in_flight_fds: hidden.map(|hidden| hidden.in_flight),
            io_uring_files: hidden.map(|hidden| hidden.io_uring),
        },
        kinds: Each(&ledger.kinds, |k| JsonKind {
            kind: k.kind.as_str(),
            buffers: k.buffers,
            size: bytes(k.size),
            charged: bytes(k.charged),
            held: bytes(k.held),
            kernel_only: bytes(k.kernel_only),
        }),
        exporters: Each(&ledger.exporters, |e| JsonExporter {
            exporter: text(e.exporter.as_ref()),
            exporter_bytes: lost(e.exporter.as_ref()),
            buffers: e.buffers,
            size: bytes(e.size),
        }),
        buffers: Rows(view, &view.buffers, buffer),
        processes: Rows(view, &view.processes, process),
        devices: Each(&snapshot.devices, |device| JsonDevice {
            path: device.path.to_utf8_lossy(),
            path_bytes: lost(Some(&device.path)),
            name: text(device.name.as_ref()),
            name_bytes: lost(device.name.as_ref()),
            holders: Each(&device.holders, |h| JsonDeviceHolder {
                pid: h.pid.0,
                comm: text(h.comm.as_ref()),
                comm_bytes: lost(h.comm.as_ref()),
                fds: numbers(&h.fds),
            }),
        }),
    }
}

/// Where an answer is from.
pub(super) fn host(host: &crate::model::Host) -> JsonHost<'_> {
    JsonHost {
        hostname: host.hostname.as_deref(),
        kernel: host.kernel.as_deref(),
        boot_id: host.boot_id.as_deref(),
    }
}

/// How it came about.
pub(super) fn scan(coverage: &Coverage) -> JsonScan<'_> {
    JsonScan {
        sources: Each(&coverage.sources, |source| source.as_str()),
        complete: coverage.is_complete(),
        duration_us: u64::try_from(coverage.duration.as_micros()).unwrap_or(u64::MAX),
        notes: Each(&coverage.notes, Shown),
        processes: ScanProcesses {
            total: coverage.processes.total,
            read: coverage.processes.read,
            unreadable: coverage.processes.unreadable,
            vanished: coverage.processes.vanished,
        },
    }
}

fn buffer<'a>(view: &'a View<'a>, i: usize) -> JsonBuffer<'a> {
    let (buffer, account) = (&view.snapshot.buffers[i], &view.ledger.accounts[i]);
    JsonBuffer {
        kind: buffer.id.kind.as_str(),
        dev: buffer.id.dev.map(Shown),
        ino: buffer.id.ino.0,
        size: bytes(buffer.size),
        ipc_namespace: buffer.id.ipc.map(|ipc| ipc.0.0),
        charged: bytes(buffer.charged),
        swapped: bytes(buffer.swapped),
        huge_page: bytes(buffer.huge_page),
        deleted: buffer.deleted,
        seals: buffer.seals.map(|seals| seals.words().collect()),
        segment: buffer.segment.map(|s| JsonSegment {
            key: s.key,
            owner: s.owner,
            creator_pid: s.creator.map(|pid| pid.0),
            last_pid: s.last.map(|pid| pid.0),
            attached: s.attached,
            removed: s.removed,
            rss: s.rss.0,
            swap: s.swap.0,
        }),
        same_memory: buffer.overlaps.as_deref().map(|overlaps| {
            Each(overlaps, |overlap: &Overlap| JsonOverlap {
                kind: overlap.of.kind.as_str(),
                dev: overlap.of.dev.map(Shown),
                ino: overlap.of.ino.0,
                bytes: overlap.bytes.0,
            })
        }),
        name: text(buffer.name.as_ref()),
        name_bytes: lost(buffer.name.as_ref()),
        exporter: text(buffer.exporter.as_ref()),
        exporter_bytes: lost(buffer.exporter.as_ref()),
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
        estimate_reason: account.residual.why().map(Why::as_str),
        leak_shape: view.ledger.shapes[i].map(|shape| shape.as_str()),
        attachments: buffer.attachments.as_deref().map(|names| Each(names, Label::to_utf8_lossy)),
        attachments_bytes: buffer
            .attachments
            .as_deref()
            .filter(|names| names.iter().any(|name| lost(Some(name)).is_some()))
            .map(|names| Each(names, |name: &Label| escape(name.as_bytes()))),
        handles: Each(&buffer.handles, |h| JsonHandle {
            pid: h.pid.0,
            comm: h.comm.to_utf8_lossy(),
            comm_bytes: lost(Some(&h.comm)),
            handle: h.handle,
            imported: h.imported,
        }),
        candidates: Each(&view.ledger.candidates[i], |pid| pid.0),
        created_at: buffer.created_at.and_then(timestamp),
        creator_uid: buffer.creator_uid,
        holders: Each(&buffer.holders, holder),
    }
}

fn holder(holder: &Holder) -> JsonHolder<'_> {
    JsonHolder {
        pid: holder.pid.0,
        fds: numbers(&holder.fds),
        opaths: numbers(&holder.opaths),
        maps: Each(&holder.maps, |map| JsonMap {
            start: Hex(map.start),
            end: Hex(map.end),
            offset: map.offset,
            perms: map.perms.map(Shown),
        }),
        runs: holder.runs,
        threads: Each(&holder.threads, |t| JsonThread {
            tid: t.tid.0,
            fds: numbers(&t.fds),
            opaths: numbers(&t.opaths),
            fd_table_of: t.fd_table_of.map(|pid| pid.0),
        }),
        fd_table_of: holder.fd_table_of.map(|pid| pid.0),
        address_space_of: holder.address_space_of.map(|pid| pid.0),
    }
}

fn process<'a>(view: &'a View<'a>, i: usize) -> JsonProcess<'a> {
    let (process, figures) = (&view.snapshot.processes[i], &view.ledger.processes[i]);
    JsonProcess {
        pid: process.pid.0,
        start_time: process.start_time,
        comm: process.comm.to_utf8_lossy(),
        comm_bytes: lost(Some(&process.comm)),
        uid: process.uid,
        cgroup: text(process.cgroup.as_ref()),
        cgroup_bytes: lost(process.cgroup.as_ref()),
        rss: bytes(figures.rss),
        pss: bytes(figures.pss),
        mapped_pss: bytes(figures.mapped_pss),
        uss: bytes(figures.uss),
        buffers: figures.buffers,
        fds: figures.fds,
        maps: figures.maps,
        sync_files: process.sync_files,
    }
}

fn numbers(fds: &[Fd]) -> Numbers<'_, Fd> {
    Each(fds, |fd| fd.0)
}

fn bytes(size: Option<Bytes>) -> Option<u64> {
    size.map(|s| s.0)
}

fn text(label: Option<&Label>) -> Option<Text<'_>> {
    label.map(Label::to_utf8_lossy)
}

/// All bytes of a label that is no UTF-8.
pub(super) fn lost(label: Option<&Label>) -> Lost {
    let bytes = label?.as_bytes();
    std::str::from_utf8(bytes).is_err().then(|| escape(bytes))
}
