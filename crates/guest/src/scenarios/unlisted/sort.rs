//! The two kinds of buffer of these scenarios: dma-bufs, whose references the kernel counts, and
//! memfds, whose open files must all be found to be counted.

use std::os::fd::OwnedFd;

use crate::actor::Held;
use crate::answer::Truth;
use crate::make;
use crate::scenario::Ctx;
use crate::scenarios::holding::{self, SIZE};
use crate::scenarios::shmem::kit::{Shm, ask_and_compare};

/// A kind of buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sort {
    Memfd,
    DmaBuf,
}

impl Sort {
    pub(super) const BOTH: [Sort; 2] = [Sort::Memfd, Sort::DmaBuf];

    /// The kind in lsbuf's JSON.
    pub(super) fn kind(self) -> &'static str {
        match self {
            Sort::Memfd => "memfd",
            Sort::DmaBuf => "dmabuf",
        }
    }

    /// Makes a buffer, and returns what this process then holds. A dma-buf gets no name.
    pub(super) fn make(self, name: &str) -> anyhow::Result<(OwnedFd, Held)> {
        match self {
            Sort::Memfd => {
                let fd = make::memfd(name.as_bytes(), 4, 1)?;
                let held = Held::by_file(&fd)?;
                Ok((fd, held))
            }
            Sort::DmaBuf => {
                let (buf, _) = make::plain(SIZE)?;
                let held = Held::by(&buf)?;
                Ok((buf.into(), held))
            }
        }
    }

    /// Compares the whole account of a buffer that these hold, and nobody else.
    pub(super) fn compare(self, ctx: &mut Ctx, name: &str, held: Vec<Held>) -> anyhow::Result<()> {
        match self {
            Sort::Memfd => ask_and_compare(ctx, &Shm::held("memfd", name, held)).map(drop),
            Sort::DmaBuf => holding::compare(ctx, &Truth::held(make::plain_exporter(), held)).map(drop),
        }
    }
}
