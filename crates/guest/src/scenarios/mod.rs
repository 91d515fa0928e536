//! The tests that run in real kernels.
//!
//! A scenario makes a situation whose answer it knows, asks, and compares. It states one claim, says what it needs
//! of the kernel, and runs in a process of its own, once by each way to ask that it lists. Add one by writing a function and a
//! row in the `SCENARIOS` of a module here.

mod boots;
pub mod check;
mod formats;
mod hanging;
mod hiding;
mod holding;
mod impostors;
mod kernel_refs;
mod machine;
mod making;
mod mapping;
mod names;
mod probes;
mod procmap;
mod reconcile;
mod rights;
mod shmem;
mod soaking;
mod sources;
mod video;

use std::fmt;
use std::sync::LazyLock;

use anyhow::bail;
pub(crate) use hiding::{INCARNATION, become_next};
pub(crate) use names::HOSTILE;

use crate::need::Need;
use crate::runner::Ctx;
use crate::way::Way;

/// One test.
#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    /// Its name on the command line and in reports.
    pub name: &'static str,
    /// What it shows, as one sentence.
    pub claim: &'static str,
    /// What the kernel must have for it to run.
    pub needs: &'static [Need],
    /// By which ways it has lsbuf ask the kernel, once each. None for one that does not have it ask, or says itself how.
    pub ways: &'static [Way],
    /// Runs it. An error is a failure.
    pub run: fn(&mut Ctx) -> anyhow::Result<()>,
}

/// One run of a scenario. Written as its name, and by which way it asks: `dup (bpf)`.
#[derive(Clone, Copy, Debug)]
pub struct Run {
    /// What is run.
    pub scenario: &'static Scenario,
    /// By which way lsbuf is asked, if it is.
    pub way: Option<Way>,
}

impl Run {
    /// What the kernel must have for it.
    pub fn needs(self) -> impl Iterator<Item = Need> {
        let ways = self.way.map_or(&[][..], Way::needs);
        self.scenario.needs.iter().chain(ways).copied()
    }
}

impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.scenario.name)?;
        self.way.map_or(Ok(()), |way| write!(f, " ({way})"))
    }
}

/// Every run of these scenarios, in their order.
pub fn runs(scenarios: &[&'static Scenario]) -> Vec<Run> {
    let each = |&scenario: &&'static Scenario| {
        let none = scenario.ways.is_empty().then_some(None);
        let ways = none.into_iter().chain(scenario.ways.iter().copied().map(Some));
        ways.map(move |way| Run { scenario, way })
    };
    scenarios.iter().flat_map(each).collect()
}

/// Every scenario, in the order in which they run.
pub fn all() -> &'static [Scenario] {
    static ALL: LazyLock<Vec<Scenario>> = LazyLock::new(|| {
        [
            boots::SCENARIOS,
            making::SCENARIOS,
            holding::SCENARIOS,
            mapping::SCENARIOS,
            sources::SCENARIOS,
            procmap::SCENARIOS,
            kernel_refs::SCENARIOS,
            video::SCENARIOS,
            names::SCENARIOS,
            impostors::SCENARIOS,
            formats::SCENARIOS,
            machine::SCENARIOS,
            rights::SCENARIOS,
            probes::SCENARIOS,
            check::SCENARIOS,
            shmem::SCENARIOS,
            reconcile::SCENARIOS,
            hiding::SCENARIOS,
            hanging::SCENARIOS,
            soaking::SCENARIOS,
        ]
        .into_iter()
        .flatten()
        .copied()
        .collect()
    });
    &ALL
}

/// The scenarios called `names`, or all if there are no names.
///
/// # Errors
///
/// A name that no scenario has; the error lists those that exist.
pub fn select(names: &[String]) -> anyhow::Result<Vec<&'static Scenario>> {
    for name in names {
        if !all().iter().any(|scenario| scenario.name == name) {
            let valid: Vec<&str> = all().iter().map(|scenario| scenario.name).collect();
            bail!("unknown scenario {name:?}; valid: {}", valid.join(", "));
        }
    }
    let wanted = |scenario: &&Scenario| names.is_empty() || names.iter().any(|name| name == scenario.name);
    Ok(all().iter().filter(wanted).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check that a name means one scenario.
    #[test]
    fn names_are_unique() {
        for (index, scenario) in all().iter().enumerate() {
            assert!(
                all().iter().skip(index + 1).all(|other| other.name != scenario.name),
                "{}",
                scenario.name
            );
        }
    }

    /// Check that a scenario runs by every way that it lists, under a name of its own and with what the way needs, and one
    /// that lists none just once.
    #[test]
    fn runs_by_each_way() {
        let runs = runs(&select(&["boots".into(), "dup".into()]).unwrap());
        let names: Vec<String> = runs.iter().map(Run::to_string).collect();
        assert_eq!(names, ["boots", "dup (bpf)", "dup (procfs)"]);
        let needs: Vec<Vec<Need>> = runs.iter().map(|run| run.needs().collect()).collect();
        assert_eq!(needs, [vec![], vec![Need::Iterators], vec![]]);
    }

    /// Check that an unknown name is an error which lists the known ones.
    #[test]
    fn unknown_names_are_refused() {
        let error = select(&["nonsense".to_owned()]).unwrap_err().to_string();
        assert!(error.contains("boots"), "{error}");
        assert_eq!(select(&[]).unwrap().len(), all().len());
    }
}
