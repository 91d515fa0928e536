//! Runs a command on a terminal, because what it prints there may differ from what it prints into a
//! pipe.

use std::fs::File;
use std::io::Read;
use std::process::{Command, ExitStatus};

use anyhow::Context;
use rustix::io::Errno;
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{OptionalActions, Winsize, tcgetattr, tcsetattr, tcsetwinsize};

/// Runs `command` with all its streams on a terminal of `columns` columns. Returns its status and
/// all that it wrote.
///
/// # Errors
///
/// No terminal can be opened, or the command cannot be started.
pub fn run(mut command: Command, columns: u16) -> anyhow::Result<(ExitStatus, Vec<u8>)> {
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let mut reader = File::from(openpt(flags).context("opening a terminal")?);
    unlockpt(&reader).context("unlocking the terminal")?;
    let terminal = ioctl_tiocgptpeer(&reader, flags).context("opening the terminal's other end")?;
    let mut settings = tcgetattr(&terminal)?;
    // The terminal must pass on what is written and must not add carriage returns.
    settings.make_raw();
    tcsetattr(&terminal, OptionalActions::Now, &settings)?;
    let size = Winsize { ws_row: 24, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    tcsetwinsize(&reader, size).context("sizing the terminal")?;
    let (input, output) = (terminal.try_clone()?, terminal.try_clone()?);
    command.stdin(input).stdout(output).stderr(terminal).env("TERM", "xterm-256color");
    let mut child = command.spawn().context("starting the command")?;
    // The command keeps the terminal's other end open. Without this the reader would never see the
    // end.
    drop(command);
    let mut written = Vec::new();
    match reader.read_to_end(&mut written) {
        Ok(_) => {}
        // This error is the end of a terminal that no process has open. What was read before is
        // kept.
        Err(error) if Errno::from_io_error(&error) == Some(Errno::IO) => {}
        Err(error) => return Err(error).context("reading the terminal"),
    }
    Ok((child.wait().context("waiting for the command")?, written))
}
