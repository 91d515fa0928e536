//! The data of a page: the documents that the command prints as JSON, in one object.
//!
//! | key | what |
//! |---|---|
//! | `snapshot` | `lsbuf.snapshot/1`, as `lsbuf -J` prints it |
//! | `leaks` | `lsbuf.leaks/1`; `null`: the page is not of a recording |
//! | `history` | bytes, births and deaths over time; `null` as above |
//! | `redacted` | whether names, paths and ids are aliases |

use std::fmt::Write;
use std::io;

use serde_json::Value;

use super::super::View;
use super::super::json::json;
use super::super::layout::JsonLayout;
use super::redact;

/// What a page shows.
#[derive(Clone, Debug)]
pub struct PageData {
    /// Documents of JSON.
    snapshot: String,
    leaks: Option<String>,
    history: Option<String>,
    redacted: bool,
}

impl PageData {
    /// The buffers and processes of a view.
    ///
    /// # Errors
    /// If the view cannot be written as JSON, which no view is known to do.
    pub fn new(view: &View<'_>) -> io::Result<PageData> {
        let snapshot = text(|out| json(out, view, JsonLayout::Compact))?;
        Ok(PageData { snapshot, leaks: None, history: None, redacted: false })
    }

    /// With what a recording tells of the time before: its course, and the groups in it, the worst
    /// ones if there are many. The view is that of the last sample.
    ///
    /// # Errors
    /// As [`PageData::new`].
    #[cfg(feature = "history")]
    pub fn over_time(
        mut self,
        view: &View<'_>,
        course: &crate::history::Course,
        suspects: &crate::history::Suspects,
    ) -> io::Result<PageData> {
        let rows: Vec<usize> = (0..suspects.groups.len().min(MOST_SUSPECTS)).collect();
        let layout = JsonLayout::Compact;
        self.leaks =
            Some(text(|out| super::super::leaks_json::leaks_json(out, view, suspects, &rows, layout))?);
        self.history = Some(over_time::history(course)?);
        Ok(self)
    }

    /// The same with aliases in place of what other processes chose, and of what names processes,
    /// users and machines. Figures stay. The same text has the same alias in the whole page.
    ///
    /// # Errors
    /// As [`PageData::new`].
    pub fn redacted(self) -> io::Result<PageData> {
        let read = |text: &String| serde_json::from_str::<Value>(text).map_err(io::Error::from);
        let mut snapshot = read(&self.snapshot)?;
        let mut leaks = self.leaks.as_ref().map(read).transpose()?;
        let mut history = self.history.as_ref().map(read).transpose()?;
        let others = leaks.iter_mut().chain(history.iter_mut());
        redact::redact(&mut [&mut snapshot].into_iter().chain(others).collect::<Vec<_>>());
        Ok(PageData {
            snapshot: snapshot.to_string(),
            leaks: leaks.map(|leaks| leaks.to_string()),
            history: history.map(|history| history.to_string()),
            redacted: true,
        })
    }

    /// The data as text inside an HTML element of type `application/json`. No character is left
    /// that has a meaning in HTML, or that ends a line in a script.
    pub(super) fn island(&self) -> String {
        let null = || "null".to_owned();
        let (leaks, history) =
            (self.leaks.clone().unwrap_or_else(null), self.history.clone().unwrap_or_else(null));
        let parts = [
            ("{\"snapshot\":", self.snapshot.trim_end()),
            (",\"leaks\":", leaks.trim_end()),
            (",\"history\":", history.trim_end()),
        ];
        let mut island = String::with_capacity(self.snapshot.len() + leaks.len() + history.len() + 64);
        for (key, document) in parts {
            island.push_str(key);
            push_harmless(&mut island, document);
        }
        // Writing to a String cannot fail.
        let _ = write!(island, ",\"redacted\":{}}}", self.redacted);
        island
    }
}

/// How many groups a page has.
#[cfg(feature = "history")]
const MOST_SUSPECTS: usize = 500;

fn text(write: impl FnOnce(&mut Vec<u8>) -> io::Result<()>) -> io::Result<String> {
    let mut bytes = Vec::new();
    write(&mut bytes)?;
    String::from_utf8(bytes).map_err(io::Error::other)
}

/// Adds a document. In JSON these characters are only inside strings, where `\u` means the same.
fn push_harmless(island: &mut String, document: &str) {
    let is_special = |c: char| matches!(c, '<' | '>' | '&' | '\u{2028}' | '\u{2029}');
    let mut rest = document;
    while let Some(at) = rest.find(is_special) {
        let (before, after) = rest.split_at(at);
        island.push_str(before);
        let mut characters = after.chars();
        if let Some(c) = characters.next() {
            // Writing to a String cannot fail.
            let _ = write!(island, "\\u{:04x}", u32::from(c));
        }
        rest = characters.as_str();
    }
    island.push_str(rest);
}

/// The course of time as JSON.
#[cfg(feature = "history")]
mod over_time {
    use std::io;
    use std::time::UNIX_EPOCH;

    use serde::Serialize;

    use crate::history::{Course, CourseGroup};
    use crate::model::serialize::{Lost, lost_bytes};
    use crate::model::{Kind, Label};

    /// How many groups have a band of their own.
    const MOST_GROUPS: usize = 12;

    #[derive(Serialize)]
    struct History<'a> {
        /// Milliseconds since 1970.
        points: Vec<u64>,
        samples: u64,
        partial_samples: u64,
        unknown_costs: u64,
        groups: Vec<Group<'a>>,
        births: &'a [u64],
        deaths: &'a [u64],
    }

    #[derive(Serialize)]
    struct Group<'a> {
        kind: Kind,
        exporter: Option<&'a Label>,
        #[serde(skip_serializing_if = "Option::is_none")]
        exporter_bytes: Lost,
        /// Whether it is all those that have no group of their own.
        other: bool,
        bytes: Vec<u64>,
    }

    pub(super) fn history(course: &Course) -> io::Result<String> {
        // What never cost anything, as far as it is known, has no band.
        let has_bytes = |group: &&CourseGroup| group.bytes.iter().any(|&bytes| bytes > 0);
        let mut order: Vec<_> = course.groups.iter().filter(has_bytes).collect();
        order.sort_by_key(|group| std::cmp::Reverse(group.bytes.iter().max().copied()));
        let mut groups: Vec<Group<'_>> = Vec::new();
        for group in order {
            if let Some(others) = groups.get_mut(MOST_GROUPS) {
                (others.exporter, others.exporter_bytes, others.other) = (None, None, true);
                let sums = others.bytes.iter_mut().zip(&group.bytes);
                sums.for_each(|(sum, bytes)| *sum = sum.saturating_add(*bytes));
                continue;
            }
            groups.push(Group {
                kind: group.kind,
                exporter: group.exporter.as_ref(),
                exporter_bytes: lost_bytes(group.exporter.as_ref()),
                other: false,
                bytes: group.bytes.clone(),
            });
        }
        let milliseconds = |time: std::time::SystemTime| {
            let passed = time.duration_since(UNIX_EPOCH).unwrap_or_default();
            u64::try_from(passed.as_millis()).unwrap_or(u64::MAX)
        };
        let history = History {
            points: course.points.iter().map(|point| milliseconds(point.taken_at)).collect(),
            samples: course.samples,
            partial_samples: course.partial,
            unknown_costs: course.unknown_costs,
            groups,
            births: &course.births,
            deaths: &course.deaths,
        };
        serde_json::to_string(&history).map_err(io::Error::from)
    }
}
