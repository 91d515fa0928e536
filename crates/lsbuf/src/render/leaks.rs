//! `lsbuf leaks`: the columns of groups over time, the evidence of each suspect in words, and the
//! lines below a table.

use super::blocks::block;
use super::{Cell, Column, Sizes, Style, View};
use crate::history::{Cohort, Fences, Growth, Judged, Slope, Suspect, Suspects};
use crate::model::{Kind, Label, counted};

/// The columns of groups, unless others are chosen.
pub const DEFAULT_LEAK_COLUMNS: &[&str] = &[
    "STATE", "BORN", "DIED", "LEFT", "BYTES", "+BYTES/H", "R2", "SPAN", "OLDEST", "SHAPE", "COMMAND", "KIND",
    "NAME", "COHORTS", "TREND",
];

/// Columns of `leaks`. Rows are indices into the groups of [`View::suspects`].
pub const LEAK_COLUMNS: &[Column] = &[
    Column {
        name: "STATE",
        help: "growing, too short, churn, plateau",
        cell: |v, i| of(v, i, |s| Cell::Words(Some(s.growth.as_str().into()))),
    },
    Column {
        name: "OLDER",
        help: "buffers that were there at the start",
        cell: |v, i| of(v, i, |s| Cell::Number(Some(s.older))),
    },
    Column {
        name: "BORN",
        help: "buffers that the command got since then",
        cell: |v, i| of(v, i, |s| Cell::Number(Some(s.born))),
    },
    Column {
        name: "DIED",
        help: "those of BORN that it has no more",
        cell: |v, i| of(v, i, |s| Cell::Number(Some(s.died))),
    },
    Column {
        name: "LEFT",
        help: "those of BORN that are left",
        cell: |v, i| of(v, i, |s| Cell::Number(Some(s.left()))),
    },
    Column {
        name: "BYTES",
        help: "what these cost at the end",
        cell: |v, i| of(v, i, |s| Cell::Size(s.bytes)),
    },
    Column {
        name: "+BYTES/H",
        help: "by how much that grows in an hour",
        cell: |v, i| of(v, i, |s| Cell::SizeChange(slope(s, |l| l.bytes_per_hour).map(whole))),
    },
    Column {
        name: "+BUFS/H",
        help: "by how many buffers it grows in an hour",
        cell: |v, i| of(v, i, |s| Cell::Hundredths(slope(s, |l| Some(l.buffers_per_hour)).map(hundredths))),
    },
    Column {
        name: "R2",
        help: "how well a line fits the number of buffers: 1.00 exactly",
        cell: |v, i| of(v, i, |s| r2(s.slope)),
    },
    Column {
        name: "SPAN",
        help: "from when it was first seen to when it was last seen",
        cell: |v, i| of(v, i, |s| Cell::Age(Some(s.span))),
    },
    Column {
        name: "OLDEST",
        help: "for how long its oldest buffer was seen; - none is left",
        cell: |v, i| of(v, i, |s| s.oldest.map_or(Cell::Words(None), |age| Cell::Age(Some(age)))),
    },
    Column {
        name: "SHAPE",
        help: "the commonest shape of those that are left",
        cell: |v, i| of(v, i, |s| Cell::Words(s.shape.map(|shape| shape.as_str().into()))),
    },
    Column { name: "COMMAND", help: "who holds them; - no process", cell: |v, i| of(v, i, command) },
    Column {
        name: "CGROUP",
        help: "the cgroup of who holds them",
        cell: |v, i| {
            of(v, i, |s| match &s.key.holder {
                Some(holder) => Cell::Text(holder.cgroup.clone()),
                None => Cell::Words(None),
            })
        },
    },
    Column {
        name: "KIND",
        help: "kind of buffer",
        cell: |v, i| of(v, i, |s| Cell::Words(Some(s.key.kind.as_str().into()))),
    },
    Column {
        name: "EXPORTER",
        help: "who made a dma-buf: a DMA heap or a driver",
        cell: |v, i| {
            of(v, i, |s| match s.key.kind {
                Kind::DmaBuf => Cell::Text(s.key.exporter.clone()),
                _ => Cell::Words(None),
            })
        },
    },
    Column {
        name: "NAME",
        help: "their name, with # for its numbers",
        cell: |v, i| of(v, i, |s| Cell::Text(s.key.name.clone())),
    },
    Column {
        name: "ORIGIN",
        help: "the command that made them",
        cell: |v, i| of(v, i, |s| Cell::Text(s.key.origin.as_ref().map(|origin| origin.command.clone()))),
    },
    Column {
        name: "ORIGIN-STACK",
        help: "the calls that made them, from the program's own one outwards",
        cell: |v, i| of(v, i, |s| Cell::Text(s.key.origin.as_ref().and_then(|origin| origin.stack.clone()))),
    },
    Column {
        name: "SHARED",
        help: "how many of LEFT count in another group, too",
        cell: |v, i| of(v, i, |s| Cell::Number(Some(s.shared))),
    },
    Column {
        name: "RESTARTS",
        help: "how often all its processes ended and others came",
        cell: |v, i| of(v, i, |s| Cell::Number(Some(s.restarts))),
    },
    Column {
        name: "COHORTS",
        help: "how much is left of each eighth, oldest first: █ all, _ none, · none born",
        cell: |v, i| of(v, i, |s| Cell::Words(Some(s.cohorts.iter().map(share).collect::<String>().into()))),
    },
    Column {
        name: "TREND",
        help: "how many buffers there were over time",
        cell: |v, i| of(v, i, |s| Cell::Words(Some(trend(&s.trend).into()))),
    },
];

/// A cell of the group at that index. Unknown if there are none.
fn of(view: &View<'_>, index: usize, cell: impl Fn(&Suspect) -> Cell) -> Cell {
    view.suspects.and_then(|suspects| suspects.groups.get(index)).map_or(Cell::Number(None), cell)
}

fn command(suspect: &Suspect) -> Cell {
    suspect.key.holder.as_ref().map_or(Cell::Words(None), |holder| Cell::Text(Some(holder.comm.clone())))
}

fn slope(suspect: &Suspect, of: impl Fn(Slope) -> Option<f64>) -> Option<f64> {
    suspect.slope.and_then(of)
}

fn r2(slope: Option<Slope>) -> Cell {
    match slope {
        None => Cell::Hundredths(None),
        Some(slope) => slope.r2.map_or(Cell::Words(None), |r2| Cell::Hundredths(Some(hundredths(r2)))),
    }
}

fn whole(number: f64) -> i128 {
    number.round() as i128
}

fn hundredths(number: f64) -> i128 {
    whole(number * 100.0)
}

fn share(cohort: &Cohort) -> char {
    match (cohort.born, cohort.left) {
        (0, _) => '·',
        (_, 0) => '_',
        (born, left) => block(left, born),
    }
}

fn trend(numbers: &[u64]) -> String {
    let most = numbers.iter().copied().max().unwrap_or_default();
    numbers.iter().map(|&number| if number == 0 { '·' } else { block(number, most) }).collect()
}

/// The evidence of one group, in some lines that a person can follow.
#[must_use]
pub fn leak_evidence(suspect: &Suspect, sizes: Sizes) -> String {
    let write = |cell: Cell| cell.write(Style::Table, sizes);
    let text = |label: &Option<Label>| write(Cell::Text(label.clone()));
    let age = |age| Cell::Age(Some(age)).write(Style::Table, Sizes::Human);
    let Suspect { key, older, older_died, born, died, shared, restarts, .. } = suspect;
    let cgroup =
        key.holder.as_ref().map(|holder| format!(" in {}", text(&holder.cgroup))).unwrap_or_default();
    let maker = if key.kind == Kind::DmaBuf { format!(" of {}", text(&key.exporter)) } else { String::new() };
    let mut lines = vec![
        format!(
            "{}: {}{cgroup} has {}{maker} named {}",
            suspect.growth.as_str(),
            write(command(suspect)),
            key.kind.as_str(),
            text(&key.name)
        ),
        format!(
            "  {born} born, {died} died, {} left with {} bytes; of {older} older ones {older_died} died",
            suspect.left(),
            write(Cell::Size(suspect.bytes)),
        ),
    ];
    if let Some(origin) = &key.origin {
        let stack = origin.stack.as_ref().map_or(String::new(), |_| format!(" in {}", text(&origin.stack)));
        lines.push(format!("  made by {}{stack}", text(&Some(origin.command.clone()))));
    }
    let cohorts: Vec<String> =
        suspect.cohorts.iter().map(|cohort| format!("{}/{}", cohort.left, cohort.born)).collect();
    lines.push(format!(
        "  left of those born in each eighth of the time, oldest first: {}",
        cohorts.join(" ")
    ));
    let Judged { from, until } = suspect.judged;
    if let Some(line) = suspect.slope {
        lines.push(format!(
            "  in an hour {} buffers and {} bytes more, r² {}, over {}",
            write(Cell::Hundredths(Some(hundredths(line.buffers_per_hour)))),
            write(Cell::SizeChange(line.bytes_per_hour.map(whole))),
            write(r2(suspect.slope)),
            age(until.saturating_sub(from)),
        ));
    }
    if let Some(oldest) = suspect.oldest {
        lines.push(format!("  the oldest that is left has been there for {}", age(oldest)));
    }
    if *restarts > 0 {
        let times = counted(*restarts, "time", "times");
        lines.push(format!("  all its processes ended {times}; judged from {} to {}", age(from), age(until)));
    }
    if *shared > 0 {
        lines.push(format!(
            "  {shared} of those that are left also count with another command that holds them"
        ));
    }
    lines.join("\n")
}

/// What is known of the sync_files of one command whose number rises.
#[must_use]
pub fn fence_evidence(fences: &Fences) -> String {
    let write = |cell: Cell| cell.write(Style::Table, Sizes::Human);
    let number = |number: Option<f64>| write(Cell::Hundredths(number.map(hundredths)));
    format!(
        "growing: {} in {} has {} sync_files and had {}, {} more in an hour, r² {}\n  \
         they have no identity, so only their number is known: in each eighth of the time its lowest was higher",
        write(Cell::Text(Some(fences.holder.comm.clone()))),
        write(Cell::Text(fences.holder.cgroup.clone())),
        fences.last,
        fences.first,
        number(fences.per_hour),
        number(fences.r2),
    )
}

/// Two lines: how many groups there are in each state, and what they were judged from.
#[must_use]
pub fn leak_summary(suspects: &Suspects, shows_all: bool) -> String {
    let number = |state: Growth| suspects.groups.iter().filter(|group| group.growth == state).count();
    let growing = match number(Growth::Growing) {
        0 => "no group grows".to_owned(),
        1 => "1 group is a suspect".to_owned(),
        many => format!("{many} groups are suspects"),
    };
    let others = Growth::ALL.iter().filter(|&&state| state != Growth::Growing && number(state) > 0);
    let others: Vec<String> = others.map(|&state| format!("{} {}", number(state), state.as_str())).collect();
    let hint = if shows_all { "" } else { " (--all shows them)" };
    let others =
        if others.is_empty() { String::new() } else { format!("; others: {}{hint}", others.join(", ")) };
    let length = Cell::Age(Some(suspects.length)).write(Style::Table, Sizes::Human);
    let samples = counted(suspects.samples, "sample", "samples");
    let partial = match suspects.partial {
        0 => String::new(),
        some => format!(", {some} of them partial"),
    };
    format!("{growing}{others}\n{samples} in {length}{partial}")
}
