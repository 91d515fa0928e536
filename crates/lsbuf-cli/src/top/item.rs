//! What a row is about, whatever place it has in a list.
//!
//! The cursor stays with its item when the order changes, and each item has its trend.

use std::time::SystemTime;

use lsbuf::model::{Buffer, BufferId, Group, Kind, Pid, Process};

/// The identity of a row.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Item {
    /// A buffer, and when it was made: inode numbers of shared memory are used again.
    Buffer(BufferId, Option<SystemTime>),
    /// A process, and its start time: pids are used again.
    Process(Pid, u64),
    /// A group of buffers.
    Group(Group),
}

impl Item {
    pub(crate) fn of_buffer(buffer: &Buffer) -> Item {
        // The owner of a dma-buf can change its times, and its inode number is used once in a boot.
        let born = buffer.created_at.filter(|_| buffer.id.kind != Kind::DmaBuf);
        Item::Buffer(buffer.id, born)
    }

    pub(crate) fn of_process(process: &Process) -> Item {
        Item::Process(process.pid, process.start_time)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use lsbuf::model::Inode;

    use super::*;

    /// Check that a memfd with the inode number of a dead one is another item, and that a dma-buf
    /// whose times were changed is the same.
    #[test]
    fn births() {
        let item = |kind, seconds| {
            let mut buffer = Buffer::new(BufferId::new(kind, None, Inode(7)));
            buffer.created_at = Some(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
            Item::of_buffer(&buffer)
        };
        assert_ne!(item(Kind::Memfd, 1), item(Kind::Memfd, 2));
        assert_eq!(item(Kind::DmaBuf, 1), item(Kind::DmaBuf, 2));
    }
}
