//! The shape of a request that answers with a new descriptor as the call's own return value.
//!
//! rustix has no pattern for it: its own ones drop the return value. `/dev/udmabuf` answers in this way.

use std::ffi::c_void;
use std::marker::PhantomData;
use std::os::fd::OwnedFd;

use rustix::ioctl::{Ioctl, IoctlOutput, Opcode};

/// A request numbered `OPCODE` that reads `arg` and returns a descriptor.
pub(super) struct ReturnsFd<'arg, const OPCODE: Opcode> {
    arg: *const c_void,
    borrow: PhantomData<&'arg [u8]>,
}

impl<'arg, const OPCODE: Opcode> ReturnsFd<'arg, OPCODE> {
    /// # Safety
    ///
    /// The request must read no further than `arg`, write nothing to it, and return a new descriptor on
    /// success.
    pub(super) unsafe fn new<T: ?Sized>(arg: &'arg T) -> Self {
        Self { arg: std::ptr::from_ref(arg).cast(), borrow: PhantomData }
    }
}

// SAFETY: the opcode is the constant given; the pointer is a live borrow for `'arg`; the caller of `new`
// promised that the request only reads it, which is what makes `IS_MUTATING = false` right.
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
        // SAFETY: the caller of `new` promised that success returns a new descriptor, and this is called
        // once.
        unsafe { super::adopt(out) }
    }
}
