//! Events of buffers as they happen: programs of lsbuf at functions of the kernel, which write each
//! event to a ring buffer that this process reads.
//!
//! Unlike the flight recorder nothing stays: the programs go with the [`Tracer`].
//!
//! A program that cannot be attached is left out, and [`Tracer::left_out`] says what is not seen
//! then. Only if no event can be seen is that an error.

mod event;
mod hooks;
mod load;
mod ring;

pub(crate) use self::event::{CopiedStack, EventObject, RawEvent, RawStacks};
pub use self::load::Stacks;
#[cfg(test)]
pub(crate) use self::load::object;
pub(crate) use self::load::{TraceSettings, Tracer};
