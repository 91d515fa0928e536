//! BPF iterators that are pinned once for all scenarios which ask by them.
//!
//! Loading them takes an emulated kernel several times as long as an answer, and scenarios ask often. They stay pinned out of the
//! way, and stand where lsbuf looks for them only while a scenario asks by BPF: no other one meets them. That lsbuf
//! can load them itself is what the scenarios of probes, those that let it choose, and the native tests show.

use std::fs;
use std::process::Command;

use anyhow::{Context, ensure};
use rustix::mount::{UnmountFlags, mount_bind, unmount};

use crate::answer::LSBUF;
use crate::way::Way;

const KEPT: &str = "/pins";

/// Where lsbuf looks if it is told nothing else.
pub const PLACE: &str = "/run/lsbuf";

/// What has been done about them.
#[derive(Debug, Default)]
pub struct Pins {
    kept: bool,
    shown: bool,
}

impl Pins {
    /// Has them where lsbuf looks if that is the way to ask, and else not.
    ///
    /// # Errors
    ///
    /// They cannot be pinned, or moved.
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
            // Even if a scenario that was ended has left somebody in there.
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
