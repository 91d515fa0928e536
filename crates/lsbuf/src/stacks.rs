//! Makes stacks of what the kernel tells of them: calls in a program, and calls in the kernel; and
//! finds their names.
//!
//! Limits: see `kernel::symbols`. Without the feature `symbols` no call in a program has a name.

#[cfg(feature = "symbols")]
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustix::io::Errno;

use crate::kernel::bpf::origins::{RawFrame, UserStack};
use crate::kernel::root::ProcRoot;
#[cfg(feature = "symbols")]
use crate::kernel::symbols::{Request, Symbolizer};
use crate::model::{BuildId, CodePlace, KernelFrame, Label, Pid, Stack, StackEnd, UserFrame};

/// A stack whose calls have no names yet.
#[cfg_attr(not(feature = "symbols"), allow(dead_code, reason = "without it no names are looked for"))]
#[derive(Debug)]
pub(crate) struct Nameless {
    pub(crate) stack: Stack,
    /// The process, and when it was started.
    pub(crate) maker: (Pid, Duration),
    /// Other processes that may run the same files.
    pub(crate) others: Vec<Pid>,
}

/// A stack without its calls: how it ends is known before their names are. `user_bytes` is what
/// the kernel told of the calls in the program.
pub(crate) fn without_frames(by_kernel: bool, user_bytes: Result<u32, Errno>) -> Stack {
    let user_end = match user_bytes {
        _ if by_kernel => StackEnd::Kernel,
        Err(_) | Ok(0) => StackEnd::Unreadable,
        Ok(_) => StackEnd::Truncated,
    };
    Stack { user_end, ..Stack::default() }
}

/// The calls in a program. A chain of frame pointers that leaves the stack ends in data: after the
/// last place in a file, addresses are none of code.
pub(crate) fn user_frames(stack: &UserStack<'_>) -> Vec<UserFrame> {
    let mut frames: Vec<RawFrame> = stack.frames().collect();
    let in_a_file = |frame: &RawFrame| matches!(frame, RawFrame::File(..));
    if let Some(last) = frames.iter().rposition(in_a_file) {
        frames.truncate(last + 1);
    }
    let frame = |raw: RawFrame| match raw {
        RawFrame::File(build_id, offset) => CodePlace::File { build_id: BuildId(build_id), offset },
        RawFrame::Address(address) => CodePlace::Address(address),
    };
    frames.into_iter().map(|raw| UserFrame::new(frame(raw))).collect()
}

/// The calls in lines as the kernel's `%pB` prints them: `function+0x1a/0x2b [module]`. The first
/// ones are the recorder's own, up to its trampoline.
pub(crate) fn kernel_frames(lines: &[u8]) -> Vec<KernelFrame> {
    let frames = lines.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()).map(|line| {
        let (symbol, module) = match memchr::memchr(b' ', line) {
            Some(space) => (&line[..space], line[space + 1..].strip_prefix(b"[")),
            None => (line, None),
        };
        let module = module.map(|module| Label::from(module.strip_suffix(b"]").unwrap_or(module)));
        let end = memchr::memchr(b'+', symbol).unwrap_or(symbol.len());
        KernelFrame { function: Label::from(&symbol[..end]), module }
    });
    let mut frames: Vec<KernelFrame> = frames.collect();
    let own = |frame: &KernelFrame| frame.function.as_bytes().starts_with(b"bpf_trampoline_");
    let first = frames.iter().position(own).map_or(0, |trampoline| trampoline + 1);
    frames.drain(..first);
    frames
}

/// Where the names of calls are kept for the time when their process has exited.
#[cfg(feature = "symbols")]
const NAMES: &str = "/run/lsbuf-names";

/// Finds the names of calls.
#[cfg(feature = "symbols")]
#[derive(Debug)]
pub(crate) struct StackNames(Symbolizer);

#[cfg(feature = "symbols")]
impl StackNames {
    pub(crate) fn new(root: &Arc<ProcRoot>, deadline: Duration) -> StackNames {
        StackNames(Symbolizer::new(Arc::clone(root), deadline, Some(Path::new(NAMES))))
    }

    pub(crate) fn find(&mut self, wanted: &mut [Nameless]) {
        let mut requests: Vec<Request<'_>> = wanted
            .iter_mut()
            .map(|Nameless { stack, maker, others }| Request { stack, maker: *maker, others })
            .collect();
        // What could not be looked at has no names, which shows.
        let _ = self.0.resolve(&mut requests);
        // Only root may write the cache. Without it the names go with their processes.
        let _ = self.0.save();
    }
}

/// Built without the feature `symbols`: no call has a name.
#[cfg(not(feature = "symbols"))]
#[derive(Debug)]
pub(crate) struct StackNames;

#[cfg(not(feature = "symbols"))]
impl StackNames {
    pub(crate) fn new(_: &Arc<ProcRoot>, _: Duration) -> StackNames {
        StackNames
    }

    pub(crate) fn find(&mut self, _: &mut [Nameless]) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check that the kernel's lines are read without the recorder's own calls, with modules, and
    /// without offsets.
    #[test]
    fn calls_in_the_kernel() {
        let lines = b"bpf_prog_0_shmem_born+0x1/0x2\nbpf_trampoline_64+0x8c/0xfc\nshmem_mknod+0x85/0x140\nudmabuf_ioctl+0x1/0x2 [udmabuf]\n0xffff";
        let frames = kernel_frames(lines);
        let text = |frame: &KernelFrame| format!("{:?} {:?}", frame.function, frame.module);
        let expected = [
            KernelFrame { function: "shmem_mknod".into(), module: None },
            KernelFrame { function: "udmabuf_ioctl".into(), module: Some("udmabuf".into()) },
            KernelFrame { function: "0xffff".into(), module: None },
        ];
        assert_eq!(
            frames.iter().map(text).collect::<Vec<_>>(),
            expected.iter().map(text).collect::<Vec<_>>()
        );
        assert_eq!(kernel_frames(b""), []);
    }
}
