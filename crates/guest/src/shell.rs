//! Runs command lines that a person gives for a guest.

use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitCode, Stdio};

use anyhow::Context;

/// Runs a command line: in busybox's shell if the initramfs has it, else split at spaces and
/// started directly.
///
/// # Errors
///
/// The line is empty or its program cannot be started.
pub fn run(arguments: &[String]) -> anyhow::Result<ExitCode> {
    let line = arguments.join(" ");
    let mut command = if std::fs::exists("/bin/busybox")? {
        // Busybox complains about programs that already exist under the name of an applet. They
        // stay.
        Command::new("/bin/busybox")
            .args(["--install", "-s", "/bin"])
            .stderr(Stdio::null())
            .status()
            .context("installing busybox")?;
        let mut shell = Command::new("/bin/busybox");
        shell.args(["sh", "-c", &line]);
        shell
    } else {
        let mut words = line.split_ascii_whitespace();
        let mut command = Command::new(words.next().context("an empty command line")?);
        command.args(words);
        command
    };
    let status = command.status().with_context(|| format!("running {line:?}"))?;
    let code = status.code().or(status.signal().map(|signal| 128 + signal)).unwrap_or(1);
    Ok(ExitCode::from(u8::try_from(code).unwrap_or(1)))
}
