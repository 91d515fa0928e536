//! `lsbuf report`: who made the buffers of a view, and where in its code, for tools that draw
//! stacks: as folded stacks, which flame graphs are made of, and as a profile for pprof.
//!
//! Each buffer counts once, with its cost. What has no stack is there too, below a frame that says
//! why, so that the sum is that of all buffers of the view.
//!
//! Limit: a buffer of unknown cost has no bytes that could be added. [`unknown_costs`] counts
//! these.

mod folded;
mod pprof;
mod protobuf;
#[cfg(test)]
mod tests;

pub use folded::{Weight, folded};
pub use pprof::pprof;
#[cfg(feature = "bpf")]
pub use pprof::trace_pprof;

use super::View;
use crate::model::{Birth, Buffer, CodePlace, Label, Origin, Stack, StackEnd, UserFrame};

/// How many buffers of the view have an unknown cost.
#[must_use]
pub fn unknown_costs(view: &View<'_>) -> usize {
    view.buffers.iter().filter(|&&row| view.buffer(row).cost().is_none()).count()
}

/// The birth of a buffer, if it was recorded.
fn birth(buffer: &Buffer) -> Option<&Birth> {
    buffer.origin.as_deref().and_then(Origin::birth)
}

/// The frame that stands for what is not known of a buffer's stack, at its outer end. `None`: all
/// is known.
fn gap(buffer: &Buffer) -> Option<&'static str> {
    let birth = match buffer.origin.as_deref() {
        Some(Origin::Made(birth)) => birth,
        Some(Origin::Before) => return Some("[before the recorder]"),
        Some(Origin::Unknown(_)) | None => return Some("[unknown]"),
    };
    stack_gap(birth.stack.as_deref())
}

/// The same of a stack; `None`: it was not read.
fn stack_gap(stack: Option<&Stack>) -> Option<&'static str> {
    match stack {
        None => Some("[stack not read]"),
        Some(Stack { user_end: StackEnd::Truncated, .. }) => Some("[truncated]"),
        Some(Stack { user_end: StackEnd::Unreadable, .. }) => Some("[unreadable]"),
        Some(Stack { user, kernel, .. }) => (user.is_empty() && kernel.is_empty()).then_some("[no calls]"),
    }
}

/// A call in a program of which no function is known: where it is. `name` makes the name of a file
/// harmless.
fn place(call: &UserFrame, name: impl Fn(&Label) -> String) -> String {
    match (call.place, &call.module) {
        (CodePlace::File { offset, .. }, Some(module)) => format!("{}+{offset:#x}", name(module)),
        (CodePlace::File { build_id, offset }, None) => format!("{build_id}+{offset:#x}"),
        (CodePlace::Address(address), _) => format!("{address:#x}"),
    }
}
