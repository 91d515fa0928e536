//! debugfs `dma_buf/bufinfo`: the kernel's own list of dma-bufs, with counts and attached devices.
//!
//! Per buffer (`dma_buf_debug_show` in drivers/dma-buf/dma-buf.c): a row `size flags mode count exp_name ino
//! name` separated by tabs, fence lines, `\tAttached Devices:`, a line per device, `Total N devices attached`
//! and an empty line; at the end `Total N objects, N bytes`. Linux 5.10 prints no name for an unnamed buffer,
//! later kernels `<none>`.
//!
//! A name is printed raw, at most 31 bytes of it, so it can break its row and add lines. It cannot forge a row:
//! the numbers of a row are padded to 8 digits each and do not fit into a name. It can forge the lines of
//! attachments, so of those the last in a block are taken, which stand after the name; and what breaks a row is
//! not taken for a name, unless it looks like a fence. A buffer that is really called `<none>` looks unnamed here. The closing line is checked against the rows.
//!
//! Reading takes a machine-wide lock and each buffer's reservation lock for a moment; root only.

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
    /// `None` where a newline in the name hides its end.
    pub(crate) name: Option<Label>,
    /// `None` where the lines did not agree with their total.
    pub(crate) attachments: Option<Vec<Label>>,
}

/// The whole list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct List {
    pub(crate) buffers: Vec<ListedBuffer>,
    /// What the closing line says: buffers and bytes.
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

/// Reads and parses the list below `sys`.
pub(crate) fn read_list(sys: &std::path::Path) -> Result<List> {
    let mut text = Vec::new();
    read::record(CWD, sys.join(PATH), &mut text)?;
    Ok(parse(&text))
}

/// Parses the whole text. What is no row and belongs to none is passed over; [`List::agrees`] tells if that
/// lost anything.
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
            // Between a whole name and the devices there are only fences; all else is a part of the name.
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

/// Fence lines as 5.10, 6.1 and 6.19 print them.
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
