//! The `dmabuf` crate on real kernels.
//!
//! The crate's unit tests must run without any exporter, so they rest on what the kernel's sources
//! say. These scenarios try each promise of the crate with every exporter that the kernel has.
//! Expected values come from what the scenario did, or from other files that the kernel prints (see
//! [`kit`]).
//!
//! Limits: no fence is ever pending, no fd is read-only, and no exporter lacks mmap. Nothing in
//! stock kernels makes those without ioctls that the crate does not offer.

mod gem;
mod heap;
mod kit;
mod mapping;
mod naming;
mod refusals;
mod sharing;
mod syncing;
mod udmabuf;
mod v4l2;

use crate::need::Need::{Heap, SyncFile, Udmabuf, Vgem, Vivid};
use crate::scenario::Scenario;

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "heap_list",
        claim: "Heaps are listed as in sysfs, and the error for an unknown name lists them",
        needs: &[Heap],
        ways: &[],
        run: heap::list,
    },
    Scenario {
        name: "heap_allocate",
        claim: "A heap gives zeroed whole pages, and a descriptor for reading and writing",
        needs: &[Heap],
        ways: &[],
        run: heap::allocate,
    },
    Scenario {
        name: "heap_impossible_sizes",
        claim: "Sizes that no heap can give are errors: InvalidSize or OutOfMemory",
        needs: &[Heap],
        ways: &[],
        run: heap::impossible_sizes,
    },
    Scenario {
        name: "udmabuf_one_range",
        claim: "A udmabuf and its memfd's range are the same pages: writes to either show in the other",
        needs: &[Udmabuf],
        ways: &[],
        run: udmabuf::one_range,
    },
    Scenario {
        name: "udmabuf_several_ranges",
        claim: "A udmabuf of a list has its ranges one after another, and may share pages with another udmabuf",
        needs: &[Udmabuf],
        ways: &[],
        run: udmabuf::several_ranges,
    },
    Scenario {
        name: "udmabuf_mistakes",
        claim: "A wrong range and a wrong seal are different errors",
        needs: &[Udmabuf],
        ways: &[],
        run: udmabuf::mistakes,
    },
    Scenario {
        name: "udmabuf_limits",
        claim: "Exceeding the module's limits is SizeLimit, and the error names the file that raises them",
        needs: &[Udmabuf],
        ways: &[],
        run: udmabuf::limits,
    },
    Scenario {
        name: "udmabuf_huge_pages",
        claim: "A memfd of huge pages is accepted, also for parts of a huge page",
        needs: &[Udmabuf],
        ways: &[],
        run: udmabuf::huge_pages,
    },
    Scenario {
        name: "gem_find",
        claim: "A DRM device is found by its driver, and other files, and devices without dumb buffers, are refused",
        needs: &[Vgem],
        ways: &[],
        run: gem::find,
    },
    Scenario {
        name: "gem_gives_up_master",
        claim: "An open DrmDevice is not the device's master",
        needs: &[Vgem],
        ways: &[],
        run: gem::gives_up_master,
    },
    Scenario {
        name: "gem_dumb",
        claim: "A dumb buffer has the requested dimensions, and impossible ones are InvalidSize",
        needs: &[Vgem],
        ways: &[],
        run: gem::dumb,
    },
    Scenario {
        name: "gem_export_is_one",
        claim: "A handle always exports the same dma-buf, and holds two references to it until the handle is closed",
        needs: &[Vgem],
        ways: &[],
        run: gem::export,
    },
    Scenario {
        name: "gem_import_own",
        claim: "Importing a device's own buffer gives its existing handle, and dropping the last use closes it",
        needs: &[Vgem],
        ways: &[],
        run: gem::import_own,
    },
    Scenario {
        name: "gem_import_foreign",
        claim: "An import's handle alone keeps a buffer alive, with three references",
        needs: &[Heap, Udmabuf, Vgem],
        ways: &[],
        run: gem::import_foreign,
    },
    Scenario {
        name: "gem_into_raw",
        claim: "A handle after into_raw stays open until the device is closed",
        needs: &[Vgem],
        ways: &[],
        run: gem::into_raw,
    },
    Scenario {
        name: "v4l2_find",
        claim: "A capture device is found by its driver, and other devices are refused",
        needs: &[Vivid],
        ways: &[],
        run: v4l2::find,
    },
    Scenario {
        name: "v4l2_export",
        claim: "Each export of a video buffer is another dma-buf of the same memory, and outlives the device",
        needs: &[Vivid],
        ways: &[],
        run: v4l2::export,
    },
    Scenario {
        name: "v4l2_import",
        claim: "A queue holds one reference to each dma-buf in it, and refuses one that is too small",
        needs: &[Vgem, Vivid],
        ways: &[],
        run: v4l2::import,
    },
    Scenario {
        name: "v4l2_one_queue",
        claim: "Only one open file at a time can use a device's queue",
        needs: &[Vivid],
        ways: &[],
        run: v4l2::one_queue,
    },
    Scenario {
        name: "name_length",
        claim: "A name of 31 bytes shows in fd, fdinfo and maps; 32 are refused before the call",
        needs: &[Vgem],
        ways: &[],
        run: naming::length,
    },
    Scenario {
        name: "name_bytes",
        claim: "Every byte but NUL round-trips, and an empty name resets",
        needs: &[Vgem],
        ways: &[],
        run: naming::bytes,
    },
    Scenario {
        name: "name_any_holder",
        claim: "A second holder may rename",
        needs: &[Vgem],
        ways: &[],
        run: naming::any_holder,
    },
    Scenario {
        name: "name_while_attached",
        claim: "A buffer attached to a device takes a name",
        needs: &[Heap, Vgem],
        ways: &[],
        run: naming::while_attached,
    },
    Scenario {
        name: "map_write_is_read",
        claim: "Bytes written through one mapping are read through another",
        needs: &[Vgem],
        ways: &[],
        run: mapping::write_is_read,
    },
    Scenario {
        name: "map_range",
        claim: "A mapped range is that part of the buffer",
        needs: &[Vgem],
        ways: &[],
        run: mapping::range,
    },
    Scenario {
        name: "map_references",
        claim: "A mapping is one reference, and an access bracket is none",
        needs: &[Vgem],
        ways: &[],
        run: mapping::references,
    },
    Scenario {
        name: "map_outlives_descriptor",
        claim: "A mapping outlives the descriptor, and the buffer is freed with the mapping",
        needs: &[Vgem],
        ways: &[],
        run: mapping::outlives_descriptor,
    },
    Scenario {
        name: "map_later_descriptor",
        claim: "A mapping works with a descriptor of its buffer that was made later",
        needs: &[Vgem],
        ways: &[],
        run: mapping::later_descriptor,
    },
    Scenario {
        name: "map_wrong_buffer",
        claim: "An access bracket with another buffer is WrongBuffer",
        needs: &[Vgem],
        ways: &[],
        run: mapping::wrong_buffer,
    },
    Scenario {
        name: "map_protection",
        claim: "Modes are the VMA's permissions, and access in another direction than declared is refused",
        needs: &[Vgem],
        ways: &[],
        run: mapping::protection,
    },
    Scenario {
        name: "map_private",
        claim: "Writes to a private mapping do not reach the buffer, or the mapping is NotMappable",
        needs: &[Vgem],
        ways: &[],
        run: mapping::private,
    },
    Scenario {
        name: "map_private_heap_page",
        claim: "One page of the system heap can be mapped privately",
        needs: &[Heap],
        ways: &[],
        run: mapping::private_heap_page,
    },
    Scenario {
        name: "map_no_room",
        claim: "A mapping without free address space is OutOfMemory",
        needs: &[Vgem],
        ways: &[],
        run: mapping::no_room,
    },
    Scenario {
        name: "map_identity",
        claim: "The identity equals what fdinfo, maps and debugfs print",
        needs: &[Vgem],
        ways: &[],
        run: mapping::identity,
    },
    Scenario {
        name: "share_sockets",
        claim: "Buffers arrive in order over every kind of socket, and each has one reference while in flight",
        needs: &[Vgem],
        ways: &[],
        run: sharing::sockets,
    },
    Scenario {
        name: "share_another_process",
        claim: "Another process uses the same memory and name",
        needs: &[Vgem],
        ways: &[],
        run: sharing::another_process,
    },
    Scenario {
        name: "share_most",
        claim: "A message carries 253 buffers and no more",
        needs: &[Vgem],
        ways: &[],
        run: sharing::most,
    },
    Scenario {
        name: "share_long_stream",
        claim: "A long payload on a stream follows its buffers in parts",
        needs: &[Vgem],
        ways: &[],
        run: sharing::long_stream,
    },
    Scenario {
        name: "share_refusals",
        claim: "Fds that are not usable dma-bufs are refused on receipt, and none stays open",
        needs: &[Vgem],
        ways: &[],
        run: sharing::refusals,
    },
    Scenario {
        name: "share_lost",
        claim: "If the receiver has no room for all descriptors, the error is Truncated, and those that arrived are closed",
        needs: &[Vgem],
        ways: &[],
        run: sharing::lost,
    },
    Scenario {
        name: "share_socket_errors",
        claim: "A full socket, a closed one and a payload that is too long have their own error kinds",
        needs: &[Vgem],
        ways: &[],
        run: sharing::socket_errors,
    },
    Scenario {
        name: "share_too_many_in_flight",
        claim: "Exceeding a user's limit of descriptors in flight is OutOfDescriptors",
        needs: &[Vgem],
        ways: &[],
        run: sharing::too_many_in_flight,
    },
    Scenario {
        name: "sync_file_idle",
        claim: "An idle buffer exports a signalled sync file in each direction, and imports it again",
        needs: &[Vgem, SyncFile],
        ways: &[],
        run: syncing::idle,
    },
    Scenario {
        name: "sync_file_or_unsupported",
        claim: "Sync files work if the kernel's code has the ioctls, and else are Unsupported",
        needs: &[Vgem],
        ways: &[],
        run: syncing::offered,
    },
    Scenario {
        name: "sync_poll_idle",
        claim: "An idle buffer polls as ready",
        needs: &[Vgem],
        ways: &[],
        run: syncing::poll_idle,
    },
    Scenario {
        name: "refused_not_a_dma_buf",
        claim: "Only a dma-buf's fd becomes a DmaBuf, and not one with O_PATH",
        needs: &[Vgem],
        ways: &[],
        run: refusals::not_a_dma_buf,
    },
    Scenario {
        name: "refused_absent",
        claim: "An exporter opens if and only if sysfs has it, and else the error has its own kind",
        needs: &[],
        ways: &[],
        run: refusals::absent,
    },
    Scenario {
        name: "refused_another_user",
        claim: "The error for another user says who owns the node",
        needs: &[Vgem],
        ways: &[],
        run: refusals::another_user,
    },
    Scenario {
        name: "refused_no_descriptors",
        claim: "Every call that makes a descriptor fails with OutOfDescriptors if none is free",
        needs: &[Vgem],
        ways: &[],
        run: refusals::no_descriptors,
    },
];
