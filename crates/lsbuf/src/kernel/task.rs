//! Parsers of the texts about tasks: `stat`, `status` and `cgroup` of one task, and `loadavg` of
//! all.
//!
//! A command name may contain brackets, blanks and newlines, so fields of `stat` are counted from
//! the last `)`.

use super::parse::{Malformed, number, number32};
use crate::model::Label;

/// The stage of a task's life, on which it depends what the task can hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// A kernel thread. It has neither fds nor mappings.
    Kernel,
    /// It runs a program.
    Running,
    /// It is exiting. Its fds and mappings are no longer visible (`exit_mm`, `exit_files` in
    /// kernel/exit.c), but may not be released yet.
    Exiting,
    /// It has released everything and waits for its parent or for its own threads.
    Zombie,
}

/// `comm` and `starttime`.
pub(crate) fn stat(text: &[u8]) -> std::result::Result<(Label, u64), Malformed> {
    let open = text.iter().position(|&b| b == b'(').ok_or(Malformed)?;
    let close = text.iter().rposition(|&b| b == b')').ok_or(Malformed)?;
    let comm = text.get(open + 1..close).ok_or(Malformed)?;
    let start = stat_field(text, 22).ok_or(Malformed)?;
    Ok((comm.into(), number(start, 10)?))
}

/// Where the code and the stack of its program begin (`startcode`, `startstack`), by a stat line.
/// Both are 0 for a reader without the right to know.
#[cfg(all(feature = "bpf", feature = "symbols"))]
pub(crate) fn image_start(stat: &[u8]) -> std::result::Result<(u64, u64), Malformed> {
    let field = |nth| number(stat_field(stat, nth).ok_or(Malformed)?, 10);
    Ok((field(26)?, field(28)?))
}

/// The parent's pid (`ppid`); `None` if it has no parent in the reader's pid namespace.
pub(crate) fn parent(stat: &[u8]) -> std::result::Result<Option<u32>, Malformed> {
    let pid = number32(stat_field(stat, 4).ok_or(Malformed)?, 10)?;
    Ok(Some(pid).filter(|&pid| pid != 0))
}

/// The stage, by a stat line.
pub(crate) fn stage(stat: &[u8]) -> std::result::Result<Stage, Malformed> {
    /// From include/linux/sched.h.
    const PF_EXITING: u64 = 0x0000_0004;
    const PF_KTHREAD: u64 = 0x0020_0000;
    let state = stat_field(stat, 3).ok_or(Malformed)?;
    let flags = number(stat_field(stat, 9).ok_or(Malformed)?, 10)?;
    Ok(match (flags & PF_KTHREAD != 0, flags & PF_EXITING != 0, state) {
        (true, ..) => Stage::Kernel,
        (_, _, b"Z" | b"X") => Stage::Zombie,
        (_, true, _) => Stage::Exiting,
        _ => Stage::Running,
    })
}

/// Whether a stat line belongs to a task that is stopped or traced.
pub(crate) fn is_stopped(stat: &[u8]) -> bool {
    matches!(stat_field(stat, 3), Some(b"T" | b"t"))
}

/// Field `nth` of a stat line, numbered from 1 as in proc_pid_stat(5). Only fields from 3 on.
fn stat_field(text: &[u8], nth: usize) -> Option<&[u8]> {
    let close = text.iter().rposition(|&b| b == b')')?;
    text[close + 1..].trim_ascii().split(|&b| b == b' ').nth(nth.checked_sub(3)?)
}

/// The first number of the `Uid:` line. `status` escapes newlines in the command name, so the name
/// cannot forge a line.
pub(crate) fn real_uid(text: &[u8]) -> Option<u32> {
    let line = text.split(|&b| b == b'\n').find_map(|l| l.strip_prefix(b"Uid:\t"))?;
    number32(line.split(|&b| b == b'\t').next()?, 10).ok()
}

/// Whether a `status` lists only one pid. The procfs then belongs to the process's own pid
/// namespace.
pub(crate) fn is_in_one_namespace(status: &[u8]) -> bool {
    let line = status.split(|&b| b == b'\n').find_map(|l| l.strip_prefix(b"NSpid:\t"));
    line.is_some_and(|pids| number32(pids, 10).is_ok())
}

/// A task's cgroup in the hierarchy that counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TaskCgroup<'t> {
    /// Its path, as it was printed.
    pub(crate) path: &'t [u8],
    /// Whether all tasks of one cgroup of version 2 have this path.
    pub(crate) unified: bool,
}

/// The cgroup of a task, by the text that `proc_cgroup_show` of kernel/cgroup/cgroup.c prints: a
/// line `ID:CONTROLLERS:PATH` for each hierarchy. Version 2 has the id 0 and no controllers.
///
/// Version 2 counts, then the hierarchy of the controller memory, then systemd's. A root says
/// nothing where another one of these names a cgroup. With version 1 alone, or with both (systemd's
/// hybrid mode), this is the cgroup that shows who the task belongs to.
pub(crate) fn cgroup(text: &[u8]) -> Option<TaskCgroup<'_>> {
    let mut found: [Option<&[u8]>; 3] = [None; 3];
    for line in text.split(|&b| b == b'\n') {
        let mut parts = line.splitn(3, |&b| b == b':');
        let (Some(id), Some(controllers), Some(path)) = (parts.next(), parts.next(), parts.next()) else {
            continue;
        };
        let rank = match controllers {
            b"" if id == b"0" => 0,
            b"name=systemd" => 2,
            names if names.split(|&b| b == b',').any(|name| name == b"memory") => 1,
            _ => continue,
        };
        found[rank] = Some(path);
    }
    let is_root = |path: &[u8]| path == b"/";
    let known = || found.into_iter().flatten();
    let path = known().find(|&path| !is_root(path)).or_else(|| known().next())?;
    let [unified, memory, systemd] = found;
    let unified = unified.is_some_and(|path| !is_root(path) || (memory.is_none() && systemd.is_none()));
    Some(TaskCgroup { path, unified })
}

/// The last pid that was assigned: the last word of loadavg.
pub(crate) fn last_pid(loadavg: &[u8]) -> Option<u32> {
    let last = loadavg.trim_ascii_end().rsplit(|&b| b == b' ').next()?;
    number32(last, 10).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const AFTER_COMM: &str = " S 1 7 7 0 -1 4194560 102 0 0 0 0 0 0 0 20 0 1 0 4711 9003008 200";

    proptest! {
        /// Check that no command name shifts a field, whatever brackets, blanks and newlines it
        /// contains.
        #[test]
        fn comms_shift_nothing(comm in proptest::collection::vec(any::<u8>(), 0..16)) {
            let text = [b"7 (", comm.as_slice(), b")", AFTER_COMM.as_bytes(), b"\n"].concat();
            prop_assert_eq!(stat(&text), Ok((comm.as_slice().into(), 4711)));
            prop_assert_eq!(stat_field(&text, 9), Some(&b"4194560"[..]));
        }

        /// Check that no bytes make a parser panic.
        #[test]
        fn any_bytes(text in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = (stat(&text), stage(&text), real_uid(&text), cgroup(&text));
        }
    }

    /// Check that the real uid is read, and not the effective one beside it.
    #[test]
    fn uid() {
        assert_eq!(real_uid(b"Name:\tx\nUmask:\t0022\nUid:\t1000\t0\t0\t0\n"), Some(1000));
    }

    /// Check that each stage is found from state and flags together.
    #[test]
    fn stages() {
        let of = |state: &str, flags: u64| stage(format!("7 (x) {state} 1 7 7 0 -1 {flags} 0").as_bytes());
        assert_eq!(of("S", 0x0040_0100), Ok(Stage::Running));
        assert_eq!(of("I", 0x0020_8040), Ok(Stage::Kernel));
        assert_eq!(of("R", 0x0040_0104), Ok(Stage::Exiting));
        assert_eq!(of("Z", 0x0040_010c), Ok(Stage::Zombie));
        assert_eq!(stage(b"7 (x) S 1 7"), Err(Malformed));
        let stopped = |state: &str| is_stopped(format!("7 (T) {state} 1 7 7 0 -1 4194560 0").as_bytes());
        assert!(stopped("T") && stopped("t") && !stopped("S") && !stopped("D"));
    }

    /// Check that a second pid, of an inner namespace, is noticed.
    #[test]
    fn namespaces() {
        assert!(is_in_one_namespace(b"Name:\tx\nNSpid:\t12\nNSpgid:\t12\n"));
        assert!(!is_in_one_namespace(b"Name:\tx\nNSpid:\t12\t1\nNSpgid:\t12\t1\n"));
        assert!(!is_in_one_namespace(b"Name:\tx\n"));
    }

    /// Check that version 2 counts first, then memory, then systemd's; that a root says nothing
    /// beside another path; and when a cgroup of version 2 has one path for all of its tasks.
    #[test]
    fn cgroups() {
        let of = |text: &'static str| {
            cgroup(text.as_bytes()).map(|found| (String::from_utf8_lossy(found.path), found.unified))
        };
        let found = |path: &'static str, unified: bool| Some((path.into(), unified));
        assert_eq!(of("2:cpu:/old\n0::/user.slice/a b\n"), found("/user.slice/a b", true));
        assert_eq!(of("12:memory:/m\n1:name=systemd:/s\n0::/u:x\n"), found("/u:x", true));
        assert_eq!(of("12:cpu,memory:/m\n1:name=systemd:/s\n0::/\n"), found("/m", false));
        assert_eq!(of("12:memory:/\n0::/\n"), found("/", false));
        assert_eq!(of("12:memory:/\n1:name=systemd:/s\n"), found("/s", false));
        assert_eq!(of("3:cpu:/c\n0::/\n"), found("/", true));
        assert_eq!((of("3:cpu:/c\n"), of("3:memory"), of("")), (None, None, None));
    }
}
