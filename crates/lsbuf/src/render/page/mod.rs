//! The page: one HTML file that shows a snapshot, and of a recording its history and its suspects.
//!
//! It is whole: style, script and data are in it, and it asks no network. The script has no
//! framework and is not built: the files beside this module are joined as they are. The data are in
//! an element that no browser runs, as JSON in which nothing can end that element. The script makes
//! text of them, never markup. A policy in the page (CSP) lets the browser run this script and this
//! style alone, by their hashes, and load nothing.
//!
//! The same page is served without data: then it fetches `snapshot.json` from where it came from.
//!
//! Limits: a browser reads numbers above 2^53 inexactly; the page marks them with `~`. An older
//! browser than of 2023 may lack what the script uses.

mod data;
mod redact;
#[cfg(feature = "history")]
#[cfg(test)]
mod tests;

pub use data::PageData;

use std::io::{self, Write};

/// What the script consists of. None of the files knows of another one's inner parts.
const SCRIPT: &str = concat!(
    "(() => {\n\"use strict\";\n",
    include_str!("text.js"),
    include_str!("dom.js"),
    include_str!("data.js"),
    include_str!("filter.js"),
    include_str!("table.js"),
    include_str!("treemap.js"),
    include_str!("detail.js"),
    include_str!("graph.js"),
    include_str!("timeline.js"),
    include_str!("leaks.js"),
    include_str!("icicle.js"),
    include_str!("main.js"),
    "})();\n"
);

const STYLE: &str = include_str!("page.css");

const PAGE: &str = include_str!("page.html");

/// The hash of [`SCRIPT`], as a policy names it. A test compares it and prints the right one.
const SCRIPT_HASH: &str = "sha256-uKdHS54J1PcaTkL1sfFOgMjAl4I1IEWvJ6UyrmBL+kg=";

/// The hash of [`STYLE`].
const STYLE_HASH: &str = "sha256-icZby8Tv0UbhEyyoH7r75GKFvJVEftGbWFG6OLXaoLI=";

/// Where a browser has the page from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageOrigin {
    /// A file. It may load nothing at all.
    File,
    /// A server. It may load data from that server alone.
    Server,
}

/// What a browser may do with the page, as a Content-Security-Policy. The page has it in itself. A
/// server can send it as a header, too.
#[must_use]
pub fn page_policy(origin: PageOrigin) -> String {
    let connect = match origin {
        PageOrigin::File => "",
        PageOrigin::Server => "; connect-src 'self'",
    };
    format!(
        "default-src 'none'; script-src '{SCRIPT_HASH}'; style-src '{STYLE_HASH}'{connect}; base-uri 'none'; \
         form-action 'none'"
    )
}

/// Writes the page with these data. `None`: it fetches `snapshot.json` when it is opened.
///
/// # Errors
/// Those of `out`.
pub fn page(out: &mut dyn Write, data: Option<&PageData>, origin: PageOrigin) -> io::Result<()> {
    let policy = page_policy(origin);
    let island = data.map_or_else(|| "null".to_owned(), PageData::island);
    let mut rest = PAGE;
    while let Some((before, (name, after))) =
        rest.split_once("{{").and_then(|(before, after)| Some((before, after.split_once("}}")?)))
    {
        out.write_all(before.as_bytes())?;
        let part = match name {
            "policy" => &policy,
            "version" => env!("CARGO_PKG_VERSION"),
            "style" => STYLE,
            "data" => &island,
            "script" => SCRIPT,
            _ => "",
        };
        out.write_all(part.as_bytes())?;
        rest = after;
    }
    out.write_all(rest.as_bytes())
}
