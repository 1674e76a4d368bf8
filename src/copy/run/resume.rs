//! A file's copy goes on where an earlier run left it.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use futures_util::future::try_join;

use super::file::{FileCopy, MODE_BITS};
use super::verify::{Written, read_exactly};
use crate::copy::endpoint::{Change, FileKind, Metadata, SourceFile, TargetFile};
use crate::copy::journal::{self, Draft, FileId, Journal, Stamp, WORTH_KEEPING};
use crate::copy::temporary::{is_temporary, temporary_name};
use crate::copy::{BytePath, CopyError, CopyOptions, Failure, Location, Piece, Ranges, scp, target};

/// What is written is noted after so many bytes, or after so long.
const BATCH: u64 = 1024 * 1024;
const PERIOD: Duration = Duration::from_millis(200);
/// Length of the samples by which a source and what was written of it are compared.
const SAMPLE: u64 = 64 * 1024;
/// A file that is shorter than what was written of it lost the rest when its machine was started anew. Pieces are written
/// in any order within the windows of eight streams, so this much before its end may be missing too.
const DOUBTFUL: u64 = 32 * 1024 * 1024;

/// A file's copy under its temporary name.
pub(in crate::copy) struct Begun {
    pub(super) temporary: BytePath,
    /// Its place in the journal.
    file: Option<FileId>,
    /// The source tells when it changes, so that a later run can go on.
    is_resumable: bool,
    /// Open already, when an earlier run had begun it.
    pub(super) writer: Option<Box<dyn TargetFile>>,
    /// What that run had written.
    pub(super) written: Ranges,
    since: SystemTime,
}

impl Begun {
    /// A copy that has no temporary name, and that no journal knows.
    pub(in crate::copy) fn in_place() -> Self {
        let (temporary, since) = (BytePath::default(), SystemTime::UNIX_EPOCH);
        Self { temporary, file: None, is_resumable: false, writer: None, written: Ranges::default(), since }
    }

    pub(super) fn is_resumed(&self) -> bool {
        !self.written.is_empty()
    }
}

/// Opens the journal of a copy, if it is to have one.
pub(super) async fn open_journal(
    sources: &[Location],
    destination: &Location,
    options: &CopyOptions,
) -> Option<Arc<Journal>> {
    let directory = options.journal.clone()?;
    if destination.endpoint.is_pipe() || scp::is_needed(sources, destination) {
        return None;
    }
    let spelled =
        |location: &Location| (location.endpoint.identity(), location.endpoint.spelled_as_typed(&location.path));
    // What has no name of its own (`tree/.`) goes straight into the destination.
    let paths = sources.iter().map(|source| (spelled(source), source.path.name().is_some()));
    let paths: Vec<_> = paths.collect();
    let name = |is_name: bool| {
        let paths = paths.iter().cloned().chain([(spelled(destination), is_name)]);
        journal::name_for(paths, &options.kind_of_copy())
    };
    let (name, inside) = (name(true), target::says_directory(&destination.path).then(|| name(false)));
    let (target, is_dry_run) = (Arc::clone(&destination.endpoint), options.dry_run);
    let open = move || {
        let journal = Journal::open(&directory, &name, Arc::clone(&target), is_dry_run)?;
        match inside {
            // A copy that made the directory is another one than a copy into it.
            Some(inside) if journal.is_named() => Journal::open(&directory, &inside, target, is_dry_run),
            _ => Some(journal),
        }
    };
    tokio::task::spawn_blocking(open).await.ok().flatten().map(Arc::new)
}

impl FileCopy<'_> {
    /// What tells the source from another one. Of what comes through a pipe nothing does, whatever is known of its size: it
    /// is gone once it was read.
    fn stamp_of(&self, source: &Metadata) -> Option<Stamp> {
        if self.source.is_pipe() { None } else { Stamp::of(source) }
    }

    /// Whether an earlier run has finished the file, and neither end has changed since.
    pub(super) async fn is_done_before(&self) -> Result<bool, Failure> {
        let Some((source, target)) = self.journal.and_then(|journal| journal.finished(&self.journal_key())) else {
            return Ok(false);
        };
        if self.stamp_of(self.found) != Some(source) {
            return Ok(false);
        }
        match self.target.lstat(&self.place.target).await {
            Ok(found) => Ok(found.kind == Some(FileKind::File) && Stamp::of(&found) == Some(target)),
            Err(error) if error.is_of_stream() => Err(self.at_target(error)),
            Err(_) => Ok(false),
        }
    }

    /// What an earlier run has begun, or else a new file that is still to be created.
    pub(super) async fn begin(&self, reader: &dyn SourceFile, source: &Metadata) -> Result<Begun, Failure> {
        let since = SystemTime::now();
        let stamp = self.stamp_of(source);
        let is_resumable = stamp.is_some();
        let drafted = self.journal.and_then(|journal| Some((journal, journal.draft_of(&self.journal_key())?)));
        if let Some((journal, (mut file, mut draft))) = drafted {
            let noted = draft.written.total();
            match self.take_up(&mut draft, reader, source).await {
                Ok(Some(writer)) => {
                    if draft.written.total() < noted {
                        file = journal.begin_again(file, &draft);
                    }
                    let (file, writer, Draft { temporary, written, .. }) = (Some(file), Some(writer), draft);
                    return Ok(Begun { temporary, file, is_resumable, writer, written, since });
                }
                Err(error) if error.is_of_stream() => return Err(self.at_target(error)),
                Ok(None) => tracing::debug!(path = %self.place.target, "starts over"),
                Err(error) => tracing::debug!(path = %self.place.target, %error, "starts over"),
            }
            self.unfinished.remove(&draft.temporary).await;
        }
        let temporary = temporary_name(&self.place.target);
        self.unfinished.add(&temporary);
        let file = self.journal.map(|journal| journal.begin(&self.journal_key(), &temporary, stamp));
        Ok(Begun { temporary, file, is_resumable, writer: None, written: Ranges::default(), since })
    }

    /// Whether an earlier run gave the file its name and ended before it was told so.
    pub(super) async fn has_its_name(&self, reader: &dyn SourceFile, source: &Metadata) -> Result<bool, Failure> {
        let since = SystemTime::now();
        let Some((file, draft)) = self.journal.and_then(|journal| journal.draft_of(&self.journal_key())) else {
            return Ok(false);
        };
        let found = match self.find_named(&draft, reader, source).await {
            Ok(Some(found)) => found,
            Ok(None) => return Ok(false),
            Err(failure) if failure.error.is_of_stream() => return Err(failure),
            Err(failure) => {
                tracing::debug!(path = %self.place.target, error = %failure.error, "what has the name is not it");
                return Ok(false);
            }
        };
        // What has the name was compared with what the source begins with.
        let since_opened = self.check_unchanged(reader, source, false).await?;
        self.note_growth(since_opened);
        let Draft { temporary, written, .. } = draft;
        let begun = Begun { temporary, file: Some(file), is_resumable: true, writer: None, written, since };
        self.note_finished(&begun, source, &found);
        Ok(true)
    }

    /// What has the target's name, if all of the draft was written, it is no longer there, and what has the name equals the
    /// source. It could have been equal before, so it gets the attributes that were asked for.
    async fn find_named(
        &self,
        draft: &Draft,
        reader: &dyn SourceFile,
        source: &Metadata,
    ) -> Result<Option<Metadata>, Failure> {
        let is_same = draft.source.is_some() && Stamp::of(source) == draft.source;
        let Some(size) = source.size.filter(|size| is_same && *size >= WORTH_KEEPING) else { return Ok(None) };
        let mut written = draft.written.clone();
        for hole in reader.holes(size).await.map_err(|error| self.at_source(error))? {
            written.insert(hole.start, hole.end);
        }
        if written.total() != size || written.end() != size {
            return Ok(None);
        }
        match self.target.lstat(&draft.temporary).await {
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(self.at_target(error)),
            Ok(_) => return Ok(None),
        }
        let path = &self.place.target;
        let found = self.target.lstat(path).await.map_err(|error| self.at_target(error))?;
        if found.kind != Some(FileKind::File) || found.size != Some(size) {
            return Ok(None);
        }
        self.compare(reader, Written::At(path), size).await?;
        if !self.preserve {
            return Ok(Some(found));
        }
        let change = Change { mode: source.mode.map(|mode| mode & MODE_BITS), times: source.times, owner: None };
        self.target.change(path, change).await.map_err(|error| self.at_target(error))?;
        self.target.lstat(path).await.map(Some).map_err(|error| self.at_target(error))
    }

    /// Opens what an earlier run wrote, if it is of this source and still there. Of what is noted only that stays which
    /// is there.
    async fn take_up(
        &self,
        draft: &mut Draft,
        reader: &dyn SourceFile,
        source: &Metadata,
    ) -> Result<Option<Box<dyn TargetFile>>, CopyError> {
        let is_same = draft.source.is_some() && self.stamp_of(source) == draft.source;
        let is_worth = draft.written.total() >= WORTH_KEEPING && source.size >= Some(draft.written.end());
        let Some(granted) = draft.granted.filter(|_| is_same && is_worth && is_temporary(&draft.temporary)) else {
            return Ok(None);
        };
        let found = self.target.lstat(&draft.temporary).await?;
        let is_private = found.mode.is_none_or(|mode| mode & 0o7777 == 0o600);
        let Some(size) = found.size.filter(|_| found.kind == Some(FileKind::File) && is_private) else {
            return Ok(None);
        };
        if size < draft.written.end() {
            draft.written = draft.written.before(size.saturating_sub(DOUBTFUL));
            if draft.written.total() < WORTH_KEEPING {
                return Ok(None);
            }
        }
        let Some(writer) = self.target.reopen(&draft.temporary, granted).await? else { return Ok(None) };
        let (written, _) = self.target.open(&draft.temporary, u64::MAX).await?;
        for piece in samples(&draft.written) {
            let (here, there) = try_join(read_exactly(reader, piece), read_exactly(&*written, piece)).await?;
            if here != there {
                return Ok(None);
            }
        }
        Ok(Some(writer))
    }

    /// The file has its name: notes how it is.
    pub(super) fn note_finished(&self, begun: &Begun, source: &Metadata, target: &Metadata) {
        let (Some(journal), Some(file)) = (self.journal, begun.file) else { return };
        let source = self.stamp_of(source).filter(|source| source.tells_changes_since(begun.since));
        journal.finish(file, source.zip(Stamp::of(target)));
    }

    pub(super) fn notes<'a>(&'a self, begun: &'a Begun, writer: &'a dyn TargetFile) -> Notes<'a> {
        let (since, batch, bytes) = (Instant::now(), Ranges::default(), 0);
        Notes { copy: self, begun, writer, batch, bytes, since, has_granted: begun.is_resumed() }
    }
}

/// Notes in the journal what is written of a file. Dropping it notes the rest.
pub(super) struct Notes<'a> {
    copy: &'a FileCopy<'a>,
    begun: &'a Begun,
    writer: &'a dyn TargetFile,
    batch: Ranges,
    /// In the batch.
    bytes: u64,
    since: Instant,
    has_granted: bool,
}

impl Notes<'_> {
    pub(super) fn wrote(&mut self, piece: Piece) {
        self.batch.insert(piece.offset, piece.offset + u64::from(piece.length));
        self.bytes += u64::from(piece.length);
        if self.bytes >= BATCH || self.since.elapsed() >= PERIOD {
            self.flush();
        }
    }

    fn flush(&mut self) {
        self.since = Instant::now();
        self.bytes = 0;
        let batch = std::mem::take(&mut self.batch);
        let file = self.begun.file.filter(|_| self.begun.is_resumable);
        let (Some(journal), Some(file)) = (self.copy.journal, file) else { return };
        if batch.is_empty() {
            return;
        }
        if !self.has_granted
            && let Some(mode) = self.writer.granted()
        {
            journal.granted(file, mode);
            self.has_granted = true;
        }
        if journal.written(file, &batch) >= WORTH_KEEPING && self.has_granted {
            // From here on it is the journal that sees to it that the file does not stay for ever.
            self.copy.unfinished.forget(&self.begun.temporary);
        }
    }
}

impl Drop for Notes<'_> {
    fn drop(&mut self) {
        self.flush();
    }
}

/// The first, the middle and the last of what is written.
fn samples(written: &Ranges) -> Vec<Piece> {
    let length = |from: u64, to: u64| u32::try_from((to - from).min(SAMPLE)).expect("a sample is short");
    let mut half = written.total() / 2;
    let middle = written.iter().find_map(|(start, end)| {
        let here = half.checked_sub(end - start);
        let offset = start + std::mem::replace(&mut half, here.unwrap_or(0));
        here.is_none().then(|| Piece { offset, length: length(offset, end) })
    });
    let first = written.iter().next().map(|(start, end)| Piece { offset: start, length: length(start, end) });
    let last = written.iter().next_back().map(|(start, end)| {
        let length = length(start, end);
        Piece { offset: end - u64::from(length), length }
    });
    [first, middle, last].into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_lie_at_the_ends_and_in_the_middle_of_what_is_written() {
        let piece = |offset, length| Piece { offset, length };
        let samples = |ranges: &[(u64, u64)]| samples(&ranges.iter().copied().collect());
        assert_eq!(samples(&[]), []);
        assert_eq!(samples(&[(10, 20)]), [piece(10, 10), piece(15, 5), piece(10, 10)]);
        let long = 1 << 30;
        assert_eq!(samples(&[(0, long)]), [piece(0, 65536), piece(long / 2, 65536), piece(long - 65536, 65536)]);
        let islands = [(0, 100_000), (200_000, 300_000), (400_000, 500_000)];
        assert_eq!(samples(&islands), [piece(0, 65536), piece(250_000, 50_000), piece(434_464, 65536)]);
    }
}
