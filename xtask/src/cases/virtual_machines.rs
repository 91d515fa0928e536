//! Case 15: `/dev/shm/qemu_back_mem.… (deleted)`. Which virtual machine has how much?
//!
//! Three machines of different sizes, stopped before their first instruction. Their memory is a
//! file in `/dev/shm` that QEMU deletes, allocated at once (`prealloc=on`). The size is option
//! `-m`.
//!
//! And why is memory there twice? A fourth machine maps its memfd privately (`share=off`). Every
//! page that is written is copied, and the page of the memfd stays. `/proc/P/smaps` has the copies.

use std::fs;
use std::path::Path;

use super::place::{Place, Program};
use super::plain::{self, Plain, any_shared, memfds, named};
use super::raw::Rows;
use super::{Answer, Case, Pair, json};
use crate::cmd;

pub(super) const CASE: Case = Case {
    number: 15,
    software: "QEMU",
    packages: &["qemu-system-x86"],
    program: || cmd::find_program("qemu-system-x86_64"),
    also: &[],
    version: "--version",
    command: "ps -o +ARGS",
    run,
};

/// The machine whose memory is there twice.
pub(super) const TWICE: Case = Case { command: "show", run: run_twice, ..CASE };

/// The sizes of the machines, in MiB.
const SIZES: [u64; 3] = [32, 48, 64];

fn run(place: &Place, case: &Case, qemu: &Path) -> anyhow::Result<Answer> {
    let mut machines = Vec::new();
    for size in SIZES {
        let name = format!("machine-{size}");
        let memory = format!("memory-backend-file,mem-path=/dev/shm,size={size}M,share=on");
        let machine = start(place, qemu, &name, size, &memory)?;
        machines.push((name, size << 20, machine));
    }
    for (_, size, machine) in &mut machines {
        machine.wait_for("memory", |machine| {
            let figures = Plain::read(any_shared).ok()?.figures();
            figures.get(&machine.pid()).filter(|figures| figures.rss == *size).cloned()
        })?;
    }
    let (_, text) = plain::undisturbed(any_shared, || place.lsbuf(&format!("{} --raw", case.command)))?;
    let rows = Rows::read(&text, "PID")?;
    let pairs = machines.iter().map(|(name, size, machine)| {
        let cell = |column: &str| rows.cell(machine.pid(), column);
        let option = cell("ARGS").split(' ').skip_while(|word| *word != "-name").nth(1);
        let answer = format!("{}: RSS {} USS {}", option.unwrap_or("no name"), cell("RSS"), cell("USS"));
        Pair::new(named(machine.pid()), answer, format!("{name}: RSS {size} USS {size}"))
    });
    Ok(Answer { command: case.command.to_owned(), pairs: pairs.collect() })
}

/// Starts a machine with `size` MiB of memory.
fn start(place: &Place, qemu: &Path, name: &str, size: u64, memory: &str) -> anyhow::Result<Program> {
    let mut command = place.command(qemu);
    command.args(["-name", name, "-S", "-display", "none", "-nodefaults"]);
    command.args(["-m", &size.to_string(), "-object", &format!("{memory},id=ram,prealloc=on")]);
    place.start(name, command.args(["-machine", "q35,accel=tcg,memory-backend=ram"]))
}

fn run_twice(place: &Place, case: &Case, qemu: &Path) -> anyhow::Result<Answer> {
    const SIZE: u64 = 16;
    let memory = format!("memory-backend-memfd,size={SIZE}M,share=off");
    let mut machine = start(place, qemu, "private", SIZE, &memory)?;
    let pid = machine.pid();
    machine.wait_for("memory", |_| copies(pid).filter(|bytes| *bytes == SIZE << 20))?;
    // QEMU gives the memfd the name of the kind of memory.
    let command = format!("{} memory-backend-memfd", case.command);
    let (plain, text) = plain::undisturbed(memfds, || place.lsbuf(&format!("{command} --json")))?;
    let mut own = json::buffers(&text)?;
    own.retain(|buffer| json::holders(buffer).contains(&pid));
    let charged: Vec<String> = own.iter().map(|buffer| buffer["charged"].to_string()).collect();
    let private = own.iter().flat_map(|buffer| json::list(&buffer["private_copies"]));
    let private = private.filter(|copy| copy["pid"] == pid).map(|copy| copy["bytes"].to_string());
    let private: Vec<String> = private.collect();
    let figures = plain.figures().remove(&pid).unwrap_or_default();
    let pairs = vec![
        Pair::new("memory of the memfd", charged.join(" "), figures.rss),
        Pair::new("private copies", private.join(" "), copies(pid).unwrap_or_default()),
    ];
    Ok(Answer { command, pairs })
}

/// The bytes of the process's own copies of pages of memfds, by `/proc/P/smaps`.
fn copies(pid: u32) -> Option<u64> {
    Some(copies_in(&fs::read_to_string(format!("/proc/{pid}/smaps")).ok()?))
}

fn copies_in(smaps: &str) -> u64 {
    let mut of_memfd = false;
    let mut kibibytes = 0;
    for line in smaps.lines() {
        let mut words = line.split_whitespace();
        match words.next() {
            Some("Anonymous:") if of_memfd => {
                kibibytes += words.next().and_then(|number| number.parse().ok()).unwrap_or(0);
            }
            // The first line of a mapping begins with its addresses, each other line with a key.
            Some(first) if !first.ends_with(':') => of_memfd = line.contains(" /memfd:"),
            _ => {}
        }
    }
    kibibytes << 10
}

#[cfg(test)]
mod tests {
    use super::copies_in;

    /// Check that the anonymous pages of mappings of memfds are added up, and no others.
    #[test]
    fn copies_of_memfds() {
        let smaps = "7f00-7f10 rw-p 00000000 00:01 7   /memfd:ram (deleted)\nAnonymous:  16 kB\n\
                     7f20-7f30 rw-p 00000000 00:00 0 \nAnonymous:  99 kB\nVmFlags: rd wr\n\
                     7f40-7f50 rw-p 00000000 00:01 7   /memfd:ram (deleted)\nAnonymous:  8 kB\n";
        assert_eq!(copies_in(smaps), 24 << 10);
    }
}
