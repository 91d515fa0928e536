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
use crate::kernel::bpf::origins::{self, ClientRecord, OriginOf, OriginRecord, OriginRow};
use crate::kernel::bpf::pins::{PinSet, Pins};
use crate::kernel::root::ProcRoot;
use crate::model::{
    Birth, Buffer, BufferId, Client, Detail, Details, Kind, NoClient, NoOrigin, Origin, Pid, Receipt, Stack,
};
use crate::stacks::{self, Nameless, StackNames};

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
        if !self.root.has_first_pids() {
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
            (OriginRow::Birth(record), _) => {
                let stack = stacks::without_frames(record.kernel, record.user_bytes);
                found.push((record, stack));
            }
            (OriginRow::User(stack), Some((_, last))) => last.user = stacks::user_frames(&stack),
            (OriginRow::Kernel(lines), Some((_, last))) => last.kernel = stacks::kernel_frames(lines),
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
        // With the buffers that each has made.
        let mut wanted: BTreeMap<(Pid, u64, *const Stack), (Nameless, Vec<_>)> = BTreeMap::new();
        for buffer in buffers {
            let Some(birth) = key(&buffer.id).and_then(|key| births.get(&key)) else { continue };
            let of = (birth.of, birth.born);
            let Some(kept) = self.stacks.get(&of).filter(|kept| !kept.is_named) else { continue };
            let nameless = wanted.entry((birth.pid, birth.started, Arc::as_ptr(&kept.stack)));
            let (nameless, made) = nameless.or_insert_with(|| {
                let maker = (birth.pid, Duration::from_nanos(birth.started));
                (Nameless { stack: Stack::clone(&kept.stack), maker, others: Vec::new() }, Vec::new())
            });
            made.push(of);
            nameless.others.extend(buffer.holders.iter().map(|holder| holder.pid));
        }
        if wanted.is_empty() {
            return;
        }
        let (mut wanted, made): (Vec<Nameless>, Vec<Vec<_>>) = wanted.into_values().unzip();
        self.names.find(&mut wanted);
        for (Nameless { mut stack, .. }, made) in wanted.into_iter().zip(made) {
            stack.judge_end();
            let stack = Arc::new(stack);
            for of in made {
                self.stacks.insert(of, KeptStack { stack: Arc::clone(&stack), is_named: true });
            }
        }
    }
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
        assert!(!root.has_first_pids());
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
}
