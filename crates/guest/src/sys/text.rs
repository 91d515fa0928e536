//! A process without its program: it unmaps everything of the file that it runs, and continues in a
//! page of its own.

use std::arch::global_asm;
use std::ffi::c_void;
use std::ptr;

use anyhow::{Context, ensure};
use rustix::mm::{MapFlags, MprotectFlags, ProtFlags, mmap_anonymous, mprotect};

use super::{Region, page_size};

// munmap(first argument, second argument), and then sleep for ever: pause(), or where there is no
// such call ppoll() of nothing without a time limit. It has no address in it, so it runs wherever
// it is copied to.
#[cfg(target_arch = "x86_64")]
global_asm!(
    ".pushsection .text.lsbuf_leave, \"ax\", @progbits",
    ".globl lsbuf_leave_text",
    "lsbuf_leave_text:",
    "mov eax, 11",
    "syscall",
    "2:",
    "mov eax, 34",
    "syscall",
    "jmp 2b",
    ".globl lsbuf_leave_text_end",
    "lsbuf_leave_text_end:",
    ".popsection",
);
#[cfg(target_arch = "aarch64")]
global_asm!(
    ".pushsection .text.lsbuf_leave, \"ax\", @progbits",
    ".globl lsbuf_leave_text",
    "lsbuf_leave_text:",
    "mov x8, #215",
    "svc #0",
    "2:",
    "mov x0, #0",
    "mov x1, #0",
    "mov x2, #0",
    "mov x3, #0",
    "mov x4, #0",
    "mov x8, #73",
    "svc #0",
    "b 2b",
    ".globl lsbuf_leave_text_end",
    "lsbuf_leave_text_end:",
    ".popsection",
);

unsafe extern "C" {
    static lsbuf_leave_text: u8;
    static lsbuf_leave_text_end: u8;
}

/// Unmaps the range `program`, which has the program's code and data, and does nothing until the
/// process is killed.
///
/// # Errors
///
/// The kernel refuses to map a page for the code that does this. Then nothing is unmapped.
pub fn leave(program: Region) -> anyhow::Result<()> {
    let (begin, end) = (&raw const lsbuf_leave_text, &raw const lsbuf_leave_text_end);
    let len = end.addr() - begin.addr();
    ensure!(len <= page_size(), "the code is longer than a page");
    let (writable, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE);
    let map = || {
        // SAFETY: the kernel chooses a free range, so nothing that Rust knows of is replaced.
        unsafe { mmap_anonymous(ptr::null_mut(), page_size(), writable, flags) }.context("mapping a page")
    };
    let mut page = map()?;
    // A gap between the program's segments is free, too. A page in it would be unmapped with them.
    while (program.start..program.start + program.len).contains(&page.addr()) {
        page = map()?;
    }
    // SAFETY: the code is between its two symbols. The page is large enough, and only this function
    // uses it.
    unsafe { ptr::copy_nonoverlapping(begin, page.cast::<u8>(), len) };
    // SAFETY: only this function uses the page, and nothing writes to it any more.
    unsafe { mprotect(page, page_size(), MprotectFlags::READ | MprotectFlags::EXEC) }
        .context("making a page executable")?;
    // SAFETY: the page has the code of a function that takes two numbers and never returns.
    let left: extern "C" fn(usize, usize) -> ! =
        unsafe { std::mem::transmute::<*mut c_void, extern "C" fn(usize, usize) -> !>(page) };
    left(program.start, program.len)
}
