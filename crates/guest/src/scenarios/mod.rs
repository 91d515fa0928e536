//! The tests that run in real kernels.
//!
//! A scenario makes a situation whose answer it knows, asks, and compares. It states one claim, says what it needs
//! of the kernel, and runs in a process of its own. Add one by writing a function and a row in the `SCENARIOS` of a module here.

mod boots;
pub mod check;
mod formats;
mod hiding;
mod holding;
mod impostors;
mod kernel_refs;
mod machine;
mod making;
mod mapping;
mod names;
mod rights;
mod soaking;
mod video;

use std::sync::LazyLock;

use anyhow::bail;
pub(crate) use hiding::{INCARNATION, become_next};
pub(crate) use names::HOSTILE;

use crate::need::Need;
use crate::runner::Ctx;

/// One test.
#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    /// Its name on the command line and in reports.
    pub name: &'static str,
    /// What it shows, as one sentence.
    pub claim: &'static str,
    /// What the kernel must have for it to run.
    pub needs: &'static [Need],
    /// Runs it. An error is a failure.
    pub run: fn(&mut Ctx) -> anyhow::Result<()>,
}

/// Every scenario, in the order in which they run.
pub fn all() -> &'static [Scenario] {
    static ALL: LazyLock<Vec<Scenario>> = LazyLock::new(|| {
        [
            boots::SCENARIOS,
            making::SCENARIOS,
            holding::SCENARIOS,
            mapping::SCENARIOS,
            kernel_refs::SCENARIOS,
            video::SCENARIOS,
            names::SCENARIOS,
            impostors::SCENARIOS,
            formats::SCENARIOS,
            machine::SCENARIOS,
            rights::SCENARIOS,
            check::SCENARIOS,
            hiding::SCENARIOS,
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

    /// Check that an unknown name is an error which lists the known ones.
    #[test]
    fn unknown_names_are_refused() {
        let error = select(&["nonsense".to_owned()]).unwrap_err().to_string();
        assert!(error.contains("boots"), "{error}");
        assert_eq!(select(&[]).unwrap().len(), all().len());
    }
}
