//! Claims about a buffer's inode: size, device, filesystem, creator, time of creation.
//!
//! lsbuf reads these where fdinfo does not show them, and knows dma-bufs by device and filesystem.
//!
//! Limits: a creation time counts as right if it is between the times before and after making the
//! buffer.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

use dmabuf::DmaBuf;
use rustix::fs::{Stat, fstat, fstatfs};
use rustix::time::{ClockId, Timespec, clock_gettime};

use super::claim::Claim;
use super::judge::{Attempt, Fault, Tried, same, that};
use super::kit::{Kit, bytes};
use crate::kernel::magic;
use crate::model::Dev;

pub(super) const CLAIMS: &[Claim] = &[
    Claim {
        id: "inode-size",
        claim: "st_size is the buffer's size",
        means: "sizes are wrong wherever fdinfo cannot be read: for mapped and O_PATH holders",
        trial: size,
    },
    Claim {
        id: "inode-blocks",
        claim: "st_blocks*512 is the buffer's size",
        means: "du and other users of st_blocks disagree with lsbuf, which does not use it",
        trial: |kit| {
            kit.on_each_buffer(3, |buf| {
                same("st_blocks*512", bytes(3), stat(buf)?.st_blocks.unsigned_abs() * 512)
            })
        },
    },
    Claim {
        id: "inode-device",
        claim: "All buffers of all exporters are on one device, with major number 0",
        means: "a mapping's device does not prove that it is a dma-buf: mapped buffers are missed",
        trial: device,
    },
    Claim {
        id: "filesystem-magic",
        claim: "The filesystem is dma-buf's own, 0x444d4142",
        means: "nothing proves that a file called /dmabuf: is one: O_PATH and mapped buffers are missed",
        trial: |kit| kit.on_each_buffer(1, |buf| magic(fstatfs(buf).attempt("fstatfs")?.f_type)),
    },
    Claim {
        id: "filesystem-unmounted",
        claim: "Neither its device nor its mount is in a mount table",
        means: "real buffers are taken for ordinary files on a mounted filesystem and missed",
        trial: unmounted,
    },
    Claim {
        id: "inode-mode",
        claim: "st_mode is 0600 without a file type",
        means: "O_PATH and mapped buffers are taken for ordinary files and missed",
        trial: |kit| kit.on_each_buffer(1, |buf| mode(stat(buf)?.st_mode)),
    },
    Claim {
        id: "inode-creator",
        claim: "st_uid is the user who made the buffer",
        means: "the creator that lsbuf shows is not who made the buffer",
        trial: |kit| {
            let user = rustix::process::geteuid().as_raw();
            kit.on_each_buffer(1, |buf| same("st_uid", user, kit.inode(buf)?.creator_uid))
        },
    },
    Claim {
        id: "inode-created",
        claim: "The inode's times are when the buffer was made, and stay when it is used",
        means: "the age that lsbuf shows is unknown or wrong",
        trial: created,
    },
];

fn stat(buf: &DmaBuf) -> Result<Stat, Fault> {
    fstat(buf).attempt("fstat")
}

fn size(kit: &Kit) -> Tried {
    kit.on_each(|exporter| {
        [1, 2, 5].iter().try_for_each(|&pages| {
            let buf = kit.make(exporter, pages)?;
            same("st_size", bytes(pages), kit.inode(&buf)?.size.0)
        })
    })
}

fn device(kit: &Kit) -> Tried {
    let of = |exporter| Ok(kit.inode(&kit.make(exporter, 1)?)?.dev);
    // Each exporter twice, which reveals one with a device for each buffer.
    let devs = kit.exporters().chain(kit.exporters()).map(of).collect::<Result<BTreeSet<Dev>, Fault>>()?;
    one_device(&devs)
}

fn one_device(devs: &BTreeSet<Dev>) -> Tried {
    let all: Vec<String> = devs.iter().map(ToString::to_string).collect();
    that(devs.len() == 1 && devs.iter().all(|dev| dev.major == 0), || format!("devices {}", all.join(", ")))
}

fn magic(magic: i64) -> Tried {
    same("f_type", format!("{:#x}", magic::DMA_BUF), format!("{magic:#x}"))
}

fn unmounted(kit: &Kit) -> Tried {
    let mounts = kit.mounts()?;
    that(!mounts.is_empty(), || "no mounts at all".to_owned())?;
    kit.on_each_buffer(1, |buf| not_among(&mounts, kit.fdinfo(buf)?.mnt_id, kit.inode(buf)?.dev))
}

fn not_among(mounts: &[(u64, Dev)], mount: u64, dev: Dev) -> Tried {
    let found = mounts.iter().find(|(id, device)| *id == mount || *device == dev);
    that(found.is_none(), || format!("mount {mount} or device {dev} is mounted"))
}

fn mode(mode: u32) -> Tried {
    same("st_mode", format!("{:o}", 0o600), format!("{mode:o}"))
}

fn created(kit: &Kit) -> Tried {
    kit.on_each(|exporter| {
        // Inodes get their time from the coarse clock, which is behind the precise one.
        let begin = clock_gettime(ClockId::RealtimeCoarse);
        let buf = kit.make(exporter, 1)?;
        let end = clock_gettime(ClockId::Realtime);
        buf.set_name("x")?;
        drop(buf.map(dmabuf::MapMode::Read)?);
        within(kit.inode(&buf)?.created_at, time(begin), time(end))
    })
}

fn time(at: Timespec) -> SystemTime {
    let since = Duration::new(at.tv_sec.unsigned_abs(), u32::try_from(at.tv_nsec).unwrap_or(0));
    SystemTime::UNIX_EPOCH + since
}

fn within(created: Option<SystemTime>, begin: SystemTime, end: SystemTime) -> Tried {
    let held = created.is_some_and(|at| (begin..=end).contains(&at));
    let shown = |at: SystemTime| at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs_f64();
    that(held, || {
        let created = created.map_or("at no time, or several".to_owned(), |at| format!("{:.6}", shown(at)));
        format!("created {created}, made between {:.6} and {:.6}", shown(begin), shown(end))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dev(major: u32, minor: u32) -> Dev {
        Dev { major, minor }
    }

    /// Check that a second device, or a block device's number, makes the claim false.
    #[test]
    fn devices_are_judged() {
        assert_eq!(one_device(&[dev(0, 12)].into()), Ok(()));
        assert!(one_device(&[dev(0, 12), dev(0, 13)].into()).is_err());
        assert!(one_device(&[dev(8, 1)].into()).is_err());
        assert!(one_device(&BTreeSet::new()).is_err());
    }

    /// Check that a mounted device or mount makes the claim false.
    #[test]
    fn mounts_are_judged() {
        let mounts = [(36, dev(0, 27))];
        assert_eq!(not_among(&mounts, 10, dev(0, 12)), Ok(()));
        assert!(not_among(&mounts, 36, dev(0, 12)).is_err());
        assert!(not_among(&mounts, 10, dev(0, 27)).is_err());
    }

    /// Check that another filesystem, or an inode with a file type, makes its claim false.
    #[test]
    fn kinds_are_judged() {
        assert_eq!((magic(0x444d_4142), mode(0o600)), (Ok(()), Ok(())));
        assert!(magic(0x0102_1994).is_err());
        assert!(mode(0o100_600).is_err() && mode(0o666).is_err());
    }

    /// Check that a time too early, too late or unknown makes the claim false.
    #[test]
    fn times_are_judged() {
        let at = |s| SystemTime::UNIX_EPOCH + Duration::from_secs(s);
        assert_eq!(within(Some(at(5)), at(5), at(6)), Ok(()));
        for created in [None, Some(at(4)), Some(at(7))] {
            assert!(within(created, at(5), at(6)).is_err());
        }
    }
}
