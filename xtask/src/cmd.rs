//! Runs other programs and turns their failures into errors that say which program and why.

use std::fmt;
use std::io;
use std::process::{Command, Stdio};

use anyhow::{Context, bail};

/// A mistake in what was asked for, as opposed to a failure in doing it. The exit status is 2.
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

/// An error for a program that could not be started, with a hint where it is simply absent.
fn start_error(command: &Command, error: io::Error) -> anyhow::Error {
    let hint = if error.kind() == io::ErrorKind::NotFound { " (is it installed?)" } else { "" };
    anyhow::Error::from(error).context(format!("starting {}{hint}", name(command)))
}

/// Runs `command` with this process's own outputs; an exit status other than 0 is an error.
pub(crate) fn run(command: &mut Command) -> anyhow::Result<()> {
    let status = command.status().map_err(|error| start_error(command, error))?;
    if !status.success() {
        bail!("{} failed ({status})", name(command));
    }
    Ok(())
}

/// Runs `command` quietly and returns what it printed. If it fails, the error holds what it wrote to standard error.
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

/// Whether a program of this name can be found.
pub(crate) fn is_program(name: &str) -> bool {
    find_program(name).is_some()
}

/// Where the program of this name is. The folders of administrators count too: a user's `PATH` may lack them.
pub(crate) fn find_program(name: &str) -> Option<std::path::PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/sbin", "/sbin", "/usr/bin", "/bin"].map(Into::into);
    std::env::split_paths(&path).chain(system).map(|folder| folder.join(name)).find(|path| path.is_file())
}
