//! Claims about `count`: by how much each way to hold a buffer changes it, and that nothing else
//! does.
//!
//! KERNEL is this count less the references that lsbuf found, so each of them must count once.
//!
//! Limits: how many references an import or a GEM handle adds is tried with vgem alone; with other
//! drivers it may be another number.

use dmabuf::{DmaBuf, MapMode, share};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

use super::claim::Claim;
use super::judge::{Attempt, Tried, same};
use super::kit::{Kit, map, retried};

/// An exported GEM object with an open handle has its own reference and that of the device file's
/// PRIME cache.
const EXPORTED: u64 = 2;
/// An imported one has these and the attachment's.
const IMPORTED: u64 = 3;

const RESIDUAL: &str = "KERNEL is wrong, and with it which process seems to leak";

pub(super) const CLAIMS: &[Claim] = &[
    Claim {
        id: "count-fd",
        claim: "A buffer with one fd has count 1",
        means: RESIDUAL,
        trial: |kit| kit.on_each_buffer(1, |buf| counts(kit, buf, "with one fd", 1)),
    },
    Claim {
        id: "count-dup",
        claim: "A duplicate of the fd adds 1 until it is closed",
        means: RESIDUAL,
        trial: dup,
    },
    Claim {
        id: "count-child",
        claim: "An fd that a child process inherits adds 1 until it ends",
        means: RESIDUAL,
        trial: child,
    },
    Claim {
        id: "count-map",
        claim: "A mapping adds 1 until it is unmapped",
        means: "mappings of such buffers are not counted: they can be missed without the account showing it",
        trial: mapping,
    },
    Claim {
        id: "count-map-twice",
        claim: "A second mapping of the same buffer adds 1 again",
        means: "mappings of such buffers are not counted: they can be missed without the account showing it",
        trial: mapping_twice,
    },
    Claim {
        id: "count-unmap-half",
        claim: "Unmapping half of a mapping changes nothing",
        means: RESIDUAL,
        trial: unmap_half,
    },
    Claim {
        id: "count-split",
        claim: "Splitting a mapping into two VMAs adds 1",
        means: RESIDUAL,
        trial: split,
    },
    Claim {
        id: "count-in-flight",
        claim: "An fd in a message not yet received adds 1; once received it counts like any fd",
        means: "buffers in messages cannot be told from those that the kernel holds",
        trial: in_flight,
    },
    Claim {
        id: "count-gem-export",
        claim: "An exported GEM object holds its buffer by 2 references until its handle is closed",
        means: "what the number of kernel references says about GEM handles is wrong",
        trial: gem_export,
    },
    Claim {
        id: "count-gem-import",
        claim: "Importing a buffer into a DRM device adds 3 until the handle is closed",
        means: "what the number of kernel references says about importers is wrong",
        trial: gem_import,
    },
    Claim {
        id: "count-gem-import-again",
        claim: "Importing it into the same open device again adds nothing",
        means: "what the number of kernel references says about importers is wrong",
        trial: gem_import_again,
    },
    Claim {
        id: "count-gem-self-import",
        claim: "Importing a buffer into another open file of the device that made it adds 1",
        means: "what the number of kernel references says about importers is wrong",
        trial: gem_self_import,
    },
    Claim {
        id: "count-o-path",
        claim: "An O_PATH fd adds nothing",
        means: "accounts of buffers with O_PATH fds do not add up",
        trial: o_path,
    },
    Claim {
        id: "count-reader",
        claim: "Reading fdinfo does not change the count that it shows",
        means: "every count is too high by the number of its readers",
        trial: reader,
    },
];

fn counts(kit: &Kit, buf: &DmaBuf, when: &str, expected: u64) -> Tried {
    retried(|| same(format_args!("count {when}"), expected, kit.info(buf)?.count))
}

fn dup(kit: &Kit) -> Tried {
    kit.on_each_buffer(1, |buf| {
        let copy = buf.try_clone()?;
        counts(kit, buf, "with two fds", 2)?;
        drop(copy);
        counts(kit, buf, "after closing the second", 1)
    })
}

fn child(kit: &Kit) -> Tried {
    let buf = kit.make_any()?;
    let child = kit.child(&buf)?;
    counts(kit, &buf, "with an fd in a child", 2)?;
    drop(child);
    counts(kit, &buf, "after its end", 1)
}

fn mapping(kit: &Kit) -> Tried {
    kit.on_each_buffer(2, |buf| {
        let mapping = buf.map(MapMode::ReadWrite)?;
        counts(kit, buf, "with an fd and a mapping", 2)?;
        drop(mapping);
        counts(kit, buf, "after unmapping", 1)
    })
}

fn mapping_twice(kit: &Kit) -> Tried {
    kit.on_each_buffer(2, |buf| {
        let _mappings = (buf.map(MapMode::ReadWrite)?, buf.map(MapMode::Read)?);
        counts(kit, buf, "with an fd and two mappings", 3)
    })
}

fn unmap_half(kit: &Kit) -> Tried {
    kit.on_each_buffer(2, |buf| {
        let mut region = map(buf, 0, 2)?;
        let before = kit.info(buf)?.count;
        region.shrink(rustix::param::page_size()).attempt("unmapping half")?;
        counts(kit, buf, "with half a mapping", before)
    })
}

fn split(kit: &Kit) -> Tried {
    kit.on_each_buffer(2, |buf| {
        let mut region = map(buf, 0, 2)?;
        let before = kit.info(buf)?.count;
        region.split(rustix::param::page_size()).attempt("changing the protection of half")?;
        counts(kit, buf, "with a split mapping", before + 1)
    })
}

fn in_flight(kit: &Kit) -> Tried {
    kit.on_each_buffer(1, |buf| {
        let (here, there) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
                .attempt("making a socket")?;
        share::send(&here, &[buf], b"x")?;
        counts(kit, buf, "in flight", 2)?;
        let received = share::receive(&there, &mut [0; 1])?;
        counts(kit, buf, "received", 2)?;
        drop(received);
        counts(kit, buf, "after closing what was received", 1)
    })
}

fn gem_export(kit: &Kit) -> Tried {
    let dumb = Kit::make_gem(kit.vgem()?, 1)?;
    let buf = dumb.handle.export()?;
    counts(kit, &buf, "with one fd and the handle", 1 + EXPORTED)?;
    dumb.handle.close()?;
    counts(kit, &buf, "after closing the handle", 1)
}

fn gem_import(kit: &Kit) -> Tried {
    let buf = kit.make_foreign()?;
    let handle = kit.vgem()?.import(&buf)?;
    counts(kit, &buf, "with one fd and an import", 1 + IMPORTED)?;
    handle.close()?;
    counts(kit, &buf, "after closing the handle", 1)
}

fn gem_import_again(kit: &Kit) -> Tried {
    let buf = kit.make_foreign()?;
    let _handles = (kit.vgem()?.import(&buf)?, kit.vgem()?.import(&buf)?);
    counts(kit, &buf, "with one fd and an import made twice", 1 + IMPORTED)
}

fn gem_self_import(kit: &Kit) -> Tried {
    let dumb = Kit::make_gem(kit.vgem()?, 1)?;
    let buf = dumb.handle.export()?;
    let other = kit.vgem_again()?;
    let _handle = other.import(&buf)?;
    counts(kit, &buf, "with one fd, the handle and an import of the same device", 1 + EXPORTED + 1)
}

fn o_path(kit: &Kit) -> Tried {
    kit.on_each_buffer(1, |buf| {
        let _path = kit.path_fd(buf)?;
        counts(kit, buf, "with an O_PATH fd", 1)
    })
}

fn reader(kit: &Kit) -> Tried {
    kit.on_each_buffer(1, |buf| (0..3).try_for_each(|_| counts(kit, buf, "read again", 1)))
}
