//! `lsbuf name`: sets the name of a dma-buf through a holder's fd, and says how to undo it.

use std::io::Write;

use anyhow::{Result, bail};
use lsbuf::escape::escape;
use lsbuf::model::{Kinds, Snapshot};
use lsbuf::naming::{Change, Refusal};
use lsbuf::scan::Scanner;

use crate::args::NameArgs;
use crate::named::named;
use crate::output::{self, Ending};

/// Names the buffer, and prints what the name was and the command that sets it again.
pub(crate) fn run(args: &NameArgs) -> Result<Ending> {
    let change = change(args)?;
    let mut options = args.reading.options();
    options.kinds = Kinds::DMABUF;
    let snapshot = Scanner::new(options.clone())?.scan()?;
    let index = match named(&snapshot.buffers, &args.buffer)[..] {
        [one] => one.row,
        [] => bail!("{}", missing(args, &snapshot)?),
        ref several => {
            let which: Vec<String> = several.iter().map(|one| word(&snapshot, one.row)).collect();
            bail!("{} is the name of {} dma-bufs: {}", args.buffer, several.len(), which.join(", "))
        }
    };
    let which = word(&snapshot, index);
    let done = match lsbuf::naming::set_name(&options, &snapshot, index, &change)? {
        Ok(done) => done,
        Err(refusal) => bail!("{which} was not named: {refusal}"),
    };
    let mut out = output::buffered()?;
    let shown = |name: &[u8]| if name.is_empty() { "unnamed".to_owned() } else { escape(name) };
    let (before, after) = (shown(done.before.as_bytes()), shown(done.after.as_bytes()));
    writeln!(out, "{which}: {before} -> {after} (through fd {} of process {})", done.fd, done.through)?;
    writeln!(out, "undo: {}", undo(&which, done.before.as_bytes()))?;
    output::unless_closed(out.flush())?;
    Ok(output::ending(&snapshot.coverage, args.reading.strict))
}

fn change(args: &NameArgs) -> Result<Change> {
    let text = args.text.as_ref().map(|name| name.0.clone()).unwrap_or_default();
    if !args.force && text.iter().any(u8::is_ascii_control) {
        bail!("a name with control characters could confuse other tools: --force sets it");
    }
    Ok(Change { text, is_prefix: args.prefix, may_replace: args.force })
}

/// Why no dma-buf is meant: another kind of buffer may be.
fn missing(args: &NameArgs, dmabufs: &Snapshot) -> Result<String> {
    let all = Scanner::new(args.reading.options())?.scan()?;
    let kind = named(&all.buffers, &args.buffer).first().map(|one| all.buffers[one.row].id.kind);
    Ok(match kind {
        Some(kind) => format!("{} was not named: {}", args.buffer, Refusal::NotDmaBuf(kind)),
        None => format!("no dma-buf {} among the {} found", args.buffer, dmabufs.buffers.len()),
    })
}

fn word(snapshot: &Snapshot, index: usize) -> String {
    let id = snapshot.buffers[index].id;
    format!("{}:{}", id.kind, id.ino)
}

/// The command line that sets that name again, for a shell.
fn undo(which: &str, name: &[u8]) -> String {
    if name.is_empty() {
        return format!("lsbuf name {which} --clear --force");
    }
    format!("lsbuf name --force {which} -- '{}'", escape(name).replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check that an undo line is one line, keeps the name in quotes, and does not take a name for
    /// an option.
    #[test]
    fn undo_lines() {
        assert_eq!(undo("dmabuf:7", b""), "lsbuf name dmabuf:7 --clear --force");
        assert_eq!(undo("dmabuf:7", b"-x"), "lsbuf name --force dmabuf:7 -- '-x'");
        assert_eq!(undo("dmabuf:7", b"it's\n\\"), r"lsbuf name --force dmabuf:7 -- 'it'\''s\x0a\\'");
    }
}
