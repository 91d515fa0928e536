//! Loads the iterators into the kernel.
//!
//! The kernel takes long to verify a program, so as many are loaded at the same time as there are
//! processors. The objects of the first ones are parsed while the kernel's type information is
//! searched.
//!
//! All of them get the same random key for the ids of kernel objects, so that ids in records of
//! different iterators can be compared.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

use rustix::io::Errno;
use rustix::rand::{GetRandomFlags, getrandom};
use rustix::thread::sched_getaffinity;

use super::iterator::{Iterator, Readers, Unavailable};
use super::object::{KernelTypes, Prepared};
pub(super) use super::sys::{attach_to_task, open, pin, pinned, program_of, skipped};
use super::{IteratorHandle, Loaded, sys};
use crate::kernel::btf;
use crate::kernel::btf_file::BtfFile;
use crate::kernel::parse::Malformed;

/// Loads iterators whose ids can be compared.
#[derive(Debug)]
pub(super) struct Loader {
    /// The root of sysfs.
    sys: PathBuf,
    secret: [u8; 16],
    readers: Readers,
    /// How many moves the walk over inodes makes in one step, if not as many as it is made for.
    #[cfg(test)]
    pub(super) moves: Option<u32>,
}

impl Loader {
    /// For the kernel whose sysfs is at `sys`.
    pub(super) fn new(sys: &Path, readers: Readers) -> Result<Loader, Unavailable> {
        let mut secret = [0; 16];
        getrandom(&mut secret, GetRandomFlags::empty()).map_err(Unavailable::Refused)?;
        Ok(Loader {
            sys: sys.to_owned(),
            secret,
            readers,
            #[cfg(test)]
            moves: None,
        })
    }

    /// Loads those that are `wanted`. Where the kernel lists its dma-bufs, those of `postponed` are
    /// left for later.
    pub(super) fn load(&self, wanted: &[Iterator], postponed: &[Iterator]) -> Result<Loaded, Unavailable> {
        // An empty BTF file. Loading it shows cheaply whether this process may load programs at
        // all.
        let nothing = btf::file(&[], &[0]).map_err(|Malformed| Unavailable::NoTypes(Errno::BADMSG))?;
        if let Err(errno @ (Errno::PERM | Errno::NOSYS)) = sys::load_types(&nothing) {
            return Err(Unavailable::Refused(errno));
        }
        // The longest programs come first: the others are loaded beside them.
        let mut wanted = wanted.to_vec();
        wanted.sort_by_key(|iterator| std::cmp::Reverse(iterator.object().len()));
        let (file, types) = (OnceLock::new(), OnceLock::new());
        let missing = |iterator| match wanted.contains(&iterator) {
            true => Unavailable::Missing,
            false => Unavailable::NotRequested,
        };
        let loaded = Mutex::new(Iterator::ALL.map(|iterator| Err(missing(iterator))));
        let next = AtomicUsize::new(0);
        let work = || {
            while let Some(&iterator) = wanted.get(next.fetch_add(1, Ordering::Relaxed)) {
                let may_wait = postponed.contains(&iterator);
                let prepared = (!may_wait).then(|| Prepared::new(iterator));
                let types: &Result<KernelTypes<'_>, Unavailable> = types.wait();
                let Ok(types) = types else { return };
                let one = if may_wait && types.has(Iterator::DmaBuf) {
                    Ok(IteratorHandle::Postponed)
                } else {
                    let prepared = prepared.unwrap_or_else(|| Prepared::new(iterator));
                    prepared.and_then(|prepared| self.load_one(prepared, types)).map(IteratorHandle::Loaded)
                };
                loaded.lock().unwrap_or_else(PoisonError::into_inner)[iterator as usize] = one;
            }
        };
        let found = std::thread::scope(|scope| {
            // This thread is one of them. If another cannot be made, there are fewer.
            for _ in 1..processors().min(wanted.len()) {
                let _ = std::thread::Builder::new().spawn_scoped(scope, work);
            }
            let found = types.get_or_init(|| {
                let opened = BtfFile::open(&self.sys).map_err(Unavailable::NoTypes)?;
                KernelTypes::of(file.get_or_init(|| opened))
            });
            work();
            found
        });
        found.as_ref().map_err(Unavailable::clone)?;
        Ok(loaded.into_inner().unwrap_or_else(PoisonError::into_inner))
    }

    fn load_one(&self, prepared: Prepared, types: &KernelTypes<'_>) -> Result<OwnedFd, Unavailable> {
        // Where the kernel has no list of dma-bufs, the iterators over fds and VMAs also describe
        // each buffer that they find.
        let describe = u32::from(!types.has(Iterator::DmaBuf)).to_ne_bytes();
        let registers = u32::from(types.have_registers()).to_ne_bytes();
        let mut globals = vec![("secret", &self.secret[..]), ("describe_each", &describe)];
        let iterator = prepared.iterator();
        globals.extend((iterator.base() == Iterator::Task).then_some(("registers", &registers[..])));
        let shows_files = matches!(iterator, Iterator::DmaBufShmem | Iterator::TaskFileShmem);
        let offsets = if shows_files { types.gem_offsets(&self.sys) } else { [0; 2] };
        let offsets = offsets.map(u32::to_ne_bytes).concat();
        globals.extend(shows_files.then_some(("gem_offsets", &offsets[..])));
        #[cfg(test)]
        let moves = self.moves.filter(|_| iterator.base() == Iterator::ShmemInodes).map(u32::to_ne_bytes);
        #[cfg(test)]
        globals.extend(moves.as_ref().map(|moves| ("moves", &moves[..])));
        prepared.load(types, &globals, self.readers).map(|(attached, _)| attached)
    }
}

/// How many processors this thread may run on.
fn processors() -> usize {
    sched_getaffinity(None).map_or(1, |set| set.count() as usize)
}
