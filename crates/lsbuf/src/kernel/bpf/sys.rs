//! The bpf(2) system call, as far as it is needed to load, attach, pin and open iterators and the
//! programs of the flight recorder.
//!
//! Every command passes a whole `union bpf_attr` (include/uapi/linux/bpf.h), with zeros where
//! nothing is set. A kernel with a smaller union refuses the call unless the rest is zero. From
//! Linux 6.4 on the kernel also writes to the union: the length that a log would have had
//! (`log_true_size`, commit 47a71c1f9af0).
#![allow(unsafe_code)]

use std::ffi::{CStr, c_char};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use aya_obj::generated::{bpf_attach_type, bpf_attr, bpf_cmd, bpf_link_info, bpf_prog_info, bpf_prog_type};
use rustix::io::{Errno, Result};

/// Room for the verifier's log of a program that it refuses, in bytes. What does not fit is lost,
/// before Linux 6.4 the end, with the reason.
const LOG: usize = 4 << 20;

/// What is needed to load a program.
#[derive(Debug)]
pub(super) struct BpfProgram<'p> {
    pub(super) name: &'p str,
    /// The instructions of 8 bytes each, in the form that the kernel reads.
    pub(super) instructions: &'p [u8],
    pub(super) license: &'p CStr,
    /// The program's own type information; its functions in it, and the size of one function
    /// record.
    pub(super) types: BorrowedFd<'p>,
    pub(super) functions: (&'p [u8], usize),
    /// The number, in the kernel's type information, of the function that it is attached to.
    pub(super) function: u32,
    pub(super) attached: Attached,
}

/// How a program is attached to a function of the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Attached {
    /// It is the iterator with that function.
    Iterator,
    /// It runs when the function begins.
    Entry,
    /// It runs when the function returns.
    Exit,
}

/// Why a program was not loaded: the error number, and the last line of the verifier's log.
pub(super) type LoadError = (Errno, String);

/// Loads a tracing program.
pub(super) fn load(program: &BpfProgram<'_>) -> std::result::Result<OwnedFd, LoadError> {
    // SAFETY: every address is that of a slice or string in `program`, with its length.
    let loaded = unsafe { bpf(bpf_cmd::BPF_PROG_LOAD, &mut attributes_of(program)) };
    // Without permission there is no log, and a second attempt would only take time.
    let errno = match loaded {
        Ok(fd) => return Ok(owned(fd)),
        Err(Errno::PERM) => return Err((Errno::PERM, String::new())),
        Err(errno) => errno,
    };
    let mut log = vec![0u8; LOG];
    let mut attributes = attributes_of(program);
    let fields = attributes.fields();
    fields.__bindgen_anon_3.log_level = 1;
    fields.__bindgen_anon_3.log_size = LOG as u32;
    fields.__bindgen_anon_3.log_buf = log.as_mut_ptr().addr() as u64;
    // SAFETY: as above; the log's address is that of `log`, exclusively borrowed, with its length.
    match unsafe { bpf(bpf_cmd::BPF_PROG_LOAD, &mut attributes) } {
        Ok(fd) => Ok(owned(fd)),
        Err(_) => Err((errno, last_line(&log))),
    }
}

/// The attributes to load a program, without a log.
fn attributes_of(program: &BpfProgram<'_>) -> Attributes {
    let (functions, function_size) = program.functions;
    let mut attributes = Attributes::new();
    let fields = attributes.fields();
    fields.__bindgen_anon_3.prog_type = bpf_prog_type::BPF_PROG_TYPE_TRACING as u32;
    fields.__bindgen_anon_3.insn_cnt = (program.instructions.len() / 8) as u32;
    fields.__bindgen_anon_3.insns = address(program.instructions);
    fields.__bindgen_anon_3.license = program.license.as_ptr().addr() as u64;
    fields.__bindgen_anon_3.expected_attach_type = match program.attached {
        Attached::Iterator => bpf_attach_type::BPF_TRACE_ITER,
        Attached::Entry => bpf_attach_type::BPF_TRACE_FENTRY,
        Attached::Exit => bpf_attach_type::BPF_TRACE_FEXIT,
    } as u32;
    fields.__bindgen_anon_3.prog_btf_fd = number(program.types);
    fields.__bindgen_anon_3.func_info_rec_size = function_size as u32;
    fields.__bindgen_anon_3.func_info = address(functions);
    fields.__bindgen_anon_3.func_info_cnt = functions.len().checked_div(function_size).unwrap_or(0) as u32;
    fields.__bindgen_anon_3.attach_btf_id = program.function;
    fields.__bindgen_anon_3.prog_name = name(program.name);
    attributes
}

/// The last line of the verifier's log, without its closing statistics.
fn last_line(log: &[u8]) -> String {
    let text = CStr::from_bytes_until_nul(log).unwrap_or_default().to_string_lossy();
    let statistics = ["processed ", "verification time", "stack depth"];
    let mut lines = text.lines().rev().filter(|line| !statistics.iter().any(|s| line.starts_with(s)));
    lines.next().unwrap_or_default().to_owned()
}

/// Loads a program's own type information.
pub(super) fn load_types(types: &[u8]) -> Result<OwnedFd> {
    let mut attributes = Attributes::new();
    let fields = attributes.fields();
    fields.__bindgen_anon_7.btf = address(types);
    fields.__bindgen_anon_7.btf_size = types.len() as u32;
    // SAFETY: the address is that of `types`, with its length.
    unsafe { bpf(bpf_cmd::BPF_BTF_LOAD, &mut attributes) }.map(owned)
}

/// Makes a map.
pub(super) fn make_map(
    map_name: &str,
    kind: u32,
    (key, value): (u32, u32),
    entries: u32,
    flags: u32,
) -> Result<OwnedFd> {
    let mut attributes = Attributes::new();
    let fields = attributes.fields();
    fields.__bindgen_anon_1.map_type = kind;
    fields.__bindgen_anon_1.key_size = key;
    fields.__bindgen_anon_1.value_size = value;
    fields.__bindgen_anon_1.max_entries = entries;
    fields.__bindgen_anon_1.map_flags = flags;
    fields.__bindgen_anon_1.map_name = name(map_name);
    // SAFETY: there are no addresses.
    unsafe { bpf(bpf_cmd::BPF_MAP_CREATE, &mut attributes) }.map(owned)
}

/// Writes `value` to an index of an array map, or a key of a hash map whose keys are such numbers.
/// The map's values have the length of `value`.
pub(super) fn fill(map: BorrowedFd<'_>, place: u32, value: &[u8]) -> Result<()> {
    let key = place.to_ne_bytes();
    let mut attributes = Attributes::new();
    let fields = attributes.fields();
    fields.__bindgen_anon_2.map_fd = number(map);
    fields.__bindgen_anon_2.key = address(&key);
    fields.__bindgen_anon_2.__bindgen_anon_1.value = address(value);
    // SAFETY: the map's key has 4 bytes, which `key` has; the map was made for values of `value`'s
    // length, and the kernel only reads both.
    unsafe { bpf(bpf_cmd::BPF_MAP_UPDATE_ELEM, &mut attributes) }.map(drop)
}

/// Reads the value at an index of an array map whose values have the length of `value`.
pub(super) fn look_up(map: BorrowedFd<'_>, place: u32, value: &mut [u8]) -> Result<()> {
    let key = place.to_ne_bytes();
    let mut attributes = Attributes::new();
    let fields = attributes.fields();
    fields.__bindgen_anon_2.map_fd = number(map);
    fields.__bindgen_anon_2.key = address(&key);
    fields.__bindgen_anon_2.__bindgen_anon_1.value = value.as_mut_ptr().addr() as u64;
    // SAFETY: an array map's key has 4 bytes, which `key` has; the map was made for values of
    // `value`'s length, and `value` is exclusively borrowed.
    unsafe { bpf(bpf_cmd::BPF_MAP_LOOKUP_ELEM, &mut attributes) }.map(drop)
}

/// Makes a map read-only for good.
pub(super) fn freeze(map: BorrowedFd<'_>) -> Result<()> {
    let mut attributes = Attributes::new();
    attributes.fields().__bindgen_anon_2.map_fd = number(map);
    // SAFETY: there are no addresses.
    unsafe { bpf(bpf_cmd::BPF_MAP_FREEZE, &mut attributes) }.map(drop)
}

/// Attaches a loaded program to its iterator. `walked`: the map, if it iterates over one.
pub(super) fn attach(program: BorrowedFd<'_>, walked: Option<BorrowedFd<'_>>) -> Result<OwnedFd> {
    // `union bpf_iter_link_info`, of which only the fd of a map is set.
    let info = walked.map(|map| number(map).to_ne_bytes());
    attach_with(program, info.as_ref().map_or(&[], |info| &info[..]))
}

/// Attaches a loaded program to its iterator over tasks, for the task with this number alone.
/// `None`: the kernel cannot do that (before Linux 6.1, commit f0d74c4da1f0).
pub(super) fn attach_to_task(program: BorrowedFd<'_>, task: u32) -> Result<Option<OwnedFd>> {
    // `union bpf_iter_link_info`, of which `task.tid` is set, and not `pid` and `pid_fd`.
    let info = [task, 0, 0].map(u32::to_ne_bytes).concat();
    let link = attach_with(program, &info)?;
    // An older kernel looks at none of these bytes, and attaches the program to all tasks.
    let made = link_info(link.as_fd())?;
    // SAFETY: all bytes of `made` are set, and the fields of the union are integers.
    let of = unsafe { made.__bindgen_anon_1.iter.__bindgen_anon_2.task.tid };
    Ok((of == task).then_some(link))
}

/// Attaches a loaded program to its iterator. `info` is the start of a `union bpf_iter_link_info`.
fn attach_with(program: BorrowedFd<'_>, info: &[u8]) -> Result<OwnedFd> {
    let mut attributes = Attributes::new();
    let fields = attributes.fields();
    fields.link_create.__bindgen_anon_1.prog_fd = number(program);
    fields.link_create.attach_type = bpf_attach_type::BPF_TRACE_ITER as u32;
    if !info.is_empty() {
        fields.link_create.__bindgen_anon_3.__bindgen_anon_1.iter_info = address(info);
        fields.link_create.__bindgen_anon_3.__bindgen_anon_1.iter_info_len = info.len() as u32;
    }
    // SAFETY: the address is that of `info`, with its length.
    unsafe { bpf(bpf_cmd::BPF_LINK_CREATE, &mut attributes) }.map(owned)
}

/// Attaches a loaded program to its function, at whose begin or end it runs from now on.
pub(super) fn attach_to_function(program: BorrowedFd<'_>) -> Result<OwnedFd> {
    let mut attributes = Attributes::new();
    // The name is that of a tracepoint, and there is none.
    attributes.fields().raw_tracepoint.prog_fd = number(program);
    // SAFETY: there are no addresses.
    unsafe { bpf(bpf_cmd::BPF_RAW_TRACEPOINT_OPEN, &mut attributes) }.map(owned)
}

/// The program of an attached iterator. Needs CAP_SYS_ADMIN.
pub(super) fn program_of(link: BorrowedFd<'_>) -> Result<OwnedFd> {
    let mut attributes = Attributes::new();
    attributes.fields().__bindgen_anon_6.__bindgen_anon_1.prog_id = link_info(link)?.prog_id;
    // SAFETY: there are no addresses.
    unsafe { bpf(bpf_cmd::BPF_PROG_GET_FD_BY_ID, &mut attributes) }.map(owned)
}

/// What the kernel tells of an attached iterator. What it does not know is 0.
fn link_info(link: BorrowedFd<'_>) -> Result<bpf_link_info> {
    let mut info = MaybeUninit::<bpf_link_info>::zeroed();
    // SAFETY: an address in the structure is where to write a name, and is 0.
    unsafe { fill_info(link, &mut info) }?;
    // SAFETY: the structure consists of integers, and all of its bytes were zeros before the call.
    Ok(unsafe { info.assume_init() })
}

/// How often the kernel did not run a program, because it was interrupted by itself on the same
/// processor. `None`: the kernel skips none (before Linux 5.12, commit 9ed9e9ba2337).
pub(super) fn skipped(program: BorrowedFd<'_>) -> Result<Option<u64>> {
    let mut info = MaybeUninit::<bpf_prog_info>::zeroed();
    // SAFETY: the addresses in the structure are where to write lists, and their lengths are 0.
    let filled = unsafe { fill_info(program, &mut info) }?;
    // SAFETY: the structure consists of integers, and all of its bytes were zeros before the call.
    let info = unsafe { info.assume_init() };
    let has = std::mem::offset_of!(bpf_prog_info, recursion_misses) + size_of::<u64>() <= filled;
    Ok(has.then_some(info.recursion_misses))
}

/// Lets the kernel fill a structure with what it tells of a link or a program. Returns how many
/// bytes of it this kernel knows.
///
/// # Safety
///
/// The kernel reads from the structure where it may write more. Each such address must be valid for
/// that, or its length 0.
unsafe fn fill_info<T>(of: BorrowedFd<'_>, info: &mut MaybeUninit<T>) -> Result<usize> {
    let mut attributes = Attributes::new();
    let fields = attributes.fields();
    fields.info.bpf_fd = number(of);
    fields.info.info = info.as_mut_ptr().addr() as u64;
    fields.info.info_len = size_of::<T>() as u32;
    // SAFETY: the address is that of `info`, exclusively borrowed, with its length; the caller is
    // responsible for those in it.
    unsafe { bpf(bpf_cmd::BPF_OBJ_GET_INFO_BY_FD, &mut attributes) }?;
    // SAFETY: the fields of the union are integers, and all of its bytes are set.
    Ok(unsafe { attributes.fields().info.info_len } as usize)
}

/// Opens an attached iterator for one reading.
pub(super) fn open(link: BorrowedFd<'_>) -> Result<OwnedFd> {
    let mut attributes = Attributes::new();
    attributes.fields().iter_create.link_fd = number(link);
    // SAFETY: there are no addresses.
    unsafe { bpf(bpf_cmd::BPF_ITER_CREATE, &mut attributes) }.map(owned)
}

/// Opens what is pinned at this path: the attached iterator itself, not for a reading. Needs the
/// right to write to the file.
pub(super) fn pinned(path: &CStr) -> Result<OwnedFd> {
    let mut attributes = Attributes::new();
    attributes.fields().__bindgen_anon_4.pathname = path.as_ptr().addr() as u64;
    // SAFETY: the address is that of `path`, which ends in a NUL.
    unsafe { bpf(bpf_cmd::BPF_OBJ_GET, &mut attributes) }.map(owned)
}

/// Pins an attached iterator in a bpf filesystem.
pub(super) fn pin(link: BorrowedFd<'_>, path: &CStr) -> Result<()> {
    let mut attributes = Attributes::new();
    let fields = attributes.fields();
    fields.__bindgen_anon_4.pathname = path.as_ptr().addr() as u64;
    fields.__bindgen_anon_4.bpf_fd = number(link);
    // SAFETY: the address is that of `path`, which ends in a NUL.
    unsafe { bpf(bpf_cmd::BPF_OBJ_PIN, &mut attributes) }.map(drop)
}

/// A `union bpf_attr` with every byte set, including bytes that belong to no field: a newer kernel
/// may have a field there.
struct Attributes([u64; size_of::<bpf_attr>() / size_of::<u64>()]);

const _: () = assert!(size_of::<Attributes>() == size_of::<bpf_attr>());
const _: () = assert!(align_of::<Attributes>() >= align_of::<bpf_attr>());

impl Attributes {
    /// All zero.
    fn new() -> Attributes {
        Attributes([0; _])
    }

    fn fields(&mut self) -> &mut bpf_attr {
        // SAFETY: size and alignment fit, and the union's fields consist of integers, for which all
        // bytes are valid.
        unsafe { &mut *self.0.as_mut_ptr().cast::<bpf_attr>() }
    }
}

/// The system call.
///
/// # Safety
///
/// Each address in `attributes` must be valid for what `command` does with it.
unsafe fn bpf(command: bpf_cmd, attributes: &mut Attributes) -> Result<i32> {
    // SAFETY: `attributes` is exclusively borrowed, and the kernel reads and writes no more than
    // its size; the caller is responsible for the rest.
    let result = unsafe {
        libc::syscall(libc::SYS_bpf, command as u32, std::ptr::from_mut(attributes), size_of::<Attributes>())
    };
    i32::try_from(result)
        .ok()
        .filter(|&fd| fd >= 0)
        .ok_or_else(|| Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO))
}

fn owned(fd: i32) -> OwnedFd {
    // SAFETY: the kernel has just made this fd for us, and nothing else owns it.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

fn number(fd: BorrowedFd<'_>) -> u32 {
    fd.as_raw_fd().cast_unsigned()
}

fn address(bytes: &[u8]) -> u64 {
    bytes.as_ptr().addr() as u64
}

/// As much of a name as fits with a NUL after it.
fn name(name: &str) -> [c_char; 16] {
    let mut to = [0; 16];
    for (to, from) in to.iter_mut().take(15).zip(name.bytes()) {
        *to = c_char::from_ne_bytes([from]);
    }
    to
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::btf;

    /// Check that the kernel gets every byte of the attributes, and that all are zero except those
    /// that are set.
    #[test]
    fn whole_and_zero() {
        let mut attributes = Attributes::new();
        assert_eq!(attributes.0, [0; size_of::<bpf_attr>() / 8]);
        attributes.fields().__bindgen_anon_7.btf_size = u32::MAX;
        let set: u32 = attributes.0.iter().map(|word| word.count_ones()).sum();
        assert_eq!(set, 32);
    }

    /// Check that types can be loaded, if this process may do that, and that what the kernel writes
    /// to the attributes can be read there.
    #[test]
    fn types_are_loaded() {
        // The type of a 32-bit integer.
        let one = [1u32, 1 << 24, 4, 32].map(u32::to_ne_bytes).concat();
        match load_types(&btf::file(&one, b"\0int\0").unwrap()) {
            Ok(_) => {}
            Err(Errno::PERM | Errno::NOSYS) => return,
            Err(errno) => panic!("{errno}"),
        }
        let (mut log, garbage) = ([0u8; 4096], [0u8; 32]);
        let mut attributes = Attributes::new();
        let fields = attributes.fields();
        fields.__bindgen_anon_7.btf = address(&garbage);
        fields.__bindgen_anon_7.btf_size = garbage.len() as u32;
        fields.__bindgen_anon_7.btf_log_level = 1;
        fields.__bindgen_anon_7.btf_log_size = log.len() as u32;
        fields.__bindgen_anon_7.btf_log_buf = log.as_mut_ptr().addr() as u64;
        // SAFETY: the addresses are those of `garbage` and `log`, which is exclusively borrowed,
        // with their lengths.
        assert_eq!(unsafe { bpf(bpf_cmd::BPF_BTF_LOAD, &mut attributes) }, Err(Errno::INVAL));
        let said = CStr::from_bytes_until_nul(&log).unwrap().count_bytes();
        // SAFETY: all bytes of the union are set.
        let told = unsafe { attributes.fields().__bindgen_anon_7.btf_log_true_size };
        // It is not written before Linux 6.4.
        assert!(told == 0 || told as usize == said + 1, "{told} {said}");
    }

    /// Check that a name that does not fit is cut.
    #[test]
    fn names() {
        let text = |called| name(called).map(|byte| byte.to_ne_bytes()[0]);
        assert_eq!(&text("lsbuf_fds"), b"lsbuf_fds\0\0\0\0\0\0\0");
        assert_eq!(&text("lsbuf_tasks_shmem"), b"lsbuf_tasks_shm\0");
    }
}
