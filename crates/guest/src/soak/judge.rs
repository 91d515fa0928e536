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

mod balance;
mod findings;
mod invented;
mod printed;

use std::collections::BTreeSet;

use self::balance::unbalanced;
pub(super) use self::findings::Findings;
use self::invented::invented;
use self::printed::{counts_memfds, find, is_complete, is_from, key, may_miss, named};
use super::figures::Pieces;
use super::history::History;
use super::world::SoakWorld;
use crate::answer::Answer;

/// An answer, and when lsbuf was started and ended.
#[derive(Debug)]
pub(super) struct TimedAnswer {
    pub(super) began: u64,
    pub(super) ended: u64,
    pub(super) answer: Answer,
}

/// Judges an answer about a paused world.
pub(super) fn paused(world: &SoakWorld, answer: &Answer) -> Findings {
    let mut findings = Findings::of(answer);
    let doubt = world.in_flight() > 0 && !is_from(answer, "bpf:task_file") || !is_complete(answer);
    let alive = world.alive();
    // Memfds that are only in messages.
    let hidden = |ino: &&u64| {
        world.is_memfd(**ino)
            && world.holders(**ino).next().is_none()
            && find(answer, **ino).is_none()
            && !is_complete(answer)
    };
    let hidden: BTreeSet<u64> = alive.iter().filter(hidden).copied().collect();
    findings.missing_with_note += hidden.len() as u64;
    for &ino in alive.difference(&hidden) {
        findings.account(world, ino, answer, |residual| doubt && residual > 0);
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

/// Judges an answer about a world that moved. Beside a recorder, which holds a reference to each
/// dma-buf for the moment in which it reads it, a count may have moved that no step touched.
pub(super) fn running(history: &History, scan: &TimedAnswer, beside_recorder: bool) -> Findings {
    let answer = &scan.answer;
    let mut findings = Findings::of(answer);
    for b in answer.list("buffers") {
        findings.errors.extend(invented(history, b));
    }
    let pids = answer.list("processes").iter().filter_map(|p| u32::try_from(p["pid"].as_u64()?).ok());
    let others = pids.filter(|&pid| !history.was_holder(pid));
    findings.errors.extend(others.map(|pid| format!("process {pid} never held anything")));
    findings.errors.extend(unbalanced(answer));
    if let Some(printed) = Pieces::of_answer(answer) {
        findings.errors.extend(printed.wrong(answer));
    }
    let before = history.start.at(&history.records, scan.began);
    let touched = history.touched(scan.began, scan.ended);
    let moved = history.touched_unseen(scan.began, scan.ended);
    let survivors = history.survivors(scan.ended);
    for ino in before.alive() {
        let in_motion = touched.contains(&ino);
        let Some(b) = find(answer, ino) else {
            let in_messages = in_motion || before.holders(ino).next().is_none();
            let told = may_miss(answer) || in_messages && !is_complete(answer);
            if before.is_memfd(ino) && told {
                findings.missing_with_note += u64::from(survivors.contains(&ino));
            } else if survivors.contains(&ino) {
                findings.errors.push(format!(
                    "buffer {} existed all the time and is missing\n{}",
                    named(ino),
                    history.story(ino, scan.began, scan.ended)
                ));
            }
            continue;
        };
        if in_motion {
            findings.in_motion(history, scan, &before, ino, b, moved.contains(&ino));
        } else if !(beside_recorder && b["estimate_reason"] == "count-moved") {
            findings.account(&before, ino, answer, |_| true);
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::make;
    use crate::soak::journal::{Entry, Hold, JournalRecord};
    use crate::soak::names::{MEMFD, memfd_key};

    /// One buffer, made before the scan and held by an fd and a mapping.
    fn history() -> History {
        let record = |time, entry| JournalRecord { began: time, ended: time + 1, entry };
        let maps = [(0x1000, 0x2000, 4096)].into();
        let hold = Hold { fds: [5].into(), maps, ..Hold::default() };
        History::of(
            SoakWorld::default(),
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
        let history = history();
        let scan = TimedAnswer { began: 15, ended: 25, answer: Answer(answer) };
        let world = history.start.at(&history.records, u64::MAX);
        (paused(&world, &scan.answer).errors.len(), running(&history, &scan, false).errors.len())
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
        let mut history = history();
        let sent = JournalRecord { began: 12, ended: 13, entry: Entry::Sent { message: 1, ino: 7 } };
        history.records.insert(2, sent);
        let world = history.start.at(&history.records, u64::MAX);
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
    fn wrong_residual() -> Value {
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

    fn judge(history: &History, answer: &Value) -> Findings {
        running(history, &TimedAnswer { began: 15, ended: 25, answer: Answer(answer.clone()) }, false)
    }

    fn at(time: u64, entry: Entry) -> JournalRecord {
        JournalRecord { began: time, ended: time + 1, entry }
    }

    /// Check that a wrong residual of a touched buffer is an error if it is called exact, and that
    /// a reference that no step touched may not be missing, not even from an estimate.
    #[test]
    fn wrong_residuals() {
        let mut answer = wrong_residual();
        assert_eq!(judge(&history(), &answer).errors.len(), 2);
        answer["buffers"][0]["estimate"] = json!(true);
        answer["totals"]["estimate"] = json!(true);
        let errors = judge(&history(), &answer).errors;
        assert!(errors.len() == 1 && errors[0].contains("all the time"), "{errors:?}");
    }

    /// Check that an exact count below the smallest possible number of references is an error.
    #[test]
    fn too_few() {
        let mut history = history();
        history.records.push(at(18, Entry::Named { ino: 7, name: b"cam".to_vec() }));
        let mut answer = wrong_residual();
        answer["buffers"][0]["count"] = json!(1);
        answer["buffers"][0]["refs"]["kernel"] = json!(0);
        answer["totals"]["unattributed_refs"] = json!(0);
        answer["processes"][0]["uss"] = json!(8192);
        let errors = judge(&history, &answer).errors;
        assert!(errors.iter().any(|error| error.contains("fewer than 2")), "{errors:?}");
    }

    /// Check that the limit of several readings is recognized: two processes moved references
    /// within themselves, one of them got a reference and the other one lost one.
    #[test]
    fn the_limit() {
        let hold = |fds: &[u32]| Hold { fds: fds.iter().copied().collect(), ..Hold::default() };
        let history = |movers: &[u32]| {
            let mut records = history().records;
            let moved = |&pid: &u32| at(16, Entry::Moved { pid, ino: 7, way: Hold::default() });
            records.extend(movers.iter().map(moved));
            records.push(at(17, Entry::Holds { pid: 2, ino: 7, hold: hold(&[9]) }));
            records.push(at(18, Entry::Holds { pid: 1, ino: 7, hold: hold(&[5]) }));
            History::of(SoakWorld::default(), records)
        };
        let found = |movers: &[u32]| {
            let findings = judge(&history(movers), &wrong_residual());
            (findings.errors.len(), findings.limits.len())
        };
        assert_eq!([found(&[1, 2]), found(&[1]), found(&[])], [(0, 1), (1, 0), (1, 0)]);
    }

    /// Check that a memfd may be missing only from an answer that says so, and a dma-buf from none.
    #[test]
    fn missing() {
        let mut memfd = history();
        for record in &mut memfd.records {
            match &mut record.entry {
                Entry::Made { ino, exporter, .. } => (*ino, *exporter) = (memfd_key(7), MEMFD.to_owned()),
                Entry::Named { ino, .. } | Entry::Holds { ino, .. } => *ino = memfd_key(7),
                _ => {}
            }
        }
        let memfd = History::of(SoakWorld::default(), memfd.records);
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
        let errors = |history: &History, answer: &Value| judge(history, answer).errors.len();
        assert_eq!((errors(&memfd, &told), errors(&memfd, &silent)), (0, 1));
        assert_eq!(errors(&history(), &told), 1);
    }
}
