//! The `dmabuf` crate on real kernels.

use super::Scenario;

pub(super) const SCENARIOS: &[Scenario] = &[];
