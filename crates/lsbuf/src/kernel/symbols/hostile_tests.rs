//! Files that are made to harm their reader. They are mapped into the test's own process, which is
//! then the maker.

#![allow(unsafe_code)]

use std::ffi::c_void;
use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::ptr;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use rustix::fs::{CWD, FileType, Mode, OFlags, mknodat, open};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

use super::child::{Question, ask};
use super::tests::{DEADLINE, maker, procfs, stack};
use super::*;
use crate::model::{Function, UserFrame};

/// Where the symbols of the files here are, as an offset and as an address.
const AT: u64 = 0x80;

/// A small file for a machine with 64 bits, with a build id and these symbols.
fn image(id: u8, symbols: &[(&[u8], u64, u64)]) -> Vec<u8> {
    const NAMES: &[u8] = b"\0.strtab\0.symtab\0.shstrtab\0";
    let note = [&[4_u32, 20, 3].map(u32::to_ne_bytes).concat()[..], b"GNU\0", &[id; 20]].concat();
    let (mut strings, mut table) = (vec![0], vec![0; 24]);
    for (name, value, size) in symbols {
        table.extend(u32::try_from(strings.len()).unwrap().to_ne_bytes());
        // A global function, in section 1.
        table.extend([0x12, 0, 1, 0]);
        table.extend([*value, *size].map(u64::to_ne_bytes).concat());
        strings.extend_from_slice(name);
        strings.push(0);
    }
    let header: u64 = 64 + 2 * 56;
    let [note, strings, names] = [note, strings, NAMES.to_vec()].map(|mut part| {
        part.resize(part.len().next_multiple_of(8), 0);
        part
    });
    let parts = [note, strings, table, names];
    let at: Vec<u64> = (0..=4).map(|n| header + parts[..n].concat().len() as u64).collect();
    let size = |nth: usize| parts[nth].len() as u64;
    let section = |name: u32, kind: u32, nth: usize, link: u32, each: u64| {
        let numbers = [0, 0, at[nth], size(nth)].map(u64::to_ne_bytes).concat();
        let begin = [name, kind].map(u32::to_ne_bytes).concat();
        let end = [&[link, 1].map(u32::to_ne_bytes).concat()[..], &[1, each].map(u64::to_ne_bytes).concat()];
        [begin, numbers, end.concat()].concat()
    };
    let segment = |kind: u32, offset: u64, size: u64| {
        let flags = [kind, 5].map(u32::to_ne_bytes).concat();
        [flags, [offset, offset, offset, size, size, 4].map(u64::to_ne_bytes).concat()].concat()
    };
    let halves = |halves: &[u16]| halves.iter().flat_map(|half| half.to_ne_bytes()).collect::<Vec<u8>>();
    let endian = if cfg!(target_endian = "little") { 1 } else { 2 };
    let mut file = [&b"\x7fELF\x02"[..], &[endian, 1], &[0; 9], &halves(&[3, 62, 1, 0])].concat();
    file.extend([0, 64, at[4]].map(u64::to_ne_bytes).concat());
    file.extend([&[0; 4][..], &halves(&[64, 56, 2, 64, 4, 3])].concat());
    file.extend([segment(1, 0, 1 << 20), segment(4, at[0], size(0))].concat());
    file.extend(parts.concat());
    // The first section is none.
    file.extend(vec![0; 64]);
    file.extend([section(1, 3, 1, 0, 0), section(9, 2, 2, 1, 24), section(17, 3, 3, 0, 0)].concat());
    file
}

/// A mapping that can be executed.
struct Mapped(*mut c_void);

impl Mapped {
    const SIZE: usize = 1 << 12; // No page size: any part of a page will do.

    fn new(path: &Path) -> Mapped {
        let file = File::open(path).unwrap();
        let protection = ProtFlags::READ | ProtFlags::EXEC;
        // SAFETY: a new mapping, which nothing reads.
        Mapped(unsafe {
            mmap(ptr::null_mut(), Mapped::SIZE, protection, MapFlags::PRIVATE, &file, 0).unwrap()
        })
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // SAFETY: nothing refers to it.
        unsafe { munmap(self.0, Mapped::SIZE).unwrap() };
    }
}

fn place(id: u8) -> CodePlace {
    CodePlace::File { build_id: BuildId([id; 20]), offset: AT + 1 }
}

/// Names the places with these build ids while these files are mapped.
fn named(files: &[&[u8]], ids: &[u8], deadline: Duration) -> Vec<UserFrame> {
    let folder = tempfile::tempdir().unwrap();
    let mapped = files.iter().enumerate().map(|(nth, bytes)| {
        let path = folder.path().join(nth.to_string());
        fs::write(&path, bytes).unwrap();
        Mapped::new(&path)
    });
    let _mapped: Vec<Mapped> = mapped.collect();
    let mut stack = stack(ids.iter().map(|&id| place(id)));
    let mut symbols = Symbolizer::new(procfs(), deadline, None);
    symbols.resolve(&mut [Request { stack: &mut stack, maker: maker(std::process::id()), others: &[] }]);
    stack.user
}

fn one(file: &[u8], id: u8) -> Vec<Function> {
    named(&[file], &[id], DEADLINE).remove(0).functions
}

/// Check that the file made here is a good one, so that what is damaged below is the reason for
/// what is found there.
#[test]
fn a_good_file() {
    assert_eq!(one(&image(0x11, &[(b"good", AT, 8)]), 0x11), [Function::new("good".into())]);
}

/// Check that control characters in a name are kept as bytes and never printed raw, and that a name
/// of a megabyte is cut off.
#[test]
fn hostile_names() {
    let found = one(&image(0x12, &[(b"a\x1b[2J\nb", AT, 8)]), 0x12);
    assert_eq!(found, [Function::new(b"a\x1b[2J\nb"[..].into())]);
    assert!(!found[0].name.to_string().contains(char::is_control));
    let found = one(&image(0x13, &[(&vec![b'n'; 1 << 20], AT, 8)]), 0x13);
    assert_eq!(found, [Function::new(vec![b'n'; 1024].as_slice().into())]);
    // A name that only looks like one of C++.
    let nested = [&b"_Z"[..], &b"N".repeat(100_000)].concat();
    assert!(one(&image(0x14, &[(&nested, AT, 8)]), 0x14).len() <= 1);
    assert_eq!(one(&image(0x15, &[(b"\xff\xfe", AT, 8)]), 0x15), []);
}

/// Check that a file whose symbols overflow does not cost another file its names.
#[test]
fn a_bad_file_before_a_good_one() {
    let bad = image(0x16, &[(b"bad", 1, u64::MAX), (b"worse", u64::MAX, u64::MAX)]);
    let good = image(0x17, &[(b"good", AT, 8)]);
    let found = named(&[&bad, &good], &[0x16, 0x17], DEADLINE);
    assert!(found[0].functions.len() <= 1);
    assert_eq!(found[1].functions, [Function::new("good".into())]);
}

/// Check that a table of sections that is huge, elsewhere, or has entries of another size gives no
/// names, soon.
#[test]
fn section_tables_that_lie() {
    let good = image(0x18, &[(b"good", AT, 8)]);
    let with = |at: usize, bytes: &[u8]| {
        let mut file = good.clone();
        file[at..at + bytes.len()].copy_from_slice(bytes);
        file
    };
    let sections_at = usize::try_from(u64::from_ne_bytes(good[40..48].try_into().unwrap())).unwrap();
    // No number of sections: it is the size of the first one.
    let mut extended = with(60, &[0, 0]);
    extended[sections_at + 32..sections_at + 40].copy_from_slice(&u64::MAX.to_ne_bytes());
    let begin = Instant::now();
    for file in [
        with(60, &[0xff, 0xff]),
        with(58, &[0xff, 0xff]),
        with(58, &[1, 0]),
        with(40, &[0xff; 8]),
        with(62, &[0xff, 0xff]),
        // The symbols, and their names, are said to be as long as can be.
        with(sections_at + 64 + 32, &[0xff; 8]),
        with(sections_at + 128 + 32, &[0xff; 8]),
        extended,
    ] {
        assert_eq!(one(&file, 0x18), []);
    }
    assert!(begin.elapsed() < DEADLINE);
}

/// Check that a file that is cut off anywhere is read without harm, also if it was cut off after it
/// was mapped.
#[test]
fn cut_off() {
    let good = image(0x19, &[(b"good", AT, 8)]);
    for length in (1..good.len()).step_by(7) {
        assert!(one(&good[..length], 0x19).len() <= 1);
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    fs::write(&path, &good).unwrap();
    let _mapped = Mapped::new(&path);
    File::options().write(true).open(&path).unwrap().set_len(0).unwrap();
    let mut stack = stack([place(0x19)]);
    let mut symbols = Symbolizer::new(procfs(), DEADLINE, None);
    symbols.resolve(&mut [Request { stack: &mut stack, maker: maker(std::process::id()), others: &[] }]);
    assert_eq!(stack.user[0], UserFrame::new(place(0x19)));
}

/// Check that what a file of another user says is not believed for the stacks of another maker. A
/// file that others may write to is as one of another user.
#[test]
fn forged_build_ids() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    fs::write(&path, image(0x1a, &[(b"forged", AT, 8)])).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
    let mapped = Mapped::new(&path);
    let mut symbols = Symbolizer::new(procfs(), DEADLINE, None);
    let (pid, started) = maker(std::process::id());
    let mut name = |started, others: &[Pid]| {
        let mut stack = stack([place(0x1a)]);
        symbols.resolve(&mut [Request { stack: &mut stack, maker: (pid, started), others }]);
        stack.user.remove(0).functions.len()
    };
    assert_eq!(name(started, &[]), 1);
    drop(mapped);
    assert_eq!(name(started, &[]), 1);
    assert_eq!(name(started + Duration::from_secs(1), &[]), 0);
}

/// Check that a reader that waits for ever is ended, and that the next file is read.
#[test]
fn a_reader_that_hangs() {
    let folder = tempfile::tempdir().unwrap();
    let fifo = folder.path().join("fifo");
    mknodat(CWD, &fifo, FileType::Fifo, Mode::RWXU, 0).unwrap();
    let file = folder.path().join("file");
    fs::write(&file, image(0x1b, &[(b"good", AT, 8)])).unwrap();
    let pinned = |path: &Path| -> OwnedFd { open(path, OFlags::PATH, Mode::empty()).unwrap() };
    let opened = File::open(&file).unwrap();
    let questions = [
        Question { copies: vec![pinned(&fifo)], addresses: vec![AT, AT] },
        Question { copies: vec![opened.into()], addresses: vec![0, AT] },
    ];
    let begin = Instant::now();
    let found = ask(&questions, Duration::from_millis(300));
    assert!(begin.elapsed() < Duration::from_secs(3), "{:?}", begin.elapsed());
    assert_eq!(found, [vec![vec![], vec![]], vec![vec![], vec![Function::new("good".into())]]]);
}

/// Check that neither a child nor an fd is left after names were asked for.
#[test]
fn nothing_is_left() {
    let good = image(0x1c, &[(b"good", AT, 8)]);
    let in_own_process = || {
        let links = fs::read_dir("/proc/self/fd").unwrap().flatten();
        links
            .filter_map(|link| fs::read_link(link.path()).ok())
            .filter(|to| to.to_string_lossy().contains("lsbuf-symbols"))
            .count()
    };
    one(&good, 0x1c);
    // Other tests of this process may be asking at this moment.
    let end = Instant::now() + DEADLINE;
    while in_own_process() > 0 && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(1));
    }
    assert!(Instant::now() < end);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    /// Check that no damage to a file is more than a loss of names.
    #[test]
    fn damage(changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..20)) {
        let mut file = image(0x1d, &[(b"one", AT, 8), (b"_ZN1a1bEv", 0x100, 0x100)]);
        for (at, byte) in changes {
            let at = at.index(file.len());
            file[at] = byte;
        }
        let begin = Instant::now();
        let found = named(&[&file], &[0x1d], Duration::from_secs(1));
        prop_assert!(found[0].functions.len() <= 1);
        prop_assert!(begin.elapsed() < Duration::from_secs(8));
    }
}
