//! References that for a time are in no list: files that a system call has taken and given to nobody yet, and what moves or
//! changes hands while it is read.
//!
//! Nobody can name such a reference. So an answer may say that it does not know, and must not say that it does: no account that
//! is called exact may lack a holder or give a reference to the kernel, and no buffer may be missing from an answer that is
//! called complete. When all is at rest again, the accounts balance.

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
        claim: "What a fork has copied that sleeps before its child shows is not said to be the kernel's",
        needs: &[Userfaultfd],
        kernels: Kernels::EveryByBpf,
        ways: Way::BOTH,
        run: asleep::fork,
    },
    Scenario {
        name: "fork_sleeps_alone",
        claim: "What only a fork that sleeps has is not said to be the kernel's, and is not missing without a word",
        needs: &[Userfaultfd],
        kernels: Kernels::EveryByBpf,
        ways: Way::BOTH,
        run: asleep::fork_alone,
    },
    Scenario {
        name: "exec_sleeps",
        claim: "What a process holds that sleeps in exec is held by it",
        needs: &[Userfaultfd],
        kernels: Kernels::EveryByBpf,
        ways: Way::BOTH,
        run: asleep::exec,
    },
    Scenario {
        name: "exec_sleeps_alone",
        claim: "A memfd that only an exec has opened, and sleeps, is not missing without a word",
        needs: &[Userfaultfd],
        kernels: Kernels::EveryByBpf,
        ways: Way::BOTH,
        run: asleep::exec_alone,
    },
    Scenario {
        name: "sender_sleeps",
        claim: "What a sender has taken that waits for room in a socket is not said to be the kernel's",
        needs: &[],
        kernels: Kernels::EveryByBpf,
        ways: Way::BOTH,
        run: asleep::sender,
    },
    Scenario {
        name: "sender_sleeps_alone",
        claim: "What only a sender has that waits for room in a socket is not said to be the kernel's, and is not missing without a word",
        needs: &[],
        kernels: Kernels::EveryByBpf,
        ways: Way::BOTH,
        run: asleep::sender_alone,
    },
    Scenario {
        name: "moving_mapping",
        claim: "A mapping that moves while it is read is found, or what is left is an estimate",
        needs: &[],
        kernels: Kernels::OldestAndNewest,
        ways: Way::BOTH,
        run: moving::mapping,
    },
    Scenario {
        name: "moving_mapping_reopened",
        claim: "A mapping of a file of its own that moves while it is read is found, or the account is an estimate",
        needs: &[],
        kernels: Kernels::OldestAndNewest,
        ways: Way::BOTH,
        run: moving::mapping_reopened,
    },
    Scenario {
        name: "moving_mapping_of_dmabuf",
        claim: "A dma-buf's mapping that moves while it is read is found, or what is left is an estimate",
        needs: &[MappedIdentity],
        kernels: Kernels::EveryByBpf,
        ways: Way::BOTH,
        run: moving::mapping_of_dmabuf,
    },
    Scenario {
        name: "moving_mapping_alone",
        claim: "A memfd that only a moving mapping holds is not missing without a word",
        needs: &[],
        kernels: Kernels::OldestAndNewest,
        ways: Way::BOTH,
        run: moving::mapping_alone,
    },
    Scenario {
        name: "moving_fd",
        claim: "An fd that moves between two slots while it is read is found, or what is left is an estimate",
        needs: &[],
        kernels: Kernels::OldestAndNewest,
        ways: Way::BOTH,
        run: moving::fd,
    },
    Scenario {
        name: "moving_fd_reopened",
        claim: "An fd of a file of its own that moves while it is read is found, or the account is an estimate",
        needs: &[],
        kernels: Kernels::OldestAndNewest,
        ways: Way::BOTH,
        run: moving::fd_reopened,
    },
    Scenario {
        name: "relay_of_an_fd",
        claim: "A memfd that each process of a chain holds for a moment, by an fd, is not missing without a word",
        needs: &[],
        kernels: Kernels::OldestAndNewest,
        ways: Way::BOTH,
        run: relay::of_an_fd,
    },
    Scenario {
        name: "relay_of_a_mapping",
        claim: "A memfd that each process of a chain holds for a moment, by a mapping, is not missing without a word",
        needs: &[],
        kernels: Kernels::OldestAndNewest,
        ways: Way::BOTH,
        run: relay::of_a_mapping,
    },
    Scenario {
        name: "relay_reopened",
        claim: "A chain of processes that maps a memfd by a file of its own is not left out of an exact account",
        needs: &[],
        kernels: Kernels::OldestAndNewest,
        ways: Way::BOTH,
        run: relay::reopened,
    },
    Scenario {
        name: "runs_itself_again",
        claim: "A memfd held by a program that executes itself again and again is not missing without a word",
        needs: &[],
        kernels: Kernels::OldestAndNewest,
        ways: Way::BOTH,
        run: relay::runs_itself_again,
    },
];
