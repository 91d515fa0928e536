//! What is shown, and what each key changes of it. Pure: it knows no terminal and asks nothing.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use lsbuf::history::When;
use lsbuf::model::{BufferId, Details, Ledger, Snapshot, SumKey};
use lsbuf::render::View;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::item::Item;
use super::page::{List, Order, Page, Query};
use super::sampling::{Answer, Ask, Want};
use super::trend::Trends;
use crate::args::FilterArgs;

/// What the main loop has to do after a key.
#[derive(Debug, PartialEq)]
pub(crate) enum Action {
    /// Nothing but to draw.
    None,
    /// End.
    Quit,
    /// Stop this process until the shell continues it.
    Suspend,
    /// Draw every cell, because another program wrote on the terminal.
    Repaint,
    /// Ask the thread that takes the samples.
    Ask(Ask),
}

/// What a line of text that is typed is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    Filter,
    Sort,
    Time,
}

impl Purpose {
    /// What stands before the text.
    pub(crate) fn prompt(self) -> &'static str {
        match self {
            Purpose::Filter => "/",
            Purpose::Sort => "sort by column: ",
            Purpose::Time => "go to time (start, end, -10m, 14:05): ",
        }
    }
}

/// Where the cursor of a list is.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cursor {
    item: Option<Item>,
    /// The row of the item, or the row that it had.
    pub(crate) row: usize,
    /// The first row that is shown.
    pub(crate) first: usize,
}

/// A buffer that is shown in full.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) item: Item,
    pub(crate) lines: Vec<String>,
    pub(crate) first: usize,
}

/// Everything that is shown.
pub(crate) struct State<'a> {
    filter: &'a FilterArgs,
    pub(crate) list: List,
    pub(crate) by: SumKey,
    pub(crate) needle: String,
    pub(crate) entry: Option<(Purpose, String)>,
    orders: [Order; 3],
    cursors: [Cursor; 3],
    pub(crate) tree: bool,
    pub(crate) help: Option<usize>,
    pub(crate) opened: Option<Opened>,
    mark: Option<Arc<Snapshot>>,
    /// Of this machine: no scan is made. Of a recording: it does not play.
    pub(crate) frozen: bool,
    /// Whether a recording is shown.
    pub(crate) is_past: bool,
    pub(crate) every: Duration,
    pub(crate) now: Option<Answer>,
    /// Why there is no newer sample.
    pub(crate) failure: Option<String>,
    /// What is wrong with the text that was typed last; until the next key.
    pub(crate) mistake: Option<String>,
    trends: Trends,
    pub(crate) page: Page,
    stale: bool,
    width: u16,
    /// How many rows are shown.
    height: usize,
}

impl<'a> State<'a> {
    pub(crate) fn new(
        filter: &'a FilterArgs,
        list: List,
        by: SumKey,
        every: Duration,
        is_past: bool,
    ) -> State<'a> {
        let order = |list: List| Order { column: list.cost(), reversed: false };
        State {
            filter,
            list,
            by,
            needle: String::new(),
            entry: None,
            orders: List::ALL.map(order),
            cursors: Default::default(),
            tree: false,
            help: None,
            opened: None,
            mark: None,
            frozen: is_past,
            is_past,
            every,
            now: None,
            failure: None,
            mistake: None,
            trends: Trends::default(),
            page: Page::default(),
            stale: true,
            width: 0,
            height: 1,
        }
    }

    /// Takes an answer.
    pub(crate) fn answer(&mut self, answer: Answer) {
        for (place, snapshot) in &answer.earlier {
            self.trends.add(*place, snapshot);
        }
        self.trends.add(answer.place, &answer.snapshot);
        self.trends.keep(answer.place);
        self.failure = None;
        self.now = Some(answer);
        self.stale = true;
    }

    /// What the samples must have.
    pub(crate) fn want(&self) -> Want {
        let opened = self.opened_id();
        let details = if opened.is_some() { Details::ALL } else { self.query().details() };
        Want {
            details,
            payers: self.list == List::Groups && self.by == SumKey::Payer || self.order().column == "PAYER",
            payer_groups: self.list == List::Groups && self.by == SumKey::Payer,
            opened,
            paused: self.frozen,
        }
    }

    fn opened_id(&self) -> Option<BufferId> {
        match self.opened.as_ref()?.item {
            Item::Buffer(id, _) => Some(id),
            _ => None,
        }
    }

    pub(crate) fn order(&self) -> &Order {
        &self.orders[self.list as usize]
    }

    pub(crate) fn cursor(&self) -> &Cursor {
        &self.cursors[self.list as usize]
    }

    /// When the marked sample was taken.
    pub(crate) fn marked_at(&self) -> Option<SystemTime> {
        self.mark.as_ref().map(|snapshot| snapshot.taken_at)
    }

    fn query(&self) -> Query<'_> {
        Query {
            list: self.list,
            by: self.by,
            filter: self.filter,
            needle: &self.needle,
            order: self.order(),
            tree: self.tree,
            held: None,
            before: self.mark.as_deref(),
            width: self.width,
        }
    }

    /// Makes the page anew if something has changed, for a width and a number of rows.
    pub(crate) fn refresh(&mut self, width: u16, height: usize) {
        self.height = height.max(1);
        if width != self.width {
            (self.width, self.stale) = (width, true);
        }
        if std::mem::take(&mut self.stale)
            && let Some(now) = &self.now
        {
            let snapshot = Arc::clone(&now.snapshot);
            let mut trends = std::mem::take(&mut self.trends);
            if self.query().has_trend() {
                trends.measure(|snapshot| self.query().costs(snapshot));
            }
            self.page = self.query().page(&snapshot, &trends);
            self.trends = trends;
            let lines = self.opened.as_ref().map(|opened| self.in_full(&snapshot, &opened.item));
            if let (Some(opened), Some(lines)) = (&mut self.opened, lines) {
                opened.lines = lines;
            }
        }
        self.follow();
    }

    /// Moves the cursor to where its item is now. If it is gone, its row has another item.
    fn follow(&mut self) {
        let (rows, height) = (&self.page.rows, self.height);
        let cursor = &mut self.cursors[self.list as usize];
        let place = cursor.item.as_ref().and_then(|item| rows.iter().position(|row| row.item == *item));
        cursor.row = place.unwrap_or(cursor.row).min(rows.len().saturating_sub(1));
        cursor.item = rows.get(cursor.row).map(|row| row.item.clone());
        cursor.first = cursor.first.clamp((cursor.row + 1).saturating_sub(height), cursor.row);
        cursor.first = cursor.first.min(rows.len().saturating_sub(height));
        if let Some(opened) = &mut self.opened {
            opened.first = opened.first.min(opened.lines.len().saturating_sub(height));
        }
    }

    /// A buffer as `lsbuf show` prints it, in lines of the width; its holders as a tree, if that is
    /// wanted.
    fn in_full(&self, snapshot: &Snapshot, item: &Item) -> Vec<String> {
        let Some(row) = snapshot.buffers.iter().position(|buffer| Item::of_buffer(buffer) == *item) else {
            return vec!["This buffer is not there (any more).".to_owned()];
        };
        let mut text = Vec::new();
        let ledger = Ledger::of(snapshot);
        // Writing into memory does not fail.
        let _ = lsbuf::render::show(&mut text, &View::all(&ledger), row);
        let text = String::from_utf8_lossy(&text);
        let mut lines: Vec<String> = text.lines().flat_map(|line| wrap(line, self.width)).collect();
        if self.tree {
            let order = &Order { column: "RSS", reversed: false };
            let query = Query {
                list: List::Processes,
                held: Some(item),
                needle: "",
                order,
                before: None,
                ..self.query()
            };
            let page = query.page(snapshot, &Trends::default());
            lines.extend(["".to_owned(), "Its holders below their parents:".to_owned(), page.heading]);
            lines.extend(page.rows.into_iter().map(|row| row.text));
        }
        lines
    }

    /// Does what a key means.
    pub(crate) fn key(&mut self, key: KeyEvent) -> Action {
        self.mistake = None;
        let control = key.modifiers.contains(KeyModifiers::CONTROL);
        match key.code {
            KeyCode::Char('c') if control => return Action::Quit,
            KeyCode::Char('z') if control => return Action::Suspend,
            KeyCode::Char('l') if control => return Action::Repaint,
            _ if control => return Action::None,
            _ => {}
        }
        if self.entry.is_some() {
            return self.type_key(key.code);
        }
        if let Some(first) = &mut self.help {
            match key.code {
                KeyCode::Down | KeyCode::Char('j') => *first += 1,
                KeyCode::Up | KeyCode::Char('k') => *first = first.saturating_sub(1),
                KeyCode::PageDown => *first += self.height,
                KeyCode::PageUp => *first = first.saturating_sub(self.height),
                KeyCode::Char('q' | '?') | KeyCode::Esc | KeyCode::Enter => self.help = None,
                _ => {}
            }
            return Action::None;
        }
        self.command(key.code)
    }

    fn command(&mut self, code: KeyCode) -> Action {
        match code {
            KeyCode::Char('q') if self.opened.is_some() => self.close(),
            KeyCode::Char('q') => return Action::Quit,
            KeyCode::Esc if self.opened.is_some() => self.close(),
            KeyCode::Esc => self.narrow(String::new()),
            KeyCode::Char('?') => self.help = Some(0),
            KeyCode::Char('/') => self.entry = Some((Purpose::Filter, self.needle.clone())),
            KeyCode::Char('s') => self.entry = Some((Purpose::Sort, String::new())),
            KeyCode::Char('T' | ':') if self.is_past => self.entry = Some((Purpose::Time, String::new())),
            KeyCode::Right if self.is_past => return Action::Ask(Ask::Step(1)),
            KeyCode::Left if self.is_past => return Action::Ask(Ask::Step(-1)),
            KeyCode::Char(' ') => self.frozen = !self.frozen,
            KeyCode::Char('m') => {
                self.mark = self.now.as_ref().map(|now| Arc::clone(&now.snapshot));
                self.stale = true;
            }
            KeyCode::Char('M') => self.unmark(),
            KeyCode::Char('t') => (self.tree, self.stale) = (!self.tree, true),
            KeyCode::Tab => self.show_list(List::ALL[(self.list as usize + 1) % 3]),
            KeyCode::BackTab => self.show_list(List::ALL[(self.list as usize + 2) % 3]),
            KeyCode::Char('1') => self.show_list(List::Buffers),
            KeyCode::Char('2') => self.show_list(List::Processes),
            KeyCode::Char('3') => self.show_list(List::Groups),
            KeyCode::Char('g') => self.next_key(),
            KeyCode::Char('<') => self.sort_by_neighbour(-1),
            KeyCode::Char('>') => self.sort_by_neighbour(1),
            KeyCode::Char('r') => {
                let order = &mut self.orders[self.list as usize];
                (order.reversed, self.stale) = (!order.reversed, true);
            }
            KeyCode::Enter => self.open(),
            KeyCode::Down | KeyCode::Char('j') => self.step(1),
            KeyCode::Up | KeyCode::Char('k') => self.step(-1),
            KeyCode::PageDown => self.step(isize::try_from(self.height).unwrap_or(isize::MAX)),
            KeyCode::PageUp => self.step(-isize::try_from(self.height).unwrap_or(isize::MAX)),
            KeyCode::Home => self.step(isize::MIN),
            KeyCode::End => self.step(isize::MAX),
            _ => {}
        }
        Action::None
    }

    /// A key while a line of text is typed.
    fn type_key(&mut self, code: KeyCode) -> Action {
        let Some((purpose, mut text)) = self.entry.take() else { return Action::None };
        match code {
            KeyCode::Esc => {
                if purpose == Purpose::Filter {
                    self.narrow(String::new());
                }
                return Action::None;
            }
            KeyCode::Enter => return self.enter(purpose, &text),
            KeyCode::Backspace => _ = text.pop(),
            KeyCode::Char(c) if !c.is_control() => text.push(c),
            _ => {}
        }
        if purpose == Purpose::Filter {
            self.narrow(text.clone());
        }
        self.entry = Some((purpose, text));
        Action::None
    }

    fn enter(&mut self, purpose: Purpose, text: &str) -> Action {
        match purpose {
            Purpose::Filter => {}
            Purpose::Sort if text.eq_ignore_ascii_case(self.list.change()) && self.mark.is_some() => {
                self.sort_by(self.list.change());
            }
            Purpose::Sort => match crate::args::find(text, self.list.columns()) {
                Ok(column) => self.sort_by(column.name),
                Err(error) => self.mistake = Some(error),
            },
            Purpose::Time => match text.parse::<When>() {
                Ok(when) => return Action::Ask(Ask::Go(when)),
                Err(error) => self.mistake = Some(error),
            },
        }
        Action::None
    }

    fn narrow(&mut self, needle: String) {
        if needle != self.needle {
            self.needle = needle;
            self.changed_rows();
        }
    }

    /// Other rows are shown, or other costs of them.
    fn changed_rows(&mut self) {
        self.trends.forget_costs();
        self.stale = true;
    }

    fn show_list(&mut self, list: List) {
        self.close();
        if list != self.list {
            self.list = list;
            self.changed_rows();
        }
    }

    fn next_key(&mut self) {
        if self.list == List::Groups {
            let place = SumKey::ALL.iter().position(|key| *key == self.by).unwrap_or(0);
            self.by = SumKey::ALL[(place + 1) % SumKey::ALL.len()];
            self.changed_rows();
        } else {
            self.show_list(List::Groups);
        }
    }

    fn unmark(&mut self) {
        self.mark = None;
        for (order, list) in self.orders.iter_mut().zip(List::ALL) {
            if order.column == list.change() {
                order.column = list.cost();
            }
        }
        self.stale = true;
    }

    fn sort_by(&mut self, column: &'static str) {
        self.orders[self.list as usize].column = column;
        self.stale = true;
    }

    /// Sorts by the column that stands beside the one by which the list is sorted.
    fn sort_by_neighbour(&mut self, by: isize) {
        let mut columns = self.page.columns.clone();
        if !columns.contains(&self.list.cost()) {
            columns.insert(0, self.list.cost());
        }
        let place = columns.iter().position(|name| *name == self.order().column).unwrap_or(0);
        let last = columns.len().saturating_sub(1);
        if let Some(name) = columns.get(place.saturating_add_signed(by).min(last)) {
            self.sort_by(name);
        }
    }

    fn open(&mut self) {
        let cursor = &self.cursors[self.list as usize];
        if let (List::Buffers, Some(item)) = (self.list, &cursor.item) {
            self.opened = Some(Opened { item: item.clone(), lines: Vec::new(), first: 0 });
            self.stale = true;
        }
    }

    fn close(&mut self) {
        self.opened = None;
    }

    fn step(&mut self, by: isize) {
        if let Some(opened) = &mut self.opened {
            opened.first = opened.first.saturating_add_signed(by).min(opened.lines.len());
            return;
        }
        let cursor = &mut self.cursors[self.list as usize];
        let last = self.page.rows.len().saturating_sub(1);
        cursor.row = cursor.row.saturating_add_signed(by).min(last);
        cursor.item = self.page.rows.get(cursor.row).map(|row| row.item.clone());
    }
}

/// A line in pieces that are no wider than the width.
pub(super) fn wrap(line: &str, width: u16) -> Vec<String> {
    let mut pieces = vec![String::new()];
    let mut used = 0;
    for c in line.chars() {
        let wide = ratatui::text::Span::raw(c.to_string()).width();
        if used + wide > usize::from(width) {
            pieces.push(String::new());
            used = 0;
        }
        used += wide;
        if let Some(last) = pieces.last_mut() {
            last.push(c);
        }
    }
    pieces
}
