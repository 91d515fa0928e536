//! JSON, schema `lsbuf.snapshot/1`: the contract with programs, as in `docs/lsbuf.snapshot-1.schema.json`.
//!
//! Keys are stable: additions are free, a change of meaning makes a new schema. Sizes are bytes. What could not
//! be known is `null`. Strangers' text is lossy UTF-8, and what a terminal would obey is escaped even where JSON need not.

use std::io::{self, Write};

use serde::Serialize;

use super::View;
use super::columns::timestamp;
use super::escape::escape_json;
use crate::model::{
    Account, Buffer, Bytes, Device, Fd, Holder, Label, MapRef, Pid, Process, ProcessFigures, Source,
};

/// Writes the view as one JSON document.
///
/// # Errors
/// Those of `out`.
pub fn json(out: &mut dyn Write, view: &View<'_>) -> io::Result<()> {
    let text = serde_json::to_string_pretty(&document(view))?;
    if text.bytes().all(|b| b < 0x7f) {
        return writeln!(out, "{text}");
    }
    writeln!(out, "{}", escape_json(&text))
}

#[derive(Serialize)]
struct Document {
    schema: &'static str,
    taken_at: Option<String>,
    host: Host,
    scan: Scan,
    totals: Totals,
    exporters: Vec<Exporter>,
    buffers: Vec<JsonBuffer>,
    processes: Vec<JsonProcess>,
    devices: Vec<JsonDevice>,
}

#[derive(Serialize)]
struct Host {
    hostname: Option<String>,
    kernel: Option<String>,
    boot_id: Option<String>,
}

#[derive(Serialize)]
struct Scan {
    sources: Vec<&'static str>,
    complete: bool,
    duration_us: u64,
    notes: Vec<String>,
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
struct Totals {
    buffers: u64,
    size: Option<u64>,
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
struct Exporter {
    exporter: Option<String>,
    buffers: u64,
    size: Option<u64>,
}

#[derive(Serialize)]
struct JsonBuffer {
    kind: &'static str,
    dev: Option<String>,
    ino: u64,
    size: Option<u64>,
    charged: Option<u64>,
    name: Option<String>,
    exporter: Option<String>,
    count: Option<u64>,
    refs: Refs,
    estimate: bool,
    leak_shape: Option<&'static str>,
    attachments: Option<Vec<String>>,
    handles: Vec<JsonHandle>,
    candidates: Vec<u32>,
    created_at: Option<String>,
    creator_uid: Option<u32>,
    holders: Vec<JsonHolder>,
}

#[derive(Serialize)]
struct JsonHandle {
    pid: u32,
    comm: String,
    handle: u32,
    imported: bool,
}

#[derive(Serialize)]
struct Refs {
    fd: u64,
    map: u64,
    in_flight: Option<u64>,
    io_uring: Option<u64>,
    kernel: Option<u64>,
    opath: u64,
}

#[derive(Serialize)]
struct JsonHolder {
    pid: u32,
    fds: Vec<u32>,
    opaths: Vec<u32>,
    maps: Vec<Map>,
    threads: Vec<JsonThread>,
    fd_table_of: Option<u32>,
    address_space_of: Option<u32>,
}

#[derive(Serialize)]
struct JsonThread {
    tid: u32,
    fds: Vec<u32>,
    opaths: Vec<u32>,
    fd_table_of: Option<u32>,
}

#[derive(Serialize)]
struct JsonDevice {
    path: String,
    name: Option<String>,
    holders: Vec<JsonDeviceHolder>,
}

#[derive(Serialize)]
struct JsonDeviceHolder {
    pid: u32,
    comm: Option<String>,
    fds: Vec<u32>,
}

#[derive(Serialize)]
struct Map {
    start: String,
    end: String,
    offset: Option<u64>,
    perms: Option<String>,
}

#[derive(Serialize)]
struct JsonProcess {
    pid: u32,
    start_time: u64,
    comm: String,
    uid: Option<u32>,
    cgroup: Option<String>,
    rss: Option<u64>,
    pss: Option<u64>,
    mapped_pss: Option<u64>,
    uss: Option<u64>,
    buffers: u64,
    fds: u64,
    maps: u64,
}

fn document(view: &View<'_>) -> Document {
    let (snapshot, ledger) = (view.snapshot, view.ledger);
    let (coverage, totals) = (&snapshot.coverage, &ledger.totals);
    let kept = coverage.kept.filter(|kept| !kept.unknown);
    Document {
        schema: "lsbuf.snapshot/1",
        taken_at: timestamp(snapshot.taken_at),
        host: Host {
            hostname: snapshot.host.hostname.clone(),
            kernel: snapshot.host.kernel.clone(),
            boot_id: snapshot.host.boot_id.clone(),
        },
        scan: Scan {
            sources: coverage.sources.iter().copied().map(Source::as_str).collect(),
            complete: coverage.is_complete(),
            duration_us: u64::try_from(coverage.duration.as_micros()).unwrap_or(u64::MAX),
            notes: coverage.notes.iter().map(ToString::to_string).collect(),
            processes: ScanProcesses {
                total: coverage.processes.total,
                read: coverage.processes.read,
                unreadable: coverage.processes.unreadable,
                vanished: coverage.processes.vanished,
            },
        },
        totals: Totals {
            buffers: totals.buffers,
            size: bytes(totals.size),
            held: bytes(totals.held),
            opath: bytes(totals.opath),
            kernel_only: bytes(totals.kernel_only),
            rss: bytes(totals.rss),
            pss: bytes(totals.pss),
            unattributed_refs: totals.unattributed_refs,
            estimate: totals.estimate,
            in_flight_fds: kept.map(|kept| kept.in_flight),
            io_uring_files: kept.map(|kept| kept.io_uring),
        },
        exporters: ledger
            .exporters
            .iter()
            .map(|e| Exporter {
                exporter: text(e.exporter.as_ref()),
                buffers: e.buffers,
                size: bytes(e.size),
            })
            .collect(),
        buffers: view
            .buffers
            .iter()
            .map(|&i| {
                let shape = ledger.shapes[i].map(|s| s.as_str());
                buffer(&snapshot.buffers[i], &ledger.accounts[i], shape, &ledger.candidates[i])
            })
            .collect(),
        processes: view
            .processes
            .iter()
            .map(|&i| process(&snapshot.processes[i], &ledger.processes[i]))
            .collect(),
        devices: snapshot.devices.iter().map(device).collect(),
    }
}

fn buffer(
    buffer: &Buffer,
    account: &Account,
    leak_shape: Option<&'static str>,
    candidates: &[Pid],
) -> JsonBuffer {
    JsonBuffer {
        kind: buffer.id.kind.as_str(),
        dev: buffer.id.dev.map(|d| d.to_string()),
        ino: buffer.id.ino.0,
        size: bytes(buffer.size),
        charged: bytes(buffer.charged),
        name: text(buffer.name.as_ref()),
        exporter: text(buffer.exporter.as_ref()),
        count: buffer.count,
        refs: Refs {
            fd: account.fd,
            map: account.map,
            in_flight: account.in_flight,
            io_uring: account.io_uring,
            kernel: account.kernel,
            opath: account.opath,
        },
        estimate: account.estimate,
        leak_shape,
        attachments: buffer.attachments.as_ref().map(|a| a.iter().filter_map(|d| text(Some(d))).collect()),
        handles: buffer
            .handles
            .iter()
            .map(|h| JsonHandle {
                pid: h.pid.0,
                comm: h.comm.to_utf8_lossy().into_owned(),
                handle: h.handle,
                imported: h.imported,
            })
            .collect(),
        candidates: candidates.iter().map(|pid| pid.0).collect(),
        created_at: buffer.created_at.and_then(timestamp),
        creator_uid: buffer.creator_uid,
        holders: buffer.holders.iter().map(holder).collect(),
    }
}

fn holder(holder: &Holder) -> JsonHolder {
    JsonHolder {
        pid: holder.pid.0,
        fds: numbers(&holder.fds),
        opaths: numbers(&holder.opaths),
        maps: holder.maps.iter().map(map).collect(),
        threads: holder
            .threads
            .iter()
            .map(|t| JsonThread {
                tid: t.tid.0,
                fds: numbers(&t.fds),
                opaths: numbers(&t.opaths),
                fd_table_of: t.fd_table_of.map(|pid| pid.0),
            })
            .collect(),
        fd_table_of: holder.fd_table_of.map(|pid| pid.0),
        address_space_of: holder.address_space_of.map(|pid| pid.0),
    }
}

fn device(device: &Device) -> JsonDevice {
    JsonDevice {
        path: device.path.to_utf8_lossy().into_owned(),
        name: text(device.name.as_ref()),
        holders: device
            .holders
            .iter()
            .map(|h| JsonDeviceHolder { pid: h.pid.0, comm: text(h.comm.as_ref()), fds: numbers(&h.fds) })
            .collect(),
    }
}

fn numbers(fds: &[Fd]) -> Vec<u32> {
    fds.iter().map(|fd| fd.0).collect()
}

fn map(map: &MapRef) -> Map {
    Map {
        start: format!("{:#x}", map.start),
        end: format!("{:#x}", map.end),
        offset: map.offset,
        perms: map.perms.map(|p| p.to_string()),
    }
}

fn process(process: &Process, figures: &ProcessFigures) -> JsonProcess {
    JsonProcess {
        pid: process.pid.0,
        start_time: process.start_time,
        comm: process.comm.to_utf8_lossy().into_owned(),
        uid: process.uid,
        cgroup: text(process.cgroup.as_ref()),
        rss: bytes(figures.rss),
        pss: bytes(figures.pss),
        mapped_pss: bytes(figures.mapped_pss),
        uss: bytes(figures.uss),
        buffers: figures.buffers,
        fds: figures.fds,
        maps: figures.maps,
    }
}

fn bytes(size: Option<Bytes>) -> Option<u64> {
    size.map(|s| s.0)
}

fn text(label: Option<&Label>) -> Option<String> {
    label.map(|l| l.to_utf8_lossy().into_owned())
}
