//! PROCMAP_QUERY compared with the text of the same address space.

use std::collections::HashSet;
use std::path::Path;

use proptest::prelude::*;
use rustix::fs::{CWD, MemfdFlags, ftruncate, memfd_create};

use super::*;
use crate::kernel::maps;
use crate::kernel::own::Region;

/// Takes the VMAs of one device; or, with none set, requests the name for each device that is not
/// ruled out.
#[derive(Default)]
struct Only {
    taken: Option<Dev>,
    ruled_out: HashSet<Dev>,
}

impl Judge for Only {
    fn interest(&self, dev: Dev) -> Interest {
        match self.taken {
            Some(taken) if taken == dev => Interest::Take,
            None if !self.ruled_out.contains(&dev) => Interest::Ask,
            _ => Interest::Pass,
        }
    }

    fn rule_out(&mut self, dev: Dev) {
        self.ruled_out.insert(dev);
    }
}

fn own_maps() -> std::os::fd::OwnedFd {
    read::open_file(CWD, c"/proc/thread-self/maps").unwrap()
}

/// Whether this kernel knows the request. If not, there is nothing to compare.
fn answers() -> bool {
    Queries::probe(&ProcRoot::open(Path::new("/proc")).unwrap()).unwrap().is_some()
}

/// A memfd, its device and its inode number.
fn file(len: usize) -> (std::os::fd::OwnedFd, Dev, Inode) {
    let file = memfd_create(c"x", MemfdFlags::CLOEXEC).unwrap();
    ftruncate(&file, len as u64).unwrap();
    let stat = fstat(&file).unwrap();
    (file, device_of(&stat), Inode(stat.st_ino))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    /// Check that each VMA of a file, cut and split at random, is the same here as in the text.
    #[test]
    fn same_as_in_the_text(pages in 2usize..9, cut in 1usize..8, split in 1usize..8, offset in 0u64..3) {
        if !answers() {
            return Ok(());
        }
        let page = rustix::param::page_size();
        let (file, dev, ino) = file(16 * page);
        let mut region = Region::map(file.as_fd(), offset * page as u64, pages * page).unwrap();
        if cut < pages {
            region.shrink(cut * page).unwrap();
        }
        if split < pages.min(cut) {
            region.split(split * page).unwrap();
        }
        let text = std::fs::read("/proc/thread-self/maps").unwrap();
        // With a dma-buf's path, because the parser ignores others.
        let told: Vec<MapFact> = text
            .split(|&b| b == b'\n')
            .filter_map(|line| {
                let at = memchr::memmem::find(line, b"/memfd:x")?;
                let fact = maps::parse(&[&line[..at], b"/dmabuf:"].concat()).unwrap().unwrap();
                (fact.ino == ino).then_some(MapFact { name: None, ..fact })
            })
            .collect();
        let mut judge = Only { taken: Some(dev), ..Only::default() };
        let mut asked = walk(own_maps().as_fd(), VmaFilter::Shared, &mut judge, None).unwrap().unwrap().facts;
        // Other tests of this process map files of that device, too.
        asked.retain(|fact| fact.ino == ino);
        prop_assert!(!told.is_empty());
        prop_assert_eq!(asked, told);
    }
}

/// Check that the name of one VMA rules out its device, and that none of its VMAs is a candidate.
#[test]
fn names_rule_out() {
    if !answers() {
        return;
    }
    let page = rustix::param::page_size();
    let (file, dev, _) = file(page);
    let _region = Region::map(file.as_fd(), 0, page).unwrap();
    let mut judge = Only::default();
    let mapped = walk(own_maps().as_fd(), VmaFilter::Shared, &mut judge, None).unwrap().unwrap();
    assert!(judge.ruled_out.contains(&dev));
    assert!(mapped.facts.is_empty() && !mapped.ring);
}

/// Check that private mappings, such as those of this program, are returned only on request.
#[test]
fn private_ones() {
    if !answers() {
        return;
    }
    let program = fstat(read::open_file(CWD, c"/proc/self/exe").unwrap()).unwrap();
    let of_program = |filter| {
        let (mut from, mut found) = (0, 0);
        while let Some(fact) = next(own_maps().as_fd(), from, filter, None).unwrap() {
            found += usize::from(fact.ino == Inode(program.st_ino));
            from = fact.vma.end;
        }
        found
    };
    assert!(of_program(VmaFilter::All) > 0);
    assert_eq!(of_program(VmaFilter::Shared), 0);
}

/// Check that an address space is in use until its process has ended, and that a VMA that maps
/// another file has no dma-buf's name.
#[test]
fn an_end() {
    if !answers() {
        return;
    }
    use std::io::{Read as _, Write as _};
    use std::process::{Command, Stdio};
    let mut child = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    // Once it answers, its program is mapped.
    child.stdin.as_mut().unwrap().write_all(b"x").unwrap();
    child.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
    let maps = read::open_file(CWD, format!("/proc/{}/maps", child.id()).as_str()).unwrap();
    let first = next(maps.as_fd(), 0, VmaFilter::All, None).unwrap().unwrap();
    assert_eq!(name(maps.as_fd(), &first), None);
    assert!(lives(maps.as_fd()));
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(!lives(maps.as_fd()));
    assert!(matches!(walk(maps.as_fd(), VmaFilter::All, &mut Only::default(), None), Ok(None)));
}

/// Check that only a file without the request returns that there is none, and that an exited
/// process returns another error.
#[test]
fn only_enotty_means_none() {
    let (file, ..) = file(4096);
    assert_eq!(super::answers(file.as_fd()), Ok(false));
    if !answers() {
        return;
    }
    let mut child = std::process::Command::new("cat").stdin(std::process::Stdio::piped()).spawn().unwrap();
    let maps = read::open_file(CWD, format!("/proc/{}/maps", child.id()).as_str()).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(super::answers(maps.as_fd()), Err(Errno::SRCH));
}
