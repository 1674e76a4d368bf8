//! What a side of a copy can do.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;

use super::scp::ScpEndpoint;
use super::{BytePath, CopyError, Side, Totals, Unset};
pub use crate::ssh::sftp::FileKind;

/// The outcome of an operation, once it is awaited.
pub type Answer<'a, T> = BoxFuture<'a, Result<T, CopyError>>;

/// Most entries that a directory may list: more is a listing that does not end.
pub(super) const MAX_ENTRIES: usize = 1 << 20;

/// What a side tells about a file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Metadata {
    /// What it is; `None` when the side does not tell.
    pub kind: Option<FileKind>,
    /// Size in bytes; `None` when the side does not tell.
    pub size: Option<u64>,
    /// Permission bits, those of the kind removed; `None` when the side does not tell.
    pub mode: Option<u32>,
    /// Time of last access and of last modification.
    pub times: Option<(SystemTime, SystemTime)>,
    /// Numeric user and group; `None` when the side does not tell.
    pub owner: Option<(u32, u32)>,
}

/// One name of a directory, as its side lists it: unchecked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The name: any bytes.
    pub name: Vec<u8>,
    /// About the name itself: a link is not followed.
    pub metadata: Metadata,
}

/// Attributes to be set; what is `None` stays.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Change {
    /// Permission bits.
    pub mode: Option<u32>,
    /// Time of last access and of last modification.
    pub times: Option<(SystemTime, SystemTime)>,
    /// Numeric user and group.
    pub owner: Option<(u32, u32)>,
}

/// A file that has its name.
#[derive(Debug, Default)]
pub struct Finished {
    /// What the side tells about it, as far as that costs no wait.
    pub metadata: Metadata,
    /// What of the change it did not get, because the side refused.
    pub unset: Vec<Unset>,
}

impl From<Metadata> for Finished {
    fn from(metadata: Metadata) -> Self {
        Self { metadata, unset: Vec::new() }
    }
}

impl Change {
    pub(super) fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// A side of a copy. Paths are the side's own; relative ones start from its starting directory.
///
/// Cancelling an operation may leave it done or not done; files it had opened are closed.
pub trait Endpoint: fmt::Debug + Send + Sync {
    /// How messages name this side.
    fn side(&self) -> Side;
    /// What tells this side's paths from those of any other. Default: how messages name it.
    fn identity(&self) -> String {
        format!("{:?}", self.side())
    }
    /// One spelling of a resolved `path` for all that certainly lead to the same file: an interrupted copy is known again
    /// by it. Default: without doubled slashes, `.`, and a slash at the end.
    fn spelled(&self, path: &BytePath) -> BytePath {
        path.tidied()
    }
    /// As `spelled`, of a path as a user typed it. Default: the same.
    fn spelled_as_typed(&self, path: &BytePath) -> BytePath {
        self.spelled(path)
    }
    /// The path that a user's spelling stands for (`~`, nothing at all).
    fn resolve<'a>(&'a self, typed: &'a BytePath) -> Answer<'a, BytePath>;
    /// About what `path` names, links followed.
    fn stat<'a>(&'a self, path: &'a BytePath) -> Answer<'a, Metadata>;
    /// About `path` itself, a link included.
    fn lstat<'a>(&'a self, path: &'a BytePath) -> Answer<'a, Metadata>;
    /// The absolute path without links.
    fn canonical<'a>(&'a self, path: &'a BytePath) -> Answer<'a, BytePath>;
    /// The names in a directory, without `.` and `..`, at most 2^20 of them.
    fn list<'a>(&'a self, path: &'a BytePath) -> Answer<'a, Vec<Entry>>;
    /// Opens a file for reading and tells about it as it is now. It never waits for the other end of a pipe. `size` is
    /// what was known of its size before; a side may read a file ahead that is as small as that.
    fn open<'a>(&'a self, path: &'a BytePath, size: u64) -> Answer<'a, (Box<dyn SourceFile>, Metadata)>;
    /// Creates a file that did not exist, as if with `mode`, but open to its owner alone before the first byte.
    fn create<'a>(&'a self, path: &'a BytePath, mode: u32) -> Answer<'a, Box<dyn TargetFile>>;
    /// Opens a file that a copy left unfinished, as `create` had left it, to go on with it; `granted` is what
    /// [`TargetFile::granted`] told. Default: `None`, this side cannot do that.
    fn reopen<'a>(&'a self, path: &'a BytePath, granted: u32) -> Answer<'a, Option<Box<dyn TargetFile>>> {
        let _ = (path, granted);
        std::future::ready(Ok(None)).boxed()
    }
    /// Opens what is neither a file nor a directory, to write into it: a device. Default: it is refused.
    fn open_special<'a>(&'a self, path: &'a BytePath) -> Answer<'a, Box<dyn TargetFile>> {
        let _ = path;
        std::future::ready(Err(CopyError::NotRegular)).boxed()
    }
    /// The SHA-256 of the content of a file of about `size` bytes, found out on that side. Default: `None`, the content
    /// has to be read.
    fn digest<'a>(&'a self, path: &'a BytePath, size: u64) -> Answer<'a, Option<[u8; 32]>> {
        let _ = (path, size);
        std::future::ready(Ok(None)).boxed()
    }
    /// As `digest`, of the first `size` bytes of a file that may have more by now. Default: `None`, they have to be read.
    fn digest_of_beginning<'a>(&'a self, path: &'a BytePath, size: u64) -> Answer<'a, Option<[u8; 32]>> {
        let _ = (path, size);
        std::future::ready(Ok(None)).boxed()
    }
    /// Makes a directory with `mode` less the umask; `false` when one is there already. A link that leads to one is an
    /// error.
    fn make_directory<'a>(&'a self, path: &'a BytePath, mode: u32) -> Answer<'a, bool>;
    /// Removes a file.
    fn remove<'a>(&'a self, path: &'a BytePath) -> Answer<'a, ()>;
    /// Whether it is a pipe: one file without a name, read or written once and from the first byte to the last. Default:
    /// no.
    fn is_pipe(&self) -> bool {
        false
    }
    /// Where a link points to. Default: the side knows no links.
    fn read_link<'a>(&'a self, path: &'a BytePath) -> Answer<'a, BytePath> {
        let _ = path;
        std::future::ready(Err(CopyError::NoLinks)).boxed()
    }
    /// Makes a link at `path` that points to `to`. A file or link that has the name is replaced, at once where the side
    /// can do that; a directory is an error. Default: the side knows no links.
    fn make_link<'a>(&'a self, path: &'a BytePath, to: &'a BytePath) -> Answer<'a, ()> {
        let _ = (path, to);
        std::future::ready(Err(CopyError::NoLinks)).boxed()
    }
    /// Sets the times of a link itself: of last access and of last modification. Default: nothing is done.
    fn date_link<'a>(&'a self, path: &'a BytePath, times: (SystemTime, SystemTime)) -> Answer<'a, ()> {
        let _ = (path, times);
        std::future::ready(Ok(())).boxed()
    }
    /// Forces the names in a directory to the disk. Default: nothing is done.
    fn sync_directory<'a>(&'a self, path: &'a BytePath) -> Answer<'a, ()> {
        let _ = path;
        std::future::ready(Ok(())).boxed()
    }
    /// How many streams it moves its bytes over; none when it is lost. Default: one.
    fn streams(&self) -> usize {
        1
    }
    /// Opens more streams as long as that pays, until it is cancelled. It never ends; `totals` tells how far the copy
    /// is. Default: nothing is opened.
    fn grow<'a>(&'a self, totals: &'a (dyn Fn() -> Totals + Send + Sync)) -> BoxFuture<'a, ()> {
        let _ = totals;
        std::future::pending().boxed()
    }
    /// This side as one that is reached over the SCP protocol, if it is: then nothing else can be asked of it.
    fn over_scp(&self) -> Option<&ScpEndpoint> {
        None
    }
    /// This side as the target `typed` of one copy, if it is another then: one that can [`hold`](Self::hold) a directory, or
    /// a pipe, where the path leads to what is no file. Default: it is the same.
    fn for_one_copy<'a>(&'a self, typed: &'a BytePath) -> BoxFuture<'a, Option<Arc<dyn Endpoint>>> {
        let _ = typed;
        std::future::ready(None).boxed()
    }
    /// All that this copy is to write lies in `directory`, links on the way to it followed: from now on no link in it is
    /// written through, even if it is put there in the meantime. Asked for once, before anything is written. Default:
    /// nothing is done.
    fn hold<'a>(&'a self, directory: &'a BytePath) -> Answer<'a, ()> {
        let _ = directory;
        std::future::ready(Ok(())).boxed()
    }
    /// The time that a file gets here when it is to get this one: the nearest that the side can keep, whole seconds or not.
    /// Default: the same.
    fn carried(&self, time: SystemTime) -> SystemTime {
        time
    }
    /// Sets attributes by path.
    fn change<'a>(&'a self, path: &'a BytePath, change: Change) -> Answer<'a, ()>;
}

/// A file open for reading. Dropping it closes it.
pub trait SourceFile: Send + Sync {
    /// Most bytes that one `read` returns.
    fn max_read(&self) -> u32;
    /// Up to `length` bytes at `offset`; none at the end.
    fn read(&self, offset: u64, length: u32) -> Answer<'_, Bytes>;
    /// Where it has no data, so that it reads as zeros: apart, in order, and never the last byte of a file of `size`
    /// bytes, so that writing everything else gives a copy its size. Default: nowhere.
    fn holes(&self, size: u64) -> Answer<'_, Vec<Range<u64>>> {
        let _ = size;
        std::future::ready(Ok(Vec::new())).boxed()
    }
    /// The SHA-256 of all that was read, where it can be read only once. Default: `None`, it can be read again.
    fn digest(&self) -> Option<[u8; 32]> {
        None
    }
    /// What the open file is like by now; `None` where it was read at once, or nobody can tell. Default: `None`.
    fn metadata(&self) -> Answer<'_, Option<Metadata>> {
        std::future::ready(Ok(None)).boxed()
    }
    /// Whether anything was done to the file since it was opened, be it to its times alone: then it may have been written
    /// to, whatever its size and times are. Default: `None`, nobody can tell.
    fn was_touched(&self) -> Answer<'_, Option<bool>> {
        std::future::ready(Ok(None)).boxed()
    }
}

/// A file open for writing. Dropping it closes it; what was written may be lost.
pub trait TargetFile: Send + Sync {
    /// Most bytes that one `write` takes.
    fn max_write(&self) -> u32;
    /// Writes all of `data` at `offset`.
    fn write(&self, offset: u64, data: Bytes) -> Answer<'_, ()>;
    /// Whether what is never written before other bytes reads as zeros, so that holes need not be sent. Default: no.
    fn has_holes(&self) -> bool {
        false
    }
    /// Forces to the disk what is written, writes that were begun and not answered included; `None` where that has to
    /// wait for their answers. It is asked for once, when nothing else will be written.
    fn flush_behind(&self) -> Option<Answer<'_, ()>> {
        None
    }
    /// Whether a part of what was written may be lost without a word, as by a restart of the machine that took it: such a
    /// file is compared with its source before it gets its name. Default: no.
    fn is_in_doubt(&self) -> bool {
        false
    }
    /// The SHA-256 of all that was written, where it cannot be read back. Default: `None`, it can.
    fn digest(&self) -> Option<[u8; 32]> {
        None
    }
    /// The permissions that the file gets when no others are given, as soon as they are known.
    fn granted(&self) -> Option<u32> {
        None
    }
    /// Once every write was answered: sets attributes, the permissions of any new file if none are given, forces
    /// everything to the disk where the side can do that, closes, and gives the file its name, replacing what has it at
    /// once where the side can do that. Attributes that the side refuses to set are no error.
    fn finish(self: Box<Self>, change: Change, to: &BytePath) -> Answer<'_, Finished>;
}
