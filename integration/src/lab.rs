//! A running lab.

use std::{io, net::SocketAddr, path::Path, sync::Arc, time::Duration};

use tokio::sync::watch;

use crate::{
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

/// A local Session Manager with one node. Dropping it ends everything and removes its temporary files, at once as far as the
/// runtime lets it; [`shutdown`](Self::shutdown) waits until that is done.
#[derive(Debug)]
pub struct Lab {
    pub(crate) home: Home,
    pub(crate) tasks: Tasks,
    pub(crate) events: Events,
    pub(crate) gateway: Arc<Gateway>,
    pub(crate) client_key: AccessKey,
    pub(crate) node_key: AccessKey,
    /// None where somebody else's server is behind the node.
    pub(crate) user: Option<String>,
    pub(crate) sshd: Option<SocketAddr>,
    pub(crate) registration: Option<Arc<Registration>>,
    faults: watch::Sender<Faults>,
    endpoint_url: String,
    node: String,
}

impl Lab {
    /// A lab with the default settings: nothing goes wrong, and the embedded SSH server is behind the node.
    pub fn builder() -> LabBuilder {
        LabBuilder::default()
    }

    pub(crate) fn new(home: Home, address: SocketAddr, node: &str, faults: Faults, token_lifetime: Duration) -> Self {
        let (tasks, events) = (Tasks::default(), Events::default());
        let (faults, switches) = watch::channel(faults);
        Self {
            home,
            gateway: Arc::new(Gateway::new(tasks.clone(), events.clone(), switches, token_lifetime)),
            tasks,
            events,
            client_key: AccessKey::random(),
            node_key: AccessKey::random(),
            user: None,
            sshd: None,
            registration: None,
            faults,
            endpoint_url: format!("http://{address}"),
            node: node.to_owned(),
        }
    }

    /// Where the SSM API is: `http://127.0.0.1:PORT`.
    pub fn endpoint_url(&self) -> &str {
        &self.endpoint_url
    }

    /// The region that requests must be signed for.
    pub fn region(&self) -> &str {
        REGION
    }

    /// The access key id of this run.
    pub fn access_key_id(&self) -> &str {
        &self.client_key.id
    }

    /// The secret that goes with it.
    pub fn secret_access_key(&self) -> &str {
        &self.client_key.secret
    }

    /// The session token that goes with it.
    pub fn session_token(&self) -> &str {
        self.client_key.token.as_deref().unwrap_or_default()
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

    /// Where a client may keep the node's host key; absent at first.
    pub fn known_hosts(&self) -> &Path {
        &self.home.known_hosts
    }

    /// The login directory of the embedded server's user; with any other server merely a scratch directory.
    pub fn home(&self) -> &Path {
        &self.home.login
    }

    /// The environment that points an AWS client, and the product's commands, at this lab and at nothing of the user's.
    /// What [`env_remove`](Self::env_remove) names must be removed besides.
    pub fn env(&self) -> Vec<(String, String)> {
        let path = |path: &Path| path.to_string_lossy().into_owned();
        let mut env = vec![
            ("AWS_ENDPOINT_URL_SSM", self.endpoint_url.clone()),
            ("AWS_REGION", REGION.to_owned()),
            ("AWS_ACCESS_KEY_ID", self.client_key.id.clone()),
            ("AWS_SECRET_ACCESS_KEY", self.client_key.secret.clone()),
            ("AWS_SESSION_TOKEN", self.session_token().to_owned()),
            ("AWS_EC2_METADATA_DISABLED", "true".to_owned()),
            ("AWS_CONFIG_FILE", path(&self.home.empty)),
            ("AWS_SHARED_CREDENTIALS_FILE", path(&self.home.empty)),
            ("SSMSSH_KNOWN_HOSTS", path(&self.home.known_hosts)),
            ("SSM_LAB_NODE", self.node.clone()),
        ];
        if let Some(user) = &self.user {
            env.push(("SSMSSH_USER", user.clone()));
            env.push(("SSMSSH_IDENTITY", path(&self.home.identity)));
        }
        env.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }

    /// Variables that would lead a client elsewhere than [`env`](Self::env) does.
    pub fn env_remove() -> &'static [&'static str] {
        &["AWS_PROFILE", "AWS_DEFAULT_PROFILE", "AWS_ENDPOINT_URL", "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS"]
    }

    /// How a real agent registers with this run; none unless the lab has a listener for one.
    pub fn activation(&self) -> Option<Activation> {
        self.registration.as_ref().map(|it| Activation { code: it.code.clone(), id: it.id.clone() })
    }

    /// Waits until the node is connected, as it is from the start unless a real agent is to be the node. Says whether it is
    /// within `limit`. Cancelling it changes nothing.
    pub async fn wait_for_node(&self, limit: Duration) -> bool {
        gateway::wait_until_connected(&self.gateway, &self.node, limit).await
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

    /// Changes what goes wrong from now on. `seed` counts for sessions to come, `cut_every` for sockets to come.
    pub fn set_faults(&self, faults: Faults) {
        self.faults.send_replace(faults);
    }

    /// Cuts every client's socket now.
    pub fn cut_clients(&self, cut: Cut) {
        self.gateway.cut_clients(cut);
    }

    /// Cuts the node's socket of every session now.
    pub fn cut_nodes(&self, cut: Cut) {
        self.gateway.cut_nodes(cut);
    }

    /// Ends everything and waits for it. Cancelling it is the same as dropping the lab.
    pub async fn shutdown(self) {
        self.tasks.shutdown().await;
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.tasks.abort();
    }
}
