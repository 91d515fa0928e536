//! Facts from which others decide whether to trust a file or folder: is it on a bpf filesystem,
//! does it belong to root or the caller, and which rights have other users?
//!
//! Limits: none of these is enough alone. [`pins`](super::pins) says what has to hold together.

use std::os::fd::AsFd;

use rustix::fs::{Mode, Stat, fstat, fstatfs};
use rustix::io::Errno;
use rustix::process::geteuid;

use crate::kernel::magic;

/// The `stat` of an open file, if it is on a bpf filesystem.
pub(super) fn is_on_bpf_fs(file: impl AsFd) -> Result<Option<Stat>, Errno> {
    let magic = fstatfs(&file)?.f_type;
    let facts = fstat(&file)?;
    Ok((magic == magic::BPF).then_some(facts))
}

pub(super) fn is_trusted(facts: &Stat) -> bool {
    facts.st_uid == 0 || facts.st_uid == geteuid().as_raw()
}

pub(super) fn others_may(facts: &Stat, rights: Mode) -> bool {
    Mode::from_raw_mode(facts.st_mode).intersects(rights)
}

pub(super) fn is_same(one: &Stat, other: &Stat) -> bool {
    (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino)
}

/// Why a change of the pins failed: a message, and an error number unless the message says it all.
pub(crate) type Failure = (String, Option<Errno>);
