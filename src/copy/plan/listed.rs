//! What was listed and is not looked at yet, and how far listing goes ahead. Whoever lists a tree without an end does not
//! fill the memory: directories are gone into one by one, the latest first, and their names are looked at as they are needed.

use std::collections::HashSet;

use super::{At, Directory, Look, Plan, Task};
use crate::copy::endpoint::{Entry, FileKind, MAX_ENTRIES, Metadata};
use crate::copy::path::is_unsafe_name;
use crate::copy::{BytePath, CopyError, Links};

/// Names are looked at until this many directories are known and not listed.
pub(super) const DIRECTORIES_AHEAD: usize = 256;
/// Directories are listed while fewer names than this wait to be looked at.
pub(super) const NAMES_AHEAD: usize = 1 << 16;
/// Lists under way at once: files are copied beside them.
pub(super) const LISTS_AT_ONCE: usize = 32;
/// Names that wait at most, those of all directories together: twice what one directory may have.
pub(super) const MOST_NAMES: usize = 2 * MAX_ENTRIES;

impl Plan {
    pub(super) fn may_list(&self) -> bool {
        // Where directories are long, few lists bring many names.
        let at_once = (NAMES_AHEAD / (self.usual + 1)).clamp(1, LISTS_AT_ONCE);
        self.names < NAMES_AHEAD && self.listing < at_once
    }

    pub(super) fn next_list(&mut self, is_only_way: bool) -> Option<Task> {
        let directory = self.lists.pop()?;
        self.listing += 1;
        Some(Task::List { directory, is_only_way })
    }

    /// Looks at the next name of the directory that was listed last. `false`: at none now.
    pub(super) fn unfold(&mut self) -> bool {
        let Some(&directory) = self.unfolding.last() else { return false };
        let found = self.directories.get_mut(&directory).expect("it is open until all its names were looked at");
        let Some(next) = found.rest.as_slice().first() else {
            self.unfolding.pop();
            self.close_one(directory);
            return true;
        };
        let may_be_directory = next.metadata.kind != Some(FileKind::File);
        if may_be_directory && self.lists.len() + self.listing >= DIRECTORIES_AHEAD {
            return false;
        }
        if let Some(Entry { name, metadata }) = found.rest.next() {
            found.open += 1;
            self.names -= 1;
            self.enter_entry(directory, name, metadata);
        }
        true
    }

    /// A directory is listed. What is too much for now is listed again later.
    pub(super) fn take_list(&mut self, directory: usize, entries: Vec<Entry>, is_only_way: bool) {
        self.usual = entries.len().max(self.usual / 2);
        if self.names + entries.len() <= self.most_names {
            return self.take_names(directory, entries);
        }
        let Some(found) = self.directories.get(&directory) else { return };
        if is_only_way {
            self.failures.push_back((found.place.clone(), CopyError::TooManyEntries(self.most_names)));
            self.take_names(directory, Vec::new());
        } else {
            self.lists.push(directory);
            self.questions += 1;
        }
    }

    /// Without names the directory is still made and finished.
    pub(super) fn take_names(&mut self, directory: usize, entries: Vec<Entry>) {
        if self.directories.contains_key(&directory) {
            self.names += entries.len();
            self.update(directory, |found| found.listed = Some(entries));
        }
    }

    /// Notes what is known about a directory; once it is made and listed, its names are looked at one by one.
    pub(super) fn update(&mut self, directory: usize, note: impl FnOnce(&mut Directory)) {
        let Some(found) = self.directories.get_mut(&directory) else { return };
        note(found);
        if found.made.is_none() {
            return;
        }
        let Some(entries) = found.listed.take() else { return };
        let mut names = HashSet::new();
        let (rest, again): (Vec<_>, Vec<_>) = entries.into_iter().partition(|entry| names.insert(entry.name.clone()));
        found.rest = rest.into_iter();
        found.open += again.len();
        self.names -= again.len();
        self.unfolding.push(directory);
        for Entry { name, .. } in again {
            self.refuse(&At::Inside { directory, name }, CopyError::DuplicateName);
        }
    }

    fn enter_entry(&mut self, directory: usize, name: Vec<u8>, metadata: Metadata) {
        if is_unsafe_name(&name) {
            let place = self.directories[&directory].place.clone();
            self.failures.push_back((place, CopyError::UnsafeName(BytePath::new(name))));
            self.close_one(directory);
        } else if metadata.kind.is_none() {
            let at = At::Inside { directory, name };
            let look = if self.options.links == Links::Keep { Look::Itself } else { Look::Behind };
            if self.is_excluded(&at, None) { self.leave(&at) } else { self.look(at, look) }
        } else {
            self.enter(At::Inside { directory, name }, metadata);
        }
    }
}
