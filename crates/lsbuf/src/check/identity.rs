//! Claims about identity: each buffer has one inode, and every way to the buffer leads to it.
//!
//! lsbuf tells buffers apart by inode number; two buffers with one number would become one row.
//!
//! Limits: this is tried with some hundred buffers at a time and a thousand in all.

use std::collections::HashSet;

use dmabuf::{DmaBuf, share};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::pipe::pipe;

use super::claim::Claim;
use super::judge::{Attempt, Fault, Tried, same, that};
use super::kit::Kit;
use crate::model::Inode;

pub(super) const CLAIMS: &[Claim] = &[
    Claim {
        id: "inode-unique",
        claim: "Buffers that exist together, of all exporters, have inode numbers of their own",
        means: "two buffers can be taken for one: sizes and counts of either are wrong",
        trial: unique,
    },
    Claim {
        id: "inode-own-counter",
        claim: "The numbers come from a counter that only dma-bufs use",
        means: "numbers come from a 32-bit counter that pipes, sockets and others share: after it wraps, two \
                buffers can have one number, and be taken for one",
        trial: own_counter,
    },
    Claim {
        id: "inode-not-reused",
        claim: "Of 1000 buffers made and freed, none gets a number again, nor that of one that still exists",
        means: "a number names different buffers over time: snapshots cannot be compared by it",
        trial: not_reused,
    },
    Claim {
        id: "inode-through-dup",
        claim: "A duplicate of an fd has the same inode",
        means: "one buffer is counted once for each fd",
        trial: through_dup,
    },
    Claim {
        id: "inode-through-child",
        claim: "A child process sees the same inode through an inherited fd",
        means: "a buffer that a child inherits is counted as another",
        trial: |kit| {
            let buf = kit.make_any()?;
            kit.child(&buf)?.sees(&buf)
        },
    },
    Claim {
        id: "inode-through-socket",
        claim: "A process that is sent the fd over a socket sees the same inode",
        means: "a buffer that is handed on, as every shared one is, is counted as another",
        trial: |kit| {
            let buf = kit.make_any()?;
            kit.child(&buf)?.takes(&buf)
        },
    },
    Claim {
        id: "inode-through-own-socket",
        claim: "An fd that comes back over a socket has the same inode",
        means: "a buffer that is handed on is counted as another",
        trial: through_socket,
    },
];

/// Enough to reveal a faulty counter, and few enough for the usual limit of 1024 fds.
const MANY: u64 = 200;

fn unique(kit: &Kit) -> Tried {
    let mut bufs: Vec<DmaBuf> = Vec::new();
    for exporter in kit.exporters() {
        for _ in 0..MANY {
            bufs.push(kit.make(exporter, 1)?);
        }
    }
    let inos = bufs.iter().map(|buf| Ok(kit.inode(buf)?.ino)).collect::<Result<Vec<Inode>, Fault>>()?;
    distinct(inos)
}

fn distinct(inos: impl IntoIterator<Item = Inode>) -> Tried {
    let mut seen = HashSet::new();
    for ino in inos {
        that(seen.insert(ino), || format!("number {ino} is there twice"))?;
    }
    Ok(())
}

/// How many other files are made: if the counter were shared (`get_next_ino` in fs/inode.c), they
/// would take their numbers from it.
const OTHERS: u64 = 200;

fn own_counter(kit: &Kit) -> Tried {
    // More than one time, since a shared counter gives each processor a batch of numbers: after a
    // move to another processor they can look near by chance.
    let attempt = || {
        let before = kit.inode(&kit.make_any()?)?.ino;
        for _ in 0..OTHERS / 2 {
            pipe().attempt("making a pipe")?;
            socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)
                .attempt("making a socket")?;
        }
        Ok((before, kit.inode(&kit.make_any()?)?.ino))
    };
    let attempts = (0..4).map(|_| attempt()).collect::<Result<Vec<_>, Fault>>()?;
    near(&attempts)
}

/// Whether the numbers before and after are nearer than the number of files that were made in
/// between.
fn near(attempts: &[(Inode, Inode)]) -> Tried {
    for &(before, after) in attempts {
        that(before < after && after.0 - before.0 < OTHERS, || {
            format!("number {before}, and after {OTHERS} pipes and sockets {after}")
        })?;
    }
    Ok(())
}

fn not_reused(kit: &Kit) -> Tried {
    kit.on_each(|exporter| {
        let held = kit.make(exporter, 1)?;
        let freed = (0..1000).map(|_| Ok(kit.inode(&kit.make(exporter, 1)?)?.ino));
        let mut inos = freed.collect::<Result<Vec<Inode>, Fault>>()?;
        inos.push(kit.inode(&held)?.ino);
        distinct(inos)
    })
}

fn through_dup(kit: &Kit) -> Tried {
    kit.on_each_buffer(1, |buf| same_buffer(kit, buf, &buf.try_clone()?))
}

fn through_socket(kit: &Kit) -> Tried {
    kit.on_each_buffer(1, |buf| {
        let (here, there) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
                .attempt("making a socket")?;
        share::send(&here, &[buf], b"x")?;
        let received = share::receive(&there, &mut [0; 1])?;
        same("buffers received", 1, received.bufs.len())?;
        received.bufs.iter().try_for_each(|copy| same_buffer(kit, buf, copy))
    })
}

fn same_buffer(kit: &Kit, one: &DmaBuf, other: &DmaBuf) -> Tried {
    let (one, other) = (kit.inode(one)?, kit.inode(other)?);
    same("inode", one.ino, other.ino)?;
    same("device", one.dev, other.dev)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check that a number that occurs twice makes the claim false, and is named.
    #[test]
    fn repeated_numbers_are_found() {
        assert_eq!(distinct([1, 2, 3].map(Inode)), Ok(()));
        assert_eq!(distinct([7, 2, 7].map(Inode)), Err(Fault::Broken("number 7 is there twice".into())));
    }

    /// Check that a shared counter is noticed: by a leap, and by a step back to another processor's
    /// batch.
    #[test]
    fn shared_counters_are_found() {
        let attempts =
            |pairs: &[(u64, u64)]| -> Vec<_> { pairs.iter().map(|&(a, b)| (Inode(a), Inode(b))).collect() };
        assert_eq!(near(&attempts(&[(1, 2), (3, 9)])), Ok(()));
        assert!(near(&attempts(&[(1, 2), (8134, 8335)])).is_err());
        assert!(near(&attempts(&[(1, 2), (9000, 8800)])).is_err());
        assert!(near(&attempts(&[(1, 1)])).is_err());
    }
}
