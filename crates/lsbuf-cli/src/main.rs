//! The `lsbuf` command: arguments, one function per subcommand, exit status.
//!
//! It asks the library and shows the answer; it knows nothing of the kernel. Exit status: 0
//! answered, even if only in part; 1 no answer, or a point of `lsbuf check` does not hold; 2 wrong
//! arguments; 3 answered in part, with `--strict`; 4 found what it was asked to fail on.
//! `lsbuf diff --watch` exits as the command does that it ran.

mod args;
mod commands;
mod diff;
mod export;
mod files;
mod generate;
mod groups;
mod leaks;
mod manual;
mod metrics;
mod named;
mod naming;
mod output;
mod page_file;
mod past;
mod probes;
mod record;
mod report;
mod select;
#[cfg(feature = "serve")]
mod serve;
mod stdout;
mod ticks;
#[cfg(feature = "tui")]
mod top;
mod topics;
mod trace;

use std::io;
use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;

use crate::args::{Cli, Command, Hidden};
use crate::output::Ending;

fn main() -> ExitCode {
    let ended =
        if Hidden::is_wanted() { Hidden::try_parse().map(run_hidden) } else { Cli::try_parse().map(run) };
    match ended {
        Err(error) => args::usage(&error),
        Ok(Ok(Ending::Answered)) => ExitCode::SUCCESS,
        Ok(Ok(Ending::Failed)) => ExitCode::FAILURE,
        Ok(Ok(Ending::StrictlyPartial)) => ExitCode::from(3),
        Ok(Ok(Ending::Status(status))) => ExitCode::from(status),
        // The reader has closed the pipe: it has seen enough.
        Ok(Err(error)) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Ok(Err(error)) => {
            output::say(&format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> Result<Ending> {
    match cli.command.unwrap_or(Command::Ls(cli.ls)) {
        Command::Ls(args) => commands::ls(&args),
        Command::Ps(args) => commands::ps(&args),
        Command::Sum(args) => commands::sum(&args),
        Command::Show(args) => commands::show(&args),
        Command::Reconcile(args) => commands::reconcile(&args),
        Command::Diff(args) => diff::run(&args),
        Command::Export(args) => export::run(&args),
        Command::Leaks(args) => leaks::run(&args),
        Command::Metrics(args) => metrics::run(&args),
        Command::Report(args) => report::run(&args),
        #[cfg(feature = "tui")]
        Command::Top(args) => top::run(&args),
        Command::Record(args) => record::run(&args),
        #[cfg(feature = "serve")]
        Command::Serve(args) => serve::run(&args),
        Command::Trace(args) => trace::run(&args),
        Command::Doctor(args) => commands::doctor(&args),
        Command::Name(args) => naming::run(&args),
        Command::Probes(args) => probes::run(&args.action),
        Command::Check => commands::check(),
    }
}

fn run_hidden(command: Hidden) -> Result<Ending> {
    match command {
        Hidden::CheckHelper => commands::check_helper(),
        Hidden::Generate(what) => generate::run(&what),
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe)
}
