//! Scenarios about the guest itself. If one of these fails, no other result means anything.

use std::fs::{self, File};

use anyhow::Context;

use crate::kernels::Kernels;
use crate::need::{Need, vgem_node, vivid_node};
use crate::scenario::{Ctx, Scenario};

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "boots",
        claim: "The guest runs the kernel that it reports",
        needs: &[],
        kernels: Kernels::Every,
        ways: &[],
        run: boots,
    },
    Scenario {
        name: "exporters_present",
        claim: "The probes of exporters agree with sysfs and the devices",
        needs: &[],
        kernels: Kernels::Every,
        ways: &[],
        run: exporters_present,
    },
];

/// `/proc` is mounted and belongs to the running kernel.
fn boots(ctx: &mut Ctx) -> anyhow::Result<()> {
    let version = fs::read_to_string("/proc/version").context("reading /proc/version")?;
    let uname = rustix::system::uname();
    let release = uname.release().to_string_lossy().into_owned();
    let third = version.split(' ').nth(2).unwrap_or_default();
    ctx.check_eq("release in /proc/version", &release, third)?;
    let version_ends = version.trim_end().ends_with(&*uname.version().to_string_lossy());
    ctx.check("/proc/version ends with uname's version", version_ends)
}

/// Each probe agrees with sysfs, and a device that exists can be opened.
fn exporters_present(ctx: &mut Ctx) -> anyhow::Result<()> {
    for (need, sysfs, node) in [
        (Need::Heap, "/sys/class/dma_heap/system", Some("/dev/dma_heap/system".into())),
        (Need::Udmabuf, "/sys/class/misc/udmabuf", Some("/dev/udmabuf".into())),
        (Need::Vgem, "/sys/module/vgem", vgem_node("card")),
        (Need::Vivid, "/sys/module/vivid", vivid_node("vid-cap")),
    ] {
        let exists = fs::exists(sysfs).with_context(|| format!("looking for {sysfs}"))?;
        ctx.check_eq(format!("{need} is there if and only if {sysfs} is"), exists, need.probe())?;
        if let Some(node) = node.filter(|_| need.probe()) {
            let opened = File::options().read(true).write(true).open(&node).map(drop);
            let opened = opened.map_or_else(|error| error.to_string(), |()| "ok".to_owned());
            ctx.check_eq(format!("opening {}", node.display()), "ok", opened)?;
        }
    }
    Ok(())
}
