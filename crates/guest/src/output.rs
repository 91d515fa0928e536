//! Runs a child and sends its standard output and error to the report.
//!
//! They do not go to the kernel's console, because kernel messages would mix in. Text is sent line
//! by line as it comes, so a child that hangs has already shown how far it got.

use std::io::{self, BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread::Scope;
use std::time::Duration;

use anyhow::Context;

use crate::processes;
use crate::report::{Event, Reporter, Stream};

/// The longest piece of a line that is sent at once, in bytes.
const PIECE: u64 = 16 * 1024;

/// How many bytes at the end of standard error are kept to explain a failure; no page size.
const KEPT: usize = 4 * 1024;

/// How a child ended.
#[derive(Debug)]
pub struct Ended {
    /// Its exit status, or 128 plus the number of the signal that ended it; `None` if it exceeded
    /// its time limit.
    pub status: Option<i32>,
    /// The end of what it wrote to standard error.
    pub errors: String,
}

/// Runs `command` until it ends or `limit` has passed. What it and its descendants write becomes
/// output events of `scenario`.
///
/// When the child has ended, or its time is over, all its descendants are killed, so that none of
/// them disturbs what runs next.
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
        // A pipe ends only when no process has it open, and an orphan of the child may still have
        // it open.
        processes::kill_children();
        let mut errors = String::new();
        for pump in [stdout, stderr].into_iter().flatten() {
            errors = pump.join().map_err(|_| anyhow::anyhow!("an output pump died"))??;
        }
        Ok(Ended { status: status?, errors })
    })
}

/// Waits for `child`, for at most `limit`, and reaps orphans that this process inherits meanwhile.
/// It does not poll: a process that runs now and then counts as one that may have moved a
/// reference.
fn wait(child: &Child, limit: Duration) -> anyhow::Result<Option<i32>> {
    let child = child.id();
    let (sender, ended) = mpsc::channel();
    std::thread::spawn(move || {
        loop {
            match processes::reap_next() {
                Ok((pid, _)) if pid != child => {}
                ended => {
                    // If the child has exceeded its limit, the receiver is gone.
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

/// Starts a thread that sends what `pipe` yields and returns the end of it.
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
            // Complete lines in the buffer are sent together, because one event a line would double
            // the traffic.
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
