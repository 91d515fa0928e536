//! `lsbuf record`: takes a sample again and again, and appends each to a recording.
//!
//! Module `ticks` says when one is due.

use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;
use lsbuf::ErrorKind;
use lsbuf::history::{Keep, Recorder, duration};
use lsbuf::model::{Bytes, Detail, Details};
use lsbuf::scan::{Options, Scanner};
use rustix::time::{ClockId, clock_gettime};

use crate::args::{ScanArgs, size};
use crate::output::{self, Ending};
use crate::ticks::{Ticks, interval, signals};

#[derive(Debug, Args)]
pub(crate) struct RecordArgs {
    /// The recording: it is made, or continued if it is there
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Time from one sample to the next
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = interval)]
    every: Duration,
    /// Stop after that time; without it and --count, a signal stops it
    #[arg(long = "for", value_name = "TIME", value_parser = duration)]
    length: Option<Duration>,
    /// Stop after that many samples
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// Delete samples that are older
    #[arg(long, value_name = "TIME", default_value = "7d", value_parser = duration)]
    keep: Duration,
    /// Delete the oldest samples when FILE gets larger
    #[arg(long, value_name = "SIZE", default_value = "1G", value_parser = size)]
    max_size: Bytes,
    /// Print no progress
    #[arg(short, long)]
    quiet: bool,
    #[command(flatten)]
    scan: ScanArgs,
}

pub(crate) fn run(args: &RecordArgs) -> Result<Ending> {
    let stop = signals()?;
    let keep = Keep { age: Some(args.keep), size: Some(args.max_size) };
    let mut recorder = Recorder::open(&args.file, keep)?;
    recorder.set_machine(args.scan.reading.machine_id());
    let mut scanner =
        Scanner::new(Options { details: recorded(), details_for: DETAILS_FOR, ..args.scan.options() })?;
    let mut ticks = Ticks::start(stop, args.every, args.length);
    let mut progress = Progress::new(!args.quiet && io::stderr().is_terminal());
    let (mut complete, mut samples, mut dropped, mut is_full) = (true, 0u64, 0u64, false);
    loop {
        let snapshot = scanner.scan().context("the scan failed")?;
        complete &= snapshot.coverage.is_complete();
        match recorder.append(snapshot) {
            Ok(_) => {
                samples += 1;
                is_full = false;
            }
            // The disk may have room again later.
            Err(error) if error.kind() == ErrorKind::NoSpace => {
                dropped += 1;
                // A disk may stay full for days.
                if !std::mem::replace(&mut is_full, true) {
                    progress.say(&format!("samples are lost until there is room again: {error}"));
                }
            }
            Err(error) => return Err(error.into()),
        }
        progress.show(samples, dropped, recorder.size()?, ticks.elapsed());
        if args.count.is_some_and(|count| samples + dropped >= count) || !ticks.wait() {
            break;
        }
    }
    let size = recorder.size()?;
    recorder.close()?;
    progress.end();
    if !args.quiet {
        let lost = if dropped > 0 { format!(", {dropped} lost for lack of space") } else { String::new() };
        let taken = lsbuf::model::counted(samples, "sample", "samples");
        output::say(&format!("{taken}{lost}; {} has {}", args.file.display(), Bytes(size)));
    }
    Ok(if args.scan.reading.strict && (!complete || dropped > 0) {
        Ending::StrictlyPartial
    } else {
        Ending::Answered
    })
}

/// For how long what was read of a process is used again: reading it in every sample would take
/// most of the time.
const DETAILS_FOR: Duration = Duration::from_secs(60);

/// Every detail that a recording has. `rss_shmem` changes all the time and is costly to read. Which
/// open files are the same takes two system calls for each fd of a shared buffer, more than all the
/// rest of a sample.
fn recorded() -> Details {
    let left_out = [Detail::RssShmem, Detail::OpenFiles];
    Detail::ALL.iter().copied().filter(|detail| !left_out.contains(detail)).collect()
}

/// How much this process has run so far.
fn own_cpu_time() -> Duration {
    let ran = clock_gettime(ClockId::ProcessCPUTime);
    let seconds = u64::try_from(ran.tv_sec).unwrap_or_default();
    Duration::new(seconds, u32::try_from(ran.tv_nsec).unwrap_or_default())
}

/// A line on the terminal that is written anew with each sample.
struct Progress {
    wanted: bool,
    shown: bool,
}

impl Progress {
    fn new(wanted: bool) -> Progress {
        Progress { wanted, shown: false }
    }

    fn show(&mut self, samples: u64, dropped: u64, size: u64, elapsed: Duration) {
        if !self.wanted {
            return;
        }
        let lost = if dropped > 0 { format!(", {dropped} lost") } else { String::new() };
        let cpu = own_cpu_time().as_secs_f64() / elapsed.as_secs_f64().max(0.001) * 100.0;
        let line =
            format!("{samples} samples{lost} in {}s, {}, CPU {cpu:.1} %", elapsed.as_secs(), Bytes(size));
        // If stderr is closed, nothing can be said.
        let _ = write!(io::stderr(), "\r{line}\x1b[K");
        self.shown = true;
    }

    fn say(&mut self, text: &str) {
        self.end();
        output::say(text);
    }

    fn end(&mut self) {
        if std::mem::take(&mut self.shown) {
            let _ = writeln!(io::stderr());
        }
    }
}
