//! The demonstration: a few programs that share buffers, and what lsbuf prints about them.
//!
//! A camera service shares frames with a compositor. Two clients share their surfaces with the
//! compositor. A player decodes into buffers. It leaks two of them to GEM handles, and duplicates
//! the fd of a third again and again. Every program is an actor of this process, and every buffer
//! is real.

use std::os::unix::net::UnixStream;
use std::process::{Command, ExitCode};

use anyhow::Context;
use dmabuf::{DmaBuf, Heap, Udmabuf, share};

use crate::actor::{Actor, Held};
use crate::answer::LSBUF;
use crate::make;
use crate::need::Need;
use crate::shell;
use crate::sys;

/// A camera frame: 1920×1080 NV12.
const FRAME: u64 = 1920 * 1080 * 3 / 2;
/// A window: 1280×800 at 4 bytes.
const SURFACE: u64 = 1280 * 800 * 4;

/// What the demonstration needs of the kernel.
pub const NEEDS: &[Need] = &[Need::Heap, Need::Udmabuf, Need::Vgem];

/// Starts the programs, and shows them or runs `command` among them.
///
/// # Errors
///
/// The kernel lacks something that the demonstration needs, or lsbuf fails.
pub fn run(command: &[String]) -> anyhow::Result<ExitCode> {
    let missing: Vec<&str> = NEEDS.iter().filter(|need| !need.probe()).map(|need| need.name()).collect();
    anyhow::ensure!(missing.is_empty(), "this kernel lacks what the demo needs: {}", missing.join(", "));
    let (camera, from_camera) = UnixStream::pair()?;
    let (terminal, from_terminal) = UnixStream::pair()?;
    let (browser, from_browser) = UnixStream::pair()?;
    let mut actors = vec![
        Actor::start(b"camerad", move |stage| {
            let heap = Heap::open("system")?;
            let frames: Vec<DmaBuf> = (0..3)
                .map(|n| named(heap.allocate(FRAME)?, &format!("cam0:frame{n}")))
                .collect::<Result<_, _>>()?;
            send_all(&camera, &frames)?;
            stage.pause(&held(&frames)?)
        })?,
        client(b"terminal", 2, terminal)?,
        client(b"browser", 3, browser)?,
        Actor::start(b"compositor", move |stage| {
            let mut bufs = Vec::new();
            for (socket, count) in [(&from_camera, 3), (&from_terminal, 2), (&from_browser, 3)] {
                for _ in 0..count {
                    bufs.extend(share::receive(socket, &mut [0])?.bufs);
                }
            }
            // What is on the screen is imported for scan-out. The other buffers wait for their
            // turn.
            let device = make::vgem()?;
            let _on_screen: Vec<_> =
                bufs.iter().step_by(4).map(|buf| device.import(buf)).collect::<Result<_, _>>()?;
            stage.pause(&held(&bufs)?)
        })?,
        Actor::start(b"player", |stage| {
            let (heap, device) = (Heap::open("system")?, make::vgem()?);
            for n in 0..2 {
                let lost = named(heap.allocate(FRAME)?, &format!("vdec:out{n}"))?;
                // Closing the fd is not enough to free the buffer, because the handle stays.
                device.import(&lost)?.into_raw();
            }
            let shown = named(heap.allocate(FRAME)?, "vdec:out2")?;
            let duplicates: Vec<DmaBuf> = (0..20).map(|_| shown.try_clone()).collect::<Result<_, _>>()?;
            stage.pause(&held(&duplicates)?)
        })?,
    ];
    for actor in &mut actors {
        actor.paused()?;
    }
    if !command.is_empty() {
        return shell::run(command);
    }
    for arguments in ["-d --human", "ps -d --human", "show cam0:frame0", "show vdec:out0"] {
        println!("$ lsbuf {arguments}");
        let status = Command::new(LSBUF).args(arguments.split(' ')).status().context("running lsbuf")?;
        anyhow::ensure!(status.success(), "lsbuf {arguments}: {status}");
        println!();
    }
    Ok(ExitCode::SUCCESS)
}

/// A client: its surfaces are udmabufs, which it maps to draw into and shares with the compositor.
fn client(comm: &'static [u8], surfaces: usize, socket: UnixStream) -> anyhow::Result<Actor> {
    Actor::start(comm, move |stage| {
        let maker = Udmabuf::open()?;
        let name = |n: usize| format!("{}:{n}", String::from_utf8_lossy(comm));
        let bufs: Vec<DmaBuf> =
            (0..surfaces).map(|n| named(maker.allocate(SURFACE)?, &name(n))).collect::<Result<_, _>>()?;
        for buf in &bufs {
            sys::map(buf, 0, usize::try_from(SURFACE)?)?;
        }
        send_all(&socket, &bufs)?;
        stage.pause(&held(&bufs)?)
    })
}

fn named(buf: DmaBuf, name: &str) -> dmabuf::Result<DmaBuf> {
    buf.set_name(name)?;
    Ok(buf)
}

fn send_all(socket: &UnixStream, bufs: &[DmaBuf]) -> dmabuf::Result<()> {
    bufs.iter().try_for_each(|buf| share::send(socket, &[buf], b"b"))
}

fn held(bufs: &[DmaBuf]) -> anyhow::Result<Vec<Held>> {
    bufs.iter().map(Held::by).collect()
}
