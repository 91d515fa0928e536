//! Mappings: their bytes, their protection, how long they live, and their references.

use std::fs;

use anyhow::Context;
use dmabuf::{Direction, DmaBuf, ErrorKind, Heap, MapMode};
use rustix::param::page_size;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::kit::{
    self, count, count_in_debugfs, fdinfo, one_of_each, page, pattern, read_all, refused, shape, vgem,
    write_at,
};
use crate::scenario::Ctx;

/// One mapping reads what another one wrote.
pub(super) fn write_is_read(ctx: &mut Ctx) -> anyhow::Result<()> {
    for (exporter, buf) in one_of_each(5)? {
        let mut writer = buf.map(MapMode::ReadWrite)?;
        let mut reader = buf.map(MapMode::Read)?;
        let bytes = pattern(17, writer.size());
        let mut access = writer.begin(&buf, Direction::Write)?;
        access.write_at(0, &bytes)?;
        access.end()?;
        let mut found = vec![0; reader.size()];
        let access = reader.begin(&buf, Direction::Read)?;
        access.read_at(0, &mut found)?;
        access.end()?;
        ctx.check(format!("{exporter}: all bytes"), bytes == found)?;
        // Neither offset nor length is a multiple of a word.
        let mut access = writer.begin(&buf, Direction::ReadWrite)?;
        access.write_at(page_size() - 5, b"across two pages")?;
        let mut own = [0; 16];
        access.read_at(page_size() - 5, &mut own)?;
        access.end()?;
        ctx.check_eq(format!("{exporter}: by itself"), "across two pages", own.escape_ascii())?;
        let copy = buf.try_clone()?;
        let mut other = [0; 16];
        reader.begin(&copy, Direction::Read)?.read_at(page_size() - 5, &mut other)?;
        let what = format!("{exporter}: by the other, in a duplicate's bracket");
        ctx.check_eq(what, "across two pages", other.escape_ascii())?;
    }
    Ok(())
}

/// A range shows the named part of the buffer, also with exporters that would map the start
/// instead.
pub(super) fn range(ctx: &mut Ctx) -> anyhow::Result<()> {
    for (exporter, buf) in one_of_each(6)? {
        let bytes = pattern(41, 6 * page_size());
        write_at(&buf, 0, &bytes)?;
        for (first, len) in [(2, 100), (3, 2 * page_size()), (5, page_size()), (0, 6 * page_size())] {
            let mut mapping = buf.map_range(MapMode::ReadWrite, first * page(), len)?;
            let mut found = vec![0; mapping.size()];
            let access = mapping.begin(&buf, Direction::Read)?;
            access.read_at(0, &mut found)?;
            access.end()?;
            let start = usize::try_from(first)? * page_size();
            let what = format!("{exporter}: {len} bytes from page {first}");
            ctx.check(&what, found == bytes[start..start + len])?;
            ctx.check_eq(format!("{what}: offset"), first * page(), mapping.offset())?;
            ctx.check_eq(format!("{what}: size"), len, mapping.size())?;
        }
        let mut mapping = buf.map_range(MapMode::ReadWrite, 4 * page(), page_size())?;
        let mut access = mapping.begin(&buf, Direction::Write)?;
        access.write_at(8, b"here")?;
        refused(
            ctx,
            &format!("{exporter}: past its end"),
            ErrorKind::InvalidRange,
            access.write_at(page_size(), b"x"),
        )?;
        access.end()?;
        let found = read_all(&buf)?;
        let found = found[4 * page_size() + 8..][..4].escape_ascii();
        ctx.check_eq(format!("{exporter}: written through a range"), "here", found)?;
        for (what, offset, len) in [
            ("misaligned", 1, 1),
            ("past the end", 6 * page(), 1),
            ("nothing", 0, 0),
            ("too long", 5 * page(), page_size() + 1),
        ] {
            let mapped = buf.map_range(MapMode::Read, offset, len);
            refused(ctx, &format!("{exporter}: {what}"), ErrorKind::InvalidRange, mapped)?;
        }
    }
    Ok(())
}

/// Each mapping is one reference if it maps the buffer's own file, and none if it maps another
/// file. Access brackets are no references.
pub(super) fn references(ctx: &mut Ctx) -> anyhow::Result<()> {
    for (exporter, buf) in one_of_each(4)? {
        let identity = buf.identity()?;
        ctx.check_eq(format!("{exporter}: count at first"), 1, count(&buf)?)?;
        let mut first = buf.map(MapMode::ReadWrite)?;
        let each = u64::from(kit::vma(&first)?.is_of(identity));
        ctx.check_eq(format!("{exporter}: count with a mapping"), 1 + each, count(&buf)?)?;
        let second = buf.map_range(MapMode::Read, 2 * page(), page_size())?;
        ctx.check_eq(format!("{exporter}: count with two"), 1 + 2 * each, count(&buf)?)?;
        let access = first.begin(&buf, Direction::ReadWrite)?;
        ctx.check_eq(format!("{exporter}: count in a bracket"), 1 + 2 * each, count(&buf)?)?;
        access.end()?;
        ctx.check_eq(format!("{exporter}: count after it"), 1 + 2 * each, count(&buf)?)?;
        drop(second);
        ctx.check_eq(format!("{exporter}: count with one again"), 1 + each, count(&buf)?)?;
        first.unmap()?;
        ctx.check_eq(format!("{exporter}: count at last"), 1, count(&buf)?)?;
        // The mapping may be refused only after the kernel has made a VMA.
        let _ = buf.map(MapMode::Private);
        ctx.check_eq(format!("{exporter}: count after a private mapping came and went"), 1, count(&buf)?)?;
    }
    Ok(())
}

/// A mapping outlives the descriptor, and the buffer is freed with the mapping.
pub(super) fn outlives_descriptor(ctx: &mut Ctx) -> anyhow::Result<()> {
    for (exporter, buf) in one_of_each(2)? {
        let ino = buf.identity()?.ino;
        let mapping = buf.map(MapMode::ReadWrite)?;
        let start = mapping.as_ptr().addr();
        let each = kit::vma(&mapping)?.is_of(buf.identity()?).then_some(1u64);
        drop(buf);
        ctx.check(format!("{exporter}: the mapping is there"), kit::vma_at(start)?.is_some())?;
        let held = count_in_debugfs(ino)?;
        ctx.check_eq(
            format!("{exporter}: count without descriptor"),
            format!("{each:?}"),
            format!("{held:?}"),
        )?;
        drop(mapping);
        ctx.check(format!("{exporter}: the mapping is gone"), kit::vma_at(start)?.is_none())?;
        let held = count_in_debugfs(ino)?;
        ctx.check_eq(format!("{exporter}: count without both"), "None", format!("{held:?}"))?;
    }
    Ok(())
}

/// An existing mapping works in an access bracket with a descriptor that was made later.
pub(super) fn later_descriptor(ctx: &mut Ctx) -> anyhow::Result<()> {
    let device = vgem()?;
    let dumb = device.create_dumb(shape(1)?)?;
    let buf = dumb.handle.export()?;
    let mut mapping = buf.map(MapMode::ReadWrite)?;
    write_at(&buf, 0, b"still here")?;
    drop(buf);
    let again = dumb.handle.export()?;
    let mut bytes = [0; 10];
    mapping.begin(&again, Direction::Read)?.read_at(0, &mut bytes)?;
    ctx.check_eq("bytes", "still here", bytes.escape_ascii())
}

/// An access bracket begins only with the buffer that is mapped.
pub(super) fn wrong_buffer(ctx: &mut Ctx) -> anyhow::Result<()> {
    let bufs = one_of_each(1)?;
    for ((exporter, buf), (_, other)) in bufs.iter().zip(one_of_each(1)?) {
        let mut mapping = buf.map(MapMode::Read)?;
        ctx.check(format!("{exporter}: they are two"), buf.identity()? != other.identity()?)?;
        let begun = mapping.begin(&other, Direction::Read);
        refused(ctx, &format!("{exporter}: the other"), ErrorKind::WrongBuffer, begun)?;
        let begun = mapping.begin(buf, Direction::Read).map(drop).map_err(|error| error.kind());
        ctx.check_eq(format!("{exporter}: the same"), "Ok(())", format!("{begun:?}"))?;
    }
    Ok(())
}

/// Modes are the kernel's protections, and access in another direction than declared is refused.
pub(super) fn protection(ctx: &mut Ctx) -> anyhow::Result<()> {
    for (exporter, buf) in one_of_each(1)? {
        let mut reading = buf.map(MapMode::Read)?;
        let mut writing = buf.map(MapMode::ReadWrite)?;
        ctx.check_eq(format!("{exporter}: Read"), "r--s", kit::vma(&reading)?.permissions)?;
        ctx.check_eq(format!("{exporter}: ReadWrite"), "rw-s", kit::vma(&writing)?.permissions)?;
        for direction in [Direction::Write, Direction::ReadWrite] {
            let what = format!("{exporter}: {direction:?} on Read");
            refused(ctx, &what, ErrorKind::AccessNotDeclared, reading.begin(&buf, direction))?;
        }
        let access = writing.begin(&buf, Direction::Write)?;
        refused(
            ctx,
            &format!("{exporter}: reading"),
            ErrorKind::AccessNotDeclared,
            access.read_at(0, &mut [0]),
        )?;
        drop(access);
        let mut access = writing.begin(&buf, Direction::Read)?;
        refused(
            ctx,
            &format!("{exporter}: writing"),
            ErrorKind::AccessNotDeclared,
            access.write_at(0, &[0]),
        )?;
    }
    Ok(())
}

/// Writes to a private mapping do not reach the buffer, or the mapping is refused with the right
/// error.
pub(super) fn private(ctx: &mut Ctx) -> anyhow::Result<()> {
    for (exporter, buf) in one_of_each(1)? {
        write_at(&buf, 0, b"shared ")?;
        let mut mapping = match buf.map(MapMode::Private) {
            Ok(mapping) => mapping,
            Err(error) => {
                let kind = format!("{:?}", error.kind());
                ctx.check_eq(
                    format!("{exporter}: refused as"),
                    format!("{:?}", ErrorKind::NotMappable),
                    kind,
                )?;
                ctx.check(format!("{error:?} names the mode"), error.to_string().contains("private"))?;
                continue;
            }
        };
        ctx.check_eq(format!("{exporter}: permissions"), "rw-p", kit::vma(&mapping)?.permissions)?;
        let mut access = mapping.begin(&buf, Direction::ReadWrite)?;
        let mut before = [0; 7];
        access.read_at(0, &mut before)?;
        access.write_at(0, b"private")?;
        let mut after = [0; 7];
        access.read_at(0, &mut after)?;
        access.end()?;
        ctx.check_eq(format!("{exporter}: before a write"), "shared ", before.escape_ascii())?;
        ctx.check_eq(format!("{exporter}: after it"), "private", after.escape_ascii())?;
        ctx.check_eq(format!("{exporter}: for others"), "shared ", read_all(&buf)?[..7].escape_ascii())?;
    }
    Ok(())
}

/// One page of the heap is physically contiguous, so it can be mapped privately.
pub(super) fn private_heap_page(ctx: &mut Ctx) -> anyhow::Result<()> {
    let buf = Heap::open("system")?.allocate(page())?;
    let mapped = buf.map(MapMode::Private).map(drop).map_err(|error| error.kind());
    ctx.check_eq("a private mapping of one page", "Ok(())", format!("{mapped:?}"))
}

/// The error says that the address space is exhausted.
pub(super) fn no_room(ctx: &mut Ctx) -> anyhow::Result<()> {
    let pages = (16 << 20) / page();
    let statm = fs::read_to_string("/proc/self/statm").context("reading /proc/self/statm")?;
    let used = statm.split(' ').next().context("an empty statm")?.parse::<u64>()? * page();
    for (exporter, buf) in one_of_each(pages)? {
        let old = getrlimit(Resource::As);
        let new = Rlimit { current: Some(used + pages / 2 * page()), ..old };
        setrlimit(Resource::As, new).context("lowering the limit of the address space")?;
        let mapped = buf.map(MapMode::Read);
        setrlimit(Resource::As, old).context("raising the limit of the address space")?;
        refused(ctx, exporter, ErrorKind::OutOfMemory, mapped)?;
    }
    Ok(())
}

/// The identity equals what the kernel prints.
pub(super) fn identity(ctx: &mut Ctx) -> anyhow::Result<()> {
    for (exporter, buf) in one_of_each(3)? {
        let identity = buf.identity()?;
        ctx.check_eq(
            format!("{exporter}: size in fdinfo"),
            fdinfo(&buf, "size")?.unwrap_or_default(),
            identity.size,
        )?;
        // Older kernels do not print it.
        if let Some(ino) = fdinfo(&buf, "ino")? {
            ctx.check_eq(format!("{exporter}: ino in fdinfo"), ino, identity.ino)?;
        }
        let mapping = buf.map(MapMode::Read)?;
        let vma = kit::vma(&mapping)?;
        if vma.path.starts_with("/dmabuf:") {
            ctx.check(format!("{exporter}: {vma:?} is of the buffer"), vma.is_of(identity))?;
        }
        let known = count_in_debugfs(identity.ino)?;
        let counted = Some(count(&buf)?);
        ctx.check_eq(format!("{exporter}: known to debugfs"), format!("{counted:?}"), format!("{known:?}"))?;
        let copy: DmaBuf = buf.try_clone()?;
        ctx.check(format!("{exporter}: a duplicate is the same"), copy.identity()? == identity)?;
    }
    Ok(())
}
