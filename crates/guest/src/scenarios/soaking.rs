//! The soak test and the differential test, short enough for every run of the tests.

use std::time::Duration;

use crate::differential;
use crate::kernels::Kernels;
use crate::scenario::{Ctx, Scenario};
use crate::soak::{self, SoakPlan};

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "short_soak",
        claim: "No answer about a random world, paused or moving, is wrong",
        needs: &[],
        kernels: Kernels::Every,
        ways: &[],
        run: short_soak,
    },
    Scenario {
        name: "recording_of_a_soak",
        claim: "No sample that was recorded of a random world is wrong",
        needs: &[],
        kernels: Kernels::OldestAndNewest,
        ways: &[],
        run: recording_of_a_soak,
    },
    Scenario {
        name: "worlds_at_rest",
        claim: "Every source's answers about random paused worlds equal a plain reading of procfs",
        needs: &[],
        kernels: Kernels::Every,
        ways: &[],
        run: worlds_at_rest,
    },
];

fn short_soak(ctx: &mut Ctx) -> anyhow::Result<()> {
    let mut said = Vec::new();
    // A batch that is running when the time is over still ends.
    let plan = SoakPlan { time: Duration::from_secs(8), seed: 1, is_recorded: false };
    let tally = soak::run(plan, |line| said.push(line.to_owned()))?;
    ctx.check("answers about the moving world", tally.running > 0)?;
    ctx.check("answers about the paused world", tally.paused > 0)?;
    ctx.check("accounts compared in full", tally.accounts > 0)?;
    said.retain(|line| line.starts_with("ERROR"));
    ctx.check_eq("errors", "", said.join("\n"))
}

fn recording_of_a_soak(ctx: &mut Ctx) -> anyhow::Result<()> {
    let mut said = Vec::new();
    let plan = SoakPlan { time: Duration::from_secs(20), seed: 2, is_recorded: true };
    let tally = soak::run(plan, |line| said.push(line.to_owned()))?;
    ctx.check("samples of the moving world", tally.recorded > tally.recorded_pauses + tally.unjudged)?;
    said.retain(|line| line.starts_with("ERROR"));
    ctx.check_eq("errors", "", said.join("\n"))
}

fn worlds_at_rest(ctx: &mut Ctx) -> anyhow::Result<()> {
    let plan = differential::DifferentialPlan { time: Duration::from_secs(8), seed: 1 };
    let tally = differential::run(plan, |_| ())?;
    ctx.check("worlds", tally.worlds > 0)?;
    ctx.check("answers", tally.answers > 0)?;
    ctx.check_eq("errors", "", tally.errors.iter().take(3).cloned().collect::<Vec<_>>().join("\n"))
}
