//! Which sources are copied one after the other.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};

use super::{BytePath, Place};

/// Sources that wait for those before them, because what they fill is the same: as with scp, the last one wins.
#[derive(Debug)]
pub(super) struct Waiting {
    /// By what they fill. One of each is under way.
    places: HashMap<BytePath, VecDeque<Place>>,
    /// A source without a name of its own fills the directory in which the others have their names.
    is_one_for_all: bool,
}

impl Waiting {
    /// Returns those that need not wait.
    pub(super) fn begin(sources: Vec<Place>) -> (Self, Vec<Place>) {
        let is_one_for_all = sources.iter().any(|place| place.source.name().is_none());
        let mut waiting = Self { places: HashMap::new(), is_one_for_all };
        let mut first = Vec::new();
        for place in sources {
            match waiting.places.entry(waiting.filled_by(&place)) {
                Entry::Occupied(mut others) => others.get_mut().push_back(place),
                Entry::Vacant(free) => {
                    free.insert(VecDeque::new());
                    first.push(place);
                }
            }
        }
        (waiting, first)
    }

    /// A source is done; the next of those that fill the same.
    pub(super) fn next(&mut self, done: &Place) -> Option<Place> {
        self.places.get_mut(&self.filled_by(done))?.pop_front()
    }

    fn filled_by(&self, place: &Place) -> BytePath {
        if self.is_one_for_all { BytePath::default() } else { place.target.clone() }
    }
}
