//! Case 15: `/dev/shm/qemu_back_mem.… (deleted)`. Which virtual machine has how much?
//!
//! Three machines of different sizes, stopped before their first instruction. Their memory is a
//! file in `/dev/shm` that QEMU deletes, allocated at once (`prealloc=on`). The size is option
//! `-m`.

use std::path::Path;

use super::place::Place;
use super::plain::{self, Plain, any_shared};
use super::{Answer, Case, Pair, raw};
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

/// The sizes of the machines, in MiB.
const SIZES: [u64; 3] = [32, 48, 64];

fn run(place: &Place, case: &Case, qemu: &Path) -> anyhow::Result<Answer> {
    let mut machines = Vec::new();
    for size in SIZES {
        let name = format!("machine-{size}");
        let memory =
            format!("memory-backend-file,id=ram,mem-path=/dev/shm,size={size}M,share=on,prealloc=on");
        let mut command = place.command(qemu);
        command.args(["-name", &name, "-S", "-display", "none", "-nodefaults"]);
        command.args(["-m", &size.to_string(), "-object", &memory]);
        command.args(["-machine", "q35,accel=tcg,memory-backend=ram"]);
        machines.push((name.clone(), size << 20, place.start(&name, &mut command)?));
    }
    for (_, size, machine) in &mut machines {
        machine.wait_for("memory", |machine| {
            let figures = Plain::read(any_shared).ok()?.figures();
            figures.get(&machine.pid()).filter(|figures| figures.rss == *size).cloned()
        })?;
    }
    let (_, text) = plain::undisturbed(any_shared, || place.lsbuf(&format!("{} --raw", case.command)))?;
    let rows = raw::rows(&text, "PID")?;
    let pairs = machines.iter().map(|(name, size, machine)| {
        let row = rows.get(&u64::from(machine.pid()));
        let cell = |column: &str| row.map_or("no row", |row| row.get(column)).to_owned();
        let mut words = cell("ARGS").split(' ').map(str::to_owned).collect::<Vec<_>>().into_iter();
        let named = words.by_ref().skip_while(|word| word != "-name").nth(1).unwrap_or_default();
        let answer = format!("{named}: RSS {} USS {}", cell("RSS"), cell("USS"));
        Pair::new(format!("process {}", machine.pid()), answer, format!("{name}: RSS {size} USS {size}"))
    });
    Ok(Answer { command: case.command.to_owned(), pairs: pairs.collect() })
}
