//! Promises about the parsers of two debugfs texts: the kernel's list of dma-bufs, and the GEM
//! handles of drivers.

use super::LONGEST_NAME;
use crate::kernel::bufinfo::{self as list_of, ListedBuffer};
use crate::kernel::gem_info as handles;
use crate::model::{Bytes, GemHandle, Inode, Label, Pid};

/// The kernel's list is read back as it was printed.
pub fn bufinfo(data: &[u8]) {
    let list = list_of::parse(data);
    let entries: Vec<Entry> = list
        .buffers
        .iter()
        .map(|buffer| Entry { buffer, name: buffer.name.as_ref().map_or(b"a\nb", |name| name.as_bytes()) })
        .collect();
    let again = list_of::parse(&print_list(&entries));
    assert_eq!(again.buffers, list.buffers);
    let distinct =
        !list.buffers.iter().enumerate().any(|(nth, b)| list.buffers[..nth].iter().any(|a| a.ino == b.ino));
    assert_eq!(again.agrees(), distinct);
}

/// The kernel's list of buffers with the names in the input, which NULs separate. No name forges a
/// number, a row or an attachment. No wrong name is returned, except one that is cut before lines
/// that look like fences.
pub fn bufinfo_names(data: &[u8]) {
    let names: Vec<&[u8]> =
        data.split(|&b| b == 0).take(8).map(|name| &name[..name.len().min(LONGEST_NAME)]).collect();
    let devices: [Label; 2] = ["vgem".into(), "0000:00:02.0".into()];
    let buffers: Vec<ListedBuffer> = (1..)
        .zip(&names)
        .map(|(nth, _)| ListedBuffer {
            ino: Inode(nth),
            size: Bytes(4096 * nth),
            count: nth,
            exporter: "system".into(),
            name: None,
            attachments: Some(devices[..nth as usize % 3].to_vec()),
        })
        .collect();
    let entries: Vec<Entry> =
        buffers.iter().zip(&names).map(|(buffer, name)| Entry { buffer, name }).collect();
    let list = list_of::parse(&print_list(&entries));
    assert!(list.agrees(), "{list:?}");
    let nameless: Vec<ListedBuffer> =
        list.buffers.iter().cloned().map(|buffer| ListedBuffer { name: None, ..buffer }).collect();
    assert_eq!(nameless, buffers);
    for (read, name) in list.buffers.iter().zip(names) {
        let Some(read) = &read.name else { continue };
        let rest = name.strip_prefix(read.as_bytes());
        let cut_at_fences = rest.and_then(|rest| rest.strip_prefix(b"\n")).is_some_and(|rest| {
            rest.split(|&b| b == b'\n').all(|line| line.windows(6).any(|w| w == b"fence:"))
        });
        let is_none = read.is_empty() && (name == b"<none>" || name.starts_with(b"<none>\n"));
        assert!(rest == Some(b"") || cut_at_fences || is_none, "{read:?} for {}", name.escape_ascii());
    }
}

struct Entry<'a> {
    buffer: &'a ListedBuffer,
    name: &'a [u8],
}

/// The list as `dma_buf_debug_show` prints it.
fn print_list(entries: &[Entry<'_>]) -> Vec<u8> {
    let mut text =
        b"\nDma-buf Objects:\nsize    \tflags   \tmode    \tcount   \texp_name\tino     \tname\n".to_vec();
    for Entry { buffer, name } in entries {
        text.extend_from_slice(
            format!("{:08}\t00000002\t00080007\t{:08}\t", buffer.size.0, buffer.count).as_bytes(),
        );
        text.extend_from_slice(buffer.exporter.as_bytes());
        text.extend_from_slice(format!("\t{:08}\t", buffer.ino.0).as_bytes());
        text.extend_from_slice(name);
        text.extend_from_slice(b"\n\tAttached Devices:\n");
        for device in buffer.attachments.iter().flatten() {
            text.extend_from_slice(&[b"\t", device.as_bytes(), b"\n"].concat());
        }
        let devices = buffer.attachments.as_ref().map_or("?".to_owned(), |devices| devices.len().to_string());
        text.extend_from_slice(format!("Total {devices} devices attached\n\n").as_bytes());
    }
    let size: Bytes = entries.iter().map(|entry| entry.buffer.size).sum();
    text.extend_from_slice(format!("\nTotal {} objects, {} bytes\n", entries.len(), size.0).as_bytes());
    text
}

/// A driver's handles are read back as they were printed. A command name moves no handle to another
/// client, and is correct up to a newline in it.
pub fn gem_info(data: &[u8]) {
    /// `TASK_COMM_LEN` less its NUL.
    const LONGEST_COMM: usize = 15;
    let found = handles::parse(data);
    assert_eq!(handles::parse(&print_handles(&found)), found);
    let named: Vec<(Inode, GemHandle)> = (1..)
        .zip(data.split(|&b| b == 0).take(8))
        .map(|(nth, comm)| {
            let comm = Label::from(&comm[..comm.len().min(LONGEST_COMM)]);
            let pid = Pid(data.len() as u32 * nth);
            (Inode(nth.into()), GemHandle { pid, comm, handle: nth << 8, imported: nth % 2 == 0 })
        })
        .collect();
    let read = handles::parse(&print_handles(&named));
    let cut = named.into_iter().map(|(ino, handle)| {
        let comm = match handle.comm.as_bytes().iter().position(|&b| b == b'\n') {
            // A colon there cannot be told from the one that ends the line.
            Some(at) => {
                let line = &handle.comm.as_bytes()[..at];
                line.strip_suffix(b":").unwrap_or(line).into()
            }
            None => handle.comm.clone(),
        };
        (ino, GemHandle { comm, ..handle })
    });
    assert_eq!(read, cut.collect::<Vec<_>>());
}

/// The handles as `amdgpu_debugfs_gem_info_show` prints them, each with a client of its own.
fn print_handles(handles: &[(Inode, GemHandle)]) -> Vec<u8> {
    let mut text = Vec::new();
    for (ino, GemHandle { pid, comm, handle, imported }) in handles {
        text.extend_from_slice(&[format!("pid {pid:>8} command ").as_bytes(), comm.as_bytes()].concat());
        let role = if *imported { "imported from" } else { "exported as" };
        let placed = format!(
            ":\n\t\t0x{handle:08x}:         4096 byte VRAM pin count 1 {role} ino:{ino} NO_CPU_ACCESS\n"
        );
        text.extend_from_slice(placed.as_bytes());
    }
    text
}
