//! `lsbuf probes`: BPF iterators that root pins for a group, and the flight recorder.

use std::io::Write;
use std::path::Path;

use anyhow::Result;
use lsbuf::escape::escape;
use lsbuf::origins::Recorded;
use lsbuf::probes::{Access, Installed, Pin, Status};

use crate::args::ProbesAction;
use crate::groups;
use crate::output::{self, Ending};

/// Runs one of its actions.
pub(crate) fn run(action: &ProbesAction) -> Result<Ending> {
    match action {
        ProbesAction::Install { group, origins, most, folder } => {
            install(&folder.pins, *group, origins.then_some(*most))
        }
        ProbesAction::Status { folder } => status(&folder.pins),
        ProbesAction::Remove { folder } => remove(&folder.pins),
    }
}

/// Installs the iterators, and with `origins` the flight recorder, with room for so many buffers.
/// The recorder works without the iterators, which need a newer kernel.
fn install(below: &Path, group: Option<u32>, origins: Option<u32>) -> Result<Ending> {
    let who = match group {
        Some(gid) => format!("root and members of {}", groups::name(&groups::read(), gid)),
        None => "only root".to_owned(),
    };
    let mut out = output::buffered()?;
    match lsbuf::probes::install(below, group) {
        Ok(Installed { folder, iterators, left_out }) => {
            writeln!(out, "pinned {} in {}; {who} can read them", iterators.join(", "), shown(&folder))?;
            without(&mut out, left_out)?;
        }
        Err(why) if origins.is_some() => without(&mut out, vec![("the iterators", why.to_string())])?,
        Err(why) => return Err(why.into()),
    }
    if let Some(most) = origins {
        let installed = lsbuf::origins::install(below, group, most)?;
        let (what, folder) = (if installed.kept { "kept" } else { "installed" }, shown(&installed.folder));
        writeln!(out, "{what} the flight recorder in {folder}; {who} can read its records")?;
        without(&mut out, installed.left_out)?;
    }
    out.flush()?;
    Ok(Ending::Answered)
}

/// Says what is missing, and why.
fn without(out: &mut impl Write, left_out: Vec<(&'static str, String)>) -> Result<()> {
    for (name, why) in left_out {
        writeln!(out, "without {name}: {}", escape(why.as_bytes()))?;
    }
    Ok(())
}

fn status(below: &Path) -> Result<Ending> {
    let Status { folder, access, pins, unusable, .. } = lsbuf::probes::status(below);
    let origins = lsbuf::origins::status(below);
    let groups = groups::read();
    let who = |access: Option<Access>| match access {
        Some(Access { uid, gid, mode }) => {
            let user = if uid == 0 { "root".to_owned() } else { uid.to_string() };
            format!("{user}:{} {mode:04o}", escape(groups::name(&groups, gid).as_bytes()))
        }
        None => "-".to_owned(),
    };
    let mut out = output::buffered()?;
    writeln!(out, "{:<15} {:<20} {}", "folder", who(access), shown(&folder))?;
    for Pin { name, access, unreadable } in pins {
        let state = unreadable.unwrap_or_else(|| "can be read".to_owned());
        writeln!(out, "{name:<15} {:<20} {}", who(access), escape(state.as_bytes()))?;
    }
    match &unusable {
        None => writeln!(out, "This user can read them.")?,
        Some(why) => writeln!(out, "This user cannot use them: {}", escape(why.as_bytes()))?,
    }
    match (&origins.access, origins.recorder) {
        (None, _) => writeln!(out, "The flight recorder is not installed.")?,
        (Some(_), recorder) => {
            writeln!(
                out,
                "{:<15} {:<20} {}",
                "flight recorder",
                who(origins.access),
                shown(&origins.folder)
            )?;
            for Pin { name, access, unreadable } in &origins.pins {
                let state = unreadable.as_deref().unwrap_or("can be read");
                writeln!(out, "{name:<15} {:<20} {}", who(*access), escape(state.as_bytes()))?;
            }
            if let Some(recorder) = recorder {
                write_recorder(&mut out, &recorder)?;
            }
        }
    }
    out.flush()?;
    Ok(if unusable.is_none() { Ending::Answered } else { Ending::Failed })
}

/// What the flight recorder says of itself.
fn write_recorder(out: &mut impl Write, recorder: &Recorded) -> Result<()> {
    let Recorded { since, living, most, births, deaths, full, skipped, skipped_deaths, .. } = recorder;
    let since = lsbuf::history::shown(*since);
    writeln!(
        out,
        "It records since {since}: {births} births, {deaths} deaths; {living} of {most} are alive."
    )?;
    if *full > 0 {
        writeln!(out, "{full} births were lost, because there was no room: see --most of probes install.")?;
    }
    if !recorder.unseen.is_empty() {
        writeln!(out, "This kernel does not show the births of {}.", recorder.unseen.join(", "))?;
    }
    if !recorder.clients {
        writeln!(out, "This kernel does not show who receives buffers.")?;
    }
    let [births, deaths] = [skipped, skipped_deaths].map(|skipped| skipped.unwrap_or(0));
    if births + deaths > 0 {
        writeln!(out, "At most {births} births and {deaths} deaths were skipped by the kernel.")?;
    }
    let receipts = recorder.skipped_receipts.unwrap_or(0);
    if receipts > 0 {
        writeln!(out, "At most {receipts} receipts were skipped, so no buffer has a client.")?;
    }
    Ok(())
}

fn remove(below: &Path) -> Result<Ending> {
    let removed = lsbuf::probes::remove(below)?;
    let mut out = output::buffered()?;
    let what = if removed { "removed what was pinned" } else { "nothing is pinned" };
    writeln!(out, "{what} in {}", shown(below))?;
    out.flush()?;
    Ok(Ending::Answered)
}

fn shown(path: &Path) -> String {
    escape(path.as_os_str().as_encoded_bytes())
}
