//! The kernel's clocks, in nanoseconds.

use rustix::time::{ClockId, clock_gettime};

/// Nanoseconds on a clock.
pub(crate) fn now(clock: ClockId) -> u64 {
    let time = clock_gettime(clock);
    u64::try_from(time.tv_sec * 1_000_000_000 + time.tv_nsec).unwrap_or(0)
}
