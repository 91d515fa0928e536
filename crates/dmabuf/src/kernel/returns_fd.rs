//! The type of an ioctl whose return value is a new descriptor.
//!
//! rustix has no type for it, as its own types ignore the return value. `/dev/udmabuf` has such
//! ioctls.

use std::ffi::c_void;
use std::marker::PhantomData;
use std::os::fd::OwnedFd;

use rustix::ioctl::{Ioctl, IoctlOutput, Opcode};

/// A request with the number `OPCODE` that reads `arg` and returns a descriptor.
pub(super) struct ReturnsFd<'arg, const OPCODE: Opcode> {
    arg: *const c_void,
    borrow: PhantomData<&'arg [u8]>,
}

impl<'arg, const OPCODE: Opcode> ReturnsFd<'arg, OPCODE> {
    /// # Safety
    ///
    /// The request must read no more than `arg`, must not write to it, and must return a new
    /// descriptor on success.
    pub(super) unsafe fn new<T: ?Sized>(arg: &'arg T) -> Self {
        Self { arg: std::ptr::from_ref(arg).cast(), borrow: PhantomData }
    }
}

// SAFETY: the opcode is the constant given, and the pointer is valid for `'arg`, as it is made from
// a borrow. The caller of `new` has promised that the request only reads, so `IS_MUTATING = false`
// is right.
unsafe impl<const OPCODE: Opcode> Ioctl for ReturnsFd<'_, OPCODE> {
    type Output = OwnedFd;
    const IS_MUTATING: bool = false;

    fn opcode(&self) -> Opcode {
        OPCODE
    }

    fn as_ptr(&mut self) -> *mut c_void {
        self.arg.cast_mut()
    }

    unsafe fn output_from_ptr(out: IoctlOutput, _: *mut c_void) -> rustix::io::Result<OwnedFd> {
        // SAFETY: the caller of `new` has promised that success returns a new descriptor, and
        // rustix calls this once for each call of the request.
        unsafe { super::adopt(out) }
    }
}
