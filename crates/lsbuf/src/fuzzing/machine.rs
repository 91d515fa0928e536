//! Promises about the parsers of mount tables, of the inodes in a recorded tree, and of the
//! kernel's type information.

use crate::kernel::btf as types;
use crate::kernel::identity::{self, LinkTarget};
use crate::kernel::shmem::{mounts, overlays as layered};
use crate::model::Dev;

use super::halves;
use super::hidden_refs::escape;

/// A line of mountinfo is read back as it was printed. Text after the device changes nothing.
pub fn mount(data: &[u8]) {
    let (line, rest) = halves(data);
    if let Ok((id, dev)) = identity::mount(line) {
        let printed = [format!("{id} 1 {dev} ").as_bytes(), rest].concat();
        assert_eq!(identity::mount(&printed), Ok((id, dev)));
    }
}

/// A mount table, and behind it an overlay whose layers have the names in the input, which NULs
/// separate. The overlay is found behind those that were there, and its layers are read back, in
/// each form in which kernels print them.
pub fn overlays(data: &[u8]) {
    let (table, names) = halves(data);
    let mut paths: Vec<Vec<u8>> =
        names.split(|&b| b == 0).take(8).map(|name| [b"/", name].concat()).collect();
    // In a list, a colon separates paths.
    let within_list = |path: &Vec<u8>| {
        let escaped =
            path.iter().flat_map(|&b| [b'\\', b].into_iter().skip(usize::from(b != b':' && b != b'\\')));
        escaped.collect::<Vec<u8>>()
    };
    let list = paths.iter().map(within_list).collect::<Vec<_>>().join(&b':');
    let one_by_one = |path: &Vec<u8>| [b",lowerdir+=", &option(path)[..]].concat();
    let upper = [b",upperdir=", &option(b"/up:per")[..], b",workdir=/work"].concat();
    let lower = [
        [b",lowerdir=", &option(&list)[..]].concat(),
        paths.iter().map(one_by_one).collect::<Vec<_>>().concat(),
    ];
    paths.push(b"/up:per".to_vec());
    for lower in lower {
        let options = [b"rw", &lower[..], &upper].concat();
        assert_eq!(layered::layers(&options), paths);
        let more = [table, b"\n30 1 0:40 / /merged rw - overlay none ", &options, b"\n"].concat();
        let mut found: Vec<_> = mounts::overlays(table).collect();
        found.push((b"/merged".to_vec(), &options));
        assert_eq!(mounts::overlays(&more).collect::<Vec<_>>(), found);
    }
}

/// The value of a mount option as `seq_show_option` prints it.
fn option(value: &[u8]) -> Vec<u8> {
    value.split(|&b| b == b',').map(escape).collect::<Vec<_>>().join(&b"\\054"[..])
}

/// A recorded inode is read back as it was printed.
pub fn recorded_inode(data: &[u8]) {
    if let Ok(dev) = identity::device_text(data) {
        assert_eq!(identity::device_text(dev.to_string().as_bytes()), Ok(dev));
    }
    let print = |magic: &str, dev: Dev, rest: &str| format!("{magic} {dev} {rest}\n").into_bytes();
    match identity::parse_recorded(data) {
        Err(_) => {}
        Ok(LinkTarget::Other(dev)) => {
            let printed = print("1021994", dev, "1 0 0 0.000000000 0.000000000");
            assert_eq!(identity::parse_recorded(&printed), Ok(LinkTarget::Other(dev)));
        }
        Ok(LinkTarget::DmaBuf(fact)) => {
            let since = fact.created_at.and_then(|t| t.duration_since(std::time::UNIX_EPOCH).ok());
            // Times that differ give no time of creation.
            let times = since.map_or("0.000000000 1.000000000".to_owned(), |t| {
                let time = format!("{}.{:09}", t.as_secs(), t.subsec_nanos());
                format!("{time} {time}")
            });
            let rest = format!("{} {} {} {times}", fact.ino, fact.size.0, fact.creator_uid);
            let printed = print("444d4142", fact.dev, &rest);
            assert_eq!(identity::parse_recorded(&printed), Ok(LinkTarget::DmaBuf(fact)));
        }
    }
}

/// The kernel's type information. Bytes after the two sections change nothing. A structure that is
/// appended to any records is found, unless one with its name was found before.
pub fn btf(data: &[u8]) {
    const NAMES: [&str; 2] = ["inode", "file"];
    let alone = types::sizes(data, NAMES);
    if alone.is_ok() {
        assert_eq!(types::sizes(&[data, data].concat(), NAMES), alone);
    }
    let strings = b"\0inode\0file\0";
    if let Ok([inode, file]) = types::sizes(&written(data, strings), NAMES) {
        let more = [data, &[1, 4 << 24, 560].map(u32::to_ne_bytes).concat()].concat();
        assert_eq!(types::sizes(&written(&more, strings), NAMES), Ok([inode.or(Some(560)), file]));
    }
}

/// Records and strings after a correct header.
pub(crate) fn written(records: &[u8], strings: &[u8]) -> Vec<u8> {
    types::file(records, strings).unwrap_or_default()
}
