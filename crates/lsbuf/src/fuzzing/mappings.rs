//! Promises about the parsers of mappings: lines of maps, and names in map_files.

use super::LONGEST_NAME;
use crate::kernel::{map_files as links, maps as lines};

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
        // The beginning of the input as a name, escaped as the kernel does it.
        let raw = &data[..data.len().min(LONGEST_NAME)];
        let escaped: Vec<u8> = raw
            .iter()
            .flat_map(|b| if *b == b'\n' { &b"\\012"[..] } else { std::slice::from_ref(b) })
            .copied()
            .collect();
        let other = lines::parse(&print(&fact, &escaped));
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
