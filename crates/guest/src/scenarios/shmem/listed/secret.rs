//! Secret memory that no fd leads to. It is in no list of the kernel. But it counts as locked
//! memory of its process, as what mlock(2) locks does.

use rustix::fs::ftruncate;

use super::super::kit::{Shm, ask_and_compare, page};
use crate::actor::{Actor, Held};
use crate::scenario::Ctx;
use crate::sys::{self, page_size, shm};

pub(super) fn mapped(ctx: &mut Ctx) -> anyhow::Result<()> {
    let mut locked = (0..3)
        .map(|_| {
            Actor::start(b"locked", |stage| {
                let region = shm::map_anonymous(4)?;
                shm::lock(region)?;
                stage.pause(&[])
            })
        })
        .collect::<anyhow::Result<Vec<_>>>()?;
    let mut keeper = Actor::start(b"keeper", |stage| {
        let fd = shm::secret()?;
        ftruncate(&fd, 4 * page())?;
        let map = sys::map(&fd, 0, 4 * page_size())?;
        shm::touch(map, 2 * page_size())?;
        let held = Held::by_file(&fd)?.and_map(map, 0).without_fds();
        drop(fd);
        stage.pause(&[held])
    })?;
    for actor in &mut locked {
        actor.paused()?;
    }
    let held = keeper.paused_with_one()?;
    let answer = ask_and_compare(ctx, &Shm::held("secretmem", "", vec![held]).uncharged())?;
    ctx.check_eq("buffers", 1, answer.list("buffers").len())?;
    ctx.check_eq("processes", 1, answer.list("processes").len())
}
