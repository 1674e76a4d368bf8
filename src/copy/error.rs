//! What can go wrong with a copy, and on which side.

use std::fmt;
use std::io;
use std::sync::Arc;

use super::BytePath;
use super::scp::ScpError;
use crate::ssh::sftp::SftpError;

/// One side of a copy, as messages name it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Side {
    /// This machine.
    Local,
    /// The machine of this name.
    Remote(Arc<str>),
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Local => f.write_str("this machine"),
            Self::Remote(name) => f.write_str(name),
        }
    }
}

/// Why a file, or the whole copy, failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CopyError {
    /// No source was given.
    #[error("nothing to copy")]
    NoSources,
    /// Several sources, or a path with a slash at its end, need a directory as the target.
    #[error("{}{path}: the target is not a directory", prefix(side))]
    TargetNotDirectory {
        /// The side of the target.
        side: Side,
        /// The target as it was given.
        path: BytePath,
    },
    /// The connection to one side is lost; nothing more can be copied.
    #[error("the connection to {side} was lost during the copy")]
    Lost {
        /// The side that is gone.
        side: Side,
        /// Whether the same copy, made again, goes on where this one was.
        can_resume: bool,
        /// How it ended.
        source: SftpError,
    },
    /// Nothing can be copied over the SCP protocol, or nothing more.
    #[error("cannot copy over the SCP protocol with {side}")]
    ScpEnded {
        /// The side whose `scp` it was.
        side: Side,
        /// Why.
        source: ScpError,
    },
    /// The copy was stopped.
    #[error("the copy was stopped")]
    Stopped {
        /// Whether the same copy, made again, goes on where this one was. If not, what was unfinished is removed.
        can_resume: bool,
    },
    /// A source is a directory and `CopyOptions::recursive` is not set.
    #[error("is a directory; `-r` (recursive) copies directories")]
    IsDirectory,
    /// A directory has the name that a file would get.
    #[error("a directory is where the file should be")]
    DirectoryInTheWay,
    /// A file has the name that a directory would get.
    #[error("a file is where the directory should be")]
    FileInTheWay,
    /// What comes out of a pipe was to be copied into a directory.
    #[error("has no name that it could get in a directory: name the file")]
    Nameless,
    /// Several sources were to be written to a pipe.
    #[error("takes one file, and there are {0}")]
    SeveralIntoPipe(usize),
    /// A directory was to be written to a pipe.
    #[error("takes one file; a directory cannot be written to it")]
    DirectoryIntoPipe,
    /// A pipe was used by a copy before.
    #[error("was read or written before, which is possible only once")]
    OnlyOnce,
    /// Two sources would get one name.
    #[error("another source has the same name, and only one of them can get it")]
    SameName,
    /// A link that the user did not name is where a directory would be: what is behind it may lie anywhere.
    #[error("a link is where the directory should be, and a copy does not write through it")]
    LinkInTheWay,
    /// The target of a directory lies in the directory itself.
    #[error("a directory cannot be copied into itself")]
    IntoItself,
    /// The server does not give the copy its name. What had the name has it still.
    #[error("the server does not rename the whole copy to its name: {0}")]
    NotRenamed(SftpError),
    /// No file can be made in the directory, though the one that is there may be writable.
    #[error(transparent)]
    NoNewFile(Box<CopyError>),
    /// Several sources, or a path with a slash at its end, need a directory as the target, and nothing is there.
    #[error("{}{path}: there is no such directory", prefix(side))]
    TargetMissing {
        /// The side of the target.
        side: Side,
        /// The target as it was given.
        path: BytePath,
    },
    /// A link was to be followed, and nothing is there.
    #[error("is a link that leads nowhere")]
    DanglingLink,
    /// A side that knows no links was asked to keep one.
    #[error("links cannot be kept as links on this side")]
    NoLinks,
    /// A pattern for the source fits nothing.
    #[error("nothing matches this pattern")]
    NoMatch,
    /// A pattern cannot be understood.
    #[error("the pattern `{pattern}` is malformed: {reason}")]
    InvalidPattern {
        /// As it was given.
        pattern: BytePath,
        /// What is wrong with it.
        reason: String,
    },
    /// A pipe, a socket or a device.
    #[error("is neither a regular file nor a directory")]
    NotRegular,
    /// The file became shorter while it was read.
    #[error("became shorter while it was read: {expected} bytes before, at most {end} now")]
    Shrunk {
        /// Size when it was opened, in bytes.
        expected: u64,
        /// Where its end was met.
        end: u64,
    },
    /// The file was written to while it was read, and not only at its end.
    #[error("was changed while it was read")]
    Changed,
    /// Another stream found another file behind the name.
    #[error("was replaced while it was read")]
    Replaced,
    /// The copy is not equal to its source. It was removed, and what had the name before has it still.
    #[error("the copy on {target} differs from the file on {source_side} by SHA-256; the target was left as it was")]
    Differs {
        /// The side that was read from.
        source_side: Side,
        /// The side that was written to.
        target: Side,
    },
    /// A side returned more bytes than it was asked for.
    #[error("gave more bytes than were asked for")]
    TooMuchData,
    /// The target's file system has no room for more bytes, or for more files.
    #[error("no space is left on the disk")]
    DiskFull,
    /// The user may not fill more of the target's file system, or have more files there.
    #[error("the disk quota is used up")]
    QuotaUsedUp,
    /// The file is longer than one may be there.
    #[error("is longer than the file system, or a limit on this process (`ulimit -f`), allows")]
    TooLarge,
    /// The target's file system takes no writes at all.
    #[error("the file system is read-only")]
    ReadOnly,
    /// A name, or the whole path, is longer than the side can take.
    #[error("the name or the path is too long for that side")]
    TooLongName,
    /// The server did not take content or a new name, for no reason that could be found out: a quota or a limit on the size
    /// of files may be it.
    #[error(transparent)]
    NotTaken(SftpError),
    /// A listing holds a name that could lead outside its directory.
    #[error("the listing holds the name `{0}`, which no file can have")]
    UnsafeName(BytePath),
    /// A listing holds a name twice.
    #[error("the listing holds this name twice")]
    DuplicateName,
    /// A listing does not end.
    #[error("the directory has more than {0} entries")]
    TooManyEntries(usize),
    /// The names in a listing do not end.
    #[error("the names in the directory take more than {0} bytes")]
    ListingTooLong(usize),
    /// Directories are nested deeper than any sensible tree.
    #[error("directories are nested deeper than {0} levels")]
    TooDeep(usize),
    /// A link leads to a directory that holds the link.
    #[error("the link leads back to a directory that it is in")]
    LinkLoop,
    /// The operating system of this machine refused.
    #[error("{}", in_our_words(.0))]
    Local(#[source] io::Error),
    /// The SFTP server of the other side refused.
    #[error(transparent)]
    Remote(#[from] SftpError),
    /// Something cannot be copied over the SCP protocol.
    #[error(transparent)]
    Scp(#[from] ScpError),
}

impl From<io::Error> for CopyError {
    /// What either side may run short of is called the same, whichever side it is.
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::StorageFull => Self::DiskFull,
            io::ErrorKind::QuotaExceeded => Self::QuotaUsedUp,
            io::ErrorKind::ReadOnlyFilesystem => Self::ReadOnly,
            io::ErrorKind::FileTooLarge => Self::TooLarge,
            io::ErrorKind::InvalidFilename => Self::TooLongName,
            _ => Self::Local(error),
        }
    }
}

/// What the system says, as a node's server would: without a number, and not as the beginning of a sentence.
fn in_our_words(error: &io::Error) -> String {
    let mut text = error.to_string();
    let Some(code) = error.raw_os_error() else { return text };
    text.truncate(text.strip_suffix(&format!(" (os error {code})")).unwrap_or(&text).len());
    // Not an abbreviation, that is.
    if text.chars().nth(1).is_some_and(|second| !second.is_uppercase())
        && let Some(first) = text.get_mut(..1)
    {
        first.make_ascii_lowercase();
    }
    text
}

impl CopyError {
    /// Whether it tells that a stream is lost.
    pub(super) fn is_of_stream(&self) -> bool {
        matches!(self, Self::Remote(error) if error.is_fatal())
    }

    /// Whether a side said no to something that can be left out, and goes on.
    pub(super) fn is_refusal(&self) -> bool {
        match self {
            Self::Local(error) => matches!(error.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::Unsupported),
            Self::Remote(error) => !error.is_fatal() && !matches!(error, SftpError::NoSuchFile),
            Self::ReadOnly => true,
            _ => false,
        }
    }

    pub(super) fn is_denied(&self) -> bool {
        match self {
            Self::Local(error) => error.kind() == io::ErrorKind::PermissionDenied,
            Self::Remote(error) => matches!(error, SftpError::PermissionDenied),
            _ => false,
        }
    }

    /// Whether nothing can be copied, because of what the target is.
    pub(super) fn is_about_target(&self) -> bool {
        matches!(self, Self::TargetNotDirectory { .. } | Self::TargetMissing { .. })
    }

    pub(super) fn is_not_found(&self) -> bool {
        match self {
            Self::Local(error) => error.kind() == io::ErrorKind::NotFound,
            Self::Remote(error) => matches!(error, SftpError::NoSuchFile),
            _ => false,
        }
    }
}

/// What could not be copied, and why.
#[derive(Debug, thiserror::Error)]
#[error("{}{error}", place(side, path, error))]
#[non_exhaustive]
pub struct Failure {
    /// The side where it went wrong.
    pub side: Side,
    /// The file or directory on that side.
    pub path: BytePath,
    /// The reason.
    #[source]
    pub error: CopyError,
}

impl Failure {
    pub(super) fn new(side: Side, path: &BytePath, error: CopyError) -> Self {
        Self { side, path: path.clone(), error }
    }

    /// The error of the whole copy, when this failure is the end of one side.
    pub(super) fn into_lost(self) -> Result<CopyError, Self> {
        match self.error {
            CopyError::Remote(source) if source.is_fatal() => {
                Ok(CopyError::Lost { side: self.side, can_resume: false, source })
            }
            CopyError::Scp(source) if source.is_fatal() => Ok(CopyError::ScpEnded { side: self.side, source }),
            error => Err(Self { error, ..self }),
        }
    }
}

/// What stands before an error, unless it names its place itself.
fn place(side: &Side, path: &BytePath, error: &CopyError) -> String {
    if error.is_about_target() { String::new() } else { format!("{}{path}: ", prefix(side)) }
}

/// What stands before a path in a message.
pub(super) fn prefix(side: &Side) -> String {
    match side {
        Side::Local => String::new(),
        Side::Remote(name) => format!("{name}:"),
    }
}

#[cfg(test)]
mod tests {
    use rustix::io::Errno;

    use super::*;

    fn said(errno: Errno) -> String {
        CopyError::from(io::Error::from(errno)).to_string()
    }

    #[test]
    fn this_machine_and_a_node_say_the_same_of_the_same() {
        assert_eq!(said(Errno::NOENT), SftpError::NoSuchFile.to_string());
        assert_eq!(said(Errno::ACCESS), SftpError::PermissionDenied.to_string());
        assert_eq!(said(Errno::NOSPC), CopyError::DiskFull.to_string());
        assert_eq!(said(Errno::ROFS), CopyError::ReadOnly.to_string());
        assert_eq!(said(Errno::NAMETOOLONG), CopyError::TooLongName.to_string());
    }

    #[test]
    fn what_the_system_says_has_no_number_and_begins_no_sentence() {
        assert_eq!(said(Errno::IO), "input/output error");
        assert_eq!(
            CopyError::from(io::Error::other("Its own words (os error 5)")).to_string(),
            "Its own words (os error 5)"
        );
    }

    #[test]
    fn a_quota_and_a_limit_are_called_by_their_names() {
        assert_eq!(said(Errno::DQUOT), "the disk quota is used up");
        assert_eq!(
            said(Errno::FBIG),
            "is longer than the file system, or a limit on this process (`ulimit -f`), allows"
        );
    }
}
