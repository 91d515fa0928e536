//! Shared memory that only the kernel's own lists of inodes show: what no fd and no mapping of any
//! process leads to, files whose filesystem is not mounted where lsbuf looks, and more of it than
//! fits in one read.
//!
//! Only BPF iterators read these lists. So lsbuf is told to use them, or chooses them itself.

mod kernel_only;
mod large;
pub(in crate::scenarios) mod paths;
mod secret;
pub(super) mod segments;
mod users;

use crate::kernels::Kernels;
use crate::need::Need;
use crate::scenario::Scenario;
use crate::way::Way;

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "listed_loop",
        claim: "A memfd that only a loop device keeps is listed, with one reference of the kernel and no holder",
        needs: &[Need::Loop],
        kernels: Kernels::EveryByBpf,
        ways: &[Way::Bpf],
        run: kernel_only::loop_device,
    },
    Scenario {
        name: "listed_io_uring",
        claim: "A memfd that only a registered file of an io_uring keeps is listed, and its reference is an estimate",
        needs: &[Need::IoUring],
        kernels: Kernels::EveryByBpf,
        ways: &[Way::Bpf],
        run: kernel_only::io_uring,
    },
    Scenario {
        name: "listed_gem",
        claim: "A driver's memory that only a GEM handle keeps is listed, and counted once with the dma-buf that is exported from it",
        needs: &[Need::Vgem],
        kernels: Kernels::EveryByBpf,
        ways: &[Way::Bpf],
        run: kernel_only::gem,
    },
    Scenario {
        name: "listed_segments",
        claim: "Segments of IPC namespaces without a process are listed, each once, beside others with the same id, key and size",
        needs: &[],
        kernels: Kernels::EveryByBpf,
        ways: &[Way::Bpf],
        run: segments::namespaces,
    },
    Scenario {
        name: "listed_hidden_mounts",
        claim: "A held file has its path where no process sees its tmpfs: mounted over, unmounted lazily, mounted in another namespace",
        needs: &[],
        kernels: Kernels::EveryByBpf,
        ways: &[Way::Bpf],
        run: paths::hidden_mounts,
    },
    Scenario {
        name: "listed_names",
        claim: "A held file has the name that it has left, and counts as deleted only without one",
        needs: &[],
        kernels: Kernels::EveryByBpf,
        ways: &[Way::Bpf],
        run: paths::names,
    },
    Scenario {
        name: "listed_bind_mounts",
        claim: "A held file that only a bind mount of its folder or of itself shows has its path there",
        needs: &[],
        kernels: Kernels::EveryByBpf,
        ways: &[Way::Bpf],
        run: paths::bind_mounts,
    },
    Scenario {
        name: "listed_unheld_files",
        claim: "Of 100,000 files that nobody holds none is in the answer, and the one among them that is held is",
        needs: &[],
        kernels: Kernels::EveryByBpf,
        ways: &[Way::Bpf],
        run: large::unheld_files,
    },
    Scenario {
        name: "listed_beside_many_fds",
        claim: "BPF iterators answer beside more fds of other files than the kernel passes over in one read",
        needs: &[Need::Iterators],
        kernels: Kernels::Every,
        // lsbuf chooses the source itself: it must not fall back to procfs.
        ways: &[],
        run: large::beside_many_fds,
    },
    Scenario {
        name: "listed_many_mappings",
        claim: "All of 3,000 mappings of one memfd in three processes are found",
        needs: &[],
        kernels: Kernels::EveryByBpf,
        ways: &[Way::Bpf],
        run: large::many_mappings,
    },
    Scenario {
        name: "listed_many_memfds",
        claim: "All of 50,000 memfds are found, which takes several reads",
        needs: &[],
        kernels: Kernels::EveryByBpf,
        ways: &[Way::Bpf],
        run: large::many_memfds,
    },
    Scenario {
        name: "listed_secret_mapped",
        claim: "Secret memory that is only mapped is found among processes with other locked memory",
        needs: &[Need::Secretmem],
        kernels: Kernels::EveryByBpf,
        ways: &[Way::Bpf],
        run: secret::mapped,
    },
    Scenario {
        name: "listed_secret_beside_hanging",
        claim: "Root finds mapped secret memory although another process, without any, keeps its address space locked",
        needs: &[Need::Secretmem, Need::Fuse],
        kernels: Kernels::EveryByBpf,
        ways: &[Way::Bpf],
        run: secret::beside_locked_address_space,
    },
    Scenario {
        name: "listed_secret_inherited",
        claim: "Secret memory that only a child has, which inherited it, is found if another process has locked memory",
        needs: &[Need::Secretmem],
        kernels: Kernels::EveryByBpf,
        ways: &[Way::Bpf],
        run: secret::inherited_beside_locked,
    },
    Scenario {
        name: "listed_secret_of_child",
        claim: "A child's inherited mapping of secret memory is found by the count, if another process has an fd of it",
        needs: &[Need::Secretmem],
        kernels: Kernels::EveryByBpf,
        ways: &[Way::Bpf],
        run: secret::inherited_from_a_holder,
    },
    Scenario {
        name: "listed_secret_for_a_group",
        claim: "A member of the group finds mapped secret memory as root does",
        needs: &[Need::Secretmem, Need::Iterators],
        kernels: Kernels::EveryByBpf,
        ways: &[],
        run: secret::of_a_group,
    },
    Scenario {
        name: "listed_for_a_group",
        claim: "A member of the group that may read pinned iterators sees what only the kernel keeps, as root does",
        needs: &[Need::Iterators, Need::Loop],
        kernels: Kernels::Every,
        ways: &[],
        run: users::of_a_group,
    },
];
