//! Heaps: which exist, what an allocation has, and which sizes are refused.

use std::fs;
use std::os::fd::AsFd;

use anyhow::Context;
use dmabuf::{ErrorKind, Heap};
use rustix::fs::{OFlags, fcntl_getfl, fstat};
use rustix::io::{FdFlags, fcntl_getfd};

use super::kit::{self, fdinfo, refused};
use crate::scenario::Ctx;

/// The list equals sysfs's, and the error for an unknown name has it.
pub(super) fn list(ctx: &mut Ctx) -> anyhow::Result<()> {
    let mut known: Vec<String> = fs::read_dir("/sys/class/dma_heap")
        .context("listing the heaps in sysfs")?
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .collect();
    known.sort_unstable();
    let known = known.join(", ");
    ctx.check_eq("heaps", &known, Heap::list()?.join(", "))?;
    let message = refused(ctx, "an unknown heap", ErrorKind::NoHeap, Heap::open("sytem"))?;
    ctx.check(format!("{message:?} lists the heaps"), message.ends_with(&format!(": {known}")))
}

/// Sizes are rounded up to pages, bytes are zero, and the descriptor has the promised flags.
pub(super) fn allocate(ctx: &mut Ctx) -> anyhow::Result<()> {
    let heap = Heap::open("system")?;
    let page = kit::page();
    for (size, rounded) in [
        (1, page),
        (page - 1, page),
        (page, page),
        (page + 1, 2 * page),
        (16 * page + 1, 17 * page),
        (1 << 20, 1 << 20),
    ] {
        let buf = heap.allocate(size)?;
        let stat = fstat(&buf).context("fstat")?;
        ctx.check_eq(format!("st_size for {size} bytes"), rounded, stat.st_size)?;
        ctx.check_eq(format!("size() for {size} bytes"), rounded, buf.size()?)?;
        let bytes = kit::read_all(&buf)?;
        let zeroed = bytes.len() as u64 == rounded && bytes.iter().all(|byte| *byte == 0);
        ctx.check(format!("{size} bytes are zeroed, to the end of the page"), zeroed)?;
    }
    let buf = heap.allocate(page)?;
    ctx.check_eq("exporter", "system", fdinfo(&buf, "exp_name")?.unwrap_or_default())?;
    read_write_and_cloexec(ctx, "heap", &buf)
}

/// Checks the flags of a descriptor that an exporter made.
pub(super) fn read_write_and_cloexec(ctx: &mut Ctx, exporter: &str, buf: impl AsFd) -> anyhow::Result<()> {
    let mode = fcntl_getfl(&buf).context("F_GETFL")?;
    ctx.check(format!("{exporter} gives a descriptor to read and write"), mode.contains(OFlags::RDWR))?;
    let flags = fcntl_getfd(&buf).context("F_GETFD")?;
    ctx.check(
        format!("{exporter} gives a descriptor that is close-on-exec"),
        flags.contains(FdFlags::CLOEXEC),
    )
}

/// Size 0 is refused. So is more than the machine's memory, before the kernel kills processes to
/// get it.
pub(super) fn impossible_sizes(ctx: &mut Ctx) -> anyhow::Result<()> {
    let heap = Heap::open("system")?;
    refused(ctx, "nothing", ErrorKind::InvalidSize, heap.allocate(0))?;
    let memory = fs::read_to_string("/proc/meminfo").context("reading /proc/meminfo")?;
    let kib = memory.lines().find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB"));
    let total = kib.context("no MemTotal")?.trim().parse::<u64>()? << 10;
    for size in [total + 1, 4 * total, 1 << 62, u64::MAX] {
        refused(ctx, &format!("{size} bytes"), ErrorKind::OutOfMemory, heap.allocate(size))?;
    }
    Ok(())
}
