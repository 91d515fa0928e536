//! Runs a child with its standard output and error sent to the report.
//!
//! The kernel's console is no place for them: kernel messages would mix in. Text leaves in whole lines as it comes,
//! so that a hanging child has already shown how far it got.

use std::io::{self, BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread::Scope;
use std::time::Duration;

use anyhow::Context;

use crate::processes;
use crate::report::{Event, Reporter, Stream};

/// Longest piece of one line that is sent at once, in bytes.
const PIECE: u64 = 16 * 1024;

/// How many bytes of standard error are kept to explain a failure; no page size.
const KEPT: usize = 4 * 1024;

/// How a child ended.
#[derive(Debug)]
pub struct Ended {
    /// Its exit status, 128 plus the number of the signal that ended it, or `None` if it outlived its time.
    pub status: Option<i32>,
    /// The last part of what it wrote to standard error.
    pub errors: String,
}

/// Runs `command` to its end or until `limit` has passed, with everything it started; what it writes becomes output
/// events under `scenario`.
///
/// When the child has ended, all processes it left behind are killed, so that nothing of it reaches what runs next.
///
/// # Errors
///
/// The child cannot be started or waited for, or the report cannot be written.
pub fn run_reported(
    command: &mut Command,
    scenario: Option<&str>,
    limit: Duration,
    reporter: &Reporter,
) -> anyhow::Result<Ended> {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("starting {}", command.get_program().display()))?;
    std::thread::scope(|scope| {
        let stdout = pump(scope, child.stdout.take(), Stream::Stdout, scenario, reporter);
        let stderr = pump(scope, child.stderr.take(), Stream::Stderr, scenario, reporter);
        let status = wait(&child, limit);
        // The pipes end only once nobody holds them, and an orphan of the child may.
        processes::kill_children();
        let mut errors = String::new();
        for pump in [stdout, stderr].into_iter().flatten() {
            errors = pump.join().map_err(|_| anyhow::anyhow!("an output pump died"))??;
        }
        Ok(Ended { status: status?, errors })
    })
}

/// Waits for `child`, for at most `limit`. Orphans that came to this process meanwhile are reaped too. Nothing wakes up
/// before something ends: a process that runs now and then is one that may have moved a reference.
fn wait(child: &Child, limit: Duration) -> anyhow::Result<Option<i32>> {
    let child = child.id();
    let (sender, ended) = mpsc::channel();
    std::thread::spawn(move || {
        loop {
            match processes::reap_next() {
                Ok((pid, _)) if pid != child => {}
                ended => {
                    // Nobody listens any more if it has outlived its time.
                    let _ = sender.send(ended.map(|(_, status)| status));
                    return;
                }
            }
        }
    });
    match ended.recv_timeout(limit) {
        Ok(status) => status.map(Some),
        Err(_) => Ok(None),
    }
}

type Pump<'scope> = std::thread::ScopedJoinHandle<'scope, io::Result<String>>;

/// Starts a thread that sends what `pipe` yields and returns the last of it.
fn pump<'scope, 'env>(
    scope: &'scope Scope<'scope, 'env>,
    pipe: Option<impl Read + Send + 'scope>,
    stream: Stream,
    scenario: Option<&'env str>,
    reporter: &'env Reporter,
) -> Option<Pump<'scope>> {
    let mut reader = BufReader::new(pipe?);
    Some(scope.spawn(move || {
        let mut kept = Vec::new();
        loop {
            let mut bytes = Vec::new();
            if reader.by_ref().take(PIECE).read_until(b'\n', &mut bytes)? == 0 {
                return Ok(String::from_utf8_lossy(&kept).into_owned());
            }
            // Lines that are there already travel together: one event each would double the traffic.
            while bytes.len() < PIECE as usize && reader.buffer().contains(&b'\n') {
                reader.read_until(b'\n', &mut bytes)?;
            }
            kept.extend_from_slice(&bytes);
            kept.drain(..kept.len().saturating_sub(KEPT));
            let text = String::from_utf8_lossy(&bytes).into_owned();
            reporter.send(&Event::Output { scenario: scenario.map(Into::into), stream, text })?;
        }
    }))
}
