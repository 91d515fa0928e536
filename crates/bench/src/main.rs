//! `lsbuf-bench SOURCES PINS`: measures warm scans. It scans once for every line that it reads,
//! with one scanner, and prints what the scan took. `PINS` is the folder in which it looks for
//! pinned BPF iterators.
//!
//! Each answer is one line of JSON, a [`WarmScan`]. This is a program of its own because its
//! allocator counts.

mod counting;

use std::io::{BufRead, Write};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::bail;
use lsbuf::model::{Kinds, Ledger};
use lsbuf::scan::{Options, Scanner, Sources};
use lsbuf_guest::bench::figures::{References, WarmScan};
use lsbuf_guest::sys::measure::{self, Taken};

use crate::counting::Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting::new();

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("lsbuf-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[String]) -> anyhow::Result<()> {
    let [sources, pins] = arguments else { bail!("usage: lsbuf-bench SOURCES PINS") };
    let sources: Sources = sources.parse().map_err(anyhow::Error::msg)?;
    let sources = Sources { load_bpf: true, ..sources };
    let mut scanner =
        Scanner::new(Options { sources, kinds: Kinds::DMABUF, pins: pins.into(), ..Options::default() })?;
    let mut output = std::io::stdout().lock();
    for line in std::io::stdin().lock().lines() {
        line?;
        let scan = scan(&mut scanner)?;
        serde_json::to_writer(&mut output, &scan)?;
        output.write_all(b"\n")?;
        output.flush()?;
    }
    Ok(())
}

/// Makes one scan. The measured time ends when the snapshot is complete; the snapshot is examined
/// and dropped after that.
fn scan(scanner: &mut Scanner) -> anyhow::Result<WarmScan> {
    let allocated = ALLOCATOR.count();
    let (user, kernel) = measure::own_cpu()?;
    let begun = Instant::now();
    let snapshot = scanner.scan()?;
    let wall = begun.elapsed();
    let now = measure::own_cpu()?;
    let allocations = ALLOCATOR.count() - allocated;
    let ledger = Ledger::of(&snapshot);
    let references = References {
        buffers: snapshot.buffers.len() as u64,
        fd: ledger.rows().map(|row| row.account.fd).sum(),
        map: ledger.rows().map(|row| row.account.map).sum(),
    };
    let taken = Taken { wall, user: now.0.saturating_sub(user), kernel: now.1.saturating_sub(kernel) };
    Ok(WarmScan { taken, references, allocations })
}
