//! This machine's file system.

mod sparse;

use std::fs::{self, DirEntry, File, FileTimes, OpenOptions, Permissions};
use std::io::{self, Read as _};
use std::ops::Range;
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::{
    DirBuilderExt as _, FileExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, symlink,
};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use futures_util::FutureExt as _;
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, utimensat};
use rustix::io::Errno;
use sha2::{Digest as _, Sha256};

use super::endpoint::{Answer, Change, Endpoint, Entry, FileKind, MAX_ENTRIES, Metadata, SourceFile, TargetFile};
use super::existing::{check_directory, check_replaceable};
use super::temporary::temporary_name;
use super::{BytePath, CopyError, Side};
use sparse::{LEAST_HOLE, holes, write_sparsely};

/// A file is read and written in pieces of this size when only this side counts.
const PIECE: u32 = 256 * 1024;
const PERMISSION_BITS: u32 = 0o7777;
/// The permissions of a file under its temporary name: a later run opens it again, whatever its source allows.
const OWNERS: u32 = 0o600;

/// This machine's files. Relative paths start from the process's working directory.
#[derive(Debug, Clone, Copy, Default)]
pub struct LocalEndpoint;

impl Endpoint for LocalEndpoint {
    fn side(&self) -> Side {
        Side::Local
    }

    /// Absolute, because relative paths start from the working directory.
    fn spelled(&self, path: &BytePath) -> BytePath {
        std::env::current_dir().map_or_else(|_| path.tidied(), |directory| path.tidied_in(&directory))
    }

    fn resolve<'a>(&'a self, typed: &'a BytePath) -> Answer<'a, BytePath> {
        let path = if typed.as_bytes().is_empty() { BytePath::from(".") } else { typed.clone() };
        std::future::ready(Ok(path)).boxed()
    }

    fn stat<'a>(&'a self, path: &'a BytePath) -> Answer<'a, Metadata> {
        blocking(path, |path| fs::metadata(path).map(|metadata| metadata_of(&metadata)))
    }

    fn lstat<'a>(&'a self, path: &'a BytePath) -> Answer<'a, Metadata> {
        blocking(path, |path| fs::symlink_metadata(path).map(|metadata| metadata_of(&metadata)))
    }

    fn canonical<'a>(&'a self, path: &'a BytePath) -> Answer<'a, BytePath> {
        blocking(path, |path| fs::canonicalize(path).map(BytePath::from))
    }

    fn list<'a>(&'a self, path: &'a BytePath) -> Answer<'a, Vec<Entry>> {
        async move {
            let entries = blocking(path, list).await?;
            if entries.len() > MAX_ENTRIES { Err(CopyError::TooManyEntries(MAX_ENTRIES)) } else { Ok(entries) }
        }
        .boxed()
    }

    fn open<'a>(&'a self, path: &'a BytePath, _: u64) -> Answer<'a, (Box<dyn SourceFile>, Metadata)> {
        async move {
            let (file, metadata) = blocking(path, open).await?;
            let found = metadata_of(&metadata);
            Ok((Box::new(LocalFile { file: Arc::new(file), opened: metadata }) as Box<dyn SourceFile>, found))
        }
        .boxed()
    }

    fn create<'a>(&'a self, path: &'a BytePath, mode: u32) -> Answer<'a, Box<dyn TargetFile>> {
        async move {
            let (file, granted) = blocking(path, move |path| create(path, mode)).await?.deliver();
            Ok(Box::new(NewFile::new(file, granted, path, true)) as Box<dyn TargetFile>)
        }
        .boxed()
    }

    fn reopen<'a>(&'a self, path: &'a BytePath, granted: u32) -> Answer<'a, Option<Box<dyn TargetFile>>> {
        async move {
            let file = blocking(path, reopen).await?;
            Ok(Some(Box::new(NewFile::new(file, granted, path, false)) as Box<dyn TargetFile>))
        }
        .boxed()
    }

    fn digest<'a>(&'a self, path: &'a BytePath, _: u64) -> Answer<'a, Option<[u8; 32]>> {
        blocking(path, |path| digest(path).map(Some))
    }

    fn make_directory<'a>(&'a self, path: &'a BytePath, mode: u32) -> Answer<'a, bool> {
        async move {
            match blocking(path, move |path| fs::DirBuilder::new().mode(mode).create(path)).await {
                Ok(()) => Ok(true),
                Err(CopyError::Local(error)) if error.kind() == io::ErrorKind::AlreadyExists => {
                    check_directory(&self.lstat(path).await?).map(|()| false)
                }
                Err(error) => Err(error),
            }
        }
        .boxed()
    }

    fn remove<'a>(&'a self, path: &'a BytePath) -> Answer<'a, ()> {
        blocking(path, fs::remove_file)
    }

    fn change<'a>(&'a self, path: &'a BytePath, change: Change) -> Answer<'a, ()> {
        blocking(path, move |path| apply(&File::open(path)?, change))
    }

    fn read_link<'a>(&'a self, path: &'a BytePath) -> Answer<'a, BytePath> {
        blocking(path, |path| fs::read_link(path).map(BytePath::from))
    }

    fn make_link<'a>(&'a self, path: &'a BytePath, to: &'a BytePath) -> Answer<'a, ()> {
        async move {
            let to = to.as_path().to_owned();
            let link = to.clone();
            match blocking(path, move |path| symlink(link, path)).await {
                Err(CopyError::Local(error)) if error.kind() == io::ErrorKind::AlreadyExists => {
                    check_replaceable(&self.lstat(path).await?)?;
                    let temporary = temporary_name(path).as_path().to_owned();
                    blocking(path, move |path| replace_by_link(&path, &to, &temporary)).await
                }
                outcome => outcome,
            }
        }
        .boxed()
    }

    fn date_link<'a>(&'a self, path: &'a BytePath, times: (SystemTime, SystemTime)) -> Answer<'a, ()> {
        let times = Timestamps { last_access: timespec(times.0), last_modification: timespec(times.1) };
        blocking(path, move |path| Ok(utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW)?))
    }

    fn sync_directory<'a>(&'a self, path: &'a BytePath) -> Answer<'a, ()> {
        blocking(path, |path| match File::open(path).and_then(|directory| directory.sync_all()) {
            // Some file systems cannot, and some directories may be written to but not read.
            Err(error) if !matches!(Errno::from_io_error(&error), Some(Errno::IO | Errno::NOSPC | Errno::DQUOT)) => {
                Ok(())
            }
            outcome => outcome,
        })
    }
}

/// An open file; reads and writes name their offset, so that any number may be under way.
struct LocalFile {
    file: Arc<File>,
    /// As it was then.
    opened: fs::Metadata,
}

impl SourceFile for LocalFile {
    fn max_read(&self) -> u32 {
        PIECE
    }

    fn read(&self, offset: u64, length: u32) -> Answer<'_, Bytes> {
        let file = Arc::clone(&self.file);
        spawn(move || {
            let mut buffer = vec![0; length as usize];
            let read = file.read_at(&mut buffer, offset)?;
            buffer.truncate(read);
            Ok(buffer.into())
        })
    }

    fn holes(&self, size: u64) -> Answer<'_, Vec<Range<u64>>> {
        if size <= LEAST_HOLE {
            return std::future::ready(Ok(Vec::new())).boxed();
        }
        let file = Arc::clone(&self.file);
        spawn(move || holes(&file, size))
    }

    fn metadata(&self) -> Answer<'_, Option<Metadata>> {
        let file = Arc::clone(&self.file);
        spawn(move || Ok(Some(metadata_of(&file.metadata()?))))
    }

    fn was_touched(&self) -> Answer<'_, Option<bool>> {
        // The time of the last change is the one that nobody can put back; not every file system keeps it.
        let state =
            |found: &fs::Metadata| (found.size(), found.mtime(), found.mtime_nsec(), found.ctime(), found.ctime_nsec());
        let (file, before) = (Arc::clone(&self.file), state(&self.opened));
        spawn(move || Ok(Some(state(&file.metadata()?) != before)))
    }
}

/// A file under its temporary name.
struct NewFile {
    file: Arc<File>,
    /// The permissions that the umask leaves a new file.
    granted: u32,
    path: PathBuf,
    /// Nothing was in it, so that zeros need not be written.
    is_empty: bool,
    /// Held alone while the size is set, so that nobody makes the file longer in between.
    growing: Arc<RwLock<()>>,
}

impl NewFile {
    fn new(file: File, granted: u32, path: &BytePath, is_empty: bool) -> Self {
        Self { file: Arc::new(file), granted, path: path.as_path().to_owned(), is_empty, growing: Arc::default() }
    }
}

impl TargetFile for NewFile {
    fn max_write(&self) -> u32 {
        PIECE
    }

    fn write(&self, offset: u64, data: Bytes) -> Answer<'_, ()> {
        let (file, growing) = (Arc::clone(&self.file), Arc::clone(&self.growing));
        let is_empty = self.is_empty;
        spawn(move || {
            if is_empty { write_with_holes(&file, &growing, &data, offset) } else { file.write_all_at(&data, offset) }
        })
    }

    fn has_holes(&self) -> bool {
        true
    }

    fn granted(&self) -> Option<u32> {
        Some(self.granted)
    }

    fn finish(self: Box<Self>, change: Change, to: &BytePath) -> Answer<'_, Metadata> {
        let to = to.as_path().to_owned();
        let change = Change { mode: Some(change.mode.unwrap_or(self.granted)), ..change };
        spawn(move || {
            apply(&self.file, change)?;
            self.file.sync_all()?;
            let metadata = metadata_of(&self.file.metadata()?);
            fs::rename(&self.path, to)?;
            Ok(metadata)
        })
    }
}

fn write_with_holes(file: &File, growing: &RwLock<()>, data: &[u8], offset: u64) -> io::Result<()> {
    let may_be_short = {
        let _others_too = growing.read().unwrap_or_else(PoisonError::into_inner);
        write_sparsely(file, data, offset)?
    };
    if may_be_short {
        let _alone = growing.write().unwrap_or_else(PoisonError::into_inner);
        let end = offset + data.len() as u64;
        if file.metadata()?.len() < end {
            file.set_len(end)?;
        }
    }
    Ok(())
}

/// A file just created. If nobody waits for it any more, it is removed again.
struct JustCreated {
    file: Option<(File, u32)>,
    path: PathBuf,
}

impl JustCreated {
    fn deliver(mut self) -> (File, u32) {
        self.file.take().expect("taken by this method only, which consumes the value")
    }
}

impl Drop for JustCreated {
    fn drop(&mut self) {
        if self.file.is_some() {
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn create(path: PathBuf, mode: u32) -> io::Result<JustCreated> {
    let file = OpenOptions::new().write(true).create_new(true).mode(mode | OWNERS).open(&path)?;
    let mut created = JustCreated { file: None, path };
    let (file, granted) = created.file.insert((file, mode));
    let held = file.metadata()?.mode() & PERMISSION_BITS;
    if held != OWNERS {
        file.set_permissions(Permissions::from_mode(OWNERS))?;
    }
    *granted = held & (mode | !OWNERS);
    Ok(created)
}

/// A file of our own, no link to another.
fn reopen(path: PathBuf) -> io::Result<File> {
    let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::NOCTTY;
    let file = OpenOptions::new().write(true).custom_flags(flags.bits().cast_signed()).open(path)?;
    if file.metadata()?.uid() != rustix::process::geteuid().as_raw() {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    Ok(file)
}

fn digest(path: PathBuf) -> io::Result<[u8; 32]> {
    let (mut file, mut hash, mut buffer) = (File::open(path)?, Sha256::new(), vec![0; PIECE as usize]);
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hash.finalize().into()),
            read => hash.update(&buffer[..read]),
        }
    }
}

fn open(path: PathBuf) -> io::Result<(File, fs::Metadata)> {
    // Without NONBLOCK, opening a pipe waits for a writer that may never come. Regular files do not heed it.
    let flags = rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::NOCTTY;
    let flags = flags.bits().cast_signed();
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    let metadata = file.metadata()?;
    Ok((file, metadata))
}

fn list(path: PathBuf) -> io::Result<Vec<Entry>> {
    entries_of(fs::read_dir(path)?)
}

fn entries_of(listing: impl Iterator<Item = io::Result<DirEntry>>) -> io::Result<Vec<Entry>> {
    let entries = listing.take(MAX_ENTRIES + 1).map(|found| found.map(|found| entry(&found)));
    entries.filter_map(Result::transpose).collect()
}

/// `None` for what was removed since its name was read.
fn entry(found: &DirEntry) -> Option<Entry> {
    let metadata = match found.metadata() {
        Ok(metadata) => metadata_of(&metadata),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
        // Whoever asks for it by its path learns why, without harm to the others.
        Err(_) => Metadata::default(),
    };
    Some(Entry { name: found.file_name().into_vec(), metadata })
}

/// Gives a link a name that a file or link has.
fn replace_by_link(path: &Path, to: &Path, temporary: &Path) -> io::Result<()> {
    symlink(to, temporary)?;
    fs::rename(temporary, path).inspect_err(|_| {
        let _ = fs::remove_file(temporary);
    })
}

/// Nanoseconds count forwards, before 1970 too.
fn timespec(time: SystemTime) -> Timespec {
    let whole = |seconds: u64| i64::try_from(seconds).unwrap_or(i64::MAX);
    match time.duration_since(UNIX_EPOCH) {
        Ok(since) => Timespec { tv_sec: whole(since.as_secs()), tv_nsec: since.subsec_nanos().into() },
        Err(before) => {
            let before = before.duration();
            let missing = 1_000_000_000 - before.subsec_nanos();
            Timespec {
                tv_sec: -whole(before.as_secs()) - i64::from(missing < 1_000_000_000),
                tv_nsec: (missing % 1_000_000_000).into(),
            }
        }
    }
}

fn apply(file: &File, change: Change) -> io::Result<()> {
    if let Some((accessed, modified)) = change.times {
        file.set_times(FileTimes::new().set_accessed(accessed).set_modified(modified))?;
    }
    match change.mode {
        Some(mode) => file.set_permissions(Permissions::from_mode(mode)),
        None => Ok(()),
    }
}

fn metadata_of(metadata: &fs::Metadata) -> Metadata {
    Metadata {
        kind: FileKind::of_mode(metadata.mode()),
        size: Some(metadata.len()),
        mode: Some(metadata.mode() & PERMISSION_BITS),
        times: metadata.accessed().ok().zip(metadata.modified().ok()),
    }
}

/// Runs `work` with the path on a thread that may block.
fn blocking<T, F>(path: &BytePath, work: F) -> Answer<'_, T>
where
    T: Send + 'static,
    F: FnOnce(PathBuf) -> io::Result<T> + Send + 'static,
{
    let path = path.as_path().to_owned();
    spawn(move || work(path))
}

fn spawn<T, F>(work: F) -> Answer<'static, T>
where
    T: Send + 'static,
    F: FnOnce() -> io::Result<T> + Send + 'static,
{
    async move {
        match tokio::task::spawn_blocking(work).await {
            Ok(outcome) => outcome.map_err(CopyError::from),
            Err(gone) => Err(CopyError::Local(io::Error::other(gone))),
        }
    }
    .boxed()
}

#[cfg(test)]
mod tests;
