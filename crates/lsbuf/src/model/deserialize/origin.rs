//! Who made a buffer.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde::Deserialize;

use super::super::{
    Birth, BuildId, Client, CodePlace, Function, KernelFrame, Label, NoClient, NoOrigin, Origin, Pid,
    Receipt, Stack, StackEnd, Tid, Unwind, UserFrame,
};
use super::text::{address, label, time};

#[derive(Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub(super) enum JsonOrigin {
    Before,
    Unknown { why: String },
    Made(Box<JsonBirth>),
}

#[derive(Deserialize)]
pub(super) struct JsonBirth {
    after_boot_ns: u64,
    at: Option<String>,
    pid: Pid,
    started_ns: u64,
    command: String,
    command_bytes: Option<String>,
    tid: Tid,
    thread: String,
    thread_bytes: Option<String>,
    uid: u32,
    cgroup_id: u64,
    stack: Option<Stack>,
    /// Documents of older versions of lsbuf lack it.
    client: Option<JsonClient>,
}

#[derive(Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
enum JsonClient {
    NotSeen,
    Unknown { why: String },
    Received(JsonReceipt),
}

#[derive(Deserialize)]
struct JsonReceipt {
    after_boot_ns: u64,
    at: Option<String>,
    pid: Pid,
    started_ns: u64,
    command: String,
    command_bytes: Option<String>,
    uid: u32,
    cgroup_id: u64,
}

/// A time by the wall clock; one that a document could not say is the first of all.
fn wall_time(at: Option<&str>) -> Result<SystemTime, String> {
    at.map_or(Ok(SystemTime::UNIX_EPOCH), time)
}

/// A text that is always there.
fn text(text: String, bytes: Option<String>) -> Result<Label, String> {
    Ok(label(Some(text), bytes)?.unwrap_or_default())
}

impl JsonOrigin {
    pub(super) fn into_model(self) -> Result<Origin, String> {
        Ok(match self {
            JsonOrigin::Before => Origin::Before,
            JsonOrigin::Unknown { why } => {
                let known = NoOrigin::of_word(&why);
                Origin::Unknown(known.ok_or_else(|| format!("{why:?} is no reason for an unknown origin"))?)
            }
            JsonOrigin::Made(birth) => Origin::Made(Box::new(birth.into_model()?)),
        })
    }
}

impl JsonBirth {
    fn into_model(self) -> Result<Birth, String> {
        Ok(Birth {
            after_boot: Duration::from_nanos(self.after_boot_ns),
            at: wall_time(self.at.as_deref())?,
            pid: self.pid,
            started: Duration::from_nanos(self.started_ns),
            command: text(self.command, self.command_bytes)?,
            tid: self.tid,
            thread: text(self.thread, self.thread_bytes)?,
            uid: self.uid,
            cgroup: self.cgroup_id,
            stack: self.stack.map(Arc::new),
            client: match self.client {
                Some(client) => client.into_model()?,
                None => Client::Unknown(NoClient::NotWatched),
            },
        })
    }
}

impl JsonClient {
    fn into_model(self) -> Result<Client, String> {
        Ok(match self {
            JsonClient::NotSeen => Client::NotSeen,
            JsonClient::Unknown { why } => {
                let known = NoClient::of_word(&why);
                Client::Unknown(known.ok_or_else(|| format!("{why:?} is no reason for an unknown client"))?)
            }
            JsonClient::Received(receipt) => Client::Received(Receipt {
                after_boot: Duration::from_nanos(receipt.after_boot_ns),
                at: wall_time(receipt.at.as_deref())?,
                pid: receipt.pid,
                started: Duration::from_nanos(receipt.started_ns),
                command: text(receipt.command, receipt.command_bytes)?,
                uid: receipt.uid,
                cgroup: receipt.cgroup_id,
            }),
        })
    }
}

#[derive(Deserialize)]
pub(super) struct JsonStack {
    user: Vec<UserFrame>,
    user_end: String,
    unwind: Option<String>,
    kernel: Vec<KernelFrame>,
}

impl JsonStack {
    pub(super) fn into_model(self) -> Result<Stack, String> {
        let user_end = StackEnd::of_word(&self.user_end);
        let user_end = user_end.ok_or_else(|| format!("{:?} is no end of a stack", self.user_end))?;
        let unwind = self.unwind.as_deref().map_or(Some(Unwind::default()), Unwind::of_word);
        let unwind = unwind.ok_or_else(|| format!("{:?} is no way to unwind", self.unwind))?;
        Ok(Stack { kernel: self.kernel, user: self.user, user_end, unwind })
    }
}

#[derive(Deserialize)]
pub(super) struct JsonKernelFrame {
    function: String,
    function_bytes: Option<String>,
    module: Option<String>,
    module_bytes: Option<String>,
}

impl JsonKernelFrame {
    pub(super) fn into_model(self) -> Result<KernelFrame, String> {
        let module = label(self.module, self.module_bytes)?;
        Ok(KernelFrame { function: text(self.function, self.function_bytes)?, module })
    }
}

#[derive(Deserialize)]
pub(super) struct JsonUserFrame {
    build_id: Option<String>,
    offset: Option<u64>,
    address: Option<String>,
    module: Option<String>,
    module_bytes: Option<String>,
    functions: Vec<Function>,
}

impl JsonUserFrame {
    pub(super) fn into_model(self) -> Result<UserFrame, String> {
        let place = match (self.build_id, self.offset, self.address) {
            (Some(id), Some(offset), None) => {
                let build_id = BuildId::parse(&id).ok_or_else(|| format!("{id:?} is no build id"))?;
                CodePlace::File { build_id, offset }
            }
            (None, None, Some(text)) => CodePlace::Address(address(&text)?),
            _ => return Err("a frame has a build_id with an offset, or an address".to_owned()),
        };
        Ok(UserFrame { place, module: label(self.module, self.module_bytes)?, functions: self.functions })
    }
}

#[derive(Deserialize)]
pub(super) struct JsonFunction {
    name: String,
    name_bytes: Option<String>,
    file: Option<String>,
    file_bytes: Option<String>,
    line: Option<u32>,
    inlined: bool,
}

impl JsonFunction {
    pub(super) fn into_model(self) -> Result<Function, String> {
        Ok(Function {
            name: text(self.name, self.name_bytes)?,
            file: label(self.file, self.file_bytes)?,
            line: self.line,
            inlined: self.inlined,
        })
    }
}
