//! The table of kernels, `xtask/kernels.toml`, and the selection of kernels from it.

use anyhow::Context;
use lsbuf_guest::need::Need;
use serde::Deserialize;

use crate::arch::Arch;
use crate::cmd::Usage;
use crate::pattern;

/// One row of the table. The file's head explains the fields.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Kernel {
    pub(crate) id: String,
    #[serde(default)]
    pub(crate) arch: Arch,
    #[serde(default)]
    pub(crate) default: bool,
    pub(crate) suites: Vec<String>,
    pub(crate) packages: Vec<String>,
    pub(crate) modules: Vec<String>,
    pub(crate) lacks: Vec<Need>,
    breaks: Vec<String>,
    skips: Vec<String>,
}

/// What `lsbuf check` should find in a kernel, by the ids of points; all others hold.
#[derive(Clone, Debug)]
pub(crate) struct Contract {
    /// Points that do not hold.
    pub(crate) breaks: Vec<String>,
    /// Points that cannot be tried.
    pub(crate) skips: Vec<String>,
}

impl Kernel {
    /// What `lsbuf check` should find in it.
    pub(crate) fn contract(&self) -> Contract {
        Contract { breaks: self.breaks.clone(), skips: self.skips.clone() }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    points: Vec<String>,
    kernel: Vec<Kernel>,
}

/// Reads the file, which is compiled in.
fn read() -> anyhow::Result<Table> {
    toml::from_str(include_str!("../kernels.toml")).context("parsing xtask/kernels.toml")
}

/// The table of kernels.
pub(crate) fn table() -> anyhow::Result<Vec<Kernel>> {
    Ok(read()?.kernel)
}

/// Its rows for one architecture.
fn table_of(arch: Arch) -> anyhow::Result<Vec<Kernel>> {
    Ok(table()?.into_iter().filter(|kernel| kernel.arch == arch).collect())
}

/// The ids of all points of `lsbuf check`.
pub(crate) fn points() -> anyhow::Result<Vec<String>> {
    Ok(read()?.points)
}

/// All rows of that architecture if `all`. Else those of its rows that match any of `patterns`, or
/// its default ones if there are no patterns. They keep the order of the table.
pub(crate) fn select(arch: Arch, patterns: &[String], all: bool) -> anyhow::Result<Vec<Kernel>> {
    let table = table_of(arch)?;
    let matches = |kernel: &Kernel, pattern: &String| pattern::capture(pattern, &kernel.id).is_some();
    if let Some(stray) = patterns.iter().find(|pattern| !table.iter().any(|kernel| matches(kernel, pattern)))
    {
        let ids: Vec<&str> = table.iter().map(|kernel| kernel.id.as_str()).collect();
        let message = format!(
            "no {} kernel matches {stray:?}; valid: {} (or a pattern like '6.*')",
            arch.name(),
            ids.join(", ")
        );
        return Err(Usage(message).into());
    }
    let wanted = |kernel: &Kernel| {
        all || patterns.iter().any(|pattern| matches(kernel, pattern))
            || (patterns.is_empty() && kernel.default)
    };
    Ok(table.into_iter().filter(wanted).collect())
}

/// The one kernel of that architecture that `pattern` selects for a command that boots just one:
/// the newest match.
pub(crate) fn select_one(arch: Arch, pattern: Option<&String>) -> anyhow::Result<Kernel> {
    let patterns: Vec<String> = pattern.into_iter().cloned().collect();
    select(arch, &patterns, false)?.pop().context("the table of kernels is empty")
}

/// Fails if `kernel` does not meet the `needs` of `what`. The error names the kernels that do, of
/// any architecture.
pub(crate) fn require(kernel: &Kernel, what: &str, needs: &[Need]) -> anyhow::Result<()> {
    let lacked = |kernel: &Kernel| -> Vec<&str> {
        needs.iter().filter(|need| kernel.lacks.contains(need)).map(|need| need.name()).collect()
    };
    let lacks = lacked(kernel);
    if lacks.is_empty() {
        return Ok(());
    }
    let able: Vec<String> =
        table()?.into_iter().filter(|other| lacked(other).is_empty()).map(|other| other.id).collect();
    let message = format!(
        "kernel {} lacks {}, which {what} needs; kernels that have it: {}",
        kernel.id,
        lacks.join(" and "),
        able.join(", ")
    );
    Err(Usage(message).into())
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn ids(patterns: &[&str], all: bool) -> anyhow::Result<Vec<String>> {
        let patterns: Vec<String> = patterns.iter().map(|&pattern| pattern.to_owned()).collect();
        Ok(select(Arch::Amd64, &patterns, all)?.into_iter().map(|kernel| kernel.id).collect())
    }

    /// Check that the shipped table parses, that its ids are unique, and that every package name
    /// can be resolved.
    #[test]
    fn table_is_sound() {
        let table = table().unwrap();
        for (index, kernel) in table.iter().enumerate() {
            assert!(table.iter().skip(index + 1).all(|other| other.id != kernel.id), "{}", kernel.id);
            assert!(!kernel.suites.is_empty() && !kernel.packages.is_empty(), "{}", kernel.id);
            assert!(kernel.packages.iter().all(|name| name.matches('*').count() == 1), "{}", kernel.id);
        }
    }

    /// Check that no point is listed twice, and that what a kernel breaks or skips is a point and
    /// not both.
    #[test]
    fn contracts_are_sound() {
        let points = points().unwrap();
        for kernel in table().unwrap() {
            let Contract { breaks, skips } = kernel.contract();
            let mut listed: Vec<&String> = breaks.iter().chain(&skips).collect();
            assert!(listed.iter().all(|id| points.contains(id)), "{}: {listed:?}", kernel.id);
            listed.extend(&points);
            let (all, distinct) = (listed.len(), listed.into_iter().collect::<HashSet<_>>().len());
            assert_eq!(
                (all - breaks.len() - skips.len(), distinct),
                (points.len(), points.len()),
                "{}",
                kernel.id
            );
            assert!(breaks.iter().all(|id| !skips.contains(id)), "{}", kernel.id);
        }
    }

    /// Check that patterns, the default and all select what they say, in the table's order.
    #[test]
    fn selects() {
        assert_eq!(ids(&[], false).unwrap(), ["5.10", "6.1", "6.12", "6.18", "7.2", "7.3"]);
        assert_eq!(ids(&["7.2", "6.1*"], false).unwrap(), ["6.1", "6.12", "6.18", "7.2"]);
        assert_eq!(ids(&["6.1"], false).unwrap(), ["6.1"]);
        assert!(ids(&[], true).unwrap().len() >= 6);
        assert_eq!(select_one(Arch::Amd64, None).unwrap().id, "7.3");
    }

    /// Check that an unknown pattern is a usage error that lists the valid ids.
    #[test]
    fn unknown_pattern_is_usage() {
        let error = ids(&["4.19"], false).unwrap_err();
        assert!(error.is::<Usage>() && error.to_string().contains("5.10"), "{error}");
    }

    /// Check that a kernel which lacks a need is refused in one line with those that meet it, and
    /// no other is refused.
    #[test]
    fn lacks_are_refused() {
        let needs = &[Need::Heap, Need::Udmabuf, Need::Vgem];
        let kernel = |id: &str| select_one(Arch::Amd64, Some(&id.to_owned())).unwrap();
        let error = require(&kernel("5.10"), "the demo", needs).unwrap_err();
        assert!(error.is::<Usage>());
        assert_eq!(
            error.to_string(),
            "kernel 5.10 lacks heap and udmabuf, which the demo needs; kernels that have it: 6.12, 6.18, 7.2, 7.3"
        );
        require(&kernel("6.12"), "the demo", needs).unwrap();
    }
}
