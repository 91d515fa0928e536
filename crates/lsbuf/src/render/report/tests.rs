//! Stacks and profiles say what the snapshot says, also with hostile names.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::model::examples::{buffer, made, snapshot};
use crate::model::{
    BuildId, Bytes, CodePlace, Function, Gaps, KernelFrame, Kind, Label, Ledger, NoOrigin, Snapshot,
    UserFrame,
};

fn function(name: &str, source: Option<(&str, u32)>) -> Function {
    let (file, line) = source.unzip();
    Function { file: file.map(Label::from), line, ..Function::new(name.into()) }
}

/// A call in the file with that build id.
fn call(module: &str, build_id: u8, offset: u64, functions: Vec<Function>) -> UserFrame {
    let place = CodePlace::File { build_id: BuildId([build_id; 20]), offset };
    UserFrame { module: Some(module.into()), functions, ..UserFrame::new(place) }
}

fn kernel(function: &str, module: Option<&str>) -> KernelFrame {
    KernelFrame { function: function.into(), module: module.map(Label::from) }
}

fn birth(command: &str, pid: u32, stack: Option<Stack>) -> Origin {
    let mut origin = made(command, pid, &[]);
    if let Origin::Made(birth) = &mut origin {
        birth.stack = stack.map(Arc::new);
    }
    origin
}

fn of(ino: u64, size: Option<u64>, origin: Option<Origin>) -> Buffer {
    Buffer { origin: origin.map(Box::new), ..buffer(ino, size, Some(0), Vec::new()) }
}

/// `main` calls `make`, into which `inner` is inlined, and that the C library.
fn stack() -> Stack {
    let inlined = Function { inlined: true, ..function("inner", Some(("app.c", 7))) };
    Stack {
        user: vec![
            call("libc.so.6", 1, 0x30, vec![function("memfd_create", None)]),
            call("app", 2, 0x20, vec![inlined, function("make", Some(("app.c", 9)))]),
            call("app", 2, 0x10, vec![function("main", Some(("main.c", 3)))]),
        ],
        kernel: vec![kernel("udmabuf_ioctl", Some("udmabuf")), kernel("entry_SYSCALL_64", None)],
        user_end: StackEnd::Complete,
        unwind: crate::model::Unwind::default(),
    }
}

/// Two buffers of one stack, and one each of what has no stack or not all of it.
fn world() -> Snapshot {
    let truncated = Stack {
        user: vec![call("app", 2, 0x44, Vec::new()), UserFrame::new(CodePlace::Address(0x7f00))],
        user_end: StackEnd::Truncated,
        ..Stack::default()
    };
    let of_kernel =
        Stack { user_end: StackEnd::Kernel, kernel: vec![kernel("kthread", None)], ..Stack::default() };
    let unreadable = Stack { user_end: StackEnd::Unreadable, ..Stack::default() };
    let buffers = vec![
        of(1, Some(4096), Some(birth("app", 7, Some(stack())))),
        of(2, Some(8192), Some(birth("app", 7, Some(stack())))),
        of(3, Some(1), Some(birth("app", 8, Some(truncated)))),
        of(4, Some(2), Some(birth("kworker/0:1", 9, Some(of_kernel)))),
        of(5, Some(4), Some(birth("app", 7, Some(unreadable)))),
        of(6, Some(8), Some(birth("app", 7, None))),
        of(7, Some(16), Some(Origin::Before)),
        of(8, Some(32), Some(Origin::Unknown(NoOrigin::Lost))),
        of(9, Some(64), None),
        of(10, None, Some(Origin::Before)),
    ];
    snapshot(buffers, Gaps::default())
}

fn folded_text(snapshot: &Snapshot, weight: Weight) -> String {
    let ledger = Ledger::of(snapshot);
    let mut out = Vec::new();
    folded(&mut out, &View::all(&ledger), weight).unwrap();
    String::from_utf8(out).unwrap()
}

/// Check that frames go from the command inwards, that inlined ones are there, that those of the
/// kernel are marked, and that what has no stack says why.
#[test]
fn lines_of_folded_stacks() {
    let expected = "\
[before the recorder] 16
[unknown] 96
app;[stack not read] 8
app;[truncated];0x7f00;app+0x44 1
app;[unreadable] 4
app;main;make;inner;memfd_create;entry_SYSCALL_64_[k];udmabuf_ioctl_[k] 12288
kworker/0:1;kthread_[k] 2
";
    assert_eq!(folded_text(&world(), Weight::Bytes), expected);
    let objects = folded_text(&world(), Weight::Objects);
    let number = |line: &str| line.rsplit_once(' ').unwrap().1.parse::<u64>().unwrap();
    assert_eq!(objects.lines().map(number).collect::<Vec<_>>(), [2, 2, 1, 1, 1, 2, 1]);
    let world = world();
    let ledger = Ledger::of(&world);
    assert_eq!(unknown_costs(&View::all(&ledger)), 1);
}

/// Check that no name makes another frame, another line, another number, or a frame of lsbuf's own.
#[test]
fn hostile_names() {
    for (name, expected) in [
        ("a;b", r"a\x3bb"),
        ("a\nb", r"a\x0ab"),
        ("a ", r"a\x20"),
        (" a", r"\x20a"),
        ("a 17", r"a\x2017"),
        ("a 1.5", r"a\x201.5"),
        ("void f(int, char)", "void f(int, char)"),
        ("[unknown]", r"\x5bunknown]"),
        ("# a", r"\x23 a"),
        ("f_[k]", r"f_\x5bk]"),
        (r"\x3b", r"\\x3b"),
        ("", "[no name]"),
        ("\u{85}\u{2028}\u{200b}", r"\xc2\x85\xe2\x80\xa8\xe2\x80\x8b"),
    ] {
        let stack = Stack {
            user: vec![call("app", 1, 0, vec![function(name, None)])],
            user_end: StackEnd::Complete,
            ..Stack::default()
        };
        let snapshot = snapshot(vec![of(1, Some(5), Some(birth(name, 1, Some(stack))))], Gaps::default());
        assert_eq!(folded_text(&snapshot, Weight::Bytes), format!("{expected};{expected} 5\n"), "{name:?}");
    }
}

/// The fields of a message, by their numbers; numbers as they are, and bytes.
fn fields(mut bytes: &[u8]) -> BTreeMap<u64, Vec<(u64, &[u8])>> {
    let mut fields: BTreeMap<u64, Vec<(u64, &[u8])>> = BTreeMap::new();
    while !bytes.is_empty() {
        let tag = number(&mut bytes);
        let value = number(&mut bytes);
        let found = match tag & 7 {
            0 => (value, &[][..]),
            2 => {
                let (inner, rest) = bytes.split_at(value as usize);
                bytes = rest;
                (value, inner)
            }
            wire => panic!("no field is of type {wire}"),
        };
        fields.entry(tag >> 3).or_default().push(found);
    }
    fields
}

fn number(bytes: &mut &[u8]) -> u64 {
    let mut number = 0;
    for shift in (0..).step_by(7) {
        let (first, rest) = bytes.split_first().unwrap();
        *bytes = rest;
        number |= u64::from(first & 0x7f) << shift;
        if first & 0x80 == 0 {
            break;
        }
    }
    number
}

fn packed(mut bytes: &[u8]) -> Vec<u64> {
    std::iter::from_fn(|| (!bytes.is_empty()).then(|| number(&mut bytes))).collect()
}

/// The values of all samples.
fn values(profile: &[u8]) -> Vec<Vec<u64>> {
    fields(profile).get(&2).into_iter().flatten().map(|(_, sample)| packed(fields(sample)[&2][0].1)).collect()
}

/// Check that the samples come to the number of buffers and to what they cost, that a stack of one
/// process is one sample, and that a buffer of unknown cost is said to be.
#[test]
fn sums_of_a_profile() {
    let world = world();
    let ledger = Ledger::of(&world);
    let profile = pprof(&View::all(&ledger));
    let values = values(&profile);
    let sum = |nth: usize| values.iter().map(|sample| sample[nth]).sum::<u64>();
    assert_eq!((values.len(), sum(0), sum(1)), (7, 10, 4096 + 8192 + 127));
    assert!(values.contains(&vec![2, 12288]));
    let strings: Vec<&str> =
        fields(&profile)[&6].iter().map(|(_, text)| std::str::from_utf8(text).unwrap()).collect();
    assert_eq!(strings[0], "");
    assert!(strings.contains(&"1 buffer of unknown cost: no bytes of them are counted"), "{strings:?}");
}

/// Check that a call with inlined functions is one location with their lines, that files are told
/// by their build ids, and that addresses are the offsets in them.
#[test]
fn locations_of_a_profile() {
    let snapshot = snapshot(vec![of(1, Some(4096), Some(birth("app", 7, Some(stack()))))], Gaps::default());
    let ledger = Ledger::of(&snapshot);
    let profile = pprof(&View::all(&ledger));
    let all = fields(&profile);
    let string = |nth: u64| std::str::from_utf8(all[&6][nth as usize].1).unwrap();
    let functions: BTreeMap<u64, (&str, &str)> = all[&5]
        .iter()
        .map(|(_, one)| fields(one))
        .map(|one| (one[&1][0].0, (string(one[&2][0].0), one.get(&4).map_or("", |file| string(file[0].0)))))
        .collect();
    let mappings: BTreeMap<u64, (String, &str)> = all[&3]
        .iter()
        .map(|(_, one)| fields(one))
        .map(|one| {
            let build_id = one.get(&6).map_or("", |id| string(id[0].0));
            (one[&1][0].0, (string(one[&5][0].0).to_owned(), build_id))
        })
        .collect();
    let locations: BTreeMap<u64, String> = all[&4]
        .iter()
        .map(|(_, one)| fields(one))
        .map(|one| {
            let (file, build_id) = &mappings[&one[&2][0].0];
            let lines = one[&4].iter().map(|(_, line)| fields(line)).map(|line| {
                let (name, file) = functions[&line[&1][0].0];
                format!("{name} {file}:{}", line.get(&2).map_or(0, |line| line[0].0))
            });
            let address = one.get(&3).map_or(0, |address| address[0].0);
            let lines: Vec<String> = lines.collect();
            (one[&1][0].0, format!("{file} {} {address:#x} {}", build_id.len(), lines.join(", ")))
        })
        .collect();
    let sample = fields(all[&2][0].1);
    let found: Vec<&str> = packed(sample[&1][0].1).iter().map(|id| locations[id].as_str()).collect();
    let expected = [
        "[udmabuf] 0 0x0 udmabuf_ioctl :0",
        "[kernel.kallsyms] 0 0x0 entry_SYSCALL_64 :0",
        "libc.so.6 40 0x30 memfd_create :0",
        "app 40 0x20 inner app.c:7, make app.c:9",
        "app 40 0x10 main main.c:3",
    ];
    assert_eq!(found, expected);
    let labels = sample[&3].iter().map(|(_, label)| fields(label)).map(|label| {
        let value = label.get(&2).map_or_else(|| label[&3][0].0.to_string(), |text| string(text[0].0).into());
        format!("{}={value}", string(label[&1][0].0))
    });
    assert_eq!(labels.collect::<Vec<_>>(), ["kind=dmabuf", "command=app", "pid=7"]);
}

/// Writes a world for `cargo xtask engines`: as a document, as folded stacks and as a profile.
#[test]
#[ignore = "cargo xtask engines runs it"]
fn for_engines() {
    let folder = std::path::PathBuf::from(std::env::var_os("LSBUF_ENGINES").unwrap());
    std::fs::create_dir_all(&folder).unwrap();
    let mut all = world().buffers;
    all.retain(|buffer| buffer.size.is_some());
    let names =
        ["a;b", "a 17", "[unknown]", "# a", "f_[k]", "", "a\nb", "\u{2028}", "void f(int, char)", r"\x3b"];
    for (nth, name) in (0..).zip(names) {
        for buffer in 0..=nth {
            let calls = vec![
                call("libc.so.6", 1, 0x30, vec![function("mmap", None)]),
                call("app", 2, 0x100 + nth, vec![function(name, Some(("app.c", 7)))]),
            ];
            let stack = Stack { user: calls, user_end: StackEnd::Complete, ..Stack::default() };
            let origin = birth(name, 100, Some(stack));
            all.push(of(1000 + 100 * nth + buffer, Some(4096 << nth), Some(origin)));
        }
    }
    let snapshot = snapshot(all, Gaps::default());
    let ledger = Ledger::of(&snapshot);
    let view = View::all(&ledger);
    let write = |name: &str, bytes: &[u8]| std::fs::write(folder.join(name), bytes).unwrap();
    let mut document = Vec::new();
    crate::render::json(&mut document, &view, crate::render::JsonLayout::Compact).unwrap();
    write("document.json", &document);
    write("bytes.folded", folded_text(&snapshot, Weight::Bytes).as_bytes());
    write("objects.folded", folded_text(&snapshot, Weight::Objects).as_bytes());
    write("profile.pb", &pprof(&view));
    #[cfg(feature = "bpf")]
    {
        let rows = trace_rows();
        let figures = rows.iter().map(|row| {
            let sum = row.sum;
            let values = [sum.made, sum.made_bytes.0, sum.left(), sum.left_bytes.0];
            serde_json::json!({ "function": row.command.to_utf8_lossy(), "values": values })
        });
        write("trace.json", serde_json::Value::from_iter(figures).to_string().as_bytes());
        write("trace.pb", &trace_pprof(&rows, std::time::UNIX_EPOCH));
    }
}

/// What two commands made by one call each, which is named as the command.
#[cfg(feature = "bpf")]
fn trace_rows() -> Vec<crate::trace::BalanceRow> {
    let row = |command: &str, made, freed| {
        let calls = vec![call("app", 2, 0x100, vec![function(command, None)])];
        let stack = Stack { user: calls, user_end: StackEnd::Complete, ..Stack::default() };
        let mut sum = crate::trace::BalanceSum::default();
        (sum.made, sum.freed) = (made, freed);
        (sum.made_bytes, sum.left_bytes) = (Bytes(made * 4096), Bytes((made - freed) * 4096));
        let stack = Some(Arc::new(stack));
        crate::trace::BalanceRow { command: command.into(), kind: Some(Kind::Memfd), stack, sum }
    };
    vec![row("one", 5, 2), row("two", 3, 3)]
}

proptest! {
    /// Check that any names give lines that are read back with their numbers, and as many frames as
    /// there are names, and that nothing is lost in a profile.
    #[test]
    fn any_names(names in proptest::collection::vec("(.|[; \\t\\n\\[\\]#0-9\\\\]){0,12}", 1..5), size in any::<u32>()) {
        let calls = names.iter().map(|name| call("app", 1, 0, vec![function(name, None)])).collect();
        let stack = Stack { user: calls, user_end: StackEnd::Complete, ..Stack::default() };
        let origin = birth(&names[0], 1, Some(stack));
        let snapshot = snapshot(vec![of(1, Some(size.into()), Some(origin))], Gaps::default());
        let text = folded_text(&snapshot, Weight::Bytes);
        prop_assert_eq!(text.lines().count(), 1);
        let (frames, number) = text.trim_end().rsplit_once(' ').unwrap();
        prop_assert_eq!(number.parse(), Ok(size));
        prop_assert_eq!(frames.split(';').count(), 1 + names.len());
        prop_assert!(!frames.contains(char::is_control));
        let ledger = Ledger::of(&snapshot);
        prop_assert_eq!(values(&pprof(&View::all(&ledger))), [[1, u64::from(size)]]);
    }
}
