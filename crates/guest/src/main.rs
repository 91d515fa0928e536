//! The only program of the test guests: process 1, and the modes it starts itself as.
//!
//! As process 1 it never returns: whatever happens, the machine is powered off. As anything else, the first argument
//! names a mode, and the rest belongs to that mode.

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
