//! Public questions about who holds shared memory, each answered by one command of lsbuf.
//!
//! Each scenario replays a report that somebody posted: a small world of processes, and a command
//! whose printed lines are compared with the right answer. `docs/cases.md` lists all reports, also
//! those that other scenarios replay.
//!
//! Limit: small programs imitate what a report describes. The software of the report does not run
//! here.

mod devices;
mod kit;
mod memfds;
mod segments;
mod tmpfs;

use crate::kernels::Kernels;
use crate::need::Need;
use crate::scenario::Scenario;
use crate::way::Way;

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "case_leaking_loader",
        claim: "Case 1: a DataLoader leaks fds of deleted files (pytorch#973): lsbuf ps tells which python3, by how many fds and near which limit",
        needs: &[],
        kernels: Kernels::OldestAndNewest,
        ways: Way::BOTH,
        run: tmpfs::leaking_loader,
    },
    Scenario {
        name: "case_makers_of_segments",
        claim: "Case 2: segments that are only marked for removal (tigervnc#819): each row names who attaches it and who made it, by command if that lives",
        needs: &[],
        kernels: Kernels::OldestAndNewest,
        ways: Way::BOTH,
        run: segments::makers,
    },
    Scenario {
        name: "case_browser",
        claim: "Case 3: deleted memory of a browser (electron#40711): lsbuf ps tells its processes apart by their command lines",
        needs: &[],
        kernels: Kernels::OldestAndNewest,
        ways: Way::BOTH,
        run: memfds::browser,
    },
    Scenario {
        name: "case_left_behind",
        claim: "Case 4: files left in /dev/shm by a killed program (Fast-DDS#2790): --unheld names them with size and owner, and not the held one",
        needs: &[],
        kernels: Kernels::OldestAndNewest,
        ways: Way::BOTH,
        run: tmpfs::left_behind,
    },
    Scenario {
        name: "case_paid_by_the_writer",
        claim: "Case 5: memory that is charged to a cgroup whose task has exited (kubernetes#128339): PAYER names that cgroup, HOLDERS who holds the file",
        needs: &[],
        kernels: Kernels::OldestAndNewest,
        ways: &[Way::Bpf],
        run: tmpfs::paid_by_the_writer,
    },
    Scenario {
        name: "case_heap_mapped_thrice",
        claim: "Case 7: a heap that is mapped three times (AutoMQ#722): it counts once in RSS and USS",
        needs: &[],
        kernels: Kernels::OldestAndNewest,
        ways: Way::BOTH,
        run: memfds::heap_mapped_thrice,
    },
    Scenario {
        name: "case_many_of_one_name",
        claim: "Case 8: hundreds of mapped memfds of one name without an fd (fltk#730): a sum by name has one row for them, and lsbuf ps names who holds them",
        needs: &[],
        kernels: Kernels::OldestAndNewest,
        ways: Way::BOTH,
        run: memfds::many_of_one_name,
    },
    Scenario {
        name: "case_inherited_fds",
        claim: "Case 9: fds of client memory that a compositor leaks and its children inherit (Hyprland#16093): INHERITED names the one that leaks beside those that inherit, and not beside one that opened the memory itself",
        needs: &[],
        kernels: Kernels::OldestAndNewest,
        ways: Way::BOTH,
        run: memfds::inherited_fds,
    },
    Scenario {
        name: "case_old_backend",
        claim: "Case 10: a shared memory block that is still in use (stolon#743): lsbuf show takes the key of the error message and names the process with its command line",
        needs: &[],
        kernels: Kernels::OldestAndNewest,
        ways: Way::BOTH,
        run: segments::old_backend,
    },
    Scenario {
        name: "case_part_of_a_store",
        claim: "Case 12: how much of an object store each worker has mapped in (ray#62854): RSS has the whole store, SHMRSS the worker's pages",
        needs: &[],
        kernels: Kernels::OldestAndNewest,
        ways: Way::BOTH,
        run: memfds::part_of_a_store,
    },
    Scenario {
        name: "case_file_of_a_loop_device",
        claim: "Case 14: a full tmpfs where du and lsof find nothing (freedom-maker#137): the deleted file is listed, and its loop device is named as its holder",
        needs: &[Need::Loop],
        kernels: Kernels::OldestAndNewest,
        ways: &[Way::Bpf],
        run: tmpfs::file_of_a_loop_device,
    },
    Scenario {
        name: "case_guests_memory",
        claim: "Case 15: deleted files of three virtual machines (qemu-compose#26): each has its machine's command line and what its exit frees",
        needs: &[],
        kernels: Kernels::OldestAndNewest,
        ways: &[Way::Bpf],
        run: tmpfs::guests_memory,
    },
    Scenario {
        name: "case_attached_often",
        claim: "Case 17: many attachments of one buffer (mpp#632): lsbuf show counts them by device",
        needs: &[Need::Heap, Need::Vgem],
        kernels: Kernels::OldestAndNewest,
        ways: Way::BOTH,
        run: devices::attached_often,
    },
    Scenario {
        name: "case_leaked_fences",
        claim: "Case 18: leaked sync_files (quickshell#723): the default table of lsbuf ps counts them",
        needs: &[Need::SyncFile],
        kernels: Kernels::OldestAndNewest,
        ways: Way::BOTH,
        run: devices::leaked_fences,
    },
    Scenario {
        name: "case_driver_memory",
        claim: "Case 19: shared memory of a GPU driver that nobody has mapped (bookworm-feedback#275): it is listed, and who has the GPU open is its candidate",
        needs: &[Need::Vgem, Need::Vivid],
        kernels: Kernels::OldestAndNewest,
        ways: &[Way::Bpf],
        run: devices::driver_memory,
    },
];
