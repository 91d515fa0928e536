//! Finds out without BPF who pays for buffers: the fallback where the iterator for payers is not to
//! be had ([`page_payers`]).
//!
//! A file is opened through the first link of a holder by which that is possible, unless somebody
//! would notice. The kernel names the nearest cgroup that exists. So if a removed cgroup is below
//! it, that one may be the payer, and the pages are not ascribed to anybody.
//!
//! Limits: those of [`page_payers`] and [`Cgroups`]. Files that nobody holds are not opened.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use rustix::fs::{OFlags, fstat};
use rustix::io::Errno;
use rustix::param::page_size;

use super::options::Options;
use crate::kernel::cgroups::Cgroups;
use crate::kernel::map_files;
use crate::kernel::page_payers::{PageTables, PaidPages, has_swap_cache};
use crate::kernel::process::ProcessDir;
use crate::kernel::root::ProcRoot;
use crate::kernel::shmem::seals;
use crate::model::{Buffer, Bytes, Kind, Payer, Payers, PayingCgroup};

/// Adds who pays for these buffers, as far as that can be found out. An error: for none, and why.
pub(super) fn add<'b>(
    root: &ProcRoot,
    options: &Options,
    buffers: impl Iterator<Item = &'b mut Buffer>,
) -> Result<(), String> {
    let because = |what: &str, errno: Errno| format!("{what}: {}", std::io::Error::from(errno));
    if !root.is_live() || !root.has_own_pids() {
        return Err("the procfs is not that of this process".to_owned());
    }
    let sys = options.sys_root.as_deref().ok_or("there is no sysfs")?;
    let tables = PageTables::open(root).map_err(|errno| because("kpagecgroup", errno))?;
    if has_swap_cache(root.dir()) {
        return Err("kpagecgroup: pages of swap are in memory".to_owned());
    }
    let cgroups = Cgroups::list(sys).map_err(|errno| match errno {
        Errno::NODEV => "kpagecgroup: memory is not controlled in the unified cgroup hierarchy".to_owned(),
        errno => because("cgroups", errno),
    })?;
    for buffer in buffers.filter(|buffer| can_be_asked(buffer)) {
        let Some(file) = open(root, buffer) else { continue };
        let Ok(stat) = fstat(&file) else { continue };
        match tables.count(file.as_fd(), stat.st_size.cast_unsigned()) {
            Ok(pages) => {
                let charged = Bytes(stat.st_blocks.cast_unsigned().saturating_mul(512));
                buffer.payers = Some(Box::new(payers(&cgroups, &pages, charged)));
            }
            Err(errno @ Errno::PERM) => return Err(because("pagemap", errno)),
            Err(_) => {}
        }
    }
    Ok(())
}

/// Whether it is a file of pages of the smallest size.
fn can_be_asked(buffer: &Buffer) -> bool {
    let is_file = matches!(buffer.id.kind, Kind::Memfd | Kind::Tmpfs | Kind::ShmAnon | Kind::Sysv);
    is_file && buffer.huge_page.is_none() && buffer.payers.is_none()
}

/// Opens a buffer through one of its holders, without changing when it was last read.
fn open(root: &ProcRoot, buffer: &Buffer) -> Option<OwnedFd> {
    let id = (buffer.id.dev?, buffer.id.ino);
    buffer.holders.iter().find_map(|holder| {
        let process = ProcessDir::open(root, holder.pid).ok()?;
        let fd = holder.fds.iter().chain(&holder.opaths).map(|fd| format!("fd/{fd}")).next();
        let map = || holder.maps.first().map(|map| map_files::link(map).as_str().to_owned());
        seals::open(root, &process, &fd.or_else(map)?, id, OFlags::NOATIME).ok()
    })
}

/// The payers in the words of the model. What is charged and not in memory is in swap.
fn payers(cgroups: &Cgroups, pages: &PaidPages, charged: Bytes) -> Payers {
    let bytes = |pages: u64| Bytes(pages.saturating_mul(page_size() as u64));
    let mut found =
        Payers { nobody: bytes(pages.nobody), unknown: bytes(pages.unknown), ..Payers::default() };
    for (&ino, &number) in &pages.cgroups {
        match cgroups.path(ino).filter(|_| cgroups.has_none_removed(ino)) {
            Some(path) => {
                let cgroup = PayingCgroup { path, removed: false, unified: true, id: ino };
                found.cgroups.push(Payer { cgroup: Arc::new(cgroup), bytes: bytes(number) });
            }
            None => found.unknown = found.unknown + bytes(number),
        }
    }
    found.cgroups.sort_by(|a, b| (b.bytes, &a.cgroup).cmp(&(a.bytes, &b.cgroup)));
    found.swapped = Bytes(charged.0.saturating_sub(bytes(pages.total()).0));
    found
}
