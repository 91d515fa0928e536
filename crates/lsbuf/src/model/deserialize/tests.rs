//! What is written comes back.

use std::sync::Arc;

use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::model::NameLives;
use crate::model::ledger::tests::{any_snapshot, snapshot};

/// Bytes that are no UTF-8, and some that JSON escapes.
fn hostile() -> Label {
    Label::from(&b"a\xff\"\\\n\x1b"[..])
}

fn written(snapshot: &Snapshot) -> Value {
    serde_json::to_value(Ledger::of(snapshot)).unwrap()
}

fn read(document: &Value) -> Result<Snapshot, String> {
    serde_json::from_value(document.clone()).map_err(|e| e.to_string())
}

/// A snapshot in which every part of a buffer, a process and a device is present.
fn with_every_part() -> Snapshot {
    let dev = Some(Dev { major: 0, minor: 27 });
    let mut buffer =
        Buffer::new(BufferId { kind: Kind::Sysv, dev, ino: Inode(7), ipc: Some(IpcNamespace(Inode(9))) });
    buffer.size = Some(Bytes(1 << 20));
    buffer.charged = Some(Bytes(8192));
    buffer.swapped = Some(Bytes(4096));
    buffer.huge_page = Some(Bytes(2 << 20));
    buffer.deleted = Some(true);
    buffer.seals = Some(Seals(0b101));
    buffer.segment = Some(Box::new(Segment {
        key: 5_432_001,
        owner: 26,
        creator: Some(Pid(11)),
        creator_comm: Some(hostile()),
        last: Some(Pid(12)),
        last_comm: Some("x".into()),
        attached: 0,
        reached: Some(SegmentReach::Path(hostile())),
        removed: false,
        rss: Bytes(4096),
        swap: Bytes(4096),
        changed: 0,
        used: 0,
    }));
    let other = BufferId::new(Kind::DmaBuf, dev, Inode(8));
    buffer.overlaps = Some(vec![Overlap { of: other, bytes: Bytes(4096) }]);
    buffer.name = Some(hostile());
    buffer.exporter = Some("system".into());
    buffer.count = Some(5);
    buffer.exe = Some(1);
    buffer.residual = Residual::Estimate(1, Why::Moved);
    buffer.in_flight = Some(2);
    buffer.io_uring = Some(0);
    buffer.attachments = Some(vec![hostile(), "gpu".into()]);
    buffer.handles = vec![GemHandle { pid: Pid(1), comm: hostile(), handle: 3, imported: true }].into();
    let in_kernel = |what| KernelHolder { what, name: hostile(), pid: Some(Pid(3)), is_proven: true };
    buffer.kernel_holders = KernelHolderKind::ALL.iter().copied().map(in_kernel).collect();
    buffer.private_copies = vec![PrivateCopies::new(Pid(1), Bytes(1), Bytes(2))].into();
    buffer.created_at = Some(std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(99));
    buffer.creator_uid = Some(1000);
    buffer.name_lives = NameLives::Unknown;
    let cgroup = PayingCgroup { path: hostile(), removed: true, unified: true, id: 77 };
    let payers = vec![Payer { cgroup: Arc::new(cgroup), bytes: Bytes(4096) }];
    buffer.payers =
        Some(Box::new(Payers { cgroups: payers, nobody: Bytes(1), swapped: Bytes(2), unknown: Bytes(3) }));
    let of_one = |pid, inherited_from| OpenFileHolder { pid, fds: vec![Fd(3), Fd(4)].into(), inherited_from };
    let holders = vec![of_one(Pid(1), None), of_one(Pid(2), Some(Pid(1)))];
    buffer.open_files = Some(Box::new(OpenFiles { files: vec![OpenFile { holders }] }));
    let build_id = BuildId([7; 20]);
    let function = Function { name: hostile(), file: Some(hostile()), line: Some(12), inlined: true };
    let frame = UserFrame {
        place: CodePlace::File { build_id, offset: 99 },
        module: Some(hostile()),
        functions: vec![function, Function::new("main".into())],
    };
    let stack = Stack {
        kernel: vec![KernelFrame { function: hostile(), module: Some("udmabuf".into()) }],
        user: vec![frame, UserFrame::new(CodePlace::Address(0x7f00_0000_0000))],
        user_end: StackEnd::Truncated,
        unwind: Unwind::Dwarf,
    };
    buffer.origin = Some(Box::new(Origin::Made(Box::new(Birth {
        after_boot: std::time::Duration::from_nanos(5_000_000_001),
        at: std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(98),
        pid: Pid(8),
        started: std::time::Duration::from_nanos(4_000_000_000),
        command: hostile(),
        tid: Tid(9),
        thread: "worker".into(),
        uid: 1000,
        cgroup: 77,
        stack: Some(Arc::new(stack)),
        client: Client::Received(Receipt {
            after_boot: std::time::Duration::from_nanos(6_000_000_001),
            at: std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(99),
            pid: Pid(9),
            started: std::time::Duration::from_nanos(4_500_000_000),
            command: hostile(),
            uid: 1001,
            cgroup: 78,
        }),
    }))));
    let map = |perms| MapRef { start: 0x7f00_0000_0000, end: 0x7f00_0010_0000, offset: Some(4096), perms };
    let thread =
        ThreadFds { tid: Tid(13), fds: vec![Fd(1)].into(), opaths: vec![Fd(2)].into(), fd_table_of: None };
    buffer.holders = vec![Holder {
        fds: vec![Fd(3), Fd(4)].into(),
        opaths: vec![Fd(5)].into(),
        maps: vec![map(Perms::parse(b"rw-p")), map(None)].into(),
        runs: true,
        threads: vec![thread].into(),
        fd_table_of: None,
        address_space_of: Some(Pid(4)),
        ..Holder::new(Pid(12))
    }];
    let mut snapshot = snapshot(vec![buffer], Gaps::default());
    snapshot.kinds = [Kind::DmaBuf, Kind::Sysv].into_iter().collect();
    snapshot.host.boot_id = Some("b".into());
    snapshot.coverage.hidden_refs = Some(HiddenRefs { in_flight: 4, io_uring: 5, unknown: false });
    let process = &mut snapshot.processes[0];
    process.comm = hostile();
    process.cgroup = Some("/system.slice".into());
    process.sync_files = Some(6);
    let pod = Pod {
        uid: "u".into(),
        name: Some(PodName::new("space".into(), "pod".into())),
        container: Some("web".into()),
    };
    process.details = Some(Box::new(ProcessDetails {
        args: Some(Args { words: vec![hostile(), "b".into()], is_whole: true }),
        exe: Some(hostile()),
        user: Some("nobody".into()),
        fd_limit: Some(1024),
        rss_shmem: Some(Bytes(4096)),
        parent: Some(Pid(1)),
        workload: Some(Workload {
            unit: Some("a.service".into()),
            container: Some("c".into()),
            pod: Some(pod),
        }),
    }));
    let holder = DeviceHolder { pid: Pid(12), comm: Some(hostile()), fds: vec![Fd(9)] };
    snapshot.devices = vec![Device {
        path: "/dev/video0".into(),
        name: Some("camera".into()),
        class: DeviceClass::Video,
        holders: vec![holder],
    }];
    snapshot
}

/// Check that every part of a document is read back as it was.
#[test]
fn every_part_comes_back() {
    let before = with_every_part();
    let after = read(&written(&before)).unwrap();
    assert_eq!(after.buffers, before.buffers);
    assert_eq!(after.processes, before.processes);
    assert_eq!(after.devices, before.devices);
    assert_eq!(after.kinds, before.kinds);
    assert_eq!(after.host, before.host);
    assert_eq!(after.coverage, before.coverage);
}

proptest! {
    /// Check that a snapshot which was read from its document is written as the same document, with
    /// all figures that follow from it.
    #[test]
    fn documents_come_back(before in any_snapshot()) {
        let document = written(&before);
        let after = read(&document).map_err(TestCaseError::fail)?;
        prop_assert_eq!(written(&after), document);
    }
}

/// Check that notes keep their text, and that the answer stays a partial one.
#[test]
fn notes_come_back() {
    let mut before = with_every_part();
    before.coverage.notes = vec![Note::NotWholeMachine];
    before.coverage.gaps.not_whole_machine = true;
    let after = read(&written(&before)).unwrap();
    assert_eq!(after.coverage.notes[0].to_string(), Note::NotWholeMachine.to_string());
    assert!(!after.coverage.is_complete() && !after.coverage.saw_every_process());
}

/// Check that an origin of an older release is read, which did not look for clients.
#[test]
fn origins_without_clients() {
    let mut document = written(&with_every_part());
    document["buffers"][0]["origin"].as_object_mut().unwrap().remove("client");
    let read = read(&document).unwrap();
    let birth = read.buffers[0].origin.as_deref().and_then(Origin::birth).unwrap();
    assert_eq!(birth.client, Client::Unknown(NoClient::NotWatched));
}

/// Check that a document of an older release is read, which lacks two keys.
#[test]
fn older_documents() {
    let mut document = written(&with_every_part());
    document.as_object_mut().unwrap().remove("looked_for");
    document["scan"].as_object_mut().unwrap().remove("saw_every_process");
    let read = read(&document).unwrap();
    assert!(read.kinds == Kinds::ALL && read.coverage.saw_every_process());
}

/// Check that what no release writes is refused, with what is wrong with it.
#[test]
fn nonsense_is_refused() {
    let with = |key: &str, value: Value| {
        let mut document = written(&with_every_part());
        *document.pointer_mut(key).unwrap() = value;
        read(&document).unwrap_err()
    };
    assert_eq!(with("/schema", "x/1".into()), r#"the schema is "x/1"; valid: "lsbuf.snapshot/1""#);
    assert_eq!(with("/buffers/0/kind", "cat".into()), r#"unknown kind "cat""#);
    assert_eq!(with("/buffers/0/dev", "0:x".into()), r#"unknown device number "0:x""#);
    assert_eq!(with("/buffers/0/name_bytes", r"\x".into()), r#""\\x" is not escaped as \xNN"#);
    assert_eq!(with("/buffers/0/holders/0/maps/0/start", "12".into()), r#""12" is no address"#);
    assert!(with("/buffers/0/holders/0/maps/0/end", "0x1".into()).starts_with("a mapping ends at 0x1"));
    assert_eq!(with("/taken_at", "noon".into()), r#""noon" is no time"#);
}
