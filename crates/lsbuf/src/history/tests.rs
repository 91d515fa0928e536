//! What was recorded comes back.

use std::fs;
use std::time::{Duration, SystemTime};

use proptest::prelude::*;
use rusqlite::Connection;
use tempfile::TempDir;

use super::*;
use crate::error::ErrorKind;
use crate::model::examples::{any_snapshot, buffer, holder, made, made_for, snapshot};
use crate::model::{Buffer, Bytes, Gaps, Kind, Ledger, Note, Origin, Snapshot};

struct Folder(TempDir);

impl Folder {
    fn new() -> Folder {
        Folder(tempfile::tempdir().unwrap())
    }

    fn file(&self) -> std::path::PathBuf {
        self.0.path().join("r.db")
    }

    fn record(&self, snapshots: &[Snapshot]) -> Vec<SampleId> {
        let mut recorder = Recorder::open(self.file(), Keep::default()).unwrap();
        let ids = snapshots.iter().map(|s| recorder.append(s.clone()).unwrap().sample.id).collect();
        recorder.close().unwrap();
        ids
    }

    fn read(&self, sample: SampleId) -> Snapshot {
        Recording::open(self.file()).unwrap().snapshot(sample).unwrap()
    }

    fn count(&self, sql: &str) -> i64 {
        Connection::open(self.file()).unwrap().query_row(sql, [], |row| row.get(0)).unwrap()
    }
}

/// The document, with all figures that follow.
fn document(snapshot: &Snapshot) -> serde_json::Value {
    serde_json::to_value(Ledger::of(snapshot)).unwrap()
}

/// Snapshots of which each has parts of those before it.
fn any_history() -> impl Strategy<Value = Vec<Snapshot>> {
    let step = (any::<prop::sample::Index>(), any::<u8>(), any_snapshot());
    (any_snapshot(), prop::collection::vec(step, 0..6)).prop_map(|(first, steps)| {
        let mut all = vec![first];
        for (which, what, other) in steps {
            let mut next = which.get(&all).clone();
            next.taken_at = SystemTime::UNIX_EPOCH + Duration::from_secs(all.len() as u64);
            match what % 5 {
                0 => next.buffers.truncate(usize::from(what / 5) % 4),
                1 => {
                    for process in &mut next.processes {
                        process.start_time += u64::from(process.pid.0 % 2);
                    }
                }
                2 => {
                    for buffer in next.buffers.iter_mut().step_by(2) {
                        buffer.holders.truncate(1);
                        buffer.name = Some((&b"a\xff"[..]).into());
                    }
                }
                3 => next.coverage.notes.push(Note::NotWholeMachine),
                _ => next = other,
            }
            all.push(next);
        }
        all
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Check that each snapshot of any history comes back with every figure that it had, whatever
    /// came before and after it.
    #[test]
    fn histories_come_back(history in any_history()) {
        let folder = Folder::new();
        let ids = folder.record(&history);
        let recording = Recording::open(folder.file()).unwrap();
        for (before, id) in history.iter().zip(ids) {
            let after = recording.snapshot(id).unwrap();
            prop_assert_eq!(document(&after), document(before));
            prop_assert_eq!(&after.buffers, &before.buffers);
        }
    }
}

/// A buffer with that inode number, held by process 1 through one fd.
fn held(ino: u64) -> Buffer {
    buffer(ino, Some(4096), Some(1), vec![holder(1, 1, 0, &[])])
}

fn of(buffers: Vec<Buffer>) -> Snapshot {
    snapshot(buffers, Gaps::default())
}

/// Check that a sample in which nothing has changed adds a row of its own and no other.
#[test]
fn nothing_changed() {
    let folder = Folder::new();
    let mut recorder = Recorder::open(folder.file(), Keep::default()).unwrap();
    let world = of(vec![held(1), held(2)]);
    assert_eq!(recorder.append(world.clone()).unwrap().changes, 6);
    for _ in 0..9 {
        assert_eq!(recorder.append(world.clone()).unwrap().changes, 0);
    }
    recorder.close().unwrap();
    assert_eq!(folder.count("SELECT count(*) FROM sample"), 10);
    assert_eq!(folder.count("SELECT count(*) FROM buffer_state WHERE first = 1 AND last = 10"), 2);
    assert_eq!(folder.count("SELECT count(*) FROM holding WHERE first = 1 AND last = 10"), 2);
}

/// Check that a buffer which is gone has an interval that ends with the last sample that had it,
/// and that one with its inode number, but another time of birth, is another buffer.
#[test]
fn inode_numbers_are_reused() {
    let with_birth = |seconds| {
        let mut buffer = held(1);
        buffer.id.kind = Kind::Memfd;
        buffer.created_at = Some(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
        of(vec![buffer])
    };
    let folder = Folder::new();
    folder.record(&[with_birth(1), with_birth(1), with_birth(2), of(Vec::new())]);
    let lives = |birth: u64| {
        let sql = format!("SELECT first * 10 + last FROM buffer_state WHERE created_at = {birth}000000000");
        folder.count(&sql)
    };
    assert_eq!((lives(1), lives(2)), (12, 33));
    assert_eq!(folder.count("SELECT count(*) FROM buffer"), 2);
}

/// Check that a process with the pid of one that has exited is another one, and that what it holds
/// is not taken for the other one's.
#[test]
fn pids_are_reused() {
    let started = |ticks| {
        let mut snapshot = of(vec![held(1)]);
        snapshot.processes[0].start_time = ticks;
        snapshot
    };
    let folder = Folder::new();
    folder.record(&[started(7), started(7), started(9)]);
    let held_by = "SELECT group_concat(process.start_time * 100 + first * 10 + last) = '712,933' \
                   FROM holding JOIN process ON process.id = holding.process";
    assert_eq!(folder.count(held_by), 1);
}

/// Check that a recorder which was killed leaves a file whose samples are all read, and that the
/// next one goes on with it.
#[test]
fn killed() {
    let folder = Folder::new();
    let mut recorder = Recorder::open(folder.file(), Keep::default()).unwrap();
    let first = recorder.append(of(vec![held(1)])).unwrap().sample.id;
    let second = recorder.append(of(vec![held(1), held(2)])).unwrap().sample.id;
    // What a killed process leaves behind: nothing was closed.
    let copy = folder.0.path().join("copy.db");
    for name in ["", "-wal", "-shm"] {
        let from = format!("{}{name}", folder.file().display());
        fs::copy(from, format!("{}{name}", copy.display())).unwrap();
    }
    let mut again = Recorder::open(&copy, Keep::default()).unwrap();
    let third = again.append(of(vec![held(2)])).unwrap().sample.id;
    again.close().unwrap();
    let recording = Recording::open(&copy).unwrap();
    let found = |id| recording.snapshot(id).unwrap().buffers.iter().map(|b| b.id.ino.0).collect::<Vec<_>>();
    assert_eq!([found(first), found(second), found(third)], [vec![1], vec![1, 2], vec![2]]);
}

/// Check that a second recorder is refused while the first one has the file, and a reader is not.
#[test]
fn one_writer() {
    let folder = Folder::new();
    let mut recorder = Recorder::open(folder.file(), Keep::default()).unwrap();
    let sample = recorder.append(of(vec![held(1)])).unwrap().sample;
    let error = Recorder::open(folder.file(), Keep::default()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Busy);
    assert_eq!(error.to_string(), format!("another process records into {}", folder.file().display()));
    assert_eq!(folder.read(sample.id).buffers.len(), 1);
    drop(recorder);
    assert!(Recorder::open(folder.file(), Keep::default()).is_ok());
}

/// Check that what is no recording is refused in one line, and is left as it was.
#[test]
fn other_files_are_refused() {
    let folder = Folder::new();
    let refused = |what: &str| {
        let before = fs::read(folder.file()).unwrap();
        for error in [
            Recording::open(folder.file()).unwrap_err(),
            Recorder::open(folder.file(), Keep::default()).unwrap_err(),
        ] {
            assert_eq!(error.kind(), ErrorKind::NotRecording);
            assert_eq!(error.to_string(), format!("{} {what}", folder.file().display()));
        }
        assert_eq!(fs::read(folder.file()).unwrap(), before);
        fs::remove_file(folder.file()).unwrap();
    };
    fs::write(folder.file(), "not a database, but long enough to look like one").unwrap();
    refused("is not a recording");
    Connection::open(folder.file()).unwrap().execute_batch("CREATE TABLE t (a)").unwrap();
    refused("is not a recording");
    folder.record(&[of(Vec::new())]);
    Connection::open(folder.file()).unwrap().execute_batch("PRAGMA user_version = 3").unwrap();
    refused("was written by a newer lsbuf: its version is 3, this one reads 2");
}

/// Check that a file of version 1, which has no origins, is read without being changed, and that a
/// recorder gives it what it lacks.
#[test]
fn an_older_version() {
    let folder = Folder::new();
    folder.record(&[of(vec![held(1)])]);
    let older = "DROP VIEW origin_at; DROP TABLE origin; DROP TABLE stack; PRAGMA user_version = 1";
    Connection::open(folder.file()).unwrap().execute_batch(older).unwrap();
    let before = fs::read(folder.file()).unwrap();
    let recording = Recording::open(folder.file()).unwrap();
    let sample = recording.sample_when(When::End).unwrap();
    assert_eq!(recording.snapshot(sample.id).unwrap().buffers, of(vec![held(1)]).buffers);
    drop(recording);
    assert_eq!(fs::read(folder.file()).unwrap(), before);
    let mut later = of(vec![held(2)]);
    later.buffers[0].origin = Some(Box::new(Origin::Before));
    folder.record(&[later.clone()]);
    let db = Connection::open(folder.file()).unwrap();
    let version: i32 = db.query_row("PRAGMA user_version", [], |row| row.get(0)).unwrap();
    let recording = Recording::open(folder.file()).unwrap();
    let sample = recording.sample_when(When::End).unwrap();
    assert_eq!((version, recording.snapshot(sample.id).unwrap().buffers), (2, later.buffers));
}

/// Check that SQLite finds the rows of a sample by the index, in each of the views.
#[test]
fn rows_are_found_by_index() {
    let folder = Folder::new();
    folder.record(&[of(vec![held(1)])]);
    let db = Connection::open(folder.file()).unwrap();
    for view in ["buffer_at", "process_at", "holder_at", "note_at", "coverage_at"] {
        let plan = format!("EXPLAIN QUERY PLAN SELECT * FROM {view} WHERE sample = 1");
        let mut statement = db.prepare(&plan).unwrap();
        let steps = statement.query_map([], |row| row.get::<_, String>(3)).unwrap();
        let steps: Vec<String> = steps.map(Result::unwrap).collect();
        let scanned: Vec<&String> = steps.iter().filter(|step| step.starts_with("SCAN")).collect();
        assert_eq!(scanned, ["SCAN span"], "{steps:#?}");
    }
}

/// Check that a time finds the last sample before it, and none before the first.
#[test]
fn samples_by_time() {
    let folder = Folder::new();
    let at = |seconds: u64| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
    let taken = |seconds| Snapshot { taken_at: at(seconds), ..of(Vec::new()) };
    folder.record(&[taken(10), taken(20), taken(30)]);
    let recording = Recording::open(folder.file()).unwrap();
    let found = |seconds| recording.sample_at(at(seconds)).unwrap().map(|sample| sample.id.0);
    assert_eq!([found(9), found(10), found(25), found(99)], [None, Some(1), Some(2), Some(3)]);
    let (first, last) = recording.span().unwrap().unwrap();
    assert_eq!((first.taken_at, last.taken_at), (at(10), at(30)));
}

/// Check that a flipped bit anywhere in the file is noticed, or changes nothing that is read.
#[test]
fn flipped_bits() {
    let folder = Folder::new();
    let history: Vec<Snapshot> = (0..24u64).map(|n| of((n..n + 4).map(held).collect())).collect();
    let ids = folder.record(&history);
    let whole = fs::read(folder.file()).unwrap();
    let (mut noticed, mut step) = (0, 0);
    for at in (0..whole.len()).step_by(509) {
        let mut damaged = whole.clone();
        damaged[at] ^= 1 << (step % 8);
        step += 1;
        fs::write(folder.file(), damaged).unwrap();
        let Ok(recording) = Recording::open(folder.file()) else {
            noticed += 1;
            continue;
        };
        for (before, &id) in history.iter().zip(&ids).step_by(11) {
            match recording.snapshot(id) {
                Ok(after) => assert_eq!(document(&after), document(before), "byte {at}"),
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::NotRecording, "{error}");
                    noticed += 1;
                }
            }
        }
    }
    assert!(noticed > 50, "{noticed}");
}

/// Check that a file which was cut short is noticed, wherever it was cut.
#[test]
fn cut_files() {
    let folder = Folder::new();
    let ids = folder.record(&(0..24u64).map(|n| of((n..n + 4).map(held).collect())).collect::<Vec<_>>());
    let whole = fs::read(folder.file()).unwrap();
    for length in (0..whole.len()).step_by(8011) {
        fs::write(folder.file(), &whole[..length]).unwrap();
        let read = Recording::open(folder.file()).and_then(|recording| recording.snapshot(ids[0]));
        assert_eq!(read.unwrap_err().kind(), ErrorKind::NotRecording, "{length} bytes");
    }
}

/// Check that samples which are too old are deleted, with what was only in them, and that those
/// which are left are as they were.
#[test]
fn old_samples_are_deleted() {
    let folder = Folder::new();
    let at = |seconds: u64| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
    let age = Some(Duration::from_secs(20));
    let mut recorder = Recorder::open(folder.file(), Keep { age, ..Keep::default() }).unwrap();
    let world = |n: u64| Snapshot { taken_at: at(n), ..of(vec![held(1), held(100 + n / 4)]) };
    for n in 0..64 {
        recorder.append_at(world(n), Duration::from_secs(n)).unwrap();
    }
    recorder.close().unwrap();
    let recording = Recording::open(folder.file()).unwrap();
    let samples = recording.samples().unwrap();
    // The last time that ages were looked at was with sample 64, which was taken at second 63.
    assert_eq!((samples[0].taken_at, samples.len()), (at(43), 21));
    for sample in samples {
        let n = sample.taken_at.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
        assert_eq!(document(&recording.snapshot(sample.id).unwrap()), document(&world(n)));
    }
    // That of the whole time, and those of seconds 40 to 63.
    assert_eq!(folder.count("SELECT count(*) FROM buffer"), 1 + 6);
    assert_eq!(folder.count("SELECT count(*) FROM buffer_state"), 1 + 6);
    assert_eq!(folder.count("SELECT count(*) FROM process"), 1);
}

/// Check that a wall clock which jumps reorders nothing, that each sample comes back, and that a
/// time which has passed twice is the later one.
#[test]
fn clocks_that_jump() {
    let folder = Folder::new();
    let at = |seconds: u64| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
    let times = [10, 20, 30, 15, 25, 9_000, 26, 27, 2, 28];
    let mut recorder = Recorder::open(folder.file(), Keep::default()).unwrap();
    let world = |nth: u64, time| Snapshot { taken_at: at(time), ..of(vec![held(1), held(100 + nth)]) };
    for (nth, time) in (0..).zip(times) {
        recorder.append_at(world(nth, time), Duration::from_secs(nth)).unwrap();
    }
    recorder.close().unwrap();
    let recording = Recording::open(folder.file()).unwrap();
    let samples = recording.samples().unwrap();
    assert_eq!(samples.iter().map(|sample| sample.taken_at).collect::<Vec<_>>(), times.map(at));
    for ((nth, time), sample) in (0..).zip(times).zip(&samples) {
        assert_eq!(document(&recording.snapshot(sample.id).unwrap()), document(&world(nth, time)));
    }
    let found = |seconds| recording.sample_at(at(seconds)).unwrap().map(|sample| sample.id.0);
    assert_eq!(
        [found(1), found(9), found(22), found(27), found(28)],
        [None, Some(9), Some(9), Some(9), Some(10)]
    );
    assert_eq!(folder.count("SELECT count(*) FROM buffer_state WHERE first = 1 AND last = 10"), 1);
}

/// Check that a wall clock which is set forward does not make samples old, neither those of this
/// boot nor those of the one before.
#[test]
fn clocks_do_not_delete() {
    let folder = Folder::new();
    let at = |seconds: u64| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
    let keep = Keep { age: Some(Duration::from_secs(1000)), ..Keep::default() };
    let boot = |name: &str, time: u64| {
        let mut snapshot = Snapshot { taken_at: at(time), ..of(vec![held(1)]) };
        snapshot.host.boot_id = Some(name.to_owned());
        snapshot
    };
    let record = |name: &str, times: &mut dyn Iterator<Item = (u64, u64)>| {
        let mut recorder = Recorder::open(folder.file(), keep).unwrap();
        for (uptime, time) in times {
            recorder.append_at(boot(name, time), Duration::from_secs(uptime)).unwrap();
        }
        recorder.close().unwrap();
    };
    record("a", &mut (0..20).map(|n| (n, 5000 + n)));
    // A day ahead from the tenth sample on.
    record("b", &mut (0..40).map(|n| (n, if n < 10 { 5100 + n } else { 91_500 + n })));
    assert_eq!(folder.count("SELECT count(*) FROM sample"), 60);
    // The last look is at sample 96, at second 1045 of the boot: what was before second 45 is too
    // old.
    record("b", &mut (0..40).map(|n| (1010 + n, 92_510 + n)));
    assert_eq!(folder.count("SELECT count(*) FROM sample JOIN run ON run.id = run WHERE boot = 1"), 0);
    assert_eq!(folder.count("SELECT min(boottime) / 1000000 FROM sample"), 1010);
}

/// Check that a recorder goes on with a file that one left which was killed before it had made the
/// tables.
#[test]
fn killed_at_once() {
    let folder = Folder::new();
    for begun in ["", "PRAGMA auto_vacuum = INCREMENTAL; PRAGMA journal_mode = WAL;"] {
        Connection::open(folder.file()).unwrap().execute_batch(begun).unwrap();
        folder.record(&[of(vec![held(1)])]);
        assert_eq!(folder.count("SELECT count(*) FROM sample"), 1, "{begun}");
        fs::remove_file(folder.file()).unwrap();
    }
}

/// Check that a file which is larger than it may be loses its oldest samples, and really shrinks.
#[test]
fn large_files_shrink() {
    let folder = Folder::new();
    let most = 1 << 20;
    let keep = Keep { size: Some(Bytes(most)), ..Keep::default() };
    let mut recorder = Recorder::open(folder.file(), keep).unwrap();
    let world = |n: u64| of((n * 100..n * 100 + 100).map(held).collect());
    for n in 0..160 {
        recorder.append(world(n)).unwrap();
    }
    assert!(recorder.size().unwrap() <= most);
    recorder.close().unwrap();
    // To mark the rows as ended may take some pages more.
    let length = fs::metadata(folder.file()).unwrap().len();
    assert!(length <= most + (64 << 10), "{length}");
    let recording = Recording::open(folder.file()).unwrap();
    let (first, last) = recording.span().unwrap().unwrap();
    assert!(first.id.0 > 1 && last.id.0 == 160, "{first:?} {last:?}");
    // What still has room stays: 50 samples take about a mebibyte, and an eighth goes at a time.
    assert!(recording.samples().unwrap().len() > 24, "{first:?}");
    for sample in recording.samples().unwrap() {
        let before = world(sample.id.0 as u64 - 1);
        assert_eq!(document(&recording.snapshot(sample.id).unwrap()), document(&before));
    }
}

/// Check that nothing but the recording is left when the recorder has ended.
#[test]
fn nothing_is_left_beside_it() {
    let folder = Folder::new();
    folder.record(&[of(vec![held(1)])]);
    let names: Vec<_> = fs::read_dir(folder.0.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(names, ["r.db"]);
}

/// So many buffers, as they are in a sample: what each costs changes from one to the next.
fn changing(buffers: u64, sample: u64, origin: impl Fn(u64) -> Option<Origin>) -> Snapshot {
    let one = |ino: u64| {
        let mut one = buffer(1000 + ino, Some(4096 * (1 + sample)), Some(1), vec![holder(7, 1, 0, &[])]);
        one.origin = origin(ino).map(Box::new);
        one
    };
    snapshot((0..buffers).map(one).collect(), Gaps::default())
}

const CALLS: [&str; 8] = [
    "ioctl",
    "dma_heap_alloc",
    "allocate_buffer",
    "Allocator::allocate",
    "Stream::start",
    "Camera::open",
    "run_camera",
    "main",
];

/// Check that a birth is stored once, however often its buffer changes, and a stack once for all
/// buffers that were made by it; that both go with their samples; and how many bytes they take.
#[test]
fn births_are_stored_once() {
    let (buffers, samples) = (1000, 10);
    let calls = |ino: u64| -> Vec<String> { CALLS.iter().map(|call| format!("{call}{ino}")).collect() };
    let distinct = |ino: u64| {
        let calls = calls(ino);
        Some(made("camera", 7, &calls.iter().map(String::as_str).collect::<Vec<_>>()))
    };
    let record = |origin: &dyn Fn(u64) -> Option<Origin>| {
        let folder = Folder::new();
        let all: Vec<Snapshot> = (0..samples).map(|sample| changing(buffers, sample, origin)).collect();
        let ids = folder.record(&all);
        assert_eq!(document(&folder.read(ids[9])), document(&all[9]));
        let rows = ["origin", "stack"].map(|table| folder.count(&format!("SELECT count(*) FROM {table}")));
        let recorder = Recorder::open(folder.file(), Keep::default()).unwrap();
        (rows, recorder.size().unwrap())
    };
    let (none, nothing) = record(&|_| None);
    let (without, births) = record(&|_| Some(made("camera", 7, &[])));
    let (same, one_stack) = record(&|_| Some(made("camera", 7, &CALLS)));
    let (each, many_stacks) = record(&distinct);
    assert_eq!((none, without, same, each), ([0, 0], [1000, 0], [1000, 1], [1000, 1000]));
    let bytes = |size: u64| size.saturating_sub(nothing) / buffers;
    println!(
        "a birth: {}; with a stack of all: {}; with one of its own: {}",
        bytes(births),
        bytes(one_stack),
        bytes(many_stacks)
    );
    assert!(bytes(births) < 500 && bytes(one_stack) < 550 && bytes(many_stacks) < 3000);
}

/// Check that who received a buffer first is recorded when it is seen, that it is read back of each
/// time, and that the birth is stored again only then.
#[test]
fn clients_are_recorded() {
    let folder = Folder::new();
    let later = || Some(made_for("server", "app", 9));
    let all: Vec<Snapshot> = (0..6)
        .map(|sample| {
            changing(1, sample, |_| if sample < 3 { Some(made("server", 1, &[])) } else { later() })
        })
        .collect();
    let ids = folder.record(&all);
    for (id, snapshot) in ids.iter().zip(&all) {
        assert_eq!(folder.read(*id).buffers[0].origin, snapshot.buffers[0].origin);
    }
    assert_eq!(folder.count("SELECT count(*) FROM origin"), 2);
    let named = "SELECT count(*) FROM origin WHERE json_extract(born, '$.client.command') = 'app'";
    assert_eq!(folder.count(named), 1);
}

/// Check that stacks of which no sample is left are deleted with the births.
#[test]
fn stacks_go_with_their_samples() {
    let folder = Folder::new();
    let keep = Keep { age: Some(Duration::from_secs(5)), ..Keep::default() };
    let mut recorder = Recorder::open(folder.file(), keep).unwrap();
    for sample in 0..32 {
        let mut one = changing(1, 0, |_| Some(made("app", 7, &[format!("call{sample}").as_str()])));
        one.buffers[0].id.ino = crate::model::Inode(sample);
        one.taken_at = SystemTime::UNIX_EPOCH + Duration::from_secs(sample);
        recorder.append_at(one, Duration::from_secs(sample)).unwrap();
    }
    recorder.close().unwrap();
    let left = |table: &str| folder.count(&format!("SELECT count(*) FROM {table}"));
    assert_eq!((left("origin"), left("stack")), (left("buffer"), left("buffer")));
    assert!(left("stack") < 10, "{}", left("stack"));
}
