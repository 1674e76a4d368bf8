//! What to do, in which order: sources and options in, steps out. Pure over what the sides tell.
//!
//! The driver takes steps with [`Plan::poll_step`], carries out any number of them at once and reports each with
//! [`Plan::handle_outcome`]. A step is given out only once everything it needs is done: a directory before what lies
//! in it, its times and mode after all of that.
//!
//! ```text
//!   Stat ─► file, link ────────────────────────────────────► CopyFile, CopyLink
//!     └───► directory ─► MakeDirectory ┐
//!                    └─► List ─────────┴─► Stat, CopyFile, … for each name ─► FinishDirectory
//! ```

mod listed;
mod waiting;

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::vec;

use listed::MOST_NAMES;
use waiting::Waiting;

use super::endpoint::{Entry, FileKind, Metadata};
use super::{BytePath, CopyError, CopyOptions, Links};

/// The deepest nesting followed, as in OpenSSH.
pub(super) const MAX_DEPTH: usize = 64;
/// Listing goes ahead of copying until this many files wait, so that the total is known early and memory is bounded.
const FILES_AHEAD: usize = 10_000;

/// A source, and the path that it gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    /// Which of the sources it belongs to.
    pub(super) origin: usize,
    pub(super) source: BytePath,
    pub(super) target: BytePath,
}

impl Place {
    pub(super) fn join(&self, name: &[u8]) -> Self {
        Self { origin: self.origin, source: self.source.join(name), target: self.target.join(name) }
    }
}

/// Identifies a step from `poll_step` to `handle_outcome`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct StepId(u64);

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// Ask what the source is.
    Stat { place: Place, look: Look },
    /// Ask what lies in the source.
    List { place: Place },
    /// Make the target directory if it is not there, with at least the owner's rights until it is filled, of which
    /// `lent` are not the source's. When `is_named`, it is the user's own target, which may be a link to a directory.
    MakeDirectory { place: Place, mode: u32, lent: u32, is_named: bool },
    /// Copy the file. When `is_fresh`, its directory was made by this copy, and nothing can be in the way.
    CopyFile { place: Place, metadata: Metadata, is_fresh: bool },
    /// Make a link that leads where the source does.
    CopyLink { place: Place, metadata: Metadata },
    /// Everything in it is done: give the target directory its attributes.
    FinishDirectory { place: Place, metadata: Metadata, was_made: bool },
}

/// How to look at a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Look {
    /// At what it leads to.
    Through,
    /// At what it leads to, which may be a directory that holds it.
    Behind,
    /// At itself, a link or not.
    Itself,
}

#[derive(Debug)]
pub(super) enum Outcome {
    Found(Metadata),
    Listed(Vec<Entry>),
    Made {
        is_new: bool,
    },
    Done,
    /// The driver has recorded why.
    Failed,
}

/// What of the work is known so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) files: u64,
    pub(super) bytes: u64,
    pub(super) is_all: bool,
}

#[derive(Debug)]
pub(super) struct Plan {
    options: CopyOptions,
    next_id: u64,
    directories: BTreeMap<usize, Directory>,
    next_directory: usize,
    running: BTreeMap<StepId, Task>,
    /// Directories to make and to finish, and links to look at: short, and others wait for them.
    urgent: VecDeque<Task>,
    /// The directory that was found last is listed first, so that few are under way in a deep tree.
    lists: Vec<usize>,
    /// Lists under way.
    listing: usize,
    /// How many names lists had lately.
    usual: usize,
    /// Directories with names that were not looked at, the one that was listed last at the end.
    unfolding: Vec<usize>,
    /// Names in listings that were not looked at, and how many there may be.
    names: usize,
    most_names: usize,
    files: VecDeque<Task>,
    failures: VecDeque<(Place, CopyError)>,
    found: Found,
    /// Steps queued or running that may bring more to do.
    questions: usize,
    /// The targets of sources that are not directories.
    taken: HashSet<BytePath>,
    waiting: Waiting,
    /// How to look at sources.
    look: Look,
}

/// A step before it has its paths, which a deep tree would hold thousands of times.
#[derive(Debug)]
enum Task {
    Stat {
        at: At,
        look: Look,
    },
    /// When it is the only way, nothing else can be done until it is listed.
    List {
        directory: usize,
        is_only_way: bool,
    },
    Make {
        directory: usize,
    },
    Copy {
        at: At,
        metadata: Metadata,
    },
    Link {
        at: At,
        metadata: Metadata,
    },
    Finish {
        directory: usize,
    },
}

/// Where something lies.
#[derive(Debug)]
enum At {
    Root(Place),
    Inside { directory: usize, name: Vec<u8> },
}

#[derive(Debug)]
struct Directory {
    parent: Option<usize>,
    place: Place,
    relative: BytePath,
    depth: usize,
    metadata: Metadata,
    made: Option<bool>,
    listed: Option<Vec<Entry>>,
    /// Names inside that were not looked at.
    rest: vec::IntoIter<Entry>,
    /// Names inside that were looked at and are not done yet; the directory itself counts as one until all were looked at.
    open: usize,
}

impl Plan {
    pub(super) fn new(sources: Vec<Place>, options: CopyOptions) -> Self {
        let look = if options.links == Links::Keep { Look::Itself } else { Look::Through };
        let questions = sources.len();
        let (waiting, first) = Waiting::begin(sources);
        Self {
            options,
            next_id: 0,
            directories: BTreeMap::new(),
            next_directory: 0,
            running: BTreeMap::new(),
            questions,
            urgent: first.into_iter().map(|place| Task::Stat { at: At::Root(place), look }).collect(),
            lists: Vec::new(),
            listing: 0,
            usual: 0,
            unfolding: Vec::new(),
            names: 0,
            most_names: MOST_NAMES,
            files: VecDeque::new(),
            failures: VecDeque::new(),
            found: Found::default(),
            taken: HashSet::new(),
            waiting,
            look,
        }
    }

    /// The next step that can be done now. `None`: wait for an outcome, or all is done.
    pub(super) fn poll_step(&mut self) -> Option<(StepId, Step)> {
        let task = self.next_task()?;
        let step = self.step(&task);
        let id = StepId(self.next_id);
        self.next_id += 1;
        self.running.insert(id, task);
        Some((id, step))
    }

    /// A failure that the plan itself found. Each is told once.
    pub(super) fn poll_failure(&mut self) -> Option<(Place, CopyError)> {
        self.failures.pop_front()
    }

    /// A step is over.
    pub(super) fn handle_outcome(&mut self, id: StepId, outcome: Outcome) {
        let Some(task) = self.running.remove(&id) else { return };
        if matches!(task, Task::Stat { .. } | Task::List { .. } | Task::Make { .. }) {
            self.questions -= 1;
        }
        match (task, outcome) {
            // Asked to follow links, a side that answers with a link would be asked for ever.
            (
                Task::Stat { at, look: Look::Through | Look::Behind },
                Outcome::Found(Metadata { kind: Some(FileKind::Symlink), .. }),
            ) => self.refuse(&at, CopyError::NotRegular),
            (Task::Stat { at, .. }, Outcome::Found(metadata)) => self.enter(at, metadata),
            (Task::Make { directory }, Outcome::Made { is_new }) => {
                self.update(directory, |found| found.made = Some(is_new));
            }
            (Task::List { directory, is_only_way }, Outcome::Listed(entries)) => {
                self.listing -= 1;
                self.take_list(directory, entries, is_only_way);
            }
            (Task::List { directory, .. }, _) => {
                self.listing -= 1;
                self.take_names(directory, Vec::new());
            }
            (Task::Make { directory }, _) => self.abandon(directory),
            (Task::Stat { at, .. } | Task::Copy { at, .. } | Task::Link { at, .. }, _) => self.leave(&at),
            (Task::Finish { directory }, _) => self.forget(directory),
        }
    }

    pub(super) fn found(&self) -> Found {
        Found { is_all: self.questions == 0 && self.names == 0, ..self.found }
    }

    fn next_task(&mut self) -> Option<Task> {
        loop {
            if let Some(task) = self.urgent.pop_front() {
                return Some(task);
            }
            if self.files.len() < FILES_AHEAD {
                if self.may_list()
                    && let Some(task) = self.next_list(false)
                {
                    return Some(task);
                }
                if self.unfold() {
                    continue;
                }
            }
            if let Some(task) = self.files.pop_front() {
                return Some(task);
            }
            // All that waits is behind a directory that is not listed.
            return if self.running.is_empty() { self.next_list(true) } else { None };
        }
    }

    fn step(&self, task: &Task) -> Step {
        match task {
            Task::Stat { at, look } => Step::Stat { place: self.place(at), look: *look },
            Task::List { directory, .. } => Step::List { place: self.directories[directory].place.clone() },
            Task::Make { directory } => {
                let Directory { place, metadata, parent, .. } = &self.directories[directory];
                // A source without a name of its own goes straight into the directory that the user named.
                let is_named = parent.is_none() && place.source.name().is_none();
                let mode = metadata.mode.unwrap_or(0o777) & 0o777;
                Step::MakeDirectory { place: place.clone(), mode: mode | 0o700, lent: 0o700 & !mode, is_named }
            }
            Task::Copy { at, metadata } => {
                let is_fresh = match at {
                    At::Root(_) => false,
                    At::Inside { directory, .. } => self.directories[directory].made == Some(true),
                };
                Step::CopyFile { place: self.place(at), metadata: *metadata, is_fresh }
            }
            Task::Link { at, metadata } => Step::CopyLink { place: self.place(at), metadata: *metadata },
            Task::Finish { directory } => {
                let Directory { place, metadata, made, .. } = &self.directories[directory];
                let was_made = *made == Some(true);
                Step::FinishDirectory { place: place.clone(), metadata: *metadata, was_made }
            }
        }
    }

    fn place(&self, at: &At) -> Place {
        match at {
            At::Root(place) => place.clone(),
            At::Inside { directory, name } => self.directories[directory].place.join(name),
        }
    }

    fn depth(&self, at: &At) -> usize {
        match at {
            At::Root(_) => 0,
            At::Inside { directory, .. } => self.directories[directory].depth + 1,
        }
    }

    /// Its path from the source's name on.
    fn relative(&self, at: &At) -> BytePath {
        match at {
            At::Root(place) => BytePath::new(place.source.name().unwrap_or_default()),
            At::Inside { directory, name } => self.directories[directory].relative.join(name),
        }
    }

    fn is_excluded(&self, at: &At, kind: Option<FileKind>) -> bool {
        let excludes = &self.options.exclude;
        if excludes.is_empty() {
            return false;
        }
        let relative = self.relative(at);
        excludes.iter().any(|exclude| exclude.fits(relative.as_bytes(), kind == Some(FileKind::Directory)))
    }

    /// Whether a source before it gets its name; directories may share one.
    fn is_taken(&mut self, at: &At, kind: Option<FileKind>) -> bool {
        match (at, kind) {
            (At::Root(place), Some(FileKind::Directory)) => self.taken.contains(&place.target),
            (At::Root(place), Some(FileKind::File | FileKind::Symlink)) => !self.taken.insert(place.target.clone()),
            _ => false,
        }
    }

    /// Plans what is at `at`, now that it is known what it is. A link left unresolved has been refused before.
    fn enter(&mut self, at: At, metadata: Metadata) {
        if self.is_excluded(&at, metadata.kind) {
            return self.leave(&at);
        }
        if self.is_taken(&at, metadata.kind) {
            return self.refuse(&at, CopyError::SameName);
        }
        match metadata.kind {
            Some(FileKind::Directory) => self.enter_directory(&at, metadata),
            Some(FileKind::File) => {
                self.found.files += 1;
                self.found.bytes = self.found.bytes.saturating_add(metadata.size.unwrap_or(0));
                self.files.push_back(Task::Copy { at, metadata });
            }
            Some(FileKind::Symlink) if self.options.links == Links::Keep => {
                self.found.files += 1;
                self.files.push_back(Task::Link { at, metadata });
            }
            Some(FileKind::Symlink) => self.look(at, Look::Behind),
            Some(FileKind::Special) => self.refuse(&at, CopyError::NotRegular),
            // A server that tells no modes: opening it shows whether it is a file.
            None => self.enter(at, Metadata { kind: Some(FileKind::File), ..metadata }),
        }
    }

    fn enter_directory(&mut self, at: &At, metadata: Metadata) {
        let depth = self.depth(at);
        if !self.options.recursive {
            return self.refuse(at, CopyError::IsDirectory);
        }
        if depth > MAX_DEPTH {
            return self.refuse(at, CopyError::TooDeep(MAX_DEPTH));
        }
        let place = self.place(at);
        let parent = match at {
            At::Root(_) => None,
            At::Inside { directory, .. } => Some(*directory),
        };
        let directory = self.next_directory;
        self.next_directory += 1;
        let relative = self.relative(at);
        let rest = Vec::new().into_iter();
        let found = Directory { parent, place, relative, depth, metadata, made: None, listed: None, rest, open: 1 };
        self.directories.insert(directory, found);
        self.urgent.push_back(Task::Make { directory });
        self.lists.push(directory);
        self.questions += 2;
    }

    /// Asks what a link leads to, or what a name is that the listing does not explain.
    fn look(&mut self, at: At, look: Look) {
        self.urgent.push_back(Task::Stat { at, look });
        self.questions += 1;
    }

    fn refuse(&mut self, at: &At, error: CopyError) {
        self.failures.push_back((self.place(at), error));
        self.leave(at);
    }

    /// Nothing more happens at `at`.
    fn leave(&mut self, at: &At) {
        match at {
            At::Inside { directory, .. } => self.close_one(*directory),
            At::Root(place) => self.follow(place),
        }
    }

    /// A source is done: whoever waits for that may begin.
    fn follow(&mut self, done: &Place) {
        if let Some(place) = self.waiting.next(done) {
            self.urgent.push_back(Task::Stat { at: At::Root(place), look: self.look });
        }
    }

    fn close_one(&mut self, directory: usize) {
        let Some(found) = self.directories.get_mut(&directory) else { return };
        found.open -= 1;
        if found.open == 0 {
            self.urgent.push_back(Task::Finish { directory });
        }
    }

    /// The target directory cannot be made: nothing in it is copied.
    fn abandon(&mut self, directory: usize) {
        let queued = self.lists.len();
        self.lists.retain(|listed| *listed != directory);
        self.questions -= queued - self.lists.len();
        self.forget(directory);
    }

    fn forget(&mut self, directory: usize) {
        let Some(found) = self.directories.remove(&directory) else { return };
        self.names -= found.listed.map_or(0, |names| names.len());
        match found.parent {
            Some(parent) => self.close_one(parent),
            None => self.follow(&found.place),
        }
    }
}

#[cfg(test)]
mod tests;
