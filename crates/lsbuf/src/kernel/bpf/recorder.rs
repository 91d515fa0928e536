//! Loads the programs of the flight recorder ([`Hook`]) and attaches them to the kernel's
//! functions, with the iterators that show what they have recorded.
//!
//! All of them are in one object and share its maps. The kernel keeps maps and programs as long as
//! something refers to them: the caller pins what [`Recorder`] has, and they outlive this process.
//! The map itself is not pinned, so nobody can open it by a path, and change or empty it.
//!
//! A program that cannot be attached is left out, and with it the buffers that it would see. Only
//! if no birth can be recorded, or the records cannot be shown, is that an error.

use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use aya_obj::btf::Btf;
use rustix::io::Errno;
use rustix::time::ClockId;

use super::hooks::{About, Hook, View};
use super::iterator::Unavailable;
use super::object::{
    LoadedMap, STRUCTURES, compiled, lift_memory_limit, load_program, make_maps, parse, relocate, unfit,
    why_not_attached,
};
use super::sys::{self, Attached};
use crate::kernel::btf;
use crate::kernel::btf_file::BtfFile;
use crate::kernel::clock::now;

/// The functions that are looked for in the kernel's type information: those of
/// [`Hook::functions`], and at the end that of the iterator over the elements of a map.
const FUNCTIONS: [&str; 17] = [
    "__shmem_get_inode",
    "shmem_get_inode",
    "hugetlbfs_get_inode",
    "dma_buf_export",
    "shmem_evict_inode",
    "hugetlbfs_evict_inode",
    "dma_buf_release",
    "scm_fp_dup",
    "unix_prepare_fpl",
    "scm_detach_fds",
    "__scm_destroy",
    "pidfd_getfd",
    "security_file_receive",
    "scm_recv_one_fd",
    "__receive_fd",
    "receive_fd",
    "bpf_iter_bpf_map_elem",
];

/// The maps of the object.
const LIVING: &str = "living";
const CLIENTS: &str = "clients";
const ABOUT: &str = "about";

/// The attached programs. They are detached when this is dropped, unless they were pinned.
pub(crate) struct Recorder {
    /// Each program with all its copies, or why it does not run.
    pub(crate) hooks: Vec<(Hook, Result<Vec<OwnedFd>, Unavailable>)>,
    /// The iterators.
    pub(crate) views: Vec<(View, OwnedFd)>,
}

impl Recorder {
    /// Loads and attaches the programs. `sys` is the root of sysfs; `most` says for how many living
    /// buffers there is room.
    pub(crate) fn start(sys: &Path, most: u32) -> Result<Recorder, Unavailable> {
        lift_memory_limit();
        let (mut object, own, types) = parse(object())?;
        let file = BtfFile::open(sys).map_err(Unavailable::NoTypes)?;
        let unreadable = |_| Unavailable::NoTypes(Errno::BADMSG);
        let kernel = btf::Index::of(&file, STRUCTURES, FUNCTIONS).map_err(unreadable)?;

        let arguments = |hook: Hook| -> Result<[u8; 4], Unavailable> {
            let count = place(&kernel, hook).map_or(Ok(None), |(nth, _)| kernel.parameters(nth));
            let count = count.map_err(unreadable)?.unwrap_or(0);
            Ok(u32::try_from(count).unwrap_or(0).to_ne_bytes())
        };
        let (shmem, huge) = (arguments(Hook::ShmemBorn)?, arguments(Hook::HugeBorn)?);
        let receive = arguments(Hook::FileReceived)?;
        // In Linux 5.10 the file comes behind a number.
        let behind_a_number = FUNCTIONS.iter().position(|&name| name == "__receive_fd");
        let is_second = place(&kernel, Hook::FileReceived)
            .is_some_and(|(nth, _)| Some(nth) == behind_a_number && receive == 4_u32.to_ne_bytes());
        let received_file = u32::from(is_second).to_ne_bytes();
        let constants = [
            ("shmem_arguments", &shmem[..]),
            ("huge_arguments", &huge[..]),
            ("receive_arguments", &receive[..]),
            ("received_file", &received_file[..]),
        ];
        let constants: HashMap<&str, (&[u8], bool)> =
            constants.into_iter().map(|(name, value)| (name, (value, false))).collect();
        object.patch_map_data(constants).map_err(|e| unfit(&e))?;
        let structures = kernel.extract(&own).map_err(unreadable)?;
        let structures = Btf::parse(&structures, Default::default()).map_err(|e| unfit(&e))?;
        object.relocate_btf(&structures).map_err(|e| unfit(&e))?;
        let maps = make_maps(&object, |name| [LIVING, CLIENTS].contains(&name).then_some(most))?;
        relocate(&mut object, &maps)?;

        let load = |name: &str, at: (u32, Attached)| {
            let program = object.programs.get(name).ok_or_else(|| unfit(&"no such program"))?;
            load_program(&object, program, &format!("lsbuf_{name}"), &types, at)
        };
        let walk = kernel.functions[FUNCTIONS.len() - 1].ok_or(Unavailable::Missing)?;
        let living = map(&maps, LIVING)?;
        let views = View::ALL.into_iter().map(|view| {
            let loaded = load(view.name(), (walk, Attached::Iterator))?;
            let link = sys::attach(loaded.as_fd(), Some(living.as_fd())).map_err(Unavailable::Refused)?;
            Ok((view, link))
        });
        let views = views.collect::<Result<_, Unavailable>>()?;

        let mut hooks: Vec<(Hook, Result<Vec<OwnedFd>, Unavailable>)> = Vec::new();
        let wanted = |hook: &Hook| !hook.may_be_missing() || place(&kernel, *hook).is_some();
        for hook in Hook::ALL.into_iter().filter(wanted) {
            let noticed =
                |other: &(Hook, Result<Vec<_>, _>)| Some(other.0) == hook.death() && other.1.is_ok();
            let attach = || -> Result<Vec<OwnedFd>, Unavailable> {
                let (_, number) = place(&kernel, hook).ok_or(Unavailable::NoFunction)?;
                let at = if hook.at_return() { Attached::Exit } else { Attached::Entry };
                let copies = (0..hook.copies()).map(|_| {
                    let loaded = load(hook.name(), (number, at))?;
                    sys::attach_to_function(loaded.as_fd()).map_err(why_not_attached)
                });
                copies.collect()
            };
            let may = !hook.is_birth() || hooks.iter().any(noticed);
            let attached = if may { attach() } else { Err(Unavailable::NoDeaths) };
            hooks.push((hook, attached));
        }
        let runs = hooks.iter().filter(|(_, attached)| attached.is_ok());
        let runs: Vec<Hook> = runs.map(|(hook, _)| *hook).collect();
        let watched = runs.iter().fold(0, |set, hook| set | hook.bit());
        if !runs.iter().any(|hook| hook.is_birth()) {
            let why = hooks.into_iter().find_map(|(_, attached)| attached.err());
            return Err(why.unwrap_or(Unavailable::Missing));
        }
        let about =
            About { watched, most, since: now(ClockId::Boottime), since_wall: now(ClockId::Realtime) };
        sys::fill(map(&maps, ABOUT)?.as_fd(), 0, &about.to_bytes()).map_err(Unavailable::Refused)?;
        Ok(Recorder { hooks, views })
    }
}

/// Which of [`FUNCTIONS`] a hook runs at, and the function's number.
fn place(kernel: &btf::Index<'_, { FUNCTIONS.len() }>, hook: Hook) -> Option<(usize, u32)> {
    hook.functions().iter().find_map(|name| {
        let nth = FUNCTIONS.iter().position(|function| function == name)?;
        Some((nth, kernel.functions[nth]?))
    })
}

fn map<'m>(maps: &'m [LoadedMap], name: &str) -> Result<&'m OwnedFd, Unavailable> {
    let found = maps.iter().find(|(called, ..)| called == name);
    found.map(|(.., fd)| fd).ok_or_else(|| unfit(&"a map is missing"))
}

/// The compiled programs.
pub(super) fn object() -> &'static [u8] {
    compiled!("origins")
}
