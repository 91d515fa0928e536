//! The end of `lsbuf doctor`: whether answers are complete here, and if not, what is missing and
//! because of which processes.

use crate::escape::{escape, escape_word};
use crate::model::counted;
use crate::scan::{Diagnosis, Unread};

/// How many processes are named. A user without rights cannot read hundreds of them.
const NAMED: usize = 8;

/// One or more lines, each with a newline at its end.
#[must_use]
pub fn verdict(diagnosis: &Diagnosis) -> String {
    let Diagnosis { coverage, unread, .. } = diagnosis;
    if diagnosis.is_complete() {
        return "Answers are complete here. Whether this kernel behaves as lsbuf assumes: lsbuf check\n"
            .into();
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
    let (they_hold, their) = if unread.len() == 1 { ("it holds", "its") } else { ("they hold", "their") };
    // Only BPF iterators give a complete answer although procfs refuses.
    text.push_str(&match coverage.is_complete() {
        true => format!(
            "BPF iterators see what all processes hold. procfs cannot read {who}: --source procfs would miss buffers \
             that only {they_hold}, and with any source it is unknown which files {their} io_urings have \
             registered:\n"
        ),
        false => format!(
            "procfs could not read {who}: buffers that only {they_hold} are missing, or appear as held by the kernel; \
             residuals are estimates:\n"
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

    /// Check that each process that was not read is named, with the reason and with what is missing
    /// for it, and that its name cannot pass for another process.
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
        assert!(
            by_procfs
                .contains("\nprocfs could not read 3 processes: buffers that only they hold are missing")
        );
        assert!(by_procfs.ends_with(list), "{by_procfs}");
    }

    /// Check that of very many processes only some are named, and the others counted.
    #[test]
    fn very_many() {
        let text = verdict(&diagnosis(Vec::new(), (1..=100).map(|pid| denied(pid, "a")).collect()));
        assert_eq!(text.lines().count(), 1 + NAMED + 1);
        assert!(text.ends_with("\n- and 92 more\n"), "{text}");
    }
}
