//! Buffers of devices: one that is attached many times, fences, memory of a GPU driver.

use std::slice;

use dmabuf::{Direction, SyncFile};

use super::kit::{beginning, lines, row};
use crate::actor::{Actor, Held};
use crate::make;
use crate::scenario::Ctx;
use crate::scenarios::holding::SIZE;
use crate::scenarios::kernel_refs::gem::IMPORTED;
use crate::sys::dumb::map_dumb;
use crate::sys::{self, shm};

/// Case 17. A buffer that was imported five times into one driver.
pub(super) fn attached_often(ctx: &mut Ctx) -> anyhow::Result<()> {
    const IMPORTS: u64 = 5;
    let mut decoder = Actor::start(b"decoder", |stage| {
        let (buf, _) = make::plain(SIZE)?;
        let devices = (0..IMPORTS).map(|_| make::vgem()).collect::<anyhow::Result<Vec<_>>>()?;
        let _handles = devices.iter().map(|device| device.import(&buf)).collect::<Result<Vec<_>, _>>()?;
        stage.pause(&[Held::by(&buf)?])
    })?;
    let held = decoder.paused_with_one()?;
    let shown = lines(&format!("show dmabuf:{}", held.ino))?;
    let kernel = IMPORTS * IMPORTED;
    let account = format!("account count {} = 1 fd + 0 map + {kernel} kernel (vgem ×{IMPORTS})", kernel + 1);
    ctx.check_eq("account", account, beginning(&shown, "account"))?;
    ctx.check_eq("attached", format!("attached vgem ×{IMPORTS}"), beginning(&shown, "attached"))?;
    let holder = format!("decoder:{} fd {}", decoder.pid, held.fds.first().unwrap_or(&0));
    ctx.check_eq("holder", &holder, beginning(&shown, &holder))
}

/// Case 18. A process that keeps fences and no buffer.
pub(super) fn leaked_fences(ctx: &mut Ctx) -> anyhow::Result<()> {
    const FENCES: usize = 12;
    let mut shell = Actor::start(b"quickshell", |stage| {
        let (buf, _) = make::plain(SIZE)?;
        let fence = || buf.export_sync_file(Direction::ReadWrite);
        let _fences = (0..FENCES).map(|_| fence()).collect::<Result<Vec<SyncFile>, _>>()?;
        let held = Held::by(&buf)?;
        drop(buf);
        stage.pause(slice::from_ref(&held))
    })?;
    shell.paused()?;
    let listed = lines("ps -d")?;
    let heading = "PID COMMAND RSS PSS USS BUFS FDS MAPS SYNCS";
    ctx.check_eq("columns", heading, listed.first().map_or("none", |line| line))?;
    let expected = format!("{} quickshell 0 0 0 0 0 0 {FENCES}", shell.pid);
    ctx.check_eq("the process with the fences", expected, row(&listed, shell.pid))
}

/// Case 19. A GEM object that its process has touched and unmapped, and a process with a camera.
pub(super) fn driver_memory(ctx: &mut Ctx) -> anyhow::Result<()> {
    let mut renderer = Actor::start(b"renderer", |stage| {
        let device = make::vgem()?;
        let dumb = device.create_dumb(make::at_least(SIZE)?)?;
        let region = map_dumb(&device, &dumb)?;
        shm::touch(region, region.len)?;
        sys::unmap(region)?;
        stage.pause(&[])
    })?;
    let mut camera = Actor::start(b"camera", |stage| {
        let _device = make::vivid()?;
        stage.pause(&[])
    })?;
    renderer.paused()?;
    camera.paused()?;
    let listed = lines("ls -n --kind gem-shmem -o CHARGED,NAME,HOLDERS,CANDIDATES")?;
    let expected = format!("[\"{SIZE} drm mm object - {}\"]", renderer.pid);
    ctx.check_eq("the driver's memory", expected, format!("{listed:?}"))
}
