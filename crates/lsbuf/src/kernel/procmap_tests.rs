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

/// An address space of made-up VMAs: the device and the path of each. Counts the requests.
struct MadeUp {
    vmas: Vec<(Dev, Vec<u8>)>,
    requests: usize,
}

impl MadeUp {
    fn answer(&mut self, from: u64, name: Option<&mut [u8]>) -> Result<Option<MapFact>> {
        self.requests += 1;
        let Some((dev, path)) = self.vmas.get(from as usize) else { return Ok(None) };
        if let Some(room) = name {
            room.get_mut(..path.len()).ok_or(Errno::NAMETOOLONG)?.copy_from_slice(path);
            *room.get_mut(path.len()).ok_or(Errno::NAMETOOLONG)? = 0;
        }
        let vma = MapRef { start: from, end: from + 1, offset: Some(0), perms: None };
        Ok(Some(MapFact { dev: *dev, ino: Inode(from), name: None, vma }))
    }

    fn walked(&mut self, judge: &mut Only) -> Mapped {
        walk_by(&mut |from, name| self.answer(from, name), judge, None).unwrap().unwrap()
    }
}

fn made_up(vmas: impl IntoIterator<Item = (u32, Vec<u8>)>) -> MadeUp {
    let vma = |(minor, path)| (Dev { major: 0, minor }, path);
    MadeUp { vmas: vmas.into_iter().map(vma).collect(), requests: 0 }
}

/// Check that one request is made for each of many VMAs with names that are needed, besides the one
/// that finds out that they are needed, and the one that finds the end.
#[test]
fn one_request_for_each_vma() {
    let mut space = made_up((0..1000).map(|_| (1, b"/dmabuf:x".to_vec())));
    let mapped = space.walked(&mut Only::default());
    assert_eq!((mapped.facts.len(), space.requests), (1000, 1002));
    assert!(mapped.facts.iter().all(|fact| fact.name == Some(Label::from("x"))));
}

/// Check that one request is made for each VMA with a name that is not needed.
#[test]
fn no_request_for_names_that_are_not_needed() {
    let mut space = made_up((0..1000).map(|_| (1, b"/dmabuf:x".to_vec())));
    let mut judge = Only { taken: Some(Dev { major: 0, minor: 1 }), ..Only::default() };
    assert_eq!((space.walked(&mut judge).facts.len(), space.requests), (1000, 1001));
}

/// Check that a name which is longer than any path hides no other VMA, and does not rule out its
/// device.
#[test]
fn a_name_that_is_too_long() {
    let long = || vec![b'x'; NAME_ROOM];
    let mut space =
        made_up([(1, b"/dmabuf:a".to_vec()), (1, long()), (2, long()), (1, b"/dmabuf:b".to_vec())]);
    let mut judge = Only::default();
    let names: Vec<_> = space.walked(&mut judge).facts.into_iter().map(|fact| fact.name.unwrap()).collect();
    assert_eq!(names, [Label::from("a"), Label::from("b")]);
    assert!(judge.ruled_out.is_empty());
}

proptest! {
    /// Check that whatever the order of the VMAs, the same are found as if the name of each had
    /// been requested.
    #[test]
    fn names_asked_at_once_change_nothing(vmas in proptest::collection::vec((0u32..4, 0usize..4), 0..40)) {
        const PATHS: [&[u8]; 4] = [b"/dmabuf:x", RING_LINK, b"/dmabuf:", b"/dmabuf:y"];
        let ruled_out = |device: u32| device == 3;
        let path = |device, path: usize| if ruled_out(device) { &b"/lib/x"[..] } else { PATHS[path] };
        let mut space = made_up(vmas.iter().map(|&(device, at)| (device, path(device, at).to_vec())));
        let mapped = space.walked(&mut Only::default());
        let is_ring = |&(device, at): &(u32, usize)| !ruled_out(device) && at == 1;
        let is_dmabuf = |&(device, at): &(u32, usize)| !ruled_out(device) && at != 1;
        let expected: Vec<u64> =
            (0..).zip(&vmas).filter(|(_, vma)| is_dmabuf(vma)).map(|(start, _)| start).collect();
        let found: Vec<u64> = mapped.facts.iter().map(|fact| fact.vma.start).collect();
        prop_assert_eq!(found, expected);
        prop_assert_eq!(mapped.ring, vmas.iter().any(is_ring));
        prop_assert!(space.requests <= 2 * vmas.len() + 1);
    }
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
