//! Loads the programs of a trace and attaches them.

use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use aya_obj::btf::Btf;
use aya_obj::{EbpfSectionKind, Object};
use rustix::io::Errno;
use rustix::rand::{GetRandomFlags, getrandom};

use super::super::iterator::Unavailable;
use super::super::layout::{self, Field};
use super::super::object::{
    LoadedMap, STRUCTURES, compiled, lift_memory_limit, load_program, make_maps, parse, relocate, unfit,
    why_not_attached,
};
use super::super::read_to_end;
use super::super::sys::{self, Attached};
use super::event::RawEvent;
use super::hooks::{HOOKS, Hook, MOST_COPIES};
use super::ring::Ring;
use crate::kernel::btf;
use crate::kernel::btf_file::BtfFile;
use crate::model::Pid;

/// The functions that are looked for in the kernel's type information: one for each of [`HOOKS`],
/// that of the iterator over the elements of a map, and the helper that returns a task's registers
/// (Linux 5.15, commit dd6e10fbd9fb).
const FUNCTIONS: [&str; HOOKS.len() + 2] = {
    let mut functions = ["bpf_iter_bpf_map_elem"; HOOKS.len() + 2];
    functions[HOOKS.len() + 1] = "bpf_task_pt_regs";
    let mut at = 0;
    while at < HOOKS.len() {
        functions[at] = HOOKS[at].function;
        at += 1;
    }
    functions
};

/// The maps of the object that this process reads or writes.
const RING: &str = "ring";
const LOSSES: &str = "losses";
const FAMILY: &str = "family";
const ASKED: &str = "asked";

/// How many addresses in the kernel get their names at once: `MOST_ASKED` of bpf/trace.bpf.c.
const MOST_ASKED: usize = 64;

/// Which events have stacks. The numbers are those of bpf/trace.bpf.c.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Stacks {
    /// None.
    #[default]
    None,
    /// Only those in which a buffer is made.
    OfBirths,
    /// All.
    OfAll,
}

/// What is traced.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TraceSettings {
    pub(crate) stacks: Stacks,
    /// Whether those have a copy of the thread's registers and stack, too.
    pub(crate) copy_stacks: bool,
    /// Only processes of one command ([`Tracer::adopt`]), and buffers that they make.
    pub(crate) only_family: bool,
    /// Bytes of the ring buffer: a power of two, and a multiple of the page size.
    pub(crate) ring: u32,
}

/// What was lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Losses {
    /// Events without room in the ring buffer.
    pub(crate) ring: u64,
    /// Processes or buffers of the command without room in a map.
    pub(crate) map: u64,
    /// Events, at most, that the kernel has not shown to the programs.
    pub(crate) skipped: u64,
}

/// A running trace. It ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Tracer {
    ring: Ring,
    losses: OwnedFd,
    family: OwnedFd,
    asked: OwnedFd,
    /// The iterator that names addresses in the kernel.
    names: OwnedFd,
    /// The copies of each program, and how they are attached.
    running: Vec<Vec<Attachment>>,
    left_out: Vec<(&'static str, Unavailable)>,
}

/// A copy of a program.
#[derive(Debug)]
struct Attachment {
    program: OwnedFd,
    /// Detached when this is dropped.
    _link: OwnedFd,
}

impl Tracer {
    /// Loads and attaches the programs. `sys` is the root of sysfs.
    pub(crate) fn start(sys: &Path, settings: TraceSettings) -> Result<Tracer, Unavailable> {
        lift_memory_limit();
        let (mut object, own, types) = parse(object())?;
        let file = BtfFile::open(sys).map_err(Unavailable::NoTypes)?;
        let unreadable = |_| Unavailable::NoTypes(Errno::BADMSG);
        let kernel = btf::Index::of(&file, STRUCTURES, FUNCTIONS).map_err(unreadable)?;
        let structures = kernel.extract(&own).map_err(unreadable)?;
        let structures = Btf::parse(&structures, Default::default()).map_err(|e| unfit(&e))?;
        object.relocate_btf(&structures).map_err(|e| unfit(&e))?;

        let mut secret = [0; 16];
        getrandom(&mut secret, GetRandomFlags::empty()).map_err(Unavailable::Refused)?;
        let mut constants = vec![
            ("secret", secret.to_vec()),
            ("only_family", u32::from(settings.only_family).to_ne_bytes().to_vec()),
            ("stacks", (settings.stacks as u32).to_ne_bytes().to_vec()),
            ("copy_stacks", u32::from(settings.copy_stacks).to_ne_bytes().to_vec()),
            ("registers", u32::from(kernel.functions[HOOKS.len() + 1].is_some()).to_ne_bytes().to_vec()),
        ];
        for (nth, hook) in HOOKS.iter().enumerate() {
            if let Some(name) = hook.arguments {
                let count = kernel.parameters(nth).map_err(unreadable)?.unwrap_or(0);
                constants.push((name, u32::try_from(count).unwrap_or(0).to_ne_bytes().to_vec()));
            }
        }
        let copy = |number: u32, shared: &[LoadedMap]| -> Result<Copy, Unavailable> {
            let mut object = object.clone();
            let number = number.to_ne_bytes();
            let all = constants.iter().map(|(name, value)| (*name, &value[..]));
            let all: HashMap<&str, (&[u8], bool)> =
                all.chain([("copy", &number[..])]).map(|(name, value)| (name, (value, false))).collect();
            object.patch_map_data(all).map_err(|e| unfit(&e))?;
            let maps = maps_of(&object, shared, settings.ring)?;
            relocate(&mut object, &maps)?;
            Ok(Copy { object, maps })
        };
        // The copy that is attached last runs first, and its number is 1.
        let mut copies = vec![copy(MOST_COPIES, &[])?];
        for number in (1..MOST_COPIES).rev() {
            let next = copy(number, &copies[0].maps)?;
            copies.push(next);
        }
        let load = |copy: &Copy, name: &str, at: (u32, Attached)| {
            let program = copy.object.programs.get(name).ok_or_else(|| unfit(&"no such program"))?;
            load_program(&copy.object, program, &format!("lsbuf_{name}"), &types, at)
        };
        let walk = kernel.functions[HOOKS.len()].ok_or(Unavailable::Missing)?;
        let asked = copies[0].map(ASKED)?;
        let names = load(&copies[0], "trace_names", (walk, Attached::Iterator))?;
        let names = sys::attach(names.as_fd(), Some(asked.as_fd())).map_err(Unavailable::Refused)?;

        let attach = |hook: &Hook, number: Option<u32>| -> Result<Vec<Attachment>, Unavailable> {
            let number = number.ok_or(Unavailable::NoFunction)?;
            // Those with the least numbers, and number 1 last.
            let unused = (MOST_COPIES - hook.copies) as usize;
            let attached = copies.iter().skip(unused).map(|copy| {
                let program = load(copy, hook.program, (number, hook.at))?;
                let link = sys::attach_to_function(program.as_fd()).map_err(why_not_attached)?;
                Ok(Attachment { program, _link: link })
            });
            attached.collect()
        };
        let (mut running, mut left_out) = (Vec::new(), Vec::new());
        for hook in &HOOKS {
            // Two programs may run at the same function, which has one number.
            let first = FUNCTIONS.iter().position(|function| *function == hook.function);
            match attach(hook, first.and_then(|nth| kernel.functions[nth])) {
                Ok(attached) => running.push(attached),
                Err(Unavailable::NoFunction) if hook.may_lack => {}
                Err(why) => left_out.push((hook.sees, why)),
            }
        }
        if running.is_empty() {
            return Err(left_out.pop().map_or(Unavailable::Missing, |(_, why)| why));
        }
        let ring = Ring::new(copies[0].map(RING)?, settings.ring).map_err(Unavailable::Refused)?;
        let [losses, family] = [LOSSES, FAMILY].map(|name| copies[0].map(name));
        Ok(Tracer { ring, losses: losses?, family: family?, asked, names, running, left_out })
    }

    /// What is not seen, and why.
    pub(crate) fn left_out(&self) -> &[(&'static str, Unavailable)] {
        &self.left_out
    }

    /// Makes a process, which must not exit meanwhile, one of the command's. What it starts from
    /// now on is, too.
    pub(crate) fn adopt(&self, pid: Pid) -> Result<(), Errno> {
        sys::fill(self.family.as_fd(), pid.0, &u64::MAX.to_ne_bytes())
    }

    /// The process is none of the command's any more; what it has started is.
    pub(crate) fn disown(&self, pid: Pid) -> Result<(), Errno> {
        sys::fill(self.family.as_fd(), pid.0, &0u64.to_ne_bytes())
    }

    /// Waits until there is an event, but not longer than this. A signal ends it too.
    pub(crate) fn wait(&self, longest: Duration) -> Result<(), Errno> {
        self.ring.wait(longest)
    }

    /// Calls `take` for every event that is there. Returns how many records could not be
    /// understood.
    pub(crate) fn read(&mut self, mut take: impl FnMut(RawEvent<'_>)) -> Result<u64, Errno> {
        let mut unread = 0;
        self.ring.read(|bytes| match RawEvent::of(bytes) {
            Ok(event) => take(event),
            Err(_) => unread += 1,
        })?;
        Ok(unread)
    }

    /// What was lost up to now.
    pub(crate) fn losses(&self) -> Result<Losses, Errno> {
        let mut bytes = [0; size_of::<layout::Losses>()];
        sys::look_up(self.losses.as_fd(), 0, &mut bytes)?;
        let counted = layout::Losses::read(&bytes).ok_or(Errno::BADMSG)?;
        let mut skipped = 0u64;
        for copies in &self.running {
            let mut least = u64::MAX;
            for copy in copies {
                // A kernel that does not count this skips none.
                least = least.min(sys::skipped(copy.program.as_fd())?.unwrap_or(0));
            }
            skipped = skipped.saturating_add(least);
        }
        Ok(Losses { ring: counted.ring, map: counted.map, skipped })
    }

    /// The kernel's own names of addresses in it, one for each.
    pub(crate) fn name(&self, addresses: &[u64]) -> Result<Vec<Vec<u8>>, Errno> {
        let mut names = Vec::new();
        for some in addresses.chunks(MOST_ASKED) {
            for (place, address) in (0..).zip(some) {
                sys::fill(self.asked.as_fd(), place, &address.to_ne_bytes())?;
            }
            let file = sys::open(self.names.as_fd())?;
            let mut text = Vec::new();
            read_to_end(&file, &mut Vec::new(), |bytes| {
                text.extend_from_slice(bytes);
                Ok((bytes.len(), false))
            })?;
            let mut lines = text.split(|&byte| byte == b'\n');
            for _ in some {
                names.push(lines.next().ok_or(Errno::BADMSG)?.to_vec());
            }
        }
        Ok(names)
    }
}

/// The object with one number for its programs.
struct Copy {
    object: Object,
    maps: Vec<LoadedMap>,
}

impl Copy {
    fn map(&self, name: &str) -> Result<OwnedFd, Unavailable> {
        let found = self.maps.iter().find(|(called, ..)| called == name);
        let fd = found.map(|(.., fd)| fd).ok_or_else(|| unfit(&"a map is missing"))?;
        fd.try_clone().map_err(|_| Unavailable::Refused(Errno::MFILE))
    }
}

/// The maps of a copy: those that all share, and constants of its own.
fn maps_of(object: &Object, shared: &[LoadedMap], ring: u32) -> Result<Vec<LoadedMap>, Unavailable> {
    let entries = |name: &str| (name == RING).then_some(ring);
    if shared.is_empty() {
        return make_maps(object, entries);
    }
    let mut constants = object.clone();
    constants.maps.retain(|_, map| map.section_kind() == EbpfSectionKind::Rodata);
    let mut maps = make_maps(&constants, entries)?;
    for (name, map, fd) in shared {
        if map.section_kind() != EbpfSectionKind::Rodata {
            let fd = fd.try_clone().map_err(|_| Unavailable::Refused(Errno::MFILE))?;
            maps.push((name.clone(), map.clone(), fd));
        }
    }
    Ok(maps)
}

/// The compiled programs.
pub(crate) fn object() -> &'static [u8] {
    compiled!("trace")
}
