//! Runs a command as a given user, with exactly the given capabilities, and with a given view of
//! the machine.
//!
//! What lsbuf sees depends on the user that runs it, so scenarios run it through a [`Caller`]. A
//! caller's command is this program in the mode `as`. That mode arranges the view and gives up all
//! other rights for good. It also removes them from the bounding set, so that root does not get
//! them back by exec. Then it executes the command.

use std::ffi::CStr;
use std::fmt;
use std::fs;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use anyhow::{Context, bail};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use rustix::process::{WaitOptions, waitpid};
use rustix::thread::{
    CapabilitySet, CapabilitySets, UnshareFlags, capability_is_in_bounding_set,
    configure_capability_in_ambient_set, remove_capability_from_bounding_set, set_capabilities,
    set_keep_capabilities,
};

use crate::sys;

/// The mount point of debugfs in the guest.
pub const DEBUGFS: &str = "/sys/kernel/debug";

/// The user that runs a command, with capabilities and view.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The user id.
    pub uid: u32,
    /// The capabilities: this is the permitted, effective, inheritable, ambient and bounding set.
    pub capabilities: CapabilitySet,
    /// What the caller sees of the machine.
    pub view: MachineView,
}

/// What a caller sees of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MachineView {
    /// The machine as it is.
    Plain,
    /// debugfs is not mounted.
    NoDebugfs,
    /// debugfs was unmounted and is mounted again.
    Remounted,
    /// procfs hides the processes that the caller may not trace (`hidepid=2`).
    Hidden,
    /// A pid namespace of its own, with its own procfs.
    Container,
    /// As `Container`, and root of a user namespace of its own.
    Rootless,
    /// As `Rootless`, without debugfs.
    RootlessNoDebugfs,
    /// Root of a user namespace of its own, but among all processes.
    UserNamespace,
}

impl MachineView {
    const ALL: [(&str, MachineView); 8] = [
        ("plain", MachineView::Plain),
        ("no-debugfs", MachineView::NoDebugfs),
        ("remounted", MachineView::Remounted),
        ("hidepid", MachineView::Hidden),
        ("container", MachineView::Container),
        ("rootless", MachineView::Rootless),
        ("rootless-no-debugfs", MachineView::RootlessNoDebugfs),
        ("user-namespace", MachineView::UserNamespace),
    ];

    fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, view)| *view == self).map_or("", |(name, _)| name)
    }

    fn lacks_debugfs(self) -> bool {
        matches!(self, MachineView::NoDebugfs | MachineView::Remounted | MachineView::RootlessNoDebugfs)
    }

    /// The namespaces into which the command is forked.
    fn inner(self) -> UnshareFlags {
        match self {
            MachineView::Plain | MachineView::NoDebugfs | MachineView::Remounted | MachineView::Hidden => {
                UnshareFlags::empty()
            }
            MachineView::Container => UnshareFlags::NEWPID,
            MachineView::UserNamespace => UnshareFlags::NEWUSER,
            MachineView::Rootless | MachineView::RootlessNoDebugfs => {
                UnshareFlags::NEWUSER | UnshareFlags::NEWPID | UnshareFlags::NEWNS
            }
        }
    }
}

impl Caller {
    /// Root, with all capabilities.
    pub const ROOT: Caller = Caller { uid: 0, capabilities: CapabilitySet::all(), view: MachineView::Plain };
    /// A user without capabilities.
    pub const USER: Caller =
        Caller { uid: 1000, capabilities: CapabilitySet::empty(), view: MachineView::Plain };

    /// The same caller with these capabilities.
    #[must_use]
    pub const fn with(self, capabilities: CapabilitySet) -> Caller {
        Caller { capabilities, ..self }
    }

    /// The same caller with this view.
    #[must_use]
    pub const fn seeing(self, view: MachineView) -> Caller {
        Caller { view, ..self }
    }

    /// A command that runs as this caller.
    ///
    /// # Errors
    ///
    /// This program's path cannot be read.
    pub fn command(self, program: &str) -> anyhow::Result<Command> {
        let mut command = Command::new(std::env::current_exe().context("finding this program")?);
        command.args(["as", self.view.name(), &self.uid.to_string(), &self.capabilities.bits().to_string()]);
        command.arg(program);
        Ok(command)
    }

    /// Whether this caller can read a file or list a directory, tried in a process of its own.
    ///
    /// # Errors
    ///
    /// The kernel refuses to fork, or to give the rights.
    pub fn can_read(self, path: &str) -> anyhow::Result<bool> {
        let child = sys::fork(|| match self.become_it() {
            Ok(()) if fs::read_dir(path).is_ok() || fs::read(path).is_ok() => 0,
            Ok(()) => 1,
            Err(_) => 2,
        })?;
        match wait_for(child)? {
            0 => Ok(true),
            1 => Ok(false),
            _ => bail!("{self} cannot be played"),
        }
    }

    /// Gives up all rights but these, for good.
    fn become_it(self) -> anyhow::Result<()> {
        for bit in 0..u64::BITS {
            let capability = CapabilitySet::from_bits_retain(1 << bit);
            // It is an error if the kernel does not know the capability.
            if !self.capabilities.contains(capability)
                && capability_is_in_bounding_set(capability) == Ok(true)
            {
                remove_capability_from_bounding_set(capability).context("shrinking the bounding set")?;
            }
        }
        if self.capabilities == CapabilitySet::all() && self.uid == 0 {
            return Ok(());
        }
        set_keep_capabilities(true).context("keeping capabilities")?;
        sys::become_user(self.uid)?;
        let set = self.capabilities;
        let sets = CapabilitySets { effective: set, permitted: set, inheritable: set };
        set_capabilities(None, sets).context("setting capabilities")?;
        for capability in set.iter() {
            configure_capability_in_ambient_set(capability, true).context("raising a capability")?;
        }
        Ok(())
    }

    /// Arranges the view in a new mount namespace, before the inner namespaces are entered.
    fn arrange_view(self) -> anyhow::Result<()> {
        sys::task::enter_new(UnshareFlags::NEWNS)?;
        if self.view.lacks_debugfs() {
            unmount(DEBUGFS, UnmountFlags::empty()).context("unmounting debugfs")?;
        }
        match self.view {
            MachineView::Remounted => mount_new("debugfs", DEBUGFS, None),
            MachineView::Hidden => mount_new("proc", "/proc", Some(c"hidepid=2")),
            MachineView::Plain
            | MachineView::NoDebugfs
            | MachineView::Container
            | MachineView::Rootless
            | MachineView::RootlessNoDebugfs
            | MachineView::UserNamespace => Ok(()),
        }
    }

    /// Executes the command. Returns only if that fails.
    fn exec(self, command: &[String]) -> anyhow::Error {
        let [program, arguments @ ..] = command else { return anyhow::anyhow!("no command") };
        match self.become_it() {
            Ok(()) => Command::new(program).args(arguments).exec().into(),
            Err(error) => error,
        }
    }

    /// Runs the command in the inner namespaces.
    fn exec_inside(self, command: &[String]) -> anyhow::Result<ExitCode> {
        sys::task::enter_new(self.view.inner())?;
        if self.view.inner().contains(UnshareFlags::NEWUSER) {
            for (file, text) in [("setgroups", "deny"), ("uid_map", "0 0 1"), ("gid_map", "0 0 1")] {
                fs::write(format!("/proc/self/{file}"), text).with_context(|| format!("writing {file}"))?;
            }
        }
        let child = sys::fork(|| {
            let own_proc = self.view.inner().contains(UnshareFlags::NEWPID);
            let mounted = if own_proc { mount_new("proc", "/proc", None) } else { Ok(()) };
            let error = mounted.map_or_else(|error| error, |()| self.exec(command));
            eprintln!("{self}: {error:#}");
            127
        })?;
        Ok(ExitCode::from(u8::try_from(wait_for(child)?)?))
    }
}

/// For example `uid 1000, SYS_PTRACE`.
impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.capabilities.iter_names().map(|(name, _)| name).collect();
        let capabilities = match (self.capabilities == CapabilitySet::all(), names.is_empty()) {
            (true, _) => "all capabilities".to_owned(),
            (false, true) => "no capability".to_owned(),
            (false, false) => names.join("+"),
        };
        write!(f, "uid {}, {capabilities}", self.uid)?;
        if self.view == MachineView::Plain { Ok(()) } else { write!(f, ", {}", self.view.name()) }
    }
}

/// The mode `as`: `VIEW UID CAPABILITIES PROGRAM [ARGUMENT]…`.
///
/// # Errors
///
/// The arguments are wrong, or the kernel refuses.
pub fn run(arguments: &[String]) -> anyhow::Result<ExitCode> {
    let [view, uid, capabilities, command @ ..] = arguments else {
        bail!("usage: as VIEW UID CAPS PROGRAM…")
    };
    let (_, view) = *MachineView::ALL.iter().find(|(name, _)| name == view).context("no such view")?;
    let capabilities = CapabilitySet::from_bits_retain(capabilities.parse()?);
    let caller = Caller { uid: uid.parse()?, capabilities, view };
    caller.arrange_view()?;
    if !view.inner().is_empty() {
        return caller.exec_inside(command);
    }
    Err(caller.exec(command))
}

fn mount_new(kind: &str, target: &str, data: Option<&CStr>) -> anyhow::Result<()> {
    mount(kind, target, kind, MountFlags::empty(), data)
        .with_context(|| format!("mounting {kind} on {target}"))
}

/// The exit status of a child, or 128 if a signal ended it.
fn wait_for(child: u32) -> anyhow::Result<i32> {
    let pid = i32::try_from(child).ok().and_then(rustix::process::Pid::from_raw);
    let ended = waitpid(pid, WaitOptions::empty()).context("waiting")?;
    Ok(ended.and_then(|(_, status)| status.exit_status()).unwrap_or(128))
}
