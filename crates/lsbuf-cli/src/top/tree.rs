//! The order of processes in which children stand below their parents.
//!
//! Limit: only processes that are listed are in the tree. A process whose parent is not listed
//! stands at the left edge.

use std::collections::{HashMap, HashSet};

use lsbuf::model::{Pid, Snapshot};

/// Puts rows of processes below their parents. Siblings keep their order. Each row comes with what
/// stands before its command.
pub(crate) fn tree(snapshot: &Snapshot, rows: &[usize]) -> Vec<(usize, String)> {
    let pids: HashSet<Pid> = rows.iter().map(|&row| snapshot.processes[row].pid).collect();
    let mut children: HashMap<Pid, Vec<usize>> = HashMap::new();
    let mut roots = Vec::new();
    for &row in rows {
        let process = &snapshot.processes[row];
        let parent = process.details.as_ref().and_then(|details| details.parent);
        match parent.filter(|parent| pids.contains(parent) && *parent != process.pid) {
            Some(parent) => children.entry(parent).or_default().push(row),
            None => roots.push(row),
        }
    }
    let mut placed = Vec::with_capacity(rows.len());
    let mut seen = HashSet::new();
    // A recorded tree may claim that processes are each other's parents. Then there is no root.
    for &root in roots.iter().chain(rows) {
        place(snapshot, root, &children, &mut seen, &mut placed);
    }
    placed
}

/// Places a row and all that are below it. It keeps a stack of its own, because a chain of parents
/// may be long.
fn place(
    snapshot: &Snapshot,
    root: usize,
    children: &HashMap<Pid, Vec<usize>>,
    seen: &mut HashSet<usize>,
    placed: &mut Vec<(usize, String)>,
) {
    let mut open = vec![(root, 0usize)];
    while let Some((row, depth)) = open.pop() {
        if !seen.insert(row) {
            continue;
        }
        let edge =
            if depth == 0 { String::new() } else { format!("{}└ ", "  ".repeat((depth - 1).min(10))) };
        placed.push((row, edge));
        let below = children.get(&snapshot.processes[row].pid).into_iter().flatten();
        open.extend(below.rev().map(|&child| (child, depth + 1)));
    }
}
