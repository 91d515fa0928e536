//! A walk from the innermost call outwards, and how its answer is written.
//!
//! For each call the table has a row: how the canonical frame address (CFA, the stack pointer of
//! the caller) follows from the registers, and where the caller's registers are. Each rule is
//! applied as it is written, or the walk ends.
//!
//! The walk ends, for good, at a call of which the table says that its return address is undefined:
//! that is how the start of a program and of a thread is marked.
//!
//! An answer is a byte (1: the outermost call has no caller), the number of addresses (two bytes)
//! and the addresses (eight bytes each), in little-endian byte order.

use gimli::{
    BaseAddresses, CfaRule, EhFrame, EhFrameHdr, Encoding, EndianSlice, Evaluation, EvaluationResult,
    Expression, FrameDescriptionEntry, Location, NativeEndian, Register, RegisterRule, UnwindContext,
    UnwindSection, UnwindTableRow, Value, Vendor,
};

use super::code::Code;
use super::registers::{MACHINE, Machine, Registers};
use super::space::Space;
use super::{Copied, MOST_CALLS};

type Slice<'s> = EndianSlice<'s, NativeEndian>;

/// The most steps of one DWARF expression. Real ones have a few.
const MOST_STEPS: u32 = 1000;

/// What a walk has found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Walk {
    /// Where each call goes on, the innermost first. Empty: there are no registers.
    pub(super) addresses: Vec<u64>,
    /// The outermost call has no caller.
    pub(super) is_whole: bool,
}

/// The numbers in a stack and in its registers that could be addresses.
pub(super) fn words(copied: &Copied) -> impl Iterator<Item = u64> + '_ {
    let mask = MACHINE.map_or(u64::MAX, |machine| machine.address);
    let (in_stack, _) = copied.bytes.as_chunks::<8>();
    let in_stack = in_stack.iter().map(|word| u64::from_ne_bytes(*word));
    // What is below that is never mapped.
    let least = 1 << 16;
    in_stack.chain(copied.registers).map(move |word| word & mask).filter(move |word| *word >= least)
}

impl Walk {
    /// Walks through a stack.
    pub(super) fn through(space: &Space, copied: &Copied) -> Walk {
        let mut walk = Walk::default();
        let registers = MACHINE.and_then(|machine| {
            Registers::of(machine, &copied.registers).map(|registers| (machine, registers))
        });
        let Some((machine, registers)) = registers else { return walk };
        let mut call = Call { machine, registers, is_exact: true, copied };
        let mut context = UnwindContext::new();
        while walk.addresses.len() < MOST_CALLS {
            let address = call.registers.next;
            // A return address may be the first byte of the next function.
            let inside = if call.is_exact { Some(address) } else { address.checked_sub(1) };
            let mapping = inside.and_then(|inside| Some((space.at(inside)?, inside)));
            let Some((mapping, inside)) = mapping else { break };
            walk.addresses.push(address);
            let place = mapping.code.as_ref().zip(mapping.in_file(inside));
            let Some((code, offset)) = place else { break };
            match call.caller(code, offset, &mut context) {
                Some(Caller::Is(caller)) => call = caller,
                Some(Caller::None) => {
                    walk.is_whole = true;
                    break;
                }
                None => break,
            }
        }
        walk
    }

    /// As bytes.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = vec![u8::from(self.is_whole)];
        let addresses = self.addresses.get(..MOST_CALLS).unwrap_or(&self.addresses);
        bytes.extend(u16::try_from(addresses.len()).unwrap_or_default().to_le_bytes());
        bytes.extend(addresses.iter().flat_map(|address| address.to_le_bytes()));
        bytes
    }
}

/// The answers in these bytes, up to the first that is cut off or malformed.
pub(super) fn all(mut bytes: &[u8]) -> Vec<Walk> {
    let mut walks = Vec::new();
    while let Some((walk, rest)) = one(bytes) {
        walks.push(walk);
        bytes = rest;
    }
    walks
}

fn one(bytes: &[u8]) -> Option<(Walk, &[u8])> {
    let (&[is_whole @ (0 | 1), low, high], rest) = bytes.split_first_chunk()? else { return None };
    let count = usize::from(u16::from_le_bytes([low, high]));
    let (addresses, rest) = rest.split_at_checked(count.checked_mul(8)?).filter(|_| count <= MOST_CALLS)?;
    let addresses = addresses.as_chunks::<8>().0.iter().map(|one| u64::from_le_bytes(*one)).collect();
    Some((Walk { addresses, is_whole: is_whole == 1 }, rest))
}

/// A call, as the walk has come to it.
struct Call<'c> {
    machine: &'static Machine,
    registers: Registers,
    /// The address is that of the next instruction, and no return address.
    is_exact: bool,
    copied: &'c Copied,
}

/// Who called.
enum Caller<'c> {
    Is(Call<'c>),
    /// Nobody.
    None,
}

/// What a rule is applied to.
struct Rules<'r> {
    frames: &'r EhFrame<Slice<'r>>,
    encoding: Encoding,
    cfa: u64,
}

impl<'c> Call<'c> {
    /// The caller, by the table of the file and the offset of the call in it. `None`: the table
    /// does not say, or a value is missing.
    fn caller(&self, code: &Code, offset: u64, context: &mut UnwindContext<usize>) -> Option<Caller<'c>> {
        let address = code.elf.address_of(offset)?;
        let section = code.frames.as_ref()?;
        let mut frames = EhFrame::new(&section.bytes, NativeEndian);
        frames.set_address_size(8);
        if self.machine.has_link {
            frames.set_vendor(Vendor::AArch64);
        }
        let mut bases = BaseAddresses::default().set_eh_frame(section.address);
        if let Some(index) = &code.index {
            bases = bases.set_eh_frame_hdr(index.address);
        }
        let entry = entry(code, &frames, &bases, address)?;
        let row = entry.unwind_info_for_address(&frames, &bases, context, address).ok()?;
        let returns = entry.cie().return_address_register();
        if returns != Register(self.machine.returns) {
            return None;
        }
        let encoding = entry.cie().encoding();
        let cfa = match row.cfa() {
            CfaRule::RegisterAndOffset { register, offset } => {
                self.registers.get(register.0)?.checked_add_signed(*offset)?
            }
            CfaRule::Expression(expression) => {
                self.evaluate(expression.get(&frames).ok()?, encoding, None)?
            }
        };
        self.by_row(row, &Rules { frames: &frames, encoding, cfa }, entry.is_signal_trampoline())
    }

    fn by_row(&self, row: &UnwindTableRow<usize>, rules: &Rules<'_>, is_signal: bool) -> Option<Caller<'c>> {
        let machine = self.machine;
        let returns = match row.register(Register(machine.returns)) {
            Some(RegisterRule::Undefined) => return Some(Caller::None),
            Some(rule) => self.value(&rule, machine.returns, rules)?,
            None if machine.has_link && self.is_exact => self.registers.get(machine.returns)?,
            None => return None,
        };
        let mut registers = self.registers.clone();
        for number in (0..).take(registers.values.len()) {
            let value = match row.register(Register(number)) {
                Some(rule) => self.value(&rule, number, rules),
                None if number == machine.stack => Some(rules.cfa),
                None if machine.preserved.contains(&number) => self.registers.get(number),
                None => None,
            };
            registers.set(number, value);
        }
        registers.next = returns & machine.address;
        registers.set(machine.returns, Some(returns));
        let (before, after) = (self.registers.get(machine.stack)?, registers.get(machine.stack)?);
        // A handler of signals may have a stack of its own. A function that calls none may need no
        // stack, where calls do not use it.
        let goes_on = after > before || is_signal || (after == before && self.is_exact && machine.has_link);
        goes_on.then_some(Caller::Is(Call { machine, registers, is_exact: is_signal, copied: self.copied }))
    }

    /// The caller's value of a register.
    fn value(&self, rule: &RegisterRule<usize>, number: u16, rules: &Rules<'_>) -> Option<u64> {
        let Rules { frames, encoding, cfa } = rules;
        match rule {
            RegisterRule::SameValue => self.registers.get(number),
            RegisterRule::Offset(offset) => self.read(cfa.checked_add_signed(*offset)?, 8),
            RegisterRule::ValOffset(offset) => cfa.checked_add_signed(*offset),
            RegisterRule::Register(other) => self.registers.get(other.0),
            RegisterRule::Expression(expression) => {
                self.read(self.evaluate(expression.get(*frames).ok()?, *encoding, Some(*cfa))?, 8)
            }
            RegisterRule::ValExpression(expression) => {
                self.evaluate(expression.get(*frames).ok()?, *encoding, Some(*cfa))
            }
            _ => None,
        }
    }

    /// A number of so many bytes in the copy. `None`: it is not there.
    fn read(&self, address: u64, size: u8) -> Option<u64> {
        let at = usize::try_from(address.checked_sub(self.copied.from)?).ok()?;
        let size = usize::from(size);
        let bytes = self.copied.bytes.get(at..at.checked_add(size)?)?;
        let mut number = [0; 8];
        let begin = if cfg!(target_endian = "little") { 0 } else { 8usize.checked_sub(size)? };
        number.get_mut(begin..begin + size)?.copy_from_slice(bytes);
        Some(u64::from_ne_bytes(number))
    }

    /// What a DWARF expression comes to, with that number on its stack at first.
    fn evaluate(
        &self,
        expression: Expression<Slice<'_>>,
        encoding: Encoding,
        first: Option<u64>,
    ) -> Option<u64> {
        let mut evaluation = Evaluation::new(expression.0, encoding);
        evaluation.set_max_iterations(MOST_STEPS);
        if let Some(first) = first {
            evaluation.set_initial_value(first);
        }
        let mut result = evaluation.evaluate().ok()?;
        loop {
            result = match result {
                EvaluationResult::Complete => break,
                EvaluationResult::RequiresRegister { register, base_type } if base_type.0 == 0 => {
                    let value = Value::Generic(self.registers.get(register.0)?);
                    evaluation.resume_with_register(value).ok()?
                }
                EvaluationResult::RequiresMemory { address, size, space: None, base_type }
                    if base_type.0 == 0 =>
                {
                    let value = Value::Generic(self.read(address, size)?);
                    evaluation.resume_with_memory(value).ok()?
                }
                _ => return None,
            };
        }
        match evaluation.as_result() {
            [piece] => match piece.location {
                Location::Address { address } => Some(address),
                _ => None,
            },
            _ => None,
        }
    }
}

/// The entry of the table that has this address. Without an index the whole table is searched.
fn entry<'s>(
    code: &'s Code,
    frames: &EhFrame<Slice<'s>>,
    bases: &BaseAddresses,
    address: u64,
) -> Option<FrameDescriptionEntry<Slice<'s>>> {
    let index = code.index.as_ref();
    let index = index.and_then(|index| EhFrameHdr::new(&index.bytes, NativeEndian).parse(bases, 8).ok());
    match index.as_ref().and_then(|index| index.table()) {
        Some(table) => table.fde_for_address(frames, bases, address, EhFrame::cie_from_offset).ok(),
        None => frames.fde_for_address(bases, address, EhFrame::cie_from_offset).ok(),
    }
}
