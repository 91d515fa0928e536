//! The command that is traced: its start, its end, and its status.

use std::collections::HashMap;
use std::ffi::OsString;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus};

use anyhow::{Context, Result};
use lsbuf::model::{BufferId, Bytes, Dev, Inode, IpcNamespace, Kind, UnheldList};
use lsbuf::scan::{Options, Sources};
use lsbuf::trace::{Balance, Trace};
use rustix::process::{Pid, Signal, kill_process};
use signal_hook::consts::SIGINT;

use crate::output::Ending;

/// A command that runs.
#[derive(Debug)]
pub(super) struct Traced {
    child: Child,
    status: Option<ExitStatus>,
    /// A signal came. The second one ends the trace, even if the command goes on.
    interrupted: bool,
}

impl Traced {
    pub(super) fn start(trace: &Trace, words: &[OsString]) -> Result<Traced> {
        let (program, arguments) = words.split_first().context("no command")?;
        let child = trace.spawn(Command::new(program).args(arguments))?;
        Ok(Traced { child, status: None, interrupted: false })
    }

    /// Whether it has ended, or is no longer waited for. What was sent to this process alone is
    /// passed on; an interrupt of the terminal has reached the command already.
    pub(super) fn is_over(&mut self, signal: Option<i32>) -> Result<bool> {
        if self.status.is_none() {
            self.status = self.child.try_wait().context("cannot wait for the command")?;
        }
        if self.status.is_some() {
            return Ok(true);
        }
        let Some(signal) = signal else { return Ok(false) };
        if std::mem::replace(&mut self.interrupted, true) {
            return Ok(true);
        }
        if signal != SIGINT
            && let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw)
        {
            // It may have ended in this moment.
            let _ = kill_process(pid, Signal::TERM);
        }
        Ok(false)
    }

    /// As the command has ended: with its status, or 128 and the number of the signal, as a shell
    /// says it.
    pub(super) fn ending(&self) -> Result<Ending> {
        let status = self.status.map(|status| status.code().or(status.signal().map(|signal| 128 + signal)));
        Ok(match status.flatten().and_then(|status| u8::try_from(status).ok()) {
            None | Some(0) => Ending::Answered,
            Some(status) => Ending::Status(status),
        })
    }
}

/// Notes the sizes that the buffers have now which are left. A file has got its size only after it
/// was made.
pub(super) fn weigh_left(balance: &mut Balance) {
    let left: Vec<_> = balance.left().filter(|buffer| buffer.kind != Some(Kind::DmaBuf)).cloned().collect();
    if left.is_empty() {
        return;
    }
    let options = Options {
        kinds: left.iter().filter_map(|buffer| buffer.kind).collect(),
        // A file may have been left that nobody holds.
        unheld: true,
        sources: Sources { load_bpf: true, ..Sources::default() },
        ..Options::default()
    };
    // Without an answer the sizes stay as they were last seen.
    let Ok(snapshot) = lsbuf::scan(options) else { return };
    type Name = (Kind, Option<Dev>, Option<IpcNamespace>, Inode);
    let name =
        |id: &BufferId| -> Name { (id.kind, id.dev.filter(|_| id.kind != Kind::Sysv), id.ipc, id.ino) };
    let held = snapshot.buffers.iter().filter_map(|buffer| Some((name(&buffer.id), buffer.size?)));
    let unheld = snapshot.unheld.iter().flat_map(UnheldList::iter).map(|file| (name(&file.id), file.size));
    let sizes: HashMap<Name, Bytes> = held.chain(unheld).collect();
    for buffer in left {
        let (Some(kind), Some(ino)) = (buffer.kind, buffer.ino) else { continue };
        let dev = buffer.dev.filter(|_| kind != Kind::Sysv);
        if let Some(size) = sizes.get(&(kind, dev, buffer.ipc, ino)) {
            balance.set_size(buffer.key, *size);
        }
    }
}
