//! The flight recorder: what it says of who made a buffer is what the test did.
//!
//! The recorder is installed by each scenario and removed at its end. It sees the whole machine, so
//! the scenarios look only for the buffers that they have made.

mod group;
mod kinds;
mod kit;
mod losses;
mod makers;

use crate::kernels::Kernels;
use crate::need::Need;
use crate::scenario::Scenario;

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "origins_of_every_kind",
        claim: "Of each buffer that is made after the recorder was installed lsbuf tells its maker and when, and of those before that they are older",
        needs: &[],
        kernels: Kernels::Every,
        ways: &[],
        run: kinds::of_every_kind,
    },
    Scenario {
        name: "origins_of_makers_that_change",
        claim: "The maker is told as it was then: a thread, a process that has exited, another user, a process that has given the buffer away",
        needs: &[],
        kernels: Kernels::Every,
        ways: &[],
        run: makers::of_makers_that_change,
    },
    Scenario {
        name: "origins_in_a_storm",
        claim: "Of many births and deaths at once every one is recorded or counted as lost, and what is recorded afterwards is what lives",
        needs: &[],
        kernels: Kernels::Every,
        ways: &[],
        run: losses::in_a_storm,
    },
    Scenario {
        name: "origins_with_too_little_room",
        claim: "A full map loses births and says how many; what is recorded stays right, and what is not is unknown",
        needs: &[],
        kernels: Kernels::OldestAndNewest,
        ways: &[],
        run: losses::with_too_little_room,
    },
    Scenario {
        name: "origins_for_a_group",
        claim: "A member of the group reads the records and no address of the kernel, others read nothing, and neither can change them",
        needs: &[Need::Iterators],
        kernels: Kernels::OldestAndNewest,
        ways: &[],
        run: group::for_a_group,
    },
];
