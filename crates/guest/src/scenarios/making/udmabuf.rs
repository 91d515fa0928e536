//! udmabuf: the buffer and the memfd are the same pages, in the order of the ranges, and mistakes
//! have their own error kinds.

use std::fs;
use std::os::fd::OwnedFd;

use anyhow::Context;
use dmabuf::{ErrorKind, SealedMemfd, Udmabuf};
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};
use rustix::io::{pread, pwrite};

use super::heap::read_write_and_cloexec;
use super::kit::{self, fdinfo, page, pattern, read_all, refused, write_at};
use crate::make::HugePages;
use crate::scenario::Ctx;

/// Writes all of `bytes` through the memfd.
fn write_memfd(memfd: &SealedMemfd, offset: u64, bytes: &[u8]) -> anyhow::Result<()> {
    let written = pwrite(memfd, bytes, offset).context("writing to the memfd")?;
    anyhow::ensure!(written == bytes.len(), "the memfd took {written} bytes of {}", bytes.len());
    Ok(())
}

/// Reads `len` bytes through the memfd.
fn read_memfd(memfd: &SealedMemfd, offset: u64, len: usize) -> anyhow::Result<Vec<u8>> {
    let mut bytes = vec![0; len];
    let read = pread(memfd, &mut bytes[..], offset).context("reading the memfd")?;
    anyhow::ensure!(read == len, "the memfd gave {read} bytes of {len}");
    Ok(bytes)
}

/// One range in the middle of a memfd.
pub(super) fn one_range(ctx: &mut Ctx) -> anyhow::Result<()> {
    let size = usize::try_from(page())?;
    let memfd = SealedMemfd::create("range", 4 * page())?;
    let before = pattern(1, 4 * size);
    write_memfd(&memfd, 0, &before)?;
    let buf = Udmabuf::open()?.create(memfd.range(page(), 2 * page())?)?;
    ctx.check_eq("size() is the range's", 2 * page(), buf.size()?)?;
    ctx.check_eq("exporter", "udmabuf", fdinfo(&buf, "exp_name")?.unwrap_or_default())?;
    read_write_and_cloexec(ctx, "udmabuf", &buf)?;
    ctx.check("bytes of the memfd are in the buffer", read_all(&buf)? == before[size..3 * size])?;
    // Across the boundary between its two pages, and not aligned to a word.
    let text = b"written through the dma-buf";
    write_at(&buf, size - 9, text)?;
    let mut after = before;
    after[2 * size - 9..][..text.len()].copy_from_slice(text);
    ctx.check(
        "bytes written through the buffer are in the memfd",
        read_memfd(&memfd, 0, 4 * size)? == after,
    )?;
    write_memfd(&memfd, page() + 3, b"and back")?;
    let all = read_all(&buf)?;
    ctx.check_eq("bytes written to the memfd later", "and back", all[3..11].escape_ascii())
}

/// Ranges of two memfds, out of order, and one page in two buffers.
pub(super) fn several_ranges(ctx: &mut Ctx) -> anyhow::Result<()> {
    let size = usize::try_from(page())?;
    let (one, two) = (SealedMemfd::create("one", 4 * page())?, SealedMemfd::create("two", 2 * page())?);
    let (in_one, in_two) = (pattern(7, 4 * size), pattern(99, 2 * size));
    write_memfd(&one, 0, &in_one)?;
    write_memfd(&two, 0, &in_two)?;
    let device = Udmabuf::open()?;
    let ranges = [one.range(2 * page(), 2 * page())?, two.range(page(), page())?, one.range(0, page())?];
    let buf = device.create_list(&ranges)?;
    let expected = [&in_one[2 * size..], &in_two[size..], &in_one[..size]].concat();
    ctx.check_eq("size() is the sum", 4 * page(), buf.size()?)?;
    ctx.check("the ranges follow each other in the order given", read_all(&buf)? == expected)?;
    read_write_and_cloexec(ctx, "udmabuf's list", &buf)?;
    write_at(&buf, 2 * size, b"third page")?;
    let found = read_memfd(&two, page(), 10)?;
    ctx.check_eq("the third page is the second memfd's second", "third page", found.escape_ascii())?;

    let overlapping = device.create(two.whole()?)?;
    drop((one, two));
    write_at(&overlapping, size, b"THIRD")?;
    let found = read_all(&buf)?;
    let found = found[2 * size..][..10].escape_ascii();
    ctx.check_eq("buffers share a page, without their memfds", "THIRD page", found)
}

/// Mistakes about the memfd and its range.
pub(super) fn mistakes(ctx: &mut Ctx) -> anyhow::Result<()> {
    let memfd = SealedMemfd::create("range", 4 * page())?;
    refused(ctx, "a misaligned offset", ErrorKind::InvalidRange, memfd.range(100, page()))?;
    refused(ctx, "a misaligned size", ErrorKind::InvalidSize, memfd.range(0, page() + 1))?;
    refused(ctx, "a range past the end", ErrorKind::InvalidRange, memfd.range(page(), 4 * page()))?;
    let device = Udmabuf::open()?;
    refused(ctx, "no range", ErrorKind::InvalidSize, device.create_list(&[]))?;
    let sealed = |seals| -> anyhow::Result<OwnedFd> {
        let fd = memfd_create("sealed", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
        ftruncate(&fd, page())?;
        fcntl_add_seals(&fd, seals)?;
        Ok(fd)
    };
    let unsealed = SealedMemfd::try_from_fd(sealed(SealFlags::empty())?);
    let message = refused(ctx, "an unsealed memfd", ErrorKind::NotSealed, unsealed)?;
    ctx.check(format!("{message:?} names the seal"), message.contains("F_SEAL_SHRINK"))?;
    let write_sealed = SealedMemfd::try_from_fd(sealed(SealFlags::SHRINK | SealFlags::WRITE)?);
    refused(ctx, "a memfd sealed against writing", ErrorKind::NotSealed, write_sealed)?;
    let plain = fs::File::create_new("/tmp/making-plain").context("making a file")?;
    refused(ctx, "a file", ErrorKind::NotSealed, SealedMemfd::try_from_fd(plain.into()))?;
    fs::remove_file("/tmp/making-plain").context("removing the file")?;
    // Only the kernel can say whether it accepts this seal, so only the ioctl refuses it.
    let future = SealedMemfd::try_from_fd(sealed(SealFlags::SHRINK | SealFlags::FUTURE_WRITE)?)?;
    let message = refused(
        ctx,
        "a memfd sealed against future writing",
        ErrorKind::NotSealed,
        device.create(future.whole()?),
    )?;
    ctx.check(format!("{message:?} names the seal"), message.contains("F_SEAL_FUTURE_WRITE"))
}

/// The module's limits, as they are and as root sets them.
pub(super) fn limits(ctx: &mut Ctx) -> anyhow::Result<()> {
    const PARAMETERS: &str = "/sys/module/udmabuf/parameters";
    let device = Udmabuf::open()?;
    let mut with = |parameter: &str, value: &str, script: &mut dyn FnMut(&mut Ctx) -> anyhow::Result<()>| {
        let path = format!("{PARAMETERS}/{parameter}");
        let old = fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
        fs::write(&path, value).with_context(|| format!("writing {path}"))?;
        let result = script(ctx);
        fs::write(&path, old).with_context(|| format!("restoring {path}"))?;
        result
    };
    with("size_limit_mb", "1", &mut |ctx| {
        ctx.check_eq("1 MiB of 1", 1 << 20, device.allocate(1 << 20)?.size()?)?;
        let message =
            refused(ctx, "more than 1 MiB", ErrorKind::SizeLimit, device.allocate((1 << 20) + page()))?;
        let path = format!("{PARAMETERS}/size_limit_mb");
        ctx.check(format!("{message:?} says where to raise it"), message.contains(&path))
    })?;
    with("list_limit", "2", &mut |ctx| {
        let memfd = SealedMemfd::create("list", page())?;
        let range = memfd.whole()?;
        ctx.check_eq("2 ranges of 2", 2 * page(), device.create_list(&[range; 2])?.size()?)?;
        let message = refused(ctx, "3 ranges of 2", ErrorKind::SizeLimit, device.create_list(&[range; 3]))?;
        let path = format!("{PARAMETERS}/list_limit");
        ctx.check(format!("{message:?} says where to raise it"), message.contains(&path))
    })
}

/// A memfd of huge pages that the crate did not make, in parts smaller than a huge page.
pub(super) fn huge_pages(ctx: &mut Ctx) -> anyhow::Result<()> {
    const HUGE: u64 = HugePages::SIZE;
    let _aside = HugePages::set_aside(4)?;
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING | MemfdFlags::HUGETLB | MemfdFlags::HUGE_2MB;
    let fd = memfd_create("huge", flags).context("making a memfd of huge pages")?;
    ftruncate(&fd, 2 * HUGE).context("sizing it")?;
    fcntl_add_seals(&fd, SealFlags::SHRINK).context("sealing it")?;
    let memfd = SealedMemfd::try_from_fd(fd)?;
    let size = usize::try_from(page())?;
    // From the last page of the first huge page to the first page of the second one.
    let start = HUGE - page();
    let buf = Udmabuf::open()?.create(memfd.range(start, 2 * page())?)?;
    ctx.check_eq("size() is the range's", 2 * page(), buf.size()?)?;
    let bytes = pattern(3, 2 * size);
    kit::write_at(&buf, 0, &bytes)?;
    // One huge page at a time: hugetlbfs has no write, and a read stops at the end of a page.
    let first = read_memfd(&memfd, start, size)?;
    let second = read_memfd(&memfd, HUGE, size)?;
    ctx.check("the first page is at the end of the first huge page", first == bytes[..size])?;
    ctx.check("the second page is at the start of the second huge page", second == bytes[size..])?;
    Ok(())
}
