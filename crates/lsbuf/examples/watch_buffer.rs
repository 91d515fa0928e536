//! When do the holders of one buffer change?
//!
//! `cargo run --example watch_buffer -- memfd 1234` prints the holders of the memfd with inode
//! number 1234, and then a line for each process that comes or goes, until nobody holds it any
//! more.

use std::collections::BTreeSet;
use std::thread::sleep;
use std::time::Duration;

use lsbuf::model::{Kind, Pid};
use lsbuf::scan::{Options, Scanner};

/// Pauses between two scans.
const PAUSE: Duration = Duration::from_millis(200);

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [kind, ino] = &arguments[..] else { return Err("usage: watch_buffer KIND INODE".into()) };
    let kind = Kind::of_word(kind).ok_or_else(|| format!("no such kind: {kind}"))?;
    let ino: u64 = ino.parse()?;

    // A scanner keeps what it has learnt about the machine from one scan to the next.
    let mut scanner = Scanner::new(Options { kinds: kind.into(), ..Options::default() })?;
    let mut held_by: BTreeSet<Pid> = BTreeSet::new();
    loop {
        let snapshot = scanner.scan()?;
        let buffer = snapshot.buffers.iter().find(|buffer| buffer.id.ino.0 == ino);
        let holders: BTreeSet<Pid> =
            buffer.into_iter().flat_map(|buffer| &buffer.holders).map(|holder| holder.pid).collect();
        for pid in holders.difference(&held_by) {
            let comm = snapshot.process(*pid).map_or(String::new(), |process| process.comm.to_string());
            println!("+ {pid} {comm}");
        }
        for pid in held_by.difference(&holders) {
            println!("- {pid}");
        }
        if holders.is_empty() {
            println!("{kind} {ino} is held by no process that could be read");
            return Ok(());
        }
        held_by = holders;
        sleep(PAUSE);
    }
}
