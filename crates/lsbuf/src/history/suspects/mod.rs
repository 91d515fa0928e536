//! Suspects: groups of buffers that are born and do not die.
//!
//! Whether something leaks is seen over time. Buffers have identities, so what was born, what died
//! and what stays can be counted. Buffers are grouped by the command and cgroup of their holder, by
//! kind, exporter and name with its numbers folded, and by who made them and by which calls, if the
//! recording has that. The range is divided into [`COHORTS`] equal
//! parts. Of each part it is counted how many buffers were born in it, and how many of these are
//! left. In a leak each part leaves some, the old ones too. In a pool the old parts die out.
//!
//! A buffer counts in the group of each of its holders, for as long as that one held it. So a
//! process that keeps what others let go is found. What nobody holds any more, but still exists,
//! counts with those that held it last: that is how a leaked GEM handle looks.
//!
//! The shape of the references does not make groups: while a buffer is being released its shape
//! changes, and what dies would be in another group than what lives.
//!
//! Limits: a suspect is no verdict. A cache that is still filling looks the same. A buffer that
//! grows, and many fds of one buffer, are no new buffers. What lives and dies between two samples
//! is not seen. The bytes of a buffer are those that it had at last, also for the time before.

mod fences;
mod figures;
mod judge;
mod lives;
mod origins;
mod range;
pub(super) mod reader;

use std::time::Duration;

pub use fences::Fences;
pub use judge::Growth;
pub use reader::LivedBuffer;

use super::Sample;
use crate::model::{Bytes, Kind, Label, LeakShape};

/// Into how many parts a range is divided, by when buffers were born.
pub const COHORTS: usize = 8;

/// What a range of a recording says of the groups in it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Suspects {
    /// The first sample of the range. What was there in it is older, and is no birth.
    pub first: Sample,
    /// The last one.
    pub last: Sample,
    /// How many samples the range has.
    pub samples: u64,
    /// How many of these are partial. A buffer that was not seen counts as not there.
    pub partial: u64,
    /// How much time passed: by CLOCK_BOOTTIME within a boot, by the wall clock between boots.
    pub length: Duration,
    /// Every group, worst first.
    pub groups: Vec<Suspect>,
    /// The numbers of sync_files of those that had some, the steepest first.
    pub fences: Vec<Fences>,
}

/// What the buffers of a group have in common.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub struct SuspectKey {
    /// Who holds them; `None`: no process did.
    pub holder: Option<SuspectHolder>,
    /// Their kind.
    pub kind: Kind,
    /// Who made them; `None`: unknown, or they are no dma-bufs.
    pub exporter: Option<Label>,
    /// Their name with its numbers folded ([`folded`](crate::model::folded)); `None`: unknown.
    pub name: Option<Label>,
    /// Who made them; `None`: not known, or not recorded.
    pub origin: Option<SuspectOrigin>,
}

/// Who made buffers, so that it is the same after a restart, and for each buffer of one call.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub struct SuspectOrigin {
    /// Its command name.
    pub command: Label,
    /// The calls of its program ([`Stack::key`](crate::model::Stack::key)); `None`: none is known.
    pub stack: Option<Label>,
}

/// A holder by its command and cgroup, so that it is the same after a restart.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub struct SuspectHolder {
    /// Its command name.
    pub comm: Label,
    /// Its cgroup; `None`: unknown.
    pub cgroup: Option<Label>,
}

/// A group and the evidence that speaks for or against it. What was born is `died` and
/// [`Suspect::left`] together.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Suspect {
    /// What its buffers have in common.
    pub key: SuspectKey,
    /// What the evidence looks like.
    pub growth: Growth,
    /// Buffers that were there at the start of the range.
    pub older: u64,
    /// Those of them that are gone.
    pub older_died: u64,
    /// Buffers that the holder got after the start.
    pub born: u64,
    /// Those of them that are gone.
    pub died: u64,
    /// What was born, by time of birth. There are [`COHORTS`] of them.
    pub cohorts: Vec<Cohort>,
    /// What those that were born and are left cost together; `None`: the cost of one is unknown.
    pub bytes: Option<Bytes>,
    /// How many of those that were born and are left count in another group, too.
    pub shared: u64,
    /// By how much the group grows; `None`: too few samples to say.
    pub slope: Option<Slope>,
    /// How often all its holders ended, with all that they held, and others came.
    pub restarts: u64,
    /// From when to when [`Suspect::growth`] and [`Suspect::slope`] are judged: the whole range, or
    /// the time from one restart to another.
    pub judged: Judged,
    /// From when it was first seen to when it was last seen.
    pub span: Duration,
    /// For how long its oldest buffer that is left has been there within the range; `None`: none is
    /// left.
    pub oldest: Option<Duration>,
    /// The commonest shape of those that were born and are left; `None`: most have none.
    pub shape: Option<LeakShape>,
    /// How many buffers there were, at moments that divide the range evenly.
    pub trend: Vec<u64>,
}

impl Suspect {
    /// How many of those that were born are left.
    #[must_use]
    pub fn left(&self) -> u64 {
        self.cohorts.iter().map(|cohort| cohort.left).sum()
    }

    /// How many buffers there are at the end of the range.
    #[must_use]
    pub fn now(&self) -> u64 {
        self.left() + self.older.saturating_sub(self.older_died)
    }
}

/// What was born in one part of the range.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Cohort {
    /// How many were born.
    pub born: u64,
    /// How many of these are left.
    pub left: u64,
}

/// A straight line through the numbers of buffers over time, by least squares.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Slope {
    /// By how many buffers the group grows in an hour.
    pub buffers_per_hour: f64,
    /// By how many bytes it grows in an hour; `None`: the cost of a buffer is unknown.
    pub bytes_per_hour: Option<f64>,
    /// How well the line of the buffers fits, from 0 to 1; `None`: their number never changed.
    pub r2: Option<f64>,
}

/// The time that was judged, counted from the start of the range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Judged {
    /// Where it begins.
    pub from: Duration,
    /// Where it ends.
    pub until: Duration,
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod worlds;
