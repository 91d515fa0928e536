//! `lsbuf reconcile`: the account of `Shmem` as a table for people, and as JSON, schema
//! `lsbuf.reconcile/1` (`docs/lsbuf.reconcile-1.schema.json`).

use std::cmp::Reverse;
use std::io::{self, Write};

use serde::Serialize;

use super::align::aligned;
use super::cell::Sizes;
use super::layout::{self, JsonLayout};
use super::reconcile_huge::{self, JsonHuge};
use crate::escape::escape_gaps;
use crate::model::serialize::{Time, lost_bytes, timestamp};
use crate::model::{Bytes, Coverage, Dev, Host, Kind, Label, TmpfsMount, TmpfsUsage, counted};
use crate::reconcile::{KindRow, MountRow, ReconcileRow, Reconciliation};

/// Writes the table: the rows of the account, how full each tmpfs is, the account of huge pages, a
/// line on what is not in `Shmem:`, and what the row `left over` may consist of. A mount without
/// unheld files has no row.
///
/// # Errors
/// Those of `out`.
pub fn reconciliation(out: &mut dyn Write, found: &Reconciliation, sizes: Sizes) -> io::Result<()> {
    let balance = &found.balance;
    let mut lines = vec![["WHAT", "BUFFERS", "SIZE", "WHERE"].map(str::to_owned).to_vec()];
    let mut line = |what: &str, buffers: Option<u64>, size: String, place: String| {
        let buffers = buffers.map_or(String::new(), |n| n.to_string());
        lines.push(vec![what.to_owned(), buffers, size, place]);
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
            ReconcileRow::Swapped => {
                let inferred = balance.inferred_swapped;
                let note = match inferred {
                    Bytes(0) => String::new(),
                    _ => format!("{} of it by the difference", signed(inferred.0.into(), sizes)),
                };
                line("  less: swapped", None, size, note);
            }
            ReconcileRow::LeftOver => line("  left over", None, size, String::new()),
        }
    }
    aligned(out, &lines, &[false, true, true, false])?;
    let filesystems = filesystems(&balance.mounts, sizes);
    if !filesystems.is_empty() {
        writeln!(out)?;
        aligned(out, &filesystems, &[true, true, true, true, false])?;
    }
    let huge = reconcile_huge::lines(found, sizes);
    if !huge.is_empty() {
        writeln!(out)?;
        aligned(out, &huge, &[false, true, true, false])?;
    }
    writeln!(out, "\nnot in Shmem: {}", outside(found, sizes))?;
    pinned(found, sizes).map_or(Ok(()), |text| writeln!(out, "{text}"))?;
    writeln!(out, "{}", verdict(found))?;
    reconcile_huge::verdict(found).map_or(Ok(()), |text| writeln!(out, "{text}"))
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
    let hidden = if mount.usage == TmpfsUsage::Hidden { " (hidden by another mount)" } else { "" };
    match mount.seen_by {
        None => format!("{point}{hidden}"),
        Some(pid) => format!("{point} (as process {pid} sees it){hidden}"),
    }
}

/// How full each tmpfs is, those of which nothing is used left out; the fullest first.
fn filesystems(rows: &[MountRow], sizes: Sizes) -> Vec<Vec<String>> {
    let share = |row: &MountRow| {
        let (used, limit) = (row.used()?, row.mount.limit?);
        (limit > Bytes(0)).then(|| u128::from(used.0) * 100 / u128::from(limit.0))
    };
    let is_used = |row: &&MountRow| row.mount.usage != TmpfsUsage::Ramfs && row.used() != Some(Bytes(0));
    let mut rows: Vec<&MountRow> = rows.iter().filter(is_used).collect();
    rows.sort_by_key(|row| (Reverse(share(row)), Reverse(row.used())));
    let size = |bytes: Option<Bytes>, none: &str| {
        bytes.map_or(none.to_owned(), |bytes| signed(bytes.0.into(), sizes))
    };
    let line = |row: &&MountRow| {
        let limit = if row.mount.usage == TmpfsUsage::Uncounted { "none" } else { "?" };
        vec![
            size(row.used(), "?"),
            size(Some(row.held), "?"),
            size(row.mount.limit, limit),
            share(row).map_or("?".to_owned(), |share| format!("{share}%")),
            place(&row.mount),
        ]
    };
    let heading = ["USED", "HELD", "LIMIT", "USE%", "TMPFS"].map(str::to_owned).to_vec();
    if rows.is_empty() { Vec::new() } else { std::iter::once(heading).chain(rows.iter().map(line)).collect() }
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

/// What processes have registered with io_urings. `None`: nothing.
fn pinned(found: &Reconciliation, sizes: Sizes) -> Option<String> {
    /// So many processes are named.
    const NAMED: usize = 8;
    let (named, others) = found.pinned.split_at(found.pinned.len().min(NAMED));
    let size = |bytes: Bytes| signed(bytes.0.into(), sizes);
    let mut parts: Vec<String> =
        named.iter().map(|&(pid, bytes)| format!("{} by process {pid}", size(bytes))).collect();
    if !others.is_empty() {
        parts.push(format!("and by {}", counted(others.len() as u64, "other process", "other processes")));
    }
    let parts = (!parts.is_empty()).then(|| parts.join(", "))?;
    Some(format!(
        "registered with io_urings: {parts}; it may be of memfds that are closed, which are in no row"
    ))
}

/// A size with its sign.
pub(super) fn signed(bytes: i128, sizes: Sizes) -> String {
    let magnitude = Bytes(u64::try_from(bytes.unsigned_abs()).unwrap_or(u64::MAX));
    let sign = if bytes < 0 { "-" } else { "" };
    match sizes {
        Sizes::Bytes => bytes.to_string(),
        Sizes::Human => format!("{sign}{}", magnitude),
    }
}

/// A process with an io_uring, and how much memory it has registered.
#[derive(Serialize)]
struct JsonPinned {
    pid: u32,
    bytes: u64,
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
    inferred_swapped: u64,
    maybe_swapped: u64,
    left_over: i128,
    outside: Vec<JsonReconcileKind>,
    hugetlb: u64,
    huge_pages: Vec<JsonHuge<'a>>,
    pinned: Vec<JsonPinned>,
    doubts: Vec<String>,
    huge_doubts: Vec<String>,
}

#[derive(Serialize)]
pub(super) struct JsonReconcileKind {
    kind: Kind,
    buffers: u64,
    charged: Bytes,
    unknown: u64,
}

impl From<&KindRow> for JsonReconcileKind {
    fn from(row: &KindRow) -> JsonReconcileKind {
        JsonReconcileKind { kind: row.kind, buffers: row.buffers, charged: row.charged, unknown: row.unknown }
    }
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
    unheld_files: Option<u64>,
    limit: Option<u64>,
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
    let tmpfs = balance.mounts.iter().map(|row| {
        let usage = match row.mount.usage {
            TmpfsUsage::Used(_) => "used",
            TmpfsUsage::Uncounted => "uncounted",
            TmpfsUsage::Ramfs => "ramfs",
            TmpfsUsage::Hidden => "hidden",
            TmpfsUsage::Unmounted => "unmounted",
            TmpfsUsage::Unreadable => "unreadable",
        };
        JsonMount {
            dev: row.mount.dev,
            mount_point: &row.mount.point,
            mount_point_bytes: lost_bytes(Some(&row.mount.point)),
            seen_by: row.mount.seen_by.map(|pid| pid.0),
            usage,
            used: row.used().map(|used| used.0),
            held: row.held.0,
            unheld: row.unheld.map(|unheld| unheld.0),
            unheld_files: row.unheld_files,
            limit: row.mount.limit.map(|limit| limit.0),
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
        held: balance.held.iter().map(JsonReconcileKind::from).collect(),
        tmpfs: tmpfs.collect(),
        swapped: balance.swapped.0,
        inferred_swapped: balance.inferred_swapped.0,
        maybe_swapped: balance.maybe_swapped.0,
        left_over: balance.left_over,
        outside: balance.outside.iter().map(JsonReconcileKind::from).collect(),
        hugetlb: found.hugetlb.0,
        huge_pages: found.huge.iter().map(JsonHuge::from).collect(),
        huge_doubts: found.huge_uncertainties.iter().map(ToString::to_string).collect(),
        pinned: found.pinned.iter().map(|&(pid, bytes)| JsonPinned { pid: pid.0, bytes: bytes.0 }).collect(),
        doubts: found.uncertainties().iter().map(ToString::to_string).collect(),
    };
    layout::document(out, &document, layout)
}
