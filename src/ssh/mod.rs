//! An SSH client over any byte stream.
//!
//! ```no_run
//! # async fn example(stream: tokio::net::TcpStream) -> Result<(), Box<dyn std::error::Error>> {
//! use ssmssh::ssh::{HostKeyCheck, KeyFile, SessionBuilder, StrictHostKeyChecking};
//!
//! let key = KeyFile::open("key.pem")?.decode(None)?;
//! let hosts = HostKeyCheck::new(StrictHostKeyChecking::AcceptNew, "known_hosts".into(), "node", 22);
//! let session = SessionBuilder::new("ec2-user").identity(key).host_keys(hosts).connect(stream).await?;
//! let output = session.command("uname -a").output().await?;
//! assert!(output.status.success());
//! session.close().await?;
//! # Ok(())
//! # }
//! ```
//!
//! The protocol is russh's. What is here is everything around it: which keys are read and how they are tried, which host
//! keys are believed, and commands in the manner of `std::process`.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError, atomic::Ordering},
    time::{Duration, Instant},
};

use russh::{Disconnect, client::Handle};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::watch,
};

mod agent;
mod algorithms;
mod auth;
mod backlog;
mod channel;
mod command;
mod error;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod handler;
mod host_key;
mod identity;
mod key;
mod known_hosts;
mod opening;
mod pipe;
mod pty;
pub(crate) mod quote;
mod request;
mod transport;
mod turns;

pub mod sftp;

use handler::{Events, HandlerError, Shown};
use opening::Opening;
use transport::{Transport, TransportState};

pub use agent::{AgentError, AgentKey, SshAgent};
pub use command::{Child, ChildStderr, ChildStdin, ChildStdout, Command, ExitStatus, Output, Subsystem};
pub use error::{AuthenticationError, Lost, SshError};
pub use host_key::{HostKey, HostKeyCheck, HostKeyError, StrictHostKeyChecking};
pub use identity::Identity;
pub use key::{KeyError, KeyFile, PrivateKey};
pub use pty::{Pty, PtyMode};
pub use transport::TransportError;

/// Longest wait for a server to let us in, unless told otherwise: what OpenSSH's server grants (`LoginGraceTime`).
const LOGIN_TIMEOUT: Duration = Duration::from_mins(2);
/// Keepalives that may go unanswered, as in OpenSSH (`ServerAliveCountMax`).
const KEEPALIVE_MAX: usize = 3;
/// Longest wait for a turn to open a channel without one of the others ending, unless told otherwise.
const CHANNEL_WAIT: Duration = Duration::from_mins(10);
/// The longest time of an option: what is longer is no limit in practice, and moments that far away can still be told.
const LONGEST: Duration = Duration::from_hours(365 * 24);
/// The fewest bytes under one key: new ones cost two round trips, and a connection that agrees on nothing else goes nowhere.
const MIN_REKEY_BYTES: usize = 1 << 16;
const MIN_REKEY_TIME: Duration = Duration::from_secs(1);
/// The most bytes under one key: what RFC 4253, section 9, recommends.
const MAX_REKEY_BYTES: usize = 1 << 30;

/// The window of a session for people: what the server may have on its way when Ctrl-C is pressed.
///
/// Twice what a link of 1 MB/s carries in 100 ms, because russh opens it again when half is used.
const INTERACTIVE_WINDOW: u32 = 256 * 1024;
/// The window of a session for data, four seconds of a link of 1 MB/s.
const BULK_WINDOW: u32 = 4 * 1024 * 1024;
/// The largest packet that OpenSSH sends on a session channel.
const MAX_PACKET: u32 = 32 * 1024;
/// Messages of at most `MAX_PACKET` that wait inside russh for one channel's task.
const CHANNEL_QUEUE: usize = 32;

/// What a [`Session`] needs to know before it connects. A clone is good for another try, or for another server.
#[derive(Clone)]
pub struct SessionBuilder {
    user: String,
    identities: Vec<Identity>,
    host_keys: Option<HostKeyCheck>,
    on_banner: Option<Banner>,
    interactive: bool,
    keepalive: Keepalive,
    limits: russh::Limits,
    login_timeout: Duration,
    channel_wait: Duration,
    compression: bool,
}

/// When the server is asked for a sign of life, and when it is given up.
#[derive(Debug, Clone, Copy)]
struct Keepalive {
    interval: Option<Duration>,
    /// Zero is for ever.
    max: usize,
}

impl Keepalive {
    /// How long nothing has come when the server is given up: the questions, and the time for the last answer.
    fn patience(self) -> Duration {
        let rounds = u32::try_from(self.max.saturating_add(1)).unwrap_or(u32::MAX);
        self.interval.unwrap_or_default().saturating_mul(rounds)
    }
}

/// Shared by the sessions of all clones of a builder.
type Banner = Arc<Mutex<dyn FnMut(&str) + Send>>;

impl SessionBuilder {
    /// A session for `user` that knows no key yet.
    pub fn new(user: impl Into<String>) -> Self {
        Self {
            user: user.into(),
            identities: Vec::new(),
            host_keys: None,
            on_banner: None,
            interactive: false,
            keepalive: Keepalive { interval: None, max: KEEPALIVE_MAX },
            limits: russh::Limits::default(),
            login_timeout: LOGIN_TIMEOUT,
            channel_wait: CHANNEL_WAIT,
            compression: false,
        }
    }

    /// Adds a key to log in with: a [`PrivateKey`], or an [`AgentKey`] of an [`SshAgent`]. Keys are tried in the order
    /// given; servers allow about six. An agent is asked for a signature only with a key that the server would take, and
    /// one that does not sign within 60 s leaves the turn to the keys that are no agent's. A session keeps none of them: after
    /// the login a key is wiped from memory as soon as the caller has dropped its clones, those of the builder among them.
    #[must_use]
    pub fn identity(mut self, key: impl Into<Identity>) -> Self {
        self.identities.push(key.into());
        self
    }

    /// Says which host keys are accepted. Without it none is.
    #[must_use]
    pub fn host_keys(mut self, check: HostKeyCheck) -> Self {
        self.host_keys = Some(check);
        self
    }

    /// Receives the banner that some servers send before the login. Text from the network: do not print it to a terminal
    /// unfiltered. Default: it is ignored.
    #[must_use]
    pub fn on_banner(mut self, show: impl FnMut(&str) + Send + 'static) -> Self {
        self.on_banner = Some(Arc::new(Mutex::new(show)));
        self
    }

    /// Whether a person sits in front of it. The server may then have only 256 KiB of output on its way, so that Ctrl-C
    /// does not wait behind more than that; otherwise 4 MiB, for throughput. Default: no.
    #[must_use]
    pub fn interactive(mut self, yes: bool) -> Self {
        self.interactive = yes;
        self
    }

    /// Asks the server for a sign of life after so long without one, and gives up when it leaves more than
    /// [`keepalive_max`](Self::keepalive_max) of these questions unanswered. Default: never, the stream below is trusted to
    /// notice. Zero is never, as in OpenSSH; a time above a year counts as one.
    #[must_use]
    pub fn keepalive(mut self, interval: Duration) -> Self {
        self.keepalive.interval =
            Some(interval).filter(|interval| !interval.is_zero()).map(|interval| interval.min(LONGEST));
        self
    }

    /// How many questions of [`keepalive`](Self::keepalive) in a row may go unanswered; 0 is any number. Default 3. A stream
    /// that survives outages, as that of an SSM session does, is given up in the middle of one that lasts longer.
    #[must_use]
    pub fn keepalive_max(mut self, count: usize) -> Self {
        self.keepalive.max = count;
        self
    }

    /// Agrees new keys after so many bytes in either direction, or so long a time. Default 1 GiB, which is also the most,
    /// and one hour; at least 64 KiB and 1 s. Each time costs two round trips in which nothing else is sent. The server may ask
    /// sooner.
    #[must_use]
    pub fn rekey_after(mut self, bytes: usize, time: Duration) -> Self {
        let bytes = bytes.clamp(MIN_REKEY_BYTES, MAX_REKEY_BYTES);
        let time = time.clamp(MIN_REKEY_TIME, LONGEST);
        self.limits = russh::Limits::new(bytes, bytes, time);
        self
    }

    /// How long the key exchange and the login may take. Default 2 min, as long as OpenSSH's server waits for a login.
    #[must_use]
    pub fn login_timeout(mut self, limit: Duration) -> Self {
        self.login_timeout = limit.min(LONGEST);
        self
    }

    /// How long a command or subsystem waits for its turn where the server opens no more channels at a time (`MaxSessions` of
    /// OpenSSH, 10), counted anew whenever another one of this session ends. Turns come in the order in which they were asked
    /// for; a server that refuses while none is open is not asked again. Default 10 min. Zero is no wait: a refusal is the
    /// error at once. A time above a year counts as one.
    #[must_use]
    pub fn channel_wait(mut self, limit: Duration) -> Self {
        self.channel_wait = limit.min(LONGEST);
        self
    }

    /// Asks for compression of all that is sent and received (`zlib@openssh.com`, from the login on). A server that has
    /// none is used without; [`Session::is_compressed`] tells. It costs both sides processor time, about a second for
    /// every 50 to 200 MB, and brings nothing where the data is compressed already. Default: no.
    #[must_use]
    pub fn compression(mut self, yes: bool) -> Self {
        self.compression = yes;
        self
    }

    /// Speaks SSH over the stream: key exchange, check of the host key, login. Nothing but the key exchange is sent
    /// before the host key is accepted.
    ///
    /// Cancelling it gives up the connection and drops the stream.
    pub async fn connect<S>(self, stream: S) -> Result<Session, SshError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let limit = self.login_timeout;
        let login = tokio::time::timeout(limit, self.log_in(stream)).await;
        login.unwrap_or(Err(SshError::LoginTimeout(limit)))
    }

    async fn log_in<S>(self, stream: S) -> Result<Session, SshError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let started = Instant::now();
        request::check("the user's name", self.user.as_bytes())?;
        let check = Arc::new(self.host_keys.unwrap_or_else(HostKeyCheck::none));
        let preferred = algorithms::preferred(&check.known_types().await?, self.compression);
        let config = config(preferred, self.interactive, self.keepalive, self.limits);
        let (stream, transport) = Transport::new(stream);
        let cut = CutOnDrop(Some(Arc::clone(&transport)));
        let (events, shared) = Events::new(Arc::clone(&check), self.on_banner, transport, self.keepalive.patience());
        let (shown, compressed) = (events.shown(), events.compressed());
        let mut handle = match russh::client::connect_stream(Arc::new(config), stream, events).await {
            Ok(handle) => handle,
            Err(error) => return Err(shared.why(error).await),
        };
        let host_key = accept_host_key(&check, &shown, &handle).await?;
        stage("key exchange", started);
        let started = Instant::now();
        auth::authenticate(&mut handle, &shared, &self.user, &self.identities).await?;
        stage("authentication", started);
        cut.disarm();
        let opening = Opening::new(handle, Arc::clone(&shared), self.channel_wait);
        Ok(Session { opening, shared, host_key, is_compressed: compressed.load(Ordering::Relaxed) })
    }
}

/// The server's host key, judged once more by the signature made with it, and recorded if it is new. russh shows that
/// signature only when the key exchange is over; nothing of the login has been sent yet.
async fn accept_host_key(
    check: &HostKeyCheck,
    shown: &Mutex<Shown>,
    handle: &Handle<Events>,
) -> Result<Option<HostKey>, SshError> {
    let Shown { key, agreed } = std::mem::take(&mut *shown.lock().unwrap_or_else(PoisonError::into_inner));
    let (Some(key), Some(agreed), Some(binding)) = (key, agreed, handle.agent_session_binding()) else {
        return Err(HostKeyError::Malformed.into());
    };
    check.has_agreed_signature(binding.signature(), &agreed)?;
    Ok(Some(check.record(key).await?))
}

impl fmt::Debug for SessionBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionBuilder")
            .field("user", &self.user)
            .field("identities", &self.identities)
            .field("host_keys", &self.host_keys)
            .finish_non_exhaustive()
    }
}

fn config(
    preferred: russh::Preferred,
    interactive: bool,
    keepalive: Keepalive,
    limits: russh::Limits,
) -> russh::client::Config {
    russh::client::Config {
        client_id: russh::SshId::Standard(
            concat!("SSH-2.0-", env!("CARGO_PKG_NAME"), "_", env!("CARGO_PKG_VERSION")).into(),
        ),
        window_size: if interactive { INTERACTIVE_WINDOW } else { BULK_WINDOW },
        maximum_packet_size: MAX_PACKET,
        channel_buffer_size: CHANNEL_QUEUE,
        keepalive_interval: keepalive.interval,
        keepalive_max: keepalive.max,
        limits,
        preferred,
        ..russh::client::Config::default()
    }
}

/// Cuts the stream when a connection attempt is cancelled: russh's task would hold it until the server answers.
struct CutOnDrop(Option<Arc<TransportState>>);

impl CutOnDrop {
    fn disarm(mut self) {
        self.0 = None;
    }
}

impl Drop for CutOnDrop {
    fn drop(&mut self) {
        if let Some(transport) = &self.0 {
            transport.abort();
        }
    }
}

/// An authenticated SSH session: any number of commands and subsystems over one stream.
///
/// All that runs on it shares one connection, and russh reads that in one loop: a stream whose owner stops reading holds up
/// every other one once about a megabyte waits for it.
///
/// Dropping it leaves what runs on it alone; the connection ends when the last [`Child`] and [`Subsystem`] is dropped as
/// well, without a word to the server. [`Session::close`] is the orderly end.
pub struct Session {
    opening: Opening,
    shared: Arc<Shared>,
    host_key: Option<HostKey>,
    is_compressed: bool,
}

impl Session {
    /// A command for the user's shell on the remote side to run.
    pub fn command(&self, command: impl Into<Vec<u8>>) -> Command<'_> {
        Command::exec(self, command.into())
    }

    /// The user's login shell.
    pub fn shell(&self) -> Command<'_> {
        Command::shell(self)
    }

    /// Starts a subsystem, such as `sftp`. This takes one round trip: the answer to the request is not waited for, so a
    /// server that refuses it shows in the first read ([`SshError::RequestRefused`], see [`SshError::from_io`]).
    ///
    /// Where the server has no room for another channel it waits its turn, as [`Command::spawn`] does. A name with a NUL byte
    /// or longer than 255 KiB is refused here.
    ///
    /// Cancel safe: a channel that is open by then is closed.
    pub async fn subsystem(&self, name: &str) -> Result<Subsystem, SshError> {
        Subsystem::open(self, name).await
    }

    /// The server's host key, as it was accepted.
    pub fn host_key(&self) -> Option<&HostKey> {
        self.host_key.as_ref()
    }

    /// Whether the server compresses what it sends and expects the same of this side.
    pub fn is_compressed(&self) -> bool {
        self.is_compressed
    }

    /// Whether the connection has ended.
    pub fn is_closed(&self) -> bool {
        self.opening.is_closed()
    }

    /// Tells the server goodbye, shuts the stream down and drops it. Commands that still run lose their channel.
    ///
    /// Fails if the stream does while it is shut down. Cancelling it cuts the stream off and drops it.
    pub async fn close(self) -> Result<(), SshError> {
        let cut = CutOnDrop(Some(Arc::clone(&self.shared.transport)));
        let was_open = !self.is_closed();
        self.shared.closing.send_replace(true);
        if let Some(handle) = self.opening.stop().await {
            let _ = handle.disconnect(Disconnect::ByApplication, "", "").await;
            // The connection's task reports any end as an error; the stream's own is the one that counts.
            let _ = handle.await;
        }
        cut.disarm();
        match self.shared.transport.error() {
            Some(error) if was_open => Err(Lost::Transport(error).into()),
            _ => Ok(()),
        }
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("host_key", &self.host_key).finish_non_exhaustive()
    }
}

/// What a session, its channels and the connection's task have in common.
#[derive(Debug)]
struct Shared {
    transport: Arc<TransportState>,
    ended: watch::Receiver<Option<Lost>>,
    closing: watch::Sender<bool>,
    /// How long nothing has come when the server is given up.
    patience: Duration,
}

impl Shared {
    /// How the connection ended; waits for the connection's task to say so.
    async fn lost(&self) -> Lost {
        let ended = self.ended.clone().wait_for(Option::is_some).await.map_or(None, |ended| ended.clone());
        ended.unwrap_or_else(|| self.transport.error().map_or(Lost::Eof, Lost::Transport))
    }

    /// Why the connection's task gave up before there was a session.
    async fn why(&self, error: HandlerError) -> SshError {
        match error {
            HandlerError::HostKey(error) => error.into(),
            HandlerError::Russh(russh::Error::Disconnect) => self.lost().await.into(),
            HandlerError::Russh(error) => Lost::new(error, self.transport.error(), self.patience).into(),
        }
    }

    fn is_closing(&self) -> bool {
        *self.closing.borrow()
    }

    /// Returns when this side closes the session.
    async fn closing(&self) {
        let _ = self.closing.subscribe().wait_for(|closing| *closing).await;
    }
}

fn stage(stage: &'static str, since: Instant) {
    let elapsed = u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX);
    tracing::info!(target: concat!(env!("CARGO_PKG_NAME"), "::stage"), stage, elapsed_us = elapsed);
}
