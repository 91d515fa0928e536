//! The iterators as this machine's own kernel runs them, where they may be loaded. The scenarios try them in other kernels.

use std::fs::{File, OpenOptions, remove_file};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::OpenOptionsExt;

use rustix::fs::{MemfdFlags, memfd_create};

use super::record::{Id, Record};
use super::*;
use crate::model::Pid;

/// Loads some, or says why that cannot be tried here.
fn load(wanted: &[Iterator]) -> Option<Probes> {
    let skipped = |why: &dyn fmt::Display| eprintln!("skipped: {why}");
    let probes = Probes::load(Path::new("/sys"), wanted).map_err(|why| skipped(&why)).ok()?;
    let missing = wanted.iter().find_map(|&iterator| match probes.why_not(iterator)? {
        why @ (Unavailable::Missing | Unavailable::Refused(_)) => Some(why),
        why => panic!("{}: {why}", iterator.name()),
    });
    missing.map_or(Some(()), |why| {
        skipped(why);
        None
    })?;
    Some(probes)
}

fn own_pid() -> Pid {
    Pid(std::process::id())
}

/// How often the file behind one of this process's fds is open, by its dentry.
fn opens(probes: &mut Probes, file: impl AsFd) -> Option<u64> {
    let fd = file.as_fd().as_raw_fd().cast_unsigned();
    let (mut of, mut files): (Option<Id>, Vec<(Id, Option<u64>)>) = (None, Vec::new());
    probes
        .read(Iterator::TaskFileShmem, |record| match record {
            Record::ShmFile(file) => files.push((file.file, file.opens)),
            Record::ShmFd(held) if held.pid == own_pid() && held.fd.0 == fd => of = Some(held.of),
            _ => {}
        })
        .unwrap();
    files.into_iter().find(|(file, _)| Some(*file) == of).unwrap().1
}

/// Check that a dentry tells how often its file is open, whether it is a memfd, linked, deleted or never linked: dup and mmap
/// change nothing, `O_PATH` does.
#[test]
fn open_files_of_a_dentry() {
    let Some(mut probes) = load(&[Iterator::TaskFileShmem]) else { return };
    let memfd = File::from(memfd_create("opens", MemfdFlags::CLOEXEC).unwrap());
    let again = || format!("/proc/self/fd/{}", memfd.as_raw_fd());
    assert_eq!(opens(&mut probes, &memfd), Some(1));
    let dup = memfd.try_clone().unwrap();
    assert_eq!(opens(&mut probes, &dup), Some(1));
    let second = File::open(again()).unwrap();
    assert_eq!((opens(&mut probes, &memfd), opens(&mut probes, &second)), (Some(2), Some(2)));
    let named = OpenOptions::new().read(true).custom_flags(libc::O_PATH).open(again()).unwrap();
    assert_eq!(opens(&mut probes, &named), Some(3));
    drop((second, named));
    assert_eq!(opens(&mut probes, &memfd), Some(1));

    let path = format!("/dev/shm/lsbuf-opens-{}", std::process::id());
    let linked = File::create(&path).unwrap();
    let again = File::open(&path).unwrap();
    assert_eq!(opens(&mut probes, &linked), Some(2));
    drop(again);
    assert_eq!(opens(&mut probes, &linked), Some(1));
    remove_file(&path).unwrap();
    assert_eq!(opens(&mut probes, &linked), Some(1));

    let unlinked = OpenOptions::new().write(true).custom_flags(libc::O_TMPFILE).open("/dev/shm").unwrap();
    assert_eq!(opens(&mut probes, &unlinked), Some(1));
}
