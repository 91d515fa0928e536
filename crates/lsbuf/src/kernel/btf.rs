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
//! Limits: structures of kernel modules are not in this file. A module has a file of its own, of
//! the same form.

use std::collections::{HashMap, HashSet};

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
const KIND_FUNCTION_TYPE: u32 = 13;

/// The bits of a record's second word with the number of its members, enumerators or parameters.
const MEMBERS: u32 = 0xffff;

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

/// Where the structures and functions with certain names are in the file.
#[derive(Debug)]
pub(crate) struct Index<'b, const N: usize> {
    types: Types<'b>,
    /// The offsets of the first record and of every [`STEP`]th after it.
    places: Vec<usize>,
    /// The numbers of the structures and unions.
    structures: Vec<u32>,
    /// The numbers of the functions; `None` for one that the file does not have.
    pub(crate) functions: [Option<u32>; N],
}

/// The offset of one in so many records is kept. The others are found from there.
const STEP: usize = 64;

impl<'b, const N: usize> Index<'b, N> {
    /// Looks for all structures and unions with these names, and for the first function with each.
    pub(crate) fn of(
        btf: &'b [u8],
        structures: &[&str],
        functions: [&str; N],
    ) -> Result<Index<'b, N>, Malformed> {
        let types = Types::of(btf)?;
        let [structures, functions] = [structures, &functions].map(Names::new);
        let mut index = Index { types, places: Vec::new(), structures: Vec::new(), functions: [None; N] };
        let mut number = 0_u32;
        for head in types.heads() {
            let head = head?;
            if (number as usize).is_multiple_of(STEP) {
                index.places.push(head.at);
            }
            number = number.checked_add(1).ok_or(Malformed)?;
            match head.kind {
                KIND_STRUCT | KIND_UNION => {
                    let found = structures.find(types.strings, head.name)?;
                    index.structures.extend(found.map(|_| number));
                }
                KIND_FUNCTION => {
                    if let Some(nth) = functions.find(types.strings, head.name)? {
                        index.functions[nth].get_or_insert(number);
                    }
                }
                _ => {}
            }
        }
        Ok(index)
    }

    /// Copies what a program with the types `own` needs: a file of the same form, with those of the
    /// structures that `own` has too, and the types that they are made of. Of each structure it has
    /// only members whose names occur in `own`, and members without a name. Its pointers point to
    /// no type. The result has about one ten-thousandth of the file's size, so a general parser
    /// reads it much faster.
    ///
    /// A name in `own` stands for itself without what follows three underscores: that tells apart
    /// the forms that a structure has in different kernels.
    pub(crate) fn extract(&self, own: &[u8]) -> Result<Vec<u8>, Malformed> {
        let cut = |name: &'_ [u8]| memchr::memmem::find(name, b"___").unwrap_or(name.len());
        let names = Types::of(own)?.strings.split(|&byte| byte == 0).map(|name| &name[..cut(name)]);
        let names: HashSet<&[u8]> = names.collect();
        let mut selection = Selection::default();
        for &number in &self.structures {
            if names.contains(self.record(number)?.name()?) {
                selection.number(number);
            }
        }
        let (mut records, mut strings) = (Vec::new(), vec![0]);
        let mut done = 0;
        while let Some(&number) = selection.order.get(done) {
            done += 1;
            selection.copy(&self.record(number)?, &names, &mut records, &mut strings)?;
        }
        file(&records, &strings)
    }

    /// How many parameters one of the functions has. `None`: there is no such function.
    pub(crate) fn parameters(&self, nth: usize) -> Result<Option<usize>, Malformed> {
        let Some(number) = self.functions[nth] else { return Ok(None) };
        // A function's record has the number of its type in the place of a size.
        let kind = self.record(self.record(number)?.size)?;
        if kind.kind != KIND_FUNCTION_TYPE {
            return Err(Malformed);
        }
        Ok(Some((kind.info & MEMBERS) as usize))
    }

    /// The type with that number.
    fn record(&self, number: u32) -> Result<BtfType<'b>, Malformed> {
        let nth = usize::try_from(number).ok().and_then(|number| number.checked_sub(1)).ok_or(Malformed)?;
        let place = *self.places.get(nth / STEP).ok_or(Malformed)?;
        let head = self.types.heads_from(place).nth(nth % STEP).ok_or(Malformed)??;
        self.types.record(head.at)
    }
}

/// Names that are looked for among very many others.
struct Names<'n> {
    names: &'n [&'n str],
    /// A set of hashes of the names' beginnings. It rules out nearly every other name.
    begins: [u64; Names::WORDS],
}

impl<'n> Names<'n> {
    const WORDS: usize = 64;

    fn new(names: &'n [&'n str]) -> Names<'n> {
        let mut begins = [0; Names::WORDS];
        for name in names {
            let (word, bit) = Names::place(name.as_bytes());
            begins[word] |= bit;
        }
        Names { names, begins }
    }

    /// Which of them is the string at `at`.
    fn find(&self, strings: &[u8], at: u32) -> Result<Option<usize>, Malformed> {
        let rest = usize::try_from(at).ok().and_then(|at| strings.get(at..)).ok_or(Malformed)?;
        let (word, bit) = Names::place(rest);
        if self.begins[word] & bit == 0 {
            return Ok(None);
        }
        let is_it = |name: &&str| {
            let after = rest.strip_prefix(name.as_bytes());
            after.is_some_and(|after| after.first().is_none_or(|&byte| byte == 0))
        };
        Ok(self.names.iter().position(is_it))
    }

    /// The place in the set of what begins like `name`: a hash of the first four bytes, without a
    /// NUL and what is behind it.
    fn place(name: &[u8]) -> (usize, u64) {
        let mut first = [0; 4];
        match name.first_chunk() {
            Some(four) => first = *four,
            None => first[..name.len()].copy_from_slice(name),
        }
        let word = u32::from_le_bytes(first);
        // The lowest bit that is set here is the highest bit of the first byte that is 0.
        let zeros = word.wrapping_sub(0x0101_0101) & !word & 0x8080_8080;
        let begin = word & (zeros & zeros.wrapping_neg()).wrapping_sub(1);
        let hash = begin.wrapping_mul(0x9e37_79b1) >> 20;
        (hash as usize / 64, 1 << (hash % 64))
    }
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

    /// Appends a record, with those `members` of a structure, and translates the numbers of the
    /// types that it refers to.
    fn copy(
        &mut self,
        record: &BtfType<'_>,
        members: &HashSet<&[u8]>,
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
        let at = records.len();
        let head = [renamed(record.name()?), record.info, size];
        records.extend(head.into_iter().flat_map(u32::to_ne_bytes));
        match record.kind {
            KIND_STRUCT | KIND_UNION => {
                let mut kept = 0_u32;
                for member in record.extra.chunks_exact(12) {
                    let name = string(record.strings, word(member, 0)?)?;
                    if !members.contains(name) {
                        continue;
                    }
                    let member = [renamed(name), self.number(word(member, 4)?), word(member, 8)?];
                    records.extend(member.into_iter().flat_map(u32::to_ne_bytes));
                    kept += 1;
                }
                let info = record.info & !MEMBERS | kept;
                records[at + 4..at + 8].copy_from_slice(&info.to_ne_bytes());
            }
            KIND_ARRAY => {
                let [element, index, len] =
                    [word(record.extra, 0)?, word(record.extra, 4)?, word(record.extra, 8)?];
                let array = [self.number(element), self.number(index), len];
                records.extend(array.into_iter().flat_map(u32::to_ne_bytes));
            }
            // Enumerators are not needed, and there are many of them.
            6 | 19 => records[at + 4..at + 8].copy_from_slice(&(record.kind << 24).to_ne_bytes()),
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
#[derive(Clone, Copy, Debug)]
struct Types<'b> {
    records: &'b [u8],
    strings: &'b [u8],
}

/// What is needed of a record to tell whether it is of interest.
struct Head {
    /// Its offset in the section.
    at: usize,
    kind: u32,
    name: u32,
}

struct BtfType<'b> {
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
        let kind = kind(info);
        let extra = bytes.get(12..12 + extra(kind, info & MEMBERS)?).ok_or(Malformed)?;
        Ok(BtfType { kind, name, info, size, extra, strings: self.strings })
    }

    fn records(self) -> impl Iterator<Item = Result<BtfType<'b>, Malformed>> {
        self.heads().map(move |head| self.record(head?.at))
    }

    fn heads(self) -> impl Iterator<Item = Result<Head, Malformed>> + use<'b> {
        self.heads_from(0)
    }

    /// The heads from the record at that offset on.
    fn heads_from(self, mut at: usize) -> impl Iterator<Item = Result<Head, Malformed>> + use<'b> {
        std::iter::from_fn(move || {
            let bytes = self.records.get(at..).filter(|bytes| !bytes.is_empty())?;
            let head = head(at, bytes);
            // After an error, and after the last record, nothing is left.
            at = head.as_ref().map_or(self.records.len(), |(_, end)| *end);
            Some(head.map(|(head, _)| head))
        })
    }
}

/// The head of the record that `bytes` begin with, and where the record ends.
fn head(at: usize, bytes: &[u8]) -> Result<(Head, usize), Malformed> {
    let [name, info] = [word(bytes, 0)?, word(bytes, 4)?];
    let kind = kind(info);
    let len = 12 + extra(kind, info & MEMBERS)?;
    if len > bytes.len() {
        return Err(Malformed);
    }
    Ok((Head { at, kind, name }, at + len))
}

fn kind(info: u32) -> u32 {
    info >> 24 & 0x1f
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
    // A table, because the kinds follow each other in no order that a processor could predict.
    const EXTRA: [Option<(u8, u8)>; 32] = {
        let mut all = [None; 32];
        let mut kind = 0;
        while kind < all.len() {
            all[kind] = extra_of(kind as u32);
            kind += 1;
        }
        all
    };
    let (fixed, each) = EXTRA.get(kind as usize).copied().flatten().ok_or(Malformed)?;
    Ok(usize::from(fixed) + usize::from(each) * members as usize)
}

/// How many bytes follow a record of that kind: a fixed number, and a number for each member,
/// enumerator or parameter. `None`: the kind is unknown.
const fn extra_of(kind: u32) -> Option<(u8, u8)> {
    Some(match kind {
        // Pointers, forwards, typedefs, volatile, const, restrict, functions, floats, type tags.
        KIND_POINTER | 7..=KIND_FUNCTION | 16 | 18 => (0, 0),
        // Integers, variables, declaration tags.
        1 | 14 | 17 => (4, 0),
        KIND_ARRAY => (12, 0),
        // Enumerators; parameters of functions.
        6 | 13 => (0, 8),
        // Members of structures and unions; variables of sections; enumerators of 64 bits.
        KIND_STRUCT | KIND_UNION | 15 | 19 => (0, 12),
        _ => return None,
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
            let btf = written(&bytes, b"\0x\0");
            let _ = Index::of(&btf, &["x", ""], ["x"]).and_then(|index| index.extract(&btf));
        }

        /// Check that structures and functions are found by their names and numbers wherever they
        /// stand, and that other names that begin in the same way are not taken for them.
        #[test]
        fn found_anywhere(kinds in proptest::collection::vec((1u32..=19, 0u32..9, 0usize..5), 0..300)) {
            const STRINGS: &[u8] = b"\0x\0file\0file_operations\0fil\0";
            const NAMES: [(u32, &str); 5] = [(0, ""), (1, "x"), (3, "file"), (8, "file_operations"), (24, "fil")];
            let of = |&(kind, n, name): &(u32, u32, usize)| record(NAMES[name].0, kind, n, 8);
            let btf = written(&kinds.iter().flat_map(of).collect::<Vec<u8>>(), STRINGS);
            let index = Index::of(&btf, &["file", "x"], ["fil", "file"]).unwrap();
            let numbers = |wanted: &[u32], names: &[&str]| -> Vec<u32> {
                let numbered = kinds.iter().zip(1..);
                let is = |(kind, _, name): &(u32, u32, usize)| {
                    wanted.contains(kind) && names.contains(&NAMES[*name].1)
                };
                numbered.filter(|(one, _)| is(one)).map(|(_, number)| number).collect()
            };
            prop_assert_eq!(&index.structures, &numbers(&[KIND_STRUCT, KIND_UNION], &["file", "x"]));
            let functions = ["fil", "file"].map(|name| numbers(&[KIND_FUNCTION], &[name]).first().copied());
            prop_assert_eq!(index.functions, functions);
            for &number in &index.structures {
                let found = index.record(number).unwrap();
                let (kind, n, name) = kinds[number as usize - 1];
                prop_assert_eq!((found.kind, found.extra.len()), (kind, 12 * n as usize));
                prop_assert_eq!(found.name().unwrap(), NAMES[name].1.as_bytes());
            }
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
        let whole = written(&records.concat(), strings);
        let index = Index::of(&whole, &["file"], ["call", "none"]).unwrap();
        assert_eq!(index.functions, [Some(5), None]);
        let copy = index.extract(&written(&[], b"\0file\0ino\0")).unwrap();
        let types = Types::of(&copy).unwrap();
        let taken: Vec<BtfType<'_>> = types.records().collect::<Result<_, _>>().unwrap();
        let names: Vec<&[u8]> = taken.iter().map(|record| record.name().unwrap()).collect();
        assert_eq!(names, [&b"file"[..], b"u64", b"u64"]);
        // The parser that the loader uses accepts it.
        #[cfg(feature = "bpf")]
        {
            let read = aya_obj::btf::Btf::parse(&copy, Default::default()).unwrap();
            assert!(read.id_by_type_name_kind("file", aya_obj::btf::BtfKind::Struct).is_ok());
        }
        // The member's type is the typedef, and the typedef's is the integer.
        assert_eq!((word(taken[0].extra, 4), taken[1].size, taken[2].kind), (Ok(2), 3, 1));
    }

    /// Check that a program gets the structures that it has, however it tells their forms apart,
    /// with their size, and of their members those that it names at their offsets and those without
    /// a name.
    #[test]
    fn only_what_a_program_names() {
        let strings = b"\0file\0path\0ino\0mode\0u64\0";
        let (file_name, path, ino, mode, u64_name) = (1, 6, 11, 15, 20);
        let members = [mode, 1, 0, ino, 1, 64, 0, 3, 128];
        let records = [
            referring(u64_name, 1, 0, 8, &[64]),
            referring(file_name, KIND_STRUCT, 3, 24, &members),
            referring(0, KIND_UNION, 2, 8, &[mode, 1, 0, ino, 1, 0]),
            referring(path, KIND_STRUCT, 1, 8, &[ino, 1, 0]),
        ];
        let whole = written(&records.concat(), strings);
        let index = Index::of(&whole, &["file", "path"], []).unwrap();
        let copy = index.extract(&written(&[], b"\0file___6_12\0ino\0")).unwrap();
        assert_eq!(layout(&copy, "path"), Ok(None));
        let members = [("ino", 8, 8), ("", 16, 8)].map(|(name, at, size)| (name.to_owned(), at, size));
        assert_eq!(layout(&copy, "file"), Ok(Some((24, members.to_vec()))));
        let types = Types::of(&copy).unwrap();
        let union = types.records().map(Result::unwrap).find(|record| record.kind == KIND_UNION).unwrap();
        assert_eq!(union.extra.len(), 12);
    }

    /// Check that an unknown kind ends the reading with an error.
    #[test]
    fn unknown_kind() {
        let mut records = record(1, KIND_STRUCT, 0, 560);
        records.extend([0, 20 << 24, 0].map(u32::to_ne_bytes).concat());
        assert_eq!(sizes(&written(&records, b"\0inode\0"), ["inode"]), Err(Malformed));
    }
}
