//! The names of calls in programs that are compiled here. The truth is the source text, and the
//! build id that the linker is told to use.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::kernel::process::ProcessDir;
use crate::model::{Function, Label, UserFrame};

/// Long enough for a busy machine.
pub(super) const DEADLINE: Duration = Duration::from_secs(5);

/// A program that prints where `outer` goes on after the call that was inlined into it, and waits.
/// The call is in line 4, and its inlining in line 5.
const C: &str = "#include <stdio.h>
#include <unistd.h>
__attribute__((noinline)) void where(void) { printf(\"%p\\n\", __builtin_return_address(0)); fflush(stdout); }
static inline __attribute__((always_inline)) void inner(void) { where(); __asm__ volatile(\"\"); }
__attribute__((noinline)) void outer(void) { inner(); __asm__ volatile(\"\"); }
int main(void) { char c; outer(); return read(0, &c, 1) == 1; }
";

const CPP: &str = "#include <cstdio>
#include <unistd.h>
namespace shop { struct Basket { void add(int); }; }
__attribute__((noinline)) void where() { printf(\"%p\\n\", __builtin_return_address(0)); fflush(stdout); }
__attribute__((noinline)) void shop::Basket::add(int) { where(); __asm__ volatile(\"\"); }
int main() { char c; shop::Basket basket; basket.add(1); return read(0, &c, 1) == 1; }
";

pub(super) fn procfs() -> Arc<ProcRoot> {
    Arc::new(ProcRoot::open(Path::new("/proc")).unwrap())
}

/// A process, as a record names it.
pub(super) fn maker(pid: u32) -> Maker {
    let process = ProcessDir::open(&procfs(), Pid(pid)).unwrap().identify().unwrap();
    let tick = 1_000_000_000 / rustix::param::clock_ticks_per_second();
    // The kernel knows it more exactly than procfs tells.
    (Pid(pid), Duration::from_nanos(process.start_time * tick + tick / 2))
}

pub(super) fn stack(frames: impl IntoIterator<Item = CodePlace>) -> Stack {
    Stack { user: frames.into_iter().map(UserFrame::new).collect(), ..Stack::default() }
}

/// A program that runs, and the place that it printed.
struct Running {
    child: Child,
    place: CodePlace,
    program: PathBuf,
    _folder: tempfile::TempDir,
}

const ID: BuildId = BuildId([0xab; 20]);

impl Running {
    fn c(flags: &[&str]) -> Running {
        Running::new("cc", "program.c", C, flags, true)
    }

    fn new(compiler: &str, file: &str, source: &str, flags: &[&str], with_id: bool) -> Running {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("a \x1b program");
        fs::write(folder.path().join(file), source).unwrap();
        let id = if with_id { "ab".repeat(20) } else { String::new() };
        let id = if with_id { format!("-Wl,--build-id=0x{id}") } else { "-Wl,--build-id=none".into() };
        let compile = Command::new(compiler)
            .current_dir(&folder)
            .args(["-O1", file, &id, "-o"])
            .arg(&program)
            .args(flags)
            .status();
        assert!(compile.unwrap().success());
        Running::start(&mut Command::new(&program), folder, program)
    }

    fn start(command: &mut Command, folder: tempfile::TempDir, program: PathBuf) -> Running {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = u64::from_str_radix(line.trim().trim_start_matches("0x"), 16).unwrap();
        let maps = fs::read_to_string(format!("/proc/{}/maps", child.id())).unwrap();
        let offset = maps.lines().find_map(|line| {
            let mut words = line.split_whitespace();
            let (start, end) = words.next()?.split_once('-')?;
            let [start, end, from] =
                [start, end, words.nth(1)?].map(|text| u64::from_str_radix(text, 16).unwrap());
            (start..end).contains(&address).then(|| address - start + from)
        });
        let place = CodePlace::File { build_id: ID, offset: offset.unwrap() };
        Running { child, place, program, _folder: folder }
    }

    fn maker(&self) -> Maker {
        maker(self.child.id())
    }

    fn resolve(&self) -> UserFrame {
        let mut stack = stack([self.place]);
        let mut symbols = Symbolizer::new(procfs(), DEADLINE, None);
        let request = Request { stack: &mut stack, maker: self.maker(), others: &[] };
        assert_eq!(symbols.resolve(&mut [request]), Gaps::default());
        stack.user.remove(0)
    }

    fn end(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn names(frame: &UserFrame) -> Vec<&[u8]> {
    frame.functions.iter().map(|function| function.name.as_bytes()).collect()
}

/// Check that an inlined function is named with the one that it was inlined into, both with their
/// lines, and that the file's name is raw.
#[test]
fn inlined() {
    let frame = Running::c(&["-g"]).resolve();
    assert_eq!(frame.module, Some(Label::from("a \x1b program")));
    let [inner, outer] = frame.functions.as_slice() else { panic!("{frame:?}") };
    assert_eq!((inner.name.as_bytes(), inner.line, inner.inlined), (&b"inner"[..], Some(4), true));
    assert_eq!((outer.name.as_bytes(), outer.line, outer.inlined), (&b"outer"[..], Some(5), false));
    for Function { file, .. } in &frame.functions {
        assert!(file.as_ref().unwrap().as_bytes().ends_with(b"program.c"), "{file:?}");
    }
}

/// Check that without debug information the function of the symbol table is named, and no file or
/// line.
#[test]
fn symbols_alone() {
    for flags in [&["-no-pie"][..], &["-static"], &["-static-pie"], &["-pie", "-fPIE"]] {
        let frame = Running::c(flags).resolve();
        assert_eq!(frame.functions, [Function::new("outer".into())], "{flags:?}");
    }
}

/// Check that debug information that cannot be read, because it is compressed, leaves the name.
#[test]
fn compressed_debug_information() {
    let frame = Running::c(&["-g", "-Wl,--compress-debug-sections=zlib"]).resolve();
    assert_eq!(names(&frame), [b"outer"]);
}

/// Check that a stripped program has its file, and no function, unless it exports that.
#[test]
fn stripped() {
    let frame = Running::c(&["-s"]).resolve();
    assert_eq!((frame.module.is_some(), names(&frame)), (true, vec![]));
    assert_eq!(names(&Running::c(&["-s", "-rdynamic"]).resolve()), [b"outer"]);
}

/// Check that a program without a build id is not taken for one that has it.
#[test]
fn without_build_id() {
    let frame = Running::new("cc", "program.c", C, &["-g"], false).resolve();
    assert_eq!((frame.module, frame.functions), (None, vec![]));
}

/// Check that names of C++ are demangled.
#[test]
fn cpp() {
    if !has("c++") {
        println!("skipped: there is no c++");
        return;
    }
    for flags in [&["-g"][..], &[]] {
        let frame = Running::new("c++", "program.cc", CPP, flags, true).resolve();
        assert_eq!(names(&frame), [b"shop::Basket::add(int)"], "{flags:?}");
    }
}

fn has(program: &str) -> bool {
    Command::new(program).arg("--version").output().is_ok()
}

/// Check that a program that was deleted, or replaced by another file, while it runs is found.
/// Only a caller with CAP_CHECKPOINT_RESTORE or CAP_SYS_ADMIN may open it.
#[test]
fn deleted() {
    let running = Running::c(&["-g"]);
    fs::remove_file(&running.program).unwrap();
    let frame = running.resolve();
    if rustix::process::geteuid().is_root() {
        assert_eq!(names(&frame), [&b"inner"[..], b"outer"]);
        assert_eq!(frame.module, Some(Label::from("a \x1b program")));
    } else {
        assert_eq!(names(&frame), Vec::<&[u8]>::new());
    }
}

/// Check that another process of the maker's pid is not searched, nor one that has exited, and that
/// one of the others is.
#[test]
fn exited_makers() {
    let mut running = Running::c(&[]);
    let alive = Running::start(
        &mut Command::new(&running.program),
        tempfile::tempdir().unwrap(),
        running.program.clone(),
    );
    let (pid, started) = running.maker();
    let reused = (pid, started - Duration::from_secs(1));
    let resolve = |maker, others: &[Pid]| {
        let mut stack = stack([running.place]);
        let mut symbols = Symbolizer::new(procfs(), DEADLINE, None);
        let gaps = symbols.resolve(&mut [Request { stack: &mut stack, maker, others }]);
        assert_eq!(gaps, Gaps::default());
        names(&stack.user[0]).concat()
    };
    assert_eq!(resolve(reused, &[]), b"");
    assert_eq!(resolve((pid, started), &[]), b"outer");
    assert_eq!(resolve(reused, &[alive.maker().0]), b"outer");
    running.child.kill().unwrap();
    let is_zombie = || fs::read_to_string(format!("/proc/{pid}/stat")).unwrap().contains(") Z ");
    while !is_zombie() {
        std::thread::yield_now();
    }
    assert_eq!(resolve((pid, started), &[]), b"");
    running.child.wait().unwrap();
    assert_eq!(resolve((pid, started), &[]), b"");
    assert_eq!(resolve((pid, started), &[pid, alive.maker().0]), b"outer");
}

/// Check that separate debug information is found by the build id below the process's root, and
/// that one with another build id is not believed.
#[test]
fn separate_debug_information() {
    if !rustix::process::geteuid().is_root() || !has("objcopy") || !has("chroot") {
        println!("skipped: needs root, objcopy and chroot");
        return;
    }
    let run = |program: &str, args: &[&str], folder: &Path| {
        assert!(Command::new(program).current_dir(folder).args(args).status().unwrap().success());
    };
    for (other_id, expected) in [(false, &[&b"inner"[..], b"outer"][..]), (true, &[])] {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        fs::write(root.join("program.c"), C).unwrap();
        let ids = [format!("-Wl,--build-id=0x{ID}"), "-Wl,--build-id=0x1234".into()];
        let compile = ["-O1", "-g", "-static", "program.c"];
        run("cc", &[&compile[..], &["-o", "program", &ids[0]]].concat(), root);
        run("cc", &[&compile[..], &["-o", "other", &ids[1]]].concat(), root);
        let folders = root.join("usr/lib/debug/.build-id/ab");
        fs::create_dir_all(&folders).unwrap();
        let debug = folders.join(format!("{}.debug", "ab".repeat(19)));
        let from = if other_id { "other" } else { "program" };
        run("objcopy", &["--only-keep-debug", from, debug.to_str().unwrap()], root);
        run("objcopy", &["--strip-all", "program"], root);
        let mut command = Command::new("chroot");
        command.arg(root).arg("/program");
        let running = Running::start(&mut command, folder, PathBuf::new());
        assert_eq!(names(&running.resolve()), expected);
    }
}

/// Check that an address gets no name, because nothing proves what was there.
#[test]
fn addresses() {
    let running = Running::c(&["-g"]);
    let mut stack = stack([CodePlace::Address(0x40_1000)]);
    let before = stack.clone();
    let mut symbols = Symbolizer::new(procfs(), DEADLINE, None);
    symbols.resolve(&mut [Request { stack: &mut stack, maker: running.maker(), others: &[] }]);
    assert_eq!(stack, before);
}

/// Check that names outlive the process in the cache, for the stacks of this maker.
#[test]
fn cached() {
    let folder = tempfile::tempdir().unwrap();
    let cache = folder.path().join("lsbuf");
    let mut running = Running::c(&["-g"]);
    let (maker, place) = (running.maker(), running.place);
    let resolve = |maker| {
        let mut stack = stack([place]);
        let mut symbols = Symbolizer::new(procfs(), DEADLINE, Some(&cache));
        symbols.resolve(&mut [Request { stack: &mut stack, maker, others: &[] }]);
        symbols.save().unwrap();
        stack.user.remove(0)
    };
    let before = resolve(maker);
    assert_eq!(before.functions.len(), 2);
    running.end();
    fs::remove_file(&running.program).unwrap();
    assert_eq!(resolve(maker), before);
    // The file is of root only if root runs this test.
    let of_another = resolve((maker.0, maker.1 + Duration::from_secs(9)));
    assert_eq!(of_another == before, rustix::process::geteuid().is_root());
}

/// Print how long it takes to name ten calls: the first time, and when they are known. Run by hand,
/// because a test does not judge times: `cargo test --release -p lsbuf --features symbols --
/// --ignored --nocapture time_of_ten_calls`.
#[test]
#[ignore = "measures"]
fn time_of_ten_calls() {
    use std::time::Instant;
    for flags in [&["-g"][..], &["-s"]] {
        let folder = tempfile::tempdir().unwrap();
        let running = Running::c(flags);
        let libc = libc_places(running.child.id());
        let CodePlace::File { offset, .. } = running.place else { panic!() };
        let own = (0..5).map(|n| CodePlace::File { build_id: ID, offset: offset + n });
        let ten = stack(own.chain(libc));
        assert_eq!(ten.user.len(), 10);
        for round in 0..3 {
            let mut symbols = Symbolizer::new(procfs(), DEADLINE, Some(folder.path()));
            let mut times = Vec::new();
            for _ in 0..2 {
                let mut stack = ten.clone();
                let begin = Instant::now();
                symbols.resolve(&mut [Request { stack: &mut stack, maker: running.maker(), others: &[] }]);
                times.push((
                    begin.elapsed(),
                    stack.user.iter().filter(|frame| !frame.functions.is_empty()).count(),
                ));
            }
            println!("{flags:?} round {round}: first, then known: {times:?}");
        }
        let begin = Instant::now();
        let mut symbols = Symbolizer::new(procfs(), DEADLINE, Some(folder.path()));
        symbols.resolve(&mut [Request { stack: &mut ten.clone(), maker: running.maker(), others: &[] }]);
        symbols.save().unwrap();
        println!("with saving: {:?}", begin.elapsed());
        let mut symbols = Symbolizer::new(procfs(), DEADLINE, Some(folder.path()));
        let begin = Instant::now();
        symbols.resolve(&mut [Request { stack: &mut ten.clone(), maker: running.maker(), others: &[] }]);
        println!("from the cache's file: {:?}", begin.elapsed());
    }
}

/// Five places in the C library of a process.
fn libc_places(pid: u32) -> Vec<CodePlace> {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    let line = maps.lines().find(|line| line.contains("r-x") && line.contains("libc")).unwrap();
    let words: Vec<&str> = line.split_whitespace().collect();
    let begin = u64::from_str_radix(words[2], 16).unwrap();
    let file = fs::read(words[5]).unwrap();
    let build_id = elf::Elf::read(&file.as_slice()).unwrap().build_id.unwrap();
    (1..6).map(|n| CodePlace::File { build_id, offset: begin + n * 0x4321 }).collect()
}
