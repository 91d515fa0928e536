//! The flight recorder: what it says of who made a buffer is what the test did.
//!
//! The recorder is installed by each scenario and removed at its end. It sees the whole machine, so
//! the scenarios look only for the buffers that they have made.

mod clients;
mod container;
mod group;
mod kinds;
mod kit;
mod losses;
mod makers;
pub(in crate::scenarios) mod program;
mod programs;

use crate::kernels::Kernels;
use crate::need::Need;
use crate::scenario::Scenario;

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "origins_of_every_kind",
        claim: "Of each buffer that is made after the recorder was installed lsbuf tells its maker and when, and of those before that they are older",
        needs: &[Need::Fentry],
        kernels: Kernels::Every,
        ways: &[],
        run: kinds::of_every_kind,
    },
    Scenario {
        name: "origins_of_makers_that_change",
        claim: "The maker is told as it was then: a thread, a process that has exited, another user, a process that has given the buffer away",
        needs: &[Need::Fentry],
        kernels: Kernels::Every,
        ways: &[],
        run: makers::of_makers_that_change,
    },
    Scenario {
        name: "origins_of_clients",
        claim: "Of each buffer that a process makes for others and sends them, lsbuf names who received it first; neither a later receiver nor whom the first one gives it replaces that",
        needs: &[],
        kernels: Kernels::Every,
        ways: &[],
        run: clients::of_clients,
    },
    Scenario {
        name: "origins_of_no_clients",
        claim: "Nobody is the client who takes a buffer, who gets it from a forked child of the maker, or who could not take it; to look at a message changes nothing",
        needs: &[],
        kernels: Kernels::Every,
        ways: &[],
        run: clients::of_no_clients,
    },
    Scenario {
        name: "origins_of_clients_in_a_race",
        claim: "If two processes receive a buffer one after the other, the first one is named, however short the time between",
        needs: &[],
        kernels: Kernels::Every,
        ways: &[],
        run: clients::of_clients_in_a_race,
    },
    Scenario {
        name: "origins_in_a_storm",
        claim: "Of many births and deaths at once every one is recorded or counted as lost, and what is recorded afterwards is what lives",
        needs: &[Need::Fentry],
        kernels: Kernels::Every,
        ways: &[],
        run: losses::in_a_storm,
    },
    Scenario {
        name: "origins_with_too_little_room",
        claim: "A full map loses births and says how many; what is recorded stays right, and what is not is unknown",
        needs: &[Need::Fentry],
        kernels: Kernels::OldestAndNewest,
        ways: &[],
        run: losses::with_too_little_room,
    },
    Scenario {
        name: "origins_for_a_group",
        claim: "A member of the group reads the records and no address of the kernel, others read nothing, and neither can change them",
        needs: &[Need::Iterators, Need::Fentry],
        kernels: Kernels::OldestAndNewest,
        ways: &[],
        run: group::for_a_group,
    },
    Scenario {
        name: "origins_of_programs",
        claim: "A program is told as the maker with its calls: at a fixed address or not; without symbols the file and place, without a build id the address",
        needs: &[Need::Fentry],
        kernels: Kernels::Every,
        ways: &[],
        run: programs::as_built,
    },
    Scenario {
        name: "origins_of_deep_calls",
        claim: "Of 32 calls all are told; of more than a record has room for the innermost ones, and that they are truncated",
        needs: &[Need::Fentry],
        kernels: Kernels::OldestAndNewest,
        ways: &[],
        run: programs::deep,
    },
    Scenario {
        name: "origins_of_deleted_programs",
        claim: "The calls of a program have their names when its file is deleted, also if another file has its path",
        needs: &[Need::Fentry],
        kernels: Kernels::OldestAndNewest,
        ways: &[],
        run: programs::deleted,
    },
    Scenario {
        name: "origins_of_hostile_programs",
        claim: "The name of a program that breaks lines is told as it is in JSON, and escaped elsewhere",
        needs: &[Need::Fentry],
        kernels: Kernels::OldestAndNewest,
        ways: &[],
        run: programs::hostile_name,
    },
    Scenario {
        name: "origins_of_setuid_programs",
        claim: "The maker's user is who started the program, also if that runs with the rights of another",
        needs: &[Need::Fentry],
        kernels: Kernels::OldestAndNewest,
        ways: &[],
        run: programs::setuid,
    },
    Scenario {
        name: "origins_of_makers_that_left",
        claim: "A maker that has exited or executed another program is told as it was; its calls have names if lsbuf saw it before, else places",
        needs: &[Need::Fentry],
        kernels: Kernels::OldestAndNewest,
        ways: &[],
        run: programs::left,
    },
    Scenario {
        name: "origins_of_containers",
        claim: "A maker in a container is told by its pid, user and cgroup outside, and its calls by a file that only the container has",
        needs: &[Need::Fentry],
        kernels: Kernels::OldestAndNewest,
        ways: &[],
        run: container::in_a_container,
    },
    Scenario {
        name: "origins_asked_in_a_container",
        claim: "In another pid namespace no maker is told by its pid in the first one, and a note says why",
        needs: &[Need::Fentry],
        kernels: Kernels::OldestAndNewest,
        ways: &[],
        run: container::asked_in_a_container,
    },
    Scenario {
        name: "origins_refused",
        claim: "Where the kernel runs no programs at its functions, the recorder is refused with one line that says so, and nothing is left of it",
        needs: &[],
        kernels: Kernels::OneOfEach(&[Need::Fentry]),
        ways: &[],
        run: group::refused,
    },
];
