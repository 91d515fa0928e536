//! The state and the screen, without a terminal. Their world is [`world`], so that each snapshot
//! can be checked by hand.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use clap::Parser;
use insta::assert_snapshot;
use lsbuf::escape::escape;
use lsbuf::history::shown;
use lsbuf::model::{Bytes, Details, Label, Snapshot, SumKey};
use lsbuf::scan::Options;
use proptest::prelude::*;
use ratatui::backend::TestBackend;
use ratatui::buffer::Buffer;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use ratatui::layout::Rect;

use super::item::Item;
use super::page::List;
use super::sampling::{Answer, Ask};
use super::state::{Action, State};
use super::{screen, terminal};
use crate::args::FilterArgs;

#[path = "../../tests/kit/mod.rs"]
mod kit;

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    filter: FilterArgs,
}

fn filter(words: &[&str]) -> FilterArgs {
    Line::parse_from([&["top"], words].concat()).filter
}

/// The kit's world of shared memory. The worker is the client's child.
fn world() -> Snapshot {
    let tree = kit::shmem_tree();
    tree.write("proc/14/stat", b"14 (worker) S 12 1 1 0 -1 4194560 0 0 0 0 0 0 0 0 20 0 1 0 4712 0 0");
    let options = Options { details: Details::ALL, ..tree.options() };
    let mut snapshot = lsbuf::scan(options).unwrap();
    snapshot.taken_at = at(0);
    snapshot
}

fn at(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_764_252_300 + seconds)
}

/// The world after the pool has grown by 1 MiB, and the leaked file is gone.
fn later() -> Snapshot {
    let mut snapshot = world();
    snapshot.taken_at = at(1);
    let pool = snapshot.buffers.iter_mut().find(|buffer| buffer.id.ino.0 == 7).unwrap();
    pool.charged = pool.charged.map(|charged| Bytes(charged.0 + (1 << 20)));
    snapshot.buffers.retain(|buffer| buffer.id.ino.0 != 6);
    snapshot
}

fn answer(place: i64, snapshot: Snapshot) -> Answer {
    Answer {
        place,
        snapshot: Arc::new(snapshot),
        at: Instant::now(),
        took: Duration::from_millis(12),
        nth: Some((usize::try_from(place).unwrap() + 1, 2)),
        earlier: Vec::new(),
        left_over: None,
    }
}

fn state(filter: &FilterArgs) -> State<'_> {
    let mut state = State::new(filter, List::Buffers, SumKey::Command, Duration::from_secs(1), true);
    state.answer(answer(0, world()));
    let _ = drawn(&mut state, 80, 24, false);
    state
}

fn press(state: &mut State<'_>, keys: &str) {
    for key in keys.chars() {
        let code = match key {
            '\n' => KeyCode::Enter,
            '\t' => KeyCode::Tab,
            '\x1b' => KeyCode::Esc,
            '↓' => KeyCode::Down,
            key => KeyCode::Char(key),
        };
        let _ = state.key(KeyEvent::new(code, KeyModifiers::NONE));
        let _ = drawn(state, 80, 24, false);
    }
}

fn drawn(state: &mut State<'_>, width: u16, height: u16, is_coloured: bool) -> Buffer {
    for _ in 0..2 {
        let rows = screen::height(state, height);
        state.refresh(width, rows);
    }
    let mut cells = Buffer::empty(Rect::new(0, 0, width, height));
    screen::draw(state, &mut cells, Instant::now(), is_coloured);
    cells
}

/// The screen as text, without blanks at the ends of lines, and with times as in UTC.
fn text(state: &mut State<'_>, width: u16, height: u16) -> String {
    let cells = drawn(state, width, height, false);
    let mut screen = ratatui::Terminal::new(TestBackend::new(width, height)).unwrap();
    screen.draw(|frame| frame.buffer_mut().merge(&cells)).unwrap();
    let lines = cells.content.chunks(usize::from(width)).map(|line| {
        let symbols: String = line.iter().map(ratatui::buffer::Cell::symbol).collect();
        symbols.trim_end().to_owned()
    });
    screen.backend().assert_buffer(&cells);
    let mut text = lines.collect::<Vec<_>>().join("\n");
    for seconds in 0..2 {
        let local = shown(at(seconds));
        text = text.replace(&local, &format!("2025-11-27T14:05:0{seconds}+00:00"));
        text = text.replace(&format!("since {}", &local[11..19]), &format!("since 14:05:0{seconds}"));
    }
    text
}

/// Check each list at the least size that is enough.
#[test]
fn lists() {
    let filter = filter(&[]);
    let mut state = state(&filter);
    assert_snapshot!("buffers", text(&mut state, 80, 24));
    press(&mut state, "\t");
    assert_snapshot!("processes", text(&mut state, 80, 24));
    press(&mut state, "t");
    assert_snapshot!("tree", text(&mut state, 80, 24));
    press(&mut state, "3");
    assert_snapshot!("groups", text(&mut state, 80, 24));
}

/// Check that a wide screen has the trend, and that a mark shows what has changed since.
#[test]
fn mark() {
    let filter = filter(&[]);
    let mut state = state(&filter);
    press(&mut state, "m");
    state.answer(answer(1, later()));
    assert_snapshot!("mark", text(&mut state, 200, 50));
    press(&mut state, "2");
    assert_snapshot!("mark_processes", text(&mut state, 200, 50));
}

/// Check a buffer in full, with its holders below their parents, and the help.
#[test]
fn in_full() {
    let filter = filter(&[]);
    let mut state = state(&filter);
    press(&mut state, "\n");
    assert_snapshot!("in_full", text(&mut state, 80, 24));
    press(&mut state, "t");
    assert_snapshot!("in_full_tree", text(&mut state, 80, 24));
    press(&mut state, "\x1b?");
    assert_snapshot!("help", text(&mut state, 80, 24));
}

/// The inode numbers of the rows.
fn rows(state: &State<'_>) -> Vec<u64> {
    let ino = |item: &Item| match item {
        Item::Buffer(id, _) => id.ino.0,
        _ => 0,
    };
    state.page.rows.iter().map(|row| ino(&row.item)).collect()
}

/// Check that the cursor stays with its buffer when the order changes, and with its row when the
/// buffer is gone.
#[test]
fn the_cursor_follows() {
    let filter = filter(&[]);
    let mut state = state(&filter);
    press(&mut state, "↓");
    let there = |state: &State<'_>| rows(state)[state.cursor().row];
    let chosen = there(&state);
    press(&mut state, "r");
    assert_eq!(there(&state), chosen);
    assert_ne!(state.cursor().row, 1);
    let mut without = world();
    without.buffers.retain(|buffer| buffer.id.ino.0 != chosen);
    let row = state.cursor().row;
    state.answer(answer(1, without));
    let _ = drawn(&mut state, 80, 24, false);
    assert_eq!(state.cursor().row, row.min(state.page.rows.len() - 1));
}

/// Check that the filter takes names, commands and kinds, whatever their case, and that Esc ends
/// it.
#[test]
fn the_filter() {
    let filter = filter(&[]);
    let mut state = state(&filter);
    press(&mut state, "/");
    let all = rows(&state);
    for (typed, found) in
        [("WL_", vec![7]), ("leaked", vec![6]), ("Worker", vec![0]), ("sysv", vec![0, 32769])]
    {
        press(&mut state, typed);
        let mut rows = rows(&state);
        rows.sort_unstable();
        assert_eq!(rows, found, "{typed}");
        press(&mut state, "\x1b/");
    }
    assert_eq!(rows(&state), all);
}

/// Check that `<` and `>` go from column to column, that `r` turns the order round, and that a
/// column is found by its name.
#[test]
fn orders() {
    let filter = filter(&[]);
    let mut state = state(&filter);
    let by_cost = rows(&state);
    press(&mut state, ">>>");
    assert_eq!(state.order().column, "SIZE");
    press(&mut state, "<");
    assert_eq!(state.order().column, "INO");
    let mut sorted = by_cost.clone();
    sorted.sort_unstable_by(|one, other| other.cmp(one));
    assert_eq!(rows(&state), sorted);
    press(&mut state, "r");
    sorted.reverse();
    assert_eq!(rows(&state), sorted);
    press(&mut state, "sshape\n");
    assert_eq!(state.order().column, "SHAPE");
    press(&mut state, "snonsense\n");
    assert!(state.mistake.as_ref().is_some_and(|why| why.starts_with("no such column; valid: KIND")));
}

/// Check that the filters of the command line choose the rows, as in `lsbuf ls`.
#[test]
fn filters_of_the_command_line() {
    let filter = filter(&["--min-size", "64K", "-p", "12"]);
    let mut state = state(&filter);
    let _ = drawn(&mut state, 80, 24, false);
    assert_eq!(rows(&state), [7]);
}

/// Check that a time that is typed is asked for, and that one that is none is refused.
#[test]
fn times() {
    let filter = filter(&[]);
    let mut state = state(&filter);
    press(&mut state, ":-10m");
    let action = state.key(KeyEvent::new(KeyCode::Enter, KeyModifiers::NONE));
    assert_eq!(action, Action::Ask(Ask::Go("-10m".parse().unwrap())));
    press(&mut state, "Tnoon\n");
    assert!(state.mistake.as_ref().is_some_and(|why| why.starts_with("not a time")));
}

/// Check that what is asked for is only what is shown: parents for the tree, everything for a
/// buffer in full.
#[test]
fn wants() {
    let filter = filter(&[]);
    let mut state = state(&filter);
    assert_eq!(state.want().details, Details::NONE);
    press(&mut state, "2t");
    assert_ne!(state.want().details, Details::NONE);
    press(&mut state, "t1\n");
    assert_eq!(state.want().details, Details::ALL);
    assert!(state.want().opened.is_some() && state.want().paused);
}

/// Check that a screen too small for anything is drawn without a panic, whatever is on it.
#[test]
fn tiny_screens() {
    let filter = filter(&[]);
    let mut state = state(&filter);
    for keys in ["", "\n", "\x1b?", "\x1b/x"] {
        press(&mut state, keys);
        for (width, height) in [(1, 1), (39, 9), (40, 10), (500, 3), (3, 500)] {
            let _ = drawn(&mut state, width, height, true);
        }
    }
}

/// Check that without colour the same signs are on the screen.
#[test]
fn colour_is_not_the_only_sign() {
    let filter = filter(&[]);
    let mut state = state(&filter);
    let symbols =
        |cells: Buffer| cells.content.iter().map(|cell| cell.symbol().to_owned()).collect::<Vec<_>>();
    let plain = drawn(&mut state, 80, 24, false);
    assert!(plain.content.iter().all(|cell| cell.fg == ratatui::style::Color::Reset));
    let coloured = drawn(&mut state, 80, 24, true);
    assert_eq!(symbols(plain), symbols(coloured));
}

/// What a frame writes, without the control sequences that lsbuf itself makes.
fn without_own_sequences(bytes: &[u8]) -> String {
    let text = std::str::from_utf8(bytes).unwrap();
    let mut parts = text.split("\x1b[");
    let mut rest = parts.next().unwrap().to_owned();
    for part in parts {
        let end = part.find(|c: char| c.is_ascii_alphabetic()).unwrap();
        assert!(part[..end].chars().all(|c| c.is_ascii_digit() || ";?".contains(c)), "{part:?}");
        assert!("HhlmJ".contains(&part[end..=end]), "{part:?}");
        rest.push_str(&part[end + 1..]);
    }
    rest
}

/// Check that a typed character that cannot be seen is escaped, and that a backslash is not.
#[test]
fn typed_text_can_be_seen() {
    let filter = filter(&[]);
    let mut state = state(&filter);
    state.answer(answer(1, world()));
    press(&mut state, "/a\\d\u{fe00}");
    let cells = drawn(&mut state, 80, 24, true);
    let written = without_own_sequences(&terminal::frame(None, &cells).unwrap());
    assert!(written.contains(r"/a\d\xef\xb8\x80_"), "{written}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Check that no control character of a name, a command or a typed filter reaches the terminal.
    #[test]
    fn no_control_characters(
        name in proptest::collection::vec(any::<u8>(), 0..40),
        comm in proptest::collection::vec(any::<u8>(), 0..16),
        typed in "\\PC{0,8}",
    ) {
        let filter = filter(&[]);
        let mut state = state(&filter);
        let mut snapshot = world();
        for buffer in &mut snapshot.buffers {
            buffer.name = Some(Label::from(&name[..]));
        }
        for process in &mut snapshot.processes {
            process.comm = Label::from(&comm[..]);
        }
        state.answer(answer(1, snapshot));
        for keys in ["", "2", "t", "3", "1\n", "\x1b/", &typed] {
            press(&mut state, keys);
            let cells = drawn(&mut state, 120, 30, true);
            let written = without_own_sequences(&terminal::frame(None, &cells).unwrap());
            prop_assert!(!written.chars().any(char::is_control), "{:?}", written);
            prop_assert_eq!(escape(written.as_bytes()).replace("\\\\", "\\"), written);
        }
    }
}
