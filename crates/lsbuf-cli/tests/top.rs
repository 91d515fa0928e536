//! `lsbuf top` in a real terminal, which is tmux, and without one. It shows a recording of the
//! kit's world of shared memory, with times that are set, so that snapshots can be checked by hand.
#![cfg(feature = "tui")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a helper fails where its test fails")]

mod kit;

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime};

use assert_cmd::cargo::cargo_bin;
use insta::assert_snapshot;
use kit::{Tree, shmem_tree};
use lsbuf::history::{Keep, Recorder};
use lsbuf::model::Details;
use lsbuf::scan::Options;
use serde_json::Value;

/// 2025-11-27T14:05:00Z.
const BEGIN: u64 = 1_764_252_300;

/// A recording of three samples. After the first, the leaked file is closed; after the second, a
/// process appears that has a file with a hostile name.
struct Recorded {
    folder: tempfile::TempDir,
}

impl Recorded {
    fn new() -> Recorded {
        let folder = tempfile::tempdir().unwrap();
        let recorded = Recorded { folder };
        let file = recorded.file();
        let tree = shmem_tree();
        tree.write("proc/14/stat", b"14 (worker) S 12 1 1 0 -1 4194560 0 0 0 0 0 0 0 0 20 0 1 0 4712 0 0");
        let mut recorder = Recorder::open(&file, Keep { age: None, size: None }).unwrap();
        let mut seconds = 0;
        let mut record = || {
            seconds += 1;
            let options = Options { details: Details::ALL, ..tree.options() };
            let mut snapshot = lsbuf::scan(options).unwrap();
            snapshot.taken_at = SystemTime::UNIX_EPOCH + Duration::from_secs(BEGIN + seconds);
            recorder.append(snapshot).unwrap();
        };
        record();
        fs::remove_file(tree.path("proc/12/fd/4")).unwrap();
        fs::remove_file(tree.path("proc/12/fdinfo/4")).unwrap();
        record();
        tree.process(15, b"e\x1b[2Jvil\n");
        tree.with_shmem(&[15]);
        let name = b"/memfd:\x1b]0;title\x07\xe2\x80\xae\xff (deleted)";
        tree.shmem_fd(15, 3, name, "0:1 9 8388608 16384 0 4096 1000");
        record();
        recorder.close().unwrap();
        recorded
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("r.db")
    }

    /// The command line that shows it.
    fn line(&self, more: &str) -> String {
        format!("TZ=UTC {} top --from {} {more}", cargo_bin("lsbuf").display(), self.file().display())
    }
}

/// A terminal in which a shell runs.
struct Terminal {
    folder: tempfile::TempDir,
}

impl Terminal {
    fn new(width: u16, height: u16) -> Terminal {
        let terminal = Terminal { folder: tempfile::tempdir().unwrap() };
        let size = [width.to_string(), height.to_string()];
        let shell = "env -u NO_COLOR PS1='$ ' sh -i";
        terminal.tmux(&["-f", "/dev/null", "new-session", "-d", "-x", &size[0], "-y", &size[1], shell]);
        terminal.until("$");
        terminal
    }

    fn tmux(&self, args: &[&str]) -> String {
        let mut command = Command::new("tmux");
        command
            .arg("-u")
            .arg("-S")
            .arg(self.folder.path().join("socket"))
            .args(args)
            .env("LC_ALL", "C.UTF-8");
        let output = command.output().unwrap_or_else(|error| panic!("these tests need tmux: {error}"));
        assert!(output.status.success(), "tmux {args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    fn keys(&self, keys: &[&str]) {
        self.tmux(&[&["send-keys"], keys].concat());
    }

    /// Types a line into the shell.
    fn run(&self, line: &str) {
        self.keys(&["-l", line]);
        self.keys(&["Enter"]);
    }

    fn screen(&self) -> String {
        self.tmux(&["capture-pane", "-p"])
    }

    /// The screen with its colours: each escape character is shown as `␛`.
    fn coloured(&self) -> String {
        self.tmux(&["capture-pane", "-e", "-p"]).replace('\x1b', "␛")
    }

    /// A variable of tmux.
    fn asked(&self, what: &str) -> String {
        self.tmux(&["display-message", "-p", what]).trim().to_owned()
    }

    /// Waits for a text, and then until the screen stays the same.
    fn until(&self, text: &str) -> String {
        self.wait(text, |screen| screen.contains(text))
    }

    fn wait(&self, what: &str, is_there: impl Fn(&str) -> bool) -> String {
        let end = Instant::now() + Duration::from_secs(30);
        let mut last = String::new();
        while Instant::now() < end {
            let screen = self.screen();
            if is_there(&screen) && screen == last {
                return screen;
            }
            last = screen;
            sleep(Duration::from_millis(50));
        }
        panic!("no {what:?} in:\n{last}");
    }

    /// Waits until the screen is as it should be, though it changes all the time.
    fn wait_for(&self, what: &str, is_there: impl Fn(&str) -> bool) {
        let end = Instant::now() + Duration::from_secs(30);
        while !is_there(&self.screen()) {
            assert!(Instant::now() < end, "no {what:?} in:\n{}", self.screen());
            sleep(Duration::from_millis(50));
        }
    }

    /// The process in the foreground writes its id here before it becomes lsbuf.
    fn start(&self, line: &str) {
        let pid = self.folder.path().join("pid");
        self.run(&format!("sh -c 'echo $$ > {}; exec env {line}'", pid.display()));
    }

    fn kill(&self, signal: &str) {
        let pid = fs::read_to_string(self.folder.path().join("pid")).unwrap();
        let status = Command::new("kill").args([signal, pid.trim()]).status().unwrap();
        assert!(status.success());
    }

    /// The terminal's modes, as stty prints them.
    fn modes(&self) -> String {
        let file = self.folder.path().join("modes");
        let _ = fs::remove_file(&file);
        self.run(&format!("stty -a > {0}.new; mv {0}.new {0}", file.display()));
        let end = Instant::now() + Duration::from_secs(30);
        while Instant::now() < end {
            if let Ok(modes) = fs::read_to_string(&file) {
                return modes;
            }
            sleep(Duration::from_millis(50));
        }
        panic!("the shell does not answer:\n{}", self.screen());
    }

    /// Whether the alternate screen is on, and whether the cursor is shown.
    fn screen_and_cursor(&self) -> String {
        self.asked("#{alternate_on} #{cursor_flag}")
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        self.tmux(&["kill-server"]);
    }
}

/// Check the screens at 80 columns, as keys and steps through a recording make them.
#[test]
fn at_80_columns() {
    let recorded = Recorded::new();
    let terminal = Terminal::new(80, 24);
    terminal.start(&recorded.line("--at start"));
    assert_snapshot!("80_first", terminal.until("sample 1 of 3"));
    terminal.keys(&["m", "Right", "Right"]);
    assert_snapshot!("80_mark", terminal.until("sample 3 of 3"));
    terminal.keys(&["2", "t"]);
    assert_snapshot!("80_tree", terminal.until("└ worker"));
    terminal.keys(&["t", "3", "g", "g"]);
    assert_snapshot!("80_units", terminal.until("groups by unit"));
    terminal.keys(&["1", "/", "wl_", "Enter", "Enter"]);
    assert_snapshot!("80_in_full", terminal.until("account"));
    terminal.keys(&["Escape"]);
    terminal.until("row 1 of 1");
    terminal.keys(&["T"]);
    terminal.keys(&["-l", "--", "-1s"]);
    assert_snapshot!("80_time", terminal.until("go to time"));
    terminal.keys(&["Enter"]);
    terminal.until("sample 2 of 3");
    terminal.keys(&["Space"]);
    terminal.until("sample 3 of 3");
    terminal.keys(&["?"]);
    assert_snapshot!("80_help", terminal.until("Ctrl-L"));
}

/// Check that a wide terminal is used, that a resize shows the whole screen anew, and that so does
/// one to the same size.
#[test]
fn at_200_columns() {
    let recorded = Recorded::new();
    let terminal = Terminal::new(80, 24);
    terminal.start(&recorded.line(""));
    terminal.until("sample 3 of 3");
    terminal.tmux(&["resize-window", "-x", "200", "-y", "50"]);
    let wide = terminal.until("TREND");
    assert_snapshot!("200_buffers", wide);
    fs::write(terminal.asked("#{pane_tty}"), "\x1b[3;1Hanother program wrote this").unwrap();
    terminal.until("another program");
    terminal.kill("-WINCH");
    assert_eq!(terminal.wait("a whole screen", |screen| !screen.contains("another program")), wide);
    terminal.keys(&["2"]);
    assert_snapshot!("200_processes", terminal.until("[2 processes]"));
}

/// Check that a scan replaces the one before, that a frozen screen stays as it is, and that it goes
/// on afterwards.
#[test]
fn live() {
    let tree = shmem_tree();
    let grow = |blocks: u64| {
        let told = format!("shmem 0:1 7 1048576 {blocks} 0 4096 1000\n");
        tree.write("proc/12/.lsbuf/fd/3", told.as_bytes());
    };
    let terminal = Terminal::new(100, 24);
    let line = "TZ=UTC {} top --every 50ms --kind memfd --proc-root {}";
    let line = line.replacen("{}", &cargo_bin("lsbuf").display().to_string(), 1);
    terminal.start(&line.replacen("{}", &tree.path("proc").display().to_string(), 1));
    let row = |charged: &str| {
        let words = ["memfd", "7", "1.0M", charged];
        let has =
            |line: &str| line.split_whitespace().collect::<Vec<_>>().windows(4).any(|four| four == words);
        let is_there = |screen: &str| screen.lines().any(|line| line.starts_with('>') && has(line));
        terminal.wait_for(charged, is_there);
    };
    row("1.0M");
    grow(4096);
    row("2.0M");
    terminal.keys(&["Space"]);
    terminal.wait_for("FROZEN", |screen| screen.contains("FROZEN"));
    grow(8192);
    sleep(Duration::from_millis(500));
    row("2.0M");
    terminal.keys(&["Space"]);
    row("4.0M");
    terminal.keys(&["Enter"]);
    terminal.wait_for("the buffer", |screen| screen.contains("charged   4.0M (4194304 bytes)"));
}

/// Check that every signal that ends lsbuf leaves the terminal as it was, and that so does `q`.
#[test]
fn the_terminal_is_restored() {
    let recorded = Recorded::new();
    let terminal = Terminal::new(80, 24);
    let before = terminal.modes();
    for signal in ["-TERM", "-INT", "-HUP", "-QUIT", "q"] {
        terminal.start(&recorded.line(""));
        terminal.until("sample 3 of 3");
        assert_eq!(terminal.screen_and_cursor(), "1 0", "{signal}");
        match signal {
            "q" => terminal.keys(&["q"]),
            signal => terminal.kill(signal),
        }
        terminal.wait("the shell", |screen| !screen.contains("sample"));
        assert_eq!(terminal.modes(), before, "{signal}");
        assert_eq!(terminal.screen_and_cursor(), "0 1", "{signal}");
    }
}

/// Check that Ctrl-Z and SIGTSTP give the terminal to the shell, and that it is taken again
/// afterwards.
#[test]
fn stopped_and_continued() {
    let recorded = Recorded::new();
    let terminal = Terminal::new(80, 24);
    let before = terminal.modes();
    terminal.run("set -m");
    terminal.start(&recorded.line(""));
    let screen = terminal.until("sample 3 of 3");
    for key in [true, false] {
        if key {
            terminal.keys(&["C-z"]);
        } else {
            terminal.kill("-TSTP");
        }
        terminal.wait("the shell", |screen| !screen.contains("sample"));
        assert_eq!((terminal.modes(), terminal.screen_and_cursor()), (before.clone(), "0 1".to_owned()));
        terminal.run("fg");
        assert_eq!(terminal.until("sample 3 of 3"), screen);
        assert_eq!(terminal.screen_and_cursor(), "1 0");
    }
}

/// A recording of a desktop in which the browser's memfd grows from sample to sample, and a
/// process with a memfd of its own appears before the seventh. The camera has opened a buffer 20
/// times.
fn desktop() -> Recorded {
    let recorded = Recorded { folder: tempfile::tempdir().unwrap() };
    let mut tree = Tree::new();
    for (pid, command) in [(1200, "compositor"), (1431, "browser"), (1502, "camera")] {
        tree.process(pid, command.as_bytes());
    }
    tree.with_shmem(&[1200, 1431, 1502]);
    for (ino, name) in [(31, "front"), (32, "back")] {
        tree.dmabuf_fd(1200, ino, ino.into(), name.as_bytes(), 8_294_400, 3);
        tree.dmabuf_fd(1431, ino, ino.into(), name.as_bytes(), 8_294_400, 3);
        tree.listed(ino.into(), name.as_bytes(), 8_294_400, 3, &["gpu"]);
    }
    tree.listed(40, b"frame", 3_110_400, 20, &[]);
    tree.write_list();
    for fd in 10..30 {
        tree.dmabuf_fd(1502, fd, 40, b"frame", 3_110_400, 20);
    }
    tree.shmem_fd(1431, 3, b"/memfd:tab (deleted)", "0:1 77 33554432 8192 0 4096 1000");
    let mut recorder = Recorder::open(recorded.file(), Keep { age: None, size: None }).unwrap();
    for nth in 0..8 {
        let blocks = 8192 + nth * 4096;
        let told = format!("shmem 0:1 77 33554432 {blocks} 0 4096 1000\n");
        tree.write("proc/1431/.lsbuf/fd/3", told.as_bytes());
        if nth == 6 {
            tree.process(1600, b"screenshot");
            tree.with_shmem(&[1600]);
            tree.shmem_fd(1600, 4, b"/memfd:png (deleted)", "0:1 78 4194304 8192 0 4096 1000");
        }
        let mut snapshot = lsbuf::scan(Options { details: Details::ALL, ..tree.options() }).unwrap();
        snapshot.taken_at = SystemTime::UNIX_EPOCH + Duration::from_secs(BEGIN + nth);
        recorder.append(snapshot).unwrap();
    }
    recorder.close().unwrap();
    recorded
}

/// Check the screen that `cargo xtask picture` draws for the README, with its colours.
#[test]
fn the_picture() {
    let recorded = desktop();
    let terminal = Terminal::new(100, 13);
    terminal.start(&recorded.line("--at -3s"));
    terminal.until("sample 5 of 8");
    terminal.keys(&["m", "Right", "Right", "Right"]);
    terminal.until("sample 8 of 8");
    assert_snapshot!("picture", terminal.coloured());
}

fn run(line: &str) -> Output {
    Command::new("sh").args(["-c", &format!("export {}", line.replacen(' ', "; ", 1))]).output().unwrap()
}

/// Check that without a terminal one line says what to do.
#[test]
fn no_terminal() {
    let recorded = Recorded::new();
    let output = run(&recorded.line(""));
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!((said.lines().count(), said.contains("lsbuf top --batch")), (1, true), "{said}");
}

/// Check that batch mode prints a table for each sample, and stops after as many as it was told.
#[test]
fn tables() {
    let recorded = Recorded::new();
    let printed = |more: &str| String::from_utf8(run(&recorded.line(more)).stdout).unwrap();
    assert_snapshot!("batch", printed("--batch"));
    assert_eq!(printed("--batch --count 2 --list groups").matches("2025-11-27T").count(), 2);
    assert_eq!(printed("--batch --at end --list processes").matches("2025-11-27T").count(), 1);
}

/// Check that JSON is the document of `lsbuf -J` for each sample, on a line of its own.
#[test]
fn documents() {
    let recorded = Recorded::new();
    let printed = String::from_utf8(run(&recorded.line("--batch -J")).stdout).unwrap();
    let documents: Vec<Value> = printed.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(documents.len(), 3);
    for (nth, document) in documents.iter().enumerate() {
        assert_eq!(document["schema"], "lsbuf.snapshot/1");
        let at = format!("2025-11-27T14:05:0{}Z", nth + 1);
        let asked = Command::new(cargo_bin("lsbuf"))
            .args(["-J", "--at", &at, "--from"])
            .arg(recorded.file())
            .output()
            .unwrap();
        assert_eq!(*document, serde_json::from_slice::<Value>(&asked.stdout).unwrap(), "{nth}");
    }
}

/// Check that a reader that has seen enough ends it without an error.
#[test]
fn closed_pipe() {
    let tree = shmem_tree();
    let line = format!(
        "TZ=UTC {} top --batch --every 10ms --proc-root {} | head -n 20",
        cargo_bin("lsbuf").display(),
        tree.path("proc").display()
    );
    let output = run(&line);
    assert_eq!(String::from_utf8(output.stdout).unwrap().lines().count(), 20);
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(!said.contains("Broken pipe"), "{said}");
}
