//! The list of all scenarios, in the order in which they run.
//!
//! A module of [`crate::scenarios`] takes part in the run if it has a row here. The modules that
//! scenarios are made of do not depend on this list.

use std::sync::LazyLock;

use anyhow::bail;

use crate::scenario::{self, Run, Scenario};
use crate::scenarios::{
    boots, cases, check, everything, formats, hanging, hiding, holding, huge_pages, impostors, kernel_refs,
    leaking, machine, making, mapping, names, naming, origins, people, probes, procmap, reconcile, recording,
    rights, serving, shmem, soaking, sources, tracing, unlisted, video,
};

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
            naming::SCENARIOS,
            impostors::SCENARIOS,
            formats::SCENARIOS,
            machine::SCENARIOS,
            rights::SCENARIOS,
            probes::SCENARIOS,
            serving::SCENARIOS,
            check::SCENARIOS,
            shmem::SCENARIOS,
            shmem::listed::SCENARIOS,
            people::SCENARIOS,
            cases::SCENARIOS,
            leaking::SCENARIOS,
            origins::SCENARIOS,
            tracing::SCENARIOS,
            huge_pages::SCENARIOS,
            reconcile::SCENARIOS,
            everything::SCENARIOS,
            hiding::SCENARIOS,
            hanging::SCENARIOS,
            unlisted::SCENARIOS,
            recording::SCENARIOS,
            soaking::SCENARIOS,
        ]
        .into_iter()
        .flatten()
        .copied()
        .collect()
    });
    &ALL
}

/// The scenarios with these `names`, or all if there are no names.
///
/// # Errors
///
/// No scenario has one of the names. The error lists the names that exist.
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

/// The runs called `names`, such as `dup (bpf)`. The name of a scenario means all of its runs, and
/// no names mean all.
///
/// # Errors
///
/// A name that neither a scenario nor a run has.
pub fn select_runs(names: &[String]) -> anyhow::Result<Vec<Run>> {
    let all = scenario::runs(&all().iter().collect::<Vec<_>>());
    let is_called = |run: &Run, name: &String| run.scenario.name == name || run.to_string() == *name;
    if let Some(name) = names.iter().find(|name| !all.iter().any(|run| is_called(run, name))) {
        bail!("unknown scenario or run {name:?}");
    }
    let wanted = |run: &Run| names.is_empty() || names.iter().any(|name| is_called(run, name));
    Ok(all.into_iter().filter(wanted).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::need::Need;
    use crate::scenario::runs;

    /// Check that each name belongs to one scenario.
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

    /// Check that a scenario runs once in each way that it lists, with a name of its own and with
    /// what the way needs, and that a scenario that lists no way runs once.
    #[test]
    fn runs_by_each_way() {
        let runs = runs(&select(&["boots".into(), "dup".into()]).unwrap());
        let names: Vec<String> = runs.iter().map(Run::to_string).collect();
        assert_eq!(names, ["boots", "dup (bpf)", "dup (procfs)"]);
        let needs: Vec<Vec<Need>> = runs.iter().map(|run| run.needs().collect()).collect();
        assert_eq!(needs, [vec![], vec![Need::Iterators], vec![]]);
    }

    /// Check that the table of reports names only scenarios that exist, and every one that replays
    /// a report.
    #[test]
    fn every_case_is_documented() {
        let (table, _) = include_str!("../../../docs/cases.md").split_once("\n## ").unwrap();
        let rows = table.lines().filter(|line| line.starts_with("| ") && line.ends_with("` |"));
        let tests: Vec<&str> = rows
            .filter_map(|row| row.rsplit(" | ").next())
            .flat_map(|cell| cell.split('`').skip(1).step_by(2))
            .collect();
        select(&tests.iter().map(|&name| name.to_owned()).collect::<Vec<_>>()).unwrap();
        let replays = all().iter().map(|scenario| scenario.name).filter(|name| name.starts_with("case_"));
        let missing: Vec<&str> = replays.filter(|name| !tests.contains(name)).collect();
        assert!(!tests.is_empty() && missing.is_empty(), "{missing:?}");
    }

    /// Check that a run can be selected without its scenario's other ones, and an unknown one not.
    #[test]
    fn selects_runs() {
        let select = |names: &[&str]| {
            let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
            Ok::<_, anyhow::Error>(select_runs(&names)?.iter().map(Run::to_string).collect::<Vec<_>>())
        };
        assert_eq!(select(&["dup (procfs)", "boots"]).unwrap(), ["boots", "dup (procfs)"]);
        assert_eq!(select(&["dup"]).unwrap(), ["dup (bpf)", "dup (procfs)"]);
        assert_eq!(select(&[]).unwrap().len(), runs(&all().iter().collect::<Vec<_>>()).len());
        assert!(select(&["boots (bpf)"]).is_err());
    }

    /// Check that an unknown name is an error that lists the known names.
    #[test]
    fn unknown_names_are_refused() {
        let error = select(&["nonsense".to_owned()]).unwrap_err().to_string();
        assert!(error.contains("boots"), "{error}");
        assert_eq!(select(&[]).unwrap().len(), all().len());
    }
}
