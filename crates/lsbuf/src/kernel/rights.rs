//! The rights of lsbuf itself: effective capabilities, user id and namespaces.
//!
//! They are used only for advice to the user. Whether lsbuf can do something is found out by trying
//! it.

use rustix::fs::readlinkat;
use rustix::process::geteuid;
use rustix::thread::{CapabilitySet, capabilities};

/// The rights of a process, as far as they matter here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rights {
    pub(crate) effective: CapabilitySet,
    /// The effective user id. The filesystem user id is the same, unless a program changes it.
    pub(crate) uid: u32,
    /// Whether it is in the first user namespace, so that its capabilities hold for the whole
    /// machine.
    pub(crate) first_user_namespace: bool,
    /// Whether it is in the first pid namespace, in which every process of the machine has a pid.
    pub(crate) first_pid_namespace: bool,
}

impl Rights {
    /// The rights of this process. What cannot be read gets the common value: no capability, and
    /// the first namespaces.
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

    /// Whether at least one of these capabilities is effective for the whole machine.
    pub(crate) fn has(&self, any: CapabilitySet) -> bool {
        self.first_user_namespace && self.effective.intersects(any)
    }
}
