//! Private copies of a file's pages, in `/proc/P/smaps`.
//!
//! A process that writes to a private mapping gets copies of the pages. They are its own memory,
//! and neither the file's nor in the file's charge. `Anonymous:` of the mapping counts them
//! (`smap_gather_stats` in fs/proc/task_mmu.c). Huge pages are counted apart: `Private_Hugetlb:`
//! are those that only this mapping has (`smaps_hugetlb_range`). Copies are among them, and pages
//! of the file that nobody else has mapped are too. So that number is the most that can be copies.
//!
//! Limits: copies that are in swap are not counted. Reading waits for the lock of the process's
//! mappings, so it must be guarded ([`super::guard`]).

use memchr::memmem::Finder;
use rustix::io::Result;

use super::details::kilobytes;
use super::parse::{cut, number};
use super::process::ProcessDir;
use super::read;
use crate::model::{Bytes, MapRef};

/// What the private mappings of a buffer have in copies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Copies {
    /// Copies of pages of the smallest size.
    pub(crate) small: Bytes,
    /// Huge pages that may be copies.
    pub(crate) huge: Bytes,
}

/// The copies in those of these mappings that are private and still there.
pub(crate) fn copies(process: &ProcessDir, maps: &[MapRef]) -> Result<Copies> {
    let file = process.dir().file(c"smaps")?;
    let mut gathering = Gathering { maps, is_wanted: false, copies: Copies::default() };
    // Every line has a colon: one of values after its key, and the first one of a mapping in the
    // device.
    read::lines_with(std::os::fd::AsFd::as_fd(&file), &[Finder::new(":")], &mut Vec::new(), |_, line| {
        gathering.line(line);
    })?;
    Ok(gathering.copies)
}

/// The copies in a text of `smaps`, as [`copies`] finds them.
#[cfg(any(test, fuzzing))]
pub(crate) fn copies_in(text: &[u8], maps: &[MapRef]) -> Copies {
    let mut gathering = Gathering { maps, is_wanted: false, copies: Copies::default() };
    text.split(|&b| b == b'\n').for_each(|line| gathering.line(line));
    gathering.copies
}

struct Gathering<'m> {
    maps: &'m [MapRef],
    /// Whether the lines are about one of the mappings.
    is_wanted: bool,
    copies: Copies,
}

impl Gathering<'_> {
    fn line(&mut self, line: &[u8]) {
        if let Some((range, _)) = range(line) {
            let is_it = |map: &&MapRef| (map.start, map.end) == range;
            let map = self.maps.iter().find(is_it);
            self.is_wanted = map.is_some_and(|map| map.perms.is_some_and(|perms| !perms.is_shared()));
        } else if self.is_wanted {
            let copies = &mut self.copies;
            for (key, sum) in
                [(&b"Anonymous:"[..], &mut copies.small), (b"Private_Hugetlb:", &mut copies.huge)]
            {
                if let Some(Bytes(value)) = kilobytes(line, key) {
                    *sum = Bytes(sum.0.saturating_add(value));
                }
            }
        }
    }
}

/// The addresses at the beginning of a mapping's first line, and what follows them, which begins
/// with the permissions. `None`: it is another line.
pub(super) fn range(line: &[u8]) -> Option<((u64, u64), &[u8])> {
    let (range, rest) = cut(line, b' ').ok()?;
    let (start, end) = cut(range, b'-').ok()?;
    Some(((number(start, 16).ok()?, number(end, 16).ok()?), rest))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::Perms;

    const TEXT: &str = "7f00-7f10 rw-p 00000000 00:01 5 /memfd:x (deleted)\nRss: 8 kB\nAnonymous:             40 kB\n\
                        Private_Hugetlb:        0 kB\nVmFlags: rd wr\n7f10-7f20 rw-s 00000000 00:01 5 /memfd:x (deleted)\n\
                        Anonymous: 4 kB\n";

    fn of(text: &str, maps: &[(u64, u64, &[u8])]) -> Copies {
        let map = |&(start, end, perms): &(u64, u64, &[u8])| MapRef {
            start,
            end,
            offset: None,
            perms: Perms::parse(perms),
        };
        let maps: Vec<MapRef> = maps.iter().map(map).collect();
        copies_in(text.as_bytes(), &maps)
    }

    /// Check that only private mappings that are asked for count.
    #[test]
    fn private_mappings() {
        let maps: [(u64, u64, &[u8]); 2] = [(0x7f00, 0x7f10, b"rw-p"), (0x7f10, 0x7f20, b"rw-s")];
        assert_eq!(of(TEXT, &maps), Copies { small: Bytes(40 << 10), huge: Bytes(0) });
        assert_eq!(of(TEXT, &[(0x7f00, 0x7f08, b"rw-p")]), Copies::default());
    }

    proptest! {
        /// Check that no text makes it panic.
        #[test]
        fn any_text(text in ".{0,200}") {
            of(&text, &[(0, 1, b"rw-p")]);
        }
    }
}
