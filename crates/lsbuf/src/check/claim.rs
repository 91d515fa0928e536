//! A row of a table of claims.
//!
//! The claims are tables, so that a new claim is one more row.

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
