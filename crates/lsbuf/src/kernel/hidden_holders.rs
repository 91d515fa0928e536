//! Which processes have the io_urings and sockets that may hold a buffer, and under what names.
//!
//! [`hidden_refs`](super::hidden_refs) counts what these hold during a scan. This reads them again
//! for one question: who is it? It follows the links of every fd of every process, so it is asked
//! only where a buffer is shown in full.
//!
//! A ring prints a path for each fixed file, and a socket how many fds wait in it. Neither says
//! which buffer that is, so all that is found here is a candidate.
//!
//! Limits: a ring or socket that no process has by an fd is not found. At most [`MOST`] fixed files
//! and sockets are kept.

use std::collections::HashMap;

use super::hidden_refs::{FileKeeper, in_queue};
use super::parse::{cut, number, number32};
use super::path::Path;
use super::process::ProcessDir;
use super::read;
use super::root::ProcRoot;
use crate::model::{Label, Pid};

/// As many entries are kept of each list.
const MOST: usize = 65_536;

/// What was found.
#[derive(Debug, Default)]
pub(crate) struct HiddenHolders {
    /// Of each fixed file of a ring: who has the ring, and the file's path or last name.
    pub(crate) fixed: Vec<(Pid, Label)>,
    /// Of each socket with fds in its queue: who has it, its inode number, and how many fds.
    pub(crate) queues: Vec<(Pid, u64, u64)>,
}

/// Reads the rings and sockets of all processes but these.
pub(crate) fn read_all(root: &ProcRoot, without: &[Pid]) -> HiddenHolders {
    let mut found = HiddenHolders::default();
    let mut queued: HashMap<u64, u64> = HashMap::new();
    for (pid, _) in root.processes().unwrap_or_default() {
        if without.contains(&pid) {
            continue;
        }
        let Ok(process) = ProcessDir::open(root, pid) else { continue };
        // A process that exits meanwhile, or refuses, adds nothing.
        let _ = of_process(&process, &mut found, &mut queued);
    }
    found
}

fn of_process(
    process: &ProcessDir,
    found: &mut HiddenHolders,
    queued: &mut HashMap<u64, u64>,
) -> rustix::io::Result<()> {
    let folder = process.dir().folder(c"fd")?;
    let mut fds = Vec::new();
    read::entries(folder.fd(), |name, _| {
        fds.extend(number32(name.to_bytes(), 10));
        Ok(())
    })?;
    let mut text = Vec::new();
    let mut own_sockets = Vec::new();
    for fd in fds {
        let mut room = [std::mem::MaybeUninit::uninit(); 64];
        let Ok(link) = process.dir().link(Path::new(format_args!("fd/{fd}")).as_str(), &mut room) else {
            continue;
        };
        let Some(keeper) = FileKeeper::of(link) else { continue };
        let known = if let FileKeeper::Socket(ino) = keeper { queued.get(&ino).copied() } else { None };
        if known.is_none() {
            let path = Path::new(format_args!("fdinfo/{fd}"));
            if process.dir().read_record(path.as_str(), &mut text).is_err() {
                continue;
            }
        }
        match keeper {
            FileKeeper::Ring => {
                let files = fixed_files(&text).take(MOST.saturating_sub(found.fixed.len()));
                found.fixed.extend(files.map(|path| (process.pid(), path)));
            }
            FileKeeper::Socket(ino) => {
                let fds = known.unwrap_or_else(|| in_queue(&text).unwrap_or(0));
                queued.insert(ino, fds);
                if fds > 0 && found.queues.len() < MOST && !own_sockets.contains(&ino) {
                    own_sockets.push(ino);
                    found.queues.push((process.pid(), ino, fds));
                }
            }
        }
    }
    Ok(())
}

/// The paths of a ring's fixed files: the lines `SLOT: PATH` after `UserFiles:`
/// (io_uring/fdinfo.c). Linux 6.18 escapes blanks and line breaks as `\NNN`.
pub(crate) fn fixed_files(fdinfo: &[u8]) -> impl Iterator<Item = Label> {
    let lines = fdinfo.split(|&b| b == b'\n').skip_while(|line| !line.starts_with(b"UserFiles:")).skip(1);
    let files = lines.take_while(|line| !line.starts_with(b"UserBufs:"));
    files.filter_map(|line| {
        let (slot, path) = cut(line, b':').ok()?;
        number(slot.trim_ascii_start(), 10).ok()?;
        let path = path.strip_prefix(b" ").unwrap_or(path);
        (path != b"<none>").then(|| Label::from(unescaped(path).as_slice()))
    })
}

/// Undoes the kernel's octal escapes (`seq_file_path`).
fn unescaped(text: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&first, after)) = rest.split_first() {
        let octal = |digits: &[u8]| number32(digits, 8).ok().and_then(|n| u8::try_from(n).ok());
        match (first, after.get(..3).and_then(octal)) {
            (b'\\', Some(byte)) => {
                bytes.push(byte);
                rest = &after[3..];
            }
            _ => {
                bytes.push(first);
                rest = after;
            }
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Check that fixed files are read by their paths and by their last names, and that empty slots
    /// are left out.
    #[test]
    fn paths_and_names() {
        let of = |text: &str| fixed_files(text.as_bytes()).collect::<Vec<_>>();
        let long = "SqMask:\t0x3\nUserFiles:\t2\n    0: /memfd:a\\040b\\040(deleted)\n    1: <none>\nUserBufs:\t0\n 7: no\n";
        assert_eq!(of(long), [Label::from("/memfd:a b (deleted)")]);
        assert_eq!(of("UserFiles:\t1\n    0: dmabuf\nUserBufs:\t0\n"), [Label::from("dmabuf")]);
        assert_eq!(of("no files"), []);
    }

    proptest! {
        /// Check that no bytes make it panic, and that a path that the kernel escaped is read back.
        #[test]
        fn any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            fixed_files(&bytes).for_each(drop);
            let escaped: Vec<u8> = bytes.iter().flat_map(|byte| format!("\\{byte:03o}").into_bytes()).collect();
            prop_assert_eq!(unescaped(&escaped), bytes);
        }
    }
}
