//! Promises about the parsers of mount tables, of the inodes in a recorded tree, and of the
//! kernel's type information.

use crate::kernel::btf as types;
use crate::kernel::identity::{self, LinkTarget};
use crate::model::Dev;

use super::halves;

/// A line of mountinfo is read back as it was printed. Text after the device changes nothing.
pub fn mount(data: &[u8]) {
    let (line, rest) = halves(data);
    if let Ok((id, dev)) = identity::mount(line) {
        let printed = [format!("{id} 1 {dev} ").as_bytes(), rest].concat();
        assert_eq!(identity::mount(&printed), Ok((id, dev)));
    }
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
