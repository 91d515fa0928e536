//! Which sources work here, and what would make the answer complete.
//!
//! Every verdict comes from trying the source, not from kernel versions or credentials; only the advice looks at who asks.

use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, openat, statfs};
use rustix::io::Errno;

use super::Scanner;
use crate::error::Error;
use crate::kernel::{bufinfo, map_files, read};
use crate::model::{Coverage, MapRef, Note, Snapshot};

/// How far a source works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProbeState {
    /// For everything.
    Works,
    /// For a part.
    Partly,
    /// Not at all.
    Missing,
}

impl ProbeState {
    /// The word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            ProbeState::Works => "works",
            ProbeState::Partly => "partly",
            ProbeState::Missing => "missing",
        }
    }
}

/// What trying one source showed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// The source, or what the sources depend on.
    pub what: &'static str,
    /// What lsbuf learns from it.
    pub gives: &'static str,
    /// How far it works.
    pub state: ProbeState,
    /// What was seen.
    pub seen: String,
    /// What to do about it.
    pub advice: Option<String>,
}

/// What trying everything showed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnosis {
    /// Source by source.
    pub probes: Vec<Probe>,
    /// What a scan says of itself; the answer is complete here exactly if this is.
    pub coverage: Coverage,
}

impl Scanner {
    /// Tries every source, and takes a snapshot.
    ///
    /// # Errors
    /// As [`Scanner::scan`].
    pub fn diagnose(&mut self) -> Result<Diagnosis, Error> {
        let Snapshot { coverage, .. } = self.scan()?;
        let probes = vec![whole_machine(&coverage), processes(&coverage), self.bufinfo(), self.map_files()];
        Ok(Diagnosis { probes, coverage })
    }

    fn bufinfo(&mut self) -> Probe {
        let probe = |state, seen: String, advice: Option<&str>| Probe {
            what: "bufinfo",
            gives: "buffers that no process holds, counts, attached devices",
            state,
            seen,
            advice: advice.map(str::to_owned),
        };
        let Some(sys) = self.options.sys_root.clone() else {
            let seen = "no sysfs goes with this procfs".to_owned();
            return probe(ProbeState::Missing, seen, Some("name it with --sys-root"));
        };
        match bufinfo::read_list(&sys, &mut self.buffers.text) {
            Ok(list) if list.agrees() => {
                probe(ProbeState::Works, format!("lists {} buffers", list.buffers.len()), None)
            }
            Ok(list) => {
                let seen = format!("{} readable rows, which contradict its closing line", list.buffers.len());
                probe(ProbeState::Partly, seen, Some("look for a buffer with a newline in its name"))
            }
            Err(error) => {
                let seen = format!("{}: {}", sys.join(bufinfo::PATH).display(), std::io::Error::from(error));
                probe(ProbeState::Missing, seen, Some(advise_bufinfo(&sys, error)))
            }
        }
    }

    fn map_files(&mut self) -> Probe {
        let followed = self.first_own_mapping().and_then(|vma| {
            let link = Path::new("self").join(map_files::link(&vma));
            openat(self.root.dir(), link, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
        });
        let (state, seen) = match followed {
            Ok(_) => (ProbeState::Works, "links can be followed".to_owned()),
            Err(error) => (ProbeState::Missing, std::io::Error::from(error).to_string()),
        };
        Probe {
            what: "map_files",
            gives: "size, creator and age of a buffer that is only mapped",
            state,
            seen,
            advice: (state != ProbeState::Works).then(|| {
                "needs CAP_CHECKPOINT_RESTORE or CAP_SYS_ADMIN in the first user namespace".to_owned()
            }),
        }
    }

    fn first_own_mapping(&mut self) -> Result<MapRef, Errno> {
        use std::os::fd::AsFd;
        let own = read::open_dir(self.root.dir(), c"self")?;
        let mut links = Vec::new();
        let dir = read::open_dir(&own, c"map_files")?;
        read::entries(dir.as_fd(), &mut self.buffers.dir, |entry, _| {
            links.extend(map_files::range(entry.to_bytes()));
            Ok(())
        })?;
        links.first().copied().ok_or(Errno::NOENT)
    }
}

fn whole_machine(coverage: &Coverage) -> Probe {
    let hidden = coverage.notes.contains(&Note::NotWholeMachine);
    Probe {
        what: "procfs",
        gives: "the list of processes",
        state: if hidden { ProbeState::Partly } else { ProbeState::Works },
        seen: if hidden { "no kernel threads show" } else { "kernel threads show: this is the whole machine" }.into(),
        advice: hidden.then(|| {
            "run in the first pid namespace (a container: --pid=host), with a /proc mounted without hidepid and \
             subset=pid"
                .to_owned()
        }),
    }
}

fn processes(coverage: &Coverage) -> Probe {
    let counts = &coverage.processes;
    let state = match (counts.unreadable, counts.read) {
        (0, _) => ProbeState::Works,
        (_, 0) => ProbeState::Missing,
        _ => ProbeState::Partly,
    };
    Probe {
        what: "fd, fdinfo, maps",
        gives: "who holds what by fds and mappings",
        state,
        seen: format!("{} of {} processes can be read", counts.read, counts.total - counts.vanished),
        advice: (state != ProbeState::Works).then(|| advise_processes().to_owned()),
    }
}

fn advise_processes() -> &'static str {
    if rustix::process::geteuid().is_root() {
        "this is root already: a user namespace, a lost capability or a security module protects the others"
    } else {
        "run as root, or with CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH"
    }
}

fn advise_bufinfo(sys: &Path, error: Errno) -> &'static str {
    /// `DEBUGFS_MAGIC` of include/uapi/linux/magic.h.
    const DEBUGFS_MAGIC: i64 = 0x6462_6720;
    match error {
        Errno::ACCESS | Errno::PERM => "run as root: debugfs is root's alone",
        Errno::NOENT => {
            let debug = sys.join("kernel/debug");
            match statfs(&debug) {
                Ok(fs) if fs.f_type == DEBUGFS_MAGIC => {
                    "this kernel was built without dma-bufs (CONFIG_DMA_SHARED_BUFFER)"
                }
                _ if openat(CWD, &debug, OFlags::PATH, Mode::empty()).is_err() => {
                    "this kernel was built without debugfs (CONFIG_DEBUG_FS)"
                }
                _ => "as root: mount -t debugfs none /sys/kernel/debug",
            }
        }
        _ => "see the error",
    }
}
