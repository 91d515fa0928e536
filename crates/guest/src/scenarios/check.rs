//! `lsbuf check` in a real kernel.
//!
//! Its points are reported one by one. The host's table of kernels says what each must be. The
//! scenarios themselves only check that the output is well-formed and honest, for root and for a
//! user without privileges.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Output};

use anyhow::{Context, bail};

use super::machine::closing_line;
use crate::answer::LSBUF;
use crate::kernels::Kernels;
use crate::need::vgem_node;
use crate::report::Outcome;
use crate::scenario::{Ctx, Scenario};

/// The scenario that reports the points of `lsbuf check`.
pub const CONTRACT: &str = "kernel_contract";

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: CONTRACT,
        claim: "lsbuf check finds for each point what the table of kernels says, and leaves no buffer and no process behind",
        needs: &[],
        kernels: Kernels::Every,
        ways: &[],
        run: contract,
    },
    Scenario {
        name: "kernel_contract_as_user",
        claim: "For a user without privileges lsbuf check bails out, or skips the points that need root and finds the same in all others",
        needs: &[],
        kernels: Kernels::OldestAndNewest,
        ways: &[],
        run: as_user,
    },
];

/// The points that only root can try, with any exporter.
const ROOTS: &[&str] = &[
    "list-row",
    "list-count",
    "list-total",
    "list-drops",
    "list-mapped",
    "list-handle",
    "list-import",
    "list-attachment",
    "o-path-unlisted",
    "name-in-list",
    "map-files-inode",
];

/// One point, as printed.
#[derive(Clone, Debug, PartialEq, Eq)]
struct TapPoint {
    id: String,
    outcome: Outcome,
    /// What was seen, or why it was skipped.
    detail: String,
}

/// A whole output, parsed by code that shares nothing with lsbuf.
#[derive(Debug, Default, PartialEq, Eq)]
struct TapOutput {
    points: Vec<TapPoint>,
    /// How many points do not hold and do not say what that means.
    unexplained: usize,
    bail_out: Option<String>,
}

fn contract(ctx: &mut Ctx) -> anyhow::Result<()> {
    let output = Command::new(LSBUF).arg("check").output().context("running lsbuf check")?;
    let tap = well_formed(ctx, &output)?;
    for TapPoint { id, outcome, detail } in &tap.points {
        ctx.point(id, *outcome, detail)?;
    }
    ctx.check_eq("what is left behind", "(0, 0)", format!("{:?}", closing_line()?))?;
    ctx.check_eq("children left behind", "", children()?)
}

/// Checks what must hold for every run, and parses the output.
fn well_formed(ctx: &mut Ctx, output: &Output) -> anyhow::Result<TapOutput> {
    let text = String::from_utf8(output.stdout.clone()).context("output that is not UTF-8")?;
    print!("{text}");
    ctx.check_eq("standard error", "", String::from_utf8_lossy(&output.stderr))?;
    let tap = parse(&text)?;
    let failed = tap.points.iter().any(|point| point.outcome == Outcome::Failed);
    let status = i32::from(failed || tap.bail_out.is_some());
    ctx.check_eq("exit status", status, output.status.code().unwrap_or(-1))?;
    ctx.check_eq("points that do not hold and do not say what that means", 0, tap.unexplained)?;
    Ok(tap)
}

/// The children of this process.
fn children() -> anyhow::Result<String> {
    let id = std::process::id();
    fs::read_to_string(format!("/proc/self/task/{id}/children")).context("listing children")
}

fn as_user(ctx: &mut Ctx) -> anyhow::Result<()> {
    let check = || {
        let mut command = Command::new(LSBUF);
        command.arg("check").uid(1000).gid(1000).output().context("running lsbuf check")
    };
    let nodes: Vec<PathBuf> =
        [Some("/dev/dma_heap/system".into()), Some("/dev/udmabuf".into()), vgem_node("card")]
            .into_iter()
            .flatten()
            .filter(|node| node.exists())
            .collect();
    let open_to =
        |mode| nodes.iter().try_for_each(|node| fs::set_permissions(node, Permissions::from_mode(mode)));
    open_to(0o600)?;
    let output = check()?;
    let denied = well_formed(ctx, &output)?;
    ctx.check_eq("points without access", 0, denied.points.len())?;
    ctx.check("it says what to do", denied.bail_out.is_some_and(|why| why.contains("run as root")))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    for node in &nodes {
        ctx.check(format!("it names {}", node.display()), text.contains(&*node.to_string_lossy()))?;
    }
    open_to(0o666)?;
    let users = well_formed(ctx, &check()?)?;
    let output = Command::new(LSBUF).arg("check").output().context("running lsbuf check")?;
    let roots = well_formed(ctx, &output)?;
    open_to(0o600)?;
    let ids =
        |tap: &TapOutput| tap.points.iter().map(|point| point.id.as_str()).collect::<Vec<_>>().join(" ");
    ctx.check_eq("points with access", ids(&roots), ids(&users))?;
    let found: BTreeMap<&str, Outcome> =
        users.points.iter().map(|point| (point.id.as_str(), point.outcome)).collect();
    for TapPoint { id, outcome, .. } in &roots.points {
        let expected = if ROOTS.contains(&id.as_str()) { Outcome::Skipped } else { *outcome };
        ctx.check_eq(id, format!("{:?}", Some(&expected)), format!("{:?}", found.get(id.as_str())))?;
    }
    Ok(())
}

/// Parses TAP. It refuses another version, a point with a wrong number, and a plan that does not
/// match the number of points.
fn parse(text: &str) -> anyhow::Result<TapOutput> {
    let mut lines = text.lines();
    if lines.next() != Some("TAP version 14") {
        bail!("no TAP: {text:?}");
    }
    let (mut tap, mut planned, mut means) = (TapOutput::default(), None, true);
    for line in lines {
        if let Some(comment) = line.strip_prefix("# ") {
            means |= comment.starts_with("means: ");
            if let (Some(seen), Some(point)) = (comment.strip_prefix("seen: "), tap.points.last_mut()) {
                seen.clone_into(&mut point.detail);
            }
        } else if let Some(why) = line.strip_prefix("Bail out! ") {
            tap.bail_out = Some(why.to_owned());
        } else if let Some(last) = line.strip_prefix("1..") {
            planned = Some(last.parse::<usize>().context("the plan")?);
        } else {
            tap.unexplained += usize::from(!means);
            let (number, point) = point(line)?;
            means = point.outcome != Outcome::Failed;
            tap.points.push(point);
            if number != tap.points.len() {
                bail!("a point out of order: {line:?}");
            }
        }
    }
    tap.unexplained += usize::from(!means);
    if planned != (tap.bail_out.is_none()).then_some(tap.points.len()) {
        bail!("{planned:?} points planned, {} there", tap.points.len());
    }
    Ok(tap)
}

/// Parses `ok N - ID: claim`, perhaps with `# SKIP why`, or `not ok …`.
fn point(line: &str) -> anyhow::Result<(usize, TapPoint)> {
    let (failed, rest) = match line.strip_prefix("not ") {
        Some(rest) => (true, rest),
        None => (false, line),
    };
    let parts = rest.strip_prefix("ok ").and_then(|rest| rest.split_once(" - "));
    let (number, words) = parts.with_context(|| format!("a malformed line: {line:?}"))?;
    let (id, claim) = words.split_once(": ").with_context(|| format!("a point without claim: {line:?}"))?;
    let (outcome, detail) = match claim.split_once(" # SKIP ") {
        Some((_, why)) => (Outcome::Skipped, why),
        None if failed => (Outcome::Failed, ""),
        None => (Outcome::Ok, ""),
    };
    Ok((number.parse()?, TapPoint { id: id.to_owned(), outcome, detail: detail.to_owned() }))
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHOLE: &str = "TAP version 14\n# kernel x\n1..3\nok 1 - a: it holds\nnot ok 2 - b: so does it\n\
                         # seen: nothing\n# means: trouble\nok 3 - c: and this # SKIP no root\n";

    /// Check that each outcome is read with its detail.
    #[test]
    fn whole() {
        let tap = parse(WHOLE).unwrap();
        let seen: Vec<_> = tap.points.iter().map(|p| (p.id.as_str(), p.outcome, p.detail.as_str())).collect();
        let expected =
            [("a", Outcome::Ok, ""), ("b", Outcome::Failed, "nothing"), ("c", Outcome::Skipped, "no root")];
        assert_eq!((seen.as_slice(), tap.unexplained, tap.bail_out), (expected.as_slice(), 0, None));
    }

    /// Check that a missing point, a point out of order, another version and other lines are
    /// refused.
    #[test]
    fn broken() {
        for text in [
            WHOLE.replace("ok 1 - a: it holds\n", ""),
            WHOLE.replace("1..3", "1..4"),
            WHOLE.replace("ok 3", "ok 4"),
            WHOLE.replace("version 14", "version 13"),
            WHOLE.replace("1..3\n", ""),
            format!("{WHOLE}hello\n"),
            format!("{WHOLE}Bail out! why\n"),
        ] {
            assert!(parse(&text).is_err(), "{text}");
        }
    }

    /// Check that a point that does not say what it means is counted, also if it is the last one.
    #[test]
    fn unexplained() {
        assert_eq!(parse(&WHOLE.replace("# means: trouble\n", "")).unwrap().unexplained, 1);
        assert_eq!(parse("TAP version 14\n1..1\nnot ok 1 - a: b\n").unwrap().unexplained, 1);
    }

    /// Check that a run that could try nothing has no plan and no points.
    #[test]
    fn bail_out() {
        let tap = parse("TAP version 14\n# without x\nBail out! load it\n").unwrap();
        assert_eq!((tap.points.len(), tap.bail_out.as_deref()), (0, Some("load it")));
    }
}
