//! Joins buffers with what the flight recorder knows of their births.
//!
//! A record has the maker's pid in the first pid namespace, where it may have exited. That pid is
//! another process in any other namespace, so there nothing is told.
//!
//! Limits: a buffer without a record is older than the recorder, or its birth was lost. It counts
//! as older only if nothing was lost, or if its own times say so.

use std::cell::LazyCell;
use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::kernel::bpf::Unavailable;
use crate::kernel::bpf::hooks::{About, Hook, View};
use crate::kernel::bpf::origins::{
    self, ClientRecord, OriginOf, OriginRecord, OriginRow, RawFrame, UserStack,
};
use crate::kernel::bpf::pins::{PinSet, Pins};
use crate::kernel::rights::Rights;
use crate::kernel::root::ProcRoot;
#[cfg(feature = "symbols")]
use crate::kernel::symbols::{Request, Symbolizer};
use crate::model::{
    Birth, Buffer, BufferId, BuildId, Client, CodePlace, Detail, Details, KernelFrame, Kind, Label, NoClient,
    NoOrigin, Origin, Pid, Receipt, Stack, StackEnd, UserFrame,
};

/// Asks the flight recorder. Keeps the stacks that it has read, so that a scanner which scans again
/// and again reads each once.
#[derive(Debug)]
pub(super) struct OriginReader {
    root: Arc<ProcRoot>,
    /// By what was made and when.
    stacks: HashMap<(OriginOf, u64), KeptStack>,
    names: StackNames,
}

/// A stack, and whether its names were looked for.
#[derive(Clone, Debug)]
struct KeptStack {
    stack: Arc<Stack>,
    is_named: bool,
}

impl OriginReader {
    /// For the processes of this procfs.
    pub(super) fn new(root: &Arc<ProcRoot>, deadline: Duration) -> OriginReader {
        OriginReader {
            root: Arc::clone(root),
            stacks: HashMap::new(),
            names: StackNames::new(root, deadline),
        }
    }

    /// Whether the procfs is that of this machine's first pid namespace. Kernel threads are listed
    /// only there, but hidepid may hide them.
    fn has_first_pids(&self) -> bool {
        let is_first = || self.root.has_own_pids() && Rights::own().first_pid_namespace;
        self.root.is_live() && (self.root.shows_kernel_threads() || is_first())
    }

    /// Says of each buffer who made it, by the recorder that is pinned below a folder, with the
    /// stacks if they are `wanted`. `Ok(false)`: no recorder is installed.
    pub(super) fn add<'b>(
        &mut self,
        below: &Path,
        wanted: Details,
        buffers: impl Iterator<Item = &'b mut Buffer>,
    ) -> Result<bool, Unavailable> {
        let pins = match Pins::open(below, PinSet::Origins) {
            Ok(pins) => pins,
            Err(Unavailable::NotPinned) => return Ok(false),
            Err(why) => return Err(why),
        };
        if !self.has_first_pids() {
            return Err(Unavailable::OtherPids);
        }
        let mut births = HashMap::new();
        let counts = origins::read(&pins, View::Origins, |row| {
            if let OriginRow::Birth(record) = row {
                births.insert(record.of, record);
            }
        })?;
        let mut buffers: Vec<&mut Buffer> = buffers.collect();
        let with_stacks = wanted.has(Detail::Stacks);
        if with_stacks {
            let found = buffers.iter().filter_map(|buffer| births.get(&key(&buffer.id)?));
            if found.into_iter().any(|birth| !self.stacks.contains_key(&(birth.of, birth.born))) {
                self.read_stacks(&pins)?;
            }
            self.name_stacks(&births, &buffers);
        }
        // Asked only if a buffer has no record.
        let lost = LazyCell::new(|| counts.lost(&pins));
        // Asked only if a buffer has a client.
        let skipped = LazyCell::new(|| origins::skipped_receipts(&pins));
        for buffer in &mut buffers {
            let birth = key(&buffer.id).and_then(|key| births.get(&key));
            buffer.origin = Some(Box::new(match birth {
                Some(record) => {
                    let kept = self.stacks.get(&(record.of, record.born)).filter(|_| with_stacks);
                    let stack = kept.map(|kept| Arc::clone(&kept.stack));
                    let client = client_of(record.client, &counts.about, || *skipped);
                    Origin::Made(Box::new(birth_of(record, &counts.about, stack, client)))
                }
                None => without_record(buffer, &counts.about, || *lost),
            }));
        }
        Ok(true)
    }

    /// Reads the stacks of all that lives. Equal ones are kept once.
    fn read_stacks(&mut self, pins: &Pins) -> Result<(), Unavailable> {
        let mut found: Vec<(OriginRecord, Stack)> = Vec::new();
        origins::read(pins, View::Stacks, |row| match (row, found.last_mut()) {
            (OriginRow::Birth(record), _) => found.push((record, without_frames(&record))),
            (OriginRow::User(stack), Some((_, last))) => last.user = user_frames(&stack),
            (OriginRow::Kernel(lines), Some((_, last))) => last.kernel = kernel_frames(lines),
            (OriginRow::User(_) | OriginRow::Kernel(_), None) | (OriginRow::Counts(_), _) => {}
        })?;
        let mut shared: HashMap<Stack, Arc<Stack>> = HashMap::new();
        let mut stacks = HashMap::new();
        for (record, stack) in found {
            let of = (record.of, record.born);
            let kept = self.stacks.remove(&of).unwrap_or_else(|| {
                let stack = shared.entry(stack).or_insert_with_key(|stack| Arc::new(stack.clone()));
                KeptStack { stack: Arc::clone(stack), is_named: false }
            });
            stacks.insert(of, kept);
        }
        self.stacks = stacks;
        Ok(())
    }

    /// Looks for the names of the calls that made these buffers. Equal stacks of one maker are
    /// looked up once.
    fn name_stacks(&mut self, births: &HashMap<OriginOf, OriginRecord>, buffers: &[&mut Buffer]) {
        let mut wanted: BTreeMap<(Pid, u64, *const Stack), Nameless> = BTreeMap::new();
        for buffer in buffers {
            let Some(birth) = key(&buffer.id).and_then(|key| births.get(&key)) else { continue };
            let of = (birth.of, birth.born);
            let Some(kept) = self.stacks.get(&of).filter(|kept| !kept.is_named) else { continue };
            let nameless = wanted.entry((birth.pid, birth.started, Arc::as_ptr(&kept.stack)));
            let nameless = nameless.or_insert_with(|| Nameless {
                stack: Stack::clone(&kept.stack),
                maker: (birth.pid, Duration::from_nanos(birth.started)),
                holders: Vec::new(),
                of: Vec::new(),
            });
            nameless.of.push(of);
            nameless.holders.extend(buffer.holders.iter().map(|holder| holder.pid));
        }
        if wanted.is_empty() {
            return;
        }
        let mut wanted: Vec<Nameless> = wanted.into_values().collect();
        self.names.find(&mut wanted);
        for Nameless { mut stack, of, .. } in wanted {
            stack.judge_end();
            let stack = Arc::new(stack);
            for of in of {
                self.stacks.insert(of, KeptStack { stack: Arc::clone(&stack), is_named: true });
            }
        }
    }
}

/// A stack without names.
#[cfg_attr(not(feature = "symbols"), allow(dead_code, reason = "without it no names are looked for"))]
struct Nameless {
    stack: Stack,
    /// Who made it, and when that process was started.
    maker: (Pid, Duration),
    /// Who has one of the buffers.
    holders: Vec<Pid>,
    /// The buffers that were made by it.
    of: Vec<(OriginOf, u64)>,
}

/// Where the names of calls are kept for the time when their process has exited.
#[cfg(feature = "symbols")]
const NAMES: &str = "/run/lsbuf-names";

/// Finds the names of calls.
#[cfg(feature = "symbols")]
#[derive(Debug)]
struct StackNames(Symbolizer);

#[cfg(feature = "symbols")]
impl StackNames {
    fn new(root: &Arc<ProcRoot>, deadline: Duration) -> StackNames {
        StackNames(Symbolizer::new(Arc::clone(root), deadline, Some(Path::new(NAMES))))
    }

    fn find(&mut self, wanted: &mut [Nameless]) {
        let mut requests: Vec<Request<'_>> = wanted
            .iter_mut()
            .map(|Nameless { stack, maker, holders, .. }| Request { stack, maker: *maker, others: holders })
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
struct StackNames;

#[cfg(not(feature = "symbols"))]
impl StackNames {
    fn new(_: &Arc<ProcRoot>, _: Duration) -> StackNames {
        StackNames
    }

    fn find(&mut self, _: &mut [Nameless]) {}
}

/// What is known of a buffer that has no record. It is older than the recorder if its inode is, or
/// if no record was lost. Its inode may say a later time, because that of some kinds is set anew by
/// writing.
fn without_record(buffer: &Buffer, about: &About, lost: impl Fn() -> Option<u64>) -> Origin {
    let watched = Hook::of_births(buffer.id.kind, buffer.huge_page.is_some());
    if watched.is_none_or(|hook| about.watched & hook.bit() == 0) {
        return Origin::Unknown(NoOrigin::NotWatched);
    }
    let since = SystemTime::UNIX_EPOCH + Duration::from_nanos(about.since_wall);
    let is_older = buffer.created_at.is_some_and(|at| at < since);
    // Without its namespace the record of a segment could not be looked up.
    let could_be_found = key(&buffer.id).is_some();
    if is_older || could_be_found && lost() == Some(0) {
        return Origin::Before;
    }
    Origin::Unknown(NoOrigin::Lost)
}

/// Nanoseconds after boot by the wall clock, as that was when the recorder was installed.
fn wall_time(boot: u64, about: &About) -> SystemTime {
    let after = Duration::from_nanos(boot.saturating_sub(about.since));
    SystemTime::UNIX_EPOCH + Duration::from_nanos(about.since_wall) + after
}

/// Who received a buffer first from its maker. If the recorder has missed a receipt, the one that
/// it saw may not be the first. A member of a group cannot ask for that (`None`).
fn client_of(record: ClientRecord, about: &About, skipped: impl Fn() -> Option<u64>) -> Client {
    if !Hook::can_know_clients(about.watched) {
        return Client::Unknown(NoClient::NotWatched);
    }
    match record {
        ClientRecord::NotSeen => Client::NotSeen,
        ClientRecord::Unclear => Client::Unknown(NoClient::Unclear),
        ClientRecord::Lost => Client::Unknown(NoClient::Lost),
        ClientRecord::Received { .. } if skipped().is_some_and(|skipped| skipped > 0) => {
            Client::Unknown(NoClient::Lost)
        }
        ClientRecord::Received { at, started, cgroup, pid, uid, comm } => Client::Received(Receipt {
            after_boot: Duration::from_nanos(at),
            at: wall_time(at, about),
            pid,
            started: Duration::from_nanos(started),
            command: origins::name(&comm),
            uid,
            cgroup,
        }),
    }
}

fn birth_of(record: &OriginRecord, about: &About, stack: Option<Arc<Stack>>, client: Client) -> Birth {
    Birth {
        after_boot: Duration::from_nanos(record.born),
        at: wall_time(record.born, about),
        pid: record.pid,
        started: Duration::from_nanos(record.started),
        command: origins::name(&record.comm),
        tid: record.tid,
        thread: origins::name(&record.thread),
        uid: record.uid,
        cgroup: record.cgroup,
        stack,
        client,
    }
}

/// By what the recorder knows a buffer.
fn key(id: &BufferId) -> Option<OriginOf> {
    match (id.kind, id.dev) {
        (Kind::DmaBuf, _) => Some(OriginOf::DmaBuf(id.ino)),
        (Kind::Sysv, _) => Some(OriginOf::Segment(id.ipc?, id.ino)),
        (_, Some(dev)) => Some(OriginOf::File(dev, id.ino)),
        (_, None) => None,
    }
}

/// The stack of a birth of which no frame is known yet.
fn without_frames(record: &OriginRecord) -> Stack {
    let user_end = match record.user_bytes {
        _ if record.kernel => StackEnd::Kernel,
        Err(_) | Ok(0) => StackEnd::Unreadable,
        Ok(_) => StackEnd::Truncated,
    };
    Stack { kernel: Vec::new(), user: Vec::new(), user_end }
}

/// The calls in a program. A chain of frame pointers that leaves the stack ends in data: after the
/// last place in a file, addresses are none of code.
fn user_frames(stack: &UserStack<'_>) -> Vec<UserFrame> {
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
fn kernel_frames(lines: &[u8]) -> Vec<KernelFrame> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Bytes, Dev, Inode, IpcNamespace};

    fn about(watched: u32) -> About {
        About { since: 7_000_000_000, since_wall: 100_000_000_000, most: 64, watched }
    }

    fn at(seconds: u64) -> Option<SystemTime> {
        Some(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))
    }

    fn memfd(created_at: Option<SystemTime>) -> Buffer {
        let id = BufferId::new(Kind::Memfd, Some(Dev { major: 0, minor: 1 }), Inode(5));
        Buffer { created_at, ..Buffer::new(id) }
    }

    /// Check that without a record a buffer is older only if its inode is, or if no record was
    /// lost.
    #[test]
    fn older_or_lost() {
        let all = Hook::ALL.iter().fold(0, |set, hook| set | hook.bit());
        let lost = Origin::Unknown(NoOrigin::Lost);
        for (created_at, how_many, expected) in [
            (at(99), Some(3), Origin::Before),
            (at(99), None, Origin::Before),
            (at(101), Some(0), Origin::Before),
            (at(101), Some(1), lost.clone()),
            (at(101), None, lost.clone()),
            (None, Some(0), Origin::Before),
            (None, None, lost.clone()),
        ] {
            let found = without_record(&memfd(created_at), &about(all), || how_many);
            assert_eq!(found, expected, "{created_at:?} {how_many:?}");
        }
        let segment = Buffer::new(BufferId::new(Kind::Sysv, None, Inode(5)));
        assert_eq!(without_record(&segment, &about(all), || Some(0)), lost);
    }

    /// Check that what no running program sees is not called older.
    #[test]
    fn not_watched() {
        let expected = Origin::Unknown(NoOrigin::NotWatched);
        let of = |buffer: &Buffer, hooks: &[Hook]| {
            let set = hooks.iter().fold(0, |set, hook| set | hook.bit());
            without_record(buffer, &about(set), || Some(0))
        };
        assert_eq!(of(&memfd(at(1)), &[Hook::DmabufBorn, Hook::HugeBorn]), expected);
        assert_eq!(of(&memfd(at(1)), &[Hook::ShmemBorn]), Origin::Before);
        let huge = Buffer { huge_page: Some(Bytes(2 << 20)), ..memfd(at(1)) };
        assert_eq!(of(&huge, &[Hook::ShmemBorn]), expected);
        let secret = Buffer::new(BufferId::new(Kind::Secretmem, None, Inode(5)));
        assert_eq!(of(&secret, &Hook::ALL), expected);
    }

    /// Check that a recorded procfs is not joined with what the recorder of this machine knows.
    #[test]
    fn not_of_a_recording() {
        let folder = tempfile::tempdir().unwrap();
        let kernel_thread = format!("2 (kthreadd) S 0 0 0 0 -1 2129984{}\n", " 0".repeat(42));
        for (path, text) in [("sys/kernel/osrelease", "6.1.0\n"), ("2/stat", &kernel_thread)] {
            let path = folder.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let root = Arc::new(ProcRoot::open(folder.path()).unwrap());
        assert!(root.shows_kernel_threads());
        assert!(!OriginReader::new(&root, Duration::from_secs(1)).has_first_pids());
    }

    /// Check that a segment is looked up by its namespace, and a file by its device.
    #[test]
    fn keys() {
        let ipc = IpcNamespace(Inode(9));
        let segment = BufferId { ipc: Some(ipc), ..BufferId::new(Kind::Sysv, None, Inode(5)) };
        assert_eq!(key(&segment), Some(OriginOf::Segment(ipc, Inode(5))));
        assert_eq!(key(&BufferId::new(Kind::DmaBuf, None, Inode(5))), Some(OriginOf::DmaBuf(Inode(5))));
        assert_eq!(key(&BufferId::new(Kind::Tmpfs, None, Inode(5))), None);
    }

    /// Check that the time of a birth follows from the recorder's own times.
    #[test]
    fn time_of_birth() {
        let record = OriginRecord {
            of: OriginOf::DmaBuf(Inode(5)),
            born: 9_000_000_000,
            started: 1,
            cgroup: 2,
            pid: crate::model::Pid(3),
            tid: crate::model::Tid(4),
            uid: 5,
            kernel: false,
            user_bytes: Ok(32),
            comm: *b"maker\0\0\0\0\0\0\0\0\0\0\0",
            thread: *b"worker\0\0\0\0\0\0\0\0\0\0",
            client: ClientRecord::NotSeen,
        };
        let birth = birth_of(&record, &about(0), None, Client::NotSeen);
        assert_eq!((birth.after_boot, Some(birth.at)), (Duration::from_secs(9), at(102)));
        assert_eq!((birth.command, birth.thread), ("maker".into(), "worker".into()));
    }

    /// Check that a client is named only if the programs that see receipts run, and if it is not
    /// known that a receipt was missed.
    #[test]
    fn clients() {
        let all = Hook::ALL.iter().fold(0, |set, hook| set | hook.bit());
        let received = ClientRecord::Received {
            at: 9_000_000_000,
            started: 1,
            cgroup: 2,
            pid: Pid(3),
            uid: 4,
            comm: *b"client\0\0\0\0\0\0\0\0\0\0",
        };
        let of = |client, watched, skipped: Option<u64>| client_of(client, &about(watched), || skipped);
        let named = Client::Received(Receipt {
            after_boot: Duration::from_secs(9),
            at: SystemTime::UNIX_EPOCH + Duration::from_secs(102),
            pid: Pid(3),
            started: Duration::from_nanos(1),
            command: "client".into(),
            uid: 4,
            cgroup: 2,
        });
        let without = |hook: Hook| all & !hook.bit();
        for (client, watched, skipped, expected) in [
            (received, all, Some(0), named.clone()),
            (received, all, None, named.clone()),
            (received, without(Hook::FileTaken), Some(0), named.clone()),
            (received, without(Hook::ListQueued), Some(0), named),
            (received, all, Some(1), Client::Unknown(NoClient::Lost)),
            (received, without(Hook::ListCopied), Some(0), Client::Unknown(NoClient::NotWatched)),
            (ClientRecord::NotSeen, without(Hook::FileOffered), None, Client::Unknown(NoClient::NotWatched)),
            (ClientRecord::NotSeen, all, Some(1), Client::NotSeen),
            (ClientRecord::Unclear, all, Some(0), Client::Unknown(NoClient::Unclear)),
            (ClientRecord::Lost, all, Some(0), Client::Unknown(NoClient::Lost)),
        ] {
            assert_eq!(of(client, watched, skipped), expected, "{client:?} {watched:#x} {skipped:?}");
        }
    }

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
