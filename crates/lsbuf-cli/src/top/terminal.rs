//! The terminal: raw mode, one write for each frame, and the way back.
//!
//! A frame is a synchronized update (DEC private mode 2026), so terminals that know it show it at
//! once. The screen is cleared only where its size has changed, as part of the frame.
//!
//! The terminal is restored when this is dropped, by a panic hook (the release build aborts without
//! unwinding), and before a signal ends or stops the process. SIGKILL alone leaves it as it is.

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Once;

use anyhow::{Context, Result};
use ratatui::backend::{Backend, CrosstermBackend};
use ratatui::buffer::Buffer;
use ratatui::crossterm::terminal;
use ratatui::layout::Rect;

/// The alternate screen, and no cursor.
const ENTER: &[u8] = b"\x1b[?1049h\x1b[?25l";

/// No attributes, the cursor, no synchronized update that was begun, the main screen.
const LEAVE: &[u8] = b"\x1b[?2026l\x1b[0m\x1b[?25h\x1b[?1049l";

/// The exit status of a Rust program that panicked.
const PANICKED: i32 = 101;

const BEGIN: &[u8] = b"\x1b[?2026h";
const CLEAR: &[u8] = b"\x1b[0m\x1b[2J";
const END: &[u8] = b"\x1b[?2026l";

/// A terminal in raw mode.
pub(crate) struct Terminal {
    /// What it shows. `None`: that is unknown.
    shows: Option<Buffer>,
}

impl Terminal {
    /// Takes the terminal.
    pub(crate) fn enter() -> Result<Terminal> {
        static HOOK: Once = Once::new();
        HOOK.call_once(|| {
            let report = std::panic::take_hook();
            std::panic::set_hook(Box::new(move |panic| {
                leave();
                report(panic);
                // Else the other threads would go on and draw on the shell's screen.
                std::process::exit(PANICKED);
            }));
        });
        let mut terminal = Terminal { shows: None };
        terminal.enter_again()?;
        Ok(terminal)
    }

    /// Takes it once more after the process was stopped. The shell may have changed its modes.
    pub(crate) fn enter_again(&mut self) -> Result<()> {
        self.shows = None;
        let _ = terminal::disable_raw_mode();
        terminal::enable_raw_mode().context("the terminal cannot be put into raw mode")?;
        write(ENTER).context("the terminal cannot be written to")
    }

    /// Gives the terminal back, until [`Terminal::enter_again`].
    pub(crate) fn leave(&mut self) {
        leave();
    }

    /// Columns and lines.
    pub(crate) fn size(&self) -> (u16, u16) {
        terminal::size().ok().filter(|&(width, height)| width > 0 && height > 0).unwrap_or((80, 24))
    }

    /// The next frame draws every cell.
    pub(crate) fn repaint(&mut self) {
        self.shows = None;
    }

    /// Shows a frame.
    pub(crate) fn show(&mut self, next: Buffer) -> io::Result<()> {
        let bytes = frame(self.shows.as_ref(), &next)?;
        self.shows = Some(next);
        if bytes.is_empty() { Ok(()) } else { write(&bytes) }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        leave();
    }
}

/// The bytes that turn what the terminal shows into the next frame; none if it is the same.
pub(super) fn frame(shows: Option<&Buffer>, next: &Buffer) -> io::Result<Vec<u8>> {
    let same_size = shows.filter(|shows| shows.area == next.area);
    let empty;
    let mut bytes = BEGIN.to_vec();
    let before = match same_size {
        Some(shows) => shows,
        None => {
            bytes.extend_from_slice(CLEAR);
            empty = Buffer::empty(Rect { x: 0, y: 0, ..next.area });
            &empty
        }
    };
    let changed = before.diff(next);
    if changed.is_empty() && same_size.is_some() {
        return Ok(Vec::new());
    }
    CrosstermBackend::new(&mut bytes).draw(changed.into_iter())?;
    bytes.extend_from_slice(END);
    Ok(bytes)
}

/// Gives the terminal back as well as it can be. May be called from any thread, and twice.
fn leave() {
    // A terminal that is gone needs no restoring.
    let _ = write(LEAVE);
    let _ = terminal::disable_raw_mode();
}

/// Writes by as few calls as the terminal allows.
fn write(mut bytes: &[u8]) -> io::Result<()> {
    let stdout = io::stdout();
    let fd: BorrowedFd<'_> = std::os::fd::AsFd::as_fd(&stdout);
    while !bytes.is_empty() {
        match rustix::io::write(fd, bytes) {
            Ok(written) => bytes = &bytes[written..],
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str, width: u16) -> Buffer {
        let mut cells = Buffer::empty(Rect::new(0, 0, width, 2));
        cells.set_stringn(0, 0, text, usize::from(width), ratatui::style::Style::new());
        cells
    }

    /// Check that a frame begins and ends a synchronized update, and that nothing is written for a
    /// frame that is the same.
    #[test]
    fn one_update() {
        let bytes = frame(Some(&shown("a", 9)), &shown("b", 9)).unwrap();
        assert!(bytes.starts_with(BEGIN) && bytes.ends_with(END));
        assert!(!bytes.windows(4).any(|four| four == b"\x1b[2J"));
        assert!(frame(Some(&shown("a", 9)), &shown("a", 9)).unwrap().is_empty());
    }

    /// Check that the screen is cleared if its size or its content is unknown, in the same update.
    #[test]
    fn cleared_when_resized() {
        for before in [None, Some(shown("a", 8))] {
            let bytes = frame(before.as_ref(), &shown("a", 9)).unwrap();
            assert!(bytes[BEGIN.len()..].starts_with(CLEAR));
        }
    }
}
