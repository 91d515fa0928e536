//! A made-up walk with the kernel's lists, for timing how a reading is made and assembled.

use super::assemble::assemble;
use super::dmabuf_identity::DmaBufIdentity;
use super::procfs::objects;
use super::shared::Shared;
use super::walk::{HeldFd, HeldMap, Walk};
use crate::kernel::bufinfo::{List, ListedBuffer};
use crate::kernel::fdinfo::{DmaBufInfo, Fdinfo};
use crate::kernel::fds::FdFact;
use crate::kernel::maps::MapFact;
use crate::model::{Bytes, Dev, Fd, Inode, Kinds, Label, MapRef, Perms, Pid};

/// What a walk would have found.
#[derive(Debug)]
pub struct Found {
    walk: Walk,
    list: List,
}

impl Found {
    /// `buffers` buffers, each held by `holders` of the processes, by one fd and one mapping.
    pub fn new(buffers: u32, processes: u32, holders: u32) -> Found {
        const SIZE: u64 = 16 << 10;
        let dev = Dev { major: 0, minor: 11 };
        let perms = Perms::parse(b"rw-s");
        let exporter = Label::from("system");
        let mut found = Found { walk: Walk::default(), list: List::default() };
        found.walk.identity = DmaBufIdentity::knowing(dev);
        for buffer in 0..buffers {
            let ino = Inode(u64::from(buffer) + 1);
            for holder in 0..holders {
                let pid = Pid(1 + (buffer * holders + holder) % processes);
                let start = 0x7f00_0000_0000 + u64::from(buffer) * SIZE;
                let count = u64::from(2 * holders);
                let dmabuf = DmaBufInfo {
                    size: Bytes(SIZE),
                    count,
                    exporter: exporter.clone(),
                    name: Label::default(),
                };
                let info = Fdinfo { mnt_id: 10, ino: Some(ino), path_only: false, dmabuf: Some(dmabuf) };
                let fact = FdFact { fd: Fd(buffer), link_name: None, info };
                found.walk.fds.push(HeldFd { pid, thread: None, ino, fact });
                let vma = MapRef { start, end: start + SIZE, offset: Some(0), perms };
                let fact = MapFact { dev, ino, name: Some(Label::default()), vma };
                found.walk.maps.push(HeldMap { pid, fact });
            }
            found.list.buffers.push(ListedBuffer {
                ino,
                size: Bytes(SIZE),
                count: u64::from(2 * holders),
                exporter: exporter.clone(),
                name: Some(Label::default()),
                attachments: Some(Vec::new()),
            });
        }
        found.list.stated = Some((buffers.into(), Bytes(SIZE * u64::from(buffers))));
        // In the order of a real walk: process by process.
        found.walk.fds.sort_by_key(|held| held.pid);
        found.walk.maps.sort_by_key(|held| held.pid);
        found
    }

    /// Makes a reading and assembles it; returns the number of references.
    pub fn join(&self) -> usize {
        let list = Some(&self.list);
        let mut reading =
            objects::read(&self.walk, Vec::new(), &Shared::default(), list, list, Kinds::DMABUF);
        let holders = assemble(&mut reading).into_iter().flat_map(|one| one.buffer.holders);
        holders.map(|holder| holder.fds.len() + holder.maps.len()).sum()
    }
}
