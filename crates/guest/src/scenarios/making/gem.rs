//! DRM: finding a device, dumb buffers, export, import, and what handles hold.

use std::fs::{self, File};

use anyhow::Context;
use dmabuf::{DrmDevice, DumbSize, ErrorKind, MapMode};
use rustix::fs::fstat;

use super::heap::read_write_and_cloexec;
use super::kit::{
    count, count_in_debugfs, fdinfo, one_of_each, page, pattern, read_all, refused, shape, vgem, write_at,
};
use crate::need::vgem_node;
use crate::scenario::Ctx;

/// A driver is found by its name. Files that are not DRM devices, and devices without dumb buffers,
/// are refused.
pub(super) fn find(ctx: &mut Ctx) -> anyhow::Result<()> {
    let node = vgem_node("card").context("no vgem")?;
    let device = DrmDevice::find("vgem")?;
    ctx.check_eq("the node of vgem", node.display(), device.path().display())?;
    ctx.check_eq("its driver", "vgem", device.driver())?;
    let message = refused(ctx, "an unknown driver", ErrorKind::NoDrmDevice, DrmDevice::find("nope"))?;
    let found = format!("{} (vgem)", node.display());
    ctx.check(format!("{message:?} lists {found}"), message.contains(&found))?;
    for path in ["/dev/dri/card63", "/dev/null", "/dev/dri", "/proc/version"] {
        refused(ctx, path, ErrorKind::NoDrmDevice, DrmDevice::open(path))?;
    }
    let render = DrmDevice::open(vgem_node("renderD").context("no render node")?)?;
    ctx.check_eq("the render node's driver", "vgem", render.driver())?;
    let message = refused(
        ctx,
        "a dumb buffer of a render node",
        ErrorKind::Unsupported,
        render.create_dumb(shape(1)?),
    )?;
    ctx.check(format!("{message:?} names the right node"), message.contains("primary node"))
}

/// How many masters and how many clients the device has, by its list of clients.
fn masters(node: &str) -> anyhow::Result<(usize, usize)> {
    let number = node.trim_start_matches("/dev/dri/card");
    let path = format!("/sys/kernel/debug/dri/{number}/clients");
    let text = fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
    // The fourth column is y or n.
    let column = |line: &str| line.split_ascii_whitespace().nth(3).map(str::to_owned);
    let flags: Vec<String> = text.lines().skip(1).filter_map(column).collect();
    Ok((flags.iter().filter(|flag| *flag == "y").count(), flags.len()))
}

/// An open `DrmDevice` is not the device's master, so a display server can become it.
pub(super) fn gives_up_master(ctx: &mut Ctx) -> anyhow::Result<()> {
    let node = vgem_node("card").context("no vgem")?;
    let node = node.to_str().context("a node that is not UTF-8")?;
    let plain = File::options().read(true).write(true).open(node)?;
    ctx.check_eq("(masters, clients) after a plain open", "(1, 1)", format!("{:?}", masters(node)?))?;
    drop(plain);
    let device = vgem()?;
    ctx.check_eq("(masters, clients) with a DrmDevice", "(0, 1)", format!("{:?}", masters(node)?))?;
    let plain = File::options().read(true).write(true).open(node)?;
    ctx.check_eq("(masters, clients) with a display server", "(1, 2)", format!("{:?}", masters(node)?))?;
    drop((device, plain));
    Ok(())
}

/// A buffer has the requested dimensions, and impossible ones are refused.
pub(super) fn dumb(ctx: &mut Ctx) -> anyhow::Result<()> {
    let device = vgem()?;
    let dumb = device.create_dumb(DumbSize::at_least(10_000).context("a shape")?)?;
    let (row, rows) = (1024 * 4_u64, 3);
    let rounded = (row * rows).next_multiple_of(page());
    ctx.check_eq("bytes of a row", row, dumb.pitch)?;
    ctx.check_eq("size", rounded, dumb.size)?;
    let buf = dumb.handle.export()?;
    ctx.check_eq("st_size", rounded, fstat(&buf).context("fstat")?.st_size)?;
    ctx.check_eq("exporter", "drm", fdinfo(&buf, "exp_name")?.unwrap_or_default())?;
    read_write_and_cloexec(ctx, "PRIME", &buf)?;
    let bytes = read_all(&buf)?;
    ctx.check("it is zeroed", bytes.len() as u64 == rounded && bytes.iter().all(|byte| *byte == 0))?;
    for (what, width, height, bits_per_pixel) in [
        ("no rows", 1024, 0, 32),
        ("more than 4 GiB", 1 << 20, 1 << 20, 32),
        ("more than 4 GiB in a row", u32::MAX, 1, 32),
        ("too many bits", 1024, 1, u32::MAX),
    ] {
        let size = DumbSize { width, height, bits_per_pixel };
        refused(ctx, what, ErrorKind::InvalidSize, device.create_dumb(size))?;
    }
    Ok(())
}

/// All exports of a handle are one buffer. The handle holds two references to it while it is open.
pub(super) fn export(ctx: &mut Ctx) -> anyhow::Result<()> {
    let device = vgem()?;
    let dumb = device.create_dumb(shape(2)?)?;
    let first = dumb.handle.export()?;
    ctx.check_eq("count with one descriptor", 1 + 2, count(&first)?)?;
    let second = dumb.handle.export()?;
    ctx.check_eq("identity", format!("{:?}", first.identity()?), format!("{:?}", second.identity()?))?;
    ctx.check_eq("count with two descriptors", 2 + 2, count(&first)?)?;
    write_at(&first, 0, b"one buffer")?;
    ctx.check_eq("bytes", "one buffer", read_all(&second)?[..10].escape_ascii())?;
    drop(first);
    let other = device.create_dumb(shape(2)?)?.handle.export()?;
    ctx.check("another buffer has another identity", other.identity()? != second.identity()?)?;
    ctx.check_eq("count once the handle is closed", 1, count(&other)?)?;
    dumb.handle.close()?;
    ctx.check_eq("count once this handle is closed", 1, count(&second)?)
}

/// The same device's import gives the existing handle, and dropping its last use closes it.
pub(super) fn import_own(ctx: &mut Ctx) -> anyhow::Result<()> {
    let device = vgem()?;
    let dumb = device.create_dumb(shape(1)?)?;
    let buf = dumb.handle.export()?;
    let again = device.import(&buf)?;
    ctx.check_eq("the handle", dumb.handle.id(), again.id())?;
    ctx.check_eq("count: a descriptor, the export", 1 + 2, count(&buf)?)?;
    dumb.handle.close()?;
    ctx.check_eq("count after one of two uses is closed", 1 + 2, count(&buf)?)?;
    ctx.check_eq(
        "the other use exports",
        format!("{:?}", buf.identity()?),
        format!("{:?}", again.export()?.identity()?),
    )?;
    drop(again);
    ctx.check_eq("count after the last use", 1, count(&buf)?)?;
    let renewed = device.import(&buf)?;
    ctx.check("a closed handle can be had again", renewed.export()?.identity()? == buf.identity()?)?;
    // A handle is valid only with the device file that made it.
    let elsewhere = vgem()?;
    let theirs = elsewhere.import(&buf)?;
    ctx.check("another open device imports it", theirs.export()?.identity()? == buf.identity()?)
}

/// An import from another exporter keeps the buffer without any descriptor, until the handle is
/// closed.
pub(super) fn import_foreign(ctx: &mut Ctx) -> anyhow::Result<()> {
    for (exporter, buf) in one_of_each(3)?.into_iter().filter(|(exporter, _)| *exporter != "vgem") {
        let device = vgem()?;
        let identity = buf.identity()?;
        let bytes = pattern(5, usize::try_from(3 * page())?);
        write_at(&buf, 0, &bytes)?;
        ctx.check_eq(format!("{exporter}: count before"), 1, count(&buf)?)?;
        let handle = device.import(&buf)?;
        ctx.check_eq(format!("{exporter}: count after the import"), 1 + 3, count(&buf)?)?;
        let again = device.import(&buf)?;
        ctx.check_eq(format!("{exporter}: the second import's handle"), handle.id(), again.id())?;
        ctx.check_eq(format!("{exporter}: count after the second"), 1 + 3, count(&buf)?)?;
        again.close()?;
        let elsewhere = vgem()?;
        let theirs = elsewhere.import(&buf)?;
        ctx.check_eq(format!("{exporter}: count after another device's import"), 1 + 3 + 3, count(&buf)?)?;
        theirs.close()?;
        ctx.check_eq(format!("{exporter}: count after its close"), 1 + 3, count(&buf)?)?;
        drop(buf);
        let held = count_in_debugfs(identity.ino)?;
        ctx.check_eq(format!("{exporter}: without descriptor"), "Some(3)", format!("{held:?}"))?;
        let exported = handle.export()?;
        ctx.check(format!("{exporter}: exported again, it is the same"), exported.identity()? == identity)?;
        ctx.check(format!("{exporter}: its bytes are the same"), read_all(&exported)? == bytes)?;
        drop(exported);
        handle.close()?;
        let held = count_in_debugfs(identity.ino)?;
        ctx.check_eq(format!("{exporter}: after the handle is closed"), "None", format!("{held:?}"))?;
    }
    Ok(())
}

/// A handle after `into_raw` lives until the device's descriptor is closed.
pub(super) fn into_raw(ctx: &mut Ctx) -> anyhow::Result<()> {
    let device = vgem()?;
    let handle = device.create_dumb(shape(1)?)?.handle;
    let buf = handle.export()?;
    let id = handle.into_raw();
    ctx.check_eq("count after into_raw", 1 + 2, count(&buf)?)?;
    let again = device.import(&buf)?;
    ctx.check_eq("the handle", id, again.id())?;
    drop(again);
    ctx.check_eq("count after another use is dropped", 1 + 2, count(&buf)?)?;
    drop(device);
    ctx.check_eq("count after the device is closed", 1, count(&buf)?)?;
    buf.map(MapMode::ReadWrite)?;
    ctx.check_eq("count after a mapping came and went", 1, count(&buf)?)
}
