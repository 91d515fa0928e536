//! The architectures that a guest can have, and what this machine needs to build for one and to
//! emulate it.
//!
//! A guest's programs are linked statically by this machine's own C compiler, or, if the guest has
//! another architecture, by Debian's cross compiler. The report needs a serial port besides the
//! console's. A board that has only one gets another on its PCI bus.

use clap::ValueEnum;
use serde::Deserialize;

/// An architecture, by Debian's name for it.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Arch {
    /// x86-64.
    #[default]
    Amd64,
    /// AArch64.
    Arm64,
}

impl Arch {
    /// Debian's name for it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Amd64 => "amd64",
            Self::Arm64 => "arm64",
        }
    }

    /// Rust's target. With an explicit target, cargo does not link build scripts and macros
    /// statically.
    pub(crate) fn target(self) -> &'static str {
        match self {
            Self::Amd64 => "x86_64-unknown-linux-gnu",
            Self::Arm64 => "aarch64-unknown-linux-gnu",
        }
    }

    /// Whether this machine has it.
    pub(crate) fn is_native(self) -> bool {
        match self {
            Self::Amd64 => cfg!(target_arch = "x86_64"),
            Self::Arm64 => cfg!(target_arch = "aarch64"),
        }
    }

    /// The C compiler that links for it, and the Debian packages that bring it and a static libc.
    pub(crate) fn linker(self) -> (&'static str, [&'static str; 2]) {
        match self {
            _ if self.is_native() => ("cc", ["gcc", "libc6-dev"]),
            Self::Amd64 => ("x86_64-linux-gnu-gcc", ["gcc-x86-64-linux-gnu", "libc6-dev-amd64-cross"]),
            Self::Arm64 => ("aarch64-linux-gnu-gcc", ["gcc-aarch64-linux-gnu", "libc6-dev-arm64-cross"]),
        }
    }

    /// The variable by which cargo is told of that linker.
    pub(crate) fn linker_variable(self) -> String {
        format!("CARGO_TARGET_{}_LINKER", self.target().to_uppercase().replace('-', "_"))
    }

    /// The emulator, and the Debian package that brings it.
    pub(crate) fn qemu(self) -> (&'static str, &'static str) {
        match self {
            Self::Amd64 => ("qemu-system-x86_64", "qemu-system-x86"),
            Self::Arm64 => ("qemu-system-aarch64", "qemu-system-arm"),
        }
    }

    /// How the emulator runs the guest's instructions.
    pub(crate) fn accelerator(self, kvm: bool) -> &'static str {
        match self {
            _ if kvm => "kvm",
            Self::Amd64 => "tcg",
            // With a thread for each processor, a guest of Linux 7.3 stopped in the middle of a
            // scenario on a busy host: its second processor did not run again (qemu 7.2).
            Self::Arm64 => "tcg,thread=single",
        }
    }

    /// Arguments of the emulator that choose board and processor.
    pub(crate) fn board(self, kvm: bool) -> &'static [&'static str] {
        match self {
            Self::Amd64 if kvm => &[],
            // With this instruction the kernel's random number generator is ready before the second
            // processor starts. Without it the generator is ready only when programs run already.
            // The kernel then rewrites a jump (the static key `crng_is_ready`) while the other
            // processor may run it. Emulation sometimes does that wrongly: a 6.18 guest died of
            // the int3.
            Self::Amd64 => &["-cpu", "qemu64,+rdrand"],
            Self::Arm64 if kvm => &["-M", "virt", "-cpu", "host"],
            // It has pages of 16 KiB, unlike cortex-a57 and a72.
            Self::Arm64 => &["-M", "virt", "-cpu", "cortex-a76"],
        }
    }

    /// Arguments of the emulator that connect the report's port with its standard output, after
    /// those for the console.
    pub(crate) fn report(self) -> &'static [&'static str] {
        match self {
            Self::Amd64 => &["-serial", "stdio"],
            // The board has one serial port of its own, the console's.
            Self::Arm64 => &["-chardev", "stdio,id=report", "-device", "pci-serial,chardev=report"],
        }
    }

    /// The devices of the console and of the report in the guest.
    pub(crate) fn ports(self) -> (&'static str, &'static str) {
        match self {
            Self::Amd64 => ("ttyS0", "/dev/ttyS1"),
            Self::Arm64 => ("ttyAMA0", "/dev/ttyS0"),
        }
    }

    /// Words for the kernel that no other architecture understands.
    pub(crate) fn kernel_words(self) -> &'static [&'static str] {
        match self {
            // On a busy host the emulated timer can fail the kernel's short test of it, and the
            // kernel then panics. no_timer_check skips the test.
            Self::Amd64 => &["no_timer_check"],
            Self::Arm64 => &[],
        }
    }
}
