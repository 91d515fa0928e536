//! A running `lsbuf trace`, and what it has printed.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, ChildStderr, ChildStdout, Stdio};
use std::thread::JoinHandle;

use anyhow::{Context, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::scenarios::probes::lsbuf;

/// A trace that runs until it is ended.
pub(super) struct Running {
    child: Child,
    lines: JoinHandle<anyhow::Result<Vec<Value>>>,
    errors: ChildStderr,
}

/// What it has printed.
pub(super) struct Told {
    pub(super) lines: Vec<Value>,
    pub(super) errors: String,
    pub(super) status: i32,
}

impl Running {
    /// Starts it, and waits until it runs.
    pub(super) fn start(more: &[&str]) -> anyhow::Result<Running> {
        let mut command = lsbuf(&[&["trace", "--json"], more].concat());
        command.env_remove("LSBUF_KIND").stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().context("starting lsbuf trace")?;
        let out = child.stdout.take().context("no output")?;
        let errors = child.stderr.take().context("no errors")?;
        let mut out = BufReader::new(out);
        let first = line(&mut out)?.context("no first line")?;
        ensure!(first["event"] == "begin", "{first}");
        ensure!(first["unseen"] == Value::Array(Vec::new()), "not seen: {}", first["unseen"]);
        let lines = std::thread::spawn(move || rest(out));
        Ok(Running { child, lines, errors })
    }

    pub(super) fn pid(&self) -> anyhow::Result<Pid> {
        let pid = i32::try_from(self.child.id())?;
        Pid::from_raw(pid).context("no pid")
    }

    /// Ends it as Ctrl-C does.
    pub(super) fn end(self) -> anyhow::Result<Told> {
        kill_process(self.pid()?, Signal::INT)?;
        self.wait()
    }

    /// Waits until it has ended.
    pub(super) fn wait(mut self) -> anyhow::Result<Told> {
        let lines = self.lines.join().map_err(|_| anyhow::anyhow!("the reader panicked"))??;
        let mut errors = String::new();
        self.errors.read_to_string(&mut errors)?;
        let status = self.child.wait()?.code().unwrap_or(-1);
        Ok(Told { lines, errors, status })
    }
}

fn line(out: &mut impl BufRead) -> anyhow::Result<Option<Value>> {
    let mut line = String::new();
    if out.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    Ok(Some(serde_json::from_str(&line).with_context(|| format!("no JSON: {line}"))?))
}

fn rest(mut out: BufReader<ChildStdout>) -> anyhow::Result<Vec<Value>> {
    let mut lines = Vec::new();
    while let Some(value) = line(&mut out)? {
        lines.push(value);
    }
    Ok(lines)
}

impl Told {
    /// The events of one buffer, each in a few words.
    pub(super) fn of(&self, kind: &str, ino: u64) -> String {
        let events = self
            .lines
            .iter()
            .filter(|line| line["buffer"]["kind"] == kind && line["buffer"]["ino"].as_u64() == Some(ino));
        events.map(words).collect::<Vec<_>>().join("; ")
    }

    /// Events of that sort by that command.
    pub(super) fn by(&self, event: &str, command: &str) -> impl Iterator<Item = &Value> {
        let is = move |line: &&Value| line["event"] == event && line["by"]["command"] == command;
        self.lines.iter().filter(is)
    }

    /// How much was lost in all, for all causes.
    pub(super) fn lost(&self) -> u64 {
        let end = self.lines.last().map_or(&Value::Null, |line| &line["lost"]);
        let each = end.as_array().into_iter().flatten();
        each.filter_map(|lost| lost["count"].as_u64()).sum()
    }
}

/// An event in a few words, as the tests write what they expect.
fn words(line: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or("?").to_owned();
    let who = |value: &Value| match value["command"].as_str() {
        Some(command) => format!("{command}:{}", value["pid"]),
        None => "?".to_owned(),
    };
    let event = text(&line["event"]);
    let more = match event.as_str() {
        "received" => format!(" {} from {}", text(&line["received"]["way"]), who(&line["received"]["from"])),
        "mapped" => {
            let mapping = &line["mapping"];
            let sharing = if mapping["shared"] == true { "s" } else { "p" };
            format!(" {}{sharing} {}", text(&mapping["access"]), mapping["length"])
        }
        "attached" | "detached" => format!(" {}", text(&line["device"])),
        "renamed" => format!(" {}", text(&line["buffer"]["name"])),
        _ => String::new(),
    };
    format!("{event}{more} by {}", who(&line["by"]))
}
