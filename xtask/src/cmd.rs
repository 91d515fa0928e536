//! Runs other programs. The error of a failure says which program failed and why.

use std::fmt;
use std::io;
use std::process::{Command, Stdio};

use anyhow::{Context, bail};

/// A mistake in the arguments, as opposed to a failure of the work. The exit status is 2.
#[derive(Debug)]
pub(crate) struct Usage(pub(crate) String);

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Usage {}

/// The name of a command's program, for messages.
fn name(command: &Command) -> String {
    command.get_program().to_string_lossy().into_owned()
}

/// The error for a program that could not be started, with a hint if it is not installed.
fn start_error(command: &Command, error: io::Error) -> anyhow::Error {
    let hint = if error.kind() == io::ErrorKind::NotFound { " (is it installed?)" } else { "" };
    anyhow::Error::from(error).context(format!("starting {}{hint}", name(command)))
}

/// Runs `command` with this process's stdout and stderr. An exit status other than 0 is an error.
pub(crate) fn run(command: &mut Command) -> anyhow::Result<()> {
    let status = command.status().map_err(|error| start_error(command, error))?;
    if !status.success() {
        bail!("{} failed ({status})", name(command));
    }
    Ok(())
}

/// Runs `command` without showing its output, and returns its stdout. If it fails, the error has
/// its stderr.
pub(crate) fn output_bytes(command: &mut Command) -> anyhow::Result<Vec<u8>> {
    let output = command.stdin(Stdio::null()).output().map_err(|error| start_error(command, error))?;
    if !output.status.success() {
        let errors = String::from_utf8_lossy(&output.stderr);
        bail!("{} failed ({}): {}", name(command), output.status, errors.trim_end());
    }
    Ok(output.stdout)
}

/// [`output_bytes`] for programs that print text.
pub(crate) fn output(command: &mut Command) -> anyhow::Result<String> {
    let bytes = output_bytes(command)?;
    String::from_utf8(bytes).with_context(|| format!("{} printed something other than text", name(command)))
}

/// Whether there is a program with this name.
pub(crate) fn is_program(name: &str) -> bool {
    find_program(name).is_some()
}

/// Where the program with this name is. The folders for administrators are searched too, because a
/// user's `PATH` may not have them.
pub(crate) fn find_program(name: &str) -> Option<std::path::PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/sbin", "/sbin", "/usr/bin", "/bin"].map(Into::into);
    std::env::split_paths(&path).chain(system).map(|folder| folder.join(name)).find(|path| path.is_file())
}
