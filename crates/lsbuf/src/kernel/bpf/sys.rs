//! The bpf(2) system call, as far as loading, attaching, pinning and opening iterators takes.
//!
//! The structures are the leading parts of `union bpf_attr` (include/uapi/linux/bpf.h) for each command; the kernel takes
//! a shorter one for one whose rest is zero.
#![allow(unsafe_code)]

use std::ffi::CStr;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::io::{Errno, Result};

/// Room for what the verifier says of a program that it refuses.
const LOG: usize = 64 << 10;

/// A program to be loaded.
#[derive(Debug)]
pub(super) struct Program<'p> {
    pub(super) name: &'p str,
    /// Instructions of 8 bytes each, as the kernel takes them.
    pub(super) instructions: &'p [u8],
    pub(super) license: &'p CStr,
    /// Type information of the program's own, and its functions in it with the size of one record.
    pub(super) types: BorrowedFd<'p>,
    pub(super) functions: (&'p [u8], usize),
    /// The iterator's number in the kernel's type information.
    pub(super) iterator: u32,
}

/// Why a program was not loaded: the error, and the last line that the verifier wrote.
pub(super) type Refusal = (Errno, String);

/// Loads a program of type tracing, to be attached to an iterator.
pub(super) fn load(program: &Program<'_>) -> std::result::Result<OwnedFd, Refusal> {
    const PROG_LOAD: u32 = 5;
    const TRACING: u32 = 26;
    #[repr(C)]
    #[derive(Default)]
    struct Attributes {
        kind: u32,
        instruction_count: u32,
        instructions: u64,
        license: u64,
        log_level: u32,
        log_size: u32,
        log: u64,
        kernel_version: u32,
        flags: u32,
        name: [u8; 16],
        interface: u32,
        attach_type: u32,
        types: u32,
        function_size: u32,
        functions: u64,
        function_count: u32,
        line_size: u32,
        lines: u64,
        line_count: u32,
        attach_to: u32,
    }
    let (functions, function_size) = program.functions;
    let mut attributes = Attributes {
        kind: TRACING,
        instruction_count: (program.instructions.len() / 8) as u32,
        instructions: address(program.instructions),
        license: program.license.as_ptr().addr() as u64,
        attach_type: TRACE_ITER,
        types: number(program.types),
        function_size: function_size as u32,
        functions: address(functions),
        function_count: functions.len().checked_div(function_size).unwrap_or(0) as u32,
        attach_to: program.iterator,
        ..Attributes::default()
    };
    name_into(&mut attributes.name, program.name);
    // SAFETY: every address is that of a slice or string in `program`, with its length.
    let loaded = unsafe { bpf(PROG_LOAD, &attributes) };
    // Without permission there is nothing to be said, and saying it costs.
    let errno = match loaded {
        Ok(fd) => return Ok(owned(fd)),
        Err(Errno::PERM) => return Err((Errno::PERM, String::new())),
        Err(errno) => errno,
    };
    let mut log = vec![0u8; LOG];
    attributes.log_level = 1;
    attributes.log_size = LOG as u32;
    attributes.log = log.as_mut_ptr().addr() as u64;
    // SAFETY: as above; the log's address is that of `log`, exclusively borrowed, with its length.
    match unsafe { bpf(PROG_LOAD, &attributes) } {
        Ok(fd) => Ok(owned(fd)),
        Err(_) => Err((errno, last_words(&log))),
    }
}

/// What the verifier said last, without its closing statistics.
fn last_words(log: &[u8]) -> String {
    let text = CStr::from_bytes_until_nul(log).unwrap_or_default().to_string_lossy();
    let statistics = ["processed ", "verification time", "stack depth"];
    let mut lines = text.lines().rev().filter(|line| !statistics.iter().any(|s| line.starts_with(s)));
    lines.next().unwrap_or_default().to_owned()
}

/// Gives the kernel a program's own type information.
pub(super) fn load_types(types: &[u8]) -> Result<OwnedFd> {
    const BTF_LOAD: u32 = 18;
    #[repr(C)]
    #[derive(Default)]
    struct Attributes {
        types: u64,
        log: u64,
        size: u32,
        log_size: u32,
        log_level: u32,
    }
    let attributes = Attributes { types: address(types), size: types.len() as u32, ..Attributes::default() };
    // SAFETY: the address is that of `types`, with its length.
    unsafe { bpf(BTF_LOAD, &attributes) }.map(owned)
}

/// Makes a map.
pub(super) fn make_map(
    name: &str,
    kind: u32,
    (key, value): (u32, u32),
    entries: u32,
    flags: u32,
) -> Result<OwnedFd> {
    const MAP_CREATE: u32 = 0;
    #[repr(C)]
    #[derive(Default)]
    struct Attributes {
        kind: u32,
        key: u32,
        value: u32,
        entries: u32,
        flags: u32,
        inner: u32,
        numa_node: u32,
        name: [u8; 16],
    }
    let mut attributes = Attributes { kind, key, value, entries, flags, ..Attributes::default() };
    name_into(&mut attributes.name, name);
    // SAFETY: there are no addresses.
    unsafe { bpf(MAP_CREATE, &attributes) }.map(owned)
}

/// Puts `value` into the only place of an array map, whose values must have that size, and makes it constant.
pub(super) fn fill_and_freeze(map: BorrowedFd<'_>, value: &[u8]) -> Result<()> {
    const MAP_UPDATE_ELEM: u32 = 2;
    const MAP_FREEZE: u32 = 22;
    #[repr(C)]
    struct Attributes {
        map: u32,
        unused: u32,
        key: u64,
        value: u64,
        flags: u64,
    }
    let key = [0u8; 4];
    let attributes =
        Attributes { map: number(map), unused: 0, key: address(&key), value: address(value), flags: 0 };
    // SAFETY: an array map's key has 4 bytes, which `key` has; the map was made for values of `value`'s length, and the
    // kernel only reads both.
    unsafe { bpf(MAP_UPDATE_ELEM, &attributes) }?;
    // SAFETY: there are no addresses.
    unsafe { bpf(MAP_FREEZE, &number(map)) }.map(drop)
}

/// Attaches a loaded program to its iterator.
pub(super) fn attach(program: BorrowedFd<'_>) -> Result<OwnedFd> {
    const LINK_CREATE: u32 = 28;
    #[repr(C)]
    struct Attributes {
        program: u32,
        target: u32,
        attach_type: u32,
        flags: u32,
    }
    let attributes = Attributes { program: number(program), target: 0, attach_type: TRACE_ITER, flags: 0 };
    // SAFETY: there are no addresses.
    unsafe { bpf(LINK_CREATE, &attributes) }.map(owned)
}

/// Opens an attached iterator for one reading.
pub(super) fn open(link: BorrowedFd<'_>) -> Result<OwnedFd> {
    const ITER_CREATE: u32 = 33;
    // SAFETY: there are no addresses.
    unsafe { bpf(ITER_CREATE, &[number(link), 0]) }.map(owned)
}

/// Gives an attached iterator a name in a bpf filesystem.
pub(super) fn pin(link: BorrowedFd<'_>, path: &CStr) -> Result<()> {
    const OBJ_PIN: u32 = 6;
    #[repr(C)]
    struct Attributes {
        path: u64,
        object: u32,
        flags: u32,
    }
    let attributes = Attributes { path: path.as_ptr().addr() as u64, object: number(link), flags: 0 };
    // SAFETY: the address is that of `path`, which ends in a NUL.
    unsafe { bpf(OBJ_PIN, &attributes) }.map(drop)
}

/// `BPF_TRACE_ITER`.
const TRACE_ITER: u32 = 28;

/// The system call.
///
/// # Safety
///
/// Each address in `attributes` must be valid for what `command` does with it.
unsafe fn bpf<A>(command: u32, attributes: &A) -> Result<i32> {
    // SAFETY: `attributes` lives, and the kernel reads no more of it than its size; the caller answers for the rest. None
    // of the commands here writes to it.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(attributes), size_of::<A>()) };
    i32::try_from(result)
        .ok()
        .filter(|&fd| fd >= 0)
        .ok_or_else(|| Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO))
}

fn owned(fd: i32) -> OwnedFd {
    // SAFETY: the kernel has just made this fd for us, and nobody else knows it.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

fn number(fd: BorrowedFd<'_>) -> u32 {
    fd.as_raw_fd().cast_unsigned()
}

fn address(bytes: &[u8]) -> u64 {
    bytes.as_ptr().addr() as u64
}

/// As much of a name as fits with a NUL behind it.
fn name_into(to: &mut [u8; 16], name: &str) {
    let len = name.len().min(to.len() - 1);
    to[..len].copy_from_slice(&name.as_bytes()[..len]);
}
