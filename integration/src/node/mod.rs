//! The managed node: what an agent does between its control channel and its sessions.

mod http;
mod link;
mod pace;
mod port;
mod worker;

use std::{collections::HashMap, net::SocketAddr, time::Duration};

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use serde_json::json;
use ssmssh::wire;
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::{Instant, sleep, sleep_until},
};
use tokio_tungstenite::tungstenite::Message;
use uuid::Uuid;

use crate::{
    agent::Outcome,
    faults::Faults,
    services::Services,
    task::{
        self, AGENT_TASK_ACKNOWLEDGE, AGENT_TASK_COMPLETE, AgentTask, AgentTaskAcknowledge, AgentTaskComplete,
        INTERACTIVE_SHELL, TaskContent,
    },
    tasks::Tasks,
};
pub use pace::Pace;
use worker::Assignment;

pub(crate) use self::http::Caller;

/// How long the agent waits before it connects its control channel again.
const RECONNECT_DELAY: Duration = Duration::from_millis(100);
/// A report is sent three times, a second apart, unless it is acknowledged.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);
const REPORT_TRIES: u32 = 3;

/// The node's settings.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub(crate) id: String,
    pub(crate) caller: Caller,
    pub(crate) version: String,
    pub(crate) pace: Pace,
    /// Where the node's port 22 is in truth, and those of its small services; every other port is what it says, on
    /// loopback.
    pub(crate) sshd: SocketAddr,
    pub(crate) services: Services,
    /// What starting a session's process costs before it opens its data channel.
    pub(crate) worker_start: Duration,
    /// What connecting to the port takes on top.
    pub(crate) connect_time: Duration,
    /// How long input is lost after `HandshakeComplete`.
    pub(crate) completion_lag: Duration,
    /// How long the master takes to notice that a session's process has died (agent: `defaultZombieProcessTimeout`).
    pub(crate) crash_notice: Duration,
    /// When the node vanishes, counted from its first session.
    pub(crate) vanish_after: Option<Duration>,
    pub(crate) faults: watch::Receiver<Faults>,
    /// All that the node runs, and nothing else.
    pub(crate) tasks: Tasks,
}

impl Node {
    /// Keeps the control channel connected until the lab ends.
    pub(crate) async fn run(self) {
        let (done_sender, mut done) = mpsc::channel(16);
        let mut master = Master { node: self, sessions: HashMap::new(), reports: Vec::new(), done: done_sender };
        loop {
            match master.connect().await {
                Ok(socket) => master.serve(socket, &mut done).await,
                Err(error) => tracing::debug!(%error, "the control channel could not be opened"),
            }
            sleep(RECONNECT_DELAY).await;
        }
    }
}

/// The agent's master process.
struct Master {
    node: Node,
    sessions: HashMap<String, oneshot::Sender<()>>,
    reports: Vec<Report>,
    done: mpsc::Sender<(String, Outcome)>,
}

/// An `agent_task_complete` that is not acknowledged yet.
struct Report {
    session: String,
    frame: Bytes,
    tries: u32,
    next: Instant,
}

impl Master {
    async fn connect(&self) -> Result<http::Socket, http::CallError> {
        let path = format!("/v1/control-channel/{}", self.node.id);
        let token = self.node.caller.create(&path).await?;
        let mut socket = self.node.caller.open(&format!("{path}?role=subscribe&stream=input")).await?;
        let open = json!({
            "MessageSchemaVersion": "1.0",
            "RequestId": Uuid::new_v4().to_string(),
            "TokenValue": token,
            "AgentVersion": self.node.version,
            "PlatformType": "linux",
            "Cookie": null,
        });
        socket.send(Message::text(open.to_string())).await.map_err(Box::new)?;
        Ok(socket)
    }

    async fn serve(&mut self, mut socket: http::Socket, done: &mut mpsc::Receiver<(String, Outcome)>) {
        loop {
            let due = self.reports.iter().map(|report| report.next).min();
            let due = due.unwrap_or_else(|| Instant::now() + REPORT_INTERVAL);
            tokio::select! {
                message = socket.next() => match message {
                    Some(Ok(Message::Binary(frame))) => self.handle(frame),
                    Some(Ok(Message::Close(_)) | Err(_)) | None => return,
                    Some(Ok(_)) => {}
                },
                Some((session, outcome)) = done.recv() => self.report(session, outcome),
                () = sleep_until(due) => {}
            }
            for frame in self.due_reports() {
                if socket.send(Message::Binary(frame)).await.is_err() {
                    return;
                }
            }
        }
    }

    fn handle(&mut self, frame: Bytes) {
        let Ok(message) = wire::Message::decode(frame) else { return };
        match message.kind.as_str() {
            INTERACTIVE_SHELL => self.start(&message.payload),
            AGENT_TASK_ACKNOWLEDGE => {
                if let Ok(acknowledge) = serde_json::from_slice::<AgentTaskAcknowledge>(&message.payload) {
                    self.reports.retain(|report| report.session != acknowledge.task_id);
                }
            }
            "channel_closed" => {
                let closed = <wire::ChannelClosed as wire::Body>::from_json(&message.payload);
                let cancel = closed.ok().and_then(|closed| self.sessions.remove(&closed.session_id));
                if let Some(cancel) = cancel {
                    let _ = cancel.send(());
                }
            }
            _ => {}
        }
    }

    fn start(&mut self, payload: &[u8]) {
        let task = serde_json::from_slice::<AgentTask>(payload);
        let content = task.and_then(|task| serde_json::from_str::<TaskContent>(&task.content));
        let Ok(content) = content else { return tracing::warn!("a task that cannot be read") };
        if let Some(after) = self.node.vanish_after.take() {
            let tasks = self.node.tasks.clone();
            self.node.tasks.spawn(async move {
                sleep(after).await;
                tasks.abort();
            });
        }
        let (cancel, cancelled) = oneshot::channel();
        self.sessions.insert(content.session_id.clone(), cancel);
        let (node, done) = (self.node.clone(), self.done.clone());
        self.node.tasks.spawn(async move {
            let session = content.session_id.clone();
            let outcome = node.work(content, cancelled).await;
            let _ = done.send((session, outcome)).await;
        });
    }

    fn report(&mut self, session: String, outcome: Outcome) {
        self.sessions.remove(&session);
        let status = if outcome.success { "Success" } else { "Failed" };
        let complete = AgentTaskComplete {
            schema_version: 1,
            task_id: session.clone(),
            topic: "aws.ssm.shellSession".to_owned(),
            final_task_status: status.to_owned(),
            instance_id: self.node.id.clone(),
            output: outcome.output,
        };
        let frame = task::frame(AGENT_TASK_COMPLETE, &complete);
        self.reports.push(Report { session, frame, tries: 0, next: Instant::now() });
    }

    fn due_reports(&mut self) -> Vec<Bytes> {
        let now = Instant::now();
        let mut due = Vec::new();
        for report in self.reports.iter_mut().filter(|report| report.next <= now) {
            report.tries += 1;
            report.next = now + REPORT_INTERVAL;
            due.push(report.frame.clone());
        }
        self.reports.retain(|report| report.tries < REPORT_TRIES);
        due
    }
}

impl Node {
    async fn work(&self, content: TaskContent, cancelled: oneshot::Receiver<()>) -> Outcome {
        let properties = content.document_content["properties"].clone();
        let port = properties["portNumber"].as_str().and_then(|port| port.parse::<u16>().ok());
        let address = match port {
            Some(22) => self.sshd,
            Some(port) => self.services.address(port).unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], port))),
            None => {
                let output = "Unable to start session: portNumber is missing".to_owned();
                return Outcome { success: false, output, crashed: false };
            }
        };
        sleep(self.worker_start).await;
        let assignment = Assignment {
            session: content.session_id,
            properties,
            address,
            instance: self.id.clone(),
            version: self.version.clone(),
            pace: self.pace,
            connect_time: self.connect_time,
            completion_lag: self.completion_lag,
            faults: self.faults.clone(),
        };
        let outcome = worker::run(assignment, self.caller.clone(), cancelled).await;
        if outcome.crashed {
            sleep(self.crash_notice).await;
        }
        outcome
    }
}
