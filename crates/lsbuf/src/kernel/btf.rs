//! The kernel's own type information, as far as the sizes of its structures: `/sys/kernel/btf/vmlinux`.
//!
//! A header (`struct btf_header` in include/uapi/linux/btf.h), then records one after another, each of 12 bytes and what
//! its kind adds, then the names. Records have no length of their own, so a kind not known here ends the reading.
//!
//! Limits: structures that a module declares are not in this file.

use super::parse::Garbled;

/// Where it is, below the root of sysfs.
pub(crate) const PATH: &str = "kernel/btf/vmlinux";

/// What such a file begins with.
pub(crate) const MAGIC: u16 = 0xeb9f;
const KIND_STRUCT: u32 = 4;

/// The sizes in bytes of the structures called so; `None` for one that is not declared.
pub(crate) fn sizes<const N: usize>(btf: &[u8], names: [&str; N]) -> Result<[Option<u32>; N], Garbled> {
    let header = header(btf)?;
    let (mut records, strings) = (section(btf, header.types)?, section(btf, header.strings)?);
    let mut sizes = [None; N];
    while !records.is_empty() {
        let [name, info, size] = [word(records, 0)?, word(records, 4)?, word(records, 8)?];
        let kind = info >> 24 & 0x1f;
        if kind == KIND_STRUCT {
            let name = string(strings, name)?;
            for (wanted, found) in names.iter().zip(&mut sizes) {
                if wanted.as_bytes() == name {
                    found.get_or_insert(size);
                }
            }
        }
        records = records.get(12 + extra(kind, info & 0xffff)?..).ok_or(Garbled)?;
    }
    Ok(sizes)
}

struct Header {
    types: (usize, usize),
    strings: (usize, usize),
}

/// Offsets in the header count from its end, which it states itself.
fn header(btf: &[u8]) -> Result<Header, Garbled> {
    let magic = btf.first_chunk().map(|bytes| u16::from_ne_bytes(*bytes));
    if magic != Some(MAGIC) {
        return Err(Garbled);
    }
    let at = |offset| word(btf, offset).and_then(|w| usize::try_from(w).map_err(|_| Garbled));
    let len = at(4)?;
    let range = |offset: usize, size| Ok((len.checked_add(offset).ok_or(Garbled)?, size));
    Ok(Header { types: range(at(8)?, at(12)?)?, strings: range(at(16)?, at(20)?)? })
}

fn section(btf: &[u8], (offset, len): (usize, usize)) -> Result<&[u8], Garbled> {
    btf.get(offset..).and_then(|rest| rest.get(..len)).ok_or(Garbled)
}

/// How many bytes of a kind follow its record, with `members` of whatever the kind has several of.
fn extra(kind: u32, members: u32) -> Result<usize, Garbled> {
    let members = members as usize;
    Ok(match kind {
        // Pointers, forwards, typedefs, volatile, const, restrict, functions, floats, type tags.
        2 | 7..=12 | 16 | 18 => 0,
        // Integers, variables, declaration tags.
        1 | 14 | 17 => 4,
        // Arrays.
        3 => 12,
        // Enumerators; parameters of functions.
        6 | 13 => 8 * members,
        // Members of structures and unions; variables of sections; enumerators of 64 bits.
        KIND_STRUCT | 5 | 15 | 19 => 12 * members,
        _ => return Err(Garbled),
    })
}

fn word(bytes: &[u8], at: usize) -> Result<u32, Garbled> {
    let bytes = bytes.get(at..).and_then(<[u8]>::first_chunk).ok_or(Garbled)?;
    Ok(u32::from_ne_bytes(*bytes))
}

fn string(strings: &[u8], at: u32) -> Result<&[u8], Garbled> {
    let rest = usize::try_from(at).ok().and_then(|at| strings.get(at..)).ok_or(Garbled)?;
    rest.split(|&b| b == 0).next().ok_or(Garbled)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::fuzzing::written;

    /// A record with as many zero bytes behind it as its kind has.
    fn record(name: u32, kind: u32, members: u32, size: u32) -> Vec<u8> {
        let mut bytes = [name, kind << 24 | members, size].map(u32::to_ne_bytes).concat();
        bytes.resize(12 + extra(kind, members).unwrap(), 0);
        bytes
    }

    proptest! {
        /// Check that a structure is read back with its size, whatever stands before it.
        #[test]
        fn read_back(
            kinds in proptest::collection::vec((1u32..=19, 0u32..9), 0..20),
            members in 0u32..100,
            size: u32,
        ) {
            let mut records: Vec<u8> = kinds.iter().flat_map(|&(kind, n)| record(0, kind, n, 1)).collect();
            records.extend(record(1, KIND_STRUCT, members, size));
            // A union of the same name is another thing.
            records.extend(record(7, 5, 0, 1));
            let btf = written(&records, b"\0inode\0file\0");
            prop_assert_eq!(sizes(&btf, ["inode", "file"]), Ok([Some(size), None]));
        }

        /// Check that no bytes make the parser panic, with a sound header or without.
        #[test]
        fn any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = sizes(&bytes, ["inode"]);
            let _ = sizes(&written(&bytes, b"\0x\0"), ["inode"]);
        }

        /// Check that a text cut short anywhere is garbled rather than answered in part.
        #[test]
        fn cut_short(keep in 0.0f64..1.0) {
            let btf = written(&record(1, KIND_STRUCT, 2, 560), b"\0inode\0");
            let len = (btf.len() as f64 * keep) as usize;
            prop_assert_eq!(sizes(&btf[..len], ["inode"]), Err(Garbled));
        }
    }

    /// Check that a kind that is not known ends the reading with an error.
    #[test]
    fn unknown_kind() {
        let mut records = record(1, KIND_STRUCT, 0, 560);
        records.extend([0, 20 << 24, 0].map(u32::to_ne_bytes).concat());
        assert_eq!(sizes(&written(&records, b"\0inode\0"), ["inode"]), Err(Garbled));
    }
}
