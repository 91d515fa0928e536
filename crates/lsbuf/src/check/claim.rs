//! What one row of a family's table says. The families are tables, so that a point is added by adding a row.

use super::judge::Tried;
use super::kit::Kit;

/// A row in the table of a family.
pub(super) struct Claim {
    pub(super) id: &'static str,
    pub(super) claim: &'static str,
    pub(super) means: &'static str,
    pub(super) trial: fn(&Kit) -> Tried,
}
