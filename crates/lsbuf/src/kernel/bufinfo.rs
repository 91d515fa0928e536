//! debugfs `dma_buf/bufinfo`: the kernel's own list of dma-bufs, with counts and attached devices.
//!
//! Each buffer has (`dma_buf_debug_show` in drivers/dma-buf/dma-buf.c) a row `size flags mode count
//! exp_name ino name` with tabs between, fence lines, `\tAttached Devices:`, a line for each
//! device, `Total N devices attached` and an empty line. At the end comes `Total N objects, N
//! bytes`. For an unnamed buffer Linux 5.10 prints nothing, later kernels `<none>`.
//!
//! A name has at most 31 bytes and is printed raw, so it can break its row and add lines.
//! - It cannot forge a row: the numbers of a row are padded to 8 digits each and do not fit into a
//!   name.
//! - It can forge the lines of attachments. So the last such lines of a block are used, because
//!   they come after the name.
//! - Lines between the row and the attachments are taken for fences if they look like it. If they
//!   do not, they are part of the name, and the name is unknown.
//! - A buffer that is really named `<none>` looks unnamed.
//!
//! The closing line is compared with the rows.
//!
//! Limits: only root can read it. Reading takes a machine-wide lock, and the reservation lock of
//! each buffer, for a moment.

use std::collections::HashSet;

use rustix::fs::CWD;
use rustix::io::Result;

use super::parse::{Malformed, number};
use super::read;
use crate::model::{Bytes, Inode, Label};

/// Where it is, below the root of sysfs.
pub(crate) const PATH: &str = "kernel/debug/dma_buf/bufinfo";

/// One buffer as the kernel lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ListedBuffer {
    pub(crate) ino: Inode,
    pub(crate) size: Bytes,
    pub(crate) count: u64,
    pub(crate) exporter: Label,
    /// `None` if a newline in the name hides where the name ends.
    pub(crate) name: Option<Label>,
    /// `None` if the number of lines differs from the stated total.
    pub(crate) attachments: Option<Vec<Label>>,
}

/// The whole list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct List {
    pub(crate) buffers: Vec<ListedBuffer>,
    /// What the closing line says: number of buffers, and bytes.
    pub(crate) stated: Option<(u64, Bytes)>,
}

impl List {
    /// Whether the rows add up to the closing line.
    pub(crate) fn agrees(&self) -> bool {
        let rows = self.buffers.len() as u64;
        let size = self.buffers.iter().map(|b| b.size).sum();
        let distinct: HashSet<Inode> = self.buffers.iter().map(|b| b.ino).collect();
        self.stated == Some((rows, size)) && distinct.len() == self.buffers.len()
    }
}

/// Whether this process may open the list. `sys` is the root of sysfs.
pub(crate) fn can_open(sys: &std::path::Path) -> bool {
    read::open_file(CWD, sys.join(PATH)).is_ok()
}

/// Reads and parses the list. `sys` is the root of sysfs.
pub(crate) fn read_list(sys: &std::path::Path) -> Result<List> {
    let mut text = Vec::new();
    read::record(CWD, sys.join(PATH), &mut text)?;
    Ok(parse(&text))
}

/// Parses the whole text. A line that is no row and belongs to none is skipped; [`List::agrees`]
/// shows if a buffer was lost by that.
pub(crate) fn parse(text: &[u8]) -> List {
    let lines: Vec<&[u8]> = text.split(|&b| b == b'\n').collect();
    let rows: Vec<usize> = (0..lines.len()).filter(|&i| row(lines[i]).is_ok()).collect();
    let ends = rows.iter().skip(1).copied().chain([lines.len()]);
    let buffers = rows
        .iter()
        .zip(ends)
        .filter_map(|(&begin, end)| {
            let mut buffer = row(lines[begin]).ok()?;
            let block = &lines[begin + 1..end];
            // Between a complete name and the devices there are only fences. Any other line is part
            // of the name.
            let devices = block.iter().rposition(|&line| line == ATTACHED).unwrap_or(block.len());
            if !block[..devices].iter().all(|line| is_fence(line)) {
                buffer.name = None;
            }
            buffer.attachments = attachments(block);
            Some(buffer)
        })
        .collect();
    let stated = lines.iter().rev().find(|l| !l.is_empty()).and_then(|l| closing(l).ok());
    List { buffers, stated }
}

const ATTACHED: &[u8] = b"\tAttached Devices:";

fn row(line: &[u8]) -> std::result::Result<ListedBuffer, Malformed> {
    let mut fields = line.splitn(7, |&b| b == b'\t');
    let mut padded = |radix| match fields.next() {
        Some(field) if field.len() >= 8 => number(field, radix),
        _ => Err(Malformed),
    };
    let (size, _flags, _mode, count) = (padded(10)?, padded(16)?, padded(16)?, padded(10)?);
    let exporter = fields.next().ok_or(Malformed)?.into();
    let ino = number(fields.next().ok_or(Malformed)?, 10)?;
    let name = fields.next().unwrap_or_default();
    let name = if name == b"<none>" { Label::default() } else { name.into() };
    Ok(ListedBuffer {
        ino: Inode(ino),
        size: Bytes(size),
        count,
        exporter,
        name: Some(name),
        attachments: None,
    })
}

/// Whether a line is a fence, as Linux 5.10, 6.1 and 6.19 print it.
fn is_fence(line: &[u8]) -> bool {
    [
        &b"kernel fence:"[..],
        b"write fence:",
        b"read fence:",
        b"bookkeep fence:",
        b"Exclusive fence:",
        b"Shared fence:",
    ]
    .iter()
    .any(|kind| line.strip_prefix(b"\t").is_some_and(|l| l.starts_with(kind)))
}

fn attachments(block: &[&[u8]]) -> Option<Vec<Label>> {
    let begin = block.iter().rposition(|&line| line == ATTACHED)? + 1;
    let rest = &block[begin..];
    let len = rest.iter().position(|line| line.starts_with(b"Total "))?;
    let stated = rest[len].strip_prefix(b"Total ")?.strip_suffix(b" devices attached")?;
    if number(stated, 10) != Ok(len as u64) {
        return None;
    }
    rest[..len].iter().map(|line| line.strip_prefix(b"\t").map(Label::from)).collect()
}

fn closing(line: &[u8]) -> std::result::Result<(u64, Bytes), Malformed> {
    let line = line.strip_prefix(b"Total ").ok_or(Malformed)?;
    let line = line.strip_suffix(b" bytes").ok_or(Malformed)?;
    let at = line.windows(10).position(|w| w == b" objects, ").ok_or(Malformed)?;
    Ok((number(&line[..at], 10)?, Bytes(number(&line[at + 10..], 10)?)))
}

#[cfg(test)]
#[path = "bufinfo_tests.rs"]
mod tests;
