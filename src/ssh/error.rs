//! What can go wrong between a stream and a command's exit status.

use std::{io, sync::Arc, time::Duration};

use super::{channel::Outcome, host_key::HostKeyError, quote, transport::TransportError};

/// An error of a session, named after the party at fault.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SshError {
    /// The connection ended before what was asked for was done.
    #[error(transparent)]
    Lost(#[from] Lost),
    /// The server's host key is not one to talk to.
    #[error(transparent)]
    HostKey(#[from] HostKeyError),
    /// The server let none of the identities in.
    #[error(transparent)]
    Authentication(#[from] AuthenticationError),
    /// The server opens no channel while none is open, or none has ended for as long as its turn was waited for.
    #[error("the SSH server opens no more sessions (MaxSessions in its configuration): {reason}")]
    ChannelRefused {
        /// The server's reason.
        reason: String,
    },
    /// The server refused a request on an open channel.
    #[error("the SSH server refused the request for {request}")]
    RequestRefused {
        /// What was asked for: `a pseudo-terminal`, `a shell`, `the command`, `the subsystem "sftp"`.
        request: String,
    },
    /// A text with a NUL byte in it, which servers end the connection over. Nothing was sent.
    #[error("{what} contains a NUL byte, which cannot be sent")]
    NulByte {
        /// `the command`, `the value of a variable`, `the name of the terminal`, `the user's name`…
        what: &'static str,
    },
    /// A text that is longer than servers take, which end the connection over it. Nothing was sent.
    #[error("{what} is too long to be sent: {length} bytes, of {limit} at most")]
    TooLong {
        /// As with [`SshError::NulByte`].
        what: &'static str,
        /// Its length in bytes.
        length: usize,
        /// The most that is sent, in bytes.
        limit: usize,
    },
    /// The command printed more than [`Command::output`](super::Command::output) was to collect.
    #[error("the command prints more than {limit} bytes")]
    OutputTooLong {
        /// The most bytes of either stream.
        limit: usize,
        /// The first of what it wrote to stdout.
        stdout: Vec<u8>,
        /// The first of what it wrote to stderr.
        stderr: Vec<u8>,
    },
    /// The server did not let us in, nor refuse to, in time.
    #[error("the SSH server has not completed the login within {} s", .0.as_secs())]
    LoginTimeout(Duration),
    /// The channel ended in order, but the server never said how the command ended.
    #[error("the SSH server closed the channel without reporting how the command ended")]
    NoExitStatus,
}

impl SshError {
    /// The error inside an [`io::Error`] that a stream of this module returned.
    pub fn from_io(error: &io::Error) -> Option<&Self> {
        error.get_ref()?.downcast_ref()
    }

    /// What the stream under the session reported, if that is what ended it.
    pub fn transport(&self) -> Option<&io::Error> {
        match self {
            Self::Lost(Lost::Transport(error)) => Some(error.as_io()),
            _ => None,
        }
    }

    fn io_kind(&self) -> io::ErrorKind {
        match self {
            Self::Lost(Lost::Transport(error)) => error.as_io().kind(),
            Self::Lost(Lost::Eof) => io::ErrorKind::UnexpectedEof,
            Self::Lost(Lost::ServerSilent(_)) | Self::LoginTimeout(_) => io::ErrorKind::TimedOut,
            Self::Lost(_) => io::ErrorKind::ConnectionAborted,
            Self::RequestRefused { .. } | Self::ChannelRefused { .. } => io::ErrorKind::ConnectionRefused,
            Self::NulByte { .. } | Self::TooLong { .. } => io::ErrorKind::InvalidInput,
            _ => io::ErrorKind::Other,
        }
    }
}

impl From<SshError> for io::Error {
    fn from(error: SshError) -> Self {
        Self::new(error.io_kind(), error)
    }
}

impl From<Outcome> for SshError {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Exit(_) | Outcome::NoExitStatus => Self::NoExitStatus,
            Outcome::Refused { request } => Self::RequestRefused { request },
            Outcome::Lost(lost) => Self::Lost(lost),
        }
    }
}

/// How a connection ended.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Lost {
    /// The stream under the session failed.
    #[error("the connection failed")]
    Transport(#[source] TransportError),
    /// The stream ended without an SSH disconnect message.
    #[error("the SSH server closed the connection")]
    Eof,
    /// The server sent a disconnect message.
    #[error("the SSH server ended the connection: {message} (reason {code})")]
    ByServer {
        /// The reason's number, as in RFC 4253 section 11.1.
        code: u32,
        /// The server's words. Text from the network: do not print it to a terminal unfiltered.
        message: String,
    },
    /// The far end is no SSH 2 server.
    #[error("the far end does not speak SSH 2; is there really an SSH server on that port?")]
    NotSsh,
    /// The server sent a text that is not UTF-8, which the SSH protocol demands and russh does not read: a banner before the
    /// login, mostly.
    #[error("the SSH server sent a text that is not UTF-8, its banner most likely")]
    NotUtf8,
    /// Client and server have no algorithm of some kind in common.
    #[error("no common {kind} algorithm: the server offers {offered}")]
    NoCommonAlgorithm {
        /// `key exchange`, `host key`, `cipher`, `MAC` or `compression`.
        kind: &'static str,
        /// The server's list.
        offered: String,
    },
    /// The server no longer answers keepalives; nothing has come from it for so long.
    #[error("the SSH server no longer answers: nothing has come from it for {} s", .0.as_secs())]
    ServerSilent(Duration),
    /// The server broke the protocol, or a signature or MAC is wrong.
    #[error("the SSH protocol failed")]
    Protocol(#[source] Arc<dyn std::error::Error + Send + Sync>),
    /// This side closed the session.
    #[error("the SSH session was closed")]
    Closed,
}

impl Lost {
    /// `transport` is what the stream reported, which russh passes on in some places only; `patience` is how long the
    /// server was waited for where it is the one that is silent.
    pub(super) fn new(error: russh::Error, transport: Option<TransportError>, patience: Duration) -> Self {
        use russh::{Error as E, keys::ssh_encoding};

        // The stream is shut down only after that, and may fail then.
        if matches!(error, E::KeepaliveTimeout) {
            return Self::ServerSilent(patience);
        }
        if let Some(error) = transport {
            return Self::Transport(error);
        }
        match error {
            E::IO(error) if error.kind() != io::ErrorKind::UnexpectedEof => {
                Self::Transport(TransportError(Arc::new(error)))
            }
            E::IO(_) | E::Disconnect | E::HUP | E::SendError | E::RecvError => Self::Eof,
            // An echo answers a key exchange with itself.
            E::Version | E::KexInit => Self::NotSsh,
            E::SshEncoding(ssh_encoding::Error::CharacterEncoding) => Self::NotUtf8,
            E::NoCommonAlgo { kind, theirs, .. } => {
                Self::NoCommonAlgorithm { kind: kind_name(&kind), offered: quote::said(&theirs.join(", ")) }
            }
            error => Self::Protocol(Arc::new(error)),
        }
    }
}

fn kind_name(kind: &russh::AlgorithmKind) -> &'static str {
    match kind {
        russh::AlgorithmKind::Kex => "key exchange",
        russh::AlgorithmKind::Key => "host key",
        russh::AlgorithmKind::Cipher => "cipher",
        russh::AlgorithmKind::Compression => "compression",
        russh::AlgorithmKind::Mac => "MAC",
    }
}

/// The server let nobody in.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AuthenticationError {
    /// No identity was given, and the server wants one.
    #[error("no private key was given to log in as {user}; the server accepts: {}", list(.methods))]
    NoIdentity {
        /// The user name.
        user: String,
        /// The methods that the server offers.
        methods: Vec<String>,
    },
    /// Every identity was refused.
    #[error(
        "the SSH server lets none of these keys in as {user}: {}; the server accepts: {}. Is {user} the right user, \
         and is the public half of the key in that user's authorized_keys?", list(.tried), list(.methods)
    )]
    Refused {
        /// The user name.
        user: String,
        /// The keys that were tried: type, fingerprint, and the file's name where there is one.
        tried: Vec<String>,
        /// The methods that the server still offers.
        methods: Vec<String>,
    },
    /// A key was accepted, but the server wants something else beside it.
    #[error("the SSH server accepted {key} for {user} but asks for more: {}", list(.methods))]
    MoreRequired {
        /// The user name.
        user: String,
        /// The key that was accepted.
        key: String,
        /// What the server wants beside it.
        methods: Vec<String>,
    },
    /// The server ended the connection while keys were tried.
    #[error("the SSH server gave up on {user} after these keys: {}: {lost}", list(.tried))]
    Disconnected {
        /// The user name.
        user: String,
        /// The keys that were tried.
        tried: Vec<String>,
        /// How the connection ended.
        #[source]
        lost: Lost,
    },
}

fn list(items: &[String]) -> String {
    if items.is_empty() { "nothing".to_owned() } else { items.join(", ") }
}
