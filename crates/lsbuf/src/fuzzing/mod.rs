//! What every parser promises for any bytes whatever, as functions that panic where a promise is broken.
//!
//! Beyond "no panic": what a parser took in, printed as the kernel prints it, is taken in again as the same; and what a
//! stranger chose (a buffer's name, a command name, a path) changes no other field. libFuzzer drives these functions in
//! `fuzz/`, the property tests below do where there is none.
//!
//! Where a promise needs two texts, a NUL parts them: no kernel text has one.

mod debugfs;
mod descriptors;
mod hidden_refs;
mod machine;
mod mappings;
mod shmem;
mod tasks;
#[cfg(test)]
mod tests;

pub use debugfs::{bufinfo, bufinfo_names, gem_info};
pub use descriptors::{fdinfo, fdinfo_table};
pub use hidden_refs::{hidden_refs, pending, rings};
#[cfg(test)]
pub(crate) use machine::written;
pub use machine::{btf, mount, recorded_inode};
pub use mappings::{map_files, maps};
pub use shmem::{meminfo, mounts, records, segments, shm_inode, shm_names};
pub use tasks::{process, sharing};

use crate::kernel::parse::{cut, number, number32};

/// Longest name that the kernel takes for a buffer (`DMA_BUF_NAME_LEN` less its NUL).
const LONGEST_NAME: usize = 31;

fn halves(data: &[u8]) -> (&[u8], &[u8]) {
    cut(data, 0).unwrap_or((data, b""))
}

/// A number is its digits and nothing else, and fits where it is said to fit.
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
