//! What the stream needs from the control plane.

use std::fmt;

use futures_util::future::BoxFuture;

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

/// What StartSession is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct StartRequest {
    /// The node.
    pub target: TargetId,
    /// The TCP port on the node, the document's `portNumber`.
    pub port: u16,
    /// Free text for CloudTrail, if wanted.
    pub reason: Option<String>,
}

impl StartRequest {
    /// A session to `port` of `target`, without a reason.
    pub fn new(target: TargetId, port: u16) -> Self {
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

/// A call to the control plane failed.
#[derive(Debug, thiserror::Error)]
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
    /// Credentials or the login behind them have expired.
    #[error("AWS credentials have expired: {0}")]
    Expired(String),
    /// No region is configured.
    #[error("no AWS region is configured")]
    NoRegion,
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
    /// The service could not be reached, or did not answer as it should.
    #[error("{operation} got no answer: {message}")]
    Unreachable {
        /// The API operation.
        operation: &'static str,
        /// The chain of causes, in words.
        message: String,
    },
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
}
