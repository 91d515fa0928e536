//! `lsbuf probes`: BPF iterators that root pins for a group.

use std::io::Write;
use std::path::Path;

use anyhow::Result;
use lsbuf::escape::escape;
use lsbuf::probes::{Access, Installed, Pin, Status};

use crate::args::ProbesAction;
use crate::groups;
use crate::output::{self, Ending};

/// Runs one of its actions.
pub(crate) fn run(action: &ProbesAction) -> Result<Ending> {
    match action {
        ProbesAction::Install { group, folder } => install(&folder.pins, *group),
        ProbesAction::Status { folder } => status(&folder.pins),
        ProbesAction::Remove { folder } => remove(&folder.pins),
    }
}

fn install(below: &Path, group: Option<u32>) -> Result<Ending> {
    let Installed { folder, iterators, left_out } = lsbuf::probes::install(below, group)?;
    let who = match group {
        Some(gid) => format!("root and members of {}", groups::name(&groups::read(), gid)),
        None => "only root".to_owned(),
    };
    let mut out = output::buffered()?;
    writeln!(out, "pinned {} in {}; {who} can read them", iterators.join(", "), shown(&folder))?;
    for (name, why) in left_out {
        writeln!(out, "without {name}: {}", escape(why.as_bytes()))?;
    }
    out.flush()?;
    Ok(Ending::Answered)
}

fn status(below: &Path) -> Result<Ending> {
    let Status { folder, access, pins, unusable, .. } = lsbuf::probes::status(below);
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
    out.flush()?;
    Ok(if unusable.is_none() { Ending::Answered } else { Ending::Failed })
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
