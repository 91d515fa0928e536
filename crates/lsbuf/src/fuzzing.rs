//! What every parser promises for any bytes whatever, as functions that panic where a promise is broken.
//!
//! Beyond "no panic": what a parser took in, printed as the kernel prints it, is taken in again as the same; and what a
//! stranger chose (a buffer's name, a command name, a path) changes no other field. libFuzzer drives these functions in
//! `fuzz/`, the property tests below do where there is none.
//!
//! Where a promise needs two texts, a NUL parts them: no kernel text has one.

use std::fmt::Write;

use crate::kernel::bufinfo::{self, ListedBuffer};
use crate::kernel::elsewhere::{Elsewhere, Keeper};
use crate::kernel::fdinfo::{self, DmaBufInfo};
use crate::kernel::identity::{self, Object};
use crate::kernel::map_files;
use crate::kernel::maps;
use crate::kernel::parse::{cut, number, number32};
use crate::kernel::process::{self, Stage};
use crate::model::{Bytes, Dev, Inode, KeptElsewhere, Label};

/// Longest name that the kernel takes for a buffer (`DMA_BUF_NAME_LEN` less its NUL).
const LONGEST_NAME: usize = 31;

fn halves(data: &[u8]) -> (&[u8], &[u8]) {
    cut(data, 0).unwrap_or((data, b""))
}

/// A number is its digits and nothing else, and fits where it is said to fit.
pub fn numbers(data: &[u8]) {
    for (radix, print) in [
        (8, (|n| format!("{n:o}")) as fn(u64) -> String),
        (10, |n| format!("{n}")),
        (16, |n| format!("{n:x}")),
    ] {
        let Ok(n) = number(data, radix) else { continue };
        let digits = data.to_ascii_lowercase();
        let significant = digits.iter().position(|&b| b != b'0').unwrap_or(digits.len() - 1);
        assert_eq!(print(n).as_bytes(), &digits[significant..]);
        assert_eq!(number32(data, radix).ok(), u32::try_from(n).ok());
    }
}

/// fdinfo: read back as printed; a name, whatever lines it forges, changes nothing else.
pub fn fdinfo(data: &[u8]) {
    let (text, name) = halves(data);
    let Ok(mut info) = fdinfo::parse(text) else { return };
    let flags = if info.path_only { 0o10_000_002 } else { 2 };
    let mut printed = format!("pos:\t0\nflags:\t0{flags:o}\nmnt_id:\t{}\n", info.mnt_id);
    if let Some(ino) = info.ino {
        let _ = writeln!(printed, "ino:\t{ino}");
    }
    let mut printed = printed.into_bytes();
    if let Some(DmaBufInfo { size, count, exporter, name: shown }) = &mut info.dmabuf {
        printed.extend_from_slice(format!("size:\t{}\ncount:\t{count}\nexp_name:\t", size.0).as_bytes());
        printed.extend_from_slice(exporter.as_bytes());
        printed.extend_from_slice(&[b"\nname:\t", name, b"\n"].concat());
        *shown = name.into();
    }
    assert_eq!(fdinfo::parse(&printed), Ok(info));
}

/// Lines of maps: read back as printed; a name changes no figure, and is right or unknown.
pub fn maps(data: &[u8]) {
    let print = |fact: &maps::MapFact, name: &[u8]| {
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
        let Ok(Some(fact)) = maps::parse(line) else { continue };
        let name = fact.name.clone().unwrap_or_else(|| "\\012".into());
        assert_eq!(maps::parse(&print(&fact, name.as_bytes())), Ok(Some(fact.clone())));
        // The rest of the text as a name, escaped as the kernel does.
        let raw = &data[..data.len().min(LONGEST_NAME)];
        let escaped: Vec<u8> = raw
            .iter()
            .flat_map(|b| if *b == b'\n' { &b"\\012"[..] } else { std::slice::from_ref(b) })
            .copied()
            .collect();
        let other = maps::parse(&print(&fact, &escaped));
        assert!(
            other.as_ref().is_ok_and(|other| other.as_ref().is_some_and(|other| {
                (other.dev, other.ino, other.vma) == (fact.dev, fact.ino, fact.vma)
                    && other.name.as_ref().is_none_or(|name| name.as_bytes() == raw)
            })),
            "{other:?}"
        );
    }
}

/// Names of map_files: read back as printed.
pub fn map_files(data: &[u8]) {
    if let Ok(vma) = map_files::range(data) {
        let link = map_files::link(&vma);
        assert_eq!(
            link.strip_prefix("map_files/").map(|name| map_files::range(name.as_bytes())),
            Some(Ok(vma))
        );
    }
}

/// The kernel's list: read back as printed.
pub fn bufinfo(data: &[u8]) {
    let list = bufinfo::parse(data);
    let entries: Vec<Entry> = list
        .buffers
        .iter()
        .map(|buffer| Entry { buffer, name: buffer.name.as_ref().map_or(b"a\nb", |name| name.as_bytes()) })
        .collect();
    let again = bufinfo::parse(&print_list(&entries));
    assert_eq!(again.buffers, list.buffers);
    let distinct =
        !list.buffers.iter().enumerate().any(|(nth, b)| list.buffers[..nth].iter().any(|a| a.ino == b.ino));
    assert_eq!(again.agrees(), distinct);
}

/// The kernel's list of buffers that are called by what the NULs part: no figure, row or attachment is forged, and no
/// wrong name is believed but one that breaks off before what looks like a fence.
pub fn bufinfo_names(data: &[u8]) {
    let names: Vec<&[u8]> =
        data.split(|&b| b == 0).take(8).map(|name| &name[..name.len().min(LONGEST_NAME)]).collect();
    let devices: [Label; 2] = ["vgem".into(), "0000:00:02.0".into()];
    let buffers: Vec<ListedBuffer> = (1..)
        .zip(&names)
        .map(|(nth, _)| ListedBuffer {
            ino: Inode(nth),
            size: Bytes(4096 * nth),
            count: nth,
            exporter: "system".into(),
            name: None,
            attachments: Some(devices[..nth as usize % 3].to_vec()),
        })
        .collect();
    let entries: Vec<Entry> =
        buffers.iter().zip(&names).map(|(buffer, name)| Entry { buffer, name }).collect();
    let list = bufinfo::parse(&print_list(&entries));
    assert!(list.agrees(), "{list:?}");
    let nameless: Vec<ListedBuffer> =
        list.buffers.iter().cloned().map(|buffer| ListedBuffer { name: None, ..buffer }).collect();
    assert_eq!(nameless, buffers);
    for (read, name) in list.buffers.iter().zip(names) {
        let Some(read) = &read.name else { continue };
        let rest = name.strip_prefix(read.as_bytes());
        let cut_at_fences = rest.and_then(|rest| rest.strip_prefix(b"\n")).is_some_and(|rest| {
            rest.split(|&b| b == b'\n').all(|line| line.windows(6).any(|w| w == b"fence:"))
        });
        let is_none = read.is_empty() && (name == b"<none>" || name.starts_with(b"<none>\n"));
        assert!(rest == Some(b"") || cut_at_fences || is_none, "{read:?} for {}", name.escape_ascii());
    }
}

struct Entry<'a> {
    buffer: &'a ListedBuffer,
    name: &'a [u8],
}

/// The list as `dma_buf_debug_show` prints it.
fn print_list(entries: &[Entry<'_>]) -> Vec<u8> {
    let mut text =
        b"\nDma-buf Objects:\nsize    \tflags   \tmode    \tcount   \texp_name\tino     \tname\n".to_vec();
    for Entry { buffer, name } in entries {
        text.extend_from_slice(
            format!("{:08}\t00000002\t00080007\t{:08}\t", buffer.size.0, buffer.count).as_bytes(),
        );
        text.extend_from_slice(buffer.exporter.as_bytes());
        text.extend_from_slice(format!("\t{:08}\t", buffer.ino.0).as_bytes());
        text.extend_from_slice(name);
        text.extend_from_slice(b"\n\tAttached Devices:\n");
        for device in buffer.attachments.iter().flatten() {
            text.extend_from_slice(&[b"\t", device.as_bytes(), b"\n"].concat());
        }
        let devices = buffer.attachments.as_ref().map_or("?".to_owned(), |devices| devices.len().to_string());
        text.extend_from_slice(format!("Total {devices} devices attached\n\n").as_bytes());
    }
    let size: Bytes = entries.iter().map(|entry| entry.buffer.size).sum();
    text.extend_from_slice(format!("\nTotal {} objects, {} bytes\n", entries.len(), size.0).as_bytes());
    text
}

/// Links and fdinfo of what keeps files: a link is read back; nothing is proven absent unless nothing was counted.
pub fn elsewhere(data: &[u8]) {
    let (link, text) = halves(data);
    let keeper = Keeper::of(link);
    if let Some(Keeper::Socket(ino)) = keeper {
        assert_eq!(Keeper::of(format!("socket:[{ino}]").as_bytes()), keeper);
    }
    let mut elsewhere = Elsewhere::default();
    for keeper in [keeper.unwrap_or(Keeper::Ring), Keeper::Socket(1)] {
        elsewhere.add(keeper, Some(text));
        let kept = elsewhere.kept();
        let known = [elsewhere.in_flight_of_one(), elsewhere.fixed_of_one()];
        if kept == KeptElsewhere::default() {
            assert_eq!(known, [Some(0); 2]);
        }
        if kept.in_flight > 0 || kept.unknown {
            assert_eq!(known, [None; 2]);
        }
        if kept.io_uring > 0 {
            assert_eq!(known[1], None);
        }
    }
}

/// stat, status and cgroup of a process: read back as printed; a command name shifts no field.
pub fn process(data: &[u8]) {
    const AFTER: &str = ") S 1 7 7 0 -1 2129984 102 0 0 0 0 0 0 0 20 0 1 0";
    let (text, comm) = halves(data);
    let print = |comm: &[u8], start: u64| {
        [b"7 (", comm, format!("{AFTER} {start} 9003008 200\n").as_bytes()].concat()
    };
    assert_eq!(process::stat(&print(comm, 4711)), Ok((comm.into(), 4711)));
    assert_eq!(process::stage(&print(comm, 4711)), Ok(Stage::Kernel));
    let _ = process::stage(text);
    if let Ok((comm, start)) = process::stat(text) {
        assert_eq!(process::stat(&print(comm.as_bytes(), start)), Ok((comm, start)));
    }
    let line = text.split(|&b| b == b'\n').next().unwrap_or_default();
    if let Some(uid) = process::real_uid(text) {
        let status = [b"Name:\t", line, format!("\nUid:\t{uid}\t0\t0\t0\n").as_bytes()].concat();
        assert_eq!(process::real_uid(&status), Some(uid));
    }
    assert_eq!(process::unified_cgroup(&[b"1:cpu:/x\n0::", line, b"\n"].concat()), Some(line.into()));
    let _ = process::unified_cgroup(text);
}

/// Lines of mountinfo: read back as printed; what follows the device shifts nothing.
pub fn mount(data: &[u8]) {
    let (line, rest) = halves(data);
    if let Ok((id, dev)) = identity::mount(line) {
        let printed = [format!("{id} 1 {dev} ").as_bytes(), rest].concat();
        assert_eq!(identity::mount(&printed), Ok((id, dev)));
    }
}

/// What a recorded tree keeps of an inode: read back as printed.
pub fn recorded_inode(data: &[u8]) {
    if let Ok(dev) = identity::device_text(data) {
        assert_eq!(identity::device_text(dev.to_string().as_bytes()), Ok(dev));
    }
    let print = |magic: &str, dev: Dev, rest: &str| format!("{magic} {dev} {rest}\n").into_bytes();
    match identity::parse_recorded(data) {
        Err(_) => {}
        Ok(Object::Other(dev)) => {
            let printed = print("1021994", dev, "1 0 0 0.000000000 0.000000000");
            assert_eq!(identity::parse_recorded(&printed), Ok(Object::Other(dev)));
        }
        Ok(Object::DmaBuf(fact)) => {
            let since = fact.created_at.and_then(|t| t.duration_since(std::time::UNIX_EPOCH).ok());
            // Times that contradict each other tell nothing.
            let times = since.map_or("0.000000000 1.000000000".to_owned(), |t| {
                let time = format!("{}.{:09}", t.as_secs(), t.subsec_nanos());
                format!("{time} {time}")
            });
            let rest = format!("{} {} {} {times}", fact.ino, fact.size.0, fact.creator_uid);
            let printed = print("444d4142", fact.dev, &rest);
            assert_eq!(identity::parse_recorded(&printed), Ok(Object::DmaBuf(fact)));
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    /// Bytes, and the parsers' own words in any order, which random bytes would never hit.
    fn soup() -> impl Strategy<Value = Vec<u8>> {
        const WORDS: &[&str] = &[
            "\n",
            "\t",
            " ",
            "\0",
            ":",
            "-",
            ")",
            "(",
            "0",
            "1",
            "7",
            "00065536",
            "00000002",
            "00080007",
            "ff",
            "18446744073709551615",
            "18446744073709551616",
            "flags:\t",
            "mnt_id:\t",
            "ino:\t",
            "size:\t",
            "count:\t",
            "exp_name:\t",
            "name:\t",
            "02\n",
            "7\n",
            "system",
            "7f00-7f10",
            " rw-s ",
            "00001000 ",
            "00:0c ",
            "/dmabuf:",
            "\\012",
            "\tAttached Devices:\n",
            "Total ",
            " devices attached\n",
            " objects, ",
            " bytes\n",
            "\tread fence:",
            "<none>",
            "scm_fds: ",
            "UserFiles:\t",
            "socket:[",
            "]",
            "anon_inode:[io_uring]",
            "Uid:\t",
            "0::/",
            "36 35 ",
            "0:12",
            "444d4142 ",
            "1.000000000",
            "00065536\t00000002\t00080007\t00000002\tsystem\t00000007\t",
            "flags:\t02\nmnt_id:\t9\nsize:\t1\ncount:\t1\nexp_name:\tx\n",
            "7f00-7f10 rw-s 0 0:c 7 /dmabuf:",
            "444d4142 0:12 7 4096 0 1.000000000 1.000000000",
            ") S 1 7 7 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 4711 0",
        ];
        let piece = prop_oneof![
            4 => proptest::sample::select(WORDS).prop_map(|word| word.as_bytes().to_vec()),
            1 => vec(any::<u8>(), 0..4),
        ];
        prop_oneof![vec(piece, 0..16).prop_map(|pieces| pieces.concat()), vec(any::<u8>(), 0..80)]
    }

    macro_rules! promises {
        ($($parser:ident)*) => {
            proptest! {
                $(
                    /// Check that this parser's promises hold.
                    #[test]
                    fn $parser(data in soup()) {
                        super::$parser(&data);
                    }
                )*
            }
        };
    }

    promises! { numbers fdinfo maps map_files bufinfo bufinfo_names elsewhere process mount recorded_inode }
}
