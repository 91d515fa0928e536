//! Case 2: thousands of segments marked `dest`. Who has each attached, and who made it?
//!
//! TigerVNC's server, and a client that forgets `XShmDetach`. The client prints the segments that
//! it made. Who has them attached is read from `/proc/P/maps`.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use super::place::{Place, Program};
use super::plain::named;
use super::raw::Rows;
use super::{Answer, Case, Pair};
use crate::cmd;

pub(super) const CASE: Case = Case {
    number: 2,
    software: "TigerVNC",
    packages: &["tigervnc-standalone-server", "gcc", "libc6-dev", "libx11-dev", "libxext-dev"],
    program: || cmd::find_program("Xtigervnc"),
    also: &["cc", "/usr/include/X11/extensions/XShm.h"],
    version: "-version",
    command: "--kind sysv -o +CPID,LPID",
    run,
};

/// The client.
const CLIENT: &str = include_str!("xshm.c");

fn run(place: &Place, case: &Case, server: &Path) -> anyhow::Result<Answer> {
    let (source, program) = (place.file("xshm.c"), place.file("xshm"));
    fs::write(&source, CLIENT)?;
    cmd::run(Command::new("cc").arg("-o").arg(&program).arg(&source).args(["-lX11", "-lXext"]))?;
    place.give(&program)?;
    let mut command = place.command(server);
    // The server chooses a free display and prints its number.
    command.args(["-displayfd", "1", "-SecurityTypes", "None", "-nolisten", "tcp"]);
    command.args(["-rfbport", "-1", "-rfbunixpath"]).arg(place.file("run/vnc"));
    let mut server = place.start("server", &mut command)?;
    let display = server.wait_for("display", Program::number)?;
    let mut client = place.start("client", place.command(&program).env("DISPLAY", format!(":{display}")))?;
    let printed = client.wait_for("segments", |client| {
        Some(client.printed()).filter(|printed| printed.ends_with("done\n"))
    })?;
    let made: BTreeSet<u64> = printed.lines().filter_map(|line| line.parse().ok()).collect();

    let text = place.lsbuf(&format!("{} --raw", case.command))?;
    let rows = Rows::read(&text, "INO")?;
    let pids = [server.pid(), client.pid()];
    let mut pairs = Vec::new();
    for id in made {
        let holders = pids.iter().map(|pid| (*pid, attached(*pid, id))).filter(|(_, count)| *count > 0);
        let holders: Vec<String> = holders.map(|(pid, count)| format!("{}({count}m)", named(pid))).collect();
        let answer = format!("{} made by {}", rows.cell(id, "HOLDERS"), rows.cell(id, "CPID"));
        let right = format!("{} made by {}", holders.join(" "), named(client.pid()));
        pairs.push(Pair::new(format!("segment {id}"), answer, right));
    }
    Ok(Answer { command: case.command.to_owned(), pairs })
}

/// How often the process has the segment attached. The inode number of a segment is its ID.
fn attached(pid: u32, id: u64) -> usize {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap_or_default();
    let of_segment = |line: &&str| {
        let mut fields = line.split_whitespace().skip(4);
        fields.next().is_some_and(|ino| ino.parse() == Ok(id))
            && fields.next().is_some_and(|path| path.starts_with("/SYSV"))
    };
    maps.lines().filter(of_segment).count()
}
