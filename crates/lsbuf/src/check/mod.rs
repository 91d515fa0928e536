//! Tests whether this kernel counts and reports as lsbuf assumes.
//!
//! lsbuf's answers rest on properties of the kernel that no test of the kernel itself checks: that
//! each buffer has its own inode number, that `count` changes by one for each fd and VMA, that an
//! import takes three references. Here each property is a [`Point`], tried on buffers that the
//! check makes itself, from every exporter that it may use. A point says what it means for lsbuf's
//! answers if it fails.
//!
//! Each group of claims has a module with a table of claims; `kit` has what they share. A claim
//! gathers facts and gives them to a function that judges them, so that tests can forge the facts.
//! Facts are read with the parsers that a scan uses; formats are compared as text.
//!
//! Limits: the exporters are the system heap, udmabuf and vgem; other drivers may behave
//! differently. For a second the check takes a few MiB, a few hundred fds and one more process; it
//! leaves nothing behind. To find vgem it opens the primary DRM nodes one by one, which can wake a
//! sleeping GPU.

mod child;
mod claim;
mod cost;
mod count;
mod fdinfo;
mod identity;
mod inode;
mod judge;
mod kit;
mod lists;
mod mappings;
mod names;

use rustix::system::uname;

pub use child::{Helper, assist};
use claim::Claim;
use judge::Fault;
use kit::{Exporter, Kit, Missing};

/// What a check may use.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// How to start a second process; without it, points that need one are skipped.
    pub helper: Option<Helper>,
}

/// The result of trying a claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The claim is true of this kernel.
    Ok,
    /// The claim is false.
    NotOk {
        /// What was seen instead.
        seen: String,
    },
    /// The claim could not be tried.
    Skip {
        /// What was missing.
        why: String,
    },
}

/// One claim and its result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Point {
    /// A name that stays the same, for programs.
    pub id: &'static str,
    /// What the kernel should do.
    pub claim: &'static str,
    /// What it means for lsbuf's answers if the kernel does not.
    pub means: &'static str,
    /// The result.
    pub outcome: Outcome,
}

/// The result of a check.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Lines for people: the kernel, the exporters, what a buffer costs.
    pub notes: Vec<String>,
    /// Every claim, in a fixed order. Empty if nothing could be tried.
    pub points: Vec<Point>,
    /// Why nothing could be tried.
    pub bail_out: Option<String>,
}

impl Report {
    /// Whether the claims could be tried and none is false.
    #[must_use]
    pub fn holds(&self) -> bool {
        let failed = |point: &Point| matches!(point.outcome, Outcome::NotOk { .. });
        self.bail_out.is_none() && !self.points.iter().any(failed)
    }
}

const CLAIM_TABLES: &[&[Claim]] = &[
    identity::CLAIMS,
    inode::CLAIMS,
    fdinfo::CLAIMS,
    count::CLAIMS,
    lists::CLAIMS,
    names::CLAIMS,
    mappings::CLAIMS,
];

/// Tries every claim.
#[must_use]
pub fn run(options: Options) -> Report {
    let bail_out = |notes, why: &str| Report { notes, bail_out: Some(why.to_owned()), ..Report::default() };
    let kit = match Kit::open(options.helper) {
        Ok(kit) => kit,
        Err(Fault::Broken(why) | Fault::Untried(why)) => return bail_out(Vec::new(), &why),
    };
    let uname = uname();
    let mut notes =
        vec![format!("kernel {} {}", uname.release().to_string_lossy(), uname.machine().to_string_lossy())];
    let without = |missing: &Missing| format!("without {}: {}", missing.what.name(), missing.why);
    notes.extend(kit.missing().iter().map(without));
    let exporters: Vec<&str> = kit.exporters().map(Exporter::name).collect();
    if exporters.is_empty() {
        return bail_out(notes, nothing_to_try(kit.missing()));
    }
    notes.push(format!("with {}", exporters.join(", ")));
    let points =
        CLAIM_TABLES.iter().flat_map(|table| table.iter()).map(|claim| claim.try_with(&kit)).collect();
    notes.extend(cost::notes(&kit));
    Report { notes, points, bail_out: None }
}

/// Advice for a user who can make no buffer on this machine.
fn nothing_to_try(missing: &[Missing]) -> &'static str {
    if missing.iter().any(|missing| missing.denied) {
        "no dma-buf can be made here by this user: run as root, or get access to one of the devices named above"
    } else {
        "no dma-buf can be made here: as root, modprobe vgem or modprobe udmabuf"
    }
}

impl Claim {
    fn try_with(&self, kit: &Kit) -> Point {
        let Claim { id, claim, means, trial } = *self;
        let outcome = match trial(kit) {
            Ok(()) => Outcome::Ok,
            Err(Fault::Broken(seen)) => Outcome::NotOk { seen },
            Err(Fault::Untried(why)) => Outcome::Skip { why },
        };
        Point { id, claim, means, outcome }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn claims() -> impl Iterator<Item = &'static Claim> {
        CLAIM_TABLES.iter().flat_map(|table| table.iter())
    }

    /// Check that ids are unique, and simple enough for scripts and TAP readers to parse.
    #[test]
    fn ids_are_stable_words() {
        let mut seen = HashSet::new();
        for Claim { id, .. } in claims() {
            assert!(seen.insert(id), "{id} twice");
            assert!(id.bytes().all(|b| b == b'-' || b.is_ascii_lowercase() || b.is_ascii_digit()), "{id}");
        }
    }

    /// Check that each claim and what it means are one line of text.
    #[test]
    fn claims_are_lines() {
        for Claim { id, claim, means, .. } in claims() {
            for text in [claim, means] {
                assert!(!text.is_empty() && !text.contains('\n') && !text.ends_with('.'), "{id}: {text}");
            }
        }
    }

    /// Check that a user without access is told to get it, and that one without any exporter is
    /// told what to load.
    #[test]
    fn says_what_to_do() {
        let missing = |what, denied| Missing { what, why: String::new(), denied };
        let absent = nothing_to_try(&[missing(Exporter::Udmabuf, false), missing(Exporter::Vgem, false)]);
        assert!(absent.contains("modprobe vgem"), "{absent}");
        let denied = nothing_to_try(&[missing(Exporter::Udmabuf, true), missing(Exporter::Vgem, false)]);
        assert!(denied.contains("run as root") && !denied.contains("modprobe"), "{denied}");
    }

    /// Check that only a false claim makes a report fail, and a claim that was not tried does not.
    #[test]
    fn only_false_claims_fail() {
        let point = |outcome| Point { id: "x", claim: "c", means: "m", outcome };
        let report = |outcome| Report { points: vec![point(outcome)], ..Report::default() };
        assert!(report(Outcome::Ok).holds());
        assert!(report(Outcome::Skip { why: String::new() }).holds());
        assert!(!report(Outcome::NotOk { seen: String::new() }).holds());
        assert!(!Report { bail_out: Some(String::new()), ..Report::default() }.holds());
    }
}
