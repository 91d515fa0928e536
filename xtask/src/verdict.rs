//! Judges the report of a guest: what passed, what was skipped as the table says, and what is
//! wrong.
//!
//! What is missing from a report counts as a failure. A scenario that is not in it, a skip that the
//! table does not list, and a need that the kernel meets although the table lists it as lacking are
//! as bad as a check that fails.
//!
//! A scenario whose claim needs only other kernels is left out of a boot. It is counted by itself
//! and not as a skip, and it fails if the guest reports it after all.

use lsbuf_guest::need::Need;
use lsbuf_guest::report::{Event, Outcome};
use serde::Serialize;

use crate::points::{self, Points, Tally};

/// A run of a scenario that was selected.
#[derive(Clone, Debug)]
pub(crate) struct Selected {
    /// The scenario's name, and by which way it asks.
    pub(crate) name: String,
    /// What it needs.
    pub(crate) needs: Vec<Need>,
    /// Whether it was left out of this boot, because its claim needs only other kernels.
    pub(crate) left_out: bool,
}

/// What one boot should report.
#[derive(Clone, Debug)]
pub(crate) struct Expectation {
    /// The runs that were selected. All that are not left out must be in the report, and no other.
    pub(crate) runs: Vec<Selected>,
    /// What the kernel lacks; `None` allows every skip.
    pub(crate) lacks: Option<Vec<Need>>,
    /// What `lsbuf check` should find, if it was asked for.
    pub(crate) points: Option<Points>,
}

/// How one scenario is judged.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum State {
    Passed,
    ExpectedSkip,
    LeftOut,
    Failed,
}

/// One line of the final table.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub(crate) struct Row {
    pub(crate) scenario: String,
    pub(crate) state: State,
    pub(crate) detail: String,
}

/// The judgement of one boot.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Verdict {
    /// One row per expected run, in their order.
    pub(crate) rows: Vec<Row>,
    /// What `lsbuf check` found, if it was asked for.
    pub(crate) points: Option<Tally>,
    /// What is wrong beyond single scenarios. Each counts as a failure.
    pub(crate) problems: Vec<String>,
}

impl Verdict {
    /// The number of rows in `state`; problems count as failures.
    pub(crate) fn count(&self, state: State) -> usize {
        let problems = if state == State::Failed { self.problems.len() } else { 0 };
        self.rows.iter().filter(|row| row.state == state).count() + problems
    }
}

/// Compares `events` with what was expected. `problems` are those of the boot itself.
pub(crate) fn judge(expected: &Expectation, events: &[Event], problems: &[String]) -> Verdict {
    let rows = expected.runs.iter().map(|run| judge_one(run, expected, events)).collect();
    let mut verdict = Verdict { rows, points: None, problems: problems.to_vec() };
    let failed = verdict.rows.iter().any(|row| row.state == State::Failed);
    for event in events {
        match event {
            Event::Failure { detail } => verdict.problems.push(detail.clone()),
            Event::Hello { has, .. } => verdict.problems.extend(wrong_lacks(expected, has)),
            Event::Scenario { name, .. } if !expected.runs.iter().any(|run| run.name == *name) => {
                verdict.problems.push(format!("the report has a scenario {name} that was not selected"));
            }
            Event::Done { status } if *status != 0 && !failed => {
                verdict
                    .problems
                    .push(format!("no scenario failed, but the guest ended with status {status}"));
            }
            _ => {}
        }
    }
    if let Some(expected) = &expected.points {
        let (tally, wrong) = points::judge(expected, events);
        verdict.points = Some(tally);
        verdict.problems.extend(wrong);
    }
    if !events.iter().any(|event| matches!(event, Event::Hello { .. })) {
        verdict.problems.push("the report has no hello event".to_owned());
    }
    if !events.iter().any(|event| matches!(event, Event::Done { .. })) {
        verdict.problems.push("the report has no done event".to_owned());
    }
    verdict
}

/// Differences between the lacks in the table and what the guest's probes found.
fn wrong_lacks(expected: &Expectation, has: &[Need]) -> Vec<String> {
    let Some(lacks) = &expected.lacks else { return Vec::new() };
    let wrong = |need: &&Need| has.contains(need) == lacks.contains(need);
    let describe = |need: &Need| {
        if has.contains(need) {
            format!("the table says that this kernel lacks {need}, but it is there")
        } else {
            format!("this kernel has no {need}, and the table does not say so")
        }
    };
    Need::ALL.iter().filter(wrong).map(describe).collect()
}

fn judge_one(run: &Selected, expected: &Expectation, events: &[Event]) -> Row {
    let found: Vec<(&Outcome, &String, &Vec<Need>)> = events
        .iter()
        .filter_map(|event| match event {
            Event::Scenario { name: found, outcome, detail, missing, .. } if *found == run.name => {
                Some((outcome, detail, missing))
            }
            _ => None,
        })
        .collect();
    let (state, detail) = match found.as_slice() {
        [] if run.left_out => (State::LeftOut, "its claim needs only other kernels".to_owned()),
        [] => (State::Failed, "missing from the report".to_owned()),
        _ if run.left_out => (State::Failed, "it was left out, and yet it is in the report".to_owned()),
        [(Outcome::Ok, _, _)] => judge_ran(&run.needs, expected),
        [(Outcome::Skipped, detail, missing)] => judge_skip(detail, missing, expected),
        [(Outcome::Failed, detail, _)] => (State::Failed, (*detail).clone()),
        _ => (State::Failed, "reported more than once".to_owned()),
    };
    Row { scenario: run.name.clone(), state, detail }
}

fn judge_ran(needs: &[Need], expected: &Expectation) -> (State, String) {
    let lacks = expected.lacks.as_deref().unwrap_or_default();
    match needs.iter().find(|need| lacks.contains(need)) {
        Some(need) => {
            (State::Failed, format!("it ran although the table says that this kernel lacks {need}"))
        }
        None => (State::Passed, String::new()),
    }
}

fn judge_skip(detail: &str, missing: &[Need], expected: &Expectation) -> (State, String) {
    let Some(lacks) = &expected.lacks else { return (State::ExpectedSkip, detail.to_owned()) };
    match missing.iter().find(|need| !lacks.contains(need)) {
        Some(need) => {
            (State::Failed, format!("skipped because the kernel lacks {need}, which the table does not list"))
        }
        None if missing.is_empty() => (State::Failed, "skipped without a reason".to_owned()),
        None => (State::ExpectedSkip, detail.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEEDS: &[Need] = &[Need::Heap];

    fn scenario(name: &str, outcome: Outcome, missing: &[Need]) -> Event {
        Event::Scenario {
            name: name.into(),
            outcome,
            detail: "why".into(),
            missing: missing.to_vec(),
            millis: 1,
        }
    }

    /// Judges one scenario `x` that needs the heap, on a kernel that lacks `lacks` and whose probes
    /// find the rest.
    fn judged(lacks: Option<&[Need]>, events: &[Event]) -> Verdict {
        judged_as(false, lacks, events)
    }

    fn judged_as(left_out: bool, lacks: Option<&[Need]>, events: &[Event]) -> Verdict {
        let lacking = lacks.unwrap_or_default();
        let has = Need::ALL.iter().copied().filter(|need| !lacking.contains(need)).collect();
        let mut all = vec![Event::Hello { kernel: "k".into(), has }];
        all.extend_from_slice(events);
        all.push(Event::Done { status: 0 });
        let expected = Expectation {
            runs: vec![Selected { name: "x".into(), needs: NEEDS.to_vec(), left_out }],
            lacks: lacks.map(<[Need]>::to_vec),
            points: None,
        };
        judge(&expected, &all, &[])
    }

    fn state(lacks: Option<&[Need]>, events: &[Event]) -> State {
        let verdict = judged(lacks, events);
        assert!(verdict.problems.is_empty(), "{:?}", verdict.problems);
        verdict.rows[0].state
    }

    /// Check the plain outcomes.
    #[test]
    fn outcomes() {
        assert_eq!(state(Some(&[]), &[scenario("x", Outcome::Ok, &[])]), State::Passed);
        assert_eq!(state(Some(&[]), &[scenario("x", Outcome::Failed, &[])]), State::Failed);
        assert_eq!(state(Some(NEEDS), &[scenario("x", Outcome::Skipped, NEEDS)]), State::ExpectedSkip);
    }

    /// Check that a scenario which is not reported, or reported twice, fails.
    #[test]
    fn missing_and_double() {
        assert_eq!(state(Some(&[]), &[]), State::Failed);
        let once = scenario("x", Outcome::Ok, &[]);
        assert_eq!(state(Some(&[]), &[once.clone(), once]), State::Failed);
    }

    /// Check that a run which is left out counts as that and as nothing else, and that it fails if
    /// it ran or was skipped after all.
    #[test]
    fn left_out() {
        let count = |events: &[Event]| {
            let verdict = judged_as(true, Some(&[]), events);
            [State::Passed, State::ExpectedSkip, State::LeftOut, State::Failed]
                .map(|state| verdict.count(state))
        };
        assert_eq!(count(&[]), [0, 0, 1, 0]);
        assert_eq!(count(&[scenario("x", Outcome::Ok, &[])]), [0, 0, 0, 1]);
        assert_eq!(count(&[scenario("x", Outcome::Skipped, NEEDS)]), [0, 0, 0, 1]);
    }

    /// Check that a skip which the table does not list fails, and one without a reason too.
    #[test]
    fn unlisted_skip() {
        assert_eq!(state(Some(&[]), &[scenario("x", Outcome::Skipped, NEEDS)]), State::Failed);
        assert_eq!(state(Some(NEEDS), &[scenario("x", Outcome::Skipped, &[])]), State::Failed);
    }

    /// Check that a listed lack fails a scenario that ran in spite of it.
    #[test]
    fn listed_but_ran() {
        assert_eq!(state(Some(NEEDS), &[scenario("x", Outcome::Ok, &[])]), State::Failed);
    }

    /// Check that a kernel nobody has described may skip.
    #[test]
    fn unknown_kernel_may_skip() {
        assert_eq!(state(None, &[scenario("x", Outcome::Skipped, NEEDS)]), State::ExpectedSkip);
    }

    /// Check that probes which contradict the table are problems, in both directions, even without
    /// any scenario.
    #[test]
    fn probes_against_table() {
        for (lacks, has) in [(vec![], vec![]), (Need::ALL.to_vec(), Need::ALL.to_vec())] {
            let expected = Expectation { runs: vec![], lacks: Some(lacks), points: None };
            let events = [Event::Hello { kernel: "k".into(), has }, Event::Done { status: 0 }];
            assert_eq!(judge(&expected, &events, &[]).problems.len(), Need::ALL.len());
        }
    }

    /// Check that a report without its ends, a stray scenario, and an unexplained status are
    /// problems.
    #[test]
    fn broken_reports() {
        let expected = Expectation { runs: vec![], lacks: None, points: None };
        assert_eq!(judge(&expected, &[], &["panic".into()]).count(State::Failed), 3);
        let stray = judged(None, &[scenario("x", Outcome::Ok, &[]), scenario("y", Outcome::Ok, &[])]);
        assert_eq!(stray.problems.len(), 1);
        let status = judged(None, &[scenario("x", Outcome::Ok, &[]), Event::Done { status: 1 }]);
        assert_eq!(status.problems.len(), 1);
    }
}
