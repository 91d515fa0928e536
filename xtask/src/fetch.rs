//! Kernels on disk: downloaded once from a Debian mirror, then used again without the network.
//!
//! A cached kernel is a folder `kernels/ID` with `vmlinuz`, `modules/*.ko` and `kernel.json`. The
//! modules are decompressed, because not every kernel can do that itself. To get the newest
//! revision, delete the folder.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, bail};
use clap::ValueEnum;
use lsbuf_guest::need::Need;
use serde::{Deserialize, Serialize};

use crate::apt::Apt;
use crate::arch::Arch;
use crate::cmd;
use crate::deb_version::{self, Offer};
use crate::kernels::{Contract, Kernel};
use crate::modinfo;
use crate::workspace::Workspace;

/// A kernel that can be booted.
#[derive(Debug)]
pub(crate) struct Bootable {
    /// Its name in the table, or that of its file.
    pub(crate) id: String,
    /// The image.
    pub(crate) vmlinuz: PathBuf,
    /// Files and contents of the modules, in the order of loading.
    pub(crate) modules: Vec<(String, Vec<u8>)>,
    /// The needs that it does not meet; `None` if nobody has listed them, as for a developer's own
    /// kernel.
    pub(crate) lacks: Option<Vec<Need>>,
    /// What `lsbuf check` should find in it; `None` if nobody has listed that.
    pub(crate) contract: Option<Contract>,
}

/// What `kernel.json` says.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Record {
    /// Names and versions of the packages it came from.
    pub(crate) packages: Vec<String>,
    /// The modules that were asked for.
    pub(crate) roots: Vec<String>,
    /// All modules, in the order of loading.
    pub(crate) order: Vec<String>,
}

/// The cache's record of `kernel`, if it is there with all modules that the table asks for now.
pub(crate) fn record(workspace: &Workspace, kernel: &Kernel) -> Option<Record> {
    let bytes = fs::read(folder(workspace, kernel).join("kernel.json")).ok()?;
    let record: Record = serde_json::from_slice(&bytes).ok()?;
    kernel.modules.iter().all(|module| record.roots.contains(module)).then_some(record)
}

/// Makes sure that all `kernels` are in the cache, and loads them.
pub(crate) fn ensure(workspace: &Workspace, kernels: &[Kernel]) -> anyhow::Result<Vec<Bootable>> {
    fs::create_dir_all(workspace.vm()).context("making the cache")?;
    // Two runs at once would write the same files.
    let lock = File::create(workspace.vm().join("lock")).context("opening the cache's lock")?;
    lock.lock().context("locking the cache")?;
    let missing: Vec<&Kernel> = kernels.iter().filter(|kernel| record(workspace, kernel).is_none()).collect();
    for &arch in Arch::value_variants() {
        let missing: Vec<&Kernel> = missing.iter().copied().filter(|kernel| kernel.arch == arch).collect();
        if !missing.is_empty() {
            fetch(workspace, arch, &missing)?;
        }
    }
    kernels.iter().map(|kernel| load(workspace, kernel)).collect()
}

fn folder(workspace: &Workspace, kernel: &Kernel) -> PathBuf {
    workspace.vm().join("kernels").join(&kernel.id)
}

/// Loads a cached kernel.
fn load(workspace: &Workspace, kernel: &Kernel) -> anyhow::Result<Bootable> {
    let folder = folder(workspace, kernel);
    let record = record(workspace, kernel).with_context(|| format!("kernel {} is not cached", kernel.id))?;
    let mut modules = Vec::new();
    for module in record.order {
        let path = folder.join("modules").join(format!("{module}.ko"));
        let bytes = fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
        modules.push((format!("{module}.ko"), bytes));
    }
    Ok(Bootable {
        id: kernel.id.clone(),
        vmlinuz: folder.join("vmlinuz"),
        modules,
        lacks: Some(kernel.lacks.clone()),
        contract: Some(kernel.contract()),
    })
}

/// A developer's own kernel, with the modules `roots` and what they need from anywhere below
/// `modules`.
pub(crate) fn own(image: &Path, modules: Option<&Path>, roots: &[String]) -> anyhow::Result<Bootable> {
    if !image.is_file() {
        bail!(cmd::Usage(format!("no kernel image {}", image.display())));
    }
    let modules = match modules {
        Some(folder) => {
            let mut files = Vec::new();
            list(folder, &mut files)?;
            collect(roots, &mut |name| {
                let is_it = |file: &&PathBuf| {
                    modinfo::module_of_file(&file.to_string_lossy()).as_deref() == Some(name)
                };
                Ok(files.iter().find(is_it).cloned())
            })?
        }
        None => Vec::new(),
    };
    Ok(Bootable { id: "image".to_owned(), vmlinuz: image.to_owned(), modules, lacks: None, contract: None })
}

/// All files below `folder`.
fn list(folder: &Path, files: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    for entry in fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))? {
        let entry = entry.with_context(|| format!("reading {}", folder.display()))?;
        // Links are not followed, because the folder of an installed kernel has one to its sources.
        if entry.file_type().context("asking a file's type")?.is_dir() {
            list(&entry.path(), files)?;
        } else {
            files.push(entry.path());
        }
    }
    Ok(())
}

/// Fetches `kernels`, all of that architecture, into the cache.
fn fetch(workspace: &Workspace, arch: Arch, kernels: &[&Kernel]) -> anyhow::Result<()> {
    let mut suites: Vec<String> = kernels.iter().flat_map(|kernel| kernel.suites.clone()).collect();
    suites.sort();
    suites.dedup();
    eprintln!("reading the package lists of {}", suites.join(", "));
    let apt = Apt::update(&workspace.vm().join("apt").join(arch.name()), arch, &suites)?;
    let patterns: Vec<String> = kernels.iter().flat_map(|kernel| kernel.packages.clone()).collect();
    let offers = apt.offers(&patterns)?;
    for kernel in kernels {
        let set = deb_version::choose(&offers, &kernel.packages, &kernel.suites).with_context(|| {
            format!(
                "kernel {}: no {} in {}",
                kernel.id,
                kernel.packages.join(" with "),
                kernel.suites.join(", ")
            )
        })?;
        fetch_one(workspace, &apt, kernel, &set).with_context(|| format!("fetching kernel {}", kernel.id))?;
    }
    apt.clean()
}

/// Downloads and unpacks one kernel. The folder gets its name only when it is complete.
fn fetch_one(workspace: &Workspace, apt: &Apt, kernel: &Kernel, set: &[&Offer]) -> anyhow::Result<()> {
    let packages: Vec<String> =
        set.iter().map(|offer| format!("{} {}", offer.package, offer.version)).collect();
    eprintln!("fetching kernel {}: {}", kernel.id, packages.join(", "));
    let place = folder(workspace, kernel);
    let scratch = place.with_file_name(format!("{}.new", kernel.id));
    for stale in [&scratch, &place] {
        if stale.exists() {
            fs::remove_dir_all(stale).with_context(|| format!("removing {}", stale.display()))?;
        }
    }
    fs::create_dir_all(scratch.join("modules")).with_context(|| format!("making {}", scratch.display()))?;
    let mut contents = Vec::new();
    for offer in set {
        let package = apt.download(offer)?;
        let tar = package.with_extension("tar");
        unpack_package(&package, &tar)?;
        let listing = cmd::output(Command::new("tar").arg("-tf").arg(&tar))?;
        contents.extend(listing.lines().map(|path| (tar.clone(), path.to_owned())));
    }
    let is_image = |path: &str| path.rsplit('/').next().is_some_and(|name| name.starts_with("vmlinuz"));
    let image = contents.iter().find(|(_, path)| is_image(path)).context("no vmlinuz in the packages")?;
    extract(image, &scratch.join("vmlinuz"))?;
    let packed = scratch.join("packed");
    fs::create_dir(&packed).context("making a folder for packed modules")?;
    let modules = collect(&kernel.modules, &mut |name| {
        let found = contents.iter().find(|(_, path)| modinfo::module_of_file(path).as_deref() == Some(name));
        let Some(found) = found else { return Ok(None) };
        let file = packed.join(found.1.rsplit('/').next().unwrap_or(name));
        extract(found, &file)?;
        Ok(Some(file))
    })?;
    fs::remove_dir_all(&packed).context("removing packed modules")?;
    let mut order = Vec::new();
    for (name, bytes) in modules {
        fs::write(scratch.join("modules").join(&name), bytes).with_context(|| format!("writing {name}"))?;
        order.push(name.trim_end_matches(".ko").to_owned());
    }
    let record = Record { packages, roots: kernel.modules.clone(), order };
    fs::write(scratch.join("kernel.json"), serde_json::to_vec_pretty(&record)?)
        .context("writing kernel.json")?;
    fs::rename(&scratch, &place).with_context(|| format!("naming {}", place.display()))
}

/// Unpacks the contents of a package into one uncompressed archive. Picking files from it is much
/// faster than unpacking all of them.
pub(crate) fn unpack_package(package: &Path, tar: &Path) -> anyhow::Result<()> {
    let file = File::create(tar).with_context(|| format!("making {}", tar.display()))?;
    cmd::run(Command::new("dpkg-deb").arg("--fsys-tarfile").arg(package).stdout(Stdio::from(file)))
}

/// Copies one member of an archive to `place`.
fn extract((tar, path): &(PathBuf, String), place: &Path) -> anyhow::Result<()> {
    let file = File::create(place).with_context(|| format!("making {}", place.display()))?;
    cmd::run(Command::new("tar").arg("-xOf").arg(tar).arg(path).stdout(Stdio::from(file)))
}

/// The modules `roots` and all they need, in the order of loading. `find` yields the file of a
/// module.
fn collect(
    roots: &[String],
    find: &mut dyn FnMut(&str) -> anyhow::Result<Option<PathBuf>>,
) -> anyhow::Result<Vec<(String, Vec<u8>)>> {
    let mut found = std::collections::HashMap::new();
    let order = modinfo::load_order(roots, &mut |name| {
        let file = find(name)?.with_context(|| format!("no module {name}"))?;
        let bytes = read_module(&file)?;
        let depends = modinfo::depends(&bytes).with_context(|| format!("reading {}", file.display()))?;
        found.insert(name.to_owned(), bytes);
        Ok(depends)
    })?;
    let take = |name: String| found.remove(&name).map(|bytes| (format!("{name}.ko"), bytes));
    Ok(order.into_iter().filter_map(take).collect())
}

/// The contents of a module's file, unpacked.
fn read_module(file: &Path) -> anyhow::Result<Vec<u8>> {
    match file.extension().and_then(|ending| ending.to_str()) {
        Some("xz") => cmd::output_bytes(Command::new("xz").arg("-dc").arg(file)),
        Some("zst") => cmd::output_bytes(Command::new("zstd").arg("-dc").arg(file)),
        _ => fs::read(file).with_context(|| format!("reading {}", file.display())),
    }
}
