//! Where a case runs its programs: a folder of an ordinary user, and the end of every process that
//! was started.
//!
//! This process adopts the orphans among its descendants (`PR_SET_CHILD_SUBREAPER`). So whatever a
//! program started becomes a child of this process as soon as its parents have ended. The number
//! of a child is not used again before this process has waited for it, so no signal can reach
//! another process.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{self, DirBuilder, File, Permissions};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use rustix::process::{Pid, Signal, WaitOptions, getpid, kill_process, set_child_subreaper, wait};

use super::plain;
use crate::cmd;

/// The user `nobody` and its group, as Debian numbers them.
const USER: u32 = 65534;

/// How long a program may take until it has done what is waited for.
const TIMEOUT: Duration = Duration::from_secs(90);

/// How long a program may take to end after SIGTERM.
const GRACE: Duration = Duration::from_secs(5);

/// Makes this process the parent of every descendant whose own parent has ended.
pub(super) fn adopt_orphans() -> anyhow::Result<()> {
    ensure!(children()?.is_empty(), "this process has children that it did not start");
    set_child_subreaper(Some(getpid())).context("adopting orphans")
}

/// A folder for one case. Dropping it ends all programs and removes it.
pub(super) struct Place {
    folder: PathBuf,
    lsbuf: PathBuf,
    segments: RefCell<Vec<u64>>,
}

/// A program that was started. What it prints goes to files.
pub(super) struct Program {
    child: Child,
    stdout: PathBuf,
    stderr: PathBuf,
}

impl Place {
    /// Makes the folder. Root writes in it and the programs read it; they write in the folders
    /// `run` and `home` in it. No other user can read it.
    pub(super) fn new(lsbuf: &Path) -> anyhow::Result<Self> {
        let folder = std::env::temp_dir().join(format!("lsbuf-cases-{}", std::process::id()));
        let make =
            |path: &Path| DirBuilder::new().mode(0o700).create(path).context("making a private folder");
        make(&folder)?;
        // From here on, it is removed at the end.
        let place = Self { folder, lsbuf: lsbuf.to_owned(), segments: RefCell::default() };
        fs::set_permissions(&place.folder, Permissions::from_mode(0o710))?;
        chown(&place.folder, None, Some(USER))?;
        for name in ["run", "home"] {
            make(&place.file(name))?;
            place.give(&place.file(name))?;
        }
        Ok(place)
    }

    /// The path of a file in the folder.
    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Makes a file that root has written one of the ordinary user.
    pub(super) fn give(&self, path: &Path) -> anyhow::Result<()> {
        chown(path, Some(USER), Some(USER))
            .with_context(|| format!("changing the owner of {}", path.display()))
    }

    /// A command that the ordinary user runs in the folder. It has no environment but the folder.
    pub(super) fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let home = self.file("home");
        let mut command = Command::new("setpriv");
        command.args([format!("--reuid={USER}"), format!("--regid={USER}")]);
        command.args(["--clear-groups", "--"]).arg(program);
        command.env_clear().env("PATH", "/usr/bin:/bin").env("LC_ALL", "C.UTF-8");
        command.env("HOME", &home).env("TMPDIR", &home).env("XDG_RUNTIME_DIR", self.file("run"));
        command.current_dir(home);
        command
    }

    /// Starts a command of [`Place::command`]. `name` is for the files with its output. setpriv
    /// executes the program, so the program has the number of the child.
    pub(super) fn start(&self, name: &str, command: &mut Command) -> anyhow::Result<Program> {
        let (stdout, stderr) = (self.file(&format!("{name}.out")), self.file(&format!("{name}.err")));
        let child = command
            .stdin(Stdio::null())
            .stdout(File::create(&stdout)?)
            .stderr(File::create(&stderr)?)
            .spawn()
            .with_context(|| format!("starting {name}"))?;
        Ok(Program { child, stdout, stderr })
    }

    /// What lsbuf prints. The arguments are separated by blanks.
    pub(super) fn lsbuf(&self, arguments: &str) -> anyhow::Result<String> {
        cmd::output(Command::new(&self.lsbuf).args(arguments.split_whitespace()))
    }

    /// Says that a program leaves this SysV segment behind. It is removed at the end.
    pub(super) fn leaves_segment(&self, id: u64) {
        self.segments.borrow_mut().push(id);
    }

    /// Ends every process that was started here, and removes what they leave.
    pub(super) fn end(&self) -> anyhow::Result<()> {
        end_children()?;
        for id in self.segments.take() {
            // The program may have removed it itself.
            let _ = cmd::output(Command::new("ipcrm").args(["-m", &id.to_string()]));
        }
        Ok(())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Err(why) = self.end() {
            eprintln!("xtask: {why:#}");
        }
        if let Err(why) = fs::remove_dir_all(&self.folder) {
            eprintln!("xtask: removing {}: {why}", self.folder.display());
        }
    }
}

impl Program {
    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has printed to stdout.
    pub(super) fn printed(&self) -> String {
        read(&self.stdout)
    }

    /// The number that is all it has printed to stdout, in a whole line.
    pub(super) fn number(&self) -> Option<u32> {
        self.printed().strip_suffix('\n')?.trim().parse().ok()
    }

    /// What it has printed to stderr.
    pub(super) fn errors(&self) -> String {
        read(&self.stderr)
    }

    /// Kills it, and not what it started.
    pub(super) fn kill(&mut self) -> anyhow::Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Waits until `look` finds something. If the program ends before, or it takes too long, the
    /// error has what it printed.
    pub(super) fn wait_for<T>(&mut self, what: &str, look: impl Fn(&Self) -> Option<T>) -> anyhow::Result<T> {
        let end = Instant::now() + TIMEOUT;
        loop {
            let ended = self.child.try_wait()?;
            if let Some(found) = look(self) {
                return Ok(found);
            }
            if let Some(status) = ended {
                bail!("no {what}, and the program ended ({status}): {}", self.errors().trim_end());
            }
            if Instant::now() > end {
                bail!("no {what} in {} s: {}", TIMEOUT.as_secs(), self.errors().trim_end());
            }
            sleep(Duration::from_millis(100));
        }
    }
}

fn read(path: &Path) -> String {
    fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
}

/// The children of this process.
fn children() -> anyhow::Result<Vec<u32>> {
    let own = std::process::id();
    Ok(plain::parents()?.into_iter().filter(|(_, parent)| *parent == own).map(|(pid, _)| pid).collect())
}

/// Ends all children, and the children that come to this process when these have ended.
fn end_children() -> anyhow::Result<()> {
    let start = Instant::now();
    let mut told = BTreeSet::new();
    loop {
        while matches!(wait(WaitOptions::NOHANG), Ok(Some(_))) {}
        let left = children()?;
        if left.is_empty() {
            return Ok(());
        }
        if start.elapsed() > 4 * GRACE {
            bail!("these processes do not end: {left:?}");
        }
        for child in left {
            let signal = if start.elapsed() > GRACE { Signal::KILL } else { Signal::TERM };
            if told.insert((child, signal.as_raw())) {
                let pid =
                    i32::try_from(child).ok().and_then(Pid::from_raw).context("the number of a process")?;
                // A child that has just ended cannot be told, and need not be.
                let _ = kill_process(pid, signal);
            }
        }
        sleep(Duration::from_millis(50));
    }
}
