//! Every column: its name, what it means, and how its cells are computed. To add a column, add a
//! row here.

use std::borrow::Cow;

use super::digits::Digits;
use super::{Cell, Sizes, Style, View, ViewedBuffer, details, inherited, origin, payer};
use crate::escape::push_word_escaped;
use crate::model::serialize::timestamp;
use crate::model::{
    Account, Buffer, BufferId, Details, Holder, Kind, Label, Origin, Owner, Process, ProcessFigures,
};

/// A column of a table of buffers, of processes or of groups.
#[derive(Clone, Copy, Debug)]
pub struct Column {
    /// Its heading, which is also the word for it in `-o` and `--sort`.
    pub name: &'static str,
    /// What it means, in one line.
    pub help: &'static str,
    pub(super) cell: fn(&View<'_>, usize) -> Cell,
}

impl Column {
    /// The cell of the buffer or process at that index of the snapshot, or of the group at that
    /// index of the sum.
    #[must_use]
    pub fn cell(&self, view: &View<'_>, index: usize) -> Cell {
        (self.cell)(view, index)
    }

    /// What must be asked for so that its cells are known
    /// ([`Options::details`](crate::scan::Options::details)).
    #[must_use]
    pub fn details(&self) -> Details {
        details::needed(self.name)
    }
}

/// The columns of references that few buffers have. A table for people has such a column if a shown
/// buffer has such a reference, so that each row adds up to COUNT.
pub const RARE_REFERENCE_COLUMNS: &[&str] = &["IN-FLIGHT", "IO-URING", "EXE"];

/// The columns of a list of buffers, unless others are chosen.
pub const DEFAULT_BUFFER_COLUMNS: &[&str] = &[
    "KIND", "INO", "SIZE", "CHARGED", "EXPORTER", "NAME", "COUNT", "FDS", "MAPS", "KERNEL", "PROCS",
    "HOLDERS",
];

/// The columns of a list of buffers that nobody holds.
pub const DEFAULT_UNHELD_COLUMNS: &[&str] =
    &["KIND", "INO", "SIZE", "CHARGED", "EXPORTER", "UID", "AGE", "SHAPE", "NAME"];

/// The columns of a list of buffers if only dma-bufs were looked for.
pub const DEFAULT_DMABUF_COLUMNS: &[&str] =
    &["INO", "SIZE", "EXPORTER", "NAME", "COUNT", "FDS", "MAPS", "KERNEL", "PROCS", "HOLDERS"];

/// The columns of a list of processes, unless others are chosen.
pub const DEFAULT_PROCESS_COLUMNS: &[&str] = &["PID", "COMMAND", "RSS", "PSS", "USS", "BUFS", "FDS", "MAPS"];

fn buffer<'a>(view: &View<'a>, index: usize) -> ViewedBuffer<'a> {
    view.buffer(index)
}

fn account(view: &View<'_>, index: usize) -> Account {
    view.account(index)
}

fn process<'a>(view: &View<'a>, index: usize) -> &'a Process {
    &view.snapshot().processes[index]
}

fn figures(view: &View<'_>, index: usize) -> ProcessFigures {
    *view.ledger.process_row(index).figures
}

/// Words that may be unknown, where [`Cell::Words`] alone would say "does not apply".
fn known<W: Into<Cow<'static, str>>>(words: Option<W>) -> Cell {
    words.map_or(Cell::Text(None), |words| Cell::Words(Some(words.into())))
}

/// Yes, no, or unknown.
fn yes_or_no(value: Option<bool>) -> Cell {
    known(value.map(|yes| if yes { "yes" } else { "no" }))
}

/// A cell of shmem; "does not apply" for a dma-buf.
fn of_shmem(view: &View<'_>, index: usize, cell: impl Fn(&Buffer) -> Cell) -> Cell {
    let buffer = buffer(view, index);
    if buffer.id.kind == Kind::DmaBuf { Cell::Words(None) } else { cell(&buffer) }
}

/// Columns of `ls`.
pub const BUFFER_COLUMNS: &[Column] = &[
    Column {
        name: "KIND",
        help: "kind of buffer",
        cell: |v, i| Cell::Words(Some(buffer(v, i).id.kind.as_str().into())),
    },
    Column {
        name: "INO",
        help: "inode number, unique for one boot, kind and device; a segment's id",
        cell: |v, i| Cell::Number(Some(buffer(v, i).id.ino.0)),
    },
    Column {
        name: "SIZE",
        help: "length of the buffer, used or not",
        cell: |v, i| Cell::Size(buffer(v, i).size),
    },
    Column {
        name: "CHARGED",
        help: "memory taken: in RAM, in swap, allocated in advance; - not reported",
        cell: |v, i| match buffer(v, i).id.kind.is_charged() {
            true => Cell::Size(buffer(v, i).charged),
            false => Cell::Words(None),
        },
    },
    Column {
        name: "EXPORTER",
        help: "DMA heap or driver that made a dma-buf",
        cell: |v, i| match buffer(v, i).id.kind {
            Kind::DmaBuf => Cell::Text(buffer(v, i).exporter.clone()),
            _ => Cell::Words(None),
        },
    },
    Column {
        name: "NAME",
        help: "name given by a holder; a file's path as its holder sees it; a key",
        cell: |v, i| Cell::Text(buffer(v, i).name.clone()),
    },
    Column {
        name: "COUNT",
        help: "references that the kernel counts; ? for most shmem without BPF",
        cell: |v, i| Cell::Number(buffer(v, i).count),
    },
    Column {
        name: "FDS",
        help: "fds of it; an fd table that processes share counts once",
        cell: |v, i| Cell::Number(Some(account(v, i).fd)),
    },
    Column {
        name: "MAPS",
        help: "mappings (VMAs) of it; a shared address space counts once",
        cell: |v, i| Cell::Number(Some(account(v, i).map)),
    },
    Column {
        name: "IN-FLIGHT",
        help: "fds in messages not yet received; ? if unknown of which buffer",
        cell: |v, i| Cell::Number(account(v, i).in_flight),
    },
    Column {
        name: "IO-URING",
        help: "files registered with io_urings; ? if some may be this buffer",
        cell: |v, i| Cell::Number(account(v, i).io_uring),
    },
    Column {
        name: "EXE",
        help: "address spaces whose program runs from it",
        cell: |v, i| of_shmem(v, i, |_| Cell::Number(account(v, i).exe)),
    },
    Column {
        name: "KERNEL",
        help: "COUNT less all found: GEM handles, drivers; ~ estimate, ? unknown",
        cell: |v, i| {
            let account = account(v, i);
            if account.is_estimate() {
                Cell::Estimate(account.kernel())
            } else {
                Cell::Number(account.kernel())
            }
        },
    },
    Column {
        name: "ESTIMATE",
        help: "whether KERNEL is an estimate: yes or no; - if it is unknown",
        cell: |v, i| {
            let account = account(v, i);
            let words = if account.is_estimate() { "yes" } else { "no" };
            Cell::Words(account.kernel().map(|_| words.into()))
        },
    },
    Column {
        name: "PROCS",
        help: "how many processes hold it",
        cell: |v, i| Cell::Number(Some(buffer(v, i).holders.len() as u64)),
    },
    Column {
        name: "HOLDERS",
        help: "COMMAND:PID(2f1m): f fds, m mappings, c private, p O_PATH; loop0",
        cell: |v, i| Cell::Words(holders(v, &buffer(v, i)).map(Cow::Owned)),
    },
    Column {
        name: "PIDS",
        help: "pids of the processes that hold it",
        cell: |v, i| {
            let pids: Vec<String> = buffer(v, i).holders.iter().map(|h| h.pid.to_string()).collect();
            Cell::Words((!pids.is_empty()).then(|| pids.join(",").into()))
        },
    },
    Column {
        name: "OPATH",
        help: "O_PATH fds: they keep the memory, but are not in COUNT",
        cell: |v, i| Cell::Number(Some(account(v, i).opath)),
    },
    Column {
        name: "SHAPE",
        help: "leak it may be: fd map handle in-flight opath unattached unheld ~unheld",
        cell: |v, i| match v.row(i) {
            None if buffer(v, i).count.is_none() => Cell::Words(Some("~unheld".into())),
            _ => Cell::Words(v.shape(i).map(|shape| shape.as_str().into())),
        },
    },
    Column {
        name: "ATTACHED",
        help: "devices that are attached to a dma-buf",
        cell: |v, i| match &buffer(v, i).attachments {
            None if buffer(v, i).id.kind != Kind::DmaBuf => Cell::Words(None),
            None => Cell::Text(None),
            Some(devices) if devices.is_empty() => Cell::Words(None),
            Some(devices) => {
                let write = |d: &Label| Cell::Text(Some(d.clone())).write(Style::Raw, Sizes::Bytes);
                Cell::Words(Some(devices.iter().map(write).collect::<Vec<_>>().join(",").into()))
            }
        },
    },
    Column {
        name: "CANDIDATES",
        help: "pids that may be behind KERNEL or own the memory, by open devices",
        cell: |v, i| {
            let candidates = v.row(i).map_or(&[][..], |row| row.candidates);
            let pids: Vec<String> = candidates.iter().map(ToString::to_string).collect();
            Cell::Words((!pids.is_empty()).then(|| pids.join(",").into()))
        },
    },
    Column {
        name: "MEM-OWNER",
        help: "whose the memory is: references queue object pages device; ? unknown",
        cell: |v, i| known(Owner::of(&buffer(v, i)).as_str().map(str::to_owned)),
    },
    Column {
        name: "CREATED",
        help: "when it was made (UTC); ? if not held, or its times were changed",
        cell: |v, i| known(buffer(v, i).created_at.and_then(timestamp).map(|time| time.to_string())),
    },
    Column {
        name: "PAYER",
        help: "cgroup that its pages are charged to, who touched them first",
        cell: |v, i| match (&buffer(v, i).payers, buffer(v, i).id.kind) {
            (Some(payers), _) => Cell::Words(payer::cell(payers).map(Cow::Owned)),
            (None, Kind::DmaBuf) => Cell::Words(None),
            (None, _) => Cell::Text(None),
        },
    },
    Column {
        name: "ORIGIN",
        help: "COMMAND:PID that made it, by the flight recorder; before: it is older",
        cell: |v, i| origin::maker(buffer(v, i).origin.as_deref()),
    },
    Column {
        name: "ORIGIN-STACK",
        help: "function that made it: the first that is no library's",
        cell: |v, i| origin::function(buffer(v, i).origin.as_deref()),
    },
    Column {
        name: "BORN",
        help: "when it was made (UTC), by the flight recorder",
        cell: |v, i| {
            let birth = buffer(v, i).origin.as_deref().and_then(Origin::birth).map(|birth| birth.at);
            known(birth.and_then(timestamp).map(|time| time.to_string()))
        },
    },
    Column {
        name: "FOR",
        help: "COMMAND:PID that received it first from its maker, by the recorder",
        cell: |v, i| origin::client(buffer(v, i).origin.as_deref()),
    },
    Column {
        name: "AGE",
        help: "how long ago it was made; ? as for CREATED",
        cell: |v, i| {
            let made = buffer(v, i).created_at;
            Cell::Age(made.map(|made| v.snapshot().taken_at.duration_since(made).unwrap_or_default()))
        },
    },
    Column {
        name: "UID",
        help: "user id of its owner; of a segment, of its creator",
        cell: |v, i| Cell::Number(buffer(v, i).creator_uid.map(u64::from)),
    },
    Column {
        name: "DEV",
        help: "device number of the filesystem that INO belongs to",
        cell: |v, i| known(buffer(v, i).id.dev.map(|d| d.to_string())),
    },
    Column {
        name: "COST",
        help: "CHARGED, or SIZE where that is -; lists are sorted by it",
        cell: |v, i| Cell::Size(buffer(v, i).cost()),
    },
    Column {
        name: "SWAPPED",
        help: "the part of CHARGED that is in swap; ? where it is unknown",
        cell: |v, i| of_shmem(v, i, |buffer| Cell::Size(buffer.swapped)),
    },
    Column {
        name: "DELETED",
        help: "unlinked, or marked for removal: freed with its last reference",
        cell: |v, i| match buffer(v, i).id.kind.goes_unheld() {
            true => Cell::Words(None),
            false => yes_or_no(buffer(v, i).deleted),
        },
    },
    Column {
        name: "PRIVATE",
        help: "those of MAPS that are private (copy-on-write); ? if unknown",
        cell: |v, i| Cell::Number(account(v, i).private_map),
    },
    Column {
        name: "SEALS",
        help: "seals of a memfd; ? if not read (lsbuf show reads them)",
        cell: |v, i| match (buffer(v, i).id.kind, buffer(v, i).seals) {
            (Kind::Memfd, seals) => known(seals.map(|s| s.to_string())),
            _ => Cell::Words(None),
        },
    },
    Column {
        name: "PAGE",
        help: "size of its pages, if they are huge pages",
        cell: |v, i| buffer(v, i).huge_page.map_or(Cell::Words(None), |page| Cell::Size(Some(page))),
    },
    Column {
        name: "IPC",
        help: "IPC namespace of a System V segment",
        cell: |v, i| match buffer(v, i).id {
            BufferId { kind: Kind::Sysv, ipc, .. } => Cell::Number(ipc.map(|ipc| ipc.0.0)),
            _ => Cell::Words(None),
        },
    },
    Column {
        name: "CPID",
        help: "process that created a segment, with its command if it lives",
        cell: |v, i| details::creator(&buffer(v, i)),
    },
    Column {
        name: "LPID",
        help: "process that attached or detached a segment last, likewise",
        cell: |v, i| details::last_user(&buffer(v, i)),
    },
    Column {
        name: "REMOVE",
        help: "command line that removes a segment which no process has attached",
        cell: |v, i| {
            let buffer = buffer(v, i);
            let command = buffer.segment.as_ref().and_then(|segment| segment.remove_command(buffer.id.ino));
            Cell::Words(command.map(Into::into))
        },
    },
    Column {
        name: "INHERITED",
        help: "COMMAND:PID(n<ANCESTOR): n fds of it have the same open file in both",
        cell: inherited::of_buffer,
    },
];

/// Columns of `ps`.
pub const PROCESS_COLUMNS: &[Column] = &[
    Column {
        name: "PID",
        help: "process id (tgid)",
        cell: |v, i| Cell::Number(Some(process(v, i).pid.0.into())),
    },
    Column {
        name: "COMMAND",
        help: "command name",
        cell: |v, i| Cell::Text(Some(process(v, i).comm.clone())),
    },
    Column {
        name: "RSS",
        help: "COST of all buffers that it holds, each whole, mapped or not",
        cell: |v, i| Cell::Size(figures(v, i).rss),
    },
    Column {
        name: "PSS",
        help: "the same, each divided by the number of processes that hold it",
        cell: |v, i| Cell::Size(figures(v, i).pss),
    },
    Column {
        name: "MPSS",
        help: "the same, each divided in proportion to the bytes that each maps",
        cell: |v, i| Cell::Size(figures(v, i).mapped_pss),
    },
    Column {
        name: "USS",
        help: "what the kernel would free if it exited; ? if that is not proven",
        cell: |v, i| Cell::Size(figures(v, i).uss),
    },
    Column {
        name: "BUFS",
        help: "how many buffers it holds",
        cell: |v, i| Cell::Number(Some(figures(v, i).buffers)),
    },
    Column {
        name: "FDS",
        help: "its fds of buffers, O_PATH ones included",
        cell: |v, i| Cell::Number(Some(figures(v, i).fds)),
    },
    Column {
        name: "MAPS",
        help: "its mappings (VMAs) of buffers",
        cell: |v, i| Cell::Number(Some(figures(v, i).maps)),
    },
    Column {
        name: "SYNCS",
        help: "its fds of sync_files (fences), which have no size",
        cell: |v, i| Cell::Number(process(v, i).sync_files),
    },
    Column {
        name: "UID",
        help: "its real user id",
        cell: |v, i| Cell::Number(process(v, i).uid.map(u64::from)),
    },
    Column {
        name: "CGROUP",
        help: "its cgroup (path in v2, or else in v1); its buffers may be charged to another",
        cell: |v, i| Cell::Text(process(v, i).cgroup.clone()),
    },
    Column {
        name: "START",
        help: "start time, in clock ticks after boot",
        cell: |v, i| Cell::Number(Some(process(v, i).start_time)),
    },
    Column {
        name: "NOFILE",
        help: "how many fds it may have open (soft limit)",
        cell: |v, i| details::fd_limit(process(v, i)),
    },
    Column {
        name: "SHMRSS",
        help: "shared memory in its page tables (RssShmem of /proc/P/status)",
        cell: |v, i| details::rss_shmem(process(v, i)),
    },
    Column {
        name: "PPID",
        help: "its parent, from which it may have inherited fds; ? if none",
        cell: |v, i| details::parent(process(v, i)),
    },
    Column {
        name: "INHERITED",
        help: "COMMAND:PID(n): an ancestor, and n fds whose open file both have",
        cell: inherited::of_process,
    },
    Column {
        name: "USER",
        help: "its real user by /etc/passwd, or else the number",
        cell: |v, i| details::user(process(v, i)),
    },
    Column {
        name: "UNIT",
        help: "systemd unit that it runs in; - none",
        cell: |v, i| details::unit(process(v, i)),
    },
    Column {
        name: "CONTAINER",
        help: "container that it runs in: its name, or 12 digits of its id",
        cell: |v, i| details::container(process(v, i)),
    },
    Column {
        name: "POD",
        help: "pod as NAMESPACE/NAME; its UID if /var/log/pods has no name",
        cell: |v, i| details::pod(process(v, i)),
    },
    Column { name: "EXE", help: "path of its program", cell: |v, i| details::exe(process(v, i)) },
    Column {
        name: "ARGS",
        help: "its command line, which it can change",
        cell: |v, i| details::args(process(v, i)),
    },
];

/// The command name of a holder, escaped so that it cannot pass for another holder.
pub(super) fn comm(view: &View<'_>, holder: &Holder) -> String {
    let mut text = String::new();
    add_comm(&mut text, view, holder);
    text
}

fn add_comm(text: &mut String, view: &View<'_>, holder: &Holder) {
    match view.snapshot().process(holder.pid) {
        Some(process) => push_word_escaped(text, process.comm.as_bytes()),
        None => text.push('?'),
    }
}

fn holders(view: &View<'_>, buffer: &Buffer) -> Option<String> {
    let mut text = String::new();
    for holder in &buffer.holders {
        if !text.is_empty() {
            text.push(' ');
        }
        add_comm(&mut text, view, holder);
        text.push(':');
        text.push_str(Digits::of(holder.pid.0.into()).as_str());
        text.push('(');
        let (fds, opaths) = holder.slots();
        let private = holder.private_maps().unwrap_or(0);
        for (n, unit) in
            [(fds, 'f'), (holder.maps.len() as u64 - private, 'm'), (private, 'c'), (opaths, 'p')]
        {
            if n > 0 {
                text.push_str(Digits::of(n).as_str());
                text.push(unit);
            }
        }
        text.push(')');
    }
    for proven in buffer.kernel_holders.iter().filter(|holder| holder.is_proven) {
        if !text.is_empty() {
            text.push(' ');
        }
        push_word_escaped(&mut text, proven.name.as_bytes());
    }
    (!text.is_empty()).then_some(text)
}
