//! Processes that make their readers wait.

use std::fs::{self, File};
use std::process::{Command, ExitStatus};
use std::time::{Duration, Instant};

use anyhow::Context;

use super::holding::{SIZE, mapper_of_one};
use crate::actor::Held;
use crate::answer::{Answer, LSBUF, USER};
use crate::hanging::Hanging;
use crate::kernels::Kernels;
use crate::make;
use crate::need::Need;
use crate::scenario::{Ctx, Scenario};
use crate::way::Way;

pub(crate) const SCENARIOS: &[Scenario] = &[Scenario {
    name: "hanging_process",
    claim: "A process whose address space stays locked forever delays no answer, and the answer names it",
    needs: &[Need::Fuse],
    kernels: Kernels::Every,
    ways: Way::BOTH,
    run: hanging_process,
}];

/// How long lsbuf may take, in an emulated machine.
const LIMIT: Duration = Duration::from_secs(20);

fn hanging_process(ctx: &mut Ctx) -> anyhow::Result<()> {
    // udev gives the device this mode, and the guest has no udev.
    let everybody = std::os::unix::fs::PermissionsExt::from_mode(0o666);
    fs::set_permissions("/dev/fuse", everybody).context("opening FUSE to everybody")?;
    let world = Hanging::start(Some(USER), || {
        let (buf, _) = make::plain(SIZE)?;
        let held = Held::by(&buf)?;
        Ok((buf.into(), held))
    })?;
    // If all counts add up without mappings, BPF readings leave mappings out. This buffer is found
    // by its mapping alone.
    let mut mapper = mapper_of_one()?;
    let mapped = mapper.paused_with_one()?;
    let (asked, path) = (Instant::now(), "/tmp/hanging.json");
    let mut command = Command::new(LSBUF);
    command.arg("--json").stdout(File::create(path)?);
    let status = within(LIMIT, &mut command)?;
    eprintln!("lsbuf took {:?}", asked.elapsed());
    ctx.check("lsbuf answers in time", status.is_some_and(|status| status.success()))?;
    let answer = Answer(serde_json::from_slice(&fs::read(path)?).context("parsing")?);
    let pid = world.held.pid;
    let named = answer.0["scan"]["notes"].to_string().contains(&pid.to_string());
    let complete = answer.0["scan"]["complete"] == true;
    // Some kernels show the mappings of such a process without taking its lock. Then nothing is
    // missing.
    ctx.check("it is complete, or a note names the process", complete || named)?;
    ctx.check("the buffer that it holds is listed", answer.buffer(world.held.ino).is_ok())?;
    if Need::MappedIdentity.probe() {
        ctx.check("a buffer that another process maps is listed", answer.buffer(mapped.ino).is_ok())?;
        ctx.check("so is that process", answer.process(mapped.pid).is_ok())?;
    }
    // Reading a command line takes the same lock.
    let mut command = Command::new(LSBUF);
    command.args(["ps", "--json", "--details"]).stdout(File::create(path)?);
    let status = within(LIMIT, &mut command)?;
    ctx.check("command lines are read in time", status.is_some_and(|status| status.success()))?;
    let answer = Answer(serde_json::from_slice(&fs::read(path)?).context("parsing")?);
    let words = |pid| answer.process(pid).map(|process| process["details"]["args"].clone());
    if Need::MappedIdentity.probe() {
        ctx.check("another process's is known", words(mapped.pid)?.is_array())?;
    }
    ctx.check("that of the locked process is unknown", words(pid)?.is_null())
}

/// Runs a command. Returns `None` if it had to be killed at the limit.
fn within(limit: Duration, command: &mut Command) -> anyhow::Result<Option<ExitStatus>> {
    let mut child = command.spawn().context("starting a command")?;
    let started = Instant::now();
    while started.elapsed() < limit {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    child.kill()?;
    child.wait()?;
    Ok(None)
}
