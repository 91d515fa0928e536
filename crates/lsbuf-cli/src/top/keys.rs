//! The keys, as help lists them.

/// Each key with what it does.
pub(crate) const KEYS: &[(&str, &str)] = &[
    ("1 2 3, Tab", "buffers, processes, groups"),
    ("Enter", "the buffer in full, as lsbuf show prints it; Esc goes back"),
    ("g", "the next key of the groups: name, command, cgroup, unit …"),
    ("/", "filter: a text in a name, a command or a kind; Esc ends the filter"),
    ("< >", "sort by the column to the left or to the right"),
    ("s", "sort by any column of the list, by its name"),
    ("r", "reverse the order"),
    ("m M", "mark: from now on show what has changed since; M ends it"),
    ("t", "processes below their parents; in a buffer, also its holders"),
    ("Space", "freeze, and go on; of a recording: play, and stop"),
    ("← →", "of a recording: one sample back or forth"),
    ("T :", "of a recording: go to a time, as --at takes it"),
    ("↑ ↓, j k", "move; also PageUp, PageDown, Home, End"),
    ("Ctrl-L", "draw everything again"),
    ("?", "this help"),
    ("q, Ctrl-C", "quit"),
];

/// What the signs on the screen mean.
pub(crate) const SIGNS: &[(&str, &str)] = &[
    (">", "the cursor: it stays with its item when the order changes"),
    ("!", "one process holds the buffer by 16 fds or more"),
    ("*", "no fd and no mapping holds the buffer"),
    ("▾ ▴", "the column that the list is sorted by; ▴ is reversed"),
    ("█ ▒", "totals: what processes hold, and what none holds"),
    ("▁▂▃▄▅▆▇█", "TREND (from 100 columns on): the cost in the last 8 samples, from 0 to its most"),
    ("? ~ -", "unknown, an estimate, none or does not apply"),
];
