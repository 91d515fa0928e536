//! `cargo xtask test`: all tests, in one command, on a fresh machine.
//!
//! Every step runs even if an earlier one failed, so that one run shows everything that is wrong.

use std::io::{BufRead, BufReader};
use std::process::{Command, ExitCode, Stdio};
use std::thread;
use std::time::Instant;

use anyhow::{Context, bail};

use crate::api;
use crate::arch::Arch;
use crate::bpf::{self, Compared};
use crate::dist;
use crate::engines::{self, Engines};
use crate::host::{self, For};
use crate::initramfs::build_programs;
use crate::licences;
use crate::packages;
use crate::page::{self, Looked};
use crate::vm::{self, Tally, VmArgs};
use crate::workspace::Workspace;

/// Runs all steps, with those in kernels if `kernels`, and prints the summary. A check that cannot
/// be made here is a failure if `all`, else an expected skip.
pub(crate) fn run(workspace: &Workspace, kernels: bool, all: bool) -> anyhow::Result<ExitCode> {
    let started = Instant::now();
    host::prepare(if kernels { &[For::Kernels, For::Packages, For::Engines] } else { &[] })?;
    // Linking the guest's programs keeps one processor busy for long, and the steps before the
    // kernels do not use all processors all the time. No error is lost: that step builds again.
    let building = kernels.then(|| {
        let workspace = workspace.clone();
        thread::spawn(move || build_programs(&workspace, Arch::default(), &[]).map(drop))
    });
    let mut run = Run::default();
    run.step("format", || {
        let mut cargo = workspace.cargo();
        plain(cargo.args(["fmt", "--all", "--check"]))
    });
    run.step("lints", || {
        let mut cargo = workspace.cargo();
        plain(cargo.args(["clippy", "--quiet", "--workspace", "--all-targets", "--", "-D", "warnings"]))
    });
    // Not every machine can have the standard library for another target.
    run.step("lints for arm64", || match host::prepare_target(Arch::Arm64) {
        Err(why) => {
            println!("   not checked: {why:#}");
            Ok(Tally { skipped: 1, ..Tally::default() })
        }
        Ok(()) => {
            let mut cargo = workspace.cargo();
            cargo.args(["clippy", "--quiet", "--target", Arch::Arm64.target()]);
            for package in ["lsbuf", "lsbuf-cli", "dmabuf", "lsbuf-guest"] {
                cargo.args(["--package", package]);
            }
            plain(cargo.args(["--", "-D", "warnings"]))
        }
    });
    run.step("features", || features(workspace));
    run.step("tests", || {
        let mut cargo = workspace.cargo();
        count_tests(cargo.args(["test", "--quiet", "--workspace", "--no-fail-fast"]))
    });
    run.step("documentation", || {
        let mut cargo = workspace.cargo();
        cargo.args(["doc", "--quiet", "--workspace", "--no-deps"]).env("RUSTDOCFLAGS", "-D warnings");
        plain(&mut cargo)
    });
    run.step("licences", || {
        let crates = licences::check(workspace.cargo())?;
        println!("   {crates} crates");
        Ok(ONE)
    });
    run.step("BPF objects", || compared(bpf::check(workspace)?, all));
    run.step("public API", || compared(api::check(workspace)?, all));
    run.step("engines", || match engines::check(workspace)? {
        Engines::Missing(why) if all => bail!("a package is missing: {why}"),
        Engines::Missing(why) => {
            println!("   a package is missing: {why}");
            Ok(Tally { skipped: 1, ..Tally::default() })
        }
        Engines::Same(passed) => Ok(Tally { passed, ..Tally::default() }),
    });
    run.step("page", || match page::check(workspace, None)? {
        Looked::Missing(program) if all => bail!("{program} is missing"),
        Looked::Missing(program) => {
            println!("   {program} is missing");
            Ok(Tally { skipped: 1, ..Tally::default() })
        }
        Looked::Passed(passed) => Ok(Tally { passed, ..Tally::default() }),
    });
    run.step("packages", || packages::check(workspace));
    if let Some(building) = building {
        let _ = building.join();
        run.step("kernels", || vm::vm(workspace, &VmArgs::everything()));
        run.step("Debian package", || dist::check(workspace));
    }
    let columns = ["passed", "skipped", "left out", "failed", "seconds"].map(|name| format!("{name:>9}"));
    println!("\n{:<16}{}", "step", columns.concat());
    for (name, Tally { passed, skipped, left_out, failed }, seconds) in &run.steps {
        println!("{name:<16}{passed:>9}{skipped:>9}{left_out:>9}{failed:>9}{seconds:>9.1}");
    }
    let total = run.total();
    println!(
        "{} passed, {} failed, {} expected skips, {} left out on purpose in {:.0} s",
        total.passed,
        total.failed,
        total.skipped,
        total.left_out,
        started.elapsed().as_secs_f64()
    );
    Ok(if total.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Checks the library with none of its features, and with each alone.
fn features(workspace: &Workspace) -> anyhow::Result<Tally> {
    const EACH: [&str; 8] = ["", "bpf", "check", "history", "metrics", "render", "serde", "symbols"];
    for features in EACH {
        let mut cargo = workspace.cargo();
        cargo.args(["clippy", "--quiet", "--package", "lsbuf", "--no-default-features"]);
        crate::cmd::run(cargo.args(["--features", features, "--", "-D", "warnings"]))
            .with_context(|| format!("with the features '{features}'"))?;
    }
    Ok(Tally { passed: EACH.len(), ..Tally::default() })
}

/// What a step that is one check counts when it passes.
const ONE: Tally = Tally { passed: 1, skipped: 0, left_out: 0, failed: 0 };

/// The steps so far: name, numbers, seconds.
#[derive(Debug, Default)]
struct Run {
    steps: Vec<(&'static str, Tally, f64)>,
}

impl Run {
    /// Runs one step. A step that cannot be run counts as one failure.
    fn step(&mut self, name: &'static str, work: impl FnOnce() -> anyhow::Result<Tally>) {
        println!("=== {name}");
        let started = Instant::now();
        let tally = work().unwrap_or_else(|error| {
            println!("   {name}: {error:#}");
            Tally { failed: 1, ..Tally::default() }
        });
        let seconds = started.elapsed().as_secs_f64();
        println!("=== {name}: {} in {seconds:.1} s", if tally.failed == 0 { "ok" } else { "FAILED" });
        self.steps.push((name, tally, seconds));
    }

    fn total(&self) -> Tally {
        self.steps.iter().fold(Tally::default(), |sum, (_, tally, _)| Tally {
            passed: sum.passed + tally.passed,
            skipped: sum.skipped + tally.skipped,
            left_out: sum.left_out + tally.left_out,
            failed: sum.failed + tally.failed,
        })
    }
}

/// A comparison of committed files with what their sources make is one check. Where it cannot be
/// made, it is a failed check with `all`, else an expected skip.
fn compared(found: Compared, all: bool) -> anyhow::Result<Tally> {
    match found {
        Compared::Impossible(why) if all => bail!("not compared with the sources: {why}"),
        Compared::Impossible(why) => {
            println!("   not compared with the sources: {why}");
            Ok(Tally { skipped: 1, ..Tally::default() })
        }
        Compared::Same => Ok(ONE),
    }
}

/// A command that is one check.
fn plain(command: &mut Command) -> anyhow::Result<Tally> {
    crate::cmd::run(command).map(|()| ONE)
}

/// Runs `cargo test`, passes its output on, and adds up the numbers in its result lines.
fn count_tests(command: &mut Command) -> anyhow::Result<Tally> {
    let mut child = command.stdout(Stdio::piped()).spawn().context("starting cargo test")?;
    let mut tally = Tally::default();
    for line in BufReader::new(child.stdout.take().context("cargo test has no output")?).lines() {
        let line = line.context("reading cargo test's output")?;
        println!("{line}");
        if let Some((passed, failed, ignored)) = parse_result(&line) {
            tally.passed += passed;
            tally.failed += failed;
            tally.skipped += ignored;
        }
    }
    let status = child.wait().context("waiting for cargo test")?;
    if !status.success() && tally.failed == 0 {
        bail!("cargo test failed ({status}), but no test did");
    }
    Ok(tally)
}

/// Passed, failed and ignored in `test result: ok. 3 passed; 0 failed; 1 ignored; …`.
fn parse_result(line: &str) -> Option<(usize, usize, usize)> {
    let (_, numbers) = line.strip_prefix("test result: ")?.split_once(". ")?;
    let number = |word: &str| {
        let mut parts = numbers.split("; ").filter_map(|part| part.split_once(' '));
        parts.find(|(_, name)| *name == word)?.0.parse().ok()
    };
    Some((number("passed")?, number("failed")?, number("ignored")?))
}

#[cfg(test)]
mod tests {
    use super::parse_result;

    /// Check that result lines are counted and others are not.
    #[test]
    fn result_lines() {
        let line = "test result: FAILED. 3 passed; 2 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s";
        assert_eq!(parse_result(line), Some((3, 2, 1)));
        assert_eq!(parse_result("running 3 tests"), None);
    }
}
