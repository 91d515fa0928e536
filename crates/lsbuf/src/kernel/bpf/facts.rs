//! What is asked of files and folders where iterators are pinned, and how a change of them fails.

use std::os::fd::AsFd;

use rustix::fs::{Mode, Stat, fstat, fstatfs};
use rustix::io::Errno;
use rustix::process::geteuid;

use crate::kernel::magic;

/// What an open file is, if it lies on a bpf filesystem.
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

/// A step of a change, and why it failed, if the step's own words do not say so.
pub(crate) type Failure = (String, Option<Errno>);
