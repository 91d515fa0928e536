//! Stacks of this process and of its own making, and tables that are made to harm their reader.

#![allow(unsafe_code)]

use std::arch::asm;
use std::path::Path;

use proptest::prelude::*;

use super::code::Section;
use super::registers::MACHINE;
use super::space::Mapping;
use super::*;
use crate::kernel::process::ProcessDir;
use crate::kernel::symbols::elf::{Elf, Segment};
use crate::kernel::task;
use crate::model::Pid;

/// Long enough for a busy machine.
const DEADLINE: Duration = Duration::from_secs(5);

fn procfs() -> Arc<ProcRoot> {
    Arc::new(ProcRoot::open(Path::new("/proc")).unwrap())
}

/// This process, and where its program begins.
fn own() -> (Maker, (u64, u64)) {
    let pid = Pid(std::process::id());
    let mut stat = Vec::new();
    ProcessDir::open(&procfs(), pid).unwrap().dir().read_record(c"stat", &mut stat).unwrap();
    let tick = 1_000_000_000 / rustix::param::clock_ticks_per_second();
    // The kernel knows it more exactly than procfs tells.
    let started = Duration::from_nanos(task::stat(&stat).unwrap().1 * tick + tick / 2);
    ((pid, started), task::image_start(&stat).unwrap())
}

/// The registers as they are here, as the kernel would keep them.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn here() -> [u64; REGISTERS] {
    let mut words = [0u64; REGISTERS];
    // SAFETY: writes to places inside of the array.
    unsafe {
        asm!(
            "lea {ip}, [rip]",
            "mov [{to} + 8 * 16], {ip}",
            "mov [{to} + 8 * 19], rsp",
            "mov [{to} + 8 * 4], rbp",
            "mov [{to} + 8 * 5], rbx",
            "mov [{to} + 8 * 3], r12",
            "mov [{to} + 8 * 2], r13",
            "mov [{to} + 8 * 1], r14",
            "mov [{to}], r15",
            ip = out(reg) _,
            to = in(reg) words.as_mut_ptr(),
            options(nostack),
        );
    }
    words[17] = 0x33;
    words
}

#[cfg(target_arch = "aarch64")]
#[inline(always)]
fn here() -> [u64; REGISTERS] {
    let mut words = [0u64; REGISTERS];
    // SAFETY: writes to places inside of the array.
    unsafe {
        asm!(
            "adr {scratch}, .",
            "str {scratch}, [{to}, #8 * 32]",
            "mov {scratch}, sp",
            "str {scratch}, [{to}, #8 * 31]",
            "stp x19, x20, [{to}, #8 * 19]",
            "stp x21, x22, [{to}, #8 * 21]",
            "stp x23, x24, [{to}, #8 * 23]",
            "stp x25, x26, [{to}, #8 * 25]",
            "stp x27, x28, [{to}, #8 * 27]",
            "stp x29, x30, [{to}, #8 * 29]",
            scratch = out(reg) _,
            to = in(reg) words.as_mut_ptr(),
            options(nostack),
        );
    }
    words
}

/// The stack pointer and the next address of registers.
fn set(words: &mut [u64; REGISTERS], stack: u64, next: u64) {
    if cfg!(target_arch = "x86_64") {
        (words[19], words[16], words[17]) = (stack, next, 0x33);
    } else {
        (words[31], words[32], words[33]) = (stack, next, 0);
    }
}

fn stack_pointer(words: &[u64; REGISTERS]) -> u64 {
    words[if cfg!(target_arch = "x86_64") { 19 } else { 31 }]
}

#[inline(never)]
fn inner(most: usize) -> Copied {
    let registers = here();
    let from = stack_pointer(&registers);
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let end = maps.lines().find_map(|line| {
        let (start, end) = line.split(' ').next()?.split_once('-')?;
        let [start, end] = [start, end].map(|text| u64::from_str_radix(text, 16).unwrap());
        (start..end).contains(&from).then_some(end)
    });
    let length = usize::try_from(end.unwrap() - from).unwrap().min(most);
    // SAFETY: the stack of this thread is mapped from its stack pointer to the end of the mapping.
    // It is copied by the kernel, which sees no types.
    let bytes = unsafe { std::slice::from_raw_parts(from as *const u8, length) }.to_vec();
    let (_, (start_code, start_stack)) = own();
    Copied { registers, start_stack, start_code, from, bytes }
}

/// Something to do after the call, or it would be a jump.
#[inline(never)]
fn middle(most: usize) -> Copied {
    let copied = inner(most);
    std::hint::black_box(copied)
}

#[inline(never)]
fn outer(most: usize) -> Copied {
    let copied = middle(most);
    std::hint::black_box(copied)
}

/// Check that the calls of a thread of this process are found to its start, in order: each address
/// is behind the begin of the function, and no other one of these begins in between.
#[test]
fn own_stack() {
    let copied = outer(1 << 20);
    let found = Unwinder::new(procfs(), DEADLINE).unwind(own().0, vec![copied]);
    let unwound = found[0].clone().unwrap();
    let functions = [inner as *const () as u64, middle as *const () as u64, outer as *const () as u64];
    let functions = [functions.as_slice(), &[own_stack as *const () as u64]].concat();
    let of = |address: u64| functions.iter().filter(|&&begin| begin < address).max().copied();
    let told: Vec<Option<u64>> = unwound.calls.iter().take(4).map(|(address, _)| of(*address)).collect();
    assert_eq!(told, functions.iter().copied().map(Some).collect::<Vec<_>>(), "{unwound:x?}");
    assert!(unwound.is_whole, "{unwound:x?}");
    // Besides these there are those of the test's harness.
    assert!((8..MOST_CALLS).contains(&unwound.calls.len()), "{unwound:x?}");
}

/// Check that of a copy that is too short the first calls are told, and that there are more.
#[test]
fn short_copy() {
    let found = Unwinder::new(procfs(), DEADLINE).unwind(own().0, vec![outer(1 << 20), outer(0)]);
    let [whole, none] = &found[..] else { panic!("{found:?}") };
    let (whole, none) = (whole.clone().unwrap(), none.clone().unwrap());
    assert_eq!((none.calls.len(), none.is_whole), (1, false));
    assert_eq!(none.calls[0], whole.calls[0]);
}

/// Check that nothing is told of a process that was started at another time, that runs another
/// program, or whose registers are not those of a program of 64 bits.
#[test]
fn other_programs() {
    let ((pid, started), _) = own();
    let mut unwinder = Unwinder::new(procfs(), DEADLINE);
    let copied = outer(1 << 20);
    assert_eq!(unwinder.unwind((pid, started + Duration::from_secs(1)), vec![copied.clone()]), [None]);
    assert_eq!(unwinder.unwind((Pid(u32::MAX >> 1), started), vec![copied.clone()]), [None]);
    let other = Copied { start_stack: copied.start_stack + 16, ..copied.clone() };
    let mut narrow = copied.clone();
    (narrow.registers[17], narrow.registers[33]) = (0x23, 0x10);
    let none = Copied { registers: [0; REGISTERS], ..copied.clone() };
    let found = unwinder.unwind((pid, started), vec![other, narrow, none, copied]);
    let is_some: Vec<bool> = found.iter().map(Option::is_some).collect();
    assert_eq!(is_some, [false, false, false, true]);
}

/// Where the code of the tables here is, and its functions: each is so long.
const CODE: u64 = 0x40_0000;
const FUNCTION: u64 = 0x100;

/// Instructions of tables (DWARF 5, section 7.24).
const DEF_CFA: u8 = 0x0c;
const DEF_CFA_EXPRESSION: u8 = 0x0f;
const UNDEFINED: u8 = 0x07;
const EXPRESSION: u8 = 0x10;

/// An entry with its length. A length is a multiple of 8 with the four bytes of its own.
fn entry(mut body: Vec<u8>) -> Vec<u8> {
    body.resize((body.len() + 4).next_multiple_of(8) - 4, 0);
    [&u32::try_from(body.len()).unwrap().to_ne_bytes()[..], &body].concat()
}

/// A table in which each function has these instructions, after common ones: the CFA is 16 bytes
/// above the stack pointer, and the return address 8 bytes below that.
fn table(functions: &[&[u8]]) -> Vec<u8> {
    let machine = MACHINE.unwrap();
    let [stack, returns] = [machine.stack, machine.returns].map(|one| u8::try_from(one).unwrap());
    let common = [0, 0, 0, 0, 1, b'z', b'R', 0, 1, 0x78, returns, 1, 0];
    let mut table = entry([&common[..], &[DEF_CFA, stack, 16, 0x80 | returns, 1]].concat());
    for (nth, instructions) in (0..).zip(functions) {
        let back = u32::try_from(table.len() + 4).unwrap().to_ne_bytes();
        let range = [CODE + nth * FUNCTION, FUNCTION].map(u64::to_ne_bytes).concat();
        let one = entry([&back[..], &range, &[0], instructions].concat());
        table.extend(one);
    }
    table
}

/// Unwinds a stack that begins at [`STACK`] with these words, in the first function of a file with
/// this table and index.
fn through(frames: Vec<u8>, index: Option<Vec<u8>>, words: &[u64], next: u64) -> Option<Unwound> {
    let elf = Elf { segments: vec![Segment::first(1 << 20, CODE)], ..Elf::default() };
    let section = |bytes| Section { address: 0x50_0000, bytes };
    let code = Code { elf, frames: Some(section(frames)), index: index.map(section) };
    let code = Some(Arc::new(code));
    let mapping = Mapping { start: CODE, end: CODE + (1 << 16), offset: 0, code };
    let mut registers = [0; REGISTERS];
    set(&mut registers, STACK, next);
    let bytes = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
    let copied = Copied { registers, start_stack: 0, start_code: 0, from: STACK, bytes };
    let mut unwinder = Unwinder::new(procfs(), Duration::from_secs(1));
    let mut found = [None];
    let space = Arc::new(Space { mappings: vec![mapping] });
    unwinder.walk(&space, (Pid(1), Duration::ZERO), &Arc::new(vec![copied]), &[0], &mut found);
    let [found] = found;
    found
}

const STACK: u64 = 0x7000_0000;

/// An address in a function.
fn at(function: u64) -> u64 {
    CODE + function * FUNCTION + 0x10
}

fn calls(unwound: Option<Unwound>) -> (Vec<u64>, bool) {
    let unwound = unwound.unwrap_or(Unwound { calls: Vec::new(), is_whole: false });
    (unwound.calls.iter().map(|(address, _)| *address).collect(), unwound.is_whole)
}

/// The instruction by which a function has no caller.
fn no_caller() -> [u8; 2] {
    [UNDEFINED, u8::try_from(MACHINE.unwrap().returns).unwrap()]
}

/// Check that the tables made here are good ones, so that what is wrong below is the reason for
/// what is found there: two calls, and one that has no caller.
#[test]
fn a_good_table() {
    let table = table(&[&[], &no_caller()]);
    let words = [0, at(0), 0, at(1), 0, at(0)];
    assert_eq!(calls(through(table, None, &words, at(0))), (vec![at(0), at(0), at(1)], true));
}

/// Check that the walk ends, and says so, where code has no entry, where a return address leads out
/// of code, where the copy ends, and where the stack pointer is outside of it.
#[test]
fn ends() {
    let table = || table(&[&[]]);
    let one = (vec![at(0)], false);
    assert_eq!(calls(through(table(), None, &[0, at(1), 0, at(0)], at(0))), (vec![at(0), at(1)], false));
    assert_eq!(calls(through(table(), None, &[0, 0x1234], at(0))), one);
    assert_eq!(calls(through(table(), None, &[0], at(0))), one);
    assert_eq!(calls(through(table(), None, &[], at(0))), one);
    assert_eq!(calls(through(table(), None, &[0, at(0)], 0x1234)), (vec![], false));
    assert_eq!(calls(through(Vec::new(), None, &[0, at(0)], at(0))), one);
}

/// Check that a stack of endless calls is told up to a limit, as one that is not whole.
#[test]
fn endless_calls() {
    let words = [0, at(0)].repeat(1 << 11);
    let (calls, is_whole) = calls(through(table(&[&[]]), None, &words, at(0)));
    assert_eq!((calls.len(), is_whole), (MOST_CALLS, false));
}

/// Check that tables by which a stack does not grow, and expressions that loop or leave the copy,
/// end the walk soon.
#[test]
fn hostile_rules() {
    let begin = Instant::now();
    let stack = u8::try_from(MACHINE.unwrap().stack).unwrap();
    let expression =
        |bytes: &[u8]| [&[DEF_CFA_EXPRESSION, u8::try_from(bytes.len()).unwrap()][..], bytes].concat();
    for instructions in [
        // The CFA is the stack pointer, and below it.
        vec![DEF_CFA, stack, 0],
        // A jump to itself; a push and a jump to it.
        expression(&[0x2f, 0xfd, 0xff]),
        expression(&[0x30, 0x2f, 0xfc, 0xff]),
        // A division by zero; what is at address 8.
        expression(&[0x31, 0x30, 0x1b]),
        expression(&[0x38, 0x06]),
        // The stack pointer of the caller is read where the CFA says, in an endless expression.
        [&[EXPRESSION, stack, 3][..], &[0x2f, 0xfd, 0xff]].concat(),
        // An instruction that no table has.
        vec![0x3f],
    ] {
        let found = through(table(&[&instructions]), None, &[0, at(0), 0, at(0)], at(0));
        let (calls, is_whole) = calls(found);
        assert!(calls.len() <= 2 && !is_whole, "{instructions:x?}: {calls:x?}");
    }
    assert!(begin.elapsed() < DEADLINE);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    /// Check that no damage to a table or its index costs more than calls.
    #[test]
    fn damage(
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..12),
        index in proptest::option::of(proptest::collection::vec(any::<u8>(), 0..64)),
        words in proptest::collection::vec(prop_oneof![any::<u64>(), Just(at(0)), Just(STACK)], 0..32),
    ) {
        let mut table = table(&[&[], &no_caller()]);
        for (at, byte) in changes {
            let at = at.index(table.len());
            table[at] = byte;
        }
        // A version and encodings that are known, so that the rest is looked at.
        let index = index.map(|rest| [&[1, 0x1b, 0x03, 0x3b][..], &rest].concat());
        let (calls, _) = calls(through(table, index, &words, at(0)));
        prop_assert!(calls.len() <= MOST_CALLS);
        prop_assert!(calls.iter().all(|&call| (CODE..=CODE + (1 << 16)).contains(&call)));
    }

    /// Check that any bytes of an answer are understood or not, without a panic, and that answers
    /// come back.
    #[test]
    fn answers(
        bytes in proptest::collection::vec(any::<u8>(), 0..200),
        addresses in proptest::collection::vec(any::<u64>(), 0..MOST_CALLS),
        is_whole: bool,
    ) {
        let _ = walk::all(&bytes);
        let walk = Walk { addresses, is_whole };
        prop_assert_eq!(walk::all(&[walk.to_bytes(), walk.to_bytes()].concat()), [walk.clone(), walk]);
    }
}
