//! Folded stacks: a line for each distinct stack, with its frames from the outermost inwards, and a
//! number.
//!
//! ```text
//! camera;_start;main;open_stream;dma_heap_ioctl_[k] 8388608
//! [before the recorder] 4096
//! ```
//!
//! Names of commands and functions are chosen by their makers. What has a meaning in the format is
//! escaped in them as `\xNN`: a semicolon, a blank before a number at the end, and what would look
//! like a frame of lsbuf's own.
//!
//! Limit: the format has no room for build ids, source lines and processes. A profile
//! ([`pprof`](super::pprof())) has.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::{self, Write};

use super::super::View;
use super::{birth, gap, place};
use crate::escape::escape_gaps;
use crate::model::{Buffer, Label};

/// What the number of a stack is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weight {
    /// What its buffers cost, in bytes. A buffer of unknown cost is left out.
    Bytes,
    /// How many buffers it made.
    Objects,
}

/// Writes folded stacks of the view's buffers, in the order of their text.
///
/// # Errors
/// Those of `out`.
pub fn folded(out: &mut dyn Write, view: &View<'_>, weight: Weight) -> io::Result<()> {
    let mut stacks: BTreeMap<Cow<'static, str>, u128> = BTreeMap::new();
    for &row in &view.buffers {
        let buffer = view.buffer(row);
        let number = match weight {
            Weight::Bytes => buffer.cost().map(|cost| cost.0),
            Weight::Objects => Some(1),
        };
        if let Some(number) = number {
            *stacks.entry(line(&buffer)).or_default() += u128::from(number);
        }
    }
    stacks.iter().try_for_each(|(stack, number)| writeln!(out, "{stack} {number}"))
}

/// The frames of a buffer's stack.
fn line(buffer: &Buffer) -> Cow<'static, str> {
    let gap = gap(buffer);
    let Some(birth) = birth(buffer) else { return Cow::Borrowed(gap.unwrap_or("[unknown]")) };
    let mut line = frame(&birth.command);
    let mut add = |frame: &str| {
        line.push(';');
        line.push_str(frame);
    };
    if let Some(gap) = gap {
        add(gap);
    }
    let (user, kernel) = match birth.stack.as_deref() {
        Some(stack) => (&stack.user[..], &stack.kernel[..]),
        None => (&[][..], &[][..]),
    };
    for call in user.iter().rev() {
        call.functions.iter().rev().for_each(|function| add(&frame(&function.name)));
        if call.functions.is_empty() {
            add(&place(call, frame));
        }
    }
    kernel.iter().rev().for_each(|call| add(&format!("{}_[k]", frame(&call.function))));
    Cow::Owned(line)
}

/// A name as a frame.
fn frame(name: &Label) -> String {
    if name.is_empty() {
        return "[no name]".to_owned();
    }
    // A backslash is doubled by now, so that what is added here cannot be in a name.
    let mut text = escape_gaps(name.as_bytes()).replace(';', r"\x3b");
    // Readers take a second number at the end for that of another profile.
    if let Some(blank) = text.rfind(' ')
        && text[blank + 1..].bytes().all(|byte| byte.is_ascii_digit() || byte == b'.')
    {
        text.replace_range(blank..=blank, r"\x20");
    }
    // Frames that lsbuf makes up begin with a bracket, and those of the kernel end in one. Lines
    // that begin with # are comments to some readers.
    let first = match text.as_bytes().first() {
        Some(b'[') => Some(r"\x5b"),
        Some(b'#') => Some(r"\x23"),
        _ => None,
    };
    if let Some(first) = first {
        text.replace_range(..1, first);
    }
    match text.strip_suffix("_[k]") {
        Some(rest) => format!(r"{rest}_\x5bk]"),
        None => text,
    }
}
