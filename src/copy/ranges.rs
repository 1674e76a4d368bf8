//! Parts of a file.

use std::collections::BTreeMap;

/// A set of offsets, as ranges that neither touch nor overlap.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ranges(BTreeMap<u64, u64>);

impl Ranges {
    /// Adds the offsets from `start` to before `end`.
    pub fn insert(&mut self, mut start: u64, mut end: u64) {
        if start >= end {
            return;
        }
        while let Some((&from, &to)) = self.0.range(..=end).next_back().filter(|(_, to)| **to >= start) {
            self.0.remove(&from);
            (start, end) = (start.min(from), end.max(to));
        }
        self.0.insert(start, end);
    }

    /// What it holds before `end`.
    #[must_use]
    pub(super) fn before(&self, end: u64) -> Self {
        self.iter().map(|(start, past)| (start, past.min(end))).collect()
    }

    /// Where the range that holds `offset` ends.
    pub fn end_of(&self, offset: u64) -> Option<u64> {
        self.0.range(..=offset).next_back().map(|(_, end)| *end).filter(|end| *end > offset)
    }

    /// Where the first range behind `offset` starts.
    pub fn start_after(&self, offset: u64) -> Option<u64> {
        self.0.range(offset..).find(|(start, _)| **start > offset).map(|(start, _)| *start)
    }

    /// How many offsets it holds.
    pub fn total(&self) -> u64 {
        self.iter().map(|(start, end)| end - start).sum()
    }

    /// Past the last offset; 0 if there is none.
    pub fn end(&self) -> u64 {
        self.0.last_key_value().map_or(0, |(_, end)| *end)
    }

    /// Whether it holds nothing.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The ranges in order: start, and past the end.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (u64, u64)> + '_ {
        self.0.iter().map(|(start, end)| (*start, *end))
    }
}

impl FromIterator<(u64, u64)> for Ranges {
    fn from_iter<I: IntoIterator<Item = (u64, u64)>>(ranges: I) -> Self {
        let mut all = Self::default();
        ranges.into_iter().for_each(|(start, end)| all.insert(start, end));
        all
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn they_hold_what_was_inserted_as_few_ranges(
            inserted in proptest::collection::vec((0u64..60, 0u64..20), 0..20),
        ) {
            let ranges: Ranges = inserted.iter().map(|(start, length)| (*start, start + length)).collect();
            let holds = |offset: u64| inserted.iter().any(|(start, length)| (*start..start + length).contains(&offset));
            for offset in 0..90 {
                prop_assert_eq!(ranges.end_of(offset).is_some(), holds(offset));
                prop_assert_eq!(ranges.end_of(offset), holds(offset).then(|| (offset..200).find(|end| !holds(*end)).unwrap()));
                let next = (offset + 1..90).find(|start| holds(*start) && !holds(start - 1));
                prop_assert_eq!(ranges.start_after(offset), next);
            }
            prop_assert_eq!(ranges.total(), (0..90).filter(|offset| holds(*offset)).count() as u64);
            prop_assert_eq!(ranges.is_empty(), ranges.end() == 0);
        }
    }
}
