//! Estimates what a buffer costs the kernel besides its memory: the structures behind it, as lines
//! for people.
//!
//! The sizes of the structures are in the kernel's type information (BTF). What is really allocated
//! for them is in the slab caches, which root can read. Besides, some hundred buffers are made, and
//! the lines say by how much the kernel's numbers of inodes, dentries and files grew.
//! `dma_buf_export` in drivers/dma-buf/dma-buf.c allocates the buffer's own structure, and behind
//! it a reservation object unless the exporter brings one (GEM does); `dma_buf_getfile` allocates a
//! file, an inode and a dentry.
//!
//! Limits: it leaves out what a security module adds to file and inode, the name, and the
//! exporter's own structures. What other processes open or close meanwhile is in the growth too.

use std::path::Path;
use std::{fs, io};

use super::kit::{Exporter, Kit};
use crate::kernel::btf;
use crate::kernel::btf_file::BtfFile;

const SYSFS: &str = "/sys";

/// How many buffers are made for the measurement; few enough for the usual limit of 1024 fds.
const MEASURED: u64 = 500;

/// The sizes of the structures in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Sizes {
    inode: u64,
    dentry: u64,
    file: u64,
    dma_buf: u64,
    dma_resv: u64,
    attachment: u64,
}

/// How many bytes a slab cache takes for one object; `None`: unknown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Slabs {
    inode: Option<u64>,
    dentry: Option<u64>,
    file: Option<u64>,
}

/// What is known here, one line each.
pub(super) fn notes(kit: &Kit) -> Vec<String> {
    let mut notes = match read_sizes() {
        Ok(sizes) => of(sizes, read_slabs(Path::new(SYSFS))),
        Err(why) => vec![format!("what a buffer costs is not known: {why}")],
    };
    notes.extend(kit.exporters().filter_map(|exporter| measured(kit, exporter)));
    notes
}

fn read_sizes() -> Result<Sizes, String> {
    let path = Path::new(SYSFS).join(btf::PATH);
    let bytes = BtfFile::open(Path::new(SYSFS));
    let bytes = bytes.map_err(|errno| format!("{}: {}", path.display(), io::Error::from(errno)))?;
    let names = ["inode", "dentry", "file", "dma_buf", "dma_resv", "dma_buf_attachment"];
    let sizes = btf::sizes(&bytes, names).map_err(|_| format!("{}: unknown format", path.display()))?;
    let [Some(inode), Some(dentry), Some(file), Some(dma_buf), Some(dma_resv), Some(attachment)] =
        sizes.map(|size| size.map(u64::from))
    else {
        return Err(format!("{}: without some of {}", path.display(), names.join(", ")));
    };
    Ok(Sizes { inode, dentry, file, dma_buf, dma_resv, attachment })
}

fn read_slabs(sys: &Path) -> Slabs {
    let size = |cache: &str| {
        let path = sys.join("kernel/slab").join(cache).join("slab_size");
        fs::read_to_string(path).ok()?.trim().parse().ok()
    };
    Slabs { inode: size("inode_cache"), dentry: size("dentry"), file: size("filp") }
}

fn of(sizes: Sizes, slabs: Slabs) -> Vec<String> {
    let Sizes { inode, dentry, file, dma_buf, dma_resv, attachment } = sizes;
    let slab = |size: Option<u64>| size.map_or(String::new(), |size| format!(" (slab {size})"));
    let own = general(dma_buf + dma_resv);
    let total =
        slabs.inode.unwrap_or(inode) + slabs.dentry.unwrap_or(dentry) + slabs.file.unwrap_or(file) + own;
    vec![
        format!(
            "inode {inode} bytes{}, dentry {dentry}{}, file {file}{}, dma_buf {dma_buf} and dma_resv {dma_resv} \
             (together kmalloc-{own}); each attached device {attachment} (kmalloc-{})",
            slab(slabs.inode),
            slab(slabs.dentry),
            slab(slabs.file),
            general(attachment),
        ),
        format!(
            "a buffer costs {total} bytes of kernel memory besides its own, 1000 buffers {} KiB",
            (total * 1000).div_ceil(1024)
        ),
    ]
}

/// How much the general allocator takes for this many bytes: its caches are the powers of two, and
/// two sizes between them.
fn general(bytes: u64) -> u64 {
    [96, 192]
        .into_iter()
        .chain([bytes.max(8).next_power_of_two()])
        .filter(|&size| size >= bytes)
        .min()
        .unwrap_or(bytes)
}

/// Counters of the whole machine, which every user may read; the first number of each. The one of
/// files leaves out what processors have not added to the total yet.
const COUNTERS: [(&str, &str); 3] =
    [("inodes", "inode-nr"), ("dentries", "dentry-state"), ("files", "file-nr")];

/// By how much the counters are higher while many buffers exist. What other processes do meanwhile
/// is included.
fn measured(kit: &Kit, exporter: Exporter) -> Option<String> {
    let before = counters()?;
    let bufs: Vec<_> = (0..MEASURED).map_while(|_| kit.make(exporter, 1).ok()).collect();
    let grown = counters()?.into_iter().zip(before).map(|(after, before)| after.saturating_sub(before));
    let grown: Vec<String> = grown.zip(COUNTERS).map(|(more, (what, _))| format!("{more} {what}")).collect();
    Some(format!("{} buffers of {}: {} more on the machine", bufs.len(), exporter.name(), grown.join(", ")))
}

fn counters() -> Option<Vec<u64>> {
    let read = |(_, file)| first(&fs::read_to_string(Path::new("/proc/sys/fs").join(file)).ok()?);
    COUNTERS.into_iter().map(read).collect()
}

fn first(text: &str) -> Option<u64> {
    text.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZES: Sizes =
        Sizes { inode: 560, dentry: 192, file: 176, dma_buf: 232, dma_resv: 40, attachment: 64 };

    /// Check that the allocated size is used where it is known, and else the size of the structure.
    #[test]
    fn sums() {
        let slabs = Slabs { inode: Some(568), dentry: Some(192), file: Some(192) };
        let notes = of(SIZES, slabs);
        assert!(notes[0].contains("inode 560 bytes (slab 568)"), "{notes:?}");
        assert!(notes[1].contains("costs 1464 bytes") && notes[1].contains("1430 KiB"), "{notes:?}");
        assert!(of(SIZES, Slabs::default())[1].contains("costs 1440 bytes"));
    }

    /// Check that sizes are rounded up to the general allocator's caches.
    #[test]
    fn general_caches() {
        assert_eq!([1, 64, 65, 97, 130, 193, 272].map(general), [8, 64, 96, 128, 192, 256, 512]);
    }

    /// Check that the first of several numbers is read, and nothing else is taken for a number.
    #[test]
    fn first_numbers() {
        assert_eq!(
            (first("1184\t0\t9223372036854775807\n"), first(""), first("x 1")),
            (Some(1184), None, None)
        );
    }
}
