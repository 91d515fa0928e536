//! Claims about fdinfo: its lines as text, and what they say.
//!
//! lsbuf proves by fdinfo that an fd is a dma-buf's, and reads its figures there. A name can
//! contain newlines, so the order of the lines matters.
//!
//! Limits: only fds of this process are read.

use super::claim::Claim;
use super::judge::{Fault, Tried, same, same_text, that};
use super::kit::Kit;

pub(super) const CLAIMS: &[Claim] = &[
    Claim {
        id: "fdinfo-fields",
        claim: "fdinfo has pos, flags, mnt_id, perhaps ino, size, count, exp_name and, of a named buffer, name, in this order",
        means: "lsbuf may miss a figure, or believe a line that a name forges",
        trial: fields,
    },
    Claim {
        id: "fdinfo-ino",
        claim: "fdinfo says the inode number",
        means: "each fd costs one more call, and fds that may not be followed cannot be told apart",
        trial: ino,
    },
    Claim {
        id: "fdinfo-size",
        claim: "fdinfo says the size that the inode has",
        means: "sizes in lsbuf's answers are not those of stat",
        trial: |kit| kit.on_each_buffer(3, |buf| same("size", kit.inode(buf)?.size.0, kit.info(buf)?.size.0)),
    },
    Claim {
        id: "fdinfo-exporter",
        claim: "fdinfo names the exporter",
        means: "exporters in lsbuf's answers, and totals by exporter, are wrong",
        trial: |kit| {
            kit.on_each(|exporter| {
                let info = kit.info(&kit.make(exporter, 1)?)?;
                same_text("exp_name", exporter.exp_name().as_bytes(), info.exporter.as_bytes())
            })
        },
    },
    Claim {
        id: "fdinfo-mount",
        claim: "All buffers are on one mount",
        means: "O_PATH fds of real buffers are missed",
        trial: one_mount,
    },
    Claim {
        id: "fdinfo-of-o-path",
        claim: "fdinfo of an O_PATH fd says so by its flags, and has no size, count or exp_name",
        means: "an O_PATH fd, which is in no count, is taken for one that is: accounts do not balance",
        trial: of_path_fd,
    },
];

fn fields(kit: &Kit) -> Tried {
    kit.on_each_buffer(1, |buf| {
        keys(&kit.fdinfo_text(buf)?, &[])?;
        buf.set_name("x")?;
        keys(&kit.fdinfo_text(buf)?, &["name"])
    })
}

/// Looks at each line's key without the parser: `KEY`, a colon, a tab. `ino` has a claim of its
/// own.
fn keys(text: &[u8], more: &[&str]) -> Tried {
    let text = String::from_utf8_lossy(text);
    let key = |line: &str| line.split_once(":\t").map(|(key, _)| key.to_owned());
    let keys: Option<Vec<String>> = text.lines().map(key).collect();
    let keys: Vec<String> =
        keys.ok_or_else(|| broken(&text))?.into_iter().filter(|key| key != "ino").collect();
    let expected: Vec<&str> = ["pos", "flags", "mnt_id", "size", "count", "exp_name"]
        .into_iter()
        .chain(more.iter().copied())
        .collect();
    that(keys == expected && text.ends_with('\n') && ino_in_place(&text), || format!("{text:?}"))
}

/// Whether `ino` is between `mnt_id` and `size`, if it is there.
fn ino_in_place(text: &str) -> bool {
    let at = |key: &str| text.lines().position(|line| line.starts_with(key));
    at("ino:").is_none_or(|ino| at("mnt_id:") < Some(ino) && Some(ino) < at("size:"))
}

fn broken(text: &str) -> Fault {
    Fault::Broken(format!("{text:?}"))
}

fn ino(kit: &Kit) -> Tried {
    kit.on_each_buffer(1, |buf| {
        let said = kit.fdinfo(buf)?.ino.ok_or_else(|| Fault::Broken("no ino in fdinfo".to_owned()))?;
        same("ino", kit.inode(buf)?.ino, said)
    })
}

fn one_mount(kit: &Kit) -> Tried {
    let first = kit.fdinfo(&kit.make_any()?)?.mnt_id;
    kit.on_each_buffer(1, |buf| same("mnt_id", first, kit.fdinfo(buf)?.mnt_id))
}

fn of_path_fd(kit: &Kit) -> Tried {
    kit.on_each_buffer(1, |buf| {
        let path = kit.path_fd(buf)?;
        let text = kit.fdinfo_text(&path)?;
        let info = kit.fdinfo(&path)?;
        that(info.path_only && info.dmabuf.is_none(), || broken_text(&text))?;
        that(!kit.fdinfo(buf)?.path_only, || "an fd that holds the buffer has the flag too".to_owned())
    })
}

fn broken_text(text: &[u8]) -> String {
    format!("{:?}", String::from_utf8_lossy(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHOLE: &str =
        "pos:\t0\nflags:\t02\nmnt_id:\t10\nino:\t7\nsize:\t4096\ncount:\t1\nexp_name:\tsystem\n";

    /// Check that a field that is missing, new, in another place or written differently makes the
    /// claim false.
    #[test]
    fn other_fields_are_found() {
        assert_eq!(keys(WHOLE.as_bytes(), &[]), Ok(()));
        assert_eq!(keys(WHOLE.replace("ino:\t7\n", "").as_bytes(), &[]), Ok(()));
        assert_eq!(keys(format!("{WHOLE}name:\tx\n").as_bytes(), &["name"]), Ok(()));
        for forged in [
            WHOLE.replace("count:\t1\n", ""),
            WHOLE.replace("size:", "length:"),
            WHOLE.replace("size:\t4096\ncount:\t1\n", "count:\t1\nsize:\t4096\n"),
            WHOLE.replace("mnt_id:\t10\nino:\t7\n", "ino:\t7\nmnt_id:\t10\n"),
            WHOLE.replace("size:\t", "size: "),
            format!("{WHOLE}attachments:\t0\n"),
            format!("{WHOLE}name:\tx\n"),
            WHOLE.trim_end().to_owned(),
            String::new(),
        ] {
            assert!(keys(forged.as_bytes(), &[]).is_err(), "{forged:?}");
        }
    }
}
