//! Who made a buffer, in the words of the JSON schema.

use serde::Serialize;

use super::{Lost, Time, lost_bytes, timestamp};
use crate::model::{
    Birth, Client, CodePlace, Function, KernelFrame, Label, Origin, Pid, Receipt, Stack, Tid, Unwind,
    UserFrame,
};

#[derive(Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub(super) enum JsonOrigin<'a> {
    Before,
    Unknown { why: &'static str },
    Made(Box<JsonBirth<'a>>),
}

#[derive(Serialize)]
pub(super) struct JsonBirth<'a> {
    after_boot_ns: u64,
    at: Option<Time>,
    pid: Pid,
    started_ns: u64,
    command: &'a Label,
    #[serde(skip_serializing_if = "Option::is_none")]
    command_bytes: Lost,
    tid: Tid,
    thread: &'a Label,
    #[serde(skip_serializing_if = "Option::is_none")]
    thread_bytes: Lost,
    uid: u32,
    cgroup_id: u64,
    stack: Option<&'a Stack>,
    client: JsonClient<'a>,
}

#[derive(Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
enum JsonClient<'a> {
    NotSeen,
    Unknown { why: &'static str },
    Received(JsonReceipt<'a>),
}

#[derive(Serialize)]
struct JsonReceipt<'a> {
    after_boot_ns: u64,
    at: Option<Time>,
    pid: Pid,
    started_ns: u64,
    command: &'a Label,
    #[serde(skip_serializing_if = "Option::is_none")]
    command_bytes: Lost,
    uid: u32,
    cgroup_id: u64,
}

/// Nanoseconds of a time after boot. More than 584 years do not fit.
pub(crate) fn nanos(time: std::time::Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

impl JsonOrigin<'_> {
    pub(super) fn of(origin: &Origin) -> JsonOrigin<'_> {
        match origin {
            Origin::Before => JsonOrigin::Before,
            Origin::Unknown(why) => JsonOrigin::Unknown { why: why.word() },
            Origin::Made(birth) => JsonOrigin::Made(Box::new(JsonBirth::of(birth))),
        }
    }
}

impl JsonBirth<'_> {
    fn of(birth: &Birth) -> JsonBirth<'_> {
        let Birth { after_boot, at, pid, started, command, tid, thread, uid, cgroup, stack, client } = birth;
        JsonBirth {
            after_boot_ns: nanos(*after_boot),
            at: timestamp(*at),
            pid: *pid,
            started_ns: nanos(*started),
            command,
            command_bytes: lost_bytes(Some(command)),
            tid: *tid,
            thread,
            thread_bytes: lost_bytes(Some(thread)),
            uid: *uid,
            cgroup_id: *cgroup,
            stack: stack.as_deref(),
            client: JsonClient::of(client),
        }
    }
}

impl JsonClient<'_> {
    fn of(client: &Client) -> JsonClient<'_> {
        match client {
            Client::NotSeen => JsonClient::NotSeen,
            Client::Unknown(why) => JsonClient::Unknown { why: why.word() },
            Client::Received(receipt) => JsonClient::Received(JsonReceipt::of(receipt)),
        }
    }
}

impl JsonReceipt<'_> {
    fn of(receipt: &Receipt) -> JsonReceipt<'_> {
        let Receipt { after_boot, at, pid, started, command, uid, cgroup } = receipt;
        JsonReceipt {
            after_boot_ns: nanos(*after_boot),
            at: timestamp(*at),
            pid: *pid,
            started_ns: nanos(*started),
            command,
            command_bytes: lost_bytes(Some(command)),
            uid: *uid,
            cgroup_id: *cgroup,
        }
    }
}

#[derive(Serialize)]
pub(super) struct JsonStack<'a> {
    user: &'a [UserFrame],
    user_end: &'static str,
    /// Left out of stacks by frame pointers, which all were at first.
    #[serde(skip_serializing_if = "Option::is_none")]
    unwind: Option<&'static str>,
    kernel: &'a [KernelFrame],
}

impl JsonStack<'_> {
    pub(super) fn of(stack: &Stack) -> JsonStack<'_> {
        let Stack { kernel, user, user_end, unwind } = stack;
        let unwind = (*unwind != Unwind::default()).then_some(unwind.word());
        JsonStack { user, user_end: user_end.word(), unwind, kernel }
    }
}

#[derive(Serialize)]
pub(super) struct JsonKernelFrame<'a> {
    function: &'a Label,
    #[serde(skip_serializing_if = "Option::is_none")]
    function_bytes: Lost,
    module: Option<&'a Label>,
    #[serde(skip_serializing_if = "Option::is_none")]
    module_bytes: Lost,
}

impl JsonKernelFrame<'_> {
    pub(super) fn of(frame: &KernelFrame) -> JsonKernelFrame<'_> {
        let KernelFrame { function, module } = frame;
        JsonKernelFrame {
            function,
            function_bytes: lost_bytes(Some(function)),
            module: module.as_ref(),
            module_bytes: lost_bytes(module.as_ref()),
        }
    }
}

#[derive(Serialize)]
pub(super) struct JsonUserFrame<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    build_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    offset: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    address: Option<String>,
    module: Option<&'a Label>,
    #[serde(skip_serializing_if = "Option::is_none")]
    module_bytes: Lost,
    functions: &'a [Function],
}

impl JsonUserFrame<'_> {
    pub(super) fn of(frame: &UserFrame) -> JsonUserFrame<'_> {
        let UserFrame { place, module, functions } = frame;
        let (build_id, offset, address) = match place {
            CodePlace::File { build_id, offset } => (Some(build_id.to_string()), Some(*offset), None),
            CodePlace::Address(address) => (None, None, Some(format!("{address:#x}"))),
        };
        let module_bytes = lost_bytes(module.as_ref());
        JsonUserFrame { build_id, offset, address, module: module.as_ref(), module_bytes, functions }
    }
}

#[derive(Serialize)]
pub(super) struct JsonFunction<'a> {
    name: &'a Label,
    #[serde(skip_serializing_if = "Option::is_none")]
    name_bytes: Lost,
    file: Option<&'a Label>,
    #[serde(skip_serializing_if = "Option::is_none")]
    file_bytes: Lost,
    line: Option<u32>,
    inlined: bool,
}

impl JsonFunction<'_> {
    pub(super) fn of(function: &Function) -> JsonFunction<'_> {
        let Function { name, file, line, inlined } = function;
        JsonFunction {
            name,
            name_bytes: lost_bytes(Some(name)),
            file: file.as_ref(),
            file_bytes: lost_bytes(file.as_ref()),
            line: *line,
            inlined: *inlined,
        }
    }
}
