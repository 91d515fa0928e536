//! The life of one buffer in a recording, as text: when it was there, how its memory grew, who held
//! it from when to when.

use std::io::{self, Write};
use std::time::SystemTime;

use super::blocks::block;
use crate::escape::escape;
use crate::history::{Lasting, Life, Sample, shown};
use crate::model::{Buffer, Bytes, Holder};

/// Columns of the line that shows its cost over time.
const WIDTH: u32 = 60;

/// Writes the life of a buffer. `newest` is the last sample of the recording.
///
/// # Errors
/// If it cannot be written.
pub fn life(out: &mut impl Write, life: &Life, newest: Sample) -> io::Result<()> {
    let end = life.last_seen().map_or(newest.taken_at, |sample| sample.taken_at);
    let first = life.states.first().and_then(|state| state.first);
    let begin = first.map_or_else(|| "before the recording".to_owned(), |first| shown(first.taken_at));
    let gone = if life.died().is_some() { "gone after" } else { "still there at" };
    writeln!(out, "  recorded  from {begin}, {gone} {}", shown(end))?;
    let costs: Vec<u64> =
        life.states.iter().filter_map(|state| state.what.cost()).map(|cost| cost.0).collect();
    if let (Some(least), Some(most)) = (costs.iter().min(), costs.iter().max()) {
        let line = cost_line(&life.states, first.map(|first| first.taken_at), end, *most);
        writeln!(out, "  cost      {line}  {} to {}", Bytes(*least), Bytes(*most))?;
    }
    for (nth, held) in life.holders.iter().enumerate() {
        let label = if nth == 0 { "held" } else { "" };
        let (process, holder) = &held.what;
        let from = held.first.map_or_else(|| "before".to_owned(), |sample| shown(sample.taken_at));
        let until = held.last.map_or_else(|| "still".to_owned(), |sample| shown(sample.taken_at));
        let who = format!("{}:{}", escape(process.comm.as_bytes()), process.pid);
        writeln!(out, "  {label:<9} {from:<25} to {until:<25} {who}  {}", how(holder))?;
    }
    Ok(())
}

/// By what references a process holds it.
fn how(holder: &Holder) -> String {
    let parts = [(holder.fd_refs(), "fd"), (holder.map_refs(), "map"), (holder.opath_refs(), "opath")];
    let parts = parts.iter().filter(|(number, _)| *number > 0);
    let mut words: Vec<String> = parts.map(|(number, word)| format!("{number} {word}")).collect();
    words.extend(holder.runs.then(|| "exe".to_owned()));
    if words.is_empty() { "shares a table".to_owned() } else { words.join(" + ") }
}

/// Its cost over time: a block for each moment, as high as the cost was then; a blank where it was
/// not there, and `?` where its cost was unknown.
fn cost_line(states: &[Lasting<Buffer>], begin: Option<SystemTime>, end: SystemTime, most: u64) -> String {
    let known = states.iter().flat_map(|state| [state.first, state.last]).flatten();
    let Some(begin) = begin.or_else(|| known.map(|sample| sample.taken_at).min()) else {
        return block(1, 1).to_string();
    };
    let length = end.duration_since(begin).unwrap_or_default();
    let at = |column: u32| begin + length * column / (WIDTH - 1);
    let block_at = |time: SystemTime| {
        let is_then = |state: &&Lasting<Buffer>| {
            state.first.is_none_or(|first| first.taken_at <= time)
                && state.last.is_none_or(|last| time <= last.taken_at)
        };
        // Between the last sample of a state and the first of the next one, the earlier one counts.
        let before =
            || states.iter().rev().find(|state| state.first.is_none_or(|first| first.taken_at <= time));
        let state = states
            .iter()
            .rev()
            .find(is_then)
            .or_else(|| before().filter(|state| states.iter().any(|next| follows(state, next))));
        match state.map(|state| state.what.cost()) {
            None => ' ',
            Some(None) => '?',
            Some(Some(cost)) => block(cost.0, most),
        }
    };
    (0..WIDTH).map(|column| block_at(at(column))).collect()
}

/// Whether a state began with the sample behind the last one of another state.
fn follows(state: &Lasting<Buffer>, next: &Lasting<Buffer>) -> bool {
    match (state.last, next.first) {
        (Some(last), Some(first)) => first.id.0 == last.id.0 + 1,
        _ => false,
    }
}
