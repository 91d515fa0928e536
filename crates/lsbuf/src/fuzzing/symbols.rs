//! Promises about the readers of other users' programs, and of kept names.

use crate::kernel::symbols::cache::{Names, written};
use crate::kernel::symbols::elf::{Elf, build_id};
use crate::model::BuildId;

/// ELF files. The build id is found again in a note that is written with it. An address of the
/// first byte of a segment is the segment's. No range of bytes ends before it begins.
pub fn elf(data: &[u8]) {
    let found = build_id(data);
    let file = Elf::read(&data);
    let of_file = file.as_ref().and_then(|file| file.build_id);
    for BuildId(id) in found.into_iter().chain(of_file) {
        let note = [&[4_u32, 20, 3].map(u32::to_ne_bytes).concat()[..], b"GNU\0", &id].concat();
        assert_eq!(build_id(&note), Some(BuildId(id)));
    }
    let Some(file) = file else { return };
    for bytes in file.sections.iter().map(|section| &section.bytes).chain(&file.tables) {
        assert!(bytes.start <= bytes.end);
    }
    for offset in [0, 1, 0x1000, u64::MAX] {
        let address = file.address_of(offset);
        assert!(address.is_none() || !file.segments.is_empty());
    }
}

/// Kept names. Those that are accepted are the same when they are written and read again.
pub fn symbols(data: &[u8]) {
    if let Some(names) = Names::parse(&written(data)) {
        assert_eq!(Names::parse(&names.to_bytes()), Some(names));
    }
}
