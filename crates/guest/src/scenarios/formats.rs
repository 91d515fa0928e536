//! Every output format, with names that are chosen to mislead.
//!
//! A world with hostile names is compared with the same world with harmless ones. Both outputs must
//! have the same number of lines and the same escape sequences of lsbuf's own colours. So these
//! scenarios need not know what a format looks like, and no untrusted text can add a line, a row or
//! a colour unnoticed. The two formats for programs are also parsed back.

use std::fs;
use std::process::{Command, Output};

use anyhow::{Context, bail};

use super::holding::SIZE;
use super::impostors;
use crate::actor::{Actor, Held};
use crate::answer::LSBUF;
use crate::hostile::{HOSTILE, HOSTILE_COMMS};
use crate::kernels::Kernels;
use crate::scenario::{Ctx, Scenario};
use crate::way::Way;
use crate::{make, sys, terminal};

/// Every command. `@` is replaced by the inode numbers of all buffers.
const COMMANDS: &[&str] = &[
    "ls",
    "ls -o +PIDS,OPATH,SHAPE,ATTACHED,CREATED,DEV",
    "ls --raw",
    "ls --csv",
    "ls --json",
    "ls --source map_files,bufinfo",
    "ls --source procfs",
    "ps",
    "ps --raw -o +CGROUP",
    "ps --csv -o +CGROUP",
    "ps --json",
    "show @",
    "show --json @",
    "doctor",
];

/// The commands that are also run on a terminal.
const ON_A_TERMINAL: &[&str] = &["ls", "ls --json", "ps -o +CGROUP", "show @", "doctor"];

pub(crate) const SCENARIOS: &[Scenario] = &[Scenario {
    name: "liars_in_every_format",
    claim: "No name, command name, cgroup or lookalike file adds a line, a colour or a raw control character, in a pipe or on a terminal",
    needs: &[],
    kernels: Kernels::OldestAndNewest,
    ways: Way::BOTH,
    run: liars_in_every_format,
}];

fn liars_in_every_format(ctx: &mut Ctx) -> anyhow::Result<()> {
    let harmless = forms(ctx, false)?;
    let hostile = forms(ctx, true)?;
    for ((what, expected), (_, found)) in harmless.into_iter().zip(hostile) {
        ctx.check_eq(what, expected, found)?;
    }
    Ok(())
}

/// Makes the world and returns, for each command, what must not depend on untrusted names.
fn forms(ctx: &mut Ctx, hostile: bool) -> anyhow::Result<Vec<(String, String)>> {
    let world = NamedWorld::make(hostile)?;
    let arguments = |command: &str| command.replace('@', &world.inodes);
    let mut forms = Vec::new();
    for command in COMMANDS {
        let Output { status, stdout, stderr } =
            Command::new(LSBUF).args(arguments(command).split(' ')).output().context("running lsbuf")?;
        let form = format!("{status}: {}, on stderr {}", form(&stdout)?, form(&stderr)?);
        forms.push((format!("{command} in a pipe"), form));
        if hostile {
            ctx.check_eq(
                format!("{command} in a pipe: raw control characters"),
                "",
                raw(&stdout) + &raw(&stderr),
            )?;
        }
    }
    for command in ON_A_TERMINAL {
        let mut lsbuf = Command::new(LSBUF);
        lsbuf.args(arguments(command).split(' '));
        let (status, written) = terminal::run(lsbuf, 100)?;
        let (plain, colours) = without_colours(&written);
        forms.push((format!("{command} on a terminal"), format!("{status}: {}, {colours:?}", form(&plain)?)));
        if hostile {
            ctx.check_eq(format!("{command} on a terminal: raw control characters"), "", raw(&plain))?;
        }
    }
    Ok(forms)
}

/// Processes that hold buffers and lookalikes of buffers.
struct NamedWorld {
    inodes: String,
    _actors: Vec<Actor>,
}

impl NamedWorld {
    /// Makes one process for each hostile command name, and one buffer for each hostile name.
    fn make(hostile: bool) -> anyhow::Result<NamedWorld> {
        let mut actors = Vec::new();
        let mut inodes = Vec::new();
        let per_process = HOSTILE.len().div_ceil(HOSTILE_COMMS.len());
        for (names, comm) in HOSTILE.chunks(per_process).zip(HOSTILE_COMMS) {
            let comm = if hostile { *comm } else { b"harmless" };
            let mut actor = Actor::start(comm, |stage| {
                let bufs = names.iter().map(|name| {
                    let (buf, _) = make::plain(SIZE)?;
                    // The output may show whether there is a name, so that is the same in both
                    // worlds.
                    buf.set_name(if hostile || name.is_empty() { *name } else { b"harmless" })?;
                    sys::map(&buf, 0, SIZE as usize)?;
                    Ok(buf)
                });
                let bufs = bufs.collect::<anyhow::Result<Vec<_>>>()?;
                let held: Vec<Held> = bufs.iter().map(Held::by).collect::<Result<_, _>>()?;
                let lookalikes = if hostile { impostors::all()? } else { Vec::new() };
                stage.pause(&held)?;
                drop(lookalikes);
                Ok(())
            })?;
            inodes.extend(actor.paused()?.iter().map(|held| held.ino.to_string()));
            let group = if hostile { "\u{1b}[31m) \u{202e}evil,\"" } else { "harmless" };
            let group = format!("/sys/fs/cgroup/{group}");
            fs::create_dir_all(&group).context("making a cgroup")?;
            fs::write(format!("{group}/cgroup.procs"), actor.pid.to_string()).context("moving a process")?;
            actors.push(actor);
        }
        Ok(NamedWorld { inodes: inodes.join(" "), _actors: actors })
    }
}

/// How many lines were printed, without the lines that JSON adds for text that is not UTF-8.
fn form(output: &[u8]) -> anyhow::Result<String> {
    let text = std::str::from_utf8(output).context("lsbuf printed something other than UTF-8")?;
    Ok(format!("{} lines", text.lines().filter(|line| !line.contains("_bytes\": \"")).count()))
}

/// The characters that a terminal would obey, or that hide or reorder text, escaped.
fn raw(output: &[u8]) -> String {
    let obeyed = |c: &char| {
        c.is_control() && *c != '\n'
            || matches!(c, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
    };
    String::from_utf8_lossy(output).chars().filter(obeyed).map(|c| c.escape_unicode().to_string()).collect()
}

/// The text without its colour sequences, and those sequences.
fn without_colours(output: &[u8]) -> (Vec<u8>, Vec<String>) {
    let (mut plain, mut colours) = (Vec::new(), Vec::new());
    let mut rest = output;
    while let Some((&first, after)) = rest.split_first() {
        let end = rest.strip_prefix(b"\x1b[").and_then(|parameters| {
            let end = parameters.iter().position(|byte| !matches!(byte, b'0'..=b'9' | b';'))?;
            (parameters.get(end) == Some(&b'm')).then_some(2 + end + 1)
        });
        if let Some((colour, after)) = end.and_then(|end| rest.split_at_checked(end)) {
            colours.push(colour.escape_ascii().to_string());
            rest = after;
        } else {
            plain.push(first);
            rest = after;
        }
    }
    (plain, colours)
}

/// Compares each row's id and text in raw output and in CSV, unescaped, with what the test made.
/// Also checks that the table has as many lines.
pub(super) fn parse_back(
    ctx: &mut Ctx,
    command: &[&str],
    columns: [&str; 2],
    truth: &[(u64, &[u8])],
) -> anyhow::Result<()> {
    let print = |rows: Vec<(u64, Vec<u8>)>| {
        let mut rows: Vec<String> =
            rows.into_iter().map(|(id, text)| format!("{id}={}", text.escape_ascii())).collect();
        rows.sort();
        rows.join("\n")
    };
    let expected = print(truth.iter().map(|(id, text)| (*id, text.to_vec())).collect());
    for format in ["-nr", "-n --csv"] {
        let mut lsbuf = Command::new(LSBUF);
        // The text is between two other fields, so that an additional or missing field is noticed.
        let chosen = format!("{},{},{}", columns[0], columns[1], columns[0]);
        let output = lsbuf.args(command).args(format.split(' ')).args(["-o", &chosen]).output()?.stdout;
        let text = String::from_utf8(output).context("lsbuf printed something other than UTF-8")?;
        ctx.check_eq(format!("lines of {format}"), truth.len(), text.lines().count())?;
        ctx.check_eq(format!("raw characters in {format}"), "", raw(text.as_bytes()))?;
        let records: Vec<Vec<String>> = if format == "-nr" {
            text.lines().map(|line| line.split(' ').map(str::to_owned).collect()).collect()
        } else {
            let mut reader = csv::ReaderBuilder::new().has_headers(false).from_reader(text.as_bytes());
            reader
                .records()
                .map(|record| Ok(record?.iter().map(str::to_owned).collect()))
                .collect::<anyhow::Result<_>>()?
        };
        let mut rows = Vec::new();
        for record in records {
            let [id, text, again] = &record[..] else { bail!("{} fields in {record:?}", record.len()) };
            anyhow::ensure!(id == again, "the fields are out of place in {record:?}");
            let none = format == "-nr" && text == "-";
            // CSV marks text that a spreadsheet would take for a formula.
            let text = text.strip_prefix('\'').filter(|_| format != "-nr").unwrap_or(text);
            rows.push((id.parse()?, if none { Vec::new() } else { unescape(text)? }));
        }
        ctx.check_eq(format!("{} by {format}", columns[1]), &expected, print(rows))?;
    }
    let table = Command::new(LSBUF).args(command).arg("-n").output()?.stdout;
    ctx.check_eq("lines of the table", truth.len(), String::from_utf8_lossy(&table).lines().count())?;
    ctx.check_eq("raw characters in the table", "", raw(&table))
}

/// Turns `\\` and `\xNN` back into bytes, as the manual describes them.
fn unescape(text: &str) -> anyhow::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut parts = text.split('\\');
    bytes.extend_from_slice(parts.next().unwrap_or_default().as_bytes());
    while let Some(part) = parts.next() {
        if part.is_empty() {
            // A doubled backslash, and the text after it.
            bytes.push(b'\\');
            bytes.extend_from_slice(parts.next().context("a lone backslash")?.as_bytes());
        } else {
            let digits = part.strip_prefix('x').and_then(|hex| hex.get(..2)).context("no \\xNN")?;
            bytes.push(u8::from_str_radix(digits, 16)?);
            bytes.extend_from_slice(&part.as_bytes()[3..]);
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check that characters that a terminal obeys are found, also C1 characters and direction
    /// marks, and that ordinary text is not.
    #[test]
    fn raw_characters() {
        assert_eq!(raw("a\u{1b}b\u{9b}c\u{202e}\n é前".as_bytes()), "\\u{1b}\\u{9b}\\u{202e}");
    }

    /// Check that colours are removed, and that other sequences remain.
    #[test]
    fn colours() {
        let (plain, colours) = without_colours(b"\x1b[1;31ma\x1b[0mb\x1b[2J");
        assert_eq!((&plain[..], colours.len()), (&b"ab\x1b[2J"[..], 2));
    }

    /// Check that escaped bytes are restored, and that a broken escape is an error.
    #[test]
    fn unescaping() {
        assert_eq!(unescape("a\\\\x41\\x0a\\\\\\xffb").unwrap(), b"a\\x41\n\\\xffb");
        assert!(unescape("a\\q").is_err());
    }
}
