//! V4L2: finding a capture device, its buffers as dma-bufs, and dma-bufs as its buffers.
//!
//! The expected values follow from the kernel's videobuf2. A dma-buf's size is the frame's in whole
//! pages. Each export is a new dma-buf over the same pages. A queue takes one reference when a
//! dma-buf is queued.

use dmabuf::{DmaBuf, ErrorKind, VideoDevice};

use super::heap::read_write_and_cloexec;
use super::kit::{self, count, count_in_debugfs, fdinfo, page, pattern, read_all, refused, shape, write_at};
use crate::make::{self, vivid};
use crate::need::vivid_node;
use crate::scenario::Ctx;

/// A driver is found by its name, and files that are not capture devices are refused.
pub(super) fn find(ctx: &mut Ctx) -> anyhow::Result<()> {
    let node = vivid_node("vid-cap").unwrap_or_default();
    let device = VideoDevice::find("vivid")?;
    ctx.check_eq("the node", node.display(), device.path().display())?;
    ctx.check_eq("its driver", "vivid", device.driver())?;
    let message = refused(ctx, "an unknown driver", ErrorKind::NoVideoDevice, VideoDevice::find("nope"))?;
    let found = format!("{} (vivid)", node.display());
    ctx.check(format!("{message:?} lists {found}"), message.contains(&found))?;
    for path in ["/dev/video63", "/dev/null", "/dev", "/proc/version"] {
        refused(ctx, path, ErrorKind::NoVideoDevice, VideoDevice::open(path))?;
    }
    let output = vivid_node("vid-out").unwrap_or_default();
    let message = refused(ctx, "an output", ErrorKind::NoVideoDevice, VideoDevice::open(output))?;
    ctx.check(format!("{message:?} says why"), message.contains("captures no frames"))
}

/// All exports have the same memory. Each is a separate dma-buf, and only its descriptor keeps it.
pub(super) fn export(ctx: &mut Ctx) -> anyhow::Result<()> {
    let mut device = vivid()?;
    let size = device.frame_size()?.next_multiple_of(page());
    let buffers = device.buffers(2)?;
    ctx.check("as many buffers as asked for, or more", buffers.len() >= 2)?;
    let (first, second) = (buffers.export(0)?, buffers.export(0)?);
    let other = buffers.export(1)?;
    refused(ctx, "a number past the last", ErrorKind::InvalidRange, buffers.export(buffers.len()))?;
    for (what, buf) in [("first", &first), ("second", &second), ("other", &other)] {
        ctx.check_eq(format!("{what}: size() is a frame's in whole pages"), size, buf.size()?)?;
        ctx.check_eq(format!("{what}: exporter"), make::VIVID, fdinfo(buf, "exp_name")?.unwrap_or_default())?;
        ctx.check_eq(format!("{what}: count"), 1, count(buf)?)?;
        read_write_and_cloexec(ctx, what, buf)?;
    }
    ctx.check("two exports are two dma-bufs", first.identity()? != second.identity()?)?;
    let bytes = pattern(9, usize::try_from(size)?);
    write_at(&first, 0, &bytes)?;
    ctx.check("two exports are the same memory", read_all(&second)? == bytes)?;
    ctx.check("another buffer is other memory", read_all(&other)? != bytes)?;
    drop((buffers, first));
    drop(device);
    ctx.check_eq("count once the device is closed", 1, count(&second)?)?;
    ctx.check("the bytes outlive the device", read_all(&second)? == bytes)
}

/// A dma-buf of another exporter that is just large enough.
fn frame(device: &VideoDevice) -> anyhow::Result<DmaBuf> {
    let pages = device.frame_size()?.div_ceil(page());
    Ok(kit::vgem()?.create_dumb(shape(pages)?)?.handle.export()?)
}

/// The references of a queue to the dma-bufs in it.
pub(super) fn import(ctx: &mut Ctx) -> anyhow::Result<()> {
    let mut device = vivid()?;
    let (buf, third) = (frame(&device)?, frame(&device)?);
    let small = kit::vgem()?.create_dumb(shape(1)?)?.handle.export()?;
    let mut slots = device.slots(2)?;
    let len = slots.len();
    ctx.check_eq("count before", 1, count(&buf)?)?;
    slots.queue(0, &buf)?;
    ctx.check_eq("count in the queue", 1 + 1, count(&buf)?)?;
    slots.queue(1, &buf)?;
    ctx.check_eq("count in two places of the queue", 1 + 2, count(&buf)?)?;
    refused(ctx, "a place that is taken", ErrorKind::Busy, slots.queue(0, &third))?;
    refused(ctx, "a place past the last", ErrorKind::InvalidRange, slots.queue(len, &third))?;
    ctx.check_eq("count of what was refused", 1, count(&third)?)?;
    let ino = buf.identity()?.ino;
    drop(buf);
    let held = count_in_debugfs(ino)?;
    ctx.check_eq("without descriptor", "Some(2)", format!("{held:?}"))?;
    drop(slots);
    let held = count_in_debugfs(ino)?;
    ctx.check_eq("after the queue is freed", "None", format!("{held:?}"))?;
    let mut slots = device.slots(1)?;
    let message = refused(ctx, "a small one", ErrorKind::InvalidSize, slots.queue(0, &small))?;
    ctx.check(format!("{message:?} says how large"), message.contains(&page().to_string()))?;
    slots.queue(0, &third)?;
    ctx.check_eq("count in the new queue", 1 + 1, count(&third)?)?;
    drop(slots);
    drop(device);
    ctx.check_eq("count once the device is closed", 1, count(&third)?)
}

/// The queue belongs to the open file that asked first, until that file frees it.
pub(super) fn one_queue(ctx: &mut Ctx) -> anyhow::Result<()> {
    let (mut device, mut elsewhere) = (vivid()?, vivid()?);
    let buffers = device.buffers(1)?;
    let message = refused(ctx, "another's queue", ErrorKind::Busy, elsewhere.slots(1))?;
    ctx.check(format!("{message:?} says what to do"), message.contains("close that one"))?;
    drop(buffers);
    ctx.check("after the queue is freed, another file can use it", elsewhere.slots(1).is_ok())
}
