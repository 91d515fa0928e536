//! The result of judging one answer, and how one buffer's account is judged.
//!
//! A buffer that no step touched is compared with its true account. Of a touched buffer only the
//! references that no step touched must be listed, and an exact residual must be possible.

use std::collections::BTreeMap;

use serde_json::Value;

use super::TimedAnswer;
use super::printed::{counts_memfds, find, is_from, named};
use crate::actor::Held;
use crate::answer::{self, Answer, ExpectedResidual, Truth};
use crate::make;
use crate::soak::figures::address;
use crate::soak::history::History;
use crate::soak::journal::Hold;
use crate::soak::names::MEMFD;
use crate::soak::world::SoakWorld;

/// The result of judging one answer.
#[derive(Debug, Default)]
pub(in crate::soak) struct Findings {
    /// What is wrong. One error fails the soak test.
    pub(in crate::soak) errors: Vec<String>,
    /// Wrong residuals that were called exact, within the limit of several readings that lsbuf's
    /// documents state.
    pub(in crate::soak) limits: Vec<String>,
    /// Memfds that existed during the whole scan and are missing from an answer that says that
    /// memfds may be missing.
    pub(in crate::soak) missing_with_note: u64,
    /// How many buffers have only an estimate in the answer, by the reason that it gives.
    pub(in crate::soak) reasons: BTreeMap<String, u64>,
    /// How many buffers the answer has.
    pub(in crate::soak) listed: u64,
    /// How many accounts were compared with the truth in full.
    pub(in crate::soak) accounts: u64,
    /// How many of them were marked as estimates.
    pub(in crate::soak) estimates: u64,
}

impl Findings {
    /// What can be counted in an answer without the truth.
    pub(super) fn of(answer: &Answer) -> Findings {
        let mut findings = Findings::default();
        for b in answer.list("buffers") {
            findings.listed += 1;
            if let Some(reason) = b["estimate_reason"].as_str() {
                *findings.reasons.entry(reason.to_owned()).or_default() += 1;
            }
        }
        findings
    }

    /// Judges a listed buffer that a step touched during the scan. `moved` says whether references
    /// that no process shows may have appeared or gone.
    pub(super) fn in_motion(
        &mut self,
        history: &History,
        scan: &TimedAnswer,
        before: &SoakWorld,
        ino: u64,
        b: &Value,
        moved: bool,
    ) {
        let (from, to) = (scan.began, scan.ended);
        let story = || history.story(ino, from, to);
        let touched = history.touched_holders(ino, from, to);
        for (pid, hold) in before.holders(ino).filter(|(pid, _)| !touched.contains(pid)) {
            if !is_listed(b, pid, hold, before.made.get(&ino).is_some_and(|made| made.exporter == make::DRM))
            {
                self.errors.push(format!(
                    "process {pid} held buffer {} all the time by {hold:?}; printed {b}\n{}",
                    named(ino),
                    story(),
                ));
            }
        }
        let refs = &b["refs"];
        if b["estimate"] != Value::Bool(false) || refs["kernel"].is_null() {
            return;
        }
        let unseen = before.unseen(ino);
        let least = history.least(before, ino, from, to) + if moved { 0 } else { unseen.total() };
        let wrong_residual =
            !moved && (refs["kernel"] != unseen.kernel || refs["in_flight"] != unseen.in_flight);
        let wrong = if wrong_residual {
            format!("the kernel held {} and messages {} all the time", unseen.kernel, unseen.in_flight)
        } else if b["count"].as_u64().is_some_and(|count| count < least) {
            format!("there were never fewer than {least} references")
        } else {
            return;
        };
        let wrong = format!("of buffer {} {wrong}; printed as exact {b}\n{}", named(ino), story());
        if wrong_residual && history.changed_hands_in_motion(before, ino, from, to) {
            self.limits.push(wrong);
        } else {
            self.errors.push(wrong);
        }
    }

    /// Compares a buffer's account with the truth. Only the residual may be an estimate, and only
    /// if `may_estimate` accepts the true residual.
    pub(super) fn account(
        &mut self,
        world: &SoakWorld,
        ino: u64,
        answer: &Answer,
        may_estimate: impl Fn(u64) -> bool,
    ) {
        self.accounts += 1;
        let (unseen, size) = (world.unseen(ino), world.made.get(&ino).map_or(0, |made| made.size));
        let whole_names = is_from(answer, "bpf:dmabuf");
        let line =
            |kernel, in_flight| Truth { in_flight, ..truth(world, ino, kernel, whole_names) }.line(size);
        let counted = !world.is_memfd(ino) || counts_memfds(answer);
        let exact = if counted {
            line(ExpectedResidual::Exact(unseen.kernel), unseen.in_flight)
        } else {
            line(ExpectedResidual::Unknown, 0)
        };
        let Some(b) = find(answer, ino) else {
            return self.errors.push(format!("buffer {} is missing\n  truth   {exact}", named(ino)));
        };
        let printed = answer::ledger(b);
        let attached = b["attachments"].as_array().map_or(0, Vec::len) as u64;
        if attached != unseen.attached {
            self.errors.push(format!(
                "buffer {} should have {} attachments: {b}",
                named(ino),
                unseen.attached
            ));
        }
        let in_flight = &b["refs"]["in_flight"];
        if printed == exact && (*in_flight == unseen.in_flight || !counted && in_flight.is_null()) {
            return;
        }
        // References in messages are either known, or a part of the residual.
        let (residual, waiting) = match in_flight.as_u64() {
            Some(waiting) => (unseen.kernel, waiting),
            None => (unseen.total(), 0),
        };
        let known = in_flight.is_null() || waiting == unseen.in_flight;
        if known && may_estimate(residual) && printed == line(ExpectedResidual::Estimate(residual), waiting) {
            self.estimates += 1;
            return;
        }
        self.errors.push(format!(
            "account of buffer {}\n  truth   {exact}, {} in flight\n  printed {printed}, {} in flight, estimate: {} ({})",
            named(ino),
            unseen.in_flight,
            b["refs"]["in_flight"],
            b["estimate"],
            b["estimate_reason"],
        ));
    }
}

/// The true account of a buffer, with this residual and without messages. `whole_names` says
/// whether the list of dma-bufs has names unchanged.
fn truth(world: &SoakWorld, ino: u64, kernel: ExpectedResidual, whole_names: bool) -> Truth {
    let held = world.holders(ino).map(|(pid, hold)| Held {
        pid,
        ino,
        size: 0,
        fds: hold.fds.iter().copied().collect(),
        opaths: hold.opaths.iter().copied().collect(),
        maps: hold.maps.iter().copied().collect(),
        ..Held::default()
    });
    let held: Vec<Held> = held.collect();
    let (counted, _) = world.seen(ino);
    let count = counted + world.unseen(ino).total();
    let exporter = match world.made.get(&ino).map_or("", |made| &made.exporter) {
        // Nothing tells the exporter after the last counted reference.
        _ if count == 0 => "?",
        MEMFD => "?",
        make::HEAP => make::HEAP,
        make::DRM => make::DRM,
        "udmabuf" => "udmabuf",
        _ => "unknown to the soak",
    };
    let name = world.name(ino);
    // If no process shows the buffer, its name comes from the list. In debugfs's list a newline
    // hides the end of a name, and a dma-buf without a name is listed as `<none>`.
    let name = match (held.is_empty() && !whole_names, name) {
        (true, b"<none>") => "".into(),
        (true, name) if name.contains(&b'\n') => "?".into(),
        (_, name) => String::from_utf8_lossy(name),
    };
    Truth { name: name.into_owned(), exporter, count, in_flight: 0, kernel, held }
}

/// Whether the row of a buffer has everything that a process holds of it. Offsets of a DRM buffer's
/// mappings are not printed.
fn is_listed(b: &Value, pid: u32, hold: &Hold, is_drm: bool) -> bool {
    let mut holders = b["holders"].as_array().into_iter().flatten();
    let Some(holder) = holders.find(|holder| holder["pid"] == pid) else { return false };
    let has = |key: &str, number: &u32| {
        holder[key].as_array().is_some_and(|numbers| numbers.iter().any(|listed| listed == number))
    };
    let mapped = |&(start, end, offset): &(usize, usize, u64)| {
        holder["maps"].as_array().into_iter().flatten().any(|m| {
            address(&m["start"]) == Some(start as u64)
                && address(&m["end"]) == Some(end as u64)
                && (is_drm || m["offset"] == offset)
        })
    };
    hold.fds.iter().all(|fd| has("fds", fd))
        && hold.opaths.iter().all(|fd| has("opaths", fd))
        && hold.maps.iter().all(mapped)
}
