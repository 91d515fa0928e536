//! Judges answers by the truth.
//!
//! A paused world is known exactly, so an answer about it must be true in every account and figure.
//! An answer about a world that moves is judged by these claims:
//!
//! - It has no buffer, reference or property that never existed.
//! - Its sums are right.
//! - It has every buffer that existed during the whole scan, and every reference that no step
//!   touched.
//! - The accounts of buffers that no step touched are true.
//! - A residual that it calls exact is true, of every buffer. The one exception is the limit of
//!   several readings that lsbuf's documents state: a reference passed from one process to another
//!   while both moved references within themselves. The journal shows these cases, and they are
//!   counted apart.
//!
//! While references are in messages, procfs does not tell their buffers, so residuals may be
//! estimates. BPF iterators do tell.
//!
//! A process that executes another program while it is read is left out of that reading, so exec
//! counts as a touch.
//!
//! There is no list of memfds. A memfd may be missing from an answer that says so. procfs has no
//! count of their references.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::figures::{Pieces, address, cost};
use super::journal::Hold;
use super::names::{MEMFD, memfd_key};
use super::past::Past;
use super::world::World;
use crate::actor::Held;
use crate::answer::{self, Answer, Rest, Truth};
use crate::make;

/// An answer, and when lsbuf was started and ended.
#[derive(Debug)]
pub(super) struct Scan {
    pub(super) began: u64,
    pub(super) ended: u64,
    pub(super) answer: Answer,
}

/// The result of judging one answer.
#[derive(Debug, Default)]
pub(super) struct Findings {
    /// What is wrong. One error fails the soak test.
    pub(super) errors: Vec<String>,
    /// Wrong residuals that were called exact, within the limit of several readings that lsbuf's
    /// documents state.
    pub(super) limits: Vec<String>,
    /// Memfds that existed during the whole scan and are missing from an answer that says that
    /// memfds may be missing.
    pub(super) told_missing: u64,
    /// How many buffers have only an estimate in the answer, by the reason that it gives.
    pub(super) reasons: BTreeMap<String, u64>,
    /// How many buffers the answer has.
    pub(super) listed: u64,
    /// How many accounts were compared with the truth in full.
    pub(super) ledgers: u64,
    /// How many of them were marked as estimates.
    pub(super) estimates: u64,
}

/// Judges an answer about a paused world.
pub(super) fn paused(world: &World, answer: &Answer) -> Findings {
    let mut findings = Findings::of(answer);
    let doubt = world.in_flight() > 0 && !asked(answer, "bpf:task_file") || !is_complete(answer);
    let alive = world.alive();
    // Memfds that are only in messages.
    let hidden = |ino: &&u64| {
        world.is_memfd(**ino)
            && world.holders(**ino).next().is_none()
            && find(answer, **ino).is_none()
            && !is_complete(answer)
    };
    let hidden: BTreeSet<u64> = alive.iter().filter(hidden).copied().collect();
    findings.told_missing += hidden.len() as u64;
    for &ino in alive.difference(&hidden) {
        findings.ledger(world, ino, answer, |rest| doubt && rest > 0);
    }
    for b in answer.list("buffers") {
        if !key(b).is_some_and(|ino| alive.contains(&ino)) {
            findings.errors.push(format!("a buffer that does not exist: {b}"));
        }
    }
    let truth = Pieces::of_world(world, counts_memfds(answer), &hidden);
    findings.errors.extend(truth.wrong(answer));
    let totals = &answer.0["totals"];
    let [size, held, kernel_only, rss] = truth.sums();
    let expected = [truth.len() as u64, size, held, kernel_only, rss, held];
    let printed = ["buffers", "size", "held", "kernel_only", "rss", "pss"].map(|key| totals[key].as_u64());
    if printed != expected.map(Some) {
        let names = "buffers, size, held, kernel_only, rss, pss";
        findings.errors.push(format!("{names} should be {expected:?} in the totals: {totals}"));
    }
    findings.errors.extend(unbalanced(answer));
    findings
}

/// Whether an answer comes from that source.
fn asked(answer: &Answer, source: &str) -> bool {
    answer.0["scan"]["sources"].as_array().is_some_and(|sources| sources.iter().any(|s| s == source))
}

/// Whether an answer says that it is complete.
fn is_complete(answer: &Answer) -> bool {
    answer.0["scan"]["complete"] == Value::Bool(true)
}

/// Whether an answer says that memfds may be missing from it.
fn may_miss(answer: &Answer) -> bool {
    let mut notes = answer.0["scan"]["notes"].as_array().into_iter().flatten().filter_map(Value::as_str);
    !is_complete(answer) && notes.any(|note| note.contains("may be missing"))
}

/// Whether the source of an answer counts references to memfds.
fn counts_memfds(answer: &Answer) -> bool {
    asked(answer, "bpf:task_file")
}

/// The key, in the journal, of a listed buffer.
fn key(b: &Value) -> Option<u64> {
    let ino = b["ino"].as_u64()?;
    match b["kind"].as_str()? {
        "dmabuf" => Some(ino),
        "memfd" => Some(memfd_key(ino)),
        _ => None,
    }
}

/// A buffer of the answer, by its key in the journal.
fn find(answer: &Answer, ino: u64) -> Option<&Value> {
    answer.list("buffers").iter().find(|b| key(b) == Some(ino))
}

/// Judges an answer about a world that moved.
pub(super) fn running(past: &Past, scan: &Scan) -> Findings {
    let answer = &scan.answer;
    let mut findings = Findings::of(answer);
    for b in answer.list("buffers") {
        findings.errors.extend(invented(past, b));
    }
    let pids = answer.list("processes").iter().filter_map(|p| u32::try_from(p["pid"].as_u64()?).ok());
    let strangers = pids.filter(|&pid| !past.was_holder(pid));
    findings.errors.extend(strangers.map(|pid| format!("process {pid} never held anything")));
    findings.errors.extend(unbalanced(answer));
    if let Some(printed) = Pieces::of_answer(answer) {
        findings.errors.extend(printed.wrong(answer));
    }
    let before = past.start.at(&past.records, scan.began);
    let touched = past.touched(scan.began, scan.ended);
    let moved = past.touched_unseen(scan.began, scan.ended);
    let survivors = past.survivors(scan.ended);
    for ino in before.alive() {
        let in_motion = touched.contains(&ino);
        let Some(b) = find(answer, ino) else {
            let in_messages = in_motion || before.holders(ino).next().is_none();
            let told = may_miss(answer) || in_messages && !is_complete(answer);
            if before.is_memfd(ino) && told {
                findings.told_missing += u64::from(survivors.contains(&ino));
            } else if survivors.contains(&ino) {
                findings.errors.push(format!(
                    "buffer {} existed all the time and is missing\n{}",
                    named(ino),
                    past.story(ino, scan.began, scan.ended)
                ));
            }
            continue;
        };
        if in_motion {
            findings.in_motion(past, scan, &before, ino, b, moved.contains(&ino));
        } else {
            findings.ledger(&before, ino, answer, |_| true);
        }
    }
    findings
}

/// A buffer in messages, by its key in the journal.
fn named(ino: u64) -> String {
    if ino >= memfd_key(0) { format!("memfd {}", ino - memfd_key(0)) } else { ino.to_string() }
}

impl Findings {
    /// What can be counted in an answer without the truth.
    fn of(answer: &Answer) -> Findings {
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
    fn in_motion(&mut self, past: &Past, scan: &Scan, before: &World, ino: u64, b: &Value, moved: bool) {
        let (from, to) = (scan.began, scan.ended);
        let story = || past.story(ino, from, to);
        let touched = past.touched_holders(ino, from, to);
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
        let least = past.least(before, ino, from, to) + if moved { 0 } else { unseen.rest() };
        let wrong_rest = !moved && (refs["kernel"] != unseen.kernel || refs["in_flight"] != unseen.in_flight);
        let wrong = if wrong_rest {
            format!("the kernel held {} and messages {} all the time", unseen.kernel, unseen.in_flight)
        } else if b["count"].as_u64().is_some_and(|count| count < least) {
            format!("there were never fewer than {least} references")
        } else {
            return;
        };
        let wrong = format!("of buffer {} {wrong}; printed as exact {b}\n{}", named(ino), story());
        if wrong_rest && past.changed_hands_in_motion(before, ino, from, to) {
            self.limits.push(wrong);
        } else {
            self.errors.push(wrong);
        }
    }

    /// Compares a buffer's account with the truth. Only the residual may be an estimate, and only
    /// if `may_estimate` accepts the true residual.
    fn ledger(&mut self, world: &World, ino: u64, answer: &Answer, may_estimate: impl Fn(u64) -> bool) {
        self.ledgers += 1;
        let (unseen, size) = (world.unseen(ino), world.made.get(&ino).map_or(0, |made| made.size));
        let whole_names = asked(answer, "bpf:dmabuf");
        let line =
            |kernel, in_flight| Truth { in_flight, ..truth(world, ino, kernel, whole_names) }.line(size);
        let counted = !world.is_memfd(ino) || counts_memfds(answer);
        let exact =
            if counted { line(Rest::Exact(unseen.kernel), unseen.in_flight) } else { line(Rest::Unknown, 0) };
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
        let (rest, waiting) = match in_flight.as_u64() {
            Some(waiting) => (unseen.kernel, waiting),
            None => (unseen.rest(), 0),
        };
        let known = in_flight.is_null() || waiting == unseen.in_flight;
        if known && may_estimate(rest) && printed == line(Rest::Estimate(rest), waiting) {
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
fn truth(world: &World, ino: u64, kernel: Rest, whole_names: bool) -> Truth {
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
    let count = counted + world.unseen(ino).rest();
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

/// The properties of a printed buffer that never existed.
fn invented(past: &Past, b: &Value) -> Vec<String> {
    let Some((ino, made)) = key(b).and_then(|ino| Some((ino, past.made.get(&ino)?))) else {
        // A udmabuf's memory is a memfd until the udmabuf is made. No journal has that memfd.
        if b["kind"] == "memfd" && b["name"] == "udmabuf" {
            return Vec::new();
        }
        return vec![format!("a buffer that never existed: {b}")];
    };
    let mut wrong = Vec::new();
    // A memfd that has just been made has no size yet.
    let unsized_yet = b["kind"] == "memfd" && b["size"] == 0;
    if !b["size"].is_null() && b["size"] != made.size && !unsized_yet {
        wrong.push(format!("a size that buffer {ino} never had: {} instead of {}", b["size"], made.size));
    }
    if !b["exporter"].is_null() && b["exporter"] != made.exporter.as_str() {
        wrong.push(format!("an exporter that buffer {ino} never had: {}", b["exporter"]));
    }
    if let Some(name) = b["name"].as_str() {
        let was =
            |given: &[u8]| String::from_utf8_lossy(given) == name || given == b"<none>" && name.is_empty();
        if !past.names(ino).any(was) {
            let names: Vec<String> = past.names(ino).map(|n| n.escape_ascii().to_string()).collect();
            wrong.push(format!("a name that buffer {ino} never had: {name:?}; it had {names:?}"));
        }
    }
    for holder in b["holders"].as_array().into_iter().flatten() {
        let pid = holder["pid"].as_u64().and_then(|pid| u32::try_from(pid).ok()).unwrap_or(0);
        let Some(held) = past.held(pid, ino) else {
            wrong.push(format!("process {pid} never held buffer {ino}: {holder}"));
            continue;
        };
        let numbers = |key: &str| -> BTreeSet<u32> {
            let numbers = holder[key].as_array().into_iter().flatten().filter_map(Value::as_u64);
            numbers.filter_map(|n| u32::try_from(n).ok()).collect()
        };
        let map_was = |m: &Value| {
            held.maps.iter().any(|&(start, end, offset)| {
                (address(&m["start"]), address(&m["end"])) == (Some(start as u64), Some(end as u64))
                    && (m["offset"] == offset || m["offset"].is_null() && made.exporter == make::DRM)
            })
        };
        if !numbers("fds").is_subset(&held.fds)
            || !numbers("opaths").is_subset(&held.opaths)
            || !holder["maps"].as_array().into_iter().flatten().all(map_was)
        {
            wrong.push(format!(
                "references of process {pid} to buffer {ino} that never existed: {holder}; it ever held {held:?}"
            ));
        }
    }
    wrong
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

/// Where an answer contradicts itself.
fn unbalanced(answer: &Answer) -> Vec<String> {
    let mut wrong = Vec::new();
    let number = |v: &Value| v.as_u64().unwrap_or(0);
    for b in answer.list("buffers") {
        let refs = &b["refs"];
        let lengths = |key: &str| -> usize {
            let holders = b["holders"].as_array().into_iter().flatten();
            holders.map(|holder| holder[key].as_array().map_or(0, Vec::len)).sum()
        };
        for (key, list) in [("fd", "fds"), ("map", "maps"), ("opath", "opaths")] {
            if refs[key] != lengths(list) {
                wrong.push(format!("{key} is not the number of the holders' {list}: {b}"));
            }
        }
        let found =
            ["fd", "map", "in_flight", "io_uring", "exe"].iter().map(|key| number(&refs[*key])).sum::<u64>();
        let exact = b["estimate"] == Value::Bool(false);
        let known = ["in_flight", "io_uring", "kernel"].iter().all(|key| refs[*key].is_u64());
        let sums_up = refs["kernel"].as_u64().map(|kernel| Some(kernel + found) == b["count"].as_u64());
        // Without a count there is no account, exact or not.
        if exact && !b["count"].is_null() && !(known && sums_up == Some(true)) || sums_up == Some(false) {
            wrong.push(format!("an account that does not balance: {b}"));
        }
    }
    let totals = &answer.0["totals"];
    let sum = |list: &str, key: &str, keep: fn(&Value) -> bool| -> Option<u64> {
        // Memfds without a count are left out of this sum.
        let uncounted = |v: &Value| key == "kernel" && v["kind"] == "memfd" && v["refs"]["kernel"].is_null();
        let kept = answer.list(list).iter().filter(|v| keep(v) && !uncounted(v));
        let value = |v: &Value| match key {
            "kernel" => v["refs"][key].as_u64(),
            "size" => cost(v),
            _ => v[key].as_u64(),
        };
        kept.map(value).sum()
    };
    let holderless = |b: &Value| b["holders"].as_array().is_none_or(Vec::is_empty);
    for (total, expected) in [
        ("buffers", Some(answer.list("buffers").len() as u64)),
        ("size", sum("buffers", "size", |_| true)),
        ("held", sum("buffers", "size", |b| b["holders"].as_array().is_some_and(|h| !h.is_empty()))),
        ("kernel_only", sum("buffers", "size", holderless)),
        ("rss", sum("processes", "rss", |_| true)),
        ("pss", sum("processes", "pss", |_| true)),
        ("unattributed_refs", sum("buffers", "kernel", |_| true)),
    ] {
        if totals[total].as_u64() != expected {
            wrong.push(format!("{total} should be {expected:?} in the totals: {totals}"));
        }
    }
    if totals["pss"] != totals["held"] {
        wrong.push(format!("pss and held differ in the totals: {totals}"));
    }
    if totals["estimate"] != answer.list("buffers").iter().any(|b| b["estimate"] == Value::Bool(true)) {
        wrong.push(format!("estimate is not what the buffers say in the totals: {totals}"));
    }
    wrong
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::soak::journal::{Entry, Hold, Record};

    /// One buffer, made before the scan and held by an fd and a mapping.
    fn past() -> Past {
        let record = |time, entry| Record { began: time, ended: time + 1, entry };
        let maps = [(0x1000, 0x2000, 4096)].into();
        let hold = Hold { fds: [5].into(), maps, ..Hold::default() };
        Past::of(
            World::default(),
            vec![
                record(10, Entry::Made { ino: 7, size: 8192, exporter: make::HEAP.to_owned() }),
                record(10, Entry::Holds { pid: 1, ino: 7, hold }),
                record(20, Entry::Named { ino: 7, name: b"cam".to_vec() }),
            ],
        )
    }

    /// The right answer.
    fn right() -> Value {
        json!({
            "scan": {"complete": true},
            "totals": {"buffers": 1, "size": 8192, "held": 8192, "kernel_only": 0, "rss": 8192, "pss": 8192,
                       "unattributed_refs": 0, "estimate": false},
            "buffers": [{
                "kind": "dmabuf", "ino": 7, "charged": null, "size": 8192, "name": "cam", "exporter": "system", "count": 2, "estimate": false,
                "refs": {"fd": 1, "map": 1, "in_flight": 0, "io_uring": 0, "kernel": 0, "opath": 0},
                "attachments": [],
                "holders": [{"pid": 1, "fds": [5], "opaths": [],
                             "maps": [{"start": "0x1000", "end": "0x2000", "offset": 4096}]}],
            }],
            "processes": [{"pid": 1, "rss": 8192, "pss": 8192, "mapped_pss": 8192, "uss": 8192, "buffers": 1,
                           "fds": 1, "maps": 1}],
        })
    }

    /// The numbers of errors in the right answer after the value at `pointer` was replaced: of a
    /// paused world and of a moving one. In the moving world the buffer was renamed during the
    /// scan.
    fn found(pointer: &str, value: Value) -> (usize, usize) {
        let mut answer = right();
        *answer.pointer_mut(pointer).unwrap() = value;
        let past = past();
        let scan = Scan { began: 15, ended: 25, answer: Answer(answer) };
        let world = past.start.at(&past.records, u64::MAX);
        (paused(&world, &scan.answer).errors.len(), running(&past, &scan).errors.len())
    }

    /// Check that the truth passes. An earlier name passes in a moving world, but not in a paused
    /// one.
    #[test]
    fn truth_passes() {
        assert_eq!(found("/buffers/0/name", json!("cam")), (0, 0));
        assert_eq!(found("/buffers/0/name", json!("")), (1, 0));
    }

    /// Check that totals are sums of allocated bytes where they are known, and not of sizes.
    #[test]
    fn totals_are_of_what_is_charged() {
        assert_eq!(found("/buffers/0/charged", json!(8192)), (0, 0));
        assert_ne!(found("/buffers/0/charged", json!(4096)), (0, 0));
    }

    /// Check that everything that never existed is found, in a paused and in a moving world.
    #[test]
    fn inventions() {
        for (pointer, value) in [
            ("/buffers/0/ino", json!(8)),
            ("/buffers/0/size", json!(4096)),
            ("/buffers/0/name", json!("other")),
            ("/buffers/0/exporter", json!("drm")),
            ("/buffers/0/holders/0/pid", json!(2)),
            ("/buffers/0/holders/0/fds/0", json!(6)),
            ("/buffers/0/holders/0/maps/0/start", json!("0x0")),
            ("/buffers/0/holders/0/maps/0/offset", json!(0)),
        ] {
            let (at_rest, in_motion) = found(pointer, value);
            assert!(at_rest > 0 && in_motion > 0, "{pointer}: {at_rest} {in_motion}");
        }
    }

    /// Check that wrong sums are found, in a paused and in a moving world.
    #[test]
    fn sums() {
        for pointer in [
            "/buffers/0/count",
            "/buffers/0/refs/fd",
            "/buffers/0/refs/map",
            "/buffers/0/refs/kernel",
            "/buffers/0/refs/in_flight",
            "/buffers/0/refs/opath",
            "/processes/0/rss",
            "/processes/0/pss",
            "/processes/0/mapped_pss",
            "/processes/0/uss",
            "/processes/0/fds",
            "/totals/size",
            "/totals/held",
            "/totals/kernel_only",
            "/totals/pss",
            "/totals/unattributed_refs",
        ] {
            let (at_rest, in_motion) = found(pointer, json!(3));
            assert!(at_rest > 0 && in_motion > 0, "{pointer}: {at_rest} {in_motion}");
        }
    }

    /// Check that a missing buffer is found, and that an estimate is wrong where the truth can be
    /// known.
    #[test]
    fn lost_and_hedged() {
        let (at_rest, in_motion) = found("/buffers", json!([]));
        assert!(at_rest > 0 && in_motion > 0);
        assert!(found("/buffers/0/estimate", json!(true)).0 > 0);
    }

    /// Check that in a paused world BPF iterators must say which buffer a message has, and that
    /// procfs need not.
    #[test]
    fn messages() {
        let mut past = past();
        let sent = Record { began: 12, ended: 13, entry: Entry::Sent { message: 1, ino: 7 } };
        past.records.insert(2, sent);
        let world = past.start.at(&past.records, u64::MAX);
        let errors = |sources: Value, in_flight: Value, kernel: u64, estimate: bool, uss: Value| {
            let mut answer = right();
            answer["scan"]["sources"] = sources;
            let b = &mut answer["buffers"][0];
            b["count"] = json!(3);
            (b["refs"]["in_flight"], b["refs"]["kernel"], b["estimate"]) =
                (in_flight, json!(kernel), json!(estimate));
            answer["processes"][0]["uss"] = uss;
            answer["totals"]["unattributed_refs"] = json!(kernel);
            answer["totals"]["estimate"] = json!(estimate);
            paused(&world, &Answer(answer)).errors.len()
        };
        let (bpf, procfs) = (json!(["bpf:task_file", "bpf:dmabuf"]), json!(["fd", "bufinfo"]));
        assert_eq!(errors(bpf.clone(), json!(1), 0, false, json!(0)), 0);
        assert_eq!(errors(procfs, Value::Null, 1, true, json!(0)), 0);
        assert_eq!(errors(bpf.clone(), Value::Null, 1, true, json!(0)), 1);
        // The end of its holder frees nothing of a buffer that is in a message.
        assert!(errors(bpf.clone(), json!(1), 0, false, json!(8192)) > 0);
        assert!(errors(bpf, json!(0), 1, false, json!(0)) > 0);
    }

    /// The right answer without the mapping, which is counted as the kernel's reference.
    fn wrong_rest() -> Value {
        let mut answer = right();
        let b = &mut answer["buffers"][0];
        (b["refs"]["map"], b["refs"]["kernel"]) = (json!(0), json!(1));
        b["holders"][0]["maps"] = json!([]);
        answer["processes"][0]["maps"] = json!(0);
        answer["processes"][0]["mapped_pss"] = json!(0);
        answer["processes"][0]["uss"] = json!(0);
        answer["totals"]["unattributed_refs"] = json!(1);
        answer
    }

    fn judge(past: &Past, answer: &Value) -> Findings {
        running(past, &Scan { began: 15, ended: 25, answer: Answer(answer.clone()) })
    }

    fn at(time: u64, entry: Entry) -> Record {
        Record { began: time, ended: time + 1, entry }
    }

    /// Check that a wrong residual of a touched buffer is an error if it is called exact, and that
    /// a reference that no step touched may not be missing, not even from an estimate.
    #[test]
    fn wrong_rests() {
        let mut answer = wrong_rest();
        assert_eq!(judge(&past(), &answer).errors.len(), 2);
        answer["buffers"][0]["estimate"] = json!(true);
        answer["totals"]["estimate"] = json!(true);
        let errors = judge(&past(), &answer).errors;
        assert!(errors.len() == 1 && errors[0].contains("all the time"), "{errors:?}");
    }

    /// Check that an exact count below the smallest possible number of references is an error.
    #[test]
    fn too_few() {
        let mut past = past();
        past.records.push(at(18, Entry::Named { ino: 7, name: b"cam".to_vec() }));
        let mut answer = wrong_rest();
        answer["buffers"][0]["count"] = json!(1);
        answer["buffers"][0]["refs"]["kernel"] = json!(0);
        answer["totals"]["unattributed_refs"] = json!(0);
        answer["processes"][0]["uss"] = json!(8192);
        let errors = judge(&past, &answer).errors;
        assert!(errors.iter().any(|error| error.contains("fewer than 2")), "{errors:?}");
    }

    /// Check that the limit of several readings is recognized: two processes moved references
    /// within themselves, one of them got a reference and the other one lost one.
    #[test]
    fn the_limit() {
        let hold = |fds: &[u32]| Hold { fds: fds.iter().copied().collect(), ..Hold::default() };
        let past = |movers: &[u32]| {
            let mut records = past().records;
            let moved = |&pid: &u32| at(16, Entry::Moved { pid, ino: 7, way: Hold::default() });
            records.extend(movers.iter().map(moved));
            records.push(at(17, Entry::Holds { pid: 2, ino: 7, hold: hold(&[9]) }));
            records.push(at(18, Entry::Holds { pid: 1, ino: 7, hold: hold(&[5]) }));
            Past::of(World::default(), records)
        };
        let found = |movers: &[u32]| {
            let findings = judge(&past(movers), &wrong_rest());
            (findings.errors.len(), findings.limits.len())
        };
        assert_eq!([found(&[1, 2]), found(&[1]), found(&[])], [(0, 1), (1, 0), (1, 0)]);
    }

    /// Check that a memfd may be missing only from an answer that says so, and a dma-buf from none.
    #[test]
    fn missing() {
        let mut memfd = past();
        for record in &mut memfd.records {
            match &mut record.entry {
                Entry::Made { ino, exporter, .. } => (*ino, *exporter) = (memfd_key(7), MEMFD.to_owned()),
                Entry::Named { ino, .. } | Entry::Holds { ino, .. } => *ino = memfd_key(7),
                _ => {}
            }
        }
        let memfd = Past::of(World::default(), memfd.records);
        let answer = |notes: Value| {
            json!({
                "scan": {"complete": false, "notes": notes}, "buffers": [], "processes": [],
                "totals": {"buffers": 0, "size": 0, "held": 0, "kernel_only": 0, "rss": 0, "pss": 0,
                           "unattributed_refs": 0, "estimate": false},
            })
        };
        let told = answer(json!(["shmem that only they hold may be missing"]));
        let mut silent = told.clone();
        silent["scan"]["complete"] = json!(true);
        let errors = |past: &Past, answer: &Value| judge(past, answer).errors.len();
        assert_eq!((errors(&memfd, &told), errors(&memfd, &silent)), (0, 1));
        assert_eq!(errors(&past(), &told), 1);
    }
}
