//! What can go wrong, and whose fault it is.

use std::error::Error;
use std::fmt;
use std::io;
use std::sync::Arc;

use crate::ssh::SshError;

/// An SFTP request, or the whole session, failed.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum SftpError {
    /// The server has no file of that name.
    #[error("no such file or directory")]
    NoSuchFile,
    /// The server's user may not do this.
    #[error("permission denied")]
    PermissionDenied,
    /// The server failed without a more precise code; its words, which may say no more than "Failure".
    #[error("the server answered: {0}")]
    Failure(String),
    /// The server does not know the request.
    #[error("the server does not support {0}")]
    Unsupported(&'static str),
    /// The server answered with a status that fits none of the others.
    #[error("the server answered with status {code}: {text}")]
    Status {
        /// The code as sent.
        code: u32,
        /// The server's words.
        text: String,
    },
    /// The server said that it wrote what it has not.
    #[error("the server took {taken} bytes and holds {held}")]
    NotStored {
        /// Bytes up to the end of what it said that it wrote.
        taken: u64,
        /// The size of the file.
        held: u64,
    },
    /// The request does not fit in a packet; nothing was sent.
    #[error("the request is too long for an SFTP packet")]
    RequestTooLong,
    /// The server closed the stream before it said anything.
    #[error("the server closed the SFTP subsystem before it answered")]
    NotStarted,
    /// The server closed the stream, or the session was ended.
    #[error("the SFTP session has ended")]
    Ended,
    /// The handle was opened in another session. Nothing was sent; what it names is still open there.
    #[error("the handle belongs to another SFTP session")]
    ForeignHandle,
    /// The byte stream under the session failed.
    #[error("the connection under the SFTP session failed")]
    Connection(#[source] StreamFailure),
    /// The server broke the protocol; the session cannot go on.
    #[error("the server broke the SFTP protocol")]
    Protocol(#[from] ProtocolError),
}

impl SftpError {
    /// Whether the session is over, so that no later request can succeed.
    pub fn is_fatal(&self) -> bool {
        matches!(self, Self::NotStarted | Self::Ended | Self::Connection(_) | Self::Protocol(_))
    }

    /// Whether it tells that the server has no SFTP subsystem, or one that cannot be started.
    pub fn is_missing(&self) -> bool {
        match self {
            Self::NotStarted => true,
            Self::Connection(failure) => {
                matches!(SshError::from_io(&failure.0), Some(SshError::RequestRefused { .. }))
            }
            _ => false,
        }
    }
}

impl From<io::Error> for SftpError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => Self::Ended,
            _ => Self::Connection(StreamFailure(Arc::new(error))),
        }
    }
}

/// The error of the stream, shared by all requests that it ended. Its source is the [`io::Error`] itself.
#[derive(Debug, Clone)]
pub struct StreamFailure(Arc<io::Error>);

impl fmt::Display for StreamFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Error for StreamFailure {
    // Through the `Arc` alone the error could not be found by its type.
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&*self.0)
    }
}

/// How a server broke the protocol.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProtocolError {
    /// A packet ends before its fields do.
    #[error("a packet ends before its fields do")]
    Truncated,
    /// A packet is longer than any that was asked for.
    #[error("a packet of {0} bytes is longer than the limit")]
    TooLong(u32),
    /// Text came where a packet's length should be: its first line, or as much of it as came in time, cut.
    #[error(
        "`{0}` came instead of the SFTP protocol: a start-up file such as .bashrc prints it, the user's login shell, or a \
         forced command"
    )]
    TextOnStream(String),
    /// The server speaks another version.
    #[error("the server speaks version {0}, this client version 3")]
    Version(u32),
    /// A packet of a type that no client expects.
    #[error("a packet of type {0} is no reply")]
    UnknownType(u8),
    /// A reply to a request that is not outstanding: never made, or answered before.
    #[error("a reply names request {0}, which is not outstanding")]
    UnknownId(u32),
    /// A reply of a type that does not answer the request.
    #[error("the reply to {0} is of the wrong type")]
    WrongReply(&'static str),
    /// More data than was asked for.
    #[error("{got} bytes came where {asked} were asked for")]
    TooMuchData {
        /// Bytes asked for.
        asked: u32,
        /// Bytes received.
        got: usize,
    },
    /// A handle that is empty or longer than the draft allows.
    #[error("a handle of {0} bytes is outside 1 to 256")]
    Handle(usize),
    /// A listing reply without names, which would never end.
    #[error("a listing reply holds no names")]
    EmptyListing,
}
