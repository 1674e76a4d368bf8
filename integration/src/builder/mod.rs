//! Settings of a lab, and how it is started.

mod faults;

use std::{
    collections::HashSet,
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use futures_util::future::join_all;
use russh::keys::PrivateKey;
use tokio::{net::TcpListener, time::sleep};

use crate::{
    access::{Access, CredentialSource},
    api::Service,
    faults::Faults,
    home::{self, Home},
    lab::{Lab, LabError, REGION},
    node::{Caller, Node, Pace},
    openssh,
    registration::Registration,
    server,
    services::Services,
    sshd::{self, Account},
    tls,
};

const DEFAULT_NODE: &str = "i-0123456789abcdef0";
const DEFAULT_HYBRID_NODE: &str = "mi-0123456789abcdef0";
const DEFAULT_AGENT_VERSION: &str = "3.3.0.0";
/// The only user of the embedded server.
const LAB_USER: &str = "lab";
/// A real agent needs 95 ms from StartSession to the first Output, most of it for starting a process.
const WORKER_START: Duration = Duration::from_millis(50);
/// Agent: `defaultZombieProcessTimeout`.
const CRASH_NOTICE: Duration = Duration::from_mins(1);
/// Within this the node must have connected to its own gateway.
const NODE_START: Duration = Duration::from_secs(10);

/// What listens behind the node's port 22.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
enum Server {
    #[default]
    Embedded,
    Existing(u16),
    /// With lines for its configuration.
    OpenSsh(Vec<String>),
    /// Nothing listens.
    Absent,
}

/// The listener for a real agent.
#[derive(Debug, Clone)]
struct AgentListener {
    port: u16,
    certificate: PathBuf,
    key: PathBuf,
}

/// Settings of a [`Lab`]. Beside what listens on its port 22, the node has the echo, discard and chargen services on their
/// ports 7, 9 and 19, for measuring a data channel without SSH in the way; any other port is that of this machine.
#[derive(Debug, Clone)]
#[must_use]
pub struct LabBuilder {
    server: Server,
    agent_listener: Option<AgentListener>,
    pub(crate) node: String,
    more_nodes: Vec<String>,
    agent_version: String,
    pace: Pace,
    worker_start: Duration,
    crash_notice: Duration,
    shell: PathBuf,
    pub(crate) token_lifetime: Duration,
    denied: HashSet<String>,
    unsigned_upgrades: bool,
    pub(crate) credential_source: CredentialSource,
    clock_ahead: Duration,
    credentials_lifetime: Option<Duration>,
    throttle: u32,
    connect_time: Duration,
    completion_lag: Duration,
    vanish_after: Option<Duration>,
    pub(crate) faults: Faults,
}

impl Default for LabBuilder {
    fn default() -> Self {
        Self {
            server: Server::default(),
            agent_listener: None,
            node: DEFAULT_NODE.to_owned(),
            more_nodes: Vec::new(),
            agent_version: DEFAULT_AGENT_VERSION.to_owned(),
            pace: Pace::default(),
            worker_start: WORKER_START,
            crash_notice: CRASH_NOTICE,
            shell: PathBuf::from("/bin/sh"),
            token_lifetime: Duration::from_mins(1),
            denied: HashSet::new(),
            unsigned_upgrades: false,
            credential_source: CredentialSource::default(),
            clock_ahead: Duration::ZERO,
            credentials_lifetime: None,
            throttle: 0,
            connect_time: Duration::ZERO,
            completion_lag: Duration::ZERO,
            vanish_after: None,
            faults: Faults::default(),
        }
    }
}

impl LabBuilder {
    /// Puts the SSH server that listens on this loopback port behind the node, instead of the embedded one. Who may log in
    /// there is that server's business: the lab gives neither user nor key.
    pub fn sshd(mut self, port: u16) -> Self {
        self.server = Server::Existing(port);
        self
    }

    /// Puts a real OpenSSH `sshd`, which the lab starts for itself, behind the node. It logs in the user that runs the lab,
    /// by the lab's one-time key, into that user's own home directory. Needs `openssh-server`, not its service.
    pub fn openssh(mut self) -> Self {
        if !matches!(self.server, Server::OpenSsh(_)) {
            self.server = Server::OpenSsh(Vec::new());
        }
        self
    }

    /// [`openssh`](Self::openssh) with a line of `sshd_config` that goes before the lab's own. May be repeated. A `Subsystem`
    /// line replaces the lab's, which is that of SFTP: `Subsystem none /bin/false` leaves a node without.
    pub fn openssh_option(mut self, line: impl Into<String>) -> Self {
        let mut lines = match self.server {
            Server::OpenSsh(lines) => lines,
            _ => Vec::new(),
        };
        lines.push(line.into());
        self.server = Server::OpenSsh(lines);
        self
    }

    /// Nothing listens on the node's port 22: the agent's worker dies of it, as the real one does.
    pub fn no_sshd(mut self) -> Self {
        self.server = Server::Absent;
        self
    }

    /// The node's id, `i-…` or `mi-…`. Default `i-0123456789abcdef0`.
    pub fn node(mut self, id: impl Into<String>) -> Self {
        self.node = id.into();
        self
    }

    /// One more node of this id, besides [`node`](Self::node): with an embedded SSH server and a login directory of its own
    /// ([`Lab::home_of`]), the same user and key, and the same faults. May be repeated.
    pub fn another_node(mut self, id: impl Into<String>) -> Self {
        self.more_nodes.push(id.into());
        self
    }

    /// Expects a real agent to be the node, instead of the node model, on this loopback port under TLS; the agent trusts the
    /// certificate if the system does. [`Lab::activation`] says how it registers; it becomes the node
    /// `mi-0123456789abcdef0` unless [`node`](Self::node) says otherwise afterwards. `start` does not wait for it:
    /// [`Lab::wait_for_node`] does. The agent finds its SSH server on its own port 22.
    pub fn agent_listener(mut self, port: u16, certificate: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Self {
        self.agent_listener = Some(AgentListener { port, certificate: certificate.into(), key: key.into() });
        self.node(DEFAULT_HYBRID_NODE)
    }

    /// The agent version that the node reports and behaves as. Default `3.3.0.0`.
    pub fn agent_version(mut self, version: impl Into<String>) -> Self {
        self.agent_version = version.into();
        self
    }

    /// The pace at which the node reads its port. Default [`Pace::Agent`].
    pub fn pace(mut self, pace: Pace) -> Self {
        self.pace = pace;
        self
    }

    /// What the node takes to start a session's process before it opens its data channel. Default 50 ms.
    pub fn worker_start(mut self, duration: Duration) -> Self {
        self.worker_start = duration;
        self
    }

    /// How long the node takes to report that a session's process has died, as it does when nothing listens on the port.
    /// Default 60 s, as the real agent.
    pub fn crash_notice(mut self, duration: Duration) -> Self {
        self.crash_notice = duration;
        self
    }

    /// What the node takes to connect to its port once the handshake is complete. Agents before 3.0.655.0 lose what comes
    /// meanwhile. Default none.
    pub fn connect_time(mut self, duration: Duration) -> Self {
        self.connect_time = duration;
        self
    }

    /// How long after sending `HandshakeComplete` the node still acknowledges and discards input. The real agent does so for
    /// microseconds, now and then for as long as a thread has to wait for its turn. Default none.
    pub fn completion_lag(mut self, duration: Duration) -> Self {
        self.completion_lag = duration;
        self
    }

    /// Lets the node vanish this long after its first session was started; see [`Lab::vanish_node`]. Default never.
    pub fn vanish_after(mut self, duration: Duration) -> Self {
        self.vanish_after = Some(duration);
        self
    }

    /// The shell of the embedded server's user. Default `/bin/sh`.
    pub fn shell(mut self, path: impl Into<PathBuf>) -> Self {
        self.shell = path.into();
        self
    }

    /// How long the token of StartSession and ResumeSession is good. Default 60 s.
    pub fn token_lifetime(mut self, duration: Duration) -> Self {
        self.token_lifetime = duration;
        self
    }

    /// Where a client within the lab finds its credentials. Default [`CredentialSource::Environment`].
    pub fn credential_source(mut self, source: CredentialSource) -> Self {
        self.credential_source = source;
        self
    }

    /// How long credentials are good before they expire and new ones take their place, which a client gets unless it has
    /// its own from the environment. Default: as long as the lab lives.
    pub fn credentials_lifetime(mut self, duration: Duration) -> Self {
        self.credentials_lifetime = Some(duration);
        self
    }

    /// Sets the clock of the API and the gateway ahead of this machine's. Default: they agree.
    pub fn clock_ahead(mut self, time: Duration) -> Self {
        self.clock_ahead = time;
        self
    }

    /// Lets the first `calls` of the API be answered by `ThrottlingException`. Default none.
    pub fn throttle(mut self, calls: u32) -> Self {
        self.throttle = calls;
        self
    }

    /// Lets IAM refuse an action: `ssm:StartSession`, `ssm:ResumeSession`, `ssm:TerminateSession` or
    /// `ssmmessages:OpenDataChannel`, which is the WebSocket upgrade.
    pub fn deny(mut self, action: impl Into<String>) -> Self {
        self.denied.insert(action.into());
        self
    }

    /// Takes clients that do not sign the WebSocket upgrade, as old ones do. Default off: they get 403.
    pub fn allow_unsigned_upgrades(mut self) -> Self {
        self.unsigned_upgrades = true;
        self
    }

    /// Starts everything and waits until the node is connected. Must be called within a tokio runtime, which the lab's
    /// tasks run on. Cancelling it leaves nothing behind.
    pub async fn start(self) -> Result<Lab, LabError> {
        let home = Home::create().map_err(LabError::Home)?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.map_err(LabError::Listen)?;
        let address = listener.local_addr().map_err(LabError::Listen)?;
        let access =
            Access::new(home.path().to_owned(), self.credentials_lifetime, self.clock_ahead).map_err(LabError::Home)?;
        let mut lab = Lab::new(home, address, access, &self);
        self.start_access(&lab);
        if let Some(agent) = &self.agent_listener {
            lab.registration = Some(Arc::new(Registration::new(self.node.clone())));
            self.serve_agent(agent, &lab, address).await?;
            lab.tasks.spawn(server::serve(listener, None, self.service(&lab, address), lab.tasks.clone()));
            return Ok(lab);
        }
        let sshd = self.start_sshd(&mut lab).await?;
        let services = Services::start(&lab.tasks).await.map_err(LabError::Listen)?;
        lab.sshd = Some(sshd);
        lab.tasks.spawn(server::serve(listener, None, self.service(&lab, address), lab.tasks.clone()));
        lab.node_tasks.spawn(self.node_model(&lab, &self.node, address, sshd, services).run());
        for id in &self.more_nodes {
            let sshd = self.start_embedded(&lab, id, lab.home.add_login(id).map_err(LabError::Home)?).await?;
            lab.node_tasks.spawn(self.node_model(&lab, id, address, sshd, services).run());
        }
        let all = self.more_nodes.iter().chain([&self.node]).map(|id| lab.wait_for(id, NODE_START));
        if join_all(all).await.into_iter().all(|connected| connected) { Ok(lab) } else { Err(LabError::Node) }
    }

    fn start_access(&self, lab: &Lab) {
        lab.access.throttle(self.throttle);
        let Some(lifetime) = self.credentials_lifetime else { return };
        let access = Arc::clone(&lab.access);
        lab.tasks.spawn(async move {
            loop {
                sleep(lifetime).await;
                if let Err(error) = access.rotate() {
                    tracing::warn!(%error, "the new credentials cannot be written");
                    access.expire();
                }
            }
        });
    }

    async fn serve_agent(&self, agent: &AgentListener, lab: &Lab, address: SocketAddr) -> Result<(), LabError> {
        let acceptor = tls::acceptor(&agent.certificate, &agent.key).map_err(LabError::Tls)?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, agent.port)).await.map_err(LabError::Listen)?;
        let service = self.service(lab, address);
        lab.tasks.spawn(server::serve(listener, Some(acceptor), service, lab.tasks.clone()));
        Ok(())
    }

    async fn start_sshd(&self, lab: &mut Lab) -> Result<SocketAddr, LabError> {
        match &self.server {
            Server::Absent => lab.closed_port().map_err(LabError::Listen),
            Server::Existing(port) => Ok(SocketAddr::from((Ipv4Addr::LOCALHOST, *port))),
            Server::OpenSsh(lines) => {
                lab.user = Some(openssh::current_user().await.map_err(LabError::OpenSsh)?);
                let host_key = Self::new_host_key(lab, &self.node)?;
                let key = lab.home.client_key.public_key();
                openssh::start(lab.home.path(), &host_key, key, lines, &lab.tasks).await.map_err(LabError::OpenSsh)
            }
            Server::Embedded => {
                lab.user = Some(LAB_USER.to_owned());
                self.start_embedded(lab, &self.node, lab.home.login.clone()).await
            }
        }
    }

    fn new_host_key(lab: &Lab, node: &str) -> Result<PrivateKey, LabError> {
        let key = home::new_key("ssm-lab host").map_err(LabError::Home)?;
        lab.home.record_host_key(node, &key).map_err(LabError::Home)?;
        Ok(key)
    }

    async fn start_embedded(&self, lab: &Lab, node: &str, home: PathBuf) -> Result<SocketAddr, LabError> {
        let (user, key) = (lab.user().to_owned(), lab.home.client_key.public_key().clone());
        let account = Account { user, key, home, shell: self.shell.clone() };
        let host_key = Self::new_host_key(lab, node)?;
        sshd::start(account, host_key, &lab.tasks).await.map_err(LabError::Sshd)
    }

    fn service(&self, lab: &Lab, address: SocketAddr) -> Arc<Service> {
        Arc::new(Service {
            region: REGION.to_owned(),
            access: Arc::clone(&lab.access),
            node_key: lab.node_key.clone(),
            denied: self.denied.clone(),
            unsigned_upgrades: self.unsigned_upgrades,
            stream_base: format!("ws://{address}"),
            gateway: Arc::clone(&lab.gateway),
            events: lab.events.clone(),
            registration: lab.registration.clone(),
        })
    }

    fn node_model(&self, lab: &Lab, id: &str, address: SocketAddr, sshd: SocketAddr, services: Services) -> Node {
        Node {
            id: id.to_owned(),
            caller: Caller { address, region: REGION.to_owned(), key: lab.node_key.clone() },
            version: self.agent_version.clone(),
            pace: self.pace,
            sshd,
            services,
            worker_start: self.worker_start,
            connect_time: self.connect_time,
            completion_lag: self.completion_lag,
            crash_notice: self.crash_notice,
            vanish_after: self.vanish_after,
            faults: lab.watch_faults(),
            tasks: lab.node_tasks.clone(),
        }
    }
}
