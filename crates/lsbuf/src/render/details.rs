//! The columns that need more than a scan reads by itself: which details each needs, and its cells.

use std::borrow::Cow;

use super::Cell;
use crate::escape::escape_word;
use crate::model::{
    Args, Buffer, Detail, Details, Kind, Label, Pid, Process, ProcessDetails, Segment, Workload,
};

/// What a column needs to be asked for.
pub(super) fn needed(column: &str) -> Details {
    match column {
        "ARGS" => Detail::Args.into(),
        "EXE" => Detail::Exe.into(),
        "USER" => Detail::User.into(),
        "NOFILE" => Detail::FdLimit.into(),
        "SHMRSS" => Detail::RssShmem.into(),
        "PPID" => Detail::Parent.into(),
        "UNIT" | "CONTAINER" | "POD" => Detail::Workload.into(),
        "CPID" | "LPID" => Detail::SegmentUsers.into(),
        "INHERITED" => Detail::OpenFiles.into(),
        "ORIGIN" | "BORN" | "FOR" => Detail::Origin.into(),
        "ORIGIN-STACK" => [Detail::Origin, Detail::Stacks].into_iter().collect(),
        _ => Details::NONE,
    }
}

fn details(process: &Process) -> Option<&ProcessDetails> {
    process.details.as_deref()
}

/// A command line on one line; an ellipsis stands for what was not read.
pub(super) fn args(process: &Process) -> Cell {
    let args = details(process).and_then(|details| details.args.as_ref());
    Cell::Text(args.map(|args: &Args| match args.is_whole {
        true => args.line(),
        false => Label::from(&[args.line().as_bytes(), " …".as_bytes()].concat()[..]),
    }))
}

pub(super) fn exe(process: &Process) -> Cell {
    Cell::Text(details(process).and_then(|details| details.exe.clone()))
}

/// A user's name, or else the number.
pub(super) fn user(process: &Process) -> Cell {
    match details(process).and_then(|details| details.user.clone()) {
        Some(name) => Cell::Text(Some(name)),
        None => Cell::Number(process.uid.map(u64::from)),
    }
}

pub(super) fn fd_limit(process: &Process) -> Cell {
    Cell::Number(details(process).and_then(|details| details.fd_limit))
}

pub(super) fn rss_shmem(process: &Process) -> Cell {
    Cell::Size(details(process).and_then(|details| details.rss_shmem))
}

pub(super) fn parent(process: &Process) -> Cell {
    Cell::Number(details(process).and_then(|details| details.parent).map(|Pid(pid)| pid.into()))
}

/// A part of the workload: `?` if that is unknown, `-` if the process is in none.
fn of_workload(process: &Process, part: impl Fn(&Workload) -> Option<Label>) -> Cell {
    match details(process).and_then(|details| details.workload.as_ref()) {
        None => Cell::Text(None),
        Some(workload) => part(workload).map_or(Cell::Words(None), |text| Cell::Text(Some(text))),
    }
}

pub(super) fn unit(process: &Process) -> Cell {
    of_workload(process, |workload| workload.unit.clone())
}

/// The name of a container, or the first 12 digits of its id, as other tools print it.
pub(super) fn container(process: &Process) -> Cell {
    of_workload(process, |workload| workload.container.as_ref().map(short_id))
}

/// An id of 64 digits cut to 12; a name as it is.
pub(super) fn short_id(container: &Label) -> Label {
    let bytes = container.as_bytes();
    let is_id = bytes.len() == 64 && bytes.iter().all(u8::is_ascii_hexdigit);
    if is_id { Label::from(&bytes[..12]) } else { container.clone() }
}

pub(super) fn pod(process: &Process) -> Cell {
    of_workload(process, |workload| workload.pod.as_ref().map(|pod| Label::from(pod.to_string().as_str())))
}

/// Who created a segment.
pub(super) fn creator(buffer: &Buffer) -> Cell {
    segment_user(buffer, |segment| (segment.creator, segment.creator_comm.as_ref()))
}

/// Who attached or detached a segment last.
pub(super) fn last_user(buffer: &Buffer) -> Cell {
    segment_user(buffer, |segment| (segment.last, segment.last_comm.as_ref()))
}

fn segment_user(buffer: &Buffer, user: impl Fn(&Segment) -> (Option<Pid>, Option<&Label>)) -> Cell {
    if buffer.id.kind != Kind::Sysv {
        return Cell::Words(None);
    }
    match buffer.segment.as_deref().map(user) {
        Some((Some(pid), comm)) => Cell::Words(Some(Cow::from(pid_and_comm(pid, comm)))),
        _ => Cell::Number(None),
    }
}

/// `postgres:123`, or `123` if no process that can be meant has this pid now.
pub(super) fn pid_and_comm(pid: Pid, comm: Option<&Label>) -> String {
    comm.map_or_else(|| pid.to_string(), |comm| format!("{}:{pid}", escape_word(comm.as_bytes())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::SumKey;
    use crate::render::{BUFFER_COLUMNS, Column, PROCESS_COLUMNS, Sizes, Style};

    fn process() -> Process {
        let details = Some(Box::default());
        let comm = "p".into();
        Process { pid: Pid(1), start_time: 1, comm, uid: Some(7), cgroup: None, sync_files: None, details }
    }

    fn written(cell: Cell) -> String {
        cell.write(Style::Table, Sizes::Human)
    }

    /// Check that each detail is needed by a column or by a key of sums.
    #[test]
    fn every_detail_is_needed() {
        let columns = BUFFER_COLUMNS.iter().chain(PROCESS_COLUMNS).map(Column::details);
        let keys = SumKey::ALL.iter().map(|key| key.details());
        assert_eq!(columns.chain(keys).fold(Details::NONE, Details::and), Details::ALL);
    }

    /// Check that a command line stays on one line, whatever is in it, and that what was not read
    /// of it is marked.
    #[test]
    fn command_lines() {
        let mut one = process();
        assert_eq!(written(args(&one)), "?");
        let words = vec!["a".into(), "b\nc\x1b[2J".into()];
        one.details = Some(Box::new(ProcessDetails {
            args: Some(Args { words, is_whole: false }),
            ..ProcessDetails::default()
        }));
        assert_eq!(written(args(&one)), r"a b\x0ac\x1b[2J …");
    }

    /// Check that in no container is told from unknown, that an id is cut, and that a user without
    /// a name is a number.
    #[test]
    fn workloads() {
        let mut one = process();
        assert_eq!((written(container(&one)), written(user(&one))), ("?".into(), "7".into()));
        let workload =
            Workload { container: Some("0123456789abcdef".repeat(4).as_str().into()), ..Workload::default() };
        one.details =
            Some(Box::new(ProcessDetails { workload: Some(workload), ..ProcessDetails::default() }));
        assert_eq!((written(container(&one)), written(pod(&one))), ("0123456789ab".into(), "-".into()));
    }
}
