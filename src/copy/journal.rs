//! The journal of a copy that is under way, as a file.
//!
//! What it says is in `records`, which are pure. Here they are kept: one file for each copy, under a name made of what
//! was asked for, locked while the copy goes on. A journal that cannot be written ends; the copy goes on without. Paths in
//! it have one spelling each, whatever was typed.

mod records;

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

pub(super) use records::{Draft, FileId, Stamp};
use records::{Known, Record};
use rustix::fs::OFlags;
use sha2::{Digest as _, Sha256};

use super::{BytePath, Endpoint, Ranges};

/// A file of which less is written is not worth going on with: it starts over.
pub(super) const WORTH_KEEPING: u64 = 1024 * 1024;
/// A journal that nobody has touched for so long is of a copy that nobody goes on with.
const TOO_OLD: Duration = Duration::from_hours(30 * 24);
/// What the names of journals end with.
const EXTENSION: &str = "journal";

/// A journal, locked. Dropping it leaves it for the next run.
#[derive(Debug)]
pub(super) struct Journal {
    path: PathBuf,
    /// The side whose files it is about.
    target: Arc<dyn Endpoint>,
    /// A dry run reads it and leaves it as it is.
    is_dry_run: bool,
    /// An earlier run left something in it.
    was_there: bool,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    known: Known,
    has_finished: bool,
    /// The destination that is the name of the copy is a directory by now.
    has_directory: bool,
    /// `None` once it could not be written.
    file: Option<File>,
}

impl Journal {
    /// Opens the journal of a copy to `target`. `None` when the same copy is being made already, or the directory cannot be used.
    /// It blocks.
    pub(super) fn open(directory: &Path, name: &str, target: Arc<dyn Endpoint>, is_dry_run: bool) -> Option<Self> {
        let path = directory.join(name).with_extension(EXTENSION);
        match Self::try_open(directory, &path) {
            Ok((file, known)) => {
                let was_there = known != Known::default();
                let (has_finished, has_directory) = (known.has_finished(), false);
                let state = Mutex::new(State { known, has_finished, has_directory, file: Some(file) });
                Some(Self { path, target, is_dry_run, was_there, state })
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                tracing::info!("the same copy is being made already; this one keeps no journal");
                None
            }
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "no journal is kept, so the copy could not be resumed");
                None
            }
        }
    }

    fn try_open(directory: &Path, path: &Path) -> io::Result<(File, Known)> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        check_own(&fs::metadata(directory)?)?;
        sweep(directory);
        // Neither a link nor a pipe that somebody put there is followed or waited for.
        let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY).bits().cast_signed();
        let mut options = OpenOptions::new();
        let mut file = options.read(true).append(true).create(true).mode(0o600).custom_flags(flags).open(path)?;
        let found = file.metadata()?;
        if !found.is_file() {
            return Err(io::Error::other("it is not a regular file"));
        }
        check_own(&found)?;
        file.try_lock()?;
        let mut text = Vec::new();
        file.read_to_end(&mut text)?;
        let (known, valid) = records::decode(&text);
        file.set_len(valid as u64)?;
        Ok((file, known))
    }

    /// Whether an earlier run took the destination for the name of the copy.
    pub(super) fn is_named(&self) -> bool {
        self.lock().known.is_named
    }

    /// The destination is the name of the copy.
    pub(super) fn name(&self) {
        let mut state = self.lock();
        if !state.known.is_named && !self.is_dry_run {
            state.note(Record::Named);
        }
    }

    /// There is a directory that is the copy, or a part of it.
    pub(super) fn has_directory(&self) {
        self.lock().has_directory = true;
    }

    /// What is written of the file that this key stands for.
    pub(super) fn draft_of(&self, key: &BytePath) -> Option<(FileId, Draft)> {
        self.lock().known.draft_of(key).map(|(file, draft)| (file, draft.clone()))
    }

    /// How source and target were when an earlier run had finished the target.
    pub(super) fn finished(&self, key: &BytePath) -> Option<(Stamp, Stamp)> {
        self.lock().known.finished(key)
    }

    /// A file is about to be created.
    pub(super) fn begin(&self, key: &BytePath, temporary: &BytePath, source: Option<Stamp>) -> FileId {
        let (target, temporary) = (key.clone(), self.target.spelled(temporary));
        let mut state = self.lock();
        let file = state.known.next_id();
        state.note(Record::Begun { file, target, temporary, source });
        file
    }

    /// Less is there of a file than was noted: `draft` says what.
    pub(super) fn begin_again(&self, file: FileId, draft: &Draft) -> FileId {
        let Draft { target, temporary, source, granted, written } = draft.clone();
        let mut state = self.lock();
        let again = state.known.next_id();
        state.note(Record::Begun { file: again, target, temporary, source });
        if let Some(mode) = granted {
            state.note(Record::Granted { file: again, mode });
        }
        state.note(Record::Written { file: again, ranges: written.iter().collect() });
        state.note(Record::Gone { file });
        again
    }

    /// Returns how much of the file is written, by all that was noted.
    pub(super) fn written(&self, file: FileId, ranges: &Ranges) -> u64 {
        let mut state = self.lock();
        state.note(Record::Written { file, ranges: ranges.iter().collect() });
        state.known.drafts.get(&file).map_or(0, |draft| draft.written.total())
    }

    pub(super) fn granted(&self, file: FileId, mode: u32) {
        self.lock().note(Record::Granted { file, mode });
    }

    /// The file has its name; `stamps` are of its source and of itself, if they would tell of a change.
    pub(super) fn finish(&self, file: FileId, stamps: Option<(Stamp, Stamp)>) {
        let mut state = self.lock();
        match stamps {
            Some((source, target)) => {
                state.has_finished = true;
                state.write(&Record::Finished { file, source, target });
                // Only the next run asks for it.
                state.known.apply(Record::Gone { file });
            }
            None => state.note(Record::Gone { file }),
        }
    }

    /// A directory was made with rights that it gives back when it is filled.
    pub(super) fn lend(&self, target: &BytePath) {
        let target = self.target.spelled(target);
        self.lock().note(Record::Lent { target });
    }

    /// Whether this run or one before it made the directory so.
    pub(super) fn is_lent(&self, target: &BytePath) -> bool {
        self.lock().known.is_lent(&self.target.spelled(target))
    }

    /// The temporary file is removed.
    pub(super) fn gone(&self, temporary: &BytePath) {
        let temporary = self.target.spelled(temporary);
        let mut state = self.lock();
        let is_it = |(file, draft): (&FileId, &Draft)| (draft.temporary == temporary).then_some(*file);
        let files: Vec<_> = state.known.drafts.iter().filter_map(is_it).collect();
        for file in files {
            state.note(Record::Gone { file });
        }
    }

    /// The temporary files that are there still.
    pub(super) fn leftovers(&self) -> Vec<BytePath> {
        self.lock().known.drafts.values().map(|draft| draft.temporary.clone()).collect()
    }

    /// Whether the next run is spared something.
    pub(super) fn can_resume(&self) -> bool {
        let state = self.lock();
        let is_worth = |draft: &Draft| draft.written.total() >= WORTH_KEEPING;
        state.file.is_some() && (state.has_finished || state.known.drafts.values().any(is_worth))
    }

    /// The run is over. When everything is copied, or nothing is left to go on with, the journal goes. A run that
    /// `starts_over` leaves nothing to go on with, but what it made is the copy still.
    pub(super) fn close(&self, is_complete: bool, starts_over: bool) {
        let mut state = self.lock();
        let tells = !starts_over && (state.has_finished || state.known.has_lent());
        let is_begun = tells || (state.known.is_named && state.has_directory);
        let is_needed =
            if self.is_dry_run { self.was_there } else { (!is_complete && is_begun) || !state.known.drafts.is_empty() };
        if !is_needed && let Some(_locked) = state.file.take() {
            let _ = fs::remove_file(&self.path);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn note(&mut self, record: Record) {
        self.write(&record);
        self.known.apply(record);
    }

    fn write(&mut self, record: &Record) {
        if let Some(file) = &mut self.file
            && let Err(error) = file.write_all(&records::encode(record))
        {
            tracing::warn!(%error, "the journal ends here, so the copy can be resumed from here only");
            self.file = None;
        }
    }
}

/// Whoever may write a journal, or put another in its place, chooses which files a copy writes: as `StrictModes` of sshd.
fn check_own(found: &fs::Metadata) -> io::Result<()> {
    let reason = if ![0, rustix::process::geteuid().as_raw()].contains(&found.uid()) {
        "it belongs to another user"
    } else if found.mode() & 0o022 != 0 {
        "others may write to it: `chmod go-w` closes it"
    } else {
        return Ok(());
    };
    Err(io::Error::new(io::ErrorKind::PermissionDenied, reason))
}

/// Removes journals that are too old, as far as they are nobody's.
fn sweep(directory: &Path) {
    let is_old = |path: &Path| {
        let modified = fs::metadata(path).and_then(|metadata| metadata.modified());
        modified.is_ok_and(|modified| SystemTime::now().duration_since(modified).is_ok_and(|age| age > TOO_OLD))
    };
    let remove = |path: &Path| -> io::Result<()> {
        let file = OpenOptions::new().append(true).open(path)?;
        file.try_lock()?;
        fs::remove_file(path)
    };
    let Ok(entries) = fs::read_dir(directory) else { return };
    for path in entries.filter_map(Result::ok).map(|entry| entry.path()) {
        if path.extension().is_some_and(|extension| extension == EXTENSION) && is_old(&path) {
            let _ = remove(&path);
        }
    }
}

/// The name of the journal of a copy: whatever makes it another copy changes the name.
pub(super) fn name_for(paths: impl Iterator<Item = ((String, BytePath), bool)>, options: &str) -> String {
    let mut hash = Sha256::new_with_prefix(b"copy 2");
    let mut add = |part: &[u8]| {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    };
    for ((side, path), has_name) in paths {
        add(side.as_bytes());
        add(path.as_bytes());
        add(&[u8::from(has_name)]);
    }
    add(options.as_bytes());
    data_encoding::HEXLOWER.encode(&hash.finalize()[..16])
}

/// For the fuzz target.
#[cfg(any(test, fuzzing))]
pub(super) mod fuzzing {
    use super::records::{checked, decode};

    /// As it is, and with lines whose checksums are right.
    pub(in crate::copy) fn decode_twice(data: &[u8]) {
        let (known, valid) = decode(data);
        let (again, all) = decode(&data[..valid]);
        assert_eq!((known, valid), (again, all));
        drop(decode(&data.split(|byte| *byte == b'\n').flat_map(checked).collect::<Vec<_>>()));
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::copy::LocalEndpoint;

    fn stamp(size: u64) -> Stamp {
        Stamp::of(&super::super::Metadata { size: Some(size), ..Default::default() }).unwrap()
    }

    fn open(folder: &tempfile::TempDir) -> Option<Journal> {
        open_for(folder, false)
    }

    fn open_for(folder: &tempfile::TempDir, is_dry_run: bool) -> Option<Journal> {
        Journal::open(&folder.path().join("state/copies"), "name", Arc::new(LocalEndpoint::default()), is_dry_run)
    }

    #[test]
    fn the_next_run_knows_what_this_one_noted_and_nothing_of_a_torn_line() {
        let folder = tempfile::tempdir().unwrap();
        let journal = open(&folder).unwrap();
        let file = journal.begin(&"big".into(), &".big".into(), Some(stamp(5)));
        journal.granted(file, 0o644);
        assert_eq!(journal.written(file, &[(0, WORTH_KEEPING)].into_iter().collect()), WORTH_KEEPING);
        let small = journal.begin(&"small".into(), &".small".into(), Some(stamp(5)));
        journal.finish(small, Some((stamp(5), stamp(6))));
        assert!(journal.can_resume());
        journal.close(false, false);
        let path = journal.path.clone();
        drop(journal);
        OpenOptions::new().append(true).open(path).unwrap().write_all(b"0123456789abcdef {\"go").unwrap();

        let journal = open(&folder).unwrap();
        let (found, draft) = journal.draft_of(&"big".into()).unwrap();
        assert_eq!((found, draft.granted, draft.written.end()), (file, Some(0o644), WORTH_KEEPING));
        assert_eq!(journal.finished(&"small".into()), Some((stamp(5), stamp(6))));
        journal.gone(&".big".into());
        drop(journal);
        assert_eq!(open(&folder).unwrap().draft_of(&"big".into()), None, "what follows a torn line counts");
    }

    #[test]
    fn less_than_was_noted_is_noted_as_another_file_of_the_same_name() {
        let folder = tempfile::tempdir().unwrap();
        let journal = open(&folder).unwrap();
        let file = journal.begin(&"big".into(), &"./.big".into(), Some(stamp(5)));
        journal.granted(file, 0o640);
        journal.written(file, &[(0, 100)].into_iter().collect());
        let (_, mut draft) = journal.draft_of(&"big".into()).unwrap();
        draft.written = [(0, 10)].into_iter().collect();
        let again = journal.begin_again(file, &draft);
        drop(journal);
        let found = open(&folder).unwrap().draft_of(&"big".into());
        assert_eq!(found, Some((again, draft)));
    }

    #[test]
    fn only_one_copy_at_a_time_has_the_journal() {
        let folder = tempfile::tempdir().unwrap();
        let journal = open(&folder);
        assert!(journal.is_some() && open(&folder).is_none());
        drop(journal);
        assert!(open(&folder).is_some());
    }

    #[test]
    fn nothing_is_left_of_a_copy_that_is_complete_or_had_not_begun() {
        let folder = tempfile::tempdir().unwrap();
        for is_complete in [true, false] {
            let journal = open(&folder).unwrap();
            let file = journal.begin(&"small".into(), &".small".into(), None);
            journal.finish(file, is_complete.then(|| (stamp(5), stamp(6))));
            journal.close(is_complete, false);
            assert_eq!(fs::read_dir(folder.path().join("state/copies")).unwrap().count(), 0);
        }
    }

    #[test]
    fn a_directory_that_was_made_is_the_copy_until_all_is_copied() {
        let folder = tempfile::tempdir().unwrap();
        let count = || fs::read_dir(folder.path().join("state/copies")).unwrap().count();
        let run = |is_made: bool, is_complete: bool, starts_over: bool| {
            let journal = open(&folder).unwrap();
            journal.name();
            if is_made {
                journal.has_directory();
            }
            journal.close(is_complete, starts_over);
            count()
        };
        assert_eq!(run(false, false, false), 0, "nothing was made");
        for starts_over in [false, true] {
            assert_eq!(run(true, false, starts_over), 1, "stopped");
            assert!(open(&folder).unwrap().is_named());
            assert_eq!(run(true, true, starts_over), 0, "complete");
        }
    }

    #[test]
    fn a_dry_run_leaves_the_journal_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let dry_run = || {
            let journal = open_for(&folder, true).unwrap();
            journal.name();
            for is_complete in [true, false] {
                journal.close(is_complete, true);
            }
            fs::read(&journal.path).ok()
        };
        assert_eq!(dry_run(), None, "there was none");
        let journal = open(&folder).unwrap();
        journal.lend(&"dir".into());
        let before = fs::read(&journal.path).unwrap();
        drop(journal);
        assert_eq!(dry_run(), Some(before));
    }

    #[test]
    fn journals_are_private_and_old_ones_go() {
        let folder = tempfile::tempdir().unwrap();
        let path = open(&folder).unwrap().path;
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
        let (old, other) = (path.with_file_name("old.journal"), path.with_file_name("other"));
        for path in [&old, &other] {
            let file = File::create(path).unwrap();
            file.set_modified(SystemTime::now() - TOO_OLD - Duration::from_secs(1)).unwrap();
        }
        drop(open(&folder));
        assert!(!old.exists() && other.exists() && path.exists());
    }

    #[test]
    fn a_directory_that_cannot_be_used_is_no_failure() {
        assert!(
            Journal::open(Path::new("/dev/null/copies"), "name", Arc::new(LocalEndpoint::default()), false).is_none()
        );
    }

    #[test]
    fn a_journal_that_others_may_write_or_replace_is_not_believed() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let open = || Journal::open(folder.path(), "name", Arc::new(LocalEndpoint::default()), false).is_some();
        let path = folder.path().join("name.journal");
        let set_mode = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        assert!(open());
        fs::write(&path, b"").unwrap();
        for (changed, closed, opened) in [(folder.path(), 0o755, 0o777), (&path, 0o600, 0o622)] {
            set_mode(changed, opened);
            assert!(!open(), "{}", changed.display());
            set_mode(changed, closed);
            assert!(open(), "{}", changed.display());
        }
        fs::remove_file(&path).ok();
        std::os::unix::fs::symlink("elsewhere", &path).unwrap();
        assert!(!open() && !folder.path().join("elsewhere").exists());
    }
}
