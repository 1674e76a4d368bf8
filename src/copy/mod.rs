//! Copies of files and trees between any two sides.
//!
//! ```no_run
//! # async fn example(session: ssmssh::ssh::Session) -> Result<(), Box<dyn std::error::Error>> {
//! use ssmssh::copy::{CopyOptions, Location, RemoteEndpoint, copy};
//! use ssmssh::ssh::sftp::Sftp;
//!
//! let sftp = Sftp::new(session.subsystem("sftp").await?).await?;
//! let node = RemoteEndpoint::new(sftp, "i-0123456789abcdef0");
//! let summary = copy(
//!     vec![Location::local("target/release/service")],
//!     Location::remote(&node, "bin/service"),
//!     CopyOptions::default(),
//!     |_| {},
//! )
//! .await?;
//! assert!(summary.is_complete());
//! # Ok(())
//! # }
//! ```
//!
//! A file is written under a temporary name beside its target, readable by its owner alone, forced to the disk, and
//! renamed over the target: whoever looks at the target sees the old file or the whole new one. What fails is listed
//! in the [`Summary`] with its side and reason, and the other files go on.
//!
//! Because of the renaming, a file that has other names (hard links) is replaced under the one that was named, and a file
//! in a directory that may not be written to cannot be replaced. A link that the caller names is followed, to a file that
//! is not there yet too; a pipe or device that it leads to is written into. One that is met inside the destination is never
//! written through: a file takes its place, a directory is refused.
//!
//! A node's files go over one stream, or over several that [`RemoteEndpoint::more_streams`] opens while that pays: large
//! files piece by piece, small ones one by one. A stream that is lost has its work done by the others, or by another that
//! is opened in its place. Where
//! [`RemoteEndpoint::compression`] allows it and the data is worth it, streams that compress replace those that do not.
//!
//! With a [journal](CopyOptions::journal) a copy that was interrupted goes on where it was when it is made again.
//!
//! ```text
//!   plan (pure): what next? ─► run: carries out steps, many at once ─► file: one file
//!                                  │                                    │ transfer (pure): which bytes next?
//!                                  └──────────── Endpoint ──────────────┘
//!                                        local · remote (SFTP)
//! ```
//!
//! A machine without an SFTP server is a [`scp::ScpEndpoint`]. It cannot be asked anything, so its copies run past the
//! plan: what there is shows as it arrives.

mod endpoint;
mod error;
mod existing;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod journal;
mod local;
mod path;
mod pattern;
mod pipe;
mod plan;
mod progress;
mod ranges;
mod rate;
mod remote;
mod remote_digest;
mod run;
pub mod scp;
mod sources;
mod target;
mod temporary;
mod transfer;
mod warnings;

#[cfg(test)]
mod tests;

use std::future::{Future, pending};
use std::num::NonZeroU64;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite};

pub use endpoint::{Answer, Change, Endpoint, Entry, FileKind, Finished, Metadata, SourceFile, TargetFile};
pub use error::{CopyError, Failure, Side};
pub use existing::Skip;
pub use local::LocalEndpoint;
pub use path::BytePath;
pub use pattern::Exclude;
use pipe::Pipe;
pub use progress::{Event, Progress, Totals};
pub use ranges::Ranges;
pub use remote::{Compression, OpenStream, RemoteEndpoint, StreamKind, Streams};
pub use transfer::{Piece, Transfer, Window};
pub use warnings::{Shortfall, Unset, Warning};

/// How a copy is made.
#[derive(Debug, Clone, Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is an option of its own")]
#[non_exhaustive]
pub struct CopyOptions {
    /// Copy directories with all that lies in them. Default: off, a directory is a failure.
    pub recursive: bool,
    /// Give the copies the times and permissions of their sources. Default: off; a new file gets the source's
    /// permissions less the umask, one that was there keeps its own.
    pub preserve: bool,
    /// A directory on this machine for notes about copies that are under way. With it a copy that was interrupted,
    /// however that happened, goes on where it was when the same copy is made again. It costs a small write for each
    /// file and each MiB. Default: none; what is interrupted is removed as far as it can be, and starts over.
    pub journal: Option<PathBuf>,
    /// Begin anew: what the journal knows of an earlier run is removed with what that left, and nothing is kept for a
    /// later one. Default: off.
    pub start_over: bool,
    /// Compare each file with its source by SHA-256 before it gets its name. Default: off, which compares those files
    /// only that an interrupted copy had begun. Both ends read the file once more; what goes through a pipe cannot be.
    pub verify: bool,
    /// Most bytes a second, all files and streams together. Default: none.
    pub rate_limit: Option<NonZeroU64>,
    /// What becomes of links. Default: they are followed.
    pub links: Links,
    /// What is left out, directories with all that lies in them. Default: nothing.
    pub exclude: Vec<Exclude>,
    /// Which files are left as they are at the target. Default: none, all are replaced. Costs a question for each file
    /// that may be there.
    pub skip: Skip,
    /// Only find out what would be copied: [`Event::WouldCopy`] tells each file, nothing is written, and no file counts as
    /// copied. Default: off.
    pub dry_run: bool,
}

/// What becomes of a symbolic link.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Links {
    /// What it leads to is copied.
    #[default]
    Follow,
    /// It is copied as a link that leads where it did, wherever that is on the other side.
    Keep,
}

impl CopyOptions {
    /// Sets [`CopyOptions::recursive`].
    #[must_use]
    pub fn recursive(self, recursive: bool) -> Self {
        Self { recursive, ..self }
    }

    /// Sets [`CopyOptions::preserve`].
    #[must_use]
    pub fn preserve(self, preserve: bool) -> Self {
        Self { preserve, ..self }
    }

    /// Sets [`CopyOptions::journal`].
    #[must_use]
    pub fn journal(self, directory: impl Into<PathBuf>) -> Self {
        Self { journal: Some(directory.into()), ..self }
    }

    /// Sets [`CopyOptions::start_over`].
    #[must_use]
    pub fn start_over(self, start_over: bool) -> Self {
        Self { start_over, ..self }
    }

    /// Sets [`CopyOptions::verify`].
    #[must_use]
    pub fn verify(self, verify: bool) -> Self {
        Self { verify, ..self }
    }

    /// Sets [`CopyOptions::rate_limit`], in bytes per second.
    #[must_use]
    pub fn rate_limit(self, bytes_per_second: NonZeroU64) -> Self {
        Self { rate_limit: Some(bytes_per_second), ..self }
    }

    /// Sets [`CopyOptions::links`].
    #[must_use]
    pub fn links(self, links: Links) -> Self {
        Self { links, ..self }
    }

    /// Adds to [`CopyOptions::exclude`].
    #[must_use]
    pub fn exclude(mut self, exclude: Exclude) -> Self {
        self.exclude.push(exclude);
        self
    }

    /// Sets [`CopyOptions::skip`].
    #[must_use]
    pub fn skip(self, skip: Skip) -> Self {
        Self { skip, ..self }
    }

    /// Sets [`CopyOptions::dry_run`].
    #[must_use]
    pub fn dry_run(self, dry_run: bool) -> Self {
        Self { dry_run, ..self }
    }
}

impl CopyOptions {
    /// What makes it another copy when it changes.
    fn kind_of_copy(&self) -> String {
        format!(
            "{:?}",
            Self { journal: None, start_over: false, verify: false, rate_limit: None, dry_run: false, ..self.clone() }
        )
    }
}

/// A path on one side.
#[derive(Debug, Clone)]
pub struct Location {
    endpoint: Arc<dyn Endpoint>,
    path: BytePath,
    is_pattern: bool,
}

impl Location {
    /// A path of this machine.
    pub fn local(path: impl Into<BytePath>) -> Self {
        Self::on(Arc::new(LocalEndpoint::default()), path)
    }

    /// A path of the machine behind `endpoint`, as a user would type it: relative to the login directory, which the
    /// empty path and `~` name too.
    pub fn remote(endpoint: &RemoteEndpoint, path: impl Into<BytePath>) -> Self {
        Self::on(Arc::new(endpoint.clone()), path)
    }

    /// As a source, all that `reader` gives, as one file; `name` is for messages. It is read once: by one copy, which
    /// needs the name of a file as its target. That it ends is taken for its end, whatever ended it.
    pub fn reader(name: &str, reader: impl AsyncRead + Send + Unpin + 'static) -> Self {
        Self::on(Arc::new(Pipe::<pipe::Reader>::new(name, Box::new(reader))), name)
    }

    /// As [`Location::reader`], with so many bytes expected. A side that is reached over the SCP protocol has to know, and
    /// more or fewer are a failure there; elsewhere the size is for the progress alone, and all that comes is copied.
    pub fn reader_of_size(name: &str, size: u64, reader: impl AsyncRead + Send + Unpin + 'static) -> Self {
        Self::on(Arc::new(Pipe::<pipe::Reader>::new(name, Box::new(reader)).of_size(size)), name)
    }

    /// As [`Location::reader`], with the permission bits that a new file gets, less the umask: `0o600` for a secret, which
    /// nobody else can then open at any moment. A file that is replaced keeps its own. Default: `0o666`.
    pub fn reader_of_mode(name: &str, mode: u32, reader: impl AsyncRead + Send + Unpin + 'static) -> Self {
        Self::on(Arc::new(Pipe::<pipe::Reader>::new(name, Box::new(reader)).of_mode(mode & 0o777)), name)
    }

    /// As the target of one file, `writer` gets its bytes in order and is shut down behind them; `name` is for messages.
    /// What was written when a copy fails stays written.
    pub fn writer(name: &str, writer: impl AsyncWrite + Send + Unpin + 'static) -> Self {
        Self::on(Arc::new(Pipe::<pipe::Writer>::new(name, Box::new(writer))), name)
    }

    /// A path of the machine behind `endpoint`, as a user would type it: relative to the login directory, which the empty
    /// path and `~` name too.
    pub fn scp(endpoint: &scp::ScpEndpoint, path: impl Into<BytePath>) -> Self {
        Self::on(Arc::new(endpoint.clone()), path)
    }

    /// A path of any side.
    pub fn on(endpoint: Arc<dyn Endpoint>, path: impl Into<BytePath>) -> Self {
        Self { endpoint, path: path.into(), is_pattern: false }
    }

    /// As a source it stands for everything that its path matches: `*`, `?`, `[a-z]` and `[!a-z]` inside a name, `{a,b}`
    /// anywhere, a backslash before what shall have no such meaning. Bytes are matched, a dot at the start of a name by a
    /// dot only. A file that has the very name comes first; a pattern that matches nothing is a failure.
    #[must_use]
    pub fn matching(self) -> Self {
        Self { is_pattern: true, ..self }
    }
}

/// What a copy did.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Summary {
    /// Files copied, those included that an earlier run of the same copy had finished.
    pub files: u64,
    /// Files that [`CopyOptions::skip`] left as they were.
    pub skipped: u64,
    /// Bytes written, those of files that failed later included.
    pub bytes: u64,
    /// Bytes that an earlier run of the same copy had written, and that were not written again.
    pub bytes_kept: u64,
    /// What could not be copied, in the order in which it was found out.
    pub failures: Vec<Failure>,
    /// What files that are there did not get, one of a kind.
    pub warnings: Vec<Warning>,
}

impl Summary {
    /// Whether everything was copied.
    pub fn is_complete(&self) -> bool {
        self.failures.is_empty()
    }
}

/// Copies `sources` to `destination`: into it when it is a directory, under its name otherwise.
///
/// A source that cannot be copied is in the summary's failures; an error is returned only where nothing more can be
/// copied at all. `progress` is called often and should return soon.
///
/// Cancelling it leaves every target as it was or whole; temporary files are removed in the background, as far as the
/// runtime and the session live on. [`copy_until`] waits for that.
pub async fn copy<P>(
    sources: Vec<Location>,
    destination: Location,
    options: CopyOptions,
    progress: P,
) -> Result<Summary, CopyError>
where
    P: Fn(Progress<'_>) + Send + Sync,
{
    copy_until(sources, destination, options, progress, pending()).await
}

/// As [`copy`], until `stop` is ready: then temporary files are removed, those apart that the journal says can be gone
/// on with, which takes half a second at most, and [`CopyError::Stopped`] is returned.
///
/// Cancelling it does what cancelling [`copy`] does.
pub async fn copy_until<P, S>(
    sources: Vec<Location>,
    destination: Location,
    options: CopyOptions,
    progress: P,
    stop: S,
) -> Result<Summary, CopyError>
where
    P: Fn(Progress<'_>) + Send + Sync,
    S: Future<Output = ()> + Send,
{
    let run = run::Run::new(sources, destination, options, &progress).await;
    // Boxed, so that the compiler proves here that it is `Send`, and need not in each program.
    let copying: futures_util::future::BoxFuture<'_, _> = Box::pin(run.copy());
    tokio::select! {
        biased;
        () = stop => {}
        outcome = copying => return outcome,
    }
    Err(run.stop().await)
}
