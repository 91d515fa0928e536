//! Boots one guest in qemu and reads its report while it runs.
//!
//! The kernel's console goes to a file. The report comes over another serial port, which is
//! qemu's stdout. Emulation is the default even if there is a `/dev/kvm`: on some machines it can
//! be opened, but then the guests crash.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use anyhow::Context;
use lsbuf_guest::report::{Event, REPORT_VARIABLE};

use crate::arch::Arch;

/// How long a guest that said it is done may take to power off.
const POWER_OFF: Duration = Duration::from_secs(15);

/// How many lines of the console explain a failed boot.
const TAIL: usize = 25;

/// Size and limits of the machine.
#[derive(Clone, Debug)]
pub(crate) struct Machine {
    /// What it is.
    pub(crate) arch: Arch,
    /// Use KVM instead of emulation.
    pub(crate) kvm: bool,
    /// Memory in MiB.
    pub(crate) memory: u32,
    /// Number of processors.
    pub(crate) processors: u32,
    /// The boot's time limit.
    pub(crate) timeout: Duration,
    /// What drives the guest's clock.
    pub(crate) clock: GuestClock,
    /// More words for the kernel.
    pub(crate) words: Vec<&'static str>,
}

/// What drives a guest's clock.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) enum GuestClock {
    /// The host's time.
    #[default]
    Host,
    /// The number of instructions that the guest has executed: one nanosecond each. What the host
    /// does meanwhile does not matter. While the guest is idle, the clock jumps to the next timer.
    /// Needs emulation and one processor.
    Instructions,
}

impl GuestClock {
    /// Arguments of the emulator. The date and the random numbers are fixed as well, so that two
    /// boots differ as little as possible.
    fn arguments(self) -> &'static [&'static str] {
        match self {
            Self::Host => &[],
            Self::Instructions => {
                &["-icount", "shift=0,sleep=off", "-rtc", "base=2026-01-01,clock=vm", "-seed", "1"]
            }
        }
    }

    /// Words for the kernel. With the two for the time stamp counter, the kernel reads the time
    /// without a device, and does not compare that counter with another clock.
    fn words(self) -> &'static [&'static str] {
        match self {
            Self::Host => &[],
            Self::Instructions => &["tsc=reliable", "clocksource=tsc", "nokaslr"],
        }
    }
}

/// The result of a boot.
#[derive(Debug)]
pub(crate) struct Boot {
    /// The report, in the order of arrival.
    pub(crate) events: Vec<Event>,
    /// What is wrong with the boot itself; empty if the guest said that it is done.
    pub(crate) problems: Vec<String>,
    /// From the start of qemu to its end.
    pub(crate) took: Duration,
}

impl Boot {
    /// Whether the emulator is to blame: the kernel stopped at a breakpoint instruction before any
    /// program of the guest had started.
    ///
    /// While a kernel changes its own code, it puts `int3` in front of the new code for a moment.
    /// In emulation (qemu 7.2, two processors), the other processor sometimes runs into it too
    /// late, when the kernel does not expect it any more. This happened in about one of fifty
    /// boots.
    pub(crate) fn is_emulators_fault(&self) -> bool {
        self.events.is_empty() && self.problems.iter().any(|problem| problem.contains("Oops: int3"))
    }

    /// The exit status of the guest's mode, if it came to an end.
    pub(crate) fn status(&self) -> Option<i32> {
        self.events.iter().find_map(|event| match event {
            Event::Done { status } => Some(*status),
            _ => None,
        })
    }
}

/// Boots `vmlinuz` with `initramfs` and hands each event to `on_event` as it comes. `console` is
/// where the kernel's messages go; the initramfs lies next to it while the guest runs.
pub(crate) fn boot(
    machine: &Machine,
    vmlinuz: &Path,
    initramfs: &[u8],
    console: &Path,
    on_event: &mut dyn FnMut(&Event),
) -> anyhow::Result<Boot> {
    let started = Instant::now();
    let folder = console.parent().context("the console's log has no folder")?;
    fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    let image = console.with_extension(format!("{}.cpio", std::process::id()));
    fs::write(&image, initramfs).with_context(|| format!("writing {}", image.display()))?;
    let mut qemu = Running(start(machine, vmlinuz, &image, console)?, image);
    let lines = read_lines(&mut qemu.0)?;
    let mut boot = Boot { events: Vec::new(), problems: Vec::new(), took: Duration::ZERO };
    follow(&lines, started + machine.timeout, &mut boot, on_event);
    drop(qemu);
    // If the machine did not start, there is no console file.
    let bytes = fs::read(console).unwrap_or_default();
    boot.problems.extend(kernel_bug(&bytes));
    if let (None, Some(problem)) = (boot.status(), boot.problems.last_mut()) {
        problem.push_str(&format!("; the end of {}:\n{}", console.display(), tail(&bytes)));
    }
    boot.took = started.elapsed();
    Ok(boot)
}

/// A running qemu and its initramfs; neither outlives this.
struct Running(Child, PathBuf);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself. Nothing can be done about a file that cannot be removed.
        let _ = self.0.kill();
        let _ = self.0.wait();
        let _ = fs::remove_file(&self.1);
    }
}

fn start(machine: &Machine, vmlinuz: &Path, initramfs: &Path, console: &Path) -> anyhow::Result<Child> {
    let errors = console.with_extension("qemu");
    let errors_file = File::create(&errors).with_context(|| format!("making {}", errors.display()))?;
    let (program, _) = machine.arch.qemu();
    let mut qemu = Command::new(program);
    qemu.args(machine.arch.board(machine.kvm));
    qemu.args(["-nodefaults", "-no-reboot", "-display", "none", "-nic", "none"]);
    qemu.args(["-accel", machine.arch.accelerator(machine.kvm)]);
    qemu.args(machine.clock.arguments());
    qemu.arg("-smp").arg(machine.processors.to_string());
    qemu.arg("-m").arg(machine.memory.to_string());
    qemu.arg("-kernel").arg(vmlinuz).arg("-initrd").arg(initramfs);
    let (console_port, report_port) = machine.arch.ports();
    // The kernel hands words of the form KEY=VALUE that it does not know to process 1, in its
    // environment.
    let own = [machine.arch.kernel_words(), machine.clock.words(), &machine.words].concat();
    let words = format!(
        "console={console_port} quiet panic=-1 {} rdinit=/init {REPORT_VARIABLE}={report_port}",
        own.join(" ")
    );
    qemu.arg("-append").arg(words);
    qemu.arg("-serial").arg(format!("file:{}", console.display())).args(machine.arch.report());
    qemu.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(errors_file);
    qemu.spawn().with_context(|| format!("starting {program} (is it installed?)"))
}

/// Reads qemu's output in a thread, because only a channel can be waited for with a time limit.
fn read_lines(qemu: &mut Child) -> anyhow::Result<Receiver<Vec<u8>>> {
    let mut output = BufReader::new(qemu.stdout.take().context("qemu has no output")?);
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        loop {
            let mut line = Vec::new();
            let read = output.read_until(b'\n', &mut line);
            if !matches!(read, Ok(1..)) || sender.send(line).is_err() {
                return;
            }
        }
    });
    Ok(receiver)
}

/// Follows the report until qemu ends or `deadline` passes.
fn follow(
    lines: &Receiver<Vec<u8>>,
    mut deadline: Instant,
    boot: &mut Boot,
    on_event: &mut dyn FnMut(&Event),
) {
    loop {
        match lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(line) => match serde_json::from_slice::<Event>(&line) {
                Ok(event) => {
                    on_event(&event);
                    if matches!(event, Event::Done { .. }) {
                        deadline = Instant::now() + POWER_OFF;
                    }
                    boot.events.push(event);
                }
                Err(error) => {
                    let line = String::from_utf8_lossy(&line);
                    boot.problems.push(format!("not an event of the report ({error}): {}", line.trim_end()));
                }
            },
            Err(RecvTimeoutError::Disconnected) => {
                if boot.status().is_none() {
                    boot.problems.push("the machine stopped before the guest was done".to_owned());
                }
                return;
            }
            Err(RecvTimeoutError::Timeout) => {
                let done = boot.status().is_some();
                let problem = if done { "the guest did not power off" } else { "the time limit passed" };
                boot.problems.push(problem.to_owned());
                return;
            }
        }
    }
}

/// The bug that the kernel reports on its console, if it does: no test may cause one.
fn kernel_bug(console: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(console);
    let line = text
        .lines()
        .find(|line| ["BUG: ", "Oops: ", "Kernel panic"].iter().any(|mark| line.contains(mark)))?;
    Some(format!("the kernel reported a bug: {}", line.trim_end()))
}

/// The last lines of a console, fit for a terminal.
fn tail(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let lines: Vec<&str> = text.lines().collect();
    let last = lines.get(lines.len().saturating_sub(TAIL)..).unwrap_or_default();
    let visible = |c: char| c == '\n' || !c.is_control();
    last.join("\n").chars().filter(|&c| visible(c)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn followed(lines: &[&str], timeout: Duration, hang_up: bool) -> Boot {
        let (sender, receiver) = mpsc::channel();
        for line in lines {
            sender.send(line.as_bytes().to_vec()).unwrap();
        }
        let held = if hang_up {
            drop(sender);
            None
        } else {
            Some(sender)
        };
        let mut boot = Boot { events: Vec::new(), problems: Vec::new(), took: Duration::ZERO };
        follow(&receiver, Instant::now() + timeout, &mut boot, &mut |_| {});
        drop(held);
        boot
    }

    const DONE: &str = "{\"event\":\"done\",\"status\":3}\n";

    /// Check that only a breakpoint before the guest's first word is the emulator's fault.
    #[test]
    fn faults_of_the_emulator() {
        let boot = |events: Vec<Event>, problem: &str| Boot {
            events,
            problems: vec!["the machine stopped".to_owned(), problem.to_owned()],
            took: Duration::ZERO,
        };
        let int3 = "the kernel reported a bug: [    3.2] Oops: int3: 0000 [#1] SMP NOPTI";
        assert!(boot(Vec::new(), int3).is_emulators_fault());
        assert!(!boot(vec![Event::Done { status: 0 }], int3).is_emulators_fault());
        assert!(!boot(Vec::new(), "the kernel reported a bug: Oops: 0000").is_emulators_fault());
    }

    /// Check that a complete report is no problem and yields the status.
    #[test]
    fn complete() {
        let boot = followed(&[DONE], Duration::from_secs(60), true);
        assert_eq!((boot.status(), boot.problems.len()), (Some(3), 0));
    }

    /// Check that an early end, a hang and a torn line are each a problem.
    #[test]
    fn incomplete() {
        assert!(followed(&[], Duration::from_secs(60), true).problems[0].contains("stopped"));
        assert!(followed(&[], Duration::ZERO, false).problems[0].contains("time limit"));
        assert!(
            followed(&["{\"ev\n", DONE], Duration::from_secs(60), true).problems[0].contains("not an event")
        );
    }

    /// Check that a kernel's complaint is found, and that ordinary messages are none.
    #[test]
    fn kernel_bugs_are_found() {
        assert!(
            kernel_bug(b"x\n[ 1.0] BUG: kernel NULL pointer\n").is_some_and(|line| line.contains("NULL"))
        );
        assert_eq!(kernel_bug(b"[ 1.0] DEBUG_INFO\n"), None);
    }

    /// Check that a console's escape sequences do not reach the terminal.
    #[test]
    fn tail_is_harmless() {
        assert_eq!(tail(b"a\r\nb\x1b[2J\n"), "a\nb[2J");
    }
}
