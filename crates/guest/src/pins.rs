//! BPF iterators that are pinned once, for all scenarios that use them.
//!
//! In an emulated kernel, loading the iterators takes several times as long as a scan, and
//! scenarios scan often. They stay pinned in a folder of their own. That folder is mounted where
//! lsbuf looks for pins only while a scenario uses BPF, so no other scenario meets them.
//!
//! Limits: these pins do not test that lsbuf loads iterators itself. The scenarios about probes,
//! the scenarios in which lsbuf chooses its source, and the tests on the host do.

use std::fs;
use std::process::Command;

use anyhow::{Context, ensure};
use rustix::mount::{UnmountFlags, mount_bind, unmount};

use crate::answer::LSBUF;
use crate::way::Way;

const KEPT: &str = "/pins";

/// The folder in which lsbuf looks for pins by default.
pub const PLACE: &str = "/run/lsbuf";

/// What has been done with the pins.
#[derive(Debug, Default)]
pub struct ScenarioPins {
    kept: bool,
    shown: bool,
}

impl ScenarioPins {
    /// Shows the pins to lsbuf if `way` is BPF, and else hides them.
    ///
    /// # Errors
    ///
    /// The iterators cannot be pinned, or the folder cannot be mounted or unmounted.
    pub fn suit(&mut self, way: Option<Way>) -> anyhow::Result<()> {
        let wanted = way == Some(Way::Bpf);
        if wanted == self.shown {
            return Ok(());
        }
        if wanted {
            self.keep()?;
            fs::create_dir_all(PLACE).with_context(|| format!("making {PLACE}"))?;
            mount_bind(KEPT, PLACE).with_context(|| format!("mounting {PLACE}"))?;
        } else {
            // Detached, because a process of an earlier scenario may still have it open.
            unmount(PLACE, UnmountFlags::DETACH).with_context(|| format!("unmounting {PLACE}"))?;
            fs::remove_dir(PLACE).with_context(|| format!("removing {PLACE}"))?;
        }
        self.shown = wanted;
        Ok(())
    }

    fn keep(&mut self) -> anyhow::Result<()> {
        if !self.kept {
            let install = Command::new(LSBUF).args(["probes", "install", "--pins", KEPT]).output();
            let output = install.context("running lsbuf probes install")?;
            ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            self.kept = true;
        }
        Ok(())
    }
}
