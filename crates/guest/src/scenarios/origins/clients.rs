//! A process that makes buffers for others: who received each first from it.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use anyhow::Context;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvFlags, SocketFlags, SocketType, recvmsg, socketpair,
};
use rustix::process::{
    Pid, PidfdFlags, PidfdGetfdFlags, Resource, Rlimit, getrlimit, pidfd_getfd, pidfd_open, setrlimit,
};
use serde_json::Value;

use super::kit::{Origins, install, now, remove};
use crate::actor::{Actor, Held};
use crate::make;
use crate::scenario::Ctx;
use crate::scenarios::holding::SIZE;
use crate::scenarios::probes::lsbuf;
use crate::sys::{receive_any, receive_peeking, send_any};

fn pair(kind: SocketType) -> anyhow::Result<(OwnedFd, OwnedFd)> {
    Ok(socketpair(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None)?)
}

fn memfd() -> anyhow::Result<OwnedFd> {
    Ok(memfd_create(c"for-others", MemfdFlags::CLOEXEC)?)
}

/// What lsbuf says of a buffer's client.
fn client(origin: &Value) -> String {
    let client = &origin["client"];
    let text = |key: &str| client[key].as_str().unwrap_or("?").to_owned();
    match text("state").as_str() {
        "received" => format!("{}:{}, uid {}", text("command"), client["pid"], client["uid"]),
        "unknown" => format!("unknown: {}", text("why")),
        state => state.to_owned(),
    }
}

fn named(command: &str, pid: u32) -> String {
    format!("{command}:{pid}, uid 0")
}

const NOT_SEEN: &str = "not_seen";
const UNCLEAR: &str = "unknown: unclear";

/// What is expected of a buffer: its kind, what was done with it, and its client.
type Expected = (&'static str, &'static str, String);

/// Compares what lsbuf says of each file with what is expected.
fn compare(ctx: &mut Ctx, made: &[Held], expected: &[Expected]) -> anyhow::Result<()> {
    let origins = Origins::ask(&mut lsbuf(&[]))?;
    for (held, (kind, what, expected)) in made.iter().zip(expected) {
        ctx.check_eq(*what, expected, client(origins.of(kind, held.ino)?))?;
    }
    ctx.check_eq("all of them", expected.len(), made.len())
}

fn held_files<'f>(files: impl IntoIterator<Item = BorrowedFd<'f>>) -> anyhow::Result<Vec<Held>> {
    files.into_iter().map(Held::by_file).collect()
}

pub(super) fn of_clients(ctx: &mut Ctx) -> anyhow::Result<()> {
    install(ctx, &[])?;
    let (to_stream, stream) = pair(SocketType::STREAM)?;
    let (to_datagram, datagram) = pair(SocketType::DGRAM)?;
    let (to_short, short) = pair(SocketType::SEQPACKET)?;
    let (to_second, second) = pair(SocketType::STREAM)?;
    let (to_last, last) = pair(SocketType::STREAM)?;

    let mut broker = Actor::start(b"broker", move |stage| {
        let (dmabuf, _) = make::plain(SIZE)?;
        let huge = memfd_create(c"huge", MemfdFlags::CLOEXEC | MemfdFlags::HUGETLB)?;
        let [streamed, sent, short_lived, own] = [memfd()?, memfd()?, memfd()?, memfd()?];
        let files = [dmabuf.as_fd(), huge.as_fd(), streamed.as_fd(), sent.as_fd(), short_lived.as_fd()];
        stage.pause(&held_files(files.into_iter().chain([own.as_fd()]))?)?;
        send_any(&to_stream, &[streamed.as_fd(), huge.as_fd()])?;
        send_any(&to_datagram, &[sent.as_fd()])?;
        send_any(&to_datagram, &[dmabuf.as_fd()])?;
        send_any(&to_short, &[short_lived.as_fd()])?;
        stage.pause(&[])?;
        send_any(&to_second, &files)?;
        stage.pause(&[])
    })?;
    let made = broker.paused()?;
    broker.go_on()?;
    let mut alpha = Actor::start(b"alpha", move |stage| {
        let got = receive_any(&stream)?;
        let files: Vec<BorrowedFd<'_>> = got.iter().map(AsFd::as_fd).collect();
        send_any(&to_last, &files)?;
        stage.pause(&held_files(files)?)
    })?;
    let mut beta = Actor::start(b"beta", move |stage| {
        let got = [receive_any(&datagram)?, receive_any(&datagram)?].concat_all();
        stage.pause(&held_files(got.iter().map(AsFd::as_fd))?)
    })?;
    let mut gone = Actor::start(b"gone", move |stage| {
        let got = receive_any(&short)?;
        stage.pause(&held_files(got.iter().map(AsFd::as_fd))?)
    })?;
    ctx.check_eq("files that alpha received", 2, alpha.paused()?.len())?;
    ctx.check_eq("files that beta received", 2, beta.paused()?.len())?;
    ctx.check_eq("files that gone received", 1, gone.paused()?.len())?;
    let gone_pid = gone.pid;
    drop(gone);
    // Alpha has passed its files on. Now the broker gives all of them to another process.
    broker.paused()?;
    broker.go_on()?;
    let mut other = Actor::start(b"second", move |stage| {
        let got = [receive_any(&second)?, receive_any(&last)?].concat_all();
        stage.pause(&held_files(got.iter().map(AsFd::as_fd))?)
    })?;
    ctx.check_eq("files that the second received", 7, other.paused()?.len())?;

    let expected = [
        ("dmabuf", "a dma-buf in a datagram", named("beta", beta.pid)),
        ("memfd", "huge pages in a stream", named("alpha", alpha.pid)),
        ("memfd", "a memfd in a stream", named("alpha", alpha.pid)),
        ("memfd", "a memfd in a datagram", named("beta", beta.pid)),
        ("memfd", "a memfd of a process that has exited", named("gone", gone_pid)),
        ("memfd", "a memfd that nobody received", NOT_SEEN.to_owned()),
    ];
    compare(ctx, &made, &expected)?;

    let table = lsbuf(&["ls", "-o", "KIND,INO,FOR", "--kind", "dmabuf,memfd"]).output()?;
    let table = String::from_utf8_lossy(&table.stdout).into_owned();
    let cell = |kind: &str, ino: u64| {
        let ino = ino.to_string();
        let mut rows = table.lines().map(|row| row.split_whitespace().collect::<Vec<_>>());
        let row = rows.find(|row| row.starts_with(&[kind, &ino]));
        row.and_then(|row| row.get(2).copied()).unwrap_or("no row").to_owned()
    };
    let cells = [
        ("column FOR", format!("beta:{}", beta.pid), cell("dmabuf", made[0].ino)),
        ("column FOR of a process that has exited", format!("gone:{gone_pid}"), cell("memfd", made[4].ino)),
        ("column FOR of what nobody received", "?".to_owned(), cell("memfd", made[5].ino)),
    ];
    for (what, expected, found) in cells {
        ctx.check_eq(what, expected, found)?;
    }
    let sum = lsbuf(&["sum", "--by", "client", "--kind", "memfd"]).output()?;
    let sum = String::from_utf8_lossy(&sum.stdout).into_owned();
    for (command, buffers) in [("alpha", "2"), ("beta", "1"), ("gone", "1")] {
        let mut rows = sum.lines().map(|row| row.split_whitespace().collect::<Vec<_>>());
        let row = rows.find(|row| row.first() == Some(&command)).with_context(|| sum.clone())?;
        ctx.check_eq(format!("sum --by client, {command}"), buffers, row.get(1).copied().unwrap_or("?"))?;
    }
    let shown = lsbuf(&["show", &made[0].ino.to_string()]).output()?;
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    let evidence =
        format!("beta:{}, uid 0: received it first, in a message from broker:{}, at ", beta.pid, broker.pid);
    // Another buffer may have the same number.
    let has_it = |line: &str| line.trim_start().starts_with("for ") && line.contains(&evidence);
    ctx.check(format!("show: {shown}"), shown.lines().any(has_it))?;
    remove(ctx)
}

/// Several lists of files as one.
trait ConcatAll {
    fn concat_all(self) -> Vec<OwnedFd>;
}

impl<const N: usize> ConcatAll for [Vec<OwnedFd>; N] {
    fn concat_all(self) -> Vec<OwnedFd> {
        self.into_iter().flatten().collect()
    }
}

/// Looks at a message, or receives it, without room for its files.
fn without_room(socket: &OwnedFd, flags: RecvFlags) -> Result<usize, Errno> {
    let mut nothing = RecvAncillaryBuffer::default();
    recvmsg(socket, &mut [rustix::io::IoSliceMut::new(&mut [0])], &mut nothing, flags)
        .map(|message| message.bytes)
}

pub(super) fn of_no_clients(ctx: &mut Ctx) -> anyhow::Result<()> {
    install(ctx, &[])?;
    let (to_alpha, alpha_end) = pair(SocketType::STREAM)?;
    let (to_peeked, peeked_end) = pair(SocketType::STREAM)?;
    let (to_limited, limited_end) = pair(SocketType::SEQPACKET)?;
    let (to_self, self_end) = pair(SocketType::STREAM)?;
    let (to_heir, heir_end) = pair(SocketType::SEQPACKET)?;

    let mut broker = Actor::start(b"broker", move |stage| {
        let files: Vec<OwnedFd> = (0..7).map(|_| memfd()).collect::<Result<_, _>>()?;
        let of = |nth: usize| files[nth].as_fd();
        // It has all files from its birth on, and sends some.
        let mut heir = {
            let (own, by_heir) = (files[3].try_clone()?, files[2].try_clone()?);
            Actor::start(b"heir", move |heir| {
                send_any(&to_heir, &[by_heir.as_fd()])?;
                send_any(&to_self, &[own.as_fd()])?;
                receive_any(&self_end)?;
                heir.pause(&[])
            })?
        };
        heir.paused()?;
        stage.pause(&held_files(files.iter().map(AsFd::as_fd))?)?;
        send_any(&to_alpha, &[of(1), of(3)])?;
        send_any(&to_peeked, &[of(4)])?;
        send_any(&to_limited, &[of(5)])?;
        send_any(&to_limited, &[of(6)])?;
        stage.pause(&[])
    })?;
    let made = broker.paused()?;

    let (broker_pid, taken) = (broker.pid, [made[0].fds[0], made[1].fds[0]]);
    let mut taker = Actor::start(b"taker", move |stage| {
        let pid = Pid::from_raw(i32::try_from(broker_pid)?).context("no pid")?;
        let process = pidfd_open(pid, PidfdFlags::empty())?;
        let take =
            |fd: u32| pidfd_getfd(&process, i32::try_from(fd)?, PidfdGetfdFlags::empty()).context("taking");
        let got = [take(taken[0])?, take(taken[1])?];
        stage.pause(&held_files(got.iter().map(AsFd::as_fd))?)
    })?;
    ctx.check_eq("files that were taken", 2, taker.paused()?.len())?;
    broker.go_on()?;
    broker.paused()?;

    let peeked_by_other = peeked_end.try_clone()?;
    let mut curious = Actor::start(b"curious", move |stage| {
        without_room(&peeked_by_other, RecvFlags::PEEK)?;
        stage.pause(&[])
    })?;
    curious.paused()?;
    let mut alpha = Actor::start(b"alpha", move |stage| {
        let looked_at = receive_peeking(&peeked_end)?;
        let got = [receive_any(&peeked_end)?, receive_any(&alpha_end)?, receive_any(&heir_end)?].concat_all();
        stage.pause(&held_files(looked_at.iter().chain(&got).map(AsFd::as_fd))?)
    })?;
    ctx.check_eq("files that alpha received", 5, alpha.paused()?.len())?;
    let mut limited = Actor::start(b"limited", move |stage| {
        let before = getrlimit(Resource::Nofile);
        setrlimit(Resource::Nofile, Rlimit { current: Some(0), ..before })?;
        let refused = receive_any(&limited_end);
        setrlimit(Resource::Nofile, before)?;
        anyhow::ensure!(refused.is_err(), "a file was received beyond the limit");
        without_room(&limited_end, RecvFlags::empty())?;
        stage.pause(&[])
    })?;
    limited.paused()?;

    let expected = [
        ("memfd", "taken with pidfd_getfd", NOT_SEEN.to_owned()),
        ("memfd", "taken, and then sent to another", named("alpha", alpha.pid)),
        ("memfd", "sent by a child that inherited it", NOT_SEEN.to_owned()),
        ("memfd", "sent by a child to itself, before it was sent to another", UNCLEAR.to_owned()),
        ("memfd", "looked at before it was received", named("alpha", alpha.pid)),
        ("memfd", "offered to a process that may open no more files", UNCLEAR.to_owned()),
        ("memfd", "in a message that was received without room for files", NOT_SEEN.to_owned()),
    ];
    compare(ctx, &made, &expected)?;
    remove(ctx)
}

/// Two processes receive each file at about the same time.
pub(super) fn of_clients_in_a_race(ctx: &mut Ctx) -> anyhow::Result<()> {
    const FILES: usize = 200;
    install(ctx, &[])?;
    let lines = [pair(SocketType::SEQPACKET)?, pair(SocketType::SEQPACKET)?];
    let [(to_left, left), (to_right, right)] = lines;
    let receiver = |name: &'static [u8], socket: OwnedFd| {
        Actor::start(name, move |stage| {
            let mut got = Vec::new();
            for _ in 0..FILES {
                poll(&mut [PollFd::new(&socket, PollFlags::IN)], None)?;
                let begun = now();
                let file = receive_any(&socket)?.pop().context("nothing came")?;
                // When it began and when it was over, in fields that nothing else uses here.
                got.push(Held { size: begun, charged: now(), ..Held::by_file(&file)? });
            }
            stage.pause(&got)
        })
    };
    let mut receivers = [receiver(b"left", left)?, receiver(b"right", right)?];
    let mut broker = Actor::start(b"broker", move |stage| {
        let files: Vec<OwnedFd> = (0..FILES).map(|_| memfd()).collect::<Result<_, _>>()?;
        for (nth, file) in files.iter().enumerate() {
            // Each of them is the first in half of the cases.
            let both = if nth % 2 == 0 { [&to_left, &to_right] } else { [&to_right, &to_left] };
            for socket in both {
                send_any(socket, &[file.as_fd()])?;
            }
        }
        stage.pause(&held_files(files.iter().map(AsFd::as_fd))?)
    })?;
    let made = broker.paused()?;
    let mut times = Vec::new();
    for receiver in &mut receivers {
        let got = receiver.paused()?;
        times.push(got.iter().map(|held| (held.ino, (held.size, held.charged))).collect::<BTreeMap<_, _>>());
    }
    let origins = Origins::ask(&mut lsbuf(&["--kind", "memfd"]))?;
    let names = [named("left", receivers[0].pid), named("right", receivers[1].pid)];
    let (mut decided, mut overlapping, mut unknown, mut wrong) = (0, 0, 0, Vec::new());
    for held in &made {
        let found = client(origins.of("memfd", held.ino)?);
        let [left, right] = [times[0][&held.ino], times[1][&held.ino]];
        if found.starts_with("unknown") {
            unknown += 1;
        } else if left.1 < right.0 || right.1 < left.0 {
            decided += 1;
            let first = usize::from(right.1 < left.0);
            if found != names[first] {
                wrong.push(format!("{}: {found} and not {}", held.ino, names[first]));
            }
        } else {
            overlapping += 1;
            if !names.contains(&found) {
                wrong.push(format!("{}: {found}", held.ino));
            }
        }
    }
    ctx.check_eq(
        format!("{decided} were received one after the other, {overlapping} at once, {unknown} are unknown"),
        "",
        wrong.join("; "),
    )?;
    ctx.check(format!("few are unknown: {unknown} of {FILES}"), unknown * 10 < FILES)?;
    remove(ctx)
}
