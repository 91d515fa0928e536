//! What a scenario may need of the running kernel, and how the guest finds out whether the kernel
//! has it.
//!
//! A capability is probed in the running system and never derived from a kernel version. The host's
//! table of kernels lists what each kernel lacks. So a probe that suddenly finds less or more than
//! before fails the run, and does not cause one more silent skip.
//!
//! Process 1 probes once and hands down in the environment what it found. Searching the kernel's
//! type information takes half a second in an emulated machine, and scenarios ask hundreds of
//! times.

use std::fmt;
use std::fs;
use std::path::PathBuf;
use std::sync::LazyLock;

use memchr::memmem;
use rustix::thread::CapabilitySet;
use serde::{Deserialize, Serialize};

use crate::caller::Caller;
use crate::make::{self, HugePages};
use crate::sys::fault::MissingPage;
use crate::sys::{ring, shm};

/// The block device that scenarios swap to: a disk in memory.
pub const SWAP_DISK: &str = "/dev/ram0";

/// The device that hands out loop devices.
pub const LOOP_CONTROL: &str = "/dev/loop-control";

/// Programs of the host with which command lines of lsbuf are executed, in the guest's /bin.
pub const UTIL_LINUX: [&str; 3] = ["sh", "ipcrm", "nsenter"];

/// The environment variable that names the needs which process 1 found met, separated by commas.
pub const MET: &str = "LSBUF_MET";

/// What process 1 found; `None` if it did not start this process.
static HANDED_DOWN: LazyLock<Option<Vec<Need>>> = LazyLock::new(|| parse(&std::env::var(MET).ok()?));

/// A capability of the running kernel.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Need {
    /// The system DMA heap, `/dev/dma_heap/system`.
    Heap,
    /// `/dev/udmabuf`, which turns memfd pages into a dma-buf.
    Udmabuf,
    /// A DRM node of the vgem driver.
    Vgem,
    /// A node of the vivid driver that captures video.
    Vivid,
    /// A mapped buffer shows in `maps` under its own inode and the name `/dmabuf:`. This does not
    /// hold where vgem is the only exporter and gives the VMA another file.
    MappedIdentity,
    /// The ioctls that move fences between a dma-buf and sync files.
    SyncFile,
    /// CAP_SYS_PTRACE opens `fdinfo` of another user's process, without the right to enter that
    /// user's directories.
    FdinfoByPtrace,
    /// CAP_PERFMON alone opens `maps`.
    MapsByPerfmon,
    /// io_uring, and it is not switched off.
    IoUring,
    /// The ioctl PROCMAP_QUERY.
    Procmap,
    /// BPF iterators over tasks, their fds and their mappings, and loops in BPF programs.
    Iterators,
    /// The BPF iterator over dma-bufs.
    BufferIterator,
    /// BPF programs that run when functions of the kernel begin and return.
    Fentry,
    /// Huge pages can be reserved.
    HugePages,
    /// memfd_secret(2), and it is not switched off.
    Secretmem,
    /// Android's ashmem.
    Ashmem,
    /// A swap device.
    Swap,
    /// FUSE, also for users without privileges.
    Fuse,
    /// userfaultfd, and root may use it for faults in the kernel.
    Userfaultfd,
    /// Loop devices.
    Loop,
    /// The memory controller for cgroups of version 1.
    MemoryV1,
    /// A shell, ipcrm(1) and nsenter(1), which the host has put into the guest.
    UtilLinux,
    /// Overlays.
    Overlay,
}

impl Need {
    /// Every need, in the order in which they are printed.
    pub const ALL: &'static [Self] = &[
        Self::Heap,
        Self::Udmabuf,
        Self::Vgem,
        Self::Vivid,
        Self::MappedIdentity,
        Self::SyncFile,
        Self::FdinfoByPtrace,
        Self::MapsByPerfmon,
        Self::IoUring,
        Self::Procmap,
        Self::Iterators,
        Self::BufferIterator,
        Self::Fentry,
        Self::HugePages,
        Self::Secretmem,
        Self::Ashmem,
        Self::Swap,
        Self::Fuse,
        Self::Userfaultfd,
        Self::Loop,
        Self::MemoryV1,
        Self::UtilLinux,
        Self::Overlay,
    ];

    /// The name in reports, in the table of kernels and on the screen.
    pub fn name(self) -> &'static str {
        match self {
            Self::Heap => "heap",
            Self::Udmabuf => "udmabuf",
            Self::Vgem => "vgem",
            Self::Vivid => "vivid",
            Self::MappedIdentity => "mapped_identity",
            Self::SyncFile => "sync_file",
            Self::FdinfoByPtrace => "fdinfo_by_ptrace",
            Self::MapsByPerfmon => "maps_by_perfmon",
            Self::IoUring => "io_uring",
            Self::Procmap => "procmap",
            Self::Iterators => "iterators",
            Self::BufferIterator => "buffer_iterator",
            Self::Fentry => "fentry",
            Self::HugePages => "huge_pages",
            Self::Secretmem => "secretmem",
            Self::Ashmem => "ashmem",
            Self::Swap => "swap",
            Self::Fuse => "fuse",
            Self::Userfaultfd => "userfaultfd",
            Self::Loop => "loop",
            Self::MemoryV1 => "memory_v1",
            Self::UtilLinux => "util_linux",
            Self::Overlay => "overlay",
        }
    }

    /// Whether the running kernel has it: as process 1 found, or else by a look now.
    pub fn probe(self) -> bool {
        HANDED_DOWN.as_ref().map_or_else(|| self.look(), |met| met.contains(&self))
    }

    /// Looks into the running kernel.
    fn look(self) -> bool {
        match self {
            Self::Heap => make::has_heap(),
            Self::Udmabuf => fs::exists("/dev/udmabuf").unwrap_or(false),
            Self::Vgem => vgem_node("card").is_some(),
            Self::Vivid => vivid_node("vid-cap").is_some(),
            Self::MappedIdentity => make::maps_as_itself().unwrap_or(false),
            Self::SyncFile => kernel_has_name(b"dma_buf_export_sync_file"),
            Self::FdinfoByPtrace => opens(CapabilitySet::SYS_PTRACE, "/proc/1/fdinfo"),
            Self::MapsByPerfmon => opens(CapabilitySet::PERFMON, "/proc/1/maps"),
            Self::IoUring => ring::open().is_ok(),
            Self::Procmap => kernel_has_name(b"procmap_query"),
            Self::Iterators => kernel_has_name(b"bpf_iter_task_vma") && kernel_has_name(b"BPF_FUNC_loop"),
            Self::BufferIterator => kernel_has_name(b"bpf_iter_dmabuf"),
            // What ftrace offers to those who have it call a program. BTF of 5.10 has no function
            // of ftrace.
            Self::Fentry => {
                let listed = fs::read_to_string("/proc/kallsyms");
                listed.is_ok_and(|listed| listed.contains(" modify_ftrace_direct\n"))
            }
            Self::HugePages => HugePages::set_aside(1).is_ok(),
            Self::Secretmem => shm::secret().is_ok(),
            Self::Ashmem => fs::exists("/dev/ashmem").unwrap_or(false),
            Self::Userfaultfd => MissingPage::new().is_ok(),
            Self::Swap => [SWAP_DISK, "/proc/swaps"].iter().all(|path| fs::exists(path).unwrap_or(false)),
            Self::Fuse => fs::exists("/dev/fuse").unwrap_or(false),
            Self::Loop => fs::exists(LOOP_CONTROL).unwrap_or(false),
            Self::MemoryV1 => kernel_has_name(b"mem_cgroup_hierarchy_write"),
            Self::UtilLinux => {
                UTIL_LINUX.iter().all(|name| fs::exists(format!("/bin/{name}")).unwrap_or(false))
            }
            Self::Overlay => {
                fs::read_to_string("/proc/filesystems").is_ok_and(|listed| listed.contains("\toverlay\n"))
            }
        }
    }

    /// All needs that the running kernel meets.
    pub fn met() -> Vec<Self> {
        Self::ALL.iter().copied().filter(|need| need.probe()).collect()
    }
}

/// The value of [`MET`] for these needs.
pub fn print(needs: &[Need]) -> String {
    let names: Vec<&str> = needs.iter().map(|need| need.name()).collect();
    names.join(",")
}

/// The needs that [`print`] was given; `None` if a name is unknown.
fn parse(names: &str) -> Option<Vec<Need>> {
    let need = |name: &str| Need::ALL.iter().copied().find(|need| need.name() == name);
    names.split(',').filter(|name| !name.is_empty()).map(need).collect()
}

impl fmt::Display for Need {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Whether this capability alone opens a file or directory that belongs to root.
fn opens(capability: CapabilitySet, path: &str) -> bool {
    Caller::USER.with(capability).can_read(path).unwrap_or(false)
}

/// Whether the kernel's BTF has a structure, function or constant with this name.
///
/// BTF says what the kernel's code contains without using that code, so a test may compare the two.
pub fn kernel_has_name(name: &[u8]) -> bool {
    // In BTF, names are NUL-terminated strings, one after another.
    let entry = [b"\0", name, b"\0"].concat();
    fs::read("/sys/kernel/btf/vmlinux").is_ok_and(|types| memmem::find(&types, &entry).is_some())
}

/// The device node of the vgem driver whose name begins with `kind` (`card` or `renderD`), if there
/// is one.
///
/// The numbers of DRM nodes depend on the machine's other devices, so the node is found through its
/// device. The driver's only device is called `vgem`, on the platform bus of older kernels and on
/// the faux bus of newer ones.
pub fn vgem_node(kind: &str) -> Option<PathBuf> {
    let classes = fs::read_dir("/sys/class/drm").ok()?;
    classes.flatten().find_map(|entry| {
        let name = entry.file_name();
        let name = name.to_str()?;
        let device = fs::read_link(entry.path().join("device")).ok()?;
        let node = PathBuf::from("/dev/dri").join(name);
        (name.starts_with(kind) && device.file_name()? == "vgem" && node.exists()).then_some(node)
    })
}

/// The device node of the vivid driver for one purpose (`vid-cap`, `vid-out`), if there is one.
///
/// The numbers depend on the machine's other devices. The driver names its nodes
/// `vivid-000-vid-cap`.
pub fn vivid_node(purpose: &str) -> Option<PathBuf> {
    let classes = fs::read_dir("/sys/class/video4linux").ok()?;
    classes.flatten().find_map(|entry| {
        let name = fs::read_to_string(entry.path().join("name")).ok()?;
        let node = PathBuf::from("/dev").join(entry.file_name());
        (name.starts_with("vivid-") && name.trim_end().ends_with(purpose) && node.exists()).then_some(node)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check that what process 1 hands down is read back, also if it is nothing, and that an
    /// unknown name is not passed over.
    #[test]
    fn handed_down() {
        for needs in [&[][..], &[Need::Heap, Need::Fuse], Need::ALL] {
            assert_eq!(parse(&print(needs)).unwrap(), needs);
        }
        assert_eq!(parse("heap,nonsense"), None);
    }

    /// Check that the name on the screen is the name in the report, for every need.
    #[test]
    fn one_name_everywhere() {
        for need in Need::ALL {
            assert_eq!(serde_json::to_value(need).unwrap(), need.name());
        }
    }
}
