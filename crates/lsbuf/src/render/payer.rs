//! Who pays for a buffer, in words.
//!
//! The path of a cgroup is what its user chose, so it is escaped as one word.

use crate::escape::push_word_escaped;
use crate::model::{Bytes, Payers, PayingCgroup};

/// The payers on one line: a single cgroup alone, several with what each pays. `None`: the buffer
/// has no memory.
pub(super) fn cell(payers: &Payers) -> Option<String> {
    let parts = parts(payers);
    match &parts[..] {
        [] => None,
        [(payer, _)] => Some(payer.clone()),
        parts => {
            Some(parts.iter().map(|(payer, bytes)| format!("{payer}({bytes})")).collect::<Vec<_>>().join(" "))
        }
    }
}

/// Each payer with what it pays; memory whose payer is unknown comes last.
pub(super) fn parts(payers: &Payers) -> Vec<(String, Bytes)> {
    let cgroups = payers.cgroups.iter().map(|payer| (name(&payer.cgroup), payer.bytes));
    let others = [("no-cgroup", payers.nobody), ("?swapped", payers.swapped), ("?", payers.unknown)];
    let others = others.into_iter().filter(|(_, bytes)| *bytes > Bytes(0));
    cgroups.chain(others.map(|(word, bytes)| (word.to_owned(), bytes))).collect()
}

/// The path of a cgroup, and whether it is gone.
fn name(cgroup: &PayingCgroup) -> String {
    let mut text = String::new();
    push_word_escaped(&mut text, cgroup.path.as_bytes());
    if cgroup.removed {
        text.push_str("(removed)");
    }
    text
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::model::Payer;

    fn payer(path: &str, removed: bool, bytes: u64) -> Payer {
        let cgroup = PayingCgroup { path: path.into(), removed, unified: true, id: 7 };
        Payer { cgroup: Arc::new(cgroup), bytes: Bytes(bytes) }
    }

    /// Check that a single payer is named without a size, and that one that is gone is marked.
    #[test]
    fn single() {
        let of = |payer: Payer| cell(&Payers { cgroups: vec![payer], ..Payers::default() });
        assert_eq!(of(payer("/a.slice", false, 4096)).as_deref(), Some("/a.slice"));
        assert_eq!(of(payer("/a b", true, 4096)).as_deref(), Some("/a\\x20b(removed)"));
        assert_eq!(cell(&Payers::default()), None);
    }

    /// Check that of several each has what it pays, and that the unknown is told from a cgroup.
    #[test]
    fn several() {
        let payers = Payers {
            cgroups: vec![payer("/a", false, 40 << 20), payer("/b", false, 8 << 20)],
            swapped: Bytes(4096),
            ..Payers::default()
        };
        assert_eq!(cell(&payers).as_deref(), Some("/a(40.0M) /b(8.0M) ?swapped(4.0K)"));
    }
}
