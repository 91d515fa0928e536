//! Stands in for `loading` if the library is built without the feature `bpf`. Loading then fails,
//! and the reason is that this build cannot load ([`Unavailable::NotBuilt`]).

use std::ffi::CStr;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::io::Errno;

use super::Loaded;
use super::iterator::{Iterator, Readers, Unavailable};

/// There is none in this build.
#[derive(Debug)]
pub(super) enum Loader {}

impl Loader {
    pub(super) fn new(_: &Path, _: Readers) -> Result<Loader, Unavailable> {
        Err(Unavailable::NotBuilt)
    }

    pub(super) fn load(&self, _: &[Iterator], _: &[Iterator]) -> Result<Loaded, Unavailable> {
        match *self {}
    }
}

pub(super) fn open(_: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    Err(Errno::NOSYS)
}

pub(super) fn pin(_: BorrowedFd<'_>, _: &CStr) -> Result<(), Errno> {
    Err(Errno::NOSYS)
}

pub(super) fn pinned(_: &CStr) -> Result<OwnedFd, Errno> {
    Err(Errno::NOSYS)
}

pub(super) fn program_of(_: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    Err(Errno::NOSYS)
}

pub(super) fn attach_to_task(_: BorrowedFd<'_>, _: u32) -> Result<Option<OwnedFd>, Errno> {
    Err(Errno::NOSYS)
}

pub(super) fn skipped(_: BorrowedFd<'_>) -> Result<Option<u64>, Errno> {
    Err(Errno::NOSYS)
}
