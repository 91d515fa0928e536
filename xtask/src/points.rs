//! Compares the points of `lsbuf check` in one kernel with the table in `xtask/kernels.toml`.
//!
//! The table names every point, so that a missing one is noticed. For each kernel it names those
//! that do not hold and those that cannot be tried there. Every difference is a failure, in both
//! directions: also a point that holds although the table says that it does not.

use lsbuf_guest::report::{Event, Outcome};
use serde::Serialize;

use crate::kernels::Contract;

/// What one boot should report.
#[derive(Clone, Debug)]
pub(crate) struct Points {
    /// The ids of all points.
    pub(crate) all: Vec<String>,
    /// The points that are not ok in this kernel; `None` allows every outcome.
    pub(crate) contract: Option<Contract>,
}

/// How many points had which outcome.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize)]
pub(crate) struct Tally {
    /// All points in the table.
    pub(crate) all: usize,
    /// Points that hold.
    pub(crate) passed: usize,
    /// Points that do not hold.
    pub(crate) broken: usize,
    /// Points that could not be tried.
    pub(crate) skipped: usize,
}

/// Counts the points in `events`, and lists the differences from what was expected.
pub(crate) fn judge(expected: &Points, events: &[Event]) -> (Tally, Vec<String>) {
    let found: Vec<(&str, Outcome, &str)> = events
        .iter()
        .filter_map(|event| match event {
            Event::Point { id, outcome, detail } => Some((id.as_str(), *outcome, detail.as_str())),
            _ => None,
        })
        .collect();
    let count = |outcome| found.iter().filter(|(_, found, _)| *found == outcome).count();
    let tally = Tally {
        all: expected.all.len(),
        passed: count(Outcome::Ok),
        broken: count(Outcome::Failed),
        skipped: count(Outcome::Skipped),
    };
    let strange = found.iter().filter(|(id, _, _)| !expected.all.iter().any(|known| known == id));
    let mut wrong: Vec<String> =
        strange.map(|(id, _, _)| format!("check: {id} is not a point of the table")).collect();
    for id in &expected.all {
        let outcomes: Vec<_> = found.iter().filter(|(found, _, _)| found == id).collect();
        match outcomes.as_slice() {
            [] => wrong.push(format!("check: {id} is missing")),
            [(_, outcome, detail)] => wrong.extend(otherwise(expected, id, *outcome, detail)),
            _ => wrong.push(format!("check: {id} was reported more than once")),
        }
    }
    (tally, wrong)
}

fn otherwise(expected: &Points, id: &str, outcome: Outcome, detail: &str) -> Option<String> {
    let contract = expected.contract.as_ref()?;
    let listed = |list: &[String]| list.iter().any(|listed| listed == id);
    let should = if listed(&contract.breaks) {
        Outcome::Failed
    } else if listed(&contract.skips) {
        Outcome::Skipped
    } else {
        Outcome::Ok
    };
    let word = |outcome| match outcome {
        Outcome::Ok => "holds",
        Outcome::Failed => "does not hold",
        Outcome::Skipped => "is skipped",
    };
    (outcome != should).then(|| {
        format!("check: {id} {}, but the table says that it {}: {detail}", word(outcome), word(should))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn points(contract: Option<(&[&str], &[&str])>) -> Points {
        let words = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect();
        let contract =
            contract.map(|(breaks, skips)| Contract { breaks: words(breaks), skips: words(skips) });
        Points { all: words(&["a", "b"]), contract }
    }

    fn point(id: &str, outcome: Outcome) -> Event {
        Event::Point { id: id.into(), outcome, detail: "why".into() }
    }

    /// Check that outcomes that the table lists are counted and are no failure.
    #[test]
    fn as_expected() {
        let events = [point("a", Outcome::Failed), point("b", Outcome::Skipped)];
        let (tally, wrong) = judge(&points(Some((&["a"], &["b"]))), &events);
        assert_eq!((tally, wrong), (Tally { all: 2, passed: 0, broken: 1, skipped: 1 }, vec![]));
    }

    /// Check that each outcome is a failure where the table expects another one.
    #[test]
    fn every_difference() {
        let all = [Outcome::Ok, Outcome::Failed, Outcome::Skipped];
        let tables: [(&[&str], &[&str]); 3] = [(&[], &[]), (&["a"], &[]), (&[], &["a"])];
        for (outcome, seen) in all.iter().enumerate() {
            for (should, table) in tables.iter().enumerate() {
                let (_, wrong) = judge(&points(Some(*table)), &[point("a", *seen), point("b", Outcome::Ok)]);
                assert_eq!(wrong.is_empty(), outcome == should, "{seen:?} {table:?} {wrong:?}");
            }
        }
    }

    /// Check that a missing, a duplicate and an unknown point are failures, even if every outcome
    /// is allowed.
    #[test]
    fn incomplete() {
        let wrong = |events: &[Event]| judge(&points(None), events).1.len();
        let (a, b) = (point("a", Outcome::Failed), point("b", Outcome::Skipped));
        assert_eq!(wrong(&[a.clone(), b.clone()]), 0);
        assert_eq!(wrong(std::slice::from_ref(&a)), 1);
        assert_eq!(wrong(&[a.clone(), a.clone(), b.clone()]), 1);
        assert_eq!(wrong(&[a, b, point("c", Outcome::Ok)]), 1);
    }
}
