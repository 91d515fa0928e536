//! Judges the points of `lsbuf check` in one kernel against the table.
//!
//! The table names every point, so that one which is lost is noticed, and for each kernel those that do not hold or cannot
//! be tried there. Anything else fails, in both directions: a point that holds although the table says it does not is as
//! much news as one that no longer does.

use lsbuf_guest::report::{Event, Outcome};
use serde::Serialize;

use crate::kernels::Contract;

/// What one boot should report.
#[derive(Clone, Debug)]
pub(crate) struct Points {
    /// Every id.
    pub(crate) all: Vec<String>,
    /// What is otherwise than ok; `None` allows everything.
    pub(crate) contract: Option<Contract>,
}

/// How many points ended how.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize)]
pub(crate) struct Tally {
    /// All that were expected.
    pub(crate) all: usize,
    /// Those that hold.
    pub(crate) passed: usize,
    /// Those that do not.
    pub(crate) broken: usize,
    /// Those that could not be tried.
    pub(crate) skipped: usize,
}

/// Counts the points among `events`, and lists what is not as expected.
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
        strange.map(|(id, _, _)| format!("check: {id} is no point of the table")).collect();
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
    (outcome != should)
        .then(|| format!("check: {id} {}, and by the table {}: {detail}", word(outcome), word(should)))
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

    /// Check that what is as the table says is counted and nothing else.
    #[test]
    fn as_expected() {
        let events = [point("a", Outcome::Failed), point("b", Outcome::Skipped)];
        let (tally, wrong) = judge(&points(Some((&["a"], &["b"]))), &events);
        assert_eq!((tally, wrong), (Tally { all: 2, passed: 0, broken: 1, skipped: 1 }, vec![]));
    }

    /// Check that each way to differ from the table is a problem: for every outcome, where another was expected.
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

    /// Check that a point that is missing, double or unknown is a problem, even where every outcome is allowed.
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
