//! Which buffers a text means that names one: as lsbuf prints it, or as another tool does.
//!
//! People paste what ls, lsof, maps, ipcs or an error message has printed. One text can be a number
//! and a key and a name. Then every buffer that one of them fits is meant, and [`ambiguity`] says
//! why each was taken. Only `KIND:INO` means nothing else, if there is such a buffer: a name cannot
//! be forged into it.
//!
//! Limits: a path is compared as text, with names as their holders see them. A thread that shares
//! an fd table with others is known by one of their ids.

use lsbuf::escape::unescape;
use lsbuf::model::{Buffer, Fd, Kind, Pid, ShortList, ThreadFds, Tid};

use crate::output;

/// A buffer that a text fits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Match {
    /// Its index.
    pub(crate) row: usize,
    /// Why it fits.
    pub(crate) by: By,
}

/// By what a text fits a buffer; the first one that does counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum By {
    /// `KIND:INO`.
    Identity,
    /// A place below `/proc/P`.
    Reference,
    /// An inode number, or a segment's id.
    Number,
    /// A segment's key.
    Key,
    /// A name.
    Name,
}

impl By {
    const ALL: [(By, &'static str); 5] = [
        (By::Identity, "kind and number"),
        (By::Reference, "fd or mapping"),
        (By::Number, "number"),
        (By::Key, "key"),
        (By::Name, "name"),
    ];
}

/// The buffers that a text means, in their order.
pub(crate) fn named(buffers: &[Buffer], wanted: &str) -> Vec<Match> {
    let wanted = Wanted::parse(wanted);
    let all = |fits: &dyn Fn(&Buffer) -> Option<By>| -> Vec<Match> {
        let rows = buffers.iter().enumerate();
        rows.filter_map(|(row, buffer)| Some(Match { row, by: fits(buffer)? })).collect()
    };
    let exact = all(&|buffer| wanted.is_identity(buffer).then_some(By::Identity));
    if exact.is_empty() { all(&|buffer| wanted.fits(buffer)) } else { exact }
}

/// The texts that fit no buffer, and the indices of the buffers that one fits, in the order of the
/// texts. Says on stderr which text fits several.
pub(crate) fn find_all<'w>(buffers: &[Buffer], texts: &'w [String]) -> (Vec<&'w str>, Vec<usize>) {
    let (mut missing, mut shown) = (Vec::new(), Vec::new());
    for wanted in texts {
        let found = named(buffers, wanted);
        if found.is_empty() {
            missing.push(wanted.as_str());
        }
        if let Some(line) = ambiguity(wanted, &found) {
            output::say(&line);
        }
        shown.extend(found.iter().map(|found| found.row));
    }
    (missing, shown)
}

/// A line that says why a text fits several buffers. `None`: it fits no more than one.
pub(crate) fn ambiguity(wanted: &str, found: &[Match]) -> Option<String> {
    let ways = By::ALL.iter().filter_map(|&(by, word)| {
        let number = found.iter().filter(|one| one.by == by).count();
        (number > 0).then(|| format!("{number} by {word}"))
    });
    let ways: Vec<String> = ways.collect();
    (found.len() > 1).then(|| format!("'{wanted}' fits {} buffers: {}", found.len(), ways.join(", ")))
}

/// Everything that a text can mean.
#[derive(Debug, Default)]
struct Wanted {
    identity: Option<(Kind, u64)>,
    reference: Option<(Pid, Place)>,
    number: Option<u64>,
    key: Option<u32>,
    names: Vec<Name>,
}

/// A place below `/proc/P`.
#[derive(Debug)]
enum Place {
    Fd(Option<Tid>, Fd),
    Map { start: u64, end: u64 },
    Exe,
}

/// A name, and which buffers may have it.
#[derive(Debug)]
struct Name {
    /// `None`: any, because the text shows the kind alone.
    bytes: Option<Vec<u8>>,
    kind: Option<Kind>,
    /// The text says that it is unlinked.
    deleted: bool,
}

/// What the kernel puts before a name in links and in `maps`.
const PREFIXES: [(&[u8], Kind); 7] = [
    (b"/memfd:", Kind::Memfd),
    (b"memfd:", Kind::Memfd),
    (b"/dmabuf:", Kind::DmaBuf),
    (b"dmabuf:", Kind::DmaBuf),
    (b"/dev/ashmem/", Kind::Ashmem),
    (b"/", Kind::GemShmem),
    (b"/", Kind::ShmOther),
];

/// What the kernel shows for all buffers of a kind.
const NAMELESS: [(&[u8], Kind); 5] = [
    (b"/dev/zero", Kind::ShmAnon),
    (b"/anon_hugepage", Kind::ShmAnon),
    (b"/secretmem", Kind::Secretmem),
    (b"/[kvm-gmem]", Kind::GuestMemfd),
    (b"anon_inode:[kvm-gmem]", Kind::GuestMemfd),
];

/// What the kernel puts behind the path of a file without a name.
const DELETED: &str = " (deleted)";

impl Wanted {
    fn parse(text: &str) -> Wanted {
        let identity =
            text.split_once(':').and_then(|(kind, number)| Some((Kind::of_word(kind)?, decimal(number)?)));
        let mut wanted = Wanted {
            identity,
            reference: reference(text),
            number: decimal(text),
            key: key(text),
            names: Vec::new(),
        };
        wanted.add_names(text.as_bytes());
        if let Some(bytes) = unescape(text).filter(|bytes| bytes != text.as_bytes()) {
            wanted.add_names(&bytes);
        }
        wanted
    }

    fn add_names(&mut self, text: &[u8]) {
        let unmarked = text.strip_suffix(DELETED.as_bytes()).map(|unmarked| (unmarked, true));
        for (text, deleted) in [(text, false)].into_iter().chain(unmarked) {
            self.names.push(Name { bytes: Some(text.to_vec()), kind: None, deleted });
            let prefixed = PREFIXES.iter().filter_map(|&(prefix, kind)| {
                let bytes = Some(text.strip_prefix(prefix)?.to_vec());
                Some(Name { bytes, kind: Some(kind), deleted })
            });
            self.names.extend(prefixed);
            let nameless = NAMELESS.iter().filter(|(shown, _)| *shown == text);
            self.names.extend(nameless.map(|&(_, kind)| Name { bytes: None, kind: Some(kind), deleted }));
        }
    }

    fn is_identity(&self, buffer: &Buffer) -> bool {
        self.identity == Some((buffer.id.kind, buffer.id.ino.0))
    }

    fn fits(&self, buffer: &Buffer) -> Option<By> {
        let key = self.key.is_some() && key_of(buffer) == self.key;
        let refers = |(pid, place): &(Pid, Place)| place.is_in(buffer, *pid);
        let fitting = [
            (self.reference.as_ref().is_some_and(refers), By::Reference),
            (self.number == Some(buffer.id.ino.0), By::Number),
            (key, By::Key),
            (self.names.iter().any(|name| name.is_of(buffer)), By::Name),
        ];
        fitting.into_iter().find(|(fits, _)| *fits).map(|(_, by)| by)
    }
}

impl Name {
    fn is_of(&self, buffer: &Buffer) -> bool {
        let has_bytes = |bytes: &Vec<u8>| buffer.name.as_ref().is_some_and(|name| name.as_bytes() == bytes);
        self.kind.is_none_or(|kind| kind == buffer.id.kind)
            && self.bytes.as_ref().is_none_or(has_bytes)
            && !(self.deleted && buffer.deleted == Some(false))
    }
}

impl Place {
    fn is_in(&self, buffer: &Buffer, pid: Pid) -> bool {
        let Some(holder) = buffer.holders.iter().find(|holder| holder.pid == pid) else { return false };
        let has = |fds: &[Fd], opaths: &ShortList<Fd>, fd: Fd| fds.contains(&fd) || opaths.contains(&fd);
        match *self {
            Place::Fd(tid, fd) if tid.is_none_or(|tid| tid.0 == pid.0) => {
                has(&holder.fds, &holder.opaths, fd)
            }
            Place::Fd(tid, fd) => {
                let is_it = |thread: &&ThreadFds| Some(thread.tid) == tid;
                holder.threads.iter().find(is_it).is_some_and(|thread| has(&thread.fds, &thread.opaths, fd))
            }
            Place::Map { start, end } => holder.maps.iter().any(|map| (map.start, map.end) == (start, end)),
            Place::Exe => holder.runs,
        }
    }
}

/// `/proc/P/fd/N`, `/proc/P/fdinfo/N`, the same below `task/T`, `/proc/P/map_files/START-END`, and
/// `/proc/P/exe`.
fn reference(text: &str) -> Option<(Pid, Place)> {
    let small = |text: &str| decimal(text).and_then(|number| u32::try_from(number).ok());
    let words: Vec<&str> = text.strip_prefix("/proc/")?.split('/').collect();
    let (pid, task, place) = match words[..] {
        [pid, "task", tid, ref place @ ..] => (pid, Some(Tid(small(tid)?)), place),
        [pid, ref place @ ..] => (pid, None, place),
        [] => return None,
    };
    let place = match *place {
        ["fd" | "fdinfo", fd] => Place::Fd(task, Fd(small(fd)?)),
        ["map_files", range] => {
            let (start, end) = range.split_once('-')?;
            let hex = |text: &str| u64::from_str_radix(text, 16).ok();
            Place::Map { start: hex(start)?, end: hex(end)? }
        }
        ["exe"] => Place::Exe,
        _ => return None,
    };
    Some((Pid(small(pid)?), place))
}

/// A number without a sign.
fn decimal(text: &str) -> Option<u64> {
    text.parse().ok().filter(|_| text.bytes().all(|b| b.is_ascii_digit()))
}

/// A segment's key: `0x0005d4a2` as ipcs prints it, `382114` as PostgreSQL does, perhaps negative
/// as in `/proc/sysvipc/shm`, and `/SYSV0005d4a2 (deleted)` as in `maps`. Only the last form names
/// the segments without a key: in the others, 0 is an id.
fn key(text: &str) -> Option<u32> {
    let unmarked = text.strip_suffix(DELETED).unwrap_or(text);
    let is_hex = |digits: &&str| !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_hexdigit());
    let hex = |digits| Some(digits).filter(is_hex).and_then(|digits| u32::from_str_radix(digits, 16).ok());
    if let Some(digits) = unmarked.trim_start_matches('/').strip_prefix("SYSV") {
        return hex(digits);
    }
    let signed = || text.parse::<i32>().ok().filter(|key| *key < 0).map(i32::cast_unsigned);
    let unsigned = || decimal(text).and_then(|key| u32::try_from(key).ok());
    let key = text.strip_prefix("0x").and_then(hex).or_else(signed).or_else(unsigned);
    key.filter(|&key| key != 0)
}

/// The key of a segment. The kernel's table shows none of a segment that is marked for removal, but
/// its name does.
fn key_of(buffer: &Buffer) -> Option<u32> {
    let name = || {
        let name = std::str::from_utf8(buffer.name.as_ref()?.as_bytes()).ok()?;
        if name.is_empty() { Some(0) } else { key(name) }
    };
    let table = buffer.segment.as_ref().map(|segment| segment.key);
    if buffer.id.kind == Kind::Sysv { table.filter(|&key| key != 0).or_else(name) } else { None }
}

#[cfg(test)]
mod tests {
    use lsbuf::model::{BufferId, Holder, Inode, Label};
    use proptest::prelude::*;

    use super::*;

    fn buffer(kind: Kind, ino: u64, name: &str) -> Buffer {
        let mut buffer = Buffer::new(BufferId::new(kind, None, Inode(ino)));
        buffer.name = Some(Label::from(name));
        buffer
    }

    /// A memfd, a dma-buf, two segments, one of which has no key, and a file that was deleted with
    /// its successor of the same name. Process 12 has the memfd open as 3.
    fn world() -> Vec<Buffer> {
        let mut holder = Holder::new(Pid(12));
        holder.fds = vec![Fd(3)].into();
        let mut all = vec![
            buffer(Kind::Memfd, 7, "pool"),
            buffer(Kind::DmaBuf, 382_114, "pool"),
            buffer(Kind::Sysv, 1, "0x0005d4a2"),
            buffer(Kind::Sysv, 2, ""),
            buffer(Kind::Tmpfs, 9, "/dev/shm/x"),
            buffer(Kind::Tmpfs, 10, "/dev/shm/x"),
            buffer(Kind::ShmAnon, 11, ""),
        ];
        all[0].holders.push(holder);
        (all[4].deleted, all[5].deleted) = (Some(true), Some(false));
        all
    }

    fn rows(wanted: &str) -> Vec<usize> {
        named(&world(), wanted).iter().map(|one| one.row).collect()
    }

    /// Check that a name is found in every form in which links, maps, lsof and lsbuf print it, and
    /// that a form that shows the kind finds no other kind.
    #[test]
    fn names() {
        assert_eq!(rows("pool"), [0, 1]);
        for text in ["/memfd:pool (deleted)", "/memfd:pool", "memfd:pool", "memfd:pool (deleted)"] {
            assert_eq!(rows(text), [0], "{text}");
        }
        assert_eq!((rows("/dmabuf:pool"), rows("dmabuf:pool")), (vec![1], vec![1]));
        assert_eq!(rows("/dev/zero (deleted)"), [6]);
    }

    /// Check that a path means the deleted file and its successor, and with the mark the deleted
    /// one alone.
    #[test]
    fn deleted_paths() {
        assert_eq!((rows("/dev/shm/x"), rows("/dev/shm/x (deleted)")), (vec![4, 5], vec![4]));
    }

    /// Check that a key is found as ipcs, PostgreSQL and maps print it, and that only the form of
    /// maps finds segments without a key.
    #[test]
    fn keys() {
        for text in ["0x0005d4a2", "0x5d4a2", "SYSV0005d4a2", "/SYSV0005d4a2", "/SYSV0005d4a2 (deleted)"] {
            assert_eq!(rows(text), [2], "{text}");
        }
        assert_eq!(rows("/SYSV00000000 (deleted)"), [3]);
        assert_eq!((rows("0"), rows("0x0"), rows("0x")), (vec![], vec![], vec![]));
        assert_eq!((key("-1"), key("+1"), key("SYSV"), key("SYSV-1")), (Some(u32::MAX), None, None, None));
    }

    /// Check that a number that is an inode number and a key means both, and that the line says
    /// which it is how often.
    #[test]
    fn a_number_and_a_key() {
        let found = named(&world(), "382114");
        assert_eq!(found, [Match { row: 1, by: By::Number }, Match { row: 2, by: By::Key }]);
        let line = "'382114' fits 2 buffers: 1 by number, 1 by key";
        assert_eq!(ambiguity("382114", &found).as_deref(), Some(line));
        assert_eq!(ambiguity("7", &named(&world(), "7")), None);
    }

    /// Check that no name can pass for KIND:INO where that exists.
    #[test]
    fn identities_are_exact() {
        let mut all = world();
        all[1].name = Some("7".into());
        all.push(buffer(Kind::Memfd, 20, "7"));
        let rows = |text| named(&all, text).iter().map(|one| one.row).collect::<Vec<_>>();
        assert_eq!((rows("memfd:7"), rows("/memfd:7"), rows("7")), (vec![0], vec![7], vec![0, 1, 7]));
    }

    /// Check that a place below /proc is looked up among the references of that process.
    #[test]
    fn references() {
        assert_eq!((rows("/proc/12/fd/3"), rows("/proc/12/task/12/fdinfo/3")), (vec![0], vec![0]));
        for other in
            ["/proc/12/fd/4", "/proc/13/fd/3", "/proc/12/fd/", "/proc/12/fd/-3", "/proc/", "/proc/12"]
        {
            assert_eq!(rows(other), Vec::<usize>::new(), "{other}");
        }
    }

    proptest! {
        /// Check that no text makes the parser panic, and that each match is reported once.
        #[test]
        fn any_text(text in "(/proc/|0x|SYSV|/memfd:|-)?[0-9a-f/x:\\\\]{0,12}.{0,6}( \\(deleted\\))?") {
            let found = named(&world(), &text);
            prop_assert!(found.is_sorted_by(|a, b| a.row < b.row));
        }

        /// Check that a memfd is found by its name, whatever bytes that has, in each form.
        #[test]
        fn any_name(name in proptest::collection::vec(1u8.., 1..20)) {
            let mut one = buffer(Kind::Memfd, u64::MAX, "");
            one.name = Some(name.as_slice().into());
            let escaped = lsbuf::escape::escape(&name);
            for text in [escaped.clone(), format!("/memfd:{escaped} (deleted)"), format!("memfd:{escaped}")] {
                let found = named(std::slice::from_ref(&one), &text);
                prop_assert_eq!(found, [Match { row: 0, by: By::Name }], "{}", text);
            }
        }
    }
}
