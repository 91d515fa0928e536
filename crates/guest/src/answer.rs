//! Compares lsbuf's answer with the truth: one line of text for each.
//!
//! [`Truth::line`] writes a buffer's account from what the test made. [`Answer::line`] writes it
//! from the JSON that the `lsbuf` command printed. Both use the same format, so a report shows
//! expected and printed side by side.

use std::os::unix::process::CommandExt;
use std::process::{Command, Output};

use anyhow::{Context, bail};
use serde_json::Value;

use crate::actor::Held;
use crate::make;

/// The path of the command in the guest.
pub const LSBUF: &str = "/bin/lsbuf";

/// A user who is not root.
pub const USER: u32 = 1000;

/// The command with these arguments, run by a user who is not root.
pub fn as_user(arguments: &[&str]) -> Command {
    let mut command = Command::new(LSBUF);
    command.args(arguments).uid(USER).gid(USER);
    command
}

/// A buffer's residual (its kernel references), as lsbuf should print it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExpectedResidual {
    /// Proven.
    Exact(u64),
    /// Marked as an estimate.
    Estimate(u64),
    /// The source has no count, so neither the count nor the residual is known.
    Unknown,
}

/// One buffer as the test made it.
#[derive(Clone, Debug)]
pub struct Truth {
    /// The name in lsbuf's JSON.
    pub name: String,
    /// The exporter's name.
    pub exporter: &'static str,
    /// How many references the test has made, of every sort.
    pub count: u64,
    /// How many of them are in messages, if the source can know that.
    pub in_flight: u64,
    /// How many of them no process holds.
    pub kernel: ExpectedResidual,
    /// Its holders.
    pub held: Vec<Held>,
}

impl Truth {
    /// An unnamed buffer that `held` describes, with no kernel references.
    pub fn held(exporter: &'static str, held: Vec<Held>) -> Truth {
        let count = held.iter().map(|h| h.own_fds() + h.own_maps()).sum::<usize>() as u64;
        Truth { name: String::new(), exporter, count, in_flight: 0, kernel: ExpectedResidual::Exact(0), held }
    }

    /// Sets the residual, and adds it to the count.
    #[must_use]
    pub fn and(mut self, rest: ExpectedResidual) -> Truth {
        if let ExpectedResidual::Exact(references) | ExpectedResidual::Estimate(references) = rest {
            self.count += references;
        }
        self.kernel = rest;
        self
    }

    /// Adds references in messages, which the source can know.
    #[must_use]
    pub fn and_in_flight(mut self, references: u64) -> Truth {
        self.count += references;
        self.in_flight += references;
        self
    }

    /// Sets the name.
    #[must_use]
    pub fn named(mut self, name: &str) -> Truth {
        name.clone_into(&mut self.name);
        self
    }

    /// The account as a line.
    pub fn line(&self, size: u64) -> String {
        let mut held = self.held.clone();
        held.sort_by_key(|h| h.pid);
        let holders: Vec<String> = held.iter_mut().map(|held| holder(held, self.exporter)).collect();
        let sum = |f: fn(&Held) -> usize| held.iter().map(f).sum::<usize>();
        let kernel = match self.kernel {
            ExpectedResidual::Exact(n) => n.to_string(),
            ExpectedResidual::Estimate(n) => format!("~{n}"),
            ExpectedResidual::Unknown => "?".into(),
        };
        let count =
            if self.kernel == ExpectedResidual::Unknown { "?".into() } else { self.count.to_string() };
        format!(
            "{size} bytes of {}, named {:?}, count {count} = {} fd + {} map{} + {kernel} kernel, {} opath, {}",
            self.exporter,
            self.name,
            sum(Held::own_fds),
            sum(Held::own_maps),
            in_flight(self.in_flight),
            sum(Held::own_opaths),
            holders.join(" "),
        )
    }
}

/// The part of the account for references in messages, if there are any.
pub(crate) fn in_flight(references: u64) -> String {
    if references > 0 { format!(" + {references} in flight") } else { String::new() }
}

/// A holder, as the test made it.
pub(crate) fn holder(held: &mut Held, exporter: &str) -> String {
    held.fds.sort_unstable();
    held.maps.sort_unstable();
    let map = |&(start, end, offset): &(usize, usize, u64)| {
        // For a GEM object's VMA, the kernel shows an offset that is not an offset into the buffer.
        let offset = if exporter == make::DRM { "?".into() } else { offset.to_string() };
        format!("{start:#x}-{end:#x}@{offset}")
    };
    let maps: Vec<String> = held.maps.iter().map(map).collect();
    let mut line = format!("{}:{:?}{:?}{maps:?}", held.pid, held.fds, held.opaths);
    held.threads.sort_by_key(|table| table.tid);
    for table in &mut held.threads {
        table.fds.sort_unstable();
        line.push_str(&format!("+{}:{:?}{:?}", table.tid, table.fds, table.opaths));
    }
    for (what, whose) in [("fds", held.fd_table_of), ("maps", held.address_space_of)] {
        line.extend(whose.map(|pid| format!(" ({what} of {pid})")));
    }
    line
}

/// A parsed answer.
#[derive(Clone, Debug)]
pub struct Answer(pub Value);

impl Answer {
    /// Runs lsbuf with `--json` and these arguments. The command must succeed.
    ///
    /// # Errors
    ///
    /// It cannot be started, fails, or prints no JSON.
    pub fn ask(arguments: &[&str]) -> anyhow::Result<Answer> {
        Answer::from(Command::new(LSBUF).arg("--json").args(arguments))
    }

    /// Runs a subcommand of lsbuf with `--json`.
    ///
    /// # Errors
    ///
    /// As [`Answer::ask`].
    pub fn ask_for(subcommand: &str) -> anyhow::Result<Answer> {
        Answer::from(Command::new(LSBUF).args([subcommand, "--json"]))
    }

    /// As [`Answer::ask`], for a command that the caller made.
    ///
    /// # Errors
    ///
    /// As [`Answer::ask`].
    pub fn from(command: &mut Command) -> anyhow::Result<Answer> {
        Answer::of(&command.output().context("running lsbuf")?)
    }

    /// As [`Answer::ask`], for a command that has run.
    ///
    /// # Errors
    ///
    /// It failed, or printed no JSON.
    pub fn of(output: &Output) -> anyhow::Result<Answer> {
        if !output.status.success() {
            bail!("lsbuf: {}: {}", output.status, String::from_utf8_lossy(&output.stderr));
        }
        Ok(Answer(serde_json::from_slice(&output.stdout).context("parsing lsbuf's JSON")?))
    }

    /// The dma-buf with this inode number. A memfd may have the same number.
    ///
    /// # Errors
    ///
    /// lsbuf does not list it.
    pub fn buffer(&self, ino: u64) -> anyhow::Result<&Value> {
        self.list("buffers")
            .iter()
            .find(|b| b["kind"] == "dmabuf" && b["ino"] == ino)
            .with_context(|| format!("lsbuf does not list dma-buf {ino}: {}", self.0))
    }

    /// The process with this id.
    ///
    /// # Errors
    ///
    /// lsbuf does not list it.
    pub fn process(&self, pid: u32) -> anyhow::Result<&Value> {
        self.list("processes")
            .iter()
            .find(|p| p["pid"].as_u64() == Some(pid.into()))
            .with_context(|| format!("lsbuf does not list process {pid}: {}", self.0))
    }

    /// A list at the top level of the document.
    pub fn list(&self, key: &str) -> &[Value] {
        self.0[key].as_array().map_or(&[], Vec::as_slice)
    }

    /// The buffers whose account is exact, but whose parts do not add up to the kernel's count.
    pub fn unbalanced(&self) -> Vec<String> {
        let exact = |b: &&Value| b["estimate"] == false && b["count"].is_u64();
        let parts = |refs: &Value| -> u64 {
            ["fd", "map", "in_flight", "io_uring", "kernel"].iter().filter_map(|key| refs[key].as_u64()).sum()
        };
        let wrong = |b: &&Value| b["count"].as_u64() != Some(parts(&b["refs"]));
        self.list("buffers").iter().filter(exact).filter(wrong).map(Value::to_string).collect()
    }

    /// A buffer's account, as printed.
    ///
    /// # Errors
    ///
    /// lsbuf does not list the buffer.
    pub fn line(&self, ino: u64) -> anyhow::Result<String> {
        self.buffer(ino).map(ledger)
    }
}

/// The account of a listed buffer, as printed.
pub(crate) fn ledger(b: &Value) -> String {
    let number = |v: &Value| v.as_u64().map_or("?".into(), |n| n.to_string());
    let refs = &b["refs"];
    let estimate = if b["estimate"] == Value::Bool(true) && !refs["kernel"].is_null() { "~" } else { "" };
    let holders: Vec<String> = b["holders"].as_array().into_iter().flatten().map(printed_holder).collect();
    format!(
        "{} bytes of {}, named {:?}, count {} = {} fd + {} map{} + {estimate}{} kernel, {} opath, {}",
        number(&b["size"]),
        b["exporter"].as_str().unwrap_or("?"),
        b["name"].as_str().unwrap_or("?"),
        number(&b["count"]),
        number(&refs["fd"]),
        number(&refs["map"]),
        in_flight(refs["in_flight"].as_u64().unwrap_or(0)),
        number(&refs["kernel"]),
        number(&refs["opath"]),
        holders.join(" "),
    )
}

/// A holder as printed.
pub(crate) fn printed_holder(holder: &Value) -> String {
    let map = |m: &Value| {
        let address = |key: &str| m[key].as_str().unwrap_or("?").to_owned();
        let offset = m["offset"].as_u64().map_or("?".into(), |o| o.to_string());
        format!("{}-{}@{offset}", address("start"), address("end"))
    };
    let maps: Vec<String> = holder["maps"].as_array().into_iter().flatten().map(map).collect();
    let mut line = format!("{}:{}{maps:?}", holder["pid"], slots(holder));
    for table in holder["threads"].as_array().into_iter().flatten() {
        line.push_str(&format!("+{}:{}", table["tid"], slots(table)));
    }
    for (what, key) in [("fds", "fd_table_of"), ("maps", "address_space_of")] {
        line.extend(holder[key].as_u64().map(|pid| format!(" ({what} of {pid})")));
    }
    line
}

fn slots(table: &Value) -> String {
    let numbers = |key: &str| -> Vec<u64> {
        table[key].as_array().into_iter().flatten().filter_map(Value::as_u64).collect()
    };
    format!("{:?}{:?}", numbers("fds"), numbers("opaths"))
}
