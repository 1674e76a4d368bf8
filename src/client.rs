//! Where the two legs meet: SSH over the byte stream of an SSM session.

use std::collections::BTreeMap;
use std::fmt;
use std::num::NonZeroU16;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::aws::AwsServiceBuilder;
use crate::ssh::{Session, SessionBuilder, SshError};
use crate::stream::{
    self, Network, Opening, ServiceError, SessionId, SsmService, SsmStream, StartRequest, StreamError, StreamHandle,
    StreamOptions, TargetId,
};

/// Longest wait of [`Connection::close`] for the end of the SSM session. The stream's own limits for draining, for the
/// answer to its last message, and for the API call in place of one fit in.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(10);

/// Reaches managed nodes.
///
/// Cloning is cheap; clones share credentials and HTTP connections. Dropping it ends nothing that it has opened.
#[derive(Clone)]
pub struct Client {
    service: Arc<dyn SsmService>,
    options: StreamOptions,
    reason: Option<String>,
    open: Sessions,
}

/// Builds a [`Client`].
#[derive(Debug, Clone, Default)]
pub struct ClientBuilder {
    service: AwsServiceBuilder,
    options: StreamOptions,
    reason: Option<String>,
}

/// A node could not be reached, or not in the way that was asked for.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// The control plane did not agree.
    #[error(transparent)]
    Service(ServiceError),
    /// The byte stream failed; also when SSH noticed it first.
    #[error(transparent)]
    Stream(StreamError),
    /// SSH failed on a stream that was sound.
    #[error(transparent)]
    Ssh(SshError),
}

impl ClientBuilder {
    /// The profile of `~/.aws/config`. Its credentials are then used even where the environment holds others. Default:
    /// those of the environment, then the profile that `AWS_PROFILE` names, then `default`.
    #[must_use]
    pub fn profile(mut self, name: impl Into<String>) -> Self {
        self.service = self.service.profile(name);
        self
    }

    /// The region of the nodes. Default: `AWS_REGION`, then the profile's, then that of the EC2 instance this runs on.
    #[must_use]
    pub fn region(mut self, region: impl Into<String>) -> Self {
        self.service = self.service.region(region);
        self
    }

    /// The URL of the SSM API. Default: `AWS_ENDPOINT_URL_SSM`, `AWS_ENDPOINT_URL`, then the region's public one.
    #[must_use]
    pub fn endpoint_url(mut self, url: impl Into<String>) -> Self {
        self.service = self.service.endpoint_url(url);
        self
    }

    /// Why the sessions are opened, kept with each session's record in the account. Default: nothing.
    #[must_use]
    pub fn reason(mut self, text: impl Into<String>) -> Self {
        self.reason = Some(text.into());
        self
    }

    /// How connections leave this machine, the API's as well as the streams'. Default: [`Network::default`].
    #[must_use]
    pub fn network(mut self, network: Network) -> Self {
        self.service = self.service.network(network.clone());
        self.options.network = network;
        self
    }

    /// Options of the streams, their [`StreamOptions::network`] among them. Default: [`StreamOptions::default`].
    #[must_use]
    pub fn stream_options(mut self, options: StreamOptions) -> Self {
        self.options = options;
        self
    }

    /// Reads the AWS configuration. Nothing is asked of the service yet.
    ///
    /// Cancelling it has no effect outside the process.
    pub async fn build(self) -> Result<Client, ClientError> {
        let service = self.service.build().await.map_err(ClientError::Service)?;
        Ok(Client { options: self.options, reason: self.reason, ..Client::with_service(Arc::new(service)) })
    }
}

impl Client {
    /// A builder with nothing set: everything comes from the environment and the AWS configuration files.
    pub fn builder() -> ClientBuilder {
        ClientBuilder::default()
    }

    /// A client of a control plane other than AWS's, with default options for its streams.
    pub fn with_service(service: Arc<dyn SsmService>) -> Self {
        Self { service, options: StreamOptions::default(), reason: None, open: Sessions::default() }
    }

    /// Opens a byte stream to a TCP port of the node. One API call, one WebSocket and the data channel's handshake.
    ///
    /// Cancelling it leaves nothing behind: what was begun is ended in the background, for which [`Client::wait_idle`]
    /// waits.
    pub async fn open(&self, target: &TargetId, port: NonZeroU16) -> Result<SsmStream, ClientError> {
        Ok(self.begin(target, port).await?)
    }

    /// Begins to open a byte stream; the work goes on in the background. What it gives can be awaited, and has a handle to
    /// watch how it goes. Must be called within a Tokio runtime.
    ///
    /// Dropping it leaves nothing behind, as with [`Client::open`].
    pub fn begin(&self, target: &TargetId, port: NonZeroU16) -> Opening {
        let mut request = StartRequest::new(target.clone(), port);
        request.reason.clone_from(&self.reason);
        let opening = stream::open(Arc::clone(&self.service), request, self.options.clone());
        let handle = opening.handle();
        let open = self.open.begin(&handle);
        tokio::spawn(async move {
            let _ = handle.closed().await;
            open.ended();
            handle.gone().await;
            drop(open);
        });
        opening
    }

    /// Logs in over a stream to `port` of the node.
    ///
    /// Cancelling it leaves nothing behind, as with [`Client::open`].
    pub async fn connect(
        &self,
        target: &TargetId,
        port: NonZeroU16,
        session: SessionBuilder,
    ) -> Result<Connection, ClientError> {
        self.login(self.open(target, port).await?, session).await
    }

    /// Logs in over a stream that this client has opened. It takes as long as `session` allows.
    ///
    /// Cancelling it leaves nothing behind, as with [`Client::open`].
    pub async fn login(&self, stream: SsmStream, session: SessionBuilder) -> Result<Connection, ClientError> {
        let stream_handle = stream.handle();
        let cancelled = TerminateOnDrop(Some(stream_handle.clone()));
        let session = session.connect(stream).await;
        cancelled.disarm();
        Ok(Connection { session: session?, stream: stream_handle })
    }

    /// Waits until every SSM session that this client and its clones have opened is over at the service, cancelled and
    /// dropped ones too. A session that has been told to end is over up to 2 s later, when its node has drained; where the
    /// service does not say so within 5 s it counts as over. A process that is about to end has no need of that: see
    /// [`Client::wait_ended`].
    ///
    /// Cancel safe: give it a limit of your own, and ask [`Client::open_sessions`] for what is left after it.
    pub async fn wait_idle(&self) {
        self.open.wait(|_| true).await;
    }

    /// Waits until every SSM session that this client and its clones have opened is told to end, and its node or the
    /// service has confirmed that: nothing more depends on this process. Call it, with a limit, before the process ends:
    /// dropping a stream ends its SSM session in the background, which takes a round trip.
    ///
    /// Cancel safe.
    pub async fn wait_ended(&self) {
        self.open.wait(|session| !session.has_ended).await;
    }

    /// The SSM sessions of this client and its clones that the service has not ended yet, as far as they have an id: in use,
    /// or told to end. Empty after [`Client::wait_idle`].
    pub fn open_sessions(&self) -> Vec<SessionId> {
        let open = self.open.0.borrow();
        open.values().filter_map(|session| session.handle.session_id()).cloned().collect()
    }
}

/// Ends the SSM session of a login that is given up without delivering its last bytes, which are of use to nobody: where
/// nothing answers, as on a port without a server, that would only keep the session open until the process is gone.
struct TerminateOnDrop(Option<StreamHandle>);

impl TerminateOnDrop {
    fn disarm(mut self) {
        self.0 = None;
    }
}

impl Drop for TerminateOnDrop {
    fn drop(&mut self) {
        if let Some(stream) = &self.0 {
            stream.terminate();
        }
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("open", &self.open_sessions()).finish_non_exhaustive()
    }
}

/// The SSM sessions that are open or about to be, in the order in which they were begun.
#[derive(Debug, Clone, Default)]
struct Sessions(watch::Sender<BTreeMap<u64, OpenSession>>);

#[derive(Debug)]
struct OpenSession {
    handle: StreamHandle,
    /// It has been told to end, which was confirmed.
    has_ended: bool,
}

/// A session among those that are open. Dropping it takes it out.
struct Open {
    sessions: Sessions,
    number: u64,
}

impl Sessions {
    fn begin(&self, handle: &StreamHandle) -> Open {
        let mut number = 0;
        self.0.send_modify(|open| {
            number = open.last_key_value().map_or(0, |(last, _)| last + 1);
            open.insert(number, OpenSession { handle: handle.clone(), has_ended: false });
        });
        Open { sessions: self.clone(), number }
    }

    /// Waits until no session `counts`.
    async fn wait(&self, counts: impl Fn(&OpenSession) -> bool) {
        // Fails when the sender is gone, which `self` holds.
        let _ = self.0.subscribe().wait_for(|open| !open.values().any(&counts)).await;
    }
}

impl Open {
    fn ended(&self) {
        self.sessions.0.send_modify(|open| {
            if let Some(session) = open.get_mut(&self.number) {
                session.has_ended = true;
            }
        });
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.sessions.0.send_modify(|open| drop(open.remove(&self.number)));
    }
}

/// An SSH session over an SSM session.
///
/// Dropping it ends the SSH session once nothing runs on it any more, and then the SSM session, both in the background;
/// a process that ends at once should call [`Connection::close`], or [`Client::wait_ended`] after the drop.
#[derive(Debug)]
pub struct Connection {
    session: Session,
    stream: StreamHandle,
}

impl Connection {
    /// The SSM session, as it appears in the account's session history.
    pub fn session_id(&self) -> Option<&SessionId> {
        self.stream.session_id()
    }

    /// The stream below, to be watched: whether it is connected, and how it ended.
    pub fn stream(&self) -> &StreamHandle {
        &self.stream
    }

    /// Says goodbye to the SSH server, then waits until the node or the service has confirmed that the SSM session ends, so
    /// that a process that ends right after it leaves nothing open. Commands that still run get what a dropped
    /// [`Child`](crate::ssh::Child) gives them. It takes 10 s at most, after which both go on in the background.
    ///
    /// Cancelling it drops the connection.
    pub async fn close(self) -> Result<(), ClientError> {
        let closing = async {
            let goodbye = self.session.close().await;
            self.stream.closed().await?;
            Ok(goodbye?)
        };
        tokio::time::timeout(CLOSE_TIMEOUT, closing).await.unwrap_or(Ok(()))
    }

    /// Ends both sessions at once, without a goodbye and without what is still on its way. The service is told in the
    /// background, which [`Client::wait_ended`] waits for.
    pub fn abort(self) {
        self.stream.terminate();
    }
}

impl Deref for Connection {
    type Target = Session;

    fn deref(&self) -> &Session {
        &self.session
    }
}

impl From<StreamError> for ClientError {
    fn from(error: StreamError) -> Self {
        match error {
            StreamError::Service(error) => Self::Service(error),
            other => Self::Stream(other),
        }
    }
}

impl From<SshError> for ClientError {
    /// Where the stream below is what failed, its error is the one that tells something.
    fn from(error: SshError) -> Self {
        match StreamError::find(&error) {
            Some(below) => below.clone().into(),
            None => Self::Ssh(error),
        }
    }
}
