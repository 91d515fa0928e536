//! Does the same work for several kernels, some at once, and prints the output as if they ran one
//! after another.
//!
//! A guest keeps about one processor busy for most of its life, so a host with two processors runs
//! two guests in little more time than one. The output for one kernel stays together: it is printed
//! when that kernel is done, or immediately if only one runs at a time.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;

/// What a worker sends: output, and the result when an item is done.
type Told<R> = (String, Option<(usize, R)>);

/// How many to run at once for `items` of them, where nobody said: as many as there are processors.
pub(crate) fn at_once(items: usize) -> usize {
    thread::available_parallelism().map_or(1, usize::from).min(items).max(1)
}

/// Does `work` for each of `items`, up to `jobs` at once, and returns the results in the order of
/// the items. `work` gets a function for its output. The output reaches `out` in one piece for each
/// item, or immediately if `jobs` is 1.
pub(crate) fn each<T: Sync, R: Send>(
    items: &[T],
    jobs: usize,
    out: &mut dyn FnMut(&str),
    work: impl Fn(&T, &mut dyn FnMut(&str)) -> R + Sync,
) -> Vec<R> {
    let next = AtomicUsize::new(0);
    let (sender, receiver) = mpsc::channel::<Told<R>>();
    let run = |sender: mpsc::Sender<Told<R>>| {
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(item) = items.get(index) else { return };
            let mut kept = String::new();
            let result = work(item, &mut |text| match jobs {
                // The receiver lives as long as the workers.
                1 => drop(sender.send((text.to_owned(), None))),
                _ => kept.push_str(text),
            });
            drop(sender.send((kept, Some((index, result)))));
        }
    };
    thread::scope(|scope| {
        for sender in vec![sender; jobs] {
            scope.spawn(|| run(sender));
        }
        let mut results = Vec::new();
        for (text, result) in receiver {
            out(&text);
            results.extend(result);
        }
        results.sort_by_key(|(index, _)| *index);
        results.into_iter().map(|(_, result)| result).collect()
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;

    use super::*;

    fn said(jobs: usize, work: impl Fn(&u32, &mut dyn FnMut(&str)) -> u32 + Sync) -> (Vec<String>, Vec<u32>) {
        let mut pieces = Vec::new();
        let results = each(&[1, 2, 3, 4], jobs, &mut |text| pieces.push(text.to_owned()), work);
        (pieces, results)
    }

    /// Check that two run at the same time, that their lines do not mix, and that results keep the
    /// items' order.
    #[test]
    fn two_at_once() {
        let meet = Barrier::new(2);
        let (mut pieces, results) = said(2, |item, say| {
            say(&format!("{item} begins\n"));
            meet.wait();
            say(&format!("{item} ends\n"));
            item * 10
        });
        pieces.sort();
        assert_eq!(pieces, [1, 2, 3, 4].map(|n| format!("{n} begins\n{n} ends\n")));
        assert_eq!(results, [10, 20, 30, 40]);
    }

    /// Check that a single worker's text comes at once and in order.
    #[test]
    fn one_by_one() {
        let (pieces, results) = said(1, |item, say| {
            say("begins");
            say("ends");
            *item
        });
        assert_eq!(pieces.concat(), "beginsends".repeat(4));
        assert!(pieces.len() > 4, "{pieces:?}");
        assert_eq!(results, [1, 2, 3, 4]);
    }

    /// Check that no more are started than there are items, and at least one.
    #[test]
    fn bounds() {
        assert_eq!((at_once(1), at_once(0)), (1, 1));
    }
}
