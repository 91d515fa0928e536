//! Claims about names: where they show, how they are written there, which names are allowed, and
//! who may give one.
//!
//! Any holder may choose a name, so lsbuf must know how each file writes one that contains a
//! newline or a backslash.
//!
//! Limits: names of other kinds of buffer are not tried.

use std::ffi::CStr;
use std::os::fd::AsFd;

use dmabuf::DmaBuf;
use rustix::io::Errno;

use super::child::GIVEN;
use super::claim::Claim;
use super::judge::{Attempt, Fault, Tried, same_text, that};
use super::kit::{Kit, map, map_files_link};
use crate::kernel::{LINK_PREFIX, own};

/// A name with a space and with bytes that are not UTF-8.
const PLAIN: &[u8] = b"cam 0:\xff";
const NEWLINE: &[u8] = b"a\nb";
const BACKSLASH: &[u8] = br"a\012b";

pub(super) const CLAIMS: &[Claim] = &[
    Claim {
        id: "name-in-link",
        claim: "The fd's link is /dmabuf: and the name",
        means: "buffers are not recognised, or shown under another name",
        trial: |kit| named(kit, PLAIN, |buf| in_link(kit, buf, PLAIN)),
    },
    Claim {
        id: "name-in-fdinfo",
        claim: "fdinfo ends with the name",
        means: "fdinfo cannot serve where links may not be read",
        trial: |kit| named(kit, PLAIN, |buf| in_fdinfo(&kit.fdinfo_text(buf)?, PLAIN)),
    },
    Claim {
        id: "name-in-maps",
        claim: "maps shows a mapping as /dmabuf: and the name",
        means: "mappings of such buffers are missed by their holders' maps",
        trial: |kit| named(kit, PLAIN, |buf| in_maps(&kit.maps_line(&map(buf, 0, 1)?)?, PLAIN)),
    },
    Claim {
        id: "name-in-map-files",
        claim: "The link in map_files is /dmabuf: and the name",
        means: "mappings of such buffers are missed with --source map_files",
        trial: |kit| named(kit, PLAIN, |buf| in_map_files(kit, buf, PLAIN)),
    },
    Claim {
        id: "name-in-list",
        claim: "bufinfo shows the name",
        means: "buffers that no process holds have no name",
        trial: |kit| named(kit, PLAIN, |buf| in_list(kit, buf, PLAIN)),
    },
    Claim {
        id: "name-none",
        claim: "A buffer without a name is /dmabuf: in its link, has no name line in fdinfo and none in bufinfo",
        means: "unnamed buffers are shown under a name, or not recognised",
        trial: unnamed,
    },
    Claim {
        id: "newline-in-link",
        claim: "A newline in a name comes through the fd's link as it is",
        means: "names with a newline are shown otherwise than given",
        trial: |kit| named(kit, NEWLINE, |buf| in_link(kit, buf, NEWLINE)),
    },
    Claim {
        id: "newline-in-fdinfo",
        claim: "A newline in a name breaks fdinfo's last line, after all figures",
        means: "a name can forge figures, or hides them",
        trial: |kit| named(kit, NEWLINE, |buf| in_fdinfo(&kit.fdinfo_text(buf)?, NEWLINE)),
    },
    Claim {
        id: "newline-in-maps",
        claim: r"A newline in a name is \012 in maps",
        means: "a name breaks its line of maps, and can forge one",
        trial: |kit| named(kit, NEWLINE, |buf| in_maps(&kit.maps_line(&map(buf, 0, 1)?)?, BACKSLASH)),
    },
    Claim {
        id: "newline-in-map-files",
        claim: "A newline in a name comes through the link in map_files as it is",
        means: "the name of a mapped buffer with a newline or backslash in it stays unknown or is wrong",
        trial: |kit| named(kit, NEWLINE, |buf| in_map_files(kit, buf, NEWLINE)),
    },
    Claim {
        id: "backslash-in-maps",
        claim: "A backslash in a name is itself in maps, so that \\012 is ambiguous there",
        means: "names with a backslash are shown otherwise than given, for mappings without an fd",
        trial: |kit| named(kit, BACKSLASH, |buf| in_maps(&kit.maps_line(&map(buf, 0, 1)?)?, BACKSLASH)),
    },
    Claim {
        id: "name-31-bytes",
        claim: "A name of 31 bytes is taken, whole",
        means: "names are cut",
        trial: longest,
    },
    Claim {
        id: "name-32-bytes",
        claim: "A name of 32 bytes is refused, and the old one stays",
        means: "longer names than lsbuf knows of exist: one may be long enough to forge a row of bufinfo",
        trial: too_long,
    },
    Claim {
        id: "name-empty",
        claim: "An empty name is taken, and takes the name away",
        means: "renamed buffers are shown under an old name",
        trial: emptied,
    },
    Claim {
        id: "name-by-any-holder",
        claim: "Another process that holds the buffer may rename it",
        means: "names are more trustworthy than lsbuf's documentation says",
        trial: by_another,
    },
    Claim {
        id: "name-while-attached",
        claim: "A buffer may be renamed while a device is attached to it",
        means: "buffers imported before they were named stay unnamed",
        trial: while_attached,
    },
];

/// Tries a claim on buffers with this name.
fn named(kit: &Kit, name: &[u8], trial: impl Fn(&DmaBuf) -> Tried) -> Tried {
    kit.on_each_buffer(1, |buf| {
        buf.set_name(name)?;
        trial(buf)
    })
}

fn path(name: &[u8]) -> Vec<u8> {
    [LINK_PREFIX, name].concat()
}

fn in_link(kit: &Kit, buf: &DmaBuf, name: &[u8]) -> Tried {
    same_text("link", &path(name), &kit.fd_link(buf)?)
}

/// The name is everything after the exporter's line.
fn in_fdinfo(text: &[u8], name: &[u8]) -> Tried {
    let end = [b"\nname:\t", name, b"\n"].concat();
    let before = text.strip_suffix(end.as_slice());
    let last = before.and_then(|before| before.rsplit(|&b| b == b'\n').next());
    that(last.is_some_and(|line| line.starts_with(b"exp_name:\t")), || text.escape_ascii().to_string())
}

/// The path is everything after the inode's column and its spaces.
fn in_maps(line: &[u8], shown: &[u8]) -> Tried {
    let column = line.splitn(6, |&b| b == b' ').nth(5).unwrap_or_default();
    same_text("maps", &path(shown), column.trim_ascii_start())
}

fn in_map_files(kit: &Kit, buf: &DmaBuf, name: &[u8]) -> Tried {
    let region = map(buf, 0, 1)?;
    let link = map_files_link(&region);
    same_text("map_files", &path(name), &kit.link(&link)?)
}

fn in_list(kit: &Kit, buf: &DmaBuf, name: &[u8]) -> Tried {
    let label = kit.row_of(kit.inode(buf)?.ino)?.name;
    let label = label.ok_or_else(|| Fault::Broken("a name in bufinfo that cannot be read".to_owned()))?;
    same_text("bufinfo", name, label.as_bytes())
}

fn unnamed(kit: &Kit) -> Tried {
    kit.on_each_buffer(1, |buf| {
        in_link(kit, buf, b"")?;
        no_name_line(&kit.fdinfo_text(buf)?)?;
        // Only root can read the list. For other users the other places decide.
        match in_list(kit, buf, b"") {
            Err(Fault::Untried(_)) => Ok(()),
            told => told,
        }
    })
}

fn no_name_line(text: &[u8]) -> Tried {
    let named = text.split(|&b| b == b'\n').any(|line| line.starts_with(b"name:"));
    that(!named, || text.escape_ascii().to_string())
}

fn longest(kit: &Kit) -> Tried {
    let name = c"0123456789012345678901234567890";
    kit.on_each_buffer(1, |buf| {
        set(buf, name)?;
        in_link(kit, buf, name.to_bytes())
    })
}

/// Does not go through the `dmabuf` crate, which would refuse a name that is too long.
fn set(buf: &DmaBuf, name: &CStr) -> Tried {
    own::set_name(buf.as_fd(), name).attempt("naming it")
}

fn too_long(kit: &Kit) -> Tried {
    kit.on_each_buffer(1, |buf| {
        set(buf, c"before")?;
        let refused = own::set_name(buf.as_fd(), c"01234567890123456789012345678901");
        that(refused == Err(Errno::INVAL), || format!("the answer was {refused:?}"))?;
        in_link(kit, buf, b"before")
    })
}

fn emptied(kit: &Kit) -> Tried {
    kit.on_each_buffer(1, |buf| {
        set(buf, c"before")?;
        set(buf, c"")?;
        in_link(kit, buf, b"")
    })
}

fn by_another(kit: &Kit) -> Tried {
    let buf = kit.make_any()?;
    kit.child(&buf)?.names()?;
    in_link(kit, &buf, GIVEN)
}

fn while_attached(kit: &Kit) -> Tried {
    let buf = kit.make_foreign()?;
    let _handle = kit.vgem()?.import(&buf)?;
    set(&buf, c"late")?;
    in_link(kit, &buf, b"late")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check that a name that is cut, missing, not at the end, or before a figure makes the claim
    /// about fdinfo false.
    #[test]
    fn fdinfo_is_judged() {
        assert_eq!(in_fdinfo(b"count:\t1\nexp_name:\tdrm\nname:\ta\nb\n", b"a\nb"), Ok(()));
        for forged in [
            &b"count:\t1\nexp_name:\tdrm\nname:\ta\n"[..],
            b"count:\t1\nexp_name:\tdrm\n",
            b"count:\t1\nname:\ta\nb\nexp_name:\tdrm\n",
            b"exp_name:\tdrm\ncount:\t1\nname:\ta\nb\n",
            b"count:\t1\nexp_name:\tdrm\nname:\ta\\012b\n",
        ] {
            assert!(in_fdinfo(forged, b"a\nb").is_err(), "{}", forged.escape_ascii());
        }
    }

    /// Check that another path in maps, or a newline that is escaped differently, makes the claim
    /// about maps false.
    #[test]
    fn maps_are_judged() {
        let line = |path: &str| format!("7f10-7f20 rw-s 00000000 00:0c 42                         {path}");
        assert_eq!(in_maps(line(r"/dmabuf:a\012b").as_bytes(), br"a\012b"), Ok(()));
        for path in ["/drm mm object (deleted)", "/dmabuf:a", r"/dmabuf:a\nb", "/dmabuf:", ""] {
            assert!(in_maps(line(path).as_bytes(), br"a\012b").is_err(), "{path}");
        }
    }

    /// Check that a name line is noticed where there should be none.
    #[test]
    fn name_lines_are_found() {
        assert_eq!(no_name_line(b"count:\t1\nexp_name:\tdrm\n"), Ok(()));
        assert!(no_name_line(b"count:\t1\nexp_name:\tdrm\nname:\t\n").is_err());
    }
}
