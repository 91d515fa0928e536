//! The functions at addresses of a file, by the crate blazesym: from the symbol tables, and from
//! debug information if there is any.
//!
//! This runs only in a [`child`](super::child): the file may be made to harm its reader.
//!
//! Limits: compressed debug information is not read, nor is that in other files (`.dwo`, `.dwp`,
//! `.gnu_debugdata`); the names of the symbol table are left then. A name that is not UTF-8 is
//! none.

use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;

use blazesym::symbolize::source::{Elf, Source};
use blazesym::symbolize::{CodeInfo, Input, Sym, Symbolized, Symbolizer};

use super::answer::{FUNCTIONS, TEXT};
use crate::model::{Function, Label};

/// The functions at each address, from the first copy that has any.
pub(super) fn functions<'a>(
    copies: &'a [OwnedFd],
    addresses: &'a [u64],
) -> impl Iterator<Item = Vec<Function>> + 'a {
    let builder = Symbolizer::builder().enable_auto_reload(false);
    let symbols = builder.set_debug_dirs(Some(std::iter::empty::<PathBuf>())).build();
    addresses.iter().map(move |&address| {
        let with_and_without = copies.iter().flat_map(|copy| [(copy, true), (copy, false)]);
        let mut found = with_and_without.filter_map(|(copy, debug_syms)| {
            let mut elf = Elf::new(format!("/proc/self/fd/{}", copy.as_raw_fd()));
            elf.debug_syms = debug_syms;
            match symbols.symbolize_single(&Source::Elf(elf), Input::VirtOffset(address)) {
                Ok(Symbolized::Sym(sym)) => Some(of(&sym)).filter(|found| !found.is_empty()),
                _ => None,
            }
        });
        found.next().unwrap_or_default()
    })
}

/// The innermost function first, without those that have no name.
fn of(sym: &Sym<'_>) -> Vec<Function> {
    let inlined = sym.inlined.iter().rev().map(|inner| function(&inner.name, inner.code_info.as_ref(), true));
    let outer = function(&sym.name, sym.code_info.as_deref(), false);
    inlined.take(FUNCTIONS - 1).chain([outer]).filter(|function| !function.name.is_empty()).collect()
}

fn function(name: &str, place: Option<&CodeInfo<'_>>, inlined: bool) -> Function {
    let mut function = Function::new(cut(name.as_bytes()));
    function.file = place.map(|place| cut(place.to_path().as_os_str().as_encoded_bytes()));
    // Line 0 stands for code that belongs to no line.
    function.line = place.and_then(|place| place.line).filter(|&line| line > 0);
    function.inlined = inlined;
    function
}

fn cut(text: &[u8]) -> Label {
    Label::from(text.get(..TEXT).unwrap_or(text))
}
