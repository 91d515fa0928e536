//! Case 3: which of the browser's processes keeps the deleted memory?
//!
//! Chromium without a screen. Its processes have one command name and tell their role by the
//! option `--type`.

use std::path::Path;

use super::place::Place;
use super::plain::{self, Plain, any_shared, named};
use super::raw::Rows;
use super::{Answer, Case, Pair};
use crate::cmd;

pub(super) const CASE: Case = Case {
    number: 3,
    software: "Chromium",
    packages: &["chromium"],
    program: || cmd::find_program("chromium"),
    also: &[],
    version: "--version",
    command: "ps -o +ARGS",
    run,
};

/// A page with some content, so that a renderer has something to do.
const PAGE: &str = "data:text/html,<canvas></canvas>";

fn run(place: &Place, case: &Case, chromium: &Path) -> anyhow::Result<Answer> {
    let mut browser = place.command(chromium);
    // Inside a container the sandbox cannot be set up. Nothing foreign is opened here.
    browser.args(["--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-port=0"]);
    browser.arg(format!("--user-data-dir={}", place.file("home/profile").display())).arg(PAGE);
    let mut browser = place.start("chromium", &mut browser)?;
    browser.wait_for("renderer with shared memory", |_| {
        let pids = Plain::read(any_shared).ok()?.pids();
        pids.into_iter().find(|pid| role(&plain::command_line(*pid)) == "--type=renderer")
    })?;

    let ask = || place.lsbuf(&format!("{} --raw", case.command));
    let (plain, text) = plain::undisturbed(any_shared, ask)?;
    let rows = Rows::read(&text, "PID")?;
    let mut pairs = Vec::new();
    for (pid, figures) in plain.figures() {
        pairs.push(Pair::new(named(pid), role(rows.cell(pid, "ARGS")), role(&plain::command_line(pid))));
        pairs.push(rows.figures(pid, &figures));
    }
    Ok(Answer { command: case.command.to_owned(), pairs })
}

/// The role of a process, by its command line. The processes that the zygote forks write theirs
/// anew, with blanks between the words in place of NULs.
fn role(line: &str) -> &str {
    line.split(' ').find(|word| word.starts_with("--type=")).unwrap_or("no --type")
}

#[cfg(test)]
mod tests {
    use super::role;

    /// Check that the role is found, and that the browser itself has none.
    #[test]
    fn roles() {
        assert_eq!(role("/usr/lib/chromium/chromium --type=renderer --lang=en"), "--type=renderer");
        assert_eq!(role("/usr/lib/chromium/chromium --headless"), "no --type");
    }
}
