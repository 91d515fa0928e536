//! The programs of `maker/maker.c`, which make a buffer by calls whose names a test knows.
//!
//! `cargo xtask` builds them and puts them into the guest, under the names that are here.

/// One way in which the program is built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Build {
    /// At a fixed address.
    Fixed,
    /// At any address.
    Pie,
    /// At any address, without symbols.
    Stripped,
    /// At any address, without a build id.
    WithoutBuildId,
    /// At any address, without frame pointers and with tables for unwinding. Each call takes about
    /// 1000 bytes of the stack.
    WithoutFramePointers,
}

impl Build {
    /// All of them.
    pub const ALL: [Build; 5] =
        [Build::Fixed, Build::Pie, Build::Stripped, Build::WithoutBuildId, Build::WithoutFramePointers];

    /// The name of the program's file. A command name is no longer.
    pub fn name(self) -> &'static str {
        match self {
            Build::Fixed => "maker-fixed",
            Build::Pie => "maker-pie",
            Build::Stripped => "maker-stripped",
            Build::WithoutBuildId => "maker-no-id",
            Build::WithoutFramePointers => "maker-no-fp",
        }
    }

    /// Where it is in the guest.
    pub fn path(self) -> String {
        format!("/bin/{}", self.name())
    }
}
