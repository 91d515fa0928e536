//! What the scenarios of the flight recorder share: how they install it, how they ask lsbuf, and a
//! maker in one line.

use std::collections::BTreeMap;
use std::process::Command;

use anyhow::Context;
use rustix::time::{ClockId, clock_gettime};
use serde_json::Value;

use crate::answer::Answer;
use crate::scenario::Ctx;
use crate::scenarios::probes::lsbuf;

/// Where the recorder is pinned.
pub(super) const SET: &str = "/run/lsbuf/origins-2";

/// Installs the recorder. Where BPF iterators cannot be, it stands alone.
pub(super) fn install(ctx: &mut Ctx, more: &[&str]) -> anyhow::Result<()> {
    let output = lsbuf(&[&["probes", "install", "--origins"], more].concat()).output()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    ctx.check(format!("the recorder is installed: {told}{said}"), output.status.success())?;
    ctx.check_eq(
        "programs that do not run",
        "",
        told.lines()
            .skip_while(|line| !line.starts_with("installed"))
            .filter(|line| line.starts_with("without "))
            .collect::<String>(),
    )
}

pub(super) fn remove(ctx: &mut Ctx) -> anyhow::Result<()> {
    ctx.check("it is removed", lsbuf(&["probes", "remove"]).status()?.success())
}

/// Nanoseconds after boot.
pub(super) fn now() -> u64 {
    let time = clock_gettime(ClockId::Boottime);
    u64::try_from(time.tv_sec * 1_000_000_000 + time.tv_nsec).unwrap_or(0)
}

/// Every buffer of the answer, by kind and inode number.
pub(super) struct Origins(pub(super) BTreeMap<(String, u64), Value>);

impl Origins {
    pub(super) fn ask(command: &mut Command) -> anyhow::Result<Origins> {
        let answer = Answer::from(command.args(["--json", "--details"]).env_remove("LSBUF_KIND"))?;
        let buffers = answer.list("buffers").iter().map(|buffer| {
            let kind = buffer["kind"].as_str().unwrap_or_default().to_owned();
            ((kind, buffer["ino"].as_u64().unwrap_or_default()), buffer["origin"].clone())
        });
        Ok(Origins(buffers.collect()))
    }

    pub(super) fn of(&self, kind: &str, ino: u64) -> anyhow::Result<&Value> {
        self.0.get(&(kind.to_owned(), ino)).with_context(|| format!("no {kind} {ino} in the answer"))
    }
}

/// A maker in one line, as the test knows it.
pub(super) fn line(pid: u32, command: &str, tid: u32, thread: &str, uid: u32) -> String {
    format!("{command}:{pid}, thread {thread}:{tid}, uid {uid}")
}

/// The same as lsbuf tells it.
pub(super) fn told(origin: &Value) -> String {
    let text = |key: &str| origin[key].as_str().unwrap_or("?").to_owned();
    let number = |key: &str| origin[key].as_u64().map_or("?".to_owned(), |number| number.to_string());
    format!(
        "{}:{}, thread {}:{}, uid {}",
        text("command"),
        number("pid"),
        text("thread"),
        number("tid"),
        number("uid")
    )
}

/// Names of the calls in the kernel.
pub(super) fn kernel_calls(origin: &Value) -> Vec<String> {
    let frames = origin["stack"]["kernel"].as_array().cloned().unwrap_or_default();
    frames.iter().filter_map(|frame| Some(frame["function"].as_str()?.to_owned())).collect()
}
