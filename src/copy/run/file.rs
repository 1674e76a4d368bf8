//! One file from one side to the other.

use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, join};
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::resume::Begun;
use super::verify::Written;
use crate::copy::endpoint::{Change, FileKind, Metadata, SourceFile, TargetFile};
use crate::copy::journal::Journal;
use crate::copy::plan::Place;
use crate::copy::progress::FileMeter;
use crate::copy::rate::Limit;
use crate::copy::temporary::Unfinished;
use crate::copy::warnings::Warnings;
use crate::copy::{BytePath, CopyError, Endpoint, Failure, Piece, Ranges, Shortfall, Transfer, Window};

/// Bytes that one file may have in flight for each stream: a path of 20 MB/s and 200 ms is full.
pub(super) const FILE_WINDOW: u64 = 4 * 1024 * 1024;
/// Bytes that may wait for those before them on their way into a pipe: half of what all files may have in flight, so that
/// those before them can always be read.
const PIPE_WINDOW: u64 = 16 * 1024 * 1024;
/// A file that a server without modes calls a file anyway gets what scp assumes.
const DEFAULT_MODE: u32 = 0o666;
pub(super) const MODE_BITS: u32 = 0o777;
/// The rights of others than the owner to read and to write.
const OTHERS: u32 = 0o066;

/// What a file's copy needs to know.
pub(in crate::copy) struct FileCopy<'a> {
    pub(super) source: &'a dyn Endpoint,
    pub(super) target: &'a dyn Endpoint,
    pub(super) place: &'a Place,
    /// The file as it was found.
    pub(super) found: &'a Metadata,
    pub(super) preserve: bool,
    pub(super) verify: bool,
    pub(super) there: There,
    pub(super) unfinished: &'a Unfinished,
    pub(super) warnings: &'a Warnings,
    pub(super) journal: Option<&'a Journal>,
    /// Bytes that all files together may have in flight.
    pub(super) budget: &'a Arc<Semaphore>,
    pub(super) limit: Option<&'a Limit>,
}

/// What was done to a file since it was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Since {
    /// Nothing that anybody could see.
    Nothing,
    /// It may have been written to and have its times put back.
    Perhaps,
    /// It has more bytes; perhaps that is all.
    Growth,
}

/// What has the target's name before the copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::copy) enum There {
    /// Nobody has looked.
    Unknown,
    /// Nothing can have it yet.
    Nothing,
    /// Neither a file nor a directory: it is written into.
    Special,
}

impl FileCopy<'_> {
    /// Copies the file; returns its size. On failure the target is as it was.
    pub(super) async fn run(&self, meter: &mut FileMeter<'_, '_>) -> Result<u64, Failure> {
        if self.place.target.is_directory_like() {
            let (side, path) = (self.target.side(), self.place.target.clone());
            let found = self.target.lstat(&path).await;
            let is_missing = found.is_err_and(|error| error.is_not_found());
            return Err(self.at_target(if is_missing {
                CopyError::TargetMissing { side, path }
            } else {
                CopyError::TargetNotDirectory { side, path }
            }));
        }
        let size = self.found.size.unwrap_or(0);
        if self.is_done_before().await? {
            meter.kept(size);
            return Ok(size);
        }
        let (reader, metadata) =
            self.source.open(&self.place.source, size).await.map_err(|error| self.at_source(error))?;
        if metadata.kind.is_some_and(|kind| kind != FileKind::File) {
            return Err(self.at_source(CopyError::NotRegular));
        }
        if self.there == There::Special {
            return self.write_into(&*reader, &metadata, meter).await;
        }
        if self.has_its_name(&*reader, &metadata).await? {
            let size = metadata.size.unwrap_or(size);
            meter.kept(size);
            return Ok(size);
        }
        let mut begun = self.begin(&*reader, &metadata).await?;
        meter.kept(begun.written.total());
        let outcome = self.fill(&mut begun, &*reader, &metadata, meter).await;
        match &outcome {
            Ok(_) => self.unfinished.forget(&begun.temporary),
            Err(failure) if failure.error.is_of_stream() && !self.unfinished.has(&begun.temporary) => {}
            Err(_) => self.unfinished.remove(&begun.temporary).await,
        }
        outcome
    }

    /// The file that is to be replaced, if there is one.
    pub(super) async fn in_the_way(&self) -> Result<Option<Metadata>, CopyError> {
        if self.there == There::Nothing {
            return Ok(None);
        }
        match self.target.lstat(&self.place.target).await {
            Ok(Metadata { kind: Some(FileKind::Directory), .. }) => Err(CopyError::DirectoryInTheWay),
            // The file takes the link's place, whatever is behind it.
            Ok(Metadata { kind: Some(FileKind::Symlink), .. }) => Ok(None),
            Ok(found @ Metadata { kind: None | Some(FileKind::File), .. }) => Ok(Some(found)),
            Ok(_) if self.there == There::Special => Ok(None),
            Ok(_) => Err(CopyError::NotRegular),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Writes into a device.
    async fn write_into(
        &self,
        reader: &dyn SourceFile,
        metadata: &Metadata,
        meter: &mut FileMeter<'_, '_>,
    ) -> Result<u64, Failure> {
        let opened = self.target.open_special(&self.place.target).await;
        let writer = opened.map_err(|error| self.at_target(error))?;
        let (written, has_grown) = self.pump(reader, &*writer, metadata, &Begun::in_place(), meter).await?;
        let change = self.check_unchanged(reader, metadata, has_grown).await?;
        let finished = writer.finish(Change::default(), &self.place.target).await;
        finished.map_err(|error| self.at_target(error))?;
        self.note_growth(change);
        Ok(written)
    }

    async fn fill(
        &self,
        begun: &mut Begun,
        reader: &dyn SourceFile,
        metadata: &Metadata,
        meter: &mut FileMeter<'_, '_>,
    ) -> Result<u64, Failure> {
        let source_mode = metadata.mode.map_or(DEFAULT_MODE, |mode| mode & MODE_BITS);
        // A mode that is set at the end need not be asked for at the beginning.
        let kept = metadata.mode.map(|_| source_mode).filter(|_| self.preserve);
        let asked = if kept.is_some() { 0o600 } else { source_mode };
        let writer = begun.writer.take();
        let is_new = writer.is_none();
        let create = async {
            match writer {
                Some(writer) => Ok(writer),
                None => self.target.create(&begun.temporary, asked).await,
            }
        };
        let (in_the_way, created) = join(self.in_the_way(), create).await;
        let replaced = in_the_way.map_err(|error| self.at_target(error))?;
        let mut writer = created.map_err(|error| self.at_target(no_new_file(error, replaced.is_some())))?;
        let kept_mode = replaced.and_then(|replaced| replaced.mode).map(|mode| mode & MODE_BITS);
        if is_new && kept_mode.is_some_and(|mode| asked & !mode & OTHERS != 0) {
            writer = self.create_privately(writer, &begun.temporary).await.map_err(|error| self.at_target(error))?;
        }

        let (written, has_grown) = self.pump(reader, &*writer, metadata, begun, meter).await?;
        let change = self.check_unchanged(reader, metadata, has_grown).await?;
        // What went into a pipe cannot be read again.
        let there = writer.digest().map_or(Written::At(&begun.temporary), Written::Known);
        let is_wanted = self.verify && !self.target.is_pipe();
        if change != Since::Nothing {
            self.compare_again(reader, there, written).await?;
        } else if begun.is_resumed() || writer.is_in_doubt() || is_wanted {
            self.compare(reader, there, written).await?;
        }
        self.note_growth(change);
        let times = metadata.times.filter(|_| self.preserve);
        let owner = replaced.and_then(|replaced| replaced.owner);
        let change = Change { mode: kept.or(kept_mode), times, owner };
        let finished = writer.finish(change, &self.place.target).await.map_err(|error| self.at_target(error))?;
        self.note_finished(begun, metadata, &finished.metadata);
        let carried = |time: SystemTime| self.target.carried(time) == time;
        let is_in_range = times.is_none_or(|(accessed, modified)| carried(accessed) && carried(modified));
        let beyond = (!is_in_range).then_some((Shortfall::TimeRange, None));
        for unset in finished.unset.into_iter().chain(beyond) {
            self.warnings.add(&self.place.target, unset);
        }
        Ok(written)
    }

    /// Makes a new file again, under the same name: who had it open before it was closed to others could read what the file
    /// that it replaces keeps from them.
    async fn create_privately(
        &self,
        seen: Box<dyn TargetFile>,
        temporary: &BytePath,
    ) -> Result<Box<dyn TargetFile>, CopyError> {
        drop(seen);
        self.target.remove(temporary).await?;
        self.target.create(temporary, 0o600).await
    }

    /// What was read while somebody wrote to it is neither the file before nor the file after, unless more was added at its
    /// end and nothing else was done. Whether that is so has to be seen by reading it again.
    pub(super) async fn check_unchanged(
        &self,
        reader: &dyn SourceFile,
        opened: &Metadata,
        has_grown: bool,
    ) -> Result<Since, Failure> {
        // Files that the system makes up as they are read are as new as their reading.
        let Some(size) = opened.size.filter(|size| *size > 0) else { return Ok(Since::Nothing) };
        let was_touched = reader.was_touched().await.map_err(|error| self.at_source(error))?;
        let now = match was_touched {
            Some(false) => None,
            _ => reader.metadata().await.map_err(|error| self.at_source(error))?,
        };
        let modified = |metadata: &Metadata| metadata.times.map(|(_, modified)| modified);
        let error = match now.map(|now| (now.size.unwrap_or(size), modified(&now) == modified(opened))) {
            Some((now, _)) if now < size => CopyError::Shrunk { expected: size, end: now },
            Some((now, _)) if now > size => return Ok(Since::Growth),
            Some((_, false)) if !has_grown => CopyError::Changed,
            _ if has_grown => return Ok(Since::Growth),
            _ if was_touched == Some(true) => return Ok(Since::Perhaps),
            _ => return Ok(Since::Nothing),
        };
        Err(self.at_source(error))
    }

    /// Whether what was read is what the file still begins with.
    async fn compare_again(&self, reader: &dyn SourceFile, written: Written<'_>, size: u64) -> Result<(), Failure> {
        if reader.digest().is_some() {
            // Of what can be read only once nobody can tell.
            return Ok(());
        }
        let compared = self.compare(reader, written, size).await;
        compared.map_err(|failure| match failure.error {
            CopyError::Differs { .. } => self.at_source(CopyError::Changed),
            _ => failure,
        })
    }

    /// As `fill` does it, of what cannot be taken back.
    pub(in crate::copy) async fn check_sent(
        &self,
        reader: &dyn SourceFile,
        opened: &Metadata,
        has_grown: bool,
        (writer, size): (&dyn TargetFile, u64),
    ) -> Result<(), Failure> {
        let change = self.check_unchanged(reader, opened, has_grown).await?;
        if let (Since::Perhaps | Since::Growth, Some(digest)) = (change, writer.digest()) {
            self.compare_again(reader, Written::Known(digest), size).await?;
        }
        self.note_growth(change);
        Ok(())
    }

    pub(super) fn note_growth(&self, since: Since) {
        if since == Since::Growth {
            self.warnings.grew(self.source.side(), &self.place.source);
        }
    }

    /// Tells this file from others that get the same name, since directories of one name are merged.
    pub(super) fn journal_key(&self) -> BytePath {
        let (target, source) = (self.target.spelled(&self.place.target), self.source.spelled(&self.place.source));
        BytePath::new([target.as_bytes(), b"\0", source.as_bytes()].concat())
    }

    /// What is written already, and what reads as zeros when nobody writes it.
    async fn not_to_be_moved(
        &self,
        reader: &dyn SourceFile,
        writer: &dyn TargetFile,
        size: u64,
        begun: &Begun,
        meter: &mut FileMeter<'_, '_>,
    ) -> Result<Ranges, Failure> {
        let mut ranges = begun.written.clone();
        if writer.has_holes() {
            let holes = reader.holes(size).await.map_err(|error| self.at_source(error))?;
            for hole in holes {
                ranges.insert(hole.start, hole.end);
            }
        }
        meter.left_out(ranges.total() - begun.written.total());
        Ok(ranges)
    }

    /// Moves the bytes. Returns how many, and whether the file has more by now.
    pub(in crate::copy) async fn pump(
        &self,
        reader: &dyn SourceFile,
        writer: &dyn TargetFile,
        metadata: &Metadata,
        begun: &Begun,
        meter: &mut FileMeter<'_, '_>,
    ) -> Result<(u64, bool), Failure> {
        // Of a pipe it is no more than what was expected, but the SCP protocol has promised it to the other side.
        let is_exact = !self.source.is_pipe() || self.target.over_scp().is_some();
        // Files that the system makes up as they are read (/proc) say that they are empty.
        let size = metadata.size.filter(|size| is_exact && *size > 0);
        let piece = reader.max_read().min(writer.max_write()).min(self.limit.map_or(u32::MAX, Limit::piece));
        let window = Window { piece, in_flight: PIPE_WINDOW };
        let mut transfer = match size {
            Some(size) => {
                let moved = self.not_to_be_moved(reader, writer, size, begun, meter).await?;
                Transfer::resume(size, window, moved)
            }
            None => Transfer::new(None, window),
        };
        let mut notes = self.notes(begun, writer);
        let mut tasks = FuturesUnordered::new();
        let mut is_flushing = false;
        loop {
            let streams = self.source.streams().max(self.target.streams()).max(1);
            if !self.target.is_pipe() {
                transfer.set_in_flight(FILE_WINDOW.saturating_mul(streams as u64));
            }
            if transfer.is_read() && !std::mem::replace(&mut is_flushing, true) {
                // Tasks are begun in the order in which they are added, so this comes after the last write.
                tasks.extend(writer.flush_behind().map(|flush| flush.map(Moved::Flushed).boxed()));
            }
            tasks.extend(std::iter::from_fn(|| transfer.poll_read()).map(|piece| self.read(reader, piece)));
            match tasks.next().await {
                Some(Moved::Read(piece, Ok((data, permit)))) => {
                    let got = u32::try_from(data.len()).unwrap_or(u32::MAX);
                    let next = transfer.handle_read(piece, got).map_err(|error| self.at_source(error))?;
                    tasks.extend(next.map(|piece| write(writer, piece, data, permit)));
                }
                Some(Moved::Written(piece, Ok(()))) => {
                    transfer.handle_written(piece);
                    meter.wrote(piece.length, streams);
                    notes.wrote(piece);
                }
                Some(Moved::Flushed(Ok(()))) => {}
                Some(Moved::Read(_, Err(error))) => return Err(self.at_source(error)),
                Some(Moved::Written(_, Err(error)) | Moved::Flushed(Err(error))) => return Err(self.at_target(error)),
                None => break,
            }
        }
        debug_assert!(transfer.is_complete(), "{transfer:?}");
        Ok((transfer.high_water(), transfer.has_grown()))
    }

    fn read<'a>(&'a self, reader: &'a dyn SourceFile, piece: Piece) -> BoxFuture<'a, Moved> {
        async move {
            if let Some(limit) = self.limit {
                limit.pass(piece.length).await;
            }
            let budget = Arc::clone(self.budget);
            let mut permit = budget.acquire_many_owned(piece.length).await.expect("nobody closes the budget");
            let data = reader.read(piece.offset, piece.length).await;
            // What did not come is no longer on its way.
            let missing = data.as_ref().map_or(0, |data| (piece.length as usize).saturating_sub(data.len()));
            drop(permit.split(missing));
            Moved::Read(piece, data.map(|data| (data, permit)))
        }
        .boxed()
    }

    pub(in crate::copy) fn at_source(&self, error: CopyError) -> Failure {
        Failure::new(self.source.side(), &self.place.source, error)
    }

    pub(super) fn at_target(&self, error: CopyError) -> Failure {
        Failure::new(self.target.side(), &self.place.target, error)
    }
}

/// Why a file could not be made beside one that is there.
fn no_new_file(error: CopyError, is_there: bool) -> CopyError {
    if is_there && error.is_denied() { CopyError::NoNewFile(Box::new(error)) } else { error }
}

/// A piece on its way.
enum Moved {
    Read(Piece, Result<(Bytes, OwnedSemaphorePermit), CopyError>),
    Written(Piece, Result<(), CopyError>),
    Flushed(Result<(), CopyError>),
}

fn write(writer: &dyn TargetFile, piece: Piece, data: Bytes, permit: OwnedSemaphorePermit) -> BoxFuture<'_, Moved> {
    async move {
        let outcome = writer.write(piece.offset, data).await;
        drop(permit);
        Moved::Written(piece, outcome)
    }
    .boxed()
}
