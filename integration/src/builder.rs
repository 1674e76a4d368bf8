//! Settings of a lab, and how it is started.

use std::{
    collections::HashSet,
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use tokio::net::TcpListener;

use crate::{
    api::Service,
    faults::{Cut, Faults},
    home::{self, Home},
    lab::{Lab, LabError, REGION},
    node::{Caller, Node, Pace},
    openssh,
    registration::Registration,
    server,
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
}

/// The listener for a real agent.
#[derive(Debug, Clone)]
struct AgentListener {
    port: u16,
    certificate: PathBuf,
    key: PathBuf,
}

/// Settings of a [`Lab`].
#[derive(Debug, Clone)]
#[must_use]
pub struct LabBuilder {
    server: Server,
    agent_listener: Option<AgentListener>,
    node: String,
    agent_version: String,
    pace: Pace,
    worker_start: Duration,
    crash_notice: Duration,
    shell: PathBuf,
    token_lifetime: Duration,
    denied: HashSet<String>,
    unsigned_upgrades: bool,
    faults: Faults,
}

impl Default for LabBuilder {
    fn default() -> Self {
        Self {
            server: Server::default(),
            agent_listener: None,
            node: DEFAULT_NODE.to_owned(),
            agent_version: DEFAULT_AGENT_VERSION.to_owned(),
            pace: Pace::default(),
            worker_start: WORKER_START,
            crash_notice: CRASH_NOTICE,
            shell: PathBuf::from("/bin/sh"),
            token_lifetime: Duration::from_mins(1),
            denied: HashSet::new(),
            unsigned_upgrades: false,
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

    /// [`openssh`](Self::openssh) with a line of `sshd_config` that goes before the lab's own, such as `Subsystem sftp
    /// /nonexistent`. May be repeated.
    pub fn openssh_option(mut self, line: impl Into<String>) -> Self {
        let mut lines = match self.server {
            Server::OpenSsh(lines) => lines,
            _ => Vec::new(),
        };
        lines.push(line.into());
        self.server = Server::OpenSsh(lines);
        self
    }

    /// The node's id, `i-…` or `mi-…`. Default `i-0123456789abcdef0`.
    pub fn node(mut self, id: impl Into<String>) -> Self {
        self.node = id.into();
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

    /// Everything that is to go wrong. Replaces what was set before.
    pub fn faults(mut self, faults: Faults) -> Self {
        self.faults = faults;
        self
    }

    /// One-way delay of every relayed message; see [`Faults::delay`].
    pub fn delay(mut self, delay: Duration) -> Self {
        self.faults.delay = delay;
        self
    }

    /// Most random delay on top; see [`Faults::jitter`].
    pub fn jitter(mut self, jitter: Duration) -> Self {
        self.faults.jitter = jitter;
        self
    }

    /// Share of messages lost; see [`Faults::loss`].
    pub fn loss(mut self, probability: f64) -> Self {
        self.faults.loss = probability;
        self
    }

    /// Share of messages doubled; see [`Faults::duplicate`].
    pub fn duplicate(mut self, probability: f64) -> Self {
        self.faults.duplicate = probability;
        self
    }

    /// Share of messages overtaken; see [`Faults::reorder`].
    pub fn reorder(mut self, probability: f64) -> Self {
        self.faults.reorder = probability;
        self
    }

    /// Seed of the faults; see [`Faults::seed`].
    pub fn seed(mut self, seed: u64) -> Self {
        self.faults.seed = seed;
        self
    }

    /// Cuts the client's socket once in each session, after this many relayed messages; see [`Faults::cut_after_messages`].
    pub fn cut_after_messages(mut self, cut: Cut, messages: u64) -> Self {
        (self.faults.cut, self.faults.cut_after_messages) = (cut, Some(messages));
        self
    }

    /// Cuts each client socket this long after it was opened; see [`Faults::cut_every`].
    pub fn cut_every(mut self, cut: Cut, interval: Duration) -> Self {
        (self.faults.cut, self.faults.cut_every) = (cut, Some(interval));
        self
    }

    /// Lets ResumeSession answer without a token; see [`Faults::refuse_resume`].
    pub fn refuse_resume(mut self) -> Self {
        self.faults.refuse_resume = true;
        self
    }

    /// Starts everything and waits until the node is connected. Must be called within a tokio runtime, which the lab's
    /// tasks run on. Cancelling it leaves nothing behind.
    pub async fn start(self) -> Result<Lab, LabError> {
        let home = Home::create().map_err(LabError::Home)?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.map_err(LabError::Listen)?;
        let address = listener.local_addr().map_err(LabError::Listen)?;
        let mut lab = Lab::new(home, address, &self.node, self.faults.clone(), self.token_lifetime);
        if let Some(agent) = &self.agent_listener {
            lab.registration = Some(Arc::new(Registration::new(self.node.clone())));
            self.serve_agent(agent, &lab, address).await?;
            lab.tasks.spawn(server::serve(listener, None, self.service(&lab, address), lab.tasks.clone()));
            return Ok(lab);
        }
        let sshd = self.start_sshd(&mut lab).await?;
        lab.sshd = Some(sshd);
        lab.tasks.spawn(server::serve(listener, None, self.service(&lab, address), lab.tasks.clone()));
        lab.tasks.spawn(self.node_model(&lab, address, sshd).run());
        if lab.wait_for_node(NODE_START).await { Ok(lab) } else { Err(LabError::Node) }
    }

    async fn serve_agent(&self, agent: &AgentListener, lab: &Lab, address: SocketAddr) -> Result<(), LabError> {
        let acceptor = tls::acceptor(&agent.certificate, &agent.key).map_err(LabError::Tls)?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, agent.port)).await.map_err(LabError::Listen)?;
        let service = self.service(lab, address);
        lab.tasks.spawn(server::serve(listener, Some(acceptor), service, lab.tasks.clone()));
        Ok(())
    }

    async fn start_sshd(&self, lab: &mut Lab) -> Result<SocketAddr, LabError> {
        let key = lab.home.client_key.public_key().clone();
        match &self.server {
            Server::Existing(port) => Ok(SocketAddr::from((Ipv4Addr::LOCALHOST, *port))),
            Server::OpenSsh(lines) => {
                lab.user = Some(openssh::current_user().await.map_err(LabError::OpenSsh)?);
                openssh::start(lab.home.path(), &key, lines, &lab.tasks).await.map_err(LabError::OpenSsh)
            }
            Server::Embedded => {
                lab.user = Some(LAB_USER.to_owned());
                let account =
                    Account { user: LAB_USER.to_owned(), key, home: lab.home.login.clone(), shell: self.shell.clone() };
                let host_key = home::new_key("ssm-lab host").map_err(LabError::Home)?;
                sshd::start(account, host_key, &lab.tasks).await.map_err(LabError::Sshd)
            }
        }
    }

    fn service(&self, lab: &Lab, address: SocketAddr) -> Arc<Service> {
        Arc::new(Service {
            region: REGION.to_owned(),
            client_key: lab.client_key.clone(),
            node_key: lab.node_key.clone(),
            denied: self.denied.clone(),
            unsigned_upgrades: self.unsigned_upgrades,
            stream_base: format!("ws://{address}"),
            gateway: Arc::clone(&lab.gateway),
            events: lab.events.clone(),
            registration: lab.registration.clone(),
        })
    }

    fn node_model(&self, lab: &Lab, address: SocketAddr, sshd: SocketAddr) -> Node {
        Node {
            id: self.node.clone(),
            caller: Caller { address, region: REGION.to_owned(), key: lab.node_key.clone() },
            version: self.agent_version.clone(),
            pace: self.pace,
            sshd,
            worker_start: self.worker_start,
            crash_notice: self.crash_notice,
            tasks: lab.tasks.clone(),
        }
    }
}
