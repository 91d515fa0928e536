//! Metrics of workloads: of each container in a pod, and of each unit.
//!
//! All four labels are in every series, and those that do not apply are empty, so that sums by any
//! of them find all series.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use super::family::{Family, Labels, Unit, value};
use super::series;
use crate::model::{Bytes, Group, GroupFigures, Kind, Label, Ledger, Process, Sum, SumKey, WorkloadName};

/// The unit of processes that run in none, of those of which it is not known, and of all workloads
/// for which there was no room. No unit has such a name: it would end in its type.
const NO_UNIT: &str = "none";
const UNKNOWN: &str = "unknown";
const OTHERS: &str = "other";

/// The families, of no more than so many series.
pub(super) fn families(ledger: &Ledger<'_>, most: usize) -> Vec<Family> {
    let all: Vec<usize> = (0..ledger.snapshot().buffers.len()).collect();
    let sum = Sum::of(ledger, &all, SumKey::Workload);
    let mut ranked: Vec<&GroupFigures> =
        sum.groups.iter().filter(|figures| figures.group != Group::Unheld).collect();
    ranked.sort_by_key(|figures| (Reverse(figures.pss), figures.group.clone()));
    let named = Named::of(ledger);
    let by_kind = by_kind(ledger);
    // How many workloads there is room for is found by trying: each has another number of series.
    let mut kept = ranked.len();
    loop {
        let families = of_ranked(ledger, &ranked, kept, &named, &by_kind);
        if series(&families) <= most || kept == 0 {
            return families;
        }
        kept = (kept * most / series(&families).max(1)).min(kept - 1);
    }
}

/// The labels of each group.
struct Named(BTreeMap<Group, Labels>);

impl Named {
    fn of(ledger: &Ledger<'_>) -> Named {
        let mut named = BTreeMap::new();
        for process in &ledger.snapshot().processes {
            if let Some(name) = name(process) {
                named.insert(SumKey::Workload.of_holder(process), labels(&name));
            }
        }
        Named(named)
    }

    fn labels(&self, group: &Group) -> Labels {
        self.0.get(group).cloned().unwrap_or_else(|| {
            of_unit(match group {
                Group::None => NO_UNIT,
                _ => UNKNOWN,
            })
        })
    }
}

fn name(process: &Process) -> Option<WorkloadName> {
    process.details.as_deref()?.workload.as_ref()?.name()
}

fn labels(name: &WorkloadName) -> Labels {
    let WorkloadName { namespace, pod, container, unit } = name;
    let text = |label: &Option<Label>| label.as_ref().map_or(String::new(), |label| value(label.as_bytes()));
    vec![
        ("namespace", text(namespace)),
        ("pod", text(pod)),
        ("container", text(container)),
        ("unit", text(unit)),
    ]
}

fn of_unit(unit: &str) -> Labels {
    labels(&WorkloadName { unit: Some(unit.into()), ..WorkloadName::default() })
}

/// The PSS of each group, kind by kind; `None`: unknown.
fn by_kind(ledger: &Ledger<'_>) -> BTreeMap<(Group, Kind), Option<Bytes>> {
    let buffers = &ledger.snapshot().buffers;
    let mut found = BTreeMap::new();
    for kind in ledger.kinds.iter().map(|totals| totals.kind) {
        let of_kind: Vec<usize> = (0..buffers.len()).filter(|&nth| buffers[nth].id.kind == kind).collect();
        for figures in Sum::of(ledger, &of_kind, SumKey::Workload).groups {
            found.insert((figures.group, kind), figures.pss);
        }
    }
    found
}

fn of_ranked(
    ledger: &Ledger<'_>,
    ranked: &[&GroupFigures],
    kept: usize,
    named: &Named,
    by_kind: &BTreeMap<(Group, Kind), Option<Bytes>>,
) -> Vec<Family> {
    let gauge = Family::gauge;
    let mut buffers = gauge(
        "workload_buffers",
        Unit::None,
        "Buffers that processes of the workload hold. One that several workloads hold counts in each.",
    );
    let mut pss = gauge(
        "workload_pss",
        Unit::Bytes,
        "The workload's part of what they cost, by kind: each cost is divided by the holders. The parts of all \
         workloads add up to what is held.",
    );
    let mut uss = gauge(
        "workload_uss",
        Unit::Bytes,
        "What the kernel would free if all processes of the workload exited.",
    );
    let mut fds = gauge("workload_fds", Unit::None, "File descriptors of buffers.");
    let mut syncs = gauge("workload_sync_files", Unit::None, "File descriptors of sync_files (fences).");
    let mut limit = gauge(
        "workload_fd_limit",
        Unit::Ratio,
        "Of the process that is nearest to its limit of file descriptors: which part of the limit those of buffers \
         and of sync_files take.",
    );
    let rank: BTreeMap<&Group, usize> =
        ranked.iter().enumerate().map(|(nth, figures)| (&figures.group, nth)).collect();
    let others = of_unit(OTHERS);
    let labels = |group: &Group| match rank.get(group) {
        Some(nth) if *nth < kept => named.labels(group),
        _ => others.clone(),
    };
    let (mut no_uss, mut no_pss) = (Vec::new(), Vec::new());
    for figures in ranked {
        let labels = labels(&figures.group);
        buffers.add(labels.clone(), figures.buffers);
        fds.add(labels.clone(), figures.fds);
        // What several workloads would free together is more than the sum.
        match figures.uss.filter(|_| labels != others) {
            Some(freed) => uss.add(labels, freed.0),
            None => no_uss.push(labels),
        }
    }
    for ((group, kind), part) in by_kind {
        if *group == Group::Unheld {
            continue;
        }
        let labels: Labels = labels(group).into_iter().chain([("kind", kind.as_str().to_owned())]).collect();
        match part {
            Some(part) => pss.add(labels, part.0),
            None => no_pss.push(labels),
        }
    }
    // A sum of which one part is unknown is unknown.
    uss.samples.retain(|labels, _| !no_uss.contains(labels));
    pss.samples.retain(|labels, _| !no_pss.contains(labels));
    for row in ledger.processes() {
        let labels = labels(&SumKey::Workload.of_holder(row.process));
        let files = row.process.sync_files;
        if let Some(files) = files.filter(|files| *files > 0) {
            syncs.add(labels.clone(), files);
        }
        let most =
            row.process.details.as_deref().and_then(|details| details.fd_limit).filter(|most| *most > 0);
        if let Some(most) = most {
            let used = row.figures.fds + files.unwrap_or(0);
            limit.raise(labels, used as f64 / most as f64);
        }
    }
    vec![buffers, pss, uss, fds, syncs, limit]
}
