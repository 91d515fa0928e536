//! `cargo xtask bpf`: compiles the committed BPF objects, or checks that they are what their
//! sources make.
//!
//! Limits: another version of clang may make other bytes that are just as good. An object is wrong
//! only if its bytes differ and the version is the one that made it. If the version differs too,
//! nothing is known, and the command says so.

use std::fs;

use anyhow::{Context, anyhow, bail};

use crate::host;
use crate::workspace::Workspace;

#[path = "../../crates/lsbuf/bpf/compile.rs"]
mod compile;

use compile::{MAJOR, OBJECTS, Tools};

/// The version that the committed objects are made with: of Debian 12.
const VERSION: &str = "14.0.6";

/// Compile the committed BPF objects with clang; run by root, it installs clang if it is missing
#[derive(Debug, clap::Args)]
pub(crate) struct BpfArgs {
    /// Change nothing; fail if a committed object differs from what its source makes
    #[arg(long)]
    check: bool,
}

/// The result of a comparison, unless an object is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Compared {
    /// All of them are what their sources make.
    Same,
    /// The comparison is not possible here; the text says why.
    Impossible(String),
}

/// `cargo xtask bpf`.
pub(crate) fn bpf(workspace: &Workspace, arguments: &BpfArgs) -> anyhow::Result<()> {
    if arguments.check {
        return match check(workspace)? {
            Compared::Same => Ok(()),
            Compared::Impossible(why) => bail!("the BPF objects cannot be compared here: {why}"),
        };
    }
    let tools = find_or_install().map_err(|why| anyhow!(why))?;
    if tools.version != VERSION {
        bail!(
            "the committed objects are made with clang {VERSION} of Debian 12, but this is clang {}",
            tools.version
        );
    }
    let folder = workspace.bpf();
    for name in OBJECTS {
        let object = tools.compile(&folder, name, false, &folder).map_err(|why| anyhow!(why))?;
        let size = fs::metadata(&object).with_context(|| format!("reading {}", object.display()))?.len();
        println!("bpf/{name}.bpf.o: {size} bytes");
    }
    Ok(())
}

/// Compares each object with what its source makes.
pub(crate) fn check(workspace: &Workspace) -> anyhow::Result<Compared> {
    let tools = match find_or_install() {
        Ok(tools) => tools,
        Err(why) => return Ok(Compared::Impossible(why)),
    };
    let into = workspace.target.join("bpf");
    fs::create_dir_all(&into).with_context(|| format!("making {}", into.display()))?;
    for name in OBJECTS {
        let folder = workspace.bpf();
        let made = tools.compile(&folder, name, false, &into);
        let committed = folder.join(format!("{name}.bpf.o"));
        let read =
            |path: &std::path::Path| fs::read(path).with_context(|| format!("reading {}", path.display()));
        let same = match &made {
            Ok(made) => read(made)? == read(&committed)?,
            Err(_) => false,
        };
        match (same, made, tools.version == VERSION) {
            (true, ..) => {}
            (false, made, false) => {
                let how = made.map_or_else(|why| why, |_| format!("makes another bpf/{name}.bpf.o"));
                let which = &tools.version;
                return Ok(Compared::Impossible(format!(
                    "clang {which} is not {VERSION}, of Debian 12: {how}"
                )));
            }
            (false, Err(why), true) => bail!("bpf/{name}.bpf.o: {why}"),
            (false, Ok(_), true) => {
                bail!("bpf/{name}.bpf.o is not what its source makes: run cargo xtask bpf and commit it")
            }
        }
    }
    Ok(Compared::Same)
}

/// The compiler. If it is missing, root installs the right version, if there is a package of it.
fn find_or_install() -> Result<Tools, String> {
    Tools::find().or_else(|why| {
        let packages = [format!("clang-{MAJOR}"), format!("llvm-{MAJOR}")];
        let packages = packages.each_ref().map(String::as_str);
        if !host::can_install() {
            return Err(format!("{why}; install {}", packages.join(" and ")));
        }
        host::install(&packages).map_err(|error| format!("{why}, and it cannot be installed: {error:#}"))?;
        Tools::find()
    })
}
