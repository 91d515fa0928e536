//! How do I embed lsbuf in a program that may read procfs and nothing else?
//!
//! `cargo run --example procfs_only --no-default-features` prints one line for each dma-buf.
//! Neither debugfs nor BPF is touched, so the reference count is known, but buffers that no process
//! holds are not seen.

use lsbuf::model::{Kinds, Ledger};
use lsbuf::scan::{Options, Sources, Way};

fn main() -> Result<(), lsbuf::Error> {
    let sources = Sources { way: Way::Procfs, kernel_list: false, ..Sources::default() };
    let options = Options { kinds: Kinds::DMABUF, sources, sys_root: None, ..Options::default() };
    let snapshot = lsbuf::scan(options)?;
    let ledger = Ledger::of(&snapshot);
    for row in ledger.rows() {
        let name = row.buffer.name.as_ref().map_or("?".to_owned(), ToString::to_string);
        let size = row.buffer.size.map_or("?".to_owned(), |size| size.to_string());
        println!(
            "{:>8}  {size:>8}  {} fds, {} mappings, {} processes  {name}",
            row.buffer.id.ino,
            row.account.fd,
            row.account.map,
            row.buffer.holders.len()
        );
    }
    println!("{} dma-bufs", snapshot.buffers.len());
    Ok(())
}
