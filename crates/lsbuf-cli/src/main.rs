//! The `lsbuf` command: arguments, one function per subcommand, exit status.
//!
//! It asks the library and shows the answer; it knows nothing of the kernel. Exit status: 0
//! answered, even if only in part; 1 no answer, or a point of `lsbuf check` does not hold; 2 wrong
//! arguments; 3 answered in part, with `--strict`.

mod args;
mod commands;
mod groups;
mod output;
mod probes;
mod select;
mod stdout;

use std::io;
use std::process::ExitCode;

use clap::Parser;

use crate::args::{Cli, Command};
use crate::output::Ending;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return args::usage(&error),
    };
    let ending = match cli.command.unwrap_or(Command::Ls(cli.ls)) {
        Command::Ls(args) => commands::ls(&args),
        Command::Ps(args) => commands::ps(&args),
        Command::Show(args) => commands::show(&args),
        Command::Reconcile(args) => commands::reconcile(&args),
        Command::Doctor(args) => commands::doctor(&args),
        Command::Probes(args) => probes::run(&args.action),
        Command::Check => commands::check(),
        Command::CheckHelper => commands::check_helper(),
    };
    match ending {
        Ok(Ending::Answered) => ExitCode::SUCCESS,
        Ok(Ending::Failed) => ExitCode::FAILURE,
        Ok(Ending::StrictlyPartial) => ExitCode::from(3),
        // The reader has closed the pipe: it has seen enough.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            output::say(&format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe)
}
