//! Finds out, without lsbuf, whether BPF iterators must load here. A test that took lsbuf's own
//! error for "cannot be tested here" would pass although the loader is broken.

use std::fs;

use lsbuf_guest::need::kernel_has_name;
use rustix::thread::{CapabilitySet, capabilities};

/// What the iterators need from a kernel: one of its helpers, and the newest iterator that every
/// answer needs.
const KERNEL: [&[u8]; 2] = [b"bpf_loop", b"bpf_iter_task_vma"];

/// The namespaces that the iterators see, by the inode numbers that these have on every kernel.
const FIRST: [(&str, &str); 2] = [("pid", "pid:[4026531836]"), ("user", "user:[4026531837]")];

/// Whether this user on this kernel can load them.
pub(crate) fn must_load() -> bool {
    let has = |any: CapabilitySet| capabilities(None).is_ok_and(|sets| sets.effective.intersects(any));
    let first = |(kind, link): (&str, &str)| {
        fs::read_link(format!("/proc/self/ns/{kind}")).is_ok_and(|found| found.as_os_str() == link)
    };
    has(CapabilitySet::BPF | CapabilitySet::SYS_ADMIN)
        && has(CapabilitySet::PERFMON | CapabilitySet::SYS_ADMIN)
        && FIRST.into_iter().all(first)
        && KERNEL.iter().all(|name| kernel_has_name(name))
}
