//! Names: how long they may be, which bytes they may have, who may set them, and where they show.

use dmabuf::{DmaBuf, ErrorKind, Heap, MAX_NAME_LEN, MapMode};

use super::kit::{self, fdinfo, link, one_of_each, page, refused, vgem};
use crate::scenario::Ctx;

/// The link text of a buffer with this name.
fn link_text(name: &[u8]) -> String {
    [b"/dmabuf:", name].concat().escape_ascii().to_string()
}

fn check_link(ctx: &mut Ctx, what: &str, name: &[u8], buf: &DmaBuf) -> anyhow::Result<()> {
    ctx.check_eq(what, link_text(name), link(buf)?.escape_ascii())
}

/// The longest name shows everywhere, and a name with one more byte is refused without a system
/// call.
pub(super) fn length(ctx: &mut Ctx) -> anyhow::Result<()> {
    let longest = "abcdefghijklmnopqrstuvwxyz01234";
    ctx.check_eq("bytes of the longest name", MAX_NAME_LEN, longest.len())?;
    for (exporter, buf) in one_of_each(1)? {
        check_link(ctx, &format!("{exporter}: link without a name"), b"", &buf)?;
        let name = fdinfo(&buf, "name")?;
        ctx.check_eq(format!("{exporter}: fdinfo without a name"), "None", format!("{name:?}"))?;
        buf.set_name(longest)?;
        check_link(ctx, &format!("{exporter}: link"), longest.as_bytes(), &buf)?;
        ctx.check_eq(format!("{exporter}: fdinfo"), longest, fdinfo(&buf, "name")?.unwrap_or_default())?;
        let mapping = buf.map(MapMode::Read)?;
        let vma = kit::vma(&mapping)?;
        if vma.is_of(buf.identity()?) {
            ctx.check_eq(format!("{exporter}: maps"), link_text(longest.as_bytes()), vma.path)?;
        }
        let error = buf.set_name([b'x'; 32]).err();
        let found = error.map(|error| (error.kind(), error.raw_os_error()));
        let expected = Some((ErrorKind::InvalidName, None::<i32>));
        ctx.check_eq(format!("{exporter}: 32 bytes"), format!("{expected:?}"), format!("{found:?}"))?;
        check_link(ctx, &format!("{exporter}: link afterwards"), longest.as_bytes(), &buf)?;
    }
    Ok(())
}

/// Every byte but NUL comes back from the link as it was set, and an empty name resets the name.
pub(super) fn bytes(ctx: &mut Ctx) -> anyhow::Result<()> {
    let all: Vec<u8> = (1..=u8::MAX).collect();
    for (exporter, buf) in one_of_each(1)? {
        for byte in &all {
            buf.set_name([*byte])?;
            let expected = [b"/dmabuf:", &[*byte][..]].concat();
            let found = link(&buf)?;
            if found != expected {
                ctx.check_eq(
                    format!("{exporter}: byte {byte}"),
                    expected.escape_ascii(),
                    found.escape_ascii(),
                )?;
            }
        }
        for name in all.chunks(MAX_NAME_LEN) {
            buf.set_name(name)?;
            check_link(ctx, &format!("{exporter}: {} bytes from {}", name.len(), name[0]), name, &buf)?;
        }
        refused(ctx, &format!("{exporter}: NUL"), ErrorKind::InvalidName, buf.set_name(b"a\0b"))?;
        buf.set_name("")?;
        check_link(ctx, &format!("{exporter}: link after an empty name"), b"", &buf)?;
        let name = fdinfo(&buf, "name")?.unwrap_or_default();
        ctx.check_eq(format!("{exporter}: fdinfo after an empty name"), "", name)?;
    }
    Ok(())
}

/// A second holder may rename the buffer, and the first one sees the new name.
pub(super) fn any_holder(ctx: &mut Ctx) -> anyhow::Result<()> {
    for (exporter, buf) in one_of_each(1)? {
        buf.set_name("mine")?;
        let copy = buf.try_clone()?;
        check_link(ctx, &format!("{exporter}: a duplicate's link"), b"mine", &copy)?;
        copy.set_name("yours")?;
        check_link(ctx, &format!("{exporter}: renamed by a duplicate"), b"yours", &buf)?;
        drop(copy);
        check_link(ctx, &format!("{exporter}: after the duplicate is closed"), b"yours", &buf)?;
    }
    Ok(())
}

/// A buffer that is attached to a device can be named.
pub(super) fn while_attached(ctx: &mut Ctx) -> anyhow::Result<()> {
    let buf = Heap::open("system")?.allocate(page())?;
    let device = vgem()?;
    let handle = device.import(&buf)?;
    let named = buf.set_name("attached").map_err(|error| error.kind());
    ctx.check_eq("naming it", "Ok(())", format!("{named:?}"))?;
    check_link(ctx, "link", b"attached", &buf)?;
    Ok(handle.close()?)
}
