//! What can go wrong with a stream, and how it travels through `io::Error`.

use std::error::Error;
use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::time::Duration;

use super::dial::DialError;
use super::service::{Denied, ServiceError, SessionId, TargetId};
use super::url::UrlError;
use crate::datachannel::ChannelError;

/// A stream could not be opened, or ended otherwise than its far end meant it to.
///
/// It is cheap to clone: every reader, writer and waiter of one stream is told the same.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum StreamError {
    /// A call to the control plane failed.
    #[error(transparent)]
    Service(#[from] ServiceError),
    /// The service named a stream URL that no connection is made to.
    #[error("the service named a stream URL that is not its own")]
    Url(#[from] UrlError),
    /// The WebSocket upgrade was answered 403.
    #[error(
        "the service refused the WebSocket (403): either {} is not allowed on {}, or the credentials have expired",
        .0.action,
        .0.resources.join(" and ")
    )]
    UpgradeDenied(Denied),
    /// The WebSocket upgrade was answered with another status than 101.
    #[error("{host} refused the WebSocket with HTTP status {status}")]
    UpgradeRefused {
        /// The host that was asked.
        host: String,
        /// The status that it answered.
        status: u16,
    },
    /// The WebSocket could not be opened.
    #[error("cannot connect to {host}")]
    Connect {
        /// The host that was tried.
        host: String,
        /// The last failure.
        #[source]
        source: Arc<DialError>,
    },
    /// The node broke the protocol of the data channel, or did not answer.
    #[error(transparent)]
    Channel(#[from] ChannelError),
    /// The service ended the session and gave a reason.
    #[error("the session was ended: {0}")]
    Ended(String),
    /// The session ended before it was usable, without a reason.
    #[error("the session ended before it was established")]
    EndedEarly,
    /// The session ended, and a part of what the node had sent never arrived.
    #[error("the session ended before everything that the node sent had arrived")]
    Incomplete,
    /// The connection was lost and did not come back in time.
    #[error("the connection was lost and did not come back within {} s", .waited.as_secs())]
    Lost {
        /// How long it was tried.
        waited: Duration,
        /// What the last try met.
        #[source]
        source: Box<StreamError>,
    },
    /// The connection was cut.
    #[error("the connection was cut")]
    Cut(#[source] Arc<io::Error>),
    /// Nothing that was written was taken, and nothing came back. The agent does not say that it cannot reach the port.
    #[error(
        "nothing is listening on port {port} of {target}, or it takes no data: none was acknowledged within {waited:?}"
    )]
    NothingListens {
        /// The node.
        target: TargetId,
        /// The TCP port.
        port: u16,
        /// How long it was waited.
        waited: Duration,
    },
    /// The node answered nothing more, while the service was there.
    #[error(
        "{target} has answered nothing for {} s, while the service was connected: it is switched off or cut off, or its \
         SSH server hangs",
        .waited.as_secs()
    )]
    NodeSilent {
        /// The node.
        target: TargetId,
        /// How long it was waited.
        waited: Duration,
        /// The size of a payload that was far larger than any acknowledged before it: the node may have fallen silent over
        /// it.
        unproven: Option<usize>,
    },
    /// The first payload above 1 KiB, or one more than twice as large as any before it, did not get through: the connection
    /// was cut whenever it was sent, or it was not acknowledged where smaller ones behind it were. Another stream with
    /// payloads of 1 KiB may work.
    #[error(
        "a payload of {size} bytes did not get through, and none as large has: \
         the service may not take them; limit payloads to 1 KiB (`max_payload`, `--max-payload 1024`)"
    )]
    PayloadRefused {
        /// The payload's size.
        size: usize,
        /// How the connection was cut, if it was.
        #[source]
        cut: Option<Arc<io::Error>>,
    },
    /// The stream was shut down, and the node did not confirm all that was written before.
    #[error("the node did not confirm everything that was sent")]
    Unconfirmed,
    /// Something was written after the shutdown.
    #[error("the stream is shut down")]
    ShutDown,
    /// This side gave the session up, by dropping the stream or by `StreamHandle::terminate`.
    #[error("the session was terminated on this side")]
    Terminated,
    /// The session could not be terminated: it may stay open until the service's idle time-out.
    #[error("SSM session {session} could not be terminated")]
    NotTerminated {
        /// The session.
        session: SessionId,
        /// Why.
        #[source]
        source: ServiceError,
    },
    /// The task that drives the stream is gone, because the runtime was shut down.
    #[error("the runtime of the stream was shut down")]
    RuntimeGone,
    /// The task that drives the stream has panicked: a fault of this crate.
    #[error("the task of the stream has panicked, which is a fault of ssmssh: please report it")]
    Panicked,
}

impl StreamError {
    /// The stream's error inside an I/O error, if it is one.
    pub fn from_io(error: &io::Error) -> Option<&Self> {
        error.get_ref()?.downcast_ref()
    }

    /// The stream's error in a chain of errors: what a protocol above the stream wrapped is still found.
    pub fn find<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a Self> {
        let mut next = Some(error);
        while let Some(error) = next {
            if let Some(found) = error.downcast_ref() {
                return Some(found);
            }
            if let Some(found) = error.downcast_ref().and_then(Self::from_io) {
                return Some(found);
            }
            next = error.source();
        }
        None
    }

    /// Whether another try may succeed.
    pub(super) fn is_transient(&self) -> bool {
        match self {
            Self::Service(error) => error.is_transient(),
            Self::UpgradeRefused { status, .. } => *status == 429 || *status >= 500,
            Self::Connect { source, .. } => source.is_transient(),
            Self::Cut(_) => true,
            _ => false,
        }
    }

    /// Whether another try may succeed where one has before. This machine may have moved to a network that wants a login
    /// first, and answers everything itself until then; and what signs the upgrade may have expired.
    pub(super) fn may_pass(&self) -> bool {
        match self {
            Self::Connect { .. } | Self::UpgradeDenied(_) => true,
            Self::Service(error) => error.may_pass(),
            other => other.is_transient(),
        }
    }

    fn kind(&self) -> ErrorKind {
        match self {
            Self::Service(ServiceError::Denied(_)) | Self::UpgradeDenied(_) | Self::Url(_) => {
                ErrorKind::PermissionDenied
            }
            Self::Service(ServiceError::TargetNotConnected { .. }) => ErrorKind::NotConnected,
            Self::Connect { source, .. } => source.kind(),
            Self::Cut(source) => source.kind(),
            Self::UpgradeRefused { .. } | Self::NothingListens { .. } => ErrorKind::ConnectionRefused,
            Self::Channel(ChannelError::HandshakeTimeout(_)) | Self::NodeSilent { .. } => ErrorKind::TimedOut,
            Self::Ended(_)
            | Self::EndedEarly
            | Self::Incomplete
            | Self::Lost { .. }
            | Self::PayloadRefused { .. }
            | Self::Terminated => ErrorKind::ConnectionAborted,
            Self::ShutDown => ErrorKind::BrokenPipe,
            _ => ErrorKind::Other,
        }
    }
}

impl From<StreamError> for io::Error {
    fn from(error: StreamError) -> Self {
        Self::new(error.kind(), error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stream_s_error_is_found_through_what_wraps_it() {
        #[derive(Debug, thiserror::Error)]
        #[error("the SSH library's own")]
        struct Wrapper(#[source] io::Error);

        let ended = StreamError::Ended("idle for too long".into());
        let error = io::Error::from(ended);
        assert_eq!(error.kind(), ErrorKind::ConnectionAborted);
        assert!(matches!(StreamError::from_io(&error), Some(StreamError::Ended(_))));
        assert!(matches!(StreamError::find(&Wrapper(error)), Some(StreamError::Ended(_))));
        assert!(StreamError::find(&Wrapper(io::Error::other("not ours"))).is_none());
    }

    #[test]
    fn the_length_of_an_outage_is_told_in_seconds() {
        let source = Box::new(StreamError::EndedEarly);
        let lost = StreamError::Lost { waited: Duration::from_micros(600_003_482), source };
        assert_eq!(lost.to_string(), "the connection was lost and did not come back within 600 s");
    }

    #[test]
    fn a_403_names_the_action_and_the_other_cause() {
        let resources = vec!["arn:aws:ssm:*:*:session/${aws:userid}-*".to_owned()];
        let denied = Denied { action: "ssmmessages:OpenDataChannel", resources, message: String::new() };
        let text = StreamError::UpgradeDenied(denied).to_string();
        assert!(text.contains("ssmmessages:OpenDataChannel") && text.contains("expired"), "{text}");
    }
}
