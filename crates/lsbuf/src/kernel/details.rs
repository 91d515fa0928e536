//! What `/proc/P` tells of a process beyond its identity: `cmdline`, `exe`, `limits`, `status`; and
//! the names of users in passwd(5).
//!
//! Reading `cmdline` takes the lock of the process's address space (`get_mm_cmdline` in
//! fs/proc/base.c), which that process can hold for ever. So it is read inside of a [`guard`]. The
//! other files take no lock that their process can keep.
//!
//! Limits: a user of a directory service has no line in `/etc/passwd`, and so no name.

use std::collections::HashMap;
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::path::Path;

use rustix::fs::CWD;
use rustix::io::Result;

use super::guard;
use super::parse::number;
use super::process::ProcessDir;
use super::read::{self, LINK_ROOM, retry};
use crate::model::{Args, Bytes, Label};

/// Reads no more than `longest` bytes of a process's command line.
pub(crate) fn args(process: &ProcessDir, longest: usize) -> Result<Args> {
    /// How much is read at once; no page size.
    const PIECE: usize = 4 << 10;
    guard::now_about(Some(process.pid()));
    let file = process.dir().file(c"cmdline")?;
    let mut text = Vec::new();
    // One byte more than may be kept tells whether there is more.
    while text.len() <= longest {
        let filled = text.len();
        text.resize(filled + PIECE.min(longest + 1 - filled), 0);
        let n = retry(|| guard::read(None, file.as_fd(), &mut text[filled..]))?;
        text.truncate(filled + n);
        if n == 0 {
            return Ok(words(&text, true));
        }
    }
    Ok(words(&text[..longest], false))
}

/// The words of a command line. Each ends in a NUL; a title in their place is padded with NULs.
fn words(text: &[u8], is_whole: bool) -> Args {
    let end = text.iter().rposition(|&b| b != 0).map_or(0, |last| last + 1);
    // One NUL more than a last word has is an empty word, more than that is padding.
    let padding = text.len() - end;
    let mut words: Vec<Label> = if end == 0 && padding != 1 {
        Vec::new()
    } else {
        text[..end].split(|&b| b == 0).map(Label::from).collect()
    };
    if padding == 2 && end > 0 {
        words.push(Label::default());
    }
    let mut args = Args::default();
    (args.words, args.is_whole) = (words, is_whole);
    args
}

/// The path of a process's program.
pub(crate) fn exe(process: &ProcessDir) -> Result<Label> {
    let mut room = [MaybeUninit::uninit(); LINK_ROOM];
    process.dir().link(c"exe", &mut room).map(Label::from)
}

/// The soft limit of open files in `/proc/P/limits` (`proc_pid_limits` in fs/proc/base.c). The
/// kernel allows no infinite one.
pub(crate) fn fd_limit(limits: &[u8]) -> Option<u64> {
    let line = limits.split(|&b| b == b'\n').find_map(|line| line.strip_prefix(b"Max open files "))?;
    number(line.split(|&b| b == b' ').find(|word| !word.is_empty())?, 10).ok()
}

/// `RssShmem` of `/proc/P/status`, in kB there (`task_mem` in fs/proc/task_mmu.c). `status` escapes
/// newlines in the command name, so the name cannot forge a line.
pub(crate) fn rss_shmem(status: &[u8]) -> Option<Bytes> {
    kilobytes(status, b"RssShmem:")
}

/// The value of the line that begins with this key, in kB there.
pub(crate) fn kilobytes(text: &[u8], key: &[u8]) -> Option<Bytes> {
    let line = text.split(|&b| b == b'\n').find_map(|line| line.strip_prefix(key))?;
    let kib = number(line.trim_ascii().strip_suffix(b" kB")?, 10).ok()?;
    kib.checked_mul(1024).map(Bytes)
}

/// The names of users.
#[derive(Clone, Debug, Default)]
pub(crate) struct Users(HashMap<u32, Label>);

impl Users {
    /// Reads a file in the form of passwd(5).
    pub(crate) fn read(path: &Path) -> Result<Users> {
        let mut text = Vec::new();
        read::file(CWD, path, &mut text)?;
        Ok(Users::parse(&text))
    }

    /// `NAME:PASSWORD:UID:…`. Of two lines with the same UID the first counts, as in getpwuid(3).
    pub(crate) fn parse(text: &[u8]) -> Users {
        let mut users = Users::default();
        for line in text.split(|&b| b == b'\n') {
            let mut fields = line.split(|&b| b == b':');
            let (Some(name), Some(uid)) = (fields.next().filter(|name| !name.is_empty()), fields.nth(1))
            else {
                continue;
            };
            if let Some(uid) = number(uid, 10).ok().and_then(|uid| u32::try_from(uid).ok()) {
                users.0.entry(uid).or_insert_with(|| name.into());
            }
        }
        users
    }

    /// The name of a user.
    pub(crate) fn name(&self, uid: u32) -> Option<Label> {
        self.0.get(&uid).cloned()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn split(text: &[u8]) -> Vec<String> {
        words(text, true).words.iter().map(ToString::to_string).collect()
    }

    /// Check that each NUL ends a word, that an empty word counts, and that the padding of a title
    /// does not.
    #[test]
    fn command_lines() {
        assert_eq!(split(b"a\0b c\0"), ["a", "b c"]);
        assert_eq!(split(b"a\0\0b\0"), ["a", "", "b"]);
        assert_eq!(split(b"a\0\0"), ["a", ""]);
        assert_eq!(split(b"postgres: main\0\0\0\0"), ["postgres: main"]);
        assert_eq!(split(b"no end"), ["no end"]);
        assert_eq!((split(b""), split(b"\0"), split(b"\0\0\0")), (vec![], vec![String::new()], vec![]));
    }

    /// Check that the soft limit is read and not the hard one, and that none is unknown.
    #[test]
    fn limits() {
        let text = b"Limit                     Soft Limit           Hard Limit           Units     \n\
            Max open files            1024                 1048576              files     \n";
        assert_eq!(fd_limit(text), Some(1024));
        assert_eq!(
            fd_limit(b"Max open files            unlimited            unlimited            files\n"),
            None
        );
        assert_eq!(fd_limit(b""), None);
    }

    /// Check that what is mapped of shared memory is read in bytes.
    #[test]
    fn mapped() {
        assert_eq!(rss_shmem(b"RssFile:\t       4 kB\nRssShmem:\t      20 kB\n"), Some(Bytes(20 << 10)));
        assert_eq!((rss_shmem(b"RssShmem:\t20\n"), rss_shmem(b"VmRSS:\t20 kB\n")), (None, None));
    }

    /// Check that only whole lines of passwd are read, and that the first name of a user counts.
    #[test]
    fn users() {
        let users =
            Users::parse(b"root:x:0:0:root:/root:/bin/sh\ntoor:x:0:0\n+::\n:x:7\nann:x:1000\nbad:x:-1\n");
        let name = |uid| users.name(uid).map(|name| name.to_string());
        assert_eq!((name(0).as_deref(), name(1000).as_deref()), (Some("root"), Some("ann")));
        assert_eq!((name(7), name(1)), (None, None));
    }

    proptest! {
        /// Check that no bytes make a parser panic, and that the words of a command line are read
        /// back as they were.
        #[test]
        fn any_bytes(text in proptest::collection::vec(any::<u8>(), 0..200), args in proptest::collection::vec("[a-z ]{1,9}", 0..5)) {
            let _ = (words(&text, true), fd_limit(&text), rss_shmem(&text), Users::parse(&text));
            let printed: String = args.iter().map(|word| format!("{word}\0")).collect();
            prop_assert_eq!(split(printed.as_bytes()), args);
        }
    }
}
