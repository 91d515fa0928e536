//! JSON, schema `lsbuf.snapshot/1`: the contract with programs, as in `docs/lsbuf.snapshot-1.schema.json`.
//!
//! Keys are stable: additions are free, a change of meaning makes a new schema. Sizes are bytes. What could not
//! be known is `null`. Strangers' text is lossy UTF-8, and what a terminal would obey is escaped even where JSON need not.
//!
//! It is written as it is made, one buffer after the other: a document can be many times as large as the snapshot.

use std::borrow::Cow;
use std::io::{self, BufWriter, Write};

use serde::{Serialize, Serializer};
use serde_json::ser::Formatter;

use super::View;
use super::columns::timestamp;
use super::escape::escape_json;
use crate::model::{
    Account, Buffer, Bytes, Dev, Device, DeviceHolder, ExporterTotals, Fd, GemHandle, Holder, Label, MapRef,
    Note, Perms, Pid, Process, ProcessFigures, Source, ThreadFds,
};

/// Writes the view as one JSON document.
///
/// # Errors
/// Those of `out`.
pub fn json(out: &mut dyn Write, view: &View<'_>) -> io::Result<()> {
    let mut pieces = BufWriter::with_capacity(64 << 10, out);
    document(view).serialize(&mut serde_json::Serializer::with_formatter(&mut pieces, Lines::default()))?;
    pieces.write_all(b"\n")?;
    pieces.flush()
}

/// A line for each value, like [`PrettyFormatter`](serde_json::ser::PrettyFormatter)'s but with one piece of text between two
/// values; and nothing in a string that a terminal would obey.
#[derive(Default)]
struct Lines {
    depth: usize,
    /// Whether what is open has a value.
    filled: bool,
}

impl Lines {
    fn open<W: ?Sized + Write>(&mut self, out: &mut W, bracket: &[u8]) -> io::Result<()> {
        self.depth += 1;
        self.filled = false;
        out.write_all(bracket)
    }

    fn close<W: ?Sized + Write>(&mut self, out: &mut W, bracket: &[u8]) -> io::Result<()> {
        self.depth -= 1;
        if self.filled {
            self.line(out, true)?;
        }
        self.filled = true;
        out.write_all(bracket)
    }

    /// Begins a line, after a comma unless it is the `first`.
    fn line<W: ?Sized + Write>(&self, out: &mut W, first: bool) -> io::Result<()> {
        /// Deeper than the document is.
        const BREAK: &[u8] = b",\n                                ";
        let end = BREAK.len().min(2 + 2 * self.depth);
        out.write_all(&BREAK[usize::from(first)..end])
    }
}

impl Formatter for Lines {
    fn begin_array<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.open(out, b"[")
    }

    fn end_array<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.close(out, b"]")
    }

    fn begin_array_value<W: ?Sized + Write>(&mut self, out: &mut W, first: bool) -> io::Result<()> {
        self.line(out, first)
    }

    fn end_array_value<W: ?Sized + Write>(&mut self, _: &mut W) -> io::Result<()> {
        self.filled = true;
        Ok(())
    }

    fn begin_object<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.open(out, b"{")
    }

    fn end_object<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.close(out, b"}")
    }

    fn begin_object_key<W: ?Sized + Write>(&mut self, out: &mut W, first: bool) -> io::Result<()> {
        self.line(out, first)
    }

    fn begin_object_value<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        out.write_all(b": ")
    }

    fn end_object_value<W: ?Sized + Write>(&mut self, _: &mut W) -> io::Result<()> {
        self.filled = true;
        Ok(())
    }

    fn write_string_fragment<W: ?Sized + Write>(&mut self, out: &mut W, fragment: &str) -> io::Result<()> {
        if fragment.bytes().all(|b| b < 0x7f) {
            return out.write_all(fragment.as_bytes());
        }
        out.write_all(escape_json(fragment).as_bytes())
    }
}

/// A list of what each item comes to.
struct Each<'a, T, J>(&'a [T], fn(&'a T) -> J);

impl<T, J: Serialize> Serialize for Each<'_, T, J> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(self.1))
    }
}

/// The buffers of a view.
struct Buffers<'a>(&'a View<'a>);

impl Serialize for Buffers<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let View { snapshot, ledger, buffers, .. } = self.0;
        serializer.collect_seq(buffers.iter().map(|&i| {
            let shape = ledger.shapes[i].map(|s| s.as_str());
            buffer(&snapshot.buffers[i], &ledger.accounts[i], shape, &ledger.candidates[i])
        }))
    }
}

/// The processes of a view.
struct Processes<'a>(&'a View<'a>);

impl Serialize for Processes<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let View { snapshot, ledger, processes, .. } = self.0;
        serializer
            .collect_seq(processes.iter().map(|&i| process(&snapshot.processes[i], &ledger.processes[i])))
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

#[derive(Serialize)]
struct Document<'a> {
    schema: &'static str,
    taken_at: Option<String>,
    host: Host<'a>,
    scan: Scan<'a>,
    totals: Totals,
    exporters: Each<'a, ExporterTotals, Exporter<'a>>,
    buffers: Buffers<'a>,
    processes: Processes<'a>,
    devices: Each<'a, Device, JsonDevice<'a>>,
}

#[derive(Serialize)]
struct Host<'a> {
    hostname: Option<&'a str>,
    kernel: Option<&'a str>,
    boot_id: Option<&'a str>,
}

#[derive(Serialize)]
struct Scan<'a> {
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
struct Exporter<'a> {
    exporter: Option<Text<'a>>,
    buffers: u64,
    size: Option<u64>,
}

#[derive(Serialize)]
struct JsonBuffer<'a> {
    kind: &'static str,
    dev: Option<Shown<Dev>>,
    ino: u64,
    size: Option<u64>,
    charged: Option<u64>,
    name: Option<Text<'a>>,
    exporter: Option<Text<'a>>,
    count: Option<u64>,
    refs: Refs,
    estimate: bool,
    leak_shape: Option<&'static str>,
    attachments: Option<Each<'a, Label, Text<'a>>>,
    handles: Each<'a, GemHandle, JsonHandle<'a>>,
    candidates: Numbers<'a, Pid>,
    created_at: Option<String>,
    creator_uid: Option<u32>,
    holders: Each<'a, Holder, JsonHolder<'a>>,
}

#[derive(Serialize)]
struct JsonHandle<'a> {
    pid: u32,
    comm: Text<'a>,
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
struct JsonHolder<'a> {
    pid: u32,
    fds: Numbers<'a, Fd>,
    opaths: Numbers<'a, Fd>,
    maps: Each<'a, MapRef, Map>,
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
    name: Option<Text<'a>>,
    holders: Each<'a, DeviceHolder, JsonDeviceHolder<'a>>,
}

#[derive(Serialize)]
struct JsonDeviceHolder<'a> {
    pid: u32,
    comm: Option<Text<'a>>,
    fds: Numbers<'a, Fd>,
}

#[derive(Serialize)]
struct Map {
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
    uid: Option<u32>,
    cgroup: Option<Text<'a>>,
    rss: Option<u64>,
    pss: Option<u64>,
    mapped_pss: Option<u64>,
    uss: Option<u64>,
    buffers: u64,
    fds: u64,
    maps: u64,
}

fn document<'a>(view: &'a View<'a>) -> Document<'a> {
    let (snapshot, ledger) = (view.snapshot, view.ledger);
    let (coverage, totals) = (&snapshot.coverage, &ledger.totals);
    let kept = coverage.kept.filter(|kept| !kept.unknown);
    Document {
        schema: "lsbuf.snapshot/1",
        taken_at: timestamp(snapshot.taken_at),
        host: Host {
            hostname: snapshot.host.hostname.as_deref(),
            kernel: snapshot.host.kernel.as_deref(),
            boot_id: snapshot.host.boot_id.as_deref(),
        },
        scan: Scan {
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
        exporters: Each(&ledger.exporters, |e| Exporter {
            exporter: text(e.exporter.as_ref()),
            buffers: e.buffers,
            size: bytes(e.size),
        }),
        buffers: Buffers(view),
        processes: Processes(view),
        devices: Each(&snapshot.devices, |device| JsonDevice {
            path: device.path.to_utf8_lossy(),
            name: text(device.name.as_ref()),
            holders: Each(&device.holders, |h| JsonDeviceHolder {
                pid: h.pid.0,
                comm: text(h.comm.as_ref()),
                fds: numbers(&h.fds),
            }),
        }),
    }
}

fn buffer<'a>(
    buffer: &'a Buffer,
    account: &Account,
    leak_shape: Option<&'static str>,
    candidates: &'a [Pid],
) -> JsonBuffer<'a> {
    JsonBuffer {
        kind: buffer.id.kind.as_str(),
        dev: buffer.id.dev.map(Shown),
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
        attachments: buffer.attachments.as_deref().map(|names| Each(names, Label::to_utf8_lossy)),
        handles: Each(&buffer.handles, |h| JsonHandle {
            pid: h.pid.0,
            comm: h.comm.to_utf8_lossy(),
            handle: h.handle,
            imported: h.imported,
        }),
        candidates: Each(candidates, |pid| pid.0),
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
        maps: Each(&holder.maps, |map| Map {
            start: Hex(map.start),
            end: Hex(map.end),
            offset: map.offset,
            perms: map.perms.map(Shown),
        }),
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

fn process<'a>(process: &'a Process, figures: &ProcessFigures) -> JsonProcess<'a> {
    JsonProcess {
        pid: process.pid.0,
        start_time: process.start_time,
        comm: process.comm.to_utf8_lossy(),
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

fn numbers(fds: &[Fd]) -> Numbers<'_, Fd> {
    Each(fds, |fd| fd.0)
}

fn bytes(size: Option<Bytes>) -> Option<u64> {
    size.map(|s| s.0)
}

fn text(label: Option<&Label>) -> Option<Text<'_>> {
    label.map(Label::to_utf8_lossy)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![any::<u64>().prop_map(Value::from), "[ -~]{0,8}".prop_map(Value::from)];
        leaf.prop_recursive(6, 40, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::hash_map("[a-z]{0,4}", inner, 0..4).prop_map(|map| json!(map)),
            ]
        })
    }

    proptest! {
        /// Check that any document of printable ASCII is laid out as everybody lays out JSON.
        #[test]
        fn laid_out_as_usual(value in value()) {
            let mut text = Vec::new();
            value.serialize(&mut serde_json::Serializer::with_formatter(&mut text, Lines::default())).unwrap();
            prop_assert_eq!(String::from_utf8(text).unwrap(), serde_json::to_string_pretty(&value).unwrap());
        }
    }
}
