//! Tells a leak from a cache that is full, from a pool that breathes, and from what is too short to
//! say, by who survives.
//!
//! Growth alone proves nothing: more load needs more buffers. Under load the old ones die and young
//! ones take their place. In a leak those that have lived long do not die any more.

use super::figures::Counts;

/// What the evidence of a group looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Growth {
    /// Each part of the time leaves survivors, the old ones do not die, and it goes on.
    Growing,
    /// There are too few samples, or too few were born, to say.
    TooShort,
    /// What was born dies again.
    Churn,
    /// It has filled, and stands: a cache.
    Plateau,
}

impl Growth {
    /// Each of them, the worst first.
    pub const ALL: [Growth; 4] = [Growth::Growing, Growth::TooShort, Growth::Churn, Growth::Plateau];

    /// The word for it in JSON and on the terminal.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Growth::Growing => "growing",
            Growth::TooShort => "too short",
            Growth::Churn => "churn",
            Growth::Plateau => "plateau",
        }
    }
}

/// Fewest samples: two for each cohort.
pub(super) const LEAST_SAMPLES: usize = 16;

/// Fewest survivors of a group that grows: a step or two may have any reason.
const LEAST_LEFT: u64 = 6;

/// Fewest cohorts of a group that grows which leave survivors, of 8.
const LEAST_COHORTS: usize = 5;

/// Cohorts whose buffers are all young: those of the last quarter.
pub(super) const YOUNG: usize = 2;

/// What is to be said of buffers with these counts.
pub(super) fn judge(counts: &Counts) -> Growth {
    if counts.samples < LEAST_SAMPLES {
        return Growth::TooShort;
    }
    if is_growing(counts) {
        return Growth::Growing;
    }
    let (born, died, left) = (counts.born(), counts.died() + counts.older_died, counts.left());
    let now = left + counts.older - counts.older_died;
    let late_born: u64 = counts.young().iter().map(|cohort| cohort.born).sum();
    let is_small = |number: u64| number * 10 <= now;
    let replaces = born >= LEAST_LEFT && late_born > 0 && counts.late_died > 0;
    if now > 0 && is_small(late_born) && is_small(counts.late_died) && !replaces {
        return Growth::Plateau;
    }
    if died > 0 && died * 2 >= left { Growth::Churn } else { Growth::TooShort }
}

fn is_growing(counts: &Counts) -> bool {
    let leave = |cohorts: &[super::Cohort]| cohorts.iter().filter(|cohort| cohort.left > 0).count();
    let (early, late) = counts.cohorts.split_at(counts.cohorts.len() / 2);
    let old = counts.old();
    let (left_late, left) = (sum_left(late), counts.left());
    let died_out = old.iter().filter(|cohort| cohort.born > 0 && cohort.left == 0).count();
    // Enough to speak of, in most cohorts and in both halves.
    left >= LEAST_LEFT
        && leave(&counts.cohorts) >= LEAST_COHORTS
        && leave(early) >= 2
        && leave(late) >= 2
        // Old cohorts leave survivors: at most one in four of them dies out.
        && leave(old) >= 3
        && died_out * 3 <= leave(old)
        // It goes on: the second half adds a fifth or more, and the last quarter adds something.
        && left_late * 5 >= left
        && sum_left(counts.young()) * 16 >= left
        // Those that have lived long stay: at most one in five of them dies.
        && counts.aged_died * 5 <= counts.aged
        // They do not only take the place of older ones.
        && counts.older_aged_died * 2 <= sum_left(old)
}

fn sum_left(cohorts: &[super::Cohort]) -> u64 {
    cohorts.iter().map(|cohort| cohort.left).sum()
}
