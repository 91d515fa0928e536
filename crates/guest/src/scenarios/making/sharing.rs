//! Sharing: what arrives over each kind of socket, in this process and in another one, and what is
//! refused.

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;

use anyhow::{Context, ensure};
use dmabuf::{DmaBuf, ErrorKind, share};
use rustix::fs::{Mode, OFlags, open};
use rustix::io::{FdFlags, fcntl_getfd};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::process::{Pid, Resource, Rlimit, WaitOptions, getrlimit, setrlimit, waitpid};
use rustix::thread::set_thread_res_uid;

use super::kit::{
    count, descriptors, link, one_of_each, pattern, read_all, refused, with_room_for, write_at,
};
use crate::scenario::Ctx;
use crate::sys;

const KINDS: [(&str, SocketType); 3] =
    [("seqpacket", SocketType::SEQPACKET), ("stream", SocketType::STREAM), ("datagram", SocketType::DGRAM)];

fn pair(kind: SocketType) -> anyhow::Result<(OwnedFd, OwnedFd)> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    socketpair(AddressFamily::UNIX, kind, flags, None).context("making a pair of sockets")
}

/// Several buffers arrive in order, whole and close-on-exec, and each has one reference while in
/// flight.
pub(super) fn sockets(ctx: &mut Ctx) -> anyhow::Result<()> {
    for (socket, kind) in KINDS {
        let mut bufs = one_of_each(1)?;
        bufs.extend(one_of_each(2)?);
        let sent: Vec<&DmaBuf> = bufs.iter().map(|(_, buf)| buf).collect();
        let (here, there) = pair(kind)?;
        share::send(&here, &sent, b"payload")?;
        for (exporter, buf) in &bufs {
            ctx.check_eq(format!("{socket}: count of {exporter} in flight"), 1 + 1, count(buf)?)?;
        }
        let mut payload = [0; 16];
        let received = share::receive(&there, &mut payload)?;
        ctx.check_eq(
            format!("{socket}: payload"),
            "payload",
            payload[..received.payload_len].escape_ascii(),
        )?;
        let identities = |bufs: &[&DmaBuf]| -> anyhow::Result<String> {
            let all: Result<Vec<_>, _> = bufs.iter().map(|buf| buf.identity()).collect();
            Ok(format!("{:?}", all?))
        };
        let arrived: Vec<&DmaBuf> = received.bufs.iter().collect();
        ctx.check_eq(format!("{socket}: identities in order"), identities(&sent)?, identities(&arrived)?)?;
        for (index, (exporter, buf)) in bufs.iter().enumerate() {
            let copy = received.bufs.get(index).context("a buffer did not arrive")?;
            let cloexec = fcntl_getfd(copy)?.contains(FdFlags::CLOEXEC);
            ctx.check(format!("{socket}: {exporter} is close-on-exec"), cloexec)?;
            ctx.check_eq(format!("{socket}: count of {exporter} received"), 1 + 1, count(buf)?)?;
            write_at(copy, 5, b"both")?;
            ctx.check_eq(
                format!("{socket}: {exporter}'s bytes"),
                "both",
                read_all(buf)?[5..9].escape_ascii(),
            )?;
        }
        // A receiver has the same rights as the sender, so it may rename the buffer.
        arrived.iter().try_for_each(|buf| buf.set_name("received"))?;
        for (exporter, buf) in &bufs {
            let what = format!("{socket}: {exporter} renamed by the receiver");
            ctx.check_eq(what, "/dmabuf:received", link(buf)?.escape_ascii())?;
        }
    }
    Ok(())
}

/// Another process uses the same memory and the same name.
pub(super) fn another_process(ctx: &mut Ctx) -> anyhow::Result<()> {
    for (exporter, buf) in one_of_each(1)? {
        let (here, there) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        // Forked before the buffer is sent: the child inherits a descriptor, and receives another
        // one.
        let child = sys::fork(|| match answer(&there) {
            Ok(()) => 0,
            Err(error) => {
                eprintln!("child: {error:#}");
                1
            }
        })?;
        write_at(&buf, 0, b"question")?;
        share::send(&here, &[&buf], b"?")?;
        let ended = waitpid(Pid::from_raw(i32::try_from(child)?), WaitOptions::empty()).context("waiting")?;
        let status = ended.and_then(|(_, status)| status.exit_status());
        ctx.check_eq(format!("{exporter}: the child's status"), "Some(0)", format!("{status:?}"))?;
        ctx.check_eq(format!("{exporter}: its bytes"), "answer!!", read_all(&buf)?[..8].escape_ascii())?;
        ctx.check_eq(format!("{exporter}: its name"), "/dmabuf:answered", link(&buf)?.escape_ascii())?;
        ctx.check_eq(format!("{exporter}: count after it"), 1, count(&buf)?)?;
    }
    Ok(())
}

fn answer(socket: &OwnedFd) -> anyhow::Result<()> {
    let received = share::receive(socket, &mut [0; 8])?;
    let [buf] = &received.bufs[..] else { anyhow::bail!("{} buffers arrived", received.bufs.len()) };
    ensure!(read_all(buf)?.starts_with(b"question"), "other bytes arrived");
    write_at(buf, 0, b"answer!!")?;
    Ok(buf.set_name("answered")?)
}

/// A message can have 253 buffers; with one more it is refused.
pub(super) fn most(ctx: &mut Ctx) -> anyhow::Result<()> {
    let (_, buf) = one_of_each(1)?.pop().context("no exporter")?;
    for (socket, kind) in KINDS {
        let (here, there) = pair(kind)?;
        share::send(&here, &[&buf; share::MAX_BUFS], b"x")?;
        let received = share::receive(&there, &mut [0; 1])?;
        ctx.check_eq(format!("{socket}: buffers"), share::MAX_BUFS, received.bufs.len())?;
        ctx.check_eq(format!("{socket}: count"), 1 + share::MAX_BUFS, count(&buf)?)?;
        drop(received);
        ctx.check_eq(format!("{socket}: count once they are dropped"), 1, count(&buf)?)?;
    }
    let (here, _there) = pair(SocketType::SEQPACKET)?;
    let sent = share::send(&here, &[&buf; share::MAX_BUFS + 1], b"x");
    refused(ctx, "one more", ErrorKind::TooManyBuffers, sent).map(drop)
}

/// On a stream, a payload that does not fit at once follows in parts. The buffers come with the
/// first part.
pub(super) fn long_stream(ctx: &mut Ctx) -> anyhow::Result<()> {
    let (_, buf) = one_of_each(1)?.pop().context("no exporter")?;
    let (here, mut there) = UnixStream::pair().context("making a pair of sockets")?;
    let bytes = pattern(11, 3 << 20);
    std::thread::scope(|scope| {
        let sender = scope.spawn(|| {
            let sent = share::send(&here, &[&buf], &bytes).map_err(|error| error.kind());
            // This ends the stream, so that the receiver cannot wait forever.
            drop(here);
            sent
        });
        let mut found = vec![0; bytes.len()];
        let received = share::receive(&there, &mut found)?;
        found.truncate(received.payload_len);
        there.read_to_end(&mut found)?;
        let same = received.bufs.first().map(DmaBuf::identity).transpose()? == Some(buf.identity()?);
        ctx.check("the buffer came with the first part", same)?;
        ctx.check("all bytes came, in order", found == bytes)?;
        let sent = sender.join().map_err(|_| anyhow::anyhow!("the sender panicked"))?;
        ctx.check_eq("the sender", "Ok(())", format!("{sent:?}"))
    })
}

/// Fds that are not usable dma-bufs are refused on receipt, and none stays open.
pub(super) fn refusals(ctx: &mut Ctx) -> anyhow::Result<()> {
    let (_, buf) = one_of_each(1)?.pop().context("no exporter")?;
    let null = File::open("/dev/null").context("opening /dev/null")?;
    let path = format!("/proc/self/fd/{}", buf.as_fd().as_raw_fd());
    let path_only =
        open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).context("opening with O_PATH")?;
    for (socket, kind) in KINDS {
        let (here, there) = pair(kind)?;
        let before = descriptors()?;
        sys::send_any(&here, &[buf.as_fd(), null.as_fd(), buf.as_fd()])?;
        let message = refused(
            ctx,
            &format!("{socket}: another file"),
            ErrorKind::NotDmaBuf,
            share::receive(&there, &mut [0; 8]),
        )?;
        ctx.check(format!("{message:?} says which"), message.contains("descriptor 2 of 3"))?;
        sys::send_any(&here, &[path_only.as_fd()])?;
        let received = share::receive(&there, &mut [0; 8]);
        refused(ctx, &format!("{socket}: a dma-buf with O_PATH"), ErrorKind::PathOnly, received)?;
        ctx.check_eq(format!("{socket}: descriptors are closed"), before, descriptors()?)?;
        ctx.check_eq(format!("{socket}: count"), 1, count(&buf)?)?;
        let received = share::receive(&there, &mut [0; 8]);
        refused(ctx, &format!("{socket}: nothing there"), ErrorKind::WouldBlock, received)?;
    }
    Ok(())
}

/// Descriptors that the kernel had to drop are an error, and those that arrived are closed.
pub(super) fn lost(ctx: &mut Ctx) -> anyhow::Result<()> {
    let (_, buf) = one_of_each(1)?.pop().context("no exporter")?;
    for (socket, kind) in KINDS {
        let (here, there) = pair(kind)?;
        let before = descriptors()?;
        for room in [0, 1, 5] {
            share::send(&here, &[&buf; 6], b"x")?;
            let received = with_room_for(room, || share::receive(&there, &mut [0; 8]))?;
            let what = format!("{socket}: 6 buffers with room for {room}");
            let message = refused(ctx, &what, ErrorKind::Truncated, received)?;
            ctx.check(
                format!("{message:?} says how many arrived"),
                message.contains(&format!("({room} arrived)")),
            )?;
        }
        ctx.check_eq(format!("{socket}: descriptors are closed"), before, descriptors()?)?;
        ctx.check_eq(format!("{socket}: count"), 1, count(&buf)?)?;
    }
    Ok(())
}

/// What a socket refuses has its own error kind.
pub(super) fn socket_errors(ctx: &mut Ctx) -> anyhow::Result<()> {
    let (_, buf) = one_of_each(1)?.pop().context("no exporter")?;
    for (socket, kind) in KINDS {
        let (here, there) = pair(kind)?;
        if kind != SocketType::STREAM {
            let sent = share::send(&here, &[&buf], &vec![0; 16 << 20]);
            refused(ctx, &format!("{socket}: 16 MiB"), ErrorKind::InvalidPayload, sent)?;
            share::send(&here, &[&buf], b"four")?;
            let received = share::receive(&there, &mut [0; 3]);
            refused(ctx, &format!("{socket}: a short payload buffer"), ErrorKind::Truncated, received)?;
        }
        ctx.check_eq(format!("{socket}: count"), 1, count(&buf)?)?;
        let mut full = Ok(());
        // Far more messages than any socket's buffer can hold.
        for _ in 0..100_000 {
            full = share::send(&here, &[], &[0; 1024]);
            if full.is_err() {
                break;
            }
        }
        refused(ctx, &format!("{socket}: full"), ErrorKind::WouldBlock, full)?;
        drop(there);
        let received = share::receive(&here, &mut [0; 8]);
        // A datagram's receiver is not told.
        let expected =
            if kind == SocketType::DGRAM { ErrorKind::WouldBlock } else { ErrorKind::Disconnected };
        refused(ctx, &format!("{socket}: receiving once closed"), expected, received)?;
        let sent = share::send(&here, &[&buf], b"x");
        refused(ctx, &format!("{socket}: closed"), ErrorKind::Disconnected, sent)?;
        ctx.check_eq(format!("{socket}: count at last"), 1, count(&buf)?)?;
    }
    Ok(())
}

/// A user's descriptors in flight are limited.
pub(super) fn too_many_in_flight(ctx: &mut Ctx) -> anyhow::Result<()> {
    let (_, buf) = one_of_each(1)?.pop().context("no exporter")?;
    let (here, _there) = pair(SocketType::STREAM)?;
    let user = rustix::process::Uid::from_raw(1000);
    let old = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: Some(32), ..old }).context("lowering the limit")?;
    // Root is exempt from the limit.
    set_thread_res_uid(user, user, user).context("becoming another user")?;
    let mut sent = Ok(());
    for _ in 0..32 {
        sent = share::send(&here, &[&buf; 16], b"x");
        if sent.is_err() {
            break;
        }
    }
    refused(ctx, "more than 32 in flight", ErrorKind::OutOfDescriptors, sent).map(drop)
}
