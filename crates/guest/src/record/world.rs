//! The world that `cargo xtask record` records: one of each arrangement that has been hard to
//! count.
//!
//! Every buffer comes with its truth. One fd is in a message, so every residual is an estimate.
//!
//! Limits: which exporters exist, and whether a buffer is mapped, depends on the kernel.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;

use anyhow::Context;
use dmabuf::{DmaBuf, Udmabuf, share};
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};

use crate::actor::{Actor, Held, Stage};
use crate::answer::{ExpectedResidual, Truth};
use crate::hostile::HOSTILE;
use crate::make;
use crate::need::Need;
use crate::sys::{self, Region, page, page_size};

/// Bytes of most buffers: 16 pages.
fn size() -> u64 {
    16 * page()
}

/// One buffer, and its true account.
#[derive(Debug)]
pub(crate) struct KnownBuffer {
    pub(crate) ino: u64,
    pub(crate) size: u64,
    pub(crate) truth: Truth,
}

/// The paused world; it ends when this is dropped.
#[derive(Debug, Default)]
pub(crate) struct RecordedWorld {
    pub(crate) told: Vec<KnownBuffer>,
    actors: Vec<Actor>,
    sockets: Vec<UnixStream>,
}

impl RecordedWorld {
    /// Starts the world, and returns when all actors have paused.
    pub(crate) fn play() -> anyhow::Result<RecordedWorld> {
        let mut world = RecordedWorld::without_messages()?;
        world.in_flight()?;
        Ok(world)
    }

    /// The same without the message.
    pub(crate) fn without_messages() -> anyhow::Result<RecordedWorld> {
        let mut world = RecordedWorld::default();
        // This actor is first, so that lsbuf reads it before it has proven any dma-buf.
        world.start(b"impostor", impostor)?;
        world.frames()?;
        world.kernel_references()?;
        world.hostile()?;
        let held = world.start(b"keeper", |stage| {
            let buf = named("kept")?;
            let path = sys::open_path(&buf)?;
            let held = Held::by(&buf)?.without_fds().and_opath(&path);
            drop(buf);
            stage.pause(&[held])
        })?;
        // An `O_PATH` fd is not counted. After the last counted reference nothing tells the
        // exporter.
        world.tell(held, |held| Truth::held("?", held).named("kept"))?;
        let held = world.start(b"threads", |stage| {
            let buf = if Need::Udmabuf.probe() {
                Udmabuf::open()?.allocate(size())?
            } else {
                make::plain(size())?.0
            };
            for _ in 0..2 {
                std::thread::spawn(|| {
                    loop {
                        std::thread::park();
                    }
                });
            }
            stage.pause(&[Held::by(&buf)?])
        })?;
        let exporter = if Need::Udmabuf.probe() { "udmabuf" } else { make::plain_exporter() };
        world.tell(held, |held| Truth::held(exporter, held))?;
        let held = world.start(b"family", family)?;
        world.tell(held, |held| Truth::held(make::plain_exporter(), held))?;
        let held = world.start(b"user", |stage| {
            let (buf, _) = make::plain(size())?;
            sys::become_user(1000)?;
            stage.pause(&[Held::by(&buf)?])
        })?;
        world.tell(held, |held| Truth::held(make::plain_exporter(), held))?;
        Ok(world)
    }

    fn start(
        &mut self,
        comm: &[u8],
        script: impl FnOnce(&mut Stage) -> anyhow::Result<()>,
    ) -> anyhow::Result<Vec<Held>> {
        let mut actor = Actor::start(comm, script)?;
        let held = actor.paused()?;
        self.actors.push(actor);
        Ok(held)
    }

    fn tell(&mut self, held: Vec<Held>, truth: impl FnOnce(Vec<Held>) -> Truth) -> anyhow::Result<()> {
        let first = held.first().context("an actor that holds nothing")?;
        self.told.push(KnownBuffer { ino: first.ino, size: first.size, truth: truth(held) });
        Ok(())
    }

    /// Two frames of a camera. A compositor maps one of them in pieces.
    fn frames(&mut self) -> anyhow::Result<()> {
        let (camera, compositor) = UnixStream::pair()?;
        let frames = self.start(b"camerad", move |stage| {
            let frame = named("cam0:frame0")?;
            let (unnamed, _) = make::plain(2 * size())?;
            let again = frame.try_clone()?;
            share::send(&camera, &[&frame], b"f")?;
            stage.pause(&[Held::by(&frame)?.and_fd(&again), Held::by(&unnamed)?])
        })?;
        let shown = self.start(b"compositor", move |stage| {
            let frame = share::receive(&compositor, &mut [0])?.bufs.remove(0);
            let mut held = Held::by(&frame)?;
            if Need::MappedIdentity.probe() {
                let len = usize::try_from(size())?;
                let whole = sys::map(&frame, 0, len)?;
                sys::unmap(Region { start: whole.start + page_size(), len: page_size() })?;
                let rest = Region { start: whole.start + 2 * page_size(), len: len - 2 * page_size() };
                let part = sys::map(&frame, 3 * page(), page_size())?;
                held = held
                    .and_map(Region { start: whole.start, len: page_size() }, 0)
                    .and_map(rest, 2 * page())
                    .and_map(part, 3 * page());
            }
            stage.pause(&[held])
        })?;
        let [frame, unnamed] =
            <[Held; 2]>::try_from(frames).map_err(|_| anyhow::anyhow!("a camera has two frames"))?;
        let holders = [vec![frame], shown].concat();
        self.tell(holders, |held| Truth::held(make::plain_exporter(), held).named("cam0:frame0"))?;
        self.tell(vec![unnamed], |held| Truth::held(make::plain_exporter(), held))
    }

    /// Buffers with references in the kernel: exported while the handle stays, with and without an
    /// fd, and imported.
    fn kernel_references(&mut self) -> anyhow::Result<()> {
        let held = self.start(b"player", |stage| {
            let device = make::vgem()?;
            let shown = device.create_dumb(make::at_least(size())?)?;
            let buf = shown.handle.export()?;
            let lost = device.create_dumb(make::at_least(2 * size())?)?;
            let lost_buf = lost.handle.export()?;
            lost_buf.set_name("vdec:out0")?;
            let gone = Held::by(&lost_buf)?.without_fds();
            drop(lost_buf);
            stage.pause(&[Held::by(&buf)?, gone])
        })?;
        let [shown, lost] = <[Held; 2]>::try_from(held).map_err(|_| anyhow::anyhow!("two buffers"))?;
        self.tell(vec![shown], |held| Truth::held(make::DRM, held).and(ExpectedResidual::Estimate(2)))?;
        self.tell(vec![lost], |_| {
            Truth::held(make::DRM, vec![]).named("vdec:out0").and(ExpectedResidual::Estimate(2))
        })?;
        if !Need::Heap.probe() {
            return Ok(());
        }
        let held = self.start(b"importer", |stage| {
            let (buf, _) = make::plain(size())?;
            let device = make::vgem()?;
            let _handle = device.import(&buf)?;
            stage.pause(&[Held::by(&buf)?])
        })?;
        self.tell(held, |held| Truth::held(make::HEAP, held).and(ExpectedResidual::Estimate(3)))
    }

    /// Buffers with every hostile name, held by fd. Where a mapping shows the buffer, every second
    /// one is held by a mapping alone.
    fn hostile(&mut self) -> anyhow::Result<()> {
        let by_map = Need::MappedIdentity.probe();
        let held = self.start(b"ev) R 1 (\n\x1b[m", move |stage| {
            let (mut held, mut kept) = (Vec::new(), Vec::new());
            for (nth, name) in HOSTILE.iter().enumerate() {
                let buf = named(name)?;
                if by_map && nth % 2 == 1 {
                    let region = sys::map(&buf, 0, page_size())?;
                    held.push(Held::by(&buf)?.without_fds().and_map(region, 0));
                } else {
                    held.push(Held::by(&buf)?);
                    kept.push(buf);
                }
            }
            stage.pause(&held)
        })?;
        held.into_iter().zip(HOSTILE).try_for_each(|(held, name)| {
            self.tell(vec![held], |held| {
                Truth::held(make::plain_exporter(), held).named(&String::from_utf8_lossy(name))
            })
        })
    }

    /// A buffer with one reference in a message.
    fn in_flight(&mut self) -> anyhow::Result<()> {
        let (from, unread) = UnixStream::pair()?;
        self.sockets.push(unread);
        let held = self.start(b"sender", move |stage| {
            let (buf, _) = make::plain(size())?;
            share::send(&from, &[&buf], b"1")?;
            stage.pause(&[Held::by(&buf)?])
        })?;
        self.tell(held, |held| Truth::held(make::plain_exporter(), held).and(ExpectedResidual::Estimate(1)))
    }
}

fn named(name: impl AsRef<[u8]>) -> anyhow::Result<DmaBuf> {
    let (buf, _) = make::plain(size())?;
    buf.set_name(name)?;
    Ok(buf)
}

/// Files that only look like dma-bufs, at the root of the file system: by fd, by `O_PATH` fd and by
/// mapping; and a memfd with such a name.
fn impostor(stage: &mut Stage) -> anyhow::Result<()> {
    let path = "/dmabuf:cam";
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(path)?;
    file.set_len(page())?;
    let path_only: File = OpenOptions::new().read(true).custom_flags(libc::O_PATH).open(path)?;
    let memfd = memfd_create(c"/dmabuf:cam", MemfdFlags::CLOEXEC)?;
    ftruncate(&memfd, page())?;
    sys::map(&file, 0, page_size())?;
    sys::map(&memfd, 0, page_size())?;
    stage.pause(&[])?;
    drop(path_only);
    Ok(())
}

/// A parent, a child that inherited its fd and its mapping, and a child that has ended and is a
/// zombie.
fn family(stage: &mut Stage) -> anyhow::Result<()> {
    let (buf, _) = make::plain(size())?;
    let mut held = Held::by(&buf)?;
    if Need::MappedIdentity.probe() {
        held = held.and_map(sys::map(&buf, 0, page_size())?, 0);
    }
    let child = sys::fork(|| {
        loop {
            std::thread::park();
        }
    })?;
    let ended = sys::fork(|| 0)?;
    let ended = Pid::from_raw(i32::try_from(ended)?).context("a child without a pid")?;
    waitid(WaitId::Pid(ended), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT)?;
    stage.pause(&[held.clone(), held.of(child)])
}
