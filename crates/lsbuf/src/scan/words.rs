//! Parses the words of `--source`.
//!
//! A library can set [`Sources`] field by field; a command has one word for each useful choice.
//!
//! Limits: choices that have no word can only be made field by field.

use std::str::FromStr;

use super::options::{Mappings, Sources, Way};

const WAYS: &[(&str, Mappings)] = &[
    ("procfs", Mappings::Procfs),
    ("procmap", Mappings::Procmap),
    ("maps", Mappings::Maps),
    ("map_files", Mappings::MapFiles),
];

const VALID: &str =
    "valid: auto, bpf; or one of procfs, procmap, maps, map_files, each alone or with ,bufinfo";

/// Parses `auto`, `bpf`, or one way to read mappings, alone or with `,bufinfo`. The error is one
/// line that names the valid words.
impl FromStr for Sources {
    type Err = String;

    fn from_str(text: &str) -> Result<Sources, String> {
        let (word, kernel_list) = match text {
            "auto" => return Ok(Sources::default()),
            "bpf" => return Ok(Sources { way: Way::Iterators, ..Sources::default() }),
            "bufinfo" => return Err(format!("bufinfo knows no holders; {VALID}")),
            _ => match text.strip_suffix(",bufinfo").or(text.strip_prefix("bufinfo,")) {
                Some(word) => (word, true),
                None => (text, false),
            },
        };
        let mappings = WAYS.iter().find(|(name, _)| *name == word).map(|&(_, mappings)| mappings);
        let mappings = mappings.ok_or_else(|| format!("no such sources; {VALID}"))?;
        Ok(Sources { way: Way::Procfs, mappings, kernel_list, ..Sources::default() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check that each word means its source, and that what would show no holders is refused.
    #[test]
    fn sources_are_chosen() {
        let sources = str::parse::<Sources>;
        assert_eq!(sources("auto"), Ok(Sources::default()));
        let procfs = Sources { way: Way::Procfs, ..Sources::default() };
        assert_eq!(sources("procfs,bufinfo"), Ok(procfs));
        let text =
            Sources { way: Way::Procfs, mappings: Mappings::Maps, kernel_list: false, ..Sources::default() };
        assert_eq!(sources("maps"), Ok(text));
        assert_eq!(sources("bufinfo,maps"), Ok(Sources { kernel_list: true, ..text }));
        for bad in
            ["procfs,map_files", "bufinfo", "bufinfo,bufinfo", "procfs,bufinfo,bufinfo", "auto,bufinfo", ""]
        {
            assert!(sources(bad).is_err(), "{bad:?}");
        }
    }
}
