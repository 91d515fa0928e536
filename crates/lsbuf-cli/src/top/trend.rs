//! What each item has cost in the last samples, as a line of small bars.
//!
//! The bars of a row go from 0 to the most that it has cost in these samples, so rows cannot be
//! compared with each other. `?` is an unknown cost, a blank a sample in which it was not there.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use lsbuf::model::{Bytes, Snapshot};

use super::item::Item;

/// How many samples a trend has.
pub(crate) const LENGTH: usize = 8;

const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// What each item costs in one sample.
pub(crate) type Costs = HashMap<Item, Option<Bytes>>;

/// The last samples, by their place in time.
#[derive(Default)]
pub(crate) struct Trends {
    samples: BTreeMap<i64, (Arc<Snapshot>, Option<Costs>)>,
}

impl Trends {
    /// Takes a sample. Those nearest to it are kept.
    pub(crate) fn add(&mut self, place: i64, snapshot: &Arc<Snapshot>) {
        self.samples.entry(place).or_insert_with(|| (Arc::clone(snapshot), None));
    }

    /// Forgets all but the last samples up to that place.
    pub(crate) fn keep(&mut self, place: i64) {
        let first = self.samples.range(..=place).rev().nth(LENGTH - 1).map(|(&first, _)| first);
        self.samples.retain(|&one, _| one <= place && first.is_none_or(|first| one >= first));
    }

    /// Forgets the costs, because other rows are shown.
    pub(crate) fn forget_costs(&mut self) {
        for (_, costs) in self.samples.values_mut() {
            *costs = None;
        }
    }

    /// Makes sure that the costs of each sample are there.
    pub(crate) fn measure(&mut self, measure: impl Fn(&Snapshot) -> Costs) {
        for (snapshot, costs) in self.samples.values_mut() {
            costs.get_or_insert_with(|| measure(snapshot));
        }
    }

    /// The bars of an item, the newest sample last.
    pub(crate) fn bars(&self, item: &Item) -> String {
        let costs: Vec<Option<Option<Bytes>>> = self
            .samples
            .values()
            .filter_map(|(_, costs)| costs.as_ref())
            .map(|costs| costs.get(item).copied())
            .collect();
        let most = costs.iter().flatten().flatten().map(|cost| cost.0).max().unwrap_or(0);
        let missing = std::iter::repeat_n(' ', LENGTH.saturating_sub(costs.len()));
        missing.chain(costs.iter().map(|cost| bar(*cost, most))).collect()
    }
}

/// The sign for a cost; `None`: the item was not there.
fn bar(cost: Option<Option<Bytes>>, most: u64) -> char {
    match cost {
        None => ' ',
        Some(None) => '?',
        Some(Some(Bytes(cost))) => {
            let top = BARS.len() as u128 - 1;
            let level = u128::from(cost) * top / u128::from(most.max(1));
            usize::try_from(level).ok().and_then(|level| BARS.get(level)).copied().unwrap_or('█')
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check that bars go from 0 to the most, also for the largest cost that there can be, and that
    /// unknown is neither.
    #[test]
    fn levels() {
        let known = |cost| Some(Some(Bytes(cost)));
        assert_eq!((bar(known(0), 80), bar(known(40), 80), bar(known(80), 80)), ('▁', '▄', '█'));
        assert_eq!((bar(known(0), 0), bar(known(u64::MAX), u64::MAX)), ('▁', '█'));
        assert_eq!((bar(Some(None), 80), bar(None, 80)), ('?', ' '));
    }
}
