//! `lsbuf show`: one buffer in full, with its account and a line for each reference.

use std::io::{self, Write};
use std::time::SystemTime;

use super::columns::comm;
use super::details::pid_and_comm;
use super::{View, inherited, payer};
use crate::escape::{escape, escape_word};
use crate::model::serialize::timestamp;
use crate::model::{
    Account, Buffer, Bytes, Fd, GemHandle, HiddenRefs, Holder, KernelHolder, KernelHolderKind, Kind, Label,
    LeakShape, NameLives, Owner, Pid, Seals, SegmentReach, Why,
};

/// Writes everything that is known of the buffer at `index` of the snapshot.
///
/// # Errors
/// Those of `out`.
pub fn show(out: &mut dyn Write, view: &View<'_>, index: usize) -> io::Result<()> {
    let (buffer, account) = (&*view.buffer(index), view.account(index));
    let name = match &buffer.name {
        None => "name unknown".to_owned(),
        Some(name) if name.is_empty() => "unnamed".to_owned(),
        Some(name) => escape(name.as_bytes()),
    };
    writeln!(out, "{} {}: {name}", buffer.id.kind.as_str(), buffer.id.ino)?;
    let mut line = |key: &str, value: String| writeln!(out, "  {key:<10}{value}");
    line("size", size(buffer.size))?;
    let is_dmabuf = buffer.id.kind == Kind::DmaBuf;
    if is_dmabuf {
        line("exporter", label(buffer.exporter.as_ref()))?;
    } else {
        for (key, value) in shmem(buffer) {
            line(key, value)?;
        }
    }
    line("device", buffer.id.dev.map_or("?".into(), |d| d.to_string()))?;
    line("created", created(buffer, view.snapshot().taken_at))?;
    // The inode has its owner, which fchown(2) changes. Who made it is not kept.
    if let Some(owner) = buffer.creator_uid.filter(|_| buffer.id.kind != Kind::Sysv) {
        line("owner", format!("uid {owner}"))?;
    }
    super::origin::lines(out, buffer)?;
    let mut line = |key: &str, value: String| writeln!(out, "  {key:<10}{value}");
    if is_dmabuf {
        line("attached", attached(buffer))?;
        line("owner", Owner::of(buffer).explanation().to_owned())?;
    }
    for overlap in buffer.overlaps.iter().flatten() {
        let (of, bytes) = (overlap.of, overlap.bytes);
        line("memory", format!("{bytes} of it is the memory of {} {}", of.kind, of.ino))?;
    }
    line("account", account_line(buffer, &account, view.snapshot().coverage.hidden_refs))?;
    // Without a count, the account has said so.
    if let (Some(why), Some(_)) = (account.residual.why(), buffer.count) {
        let key = if account.kernel().is_some() { "estimate" } else { "unknown" };
        line(key, why.explanation().to_owned())?;
    }
    if let Some(shape) = view.shape(index) {
        line("shape", format!("{} ({})", shape.as_str(), explain(shape)))?;
    }
    if buffer.holders.is_empty() {
        let seen = if buffer.is_held_unseen() { " that could be read" } else { "" };
        line("holders", format!("no process{seen}"))?;
    } else {
        writeln!(out, "  holders")?;
        for holder in &buffer.holders {
            references(out, view, holder)?;
        }
    }
    inherited::open_files(out, view, buffer)?;
    private_copies(out, view, buffer)?;
    kernel_holders(out, view, buffer)?;
    candidates(out, view, index)
}

/// What the path of a file that has a name is worth.
fn path(name: &[u8]) -> &'static str {
    if name.ends_with(b" (deleted)") {
        "a name by which it was opened and that is gone, unless it ends so; the file has a name"
    } else {
        "as its holder sees it; in another mount namespace it can name another file"
    }
}

/// What of private mappings is not the buffer's memory.
fn private_copies(out: &mut dyn Write, view: &View<'_>, buffer: &Buffer) -> io::Result<()> {
    if buffer.private_copies.is_empty() {
        return Ok(());
    }
    writeln!(out, "  copies that private mappings made, which are the process's own memory")?;
    for copies in &buffer.private_copies {
        write!(out, "    {}  {}", process(view, copies.pid), copies.bytes)?;
        if copies.huge_at_most > Bytes(0) {
            write!(out, ", and at most {} of huge pages", copies.huge_at_most)?;
        }
        writeln!(out)?;
    }
    Ok(())
}

/// A process as `COMMAND:PID`; `?` stands for a command that was not read.
pub(super) fn process(view: &View<'_>, pid: Pid) -> String {
    let comm = view.snapshot().process(pid).map(|process| escape_word(process.comm.as_bytes()));
    format!("{}:{pid}", comm.unwrap_or_else(|| "?".to_owned()))
}

/// What holds the buffer inside the kernel, and then what may.
fn kernel_holders(out: &mut dyn Write, view: &View<'_>, buffer: &Buffer) -> io::Result<()> {
    for (is_proven, heading) in
        [(true, "  held in the kernel by"), (false, "  candidates, by name or by fds in messages")]
    {
        let mut found =
            buffer.kernel_holders.iter().filter(|holder| holder.is_proven == is_proven).peekable();
        if found.peek().is_some() {
            writeln!(out, "{heading}")?;
        }
        for KernelHolder { what, name, pid, .. } in found {
            let name = escape(name.as_bytes());
            let who = pid.map_or(String::new(), |pid| process(view, pid));
            match what {
                KernelHolderKind::Loop => writeln!(out, "    {name}  (loop device)")?,
                KernelHolderKind::IoUring => writeln!(out, "    {who}  io_uring with a fixed file {name}")?,
                KernelHolderKind::Message => writeln!(out, "    {who}  {name} with fds not yet received")?,
                KernelHolderKind::Overlay if pid.is_none() => {
                    writeln!(out, "    {name}  (overlay that has the file's folder as a layer)")?;
                }
                KernelHolderKind::Overlay => writeln!(out, "    {who}  {name} open through an overlay")?,
            }
        }
    }
    Ok(())
}

/// A size for people, and to the byte.
fn size(size: Option<Bytes>) -> String {
    size.map_or("?".into(), |size| format!("{} ({} bytes)", size, size.0))
}

/// What the exit of the only holder means for a buffer that has a name. `None`: nothing, the name
/// stays.
fn lifetime(buffer: &Buffer) -> Option<String> {
    let (keeper, what) = match buffer.id.kind {
        Kind::Sysv => ("IPC namespace", "segment"),
        _ => ("filesystem", "file"),
    };
    match buffer.name_lives {
        NameLives::GoesWithHolder => Some(format!(
            "nothing but its holder keeps its {keeper}: the exit of that process frees the {what}"
        )),
        NameLives::Unknown => Some(format!(
            "no other process was found that keeps its {keeper}: the exit of its holder may free the {what}"
        )),
        _ => None,
    }
}

/// The lines that only shmem has.
fn shmem(buffer: &Buffer) -> Vec<(&'static str, String)> {
    let mut lines = Vec::new();
    match (buffer.id.kind.is_charged(), buffer.swapped) {
        (false, _) => lines.push(("charged", "the kernel does not report it".to_owned())),
        (true, None) => lines.push(("charged", size(buffer.charged))),
        (true, Some(swapped)) => {
            lines.push(("charged", format!("{}, {} of it swapped", size(buffer.charged), swapped)));
        }
    }
    for (nth, (payer, bytes)) in buffer.payers.iter().flat_map(|payers| payer::parts(payers)).enumerate() {
        lines.push((if nth == 0 { "payer" } else { "" }, format!("{payer} pays {bytes}")));
    }
    lines.extend(buffer.huge_page.map(|page| ("pages", format!("huge, {} each", page))));
    if buffer.id.kind == Kind::Memfd {
        lines.push(("seals", buffer.seals.map_or("?".into(), seals)));
    }
    if let (Kind::Tmpfs | Kind::Hugetlbfs, Some(name)) = (buffer.id.kind, &buffer.name)
        && name.as_bytes().starts_with(b"/")
        && buffer.deleted != Some(true)
    {
        lines.push(("path", path(name.as_bytes()).to_owned()));
    }
    if buffer.deleted == Some(true) {
        lines.push(("deleted", "yes: freed with its last reference".to_owned()));
    }
    lines.extend(lifetime(buffer).map(|line| ("lifetime", line)));
    if let Some(segment) = &buffer.segment {
        let pid = |pid: Option<Pid>, comm: Option<&Label>| match pid {
            None => "none in this pid namespace".into(),
            Some(pid) if comm.is_some() => pid_and_comm(pid, comm),
            Some(pid) => format!("pid {pid}"),
        };
        lines.push((
            "key",
            if segment.key == 0 { "private".into() } else { format!("{:#010x}", segment.key) },
        ));
        lines.push(("owner", format!("uid {}", segment.owner)));
        lines.push(("creator", pid(segment.creator, segment.creator_comm.as_ref())));
        lines.push(("last used", pid(segment.last, segment.last_comm.as_ref())));
        lines.push(("memory", format!("{} in memory, {} in swap", segment.rss, segment.swap)));
        if let Some(SegmentReach::Path(path)) = &segment.reached {
            let path = escape(path.as_bytes());
            lines.push(("kept by", format!("{path}: no process that was found is in its namespace")));
        }
        lines.extend(segment.remove_command(buffer.id.ino).map(|command| ("remove", command)));
    }
    lines.extend(buffer.id.ipc.map(|ipc| ("namespace", format!("IPC namespace {}", ipc.0))));
    lines
}

fn references(out: &mut dyn Write, view: &View<'_>, holder: &Holder) -> io::Result<()> {
    let who = format!("{}:{}", comm(view, holder), holder.pid);
    let details = view.snapshot().process(holder.pid).and_then(|process| process.details.as_deref());
    if let Some(args) = details.and_then(|details| details.args.as_ref()) {
        let line = escape(args.line().as_bytes());
        writeln!(out, "    {who}  args {line}{}", if args.is_whole { "" } else { " …" })?;
    }
    let there = |pid: Option<Pid>| {
        pid.map_or(String::new(), |pid| format!(" (shares the fd table of {pid}, counted there)"))
    };
    let mut fds = |who: &str, fds: &[Fd], opaths: &[Fd], table: &str| {
        for ranges in ranges(fds) {
            writeln!(out, "    {who}  {ranges}{table}")?;
        }
        for ranges in ranges(opaths) {
            writeln!(out, "    {who}  {ranges} (O_PATH: keeps the memory, not in the count){table}")?;
        }
        Ok::<(), io::Error>(())
    };
    fds(&who, &holder.fds, &holder.opaths, &there(holder.fd_table_of))?;
    for thread in &holder.threads {
        let table = format!(" (fd table of thread {}){}", thread.tid, there(thread.fd_table_of));
        fds(&who, &thread.fds, &thread.opaths, &table)?;
    }
    for map in &holder.maps {
        write!(out, "    {who}  map {:#x}-{:#x} {}", map.start, map.end, map.len())?;
        if let Some(perms) = map.perms {
            write!(out, " {perms}")?;
        }
        if let Some(offset) = map.offset {
            write!(out, " at offset {offset:#x}")?;
        }
        if let Some(pid) = holder.address_space_of {
            write!(out, " (shares the address space of {pid}, counted there)")?;
        }
        writeln!(out)?;
    }
    Ok(())
}

/// `fd 5`, or `fds 5-24 (20)`: one text for each run of numbers, which ascend.
pub(super) fn ranges(fds: &[Fd]) -> impl Iterator<Item = String> {
    fds.chunk_by(|a, b| a.0.checked_add(1) == Some(b.0)).map(|run| match run {
        [first, .., last] => format!("fds {first}-{last} ({})", run.len()),
        [only] => format!("fd {only}"),
        [] => String::new(),
    })
}

/// Processes that could be behind the residual: those whose GEM handles a driver lists, else those
/// that have a fitting device open. Where the references are explained, those that could have the
/// queue that owns the memory.
fn candidates(out: &mut dyn Write, view: &View<'_>, index: usize) -> io::Result<()> {
    let pids = view.row(index).map_or(&[][..], |row| row.candidates);
    if pids.is_empty() {
        return Ok(());
    }
    let buffer = view.buffer(index);
    if !buffer.handles.is_empty() {
        writeln!(out, "  candidates for the kernel's references, by the handles that the driver lists")?;
        for GemHandle { pid, comm, handle, imported } in &buffer.handles {
            let what = if *imported { "imported" } else { "exported" };
            writeln!(out, "    {}:{pid}  handle {handle:#x} ({what})", escape_word(comm.as_bytes()))?;
        }
        return Ok(());
    }
    let what = match (view.ledger.row(index).account.kernel(), Owner::of(&buffer)) {
        (Some(0), _) => "the owner of the memory",
        (_, Owner::Queue) => "the kernel's references and the owner of the memory",
        _ => "the kernel's references",
    };
    writeln!(out, "  candidates for {what}, by the devices that they have open")?;
    for device in &view.snapshot().devices {
        let name = device.name.as_ref().map_or(String::new(), |n| format!(" ({})", escape(n.as_bytes())));
        for holder in device.holders.iter().filter(|h| pids.contains(&h.pid)) {
            let comm = holder.comm.as_ref().map_or("?".into(), |c| escape_word(c.as_bytes()));
            for ranges in ranges(&holder.fds) {
                let path = escape(device.path.as_bytes());
                writeln!(out, "    {comm}:{}  {ranges} {path}{name}", holder.pid)?;
            }
        }
    }
    Ok(())
}

/// `count 7 = 2 fd + 1 map + 1 in flight + 3 kernel (vgem)`, and what of it is unknown.
fn account_line(buffer: &Buffer, account: &Account, hidden: Option<HiddenRefs>) -> String {
    if buffer.count.is_none() && buffer.id.kind != Kind::DmaBuf {
        let why = "procfs has no count for this kind; BPF iterators do";
        return format!("{} fd + {} map found; {why}", account.fd, account.map);
    }
    let count = buffer.count.map_or("?".into(), |c| c.to_string());
    let mut text = format!("count {count} = {} fd + {} map", account.fd, account.map);
    let mut add = |n: u64, what: &str| {
        if n > 0 {
            text.push_str(&format!(" + {n} {what}"));
        }
    };
    add(account.in_flight.unwrap_or(0), "in flight");
    add(account.io_uring.unwrap_or(0), "io_uring");
    add(account.exe.unwrap_or(0), "running program");
    let kernel = account.kernel().map_or("?".into(), |k| k.to_string());
    // Only processes attach segments, so these attachments belong to those that could not be read.
    let is_attachments = buffer.segment.is_some() && account.residual.why() == Some(Why::Unread);
    let whose = if is_attachments { "of processes that could not be read" } else { "kernel" };
    text.push_str(&format!(" + {}{kernel} {whose}", if account.is_estimate() { "~" } else { "" }));
    let attached = buffer.attachments.as_deref().unwrap_or_default();
    if account.kernel() != Some(0) && !attached.is_empty() {
        text.push_str(&format!(" ({})", devices(attached)));
    }
    let mut places = Vec::new();
    if account.in_flight.is_none() {
        places.extend(hidden.filter(|hidden| hidden.in_flight > 0).map(|_| "in flight"));
    }
    if account.io_uring.is_none() {
        places.extend(hidden.filter(|hidden| hidden.io_uring > 0).map(|_| "in an io_uring"));
    }
    places.extend(
        hidden.filter(|hidden| hidden.unknown).map(|_| "in a socket or io_uring that could not be read"),
    );
    if account.kernel() != Some(0) && !places.is_empty() {
        text.push_str(&format!(", some of which may be {}", places.join(" or ")));
    }
    text
}

fn explain(shape: LeakShape) -> &'static str {
    match shape {
        LeakShape::Fd => "one process holds it by many fds",
        LeakShape::Map => "mapped, no fd left",
        LeakShape::Handle => "no fd and no mapping: held inside the kernel",
        LeakShape::InFlight => "held only by messages not yet received",
        LeakShape::OPath => "only O_PATH fds keep its memory",
        LeakShape::Unattached => "no process has attached it; it stays until ipcrm removes it",
        LeakShape::Unheld => "nobody holds it; it stays until somebody removes it",
    }
}

fn created(buffer: &Buffer, now: SystemTime) -> String {
    let Some(at) = buffer.created_at.and_then(timestamp) else {
        return if buffer.holders.is_empty() { "? (no process that could be read holds it)" } else { "?" }
            .into();
    };
    let age = buffer.created_at.and_then(|at| now.duration_since(at).ok());
    let age = age.map_or(String::new(), |age| format!(", {} s before this snapshot", age.as_secs()));
    let creator = buffer.creator_uid.filter(|_| buffer.id.kind == Kind::Sysv);
    let uid = creator.map_or(String::new(), |uid| format!(" by uid {uid}"));
    format!("{at}{uid}{age}")
}

fn attached(buffer: &Buffer) -> String {
    match &buffer.attachments {
        None => "?".into(),
        Some(devices) if devices.is_empty() => "no device".into(),
        Some(attached) => devices(attached),
    }
}

/// Each device once, with how often it is attached: `vgem ×26, panel`.
fn devices(attached: &[Label]) -> String {
    let mut counts: Vec<(&Label, usize)> = Vec::new();
    for device in attached {
        match counts.iter_mut().find(|(known, _)| *known == device) {
            Some((_, times)) => *times += 1,
            None => counts.push((device, 1)),
        }
    }
    let write = |(device, times): (&Label, usize)| match times {
        1 => escape(device.as_bytes()),
        times => format!("{} ×{times}", escape(device.as_bytes())),
    };
    counts.into_iter().map(write).collect::<Vec<_>>().join(", ")
}

/// The words for seals. `F_SEAL_SEAL` alone seals nothing that is in the memfd: one made without
/// `MFD_ALLOW_SEALING` has it from the start.
fn seals(seals: Seals) -> String {
    const SEAL: Seals = Seals(1);
    if seals == SEAL { format!("{seals} (none can be added)") } else { seals.to_string() }
}

fn label(label: Option<&Label>) -> String {
    label.map_or("?".into(), |l| escape(l.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{BufferId, Inode, Residual, Segment};

    fn buffer(kind: Kind) -> Buffer {
        Buffer::new(BufferId::new(kind, None, Inode(1)))
    }

    fn account(buffer: &Buffer) -> Account {
        Account {
            fd: 0,
            map: 0,
            private_map: None,
            in_flight: None,
            io_uring: None,
            exe: None,
            residual: buffer.residual,
            opath: 0,
        }
    }

    /// Check that the owner of a file is not called its creator, while a segment's creator is.
    #[test]
    fn owners_are_no_creators() {
        let line = |kind| {
            let mut buffer = buffer(kind);
            buffer.created_at = Some(SystemTime::UNIX_EPOCH);
            buffer.creator_uid = Some(7);
            created(&buffer, SystemTime::UNIX_EPOCH)
        };
        assert!(!line(Kind::Memfd).contains("uid") && !line(Kind::DmaBuf).contains("uid"));
        assert!(line(Kind::Sysv).contains(" by uid 7"));
    }

    /// Check that a name which may be gone is not called the path of the file.
    #[test]
    fn former_names() {
        assert!(path(b"/dev/shm/a (deleted)").contains("gone"));
        assert!(path(b"/dev/shm/a").starts_with("as its holder sees it"));
    }

    /// Check that a device that is attached many times is printed once, with their number.
    #[test]
    fn devices_are_counted() {
        let attached = ["vgem", "panel", "vgem", "vgem"].map(Label::from);
        assert_eq!(devices(&attached), "vgem ×3, panel");
    }

    /// Check that `seal` alone, which seals nothing, is explained, and that other seals are not.
    #[test]
    fn seal_alone_is_explained() {
        assert_eq!(
            [Seals(0), Seals(1), Seals(3)].map(seals),
            ["none", "seal (none can be added)", "seal,shrink"]
        );
    }

    /// Check that the attachments of a segment by unreadable processes are not called the kernel's,
    /// while a dma-buf's residual is.
    #[test]
    fn attachments_of_unreadable_processes() {
        let line = |kind, segment: Option<Segment>| {
            let mut buffer = buffer(kind);
            (buffer.count, buffer.residual) = (Some(6), Residual::Estimate(6, Why::Unread));
            buffer.segment = segment.map(Box::new);
            account_line(&buffer, &account(&buffer), None)
        };
        let segment = Segment {
            key: 1,
            owner: 0,
            creator: None,
            creator_comm: None,
            last: None,
            last_comm: None,
            changed: 0,
            used: 0,
            attached: 6,
            reached: None,
            removed: false,
            rss: Bytes(0),
            swap: Bytes(0),
        };
        let of_processes = "count 6 = 0 fd + 0 map + ~6 of processes that could not be read";
        assert_eq!(line(Kind::Sysv, Some(segment)), of_processes);
        assert_eq!(line(Kind::DmaBuf, None), "count 6 = 0 fd + 0 map + ~6 kernel");
    }
}
