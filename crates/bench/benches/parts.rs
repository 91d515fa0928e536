//! Times the parsers and the assembly with criterion: `cargo bench -p lsbuf-bench`.
//!
//! The texts have the format that the kernel prints, and the size of the benchmark's worlds: a
//! process with a thousand VMAs, half of them of libraries, and fifteen buffers; and the kernel's
//! list of the world `storm`. Each result is checked once before it is timed, so that no fast
//! failure is timed.

use std::fmt::Write as _;
use std::fs::File;
use std::hint::black_box;
use std::io::{Seek, Write as _};
use std::os::fd::AsFd;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use lsbuf::benching::{self, Found};
use rustix::fs::{MemfdFlags, memfd_create};

const FDINFO: &[u8] = b"pos:\t0\nflags:\t02000002\nmnt_id:\t16\nino:\t4711\nsize:\t8294400\ncount:\t6\n\
                        exp_name:\tsystem\nname:\tcamera preview 12\n";
const STAT: &[u8] = b"812 (surface flinger) S 1 812 812 0 -1 4194624 10233 0 12 0 4021 1833 0 0 12 -8 31 0 2120 \
                      2341543936 18211 18446744073709551615 1 1 0 0 0 0 0 4096 1073775864 0 0 0 17 1 0 0 0 0 0 0 0 0 0 0 0 0 0\n";

fn maps_text(vmas: usize, buffers: usize) -> String {
    let mut text = String::new();
    let start = |nth: usize| 0x7f3a_0000_0000 + nth * 0x10_000;
    for nth in 0..vmas {
        let (from, to) = (start(nth), start(nth) + 0x1000);
        if nth % 2 == 0 {
            let _ = writeln!(text, "{from:08x}-{to:08x} rw-p 00000000 00:00 0 ");
        } else {
            let columns = format!("{from:08x}-{to:08x} r--p 00001000 fe:01 {} ", 920_000 + nth / 8);
            let library = format!("/usr/lib/x86_64-linux-gnu/liblibrary-{}.so.1.0.0", nth / 8);
            let _ = writeln!(text, "{columns:<73}{library}");
        }
    }
    for nth in vmas..vmas + buffers {
        let columns = format!("{:08x}-{:08x} rw-s 00000000 00:0b {nth} ", start(nth), start(nth) + 0x4000);
        let _ = writeln!(text, "{columns:<73}/dmabuf:surface");
    }
    text
}

/// A file with this text, so that it is read as from procfs.
fn in_memory(text: &str) -> Option<File> {
    let mut file = File::from(memfd_create("maps", MemfdFlags::CLOEXEC).ok()?);
    file.write_all(text.as_bytes()).ok().map(|()| file)
}

fn bufinfo_text(buffers: usize) -> String {
    let mut text =
        "\nDma-buf Objects:\nsize    \tflags   \tmode    \tcount   \texp_name\tino     \tname\n".to_owned();
    for nth in 1..=buffers {
        let _ = writeln!(
            text,
            "{:08}\t02000002\t00080007\t{:08}\tsystem\t{nth:08}\tsurface\n\tAttached Devices:\nTotal 0 devices attached\n",
            16384, 6
        );
    }
    let _ = writeln!(text, "\nTotal {buffers} objects, {} bytes", buffers * 16384);
    text
}

fn parsers(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("parse");
    let mut texts = |name: &str, bytes: usize, mut parse: Box<dyn FnMut() -> usize>, expected: usize| {
        assert_eq!(parse(), expected, "{name}");
        group.throughput(Throughput::Bytes(bytes as u64));
        group.bench_function(name, |bencher| bencher.iter(|| black_box(parse())));
    };
    let text = maps_text(1000, 15);
    let (file, mut reader) = (in_memory(&text), benching::Maps::default());
    let read = move || {
        let again = file.as_ref().and_then(|mut file| file.rewind().ok().map(|()| file));
        again.and_then(|file| reader.read(file.as_fd()).ok()).unwrap_or(0)
    };
    texts("maps, 1000 VMAs", text.len(), Box::new(read), 15);
    let number = |found: Option<u64>| found.map_or(0, |number| number as usize);
    texts("fdinfo", FDINFO.len(), Box::new(move || number(benching::fdinfo(black_box(FDINFO)))), 4711);
    texts("stat", STAT.len(), Box::new(move || number(benching::stat(black_box(STAT)))), 2120);
    for buffers in [300, 20_000] {
        let text = bufinfo_text(buffers);
        let len = text.len();
        let parse = move || benching::bufinfo(black_box(text.as_bytes())).unwrap_or(0);
        texts(&format!("bufinfo, {buffers} buffers"), len, Box::new(parse), buffers);
    }
    group.finish();
}

fn joining(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("join");
    for (world, buffers, processes, holders) in
        [("phone", 300, 60, 3), ("storm", 20_000, 60, 3), ("many holders", 100, 3000, 3000)]
    {
        let found = Found::new(buffers, processes, holders);
        let references = (2 * holders * buffers) as usize;
        assert_eq!(found.join(), references, "{world}");
        group.throughput(Throughput::Elements(references as u64));
        group.bench_function(world, |bencher| bencher.iter(|| black_box(&found).join()));
    }
    group.finish();
}

criterion_group!(benches, parsers, joining);
criterion_main!(benches);
