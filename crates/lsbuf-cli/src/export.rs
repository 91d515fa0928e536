//! `lsbuf export`: a recording as files for other engines.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use lsbuf::history::Recording;
use lsbuf::history::export::Format;
use lsbuf::model::counted;

use crate::output::{self, Ending};

#[derive(Debug, Args)]
pub(crate) struct ExportArgs {
    /// The recording
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The folder to write to; it is made
    #[arg(value_name = "DIR")]
    folder: PathBuf,
    /// ndjson, or parquet if lsbuf was built with it
    #[arg(long, value_name = "FORMAT", default_value = "ndjson", value_parser = format)]
    format: Format,
}

fn format(text: &str) -> Result<Format, String> {
    Format::of_word(text).ok_or_else(|| {
        let valid: Vec<&str> = Format::ALL.iter().map(|format| format.as_str()).collect();
        let built = if text == "parquet" { "this lsbuf was built without it" } else { "no such format" };
        format!("{built}; valid: {}", valid.join(", "))
    })
}

pub(crate) fn run(args: &ExportArgs) -> Result<Ending> {
    let written = Recording::open(&args.file)?.export(&args.folder, args.format)?;
    let (rows, files) = (counted(written.rows, "row", "rows"), counted(written.files, "file", "files"));
    output::say(&format!("{rows} in {files} below {}", args.folder.display()));
    Ok(Ending::Answered)
}
