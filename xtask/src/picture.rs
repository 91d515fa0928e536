//! `cargo xtask picture`: draws the picture of `lsbuf top` in the README, `docs/top.svg`.
//!
//! A test of the command captures the screen in a real terminal, with its colours
//! (`crates/lsbuf-cli/tests/top.rs`). This draws what is in that snapshot, and a test here fails if
//! the picture is not what the snapshot gives. So the picture is what the command shows.
//!
//! Fonts differ in how wide they draw a character. So each word has its place and its width, and
//! the blocks of bars and trends are drawn as rectangles. The picture has a background of its own
//! and is the same on a light and on a dark page.
//!
//! Limits: each character takes one column. A sequence that sets no colour, bold, underlined or
//! reversed text is an error.

use std::fmt::Write;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context, bail};

use crate::svg::escaped;
use crate::workspace::Workspace;

/// Pixels of one character.
const WIDTH: f64 = 8.4;
const HEIGHT: f64 = 19.0;
/// Pixels between the edge and the text.
const MARGIN: f64 = 14.0;
/// From the top of a line to where its letters stand.
const BASELINE: f64 = 14.0;

const BACKGROUND: &str = "#16181d";
const FOREGROUND: &str = "#d4d7dd";
/// The first eight colours of a terminal.
const COLOURS: [&str; 8] =
    ["#5c6370", "#ff7b72", "#7ee787", "#e3b341", "#79c0ff", "#d2a8ff", "#76e3ea", FOREGROUND];

/// How a character looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Look {
    /// One of the first eight.
    colour: Option<usize>,
    bold: bool,
    underlined: bool,
    reversed: bool,
}

/// The characters of one line.
type Line = Vec<(char, Look)>;

/// Draws the picture anew.
pub(crate) fn picture(workspace: &Workspace) -> anyhow::Result<()> {
    let path = committed(workspace);
    fs::write(&path, drawn(workspace)?).with_context(|| format!("writing {}", path.display()))
}

fn committed(workspace: &Workspace) -> PathBuf {
    workspace.root.join("docs/top.svg")
}

/// The picture of the captured screen.
fn drawn(workspace: &Workspace) -> anyhow::Result<String> {
    let path = workspace.root.join("crates/lsbuf-cli/tests/snapshots/top__picture.snap");
    let snapshot = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    let (_, screen) = snapshot
        .strip_prefix("---\n")
        .and_then(|snapshot| snapshot.split_once("\n---\n"))
        .with_context(|| format!("{} is no snapshot of insta", path.display()))?;
    Ok(draw(&lines(screen)?))
}

/// The lines of a screen, as `tmux capture-pane -e` prints them with `␛` in place of ESC.
fn lines(screen: &str) -> anyhow::Result<Vec<Line>> {
    let mut look = Look::default();
    screen.trim_end().lines().map(|line| characters(line, &mut look)).collect()
}

fn characters(line: &str, look: &mut Look) -> anyhow::Result<Line> {
    let mut pieces = line.split('␛');
    let mut characters: Line = pieces.next().unwrap_or_default().chars().map(|c| (c, *look)).collect();
    for piece in pieces {
        let sequence = piece.strip_prefix('[').and_then(|piece| piece.split_once('m'));
        let (codes, text) = sequence.with_context(|| format!("unknown sequence in {piece:?}"))?;
        look.set(codes)?;
        characters.extend(text.chars().map(|c| (c, *look)));
    }
    Ok(characters)
}

impl Look {
    /// Changes it as the parameters of the sequence SGR do.
    fn set(&mut self, codes: &str) -> anyhow::Result<()> {
        let mut codes = codes.split(';');
        while let Some(code) = codes.next() {
            let colour = match code {
                "38" if codes.next() == Some("5") => codes.next().unwrap_or_default(),
                code => code.strip_prefix('3').unwrap_or_default(),
            };
            match (code, colour.parse()) {
                ("0", _) => *self = Look::default(),
                ("1", _) => self.bold = true,
                ("4", _) => self.underlined = true,
                ("7", _) => self.reversed = true,
                ("39", _) => self.colour = None,
                // The background is the terminal's own.
                ("49", _) => {}
                (_, Ok(colour @ 0..=7)) => self.colour = Some(colour),
                _ => bail!("unknown look {code:?}"),
            }
        }
        Ok(())
    }

    /// The colours of the text and, if it is not that of the picture, of what is behind it.
    fn colours(self) -> (&'static str, Option<&'static str>) {
        let colour = self.colour.map_or(FOREGROUND, |nth| COLOURS[nth]);
        if self.reversed { (BACKGROUND, Some(colour)) } else { (colour, None) }
    }
}

fn draw(lines: &[Line]) -> String {
    let columns = lines.iter().map(Vec::len).max().unwrap_or_default();
    let width = columns as f64 * WIDTH + 2.0 * MARGIN;
    let height = lines.len() as f64 * HEIGHT + 2.0 * MARGIN;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width:.1} {height:.1}\" \
         width=\"{width:.1}\" height=\"{height:.1}\" role=\"img\">\n\
         <title>The screen of lsbuf top</title>\n\
         <style>text {{ font: 14px ui-monospace, \"DejaVu Sans Mono\", Menlo, Consolas, monospace }} \
         .bold {{ font-weight: bold }}</style>\n\
         <rect width=\"100%\" height=\"100%\" rx=\"8\" fill=\"{BACKGROUND}\"/>\n"
    );
    for (nth, line) in lines.iter().enumerate() {
        draw_line(&mut svg, MARGIN + nth as f64 * HEIGHT, line);
    }
    svg.push_str("</svg>\n");
    svg
}

fn draw_line(svg: &mut String, top: f64, line: &Line) {
    let mut column = 0;
    for stretch in line.chunk_by(|one, next| one.1 == next.1) {
        let look = stretch[0].1;
        let (colour, behind) = look.colours();
        let bold = if look.bold { " class=\"bold\"" } else { "" };
        if let Some(behind) = behind {
            rectangle(svg, column, top, stretch.len(), HEIGHT, behind);
        }
        if look.underlined {
            rectangle(svg, column, top + BASELINE + 3.0, stretch.len(), 1.0, colour);
        }
        let text: Vec<char> = stretch.iter().map(|&(shown, _)| shown).collect();
        for piece in text.chunk_by(|&one, &next| are_one(one, next)) {
            match piece {
                [' ', ..] => {}
                [block @ '▁'..='█', ..] => {
                    let eighths = u32::from(*block) - u32::from('▁') + 1;
                    let part = f64::from(eighths) / 8.0 * (HEIGHT - 1.0);
                    rectangle(svg, column, top + HEIGHT - part, piece.len(), part, colour);
                }
                ['▒', ..] => rectangle(svg, column, top + 1.0, piece.len(), HEIGHT - 1.0, COLOURS[0]),
                word => {
                    let word: String = word.iter().collect();
                    let _ = writeln!(
                        svg,
                        "<text x=\"{:.1}\" y=\"{:.1}\" textLength=\"{:.1}\" \
                         lengthAdjust=\"spacingAndGlyphs\" fill=\"{colour}\"{bold}>{}</text>",
                        place(column),
                        top + BASELINE,
                        piece.len() as f64 * WIDTH,
                        escaped(&word)
                    );
                }
            }
            column += piece.len();
        }
    }
}

/// Whether two neighbours are drawn as one: letters of a word, and blocks of one height.
fn are_one(one: char, next: char) -> bool {
    one.is_ascii_graphic() && next.is_ascii_graphic() || one == next && !one.is_alphanumeric()
}

/// Where a column begins.
fn place(column: usize) -> f64 {
    MARGIN + column as f64 * WIDTH
}

fn rectangle(svg: &mut String, column: usize, top: f64, columns: usize, height: f64, colour: &str) {
    let _ = writeln!(
        svg,
        "<rect x=\"{:.1}\" y=\"{top:.1}\" width=\"{:.1}\" height=\"{height:.1}\" fill=\"{colour}\"/>",
        place(column),
        columns as f64 * WIDTH
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check that the picture is that of the screen that the test of `lsbuf top` captured.
    #[test]
    fn the_picture_is_the_captured_screen() {
        let workspace = Workspace::find().unwrap();
        let known = fs::read_to_string(committed(&workspace)).unwrap();
        assert!(known == drawn(&workspace).unwrap(), "run `cargo xtask picture` and commit docs/top.svg");
    }

    /// Check that a look holds until it is changed, and that what is unknown is an error.
    #[test]
    fn looks_are_read() {
        let red = Look { colour: Some(1), bold: true, ..Look::default() };
        let plain = Look::default();
        let read = lines("a␛[1;31mb\n␛[0;1m␛[38;5;1mc␛[0md").unwrap();
        assert_eq!(read, [vec![('a', plain), ('b', red)], vec![('c', red), ('d', plain)]]);
        for wrong in ["␛[5mblinks", "␛]0;title", "␛[38;5;8mlater colours", "␛[38;2;1;1;1mother colours", "␛"]
        {
            assert!(lines(wrong).is_err(), "{wrong}");
        }
    }

    /// Check that each word stands in its column whatever is before it, and that blocks are drawn
    /// as high as they are.
    #[test]
    fn columns_line_up() {
        let svg = draw(&lines("a  <b\n█…▄▄b").unwrap());
        let x = |text: &str| {
            let line = svg.lines().find(|line| line.ends_with(&format!(">{text}</text>"))).unwrap();
            line.split('"').nth(1).unwrap().to_owned()
        };
        assert_eq!([x("a"), x("&lt;b"), x("…"), x("b")], ["14.0", "39.2", "22.4", "47.6"]);
        let heights = svg.lines().filter(|line| line.starts_with("<rect x")).collect::<Vec<_>>();
        assert_eq!(heights.len(), 2);
        assert!(heights[0].contains("width=\"8.4\" height=\"18.0\""), "{svg}");
        assert!(heights[1].contains("width=\"16.8\" height=\"9.0\""), "{svg}");
    }
}
