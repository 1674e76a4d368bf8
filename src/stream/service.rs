//! What the stream needs from the control plane.

use std::fmt;
use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use futures_util::future::BoxFuture;

use super::dial::DialError;

/// A managed node: `i-…` (EC2) or `mi-…` (hybrid).
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TargetId(String);

/// The text is not a node id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a node id: expected `i-` or `mi-` and 8 or 17 hexadecimal digits")]
pub struct TargetIdError(pub String);

impl TargetId {
    /// Checks the form `i-` or `mi-` followed by 8 (old EC2 ids only) or 17 hexadecimal digits.
    pub fn new(text: &str) -> Result<Self, TargetIdError> {
        let (digits, old_allowed) = match (text.strip_prefix("mi-"), text.strip_prefix("i-")) {
            (Some(rest), _) => (rest, false),
            (None, Some(rest)) => (rest, true),
            (None, None) => return Err(TargetIdError(text.to_owned())),
        };
        let length_ok = digits.len() == 17 || (old_allowed && digits.len() == 8);
        let digits_ok = digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        if length_ok && digits_ok { Ok(Self(text.to_owned())) } else { Err(TargetIdError(text.to_owned())) }
    }

    /// The id as AWS spells it.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this is a hybrid node (`mi-…`).
    pub fn is_hybrid(&self) -> bool {
        self.0.starts_with("mi-")
    }
}

impl fmt::Display for TargetId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The id of an SSM session.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SessionId(pub String);

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The usual port of an SSH server, 22.
pub const SSH_PORT: NonZeroU16 = NonZeroU16::new(22).unwrap();

/// What StartSession is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct StartRequest {
    /// The node.
    pub target: TargetId,
    /// The TCP port on the node, the document's `portNumber`.
    pub port: NonZeroU16,
    /// Free text for `CloudTrail`, if wanted.
    pub reason: Option<String>,
}

impl StartRequest {
    /// A session to `port` of `target`, without a reason.
    pub fn new(target: TargetId, port: NonZeroU16) -> Self {
        Self { target, port, reason: None }
    }
}

/// Leave to open one WebSocket of an SSM session. The token and the URL are credentials: `Debug` shows neither.
#[derive(Clone)]
pub struct Grant {
    /// The SSM session.
    pub session: SessionId,
    /// Where to connect, exactly as the service gave it.
    pub stream_url: String,
    /// The token of the open message.
    pub token: String,
}

impl fmt::Debug for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Grant").field("session", &self.session).finish_non_exhaustive()
    }
}

/// The headers that sign one WebSocket upgrade.
pub type UpgradeHeaders = Vec<(http::HeaderName, http::HeaderValue)>;

/// What IAM did not allow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Denied {
    /// The action that is missing, such as `ssm:StartSession`.
    pub action: &'static str,
    /// The resources it is missing for, as ARN forms.
    pub resources: Vec<String>,
    /// What the service said.
    pub message: String,
}

impl Denied {
    /// The policy statement that would allow it, as JSON ready to paste into a policy's `Statement`.
    pub fn statement(&self) -> String {
        let statement = serde_json::json!({ "Effect": "Allow", "Action": self.action, "Resource": self.resources });
        format!("{statement:#}")
    }
}

/// A call to the control plane failed.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum ServiceError {
    /// IAM does not allow the call.
    #[error("not allowed by IAM: {} on {}", .0.action, .0.resources.join(" and "))]
    Denied(Denied),
    /// The service does not see the node as connected.
    #[error("node {target} is not connected to Session Manager in region {region}")]
    TargetNotConnected {
        /// The node that was asked for.
        target: TargetId,
        /// The region that was asked.
        region: String,
    },
    /// There are no credentials, or they could not be resolved.
    #[error("no usable AWS credentials: {0}")]
    Credentials(String),
    /// The service does not accept the credentials: they do not fit together, or are not for it.
    #[error("the AWS credentials were not accepted: {0}")]
    CredentialsRefused(String),
    /// Credentials or the login behind them have expired.
    #[error("AWS credentials have expired: {0}")]
    Expired(String),
    /// The configuration cannot work: a line that is not understood, a profile that does not exist or lacks something, a
    /// region or endpoint that cannot be. The text says where.
    #[error("the AWS configuration cannot be used: {0}")]
    Configuration(String),
    /// No region is configured.
    #[error("no AWS region is configured: set AWS_REGION, or add `region` to the profile")]
    NoRegion,
    /// The endpoint is reached without encryption, over a network.
    #[error(
        "the endpoint http://{host} is not encrypted: it would show every request, and the session's token, to the network"
    )]
    PlainEndpoint {
        /// The endpoint's host.
        host: String,
    },
    /// The SSM session is over and cannot be resumed.
    #[error("SSM session {session} is over: {message}")]
    SessionEnded {
        /// The session.
        session: SessionId,
        /// What the service said.
        message: String,
    },
    /// The service asks to slow down.
    #[error("{operation} was throttled: {message}")]
    Throttled {
        /// The API operation.
        operation: &'static str,
        /// What the service said.
        message: String,
    },
    /// The service refused for another reason.
    #[error("{operation} failed: {code}: {message}")]
    Refused {
        /// The API operation.
        operation: &'static str,
        /// The error code.
        code: String,
        /// What the service said.
        message: String,
    },
    /// No connection to the API could be made.
    #[error("{operation} cannot connect to {host}")]
    NotReached {
        /// The API operation.
        operation: &'static str,
        /// The host that was tried, and its port where it is not the usual one.
        host: String,
        /// Why.
        #[source]
        source: Arc<DialError>,
    },
    /// The service did not answer, or not as it should.
    #[error("{operation} got {message}")]
    Unreachable {
        /// The API operation.
        operation: &'static str,
        /// What came in place of an answer, in words: "no answer: connection refused".
        message: String,
    },
}

impl ServiceError {
    /// Whether the same call may succeed later: the network, throttling, a fault inside the service, or credentials
    /// that have expired and that a login elsewhere renews. What IAM forbids, what is not configured, credentials that are
    /// missing or refused, and a session that is over, stay so.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Expired(_) | Self::Throttled { .. } | Self::Unreachable { .. } => true,
            Self::NotReached { source, .. } => source.is_transient(),
            Self::Refused { code, .. } => code.contains("Internal") || code.contains("Unavailable"),
            Self::Credentials(_)
            | Self::CredentialsRefused(_)
            | Self::Configuration(_)
            | Self::Denied(_)
            | Self::TargetNotConnected { .. }
            | Self::NoRegion
            | Self::PlainEndpoint { .. }
            | Self::SessionEnded { .. } => false,
        }
    }
}

impl ServiceError {
    /// Whether it may pass while a session is resumed: also what a person has to mend elsewhere, by a login or by leaving a
    /// network that wants one.
    pub(super) fn may_pass(&self) -> bool {
        let is_mendable = matches!(
            self,
            Self::Credentials(_)
                | Self::CredentialsRefused(_)
                | Self::Configuration(_)
                | Self::Expired(_)
                | Self::NotReached { .. }
        );
        is_mendable || self.is_transient()
    }
}

/// The control plane of Session Manager, as the stream uses it.
///
/// Every method may be called at any time, from any task; credentials are resolved anew for each call. Dropping a
/// future may leave the request half done on the service's side.
pub trait SsmService: Send + Sync + 'static {
    /// StartSession with the document `AWS-StartSSHSession`.
    fn start<'a>(&'a self, request: &'a StartRequest) -> BoxFuture<'a, Result<Grant, ServiceError>>;
    /// ResumeSession.
    fn resume<'a>(&'a self, session: &'a SessionId) -> BoxFuture<'a, Result<Grant, ServiceError>>;
    /// TerminateSession.
    fn terminate<'a>(&'a self, session: &'a SessionId) -> BoxFuture<'a, Result<(), ServiceError>>;
    /// The headers that sign the upgrade request for `stream_url`; none where the URL is presigned.
    fn sign_upgrade<'a>(&'a self, stream_url: &'a str) -> BoxFuture<'a, Result<UpgradeHeaders, ServiceError>>;

    /// The host of the endpoint that the user configured in place of the public one, if any: a stream URL may lead there.
    fn configured_host(&self) -> Option<&str> {
        None
    }

    /// The service's time, as an answer of 403 to an upgrade shows it. True where the signature was made with another time,
    /// and the next will be made with this one: the upgrade is then tried once more.
    fn learn_time(&self, _time: SystemTime) -> bool {
        false
    }

    /// What is missing where the upgrade was answered 403: `ssmmessages:OpenDataChannel` on the user's sessions.
    fn upgrade_denied(&self, message: String) -> Denied {
        let resources = vec!["arn:aws:ssm:*:*:session/${aws:userid}-*".to_owned()];
        Denied { action: "ssmmessages:OpenDataChannel", resources, message }
    }
}

/// Reports how long a stage of the way in took, for `-v` and for traces.
pub(crate) fn report_stage(stage: &'static str, started: Instant) {
    let elapsed_us = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
    tracing::info!(target: "ssmssh::stage", stage, elapsed_us);
}

/// Says what is waited for from now on, for whoever looks on.
pub(crate) fn report_wait(what: &str) {
    tracing::info!(target: "ssmssh::wait", "{what}");
}

/// Whether the query already carries a signature, so that a new one must not be added.
/// The parameter names mirror the official client's `communicator/websocketchannel.go: isPresignedURL`.
pub(crate) fn is_presigned(stream_url: &str) -> bool {
    const NAMES: [&str; 7] =
        ["algorithm", "credential", "date", "expires", "signedheaders", "signature", "security-token"];
    let query = stream_url.split_once('?').map_or("", |(_, query)| query);
    query.split('&').any(|pair| {
        let name = pair.split('=').next().unwrap_or_default().to_ascii_lowercase();
        name.strip_prefix("x-amz-").is_some_and(|rest| NAMES.contains(&rest))
    })
}
