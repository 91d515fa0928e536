//! Metrics say what the ledger says, in text that a scraper takes, and no more than it may.
#![allow(clippy::unwrap_used, reason = "a helper fails where its test fails")]

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::family::Figure;
use super::*;
use crate::model::examples::{any_snapshot, buffer, holder, snapshot};
use crate::model::{Gaps, Kind, Label, Pid, ProcessDetails, Snapshot, Workload};

fn scrape<'a>(ledger: &'a Ledger<'a>, most: usize) -> Scrape<'a> {
    Scrape { ledger, shmem: None, recorder: None, scans: Some((2, 1)), most }
}

/// The samples of a family with the words of their labels.
fn samples(families: &[Family], name: &str) -> Vec<(String, Figure)> {
    let family = families.iter().find(|family| family.name == name).unwrap();
    let words = |labels: &family::Labels| {
        labels
            .iter()
            .map(|(_, value)| value.as_str())
            .filter(|value| !value.is_empty())
            .collect::<Vec<_>>()
            .join(" ")
    };
    family.samples.iter().map(|(labels, figure)| (words(labels), *figure)).collect()
}

fn in_unit(snapshot: &mut Snapshot, pid: u32, unit: &str) {
    let workload = Workload { unit: Some(unit.into()), ..Workload::default() };
    let process = snapshot.processes.iter_mut().find(|process| process.pid == Pid(pid)).unwrap();
    let details =
        ProcessDetails { workload: Some(workload), fd_limit: Some(100), ..ProcessDetails::default() };
    process.details = Some(Box::new(details));
    process.sync_files = Some(10);
}

/// Two units share a buffer of 4096 bytes, one has another of 1000 bytes with 30 fds, and the
/// kernel alone has one of which the size is unknown.
fn world() -> Snapshot {
    let shared = buffer(1, Some(4096), Some(2), vec![holder(7, 1, 0, &[]), holder(8, 1, 0, &[])]);
    let own = buffer(2, Some(1000), Some(30), vec![holder(8, 30, 0, &[])]);
    let mut snapshot = snapshot(vec![shared, own, buffer(3, None, Some(1), Vec::new())], Gaps::default());
    in_unit(&mut snapshot, 7, "camera.service");
    in_unit(&mut snapshot, 8, "compositor.service");
    snapshot
}

/// Check the figures of two units against what they are by hand.
#[test]
fn workloads() {
    let snapshot = world();
    let ledger = Ledger::of(&snapshot);
    let families = families(&scrape(&ledger, MOST_SERIES));
    let whole = |unit: &str, figure| (unit.to_owned(), Figure::Whole(figure));
    assert_eq!(
        samples(&families, "workload_pss"),
        [whole("camera.service dmabuf", 2048), whole("compositor.service dmabuf", 3048)]
    );
    assert_eq!(
        samples(&families, "workload_uss"),
        [whole("camera.service", 0), whole("compositor.service", 1000)]
    );
    assert_eq!(
        samples(&families, "workload_fds"),
        [whole("camera.service", 1), whole("compositor.service", 31)]
    );
    assert_eq!(
        samples(&families, "workload_fd_limit"),
        [
            ("camera.service".to_owned(), Figure::Real(0.11)),
            ("compositor.service".to_owned(), Figure::Real(0.41))
        ]
    );
}

/// Check that a sum of which one part is unknown has no sample, and its count has one.
#[test]
fn unknown() {
    let mut snapshot = world();
    snapshot.coverage.sources.push(crate::model::Source::Bufinfo);
    let ledger = Ledger::of(&snapshot);
    let families = families(&scrape(&ledger, MOST_SERIES));
    let named =
        |name| samples(&families, name).into_iter().filter(|(words, _)| words == "dmabuf kernel_only");
    assert_eq!(named("buffers").collect::<Vec<_>>(), [("dmabuf kernel_only".to_owned(), Figure::Whole(1))]);
    assert_eq!(named("cost").count(), 0);
}

/// Check that hostile names are values of one line, and that those that begin alike stay two.
#[test]
fn hostile_names() {
    let long = |end: u8| Label::from(&[vec![b'x'; 300], vec![end]].concat()[..]);
    let names = [Label::from(&b"a\"} 1\nlsbuf_up 1\x1b\xff"[..]), long(1), long(2)];
    let exported = |(ino, name): (u64, &Label)| {
        let mut buffer = buffer(ino, Some(1), Some(1), Vec::new());
        buffer.exporter = Some(name.clone());
        buffer
    };
    let snapshot = snapshot((1..).zip(&names).map(exported).collect(), Gaps::default());
    let ledger = Ledger::of(&snapshot);
    let text = metrics(&scrape(&ledger, MOST_SERIES), MetricsFormat::Text).unwrap();
    let lines: Vec<&str> = text.lines().filter(|line| line.starts_with("lsbuf_dmabufs{")).collect();
    assert_eq!(lines.len(), 3, "{lines:?}");
    assert_eq!(
        lines[0],
        r#"lsbuf_dmabufs{exporter="a\"} 1\\x0alsbuf_up 1\\x1b\\xff",state="kernel_only"} 1"#
    );
    assert!(text.chars().all(|c| c == '\n' || !c.is_control()));
}

/// Check that more workloads than there is room for are added up, and that nothing is lost by that.
#[test]
fn many_workloads() {
    let many = 2000;
    let buffers = (1..=many).map(|n| buffer(n, Some(n), Some(1), vec![holder(n as u32, 1, 0, &[])]));
    let mut snapshot = snapshot(buffers.collect(), Gaps::default());
    for pid in 1..=many as u32 {
        in_unit(&mut snapshot, pid, &format!("{pid}.service"));
    }
    let ledger = Ledger::of(&snapshot);
    let families = families(&scrape(&ledger, 300));
    assert!(series(&families) <= 300, "{}", series(&families));
    assert_eq!(samples(&families, "series_dropped"), [(String::new(), Figure::Whole(0))]);
    let parts = samples(&families, "workload_pss");
    let sum: i128 =
        parts.iter().map(|(_, part)| if let Figure::Whole(part) = part { *part } else { 0 }).sum();
    assert_eq!(Some(sum), ledger.totals.held.map(|held| held.0.into()));
    assert!(parts.len() > 20 && parts.iter().any(|(words, _)| words == "2000.service dmabuf"));
    assert!(parts.iter().any(|(words, _)| words == "other dmabuf"));
}

/// Check that series for which there is no room are counted.
#[test]
fn dropped() {
    let snapshot = world();
    let ledger = Ledger::of(&snapshot);
    let all = series(&families(&scrape(&ledger, MOST_SERIES)));
    let families = families(&scrape(&ledger, 20));
    assert_eq!(series(&families), 20);
    let Figure::Whole(dropped) = samples(&families, "series_dropped")[0].1 else { panic!("no count") };
    assert!(dropped > 0 && dropped as usize <= all - 19, "{dropped} of {all}");
}

proptest! {
    /// Check of any machine that both forms have the same samples, each series once, that names are
    /// those of the form, and that the kinds add up to what the ledger has.
    #[test]
    fn both_forms(snapshot in any_snapshot()) {
        let ledger = Ledger::of(&snapshot);
        let text = metrics(&scrape(&ledger, MOST_SERIES), MetricsFormat::Text).unwrap();
        let open = metrics(&scrape(&ledger, MOST_SERIES), MetricsFormat::OpenMetrics).unwrap();
        let samples = |text: &str| -> Vec<String> {
            text.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect()
        };
        prop_assert_eq!(samples(&text), samples(&open));
        let series: Vec<String> =
            samples(&text).iter().map(|line| line.rsplit_once(' ').unwrap().0.to_owned()).collect();
        prop_assert_eq!(series.iter().collect::<BTreeSet<_>>().len(), series.len());
        prop_assert!(open.ends_with("# EOF\n") && !text.contains("# EOF"));
        prop_assert!(text.contains("# TYPE lsbuf_scans_total counter\n"));
        prop_assert!(open.contains("# TYPE lsbuf_scans counter\n"));
        let buffers: u64 = samples(&text)
            .iter()
            .filter(|line| line.starts_with("lsbuf_buffers{"))
            .map(|line| line.rsplit_once(' ').unwrap().1.parse::<u64>().unwrap())
            .sum();
        prop_assert_eq!(buffers, ledger.totals.buffers);
        let kinds = Kind::ALL.len();
        prop_assert!(series.len() <= 60 + 6 * kinds + MOST_SERIES);
    }
}

/// Not a check: writes metrics, and the document of the same buffers, for other programs.
#[test]
#[ignore = "run by xtask, which compares what other programs read"]
fn for_engines() {
    let folder = std::path::PathBuf::from(std::env::var_os("LSBUF_ENGINES").unwrap());
    std::fs::create_dir_all(&folder).unwrap();
    let names = ["system", "a\nb\u{1b}", "q\"}", "udmabuf"];
    let buffers = (1..200).map(|ino: u64| {
        let mut buffer = buffer(ino, Some(4096 + ino), Some(1), vec![holder(7 + ino as u32 % 5, 1, 0, &[])]);
        buffer.exporter = Some(names[ino as usize % names.len()].into());
        buffer
    });
    let mut snapshot = snapshot(buffers.collect(), Gaps::default());
    for pid in 7..12 {
        in_unit(&mut snapshot, pid, &format!("u{pid}.service"));
    }
    let ledger = Ledger::of(&snapshot);
    let write = |name: &str, bytes: &[u8]| std::fs::write(folder.join(name), bytes).unwrap();
    let scrape = scrape(&ledger, MOST_SERIES);
    write("metrics.txt", metrics(&scrape, MetricsFormat::Text).unwrap().as_bytes());
    write("metrics.openmetrics", metrics(&scrape, MetricsFormat::OpenMetrics).unwrap().as_bytes());
    let mut document = Vec::new();
    let view = crate::render::View::all(&ledger);
    crate::render::json(&mut document, &view, crate::render::JsonLayout::Compact).unwrap();
    write("metrics.json", &document);
}
