//! `lsbuf reconcile`: the account of `Shmem` as a table for people, and as JSON, schema
//! `lsbuf.reconcile/1` (`docs/lsbuf.reconcile-1.schema.json`).

use std::io::{self, Write};

use serde::Serialize;

use super::align::{Alignment, width_of};
use super::cell::Sizes;
use super::layout::{self, JsonLayout};
use crate::escape::escape_gaps;
use crate::model::serialize::{Time, lost_bytes, timestamp};
use crate::model::{Bytes, Coverage, Dev, Host, Kind, Label, TmpfsMount, TmpfsUsage};
use crate::reconcile::{KindRow, ReconcileRow, Reconciliation};

/// Writes the table: the rows of the account, a line on what is not in `Shmem:`, and what the row
/// `left over` may consist of. A mount without unheld files has no row.
///
/// # Errors
/// Those of `out`.
pub fn reconciliation(out: &mut dyn Write, found: &Reconciliation, sizes: Sizes) -> io::Result<()> {
    let balance = &found.balance;
    let mut lines = vec![["WHAT", "BUFFERS", "SIZE", "WHERE"].map(str::to_owned)];
    let mut line = |what: &str, buffers: Option<u64>, size: String, place: String| {
        let buffers = buffers.map_or(String::new(), |n| n.to_string());
        lines.push([what.to_owned(), buffers, size, place]);
    };
    line("Shmem", None, signed(balance.shmem.0.into(), sizes), "/proc/meminfo".into());
    for (row, bytes) in balance.rows() {
        let size = signed(bytes, sizes);
        match row {
            ReconcileRow::Held(row) => {
                let size = if row.unknown == row.buffers { "?".into() } else { size };
                line(held_as(row.kind), Some(row.buffers), size, String::new());
            }
            ReconcileRow::Unheld(row) if row.unheld.is_none() => {
                line("  tmpfs, not held", None, "?".into(), place(&row.mount));
            }
            ReconcileRow::Unheld(row) if bytes > 0 => {
                line("  tmpfs, not held", None, size, place(&row.mount))
            }
            ReconcileRow::Unheld(_) => {}
            ReconcileRow::Swapped => line("  less: swapped", None, size, String::new()),
            ReconcileRow::LeftOver => line("  left over", None, size, String::new()),
        }
    }
    let width = |nth: usize| lines.iter().map(|line| width_of(&line[nth])).max().unwrap_or(0);
    let alignment =
        Alignment { widths: (0..4).map(width).collect(), numbers: vec![false, true, true, false], gap: 2 };
    for line in &lines {
        writeln!(out, "{}", alignment.line(line.iter().map(String::as_str)))?;
    }
    writeln!(out, "\nnot in Shmem: {}", outside(found, sizes))?;
    writeln!(out, "{}", verdict(found))
}

/// What the row `left over` may consist of, and why it may be off.
fn verdict(found: &Reconciliation) -> String {
    let uncertainties: Vec<String> = found.uncertainties().iter().map(|one| format!("- {one}\n")).collect();
    let told = match (found.balance.left_over, uncertainties.len()) {
        (0, 0) => return "it adds up to the page".into(),
        (0, _) => "it adds up to the page, but:\n".into(),
        (_, 0) => return format!("what is left over may be {}", found.causes()),
        _ => format!("what is left over may be {}; also:\n", found.causes()),
    };
    format!("{told}{}", uncertainties.concat()).trim_end().to_owned()
}

/// The first cell of a kind's row.
fn held_as(kind: Kind) -> &'static str {
    match kind {
        Kind::Memfd => "  memfd",
        Kind::Sysv => "  sysv",
        Kind::ShmAnon => "  shm-anon",
        Kind::Tmpfs => "  tmpfs, held",
        Kind::GemShmem => "  gem-shmem",
        Kind::Ashmem => "  ashmem",
        Kind::ShmOther => "  shm-other",
        Kind::DmaBuf | Kind::Hugetlbfs | Kind::Secretmem | Kind::GuestMemfd => "  other",
    }
}

/// Where a tmpfs is mounted, and which process sees it there if the reader does not.
fn place(mount: &TmpfsMount) -> String {
    if mount.usage == TmpfsUsage::Unmounted {
        return format!("device {}, which no mount shows", mount.dev);
    }
    let point = escape_gaps(mount.point.as_bytes());
    mount.seen_by.map_or(point.clone(), |pid| format!("{point} (as process {pid} sees it)"))
}

/// The shared memory that is not in `Shmem:`.
fn outside(found: &Reconciliation, sizes: Sizes) -> String {
    let part = |row: &KindRow| {
        let what = match row.kind {
            Kind::Memfd | Kind::Sysv | Kind::ShmAnon | Kind::ShmOther => format!("huge {}", row.kind),
            Kind::Tmpfs => "ramfs".into(),
            kind => kind.to_string(),
        };
        let size = if row.unknown == row.buffers { "?".into() } else { signed(row.charged.0.into(), sizes) };
        format!("{what} {size} in {}", row.buffers)
    };
    let mut parts: Vec<String> = found.balance.outside.iter().map(part).collect();
    parts.push(format!("{} of huge pages in all (Hugetlb)", signed(found.hugetlb.0.into(), sizes)));
    parts.join(", ")
}

/// A size with its sign.
fn signed(bytes: i128, sizes: Sizes) -> String {
    let magnitude = Bytes(u64::try_from(bytes.unsigned_abs()).unwrap_or(u64::MAX));
    let sign = if bytes < 0 { "-" } else { "" };
    match sizes {
        Sizes::Bytes => bytes.to_string(),
        Sizes::Human => format!("{sign}{}", magnitude),
    }
}

#[derive(Serialize)]
struct ReconcileDocument<'a> {
    schema: &'static str,
    taken_at: Option<Time>,
    host: &'a Host,
    scan: &'a Coverage,
    complete: bool,
    shmem: u64,
    shmem_before: u64,
    folded: bool,
    listed: bool,
    held: Vec<JsonReconcileKind>,
    tmpfs: Vec<JsonMount<'a>>,
    swapped: u64,
    maybe_swapped: u64,
    left_over: i128,
    outside: Vec<JsonReconcileKind>,
    hugetlb: u64,
    doubts: Vec<String>,
}

#[derive(Serialize)]
struct JsonReconcileKind {
    kind: Kind,
    buffers: u64,
    charged: Bytes,
    unknown: u64,
}

#[derive(Serialize)]
struct JsonMount<'a> {
    dev: Dev,
    mount_point: &'a Label,
    #[serde(skip_serializing_if = "Option::is_none")]
    mount_point_bytes: Option<String>,
    seen_by: Option<u32>,
    usage: &'static str,
    used: Option<u64>,
    held: u64,
    unheld: Option<u64>,
}

/// Writes one JSON document.
///
/// # Errors
/// Those of `out`.
pub fn reconciliation_json(
    out: &mut dyn Write,
    found: &Reconciliation,
    layout: JsonLayout,
) -> io::Result<()> {
    let balance = &found.balance;
    let kind = |row: &KindRow| JsonReconcileKind {
        kind: row.kind,
        buffers: row.buffers,
        charged: row.charged,
        unknown: row.unknown,
    };
    let tmpfs = balance.mounts.iter().map(|row| {
        let (usage, used) = match row.mount.usage {
            TmpfsUsage::Used(used) => ("used", Some(used.0)),
            TmpfsUsage::Uncounted => ("uncounted", None),
            TmpfsUsage::Ramfs => ("ramfs", None),
            TmpfsUsage::Hidden => ("hidden", None),
            TmpfsUsage::Unmounted => ("unmounted", None),
            TmpfsUsage::Unreadable => ("unreadable", None),
        };
        JsonMount {
            dev: row.mount.dev,
            mount_point: &row.mount.point,
            mount_point_bytes: lost_bytes(Some(&row.mount.point)),
            seen_by: row.mount.seen_by.map(|pid| pid.0),
            usage,
            used,
            held: row.held.0,
            unheld: row.unheld.map(|unheld| unheld.0),
        }
    });
    let document = ReconcileDocument {
        schema: "lsbuf.reconcile/1",
        taken_at: timestamp(found.taken_at),
        host: &found.host,
        scan: &found.coverage,
        complete: found.is_complete(),
        shmem: balance.shmem.0,
        shmem_before: found.shmem_before.0,
        folded: found.not_folded.is_none(),
        listed: found.listed,
        held: balance.held.iter().map(kind).collect(),
        tmpfs: tmpfs.collect(),
        swapped: balance.swapped.0,
        maybe_swapped: balance.maybe_swapped.0,
        left_over: balance.left_over,
        outside: balance.outside.iter().map(kind).collect(),
        hugetlb: found.hugetlb.0,
        doubts: found.uncertainties().iter().map(ToString::to_string).collect(),
    };
    layout::document(out, &document, layout)
}
