//! Reads what the flight recorder's iterators show: one record for each living buffer that was born
//! while it ran, with its stacks if they are asked for, and at the end what it has counted.
//!
//! The records come through a file whose path a caller may choose, so they are not trusted, as in
//! [`super::record`]. The stack in the kernel is text that the kernel writes, one line for each
//! call, so that no address of the kernel has to be told.

use std::os::fd::AsFd;

use rustix::io::Errno;

use super::hooks::{About, Hook, View};
use super::layout::{self, Field, Whole};
use super::pins::Pins;
use super::record::{dev, text};
use super::{Unavailable, loading, read_to_end};
use crate::kernel::parse::Malformed;
use crate::model::{Dev, Inode, IpcNamespace, Label, Pid, Tid};

/// `PF_EXITING` and `PF_KTHREAD` of the kernel's include/linux/sched.h.
#[cfg(feature = "bpf")]
pub(super) const PF_EXITING: u32 = 0x4;
pub(super) const PF_KTHREAD: u32 = 0x0020_0000;

/// The longest text of a stack in the kernel: 24 lines, each with a symbol and a module.
const LONGEST_TEXT: usize = 24 * 768;

/// What was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum OriginOf {
    DmaBuf(Inode),
    /// A file, which is no System V segment.
    File(Dev, Inode),
    /// A System V segment.
    Segment(IpcNamespace, Inode),
}

/// A birth, without its stacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OriginRecord {
    pub(crate) of: OriginOf,
    /// Nanoseconds after boot: when it was made, and when its maker was started.
    pub(crate) born: u64,
    pub(crate) started: u64,
    pub(crate) cgroup: u64,
    pub(crate) pid: Pid,
    pub(crate) tid: Tid,
    pub(crate) uid: u32,
    /// The maker is a thread of the kernel.
    pub(crate) kernel: bool,
    /// How many bytes of the program's stack were kept. `Err`: the kernel could not read it.
    pub(crate) user_bytes: Result<u32, Errno>,
    pub(crate) comm: [u8; 16],
    pub(crate) thread: [u8; 16],
    pub(crate) client: ClientRecord,
}

/// Who received a buffer first from its maker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ClientRecord {
    /// Nobody was seen to.
    NotSeen,
    /// Somebody may have, and it is not known who.
    Unclear,
    /// There was no room to keep it.
    Lost,
    Received {
        /// Nanoseconds after boot.
        at: u64,
        started: u64,
        cgroup: u64,
        pid: Pid,
        uid: u32,
        comm: [u8; 16],
    },
}

/// What the recorder has counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct OriginCounts {
    pub(crate) births: u64,
    pub(crate) deaths: u64,
    /// Births for which there was no room.
    pub(crate) full: u64,
    pub(crate) about: About,
}

/// One record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum OriginRow<'r> {
    Birth(OriginRecord),
    /// The program's stack of the birth before.
    User(UserStack<'r>),
    /// The kernel's stack of the birth before: lines.
    Kernel(&'r [u8]),
    /// The last record.
    Counts(OriginCounts),
}

/// Frames of a program's stack, the innermost first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct UserStack<'r>(&'r [u8]);

/// A frame of a program's stack: the build id of the file and the offset in it, or an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RawFrame {
    File([u8; 20], u64),
    Address(u64),
}

impl<'r> UserStack<'r> {
    /// From frames as the kernel writes them.
    pub(super) fn new(frames: &'r [u8]) -> UserStack<'r> {
        UserStack(frames)
    }

    /// How many bytes it has.
    #[cfg(feature = "bpf")]
    pub(crate) fn bytes(&self) -> u32 {
        u32::try_from(self.0.len()).unwrap_or(u32::MAX)
    }

    pub(crate) fn frames(&self) -> impl std::iter::Iterator<Item = RawFrame> {
        self.0.chunks_exact(size_of::<layout::UserFrame>()).filter_map(|bytes| {
            let frame = layout::UserFrame::read(bytes)?;
            // `enum bpf_stack_build_id_status` of include/uapi/linux/bpf.h
            match frame.status {
                1 => Some(RawFrame::File(frame.build_id, frame.place)),
                2 => Some(RawFrame::Address(frame.place)),
                _ => None,
            }
        })
    }
}

/// Reads a pinned iterator once and calls `each` for every record. `BADMSG`: the data are not what
/// the program writes, or stop before its end.
pub(crate) fn read(
    pins: &Pins,
    view: View,
    mut each: impl FnMut(OriginRow<'_>),
) -> Result<OriginCounts, Unavailable> {
    let file = pins.read(view.name())?;
    let mut counts = None;
    let is_whole = read_to_end(&file, &mut Vec::new(), |bytes| {
        let taken = rows(bytes, |row| match row {
            OriginRow::Counts(found) => counts = Some(found),
            row => each(row),
        });
        Ok((taken?, false))
    });
    let is_whole = is_whole.map_err(Unavailable::of_reading)?;
    counts.filter(|_| is_whole).ok_or(Unavailable::Foreign)
}

/// How often, at most, the kernel skipped all copies of a program of the recorder. `None`: it does
/// not run, or the caller may not ask, which only root may.
pub(crate) fn skipped(pins: &Pins, hook: Hook) -> Option<u64> {
    let of_one = |name: String| {
        let link = pins.link(&name).ok()?;
        let program = loading::program_of(link.as_fd()).ok()?;
        // A kernel that does not count this skips none.
        loading::skipped(program.as_fd()).ok().map(Option::unwrap_or_default)
    };
    let each: Option<Vec<u64>> = hook.pins().map(of_one).collect();
    each?.into_iter().min()
}

/// How many first receipts, at most, the recorder did not see because the kernel skipped all copies
/// of both programs that see them. `None`: the caller may not ask.
pub(crate) fn skipped_receipts(pins: &Pins) -> Option<u64> {
    Some(skipped(pins, Hook::FileOffered)?.min(skipped(pins, Hook::FileReceived)?))
}

/// Calls `take` for each complete record. Returns how many bytes they take.
pub(crate) fn rows<'r>(bytes: &'r [u8], mut take: impl FnMut(OriginRow<'r>)) -> Result<usize, Malformed> {
    let mut rest = bytes;
    while let Some((row, len)) = row(rest)? {
        take(row);
        rest = &rest[len..];
    }
    Ok(bytes.len() - rest.len())
}

/// The record that `bytes` begin with, and its length. `None`: it is incomplete.
fn row(bytes: &[u8]) -> Result<Option<(OriginRow<'_>, usize)>, Malformed> {
    let Some(layout::Head { kind, size }) = layout::Head::read(bytes) else { return Ok(None) };
    let (head, size) = (size_of::<layout::Head>(), size as usize);
    let largest = head + 48 * size_of::<layout::UserFrame>();
    if !(head..=largest).contains(&size) {
        return Err(Malformed);
    }
    if kind == layout::ORIGIN_KERNEL {
        return lines(&bytes[head..], size == head).map(|found| {
            let (text, len) = found?;
            Some((OriginRow::Kernel(text), head + len))
        });
    }
    let Some(record) = bytes.get(..size) else { return Ok(None) };
    let row = match kind {
        layout::ORIGIN => OriginRow::Birth(OriginRecord::of(&Whole::only(record)?)?),
        layout::ORIGIN_USER if (size - head).is_multiple_of(size_of::<layout::UserFrame>()) => {
            OriginRow::User(UserStack::new(&record[head..]))
        }
        layout::ORIGIN_COUNTS => OriginRow::Counts(OriginCounts::of(&Whole::only(record)?)),
        _ => return Err(Malformed),
    };
    Ok(Some((row, size)))
}

/// Lines up to an empty one, and the length with that.
fn lines(bytes: &[u8], is_it: bool) -> Result<Option<(&[u8], usize)>, Malformed> {
    if !is_it {
        return Err(Malformed);
    }
    if bytes.first() == Some(&b'\n') {
        return Ok(Some((&[], 1)));
    }
    match memchr::memmem::find(bytes, b"\n\n") {
        Some(end) if end <= LONGEST_TEXT => Ok(Some((&bytes[..end], end + 2))),
        None if bytes.len() <= LONGEST_TEXT => Ok(None),
        _ => Err(Malformed),
    }
}

impl OriginRecord {
    fn of(record: &layout::Origin) -> Result<OriginRecord, Malformed> {
        const SEGMENT: u32 = 1;
        let dev = dev(record.dev);
        let ino = Inode(record.ino);
        let of = match (record.what, record.flags & SEGMENT != 0) {
            (1, false) => OriginOf::File(dev, ino),
            (1, true) => OriginOf::Segment(IpcNamespace(Inode(record.ipc.into())), ino),
            (2, _) => OriginOf::DmaBuf(ino),
            _ => return Err(Malformed),
        };
        let bytes = u32::try_from(record.user_bytes);
        Ok(OriginRecord {
            of,
            born: record.born,
            started: record.started,
            cgroup: record.cgroup,
            pid: Pid(record.tgid),
            tid: Tid(record.tid),
            uid: record.uid,
            kernel: record.task_flags & PF_KTHREAD != 0,
            user_bytes: bytes.map_err(|_| Errno::from_raw_os_error(record.user_bytes.saturating_neg())),
            comm: record.comm,
            thread: record.thread,
            client: ClientRecord::of(&record.client)?,
        })
    }
}

impl ClientRecord {
    fn of(record: &layout::ClientRow) -> Result<ClientRecord, Malformed> {
        Ok(match record.state {
            0 => ClientRecord::NotSeen,
            // What was offered may not have been taken.
            1 | 3 => ClientRecord::Unclear,
            2 => ClientRecord::Received {
                at: record.received,
                started: record.started,
                cgroup: record.cgroup,
                pid: Pid(record.tgid),
                uid: record.uid,
                comm: record.comm,
            },
            4 => ClientRecord::Lost,
            _ => return Err(Malformed),
        })
    }
}

impl OriginCounts {
    /// Births that have no record, for whatever reason. `None`: the caller may not ask how many the
    /// kernel skipped.
    pub(crate) fn lost(&self, pins: &Pins) -> Option<u64> {
        let births =
            Hook::ALL.into_iter().filter(|hook| hook.is_birth() && self.about.watched & hook.bit() != 0);
        let skipped = births.map(|hook| skipped(pins, hook)).sum::<Option<u64>>();
        skipped.map(|skipped| skipped.saturating_add(self.full))
    }

    fn of(record: &layout::OriginCounts) -> OriginCounts {
        let (counts, about) = (record.counts, record.about);
        OriginCounts {
            births: counts.births,
            deaths: counts.deaths,
            full: counts.full,
            about: About {
                since: about.since,
                since_wall: about.since_wall,
                most: about.most,
                watched: about.watched,
            },
        }
    }
}

/// A command's name, which ends at the first NUL.
pub(crate) fn name(comm: &[u8; 16]) -> Label {
    text(comm).unwrap_or(comm).into()
}

#[cfg(test)]
mod tests {
    use super::super::record::tests::written;
    use super::*;

    fn longs(values: &[u64]) -> Vec<u8> {
        values.iter().flat_map(|value| value.to_ne_bytes()).collect()
    }

    fn words(values: &[u32]) -> Vec<u8> {
        values.iter().flat_map(|value| value.to_ne_bytes()).collect()
    }

    /// A birth as the program writes it: what was made, and whether it is a segment.
    fn birth(what: u32, flags: u32, user_bytes: i32) -> Vec<u8> {
        birth_for(what, flags, user_bytes, 0)
    }

    /// The same with a client in that state.
    fn birth_for(what: u32, flags: u32, user_bytes: i32, state: u32) -> Vec<u8> {
        let names = [&b"maker\0xxxxxxxxxx"[..], b"0123456789abcdef"].concat();
        let fields = [3 << 20 | 7, what, 10, 11, 12, PF_KTHREAD, 8, user_bytes.cast_unsigned(), 99, flags];
        let client =
            [longs(&[20, 21, 22]), words(&[state, 23, 24, 25]), b"client\0xxxxxxxxx".to_vec()].concat();
        written(layout::ORIGIN, &[&longs(&[5, 100, 90, 77]), &words(&fields), &names, &client])
    }

    fn only(bytes: &[u8]) -> OriginRow<'_> {
        let (row, len) = row(bytes).unwrap().unwrap();
        assert_eq!(len, bytes.len());
        row
    }

    /// Check each field of a birth, and that a name without a NUL is whole.
    #[test]
    fn a_birth() {
        let bytes = birth(1, 0, -14);
        let OriginRow::Birth(record) = only(&bytes) else { panic!() };
        assert_eq!(record.of, OriginOf::File(Dev { major: 3, minor: 7 }, Inode(5)));
        assert_eq!((record.born, record.started, record.cgroup), (100, 90, 77));
        assert_eq!((record.pid, record.tid, record.uid, record.kernel), (Pid(10), Tid(11), 12, true));
        assert_eq!(record.user_bytes, Err(Errno::FAULT));
        assert_eq!((name(&record.comm), name(&record.thread)), ("maker".into(), "0123456789abcdef".into()));
    }

    /// Check that a segment is told by its namespace, a dma-buf by its inode alone, and that
    /// nothing else is made.
    #[test]
    fn what_was_made() {
        let of = |what, flags| match row(&birth(what, flags, 0)) {
            Ok(Some((OriginRow::Birth(record), _))) => Ok(record.of),
            other => Err(format!("{other:?}")),
        };
        assert_eq!(of(1, 1), Ok(OriginOf::Segment(IpcNamespace(Inode(99)), Inode(5))));
        assert_eq!(of(2, 0), Ok(OriginOf::DmaBuf(Inode(5))));
        assert!(of(3, 0).is_err());
    }

    /// Check each field of a client, and that one who may not have taken the buffer is none.
    #[test]
    fn clients() {
        let of = |state| match row(&birth_for(1, 0, 0, state)) {
            Ok(Some((OriginRow::Birth(record), _))) => Ok(record.client),
            other => Err(format!("{other:?}")),
        };
        let comm = *b"client\0xxxxxxxxx";
        let received =
            ClientRecord::Received { at: 22, started: 20, cgroup: 21, pid: Pid(23), uid: 25, comm };
        assert_eq!(of(0), Ok(ClientRecord::NotSeen));
        assert_eq!((of(1), of(3)), (Ok(ClientRecord::Unclear), Ok(ClientRecord::Unclear)));
        assert_eq!(of(2), Ok(received));
        assert_eq!(of(4), Ok(ClientRecord::Lost));
        assert!(of(5).is_err());
    }

    /// Check that each frame of a program is a place in a file or an address, and that one without
    /// either is left out.
    #[test]
    fn frames_of_a_program() {
        let frame =
            |status: i32, place: u64| [&status.to_ne_bytes()[..], &[9; 20], &place.to_ne_bytes()].concat();
        let bytes = written(layout::ORIGIN_USER, &[&frame(1, 16), &frame(0, 17), &frame(2, 18)]);
        let OriginRow::User(stack) = only(&bytes) else { panic!() };
        let frames: Vec<RawFrame> = stack.frames().collect();
        assert_eq!(frames, [RawFrame::File([9; 20], 16), RawFrame::Address(18)]);
    }

    /// Check that the lines of the kernel end at an empty one, and that there may be none.
    #[test]
    fn lines_of_the_kernel() {
        let head = written(layout::ORIGIN_KERNEL, &[]);
        let with = |text: &[u8]| [&head[..], text].concat();
        assert_eq!(only(&with(b"one+0x1/0x2\ntwo [mod]\n\n")), OriginRow::Kernel(b"one+0x1/0x2\ntwo [mod]"));
        assert_eq!(only(&with(b"\n")), OriginRow::Kernel(b""));
        assert_eq!(row(&with(b"one\ntwo\n")), Ok(None));
        assert_eq!(row(&with(&[b'x'; LONGEST_TEXT + 1])), Err(Malformed));
    }

    /// Check that what is cut off is waited for, and that a record of another kind or size is
    /// refused.
    #[test]
    fn incomplete_and_malformed() {
        let bytes = birth(1, 0, 0);
        for cut in 0..bytes.len() {
            assert_eq!(row(&bytes[..cut]), Ok(None), "{cut}");
        }
        assert_eq!(row(&written(77, &[])), Err(Malformed));
        assert_eq!(row(&written(layout::ORIGIN, &[&[0; 8]])), Err(Malformed));
        assert_eq!(row(&written(layout::ORIGIN_USER, &[&[0; 33]])), Err(Malformed));
        assert_eq!(row(&words(&[layout::ORIGIN, 4])), Err(Malformed));
    }

    /// Check what the recorder has counted.
    #[test]
    fn counts() {
        let bytes = written(layout::ORIGIN_COUNTS, &[&longs(&[1, 2, 3, 4, 5]), &words(&[6, 7])]);
        let about = About { since: 4, since_wall: 5, most: 6, watched: 7 };
        assert_eq!(only(&bytes), OriginRow::Counts(OriginCounts { births: 1, deaths: 2, full: 3, about }));
    }
}
