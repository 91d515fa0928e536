//! Says which rights are missing: the fewest capabilities that the caller lacks, and whether it
//! must leave its user namespace to get them.
//!
//! Which right each source needs was tried on real kernels, one capability at a time; the guest's
//! `rights` scenarios try it again. Outside the first user namespace, a capability that was given
//! inside counts for nothing.
//!
//! Limits: a security module may refuse although no capability is missing.

use std::collections::BTreeSet;

use rustix::thread::CapabilitySet;

use crate::kernel::rights::Rights;

/// A right without which something is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Right {
    /// To read other users' processes: `maps`, `fdinfo` since Linux 5.14, links of `fd`; and to see
    /// processes that hidepid hides.
    Trace,
    /// To enter other users' directories: debugfs, `fd`, `map_files`; `fdinfo` before Linux 5.14.
    Search,
    /// To follow the links of `map_files`.
    FollowMappings,
    /// To load BPF programs.
    Load,
    /// To load BPF programs that read the kernel's memory.
    Observe,
    /// To mount a filesystem.
    Mount,
}

impl Right {
    fn capability(self) -> &'static str {
        match self {
            Right::Trace => "CAP_SYS_PTRACE",
            Right::Search => "CAP_DAC_READ_SEARCH",
            Right::FollowMappings => "CAP_CHECKPOINT_RESTORE",
            Right::Load => "CAP_BPF",
            Right::Observe => "CAP_PERFMON",
            Right::Mount => "CAP_SYS_ADMIN",
        }
    }

    /// Capabilities of which each one alone gives the right.
    fn given_by(self) -> CapabilitySet {
        match self {
            Right::Trace => CapabilitySet::SYS_PTRACE,
            Right::Search => CapabilitySet::DAC_READ_SEARCH | CapabilitySet::DAC_OVERRIDE,
            Right::FollowMappings => CapabilitySet::CHECKPOINT_RESTORE | CapabilitySet::SYS_ADMIN,
            Right::Load => CapabilitySet::BPF | CapabilitySet::SYS_ADMIN,
            Right::Observe => CapabilitySet::PERFMON | CapabilitySet::SYS_ADMIN,
            Right::Mount => CapabilitySet::SYS_ADMIN,
        }
    }

    /// Whether the caller has it.
    pub(crate) fn is_had(self, rights: &Rights) -> bool {
        rights.has(self.given_by())
    }
}

/// A sentence that says how to get these rights.
pub(crate) fn obtain(needed: &BTreeSet<Right>, rights: &Rights) -> String {
    let lacking: Vec<&str> =
        needed.iter().filter(|right| !right.is_had(rights)).map(|right| right.capability()).collect();
    let lacking = match &lacking[..] {
        [others @ .., last] if !others.is_empty() => format!("{} and {last}", others.join(", ")),
        few => few.concat(),
    };
    match (lacking.as_str(), rights.first_user_namespace, rights.uid) {
        ("", ..) => "nothing: no capability is missing; a security module may be refusing".to_owned(),
        (lacking, false, _) => {
            format!(
                "run in the first user namespace, as root or with {lacking}: capabilities of this one do not count \
                 outside it"
            )
        }
        (lacking, true, 0) => format!("run with {lacking}, which this root does not have"),
        (lacking, true, _) => format!("run as root, or with {lacking}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rights(uid: u32, effective: CapabilitySet) -> Rights {
        Rights { effective, uid, first_user_namespace: true, first_pid_namespace: true }
    }

    fn both() -> BTreeSet<Right> {
        BTreeSet::from([Right::Trace, Right::Search])
    }

    /// Check that only rights that the caller lacks are named.
    #[test]
    fn only_what_is_lacking() {
        let advice = |effective| obtain(&both(), &rights(1000, effective));
        assert_eq!(
            advice(CapabilitySet::empty()),
            "run as root, or with CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH"
        );
        assert_eq!(advice(CapabilitySet::SYS_PTRACE), "run as root, or with CAP_DAC_READ_SEARCH");
        assert_eq!(advice(CapabilitySet::DAC_OVERRIDE), "run as root, or with CAP_SYS_PTRACE");
        let three = BTreeSet::from([Right::Trace, Right::Search, Right::FollowMappings]);
        assert_eq!(
            obtain(&three, &rights(1000, CapabilitySet::empty())),
            "run as root, or with CAP_SYS_PTRACE, CAP_DAC_READ_SEARCH and CAP_CHECKPOINT_RESTORE"
        );
    }

    /// Check that root is not told to become root.
    #[test]
    fn root_without_capabilities() {
        let advice = obtain(&both(), &rights(0, CapabilitySet::DAC_OVERRIDE));
        assert_eq!(advice, "run with CAP_SYS_PTRACE, which this root does not have");
    }

    /// Check that a caller with every capability is not told to get one.
    #[test]
    fn nothing_lacking() {
        let advice = obtain(&both(), &rights(0, CapabilitySet::all()));
        assert_eq!(advice, "nothing: no capability is missing; a security module may be refusing");
    }

    /// Check that the capabilities of an inner user namespace count for nothing.
    #[test]
    fn an_inner_user_namespace() {
        let inner = Rights { first_user_namespace: false, ..rights(0, CapabilitySet::all()) };
        let advice = obtain(&both(), &inner);
        assert!(advice.starts_with("run in the first user namespace"), "{advice}");
        assert!(advice.contains("CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH"), "{advice}");
    }
}
