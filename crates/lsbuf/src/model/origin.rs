//! Who made a buffer, and where in its code, as the flight recorder saw it.
//!
//! The recorder is a set of programs in the kernel that root installs (`lsbuf probes install --origins`). It
//! keeps one record for each living buffer that is younger than itself.
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
}

/// How the calls in a program end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum StackEnd {
    /// At the start of the program or of a thread.
    Complete,
    /// The chain of frame pointers ends earlier: code without frame pointers, or more calls than a
    /// record has room for.
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

impl Function {
    /// A function of which only the name is known.
    #[must_use]
    pub fn new(name: Label) -> Function {
        Function { name, file: None, line: None, inlined: false }
    }
}

impl Stack {
    /// The call that is most likely of interest: the first one in the program's own file, else the
    /// first one at all.
    #[must_use]
    pub fn maker(&self) -> Option<&UserFrame> {
        self.user.first()
    }

    /// The calls from [`Stack::maker`] outwards on one line. `None`: none is known.
    #[must_use]
    pub fn key(&self) -> Option<Label> {
        let maker = self.maker()?;
        let own = self.user.iter().skip_while(|frame| !std::ptr::eq(*frame, maker));
        let mut key: Vec<u8> = Vec::new();
        for frame in own {
            if !key.is_empty() {
                key.extend_from_slice(b" < ");
            }
            match (frame.functions.first(), frame.place) {
                (Some(function), _) => key.extend_from_slice(function.name.as_bytes()),
                (None, CodePlace::File { build_id, offset }) => {
                    key.extend_from_slice(format!("{build_id}+{offset:#x}").as_bytes());
                }
                (None, CodePlace::Address(address)) => {
                    key.extend_from_slice(format!("{address:#x}").as_bytes())
                }
            }
        }
        Some(Label::from(&key[..]))
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
}

impl UserFrame {
    /// A call of which only the place is known.
    #[must_use]
    pub fn new(place: CodePlace) -> UserFrame {
        UserFrame { place, module: None, functions: Vec::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
