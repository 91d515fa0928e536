//! Case 13: `/memfd:pulseaudio`. Who keeps it?
//!
//! A daemon and three clients that play. PulseAudio itself lists its clients with their process
//! numbers; which memfd each end has is read from `/proc`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::Context;

use super::place::Place;
use super::plain::{self, Plain, memfds};
use super::{Answer, Case, Pair, json};
use crate::cmd;

pub(super) const CASE: Case = Case {
    number: 13,
    software: "PulseAudio",
    packages: &["pulseaudio", "pulseaudio-utils"],
    program: || cmd::find_program("pulseaudio"),
    also: &["pacat", "pactl"],
    version: "--version",
    command: "show pulseaudio",
    run,
};

/// How many clients play.
const CLIENTS: usize = 3;

fn run(place: &Place, case: &Case, pulseaudio: &Path) -> anyhow::Result<Answer> {
    let mut daemon = place.command(pulseaudio);
    daemon.args(["-n", "--daemonize=no", "--exit-idle-time=-1", "--use-pid-file=no"]);
    daemon.args(["-L", "module-null-sink", "-L", "module-native-protocol-unix"]);
    let mut daemon = place.start("pulseaudio", &mut daemon)?;
    let socket = place.file("run/pulse/native");
    daemon.wait_for("socket", |_| socket.exists().then_some(()))?;
    let mut players = BTreeSet::new();
    for number in 0..CLIENTS {
        let mut player = place.command("pacat");
        let mut player = place.start(&format!("pacat-{number}"), player.args(["--playback", "/dev/zero"]))?;
        player.wait_for("memfd", |player| Plain::has_memfd(player.pid()).then_some(()))?;
        players.insert(player.pid());
    }
    let clients = daemon.wait_for("list with all clients", |_| {
        let listed = cmd::output(place.command("pactl").args(["list", "clients"])).ok()?;
        Some(clients(&listed).intersection(&players).copied().collect::<BTreeSet<u32>>())
            .filter(|clients| clients.len() == CLIENTS)
    })?;

    let ask = || place.lsbuf(&format!("{} --json --compact", case.command));
    let (plain, text) = plain::undisturbed(memfds, ask)?;
    let right = plain.holders_by_inode();
    let mut answer = BTreeMap::new();
    for buffer in json::buffers(&text)? {
        let holders = json::holders(&buffer);
        // Another PulseAudio may run on this machine.
        if holders.iter().any(|pid| plain.pids().contains(pid)) {
            answer.insert(buffer["ino"].as_u64().context("a memfd without an inode number")?, holders);
        }
    }
    let others: BTreeSet<u32> =
        answer.values().flatten().copied().filter(|pid| *pid != daemon.pid()).collect();
    let mut pairs = vec![Pair::new("clients", json::pids(&others), json::pids(&clients))];
    let all: BTreeSet<&u64> = right.keys().chain(answer.keys()).collect();
    for ino in all {
        let of = |holders: &BTreeMap<u64, Vec<u32>>| holders.get(ino).map_or("none".into(), json::pids);
        pairs.push(Pair::new(format!("holders of memfd {ino}"), of(&answer), of(&right)));
    }
    Ok(Answer { command: case.command.to_owned(), pairs })
}

/// The process numbers in what `pactl list clients` prints.
fn clients(text: &str) -> BTreeSet<u32> {
    let value =
        |line: &str| line.trim().strip_prefix("application.process.id = ")?.trim_matches('"').parse().ok();
    text.lines().filter_map(value).collect()
}

#[cfg(test)]
mod tests {
    use super::clients;

    /// Check that the process numbers of the clients are found.
    #[test]
    fn process_numbers() {
        let text = "Client #0\n\tProperties:\n\t\tapplication.process.id = \"31391\"\n\t\ta = \"1\"\n";
        assert_eq!(clients(text), [31391].into());
    }
}
