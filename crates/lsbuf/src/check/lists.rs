//! Claims about the kernel's list of dma-bufs, debugfs `dma_buf/bufinfo`: which buffers are in it,
//! what it says, and that one with nothing but an `O_PATH` fd is not in it.
//!
//! Without BPF iterators, only this list shows buffers that no process holds.
//!
//! Limits: on most machines only root can read it; other users' checks skip these claims.

use std::os::fd::AsFd;

use dmabuf::{DmaBuf, MapMode, SealedMemfd};
use rustix::fs::{SealFlags, fcntl_add_seals};
use rustix::io::Errno;

use super::claim::Claim;
use super::judge::{Attempt, Fault, Tried, same, same_text, that};
use super::kit::{Kit, bytes, retried};
use crate::model::Inode;

pub(super) const CLAIMS: &[Claim] = &[
    Claim {
        id: "list-row",
        claim: "bufinfo lists a buffer with the size, exporter and count that its fdinfo has",
        means: "size, exporter or count of a buffer that no process holds is wrong",
        trial: |kit| kit.on_each_buffer(3, |buf| retried(|| row(kit, buf))),
    },
    Claim {
        id: "list-count",
        claim: "Its count equals that of fdinfo with a duplicate fd and a mapping, too",
        means: "size, exporter or count of a buffer that no process holds is wrong",
        trial: |kit| {
            kit.on_each_buffer(2, |buf| {
                let _more = (buf.try_clone()?, buf.map(MapMode::Read)?);
                retried(|| row(kit, buf))
            })
        },
    },
    Claim {
        id: "list-total",
        claim: "Its rows add up to its last line, and no two have the same inode number",
        means: "lsbuf says that the list contradicts itself, and its answers are partial",
        trial: total,
    },
    Claim {
        id: "list-drops",
        claim: "A buffer leaves the list when its last fd is closed",
        means: "freed buffers are shown as held by the kernel",
        trial: drops,
    },
    Claim {
        id: "list-mapped",
        claim: "A buffer that is only mapped stays listed, with count 1",
        means: "mapped buffers without an fd have no count, or are missed",
        trial: mapped,
    },
    Claim {
        id: "list-handle",
        claim: "A buffer that only an open GEM handle holds stays listed, with count 2",
        means: "buffers that leaked into a GEM handle are missed",
        trial: handle,
    },
    Claim {
        id: "list-import",
        claim: "A buffer that only an importer holds stays listed, with count 3",
        means: "buffers that leaked into an importer are missed",
        trial: import,
    },
    Claim {
        id: "list-attachment",
        claim: "The list names the device that imported a buffer",
        means: "lsbuf cannot name candidates for the kernel's references",
        trial: attachment,
    },
    Claim {
        id: "o-path-unlisted",
        claim: "A buffer that only an O_PATH fd holds is not in the list",
        means: "lsbuf has no count for such buffers, and calls them opath leaks although the kernel lists them",
        trial: o_path_unlisted,
    },
    Claim {
        id: "o-path-inode",
        claim: "The O_PATH fd still shows its inode number and size",
        means: "a buffer that only an O_PATH fd holds has no identity and no size",
        trial: o_path_inode,
    },
    Claim {
        id: "o-path-keeps-memory",
        claim: "The O_PATH fd keeps the buffer's memory until it is closed",
        means: "buffers that lsbuf calls opath leaks have been freed",
        trial: o_path_keeps_memory,
    },
];

fn row(kit: &Kit, buf: &DmaBuf) -> Tried {
    let (info, row) = (kit.info(buf)?, kit.row_of(kit.inode(buf)?.ino)?);
    same("size", info.size.0, row.size.0)?;
    same("count", info.count, row.count)?;
    same_text("exporter", info.exporter.as_bytes(), row.exporter.as_bytes())
}

fn total(kit: &Kit) -> Tried {
    let _bufs = kit.exporters().map(|exporter| kit.make(exporter, 2)).collect::<Result<Vec<_>, _>>()?;
    let list = kit.listed()?;
    that(list.agrees(), || format!("{} rows, and {:?} in the last line", list.buffers.len(), list.stated))
}

fn drops(kit: &Kit) -> Tried {
    kit.on_each(|exporter| {
        let buf = kit.make(exporter, 1)?;
        let ino = kit.inode(&buf)?.ino;
        kit.row_of(ino)?;
        drop(buf);
        gone(kit, ino)
    })
}

fn listed(kit: &Kit, ino: Inode, count: u64) -> Tried {
    retried(|| same("count", count, kit.row_of(ino)?.count))
}

fn gone(kit: &Kit, ino: Inode) -> Tried {
    retried(|| unlisted(kit.row(ino)?.map(|row| row.count)))
}

fn unlisted(count: Option<u64>) -> Tried {
    count.map_or(Ok(()), |count| Err(Fault::Broken(format!("still in bufinfo, with count {count}"))))
}

fn mapped(kit: &Kit) -> Tried {
    kit.on_each(|exporter| {
        let buf = kit.make(exporter, 1)?;
        let (_mapping, ino) = (buf.map(MapMode::Read)?, kit.inode(&buf)?.ino);
        drop(buf);
        listed(kit, ino, 1)
    })
}

fn handle(kit: &Kit) -> Tried {
    let dumb = Kit::make_gem(kit.vgem()?, 1)?;
    let buf = dumb.handle.export()?;
    let ino = kit.inode(&buf)?.ino;
    drop(buf);
    listed(kit, ino, 2)?;
    dumb.handle.close()?;
    gone(kit, ino)
}

fn import(kit: &Kit) -> Tried {
    let buf = kit.make_foreign()?;
    let ino = kit.inode(&buf)?.ino;
    let handle = kit.vgem()?.import(&buf)?;
    drop(buf);
    listed(kit, ino, 3)?;
    handle.close()?;
    gone(kit, ino)
}

fn attachment(kit: &Kit) -> Tried {
    let buf = kit.make_foreign()?;
    let ino = kit.inode(&buf)?.ino;
    let attached = || {
        let labels = kit.row_of(ino)?.attachments;
        let labels = labels.ok_or_else(|| Fault::Broken("devices that do not add up".to_owned()))?;
        Ok::<_, Fault>(
            labels.iter().map(|label| label.as_bytes().escape_ascii().to_string()).collect::<Vec<_>>(),
        )
    };
    let handle = kit.vgem()?.import(&buf)?;
    same("attached", "vgem".to_owned(), attached()?.join(", "))?;
    handle.close()?;
    same("attached after closing the handle", String::new(), attached()?.join(", "))
}

fn o_path_unlisted(kit: &Kit) -> Tried {
    kit.on_each(|exporter| {
        let buf = kit.make(exporter, 1)?;
        let (_path, ino) = (kit.path_fd(&buf)?, kit.inode(&buf)?.ino);
        kit.row_of(ino)?;
        drop(buf);
        gone(kit, ino)
    })
}

fn o_path_inode(kit: &Kit) -> Tried {
    kit.on_each(|exporter| {
        let buf = kit.make(exporter, 3)?;
        let (path, before) = (kit.path_fd(&buf)?, kit.inode(&buf)?);
        drop(buf);
        let after = kit.inode(&path)?;
        same("inode", before.ino, after.ino)?;
        same("st_size", before.size.0, after.size.0)
    })
}

/// A memfd cannot be sealed against writing while something else uses its pages
/// (`memfd_wait_for_pins` in mm/memfd.c), and a udmabuf uses them as long as it exists. So trying
/// to seal it tells whether the memory is still in use.
fn o_path_keeps_memory(kit: &Kit) -> Tried {
    let memfd = SealedMemfd::create("lsbuf check", bytes(1))?;
    let buf = kit.udmabuf()?.create(memfd.whole()?)?;
    let path = kit.path_fd(&buf)?;
    let seal = || fcntl_add_seals(memfd.as_fd(), SealFlags::WRITE);
    that(seal() == Err(Errno::BUSY), || "a buffer's memory could be sealed while it had an fd".to_owned())?;
    drop(buf);
    that(seal() == Err(Errno::BUSY), || "the memory was released".to_owned())?;
    drop(path);
    seal().attempt("sealing the memory after the O_PATH fd is closed")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check that a buffer that stays in the list is told from one that has left it.
    #[test]
    fn staying_is_found() {
        assert_eq!(unlisted(None), Ok(()));
        assert_eq!(unlisted(Some(3)), Err(Fault::Broken("still in bufinfo, with count 3".into())));
    }
}
