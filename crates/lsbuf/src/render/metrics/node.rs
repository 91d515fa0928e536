//! Metrics of the whole machine: buffers by kind, exporter and shape; and the account of shared
//! memory.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use super::Scrape;
use super::family::{Family, Labels, Unit, value};
use crate::model::{Buffer, Bytes, Kind, Label, Ledger, Residual, knows_unheld};
use crate::reconcile::{Balance, Reconciliation};

/// How many exporters and how many mount points have series of their own: the largest ones.
const MOST_NAMES: usize = 40;

/// What stands for all other exporters or mount points.
const OTHERS: &str = "other";

pub(super) fn families(scrape: &Scrape<'_>) -> Vec<Family> {
    let mut families = of_kinds(scrape.ledger);
    families.extend(of_exporters(scrape.ledger));
    families.extend(of_shapes(scrape.ledger));
    families.extend(scrape.shmem.into_iter().flat_map(of_shmem));
    families
}

/// Who has the buffer.
fn state(buffer: &Buffer) -> &'static str {
    if !buffer.holders.is_empty() {
        "held"
    } else if buffer.is_unheld() {
        "kernel_only"
    } else {
        "unknown"
    }
}

/// Sums of sizes, of which a group has none as soon as one size in it is unknown.
#[derive(Default)]
struct Sums(BTreeMap<Labels, Option<i128>>);

impl Sums {
    fn add(&mut self, labels: Labels, size: Option<Bytes>) {
        let sum = self.0.entry(labels).or_insert(Some(0));
        *sum = sum.zip(size).map(|(sum, size)| sum.saturating_add(i128::from(size.0)));
    }

    fn into(self, family: &mut Family) {
        for (labels, sum) in self.0 {
            if let Some(sum) = sum {
                family.add(labels, sum);
            }
        }
    }
}

fn of_kinds(ledger: &Ledger<'_>) -> Vec<Family> {
    let snapshot = ledger.snapshot();
    let mut counts = Family::gauge(
        "buffers",
        Unit::None,
        "Buffers by kind and state: held by a process; kernel_only, by no process; unknown, perhaps by a process \
         that could not be read.",
    );
    let mut costs = Family::gauge(
        "cost",
        Unit::Bytes,
        "What the buffers cost: of a dma-buf its size, of shared memory what is charged for it, in memory or swap.",
    );
    let labels =
        |kind: Kind, state: &str| vec![("kind", kind.as_str().to_owned()), ("state", state.to_owned())];
    let mut sums = Sums::default();
    // Of what was looked for and not found there is 0.
    for kind in snapshot.kinds.iter() {
        for state in ["held", "kernel_only"] {
            if state == "held" || kind != Kind::DmaBuf || knows_unheld(snapshot) {
                counts.add(labels(kind, state), 0);
                sums.add(labels(kind, state), Some(Bytes(0)));
            }
        }
    }
    for buffer in &snapshot.buffers {
        counts.add(labels(buffer.id.kind, state(buffer)), 1);
        sums.add(labels(buffer.id.kind, state(buffer)), buffer.cost());
    }
    sums.into(&mut costs);
    vec![counts, costs]
}

fn of_exporters(ledger: &Ledger<'_>) -> Vec<Family> {
    let mut counts = Family::gauge("dmabufs", Unit::None, "Dma-bufs by exporter and state.");
    let mut sizes = Family::gauge("dmabuf_size", Unit::Bytes, "Their sizes together.");
    let mut references = Family::gauge(
        "kernel_references",
        Unit::None,
        "References to dma-bufs that no process explains (drivers, GEM handles), by exporter: proven ones, and \
         estimates.",
    );
    // The ledger has the largest ones first.
    let named: BTreeSet<&Label> =
        ledger.exporters.iter().filter_map(|totals| totals.exporter.as_ref()).take(MOST_NAMES).collect();
    let exporter = |buffer: &Buffer| match &buffer.exporter {
        Some(exporter) if named.contains(exporter) => value(exporter.as_bytes()),
        Some(_) => OTHERS.to_owned(),
        None => "unknown".to_owned(),
    };
    let mut sums = Sums::default();
    for row in ledger.rows().filter(|row| row.buffer.id.kind == Kind::DmaBuf) {
        let exporter = exporter(row.buffer);
        let labels = || vec![("exporter", exporter.clone()), ("state", state(row.buffer).to_owned())];
        counts.add(labels(), 1);
        sums.add(labels(), row.buffer.size);
        let (proof, number) = match row.account.residual {
            Residual::Exact(number) => ("exact", Some(number)),
            residual => ("estimate", residual.number()),
        };
        if let Some(number) = number {
            references.add(vec![("exporter", exporter.clone()), ("proof", proof.to_owned())], number);
        }
    }
    sums.into(&mut sizes);
    vec![counts, sizes, references]
}

fn of_shapes(ledger: &Ledger<'_>) -> Vec<Family> {
    let mut counts = Family::gauge(
        "shape_buffers",
        Unit::None,
        "Buffers whose references look like a leak, by kind and shape. A shape is a hint and no verdict.",
    );
    let mut costs = Family::gauge("shape_cost", Unit::Bytes, "What they cost.");
    let mut sums = Sums::default();
    for row in ledger.rows() {
        let Some(shape) = row.shape else { continue };
        let kind = row.buffer.id.kind.as_str();
        let labels = || vec![("kind", kind.to_owned()), ("shape", shape.as_str().to_owned())];
        counts.add(labels(), 1);
        sums.add(labels(), row.buffer.cost());
    }
    sums.into(&mut costs);
    vec![counts, costs]
}

/// The parts add up to the total, to the byte.
fn of_shmem(found: &Reconciliation) -> Vec<Family> {
    let balance = &found.balance;
    let mut total = Family::gauge("shmem_total", Unit::Bytes, "Shmem of /proc/meminfo.");
    total.add(Vec::new(), balance.shmem.0);
    let mut parts = Family::gauge(
        "shmem",
        Unit::Bytes,
        "What Shmem consists of: held, by kind; unheld, files that no process holds; swapped, what is charged \
         above and in swap, below 0; left_over, what nothing explains. The parts add up to the total.",
    );
    let part = |part: &str, kind: &str| vec![("part", part.to_owned()), ("kind", kind.to_owned())];
    for row in &balance.held {
        parts.add(part("held", row.kind.as_str()), row.charged.0);
    }
    let unheld: Bytes = balance.mounts.iter().filter_map(|row| row.unheld).sum();
    parts.add(part("unheld", Kind::Tmpfs.as_str()), unheld.0);
    parts.add(part("swapped", ""), -i128::from(balance.swapped.0));
    parts.add(part("left_over", ""), balance.left_over);
    let mut families = vec![total, parts];
    families.extend(of_mounts(balance));
    families
}

fn of_mounts(balance: &Balance) -> Vec<Family> {
    let mut bytes = Family::gauge(
        "tmpfs_unheld",
        Unit::Bytes,
        "What the files of a tmpfs take that no process holds, by mount point. Filesystems that have the same mount \
         point in several containers are added up.",
    );
    let mut files = Family::gauge("tmpfs_unheld_files", Unit::None, "How many regular files these are.");
    let mut rows: Vec<_> = balance.mounts.iter().collect();
    rows.sort_by_key(|row| Reverse(row.unheld));
    for (nth, row) in rows.into_iter().enumerate() {
        let point =
            if row.mount.point.is_empty() { "none".to_owned() } else { value(row.mount.point.as_bytes()) };
        let point = if nth < MOST_NAMES { point } else { OTHERS.to_owned() };
        let labels = || vec![("mount", point.clone())];
        if let Some(unheld) = row.unheld {
            bytes.add(labels(), unheld.0);
        }
        if let Some(count) = row.unheld_files {
            files.add(labels(), count);
        }
    }
    vec![bytes, files]
}
