//! Processes that make whoever reads them wait.

use std::fs::{self, File};
use std::process::{Command, ExitStatus};
use std::time::{Duration, Instant};

use anyhow::Context;

use super::holding::SIZE;
use crate::actor::{Actor, Held};
use crate::answer::{Answer, LSBUF, USER};
use crate::hanging::Hanging;
use crate::kernels::Kernels;
use crate::make;
use crate::need::Need;
use crate::scenario::{Ctx, Scenario};
use crate::sys;
use crate::way::Way;

pub(crate) const SCENARIOS: &[Scenario] = &[Scenario {
    name: "hanging_process",
    claim: "A process whose address space stays locked for ever holds up no answer, and the answer names it",
    needs: &[Need::Fuse],
    kernels: Kernels::Every,
    ways: Way::BOTH,
    run: hanging_process,
}];

/// How long lsbuf may take, in an emulated machine.
const LIMIT: Duration = Duration::from_secs(20);

fn hanging_process(ctx: &mut Ctx) -> anyhow::Result<()> {
    // The guest has no udev, which gives the device this mode everywhere else.
    let everybody = std::os::unix::fs::PermissionsExt::from_mode(0o666);
    fs::set_permissions("/dev/fuse", everybody).context("opening FUSE to everybody")?;
    let world = Hanging::start(Some(USER), || {
        let (buf, _) = make::plain(SIZE)?;
        let held = Held::by(&buf)?;
        Ok((buf.into(), held))
    })?;
    // Where all counts add up without mappings, BPF readings leave those out. This one can be found nowhere else.
    let mut mapper = Actor::start(b"mapper", |stage| {
        let (buf, _) = make::plain(SIZE)?;
        let region = sys::map(&buf, 0, usize::try_from(SIZE)?)?;
        let held = Held::by(&buf)?.and_map(region, 0).without_fds();
        drop(buf);
        stage.pause(&[held])
    })?;
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
    // Some kernels show the mappings of such a process without its lock. Then nothing is missing.
    ctx.check("it is complete, or a note names the process", complete || named)?;
    ctx.check("the buffer that it holds is listed", answer.buffer(world.held.ino).is_ok())?;
    if Need::MappedIdentity.probe() {
        ctx.check("a buffer that another process maps is listed", answer.buffer(mapped.ino).is_ok())?;
        ctx.check("so is that process", answer.process(mapped.pid).is_ok())?;
    }
    Ok(())
}

/// Runs a command. `None`: it had to be killed.
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
