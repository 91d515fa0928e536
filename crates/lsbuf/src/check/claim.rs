//! A claim: one property of the kernel that lsbuf relies on, and the function that tests it.
//!
//! Each group of claims is a table, so a new claim is one more row. [`super`] runs all tables.

use super::judge::Tried;
use super::kit::Kit;

/// A claim: its id, what the kernel should do, what it means for lsbuf's answers if it does not,
/// and the function that tries it.
pub(super) struct Claim {
    pub(super) id: &'static str,
    pub(super) claim: &'static str,
    pub(super) means: &'static str,
    pub(super) trial: fn(&Kit) -> Tried,
}
