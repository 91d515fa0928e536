//! The figures that lsbuf is to reach, computed from one run.
//!
//! Each figure comes from the medians of variants that ran in turn, so that a slow machine slows
//! both sides of a ratio. If a figure cannot be computed, the table says what is missing.

use std::fmt::Write;

use lsbuf_guest::bench::figures::{Figures, Measured, Results};
use lsbuf_guest::bench::shared::UNHELD;
use lsbuf_guest::bench::way::{
    AUTO, BPF, FIND, ORIGINS, PINNED, PINNED_ALL, PINNED_TABLE, PROCFS, START, TEXT,
};
use lsbuf_guest::bench::world::NATIVE;

use super::tables::ms;

/// What was measured, and whether it is good enough. The error says what is missing.
type Found = Result<(String, bool), String>;

/// One figure to reach.
struct Target {
    figure: &'static str,
    reach: &'static str,
    find: fn(&[Results]) -> Found,
}

/// The ratio up to which growth still counts as "flat" or "linear".
const FLAT: f64 = 1.2;

const TARGETS: &[Target] = &[
    Target {
        figure: "warm scan, phone, BPF against text maps",
        reach: "≥ 30×",
        find: |all| at_least(30.0, warm(all, "phone", TEXT)?, warm(all, "phone", BPF)?),
    },
    Target {
        figure: "warm scan, desktop, BPF against text maps",
        reach: "≥ 60×",
        find: |all| at_least(60.0, warm(all, "desktop", TEXT)?, warm(all, "desktop", BPF)?),
    },
    Target {
        figure: "warm BPF scan, desktop with 10× the unrelated VMAs against desktop",
        reach: "≤ 1.2×",
        find: |all| at_most(FLAT, times(warm(all, "desktop10", BPF)?, warm(all, "desktop", BPF)?)),
    },
    Target {
        figure: "warm scan, desktop, procfs against text maps",
        reach: "≥ 2.5×",
        find: |all| at_least(2.5, warm(all, "desktop", TEXT)?, warm(all, "desktop", PROCFS)?),
    },
    Target {
        figure: "command, phone, BPF pinned",
        reach: "≤ 2 warm scans + process start",
        find: |all| {
            let limit = 2.0 * warm(all, "phone", PINNED)?.wall + command(all, "phone", START)?.wall;
            let took = command(all, "phone", PINNED)?.wall;
            Ok((format!("{} ms of {} ms", ms(took), ms(limit)), took <= limit))
        },
    },
    Target {
        figure: "command of all kinds, desktop, BPF pinned, against dma-bufs alone",
        reach: "≤ 1.3×",
        find: |all| {
            at_most(1.3, times(command(all, "desktop", PINNED_ALL)?, command(all, "desktop", PINNED)?))
        },
    },
    Target {
        figure: "table of 1,000 dma-bufs, BPF pinned: what ORIGIN adds, desktop",
        reach: "≤ 5 ms",
        find: |all| {
            let with = command(all, "desktop", ORIGINS)?;
            let without = command(all, "desktop", PINNED_TABLE)?;
            let (more, ratio) = (with.wall - without.wall, show(times(with, without)));
            Ok((format!("{} ms, {ratio}", ms(more)), more <= 5.0))
        },
    },
    Target {
        figure: "command of all kinds, BPF pinned, many-vmas with 10× the unrelated VMAs against many-vmas",
        reach: "≤ 1.2×",
        find: |all| {
            at_most(FLAT, times(command(all, "many-vmas10", PINNED)?, command(all, "many-vmas", PINNED)?))
        },
    },
    Target {
        figure: "command of all kinds, BPF pinned, as a table, beside a million files, against find -xdev over them",
        reach: "≤ 0.3×",
        find: |all| at_most(0.3, times(command(all, UNHELD, PINNED_TABLE)?, command(all, UNHELD, FIND)?)),
    },
    Target {
        figure: "command of all kinds, as JSON, BPF pinned, memfd-100k and memfd-1m",
        reach: "≤ 100 and 600 ms",
        find: |all| {
            let [some, many] = ["memfd-100k", "memfd-1m"].map(|world| command(all, world, PINNED));
            let (some, many) = (some?.wall, many?.wall);
            Ok((format!("{} and {} ms", ms(some), ms(many)), some <= 100.0 && many <= 600.0))
        },
    },
    Target {
        figure: "command, native, BPF loaded by itself, over process start",
        reach: "≤ 30 ms",
        find: |all| {
            let over = command(all, NATIVE, BPF)?.wall - command(all, NATIVE, START)?.wall;
            Ok((format!("{} ms", ms(over)), over <= 30.0))
        },
    },
    Target {
        figure: "auto against the better of BPF and procfs that answers in full, worst of all worlds, command and warm scan",
        reach: "≤ 1.1×",
        find: worst_of_auto,
    },
    Target {
        figure: "peak memory, storm, auto, larger of command and warm scan",
        reach: "≤ 48 MB",
        find: |all| {
            let peak = command(all, "storm", AUTO)?.peak_kib.max(warm(all, "storm", AUTO)?.peak_kib);
            let megabytes = peak as f64 * 1024.0 / 1e6;
            Ok((format!("{megabytes:.1} MB"), megabytes <= 48.0))
        },
    },
    Target {
        figure: "memory over process start for each reference, command, auto, storm against phone",
        reach: "linear: ≤ 1.2×",
        find: |all| {
            let ratio = memory_per_reference(all, "storm")? / memory_per_reference(all, "phone")?;
            Ok((format!("{ratio:.2}×"), ratio <= FLAT))
        },
    },
    Target {
        figure: "time for each reference, warm scan, auto, storm against phone",
        reach: "flat: ≤ 1.2×",
        find: |all| {
            let (wall, cpu) = times(warm(all, "storm", AUTO)?, warm(all, "phone", AUTO)?);
            let references = references(all, "storm")? / references(all, "phone")?;
            at_most(FLAT, (wall / references, cpu / references))
        },
    },
];

/// The table of all figures.
pub(super) fn summary(all: &[Results]) -> String {
    let mut text = "### Figures to reach\n\n| figure | reach | measured | |\n|---|---|---:|---|\n".to_owned();
    for Target { figure, reach, find } in TARGETS {
        let _ = match find(all) {
            Ok((measured, true)) => writeln!(text, "| {figure} | {reach} | {measured} | reached |"),
            Ok((measured, false)) => writeln!(text, "| {figure} | {reach} | {measured} | missed |"),
            Err(lacking) => writeln!(text, "| {figure} | {reach} | | not measured: {lacking} |"),
        };
    }
    text
}

/// Ratios of wall time and of CPU time.
type Times = (f64, f64);

fn times(one: &Figures, other: &Figures) -> Times {
    (one.wall / other.wall, one.cpu / other.cpu)
}

/// The wall time is judged. The CPU time is shown because it tells whether the machine was busy
/// with something else.
fn show((wall, cpu): Times) -> String {
    format!("{wall:.2}× (CPU {cpu:.2}×)")
}

fn at_least(reach: f64, slow: &Figures, fast: &Figures) -> Found {
    let times = times(slow, fast);
    Ok((show(times), times.0 >= reach))
}

fn at_most(reach: f64, times: Times) -> Found {
    Ok((show(times), times.0 <= reach))
}

fn world<'r>(all: &'r [Results], name: &str) -> Result<&'r Results, String> {
    all.iter().find(|results| results.world == name).ok_or_else(|| format!("world {name} was not run"))
}

fn command<'r>(all: &'r [Results], name: &str, way: &str) -> Result<&'r Figures, String> {
    let found = world(all, name)?.ways.iter().find(|found| found.way == way);
    figures(found.map(|found| &found.one_shot), name, way)
}

fn warm<'r>(all: &'r [Results], name: &str, way: &str) -> Result<&'r Figures, String> {
    let found = world(all, name)?.ways.iter().find(|found| found.way == way);
    figures(found.and_then(|found| found.warm.as_ref()), name, way)
}

fn figures<'r>(measured: Option<&'r Measured>, world: &str, way: &str) -> Result<&'r Figures, String> {
    match measured {
        Some(Measured::Figures(figures)) => Ok(figures),
        Some(Measured::Missing(_)) | None => Err(format!("{way} is missing in {world}")),
    }
}

fn worst_of_auto(all: &[Results]) -> Found {
    let mut worst: Option<(Times, String)> = None;
    for Results { world, ways, .. } in all {
        let in_full = |name: &&str| ways.iter().any(|way| way.way == *name && way.complete == Some(true));
        for (kind, find) in [("command", command as fn(_, _, _) -> _), ("warm scan", warm)] {
            let figures = |way| -> Option<&Figures> { find(all, world, way).ok() };
            let both = [BPF, PROCFS].into_iter().filter(in_full).filter_map(figures);
            let better = both.min_by(|one, other| one.wall.total_cmp(&other.wall));
            let Some((auto, better)) = figures(AUTO).zip(better) else { continue };
            let ratio = times(auto, better);
            if worst.as_ref().is_none_or(|(known, _)| ratio.0 > known.0) {
                worst = Some((ratio, format!("{} ({world}, {kind})", show(ratio))));
            }
        }
    }
    let (ratio, measured) = worst.ok_or("no world has auto beside another way")?;
    Ok((measured, ratio.0 <= 1.1))
}

fn references(all: &[Results], name: &str) -> Result<f64, String> {
    let references = world(all, name)?.references.ok_or_else(|| format!("{name} has no known references"))?;
    Ok(references.all() as f64)
}

fn memory_per_reference(all: &[Results], name: &str) -> Result<f64, String> {
    let peak = |way| Ok::<_, String>(command(all, name, way)?.peak_kib as f64);
    Ok((peak(AUTO)? - peak(START)?) / references(all, name)?)
}

#[cfg(test)]
pub(super) mod tests {
    use lsbuf_guest::bench::figures::{References, WayResults};

    use super::*;

    /// Made-up figures: wall time in milliseconds and peak memory in KiB.
    pub(in super::super) fn figures(wall: f64, peak_kib: u64) -> Measured {
        Measured::Figures(Figures {
            wall,
            cpu: wall,
            spread: 0.0,
            in_kernel: 0.75,
            runs: 15,
            peak_kib,
            system_calls: Ok(7),
            first: None,
            allocations: None,
        })
    }

    /// A world with made-up figures: variant, command, warm scan.
    pub(in super::super) fn results(world: &str, ways: Vec<(&str, Measured, Option<Measured>)>) -> Results {
        let way = |(way, one_shot, warm): (&str, _, _)| WayResults {
            way: way.to_owned(),
            complete: Some(true),
            one_shot,
            warm,
        };
        Results {
            world: world.to_owned(),
            description: "made up".to_owned(),
            references: Some(References { buffers: 10, fd: 100, map: 100 }),
            kernel: "0".to_owned(),
            processors: 1,
            ways: ways.into_iter().map(way).collect(),
            not_made: None,
        }
    }

    fn row(all: &[Results], figure: &str) -> String {
        let summary = summary(all);
        summary.lines().find(|line| line.contains(figure)).unwrap().to_owned()
    }

    /// Check that ratios have the right direction, and that values on both sides of the target are
    /// judged.
    #[test]
    fn ratios_are_judged() {
        let phone = |bpf| {
            let ways = vec![
                (BPF, figures(9.0, 1), Some(figures(bpf, 1))),
                (TEXT, figures(99.0, 1), Some(figures(60.0, 1))),
            ];
            [results("phone", ways)]
        };
        let figure = "warm scan, phone, BPF against text maps";
        assert!(row(&phone(2.0), figure).ends_with("| 30.00× (CPU 30.00×) | reached |"));
        assert!(row(&phone(2.1), figure).ends_with("| 28.57× (CPU 28.57×) | missed |"));
    }

    /// Check that a figure that was not measured is reported as such, and not as reached or missed.
    #[test]
    fn what_lacks_is_said() {
        let missing = Measured::Missing("refused".to_owned());
        let phone = [results(
            "phone",
            vec![(BPF, missing.clone(), Some(missing)), (TEXT, figures(9.0, 1), Some(figures(9.0, 1)))],
        )];
        let figure = "warm scan, phone, BPF";
        assert!(row(&phone, figure).ends_with("| not measured: lsbuf, BPF is missing in phone |"));
        assert!(row(&[], figure).ends_with("| not measured: world phone was not run |"));
    }

    /// Check that auto is compared with the better complete source, and that the worst world and
    /// kind are reported.
    #[test]
    fn auto_is_compared_with_the_better() {
        let ways = |auto| {
            vec![
                (BPF, figures(40.0, 1), Some(figures(2.0, 1))),
                (AUTO, figures(auto, 1), Some(figures(2.0, 1))),
                (PROCFS, figures(20.0, 1), Some(figures(10.0, 1))),
            ]
        };
        let mut all = [results("phone", ways(20.0)), results("desktop", ways(24.0))];
        assert!(row(&all, "auto against").ends_with("| 1.20× (CPU 1.20×) (desktop, command) | missed |"));
        assert!(row(&all[..1], "auto against").contains("| 1.00× (CPU 1.00×) (phone, command) | reached |"));
        all[1].ways[2].complete = Some(false);
        assert!(
            row(&all[1..], "auto against").contains("| 1.00× (CPU 1.00×) (desktop, warm scan) | reached |")
        );
    }

    /// Check that a command is compared with two scans and a process start, and memory with that of
    /// a process start.
    #[test]
    fn sums_are_sums() {
        let ways = |peak| {
            vec![
                (PINNED, figures(7.0, 1), Some(figures(2.0, 1))),
                (AUTO, figures(9.0, peak), Some(figures(9.0, 1))),
                (START, figures(3.0, 1000), None),
            ]
        };
        let all = [results("phone", ways(2000)), results("storm", ways(2300))];
        assert!(row(&all, "command, phone, BPF pinned").ends_with("| 7.00 ms of 7.00 ms | reached |"));
        assert!(row(&all, "memory over process start").ends_with("| 1.30× | missed |"));
        assert!(row(&all, "peak memory, storm").ends_with("| 2.4 MB | reached |"));
    }
}
