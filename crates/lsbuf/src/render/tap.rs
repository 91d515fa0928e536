//! The report of `lsbuf check` as TAP, version 14 (testanything.org): a line for each point, and
//! comments for people.
//!
//! `ok N - ID: claim`, `not ok N - ID: claim` with `# seen:` and `# means:` behind it, or `ok N -
//! ID: claim # SKIP why`. Where nothing could be tried, `Bail out!` and why.

use std::io::{self, Write};

use crate::check::{Outcome, Report};
use crate::escape::escape;

/// Writes a whole check.
///
/// # Errors
/// Those of `out`.
pub fn tap(out: &mut impl Write, report: &Report) -> io::Result<()> {
    writeln!(out, "TAP version 14")?;
    for note in &report.notes {
        writeln!(out, "# {}", comment(note))?;
    }
    if let Some(why) = &report.bail_out {
        return writeln!(out, "Bail out! {}", text(why));
    }
    writeln!(out, "1..{}", report.points.len())?;
    for (index, point) in report.points.iter().enumerate() {
        let words = format!("{} - {}: {}", index + 1, point.id, text(point.claim));
        match &point.outcome {
            Outcome::Ok => writeln!(out, "ok {words}")?,
            Outcome::NotOk { seen } => {
                writeln!(out, "not ok {words}")?;
                writeln!(out, "# seen: {}", comment(seen))?;
                writeln!(out, "# means: {}", comment(point.means))?;
            }
            Outcome::Skip { why } => writeln!(out, "ok {words} # SKIP {}", text(why))?,
        }
    }
    Ok(())
}

/// Escapes text for a comment, where only a newline would do harm. Backslashes stay single.
fn comment(text: &str) -> String {
    escape(text.as_bytes()).replace("\\\\", "\\")
}

/// Escapes text for a test line: a backslash and a `#` have a meaning in TAP, and nothing may break
/// the line.
fn text(text: &str) -> String {
    escape(text.as_bytes()).replace('#', "\\#")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::Point;

    fn written(report: &Report) -> String {
        let mut out = Vec::new();
        tap(&mut out, report).unwrap();
        String::from_utf8(out).unwrap()
    }

    /// Check the form of each outcome.
    #[test]
    fn outcomes() {
        let point = |id, outcome| Point { id, claim: "it holds", means: "trouble", outcome };
        let report = Report {
            notes: vec!["kernel x".into()],
            points: vec![
                point("one", Outcome::Ok),
                point("two", Outcome::NotOk { seen: "a\n\\x ok 9 # SKIP".into() }),
                point("three", Outcome::Skip { why: "no root".into() }),
            ],
            bail_out: None,
        };
        let expected = "TAP version 14\n# kernel x\n1..3\nok 1 - one: it holds\nnot ok 2 - two: it holds\n\
                        # seen: a\\x0a\\x ok 9 # SKIP\n# means: trouble\nok 3 - three: it holds # SKIP no root\n";
        assert_eq!(written(&report), expected);
    }

    /// Check that the reason comes last where nothing could be tried.
    #[test]
    fn bail_out() {
        let report =
            Report { notes: vec!["no vgem".into()], bail_out: Some("load it".into()), ..Report::default() };
        assert_eq!(written(&report), "TAP version 14\n# no vgem\nBail out! load it\n");
    }
}
