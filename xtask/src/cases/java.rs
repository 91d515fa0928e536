//! Case 7: the heap of ZGC, which older releases of OpenJDK map three times.
//!
//! The heap has one size (`-Xms` and `-Xmx`) and is touched at once (`AlwaysPreTouch`), so that all
//! of it is memory. How often it is mapped is read from `/proc`.

use std::fs;
use std::path::Path;

use super::place::Place;
use super::plain::{self, memfds};
use super::raw::Rows;
use super::{Answer, Case, Pair};
use crate::cmd;

pub(super) const CASE: Case = Case {
    number: 7,
    software: "OpenJDK",
    packages: &["default-jdk-headless"],
    program: || cmd::find_program("java"),
    also: &["javac"],
    version: "-version",
    command: "ps --kind memfd",
    run,
};

/// Says that it runs, and waits.
const PROGRAM: &str = "public class Waiting {
    public static void main(String[] words) throws Exception {
        System.out.println(\"runs\");
        Thread.sleep(Long.MAX_VALUE);
    }
}
";

/// The size of the heap, in MiB.
const SIZE: u64 = 64;

fn run(place: &Place, case: &Case, java: &Path) -> anyhow::Result<Answer> {
    let source = place.file("Waiting.java");
    fs::write(&source, PROGRAM)?;
    place.give(&source)?;
    let mut command = place.command(java);
    command.args(["-XX:+UseZGC", "-XX:+AlwaysPreTouch", &format!("-Xms{SIZE}m"), &format!("-Xmx{SIZE}m")]);
    let mut machine = place.start("java", command.arg(&source))?;
    machine.wait_for("program", |machine| machine.printed().contains("runs").then_some(()))?;
    let ask = || place.lsbuf(&format!("{} --raw", case.command));
    let (plain, text) = plain::undisturbed(memfds, ask)?;
    let rows = Rows::read(&text, "PID")?;
    let cell = |column: &str| rows.cell(machine.pid(), column);
    let maps = plain.figures().get(&machine.pid()).map_or(0, |figures| figures.maps);
    let pairs = vec![
        Pair::new("RSS", cell("RSS"), SIZE << 20),
        Pair::new("USS", cell("USS"), SIZE << 20),
        Pair::new("MAPS", cell("MAPS"), maps),
    ];
    Ok(Answer { command: case.command.to_owned(), pairs })
}
