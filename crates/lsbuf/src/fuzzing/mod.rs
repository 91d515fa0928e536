//! What every parser promises for any input, as functions that panic if a promise is broken.
//!
//! The promises go beyond "no panic". If a parser accepts a text, and the result is printed as the
//! kernel prints it, the parser must return the same result again. A part that an untrusted program
//! chose (a buffer's name, a command name, a path) must change no other field. libFuzzer calls
//! these functions in `fuzz/`. The property tests in this folder call them where there is no
//! fuzzer.
//!
//! If a function needs two texts, a NUL separates them in its input. No kernel text contains one.

mod debugfs;
mod descriptors;
mod hidden_refs;
mod machine;
mod mappings;
mod shmem;
#[cfg(feature = "symbols")]
mod symbols;
mod tasks;
#[cfg(test)]
mod tests;

pub use debugfs::{bufinfo, bufinfo_names, gem_info};
pub use descriptors::{fdinfo, fdinfo_table};
pub use hidden_refs::{fixed_files, hidden_refs, pending, rings};
#[cfg(test)]
pub(crate) use machine::written;
pub use machine::{btf, mount, overlays, recorded_inode};
pub use mappings::{map_files, maps, smaps};
pub use shmem::{meminfo, mounts, records, segments, shm_inode, shm_names};
#[cfg(feature = "symbols")]
pub use symbols::{elf, symbols};
pub use tasks::{details, process, sharing};

use crate::kernel::parse::{cut, number, number32};

/// The longest name that the kernel accepts for a buffer (`DMA_BUF_NAME_LEN` less its NUL).
const LONGEST_NAME: usize = 31;

fn halves(data: &[u8]) -> (&[u8], &[u8]) {
    cut(data, 0).unwrap_or((data, b""))
}

/// A number consists of its digits and nothing else, and fits exactly where its value does.
pub fn numbers(data: &[u8]) {
    for (radix, print) in [
        (8, (|n| format!("{n:o}")) as fn(u64) -> String),
        (10, |n| format!("{n}")),
        (16, |n| format!("{n:x}")),
    ] {
        let Ok(n) = number(data, radix) else { continue };
        let digits = data.to_ascii_lowercase();
        let significant = digits.iter().position(|&b| b != b'0').unwrap_or(digits.len() - 1);
        assert_eq!(print(n).as_bytes(), &digits[significant..]);
        assert_eq!(number32(data, radix).ok(), u32::try_from(n).ok());
    }
}
