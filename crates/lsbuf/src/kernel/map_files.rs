//! `/proc/P/map_files`: a link for each mapping of a file.
//!
//! These links are one of three ways to find mappings. `maps` and PROCMAP_QUERY say more and need
//! fewer rights, so lsbuf uses this way only if a user asks for it, to compare. It takes one
//! `readlink` per file mapping. Only links that look like a dma-buf's or like shared memory are
//! followed for device and inode. That needs CAP_CHECKPOINT_RESTORE or CAP_SYS_ADMIN in the first
//! user namespace (`proc_map_files_get_link`).
//!
//! Limits: offset and protection of a mapping are not shown here.

use std::mem::MaybeUninit;

use rustix::io::{Errno, Result};

use super::LINK_PREFIX;
use super::parse::{Malformed, cut, number};
pub(crate) use super::path::map_files_link as link;
use super::read::{self, LINK_ROOM};
use super::shmem::{ShmMap, ShmemFinder};
use super::tree::Folder;
use crate::model::{Label, MapRef};

/// A file mapping whose link looks like a dma-buf's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LinkFact {
    pub(crate) vma: MapRef,
    pub(crate) name: Label,
}

/// Reads the links of one process, and looks for shared memory if `shmem` is given. Returns how
/// many entries were malformed.
pub(crate) fn read(
    process: &Folder,
    facts: &mut Vec<LinkFact>,
    mut shmem: Option<(&mut ShmemFinder, &mut Vec<ShmMap>)>,
) -> Result<u64> {
    let links = process.folder(c"map_files")?;
    let mut link = [MaybeUninit::uninit(); LINK_ROOM];
    let mut malformed = 0;
    read::entries(links.fd(), |entry, _| {
        match links.link(entry, &mut link) {
            Ok(target) => {
                if let Some(name) = target.strip_prefix(LINK_PREFIX) {
                    match range(entry.to_bytes()) {
                        Ok(vma) => facts.push(LinkFact { vma, name: Label::from(name) }),
                        Err(Malformed) => malformed += 1,
                    }
                } else if let Some((finder, found)) = &mut shmem
                    && finder.suspects(target)
                {
                    let Ok(vma) = range(entry.to_bytes()) else {
                        malformed += 1;
                        return Ok(());
                    };
                    match finder.ask(process, super::path::map_files_link(&vma).as_str(), target) {
                        Ok(Some(object)) if !finder.may_be_private(object) => {
                            found.push(ShmMap { object, vma });
                        }
                        Ok(_) => {}
                        Err(Errno::NOENT) => {}
                        // The caller may follow none of these links (`proc_map_files_get_link`).
                        Err(Errno::PERM) => return Err(Errno::PERM),
                        Err(_) => finder.refusing += 1,
                    }
                }
            }
            // Unmapped since the listing, or a path longer than any dma-buf's.
            Err(Errno::NOENT | Errno::NAMETOOLONG) => {}
            Err(e) => return Err(e),
        }
        Ok(())
    })?;
    Ok(malformed)
}

/// The dma-buf's name that a VMA's link shows. It is whole and raw, unlike in `maps`.
pub(crate) fn name(process: &Folder, vma: &MapRef) -> Option<Label> {
    let mut room = [MaybeUninit::uninit(); LINK_ROOM];
    let target = process.link(link(vma).as_str(), &mut room).ok()?;
    target.strip_prefix(LINK_PREFIX).map(Label::from)
}

/// The VMA that the name of an entry stands for.
pub(crate) fn range(entry: &[u8]) -> std::result::Result<MapRef, Malformed> {
    let (start, end) = cut(entry, b'-')?;
    let (start, end) = (number(start, 16)?, number(end, 16)?);
    if end < start {
        return Err(Malformed);
    }
    Ok(MapRef { start, end, offset: None, perms: None })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Check that a VMA's link is read back as that VMA.
        #[test]
        fn round_trip(start in 0u64..1 << 47, len in 0u64..1 << 40) {
            let vma = MapRef { start, end: start + len, offset: None, perms: None };
            let path = link(&vma);
            prop_assert_eq!(range(path.as_str().strip_prefix("map_files/").unwrap().as_bytes()), Ok(vma));
        }

        /// Check that no bytes make the parser panic.
        #[test]
        fn any_bytes(entry in proptest::collection::vec(any::<u8>(), 0..60)) {
            let _ = range(&entry);
        }
    }
}
