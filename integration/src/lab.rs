//! A running lab.

use std::{
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tokio::{net::TcpSocket, sync::watch};

use crate::{
    access::{Access, CredentialSource, Credentials},
    builder::LabBuilder,
    events::{Event, Events},
    faults::{Cut, Faults},
    gateway::{self, Gateway},
    home::Home,
    openssh::OpenSshError,
    registration::Registration,
    sigv4::AccessKey,
    tasks::Tasks,
    tls::TlsError,
};

pub(crate) const REGION: &str = "us-east-1";

/// The lab could not be started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LabError {
    /// No temporary directory, or no keys in it.
    #[error("the lab's temporary directory could not be made")]
    Home(#[source] io::Error),
    /// No loopback port to listen on.
    #[error("the lab cannot listen on 127.0.0.1")]
    Listen(#[source] io::Error),
    /// The SSH server behind the node did not start.
    #[error("the embedded SSH server could not be started")]
    Sshd(#[source] io::Error),
    /// There is no OpenSSH server to start, or it does not start.
    #[error("the OpenSSH server could not be started")]
    OpenSsh(#[source] OpenSshError),
    /// The listener for a real agent cannot use its certificate.
    #[error("the agent's listener cannot be started")]
    Tls(#[source] TlsError),
    /// The node model did not reach its gateway.
    #[error("the lab's node did not connect to its gateway in time")]
    Node,
}

/// What `amazon-ssm-agent -register -code … -id …` must be given.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Activation {
    /// The activation code.
    pub code: String,
    /// The activation id.
    pub id: String,
}

/// A local Session Manager with one node, or with more. Dropping it ends everything and removes its temporary files, at once as far as the
/// runtime lets it; [`shutdown`](Self::shutdown) waits until that is done.
#[derive(Debug)]
pub struct Lab {
    pub(crate) home: Home,
    pub(crate) tasks: Tasks,
    pub(crate) events: Events,
    pub(crate) gateway: Arc<Gateway>,
    pub(crate) access: Arc<Access>,
    pub(crate) credential_source: CredentialSource,
    pub(crate) node_key: AccessKey,
    /// None where somebody else's server is behind the node.
    pub(crate) user: Option<String>,
    pub(crate) sshd: Option<SocketAddr>,
    pub(crate) registration: Option<Arc<Registration>>,
    /// Of the node model alone, so that it can vanish.
    pub(crate) node_tasks: Tasks,
    first_credentials: Credentials,
    faults: watch::Sender<Faults>,
    endpoint_url: String,
    node: String,
}

impl Lab {
    /// A lab with the default settings: nothing goes wrong, and the embedded SSH server is behind the node.
    pub fn builder() -> LabBuilder {
        LabBuilder::default()
    }

    pub(crate) fn new(home: Home, address: SocketAddr, access: Access, settings: &LabBuilder) -> Self {
        let (tasks, events) = (Tasks::default(), Events::default());
        let (faults, switches) = watch::channel(settings.faults.clone());
        Self {
            home,
            gateway: Arc::new(Gateway::new(tasks.clone(), events.clone(), switches, settings.token_lifetime)),
            tasks,
            node_tasks: Tasks::default(),
            events,
            first_credentials: Credentials::from(&access.key()),
            access: Arc::new(access),
            credential_source: settings.credential_source,
            node_key: AccessKey::random(),
            user: None,
            sshd: None,
            registration: None,
            faults,
            endpoint_url: format!("http://{address}"),
            node: settings.node.clone(),
        }
    }

    /// A port that refuses connections for as long as the lab lives: bound, so that nobody else gets it, and not listening.
    pub(crate) fn closed_port(&self) -> io::Result<SocketAddr> {
        let socket = TcpSocket::new_v4()?;
        socket.bind(SocketAddr::from(([127, 0, 0, 1], 0)))?;
        let address = socket.local_addr()?;
        self.tasks.spawn(async move {
            let _bound = socket;
            std::future::pending::<()>().await;
        });
        Ok(address)
    }

    pub(crate) fn watch_faults(&self) -> watch::Receiver<Faults> {
        self.faults.subscribe()
    }

    /// Where the SSM API is: `http://127.0.0.1:PORT`.
    pub fn endpoint_url(&self) -> &str {
        &self.endpoint_url
    }

    /// The region that requests must be signed for.
    pub fn region(&self) -> &str {
        REGION
    }

    /// The access key id that the run began with.
    pub fn access_key_id(&self) -> &str {
        &self.first_credentials.access_key_id
    }

    /// The secret that goes with it.
    pub fn secret_access_key(&self) -> &str {
        &self.first_credentials.secret_access_key
    }

    /// The session token that goes with it.
    pub fn session_token(&self) -> &str {
        &self.first_credentials.session_token
    }

    /// The credentials that were made last.
    pub fn credentials(&self) -> Credentials {
        Credentials::from(&self.access.key())
    }

    /// Lets the credentials expire: the API answers `ExpiredTokenException`, and the upgrade 403.
    pub fn expire_credentials(&self) {
        self.access.expire();
    }

    /// Makes new credentials, which [`CredentialSource::File`] and [`CredentialSource::Process`] give from now on. The old
    /// ones have expired.
    pub fn rotate_credentials(&self) -> io::Result<Credentials> {
        self.access.rotate().map(|key| Credentials::from(&key))
    }

    /// Lets the next `calls` of StartSession, ResumeSession and TerminateSession be answered by `ThrottlingException`.
    pub fn throttle(&self, calls: u32) {
        self.access.throttle(calls);
    }

    /// The node's id.
    pub fn node(&self) -> &str {
        &self.node
    }

    /// Whom the SSH server behind the node lets in; empty where that is somebody else's server.
    pub fn user(&self) -> &str {
        self.user.as_deref().unwrap_or_default()
    }

    /// Where the SSH server behind the node listens, for a client that wants to leave Session Manager out of it.
    pub fn sshd_address(&self) -> SocketAddr {
        self.sshd.unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 22)))
    }

    /// The private key of [`user`](Self::user), made for this run, mode 0400.
    pub fn identity(&self) -> &Path {
        &self.home.identity
    }

    /// The host keys of the nodes whose SSH servers the lab has started. Clients may add to it.
    pub fn known_hosts(&self) -> &Path {
        &self.home.known_hosts
    }

    /// The login directory of the embedded server's user; with any other server merely a scratch directory.
    pub fn home(&self) -> &Path {
        &self.home.login
    }

    /// The login directory on a node that [`LabBuilder::another_node`] has added.
    pub fn home_of(&self, node: &str) -> PathBuf {
        self.home.login_of(node)
    }

    /// The environment that points an AWS client, and the product's commands, at this lab and at nothing of the user's.
    /// What [`env_remove`](Self::env_remove) names must be removed before.
    pub fn env(&self) -> Vec<(String, String)> {
        let path = |path: &Path| path.to_string_lossy().into_owned();
        let mut env = vec![
            ("AWS_ENDPOINT_URL_SSM", self.endpoint_url.clone()),
            ("AWS_REGION", REGION.to_owned()),
            // For tools that know the older name only.
            ("AWS_DEFAULT_REGION", REGION.to_owned()),
            ("AWS_EC2_METADATA_DISABLED", "true".to_owned()),
            ("SSMSSH_KNOWN_HOSTS", path(&self.home.known_hosts)),
            ("SSM_LAB_NODE", self.node.clone()),
        ];
        env.extend(self.credentials_env());
        if let Some(user) = &self.user {
            env.push(("SSMSSH_USER", user.clone()));
            env.push(("SSMSSH_IDENTITY", path(&self.home.identity)));
        }
        env.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }

    fn credentials_env(&self) -> Vec<(&'static str, String)> {
        let text = |path: &Path| path.to_string_lossy().into_owned();
        let (mut config, mut shared) = (text(&self.home.empty), text(&self.home.empty));
        let mut env = Vec::new();
        match self.credential_source {
            CredentialSource::Environment => {
                let credentials = self.credentials();
                env.push(("AWS_ACCESS_KEY_ID", credentials.access_key_id));
                env.push(("AWS_SECRET_ACCESS_KEY", credentials.secret_access_key));
                env.push(("AWS_SESSION_TOKEN", credentials.session_token));
            }
            CredentialSource::File => shared = text(&self.access.credentials_file()),
            CredentialSource::Process => config = text(&self.access.config_file()),
        }
        env.extend([("AWS_CONFIG_FILE", config), ("AWS_SHARED_CREDENTIALS_FILE", shared)]);
        env
    }

    /// Variables that would lead a client elsewhere than [`env`](Self::env) does.
    pub fn env_remove() -> &'static [&'static str] {
        &[
            "AWS_PROFILE",
            "AWS_DEFAULT_PROFILE",
            "AWS_ENDPOINT_URL",
            "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS",
            "AWS_ACCESS_KEY_ID",
            "AWS_SECRET_ACCESS_KEY",
            "AWS_SESSION_TOKEN",
        ]
    }

    /// How a real agent registers with this run; none unless the lab has a listener for one.
    pub fn activation(&self) -> Option<Activation> {
        self.registration.as_ref().map(|it| Activation { code: it.code.clone(), id: it.id.clone() })
    }

    /// Waits until the node is connected, as it is from the start unless a real agent is to be the node. Says whether it is
    /// within `limit`. Cancelling it changes nothing.
    pub async fn wait_for_node(&self, limit: Duration) -> bool {
        self.wait_for(&self.node, limit).await
    }

    pub(crate) async fn wait_for(&self, node: &str, limit: Duration) -> bool {
        gateway::wait_until_connected(&self.gateway, node, limit).await
    }

    /// SSM sessions that are started and not over.
    pub fn open_sessions(&self) -> usize {
        self.gateway.open_sessions()
    }

    /// What the gateway saw and did so far, in order.
    pub fn events(&self) -> Vec<Event> {
        self.events.all()
    }

    /// What goes wrong at present.
    pub fn faults(&self) -> Faults {
        self.faults.borrow().clone()
    }

    /// Changes what goes wrong from now on. `seed` counts for sessions to come, `cut_every` for sockets to come, and the
    /// cut itself for cuts to come.
    pub fn set_faults(&self, faults: Faults) {
        self.faults.send_replace(faults);
    }

    /// Cuts every client's socket now.
    pub fn cut_clients(&self, cut: Cut) {
        self.gateway.cut_clients(cut);
    }

    /// Cuts the client's socket of one session now: 1 is the first session that was started. Says whether it has one.
    pub fn cut_client(&self, session: usize, cut: Cut) -> bool {
        self.gateway.cut_client(session, cut)
    }

    /// Ends one session, 1 being the first that was started, with this text in `channel_closed`. Says whether it was not
    /// over before.
    pub fn end_session(&self, session: usize, output: &str) -> bool {
        self.gateway.end_session(session, output)
    }

    /// Forgets every session: ResumeSession and TerminateSession answer that there is none. Their sockets stay until they
    /// are cut.
    pub fn forget_sessions(&self) {
        self.gateway.forget_sessions();
    }

    /// Cuts the node's socket of every session now.
    pub fn cut_nodes(&self, cut: Cut) {
        self.gateway.cut_nodes(cut);
    }

    /// Ends every session with this text in `channel_closed`, as the service does when it has had enough.
    pub fn end_sessions(&self, output: &str) {
        self.gateway.end_sessions(output);
    }

    /// Lets the node vanish as a machine without power does: its control channel, its sessions' sockets and its ports'
    /// connections are gone, and nobody says so to the client. Embedded and OpenSSH servers go on.
    pub fn vanish_node(&self) {
        self.node_tasks.abort();
    }

    /// Ends everything and waits for it. Cancelling it is the same as dropping the lab.
    pub async fn shutdown(self) {
        self.node_tasks.shutdown().await;
        self.tasks.shutdown().await;
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.node_tasks.abort();
        self.tasks.abort();
    }
}
