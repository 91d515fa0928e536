//! Promises about the parsers of mappings: lines of maps, names in map_files, and smaps.

use super::{LONGEST_NAME, halves};
use crate::kernel::private_huge::{self, PrivateMapping};
use crate::kernel::smaps::{self as values, Copies};
use crate::kernel::{map_files as links, maps as lines};
use crate::model::{Bytes, MapRef, Perms};

/// A line of maps is read back as it was printed. A name changes no number, and is returned
/// correctly or as unknown.
pub fn maps(data: &[u8]) {
    let print = |fact: &lines::MapFact, name: &[u8]| {
        let (vma, dev) = (&fact.vma, fact.dev);
        let perms = vma.perms.map(|p| p.to_string()).unwrap_or_default();
        let (start, end, offset) = (vma.start, vma.end, vma.offset.unwrap_or(0));
        let columns = format!(
            "{start:08x}-{end:08x} {perms} {offset:08x} {:02x}:{:02x} {} ",
            dev.major, dev.minor, fact.ino
        );
        [format!("{columns:<73}/dmabuf:").as_bytes(), name].concat()
    };
    for line in data.split(|&b| b == b'\n') {
        let Ok(Some(fact)) = lines::parse(line) else { continue };
        let name = fact.name.clone().unwrap_or_else(|| "\\012".into());
        assert_eq!(lines::parse(&print(&fact, name.as_bytes())), Ok(Some(fact.clone())));
        // The beginning of the input as a name.
        let raw = &data[..data.len().min(LONGEST_NAME)];
        let other = lines::parse(&print(&fact, &escape(raw)));
        assert!(
            other.as_ref().is_ok_and(|other| other.as_ref().is_some_and(|other| {
                (other.dev, other.ino, other.vma) == (fact.dev, fact.ino, fact.vma)
                    && other.name.as_ref().is_none_or(|name| name.as_bytes() == raw)
            })),
            "{other:?}"
        );
    }
}

/// A name in map_files is read back as it was printed.
pub fn map_files(data: &[u8]) {
    if let Ok(vma) = links::range(data) {
        let link = links::link(&vma);
        assert_eq!(
            link.as_str().strip_prefix("map_files/").map(|name| links::range(name.as_bytes())),
            Some(Ok(vma))
        );
    }
}

/// A path as the kernel escapes it in maps and smaps.
fn escape(path: &[u8]) -> Vec<u8> {
    let escaped = path.iter().flat_map(|b| if *b == b'\n' { &b"\\012"[..] } else { std::slice::from_ref(b) });
    escaped.copied().collect()
}

/// A text of smaps, and behind it a private mapping of huge pages that has a name of the input.
/// What the mapping has is added to what was found before it, and its name changes nothing.
pub fn smaps(data: &[u8]) {
    let (text, name) = halves(data);
    let (start, end) = (0x7f00_0000, 0x7f80_0000);
    let map = MapRef { start, end, offset: None, perms: Perms::parse(b"rw-p") };
    let values = b"\nSize:  8192 kB\nKernelPageSize:     2048 kB\nAnonymous:    40 kB\n\
        Shared_Hugetlb:    2048 kB\nPrivate_Hugetlb:    4096 kB\nVmFlags: rd wr mr ht sd\n";
    let first = format!("\n{start:x}-{end:x} rw-p 00000000 00:01 5 ");
    let more = [text, first.as_bytes(), &escape(name), values].concat();
    let before = values::copies_in(text, &[map]);
    let small = before.small + Bytes(40 << 10);
    assert_eq!(values::copies_in(&more, &[map]), Copies { small, huge: before.huge + Bytes(4 << 20) });
    let mut mappings = private_huge::mappings(text);
    mappings.push(PrivateMapping { start, end, page: Bytes(2 << 20), mapped: Bytes(6 << 20) });
    assert_eq!(private_huge::mappings(&more), mappings);
}
