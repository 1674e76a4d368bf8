//! This machine's file system.

mod sparse;
mod special;
mod spot;
mod written;

use std::fs::{self, DirEntry, File};
use std::io::{self, Read as _};
use std::ops::Range;
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use rustix::fs::{AtFlags, Mode, OFlags, Stat, Timespec, Timestamps, mkdirat, statat, symlinkat, utimensat};
use rustix::io::Errno;
use sha2::{Digest as _, Sha256};

use super::endpoint::{Answer, Change, Endpoint, Entry, FileKind, MAX_ENTRIES, Metadata, SourceFile, TargetFile};
use super::existing::{check_directory, check_replaceable};
use super::temporary::temporary_name;
use super::{BytePath, CopyError, Side};
use sparse::{LEAST_HOLE, holes};
use special::End;
use spot::{Base, Spot};
use written::NewFile;

/// A file is read and written in pieces of this size when only this side counts.
const PIECE: u32 = 256 * 1024;
const PERMISSION_BITS: u32 = 0o7777;

/// This machine's files. Relative paths start from the process's working directory.
#[derive(Debug, Clone, Default)]
pub struct LocalEndpoint {
    /// The directory that a copy's target is or lies in, once that is known.
    base: Arc<OnceLock<Base>>,
}

impl LocalEndpoint {
    /// Where `path` is: in the directory that is held, if it lies there.
    fn spot(&self, path: &BytePath) -> Result<Spot, CopyError> {
        let held = self.base.get().and_then(|base| base.find(path));
        held.unwrap_or_else(|| Ok(Spot::typed(path)))
    }

    /// Runs `work` with the spot of a path on a thread that may block.
    fn at<'a, T, E, F>(&self, path: &'a BytePath, work: F) -> Answer<'a, T>
    where
        T: Send + 'static,
        E: Into<CopyError> + Send + 'static,
        F: FnOnce(Spot) -> Result<T, E> + Send + 'static,
    {
        let (endpoint, path) = (self.clone(), path.clone());
        on_thread(move || work(endpoint.spot(&path)?).map_err(Into::into))
    }
}

impl Endpoint for LocalEndpoint {
    fn side(&self) -> Side {
        Side::Local
    }

    fn for_one_copy<'a>(&'a self, typed: &'a BytePath) -> BoxFuture<'a, Option<Arc<dyn Endpoint>>> {
        async move {
            let special = blocking(typed, |path| Ok(special::find(&path.into()))).await;
            Some(match special.ok().flatten() {
                Some(pipe) => Arc::new(pipe) as Arc<dyn Endpoint>,
                None => Arc::new(Self::default()),
            })
        }
        .boxed()
    }

    /// Where the directory cannot be opened, whatever is to be in it cannot be written.
    fn hold<'a>(&'a self, directory: &'a BytePath) -> Answer<'a, ()> {
        let (endpoint, directory) = (self.clone(), directory.clone());
        on_thread(move || {
            endpoint.base.get_or_init(|| Base::open(&directory));
            Ok::<_, CopyError>(())
        })
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
        self.at(path, |spot| statat(spot.directory(), spot.name(), AtFlags::empty()).map_err(io::Error::from).map(told))
    }

    fn lstat<'a>(&'a self, path: &'a BytePath) -> Answer<'a, Metadata> {
        self.at(path, |spot| {
            statat(spot.directory(), spot.name(), AtFlags::SYMLINK_NOFOLLOW).map_err(io::Error::from).map(told)
        })
    }

    fn canonical<'a>(&'a self, path: &'a BytePath) -> Answer<'a, BytePath> {
        blocking(path, |path| match fs::canonicalize(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => followed(&path, error),
            found => found.map(BytePath::from),
        })
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
            let (file, metadata) = self.at(path, |spot| open(&spot)).await?;
            let found = metadata_of(&metadata);
            Ok((Box::new(LocalFile { file: Arc::new(file), opened: metadata }) as Box<dyn SourceFile>, found))
        }
        .boxed()
    }

    fn create<'a>(&'a self, path: &'a BytePath, mode: u32) -> Answer<'a, Box<dyn TargetFile>> {
        async move {
            let created = self.at(path, move |spot| written::create(spot, mode)).await?.deliver();
            Ok(Box::new(NewFile::new(created, path, self, true)) as Box<dyn TargetFile>)
        }
        .boxed()
    }

    fn reopen<'a>(&'a self, path: &'a BytePath, granted: u32) -> Answer<'a, Option<Box<dyn TargetFile>>> {
        async move {
            let opened = self.at(path, move |spot| written::reopen(spot, granted)).await?;
            Ok(Some(Box::new(NewFile::new(opened, path, self, false)) as Box<dyn TargetFile>))
        }
        .boxed()
    }

    fn digest<'a>(&'a self, path: &'a BytePath, _: u64) -> Answer<'a, Option<[u8; 32]>> {
        self.at(path, |spot| digest(&spot, u64::MAX).map(Some))
    }

    fn digest_of_beginning<'a>(&'a self, path: &'a BytePath, size: u64) -> Answer<'a, Option<[u8; 32]>> {
        self.at(path, move |spot| digest(&spot, size).map(Some))
    }

    fn make_directory<'a>(&'a self, path: &'a BytePath, mode: u32) -> Answer<'a, bool> {
        async move {
            match self.at(path, move |spot| make_directory(&spot, mode)).await {
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
        self.at(path, |spot| written::remove(&spot))
    }

    fn change<'a>(&'a self, path: &'a BytePath, change: Change) -> Answer<'a, ()> {
        self.at(path, move |spot| match spot.open(OFlags::RDONLY) {
            Err(error) if Errno::from_io_error(&error) == Some(Errno::LOOP) => Err(CopyError::LinkInTheWay),
            file => Ok(written::apply(&file?, change)?),
        })
    }

    fn read_link<'a>(&'a self, path: &'a BytePath) -> Answer<'a, BytePath> {
        blocking(path, |path| fs::read_link(path).map(BytePath::from))
    }

    fn make_link<'a>(&'a self, path: &'a BytePath, to: &'a BytePath) -> Answer<'a, ()> {
        async move {
            let to = to.as_path().to_owned();
            let link = to.clone();
            let make = move |spot: Spot| symlinkat(link, spot.directory(), spot.name()).map_err(io::Error::from);
            match self.at(path, make).await {
                Err(CopyError::Local(error)) if error.kind() == io::ErrorKind::AlreadyExists => {
                    check_replaceable(&self.lstat(path).await?)?;
                    let (endpoint, temporary) = (self.clone(), temporary_name(path));
                    let replace = move |spot: Spot| {
                        Ok::<_, CopyError>(written::replace_by_link(&spot, &to, &endpoint.spot(&temporary)?)?)
                    };
                    self.at(path, replace).await
                }
                outcome => outcome,
            }
        }
        .boxed()
    }

    fn date_link<'a>(&'a self, path: &'a BytePath, times: (SystemTime, SystemTime)) -> Answer<'a, ()> {
        let times = Timestamps { last_access: timespec(times.0), last_modification: timespec(times.1) };
        self.at(path, move |spot| {
            utimensat(spot.directory(), spot.name(), &times, AtFlags::SYMLINK_NOFOLLOW).map_err(io::Error::from)
        })
    }

    fn sync_directory<'a>(&'a self, path: &'a BytePath) -> Answer<'a, ()> {
        async move {
            match self.at(path, |spot| spot.open(OFlags::RDONLY)?.sync_all()).await {
                // Some file systems cannot, and some directories may be written to but not read.
                Err(CopyError::Local(error)) if Errno::from_io_error(&error) != Some(Errno::IO) => Ok(()),
                outcome => outcome,
            }
        }
        .boxed()
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

#[allow(clippy::useless_conversion, reason = "systems differ in the size of a mode")]
fn make_directory(spot: &Spot, mode: u32) -> io::Result<()> {
    let mode = Mode::from_raw_mode(mode.try_into().map_err(io::Error::other)?);
    Ok(mkdirat(spot.directory(), spot.name(), mode)?)
}

/// Of so many bytes, or as many as there are.
fn digest(spot: &Spot, size: u64) -> io::Result<[u8; 32]> {
    let (mut file, mut hash) = (spot.open(OFlags::RDONLY)?.take(size), Sha256::new());
    let mut buffer = vec![0; PIECE as usize];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hash.finalize().into()),
            read => hash.update(&buffer[..read]),
        }
    }
}

fn open(spot: &Spot) -> io::Result<(File, fs::Metadata)> {
    // Opening a pipe does not wait for a writer that may never come.
    let file = spot.open(OFlags::RDONLY)?;
    let metadata = file.metadata()?;
    Ok((file, metadata))
}

/// Where a link leads that leads to nothing yet.
fn followed(path: &Path, missing: io::Error) -> io::Result<BytePath> {
    match special::end_of(path)? {
        End::Name(end) if end != path => {
            let (parent, name) = end.parent().zip(end.file_name()).ok_or(missing)?;
            Ok(parent.canonicalize()?.join(name).into())
        }
        _ => Err(missing),
    }
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

fn metadata_of(metadata: &fs::Metadata) -> Metadata {
    Metadata {
        kind: FileKind::of_mode(metadata.mode()),
        size: Some(metadata.len()),
        mode: Some(metadata.mode() & PERMISSION_BITS),
        times: metadata.accessed().ok().zip(metadata.modified().ok()),
        owner: Some((metadata.uid(), metadata.gid())),
    }
}

/// As `metadata_of`, of what a directory tells.
#[allow(clippy::useless_conversion, reason = "systems differ in the size of each number")]
fn told(stat: Stat) -> Metadata {
    let mode = u32::from(stat.st_mode);
    let time = |seconds: i64, nanoseconds: u64| {
        let nanoseconds = Duration::from_nanos(nanoseconds);
        let whole = Duration::from_secs(seconds.unsigned_abs());
        let time = if seconds < 0 { UNIX_EPOCH.checked_sub(whole) } else { UNIX_EPOCH.checked_add(whole) };
        time.and_then(|time| time.checked_add(nanoseconds))
    };
    let nanoseconds = |count| u64::try_from(count).unwrap_or_default();
    let accessed = time(stat.st_atime, nanoseconds(stat.st_atime_nsec));
    let modified = time(stat.st_mtime, nanoseconds(stat.st_mtime_nsec));
    Metadata {
        kind: FileKind::of_mode(mode),
        size: u64::try_from(stat.st_size).ok(),
        mode: Some(mode & PERMISSION_BITS),
        times: accessed.zip(modified),
        owner: Some((stat.st_uid, stat.st_gid)),
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
    on_thread(work)
}

fn on_thread<T, E, F>(work: F) -> Answer<'static, T>
where
    T: Send + 'static,
    E: Into<CopyError> + Send + 'static,
    F: FnOnce() -> Result<T, E> + Send + 'static,
{
    async move {
        match tokio::task::spawn_blocking(work).await {
            Ok(outcome) => outcome.map_err(Into::into),
            Err(gone) => Err(CopyError::Local(io::Error::other(gone))),
        }
    }
    .boxed()
}

#[cfg(test)]
mod tests;
