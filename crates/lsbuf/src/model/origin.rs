//! Who made a buffer, and where in its code, as the flight recorder saw it.
//!
//! The recorder is a set of programs in the kernel that root installs (`lsbuf probes install
//! --origins`). It keeps one record for each living buffer that is younger than itself.
//!
//! Limits: the maker is the process that called the kernel. If a service makes buffers for others,
//! it is the service. The maker of a dma-buf is who exported it, and the memory may be older.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::{Label, Pid, Tid};

/// What the flight recorder says of a buffer.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Origin {
    /// The buffer is older than the recorder.
    Before,
    /// It is not known who made the buffer.
    Unknown(NoOrigin),
    /// It was recorded.
    Made(Box<Birth>),
}

/// Why it is not known who made a buffer, although there is a recorder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum NoOrigin {
    /// The recorder does not see buffers of this kind being made: the kernel has no place to
    /// record it at, or none that lsbuf knows.
    NotWatched,
    /// There is no record, and the recorder has lost some.
    Lost,
}

impl NoOrigin {
    /// The word in JSON.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            NoOrigin::NotWatched => "not_watched",
            NoOrigin::Lost => "lost",
        }
    }

    /// The reason with that word.
    #[must_use]
    pub fn of_word(word: &str) -> Option<NoOrigin> {
        [NoOrigin::NotWatched, NoOrigin::Lost].into_iter().find(|why| why.word() == word)
    }
}

/// The record of a buffer that was made while the recorder ran.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Birth {
    /// When: time after boot, which goes on while the machine sleeps.
    pub after_boot: Duration,
    /// The same by the wall clock, as that was set when the recorder was installed.
    pub at: SystemTime,
    /// The process that made it.
    pub pid: Pid,
    /// When that process was started, in time after boot. With the pid it names one process of a
    /// boot.
    pub started: Duration,
    /// Its command name, at that time.
    pub command: Label,
    /// The thread, and its name.
    pub tid: Tid,
    /// The name of the thread, at that time.
    pub thread: Label,
    /// The real user id of the process.
    pub uid: u32,
    /// The number of its cgroup in the unified hierarchy, which is the inode number of the cgroup's
    /// folder.
    pub cgroup: u64,
    /// Where in the code. `None`: not read ([`Detail::Stacks`](super::Detail::Stacks)).
    pub stack: Option<Arc<Stack>>,
    /// The process that received it first from its maker.
    pub client: Client,
}

/// For whom a buffer was made: the process that received it first from its maker, in a message over
/// a Unix socket.
///
/// Limits: what is passed by a driver (binder) or inherited by a forked process is not seen. Who
/// gets a buffer from another process than its maker is no client.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Client {
    /// No process was seen to receive it from its maker.
    NotSeen,
    /// It is not known which process was the first.
    Unknown(NoClient),
    /// A process was the first.
    Received(Receipt),
}

/// Why it is not known which process received a buffer first from its maker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum NoClient {
    /// The recorder does not see who receives buffers: the kernel has no place to record it at, or
    /// the recording is of a version of lsbuf that did not ask.
    NotWatched,
    /// A process has received it, and it is not known whether from its maker: by another way than a
    /// message, or in a message whose sender is not known. Or a process was offered it by its
    /// maker, and it is not known whether it has taken it.
    Unclear,
    /// There was no room for the record, or an earlier receipt may have been lost.
    Lost,
}

impl NoClient {
    /// The word in JSON.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            NoClient::NotWatched => "not_watched",
            NoClient::Unclear => "unclear",
            NoClient::Lost => "lost",
        }
    }

    /// The reason with that word.
    #[must_use]
    pub fn of_word(word: &str) -> Option<NoClient> {
        [NoClient::NotWatched, NoClient::Unclear, NoClient::Lost].into_iter().find(|why| why.word() == word)
    }
}

/// That a process received a buffer in a message from its maker.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Receipt {
    /// When: time after boot.
    pub after_boot: Duration,
    /// The same by the wall clock, as that was set when the recorder was installed.
    pub at: SystemTime,
    /// The process that received it.
    pub pid: Pid,
    /// When that process was started, in time after boot.
    pub started: Duration,
    /// Its command name, at that time.
    pub command: Label,
    /// The real user id of the process.
    pub uid: u32,
    /// The number of its cgroup, as [`Birth::cgroup`].
    pub cgroup: u64,
}

/// A stack: who called whom, the innermost call first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub struct Stack {
    /// Calls in the kernel, without those of the recorder.
    pub kernel: Vec<KernelFrame>,
    /// Calls in the program.
    pub user: Vec<UserFrame>,
    /// How complete the calls in the program are.
    pub user_end: StackEnd,
    /// How they were found.
    pub unwind: Unwind,
}

/// How the calls in a program are found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Unwind {
    /// By the kernel, along the chain of frame pointers. Code without them is not in it, or ends
    /// it.
    #[default]
    FramePointers,
    /// From a copy of the stack, by the tables in the files (`.eh_frame`).
    Dwarf,
}

impl Unwind {
    /// The word in JSON, and on the command line.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Unwind::FramePointers => "fp",
            Unwind::Dwarf => "dwarf",
        }
    }

    /// The way with that word.
    #[must_use]
    pub fn of_word(word: &str) -> Option<Unwind> {
        [Unwind::FramePointers, Unwind::Dwarf].into_iter().find(|way| way.word() == word)
    }
}

/// How the calls in a program end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum StackEnd {
    /// At the start of the program or of a thread.
    Complete,
    /// It ends earlier. Of a chain of frame pointers: code without them, or more calls than a
    /// record has room for. Of a copied stack: code without tables, or more stack or calls than
    /// are kept.
    #[default]
    Truncated,
    /// The kernel could not read them.
    Unreadable,
    /// The maker has none: it is a thread of the kernel.
    Kernel,
}

impl StackEnd {
    /// The word in JSON.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            StackEnd::Complete => "complete",
            StackEnd::Truncated => "truncated",
            StackEnd::Unreadable => "unreadable",
            StackEnd::Kernel => "kernel",
        }
    }

    /// The end with that word.
    #[must_use]
    pub fn of_word(word: &str) -> Option<StackEnd> {
        use StackEnd::{Complete, Kernel, Truncated, Unreadable};
        [Complete, Truncated, Unreadable, Kernel].into_iter().find(|end| end.word() == word)
    }
}

/// A call in the kernel.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub struct KernelFrame {
    /// The function, and its module, as the kernel names them.
    pub function: Label,
    /// The module; `None`: it is in the kernel itself.
    pub module: Option<Label>,
}

/// A call in a program.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub struct UserFrame {
    /// Where in which file.
    pub place: CodePlace,
    /// The file's name without its folders. `None`: not found.
    pub module: Option<Label>,
    /// The functions at that place, the innermost first: one, and those into which it was inlined.
    /// Empty: not known.
    pub functions: Vec<Function>,
}

/// A place in a program's code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum CodePlace {
    /// In the file with this build id, so many bytes after its begin.
    File {
        /// The build id, which the linker computes from what is in the file.
        build_id: BuildId,
        /// Bytes after the begin of the file.
        offset: u64,
    },
    /// An address in the process. The kernel could not read the file's build id.
    Address(u64),
}

/// What the linker computes from the contents of a program or library (`--build-id`): it is in the
/// note `NT_GNU_BUILD_ID`. A shorter one ends in zeros.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BuildId(pub [u8; 20]);

impl BuildId {
    /// Takes 40 hexadecimal digits.
    #[must_use]
    pub fn parse(text: &str) -> Option<BuildId> {
        let mut bytes = [0; 20];
        if text.len() != 2 * bytes.len() || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        for (byte, digits) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
            *byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
        }
        Some(BuildId(bytes))
    }
}

impl fmt::Display for BuildId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// A function of a program, and where in its source.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub struct Function {
    /// Its name, demangled.
    pub name: Label,
    /// The source file; `None`: the program has no such information.
    pub file: Option<Label>,
    /// The line in it.
    pub line: Option<u32>,
    /// Whether it was inlined into the next one.
    pub inlined: bool,
}

impl Stack {
    /// Calls the stack complete if its outermost call is where programs or threads start. Its
    /// functions must have their names.
    pub(crate) fn judge_end(&mut self) {
        const STARTS: [&[u8]; 8] = [
            b"_start",
            b"__libc_start_main",
            b"__libc_start_call_main",
            b"_start_c",
            b"start_thread",
            b"clone",
            b"clone3",
            b"__clone3",
        ];
        let outermost = self.user.last().and_then(|frame| frame.functions.last());
        let starts = outermost.is_some_and(|function| STARTS.contains(&function.name.as_bytes()));
        if self.user_end == StackEnd::Truncated && starts {
            self.user_end = StackEnd::Complete;
        }
    }

    /// The call that says most about who wanted the buffer: the innermost one in the program
    /// itself. If the stack has none, the innermost one that is not in the C library.
    ///
    /// A file is taken for a library if it is named as one: `libdrm.so.2`, `libfoo-1.2.so`,
    /// `cv2.abi3.so`. Anything else is the program. The C library is what every program calls the
    /// kernel through: `libc`, its parts in files of their own (`libpthread`, `librt`, `libdl`),
    /// and the loader, which some C libraries are in.
    ///
    /// Only calls whose file is known count. `None`: there is none, so nothing is said.
    ///
    /// Limits: names are all that a stack has. A program that is named as a library counts as one,
    /// and a library that the program has under another name counts as the program. Of a program in
    /// a language with an interpreter, the program is the interpreter. If the stack is truncated
    /// inside a library, the call is that library's.
    #[must_use]
    pub fn first_own(&self) -> Option<&UserFrame> {
        let of = |role: fn(&[u8]) -> bool| {
            self.user.iter().find(|frame| frame.module.as_ref().is_some_and(|file| role(file.as_bytes())))
        };
        of(|file| !is_library(file) && !is_c_library(file)).or_else(|| of(|file| !is_c_library(file)))
    }

    /// The call that is most likely of interest: [`Stack::first_own`], else the first one at all.
    #[must_use]
    pub fn maker(&self) -> Option<&UserFrame> {
        self.first_own().or_else(|| self.user.first())
    }

    /// The calls from [`Stack::maker`] outwards. Empty: none is known.
    pub(crate) fn own_calls(&self) -> impl Iterator<Item = &UserFrame> {
        let maker = self.maker();
        let is_maker = move |frame: &&UserFrame| maker.is_some_and(|maker| std::ptr::eq(*frame, maker));
        self.user.iter().skip_while(move |frame| !is_maker(frame))
    }

    /// The same on one line. `None`: none is known.
    #[must_use]
    pub fn key(&self) -> Option<Label> {
        self.maker()?;
        let mut key: Vec<u8> = Vec::new();
        for frame in self.own_calls() {
            if !key.is_empty() {
                key.extend_from_slice(b" < ");
            }
            match (frame.functions.first(), &frame.module, frame.place) {
                (Some(function), ..) => key.extend_from_slice(function.name.as_bytes()),
                (None, Some(module), CodePlace::File { offset, .. }) => {
                    key.extend_from_slice(module.as_bytes());
                    key.extend_from_slice(format!("+{offset:#x}").as_bytes());
                }
                (None, None, CodePlace::File { build_id, offset }) => {
                    key.extend_from_slice(format!("{build_id}+{offset:#x}").as_bytes());
                }
                (None, _, CodePlace::Address(address)) => {
                    key.extend_from_slice(format!("{address:#x}").as_bytes());
                }
            }
        }
        Some(Label::from(&key[..]))
    }
}

/// Whether a file is named as a shared library: `.so` at the end, or before a version.
fn is_library(file: &[u8]) -> bool {
    let ends = |rest: &[u8]| rest.is_empty() || rest.starts_with(b".");
    let mut begins = file.windows(3).enumerate();
    begins.any(|(at, window)| window == b".so" && file.get(at + 3..).is_some_and(ends))
}

/// Whether a library is the C library, a part of it, or the loader, by the names that glibc, musl
/// and Android's bionic give them.
fn is_c_library(file: &[u8]) -> bool {
    const PARTS: [&[u8]; 4] = [b"libc", b"libpthread", b"librt", b"libdl"];
    const LOADERS: [&[u8]; 3] = [b"ld.so", b"linker", b"linker64"];
    // `libc.so.6`, `libc-2.31.so`, `libc.musl-x86_64.so.1`; not `libcamera.so` or `libc-client.so`.
    let is_part = |part: &&[u8]| {
        file.strip_prefix(*part).is_some_and(|rest| matches!(rest, [b'.', ..] | [b'-', b'0'..=b'9', ..]))
    };
    // `ld-linux-x86-64.so.2`, `ld-musl-aarch64.so.1`, `ld-2.31.so`.
    let is_loader = LOADERS.contains(&file) || file.starts_with(b"ld-") && is_library(file);
    PARTS.iter().any(is_part) || is_loader
}

impl Function {
    /// A function of which only the name is known.
    #[must_use]
    pub fn new(name: Label) -> Function {
        Function { name, file: None, line: None, inlined: false }
    }
}

impl Origin {
    /// The birth, if it was recorded.
    #[must_use]
    pub fn birth(&self) -> Option<&Birth> {
        match self {
            Origin::Made(birth) => Some(birth),
            Origin::Before | Origin::Unknown(_) => None,
        }
    }

    /// The process that received the buffer first from its maker, if one is known.
    #[must_use]
    pub fn client(&self) -> Option<&Receipt> {
        match &self.birth()?.client {
            Client::Received(receipt) => Some(receipt),
            Client::NotSeen | Client::Unknown(_) => None,
        }
    }
}

impl UserFrame {
    /// A call of which only the place is known.
    #[must_use]
    pub fn new(place: CodePlace) -> UserFrame {
        UserFrame { place, module: None, functions: Vec::new() }
    }
}

/// The innermost function and its file; without a name, the place.
///
/// ```text
/// libdrm.so.2: drmIoctl
/// app: [unknown] abababababababababababababababababababab+0x1234
/// [unknown] 0x7f0012345678
/// ```
impl fmt::Display for UserFrame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(module) = &self.module {
            write!(f, "{module}: ")?;
        }
        match (self.functions.first(), self.place) {
            (Some(function), _) => write!(f, "{}", function.name),
            (None, CodePlace::File { build_id, offset }) => write!(f, "[unknown] {build_id}+{offset:#x}"),
            (None, CodePlace::Address(address)) => write!(f, "[unknown] {address:#x}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn first_own(files: &[&str]) -> Option<usize> {
        let user = files.iter().enumerate().map(|(nth, file)| UserFrame {
            module: (!file.is_empty()).then(|| Label::from(*file)),
            ..UserFrame::new(CodePlace::Address(nth as u64))
        });
        let stack = Stack { user: user.collect(), ..Stack::default() };
        let own = stack.first_own()?;
        stack.user.iter().position(|frame| frame == own)
    }

    /// Check that the program's own call is found below all libraries, and without one the first
    /// library that is not the C library.
    #[test]
    fn own_calls() {
        for (files, expected) in [
            (&["libc.so.6", "libdrm.so.2", "libgbm.so.1.0.0", "app", "libc.so.6", "app"][..], Some(3)),
            (&["app", "app"], Some(0)),
            (&["libc.so.6", "libdrm.so.2", "libgbm.so.1"], Some(1)),
            (&["libc-2.31.so", "libcamera.so.0.5", "libc-2.31.so"], Some(1)),
            (&["ld-musl-x86_64.so.1", "libpthread.so.0", "cv2.cpython-311.so"], Some(2)),
            (&["libc.so.6", "", "libc.so.6"], None),
            (&["", "libdrm.so.2"], Some(1)),
            (&["libc.so.6", "my.sound", "app"], Some(1)),
            (&["libc.so", "linker64", "libc-client.so.2007", "libc.so"], Some(2)),
            (&[], None),
        ] {
            assert_eq!(first_own(files), expected, "{files:?}");
        }
    }

    /// Check that a call has its function's name, and without that its place, and that a name
    /// cannot break the line.
    #[test]
    fn texts() {
        let mut frame = UserFrame::new(CodePlace::File { build_id: BuildId([0xab; 20]), offset: 0x1234 });
        assert_eq!(frame.to_string(), format!("[unknown] {}+0x1234", "ab".repeat(20)));
        frame.module = Some("lib\x1b.so".into());
        frame.functions = vec![Function::new("in\nner".into()), Function::new("outer".into())];
        assert_eq!(frame.to_string(), format!("{}: {}", Label::from("lib\x1b.so"), Label::from("in\nner")));
        assert!(!frame.to_string().contains(char::is_control));
        assert_eq!(UserFrame::new(CodePlace::Address(0x7f00)).to_string(), "[unknown] 0x7f00");
    }

    proptest! {
        /// Check that no names of files make the choice panic, and that it is of the stack.
        #[test]
        fn any_files(files in proptest::collection::vec("[a-z.]{0,8}(\\.so)?(\\.[0-9])?", 0..6)) {
            let files: Vec<&str> = files.iter().map(String::as_str).collect();
            if let Some(own) = first_own(&files) {
                prop_assert!(!files[own].is_empty());
            }
        }
    }

    /// Check that a build id is written as tools write it, two hexadecimal digits a byte, and read
    /// back.
    #[test]
    fn build_ids() {
        let mut bytes = [0; 20];
        bytes[..3].copy_from_slice(&[0xab, 0x00, 0x0f]);
        let text = format!("ab000f{}", "00".repeat(17));
        assert_eq!((BuildId(bytes).to_string(), BuildId::parse(&text)), (text, Some(BuildId(bytes))));
        assert_eq!((BuildId::parse("ab"), BuildId::parse(&"+1".repeat(20))), (None, None));
    }
}
