//! Tells the crate where the compiled BPF iterators are.
//!
//! The folder `bpf/` has them compiled, so a build needs no C compiler. With the feature
//! `bpf-from-source`, clang compiles them from the sources in the same folder instead.

#[path = "bpf/compile.rs"]
mod compile;

use std::env;
use std::error::Error;
use std::path::{Path, PathBuf};

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=build.rs");
    if env::var_os("CARGO_FEATURE_BPF").is_none() {
        return Ok(());
    }
    println!("cargo:rerun-if-changed=bpf");
    let committed = Path::new(env!("CARGO_MANIFEST_DIR")).join("bpf");
    let objects = if env::var_os("CARGO_FEATURE_BPF_FROM_SOURCE").is_some() {
        let into = PathBuf::from(env::var_os("OUT_DIR").ok_or("cargo sets no OUT_DIR")?);
        let big_endian = env::var("CARGO_CFG_TARGET_ENDIAN")? == "big";
        let tools = compile::Tools::find()
            .map_err(|why| format!("{why}, of whichever version, which the feature bpf-from-source needs"))?;
        println!(
            "cargo:warning=BPF iterators compiled by clang {}; the committed ones are of {}",
            tools.version,
            compile::MAJOR
        );
        for name in compile::OBJECTS {
            tools.compile(&committed, name, big_endian, &into)?;
        }
        into
    } else {
        committed
    };
    println!("cargo:rustc-env=LSBUF_BPF_OBJECTS={}", objects.display());
    Ok(())
}
