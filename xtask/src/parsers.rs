//! `cargo xtask fuzz`: libFuzzer on every parser, and on whole scans of damaged trees.
//!
//! The targets are in `fuzz/`. Plain cargo builds them with the coverage passes of the stable
//! compiler, so neither cargo-fuzz nor a nightly toolchain is needed. libFuzzer itself needs a C++
//! compiler. If there is none, the property tests of `lsbuf::fuzzing` check the same claims with a
//! million random inputs for each parser; they are not guided by coverage.
//!
//! The first inputs are cut out of the recorded trees into `target/fuzz/corpus`, where new inputs
//! that the fuzzer finds are kept too. Inputs that occur in no tree are files in `fuzz/seeds`.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, ensure};
use clap::Args;
use lsbuf_guest::tree::{Node, Tree};

use crate::cmd;
use crate::workspace::Workspace;

/// With an explicit target, cargo does not apply the coverage passes to build scripts and macros.
const TARGET: &str = "x86_64-unknown-linux-gnu";

/// The flags that cargo-fuzz passes without a sanitizer.
const FLAGS: &str = "--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares -Cdebug-assertions -Ccodegen-units=1";

/// How many cases each property test runs if there is no fuzzer.
const CASES: &str = "1000000";

/// Fuzz every parser, each for an equal part of the time
#[derive(Args, Clone, Debug)]
pub(crate) struct FuzzArgs {
    /// Minutes in total
    #[arg(long, default_value_t = 10.0)]
    minutes: f64,
    /// How many targets run at the same time
    #[arg(long, default_value_t = 2)]
    jobs: usize,
    /// Targets to run; all of them if none is named
    #[arg(value_name = "TARGET")]
    targets: Vec<String>,
}

/// Runs the targets. A crash is an error, and the input that caused it stays in
/// `target/fuzz/crashes`.
pub(crate) fn fuzz(workspace: &Workspace, arguments: &FuzzArgs) -> anyhow::Result<()> {
    if !["c++", "g++", "clang++"].into_iter().any(cmd::is_program) || !cfg!(target_arch = "x86_64") {
        println!(
            "libFuzzer needs x86-64 and a C++ compiler; testing each parser with {CASES} random inputs instead"
        );
        let mut cargo = workspace.cargo();
        // Without --release, because the build then checks arithmetic for overflow.
        cargo.args(["test", "--package", "lsbuf", "--lib", "fuzzing"]);
        return cmd::run(cargo.env("PROPTEST_CASES", CASES));
    }
    let targets = targets(workspace, &arguments.targets)?;
    let place = workspace.target.join("fuzz");
    seed(workspace, &place.join("corpus"))?;
    build(workspace, &place)?;
    let rounds = targets.len().div_ceil(arguments.jobs.max(1));
    let seconds = (arguments.minutes * 60.0 / rounds as f64).max(1.0) as u64;
    println!("{seconds} s for each target\n{:<16}{:>14}{:>12}", "target", "executions", "new inputs");
    let scratch = Scratch::new()?;
    let mut crashed = Vec::new();
    for group in targets.chunks(arguments.jobs.max(1)) {
        let running: Vec<Running> = group
            .iter()
            .map(|target| Running::start(workspace, &place, &scratch.0, target, seconds))
            .collect::<anyhow::Result<_>>()?;
        for running in running {
            crashed.extend(running.finish()?);
        }
    }
    ensure!(
        crashed.is_empty(),
        "crashed: {}; the inputs are in {}",
        crashed.join(", "),
        place.join("crashes").display()
    );
    Ok(())
}

/// The selected targets. Each is a program in `fuzz/`.
fn targets(workspace: &Workspace, wanted: &[String]) -> anyhow::Result<Vec<String>> {
    let folder = workspace.root.join("fuzz/fuzz_targets");
    let mut all = Vec::new();
    for entry in fs::read_dir(&folder).with_context(|| format!("listing {}", folder.display()))? {
        all.extend(entry?.path().file_stem().and_then(|stem| stem.to_str()).map(str::to_owned));
    }
    all.sort();
    if let Some(stray) = wanted.iter().find(|name| !all.contains(name)) {
        return Err(cmd::Usage(format!("no target {stray:?}; valid: {}", all.join(", "))).into());
    }
    all.retain(|name| wanted.is_empty() || wanted.contains(name));
    Ok(all)
}

fn build(workspace: &Workspace, place: &Path) -> anyhow::Result<()> {
    let mut cargo = workspace.cargo();
    cargo.args(["build", "--quiet", "--release", "--target", TARGET, "--manifest-path", "fuzz/Cargo.toml"]);
    cargo.arg("--target-dir").arg(place).env("RUSTFLAGS", FLAGS).env_remove("CARGO_ENCODED_RUSTFLAGS");
    cmd::run(&mut cargo).context("building the fuzz targets")
}

/// A folder in memory, where trees are unpacked and damaged many times a second. It is removed on
/// drop, because a fuzzer ends without removing its files.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> anyhow::Result<Scratch> {
        let path = PathBuf::from(format!("/dev/shm/lsbuf-fuzz-{}", std::process::id()));
        fs::create_dir(&path).with_context(|| format!("making {}", path.display()))?;
        Ok(Scratch(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Nothing can be done about a folder that cannot be removed.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A running target.
struct Running {
    target: String,
    log: PathBuf,
    child: std::process::Child,
}

impl Running {
    fn start(
        workspace: &Workspace,
        place: &Path,
        scratch: &Path,
        target: &str,
        seconds: u64,
    ) -> anyhow::Result<Running> {
        let (corpus, crashes) = (place.join("corpus").join(target), place.join("crashes"));
        for folder in [&corpus, &crashes] {
            fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
        }
        let log = place.join(format!("{target}.log"));
        let errors = fs::File::create(&log).with_context(|| format!("making {}", log.display()))?;
        let program = place.join(TARGET).join("release").join(target);
        let child = Command::new(&program)
            .arg(format!("-max_total_time={seconds}"))
            .args(["-print_final_stats=1", "-max_len=4096", "-timeout=20"])
            .arg(format!("-dict={}", workspace.root.join("fuzz/words.dict").display()))
            .arg(format!("-artifact_prefix={}/{target}-", crashes.display()))
            .arg(&corpus)
            .env("TMPDIR", scratch)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(errors)
            .spawn()
            .with_context(|| format!("starting {}", program.display()))?;
        Ok(Running { target: target.to_owned(), log, child })
    }

    /// Waits for the target and prints what it did. Returns its name if it crashed.
    fn finish(mut self) -> anyhow::Result<Option<String>> {
        let status = self.child.wait().with_context(|| format!("waiting for {}", self.target))?;
        let log = fs::read(&self.log).with_context(|| format!("reading {}", self.log.display()))?;
        let log = String::from_utf8_lossy(&log);
        let figure = |key: &str| {
            let line = log.lines().find_map(|line| line.strip_prefix(&format!("stat::{key}:")));
            line.map_or("?", str::trim).to_owned()
        };
        println!(
            "{:<16}{:>14}{:>12}",
            self.target,
            figure("number_of_executed_units"),
            figure("new_units_added")
        );
        if status.success() {
            return Ok(None);
        }
        let lines: Vec<&str> = log.lines().collect();
        println!("{}", lines[lines.len().saturating_sub(40)..].join("\n"));
        Ok(Some(self.target))
    }
}

/// Cuts the recorded trees into inputs for the targets, and adds the files of `fuzz/seeds`.
fn seed(workspace: &Workspace, corpus: &Path) -> anyhow::Result<()> {
    let mut seeds: BTreeMap<&str, Vec<Vec<u8>>> = BTreeMap::new();
    let folder = workspace.recorded();
    for entry in fs::read_dir(&folder).with_context(|| format!("listing {}", folder.display()))? {
        let path = entry?.path();
        let tree = Tree::parse(&fs::read(&path)?).with_context(|| format!("reading {}", path.display()))?;
        let mut names = Vec::new();
        for (path, node) in &tree.0 {
            let parts: Vec<&str> = path.split('/').collect();
            match (parts.as_slice(), node) {
                (["proc", _, ".lsbuf", ..], Node::File(text)) => add(&mut seeds, "recorded_inode", text),
                (["proc", pid, "fdinfo", fd], Node::File(text)) => {
                    if let Some(Node::Link(link)) = tree.0.get(&format!("proc/{pid}/fd/{fd}")) {
                        add(&mut seeds, "hidden_refs", &[link, text.as_slice()].join(&0));
                        let name = link.strip_prefix(b"/dmabuf:").unwrap_or_default();
                        names.push(name.to_vec());
                        for target in ["fdinfo", "fdinfo_table"] {
                            add(&mut seeds, target, &[text.as_slice(), name].join(&0));
                        }
                    }
                }
                (["proc", _, "maps"], Node::File(text)) => {
                    text.split(|&b| b == b'\n').for_each(|line| add(&mut seeds, "maps", line));
                }
                (["proc", _, "mountinfo"], Node::File(text)) => {
                    text.split(|&b| b == b'\n').for_each(|line| add(&mut seeds, "mount", line));
                    add(&mut seeds, "mounts", text);
                    add(&mut seeds, "overlays", text);
                }
                (["proc", _, "stat" | "status" | "cgroup"], Node::File(text)) => {
                    add(&mut seeds, "process", text);
                    add(&mut seeds, "details", text);
                }
                (["proc", _, "map_files", range], _) => {
                    add(&mut seeds, "map_files", range.as_bytes());
                    range.split('-').for_each(|word| add(&mut seeds, "numbers", word.as_bytes()));
                }
                (["sys", "kernel", "debug", ..], Node::File(text)) => {
                    add(&mut seeds, "bufinfo", text);
                    // Any bytes will do as instructions for damage.
                    text.chunks(64).for_each(|chunk| add(&mut seeds, "tree", chunk));
                }
                _ => {}
            }
        }
        names.dedup();
        names.chunks(4).for_each(|names| add(&mut seeds, "bufinfo_names", &names.join(&0)));
    }
    for (target, inputs) in seeds {
        let folder = corpus.join(target);
        fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
        for (nth, input) in inputs.iter().enumerate() {
            fs::write(folder.join(format!("seed-{nth}")), input)?;
        }
    }
    copy_seeds(&workspace.root.join("fuzz/seeds"), corpus)
        .with_context(|| format!("copying seeds to {}", corpus.display()))
}

fn copy_seeds(seeds: &Path, corpus: &Path) -> anyhow::Result<()> {
    for target in fs::read_dir(seeds)? {
        let target = target?;
        let folder = corpus.join(target.file_name());
        fs::create_dir_all(&folder)?;
        for seed in fs::read_dir(target.path())? {
            let seed = seed?;
            fs::copy(seed.path(), folder.join(seed.file_name()))?;
        }
    }
    Ok(())
}

fn add(seeds: &mut BTreeMap<&'static str, Vec<Vec<u8>>>, target: &'static str, input: &[u8]) {
    let inputs = seeds.entry(target).or_default();
    if !input.is_empty() && !inputs.iter().any(|known| known == input) {
        inputs.push(input.to_vec());
    }
}
