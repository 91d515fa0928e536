//! Loads one compiled iterator into the running kernel.
//!
//! An object is compiled from `bpf/*.bpf.c` and lists which fields of which kernel structures its
//! program reads. Their offsets differ from kernel to kernel, so the object is adapted to this
//! kernel's type information first ([`KernelTypes`]). Only the part of it that the object needs is
//! parsed: parsing all of it would take several times as long as everything else.
//!
//! Loading has two steps. [`Prepared::new`] needs nothing of the kernel's type information, so it
//! can run while that is searched. [`Prepared::load`] does the rest.

use std::collections::{HashMap, HashSet};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use aya_obj::btf::{Btf, BtfFeatures};
use aya_obj::generated::bpf_insn;
use aya_obj::{EbpfSectionKind, Map, Object, Program};
use rustix::fs::CWD;
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::iterator::{Iterator, Readers, Unavailable};
use super::sys::{self, Attached, BpfProgram};
use crate::kernel::{btf, read};

/// Every kernel structure of which an object reads fields.
pub(super) const STRUCTURES: &[&str] = &[
    "address_space",
    "bpf_iter_meta",
    "cgroup",
    "cgroup_root",
    "cgroup_subsys",
    "cgroup_subsys_state",
    "cred",
    "css_set",
    "dentry",
    "device",
    "dma_buf",
    "dma_buf_attachment",
    "drm_gem_object",
    "file",
    "folio",
    "hlist_bl_node",
    "hlist_head",
    "hlist_node",
    "hugetlbfs_inode_info",
    "inode",
    "io_uring_task",
    "ipc_namespace",
    "ipc_params",
    "kernfs_node",
    "kobject",
    "list_head",
    "lockref",
    "mem_cgroup",
    "mm_struct",
    "mnt_namespace",
    "mount",
    "ns_common",
    "nsproxy",
    "obj_cgroup",
    "page",
    "path",
    "pid",
    "pt_regs",
    "qstr",
    "rb_node",
    "rb_root",
    "rb_root_cached",
    "sched_entity",
    "scm_cookie",
    "scm_fp_list",
    "seq_file",
    "seqcount",
    "seqcount_spinlock",
    "shm_file_data",
    "shmem_inode_info",
    "signal_struct",
    "sk_buff",
    "sk_buff_head",
    "sock",
    "sock_common",
    "socket",
    "super_block",
    "task_struct",
    "thread_info",
    "timespec64",
    "udmabuf",
    "unix_skb_parms",
    "upid",
    "vfsmount",
    "vm_area_struct",
    "xa_node",
    "xarray",
];

/// The compiled object with that name, at an address that is aligned for everything that is read
/// from it.
macro_rules! compiled {
    ($name:literal) => {{
        #[repr(align(8))]
        struct Aligned<B: ?Sized>(B);
        static OBJECT: &Aligned<[u8]> =
            &Aligned(*include_bytes!(concat!(env!("LSBUF_BPF_OBJECTS"), "/", $name, ".bpf.o")));
        &OBJECT.0
    }};
}
pub(super) use compiled;

impl Iterator {
    /// Which of [`FUNCTIONS`] represents it in the kernel's type information.
    fn function(self) -> usize {
        match self.base() {
            Iterator::Task => 0,
            Iterator::TaskFile => 1,
            Iterator::TaskVma => 2,
            Iterator::ShmemInodes => 3,
            _ => 4,
        }
    }

    /// The name of the program in a listing of loaded programs.
    fn program(self) -> &'static str {
        match self {
            Iterator::Task => "lsbuf_tasks",
            Iterator::TaskFile => "lsbuf_fds",
            Iterator::TaskVma => "lsbuf_vmas",
            Iterator::DmaBuf => "lsbuf_buffers",
            Iterator::TaskFileShmem => "lsbuf_fds_shm",
            Iterator::TaskVmaShmem => "lsbuf_vmas_shm",
            Iterator::DmaBufShmem => "lsbuf_bufs_shm",
            Iterator::TaskShmem => "lsbuf_tasks_shm",
            Iterator::ShmemInodes => "lsbuf_inodes",
            Iterator::ShmemPayers => "lsbuf_payers",
        }
    }

    /// The compiled program.
    pub(super) fn object(self) -> &'static [u8] {
        match self {
            Iterator::Task => compiled!("task"),
            Iterator::TaskFile => compiled!("task_file"),
            Iterator::TaskVma => compiled!("task_vma"),
            Iterator::DmaBuf => compiled!("dmabuf"),
            Iterator::TaskShmem => compiled!("task_shmem"),
            Iterator::TaskFileShmem => compiled!("task_file_shmem"),
            Iterator::TaskVmaShmem => compiled!("task_vma_shmem"),
            Iterator::DmaBufShmem => compiled!("dmabuf_shmem"),
            Iterator::ShmemInodes => compiled!("shmem_inodes"),
            Iterator::ShmemPayers => compiled!("shmem_inodes_payers"),
        }
    }
}

/// What the running kernel's type information says about structures and iterators.
#[derive(Debug)]
pub(super) struct KernelTypes<'b> {
    btf: &'b [u8],
    index: btf::Index<'b, { FUNCTIONS.len() }>,
}

/// The functions that are looked for: one for each of the kernel's iterators, and the BPF helper
/// that returns a task's registers (Linux 5.15, commit dd6e10fbd9fb).
const FUNCTIONS: [&str; 6] = [
    "bpf_iter_task",
    "bpf_iter_task_file",
    "bpf_iter_task_vma",
    "bpf_iter_bpf_map_elem",
    "bpf_iter_dmabuf",
    "bpf_task_pt_regs",
];

/// The type information of the module for graphics drivers, below the root of sysfs, and what is
/// looked for in it: the structure of a driver's buffer, and two members.
const DRM_MODULE: &str = "kernel/btf/drm";
const GEM: (&str, [&str; 2]) = ("drm_gem_object", ["filp", "size"]);

impl<'b> KernelTypes<'b> {
    /// Searches the type information.
    pub(super) fn of(btf: &'b [u8]) -> Result<KernelTypes<'b>, Unavailable> {
        let index = btf::Index::of(btf, STRUCTURES, FUNCTIONS);
        Ok(KernelTypes { btf, index: index.map_err(|_| Unavailable::NoTypes(Errno::BADMSG))? })
    }

    /// Whether a program can read a task's registers.
    pub(super) fn have_registers(&self) -> bool {
        self.index.functions[FUNCTIONS.len() - 1].is_some()
    }

    /// Whether the kernel has that iterator.
    pub(super) fn has(&self, iterator: Iterator) -> bool {
        self.number(iterator).is_some()
    }

    /// The offsets of the members of [`GEM`], if a module has its type; else 0. `sys` is the root
    /// of sysfs.
    pub(super) fn gem_offsets(&self, sys: &Path) -> [u32; 2] {
        // The module may be missing, and then there are no such buffers.
        let mut module = Vec::new();
        let read = read::sized(CWD, sys.join(DRM_MODULE), &mut module);
        let offsets =
            read.ok().and_then(|()| btf::offsets_in_module(self.btf, &module, GEM.0, GEM.1).ok()?);
        offsets.unwrap_or_default()
    }

    /// The number of the iterator's function.
    fn number(&self, iterator: Iterator) -> Option<u32> {
        self.index.functions[iterator.function()]
    }

    /// The structures that an object with the types `own` needs.
    fn structures(&self, own: &[u8]) -> Result<Btf, Unavailable> {
        let extract = self.index.extract(own).map_err(|_| Unavailable::NoTypes(Errno::BADMSG))?;
        Btf::parse(&extract, Default::default()).map_err(|error| unfit(&error))
    }
}

pub(super) fn unfit(error: &dyn std::fmt::Display) -> Unavailable {
    Unavailable::Unfit(error.to_string())
}

/// A constant of an object: its name and value.
pub(super) type Global<'g> = (&'g str, &'g [u8]);

/// A map of a loaded object: its name, its declaration, and its fd.
pub(super) type LoadedMap = (String, Map, OwnedFd);

/// The map that [`Iterator::ShmemInodes`] and [`Iterator::ShmemPayers`] iterate over.
const WALKED_MAP: &str = "steps";

/// The map of the readings under way of these iterators. The kernel allocates all its entries when
/// it is made.
const CURSORS: &str = "cursors";

/// How many of them one reader needs: one, and some that the kernel keeps ready on each processor.
const CURSORS_OF_ONE: u32 = 64;

/// An object before it is adapted to this kernel.
pub(super) struct Prepared {
    iterator: Iterator,
    object: Object,
    /// Its own type information, and the same in the kernel.
    own: Vec<u8>,
    loaded_types: OwnedFd,
}

impl Prepared {
    /// Parses the object and loads its own type information.
    pub(super) fn new(iterator: Iterator) -> Result<Prepared, Unavailable> {
        let (object, own, loaded_types) = parse(iterator.object())?;
        Ok(Prepared { iterator, object, own, loaded_types })
    }

    pub(super) fn iterator(&self) -> Iterator {
        self.iterator
    }

    /// Adapts the object to this kernel, loads it and attaches it. Returns the attached iterator
    /// and the object's maps.
    pub(super) fn load(
        self,
        types: &KernelTypes<'_>,
        globals: &[Global<'_>],
        readers: Readers,
    ) -> Result<(OwnedFd, Vec<LoadedMap>), Unavailable> {
        let Prepared { iterator, mut object, own, loaded_types } = self;
        let number = types.number(iterator).ok_or(Unavailable::Missing)?;
        let globals: HashMap<&str, (&[u8], bool)> =
            globals.iter().map(|&(name, value)| (name, (value, false))).collect();
        object.patch_map_data(globals).map_err(|e| unfit(&e))?;
        object.relocate_btf(&types.structures(&own)?).map_err(|e| unfit(&e))?;
        let few = |name: &str| (readers == Readers::One && name == CURSORS).then_some(CURSORS_OF_ONE);
        let maps = make_maps(&object, few)?;
        relocate(&mut object, &maps)?;
        let program = object.programs.values().next().ok_or_else(|| unfit(&"no program"))?;
        let called = iterator.program();
        let loaded = load_program(&object, program, called, &loaded_types, (number, Attached::Iterator))?;
        let walked = maps.iter().find(|(name, ..)| name == WALKED_MAP).map(|(.., fd)| fd.as_fd());
        let attached = sys::attach(loaded.as_fd(), walked).map_err(Unavailable::Refused)?;
        Ok((attached, maps))
    }
}

/// Parses an object and loads its own type information. Returns that as it is, too.
pub(super) fn parse(bytes: &[u8]) -> Result<(Object, Vec<u8>, OwnedFd), Unavailable> {
    let mut object = Object::parse(bytes).map_err(|e| unfit(&e))?;
    // Every kernel that has BPF iterators understands all of these features.
    let features = BtfFeatures::new(true, true, true, true, true, true, true, true);
    let own = object.fixup_and_sanitize_btf(&features).map_err(|e| unfit(&e))?;
    let own = own.ok_or_else(|| unfit(&"no type information"))?.to_bytes();
    let loaded = sys::load_types(&own).map_err(Unavailable::Refused)?;
    Ok((object, own, loaded))
}

/// Puts the maps and the object's own functions in the place of what stands for them.
pub(super) fn relocate(object: &mut Object, maps: &[LoadedMap]) -> Result<(), Unavailable> {
    let code: HashSet<usize> = object.functions.keys().map(|&(section, _)| section).collect();
    let fds = maps.iter().map(|(name, map, fd)| (name.as_str(), fd.as_raw_fd(), map));
    object.relocate_maps(fds, &code).map_err(|e| unfit(&e))?;
    object.relocate_calls(&code).map_err(|e| unfit(&e))
}

/// Loads one program of an object that was adapted to this kernel. `place` has the number of the
/// function that it will be attached to, and how.
pub(super) fn load_program(
    object: &Object,
    program: &Program,
    name: &str,
    types: &OwnedFd,
    (number, attached): (u32, Attached),
) -> Result<OwnedFd, Unavailable> {
    let function = object.functions.get(&program.function_key()).ok_or_else(|| unfit(&"no function"))?;
    let functions = function.func_info.func_info_bytes();
    sys::load(&BpfProgram {
        name,
        instructions: &encoded(&function.instructions),
        license: &program.license,
        types: types.as_fd(),
        functions: (&functions, function.func_info_rec_size),
        function: number,
        attached,
    })
    .map_err(|(errno, words)| match errno {
        Errno::PERM | Errno::ACCESS if words.is_empty() => Unavailable::Refused(errno),
        _ => Unavailable::Unfit(format!("{}: {words}", std::io::Error::from(errno))),
    })
}

/// Makes the maps that an object declares. Maps of constants are filled. `entries` says how many
/// entries a map gets, if not as many as it declares.
pub(super) fn make_maps(
    object: &Object,
    entries: impl Fn(&str) -> Option<u32>,
) -> Result<Vec<LoadedMap>, Unavailable> {
    const READ_ONLY: u32 = 1 << 7;
    let mut made = Vec::new();
    for (name, map) in &object.maps {
        let constant = map.section_kind() == EbpfSectionKind::Rodata;
        let flags = map.map_flags() | if constant { READ_ONLY } else { 0 };
        let sizes = (map.key_size(), map.value_size());
        let entries = entries(name).unwrap_or(map.max_entries());
        let make = || -> Result<OwnedFd, Errno> {
            let name = name.trim_start_matches('.');
            let fd = sys::make_map(name, map.map_type(), sizes, entries, flags)?;
            if constant {
                sys::fill(fd.as_fd(), 0, map.data())?;
                sys::freeze(fd.as_fd())?;
            }
            Ok(fd)
        };
        made.push((name.clone(), map.clone(), make().map_err(Unavailable::Refused)?));
    }
    Ok(made)
}

pub(super) fn why_not_attached(errno: Errno) -> Unavailable {
    /// `ENOTSUPP` of the kernel's include/linux/errno.h: ftrace cannot call programs.
    const NOT_SUPPORTED: Errno = Errno::from_raw_os_error(524);
    match errno {
        NOT_SUPPORTED => Unavailable::NoTrampolines,
        errno => Unavailable::Refused(errno),
    }
}

/// Before Linux 5.11 (commit d5299b67dd59) maps count as locked memory.
pub(super) fn lift_memory_limit() {
    let limit = getrlimit(Resource::Memlock);
    // Where that is refused, making the maps fails, and says why.
    let _ = setrlimit(Resource::Memlock, Rlimit { current: limit.maximum, ..limit })
        .and_then(|()| setrlimit(Resource::Memlock, Rlimit { current: None, maximum: None }));
}

/// The instructions in the form that the kernel reads (`struct bpf_insn` of
/// include/uapi/linux/bpf.h).
fn encoded(instructions: &[bpf_insn]) -> Vec<u8> {
    let encode = |instruction: &bpf_insn| {
        let [low, high] = instruction.off.to_ne_bytes();
        let [a, b, c, d] = instruction.imm.to_ne_bytes();
        let registers = if cfg!(target_endian = "little") {
            instruction.dst_reg() | instruction.src_reg() << 4
        } else {
            instruction.dst_reg() << 4 | instruction.src_reg()
        };
        [instruction.code, registers, low, high, a, b, c, d]
    };
    instructions.iter().flat_map(encode).collect()
}
