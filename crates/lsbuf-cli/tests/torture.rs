//! Kills `lsbuf record` at random moments, and looks at what is left.
//!
//! `LSBUF_KILLS=1000 cargo test -p lsbuf-cli --test torture` does it a thousand times.
#![allow(clippy::unwrap_used, reason = "a helper fails where its test fails")]

mod kit;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use assert_cmd::cargo::cargo_bin;
use kit::{Tree, shmem_tree};
use lsbuf::history::{Recording, SampleId};

/// How often the recorder is killed, unless `LSBUF_KILLS` says so.
const KILLS: u32 = 30;

/// Moments after the start. The same seed gives the same ones.
struct Random(u64);

impl Random {
    fn below(&mut self, most: u64) -> u64 {
        // A linear congruential generator; the upper bits are the better ones.
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % most
    }
}

fn record(tree: &Tree, file: &Path, args: &[&str]) -> Child {
    let mut command = Command::new(cargo_bin("lsbuf"));
    command.arg("record").arg(file).args(args);
    command.arg("--proc-root").arg(tree.path("proc")).arg("--sys-root").arg(tree.path("sys"));
    command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
}

/// Closes and opens a file of the client again and again, so that samples differ.
fn change(tree: &Tree, stop: &AtomicBool) {
    let link = tree.path("proc/12/fd/4");
    let target = fs::read_link(&link).unwrap();
    while !stop.load(Ordering::Relaxed) {
        fs::remove_file(&link).unwrap();
        std::thread::sleep(Duration::from_millis(7));
        symlink(&target, &link).unwrap();
        std::thread::sleep(Duration::from_millis(9));
    }
}

/// The newest sample, read in full. `None`: there is no recording yet, or none with a sample.
fn newest(file: &Path) -> Option<SampleId> {
    let recording = Recording::open(file).ok()?;
    let (_, newest) = recording.span().unwrap()?;
    recording.snapshot(newest.id).unwrap();
    Some(newest.id)
}

/// Check that a recorder which is killed at any moment leaves a file that opens as it is, that
/// every sample which a reader has seen is in it, that each sample reads back, that a reader can
/// read at any time, and that a second recorder is refused each time.
#[test]
fn killed_at_any_moment() {
    let kills = std::env::var("LSBUF_KILLS").map_or(KILLS, |kills| kills.parse().unwrap());
    let (tree, folder) = (shmem_tree(), tempfile::tempdir().unwrap());
    let file = folder.path().join("r.db");
    let stop = AtomicBool::new(false);
    let (mut random, mut refused, mut fresh, mut samples, mut read) = (Random(1), 0, 0, 0, 0);
    std::thread::scope(|scope| {
        scope.spawn(|| change(&tree, &stop));
        // Whatever fails, the other thread ends.
        let _ending = OnDrop(&stop);
        for nth in 0..kills {
            // Some recorders are killed while they make the file.
            if nth % 5 == 0 {
                for end in ["", "-wal", "-shm", "-reserve"] {
                    let _ = fs::remove_file(format!("{}{end}", file.display()));
                }
                fresh += 1;
            }
            let before = newest(&file).map_or(0, |newest| newest.0);
            let mut recorder = record(&tree, &file, &["--every", "10ms"]);
            // Every second one is killed while it starts, the others while it records.
            let mut end = Instant::now() + Duration::from_micros(random.below(150_000));
            let mut is_recording = nth % 2 == 0;
            let mut seen = before;
            let mut asked_second = false;
            while Instant::now() < end || !is_recording {
                if let Some(status) = recorder.try_wait().unwrap() {
                    let output = recorder.wait_with_output().unwrap();
                    let said = String::from_utf8_lossy(&output.stderr).into_owned();
                    panic!("it has ended by itself, {status}: {said}");
                }
                if seen > before && !is_recording {
                    is_recording = true;
                    end = Instant::now() + Duration::from_micros(random.below(200_000));
                }
                std::thread::sleep(Duration::from_millis(1));
                let now = newest(&file).map_or(0, |newest| newest.0);
                assert!(now >= seen, "sample {seen} was there, and {now} is the newest one");
                (seen, read) = (now, read + 1);
                if seen > before && !std::mem::replace(&mut asked_second, true) {
                    let second = record(&tree, &file, &["--count", "1"]).wait_with_output().unwrap();
                    let text = String::from_utf8(second.stderr).unwrap();
                    let line = format!("lsbuf: another process records into {}\n", file.display());
                    assert_eq!((second.status.code(), text), (Some(1), line));
                    refused += 1;
                }
            }
            recorder.kill().unwrap();
            recorder.wait().unwrap();
            samples += look(&file, seen, before);
        }
        // What is there after so many kills goes on.
        assert!(record(&tree, &file, &["--count", "2"]).wait().unwrap().success());
        samples += look(&file, 2, 0);
    });
    println!("{kills} kills, {fresh} of new files: {samples} samples, {read} looks, {refused} refused");
    assert!(samples > u64::from(kills) && refused > 0);
}

/// Looks at a recording that was killed: sample `seen` was in it, and those up to `before` were
/// read already. Returns how many samples are new.
fn look(file: &Path, seen: i64, before: i64) -> u64 {
    if seen == 0 && Recording::open(file).is_err() {
        return 0;
    }
    let recording = Recording::open(file).unwrap();
    let samples = recording.samples().unwrap();
    let last = samples.last().map_or(0, |sample| sample.id.0);
    assert!(last >= seen, "sample {seen} is lost: the last one is {last}");
    assert!(samples.iter().map(|sample| sample.id.0).eq(1..=last), "there are gaps");
    let new = samples.iter().filter(|sample| sample.id.0 > before);
    let mut number = 0;
    for sample in new {
        let found: BTreeSet<u64> =
            recording.snapshot(sample.id).unwrap().buffers.iter().map(|buffer| buffer.id.ino.0).collect();
        let always = BTreeSet::from([0, 7, 32_769]);
        let with_file = BTreeSet::from([0, 6, 7, 32_769]);
        assert!(found == always || found == with_file, "{found:?}");
        number += 1;
    }
    number
}

/// Says that the test is over when it is dropped.
struct OnDrop<'s>(&'s AtomicBool);

impl Drop for OnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
