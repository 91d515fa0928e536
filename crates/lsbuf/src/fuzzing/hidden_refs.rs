//! Promises about the parsers that look for references which no process shows: messages in flight,
//! files registered with an io_uring, connections that are not accepted yet.

use super::{LONGEST_NAME, halves};
use crate::kernel::hidden_refs::{FileKeeper, HiddenRefCounter};
use crate::kernel::pending::is_pending;
use crate::kernel::{hidden_holders, pinned};
use crate::model::{HiddenRefs, Label};

/// Links and fdinfo of sockets and io_urings. A link is read back. References are ruled out only if
/// none were counted and everything could be read.
pub fn hidden_refs(data: &[u8]) {
    let (link, text) = halves(data);
    let keeper = FileKeeper::of(link);
    if let Some(FileKeeper::Socket(ino)) = keeper {
        assert_eq!(FileKeeper::of(format!("socket:[{ino}]").as_bytes()), keeper);
    }
    let mut hidden = HiddenRefCounter::default();
    for keeper in [keeper.unwrap_or(FileKeeper::Ring), FileKeeper::Socket(1)] {
        hidden.add(keeper, Some(text));
        let counts = hidden.counts();
        let known = [hidden.in_flight_of_one(), hidden.fixed_of_one()];
        if counts == HiddenRefs::default() {
            assert_eq!(known, [Some(0); 2]);
        }
        if counts.in_flight > 0 || counts.unknown {
            assert_eq!(known, [None; 2]);
        }
        if counts.io_uring > 0 {
            assert_eq!(known[1], None);
        }
    }
}

/// io_urings with the registered files that the input names; NULs separate the names, and an empty
/// name stands for an empty slot. Whatever other files are registered, a dma-buf, or a file that
/// holds others, is never ruled out.
pub fn rings(data: &[u8]) {
    let Some((&choice, data)) = data.split_first() else { return };
    let names: Vec<&[u8]> = data.split(|&b| b == 0).take(8).collect();
    let at = usize::from(choice) % (names.len() + 1);
    let cut = |name: &[u8], longest: usize| name[..name.len().min(longest)].to_vec();
    let name = cut(names[0], LONGEST_NAME);

    // As kernels print it that print raw names: every slot is printed. A file name contains no
    // slash.
    for entry in [&b"dmabuf"[..], b"UNIX", b"UNIX-STREAM", b"[io_uring]"] {
        let mut lines: Vec<Vec<u8>> = names
            .iter()
            .map(|name| cut(name, 39).into_iter().filter(|&b| b != b'/').collect())
            .map(|name: Vec<u8>| if name.is_empty() { b"<none>".to_vec() } else { name })
            .collect();
        lines.insert(at, entry.to_vec());
        let files: Vec<(usize, Vec<u8>)> = lines.into_iter().enumerate().collect();
        // A busy ring prints only the number of slots.
        for listed in [&files[..], &[]] {
            let ring = ring(files.len(), listed);
            assert_eq!(ring.fixed_of_one(), None);
            assert!(entry == b"dmabuf" || ring.in_flight_of_one().is_none());
        }
    }

    // As kernels print it that escape paths: empty slots are left out.
    let mut paths: Vec<Vec<u8>> = names
        .iter()
        .map(|name| cut(name, b"dmabuf:".len() + LONGEST_NAME))
        .map(|name| if name.is_empty() { name } else { [b"/", name.as_slice()].concat() })
        .collect();
    let may_keep = paths.iter().any(|path| !path.starts_with(b"/dmabuf:") && path.ends_with(b"[io_uring]"));
    for entry in
        [[b"/dmabuf:", name.as_slice()].concat(), b"socket:[7]".to_vec(), b"anon_inode:[io_uring]".to_vec()]
    {
        paths.insert(at, entry.clone());
        let files: Vec<(usize, Vec<u8>)> = paths
            .iter()
            .enumerate()
            .filter(|(_, path)| !path.is_empty())
            .map(|(slot, path)| (slot, escape(path)))
            .collect();
        let ring = ring(paths.len(), &files);
        assert!(!ring.unknown);
        assert_eq!(ring.fixed_of_one(), None);
        let is_keeper = entry.ends_with(b"]") && !entry.starts_with(b"/");
        assert_eq!(ring.in_flight_of_one(), (!is_keeper && !may_keep).then_some(0));
        paths.remove(at);
    }
}

/// The result for an io_uring with that many slots, of which some are listed.
fn ring(slots: usize, listed: &[(usize, Vec<u8>)]) -> HiddenRefCounter {
    let mut hidden = HiddenRefCounter::default();
    hidden.add(FileKeeper::Ring, Some(&ring_text(slots, listed)));
    hidden
}

/// The fdinfo of that io_uring, which has registered [`REGISTERED`].
fn ring_text(slots: usize, listed: &[(usize, Vec<u8>)]) -> Vec<u8> {
    let mut text = format!("SqMask:\t0x3\nSQEs:\t0\nSqThread:\t-1\nUserFiles:\t{slots}\n").into_bytes();
    for (slot, file) in listed {
        text.extend_from_slice(&[format!("{slot:5}: ").as_bytes(), file, b"\n"].concat());
    }
    let registered = format!("UserBufs:\t1\n    0: 0x7f00/{REGISTERED}\nPollList:\nCqOverflowList:\n");
    text.extend_from_slice(registered.as_bytes());
    text
}

/// Bytes of registered memory.
const REGISTERED: u64 = 12_288;

/// The fixed files of an io_uring. What follows the list of files adds none. Of a ring with files
/// of the names in the input, which NULs separate, each path is read back where the kernel escapes
/// it, and no path is taken for registered memory.
pub fn fixed_files(data: &[u8]) {
    let of = |text: &[u8]| hidden_holders::fixed_files(text).collect::<Vec<Label>>();
    assert_eq!(of(&[data, b"\nUserBufs:\t1\n    0: /file\n"].concat()), of(data));
    let paths: Vec<Vec<u8>> = data.split(|&b| b == 0).take(8).map(|name| [b"/", name].concat()).collect();
    let listed: Vec<(usize, Vec<u8>)> = paths.iter().map(|path| escape(path)).enumerate().collect();
    let text = ring_text(paths.len(), &listed);
    let labels: Vec<Label> = paths.iter().map(|path| Label::from(&path[..])).collect();
    assert_eq!(of(&text), labels);
    assert_eq!(pinned::registered(&text), REGISTERED);
}

/// A path as `seq_file_path` prints it.
pub(super) fn escape(path: &[u8]) -> Vec<u8> {
    let escaped = path.iter().map(|&b| match b {
        b' ' | b'\t' | b'\n' | b'\\' => format!("\\{b:03o}").into_bytes(),
        _ => vec![b],
    });
    escaped.collect::<Vec<_>>().concat()
}

/// `/proc/net/unix` with sockets that have the names in the input, which NULs separate. A
/// connection that is not accepted yet is found among them. None is found where there is none,
/// unless a name forges one.
pub fn pending(data: &[u8]) {
    const HEADER: &[u8] = b"Num       RefCount Protocol Flags    Type St Inode Path";
    let (numbers, names) = halves(data);
    let number = |nth: usize| u32::from(numbers.get(nth).copied().unwrap_or(2));
    let print = |kind: u32, state: u32, ino: u32, name: &[u8]| {
        let (address, refs) = (number(0), number(1));
        let fields = format!("{address:016x}: {refs:08X} 00000000 00000000 {kind:04X} {state:02X} {ino:5}");
        let blank: &[u8] = if name.is_empty() { b"" } else { b" " };
        [fields.as_bytes(), blank, name].concat()
    };
    let names: Vec<&[u8]> =
        names.split(|&b| b == 0).take(8).map(|name| &name[..name.len().min(108)]).collect();
    let mut lines = vec![HEADER.to_vec()];
    for (nth, name) in names.iter().enumerate() {
        // Bound, connected, or just closed.
        let (state, ino) = [(1, 4711), (3, 2), (4, 0)][number(2 + nth) as usize % 3];
        lines.push(print(1, state, ino, name));
    }
    let is_there = |lines: &[Vec<u8>]| lines.join(&b'\n').split(|&b| b == b'\n').any(is_pending);
    assert!(!is_there(&lines) || names.iter().any(|name| name.contains(&b'\n')));
    let at = 1 + number(2) as usize % lines.len();
    for kind in [1, 5] {
        let mut lines = lines.clone();
        lines.insert(at, print(kind, 2, 0, names[0]));
        assert!(is_there(&lines));
    }
    let _ = is_pending(data);
}
