//! Programs that scenarios start: modes of this binary that do nothing but run, each in a way that
//! a test needs.

use std::fs;
use std::io::{Write, stdout};
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use anyhow::{Context, ensure};

use crate::make;
use crate::sys::{Region, page, text};

/// The mode of a program that waits.
pub const WAIT: &str = "wait";

/// The mode of a program that executes itself again and again.
pub const AGAIN: &str = "again";

/// The mode of a program that unmaps its own executable and waits.
pub const LEAVE: &str = "leave";

/// The mode of a program that makes buffers, frees one, and leaves one behind.
pub const TRACED: &str = "traced";

/// The mode of its child.
pub const TRACED_CHILD: &str = "traced-child";

/// Prints a line when it has started, and waits for the end of its standard input.
///
/// # Errors
///
/// Its standard input cannot be read.
pub fn wait(_: &[String]) -> anyhow::Result<ExitCode> {
    println!("waiting");
    std::io::copy(&mut std::io::stdin(), &mut std::io::sink())?;
    Ok(ExitCode::SUCCESS)
}

/// Executes this mode in place of the calling program. Fds without `CLOEXEC` stay open. Returns
/// only if that fails.
pub fn run_again() -> anyhow::Error {
    anyhow::Error::new(Command::new("/proc/self/exe").arg(AGAIN).exec()).context("running the program again")
}

/// Executes itself again.
///
/// # Errors
///
/// The kernel refuses.
pub fn again(_: &[String]) -> anyhow::Result<ExitCode> {
    Err(run_again())
}

/// Prints a line when it has started, unmaps its own executable, and never ends.
///
/// # Errors
///
/// It finds no mapping of its executable, or the kernel refuses.
pub fn leave(_: &[String]) -> anyhow::Result<ExitCode> {
    let own = fs::read_link("/proc/self/exe")?;
    let own = own.to_str().context("a name that is not UTF-8")?;
    let maps = fs::read_to_string("/proc/self/maps")?;
    let ranges = maps.lines().filter(|line| line.ends_with(own)).filter_map(|line| {
        let (start, end) = line.split_ascii_whitespace().next()?.split_once('-')?;
        let address = |text| usize::from_str_radix(text, 16).ok();
        Some((address(start)?, address(end)?))
    });
    let ranges: Vec<(usize, usize)> = ranges.collect();
    let (first, last) = (ranges.first().context("nothing is mapped")?, ranges.last().context("nothing")?);
    ensure!(first.0 < last.1, "the ranges are out of order");
    println!("leaving");
    stdout().flush()?;
    text::leave(Region { start: first.0, len: last.1 - first.0 })?;
    Ok(ExitCode::FAILURE)
}

/// Makes a memfd and closes it, makes one that lives until the end, leaves a file of one page in
/// `/dev/shm`, and starts a child. Ends with status 7.
///
/// # Errors
///
/// One of these cannot be done.
pub fn traced(_: &[String]) -> anyhow::Result<ExitCode> {
    drop(make::memfd(b"freed", 1, 1)?);
    let _kept = make::memfd(b"kept", 2, 1)?;
    fs::write("/dev/shm/left", vec![1; usize::try_from(page())?])?;
    let child = Command::new("/proc/self/exe").arg(TRACED_CHILD).status()?;
    ensure!(child.success(), "the child failed");
    Ok(ExitCode::from(7))
}

/// Makes a memfd, which goes with it.
///
/// # Errors
///
/// It cannot be made.
pub fn traced_child(_: &[String]) -> anyhow::Result<ExitCode> {
    make::memfd(b"childs", 1, 1).map(|_| ExitCode::SUCCESS)
}
