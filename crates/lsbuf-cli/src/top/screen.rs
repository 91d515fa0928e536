//! Draws the state into a buffer of cells. Pure: the same state gives the same cells.
//!
//! Colour only repeats what a sign says as well. Untrusted text comes escaped from
//! `lsbuf::render`; where it is drawn, control characters are left out besides.

use std::time::{Instant, SystemTime};

use lsbuf::escape::escape;
use lsbuf::history::shown;
use lsbuf::model::{Bytes, LeakShape};
use lsbuf::render::{Cell, Sizes, Style as CellStyle};
use ratatui::buffer::Buffer;
use ratatui::style::{Color, Modifier, Style};

use super::keys::{KEYS, SIGNS};
use super::page::{List, Total};
use super::state::{State, wrap};

/// How long the bars of the totals are.
const BAR: u64 = 16;

/// The smallest terminal in which a list makes sense.
const LEAST: (u16, u16) = (40, 10);

/// How many rows of a list fit: the screen less what is above and below them.
pub(crate) fn height(state: &State<'_>, screen: u16) -> usize {
    let used = if state.help.is_some() || state.opened.is_some() { 3 } else { above(state).len() + 3 };
    usize::from(screen).saturating_sub(used)
}

/// Draws everything.
pub(crate) fn draw(state: &State<'_>, cells: &mut Buffer, now: Instant, is_coloured: bool) {
    let mut pen = Pen { cells, is_coloured };
    let (width, height) = (pen.cells.area.width, pen.cells.area.height);
    if width < LEAST.0 || height < LEAST.1 {
        pen.line(0, "lsbuf top needs 40 columns and 10 lines", Style::new());
        return;
    }
    pen.line(0, &title(state), bold());
    pen.line(1, &taken(state, now), Style::new());
    if let Some(first) = state.help {
        help(state, &mut pen, first);
    } else if let Some(opened) = &state.opened {
        for (y, line) in (2..height - 1).zip(opened.lines.iter().skip(opened.first)) {
            pen.line(y, line, Style::new());
        }
    } else {
        list(state, &mut pen, now);
    }
    pen.line(height - 1, &footer(state), reversed());
    let failed = (state.failure.is_some() || state.mistake.is_some()) && state.entry.is_none();
    if failed {
        pen.colour_line(height - 1, Color::Red);
    }
}

fn list(state: &State<'_>, pen: &mut Pen<'_>, now: Instant) {
    let height = pen.cells.area.height;
    let mut y = 2;
    for mut line in above(state) {
        if let (Above::LeftOver, Some(left)) =
            (&line.0, state.now.as_ref().and_then(|one| one.left_over.as_ref()))
        {
            line.1.push_str(&format!(", {} s ago", now.saturating_duration_since(left.at).as_secs()));
        }
        pen.line(y, &line.1, Style::new());
        if matches!(line.0, Above::Note) {
            pen.colour_line(y, Color::Yellow);
        }
        y += 1;
    }
    pen.line(y, &format!("  {}", heading(state)), bold().add_modifier(Modifier::UNDERLINED));
    y += 1;
    let cursor = state.cursor();
    let rows = state.page.rows.iter().enumerate().skip(cursor.first);
    if state.page.rows.is_empty() {
        let text =
            if state.now.is_none() { "  the first scan is under way …" } else { "  nothing to show" };
        pen.line(y, text, Style::new());
    }
    for (y, (nth, row)) in (y..height - 1).zip(rows) {
        let (sign, colour) = match row.shape {
            Some(LeakShape::Fd) => ('!', Some(Color::Red)),
            Some(LeakShape::Handle | LeakShape::InFlight | LeakShape::OPath | LeakShape::Unattached) => {
                ('*', Some(Color::Yellow))
            }
            _ => (' ', None),
        };
        let is_chosen = nth == cursor.row;
        let style = if is_chosen { reversed() } else { Style::new() };
        pen.line(y, &format!("{}{sign}{}", if is_chosen { '>' } else { ' ' }, row.text), style);
        if let Some(colour) = colour {
            pen.colour_line(y, colour);
        }
    }
}

/// The lists, the one that is shown in brackets.
fn title(state: &State<'_>) -> String {
    let one = |list: List, name: &str| {
        if list == state.list { format!("[{name}]") } else { format!(" {name} ") }
    };
    let groups = format!("3 groups by {}", state.by.as_str());
    let frozen = match (state.frozen, state.is_past) {
        (true, false) => "  FROZEN",
        (false, true) => "  PLAYING",
        _ => "",
    };
    format!(
        "lsbuf top  {} {} {}{frozen}",
        one(List::Buffers, "1 buffers"),
        one(List::Processes, "2 processes"),
        one(List::Groups, &groups)
    )
}

/// When the sample was taken. Of this machine also how old it is and what it took.
fn taken(state: &State<'_>, now: Instant) -> String {
    let Some(answer) = &state.now else { return String::new() };
    let time = shown(answer.snapshot.taken_at);
    match answer.nth {
        Some((nth, all)) => format!("{time}  sample {nth} of {all}"),
        None => {
            let age = now.saturating_duration_since(answer.at).as_secs();
            let took = answer.took.as_secs_f64() * 1000.0;
            format!("{time}  {age} s ago; the scan took {took:.0} ms, one each {:?}", state.every)
        }
    }
}

/// What a line above the list is about.
enum Above {
    Total,
    LeftOver,
    Changes,
    Note,
}

/// The lines above the list.
fn above(state: &State<'_>) -> Vec<(Above, String)> {
    let totals = &state.page.totals;
    let whole = |total: &Total| total.parts.map(|(held, none)| u128::from(held.0) + u128::from(none.0));
    let most = totals.iter().filter_map(whole).max().unwrap_or(0);
    let mut lines: Vec<(Above, String)> =
        totals.iter().map(|total| (Above::Total, format!("[{}] {}", bar(total, most), total.text))).collect();
    if let Some(left) = state.now.as_ref().and_then(|answer| answer.left_over.as_ref()) {
        let Bytes(shmem) = left.shmem;
        let size = |size: Option<Bytes>| Cell::Size(size).write(CellStyle::Table, Sizes::Human);
        let change = Cell::SizeChange(Some(left.left_over)).write(CellStyle::Table, Sizes::Human);
        let filled = part(left.left_over.unsigned_abs(), u128::from(shmem));
        let partial = if left.is_complete { "" } else { " (partial)" };
        let text = format!(
            "[{}{}] left over {change} of Shmem {}{partial}",
            "█".repeat(filled),
            " ".repeat(BAR as usize - filled),
            size(Some(left.shmem))
        );
        lines.push((Above::LeftOver, text));
    }
    if let (Some(changes), Some(at)) = (&state.page.changes, state.marked_at()) {
        lines.push((Above::Changes, format!("since {}: {changes}", clock(at))));
    }
    if let Some(answer) = &state.now {
        let coverage = &answer.snapshot.coverage;
        let notes: Vec<String> = coverage.notes.iter().map(|note| said(&note.to_string())).collect();
        let kind = if coverage.is_complete() { "note" } else { "partial" };
        if !notes.is_empty() || !coverage.is_complete() {
            lines.push((Above::Note, format!("{kind}: {}", notes.join("; "))));
        }
    }
    lines
}

/// The time of day, as the local clock shows it.
fn clock(time: SystemTime) -> String {
    shown(time).get(11..19).unwrap_or("?").to_owned()
}

/// How many signs of a bar stand for a part.
fn part(part: u128, whole: u128) -> usize {
    let length = part.saturating_mul(u128::from(BAR)) / whole.max(1);
    usize::try_from(length.min(u128::from(BAR))).unwrap_or_default()
}

/// What processes hold and what none holds, as parts of the larger total.
fn bar(total: &Total, most: u128) -> String {
    let Some((Bytes(held), Bytes(none))) = total.parts else {
        return format!("{:<1$}", "?", BAR as usize);
    };
    let held_part = part(u128::from(held), most);
    let both = part(u128::from(held) + u128::from(none), most);
    format!("{}{}{}", "█".repeat(held_part), "▒".repeat(both - held_part), " ".repeat(BAR as usize - both))
}

/// The heading, with a sign at the column that the list is sorted by.
fn heading(state: &State<'_>) -> String {
    let order = state.order();
    let sign = if order.reversed { '▴' } else { '▾' };
    let mut marked = String::new();
    let mut is_open = true;
    for word in state.page.heading.split_inclusive(' ') {
        match word.strip_suffix(' ').unwrap_or(word) {
            name if is_open && name == order.column => {
                marked.push_str(name);
                marked.push(sign);
                is_open = false;
            }
            _ => marked.push_str(word),
        }
    }
    marked
}

/// The lowest line: what is typed, what went wrong, or which keys there are.
fn footer(state: &State<'_>) -> String {
    if let Some((purpose, text)) = &state.entry {
        // What cannot be seen is escaped, and a backslash stays as it was typed.
        let text = escape(text.as_bytes()).replace("\\\\", "\\");
        return format!("{}{text}_", purpose.prompt());
    }
    if let Some(failure) = state.mistake.as_ref().or(state.failure.as_ref()) {
        return said(failure);
    }
    if state.help.is_some() || state.opened.is_some() {
        return "Esc back  ↑↓ scroll  t tree  ? help  q back".to_owned();
    }
    let order = state.order();
    let reversed = if order.reversed { ", reversed" } else { "" };
    let filter = if state.needle.is_empty() { String::new() } else { format!("  filter: {}", state.needle) };
    let (first, all) = (state.cursor().row + 1, state.page.rows.len());
    let place = if all == 0 { "0 rows".to_owned() } else { format!("row {first} of {all}") };
    let keys = if state.is_past { "←→ step  Space play" } else { "m mark  Space freeze" };
    format!("{place}  by {}{reversed}{filter}  ? help  Enter show  / filter  {keys}", order.column)
}

/// A message, which may quote paths. What is escaped in it already stays as it is.
fn said(text: &str) -> String {
    lsbuf::escape::escape(text.as_bytes()).replace("\\\\", "\\")
}

/// The keys, the signs, and the notes of the answer in full.
fn help(state: &State<'_>, pen: &mut Pen<'_>, first: usize) {
    let (width, height) = (pen.cells.area.width, pen.cells.area.height);
    let keys = KEYS.iter().map(|(key, what)| format!("  {key:<12}{what}"));
    let signs = SIGNS.iter().map(|(sign, what)| format!("  {sign:<12}{what}"));
    let mut lines: Vec<String> = keys.chain([String::new()]).chain(signs).collect();
    let coverage = state.now.as_ref().map(|answer| &answer.snapshot.coverage);
    for note in coverage.iter().flat_map(|coverage| &coverage.notes) {
        lines.push(String::new());
        lines.extend(wrap(&format!("  This answer: {}", said(&note.to_string())), width));
    }
    let room = usize::from(height.saturating_sub(3));
    let first = first.min(lines.len().saturating_sub(room));
    for (y, line) in (2..height - 1).zip(lines.iter().skip(first)) {
        pen.line(y, line, Style::new());
    }
}

fn bold() -> Style {
    Style::new().add_modifier(Modifier::BOLD)
}

fn reversed() -> Style {
    Style::new().add_modifier(Modifier::REVERSED)
}

/// Draws lines.
struct Pen<'a> {
    cells: &'a mut Buffer,
    is_coloured: bool,
}

impl Pen<'_> {
    /// Draws a line, cut to the width. Where something is cut off, the last cell says so.
    fn line(&mut self, y: u16, text: &str, style: Style) {
        let width = self.cells.area.width;
        self.cells.set_style(ratatui::layout::Rect::new(0, y, width, 1), style);
        self.cells.set_stringn(0, y, text, usize::from(width), style);
        if ratatui::text::Span::raw(text).width() > usize::from(width) {
            self.cells.set_stringn(width - 1, y, "…", 1, style);
        }
    }

    fn colour_line(&mut self, y: u16, colour: Color) {
        if self.is_coloured {
            let area = ratatui::layout::Rect::new(0, y, self.cells.area.width, 1);
            self.cells.set_style(area, Style::new().fg(colour));
        }
    }
}
