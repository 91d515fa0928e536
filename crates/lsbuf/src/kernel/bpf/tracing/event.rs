//! Reads the records that the programs of a trace write.
//!
//! What happened, and who did it, is told in the model's own types. Of the buffer a record may not
//! tell all, and of the calls it tells addresses, so these two stay as they were written.

use std::time::Duration;

use rustix::io::Errno;

use super::super::layout::{self, Field};
use super::super::origins::{PF_EXITING, PF_KTHREAD, UserStack};
use super::super::record::{dev, text};
use crate::kernel::parse::Malformed;
use crate::model::{
    Actor, Bytes, Dev, Fd, Giver, Happening, Inode, IpcNamespace, Label, Pid, Tid, TracedMapping, Way,
};

/// The buffer of an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct EventObject {
    /// The same in all events of one buffer.
    pub(crate) key: u64,
    pub(crate) is_dmabuf: bool,
    /// Of the filesystem, as in [`magic`](crate::kernel::magic).
    pub(crate) magic: i64,
    /// The file is in no folder, so the kernel has chosen its name. Not set when it is freed.
    pub(crate) no_folder: bool,
    pub(crate) dev: Dev,
    pub(crate) ino: Inode,
    pub(crate) ipc: Option<IpcNamespace>,
    pub(crate) size: u64,
    pub(crate) memory: u64,
    /// Empty when a file is freed.
    pub(crate) name: Label,
    pub(crate) name_cut: bool,
    pub(crate) exporter: Label,
}

/// An event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RawEvent<'r> {
    /// Nanoseconds after boot.
    pub(crate) at: u64,
    pub(crate) what: Happening,
    pub(crate) object: EventObject,
    pub(crate) by: Actor,
    /// How many events had no room until this one.
    pub(crate) lost: u64,
    pub(crate) stacks: Option<RawStacks<'r>>,
}

/// The stacks of an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RawStacks<'r> {
    /// Addresses in the kernel, the innermost first.
    pub(crate) kernel: Vec<u64>,
    /// The calls in the program, as the kernel has found them by frame pointers.
    pub(crate) user: Result<UserStack<'r>, Errno>,
    /// `None`: not asked for.
    pub(crate) copied: Option<CopiedStack<'r>>,
}

/// The registers and the stack that a thread had at an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(not(feature = "symbols"), allow(dead_code, reason = "without it no stack is unwound"))]
pub(crate) struct CopiedStack<'r> {
    /// As the kernel keeps them (`struct pt_regs`). All 0: there are none.
    pub(crate) registers: [u64; REGISTERS],
    /// Where the stack and the code of the process begin, as `stat` of procfs says it.
    pub(crate) start_stack: u64,
    pub(crate) start_code: u64,
    /// The address of the first byte of `bytes`.
    pub(crate) from: u64,
    pub(crate) bytes: &'r [u8],
}

/// How many words the registers are: `MOST_REGISTERS` of bpf/trace.h.
pub(super) const REGISTERS: usize = 34;

impl<'r> RawEvent<'r> {
    /// Reads a record.
    pub(super) fn of(bytes: &'r [u8]) -> Result<RawEvent<'r>, Malformed> {
        const NO_FOLDER: u32 = 1;
        const PATH_ONLY: u32 = 2;
        const NAME_CUT: u32 = 4;
        const OF_FILE: u32 = 1;
        const OF_DMABUF: u32 = 2;
        const SHARED: [u32; 2] = [1, 3];

        let head = layout::Head::read(bytes).ok_or(Malformed)?;
        let size = head.size as usize;
        let with_copy = size == size_of::<layout::EventCopied>();
        let with_stacks = with_copy || size == size_of::<layout::EventStacks>();
        if head.kind != layout::EVENT || bytes.len() != size {
            return Err(Malformed);
        }
        if !with_stacks && size != size_of::<layout::Event>() {
            return Err(Malformed);
        }
        let event = layout::Event::read(bytes).ok_or(Malformed)?;
        let has = |flag: u32| event.flags & flag != 0;
        let word = |bytes: &[u8]| Label::from(text(bytes).unwrap_or(bytes));
        let fd = Fd(event.fd.cast_unsigned());
        let received = |way| Happening::Received {
            fd,
            way,
            from: (event.from != 0).then(|| Giver {
                pid: Pid(event.from),
                started: Duration::from_nanos(event.from_started),
                command: word(&event.from_comm),
            }),
        };
        let what = match event.what {
            layout::EVENT_MADE => Happening::Made,
            layout::EVENT_FD => match event.way {
                0 => Happening::Fd { fd, path_only: has(PATH_ONLY) },
                1 => received(Way::Message),
                2 => received(Way::Taken),
                3 => received(Way::Other),
                _ => return Err(Malformed),
            },
            layout::EVENT_MAPPED => Happening::Mapped(TracedMapping {
                start: (event.start != 0).then_some(event.start),
                length: Bytes(event.length),
                read: event.protection & 1 != 0,
                write: event.protection & 2 != 0,
                execute: event.protection & 4 != 0,
                shared: SHARED.contains(&event.sharing),
            }),
            layout::EVENT_ATTACHED => Happening::Attached(word(&event.device)),
            layout::EVENT_DETACHED => Happening::Detached(word(&event.device)),
            layout::EVENT_RENAMED => Happening::Renamed,
            layout::EVENT_FREED => Happening::Freed,
            _ => return Err(Malformed),
        };
        let is_dmabuf = match event.of {
            OF_FILE => false,
            OF_DMABUF => true,
            _ => return Err(Malformed),
        };
        let object = EventObject {
            key: event.object,
            is_dmabuf,
            magic: event.magic.into(),
            no_folder: has(NO_FOLDER),
            dev: dev(event.dev),
            ino: Inode(event.ino),
            ipc: (event.ipc != 0).then(|| IpcNamespace(Inode(event.ipc.into()))),
            size: event.size,
            memory: event.memory,
            name: word(&event.name),
            name_cut: has(NAME_CUT),
            exporter: word(&event.exporter),
        };
        Ok(RawEvent {
            at: event.at,
            what,
            object,
            by: Actor {
                pid: Pid(event.tgid),
                started: Duration::from_nanos(event.started),
                command: word(&event.comm),
                tid: Tid(event.tid),
                thread: word(&event.thread),
                uid: event.uid,
                cgroup: event.cgroup,
                kernel: event.task_flags & PF_KTHREAD != 0,
                exiting: event.task_flags & PF_EXITING != 0,
            },
            lost: event.lost,
            stacks: if with_stacks { Some(RawStacks::of(bytes, &event)?) } else { None },
        })
    }
}

impl<'r> RawStacks<'r> {
    fn of(bytes: &'r [u8], event: &layout::Event) -> Result<RawStacks<'r>, Malformed> {
        let copied = bytes.get(size_of::<layout::EventStacks>()..).filter(|copied| !copied.is_empty());
        let copied = if copied.is_some() { Some(CopiedStack::of(bytes)?) } else { None };
        let bytes = bytes.get(..size_of::<layout::EventStacks>()).ok_or(Malformed)?;
        let (kernel, user) = (
            std::mem::offset_of!(layout::EventStacks, kernel),
            std::mem::offset_of!(layout::EventStacks, user),
        );
        let cut = |from: usize, to: usize, length: i32| -> Result<&'r [u8], i32> {
            let length = usize::try_from(length).map_err(|_| length)?;
            bytes.get(from..(from + length).min(to)).ok_or(0)
        };
        let in_kernel = cut(kernel, user, event.kernel_bytes).unwrap_or(&[]);
        let (addresses, _) = in_kernel.as_chunks::<8>();
        let user = match cut(user, bytes.len(), event.user_bytes) {
            Ok(frames) => Ok(UserStack::new(frames)),
            Err(error) => Err(Errno::from_raw_os_error(error.saturating_neg())),
        };
        let kernel = addresses.iter().map(|one| u64::from_ne_bytes(*one)).collect();
        Ok(RawStacks { kernel, user, copied })
    }
}

impl<'r> CopiedStack<'r> {
    fn of(record: &'r [u8]) -> Result<CopiedStack<'r>, Malformed> {
        /// The structure without the copy, which would be copied once more.
        macro_rules! field {
            ($name:ident) => {
                record
                    .get(std::mem::offset_of!(layout::EventCopied, $name)..)
                    .and_then(Field::read)
                    .ok_or(Malformed)?
            };
        }
        let words: [u8; REGISTERS * size_of::<u64>()] = field!(registers);
        let mut registers = [0; REGISTERS];
        for (register, word) in registers.iter_mut().zip(words.as_chunks().0) {
            *register = u64::from_ne_bytes(*word);
        }
        let copied: u32 = field!(copied);
        let copy = record.get(std::mem::offset_of!(layout::EventCopied, copy)..).ok_or(Malformed)?;
        Ok(CopiedStack {
            registers,
            start_stack: field!(start_stack),
            start_code: field!(start_code),
            from: field!(copied_from),
            bytes: usize::try_from(copied).ok().and_then(|copied| copy.get(..copied)).ok_or(Malformed)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The fields of a record by their names, in the order in which the programs write them.
    struct Written {
        longs: [u64; 11],
        words: [u32; 18],
        texts: Vec<u8>,
    }

    /// A memfd is made by the process 10.
    fn made() -> Written {
        let longs = [100, 0xfeed, 5, 8192, 1024, 90, 77, 0, 0, 3, 0];
        let words = [layout::EVENT_MADE, 1, 1, 0x0102_1994, 3 << 20 | 7, 0, 10, 11, 12, 0];
        let rest = [u32::MAX, 0, 0, 0, 0, 0, 0, 0];
        let text = |text: &[u8], room: usize| [text, &vec![0; room - text.len()]].concat();
        let texts = [
            text(b"maker", 16),
            text(b"worker", 16),
            text(b"", 16),
            text(b"memfd:x", 128),
            text(b"", 64),
            text(b"gpu0", 64),
        ];
        let words = [&words[..], &rest].concat().try_into().unwrap();
        Written { longs, words, texts: texts.concat() }
    }

    impl Written {
        fn bytes(&self) -> Vec<u8> {
            let longs = self.longs.iter().flat_map(|long| long.to_ne_bytes());
            let words = self.words.iter().flat_map(|word| word.to_ne_bytes());
            let rest: Vec<u8> = longs.chain(words).chain(self.texts.iter().copied()).collect();
            let size = 8 + u32::try_from(rest.len()).unwrap();
            [&layout::EVENT.to_ne_bytes()[..], &size.to_ne_bytes(), &rest].concat()
        }

        /// The same with room for stacks.
        fn with_stacks(&self, kernel: &[u64], user: &[u8]) -> Vec<u8> {
            let mut bytes = self.bytes();
            let mut addresses: Vec<u8> = kernel.iter().flat_map(|one| one.to_ne_bytes()).collect();
            addresses.resize(24 * 8, 0xaa);
            let mut frames = user.to_vec();
            frames.resize(48 * 32, 0xaa);
            bytes.extend([addresses, frames].concat());
            let size = u32::try_from(bytes.len()).unwrap();
            bytes[4..8].copy_from_slice(&size.to_ne_bytes());
            bytes
        }
    }

    /// Check each field of an event.
    #[test]
    fn fields() {
        let bytes = made().bytes();
        let event = RawEvent::of(&bytes).unwrap();
        let by = event.by;
        assert_eq!((event.at, by.started, by.cgroup, event.lost), (100, Duration::from_nanos(90), 77, 3));
        assert_eq!((by.pid, by.tid, by.uid), (Pid(10), Tid(11), 12));
        assert_eq!((by.command, by.thread), ("maker".into(), "worker".into()));
        assert_eq!((by.kernel, by.exiting, event.stacks), (false, false, None));
        let object = event.object;
        assert_eq!((object.key, object.ino, object.dev), (0xfeed, Inode(5), Dev { major: 3, minor: 7 }));
        assert_eq!((object.size, object.memory, object.magic), (8192, 1024, 0x0102_1994));
        assert_eq!((object.is_dmabuf, object.no_folder, object.ipc), (false, true, None));
        assert_eq!((object.name, object.exporter), ("memfd:x".into(), "".into()));
        assert_eq!(event.what, Happening::Made);
    }

    /// Check what each sort of event has besides.
    #[test]
    fn sorts() {
        let of = |change: &dyn Fn(&mut Written)| {
            let mut written = made();
            change(&mut written);
            RawEvent::of(&written.bytes()).map(|event| event.what)
        };
        let received = |way, from| Ok(Happening::Received { fd: Fd(7), way, from });
        let an_fd = |way: u32, from: u32| {
            of(&|event| {
                (event.words[0], event.words[10]) = (layout::EVENT_FD, 7);
                (event.words[16], event.words[17], event.longs[10]) = (way, from, 33);
                event.texts[32..36].copy_from_slice(b"peer");
            })
        };
        let giver = Giver { pid: Pid(9), started: Duration::from_nanos(33), command: "peer".into() };
        assert_eq!(an_fd(0, 0), Ok(Happening::Fd { fd: Fd(7), path_only: false }));
        assert_eq!(an_fd(1, 9), received(Way::Message, Some(giver.clone())));
        assert_eq!(an_fd(1, 0), received(Way::Message, None));
        assert_eq!(an_fd(2, 9), received(Way::Taken, Some(giver)));
        assert_eq!(an_fd(3, 0), received(Way::Other, None));
        assert_eq!(an_fd(4, 0), Err(Malformed));
        let mapped = of(&|event| {
            (event.longs[7], event.longs[8]) = (0x7000, 64);
            (event.words[0], event.words[11], event.words[12]) = (layout::EVENT_MAPPED, 3, 1);
        });
        let expected = TracedMapping {
            start: Some(0x7000),
            length: Bytes(64),
            read: true,
            write: true,
            execute: false,
            shared: true,
        };
        assert_eq!(mapped, Ok(Happening::Mapped(expected)));
        let attached = of(&|event| event.words[0] = layout::EVENT_ATTACHED);
        assert_eq!(attached, Ok(Happening::Attached("gpu0".into())));
        assert_eq!(of(&|event| event.words[0] = 99), Err(Malformed));
        assert_eq!(of(&|event| event.words[1] = 3), Err(Malformed));
    }

    /// Check that stacks are as long as the kernel said, and that an error is told.
    #[test]
    fn stacks() {
        let mut written = made();
        (written.words[13], written.words[14]) = (16, 32);
        let frame = [&1i32.to_ne_bytes()[..], &[9; 20], &64u64.to_ne_bytes()].concat();
        let bytes = written.with_stacks(&[1, 2], &frame);
        let stacks = RawEvent::of(&bytes).unwrap().stacks.unwrap();
        assert_eq!(stacks.kernel, [1, 2]);
        assert_eq!(stacks.user.map(|user| user.frames().count()), Ok(1));
        (written.words[13], written.words[14]) = (u32::MAX, (-14i32).cast_unsigned());
        let bytes = written.with_stacks(&[], &[]);
        let stacks = RawEvent::of(&bytes).unwrap().stacks.unwrap();
        assert_eq!((stacks.kernel.len(), stacks.user), (0, Err(Errno::FAULT)));
    }

    /// Check that a copied stack is as long as the program said, and no longer than the record.
    #[test]
    fn copies() {
        let copied = |length: u32| {
            let mut bytes = made().with_stacks(&[], &[]);
            bytes.extend((1..=34u64).flat_map(u64::to_ne_bytes));
            bytes.extend([0x7fff, 0x40_0000, 0x7000].map(u64::to_ne_bytes).concat());
            bytes.extend([length, 0].map(u32::to_ne_bytes).concat());
            bytes.resize(size_of::<layout::EventCopied>(), 7);
            let size = u32::try_from(bytes.len()).unwrap();
            bytes[4..8].copy_from_slice(&size.to_ne_bytes());
            let event = RawEvent::of(&bytes)?;
            let copied = event.stacks.unwrap().copied.unwrap();
            assert_eq!((copied.registers[0], copied.registers[33]), (1, 34));
            assert_eq!((copied.start_stack, copied.start_code, copied.from), (0x7fff, 0x40_0000, 0x7000));
            Ok(copied.bytes.to_vec())
        };
        assert_eq!(copied(1024), Ok(vec![7; 1024]));
        assert_eq!(copied(32 << 10), Ok(vec![7; 32 << 10]));
        assert_eq!((copied(0), copied((32 << 10) + 1)), (Ok(vec![]), Err(Malformed)));
    }

    proptest! {
        /// Check that no bytes make the parser panic, and that a record of another length is
        /// refused.
        #[test]
        fn any_bytes(
            mut bytes in proptest::collection::vec(any::<u8>(), 8..3000),
            size in prop::sample::select(vec![
                size_of::<layout::Event>(),
                size_of::<layout::EventStacks>(),
                size_of::<layout::EventCopied>(),
            ]),
        ) {
            bytes[..4].copy_from_slice(&layout::EVENT.to_ne_bytes());
            bytes[4..8].copy_from_slice(&u32::try_from(size).unwrap().to_ne_bytes());
            if bytes.len() != size {
                prop_assert_eq!(RawEvent::of(&bytes), Err(Malformed));
            }
            bytes.resize(size, 0);
            if let Ok(event) = RawEvent::of(&bytes)
                && let Some(copied) = event.stacks.and_then(|stacks| stacks.copied)
            {
                prop_assert!(copied.bytes.len() <= 32 << 10);
            }
        }
    }
}
