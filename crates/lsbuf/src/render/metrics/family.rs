//! Metrics as data: families of samples, before they are text.
//!
//! That no two samples of a family have the same labels is what a scraper insists on, or it refuses
//! the whole answer. So samples with the same labels are added up here.

use std::collections::BTreeMap;

use crate::escape::escape;

/// The most characters of a label's value. Scrapers can be told to refuse longer ones, and then
/// they refuse the whole answer.
const LONGEST: usize = 120;

/// The labels of a sample: names and values. The names are in the same order in all samples of a
/// family.
pub(super) type Labels = Vec<(&'static str, String)>;

/// What a family is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sort {
    Gauge,
    Counter,
    /// Always 1; what it says is in its labels.
    Info,
}

/// The unit of a family, which is the end of its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unit {
    None,
    Bytes,
    Seconds,
    Ratio,
}

/// A figure.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Figure {
    Whole(i128),
    Real(f64),
}

/// A metric with all its samples.
#[derive(Clone, Debug)]
pub(super) struct Family {
    /// Without prefix, unit and what the sort adds.
    pub(super) name: &'static str,
    pub(super) help: &'static str,
    pub(super) sort: Sort,
    pub(super) unit: Unit,
    pub(super) samples: BTreeMap<Labels, Figure>,
}

impl Family {
    pub(super) fn new(name: &'static str, sort: Sort, unit: Unit, help: &'static str) -> Family {
        Family { name, help, sort, unit, samples: BTreeMap::new() }
    }

    pub(super) fn gauge(name: &'static str, unit: Unit, help: &'static str) -> Family {
        Family::new(name, Sort::Gauge, unit, help)
    }

    pub(super) fn counter(name: &'static str, help: &'static str) -> Family {
        Family::new(name, Sort::Counter, Unit::None, help)
    }

    /// Adds a whole number to the sample with these labels.
    pub(super) fn add(&mut self, labels: Labels, figure: impl Into<i128>) {
        let figure = figure.into();
        let sample = self.samples.entry(labels).or_insert(Figure::Whole(0));
        if let Figure::Whole(sum) = sample {
            *sum = sum.saturating_add(figure);
        }
    }

    /// Sets the sample with these labels, unless it is larger.
    pub(super) fn raise(&mut self, labels: Labels, figure: f64) {
        let sample = self.samples.entry(labels).or_insert(Figure::Real(figure));
        if let Figure::Real(most) = sample {
            *most = most.max(figure);
        }
    }
}

/// Untrusted text as the value of a label: escaped for one line, and cut if it is long. A checksum
/// of the whole replaces what was cut off, so that two that differ stay two.
pub(super) fn value(bytes: &[u8]) -> String {
    let text = escape(bytes);
    if text.chars().count() <= LONGEST {
        return text;
    }
    let sum = format!("…{:08x}", crc32fast::hash(bytes));
    let kept = LONGEST - sum.chars().count();
    text.chars().take(kept).chain(sum.chars()).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Check that samples with the same labels become one.
    #[test]
    fn same_labels() {
        let mut family = Family::gauge("x", Unit::None, "X.");
        let labels = || vec![("a", "b".to_owned())];
        family.add(labels(), 1);
        family.add(labels(), 2);
        assert_eq!(family.samples, BTreeMap::from([(labels(), Figure::Whole(3))]));
    }

    /// Check that long names that begin alike stay apart.
    #[test]
    fn long_names() {
        let long = |end: u8| [vec![b'x'; 300], vec![end]].concat();
        let (one, other) = (value(&long(1)), value(&long(2)));
        assert_ne!(one, other);
        assert_eq!((one.chars().count(), other.chars().count()), (LONGEST, LONGEST));
    }

    proptest! {
        /// Check that any bytes make a value of one line that is not too long.
        #[test]
        fn any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let text = value(&bytes);
            prop_assert!(text.chars().count() <= LONGEST);
            prop_assert!(!text.chars().any(char::is_control));
        }
    }
}
