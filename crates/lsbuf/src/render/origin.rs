//! Who made a buffer, in words.
//!
//! Names of commands, functions and files are chosen by their makers, so they are escaped: as one
//! word in a column, as a line in `lsbuf show`.

use std::io::{self, Write};
use std::time::SystemTime;

use super::Cell;
use crate::escape::{escape, escape_word};
use crate::model::serialize::timestamp;
use crate::model::{
    Birth, Buffer, Client, CodePlace, Label, NoClient, NoOrigin, Origin, Pid, Receipt, Stack, StackEnd,
    UserFrame,
};

/// The maker as `COMMAND:PID`. `before`: the buffer is older than the recorder.
pub(super) fn maker(origin: Option<&Origin>) -> Cell {
    match origin {
        Some(Origin::Made(birth)) => Cell::Words(Some(who(&birth.command, birth.pid).into())),
        Some(Origin::Before) => Cell::Words(Some("before".into())),
        Some(Origin::Unknown(_)) | None => Cell::Text(None),
    }
}

/// The process that received it first from its maker, as `COMMAND:PID`.
pub(super) fn client(origin: Option<&Origin>) -> Cell {
    match origin.and_then(Origin::client) {
        Some(Receipt { command, pid, .. }) => Cell::Words(Some(who(command, *pid).into())),
        None => Cell::Text(None),
    }
}

/// The function that made it.
pub(super) fn function(origin: Option<&Origin>) -> Cell {
    let Some(birth) = origin.and_then(Origin::birth) else { return maker(origin) };
    let Some(stack) = &birth.stack else { return Cell::Text(None) };
    match stack.maker() {
        Some(frame) => Cell::Words(Some(call(frame).into())),
        None => Cell::Text(None),
    }
}

fn who(command: &Label, pid: Pid) -> String {
    format!("{}:{pid}", escape_word(command.as_bytes()))
}

/// A call in a program: the function, or else its place, and in which file.
pub(super) fn call(frame: &UserFrame) -> String {
    let word = |label: &Label| escape_word(label.as_bytes());
    match (frame.functions.first(), &frame.module) {
        (Some(function), _) => word(&function.name),
        (None, Some(module)) => format!("{}+{}", word(module), place(frame)),
        (None, None) => place(frame),
    }
}

fn place(frame: &UserFrame) -> String {
    match frame.place {
        CodePlace::File { build_id, offset } => {
            let id = build_id.to_string();
            if frame.module.is_some() {
                format!("{offset:#x}")
            } else {
                format!("[unknown]+{offset:#x}({id})")
            }
        }
        CodePlace::Address(address) => format!("[unknown]({address:#x})"),
    }
}

/// What `lsbuf show` says of a buffer's maker.
pub(super) fn lines(out: &mut dyn Write, buffer: &Buffer) -> io::Result<()> {
    let Some(origin) = buffer.origin.as_deref() else { return Ok(()) };
    let birth = match origin {
        Origin::Before => return writeln!(out, "  {:<10}older than the flight recorder", "origin"),
        Origin::Unknown(NoOrigin::Lost) => {
            return writeln!(
                out,
                "  {:<10}unknown: its birth was not recorded, or the record was lost",
                "origin"
            );
        }
        Origin::Unknown(NoOrigin::NotWatched) => {
            return writeln!(out, "  {:<10}unknown: the flight recorder does not see such births", "origin");
        }
        Origin::Made(birth) => birth,
    };
    let thread = match birth.thread == birth.command {
        true => String::new(),
        false => format!(", thread {} {}", birth.tid, escape(birth.thread.as_bytes())),
    };
    let Birth { command, pid, uid, .. } = birth.as_ref();
    writeln!(out, "  {:<10}{}{thread}, uid {uid}, at {}", "origin", who(command, *pid), time(birth.at))?;
    writeln!(out, "  {:<10}{}", "for", client_words(birth))?;
    birth.stack.as_deref().map_or(Ok(()), |stack| calls(out, stack, "made by"))
}

fn time(at: SystemTime) -> String {
    timestamp(at).map_or("?".to_owned(), |time| time.to_string())
}

/// Who received it first from its maker, and how that is known.
fn client_words(birth: &Birth) -> String {
    let maker = who(&birth.command, birth.pid);
    match &birth.client {
        Client::Received(Receipt { command, pid, uid, at, .. }) => {
            let client = who(command, *pid);
            format!("{client}, uid {uid}: received it first, in a message from {maker}, at {}", time(*at))
        }
        Client::NotSeen => format!("?: no process was seen to receive it from {maker}"),
        Client::Unknown(NoClient::NotWatched) => {
            "?: the flight recorder does not see who receives buffers".to_owned()
        }
        Client::Unknown(NoClient::Unclear) => {
            format!("?: a process has it that may have received it from {maker}, or not")
        }
        Client::Unknown(NoClient::Lost) => "?: the record was lost, or that of an earlier receipt".to_owned(),
    }
}

/// The calls, the innermost first. `first` stands before the first one of the program.
pub(super) fn calls(out: &mut dyn Write, stack: &Stack, first: &str) -> io::Result<()> {
    for (nth, frame) in stack.user.iter().enumerate() {
        let heading = if nth == 0 { first } else { "" };
        let module =
            frame.module.as_ref().map_or(String::new(), |module| format!("  {}", escape(module.as_bytes())));
        if frame.functions.is_empty() {
            writeln!(out, "  {heading:<10}{}", call(frame))?;
        }
        for (depth, function) in frame.functions.iter().enumerate() {
            let heading = if depth == 0 { heading } else { "" };
            let name = escape(function.name.as_bytes());
            let source = match (&function.file, function.line) {
                (Some(file), Some(line)) => format!("  {}:{line}", escape(file.as_bytes())),
                (Some(file), None) => format!("  {}", escape(file.as_bytes())),
                (None, _) => String::new(),
            };
            let inlined = if function.inlined { " (inlined)" } else { "" };
            writeln!(out, "  {heading:<10}{name}{inlined}{module}{source}")?;
        }
    }
    let end = match stack.user_end {
        StackEnd::Complete => None,
        StackEnd::Truncated => Some("truncated: code without frame pointers, or too many calls"),
        StackEnd::Unreadable => Some("the kernel could not read the program's calls"),
        StackEnd::Kernel => Some("a thread of the kernel"),
    };
    if let Some(end) = end {
        writeln!(out, "  {:<10}[{end}]", "")?;
    }
    for (nth, frame) in stack.kernel.iter().enumerate() {
        let heading = if nth == 0 { "in kernel" } else { "" };
        let module =
            frame.module.as_ref().map_or(String::new(), |module| format!("  {}", escape(module.as_bytes())));
        writeln!(out, "  {heading:<10}{}{module}", escape(frame.function.as_bytes()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::examples::{buffer, made, made_for};
    use crate::render::{Sizes, Style};

    /// Check that a client is named in a column and with the evidence in a line, and that a hostile
    /// name is escaped in both.
    #[test]
    fn clients() {
        let hostile = made_for("server", "a b\x1b[m", 42);
        let cell = |origin: &Origin| client(Some(origin)).write(Style::Raw, Sizes::Bytes);
        assert_eq!(cell(&made_for("server", "app", 42)), "app:42");
        assert_eq!(cell(&hostile), r"a\x20b\x1b[m:42");
        assert_eq!(cell(&made("server", 1, &[])), "?");
        assert_eq!(cell(&Origin::Before), "?");
        let line = |origin: Origin| {
            let mut out = Vec::new();
            let one = Buffer { origin: Some(Box::new(origin)), ..buffer(1, Some(1), None, Vec::new()) };
            lines(&mut out, &one).unwrap();
            String::from_utf8(out).unwrap().lines().nth(1).unwrap().to_owned()
        };
        let evidence = "uid 1000: received it first, in a message from server:1, at 1970-01-01T00:01:43Z";
        assert_eq!(line(made_for("server", "app", 42)), format!("  for       app:42, {evidence}"));
        assert_eq!(line(hostile), format!(r"  for       a\x20b\x1b[m:42, {evidence}"));
        assert_eq!(
            line(made("server", 1, &[])),
            "  for       ?: no process was seen to receive it from server:1"
        );
    }
}
