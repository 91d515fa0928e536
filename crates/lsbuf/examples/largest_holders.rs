//! Which processes hold the most shared memory?
//!
//! `cargo run --example largest_holders -- 10` prints the ten largest, by PSS: each buffer's cost
//! divided by its holders. `?` stands for a figure that is not known.

use std::cmp::Reverse;

use lsbuf::model::{Bytes, Ledger};
use lsbuf::scan::Options;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let number: usize = std::env::args().nth(1).map_or(Ok(10), |text| text.parse())?;
    let snapshot = lsbuf::scan(Options::default())?;
    let ledger = Ledger::of(&snapshot);

    let mut rows: Vec<_> = ledger.processes().collect();
    rows.sort_by_key(|row| Reverse(row.figures.pss));
    let shown = |size: Option<Bytes>| size.map_or("?".to_owned(), |size| size.to_string());
    println!("{:>8}  {:>8}  {:>8}  {:>7}  COMMAND", "PID", "PSS", "USS", "BUFFERS");
    for row in rows.iter().take(number) {
        let (pss, uss) = (shown(row.figures.pss), shown(row.figures.uss));
        println!(
            "{:>8}  {pss:>8}  {uss:>8}  {:>7}  {}",
            row.process.pid, row.figures.buffers, row.process.comm
        );
    }

    // An answer that is not complete says why.
    for note in &snapshot.coverage.notes {
        eprintln!("note: {note}");
    }
    Ok(())
}
