//! Tests pinned iterators on the kernel that runs the tests: that no other user can delay a change
//! of the pins, that those who could read the pins no longer can once they are removed, and that
//! what is pinned in their place is not taken for them.
//!
//! These tests do nothing for a user who may not load iterators, or on a kernel without them; the
//! guests of `cargo xtask vm` run them as well.

#![allow(clippy::unwrap_used, reason = "a helper fails where its test fails")]

#[path = "common/iterators.rs"]
mod iterators;

use std::fs::{self, File, Permissions};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use lsbuf::model::{Kinds, Note, Source};
use lsbuf::probes;
use lsbuf::scan::{Options, Scanner};
use rustix::fs::{FlockOperation, flock};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

/// A group and a user that do not exist here.
const GROUP: u32 = 4400;
const USER: u32 = 4401;

/// A folder for pins; what is mounted on it is unmounted when this is dropped.
struct Pins(tempfile::TempDir);

impl Pins {
    /// `None`: iterators cannot be pinned here.
    fn installed() -> Option<Pins> {
        let pins = Pins::nothing();
        if !rustix::process::geteuid().is_root() || !iterators::must_load() {
            return None;
        }
        probes::install(&pins.path(), Some(GROUP)).unwrap();
        Some(pins)
    }

    fn nothing() -> Pins {
        let dir = tempfile::tempdir_in("/run").or_else(|_| tempfile::tempdir()).unwrap();
        fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).unwrap();
        Pins(dir)
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("pins")
    }

    /// The pins; there is one set of them.
    fn pinned(&self) -> Vec<PathBuf> {
        let below = |path: &Path| fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path());
        let is_set = |path: &PathBuf| path.is_dir();
        below(&self.path()).filter(is_set).flat_map(|set| below(&set).collect::<Vec<_>>()).collect()
    }
}

impl Drop for Pins {
    fn drop(&mut self) {
        let _ = unmount(self.path(), UnmountFlags::DETACH);
    }
}

/// A shell of the user in the group, which prints a line for each line that it reads.
struct Member(Child, BufReader<std::process::ChildStdout>);

impl Member {
    fn runs(script: &str, arguments: &[&Path]) -> Member {
        let mut command = Command::new("sh");
        command.arg("-c").arg(script).arg("sh").args(arguments).uid(USER).gid(GROUP);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        Member(child, lines)
    }

    fn says(&mut self) -> String {
        let mut line = String::new();
        self.1.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    fn go_on(&mut self) {
        self.0.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Check that a lock on the folder, which everybody may open and lock, delays nobody.
#[test]
fn another_user_locks_the_folder() {
    let Some(pins) = Pins::installed() else { return };
    let folder = File::open(pins.path()).unwrap();
    assert_eq!(folder.metadata().unwrap().mode() & 0o777, 0o755);
    flock(&folder, FlockOperation::LockExclusive).unwrap();
    let begun = Instant::now();
    probes::install(&pins.path(), Some(GROUP)).unwrap();
    assert!(probes::remove(&pins.path()).unwrap());
    assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", begun.elapsed());
    assert!(!pins.path().exists());
}

/// Check that a change that waits for another one gives up within seconds, names the process that
/// makes it, and leaves no lock behind.
#[test]
fn another_change_goes_on() {
    let Some(pins) = Pins::installed() else { return };
    let path = pins.path().join("lock");
    assert!(!path.exists(), "it is there only while it is needed");
    fs::create_dir(&path).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o700)).unwrap();
    let lock = File::open(&path).unwrap();
    flock(&lock, FlockOperation::LockExclusive).unwrap();
    let begun = Instant::now();
    let error = probes::remove(&pins.path()).unwrap_err().to_string();
    assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", begun.elapsed());
    let expected = format!(
        "process {}, perhaps another lsbuf probes, has held the lock {} for 5 s",
        std::process::id(),
        path.display()
    );
    assert_eq!(error, expected);
    assert!(!pins.pinned().is_empty(), "nothing was removed");
    drop(lock);
    assert!(probes::remove(&pins.path()).unwrap());
}

/// Check that a lock that others can open is refused, and so is a folder that others can change.
#[test]
fn folders_that_others_can_change() {
    let Some(pins) = Pins::installed() else { return };
    let lock = pins.path().join("lock");
    fs::create_dir(&lock).unwrap();
    fs::set_permissions(&lock, Permissions::from_mode(0o755)).unwrap();
    let error = probes::remove(&pins.path()).unwrap_err().to_string();
    assert!(error.ends_with("lock can be opened by others: remove it"), "{error}");
    fs::remove_dir(&lock).unwrap();

    fs::set_permissions(pins.path(), Permissions::from_mode(0o1777)).unwrap();
    for error in [probes::remove(&pins.path()).unwrap_err(), probes::install(&pins.path(), None).unwrap_err()]
    {
        let error = error.to_string();
        assert!(error.ends_with("user 0 and has mode 1777: others could put files in it"), "{error}");
    }
    assert!(!pins.pinned().is_empty(), "nothing was removed");
}

/// Check that a member who has kept an fd of a pin cannot open it again once the pin is removed or
/// given to another group. (The kernel cannot prevent that the fd itself is read on.)
#[test]
fn removed_is_revoked() {
    // Tells whether the kept fd can be opened again, before the change and after it.
    const SCRIPT: &str = r#"
        exec 3<"$1"
        cat /proc/self/fd/3 >/dev/null 2>&1 && echo opened || echo refused
        read _
        cat /proc/self/fd/3 >/dev/null 2>&1 && echo opened || echo refused"#;
    let changes: [&dyn Fn(&Path); 2] = [&|path| assert!(probes::remove(path).unwrap()), &|path| {
        drop(probes::install(path, Some(GROUP + 1)).unwrap())
    }];
    for change in changes {
        let Some(pins) = Pins::installed() else { return };
        let pinned = pins.pinned();
        assert!(pinned.len() >= 3, "{pinned:?}");
        let mut members: Vec<Member> = pinned.iter().map(|pin| Member::runs(SCRIPT, &[pin])).collect();
        for member in &mut members {
            assert_eq!(member.says(), "opened");
        }
        change(&pins.path());
        for (member, pin) in members.iter_mut().zip(&pinned) {
            member.go_on();
            assert_eq!(member.says(), "refused", "{}", pin.display());
        }
    }
}

/// Check that missing folders on the way are made, that existing links on the way are followed, and
/// that a link in place of the folder itself is not.
#[test]
fn links_on_the_way() {
    if Pins::installed().is_none() {
        return;
    }
    let pins = Pins::nothing();
    let root = pins.0.path();
    fs::create_dir(root.join("real")).unwrap();
    symlink("real", root.join("link")).unwrap();
    let below = root.join("link/a/pins");
    probes::install(&below, Some(GROUP)).unwrap();
    assert!(root.join("real/a/pins").is_dir());
    assert!(probes::remove(&below).unwrap());
    assert!(!root.join("real/a/pins").exists() && root.join("real/a").is_dir());

    symlink("nowhere", root.join("dangling")).unwrap();
    let error = probes::install(&root.join("dangling"), None).unwrap_err().to_string();
    assert!(error.starts_with("cannot open"), "{error}");
    assert!(!root.join("nowhere").exists());
}

/// Check that a bpf filesystem that somebody else mounted is used, and stays.
#[test]
fn a_filesystem_that_is_there_already() {
    let Some(_) = Pins::installed() else { return };
    let pins = Pins::nothing();
    fs::create_dir(pins.path()).unwrap();
    mount("bpf", pins.path(), "bpf", MountFlags::empty(), Some(c"mode=0755")).unwrap();
    let below = pins.path().join("mine");
    probes::install(&below, Some(GROUP)).unwrap();
    assert!(probes::remove(&below).unwrap());
    assert!(!below.exists());
    assert_eq!(probes::remove(&below).ok(), Some(false));
    unmount(pins.path(), UnmountFlags::empty()).unwrap();
}

/// Check that an answer says so if what is pinned turns out to be something else when it is read,
/// and that it is then the answer of procfs.
#[test]
fn another_iterator_in_its_place() {
    let Some(pins) = Pins::installed() else { return };
    let pinned = pins.pinned();
    let named = |name: &str| pinned.iter().find(|pin| pin.ends_with(name)).unwrap();
    let between = named("task").with_file_name("between");
    for (from, to) in
        [(named("task"), &between), (named("task_file"), named("task")), (&between, named("task_file"))]
    {
        fs::rename(from, to).unwrap();
    }
    let options = Options { pins: pins.path(), kinds: Kinds::DMABUF, ..Options::default() };
    let snapshot = Scanner::new(options).unwrap().scan().unwrap();
    assert!(!snapshot.coverage.sources.contains(&Source::TaskIterator));
    let failed = |note: &Note| matches!(note, Note::IteratorsFailed { .. });
    assert!(snapshot.coverage.notes.iter().any(failed), "{:?}", snapshot.coverage.notes);
}
