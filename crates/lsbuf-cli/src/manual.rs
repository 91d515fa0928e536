//! Manual pages: one for each command, from the definitions of the arguments and from [`topics`].
//!
//! `clap_mangen` writes what clap knows: the description and the options. It knows nothing of
//! examples, files or the exit status but as one block of text, so those sections are written here.
//!
//! [`topics`]: crate::topics

use anyhow::Result;
use clap::{Arg, Command};
use clap_mangen::Man;
use clap_mangen::roff::{Inline, Roff, bold, roman};

use crate::topics::{TOPICS, Topic};

/// A page changes with the program, so it has the version in place of a date. `Roff` drops an
/// argument that is empty.
const NO_DATE: &str = " ";

/// All pages: names of files, and what is in them.
pub(crate) fn pages(program: &Command) -> Result<Vec<(String, String)>> {
    let mut program = program.clone();
    program.build();
    let mut open = vec![&program];
    let mut pages = Vec::new();
    while let Some(command) = open.pop() {
        pages.push((format!("{}.1", page_name(command)), page(command)?));
        open.extend(command.get_subcommands());
    }
    Ok(pages)
}

/// Of `lsbuf probes install` it is `lsbuf-probes-install`.
fn page_name(command: &Command) -> &str {
    command.get_display_name().unwrap_or_else(|| command.get_name())
}

fn page(command: &Command) -> Result<String> {
    let words = command.get_bin_name().unwrap_or_else(|| command.get_name());
    let topic = Topic::of(words);
    let mut page = Page::default();
    let source = format!("lsbuf {}", env!("CARGO_PKG_VERSION"));
    page.own(|roff| {
        let title = page_name(command).to_uppercase();
        roff.control("TH", [title.as_str(), "1", NO_DATE, source.as_str(), "User Commands"]);
        roff.control("SH", ["NAME"]);
        roff.text([roman(format!("{} - {}", page_name(command), summary(command)))]);
        roff.control("SH", ["SYNOPSIS"]);
        synopsis(roff, words, command);
    })?;
    let man = Man::new(command.clone());
    page.theirs(|out| man.render_description_section(out))?;
    page.own(|roff| {
        for &note in topic.description.iter().chain(topic.notes) {
            roff.control("PP", []);
            roff.text([roman(note)]);
        }
        if command.has_subcommands() {
            roff.control("SH", ["COMMANDS"]);
            for sub in command.get_subcommands() {
                tagged(roff, [bold(page_name(sub)), roman("(1)")], &about(sub));
            }
        }
    })?;
    page.theirs(|out| man.render_options_section(out))?;
    page.own(|roff| {
        columns(roff, topic);
        examples(roff, topic);
        list(roff, "EXIT STATUS", topic.exit);
        environment(roff, command);
        list(roff, "FILES", topic.files);
        see_also(roff, command);
    })?;
    Ok(page.finish())
}

/// A page in the making: own sections and those of `clap_mangen`, in order.
#[derive(Debug, Default)]
struct Page(Vec<u8>);

impl Page {
    fn own(&mut self, write: impl FnOnce(&mut Roff)) -> Result<()> {
        let mut roff = Roff::new();
        write(&mut roff);
        Ok(roff.to_writer(&mut self.0)?)
    }

    fn theirs(&mut self, write: impl FnOnce(&mut Vec<u8>) -> std::io::Result<()>) -> Result<()> {
        Ok(write(&mut self.0)?)
    }

    /// Each section came as a document with the same first lines, of which a page needs one.
    fn finish(self) -> String {
        let first = Roff::new().render();
        let text = String::from_utf8_lossy(&self.0);
        first.clone() + &text.replace(&first, "")
    }
}

fn about(command: &Command) -> String {
    command.get_about().map(ToString::to_string).unwrap_or_default()
}

/// What a command is for as a line of whatis(1): no more than the first clause, no capital.
fn summary(command: &Command) -> String {
    let about = about(command);
    let clause = about.split_once(": ").map_or(about.as_str(), |(clause, _)| clause);
    let mut letters = clause.chars();
    letters.next().map(|first| first.to_lowercase().chain(letters).collect()).unwrap_or_default()
}

/// The lines of clap's usage, each with the command's words in bold.
fn synopsis(roff: &mut Roff, words: &str, command: &Command) {
    let usage = command.clone().render_usage().to_string();
    for (nth, line) in usage.trim_start_matches("Usage:").lines().map(str::trim).enumerate() {
        if nth > 0 {
            roff.control("br", []);
        }
        match line.strip_prefix(words) {
            Some(rest) => roff.text([bold(words), roman(rest)]),
            None => roff.text([roman(line)]),
        };
    }
}

fn columns(roff: &mut Roff, topic: &Topic) {
    let Some(columns) = &topic.columns else { return };
    roff.control("SH", ["COLUMNS"]);
    roff.text([roman("Those with * are shown by default.")]);
    roff.text(columns.note.map(roman).into_iter().collect::<Vec<_>>());
    for column in columns.all {
        let mark = if columns.is_default(column) { " *" } else { "" };
        tagged(roff, [bold(column.name), roman(mark)], column.help);
    }
}

fn examples(roff: &mut Roff, topic: &Topic) {
    for (nth, (line, what)) in topic.examples.iter().enumerate() {
        if nth == 0 {
            roff.control("SH", ["EXAMPLES"]);
        }
        tagged(roff, [bold(*line)], what);
    }
}

fn list(roff: &mut Roff, heading: &str, rows: &[(&str, &str)]) {
    roff.control("SH", [heading]);
    for (name, what) in rows {
        tagged(roff, [bold(*name)], what);
    }
}

/// Environment variables that stand for an option.
fn environment(roff: &mut Roff, command: &Command) {
    let named = |arg: &Arg| Some((arg.get_env()?.to_str()?.to_owned(), arg.get_long()?.to_owned()));
    let mut variables: Vec<_> = command.get_arguments().filter_map(named).collect();
    variables.sort_unstable();
    let colored = command.get_arguments().any(|arg| arg.get_long() == Some("color"));
    if variables.is_empty() && !colored {
        return;
    }
    roff.control("SH", ["ENVIRONMENT"]);
    for (variable, option) in variables {
        tagged(roff, [bold(variable)], &format!("what --{option} takes, where that is not given"));
    }
    if colored {
        tagged(roff, [bold("NO_COLOR")], "if set, no colour on a terminal, unless --color says otherwise");
    }
}

/// The other commands' pages, and others' programs that answer what lsbuf does not.
fn see_also(roff: &mut Roff, command: &Command) {
    roff.control("SH", ["SEE ALSO"]);
    let own = page_name(command);
    let mut names: Vec<String> = TOPICS.iter().map(|topic| topic.command.replace(' ', "-")).collect();
    // Those of one action are listed by the page of the command that they belong to.
    names.retain(|name| name != own && name.matches('-').count() < 2);
    names.sort_unstable();
    let others =
        [("free", "1"), ("lsof", "8"), ("proc", "5")].map(|(name, section)| (name.to_owned(), section));
    let all: Vec<_> = names.into_iter().map(|name| (name, "1")).chain(others).collect();
    let last = all.len() - 1;
    for (nth, (name, section)) in all.into_iter().enumerate() {
        let comma = if nth < last { "," } else { "" };
        roff.text([bold(name), roman(format!("({section}){comma}"))]);
    }
}

fn tagged(roff: &mut Roff, tag: impl Into<Vec<Inline>>, text: &str) {
    roff.control("TP", []);
    roff.text(tag);
    roff.text([roman(text)]);
}
