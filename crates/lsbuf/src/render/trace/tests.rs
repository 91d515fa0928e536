//! What a trace prints of each sort of item.

use std::io;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use serde_json::Value;

use super::*;
use crate::model::{
    Actor, Bytes, Dev, Fd, Giver, Inode, IpcNamespace, Kind, Stack, StackEnd, Tid, TraceKey, TracedBuffer,
};
use crate::trace::{Balance, Losses};

/// A name that ends the line and paints what follows; and one that is not UTF-8.
const HOSTILE: &[u8] = b"a\n\x1b[31m";
const NOT_TEXT: &[u8] = b"\xff";

fn event(what: Happening) -> Event {
    Event {
        after_boot: Duration::new(7, 5),
        at: UNIX_EPOCH + Duration::from_micros(1),
        what,
        buffer: TracedBuffer {
            key: TraceKey(0xab),
            kind: Some(Kind::Memfd),
            dev: Some(Dev { major: 0, minor: 1 }),
            ino: Some(Inode(12)),
            ipc: None,
            size: Bytes(8192),
            memory: Bytes(0),
            name: Some(HOSTILE.into()),
            name_cut: false,
            exporter: None,
        },
        by: Actor {
            pid: Pid(30),
            started: Duration::from_secs(2),
            command: HOSTILE.into(),
            tid: Tid(31),
            thread: NOT_TEXT.into(),
            uid: 0,
            cgroup: 5,
            kernel: false,
            exiting: false,
        },
        stack: None,
    }
}

/// One of each sort, with what is known and what is not.
fn events() -> Vec<Event> {
    let giver = Giver { pid: Pid(29), started: Duration::from_secs(1), command: NOT_TEXT.into() };
    let mapping = TracedMapping {
        start: Some(0x7000),
        length: Bytes(1 << 20),
        read: true,
        write: false,
        execute: true,
        shared: true,
    };
    let stack = Stack { user_end: StackEnd::Truncated, ..Stack::default() };
    let mut events: Vec<Event> = [
        Happening::Made,
        Happening::Fd { fd: Fd(3), path_only: false },
        Happening::Fd { fd: Fd(3), path_only: true },
        Happening::Received { fd: Fd(4), way: Way::Message, from: Some(giver) },
        Happening::Received { fd: Fd(4), way: Way::Taken, from: None },
        Happening::Received { fd: Fd(4), way: Way::Other, from: None },
        Happening::Mapped(mapping),
        Happening::Mapped(TracedMapping { start: None, ..mapping }),
        Happening::Attached(HOSTILE.into()),
        Happening::Detached(NOT_TEXT.into()),
        Happening::Renamed,
        Happening::Freed,
    ]
    .into_iter()
    .map(event)
    .collect();
    events[0].stack = Some(Arc::new(stack));
    events[1].buffer.ipc = Some(IpcNamespace(Inode(9)));
    events[2].buffer.name_cut = true;
    events[3].buffer.exporter = Some(NOT_TEXT.into());
    (events[4].by.kernel, events[4].by.exiting) = (true, true);
    let unknown = &mut events[11].buffer;
    (unknown.kind, unknown.dev, unknown.ino, unknown.name) = (None, None, None, None);
    events
}

fn text(write: impl FnOnce(&mut dyn io::Write) -> io::Result<()>) -> String {
    let mut out = Vec::new();
    write(&mut out).unwrap();
    String::from_utf8(out).unwrap()
}

/// Each object that a trace can write, on a line of its own.
fn objects() -> String {
    let mut counts = TraceCounts::default();
    let mut balance = Balance::default();
    for event in &events() {
        counts.add(event);
        balance.add(event);
    }
    let losses = Losses::default();
    text(|out| {
        trace_begin_json(out, &[("mappings", "this kernel has no such function".to_owned())])?;
        for event in events() {
            trace_item_json(out, &Item::Event(Box::new(event)))?;
        }
        for cause in LossCause::ALL {
            trace_item_json(out, &Item::Lost(cause, 2))?;
        }
        trace_counts_json(out, &counts)?;
        trace_balance_json(out, &balance.rows())?;
        trace_end_json(out, 12, &losses)
    })
}

/// Check that each object is what the published schema promises, and that the schema takes nothing
/// that has another key, or lacks one.
#[test]
fn objects_keep_their_schema() {
    let schema: Value =
        serde_json::from_str(include_str!("../../../../../docs/lsbuf.trace-1.schema.json")).unwrap();
    let schema = jsonschema::validator_for(&schema).unwrap();
    for line in objects().lines() {
        let object: Value = serde_json::from_str(line).unwrap();
        let errors: Vec<String> = schema.iter_errors(&object).map(|error| error.to_string()).collect();
        assert!(errors.is_empty(), "{line}: {errors:?}");
        let mut with_another = object.clone();
        with_another["other"] = Value::Null;
        assert!(!schema.is_valid(&with_another), "{line}");
        let mut lacking = object;
        lacking.as_object_mut().unwrap().remove("event");
        assert!(!schema.is_valid(&lacking), "{line}");
    }
}

/// Check that each item is one line of a table without a control character, whatever names say.
#[test]
fn items_are_lines() {
    let losses = LossCause::ALL.map(|cause| Item::Lost(cause, 2));
    for item in events().into_iter().map(|event| Item::Event(Box::new(event))).chain(losses) {
        let line = text(|out| trace_item(out, &item, Sizes::Human, false));
        let (line, end) = line.split_at(line.len() - 1);
        assert_eq!(end, "\n");
        assert!(!line.chars().any(char::is_control), "{line:?}");
    }
}

/// Check what the last column says.
#[test]
fn what_happened() {
    let said: Vec<String> = events().iter().map(|event| what(event, Sizes::Bytes)).collect();
    let expected = [
        "",
        "fd 3",
        "fd 3 (O_PATH)",
        r"fd 4 from \xff:29",
        "fd 4 taken from ?",
        "fd 4 from ? (neither a message nor taken)",
        "1048576 r-xs",
        "1048576 r-xs",
        r"to a\x0a\x1b[31m",
        r"from \xff",
        "",
        "",
    ];
    assert_eq!(said, expected);
}
