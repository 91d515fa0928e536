//! Process 1 of a test guest: it mounts filesystems, loads modules, runs one child and powers off.
//!
//! A child does the work, because the kernel panics if process 1 crashes. Every path ends in
//! powering the machine off, because the host waits for that.

use std::ffi::CStr;
use std::fs::{self, File};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::Context;
use rustix::fs::{Mode, OFlags};
use rustix::mount::{MountFlags, mount};
use rustix::system::{RebootCommand, finit_module, reboot};
use rustix::termios::{OptionalActions, tcgetattr, tcsetattr};

use crate::need::{self, Need};
use crate::output::run_reported;
use crate::report::{Event, PLAN_PATH, Plan, REPORT_VARIABLE, Reporter};
use crate::way;

/// How long the guest may run. The host ends a boot that takes too long; this limit only ends a
/// guest that the host has forgotten.
const LIMIT: Duration = Duration::from_secs(24 * 3600);

/// The filesystems in the order of mounting: type, mount point, and whether the guest is useless
/// without it.
const MOUNTS: &[(&str, &str, bool)] = &[
    ("proc", "/proc", true),
    ("sysfs", "/sys", true),
    ("devtmpfs", "/dev", true),
    ("devpts", "/dev/pts", true),
    ("debugfs", "/sys/kernel/debug", true),
    ("tmpfs", "/tmp", true),
    ("tmpfs", "/dev/shm", true),
    ("bpf", "/sys/fs/bpf", false),
    ("cgroup2", "/sys/fs/cgroup", false),
];

/// Does the whole job of process 1 and powers the machine off.
pub fn run() -> ! {
    match prepare().and_then(|(port, file, plan)| work(&port, &Reporter::new(file), &plan)) {
        Ok(()) => {}
        Err(error) => eprintln!("lsbuf-guest: init: {error:#}"),
    }
    rustix::fs::sync();
    if let Err(error) = reboot(RebootCommand::PowerOff) {
        eprintln!("lsbuf-guest: powering off: {error}");
    }
    // Process 1 must not end. The host's time limit ends the machine.
    loop {
        std::thread::park();
    }
}

/// Mounts everything, opens the report and reads the plan.
fn prepare() -> anyhow::Result<(String, File, Plan)> {
    for &(kind, target, required) in MOUNTS {
        // A directory cannot be made in a pseudo-filesystem. The mount then fails with the reason.
        let _ = fs::create_dir_all(target);
        let mounted = mount(kind, target, kind, MountFlags::empty(), None::<&CStr>);
        if required {
            mounted.with_context(|| format!("mounting {kind} on {target}"))?;
        }
    }
    // The host names it on the kernel's command line.
    let port = std::env::var(REPORT_VARIABLE).with_context(|| format!("reading {REPORT_VARIABLE}"))?;
    let file = open_report(&port).with_context(|| format!("opening {port}"))?;
    let plan = fs::read(PLAN_PATH).with_context(|| format!("reading {PLAN_PATH}"))?;
    let plan = serde_json::from_slice(&plan).with_context(|| format!("parsing {PLAN_PATH}"))?;
    Ok((port, file, plan))
}

/// Opens the report's serial port and switches off every rewriting of bytes.
fn open_report(port: &str) -> anyhow::Result<File> {
    let flags = OFlags::WRONLY | OFlags::NOCTTY | OFlags::CLOEXEC;
    let port = rustix::fs::open(port, flags, Mode::empty())?;
    let mut settings = tcgetattr(&port)?;
    settings.make_raw();
    tcsetattr(&port, OptionalActions::Now, &settings)?;
    Ok(port.into())
}

/// Loads the modules, runs the plan's mode as a child and reports how it ended.
fn work(port: &str, reporter: &Reporter, plan: &Plan) -> anyhow::Result<()> {
    if let Err(error) = load_modules() {
        reporter.send(&Event::Failure { detail: format!("{error:#}") })?;
    }
    let kernel = rustix::system::uname().release().to_string_lossy().into_owned();
    let has = Need::met();
    let met = need::print(&has);
    reporter.send(&Event::Hello { kernel, has })?;
    let mut command = Command::new("/bin/lsbuf-guest");
    command.arg(&plan.mode).args(&plan.arguments);
    command.env_clear().env("PATH", "/bin").env("HOME", "/tmp").env(REPORT_VARIABLE, port);
    command.env(need::MET, met);
    // All modes but these two are about dma-bufs. Other kinds would only add noise: the guest's
    // root is a tmpfs.
    if !matches!(plan.mode.as_str(), "sh" | "demo") {
        command.env(way::KINDS, "dmabuf");
    }
    let status = match run_reported(&mut command, None, LIMIT, reporter) {
        Ok(ended) => ended.status.unwrap_or(-1),
        Err(error) => {
            reporter.send(&Event::Failure { detail: format!("mode {}: {error:#}", plan.mode) })?;
            -1
        }
    };
    reporter.send(&Event::Done { status })?;
    reporter.drain().context("draining the report")
}

/// Loads the modules that the host packed, in the order that the host determined.
fn load_modules() -> anyhow::Result<()> {
    let order = fs::read_to_string("/modules/order").context("reading /modules/order")?;
    for name in order.lines() {
        let path = Path::new("/modules").join(name);
        let file = File::open(&path).with_context(|| format!("opening {}", path.display()))?;
        finit_module(&file, c"", 0).with_context(|| format!("loading {}", path.display()))?;
    }
    Ok(())
}
