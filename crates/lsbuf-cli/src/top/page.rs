//! The list of a screen as text: rows, columns and cells are those of `lsbuf ls`, `ps` and `sum`.
//!
//! Beside them stand what has changed since the mark, computed as `lsbuf diff` does, and the trend.

use std::collections::HashMap;

use clap::ValueEnum;
use lsbuf::model::{
    Buffer, Bytes, Details, Diff, Kind, Kinds, LeakShape, Ledger, Part, Snapshot, Sum, SumKey, counted,
};
use lsbuf::render::{
    BUFFER_COLUMNS, Cell, Column, DEFAULT_SUM_COLUMNS, DIFF_COLUMNS, DIFF_GROUP_COLUMNS,
    DIFF_PROCESS_COLUMNS, Differences, PROCESS_COLUMNS, SUM_COLUMNS, Sizes, Style, View,
};

use super::item::Item;
use super::narrow::narrow;
use super::tree::tree;
use super::trend::{Costs, Trends};
use crate::args::{Columns, FilterArgs};
use crate::{commands, select};

/// From this width on, rows have a trend.
const WIDE: u16 = 100;

/// The width of the column of changes.
const CHANGE: usize = 8;

/// How wide the commands of a tree may be.
const COMMAND: usize = 28;

/// Which list is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum List {
    /// As `lsbuf ls`.
    Buffers,
    /// As `lsbuf ps`.
    Processes,
    /// As `lsbuf sum`.
    Groups,
}

impl List {
    pub(crate) const ALL: [List; 3] = [List::Buffers, List::Processes, List::Groups];

    /// Every column that the list can be sorted by, but for the change.
    pub(crate) fn columns(self) -> &'static [Column] {
        match self {
            List::Buffers => BUFFER_COLUMNS,
            List::Processes => PROCESS_COLUMNS,
            List::Groups => SUM_COLUMNS,
        }
    }

    /// What is the cost of a row.
    pub(crate) fn cost(self) -> &'static str {
        if self == List::Processes { "RSS" } else { "COST" }
    }

    /// The column of what has changed since the mark.
    pub(crate) fn change(self) -> &'static str {
        if self == List::Processes { "+RSS" } else { "+COST" }
    }
}

/// By which column a list is sorted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Order {
    pub(crate) column: &'static str,
    pub(crate) reversed: bool,
}

/// What is asked of a snapshot.
pub(crate) struct Query<'q> {
    pub(crate) list: List,
    pub(crate) by: SumKey,
    pub(crate) filter: &'q FilterArgs,
    pub(crate) needle: &'q str,
    pub(crate) order: &'q Order,
    /// Whether processes stand below their parents.
    pub(crate) tree: bool,
    /// Only the holders of this buffer.
    pub(crate) held: Option<&'q Item>,
    /// The snapshot that was marked.
    pub(crate) before: Option<&'q Snapshot>,
    pub(crate) width: u16,
}

/// A list as it is shown.
#[derive(Debug, Default)]
pub(crate) struct Page {
    pub(crate) heading: String,
    /// The names of the columns in it.
    pub(crate) columns: Vec<&'static str>,
    pub(crate) rows: Vec<PageRow>,
    pub(crate) totals: Vec<Total>,
    /// What has changed since the mark, in one line.
    pub(crate) changes: Option<String>,
}

/// A row as it is shown.
#[derive(Debug)]
pub(crate) struct PageRow {
    pub(crate) item: Item,
    pub(crate) text: String,
    pub(crate) shape: Option<LeakShape>,
}

/// The totals of dma-bufs, or of shared memory.
#[derive(Debug)]
pub(crate) struct Total {
    pub(crate) text: String,
    /// What processes hold, and what none does. `None`: unknown.
    pub(crate) parts: Option<(Bytes, Bytes)>,
}

impl Query<'_> {
    /// Makes the list of a snapshot.
    pub(crate) fn page(&self, snapshot: &Snapshot, trends: &Trends) -> Page {
        let before = self.before.map(Ledger::of);
        let ledger = Ledger::of(snapshot);
        let passes = |buffer: &Buffer| select::passes(self.filter, buffer);
        let diff = before.as_ref().map(|before| Diff::of(before, &ledger, passes));
        let differences = diff.as_ref().map(|diff| Differences {
            diff,
            processes: if self.list == List::Processes { diff.processes() } else { Vec::new() },
            groups: if self.list == List::Groups { diff.groups(self.by, passes) } else { Vec::new() },
        });
        let mut view = self.view(&ledger);
        view.differences = differences.as_ref();
        let sum = self.sum(&view);
        view.sum = sum.as_ref();
        let mut rows = self.rows(&view);
        let changes = self.changes(&view, &rows);
        self.sort(&mut rows, &view, &changes);
        let edges: HashMap<usize, String> = if self.tree && self.list == List::Processes {
            let placed = tree(snapshot, &rows);
            rows = placed.iter().map(|(row, _)| *row).collect();
            placed.into_iter().collect()
        } else {
            HashMap::new()
        };
        let mut page = self.table(&view, &rows, &changes, &edges, trends);
        page.totals = totals(&ledger);
        page.changes = differences.as_ref().map(|differences| {
            lsbuf::render::diff_summary(differences.diff, Sizes::Human).replace('\n', "; ")
        });
        page
    }

    /// Whether there is room for trends.
    pub(crate) fn has_trend(&self) -> bool {
        self.width >= WIDE
    }

    /// What each item costs.
    pub(crate) fn costs(&self, snapshot: &Snapshot) -> Costs {
        let ledger = Ledger::of(snapshot);
        let mut view = self.view(&ledger);
        let sum = self.sum(&view);
        view.sum = sum.as_ref();
        let Some(column) = self.list.columns().iter().find(|column| column.name == self.list.cost()) else {
            return Costs::new();
        };
        let cost = |row: usize| match column.cell(&view, row) {
            Cell::Size(size) => size,
            _ => None,
        };
        self.rows(&view).into_iter().map(|row| (self.item(&view, row), cost(row))).collect()
    }

    /// What must be asked for so that the list can be made.
    pub(crate) fn details(&self) -> Details {
        let column = |name: &str| self.list.columns().iter().find(|column| column.name == name);
        let of = |name: &str| column(name).map_or(Details::NONE, Column::details);
        let parents = if self.tree { of("PPID") } else { Details::NONE };
        let groups = if self.list == List::Groups { self.by.details() } else { Details::NONE };
        of(self.order.column).and(parents).and(groups)
    }

    fn view<'a>(&self, ledger: &'a Ledger<'a>) -> View<'a> {
        let mut view = View::all(ledger);
        select::filter(&mut view, self.filter);
        narrow(&mut view, self.needle);
        if self.held.is_some() {
            let mut buffers = std::mem::take(&mut view.buffers);
            buffers.retain(|&row| Some(&Item::of_buffer(&view.buffer(row))) == self.held);
            let snapshot = view.snapshot();
            let found: Vec<_> = buffers.iter().map(|&row| view.buffer(row)).collect();
            let holds = |pid| found.iter().any(|buffer| buffer.holders.iter().any(|one| one.pid == pid));
            view.processes =
                (0..snapshot.processes.len()).filter(|&row| holds(snapshot.processes[row].pid)).collect();
            view.buffers = buffers;
        }
        view
    }

    fn sum(&self, view: &View<'_>) -> Option<Sum> {
        (self.list == List::Groups).then(|| Sum::of(view.ledger, &view.buffers, self.by))
    }

    fn rows(&self, view: &View<'_>) -> Vec<usize> {
        match self.list {
            List::Buffers => view.buffers.clone(),
            List::Processes => select::asked(view, self.filter),
            List::Groups => (0..view.sum.map_or(0, |sum| sum.groups.len())).collect(),
        }
    }

    fn item(&self, view: &View<'_>, row: usize) -> Item {
        match (self.list, view.sum) {
            (List::Groups, Some(sum)) => Item::Group(sum.groups[row].group.clone()),
            (List::Processes, _) => Item::of_process(&view.snapshot().processes[row]),
            _ => Item::of_buffer(&view.buffer(row)),
        }
    }

    /// What has changed of each row since the mark, as the columns of `lsbuf diff` say it.
    fn changes(&self, view: &View<'_>, rows: &[usize]) -> HashMap<usize, Cell> {
        let Some(differences) = view.differences else { return HashMap::new() };
        let (columns, changed): (&[Column], HashMap<Item, usize>) = match self.list {
            List::Buffers => {
                let rows = differences.diff.buffers.iter().enumerate();
                let there = rows.filter(|(_, changed)| changed.after.is_some());
                (DIFF_COLUMNS, there.map(|(nth, changed)| (Item::of_buffer(changed.buffer), nth)).collect())
            }
            List::Processes => {
                let rows = differences.processes.iter().enumerate();
                let there = rows.filter(|(_, changed)| changed.after.is_some());
                let of = |(nth, changed): (usize, &lsbuf::model::ChangedProcess<'_>)| {
                    (Item::of_process(changed.process), nth)
                };
                (DIFF_PROCESS_COLUMNS, there.map(of).collect())
            }
            List::Groups => {
                let rows = differences.groups.iter().enumerate();
                let of = |(nth, changed): (usize, &lsbuf::model::ChangedGroup)| {
                    (Item::Group(changed.group.clone()), nth)
                };
                (DIFF_GROUP_COLUMNS, rows.map(of).collect())
            }
        };
        let named =
            |columns: &[Column], name: &str| columns.iter().find(|column| column.name == name).copied();
        let (change, cost) =
            (named(columns, self.list.change()), named(self.list.columns(), self.list.cost()));
        let cell = |row: usize| match (changed.get(&self.item(view, row)), change, cost) {
            (Some(&nth), Some(change), _) => change.cell(view, nth),
            // What is not listed as changed costs what it did, if that is known.
            (None, _, Some(cost)) => {
                let known = matches!(cost.cell(view, row), Cell::Size(Some(_)));
                Cell::SizeChange(known.then_some(0))
            }
            _ => Cell::SizeChange(None),
        };
        rows.iter().map(|&row| (row, cell(row))).collect()
    }

    fn sort(&self, rows: &mut Vec<usize>, view: &View<'_>, changes: &HashMap<usize, Cell>) {
        if let Some(column) = self.list.columns().iter().find(|column| column.name == self.order.column) {
            if self.list == List::Buffers {
                select::sort(rows, view, column);
            } else {
                select::sort_others(rows, view, column);
            }
        } else if !changes.is_empty() {
            rows.sort_by(|one, other| changes[one].order(&changes[other]));
        }
        if self.order.reversed {
            rows.reverse();
        }
    }

    fn columns(&self, view: &View<'_>, rows: &[usize]) -> Vec<Column> {
        let default = match self.list {
            List::Buffers => commands::default_columns(view, self.filter.unheld, false),
            List::Processes => commands::default_process_columns(view, rows, false),
            List::Groups => DEFAULT_SUM_COLUMNS.to_vec(),
        };
        Columns::or_default(&None, self.list.columns(), &default)
    }

    fn table(
        &self,
        view: &View<'_>,
        rows: &[usize],
        changes: &HashMap<usize, Cell>,
        edges: &HashMap<usize, String>,
        trends: &Trends,
    ) -> Page {
        let mut columns = self.columns(view, rows);
        let has_change = view.differences.is_some();
        let has_trend = self.has_trend();
        let mut left = 0;
        let mut heading = String::new();
        if has_change {
            heading.push_str(&format!("{:>CHANGE$} ", self.list.change()));
            left += CHANGE + 1;
        }
        if has_trend {
            heading.push_str(&format!("{:<8} ", "TREND"));
            left += super::trend::LENGTH + 1;
        }
        let mut right = 0;
        let command = columns.iter().find(|column| column.name == "COMMAND").copied();
        let mut commands = HashMap::new();
        if let Some(command) = command.filter(|_| !edges.is_empty()) {
            columns.retain(|column| column.name != "COMMAND");
            let text = |row: usize| command.cell(view, row).write(Style::Table, Sizes::Human);
            commands = edges.iter().map(|(&row, edge)| (row, format!("{edge}{}", text(row)))).collect();
            right = commands.values().map(|text| text.chars().count()).max().unwrap_or(0).min(COMMAND) + 2;
        }
        // One more is for the cursor, and one for the sign of the shape.
        let used = u16::try_from(left + right + 2).unwrap_or(u16::MAX);
        let width = self.width.saturating_sub(used);
        let mut lines = lsbuf::render::table(view, rows, &columns, Sizes::Human, Some(width));
        heading.push_str(&lines.next().unwrap_or_default());
        if right > 0 {
            heading.push_str("  COMMAND");
        }
        let row = |(&row, line): (&usize, String)| {
            let item = self.item(view, row);
            let mut text = String::new();
            if let Some(change) = changes.get(&row) {
                text.push_str(&format!("{:>CHANGE$} ", change.write(Style::Table, Sizes::Human)));
            }
            if has_trend {
                text.push_str(&format!("{} ", trends.bars(&item)));
            }
            text.push_str(&line);
            if let Some(command) = commands.get(&row) {
                text.push_str(&format!("  {command}"));
            }
            let shape = if self.list == List::Buffers { view.shape(row) } else { None };
            PageRow { item, text, shape }
        };
        let rows = rows.iter().zip(lines).map(row).collect();
        let mut names: Vec<&'static str> = columns.iter().map(|column| column.name).collect();
        if !commands.is_empty() {
            names.push("COMMAND");
        }
        if has_change {
            names.insert(0, self.list.change());
        }
        Page { heading, columns: names, rows, totals: Vec::new(), changes: None }
    }
}

/// The totals of the machine: of dma-bufs and of shared memory, as far as they were looked for. A
/// line that says "0 dma-bufs" is only useful if nothing else was looked for.
fn totals(ledger: &Ledger<'_>) -> Vec<Total> {
    let has_shmem = ledger.snapshot().kinds.has_shmem();
    let has_dmabufs = ledger.snapshot().buffers.iter().any(|buffer| buffer.id.kind == Kind::DmaBuf);
    let one = |name: &str, kinds: Kinds| {
        let part = Part::of(ledger, kinds);
        let size = |size| Cell::Size(size).write(Style::Table, Sizes::Human);
        let cost = match part.cost {
            None if part.at_least > Bytes(0) => format!("at least {}", size(Some(part.at_least))),
            cost => size(cost),
        };
        let unseen = match part.held_unseen {
            Some(Bytes(0)) => String::new(),
            unseen => format!(", {} by unread processes", size(unseen)),
        };
        let text = format!(
            "{name} {cost} in {}: {} held by {}{unseen}, {} by none",
            part.buffers,
            size(part.held),
            counted(part.holders, "process", "processes"),
            size(part.kernel_only),
        );
        Total { text, parts: part.held.zip(part.kernel_only) }
    };
    let mut totals = Vec::new();
    if has_dmabufs || !has_shmem {
        totals.push(one("dma-bufs", Kinds::DMABUF));
    }
    if has_shmem {
        totals.push(one("shared  ", Kinds::SHMEM));
    }
    totals
}
