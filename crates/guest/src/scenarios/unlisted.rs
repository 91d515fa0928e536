//! References that are in no list for a time: files that a system call has taken and not yet passed
//! on, and references that move or change hands while they are read.
//!
//! No reader can attribute such a reference. So an answer may say that it does not know, and must
//! not claim that it does. An account that is called exact may not lack a holder or show a
//! reference as the kernel's. An answer that is called complete may not lack a buffer. When nothing
//! moves any more, the accounts balance.

mod asleep;
mod claims;
mod moving;
mod relay;
mod sort;

use crate::kernels::Kernels;
use crate::need::Need::{MappedIdentity, Userfaultfd};
use crate::scenario::Scenario;
use crate::way::Way;

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "fork_sleeps",
        claim: "References copied by a fork that sleeps before its child is listed are not shown as the kernel's",
        needs: &[Userfaultfd],
        kernels: Kernels::EveryByBpf,
        ways: Way::BOTH,
        run: asleep::fork,
    },
    Scenario {
        name: "fork_sleeps_alone",
        claim: "A buffer that only a sleeping fork holds is not shown as the kernel's, and is not missing without a note",
        needs: &[Userfaultfd],
        kernels: Kernels::EveryByBpf,
        ways: Way::BOTH,
        run: asleep::fork_alone,
    },
    Scenario {
        name: "exec_sleeps",
        claim: "References of a process that sleeps in exec are shown as its own",
        needs: &[Userfaultfd],
        kernels: Kernels::EveryByBpf,
        ways: Way::BOTH,
        run: asleep::exec,
    },
    Scenario {
        name: "exec_sleeps_alone",
        claim: "A memfd that only a sleeping exec has open is not missing without a note",
        needs: &[Userfaultfd],
        kernels: Kernels::EveryByBpf,
        ways: Way::BOTH,
        run: asleep::exec_alone,
    },
    Scenario {
        name: "sender_sleeps",
        claim: "The reference of a sender that waits for room in a socket is not shown as the kernel's",
        needs: &[],
        kernels: Kernels::EveryByBpf,
        ways: Way::BOTH,
        run: asleep::sender,
    },
    Scenario {
        name: "sender_sleeps_alone",
        claim: "A buffer that only a sender holds that waits for room in a socket is not shown as the kernel's, and is not missing without a note",
        needs: &[],
        kernels: Kernels::EveryByBpf,
        ways: Way::BOTH,
        run: asleep::sender_alone,
    },
    Scenario {
        name: "moving_mapping",
        claim: "A mapping that moves while it is read is found, or the residual is an estimate",
        needs: &[],
        kernels: Kernels::OldestAndNewest,
        ways: Way::BOTH,
        run: moving::mapping,
    },
    Scenario {
        name: "moving_mapping_reopened",
        claim: "A mapping of a second open file that moves while it is read is found, or the account is an estimate",
        needs: &[],
        kernels: Kernels::OldestAndNewest,
        ways: Way::BOTH,
        run: moving::mapping_reopened,
    },
    Scenario {
        name: "moving_mapping_of_dmabuf",
        claim: "A dma-buf's mapping that moves while it is read is found, or the residual is an estimate",
        needs: &[MappedIdentity],
        kernels: Kernels::EveryByBpf,
        ways: Way::BOTH,
        run: moving::mapping_of_dmabuf,
    },
    Scenario {
        name: "moving_mapping_alone",
        claim: "A memfd that only a moving mapping holds is not missing without a note",
        needs: &[],
        kernels: Kernels::OldestAndNewest,
        ways: Way::BOTH,
        run: moving::mapping_alone,
    },
    Scenario {
        name: "moving_fd",
        claim: "An fd that moves between two slots while it is read is found, or the residual is an estimate",
        needs: &[],
        kernels: Kernels::OldestAndNewest,
        ways: Way::BOTH,
        run: moving::fd,
    },
    Scenario {
        name: "moving_fd_reopened",
        claim: "An fd of a second open file that moves while it is read is found, or the account is an estimate",
        needs: &[],
        kernels: Kernels::OldestAndNewest,
        ways: Way::BOTH,
        run: moving::fd_reopened,
    },
    Scenario {
        name: "relay_of_an_fd",
        claim: "A memfd that each process of a chain holds for a moment, by an fd, is not missing without a note",
        needs: &[],
        kernels: Kernels::OldestAndNewest,
        ways: Way::BOTH,
        run: relay::of_an_fd,
    },
    Scenario {
        name: "relay_of_a_mapping",
        claim: "A memfd that each process of a chain holds for a moment, by a mapping, is not missing without a note",
        needs: &[],
        kernels: Kernels::OldestAndNewest,
        ways: Way::BOTH,
        run: relay::of_a_mapping,
    },
    Scenario {
        name: "relay_reopened",
        claim: "A chain of processes that maps a memfd by a second open file is not missing from an exact account",
        needs: &[],
        kernels: Kernels::OldestAndNewest,
        ways: Way::BOTH,
        run: relay::reopened,
    },
    Scenario {
        name: "runs_itself_again",
        claim: "A memfd held by a program that executes itself again and again is not missing without a note",
        needs: &[],
        kernels: Kernels::OldestAndNewest,
        ways: Way::BOTH,
        run: relay::runs_itself_again,
    },
];
