//! One address space read, by whichever of the kernel's interfaces a scan uses.

use rustix::io::{Errno, Result};

use super::dmabuf_identity::DmaBufIdentity;
use crate::kernel::map_files::{self, LinkFact};
use crate::kernel::maps::{MapFact, MapsReader};
use crate::kernel::process::{Image, ProcessDir};
use crate::kernel::procmap::{self, VmaFilter};
use crate::kernel::shmem::{ShmMap, ShmemFinder};
use crate::model::{Label, Source};

/// How address spaces are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reader {
    /// The text of `maps`.
    Text,
    /// PROCMAP_QUERY.
    Query(VmaFilter),
    /// The links of `map_files`.
    Links,
}

impl Reader {
    /// What an answer says that it was made from.
    pub(super) fn source(self) -> Source {
        match self {
            Reader::Text => Source::Maps,
            Reader::Query(_) => Source::Procmap,
            Reader::Links => Source::MapFiles,
        }
    }
}

/// An address space as it was read.
pub(super) struct Space {
    image: Image,
    reader: Reader,
    alone: Option<ProcessDir>,
    pub(super) facts: Facts,
    /// Shared memory of the shmem family.
    pub(super) shmem: Vec<ShmMap>,
    /// How many could not be understood.
    pub(super) malformed: (Source, u64),
    /// Whether an io_uring is mapped.
    pub(super) ring: bool,
}

/// What looks like a dma-buf in an address space.
pub(super) enum Facts {
    Maps(Vec<MapFact>),
    Links(Vec<LinkFact>),
}

impl Default for Facts {
    fn default() -> Facts {
        Facts::Maps(Vec::new())
    }
}

impl Space {
    /// Reads the address space of `image`, whose `map_files` are in `process`. `None`: there is none.
    pub(super) fn read(
        process: &ProcessDir,
        image: Result<Image>,
        reader: Reader,
        identity: &mut DmaBufIdentity,
        finder: Option<&mut ShmemFinder>,
        text: &mut MapsReader,
    ) -> Result<Option<Space>> {
        let image = match image {
            Err(Errno::SRCH) => return Ok(None),
            image => image?,
        };
        let mapped = match reader {
            Reader::Text => match text.read(image.maps(), finder) {
                Err(Errno::SRCH) => None,
                mapped => mapped?,
            },
            Reader::Query(filter) => procmap::walk(image.maps(), filter, identity, finder)?,
            Reader::Links if !image.lives() => None,
            Reader::Links => {
                let (mut links, mut shmem) = (Vec::new(), Vec::new());
                let finder = finder.map(|finder| (finder, &mut shmem));
                let malformed = map_files::read(process.dir(), &mut links, finder)?;
                let (facts, malformed) = (Facts::Links(links), (reader.source(), malformed));
                return Ok(Some(Space { image, reader, alone: None, facts, shmem, malformed, ring: false }));
            }
        };
        Ok(mapped.map(|mapped| Space {
            image,
            reader,
            alone: None,
            facts: Facts::Maps(mapped.facts),
            shmem: mapped.shmem,
            malformed: (reader.source(), mapped.malformed),
            ring: mapped.ring,
        }))
    }

    /// The same, read through a thread, which is there as a process of its own too.
    pub(super) fn through(self, alone: Option<ProcessDir>) -> Space {
        Space { alone, ..self }
    }

    /// The directory with its `map_files`, if that is not its process's.
    pub(super) fn alone(&self) -> Option<&ProcessDir> {
        self.alone.as_ref()
    }

    /// Whether it is still in use.
    pub(super) fn lives(&self) -> bool {
        match self.reader {
            Reader::Text | Reader::Links => self.image.lives(),
            Reader::Query(_) => procmap::lives(self.image.maps()),
        }
    }

    /// The name that one of its mappings shows, whole and raw, where the fact lacks it; `process` has its `map_files`.
    pub(super) fn name(&self, process: &ProcessDir, fact: &MapFact) -> Option<Label> {
        match self.reader {
            Reader::Text | Reader::Links => map_files::name(process.dir(), &fact.vma),
            Reader::Query(_) => procmap::name(self.image.maps(), fact),
        }
    }
}
