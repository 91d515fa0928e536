//! Loads the iterators into the kernel, each in a thread of its own, because the kernel takes long
//! to verify a program.
//!
//! All of them get the same random key for the ids of kernel objects, so that ids in records of
//! different iterators can be compared.

use std::path::Path;

use rustix::io::Errno;
use rustix::rand::{GetRandomFlags, getrandom};

use super::iterator::{Iterator, Unavailable};
use super::object::{self, KernelTypes};
pub(super) use super::sys::{open, pin};
use super::{Loaded, sys};
use crate::kernel::btf;
use crate::kernel::parse::Malformed;

/// Loads those that are `wanted` into the kernel whose sysfs is at `sys`. Each goes with its fd.
pub(super) fn load(sys: &Path, wanted: &[Iterator]) -> Result<Loaded, Unavailable> {
    // An empty BTF file. Loading it shows cheaply whether this process may load programs at all.
    let nothing = btf::file(&[], &[0]).map_err(|Malformed| Unavailable::NoTypes(Errno::BADMSG))?;
    if let Err(errno @ (Errno::PERM | Errno::NOSYS)) = sys::load_types(&nothing) {
        return Err(Unavailable::Refused(errno));
    }
    let types = KernelTypes::read(sys)?;
    let mut secret = [0u8; 16];
    getrandom(&mut secret, GetRandomFlags::empty()).map_err(Unavailable::Refused)?;
    // Where the kernel has no list of dma-bufs, the iterators over fds and VMAs also describe each
    // buffer that they find.
    let describe = u32::from(!types.has(Iterator::DmaBuf)).to_ne_bytes();
    let registers = u32::from(types.have_registers()).to_ne_bytes();
    let gem_offsets = types.gem_offsets().map(u32::to_ne_bytes).concat();
    let load = |iterator: Iterator| {
        if !wanted.contains(&iterator) {
            return Err(Unavailable::NotRequested);
        }
        let mut globals = vec![("secret", &secret[..]), ("describe_each", &describe)];
        globals.extend((iterator.base() == Iterator::Task).then_some(("registers", &registers[..])));
        let shows_files = matches!(iterator, Iterator::DmaBufShmem | Iterator::TaskFileShmem);
        globals.extend(shows_files.then_some(("gem_offsets", &gem_offsets[..])));
        object::load(iterator, &types, &globals)
    };
    // Verification is slow, and runs in parallel.
    Ok(std::thread::scope(|scope| {
        let load = &load;
        let loading = Iterator::ALL.map(|iterator| scope.spawn(move || load(iterator)));
        loading.map(|one| one.join().unwrap_or(Err(Unavailable::Missing)))
    }))
}
