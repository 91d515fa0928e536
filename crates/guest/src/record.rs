//! Records what lsbuf reads of this machine, so that a test can get the same answer without this
//! kernel.
//!
//! A small world of actors is started and paused. lsbuf runs, and its answer is compared with what
//! the actors say. Then every file and link that lsbuf reads of any process is copied into a
//! [`Tree`], which is printed as text:
//!
//! - `proc/` and `sys/`, for `--proc-root` and `--sys-root`;
//! - `proc/.lsbuf/dmabuf-dev` and `proc/P/.lsbuf/{fd/N,map_files/A-B}`: what only the inode of a
//!   running kernel tells;
//! - `proc/.lsbuf/shared`: the tasks that share an fd table or an address space. In this world
//!   there are none;
//! - `live.json`: lsbuf's answer; `truth.json`: each buffer's account by the actors, as
//!   [`Truth::line`](crate::answer::Truth::line) writes it.
//!
//! Limits: most kernel threads are left out, because they are all alike. Of a thread only its id is
//! recorded, unless its fd table differs from its process's. A file that the kernel refuses to read
//! because the process has no address space is recorded as empty.

pub(crate) mod world;

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, ensure};
use rustix::fs::{AtFlags, Mode, OFlags, StatxFlags, fstatfs, open, statx};
use rustix::io::Errno;

use crate::answer::Answer;
use crate::processes;
use crate::tree::{Node, Tree};

/// `DMA_BUF_MAGIC` of include/uapi/linux/magic.h.
const DMA_BUF_MAGIC: i64 = 0x444d_4142;

/// How many kernel threads are recorded: `kthreadd` and two of its children.
const KERNEL_THREADS: usize = 3;

/// Starts the world, records it and prints the tree.
///
/// # Errors
///
/// The world cannot be made, lsbuf's answer differs from the actors', or something cannot be read.
pub fn run() -> anyhow::Result<ExitCode> {
    let world = world::RecordedWorld::play()?;
    // A recorded tree has the text of `maps`, but PROCMAP_QUERY needs a kernel.
    let answer = Answer::ask(&["--source", "maps,bufinfo"])?;
    let mut truth = Vec::new();
    for told in &world.told {
        let (expected, printed) = (told.truth.line(told.size), answer.line(told.ino)?);
        ensure!(expected == printed, "expected {expected}\nprinted  {printed}");
        truth.push(serde_json::json!({ "ino": told.ino, "line": expected }));
    }
    ensure!(answer.list("buffers").len() == truth.len(), "lsbuf knows other buffers: {}", answer.0);
    let mut tree = Tree::default();
    tree.file("live.json".to_owned(), pretty(&answer.0)?);
    tree.file("truth.json".to_owned(), pretty(&truth.into())?);
    copy(&mut tree)?;
    let release = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    print!("{}", String::from_utf8(tree.to_text(&format!("Linux {release}by cargo xtask record")))?);
    Ok(ExitCode::SUCCESS)
}

fn pretty(value: &serde_json::Value) -> anyhow::Result<Vec<u8>> {
    let mut text = serde_json::to_vec_pretty(value)?;
    text.push(b'\n');
    Ok(text)
}

fn copy(tree: &mut Tree) -> anyhow::Result<()> {
    for file in [
        "proc/sys/kernel/osrelease",
        "proc/sys/kernel/hostname",
        "proc/sys/kernel/random/boot_id",
        "sys/kernel/debug/dma_buf/bufinfo",
    ] {
        copy_file(tree, file)?;
    }
    tree.file("proc/.lsbuf/shared".to_owned(), Vec::new());
    for (node, _) in links("/sys/class/drm")? {
        let device = format!("sys/class/drm/{node}/device");
        if let Ok(target) = fs::read_link(Path::new("/").join(&device)) {
            tree.0.insert(device, Node::Link(target.as_os_str().as_bytes().to_vec()));
        }
    }
    let mut pids = numbers("/proc")?;
    let mut threads = 0;
    pids.retain(|pid| {
        let is_thread = is_kernel_thread(*pid);
        threads += usize::from(is_thread);
        !is_thread || threads <= KERNEL_THREADS
    });
    for pid in pids {
        copy_process(tree, pid).with_context(|| format!("recording process {pid}"))?;
    }
    Ok(())
}

/// Whether this is `kthreadd` or one of its children.
fn is_kernel_thread(pid: u32) -> bool {
    pid == 2 || fs::read(format!("/proc/{pid}/stat")).is_ok_and(|stat| processes::parent(&stat) == Some(2))
}

fn copy_process(tree: &mut Tree, pid: u32) -> anyhow::Result<()> {
    let process = format!("proc/{pid}");
    for file in ["stat", "status", "cgroup", "maps", "mountinfo"] {
        copy_file(tree, &format!("{process}/{file}"))?;
    }
    copy_table(tree, &process)?;
    copy_mappings(tree, &process)?;
    for tid in numbers(&format!("/{process}/task"))? {
        let thread = format!("{process}/task/{tid}");
        tree.0.insert(thread.clone(), Node::Folder);
        if tid != pid && links(&format!("/{thread}/fd"))? != links(&format!("/{process}/fd"))? {
            copy_table(tree, &thread)?;
        }
    }
    Ok(())
}

/// Copies the links of an fd table, and their fdinfo.
fn copy_table(tree: &mut Tree, owner: &str) -> anyhow::Result<()> {
    tree.0.insert(format!("{owner}/fd"), Node::Folder);
    for (fd, target) in links(&format!("/{owner}/fd"))? {
        copy_file(tree, &format!("{owner}/fdinfo/{fd}"))?;
        copy_link(tree, owner, &format!("fd/{fd}"), target)?;
    }
    Ok(())
}

/// Copies the links of mappings that look like a dma-buf's. lsbuf reads no others.
fn copy_mappings(tree: &mut Tree, process: &str) -> anyhow::Result<()> {
    for (range, target) in links(&format!("/{process}/map_files"))? {
        if target.starts_with(b"/dmabuf:") {
            copy_link(tree, process, &format!("map_files/{range}"), target)?;
        }
    }
    Ok(())
}

/// Copies a link, and what its inode tells if it looks like a dma-buf's.
fn copy_link(tree: &mut Tree, owner: &str, link: &str, target: Vec<u8>) -> anyhow::Result<()> {
    if target.starts_with(b"/dmabuf:") {
        let path = format!("/{owner}/{link}");
        let object = open(&path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
            .with_context(|| format!("pinning {path}"))?;
        let inode = statx(&object, c"", AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS)?;
        let magic = fstatfs(&object)?.f_type;
        let dev = format!("{}:{}", inode.stx_dev_major, inode.stx_dev_minor);
        let (changed, modified) = (inode.stx_ctime, inode.stx_mtime);
        let text = format!(
            "{magic:x} {dev} {} {} {} {}.{:09} {}.{:09}\n",
            inode.stx_ino,
            inode.stx_size,
            inode.stx_uid,
            changed.tv_sec,
            changed.tv_nsec,
            modified.tv_sec,
            modified.tv_nsec
        );
        tree.file(format!("{owner}/.lsbuf/{link}"), text.into_bytes());
        if magic == DMA_BUF_MAGIC {
            tree.file("proc/.lsbuf/dmabuf-dev".to_owned(), format!("{dev}\n").into_bytes());
        }
    }
    tree.0.insert(format!("{owner}/{link}"), Node::Link(target));
    Ok(())
}

/// Copies a file, unless it is gone or this kind of process does not have it.
fn copy_file(tree: &mut Tree, path: &str) -> anyhow::Result<()> {
    let bytes = match fs::read(Path::new("/").join(path)) {
        Ok(bytes) => bytes,
        Err(error) => match Errno::from_io_error(&error) {
            Some(Errno::SRCH) => Vec::new(),
            Some(Errno::NOENT | Errno::INVAL) => return Ok(()),
            _ => return Err(error).with_context(|| format!("reading {path}")),
        },
    };
    tree.file(path.to_owned(), bytes);
    Ok(())
}

/// The entries of a folder that are numbers, in ascending order.
fn numbers(folder: &str) -> anyhow::Result<Vec<u32>> {
    let entries = fs::read_dir(folder).with_context(|| format!("listing {folder}"))?;
    let mut numbers: Vec<u32> =
        entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    numbers.sort_unstable();
    Ok(numbers)
}

/// The links in a folder, by name. Of a zombie the folder is empty, and a link that was closed
/// meanwhile is left out.
fn links(folder: &str) -> anyhow::Result<Vec<(String, Vec<u8>)>> {
    let entries = fs::read_dir(folder).with_context(|| format!("listing {folder}"))?;
    let names: Vec<String> =
        entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect();
    let target = |name: String| {
        let target = fs::read_link(Path::new(folder).join(&name)).ok()?;
        Some((name, AsRef::<OsStr>::as_ref(&target).as_bytes().to_vec()))
    };
    Ok(names.into_iter().filter_map(target).collect())
}
