//! The soak and the random worlds at rest, short enough for every run of the tests.

use std::time::Duration;

use crate::differential;
use crate::kernels::Kernels;
use crate::scenario::{Ctx, Scenario};
use crate::soak::{self, Plan};

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "short_soak",
        claim: "Of a random world, at rest or in motion, no answer says what is not so",
        needs: &[],
        kernels: Kernels::Every,
        ways: &[],
        run: short_soak,
    },
    Scenario {
        name: "worlds_at_rest",
        claim: "Of random worlds at rest every source says what a plain reading of procfs finds",
        needs: &[],
        kernels: Kernels::Every,
        ways: &[],
        run: worlds_at_rest,
    },
];

fn short_soak(ctx: &mut Ctx) -> anyhow::Result<()> {
    let mut said = Vec::new();
    // A batch that is under way when the time is over still ends.
    let plan = Plan { time: Duration::from_secs(8), seed: 1 };
    let tally = soak::run(plan, |line| said.push(line.to_owned()))?;
    ctx.check("answers about the world in motion", tally.running > 0)?;
    ctx.check("answers about the world at rest", tally.paused > 0)?;
    ctx.check("ledgers compared whole", tally.ledgers > 0)?;
    said.retain(|line| line.starts_with("ERROR"));
    ctx.check_eq("errors", "", said.join("\n"))
}

fn worlds_at_rest(ctx: &mut Ctx) -> anyhow::Result<()> {
    let plan = differential::Plan { time: Duration::from_secs(8), seed: 1 };
    let tally = differential::run(plan, |_| ())?;
    ctx.check("worlds", tally.worlds > 0)?;
    ctx.check("answers", tally.answers > 0)?;
    ctx.check_eq("errors", "", tally.errors.iter().take(3).cloned().collect::<Vec<_>>().join("\n"))
}
