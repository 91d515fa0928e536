//! What a trace comes to: how many buffers were made, freed and are left, by the command and the
//! stack that made them, and by kind.

use std::collections::HashMap;
use std::sync::Arc;

use crate::model::{Bytes, Event, Happening, Kind, Label, Stack, TraceKey, TracedBuffer};

/// Counts buffers that are made and freed.
#[derive(Clone, Debug, Default)]
pub struct Balance {
    groups: HashMap<Group, BalanceRow>,
    living: HashMap<TraceKey, (Group, TracedBuffer)>,
}

/// What the buffers of a row have in common: the command, the kind, and the stack's calls.
type Group = (Label, Option<&'static str>, Option<Label>);

/// What became of the buffers that one command made by one stack.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct BalanceRow {
    /// The command that made them.
    pub command: Label,
    /// Their kind. `None`: not known.
    pub kind: Option<Kind>,
    /// The stack. `None`: it has none.
    pub stack: Option<Arc<Stack>>,
    /// How many, and their bytes.
    pub sum: BalanceSum,
}

/// How many buffers were made, freed and are left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct BalanceSum {
    /// Made.
    pub made: u64,
    /// Of these freed.
    pub freed: u64,
    /// The sizes of all, each as it was last seen.
    pub made_bytes: Bytes,
    /// The sizes of those that are left.
    pub left_bytes: Bytes,
}

impl BalanceSum {
    /// How many are left.
    #[must_use]
    pub fn left(&self) -> u64 {
        self.made.saturating_sub(self.freed)
    }

    fn add(&mut self, other: &BalanceSum) {
        self.made += other.made;
        self.freed += other.freed;
        self.made_bytes = self.made_bytes + other.made_bytes;
        self.left_bytes = self.left_bytes + other.left_bytes;
    }
}

impl Balance {
    /// Counts an event. Only buffers whose birth was seen count.
    pub fn add(&mut self, event: &Event) {
        let key = event.buffer.key;
        match event.what {
            Happening::Made => {
                let stack = event.stack.as_deref().and_then(Stack::key);
                let kind = event.buffer.kind;
                let of = (event.by.command.clone(), kind.map(Kind::as_str), stack);
                let row = self.groups.entry(of.clone()).or_insert_with(|| BalanceRow {
                    command: event.by.command.clone(),
                    kind,
                    stack: event.stack.clone(),
                    sum: BalanceSum::default(),
                });
                row.sum.made += 1;
                self.living.insert(key, (of, event.buffer.clone()));
            }
            Happening::Freed => {
                if let Some((of, _)) = self.living.remove(&key)
                    && let Some(row) = self.groups.get_mut(&of)
                {
                    row.sum.freed += 1;
                    row.sum.made_bytes = row.sum.made_bytes + event.buffer.size;
                }
            }
            _ => {
                if let Some((_, buffer)) = self.living.get_mut(&key) {
                    *buffer = event.buffer.clone();
                }
            }
        }
    }

    /// The buffers that are left.
    pub fn left(&self) -> impl Iterator<Item = &TracedBuffer> {
        self.living.values().map(|(_, buffer)| buffer)
    }

    /// Notes the size that a buffer that is left has now.
    pub fn set_size(&mut self, key: TraceKey, size: Bytes) {
        if let Some((_, buffer)) = self.living.get_mut(&key) {
            buffer.size = size;
        }
    }

    /// Each group, with most left first, then most made.
    #[must_use]
    pub fn rows(&self) -> Vec<BalanceRow> {
        let mut groups = self.groups.clone();
        for (of, buffer) in self.living.values() {
            if let Some(row) = groups.get_mut(of) {
                row.sum.made_bytes = row.sum.made_bytes + buffer.size;
                row.sum.left_bytes = row.sum.left_bytes + buffer.size;
            }
        }
        let mut rows: Vec<_> = groups.into_iter().collect();
        rows.sort_by(|(a_of, a), (b_of, b)| {
            let order = |row: &BalanceRow| (row.sum.left_bytes, row.sum.left(), row.sum.made);
            order(b).cmp(&order(a)).then_with(|| a_of.cmp(b_of))
        });
        rows.into_iter().map(|(_, row)| row).collect()
    }

    /// All groups together.
    #[must_use]
    pub fn total(rows: &[BalanceRow]) -> BalanceSum {
        let mut total = BalanceSum::default();
        rows.iter().for_each(|row| total.add(&row.sum));
        total
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::time::{Duration, SystemTime};

    use proptest::prelude::*;

    use super::*;
    use crate::model::{Actor, CodePlace, Function, Pid, Tid, UserFrame};

    fn event(what: Happening, key: u64, size: u64, command: &str, function: &str) -> Event {
        let mut frame = UserFrame::new(CodePlace::Address(1));
        frame.functions = vec![Function::new(function.into())];
        let stack = Stack { user: vec![frame], ..Stack::default() };
        Event {
            after_boot: Duration::ZERO,
            at: SystemTime::UNIX_EPOCH,
            what,
            buffer: TracedBuffer {
                key: TraceKey(key),
                kind: Some(Kind::Memfd),
                dev: None,
                ino: None,
                ipc: None,
                size: Bytes(size),
                memory: Bytes(0),
                name: None,
                name_cut: false,
                exporter: None,
            },
            by: Actor {
                pid: Pid(1),
                started: Duration::ZERO,
                command: command.into(),
                tid: Tid(1),
                thread: command.into(),
                uid: 0,
                cgroup: 0,
                kernel: false,
                exiting: false,
            },
            stack: Some(Arc::new(stack)),
        }
    }

    /// Check that buffers are counted by command and stack, with the size that each had last.
    #[test]
    fn groups() {
        let mut balance = Balance::default();
        for one in [
            event(Happening::Made, 1, 0, "a", "one"),
            event(Happening::Renamed, 1, 64, "b", "other"),
            event(Happening::Made, 2, 0, "a", "one"),
            event(Happening::Freed, 2, 32, "b", "other"),
            event(Happening::Made, 3, 16, "a", "two"),
            event(Happening::Freed, 9, 16, "a", "two"),
        ] {
            balance.add(&one);
        }
        let rows = balance.rows();
        let figures: Vec<_> = rows
            .iter()
            .map(|row| {
                (row.sum.made, row.sum.freed, row.sum.left(), row.sum.made_bytes.0, row.sum.left_bytes.0)
            })
            .collect();
        assert_eq!(figures, [(2, 1, 1, 96, 64), (1, 0, 1, 16, 16)]);
        assert_eq!(Balance::total(&rows).left(), 2);
    }

    proptest! {
        /// Check that what is made is freed or left, whatever the order of events, and that what
        /// was not seen being made does not count.
        #[test]
        fn nothing_is_lost(events in proptest::collection::vec((0u64..6, 0usize..3, 0u64..3), 0..60)) {
            let (mut balance, mut truth) = (Balance::default(), HashMap::new());
            let (mut made, mut freed) = (0, 0);
            for (key, what, size) in events {
                let what = match what {
                    // A buffer is made once as long as it lives.
                    0 if !truth.contains_key(&key) => Happening::Made,
                    1 => Happening::Freed,
                    _ => Happening::Renamed,
                };
                match what {
                    Happening::Made => {
                        made += 1;
                        truth.insert(key, size);
                    }
                    Happening::Freed => freed += u64::from(truth.remove(&key).is_some()),
                    _ => {
                        truth.entry(key).and_modify(|old| *old = size);
                    }
                }
                balance.add(&event(what, key, size, "a", "one"));
            }
            let total = Balance::total(&balance.rows());
            prop_assert_eq!((total.made, total.freed), (made, freed));
            prop_assert_eq!(total.left(), truth.len() as u64);
            prop_assert_eq!(total.left_bytes.0, truth.values().sum::<u64>());
            prop_assert_eq!(balance.left().count(), truth.len());
        }
    }
}
