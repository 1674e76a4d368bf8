//! Where the two legs meet: SSH over the byte stream of an SSM session.

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
    /// How many SSM sessions are open or about to be.
    open: watch::Sender<usize>,
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
        Self { service, options: StreamOptions::default(), reason: None, open: watch::Sender::new(0) }
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
        let open = Open::begin(&self.open);
        let opening = stream::open(Arc::clone(&self.service), request, self.options.clone());
        let handle = opening.handle();
        tokio::spawn(async move {
            let _ = handle.closed().await;
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

    /// Waits until every SSM session that this client and its clones have opened is over, cancelled and dropped ones
    /// too. Call it, with a limit, before the process ends: dropping a stream ends its SSM session in the background,
    /// which takes a round trip.
    ///
    /// Cancel safe.
    pub async fn wait_idle(&self) {
        // Fails when the sender is gone, which `self` holds.
        let _ = self.open.subscribe().wait_for(|open| *open == 0).await;
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
        f.debug_struct("Client").field("open", &*self.open.borrow()).finish_non_exhaustive()
    }
}

/// An SSM session in the count of those that are open.
struct Open(watch::Sender<usize>);

impl Open {
    fn begin(count: &watch::Sender<usize>) -> Self {
        count.send_modify(|open| *open += 1);
        Self(count.clone())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.send_modify(|open| *open -= 1);
    }
}

/// An SSH session over an SSM session.
///
/// Dropping it ends the SSH session once nothing runs on it any more, and then the SSM session, both in the background;
/// a process that ends at once should call [`Connection::close`], or [`Client::wait_idle`] after the drop.
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

    /// Says goodbye to the SSH server, then waits until the SSM session is over, so that a process that ends right after
    /// it leaves nothing open. It takes 10 s at most, after which both go on in the background.
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
    /// background, which [`Client::wait_idle`] waits for.
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
