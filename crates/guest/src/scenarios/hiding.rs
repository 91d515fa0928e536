//! Holders that are easily missed, counted twice, or confused with others: threads with their own
//! fd tables, processes that share, other namespaces, and processes that start and end while they
//! are read.

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
        claim: "References of threads whose first thread has ended belong to their process, with its pid and command name",
        needs: &[],
        kernels: Kernels::EveryByBpf,
        ways: Way::BOTH,
        run: threads::zombie_leader,
    },
    Scenario {
        name: "zombie_leader_maps",
        claim: "Mappings of a process whose first thread has ended are found through its other threads",
        needs: &[Need::MappedIdentity],
        kernels: Kernels::EveryByBpf,
        ways: Way::BOTH,
        run: threads::zombie_leader_maps,
    },
    Scenario {
        name: "thread_with_own_table",
        claim: "A thread's own fd table adds references, also under the same fd numbers",
        needs: &[],
        kernels: Kernels::EveryByBpf,
        ways: Way::BOTH,
        run: threads::own_table,
    },
    Scenario {
        name: "threads_share_own_table",
        claim: "Two threads that share one fd table, not their process's, count once",
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
        claim: "A process that shares the fd table of a single thread of another process adds no reference",
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
        claim: "Forked copies with equal fd numbers and addresses count as references, and shared ones do not",
        needs: &[Need::MappedIdentity],
        kernels: Kernels::EveryByBpf,
        ways: Way::BOTH,
        run: sharing::fork_shares_nothing,
    },
    Scenario {
        name: "changed_user",
        claim: "A process that changed its user is read by root, and is unreadable for that user",
        needs: &[],
        kernels: Kernels::EveryByBpf,
        ways: Way::BOTH,
        run: access::changed_user,
    },
    Scenario {
        name: "hidepid",
        claim: "A procfs with hidepid shows root everything, and a note tells a user that processes are hidden",
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
        claim: "A holder in another pid, mount or user namespace is found by its pid in the initial one",
        needs: &[],
        kernels: Kernels::EveryByBpf,
        ways: Way::BOTH,
        run: namespaces::seen_from_outside,
    },
    Scenario {
        name: "inside_a_pid_namespace",
        claim: "Inside a pid namespace the answer has that namespace's holders, and says that it is not the whole machine",
        needs: &[],
        kernels: Kernels::EveryByBpf,
        ways: &[Way::Auto, Way::Procfs],
        run: namespaces::seen_from_inside,
    },
    Scenario {
        name: "pid_reuse",
        claim: "No answer shows one process's name with the buffer of another process that had the same pid",
        needs: &[],
        kernels: Kernels::OldestAndNewest,
        ways: Way::BOTH,
        run: reuse::pid,
    },
    Scenario {
        name: "exec_reuse",
        claim: "No answer shows one program's name with a buffer of the program that the process ran before",
        needs: &[],
        kernels: Kernels::OldestAndNewest,
        ways: Way::BOTH,
        run: reuse::exec,
    },
    Scenario {
        name: "holders_exit",
        claim: "References of holders that exit while they are read are never shown as the kernel's",
        needs: &[],
        kernels: Kernels::EveryByBpf,
        ways: Way::BOTH,
        run: churn::holders_exit,
    },
    Scenario {
        name: "slow_forks",
        claim: "References that a child inherits while it is forked, when no list shows it, are not shown as the kernel's",
        needs: &[],
        kernels: Kernels::EveryByBpf,
        ways: Way::BOTH,
        run: churn::slow_forks,
    },
    Scenario {
        name: "slow_unshares",
        claim: "References in a copied fd table that no thread uses yet are not shown as the kernel's",
        needs: &[],
        kernels: Kernels::EveryByBpf,
        ways: Way::BOTH,
        run: churn::slow_unshares,
    },
    Scenario {
        name: "storm",
        claim: "While processes fork, execute and exit at a high rate, the figures of untouched buffers stay exact",
        needs: &[],
        kernels: Kernels::OldestAndNewest,
        ways: Way::BOTH,
        run: churn::storm,
    },
];
