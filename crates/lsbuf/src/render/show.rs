//! One buffer in full: identity, account, and a line for each reference.

use std::io::{self, Write};
use std::time::SystemTime;

use super::cell::human;
use super::columns::{comm, timestamp};
use super::{View, escape};
use crate::model::{Account, Buffer, Holder, Label};

/// Writes everything that is known of the buffer at `index` of the snapshot.
///
/// # Errors
/// Those of `out`.
pub fn show(out: &mut dyn Write, view: &View<'_>, index: usize) -> io::Result<()> {
    let (buffer, account) = (&view.snapshot.buffers[index], &view.ledger.accounts[index]);
    let name = match &buffer.name {
        None => "name unknown".to_owned(),
        Some(name) if name.is_empty() => "unnamed".to_owned(),
        Some(name) => escape(name.as_bytes()),
    };
    writeln!(out, "{} {}: {name}", buffer.id.kind.as_str(), buffer.id.ino)?;
    let mut line = |key: &str, value: String| writeln!(out, "  {key:<10}{value}");
    line("size", buffer.size.map_or("?".into(), |s| format!("{} ({} bytes)", human(s), s.0)))?;
    line("exporter", label(buffer.exporter.as_ref()))?;
    line("device", buffer.id.dev.map_or("?".into(), |d| d.to_string()))?;
    line("created", created(buffer, view.snapshot.taken_at))?;
    line("attached", attached(buffer))?;
    line("account", account_line(buffer, account))?;
    if let Some(shape) = view.ledger.shapes[index] {
        line("shape", format!("{} ({})", shape.as_str(), explain(shape)))?;
    }
    if buffer.holders.is_empty() {
        return line("holders", "no process".into());
    }
    writeln!(out, "  holders")?;
    for holder in &buffer.holders {
        references(out, view, holder)?;
    }
    Ok(())
}

fn references(out: &mut dyn Write, view: &View<'_>, holder: &Holder) -> io::Result<()> {
    let who = format!("{}:{}", comm(view, holder), holder.pid);
    for fd in &holder.fds {
        writeln!(out, "    {who}  fd {fd}")?;
    }
    for fd in &holder.opaths {
        writeln!(out, "    {who}  fd {fd} (O_PATH: keeps the memory, outside the count)")?;
    }
    for map in &holder.maps {
        write!(out, "    {who}  map {:#x}-{:#x} {}", map.start, map.end, human(map.len()))?;
        if let Some(perms) = map.perms {
            write!(out, " {perms}")?;
        }
        if let Some(offset) = map.offset {
            write!(out, " at offset {offset:#x}")?;
        }
        writeln!(out)?;
    }
    Ok(())
}

/// `count 4 = 1 fd + 0 map + 3 kernel`, saying what is not known.
fn account_line(buffer: &Buffer, account: &Account) -> String {
    let count = buffer.count.map_or("?".into(), |c| c.to_string());
    let mut text = format!("count {count} = {} fd + {} map", account.fd, account.map);
    let mut add = |n: u64, what: &str| {
        if n > 0 {
            text.push_str(&format!(" + {n} {what}"));
        }
    };
    add(account.in_flight.unwrap_or(0), "in flight");
    add(account.io_uring.unwrap_or(0), "io_uring");
    let kernel = account.kernel.map_or("?".into(), |k| k.to_string());
    text.push_str(&format!(" + {}{kernel} kernel", if account.estimate { "~" } else { "" }));
    if account.kernel != Some(0) && (account.in_flight.is_none() || account.io_uring.is_none()) {
        text.push_str(", some of which may be in flight or in an io_uring");
    }
    text
}

fn explain(shape: crate::model::LeakShape) -> &'static str {
    use crate::model::LeakShape;
    match shape {
        LeakShape::Fd => "one process holds it by many fds",
        LeakShape::Map => "mapped, no fd left",
        LeakShape::Handle => "no fd, no mapping: held inside the kernel",
        LeakShape::InFlight => "held only by messages not yet received",
        LeakShape::OPath => "only O_PATH fds keep its memory",
    }
}

fn created(buffer: &Buffer, now: SystemTime) -> String {
    let Some(at) = buffer.created_at.and_then(timestamp) else { return "?".into() };
    let age = buffer.created_at.and_then(|at| now.duration_since(at).ok());
    let age = age.map_or(String::new(), |age| format!(", {} s before this snapshot", age.as_secs()));
    let uid = buffer.creator_uid.map_or(String::new(), |uid| format!(" by uid {uid}"));
    format!("{at}{uid}{age}")
}

fn attached(buffer: &Buffer) -> String {
    match &buffer.attachments {
        None => "?".into(),
        Some(devices) if devices.is_empty() => "no device".into(),
        Some(devices) => devices.iter().map(|d| escape(d.as_bytes())).collect::<Vec<_>>().join(", "),
    }
}

fn label(label: Option<&Label>) -> String {
    label.map_or("?".into(), |l| escape(l.as_bytes()))
}
