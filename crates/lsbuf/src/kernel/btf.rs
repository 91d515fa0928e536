//! The kernel's type information (BTF): `/sys/kernel/btf/vmlinux`.
//!
//! lsbuf needs two things from it: the sizes of a few structures, and the parts of it that its BPF
//! programs need to be fitted to this kernel.
//!
//! The file has a header (`struct btf_header` in include/uapi/linux/btf.h), then the types, then
//! their names. Each type is a record of 12 bytes and further bytes that depend on its kind. Types
//! are numbered from 1. A record does not state its length, so reading ends with an error at a kind
//! that is not known here.
//!
//! Limits: structures of kernel modules are not in this file. A module has a file of its own, of the
//! same form.

use std::collections::HashMap;

use super::parse::Malformed;

/// The path of the file, below the root of sysfs.
pub(crate) const PATH: &str = "kernel/btf/vmlinux";

/// The number that such a file begins with.
pub(crate) const MAGIC: u16 = 0xeb9f;

const KIND_POINTER: u32 = 2;
const KIND_ARRAY: u32 = 3;
const KIND_STRUCT: u32 = 4;
const KIND_UNION: u32 = 5;
const KIND_TYPEDEF: u32 = 8;
const KIND_FUNCTION: u32 = 12;

/// The sizes in bytes of structures with these names; `None` for one that the file does not have.
pub(crate) fn sizes<const N: usize>(btf: &[u8], names: [&str; N]) -> Result<[Option<u32>; N], Malformed> {
    let mut sizes = [None; N];
    for record in Types::of(btf)?.records() {
        let record = record?;
        if record.kind == KIND_STRUCT {
            for (wanted, found) in names.iter().zip(&mut sizes) {
                if wanted.as_bytes() == record.name()? {
                    found.get_or_insert(record.size);
                }
            }
        }
    }
    Ok(sizes)
}

/// The offsets in bytes of members of a structure in the type information of a kernel module;
/// `None`: it does not have them. `kernel` is the kernel's own file: names that it has are not
/// repeated in the module's.
pub(crate) fn offsets_in_module<const N: usize>(
    kernel: &[u8],
    module: &[u8],
    structure: &str,
    members: [&str; N],
) -> Result<Option<[u32; N]>, Malformed> {
    let common = section(kernel, header(kernel)?.strings)?;
    let types = Types::of(module)?;
    let name = |at: u32| match usize::try_from(at).ok().and_then(|at| at.checked_sub(common.len())) {
        None => string(common, at),
        Some(at) => string(types.strings, u32::try_from(at).map_err(|_| Malformed)?),
    };
    for record in types.records() {
        let record = record?;
        if record.kind != KIND_STRUCT || name(record.name)? != structure.as_bytes() {
            continue;
        }
        let mut offsets = [None; N];
        for member in record.extra.chunks_exact(12) {
            let of = name(word(member, 0)?)?;
            if let Some(nth) = members.iter().position(|wanted| wanted.as_bytes() == of) {
                offsets[nth] = Some(word(member, 8)? / 8);
            }
        }
        return Ok(offsets.iter().all(Option::is_some).then(|| offsets.map(Option::unwrap_or_default)));
    }
    Ok(None)
}

/// The part of the file that a BPF program needs.
#[derive(Debug)]
pub(crate) struct Extract<const N: usize> {
    /// A file of the same form, with the structures and the types that they are made of. Its
    /// pointers point to no type.
    pub(crate) btf: Vec<u8>,
    /// The numbers that the functions have in the whole file; `None` for one that it does not have.
    pub(crate) functions: [Option<u32>; N],
}

/// Copies all structures with these names, and finds functions. The result has about one
/// ten-thousandth of the file's size, so a general parser reads it much faster.
pub(crate) fn extract<const N: usize>(
    btf: &[u8],
    structures: &[&str],
    functions: [&str; N],
) -> Result<Extract<N>, Malformed> {
    let types = Types::of(btf)?;
    let mut extract = Extract { btf: Vec::new(), functions: [None; N] };
    let mut all = vec![0];
    let mut selection = Selection::default();
    for record in types.records() {
        let record = record?;
        let number = u32::try_from(all.len()).map_err(|_| Malformed)?;
        all.push(record.at);
        match record.kind {
            KIND_STRUCT | KIND_UNION => {
                let name = record.name()?;
                if structures.iter().any(|wanted| wanted.as_bytes() == name) {
                    selection.number(number);
                }
            }
            KIND_FUNCTION => {
                let name = record.name()?;
                if let Some(nth) = functions.iter().position(|wanted| wanted.as_bytes() == name) {
                    extract.functions[nth].get_or_insert(number);
                }
            }
            _ => {}
        }
    }
    let get = |number: u32| {
        let at = usize::try_from(number).ok().and_then(|number| all.get(number)).ok_or(Malformed)?;
        types.record(*at)
    };
    let (mut records, mut strings) = (Vec::new(), vec![0]);
    let mut done = 0;
    while let Some(&number) = selection.order.get(done) {
        done += 1;
        selection.copy(&get(number)?, &mut records, &mut strings)?;
    }
    extract.btf = file(&records, &strings)?;
    Ok(extract)
}

/// The types that are copied, in the order of their new numbers.
#[derive(Debug, Default)]
struct Selection {
    order: Vec<u32>,
    numbers: HashMap<u32, u32>,
}

impl Selection {
    /// Selects a type to be copied, and returns its new number.
    fn number(&mut self, old: u32) -> u32 {
        if old == 0 {
            return 0;
        }
        *self.numbers.entry(old).or_insert_with(|| {
            self.order.push(old);
            self.order.len() as u32
        })
    }

    /// Appends a record, and translates the numbers of the types that it refers to.
    fn copy(
        &mut self,
        record: &BtfType<'_>,
        records: &mut Vec<u8>,
        strings: &mut Vec<u8>,
    ) -> Result<(), Malformed> {
        let mut renamed = |name: &[u8]| {
            if name.is_empty() {
                return 0;
            }
            let at = strings.len() as u32;
            strings.extend_from_slice(name);
            strings.push(0);
            at
        };
        let size = match record.kind {
            // The type that it points to is not copied; a program reads that structure by its own
            // name.
            KIND_POINTER => 0,
            // Typedefs, volatile, const, restrict, type tags.
            KIND_TYPEDEF..=11 | 18 => self.number(record.size),
            _ => record.size,
        };
        let head = [renamed(record.name()?), record.info, size];
        records.extend(head.into_iter().flat_map(u32::to_ne_bytes));
        match record.kind {
            KIND_STRUCT | KIND_UNION => {
                for member in record.extra.chunks_exact(12) {
                    let name = string(record.strings, word(member, 0)?)?;
                    let member = [renamed(name), self.number(word(member, 4)?), word(member, 8)?];
                    records.extend(member.into_iter().flat_map(u32::to_ne_bytes));
                }
            }
            KIND_ARRAY => {
                let [element, index, len] =
                    [word(record.extra, 0)?, word(record.extra, 4)?, word(record.extra, 8)?];
                let array = [self.number(element), self.number(index), len];
                records.extend(array.into_iter().flat_map(u32::to_ne_bytes));
            }
            // Enumerators are not needed, and there are many of them.
            6 | 19 => {
                let at = records.len() - 8;
                records[at..at + 4].copy_from_slice(&(record.kind << 24).to_ne_bytes());
            }
            1 => records.extend_from_slice(record.extra),
            2 | 7..=11 | 16 | 18 => {}
            // Functions and variables cannot be part of a structure.
            _ => return Err(Malformed),
        }
        Ok(())
    }
}

/// Makes a file of these two sections.
pub(crate) fn file(records: &[u8], strings: &[u8]) -> Result<Vec<u8>, Malformed> {
    const HEADER: u32 = 24;
    let len = |section: &[u8]| u32::try_from(section.len()).map_err(|_| Malformed);
    let (types, names) = (len(records)?, len(strings)?);
    let mut btf = MAGIC.to_ne_bytes().to_vec();
    // Version 1, no flags.
    btf.extend([1, 0]);
    btf.extend([HEADER, 0, types, types, names].into_iter().flat_map(u32::to_ne_bytes));
    btf.extend_from_slice(records);
    btf.extend_from_slice(strings);
    Ok(btf)
}

/// The two sections of a file.
struct Types<'b> {
    records: &'b [u8],
    strings: &'b [u8],
}

struct BtfType<'b> {
    /// Its offset in the section.
    at: usize,
    kind: u32,
    name: u32,
    info: u32,
    /// The size of a structure or union; of some other kinds the number of another type.
    size: u32,
    /// The further bytes of its kind.
    extra: &'b [u8],
    strings: &'b [u8],
}

impl<'b> Types<'b> {
    fn of(btf: &'b [u8]) -> Result<Types<'b>, Malformed> {
        let header = header(btf)?;
        Ok(Types { records: section(btf, header.types)?, strings: section(btf, header.strings)? })
    }

    fn record(&self, at: usize) -> Result<BtfType<'b>, Malformed> {
        let bytes = self.records.get(at..).ok_or(Malformed)?;
        let [name, info, size] = [word(bytes, 0)?, word(bytes, 4)?, word(bytes, 8)?];
        let kind = info >> 24 & 0x1f;
        let extra = bytes.get(12..12 + extra(kind, info & 0xffff)?).ok_or(Malformed)?;
        Ok(BtfType { at, kind, name, info, size, extra, strings: self.strings })
    }

    fn records(&self) -> impl Iterator<Item = Result<BtfType<'b>, Malformed>> {
        let mut at = 0;
        std::iter::from_fn(move || {
            let record = (at < self.records.len()).then(|| self.record(at))?;
            at = record.as_ref().map_or(self.records.len(), |r| at + 12 + r.extra.len());
            Some(record)
        })
    }
}

impl<'b> BtfType<'b> {
    fn name(&self) -> Result<&'b [u8], Malformed> {
        string(self.strings, self.name)
    }
}

struct Header {
    types: (usize, usize),
    strings: (usize, usize),
}

/// Offsets in the header count from its end; the header states its own length.
fn header(btf: &[u8]) -> Result<Header, Malformed> {
    let magic = btf.first_chunk().map(|bytes| u16::from_ne_bytes(*bytes));
    if magic != Some(MAGIC) {
        return Err(Malformed);
    }
    let at = |offset| word(btf, offset).and_then(|w| usize::try_from(w).map_err(|_| Malformed));
    let len = at(4)?;
    let range = |offset: usize, size| Ok((len.checked_add(offset).ok_or(Malformed)?, size));
    Ok(Header { types: range(at(8)?, at(12)?)?, strings: range(at(16)?, at(20)?)? })
}

fn section(btf: &[u8], (offset, len): (usize, usize)) -> Result<&[u8], Malformed> {
    btf.get(offset..).and_then(|rest| rest.get(..len)).ok_or(Malformed)
}

/// How many bytes follow a record of that kind, if it has `members` members, enumerators or
/// parameters.
fn extra(kind: u32, members: u32) -> Result<usize, Malformed> {
    let members = members as usize;
    Ok(match kind {
        // Pointers, forwards, typedefs, volatile, const, restrict, functions, floats, type tags.
        KIND_POINTER | 7..=KIND_FUNCTION | 16 | 18 => 0,
        // Integers, variables, declaration tags.
        1 | 14 | 17 => 4,
        KIND_ARRAY => 12,
        // Enumerators; parameters of functions.
        6 | 13 => 8 * members,
        // Members of structures and unions; variables of sections; enumerators of 64 bits.
        KIND_STRUCT | KIND_UNION | 15 | 19 => 12 * members,
        _ => return Err(Malformed),
    })
}

fn word(bytes: &[u8], at: usize) -> Result<u32, Malformed> {
    let bytes = bytes.get(at..).and_then(<[u8]>::first_chunk).ok_or(Malformed)?;
    Ok(u32::from_ne_bytes(*bytes))
}

fn string(strings: &[u8], at: u32) -> Result<&[u8], Malformed> {
    let rest = usize::try_from(at).ok().and_then(|at| strings.get(at..)).ok_or(Malformed)?;
    Ok(&rest[..memchr::memchr(0, rest).unwrap_or(rest.len())])
}

/// The size of a structure, and for each member its name, offset and size in bytes.
#[cfg(test)]
pub(crate) type Layout = (u32, Vec<(String, u32, u32)>);

/// The layout of a structure; `None`: the file does not have it.
#[cfg(test)]
pub(crate) fn layout(btf: &[u8], name: &str) -> Result<Option<Layout>, Malformed> {
    let types = Types::of(btf)?;
    let records: Vec<BtfType<'_>> = types.records().collect::<Result<_, _>>()?;
    let get = |number: u32| (number as usize).checked_sub(1).and_then(|at| records.get(at)).ok_or(Malformed);
    let size_of = |mut number: u32| {
        let mut many = 1;
        loop {
            let record = get(number)?;
            match record.kind {
                KIND_POINTER => return Ok(8 * many),
                KIND_ARRAY => {
                    many *= word(record.extra, 8)?;
                    number = word(record.extra, 0)?;
                }
                KIND_TYPEDEF..=11 | 18 => number = record.size,
                _ => return Ok(record.size * many),
            }
        }
    };
    for record in &records {
        if record.kind == KIND_STRUCT && record.name()? == name.as_bytes() {
            let member = |member: &[u8]| {
                let name = String::from_utf8_lossy(string(types.strings, word(member, 0)?)?).into_owned();
                Ok((name, word(member, 8)? / 8, size_of(word(member, 4)?)?))
            };
            let members = record.extra.chunks_exact(12).map(member).collect::<Result<_, _>>()?;
            return Ok(Some((record.size, members)));
        }
    }
    Ok(None)
}

/// The names and numbers of an enumeration; `None`: the file does not have it.
#[cfg(test)]
pub(crate) fn enumerators(btf: &[u8], name: &str) -> Result<Option<Vec<(String, u32)>>, Malformed> {
    let types = Types::of(btf)?;
    for record in types.records() {
        let record = record?;
        if record.kind == 6 && record.name()? == name.as_bytes() {
            let one = |one: &[u8]| {
                let name = String::from_utf8_lossy(string(types.strings, word(one, 0)?)?).into_owned();
                Ok((name, word(one, 4)?))
            };
            return record.extra.chunks_exact(8).map(one).collect::<Result<_, _>>().map(Some);
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::fuzzing::written;

    /// A record, followed by as many zero bytes as its kind has.
    fn record(name: u32, kind: u32, members: u32, size: u32) -> Vec<u8> {
        let mut bytes = [name, kind << 24 | members, size].map(u32::to_ne_bytes).concat();
        bytes.resize(12 + extra(kind, members).unwrap(), 0);
        bytes
    }

    proptest! {
        /// Check that a structure's size is found, whatever records precede it.
        #[test]
        fn read_back(
            kinds in proptest::collection::vec((1u32..=19, 0u32..9), 0..20),
            members in 0u32..100,
            size: u32,
        ) {
            let mut records: Vec<u8> = kinds.iter().flat_map(|&(kind, n)| record(0, kind, n, 1)).collect();
            records.extend(record(1, KIND_STRUCT, members, size));
            // A union with the same name is another type.
            records.extend(record(7, 5, 0, 1));
            let btf = written(&records, b"\0inode\0file\0");
            prop_assert_eq!(sizes(&btf, ["inode", "file"]), Ok([Some(size), None]));
        }

        /// Check that no bytes make the parser panic, with a sound header or without.
        #[test]
        fn any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = sizes(&bytes, ["inode"]);
            let _ = sizes(&written(&bytes, b"\0x\0"), ["inode"]);
            let _ = extract(&written(&bytes, b"\0x\0"), &["x", ""], ["x"]);
        }

        /// Check that a file that is cut anywhere is malformed, and not answered in part.
        #[test]
        fn cut_short(keep in 0.0f64..1.0) {
            let btf = written(&record(1, KIND_STRUCT, 2, 560), b"\0inode\0");
            let len = (btf.len() as f64 * keep) as usize;
            prop_assert_eq!(sizes(&btf[..len], ["inode"]), Err(Malformed));
        }
    }

    /// A record that refers to others.
    fn referring(name: u32, kind: u32, members: u32, to: u32, extra: &[u32]) -> Vec<u8> {
        [&[name, kind << 24 | members, to], extra].concat().into_iter().flat_map(u32::to_ne_bytes).collect()
    }

    /// Check that a structure is copied with all types that it is made of, under matching numbers,
    /// and no others; and that a function is found by its number in the whole file.
    #[test]
    fn structures_are_copied() {
        let strings = b"\0skip\0file\0ino\0u64\0call\0";
        let (skip, file_name, ino, u64_name, call) = (1, 6, 11, 15, 19);
        let records = [
            referring(skip, KIND_STRUCT, 0, 8, &[]),
            referring(u64_name, 1, 0, 8, &[64]),
            referring(u64_name, KIND_TYPEDEF, 0, 2, &[]),
            referring(file_name, KIND_STRUCT, 1, 8, &[ino, 3, 0]),
            referring(call, KIND_FUNCTION, 0, 0, &[]),
        ];
        let extract = extract(&written(&records.concat(), strings), &["file"], ["call", "none"]).unwrap();
        assert_eq!(extract.functions, [Some(5), None]);
        let types = Types::of(&extract.btf).unwrap();
        let taken: Vec<BtfType<'_>> = types.records().collect::<Result<_, _>>().unwrap();
        let names: Vec<&[u8]> = taken.iter().map(|record| record.name().unwrap()).collect();
        assert_eq!(names, [&b"file"[..], b"u64", b"u64"]);
        // The parser that the loader uses accepts it.
        #[cfg(feature = "bpf")]
        {
            let read = aya_obj::btf::Btf::parse(&extract.btf, Default::default()).unwrap();
            assert!(read.id_by_type_name_kind("file", aya_obj::btf::BtfKind::Struct).is_ok());
        }
        // The member's type is the typedef, and the typedef's is the integer.
        assert_eq!((word(taken[0].extra, 4), taken[1].size, taken[2].kind), (Ok(2), 3, 1));
    }

    /// Check that an unknown kind ends the reading with an error.
    #[test]
    fn unknown_kind() {
        let mut records = record(1, KIND_STRUCT, 0, 560);
        records.extend([0, 20 << 24, 0].map(u32::to_ne_bytes).concat());
        assert_eq!(sizes(&written(&records, b"\0inode\0"), ["inode"]), Err(Malformed));
    }
}
