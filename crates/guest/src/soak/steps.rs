//! The steps that players take, and how likely each is.
//!
//! A step that finds nothing to work on does nothing. The kernel may rightly refuse some steps (a
//! send to a full socket, a rename while a device is attached); they are skipped. Any other refusal
//! ends the soak test.

use std::mem;
use std::os::fd::AsFd;

use dmabuf::{ErrorKind, Heap, Udmabuf, share};
use rustix::io::{Errno, fcntl_dupfd_cloexec};

use super::journal::{Entry, Hold, now};
use super::names::{MEMFD, MEMFD_NAME};
use super::player::{BufFd, Player, PlayerBuf};
use crate::hostile::HOSTILE;
use crate::make;
use crate::sys::shuttle::Shuttle;
use crate::sys::{self, Region, page, page_size};

type StepFn = fn(&mut Player) -> anyhow::Result<()>;

/// The steps of every process, also of children.
const COMMON: &[(u64, StepFn)] = &[
    (10, duplicate),
    (11, close),
    (4, fidget),
    (4, hop),
    (5, reopen),
    (3, shuttle),
    (9, send),
    (10, |player| receive(player).map(drop)),
    (10, map),
    (8, unmap),
    (4, shrink),
    (4, relocate),
    (4, open_path),
    (4, close_path),
    (3, forget),
];

/// The steps of players alone: they make buffers, GEM handles and children.
const OWN: &[(u64, StepFn)] = &[
    (12, make),
    (6, rename),
    (5, import),
    (3, export),
    (4, close_handle),
    (4, Player::brief_child),
    (3, Player::busy_child),
    (3, Player::sleeper),
    (3, Player::relay),
    (2, Player::exec_chain),
];

/// How many buffers a player holds before it drops some.
const ENOUGH: usize = 9;

/// Takes one of all steps.
pub(super) fn any(player: &mut Player) -> anyhow::Result<()> {
    let table = if player.random.one_in(3) { OWN } else { COMMON };
    player.random.pick(table).map_or(Ok(()), |step| step(player))
}

/// Takes one of the steps that a child may take.
pub(super) fn heirs(player: &mut Player) -> anyhow::Result<()> {
    player.random.pick(COMMON).map_or(Ok(()), |step| step(player))
}

/// Moves a reference within the process.
pub(super) fn stir(player: &mut Player) -> anyhow::Result<()> {
    const TABLE: &[(u64, StepFn)] = &[(1, fidget), (1, hop), (1, relocate)];
    player.random.pick(TABLE).map_or(Ok(()), |step| step(player))
}

/// Chooses one of the buffers that `has` accepts. The number is random, for the caller's use.
pub(super) fn choose(
    player: &mut Player,
    has: fn(&PlayerBuf) -> bool,
) -> Option<(u64, &mut PlayerBuf, usize)> {
    let inos: Vec<u64> = player.bufs.iter().filter(|(_, kept)| has(kept)).map(|(&ino, _)| ino).collect();
    let roll = player.random.index(usize::MAX);
    let ino = *inos.get(roll % inos.len().max(1))?;
    // The caller uses the number to choose an fd or a mapping. Its high bits are as random as its
    // low ones.
    player.bufs.get_mut(&ino).map(|kept| (ino, kept, roll >> 16))
}

fn make(player: &mut Player) -> anyhow::Result<()> {
    if player.bufs.len() >= ENOUGH {
        return forget(player);
    }
    let size = page() << player.random.below(5);
    let table = [
        (3 * u64::from(player.exporters.heap), make::HEAP),
        (2 * u64::from(player.exporters.udmabuf), "udmabuf"),
        (2 * u64::from(player.exporters.vgem), make::DRM),
        (4, MEMFD),
    ];
    let Some(exporter) = player.random.pick(&table) else { return Ok(()) };
    let keep_handle = player.random.one_in(3);
    let began = now();
    let mut handle = None;
    let buf = match exporter {
        make::HEAP => BufFd::Buf(Heap::open("system")?.allocate(size)?),
        // All of it is written, so that its allocated bytes are its size.
        MEMFD => BufFd::File(make::memfd(MEMFD_NAME, size / page(), size / page())?),
        make::DRM => {
            let dumb = device(player)?.create_dumb(make::at_least(size)?)?;
            let buf = dumb.handle.export()?;
            handle = Some(dumb.handle).filter(|_| keep_handle);
            BufFd::Buf(buf)
        }
        _ => BufFd::Buf(Udmabuf::open()?.allocate(size)?),
    };
    let (ino, size) = buf.identity()?;
    let exporter = exporter.to_owned();
    let made = Entry::Made { ino, size, exporter: exporter.clone() };
    let (fds, opaths, maps) = (vec![buf], Vec::new(), Vec::new());
    player.bufs.insert(ino, PlayerBuf { size, exporter, maker: true, fds, opaths, maps, handle });
    player.note_with_hold(began, ino, made)
}

/// The player's DRM device. It is opened at its first use and stays open until the process ends or
/// calls exec.
fn device(player: &mut Player) -> anyhow::Result<&'static dmabuf::DrmDevice> {
    if let Some(device) = player.device {
        return Ok(device);
    }
    let device = Box::leak(Box::new(make::vgem()?));
    player.device = Some(device);
    Ok(device)
}

fn duplicate(player: &mut Player) -> anyhow::Result<()> {
    let Some((ino, kept, roll)) = choose(player, |kept| !kept.fds.is_empty()) else { return Ok(()) };
    let began = now();
    let copy = kept.fds[roll % kept.fds.len()].try_clone()?;
    kept.fds.push(copy);
    player.note_hold(began, ino)
}

fn close(player: &mut Player) -> anyhow::Result<()> {
    let Some((ino, kept, roll)) = choose(player, |kept| !kept.fds.is_empty()) else { return Ok(()) };
    let began = now();
    drop(kept.fds.swap_remove(roll % kept.fds.len()));
    player.note_hold(began, ino)
}

/// Moves one reference from fd to fd, many times. This misleads a reader that lists fds and then
/// looks at each: the count stays the same, and the reference is always in another slot.
fn fidget(player: &mut Player) -> anyhow::Result<()> {
    let times = 1 + player.random.below(100);
    let Some((ino, kept, roll)) = choose(player, |kept| !kept.fds.is_empty()) else { return Ok(()) };
    let at = roll % kept.fds.len();
    let began = now();
    let mut on_the_way = Hold::default();
    for _ in 0..times {
        let copy = kept.fds[at].try_clone()?;
        on_the_way.fds.insert(sys::number(&copy));
        kept.fds[at] = copy;
    }
    player.note_moved(began, ino, on_the_way)
}

/// Moves one reference to and fro between a low slot and a high one.
fn hop(player: &mut Player) -> anyhow::Result<()> {
    let times = 1 + player.random.below(60);
    let high = 100 + i32::try_from(player.random.below(800))?;
    let Some((ino, kept, roll)) = choose(player, |kept| !kept.fds.is_empty()) else { return Ok(()) };
    let at = roll % kept.fds.len();
    let began = now();
    let mut on_the_way = Hold::default();
    for nth in 0..times {
        let lowest = if nth % 2 == 0 { high } else { 3 };
        let moved = fcntl_dupfd_cloexec(&kept.fds[at], lowest)?;
        on_the_way.fds.insert(sys::number(&moved));
        kept.fds[at] = BufFd::of(&kept.exporter, moved)?;
    }
    player.note_moved(began, ino, on_the_way)
}

/// Opens a memfd again: a second open file on the same memory.
fn reopen(player: &mut Player) -> anyhow::Result<()> {
    let usable = |kept: &PlayerBuf| !kept.fds.is_empty() && kept.exporter == MEMFD;
    let Some((ino, kept, roll)) = choose(player, usable) else { return Ok(()) };
    let began = now();
    let again = sys::open_again(&kept.fds[roll % kept.fds.len()])?;
    kept.fds.push(BufFd::File(again));
    player.note_hold(began, ino)
}

/// Maps a page, moves it to and fro past other mappings many times, and leaves it where it is then.
fn shuttle(player: &mut Player) -> anyhow::Result<()> {
    let times = 1 + player.random.below(60);
    let between = 2 + player.random.index(60);
    let Some((ino, kept, roll)) = choose(player, |kept| !kept.fds.is_empty() && kept.maps.len() < 6) else {
        return Ok(());
    };
    let began = now();
    let mut shuttle = Shuttle::map(&kept.fds[roll % kept.fds.len()], page_size(), between)?;
    let places = [shuttle.region(), shuttle.other()].map(|place| (place.start, place.start + place.len, 0));
    let on_the_way = Hold { maps: places.into(), ..Hold::default() };
    // Half of the time the mapping is the only reference that the process keeps.
    let alone = (roll >> 20) % 2 == 0;
    if alone {
        kept.fds.clear();
    }
    for _ in 0..times {
        shuttle.cross()?;
    }
    kept.maps.push((shuttle.settle()?, 0));
    player.note_moved(began, ino, on_the_way)
}

/// Drops everything that the process holds of some buffer.
fn forget(player: &mut Player) -> anyhow::Result<()> {
    let Some((ino, _, _)) = choose(player, |_| true) else { return Ok(()) };
    let_go(player, ino)
}

/// Drops everything that the process holds of this buffer.
pub(super) fn let_go(player: &mut Player, ino: u64) -> anyhow::Result<()> {
    let began = now();
    let Some(kept) = player.bufs.remove(&ino) else { return Ok(()) };
    let busy = kept.handle.is_some().then_some(Entry::Busy { ino });
    for (region, _) in &kept.maps {
        sys::unmap(*region)?;
    }
    drop(kept);
    player.note_with_hold(began, ino, busy)
}

/// Sends a buffer to any player, also to itself. The receiver decides whether and when it is
/// received.
fn send(player: &mut Player) -> anyhow::Result<()> {
    if !player.mail {
        return Ok(());
    }
    let to = player.random.index(player.inboxes.len());
    let Some((ino, _, roll)) = choose(player, |kept| !kept.fds.is_empty()) else { return Ok(()) };
    let (Some(kept), inbox) = (player.bufs.get(&ino), &player.inboxes[to]) else { return Ok(()) };
    let began = now();
    // Two processes may start a step in the same nanosecond, but one process does not do so twice.
    let message = began << 16 | u64::from(std::process::id() & 0xffff);
    let payload = format!("{message} {}", kept.exporter);
    let fd = &kept.fds[roll % kept.fds.len()];
    let sent = match fd {
        BufFd::Buf(buf) => match share::send(&inbox.to, &[buf], payload.as_bytes()) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => false,
            sent => sent.map(|()| true)?,
        },
        BufFd::File(file) => match sys::send_with(&inbox.to, file.as_fd(), payload.as_bytes()) {
            Err(Errno::AGAIN) => false,
            sent => sent.map(|()| true)?,
        },
    };
    player.note(began, vec![if sent { Entry::Sent { message, ino } } else { Entry::Busy { ino } }])
}

/// Receives one message, if there is one.
pub(super) fn receive(player: &mut Player) -> anyhow::Result<bool> {
    let mut payload = [0; 64];
    let began = now();
    let (len, fds) = match sys::receive_with(&player.inboxes[player.seat].from, &mut payload) {
        Err(Errno::AGAIN) => return Ok(false),
        received => received?,
    };
    let text = std::str::from_utf8(payload.get(..len).unwrap_or_default())?;
    let (message, exporter) = text.split_once(' ').unwrap_or_default();
    let message = message.parse()?;
    for fd in fds {
        let buf = BufFd::of(exporter, fd)?;
        let (ino, size) = buf.identity()?;
        let kept = player.bufs.entry(ino).or_insert_with(|| PlayerBuf {
            size,
            exporter: exporter.to_owned(),
            maker: false,
            fds: Vec::new(),
            opaths: Vec::new(),
            maps: Vec::new(),
            handle: None,
        });
        kept.fds.push(buf);
        player.note_with_hold(began, ino, Entry::Received { message, ino })?;
    }
    if player.bufs.len() > ENOUGH + 3 {
        forget(player)?;
    }
    Ok(true)
}

fn map(player: &mut Player) -> anyhow::Result<()> {
    let Some((ino, kept, roll)) = choose(player, |kept| !kept.fds.is_empty() && kept.maps.len() < 6) else {
        return Ok(());
    };
    let pages = kept.size / page();
    let first = roll as u64 % pages;
    let len = 1 + (roll >> 8) as u64 % (pages - first);
    let began = now();
    let fd = &kept.fds[roll % kept.fds.len()];
    let region = sys::map_apart(fd, first * page(), usize::try_from(len * page())?)?;
    kept.maps.push((region, first * page()));
    player.note_hold(began, ino)
}

/// Unmaps a whole mapping, its beginning, its end, or a part in its middle.
fn unmap(player: &mut Player) -> anyhow::Result<()> {
    let Some((ino, kept, roll)) = choose(player, |kept| !kept.maps.is_empty()) else { return Ok(()) };
    let (whole, offset) = kept.maps.swap_remove(roll % kept.maps.len());
    let page = page_size();
    let pages = whole.len / page;
    let first = (roll >> 4) % pages;
    let count = 1 + (roll >> 13) % (pages - first);
    let (gone, after) = (first * page, (first + count) * page);
    let began = now();
    sys::unmap(Region { start: whole.start + gone, len: after - gone })?;
    for (from, to) in [(0, gone), (after, whole.len)] {
        if to > from {
            kept.maps.push((Region { start: whole.start + from, len: to - from }, offset + from as u64));
        }
    }
    player.note_hold(began, ino)
}

fn shrink(player: &mut Player) -> anyhow::Result<()> {
    let Some((ino, kept, roll)) = choose(player, |kept| !kept.maps.is_empty()) else { return Ok(()) };
    let at = roll % kept.maps.len();
    let (region, _) = &mut kept.maps[at];
    let pages = region.len / page_size();
    let began = now();
    *region = sys::shrink(*region, (1 + (roll >> 8) % pages) * page_size())?;
    player.note_hold(began, ino)
}

fn relocate(player: &mut Player) -> anyhow::Result<()> {
    let Some((ino, kept, roll)) = choose(player, |kept| !kept.maps.is_empty()) else { return Ok(()) };
    let at = roll % kept.maps.len();
    let (region, _) = &mut kept.maps[at];
    let began = now();
    *region = sys::relocate(*region)?;
    player.note_moved(began, ino, Hold::default())
}

fn open_path(player: &mut Player) -> anyhow::Result<()> {
    let usable = |kept: &PlayerBuf| !kept.fds.is_empty() && kept.opaths.len() < 3;
    let Some((ino, kept, roll)) = choose(player, usable) else { return Ok(()) };
    let began = now();
    let path = sys::open_path(&kept.fds[roll % kept.fds.len()])?;
    kept.opaths.push(path);
    player.note_hold(began, ino)
}

fn close_path(player: &mut Player) -> anyhow::Result<()> {
    let Some((ino, kept, roll)) = choose(player, |kept| !kept.opaths.is_empty()) else { return Ok(()) };
    let began = now();
    drop(kept.opaths.swap_remove(roll % kept.opaths.len()));
    player.note_hold(began, ino)
}

fn rename(player: &mut Player) -> anyhow::Result<()> {
    let name = any_name(player);
    let usable = |kept: &PlayerBuf| kept.maker && kept.fds.first().is_some_and(|fd| fd.buf().is_some());
    let Some((ino, kept, _)) = choose(player, usable) else { return Ok(()) };
    let Some(buf) = kept.fds.first().and_then(BufFd::buf) else { return Ok(()) };
    let began = now();
    match buf.set_name(&name) {
        Ok(()) => player.note(began, vec![Entry::Named { ino, name }]),
        Err(error) if error.kind() == ErrorKind::NameBusy => player.note(began, vec![Entry::Busy { ino }]),
        Err(error) => Err(error.into()),
    }
}

/// An ordinary name, a hostile one, an empty one, or random bytes.
fn any_name(player: &mut Player) -> Vec<u8> {
    let random = &mut player.random;
    match random.below(4) {
        0 => HOSTILE[random.index(HOSTILE.len())].into(),
        1 => (0..random.below(32)).map(|_| 1 + random.below(255) as u8).collect(),
        2 => Vec::new(),
        _ => format!("frame{}", random.below(1000)).into(),
    }
}

fn import(player: &mut Player) -> anyhow::Result<()> {
    if !player.exporters.vgem {
        return Ok(());
    }
    let device = device(player)?;
    let usable =
        |kept: &PlayerBuf| kept.handle.is_none() && kept.fds.first().is_some_and(|fd| fd.buf().is_some());
    let Some((ino, kept, _)) = choose(player, usable) else { return Ok(()) };
    let Some(buf) = kept.fds.first().and_then(BufFd::buf) else { return Ok(()) };
    let began = now();
    kept.handle = Some(device.import(buf)?);
    player.note_with_hold(began, ino, Entry::Busy { ino })
}

fn export(player: &mut Player) -> anyhow::Result<()> {
    let Some((ino, kept, _)) = choose(player, |kept| kept.handle.is_some()) else { return Ok(()) };
    let began = now();
    if let Some(handle) = &kept.handle {
        let fd = handle.export()?;
        kept.fds.push(BufFd::Buf(fd));
    }
    player.note_with_hold(began, ino, Entry::Busy { ino })
}

fn close_handle(player: &mut Player) -> anyhow::Result<()> {
    let Some((ino, kept, _)) = choose(player, |kept| kept.handle.is_some()) else { return Ok(()) };
    let began = now();
    mem::drop(kept.handle.take());
    player.note_with_hold(began, ino, Entry::Busy { ino })
}
