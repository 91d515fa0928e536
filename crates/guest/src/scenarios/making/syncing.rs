//! Sync files and polling: what an idle buffer gives, and what a kernel without the ioctls answers.
//!
//! Limits: no fence is pending here, because none of the exporters works by itself.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};

use anyhow::Context;
use dmabuf::{Direction, ErrorKind, SyncFile};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{FdFlags, fcntl_getfd};

use super::kit::{count, link, one_of_each, refused};
use crate::need::Need;
use crate::scenario::Ctx;

const DIRECTIONS: [Direction; 3] = [Direction::Read, Direction::Write, Direction::ReadWrite];

/// The events that are ready now.
fn ready(fd: impl AsFd, wanted: PollFlags) -> anyhow::Result<PollFlags> {
    let mut fds = [PollFd::new(&fd, wanted)];
    poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).context("polling")?;
    Ok(fds[0].revents())
}

/// An idle buffer is ready. So is a sync file that is exported from it, which can be imported
/// again.
pub(super) fn idle(ctx: &mut Ctx) -> anyhow::Result<()> {
    let both = PollFlags::IN | PollFlags::OUT;
    for (exporter, buf) in one_of_each(1)? {
        for direction in DIRECTIONS {
            let file = buf.export_sync_file(direction)?;
            let what = format!("{exporter}: {direction:?}");
            ctx.check_eq(format!("{what}: link"), "anon_inode:sync_file", link(&file)?.escape_ascii())?;
            ctx.check(format!("{what}: close-on-exec"), fcntl_getfd(&file)?.contains(FdFlags::CLOEXEC))?;
            ctx.check(format!("{what}: signalled"), ready(&file, PollFlags::IN)? == PollFlags::IN)?;
            let imported = buf.import_sync_file(direction, &file).map_err(|error| error.kind());
            ctx.check_eq(format!("{what}: imported"), "Ok(())", format!("{imported:?}"))?;
            ctx.check(format!("{what}: the buffer is ready"), ready(&buf, both)?.intersects(both))?;
            ctx.check_eq(format!("{what}: count"), 1, count(&buf)?)?;
        }
        let null: OwnedFd = File::open("/dev/null").context("opening /dev/null")?.into();
        let itself: OwnedFd = buf.try_clone()?.into();
        for (what, fd) in [("/dev/null", null), ("the buffer itself", itself)] {
            let imported = buf.import_sync_file(Direction::Read, &SyncFile::from(fd));
            refused(ctx, &format!("{exporter}: {what} as a sync file"), ErrorKind::NotSyncFile, imported)?;
        }
    }
    Ok(())
}

/// The ioctls work if the kernel's code has them. Otherwise the error says that they are missing.
pub(super) fn offered(ctx: &mut Ctx) -> anyhow::Result<()> {
    let expected = if Need::SyncFile.probe() {
        "Ok(())".to_owned()
    } else {
        format!("Err({:?})", ErrorKind::Unsupported)
    };
    for (exporter, buf) in one_of_each(1)? {
        let exported = buf.export_sync_file(Direction::Read).map(drop);
        if let Err(error) = &exported {
            ctx.check(format!("{error} names the option"), error.to_string().contains("CONFIG_SYNC_FILE"))?;
        }
        let exported = exported.map_err(|error| error.kind());
        ctx.check_eq(format!("{exporter}: exporting"), &expected, format!("{exported:?}"))?;
        // The descriptor is not a sync file. A kernel that has the ioctl gets as far as examining
        // it.
        let null = SyncFile::from(OwnedFd::from(File::open("/dev/null")?));
        let kind = if Need::SyncFile.probe() { ErrorKind::NotSyncFile } else { ErrorKind::Unsupported };
        refused(ctx, &format!("{exporter}: importing"), kind, buf.import_sync_file(Direction::Read, &null))?;
    }
    Ok(())
}

/// Polling an idle buffer returns at once, as readable and writable.
pub(super) fn poll_idle(ctx: &mut Ctx) -> anyhow::Result<()> {
    for (exporter, buf) in one_of_each(1)? {
        for wanted in [PollFlags::IN, PollFlags::OUT] {
            let found = ready(&buf, wanted)?;
            ctx.check_eq(format!("{exporter}: ready"), format!("{wanted:?}"), format!("{found:?}"))?;
        }
        ctx.check_eq(format!("{exporter}: count"), 1, count(&buf)?)?;
    }
    Ok(())
}
