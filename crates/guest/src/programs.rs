//! Programs that scenarios start: modes of this binary which only are there, each in a way that a test needs.

use std::process::ExitCode;

/// The mode of a program that only runs.
pub const WAIT: &str = "wait";

/// Says by a line that it has begun, and waits for the end of its standard input.
///
/// # Errors
///
/// Its standard input cannot be read.
pub fn wait(_: &[String]) -> anyhow::Result<ExitCode> {
    println!("waiting");
    std::io::copy(&mut std::io::stdin(), &mut std::io::sink())?;
    Ok(ExitCode::SUCCESS)
}
