//! The program that runs in the test guests: as process 1, and in one of its modes.
//!
//! As process 1 it never returns. Whatever happens, it powers the machine off. As any other process
//! it runs the mode that the first argument names, with the remaining arguments.

use std::process::ExitCode;

use lsbuf_guest::{init, modes};

fn main() -> ExitCode {
    if std::process::id() == 1 {
        init::run();
    }
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match modes::run_mode(&arguments) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("lsbuf-guest: {error:#}");
            ExitCode::FAILURE
        }
    }
}
