//! Who asks: this process's effective capabilities, user and namespaces.
//!
//! Only advice looks at them. Whether something works is found out by trying it.

use rustix::fs::readlinkat;
use rustix::process::geteuid;
use rustix::thread::{CapabilitySet, capabilities};

/// What this process may do, as far as it matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rights {
    pub(crate) effective: CapabilitySet,
    /// The effective user id, which for a program that does not change it is the filesystem's too.
    pub(crate) uid: u32,
    /// Whether its capabilities count for the whole machine.
    pub(crate) first_user_namespace: bool,
    /// Whether every process of the machine has an id for it.
    pub(crate) first_pid_namespace: bool,
}

impl Rights {
    /// Those of this process. What cannot be read is taken for the common case: no capability, and the first namespaces.
    pub(crate) fn own() -> Rights {
        /// `PROC_USER_INIT_INO` and `PROC_PID_INIT_INO` of include/linux/proc_ns.h.
        const FIRST: [(&str, u32); 2] = [("user", 0xEFFF_FFFD), ("pid", 0xEFFF_FFFC)];
        let [user, pid] = FIRST.map(|(kind, ino)| {
            let link = readlinkat(rustix::fs::CWD, format!("/proc/self/ns/{kind}"), Vec::new());
            link.map_or(true, |link| link.as_bytes() == format!("{kind}:[{ino}]").as_bytes())
        });
        Rights {
            effective: capabilities(None).map_or(CapabilitySet::empty(), |sets| sets.effective),
            uid: geteuid().as_raw(),
            first_user_namespace: user,
            first_pid_namespace: pid,
        }
    }

    /// Whether one of `any` is effective for the whole machine.
    pub(crate) fn has(&self, any: CapabilitySet) -> bool {
        self.first_user_namespace && self.effective.intersects(any)
    }
}
