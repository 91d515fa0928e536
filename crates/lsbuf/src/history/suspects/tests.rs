//! What a recording says of suspects is what its snapshots say.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use super::{Growth, Suspect, Suspects};
use crate::history::{Keep, Recorder, Recording, SampleId};
use crate::model::examples::{buffer, holder, made, snapshot};
use crate::model::{Buffer, Bytes, Gaps, Kind, Kinds, Label, LeakShape, NoOrigin, Origin, Pid, Snapshot};

/// A buffer with that inode number and name, held by these processes through one fd each.
fn held(ino: u64, name: &str, pids: &[u32]) -> Buffer {
    let holders = pids.iter().map(|&pid| holder(pid, 1, 0, &[])).collect();
    let mut held = buffer(ino, Some(4096), Some(pids.len() as u64), holders);
    held.name = Some(name.into());
    held
}

/// A snapshot whose processes are named by their pids: `p1`, `p2`.
fn of(mut buffers: Vec<Buffer>) -> Snapshot {
    buffers.sort_by_key(|buffer| buffer.id);
    let mut snapshot = snapshot(buffers, Gaps::default());
    for process in &mut snapshot.processes {
        process.comm = Label::from(format!("p{}", process.pid).as_str());
    }
    snapshot
}

fn recorded(snapshots: impl IntoIterator<Item = Snapshot>) -> Recording {
    let mut recorder = Recorder::in_memory().unwrap();
    for one in snapshots {
        recorder.append(one).unwrap();
    }
    recorder.finish().unwrap()
}

fn suspects(recording: &Recording) -> Suspects {
    let (first, last) = recording.span().unwrap().unwrap();
    recording.suspects(first, last, |_| true).unwrap()
}

/// Groups by command and name.
fn groups(recording: &Recording) -> BTreeMap<(String, String), Suspect> {
    let name = |one: &Suspect| {
        let command = one.key.holder.as_ref().map_or_else(|| "-".into(), |holder| holder.comm.to_string());
        (command, one.key.name.as_ref().map(ToString::to_string).unwrap_or_default())
    };
    suspects(recording).groups.into_iter().map(|one| (name(&one), one)).collect()
}

fn figures(one: &Suspect) -> [u64; 4] {
    [one.older, one.older_died, one.born, one.died]
}

/// Check that what is born and dies is counted for each holder, by folded names, and that a process
/// which keeps what others have let go is told from them.
#[test]
fn holders_are_told_apart() {
    // Process 1 makes a frame in each sample and gives it to process 2. It keeps it for two
    // samples, process 2 for ever.
    let world = |now: u64| {
        let frame = |nth: u64| {
            let pids: &[u32] = if nth + 2 > now { &[1, 2] } else { &[2] };
            held(100 + nth, &format!("frame-{nth}"), pids)
        };
        let mut buffers: Vec<Buffer> = (1..=now).map(frame).collect();
        buffers.push(held(7, "own", &[1]));
        of(buffers)
    };
    let recording = recorded((0..40).map(world));
    let groups = groups(&recording);
    let of = |command: &str, name: &str| &groups[&(command.to_owned(), name.to_owned())];
    assert_eq!(groups.len(), 3);
    assert_eq!(figures(of("p1", "frame-#")), [0, 0, 39, 37]);
    assert_eq!(figures(of("p2", "frame-#")), [0, 0, 39, 0]);
    assert_eq!(figures(of("p1", "own")), [1, 0, 0, 0]);
    // The newest two are held by both.
    assert_eq!((of("p1", "frame-#").shared, of("p2", "frame-#").shared), (2, 39));
    assert_eq!(of("p2", "frame-#").bytes, Some(Bytes(39 * 4096)));
}

/// Check that a handle which only the kernel has counts with the process that had it last, and that
/// its shape is that of a handle.
#[test]
fn handles_are_left() {
    let world = |now: u64| {
        let frame = |nth: u64| {
            let holders = if nth + 2 > now { vec![holder(1, 1, 0, &[])] } else { Vec::new() };
            let mut frame = buffer(100 + nth, Some(4096), Some(1 + holders.len() as u64), holders);
            frame.name = Some("".into());
            frame
        };
        of((1..=now).map(frame).chain([held(7, "own", &[1])]).collect())
    };
    let recording = recorded((0..40).map(world));
    let groups = groups(&recording);
    let found = &groups[&("p1".to_owned(), String::new())];
    assert_eq!((figures(found), found.shape), ([0, 0, 39, 0], Some(LeakShape::Handle)));
}

/// What a process makes that leaks by one call and has a pool by another, with the same names, and
/// one buffer that is older than the recorder.
fn two_calls(now: u64) -> Snapshot {
    let by = |call: &str, mut buffer: Buffer| {
        buffer.origin = Some(Box::new(made("app", 1, &[call, "main"])));
        buffer
    };
    let leaked = (1..=now).map(|nth| by("leak", held(100 + nth, &format!("frame-{nth}"), &[1])));
    let pool = (now..now + 4).map(|nth| by("pool", held(1000 + nth, &format!("frame-{nth}"), &[1])));
    let mut older = held(7, "frame-0", &[1]);
    older.origin = Some(Box::new(Origin::Before));
    of(leaked.chain(pool).chain([older]).collect())
}

/// Check that in one process a call that leaks is told from one that has a pool of the same names,
/// and that those of which the origin is not known are a group of their own.
#[test]
fn calls_are_told_apart() {
    let found = suspects(&recorded((0..40).map(two_calls)));
    let shown = |one: &Suspect| {
        let stack = one.key.origin.as_ref().and_then(|origin| origin.stack.as_ref());
        (stack.map(ToString::to_string), one.growth, figures(one))
    };
    let expected = [
        (Some("leak < main".to_owned()), Growth::Growing, [0, 0, 39, 0]),
        (Some("pool < main".to_owned()), Growth::Churn, [4, 4, 39, 35]),
        (None, Growth::Plateau, [1, 0, 0, 0]),
    ];
    assert_eq!(found.groups.iter().map(shown).collect::<Vec<_>>(), expected);
    let leak = &found.groups[0];
    assert_eq!(leak.key.origin.as_ref().map(|origin| origin.command.to_string()).as_deref(), Some("app"));
}

/// Check that JSON and the evidence have the call.
#[cfg(feature = "render")]
#[test]
fn calls_are_shown() {
    use crate::render::{JsonLayout, Sizes, View, leak_evidence, leaks_json};

    let found = suspects(&recorded((0..40).map(two_calls)));
    let leak = &found.groups[0];
    let snapshot = of(Vec::new());
    let ledger = crate::model::Ledger::of(&snapshot);
    let mut json = Vec::new();
    leaks_json(&mut json, &View::all(&ledger), &found, &[0, 2], JsonLayout::Compact).unwrap();
    let json: serde_json::Value = serde_json::from_slice(&json).unwrap();
    let origin = serde_json::json!({ "command": "app", "stack": "leak < main" });
    assert_eq!(
        (&json["groups"][0]["origin"], &json["groups"][1]["origin"]),
        (&origin, &serde_json::Value::Null)
    );
    let evidence = leak_evidence(leak, Sizes::Bytes);
    assert!(evidence.contains("\n  made by app in leak < main\n"), "{evidence}");
}

/// Check that an origin which is not known in every sample is that of the buffer.
#[test]
fn origins_that_come_and_go() {
    let world = |now: u64| {
        let mut one = held(7, "frame", &[1]);
        one.origin = match now {
            0 => None,
            1 => Some(Box::new(made("app", 1, &["make"]))),
            _ => Some(Box::new(Origin::Unknown(NoOrigin::Lost))),
        };
        of(vec![one])
    };
    let found = suspects(&recorded((0..4).map(world)));
    let origins: Vec<_> = found.groups.iter().map(|one| one.key.origin.is_some()).collect();
    assert_eq!((origins, figures(&found.groups[0])), (vec![true], [1, 0, 0, 0]));
}

/// Check that a range has only what was in it: what is before it is older, what comes behind it is
/// not there.
#[test]
fn ranges() {
    // A buffer in each sample, which stays for four.
    let world = |now: u64| of((now.saturating_sub(3)..=now).map(|nth| held(100 + nth, "x", &[1])).collect());
    let recording = recorded((0..40).map(world));
    let samples = recording.samples().unwrap();
    let found = recording.suspects(samples[10], samples[29], |_| true).unwrap();
    assert_eq!((found.samples, found.groups.len(), found.partial), (20, 1, 0));
    // In sample 10 there are 4, and one comes in each of the 19 others.
    assert_eq!(figures(&found.groups[0]), [4, 4, 19, 15]);
    let none = recording.suspects(samples[10], samples[29], |one| one.kind == Kind::Memfd).unwrap();
    assert!(none.groups.is_empty());
}

/// Check that what a later run looks for, and the one before it did not, is not born with it, and
/// that the buffers of another kind are.
#[test]
fn wider_runs() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("r.db");
    let memfd = |ino| {
        let mut one = held(ino, "m", &[1]);
        one.id.kind = Kind::Memfd;
        one
    };
    for (kinds, buffers) in [
        (Kinds::DMABUF, vec![held(1, "d", &[1])]),
        (Kinds::ALL, vec![held(1, "d", &[1]), held(2, "d", &[1]), memfd(3)]),
    ] {
        let mut recorder = Recorder::open(&file, Keep::default()).unwrap();
        recorder.append(Snapshot { kinds, ..of(buffers) }).unwrap();
        recorder.close().unwrap();
    }
    let groups = groups(&Recording::open(&file).unwrap());
    assert_eq!(figures(&groups[&("p1".to_owned(), "d".to_owned())]), [1, 0, 1, 0]);
    assert_eq!(figures(&groups[&("p1".to_owned(), "m".to_owned())]), [1, 0, 0, 0]);
}

/// Check that partial samples are counted, and that a buffer which was not seen for a while has not
/// died.
#[test]
fn partial_samples() {
    let partial = |mut snapshot: Snapshot| {
        snapshot.coverage.notes.push(crate::model::Note::NotWholeMachine);
        snapshot
    };
    let there = || of(vec![held(1, "x", &[1])]);
    let gone = || partial(of(vec![held(2, "y", &[2])]));
    let found = suspects(&recorded([there(), gone(), gone(), there(), there()]));
    assert_eq!((found.samples, found.partial), (5, 2));
    let figures: Vec<[u64; 4]> = found.groups.iter().map(figures).collect();
    assert_eq!(figures.iter().filter(|one| **one == [1, 0, 0, 0]).count(), 1);
    assert_eq!(figures.iter().filter(|one| **one == [0, 0, 1, 1]).count(), 1);
}

/// Check against the snapshots themselves: at the end of a random history of holders, each group
/// has as many buffers as its command holds in the last snapshot.
#[test]
fn what_is_left_is_there() {
    let random =
        |seed: u64| (seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695) >> 33) as u32;
    let world = |now: u64| {
        let pids = |ino: u64| {
            let bits = random(now / 3 * 101 + ino);
            (1..=3).filter(|pid| bits >> pid & 1 == 1).map(Pid).map(|pid| pid.0).collect::<Vec<u32>>()
        };
        let some = (0..30).map(|ino| (ino, pids(ino))).filter(|(_, pids)| !pids.is_empty());
        of(some.map(|(ino, pids)| held(ino + 1, "x", &pids)).collect())
    };
    let snapshots: Vec<Snapshot> = (0..30).map(world).collect();
    let last = snapshots.last().unwrap().clone();
    for (key, one) in groups(&recorded(snapshots)) {
        let holds =
            |buffer: &&Buffer| buffer.holders.iter().any(|holder| format!("p{}", holder.pid) == key.0);
        assert_eq!(one.now(), last.buffers.iter().filter(holds).count() as u64, "{key:?}");
    }
}

/// Check that a range whose samples are not there has nothing in it.
#[test]
fn no_samples() {
    let recording = recorded([of(vec![held(1, "x", &[1])])]);
    let (first, _) = recording.span().unwrap().unwrap();
    let mut other = first;
    other.id = SampleId(9);
    other.taken_at = SystemTime::UNIX_EPOCH;
    let found = recording.suspects(other, other, |_| true).unwrap();
    assert_eq!((found.samples, found.length, found.groups.len()), (0, Duration::ZERO, 0));
}
