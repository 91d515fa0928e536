//! One world's figures as Markdown.

use std::fmt::Write;
use std::time::Duration;

use lsbuf_guest::bench::figures::{Figures, Measured, Results};

/// One column: its heading, and the function that makes the cell of a variant.
type Column = (&'static str, fn(&Figures, &Results) -> String);

/// What the figures of a run count.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Unit {
    /// Time.
    Milliseconds,
    /// The guest's clock is the number of its instructions: a millisecond is a million of them.
    Instructions,
}

const TIMES: &[Column] = &[
    ("wall ms", |f, _| ms(f.wall)),
    ("CPU ms", |f, _| ms(f.cpu)),
    ("user ms", |f, _| ms(f.cpu * (1.0 - f.in_kernel))),
    ("kernel ms", |f, _| ms(f.cpu * f.in_kernel)),
];

const COUNTS: &[Column] = &[
    ("M instructions", |f, _| millions(f.cpu)),
    ("spread %", |f, _| format!("{:.2}", f.spread * 100.0)),
    ("and idle", |f, _| millions(f.wall)),
];

const PEAK: Column = ("peak KiB", |f, _| f.peak_kib.to_string());
const SYSTEM_CALLS: Column =
    ("system calls", |f, _| f.system_calls.as_ref().map_or("missing".to_owned(), u64::to_string));
const RUNS: Column = ("runs", |f, _| f.runs.to_string());

const TIMES_OF_SCANNERS: &[Column] = &[
    ("first scan ms", |f, _| f.first.map_or(String::new(), ms)),
    ALLOCATIONS,
    ("µs a reference", |f, world| {
        world.references.map_or(String::new(), |all| format!("{:.2}", f.wall * 1e3 / all.all() as f64))
    }),
];

const COUNTS_OF_SCANNERS: &[Column] = &[
    ("first scan", |f, _| f.first.map_or(String::new(), millions)),
    ALLOCATIONS,
    ("instructions a reference", |f, world| {
        world.references.map_or(String::new(), |all| format!("{:.0}", f.cpu * 1e6 / all.all() as f64))
    }),
];

const ALLOCATIONS: Column =
    ("allocations", |f, _| f.allocations.map_or(String::new(), |n| format!("{n:.0}")));

/// A way with one run that took this many milliseconds is marked.
const LONG: f64 = 30_000.0;

/// A world's description and its tables.
pub(super) fn of(results: &Results, machine: &str, took: Duration, unit: Unit) -> String {
    if let Some(why) = &results.not_made {
        return format!("### {}\n\nNot made: {why}.\n", results.world);
    }
    let mut text = format!("### {}\n\n{}.\n", results.world, sentence(&results.description));
    let processors = if results.processors == 1 { "processor" } else { "processors" };
    let _ = writeln!(
        text,
        "Measured in {:.0} s on {machine}, {} {processors}, Linux {}.\n",
        took.as_secs_f64(),
        results.processors,
        results.kernel
    );
    let (first, of_scanners) = match unit {
        Unit::Milliseconds => (TIMES, TIMES_OF_SCANNERS),
        Unit::Instructions => (COUNTS, COUNTS_OF_SCANNERS),
    };
    let mut columns: Vec<&Column> = first.iter().chain([&PEAK, &SYSTEM_CALLS, &RUNS]).collect();
    // A kernel that counts none counts none for any way.
    if figures(results).all(|figures| figures.system_calls.is_err()) {
        columns.retain(|column| column.0 != SYSTEM_CALLS.0);
    }
    let one_shot = results.ways.iter().map(|way| (way.way.as_str(), &way.one_shot));
    table(&mut text, "command", one_shot, results, &columns);
    let warm = || results.ways.iter().filter_map(|way| Some((way.way.as_str(), way.warm.as_ref()?)));
    if warm().next().is_some() {
        columns.extend(of_scanners);
        table(&mut text, "warm scan", warm(), results, &columns);
    }
    let remarks = remarks(results);
    for remark in &remarks {
        let _ = writeln!(text, "- {remark}");
    }
    if !remarks.is_empty() {
        text.push('\n');
    }
    text
}

/// All figures of a world.
fn figures(results: &Results) -> impl Iterator<Item = &Figures> {
    let measured = results.ways.iter().flat_map(|way| [Some(&way.one_shot), way.warm.as_ref()]);
    measured.flatten().filter_map(|measured| match measured {
        Measured::Figures(figures) => Some(figures),
        Measured::Missing(_) => None,
    })
}

/// What is missing and why, and which variants gave a partial answer. Each remark appears once.
fn remarks(results: &Results) -> Vec<String> {
    let mut remarks: Vec<String> = Vec::new();
    for way in &results.ways {
        let mut of_it = Vec::new();
        for measured in [Some(&way.one_shot), way.warm.as_ref()].into_iter().flatten() {
            match measured {
                Measured::Missing(why) => of_it.push(format!("{} is missing: {why}", way.way)),
                Measured::Figures(Figures { system_calls: Err(why), .. }) => {
                    of_it.push(format!("system calls are missing: {why}"));
                }
                Measured::Figures(_) => {}
            }
            if let Measured::Figures(Figures { runs: 1, wall: LONG.., .. }) = measured {
                of_it.push(format!("{} took that long, and ran only once", way.way));
            }
        }
        if way.complete == Some(false) {
            of_it.push(format!("{} does not answer in full here", way.way));
        }
        for remark in of_it {
            if !remarks.contains(&remark) {
                remarks.push(remark);
            }
        }
    }
    remarks
}

fn table<'r>(
    text: &mut String,
    heading: &str,
    rows: impl Iterator<Item = (&'r str, &'r Measured)>,
    world: &Results,
    columns: &[&Column],
) {
    let names: Vec<&str> = columns.iter().map(|(name, _)| *name).collect();
    let _ = writeln!(text, "| {heading} | {} |\n|---|{}", names.join(" | "), "---:|".repeat(names.len()));
    for (way, measured) in rows {
        let cells: Vec<String> = match measured {
            Measured::Figures(figures) => columns.iter().map(|(_, cell)| cell(figures, world)).collect(),
            Measured::Missing(_) => {
                let empty = std::iter::repeat_n(String::new(), names.len() - 1);
                std::iter::once("missing".to_owned()).chain(empty).collect()
            }
        };
        let _ = writeln!(text, "| {way} | {} |", cells.join(" | "));
    }
    text.push('\n');
}

/// Milliseconds with at least three digits.
pub(super) fn ms(ms: f64) -> String {
    match ms {
        ..10.0 => format!("{ms:.2}"),
        ..100.0 => format!("{ms:.1}"),
        _ => format!("{ms:.0}"),
    }
}

/// Millions of instructions with at least four digits, because that many repeat.
fn millions(count: f64) -> String {
    match count {
        ..10.0 => format!("{count:.3}"),
        ..100.0 => format!("{count:.2}"),
        ..1000.0 => format!("{count:.1}"),
        _ => format!("{count:.0}"),
    }
}

fn sentence(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or(String::new(), |first| first.to_uppercase().chain(chars).collect())
}

#[cfg(test)]
mod tests {
    use super::super::targets::tests::{figures, results};
    use super::*;

    /// Check that every variant has a row, that a missing one has its reason, and that every row
    /// has as many cells as headings.
    #[test]
    fn every_way_has_a_row() {
        let missing = Measured::Missing("refused".to_owned());
        let world = results(
            "phone",
            vec![
                ("a", figures(12.4, 900), Some(figures(1.0, 900))),
                ("b", missing.clone(), Some(missing)),
                ("lsof", figures(250.0, 5000), None),
            ],
        );
        let text = of(&world, "a guest", Duration::from_secs(3), Unit::Milliseconds);
        assert!(text.contains("| a | 12.4 | 12.4 | 3.10 | 9.30 | 900 | 7 | 15 |"), "{text}");
        assert_eq!(text.matches("| b | missing |").count(), 2, "{text}");
        assert_eq!(text.matches("- b is missing: refused\n").count(), 1, "{text}");
        assert_eq!(text.matches("| lsof |").count(), 1, "{text}");
        let cells = |line: &str| line.matches('|').count();
        let tables: Vec<Vec<&str>> = text
            .split("\n\n")
            .filter(|block| block.starts_with('|'))
            .map(|block| block.lines().collect())
            .collect();
        assert_eq!(tables.len(), 2);
        assert!(tables.iter().all(|rows| rows.iter().all(|row| cells(row) == cells(rows[0]))), "{text}");
    }

    /// Check that a run under a clock of instructions has headings of its own, and counts the
    /// processor's work.
    #[test]
    fn instructions_are_counted() {
        let world = results("phone", vec![("a", figures(12.4, 900), Some(figures(1.0, 900)))]);
        let text = of(&world, "a guest", Duration::from_secs(3), Unit::Instructions);
        assert!(text.contains("| M instructions | spread % | and idle |"), "{text}");
        assert!(text.contains("| a | 12.40 | 0.00 | 12.40 | 900 | 7 | 15 |"), "{text}");
        assert!(text.contains("| instructions a reference |") && text.contains("| 5000 |"), "{text}");
        assert!(!text.contains("ms |"), "{text}");
    }

    /// Check that a world that was not made has its reason and no table.
    #[test]
    fn a_world_that_was_not_made() {
        let world = Results { not_made: Some("too little memory".to_owned()), ..results("one", vec![]) };
        let text = of(&world, "this machine", Duration::from_secs(3), Unit::Milliseconds);
        assert_eq!(text, "### one\n\nNot made: too little memory.\n");
    }

    /// Check that a way that ran once because it takes so long is marked, and that a column of
    /// system calls is left out if none were counted.
    #[test]
    fn long_runs_are_marked() {
        let Measured::Figures(short) = figures(12.0, 1) else { panic!("no figures") };
        let short = Figures { system_calls: Err("refused".to_owned()), runs: 1, ..short };
        let long = Figures { wall: 30_000.0, ..short.clone() };
        let ways = vec![("a", Measured::Figures(short), None), ("b", Measured::Figures(long), None)];
        let text = of(&results("one", ways), "this machine", Duration::from_secs(3), Unit::Milliseconds);
        assert_eq!(text.matches("ran only once").count(), 1, "{text}");
        assert!(text.contains("- b took that long, and ran only once\n"), "{text}");
        assert!(!text.contains("system calls |") && !text.contains("warm scan"), "{text}");
    }
}
