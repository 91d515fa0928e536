//! Holders that are easily overlooked, counted twice, or taken for somebody else: threads with tables of their own,
//! processes that share, other namespaces, and processes that come and go faster than they are read.

mod access;
mod churn;
mod namespaces;
pub(crate) mod reuse;
mod sharing;
mod threads;

use crate::kernels::Kernels;
use crate::need::Need;
use crate::scenario::Scenario;
use crate::way::Way;

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "zombie_leader",
        claim: "What live threads hold behind an ended first thread is their process's, with its pid and command name",
        needs: &[],
        kernels: Kernels::EveryByBpf,
        ways: Way::BOTH,
        run: threads::zombie_leader,
    },
    Scenario {
        name: "zombie_leader_maps",
        claim: "Mappings behind an ended first thread are found through the threads that live on",
        needs: &[Need::MappedIdentity],
        kernels: Kernels::EveryByBpf,
        ways: Way::BOTH,
        run: threads::zombie_leader_maps,
    },
    Scenario {
        name: "thread_with_own_table",
        claim: "A thread's own fd table adds references of its own, also under the same fd numbers",
        needs: &[],
        kernels: Kernels::EveryByBpf,
        ways: Way::BOTH,
        run: threads::own_table,
    },
    Scenario {
        name: "threads_share_own_table",
        claim: "Two threads that share a table which is not their process's count once",
        needs: &[],
        kernels: Kernels::EveryByBpf,
        ways: Way::BOTH,
        run: threads::shared_own_table,
    },
    Scenario {
        name: "opath_of_a_thread",
        claim: "A buffer kept only by an O_PATH fd of a thread's own table is found, with its size",
        needs: &[],
        kernels: Kernels::EveryByBpf,
        ways: Way::BOTH,
        run: threads::opath,
    },
    Scenario {
        name: "shared_fd_table",
        claim: "Two processes with one fd table are two holders of one reference",
        needs: &[],
        kernels: Kernels::EveryByBpf,
        ways: Way::BOTH,
        run: sharing::fd_table,
    },
    Scenario {
        name: "fd_table_of_a_thread",
        claim: "A process that shares the own table of another process's thread adds no reference",
        needs: &[],
        kernels: Kernels::EveryByBpf,
        ways: Way::BOTH,
        run: sharing::table_of_a_thread,
    },
    Scenario {
        name: "shared_memory",
        claim: "Two processes with one address space are two holders of one mapping",
        needs: &[Need::MappedIdentity],
        kernels: Kernels::EveryByBpf,
        ways: Way::BOTH,
        run: sharing::memory,
    },
    Scenario {
        name: "vfork",
        claim: "The child of a vfork is a second holder of its parent's mapping, not of a second mapping",
        needs: &[Need::MappedIdentity],
        kernels: Kernels::EveryByBpf,
        ways: Way::BOTH,
        run: sharing::vfork,
    },
    Scenario {
        name: "fork_shares_nothing",
        claim: "Forked copies with equal fd numbers and addresses are references of their own, beside sharing ones",
        needs: &[Need::MappedIdentity],
        kernels: Kernels::EveryByBpf,
        ways: Way::BOTH,
        run: sharing::fork_shares_nothing,
    },
    Scenario {
        name: "changed_user",
        claim: "A process that changed its user is read by root, and counted as unreadable for that user",
        needs: &[],
        kernels: Kernels::EveryByBpf,
        ways: Way::BOTH,
        run: access::changed_user,
    },
    Scenario {
        name: "hidepid",
        claim: "A procfs with hidepid shows root everything; a user is told that processes are hidden",
        needs: &[],
        kernels: Kernels::OldestAndNewest,
        ways: Way::BOTH,
        run: access::hidepid,
    },
    Scenario {
        name: "chrooted",
        claim: "A holder in a chroot is found",
        needs: &[],
        kernels: Kernels::EveryByBpf,
        ways: Way::BOTH,
        run: namespaces::chrooted,
    },
    Scenario {
        name: "namespaces",
        claim: "A holder in another pid, mount or user namespace is found by its pid in the first one",
        needs: &[],
        kernels: Kernels::EveryByBpf,
        ways: Way::BOTH,
        run: namespaces::seen_from_outside,
    },
    Scenario {
        name: "inside_a_pid_namespace",
        claim: "Inside a pid namespace the answer has what is inside, and says that it is not the whole machine",
        needs: &[],
        kernels: Kernels::EveryByBpf,
        ways: &[Way::Auto, Way::Procfs],
        run: namespaces::seen_from_inside,
    },
    Scenario {
        name: "pid_reuse",
        claim: "No answer pairs the name of one process with the buffer of another that had the same pid",
        needs: &[],
        kernels: Kernels::OldestAndNewest,
        ways: Way::BOTH,
        run: reuse::pid,
    },
    Scenario {
        name: "exec_reuse",
        claim: "No answer pairs the name of one program with the buffer of another that the process ran before",
        needs: &[],
        kernels: Kernels::OldestAndNewest,
        ways: Way::BOTH,
        run: reuse::exec,
    },
    Scenario {
        name: "holders_exit",
        claim: "Holders that end while they are read leave no reference that is said to be the kernel's",
        needs: &[],
        kernels: Kernels::EveryByBpf,
        ways: Way::BOTH,
        run: churn::holders_exit,
    },
    Scenario {
        name: "slow_forks",
        claim: "What a child inherits, while it is being forked and shows nowhere, is not said to be the kernel's",
        needs: &[],
        kernels: Kernels::EveryByBpf,
        ways: Way::BOTH,
        run: churn::slow_forks,
    },
    Scenario {
        name: "slow_unshares",
        claim: "What a thread's own fd table is copied from, while the copy is in no thread's hands yet, is not said to be the kernel's",
        needs: &[],
        kernels: Kernels::EveryByBpf,
        ways: Way::BOTH,
        run: churn::slow_unshares,
    },
    Scenario {
        name: "storm",
        claim: "While processes fork, execute and end at a high rate, the figures of quiet buffers stay exact",
        needs: &[],
        kernels: Kernels::OldestAndNewest,
        ways: Way::BOTH,
        run: churn::storm,
    },
];
