//! The registers of a thread by the numbers that DWARF gives them, and how they are in the kernel's
//! `struct pt_regs`.
//!
//! The numbers are those of the ABI of each architecture (x86-64: figure 3.36 of its psABI; arm64:
//! "DWARF for the Arm 64-bit Architecture"). Which registers a called function preserves is of the
//! same documents.
//!
//! Limits: x86-64 and arm64.

use super::REGISTERS;

/// What differs between architectures.
pub(super) struct Machine {
    /// Where each register is among the kernel's words, by its number in DWARF.
    words: &'static [usize],
    /// Where the address of the next instruction is among them.
    next: usize,
    /// The stack pointer.
    pub(super) stack: u16,
    /// The register of the return address.
    pub(super) returns: u16,
    /// Whether that is a register of the processor, which a function that calls none leaves as it
    /// is.
    pub(super) has_link: bool,
    /// Those that a function preserves for its caller.
    pub(super) preserved: &'static [u16],
    /// Which bits of a return address are the address. The others may be a signature.
    pub(super) address: u64,
    /// Whether these are the registers of a program of 64 bits.
    is_wide: fn(&[u64; REGISTERS]) -> bool,
}

/// `ss` is word 20, `cs` word 17: 0x33 is `__USER_CS`.
#[cfg_attr(not(target_arch = "x86_64"), allow(dead_code, reason = "it is of another architecture"))]
const X86_64: Machine = Machine {
    words: &[10, 12, 11, 5, 13, 14, 4, 19, 9, 8, 7, 6, 3, 2, 1, 0, 16],
    next: 16,
    stack: 7,
    returns: 16,
    has_link: false,
    preserved: &[3, 6, 12, 13, 14, 15],
    address: u64::MAX,
    is_wide: |words| words[17] & 0xffff == 0x33,
};

/// The bits of `pstate` (word 33): the exception level, and bit 4 for programs of 32 bits. Programs
/// have addresses of 48 bits, unless they ask for more.
#[cfg_attr(not(target_arch = "aarch64"), allow(dead_code, reason = "it is of another architecture"))]
const ARM64: Machine = Machine {
    words: &[
        0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27,
        28, 29, 30, 31,
    ],
    next: 32,
    stack: 31,
    returns: 30,
    has_link: true,
    preserved: &[19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29],
    address: (1 << 48) - 1,
    is_wide: |words| words[33] & 0x1f == 0,
};

/// That of this machine. `None`: no stack is unwound.
pub(super) const MACHINE: Option<&Machine> = if cfg!(target_arch = "x86_64") {
    Some(&X86_64)
} else if cfg!(target_arch = "aarch64") {
    Some(&ARM64)
} else {
    None
};

/// The registers of a call, by their numbers in DWARF. `None`: not known.
#[derive(Clone, Debug)]
pub(super) struct Registers {
    pub(super) values: Vec<Option<u64>>,
    /// The address of the next instruction.
    pub(super) next: u64,
}

impl Registers {
    /// Those that the kernel has kept. `None`: there are none, or they are of another mode.
    pub(super) fn of(machine: &Machine, words: &[u64; REGISTERS]) -> Option<Registers> {
        let next = words[machine.next];
        let is_any = next != 0 && (machine.is_wide)(words);
        let values = machine.words.iter().map(|&at| words.get(at).copied()).collect();
        is_any.then_some(Registers { values, next })
    }

    pub(super) fn get(&self, number: u16) -> Option<u64> {
        self.values.get(usize::from(number)).copied().flatten()
    }

    pub(super) fn set(&mut self, number: u16, value: Option<u64>) {
        if let Some(register) = self.values.get_mut(usize::from(number)) {
            *register = value;
        }
    }
}
