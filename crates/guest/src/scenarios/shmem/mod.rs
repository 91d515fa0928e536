//! Shared memory other than dma-bufs: memfds, System V segments, anonymous shared memory, tmpfs
//! files.
//!
//! The guest's root is a tmpfs from which all programs run. So these scenarios look buffers up one
//! by one, and count only the kinds that the guest does not use itself. Expected allocations come
//! from the test's own stat(2) and from the pages that it touched.

mod counted;
mod files;
pub(super) mod kit;
mod line;
pub(crate) mod listed;
mod memfd;
mod payers;
mod program;
mod segments;
mod swapped;
mod sysv;
mod unheld;

use crate::kernels::Kernels;
use crate::need::Need;
use crate::scenario::Scenario;
use crate::way::Way;

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "unheld",
        claim: "--unheld lists each file of a tmpfs that no process holds once, with path, charge and owner, and no held one; only BPF proves it",
        needs: &[],
        kernels: Kernels::EveryByBpf,
        ways: Way::BOTH,
        run: unheld::held_and_unheld,
    },
    Scenario {
        name: "unheld_elsewhere",
        claim: "Files of other mount namespaces are listed with a path that root can use; a mount below another one is listed by BPF, and named as not reached by procfs",
        needs: &[],
        kernels: Kernels::EveryByBpf,
        ways: Way::BOTH,
        run: unheld::other_namespaces,
    },
    Scenario {
        name: "unheld_huge",
        claim: "A file of a hugetlbfs that nobody holds is listed with its huge pages",
        needs: &[Need::HugePages],
        kernels: Kernels::EveryByBpf,
        ways: Way::BOTH,
        run: unheld::huge_pages,
    },
    Scenario {
        name: "payers",
        claim: "The cgroups that pay for a file are those whose tasks wrote its pages, to the page, held or not, also when one has been removed",
        needs: &[],
        kernels: Kernels::EveryByBpf,
        ways: &[Way::Bpf],
        run: payers::two_writers,
    },
    Scenario {
        name: "memfd_alone",
        claim: "A memfd has its size, and is charged for pages that were written or allocated in advance, not for those punched out",
        needs: &[],
        kernels: Kernels::EveryByBpf,
        ways: Way::BOTH,
        run: memfd::alone,
    },
    Scenario {
        name: "memfd_shared",
        claim: "A memfd shared by fork and by message is held by each process; RSS has the whole charge, PSS an equal part",
        needs: &[],
        kernels: Kernels::EveryByBpf,
        ways: Way::BOTH,
        run: memfd::shared,
    },
    Scenario {
        name: "memfd_mapped_only",
        claim: "A memfd that is only mapped, shared and private, keeps its name, size and charge",
        needs: &[],
        kernels: Kernels::EveryByBpf,
        ways: Way::BOTH,
        run: memfd::mapped_only,
    },
    Scenario {
        name: "memfd_sealed",
        claim: "lsbuf show prints a memfd's seals, and reading them changes no account and breaks no lease",
        needs: &[],
        kernels: Kernels::EveryByBpf,
        ways: Way::BOTH,
        run: memfd::sealed,
    },
    Scenario {
        name: "memfd_opath",
        claim: "A memfd kept only by an O_PATH fd is found",
        needs: &[],
        kernels: Kernels::EveryByBpf,
        ways: Way::BOTH,
        run: memfd::opath,
    },
    Scenario {
        name: "memfd_hostile_names",
        claim: "No name of a memfd is lost or changes its kind, and no file with a name like a memfd's is taken for one",
        needs: &[],
        kernels: Kernels::EveryByBpf,
        ways: Way::BOTH,
        run: memfd::hostile_names,
    },
    Scenario {
        name: "memfd_hugetlb",
        claim: "A memfd of huge pages is charged for each whole huge page that it has",
        needs: &[Need::HugePages],
        kernels: Kernels::EveryByBpf,
        ways: Way::BOTH,
        run: memfd::huge,
    },
    Scenario {
        name: "memfd_leak",
        claim: "All memfds of a process that holds 10,000 are found",
        needs: &[],
        kernels: Kernels::OldestAndNewest,
        ways: Way::BOTH,
        run: memfd::leak,
    },
    Scenario {
        name: "memfd_in_flight",
        claim: "A memfd that only a message not yet received holds is found, or the answer is partial and says why",
        needs: &[],
        kernels: Kernels::EveryByBpf,
        ways: Way::BOTH,
        run: counted::in_flight,
    },
    Scenario {
        name: "memfd_many_in_flight",
        claim: "More files in one socket than an iterator has room for do not fail the answer: it is partial and says why",
        needs: &[],
        kernels: Kernels::Every,
        ways: &[Way::Bpf],
        run: counted::many_in_flight,
    },
    Scenario {
        name: "memfd_balances",
        claim: "A memfd's account is the sum over every file that is open on it, if a count is known",
        needs: &[],
        kernels: Kernels::EveryByBpf,
        ways: Way::BOTH,
        run: counted::balances,
    },
    Scenario {
        name: "tmpfs_running",
        claim: "A program that runs from a tmpfs file holds it by its mappings, and has one more reference because it runs",
        needs: &[],
        kernels: Kernels::EveryByBpf,
        ways: Way::BOTH,
        run: counted::running,
    },
    Scenario {
        name: "runs_from_memfd",
        claim: "A memfd that only a running program keeps is found, and held by that process",
        needs: &[],
        kernels: Kernels::EveryByBpf,
        ways: Way::BOTH,
        run: program::alone,
    },
    Scenario {
        name: "runs_from_memfd_reopened",
        claim: "A program that runs from a memfd is a holder of it, besides a process that has opened it again",
        needs: &[],
        kernels: Kernels::EveryByBpf,
        ways: Way::BOTH,
        run: program::reopened,
    },
    Scenario {
        name: "udmabuf_over_memfd",
        claim: "The memory of a udmabuf and the memfd below it is counted once, or a note says that it may be counted twice",
        needs: &[Need::Udmabuf],
        kernels: Kernels::EveryByBpf,
        ways: Way::BOTH,
        run: counted::udmabuf,
    },
    Scenario {
        name: "udmabuf_in_pieces",
        claim: "A udmabuf of more pieces than an iterator can write is listed, and only its memfds stay unknown",
        needs: &[Need::Udmabuf],
        kernels: Kernels::EveryByBpf,
        ways: Way::BOTH,
        run: counted::udmabuf_in_pieces,
    },
    Scenario {
        name: "gem_in_disguise",
        claim: "A driver's shmem that is a dma-buf's memory is linked to it by lsbuf show, and counted once",
        needs: &[Need::Vgem],
        kernels: Kernels::EveryByBpf,
        ways: Way::BOTH,
        run: counted::in_disguise,
    },
    Scenario {
        name: "sync_files",
        claim: "A process's sync_files are counted",
        needs: &[Need::SyncFile],
        kernels: Kernels::EveryByBpf,
        ways: Way::BOTH,
        run: counted::sync_files,
    },
    Scenario {
        name: "shm_anon",
        claim: "Anonymous shared memory is held by parent and child, by mappings alone",
        needs: &[],
        kernels: Kernels::EveryByBpf,
        ways: Way::BOTH,
        run: files::anonymous,
    },
    Scenario {
        name: "tmpfs_unlinked",
        claim: "A tmpfs file counts as deleted once it has no name, and only then would its holder's exit free it",
        needs: &[],
        kernels: Kernels::EveryByBpf,
        ways: Way::BOTH,
        run: files::unlinked,
    },
    Scenario {
        name: "tmpfs_elsewhere",
        claim: "A file of a tmpfs that is only mounted in another namespace is found",
        needs: &[],
        kernels: Kernels::EveryByBpf,
        ways: Way::BOTH,
        run: files::elsewhere,
    },
    Scenario {
        name: "hugetlbfs",
        claim: "A file of a mounted hugetlbfs is charged for each whole page that it has",
        needs: &[Need::HugePages],
        kernels: Kernels::EveryByBpf,
        ways: Way::BOTH,
        run: files::of_huge_pages,
    },
    Scenario {
        name: "ashmem",
        claim: "Android's ashmem is found by its mappings, with the name that it was given",
        needs: &[Need::Ashmem],
        kernels: Kernels::Every,
        // No kernel has both ashmem and the iterators.
        ways: &[Way::Procfs],
        run: files::ashmem,
    },
    Scenario {
        name: "secretmem",
        claim: "A file of secret memory has its size and no charge",
        needs: &[Need::Secretmem],
        kernels: Kernels::EveryByBpf,
        ways: Way::BOTH,
        run: files::secret,
    },
    Scenario {
        name: "sysv_attached",
        claim: "A segment's count is its attachments, two in one process and two in its child; after removal it goes with the last",
        needs: &[],
        kernels: Kernels::EveryByBpf,
        ways: Way::BOTH,
        run: sysv::attached,
    },
    Scenario {
        name: "sysv_unattached",
        claim: "A segment that no process has attached is found, and is kernel-only",
        needs: &[],
        kernels: Kernels::EveryByBpf,
        ways: Way::BOTH,
        run: sysv::unattached,
    },
    Scenario {
        name: "sysv_two_namespaces",
        claim: "Segments with the same id in two IPC namespaces are two buffers",
        needs: &[],
        kernels: Kernels::EveryByBpf,
        ways: Way::BOTH,
        run: sysv::two_namespaces,
    },
    Scenario {
        name: "sysv_namespace_left",
        claim: "A segment of a namespace that its holder has left hides no segment of the holder's present namespace",
        needs: &[],
        kernels: Kernels::EveryByBpf,
        ways: Way::BOTH,
        run: sysv::namespace_left,
    },
    Scenario {
        name: "sysv_collides_with_memfd",
        claim: "A segment and a memfd with the same inode number are two buffers",
        needs: &[],
        kernels: Kernels::EveryByBpf,
        ways: Way::BOTH,
        run: sysv::collides,
    },
    Scenario {
        name: "sysv_fd_in_message",
        claim: "A segment's fd in a message is in flight, and the totals are right if nothing else holds the segment",
        needs: &[],
        kernels: Kernels::EveryByBpf,
        ways: Way::BOTH,
        run: segments::fd_in_message,
    },
    Scenario {
        name: "sysv_thread_namespace",
        claim: "An unattached segment in the IPC namespace of a thread is not missing without a note",
        needs: &[],
        kernels: Kernels::EveryByBpf,
        ways: Way::BOTH,
        run: segments::thread_unattached,
    },
    Scenario {
        name: "sysv_thread_namespace_attached",
        claim: "A segment that a thread has made in its own IPC namespace is not shown in its process's namespace",
        needs: &[],
        kernels: Kernels::EveryByBpf,
        ways: Way::BOTH,
        run: segments::thread_attached,
    },
    Scenario {
        name: "sysv_same_in_both",
        claim: "An attached segment of an IPC namespace that its holder has left and an unattached one with the same id in the new namespace are two",
        needs: &[],
        kernels: Kernels::EveryByBpf,
        ways: Way::BOTH,
        run: segments::same_in_both,
    },
    Scenario {
        name: "shmem_swapped",
        claim: "Swapped memory stays charged, and is listed as swapped where the kernel tells",
        needs: &[Need::Swap],
        kernels: Kernels::EveryByBpf,
        ways: Way::BOTH,
        run: swapped::swapped,
    },
];
