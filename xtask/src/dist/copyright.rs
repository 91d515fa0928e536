//! The file `copyright` of the package: lsbuf's licences, and those of everything in its program.
//!
//! Most libraries leave the choice between MIT and others. They are used under MIT where they do,
//! and their notices are given in full, each text once. Limit: a licence's text is recognised by
//! one phrase.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, bail};

use crate::licences::{self, Package};
use crate::workspace::Workspace;

/// MIT and the Boost licence have it, and both ask for a copy of their text.
const PERMISSION: &str = "Permission is hereby granted, free of charge";

/// The whole file.
pub(crate) fn text(workspace: &Workspace, rustc: &str) -> anyhow::Result<String> {
    let crates = licences::linked(workspace.cargo(), "lsbuf-cli")?;
    let (own, others): (Vec<_>, Vec<_>) = crates.into_iter().partition(Package::is_local);
    if own.is_empty() {
        bail!("the program seems to have no crate of this workspace");
    }
    let licence = read(&workspace.root.join("LICENSE-MIT"))?;
    let mut notices: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut table = String::new();
    for library in &others {
        let name = format!("{} {}", library.name, library.version);
        let expression = library.license.as_deref().unwrap_or("no licence");
        table.push_str(&format!("  {name:<32} {expression}\n"));
        if let Some(notice) = notice(library)? {
            notices.entry(notice).or_default().push(name);
        }
    }
    let mut text = format!(
        "lsbuf is licensed under MIT or Apache-2.0, as you choose.\n\n{licence}\n\
         The Apache License 2.0 is in /usr/share/common-licenses/Apache-2.0.\n\n\
         The program contains the libraries below as compiled code.\n\n\
         \x20 {:<32} MIT OR Apache-2.0\n\
         \x20 {:<32} LGPL-2.1-or-later\n{table}\n\
         The Rust standard library is Copyright (c) The Rust Project Contributors, and is used under the\n\
         MIT licence above. The GNU C library's licence is in /usr/share/common-licenses/LGPL-2.1, and\n\
         its source is the source package in the field Built-Using. To use another version of it, build\n\
         lsbuf from its own source.\n\n\
         Where a library leaves a choice with MIT in it, it is used under MIT. Libraries with Apache-2.0\n\
         alone are used under that. The notices of the others follow.\n",
        format!("Rust standard library {rustc}"),
        "GNU C library",
    );
    for (notice, names) in notices {
        text.push_str(&format!("\n---- {}\n\n{}\n", names.join(", "), notice.trim()));
    }
    Ok(text)
}

/// A text without the Apache License in full, of which Debian has a copy.
fn without_apache(text: &str) -> String {
    const BEGIN: &str = "TERMS AND CONDITIONS FOR USE, REPRODUCTION, AND DISTRIBUTION";
    const END: &str = "END OF TERMS AND CONDITIONS";
    let copied = |begin: usize| Some((begin, begin + text[begin..].find(END)? + END.len()));
    match text.find(BEGIN).and_then(copied) {
        Some((begin, end)) => {
            let stands = "(The terms are in /usr/share/common-licenses/Apache-2.0.)";
            format!("{}{stands}{}", &text[..begin], &text[end..])
        }
        None => text.to_owned(),
    }
}

/// The text that its licence asks to be copied; none where Debian has a copy.
fn notice(library: &Package) -> anyhow::Result<Option<String>> {
    let folder = library.folder()?;
    let mut texts = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))? {
        let path = entry.with_context(|| format!("reading {}", folder.display()))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().to_ascii_uppercase();
        let is_named = ["LICENSE", "LICENCE", "COPYING"].iter().any(|word| name.starts_with(word));
        if path.is_file() && is_named {
            texts.push(read(&path)?);
        }
    }
    texts.sort_unstable();
    let texts: Vec<String> = texts.iter().map(|text| without_apache(text)).collect();
    if let Some(text) = texts.iter().find(|text| text.contains(PERMISSION)) {
        return Ok(Some(text.clone()));
    }
    if library.license.as_deref().is_some_and(|licence| licence.contains("Apache-2.0")) {
        return Ok(None);
    }
    // Zlib and the like ask for it, too.
    if !texts.is_empty() {
        return Ok(Some(texts.join("\n")));
    }
    bail!("{} {} has no licence text", library.name, library.version)
}

fn read(path: &Path) -> anyhow::Result<String> {
    fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))
}
