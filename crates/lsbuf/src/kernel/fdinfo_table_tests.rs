//! Texts as kernels print them, and as an untrusted program would forge them.

use std::fs;
use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::kernel::tree::recorded::Recorded;
use crate::model::{Bytes, Inode, Label};

const COMMON: &str = "pos:\t0\nflags:\t02000002\nmnt_id:\t10\nino:\t7\n";
const HEAP: &str = "size:\t65536\ncount:\t2\nexp_name:\tsystem\n";

fn text(own: &str) -> Vec<u8> {
    format!("{COMMON}{own}").into_bytes()
}

fn name_of(text: &[u8]) -> Option<Label> {
    match kind(text) {
        Ok(FdKind::DmaBuf(info)) => info.dmabuf.map(|dmabuf| dmabuf.name),
        _ => None,
    }
}

/// Check that a dma-buf is recognised by its lines, and has no name if the `name` line is missing.
#[test]
fn a_dmabuf() {
    let Ok(FdKind::DmaBuf(info)) = kind(&text(HEAP)) else { panic!("no dma-buf") };
    let dmabuf = info.dmabuf.unwrap();
    assert_eq!((info.ino, dmabuf.size, dmabuf.name), (Some(Inode(7)), Bytes(65536), Label::default()));
}

/// Check that `lock` lines, which any file may have, do not hide a dma-buf.
#[test]
fn a_locked_dmabuf() {
    let lock = "lock:\t1: FLOCK  ADVISORY  WRITE 71 00:0c:7 0 EOF\n";
    assert_eq!(name_of(&text(&format!("{lock}{HEAP}name:\tcam\n"))), Some("cam".into()));
}

/// Check that an io_uring is recognised as one, whatever lines the names of its files forge.
#[test]
fn a_ring_with_forged_lines() {
    let forged = "UserFiles:\t3\n    0: a\nsize:\t9\n    1: a\ncount:\t9\n    2: a\nexp_name:\tx\n";
    for first in ["SqMask:\t0x3\n", "SqThread:\t-1\n"] {
        assert_eq!(kind(&text(&format!("{first}{forged}"))), Ok(FdKind::Keeper(FileKeeper::Ring)));
    }
}

/// Check that a dma-buf's lines together with another line are malformed: neither a buffer nor
/// ignored.
#[test]
fn lines_in_the_wrong_place() {
    assert_eq!(kind(&text(&format!("path:\t/x\n{HEAP}"))), Err(Malformed));
    assert_eq!(kind(&text("size:\t9\npath:\tx\ncount:\t9\nexp_name:\tx\n")), Err(Malformed));
    assert_eq!(kind(&text(&format!("{HEAP}more:\t1\n"))), Err(Malformed));
}

/// Check that a socket is identified by its inode number, and that one without a number is not
/// taken for another.
#[test]
fn sockets() {
    assert_eq!(kind(&text("scm_fds: 1\n")), Ok(FdKind::Keeper(FileKeeper::Socket(7))));
    assert_eq!(kind(b"pos:\t0\nflags:\t02\nmnt_id:\t10\nscm_fds: 1\n"), Ok(FdKind::NamelessSocket));
}

/// Check that plain files, and files with a driver that prints a `size`, are ignored.
#[test]
fn others() {
    assert_eq!(kind(&text("")), Ok(FdKind::Other));
    assert_eq!(kind(&text("size:\t9\n")), Ok(FdKind::Other));
    assert_eq!(kind(&text("drm-driver:\ti915\ndrm-client-id:\t4\n")), Ok(FdKind::Other));
}

/// Check that dma-bufs, O_PATH fds and fds in sockets of a whole table are found.
#[test]
fn a_table() {
    let process = tempfile::tempdir().unwrap();
    fs::create_dir(process.path().join("fdinfo")).unwrap();
    let write = |fd: u32, text: &[u8]| fs::write(process.path().join(format!("fdinfo/{fd}")), text).unwrap();
    write(0, &text(""));
    write(3, &text(&format!("{HEAP}name:\tcam\n")));
    write(4, b"pos:\t0\nflags:\t012000000\nmnt_id:\t10\nino:\t7\n");
    write(5, &text("scm_fds: 2\n"));
    write(6, &text("scm_fds: 2\n"));
    write(7, b"nonsense\n");
    let dir = crate::kernel::read::open_dir(rustix::fs::CWD, process.path()).unwrap();
    let dir = Folder::new(dir, Arc::new(Recorded::default()));
    let (mut table, mut hidden) = (FdTable::default(), HiddenRefCounter::default());
    FdReader::default().read_texts(&dir, &mut table, Some(&mut hidden)).unwrap();
    table.facts.sort_by_key(|fact| fact.fd.0);
    let seen: Vec<_> = table.facts.iter().map(|f| (f.fd, f.name().cloned(), f.info.path_only)).collect();
    assert_eq!(seen, [(Fd(3), Some("cam".into()), false), (Fd(4), None, true)]);
    assert_eq!((table.malformed, hidden.counts().in_flight), (1, 2));
}

proptest! {
    /// Check that no bytes make the parser panic.
    #[test]
    fn any_bytes(own in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = kind(&[COMMON.as_bytes(), &own].concat());
    }
}
