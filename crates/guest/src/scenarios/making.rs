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
        claim: "Heaps are listed as in sysfs, and an unknown name is told which exist",
        needs: &[Heap],
        ways: &[],
        run: heap::list,
    },
    Scenario {
        name: "heap_allocate",
        claim: "A heap gives zeroed whole pages behind a descriptor to read and write",
        needs: &[Heap],
        ways: &[],
        run: heap::allocate,
    },
    Scenario {
        name: "heap_impossible_sizes",
        claim: "Sizes that no heap can give are InvalidSize or OutOfMemory",
        needs: &[Heap],
        ways: &[],
        run: heap::impossible_sizes,
    },
    Scenario {
        name: "udmabuf_one_range",
        claim: "A udmabuf is the pages of its memfd's range, in both directions",
        needs: &[Udmabuf],
        ways: &[],
        run: udmabuf::one_range,
    },
    Scenario {
        name: "udmabuf_several_ranges",
        claim: "A udmabuf of a list is its ranges one after another, and may share pages with another",
        needs: &[Udmabuf],
        ways: &[],
        run: udmabuf::several_ranges,
    },
    Scenario {
        name: "udmabuf_mistakes",
        claim: "A wrong range and a wrong seal are told apart",
        needs: &[Udmabuf],
        ways: &[],
        run: udmabuf::mistakes,
    },
    Scenario {
        name: "udmabuf_limits",
        claim: "The module's limits are SizeLimit, with the place to raise them",
        needs: &[Udmabuf],
        ways: &[],
        run: udmabuf::limits,
    },
    Scenario {
        name: "udmabuf_huge_pages",
        claim: "A memfd of huge pages is accepted, in parts of them",
        needs: &[Udmabuf],
        ways: &[],
        run: udmabuf::huge_pages,
    },
    Scenario {
        name: "gem_find",
        claim: "A DRM device is found by driver, and what is none, or none with dumb buffers, is refused",
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
        claim: "A dumb buffer has the promised shape, and impossible ones are InvalidSize",
        needs: &[Vgem],
        ways: &[],
        run: gem::dumb,
    },
    Scenario {
        name: "gem_export_is_one",
        claim: "A handle exports one dma-buf and holds two references to it until it is closed",
        needs: &[Vgem],
        ways: &[],
        run: gem::export,
    },
    Scenario {
        name: "gem_import_own",
        claim: "A device's own buffer comes back as its handle, which the last use closes",
        needs: &[Vgem],
        ways: &[],
        run: gem::import_own,
    },
    Scenario {
        name: "gem_import_foreign",
        claim: "An imported buffer lives by its handle alone, with three references",
        needs: &[Heap, Udmabuf, Vgem],
        ways: &[],
        run: gem::import_foreign,
    },
    Scenario {
        name: "gem_into_raw",
        claim: "A handle given up stays open until the device is closed",
        needs: &[Vgem],
        ways: &[],
        run: gem::into_raw,
    },
    Scenario {
        name: "v4l2_find",
        claim: "A capture device is found by driver, and what captures nothing is refused",
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
        claim: "A device's queue is one open file's at a time",
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
        claim: "A mapping is one reference, a bracket none",
        needs: &[Vgem],
        ways: &[],
        run: mapping::references,
    },
    Scenario {
        name: "map_outlives_descriptor",
        claim: "A mapping outlives the descriptor, and the buffer ends with the mapping",
        needs: &[Vgem],
        ways: &[],
        run: mapping::outlives_descriptor,
    },
    Scenario {
        name: "map_later_descriptor",
        claim: "A mapping works with a descriptor of its buffer that was got later",
        needs: &[Vgem],
        ways: &[],
        run: mapping::later_descriptor,
    },
    Scenario {
        name: "map_wrong_buffer",
        claim: "A bracket with another buffer is WrongBuffer",
        needs: &[Vgem],
        ways: &[],
        run: mapping::wrong_buffer,
    },
    Scenario {
        name: "map_protection",
        claim: "Modes are the VMA's permissions, and directions bind",
        needs: &[Vgem],
        ways: &[],
        run: mapping::protection,
    },
    Scenario {
        name: "map_private",
        claim: "A private mapping keeps its writes to itself, or is NotMappable",
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
        claim: "A mapping that finds no address space is OutOfMemory",
        needs: &[Vgem],
        ways: &[],
        run: mapping::no_room,
    },
    Scenario {
        name: "map_identity",
        claim: "The identity is what fdinfo, maps and debugfs print",
        needs: &[Vgem],
        ways: &[],
        run: mapping::identity,
    },
    Scenario {
        name: "share_sockets",
        claim: "Buffers arrive in order over every kind of socket, one reference each on the way",
        needs: &[Vgem],
        ways: &[],
        run: sharing::sockets,
    },
    Scenario {
        name: "share_another_process",
        claim: "Another process works on the same memory and name",
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
        claim: "What is no usable dma-buf is refused on receipt, and nothing stays open",
        needs: &[Vgem],
        ways: &[],
        run: sharing::refusals,
    },
    Scenario {
        name: "share_lost",
        claim: "Descriptors that the receiver has no room for are Truncated, and the others are closed",
        needs: &[Vgem],
        ways: &[],
        run: sharing::lost,
    },
    Scenario {
        name: "share_socket_errors",
        claim: "Full, closed and too long have their own kinds",
        needs: &[Vgem],
        ways: &[],
        run: sharing::socket_errors,
    },
    Scenario {
        name: "share_too_many_in_flight",
        claim: "A user's limit of descriptors in flight is OutOfDescriptors",
        needs: &[Vgem],
        ways: &[],
        run: sharing::too_many_in_flight,
    },
    Scenario {
        name: "sync_file_idle",
        claim: "An idle buffer gives a signalled sync file in each direction, and takes it back",
        needs: &[Vgem, SyncFile],
        ways: &[],
        run: syncing::idle,
    },
    Scenario {
        name: "sync_file_or_unsupported",
        claim: "Sync files are offered if the kernel's code has the requests, and else Unsupported",
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
        claim: "Only a dma-buf becomes one, and not one with O_PATH",
        needs: &[Vgem],
        ways: &[],
        run: refusals::not_a_dma_buf,
    },
    Scenario {
        name: "refused_absent",
        claim: "An exporter opens if and only if sysfs has it, and is missed by its own kind",
        needs: &[],
        ways: &[],
        run: refusals::absent,
    },
    Scenario {
        name: "refused_another_user",
        claim: "Another user is told whose the nodes are",
        needs: &[Vgem],
        ways: &[],
        run: refusals::another_user,
    },
    Scenario {
        name: "refused_no_descriptors",
        claim: "Without a free descriptor, whatever makes one is OutOfDescriptors",
        needs: &[Vgem],
        ways: &[],
        run: refusals::no_descriptors,
    },
];
