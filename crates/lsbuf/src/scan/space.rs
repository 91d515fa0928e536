//! Reads one address space, by any of the kernel's three interfaces: the text of `maps`,
//! PROCMAP_QUERY or the links of `map_files`.
//!
//! They differ in cost, in the rights that they need and in how they write names; a walk need not
//! know which one is used.
//!
//! Limits: a link of `map_files` tells nothing but a name until it is followed.

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
    /// The source that an answer lists for it.
    pub(super) fn source(self) -> Source {
        match self {
            Reader::Text => Source::Maps,
            Reader::Query(_) => Source::Procmap,
            Reader::Links => Source::MapFiles,
        }
    }
}

/// An address space that was read.
pub(super) struct Space {
    image: Image,
    reader: Reader,
    thread_dir: Option<ProcessDir>,
    pub(super) facts: Facts,
    /// The shared memory in it.
    pub(super) shmem: Vec<ShmMap>,
    /// How many mappings could not be parsed, and by which source.
    pub(super) malformed: (Source, u64),
    /// Whether an io_uring is mapped.
    pub(super) ring: bool,
}

/// The mappings that look like a dma-buf's.
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
    /// Reads the address space of `image`; `process` is the directory with its `map_files`. `None`:
    /// the process has no address space.
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
                return Ok(Some(Space {
                    image,
                    reader,
                    thread_dir: None,
                    facts,
                    shmem,
                    malformed,
                    ring: false,
                }));
            }
        };
        Ok(mapped.map(|mapped| Space {
            image,
            reader,
            thread_dir: None,
            facts: Facts::Maps(mapped.facts),
            shmem: mapped.shmem,
            malformed: (reader.source(), mapped.malformed),
            ring: mapped.ring,
        }))
    }

    /// The same address space, read through a thread; `thread_dir` is the thread's own directory in
    /// `/proc`.
    pub(super) fn through(self, thread_dir: Option<ProcessDir>) -> Space {
        Space { thread_dir, ..self }
    }

    /// The directory with its `map_files`, if that is a thread's.
    pub(super) fn thread_dir(&self) -> Option<&ProcessDir> {
        self.thread_dir.as_ref()
    }

    /// Whether the process still uses this address space.
    pub(super) fn lives(&self) -> bool {
        match self.reader {
            Reader::Text | Reader::Links => self.image.lives(),
            Reader::Query(_) => procmap::lives(self.image.maps()),
        }
    }

    /// The whole, unescaped name that a mapping shows, if `fact` lacks it; `process` is the
    /// directory with its `map_files`.
    pub(super) fn name(&self, process: &ProcessDir, fact: &MapFact) -> Option<Label> {
        match self.reader {
            Reader::Text | Reader::Links => map_files::name(process.dir(), &fact.vma),
            Reader::Query(_) => procmap::name(self.image.maps(), fact),
        }
    }
}
