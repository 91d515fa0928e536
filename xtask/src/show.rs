//! What the commands that boot kernels print: lines for each event, and a table at the end.
//!
//! A test may choose hostile names, and details and compared values may contain them. So control
//! characters are escaped. Only the output of a mode or a scenario itself is passed on unchanged.

use std::io::Write;
use std::time::Duration;

use lsbuf_guest::report::{Event, Outcome, Stream};
use lsbuf_guest::scenario::Scenario;

use crate::fetch;
use crate::kernels::{self, Kernel};
use crate::verdict::{State, Verdict};
use crate::workspace::Workspace;

/// Writes text from the guest to the same stream of this process. Errors are ignored: if the reader
/// of this process's output is gone, that is no failure of the guest.
pub(crate) fn pass_on(stream: Stream, text: &str) {
    let _ = match stream {
        Stream::Stdout => std::io::stdout().write_all(text.as_bytes()),
        Stream::Stderr => std::io::stderr().write_all(text.as_bytes()),
    };
}

/// Writes text of this program to stdout and flushes it.
pub(crate) fn now(text: &str) {
    pass_on(Stream::Stdout, text);
    let _ = std::io::stdout().flush();
}

/// `text` with every control character escaped.
pub(crate) fn visible(text: &str) -> String {
    let mut shown = String::new();
    for c in text.chars() {
        if c.is_control() { shown.extend(c.escape_default()) } else { shown.push(c) }
    }
    shown
}

/// The lines for `event`, if it has any. Comparisons and points are included only if `checks` is
/// set, the output of scenarios only if `output` is set.
pub(crate) fn event(event: &Event, checks: bool, output: bool) -> String {
    match event {
        Event::Hello { kernel, has } => {
            let has: Vec<&str> = has.iter().map(|need| need.name()).collect();
            format!("   {} with {}\n", visible(kernel), has.join(", "))
        }
        Event::Check { what, expected, printed, .. } if checks => {
            let mark = if expected == printed { "=" } else { "≠" };
            format!("      {}: {} {mark} {}\n", visible(what), visible(expected), visible(printed))
        }
        Event::Scenario { name, outcome, detail, millis, .. } => {
            let word = match outcome {
                Outcome::Ok => "ok",
                Outcome::Failed => "FAILED",
                Outcome::Skipped => "skipped",
            };
            let mut lines = format!("   {word:<8}{name} ({}.{:01} s)\n", millis / 1000, millis % 1000 / 100);
            for line in detail.lines() {
                lines.push_str(&format!("           {}\n", visible(line)));
            }
            lines
        }
        Event::Point { id, outcome, detail } if checks => {
            format!("      {}: {outcome:?} {}\n", visible(id), visible(detail))
        }
        Event::Output { text, .. } if output => text.clone(),
        Event::Failure { detail } => format!("   guest: {}\n", visible(detail)),
        Event::Check { .. } | Event::Point { .. } | Event::Output { .. } | Event::Done { .. } => {
            String::new()
        }
    }
}

/// What is wrong with a boot. Each failure has one line here; the lines of its event have the
/// details.
pub(crate) fn failures(verdict: &Verdict) -> String {
    let rows = verdict.rows.iter().filter(|row| row.state == State::Failed).map(|row| {
        format!("   failed: {}: {}\n", row.scenario, visible(row.detail.lines().next().unwrap_or_default()))
    });
    let problems = verdict.problems.iter().map(|problem| {
        let lines: Vec<String> = problem.lines().map(visible).collect();
        format!("   failed: {}\n", lines.join("\n      "))
    });
    rows.chain(problems).collect()
}

/// The heading of the table at the end.
pub(crate) fn heading() -> String {
    let columns = ["passed", "skipped", "left out", "failed", "check points passed", "seconds"];
    let [passed, skipped, left_out, failed, points, seconds] = columns;
    format!("{:<16}{passed:>9}{skipped:>9}{left_out:>9}{failed:>9}{points:>21}{seconds:>9}\n", "kernel")
}

/// The line of one kernel in the table at the end.
pub(crate) fn row(id: &str, verdict: &Verdict, took: Duration) -> String {
    let count = |state| verdict.count(state);
    let points =
        verdict.points.map_or("-".to_owned(), |points| format!("{} of {}", points.passed, points.all));
    format!(
        "{id:<16}{:>9}{:>9}{:>9}{:>9}{points:>21}{:>9.1}\n",
        count(State::Passed),
        count(State::ExpectedSkip),
        count(State::LeftOut),
        count(State::Failed),
        took.as_secs_f64()
    )
}

/// `cargo xtask vm --list`.
pub(crate) fn list(workspace: &Workspace, selected: &[&Scenario]) -> anyhow::Result<()> {
    println!("kernels (* = booted by default):");
    for kernel in kernels::table()? {
        println!("  {}", describe(workspace, &kernel));
    }
    println!("scenarios:");
    for scenario in selected {
        let needs: Vec<&str> = scenario.needs.iter().map(|need| need.name()).collect();
        let needs = if needs.is_empty() { String::new() } else { format!(" (needs {})", needs.join(", ")) };
        let ways: Vec<&str> = scenario.ways.iter().map(|way| way.name()).collect();
        let ways = if ways.is_empty() { String::new() } else { format!(" (by {})", ways.join(", ")) };
        let kernels = scenario.kernels.name();
        println!("  {:<24} {}{needs}{ways} (on {kernels})", scenario.name, scenario.claim);
    }
    Ok(())
}

fn describe(workspace: &Workspace, kernel: &Kernel) -> String {
    let mark = if kernel.default { "*" } else { " " };
    let cached = fetch::record(workspace, kernel).map_or_else(
        || format!("not fetched yet; from {}", kernel.suites.join(", ")),
        |record| record.packages.join(", "),
    );
    let lacks: Vec<&str> = kernel.lacks.iter().map(|need| need.name()).collect();
    let lacks = if lacks.is_empty() { String::new() } else { format!("; lacks {}", lacks.join(", ")) };
    format!("{mark} {:<14} {cached}{lacks}", kernel.id)
}

#[cfg(test)]
mod tests {
    use super::visible;

    /// Check that no control character passes, and that other text is left alone.
    #[test]
    fn control_characters_are_written_out() {
        assert_eq!(visible("a\u{1b}[1m\nß"), "a\\u{1b}[1m\\nß");
    }
}
