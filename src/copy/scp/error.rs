//! What can go wrong over the SCP protocol, and whose fault it is.

use std::error::Error;
use std::fmt;
use std::io;

use super::line::{LineError, Words};
use crate::copy::BytePath;

/// Something could not be copied over the SCP protocol.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ScpError {
    /// The far side could not do this one; what comes next it may.
    #[error("{0}")]
    Refused(Words),
    /// The far side gave up.
    #[error("scp gave up: {0}")]
    GaveUp(Words),
    /// The far side's program did not start, or ended before its first word.
    #[error("scp does not start{0}")]
    NotStarted(Exit),
    /// The far side's program ended before it was done.
    #[error("scp ended before it was done{0}")]
    EndedEarly(Exit),
    /// Its first word did not come.
    #[error("scp does not answer within {0} s")]
    Silent(u64),
    /// A channel for it could not be opened.
    #[error("scp could not be started")]
    NotOpened(#[source] Box<dyn Error + Send + Sync>),
    /// The connection under it failed.
    #[error("the connection under scp failed")]
    Connection(#[source] io::Error),
    /// The far side does not speak the protocol.
    #[error("the far side broke the SCP protocol")]
    Line(#[from] LineError),
    /// The far side spoke out of turn.
    #[error("the far side broke the SCP protocol: {0}")]
    OutOfTurn(&'static str),
    /// A name that could lead outside its directory.
    #[error("the far side sends the name `{0}`, which no file can have")]
    UnsafeName(BytePath),
    /// A name that was not asked for.
    #[error("the far side sends `{0}`, which was not asked for")]
    NotRequested(BytePath),
    /// A name for the second time in one directory.
    #[error("the far side sends `{0}` twice")]
    DuplicateName(BytePath),
    /// A directory where only files were asked for.
    #[error("the far side sends the directory `{0}`, and `-r` (recursive) did not ask for one")]
    UnaskedDirectory(BytePath),
    /// More names than any directory has.
    #[error("the far side sends more than {0} names in open directories")]
    TooManyNames(usize),
    /// Directories are nested deeper than any sensible tree.
    #[error("the far side sends directories that are nested deeper than {0} levels")]
    TooDeep(usize),
    /// A line feed ends a name on the wire.
    #[error("the name holds a line feed, which the SCP protocol cannot carry")]
    LineFeed,
    /// The protocol tells the size before the bytes.
    #[error("its size is not known beforehand, which the SCP protocol has to tell: write it to a file first")]
    UnknownSize,
    /// The far side has other bytes under the name than were sent to it.
    #[error("what has this name now differs by SHA-256 from what was sent, and is not to be trusted")]
    Differs,
    /// The protocol carries files and nothing else.
    #[error("the SCP protocol cannot {0}")]
    Unable(&'static str),
}

impl ScpError {
    /// Whether nothing more can be copied from or to this side at all.
    pub fn is_fatal(&self) -> bool {
        matches!(self, Self::NotStarted(_) | Self::NotOpened(_) | Self::Connection(_) | Self::Silent(_))
    }
}

/// How the far side's program ended, and what it printed beside the protocol.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Exit {
    /// Its exit code, if it told one.
    pub code: Option<u32>,
    /// The last that it printed to its stderr. Text from the network; `Display` escapes it.
    pub said: Option<BytePath>,
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(code) = self.code {
            write!(f, " (exit code {code})")?;
        }
        if let Some(said) = &self.said {
            write!(f, ": {said}")?;
        }
        Ok(())
    }
}
