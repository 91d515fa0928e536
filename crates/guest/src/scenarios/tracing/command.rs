//! A command that is traced, and who may trace.

use std::time::Duration;

use rustix::fs::{MemfdFlags, memfd_create};

use super::kit::Running;
use crate::actor::Actor;
use crate::answer::as_user;
use crate::programs::TRACED;
use crate::scenario::Ctx;
use crate::sys;

pub(super) fn of_a_command(ctx: &mut Ctx) -> anyhow::Result<()> {
    // Another process makes memfds meanwhile. It makes few: where processors are emulated, one may
    // trip over a function that another is just attaching a program to.
    let mut other = Actor::start(b"other", |stage| {
        stage.pause(&[])?;
        while !stage.is_told()? {
            drop(memfd_create(c"other", MemfdFlags::CLOEXEC)?);
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    })?;
    other.paused()?;
    other.go_on()?;
    let own = std::env::current_exe()?;
    let own = own.to_string_lossy();
    let told = Running::start(&["--", &own, TRACED])?.wait()?;
    ctx.check_eq(format!("status, as of the command: {}", told.errors), 7, told.status)?;
    other.go_on()?;
    let others = told.lines.iter().filter(|line| line["by"]["command"] == "other").count();
    ctx.check_eq("events of others", 0, others)?;
    let made: Vec<&str> = told
        .lines
        .iter()
        .filter(|line| line["event"] == "made")
        .filter_map(|line| line["buffer"]["name"].as_str())
        .collect();
    ctx.check_eq("made", "freed kept left childs", made.join(" "))?;
    let total = told.lines.iter().find(|line| line["event"] == "balance_total");
    let total = total.cloned().unwrap_or_default();
    let figures = ["made", "freed", "left", "left_bytes"].map(|key| total[key].to_string()).join(" ");
    ctx.check_eq("balance", format!("4 3 1 {}", sys::page()), figures)?;
    let left = told.lines.iter().find(|line| line["event"] == "balance" && line["left"] == 1);
    // The program may have ended before its calls could get names.
    let call = left.map(|line| line["stack"]["user"][0].clone()).unwrap_or_default();
    ctx.check(format!("the call that made what is left: {call}"), call["build_id"].is_string())?;
    std::fs::remove_file("/dev/shm/left")?;
    Ok(())
}

pub(super) fn by_others(ctx: &mut Ctx) -> anyhow::Result<()> {
    let output = as_user(&["trace", "--for", "1s"]).output()?;
    ctx.check_eq("status", 1, output.status.code().unwrap_or(-1))?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ctx.check_eq(format!("lines: {said}"), 1, said.lines().count())?;
    ctx.check("it says which rights are missing", said.contains("CAP_BPF and CAP_PERFMON"))
}
