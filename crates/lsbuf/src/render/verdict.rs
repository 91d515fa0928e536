//! The end of a diagnosis: whether answers are complete, and what they lack and for whose sake if
//! not.

use crate::escape::{escape, escape_word};
use crate::model::counted;
use crate::scan::{Diagnosis, Unread};

/// So many processes are named one by one; a user without rights cannot read hundreds.
const NAMED: usize = 8;

/// Some lines, the last one with a newline behind it.
#[must_use]
pub fn verdict(diagnosis: &Diagnosis) -> String {
    let Diagnosis { coverage, unread, .. } = diagnosis;
    if diagnosis.is_complete() {
        return "Answers are complete here, as far as reading goes. What this kernel itself hides: lsbuf check\n".into();
    }
    let mut text = String::new();
    if !coverage.is_complete() {
        text.push_str("Answers are partial here:\n");
        for note in coverage.notes.iter().filter(|note| note.is_partial()) {
            text.push_str(&format!("- {}\n", escape(note.to_string().as_bytes())));
        }
    }
    if unread.is_empty() {
        return text;
    }
    let who = counted(unread.len() as u64, "process", "processes");
    // Only what iterators have seen is complete in spite of them.
    text.push_str(&match coverage.is_complete() {
        true => format!(
            "BPF iterators see what all processes hold. procfs cannot read {who}: by --source procfs, what only they hold \
             would not show, and what their io_urings keep is unknown either way:\n"
        ),
        false => format!(
            "procfs could not read {who}: what only they hold does not show, or as the kernel's, and what is left over is an \
             estimate:\n"
        ),
    });
    for Unread { pid, comm, why } in unread.iter().take(NAMED) {
        let comm = comm.as_ref().map_or("?".into(), |comm| escape_word(comm.as_bytes()));
        text.push_str(&format!("- {pid} ({comm}): {}\n", escape(why.to_string().as_bytes())));
    }
    if let Some(more) = unread.len().checked_sub(NAMED).filter(|&more| more > 0) {
        text.push_str(&format!("- and {more} more\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Coverage, Note, Pid};
    use crate::scan::Refusal;

    fn diagnosis(notes: Vec<Note>, unread: Vec<Unread>) -> Diagnosis {
        Diagnosis { checks: Vec::new(), coverage: Coverage { notes, ..Coverage::default() }, unread }
    }

    fn denied(pid: u32, comm: &str) -> Unread {
        Unread { pid: Pid(pid), comm: Some(comm.into()), why: Refusal::Denied("mappings") }
    }

    /// Check that completeness is claimed only where every process could be read, whatever the
    /// source.
    #[test]
    fn complete_only_if_all_was_read() {
        let claims = |notes, unread| verdict(&diagnosis(notes, unread)).contains("complete here");
        assert!(claims(Vec::new(), Vec::new()));
        assert!(!claims(Vec::new(), vec![denied(7, "guard")]));
        assert!(!claims(vec![Note::NotWholeMachine], Vec::new()));
    }

    /// Check that who was not read is named, with the reason and with what it costs, and poses as
    /// nobody else.
    #[test]
    fn who_was_not_read() {
        let failed = Refusal::Failed("fd table", "Input/output error (os error 5)".into());
        let others = [
            Unread { pid: Pid(8), comm: None, why: failed },
            Unread { pid: Pid(9), comm: Some("x): \n".into()), why: Refusal::Gone },
        ];
        let unread: Vec<Unread> = [denied(7, "guard")].into_iter().chain(others).collect();
        let list = "- 7 (guard): permission denied to read its mappings\n\
                    - 8 (?): reading its fd table failed: Input/output error (os error 5)\n\
                    - 9 (x\\x29\\x3a\\x20\\x0a): it exited while it was read\n";
        let by_iterators = verdict(&diagnosis(Vec::new(), unread.clone()));
        assert!(
            by_iterators
                .starts_with("BPF iterators see what all processes hold. procfs cannot read 3 processes")
        );
        assert!(by_iterators.ends_with(list), "{by_iterators}");
        let note = Note::Unreadable { denied: 2, failed: 1 };
        let by_procfs = verdict(&diagnosis(vec![note], unread));
        assert!(
            by_procfs.starts_with("Answers are partial here:\n- 3 processes could not be read"),
            "{by_procfs}"
        );
        assert!(by_procfs.contains("\nprocfs could not read 3 processes: what only they hold does not show"));
        assert!(by_procfs.ends_with(list), "{by_procfs}");
    }

    /// Check that of very many only some are named, and the rest are counted.
    #[test]
    fn very_many() {
        let text = verdict(&diagnosis(Vec::new(), (1..=100).map(|pid| denied(pid, "a")).collect()));
        assert_eq!(text.lines().count(), 1 + NAMED + 1);
        assert!(text.ends_with("\n- and 92 more\n"), "{text}");
    }
}
