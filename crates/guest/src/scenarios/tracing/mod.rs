//! `lsbuf trace`: what it says has happened is what the test did.

mod command;
mod kit;
mod lives;
mod passing;
mod storm;
mod unwind;

use crate::kernels::Kernels;
use crate::need::Need;
use crate::scenario::Scenario;

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "trace_of_lives",
        claim: "Of buffers of each kind the trace tells each birth, fd, mapping and end once, in order, with who did it",
        needs: &[Need::Fentry],
        kernels: Kernels::Every,
        ways: &[],
        run: lives::of_each_kind,
    },
    Scenario {
        name: "trace_of_a_dmabuf",
        claim: "Of a dma-buf the trace also tells its new name and the devices that are attached to it",
        needs: &[Need::Fentry],
        kernels: Kernels::Every,
        ways: &[],
        run: lives::of_a_dmabuf,
    },
    Scenario {
        name: "trace_of_passing",
        claim: "Who receives an fd, in which way, and from whom, is told, also of a message that was looked at before",
        needs: &[Need::Fentry],
        kernels: Kernels::Every,
        ways: &[],
        run: passing::of_fds,
    },
    Scenario {
        name: "trace_in_a_storm",
        claim: "Of many births and deaths at once each is told once, or counted as lost",
        needs: &[Need::Fentry],
        kernels: Kernels::OldestAndNewest,
        ways: &[],
        run: storm::in_a_storm,
    },
    Scenario {
        name: "trace_that_is_not_read",
        claim: "Events without room are counted, where they are missing and at the end, and --strict makes that status 3",
        needs: &[Need::Fentry],
        kernels: Kernels::OldestAndNewest,
        ways: &[],
        run: storm::not_read,
    },
    Scenario {
        name: "trace_of_a_command",
        claim: "Of a command only its own processes and their buffers are told, with what was made, freed and left, and its status",
        needs: &[Need::Fentry],
        kernels: Kernels::OldestAndNewest,
        ways: &[],
        run: command::of_a_command,
    },
    Scenario {
        name: "trace_without_frame_pointers",
        claim: "Of a program without frame pointers --unwind dwarf tells all calls, which frame pointers do not; of more stack than is copied the innermost ones, and that they are truncated; of a process that has gone that they are by frame pointers",
        needs: &[Need::Fentry],
        kernels: Kernels::OldestAndNewest,
        ways: &[],
        run: unwind::without_frame_pointers,
    },
    Scenario {
        name: "trace_by_others",
        claim: "Without rights there is no trace, and one line that says which are missing",
        needs: &[],
        kernels: Kernels::OldestAndNewest,
        ways: &[],
        run: command::by_others,
    },
];
