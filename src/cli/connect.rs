//! From settings to a connection: what both commands do before they part.

use std::error::Error;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::{Mutex, OnceCell};
use tokio::time::timeout;

use super::identity;
use super::notices::Notices;
use super::options::RekeyLimit;
use super::report::{self, CliError};
use super::settings::ConnectionSettings;
use super::target::Target;
use super::waiting::Waiting;
use crate::client::{Client, ClientError, Connection};
use crate::ssh::{HostKey, HostKeyCheck, Identity, SessionBuilder, SshError, StrictHostKeyChecking};
use crate::stream::TargetId;

/// How long a key is used where only an amount of data was named.
const REKEY_TIME: Duration = Duration::from_hours(1);

/// The first wait: a region that nothing names is asked of the instance.
const CONFIGURATION: &str = "the AWS configuration";

/// Waits in which no SSM session can have been started yet. The first one is not among them: with `-q` nobody tells what
/// comes after it.
const WITHOUT_SESSION: [&str; 3] = ["the AWS credentials", identity::AGENT, identity::KEY];

/// Longest wait, after a signal, for an API that has not answered StartSession yet.
const START_WAIT: Duration = Duration::from_millis(300);

/// Says in one line that a signal ended the wait for a connection, and how long to wait for the session that may have
/// been started.
pub(crate) fn interrupted(what: Option<&str>, is_quiet: bool, usual: Duration) -> Duration {
    let Some(what) = what else { return usual };
    if !is_quiet {
        report::note(&format!("stopped while waiting for {what}"));
    }
    match what {
        what if WITHOUT_SESSION.contains(&what) => Duration::ZERO,
        what if what.contains("StartSession") => usual.min(START_WAIT),
        _ => usual,
    }
}

/// Longest wait for SSM sessions to end at the end of the process.
pub(crate) const LAST_WAIT: Duration = Duration::from_secs(2);

/// Connects to nodes. Keys are unlocked and the AWS configuration is read once, for the first of them.
///
/// Dropping it ends nothing; see [`Dialer::wait_idle`].
#[derive(Debug)]
pub(crate) struct Dialer<'a> {
    settings: &'a ConnectionSettings,
    keys: Mutex<Option<Vec<Identity>>>,
    client: OnceCell<Client>,
    notices: Notices,
}

impl<'a> Dialer<'a> {
    pub(crate) fn new(settings: &'a ConnectionSettings) -> Self {
        let notices = Notices::new(settings.log_level);
        Self { settings, keys: Mutex::default(), client: OnceCell::new(), notices }
    }

    /// Logs in at `target`. `interactive` is for people: little output on its way, so that Ctrl-C acts at once.
    ///
    /// Cancelling it leaves to [`Dialer::wait_idle`] what was begun.
    pub(crate) async fn connect(&self, target: &Target, interactive: bool) -> Result<Connection, CliError> {
        // Before anything is asked of the network: a key that may not be used costs no session.
        let session = self.session(target, &self.keys().await?, interactive);
        let _waiting = Waiting::begin(CONFIGURATION, self.settings.tells_waits());
        let connecting = self.dial(target, session, interactive);
        let connection = match self.settings.connect_timeout {
            Some(limit) => timeout(limit, connecting).await.unwrap_or(Err(CliError::ConnectTimeout(limit)))?,
            None => connecting.await?,
        };
        self.tell_host_key(&connection, target);
        Ok(connection)
    }

    async fn keys(&self) -> Result<Vec<Identity>, CliError> {
        let mut keys = self.keys.lock().await;
        if keys.is_none() {
            *keys = Some(identity::load(self.settings).await?);
        }
        Ok(keys.clone().unwrap_or_default())
    }

    /// Nothing more is connected to, but by a [`Redialer`], which has keys of its own: wiped from memory, they are in nobody's
    /// reach.
    pub(crate) async fn forget_keys(&self) {
        *self.keys.lock().await = None;
    }

    /// Outages are told from the beginning: those of the login too.
    async fn dial(&self, target: &Target, session: SessionBuilder, interactive: bool) -> Result<Connection, CliError> {
        let (settings, node) = (self.settings, &target.node);
        let user = settings.user_at(target);
        tracing::info!(target: "ssmssh::detail", "node {node}, port {}, user {user}", settings.port);
        tracing::info!(target: "ssmssh::detail", "known hosts in {}", known_hosts(settings));
        let client = self.client.get_or_try_init(|| self.client()).await?;
        let opening = client.begin(&target.node, self.settings.port);
        self.notices.follow(opening.handle().connection(), interactive);
        Ok(client.login(opening.await.map_err(ClientError::from)?, session).await?)
    }

    async fn client(&self) -> Result<Client, CliError> {
        let settings = self.settings;
        let mut builder = Client::builder().stream_options(settings.stream_options()).network(settings.network());
        if let Some(profile) = &settings.profile {
            builder = builder.profile(profile);
        }
        if let Some(region) = &settings.region {
            builder = builder.region(region);
        }
        if let Some(url) = &settings.endpoint_url {
            builder = builder.endpoint_url(url);
        }
        if let Some(reason) = &settings.reason {
            builder = builder.reason(reason);
        }
        Ok(builder.build().await?)
    }

    fn session(&self, target: &Target, keys: &[Identity], interactive: bool) -> SessionBuilder {
        let session = session(self.settings, target, keys).interactive(interactive);
        if self.settings.is_quiet() { session } else { session.on_banner(report::banner) }
    }

    /// Who is logged in where, by what was asked for.
    pub(crate) fn account(&self, target: &Target) -> String {
        format!("{}@{}:{}", self.settings.user_at(target), target.node, self.settings.port)
    }

    /// What it takes to connect to `target` again, after `connection`. Nothing is asked for a second time.
    pub(crate) fn again(&self, target: &Target, connection: &Connection) -> Option<Redialer> {
        Some(Redialer {
            settings: self.settings.clone(),
            client: self.client.get()?.clone(),
            keys: self.keys.try_lock().ok()?.clone()?,
            target: target.clone(),
            host_key: connection.host_key()?.clone(),
            has_warned: AtomicBool::new(false),
            notices: self.notices.clone(),
        })
    }

    fn tell_host_key(&self, connection: &Connection, target: &Target) {
        if let Some(key) = connection.host_key() {
            tracing::info!(target: "ssmssh::detail", "host key {} {}", key.key_type, key.fingerprint);
        }
        let Some(key) = connection.host_key().filter(|_| !self.settings.is_quiet()) else { return };
        let node = &target.node;
        if let Some(file) = self.settings.known_hosts.first().filter(|_| key.newly_recorded) {
            let file = file.display();
            report::note(&format!("new host key of {node}: {} {}, kept in {file}", key.key_type, key.fingerprint));
        } else if !key.is_recorded && self.settings.strict_host_key_checking != StrictHostKeyChecking::Off {
            report::note(&format!("new host key of {node}: {} {}, not recorded", key.key_type, key.fingerprint));
            report::advise("`--known-hosts FILE` names a file that it can be recorded in");
        }
    }

    /// Waits, for so long at most, until nothing that was begun is open any more.
    pub(crate) async fn wait_idle(&self, limit: Duration) {
        if limit.is_zero() {
            return;
        }
        if let Some(client) = self.client.get()
            && timeout(limit, client.wait_ended()).await.is_err()
            && limit > START_WAIT
            && !self.settings.is_quiet()
        {
            report::note("warning: the SSM session may stay open until the service's idle time-out");
        }
    }
}

/// Connects once more to a node that has let us in: with the keys that are unlocked already, to the same host key.
#[derive(Debug)]
pub(crate) struct Redialer {
    settings: ConnectionSettings,
    client: Client,
    keys: Vec<Identity>,
    target: Target,
    host_key: HostKey,
    has_warned: AtomicBool,
    notices: Notices,
}

impl Redialer {
    pub(crate) fn node(&self) -> &TargetId {
        &self.target.node
    }

    /// Cancelling it leaves nothing behind.
    pub(crate) async fn connect(&self, compression: bool) -> Result<Connection, Box<dyn Error + Send + Sync>> {
        let check = host_keys(&self.settings, &self.target).pinned(self.host_key.clone());
        let session = session(&self.settings, &self.target, &self.keys).host_keys(check).compression(compression);
        let opening = self.client.begin(&self.target.node, self.settings.port);
        self.notices.follow(opening.handle().connection(), false);
        let connected = self.client.login(opening.await.map_err(ClientError::from)?, session).await;
        Ok(connected.inspect_err(|error| {
            if matches!(error, ClientError::Ssh(SshError::HostKey(_))) {
                self.warn_of_host_key();
            }
        })?)
    }

    /// Once: further tries are likely to meet the same.
    fn warn_of_host_key(&self) {
        if !self.settings.is_quiet() && !self.has_warned.swap(true, Ordering::Relaxed) {
            let node = &self.target.node;
            report::note(&format!(
                "warning: a further connection to {node} shows another host key than the first, and is not used"
            ));
        }
    }
}

fn session(settings: &ConnectionSettings, target: &Target, keys: &[Identity]) -> SessionBuilder {
    let mut session = SessionBuilder::new(settings.user_at(target)).host_keys(host_keys(settings, target));
    // Nothing waits for a channel while it holds another: a copy that hashes over there does without.
    session = session.compression(settings.compression == Some(true)).channel_wait(Duration::ZERO);
    if let Some(interval) = settings.server_alive_interval {
        session = session.keepalive(interval).keepalive_max(settings.server_alive_count_max);
    }
    if settings.rekey != RekeyLimit::default() {
        let RekeyLimit { bytes, time } = settings.rekey;
        session = session.rekey_after(bytes.unwrap_or(usize::MAX), time.unwrap_or(REKEY_TIME));
    }
    keys.iter().cloned().fold(session, SessionBuilder::identity)
}

/// The files of known hosts, for a message.
fn known_hosts(settings: &ConnectionSettings) -> String {
    let files: Vec<_> = settings.known_hosts.iter().map(|path| path.display().to_string()).collect();
    if files.is_empty() { "no file".to_owned() } else { files.join(", ") }
}

fn host_keys(settings: &ConnectionSettings, target: &Target) -> HostKeyCheck {
    HostKeyCheck::with_files(
        settings.strict_host_key_checking,
        settings.known_hosts.clone(),
        target.node.as_str(),
        settings.port.get(),
    )
}

/// Removes what is on record of the target's host key.
pub(crate) async fn forget(settings: &ConnectionSettings, target: &Target) -> Result<(), CliError> {
    let forgotten = host_keys(settings, target).forget().await;
    let removed = forgotten.map_err(|error| CliError::Client(SshError::from(error).into()))?;
    let (node, port, files) = (&target.node, settings.port, known_hosts(settings));
    if removed == 0 {
        return Err(CliError::NothingToForget(format!("{node}, port {port}, is not in {files}")));
    }
    report::note(&format!("removed {removed} host key{} of {node} from {files}", if removed == 1 { "" } else { "s" }));
    Ok(())
}

/// Ends a connection in order. What has been done on it stays done, so a failure is only noted.
pub(crate) async fn close(connection: Connection) {
    if let Err(error) = connection.close().await {
        tracing::debug!(%error, "the connection did not end in order");
    }
}
