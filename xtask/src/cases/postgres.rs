//! Case 10: "pre-existing shared memory block (key …, ID …) is still in use".
//!
//! The postmaster is killed while a backend computes. The backend does not look whether its
//! postmaster lives, so it keeps the segment, and PostgreSQL refuses to start. Its message has the
//! key and the ID of the segment.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::place::{Place, Program};
use super::{Answer, Case, Pair, json, plain};
use crate::cmd;

pub(super) const CASE: Case = Case {
    number: 10,
    software: "PostgreSQL",
    packages: &["postgresql"],
    program: server,
    also: &["psql"],
    version: "--version",
    command: "show 5432001",
    run,
};

/// The server of the newest major version. Debian keeps them out of `PATH`.
fn server() -> Option<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").ok()?.flatten().map(|entry| entry.path());
    let major = |path: &PathBuf| path.file_name()?.to_str()?.parse::<u32>().ok();
    let newest = versions.filter_map(|path| Some((major(&path)?, path))).max()?;
    Some(newest.1.join("bin/postgres")).filter(|path| path.is_file())
}

fn run(place: &Place, _: &Case, server: &Path) -> anyhow::Result<Answer> {
    let data = place.file("home/data");
    let mut init = place.command(server.with_file_name("initdb"));
    cmd::output(init.arg("-D").arg(&data).args(["-A", "trust", "-U", "lsbuf"]))?;
    let mut postmaster = place.start("postmaster", &mut postgres(place, server))?;
    let id = postmaster.wait_for("segment", |_| segment(&data))?;
    place.leaves_segment(id);
    postmaster.wait_for("answer", |_| cmd::output(psql(place).args(["-c", "select 1"])).ok())?;
    let sums = "select count(*) from generate_series(1, 10000000000)";
    let mut client = psql(place);
    client.args(["-c", "select pg_backend_pid()", "-c", sums]);
    let mut client = place.start("psql", &mut client)?;
    let backend = client.wait_for("backend", Program::number)?;
    // The number is printed before the second statement begins.
    let computes = |_: &Program| Some(plain::command_line(backend)).filter(|line| line.ends_with("SELECT"));
    client.wait_for("computing backend", computes)?;
    postmaster.kill()?;
    client.wait_for("end of the other processes", |_| (servers(server).ok()? == [backend]).then_some(()))?;

    let mut second = place.start("second", &mut postgres(place, server))?;
    let (key, id) = second.wait_for("message", |second| key_and_id(&second.errors()))?;
    let command = format!("show {key}");
    let buffers = json::buffers(&place.lsbuf(&format!("{command} --json"))?)?;
    let all = |field: &dyn Fn(&serde_json::Value) -> String| {
        let values: Vec<String> = buffers.iter().map(field).collect();
        values.join(" ")
    };
    let shown = place.lsbuf(&command)?;
    let args = format!("postgres:{backend} args ");
    let args = shown.lines().find_map(|line| {
        line.split_whitespace().collect::<Vec<_>>().join(" ").strip_prefix(&args).map(str::to_owned)
    });
    let pairs = vec![
        Pair::new("ID", all(&|buffer| buffer["ino"].to_string()), id),
        Pair::new("key", all(&|buffer| buffer["segment"]["key"].to_string()), key),
        Pair::new("holders", all(&|buffer| json::pids(&json::holders(buffer))), backend),
        Pair::new("command line", args.unwrap_or_default(), plain::command_line(backend)),
    ];
    Ok(Answer { command, pairs })
}

/// The server, with its files and sockets in the folder.
fn postgres(place: &Place, server: &Path) -> Command {
    let mut command = place.command(server);
    command.arg("-D").arg(place.file("home/data")).arg("-k").arg(place.file("run"));
    command.args(["-c", "listen_addresses=", "-c", "dynamic_shared_memory_type=mmap"]);
    command
}

fn psql(place: &Place) -> Command {
    let mut command = place.command("psql");
    command.args(["-X", "-A", "-t", "-U", "lsbuf", "-d", "postgres", "-h"]).arg(place.file("run"));
    command
}

/// The processes of the server that still run. One that has ended has no command line to read.
fn servers(server: &Path) -> anyhow::Result<Vec<u32>> {
    let is_server = |pid: &u32| {
        let line = plain::command_line(*pid);
        line.starts_with("postgres:") || line.starts_with(&*server.to_string_lossy())
    };
    Ok(plain::descendants()?.into_iter().filter(is_server).collect())
}

/// The ID of the segment in `postmaster.pid`: the second number of the line with two numbers.
fn segment(data: &Path) -> Option<u64> {
    let text = fs::read_to_string(data.join("postmaster.pid")).ok()?;
    text.lines().find_map(|line| match line.split_whitespace().collect::<Vec<_>>()[..] {
        [key, id] => key.parse::<u64>().ok().and(id.parse().ok()),
        _ => None,
    })
}

/// The key and the ID in PostgreSQL's message.
fn key_and_id(text: &str) -> Option<(u64, u64)> {
    let (_, after) = text.split_once("(key ")?;
    let (key, after) = after.split_once(", ID ")?;
    Some((key.parse().ok()?, after.split_once(')')?.0.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::key_and_id;

    /// Check that key and ID are found in the message.
    #[test]
    fn message() {
        let text = "FATAL:  pre-existing shared memory block (key 5432001, ID 98304) is still in use\n";
        assert_eq!(key_and_id(text), Some((5_432_001, 98304)));
        assert_eq!(key_and_id("FATAL:  data directory has wrong ownership"), None);
    }
}
