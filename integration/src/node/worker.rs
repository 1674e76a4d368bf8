//! One session on the node: drives the agent engine between a WebSocket and a port.

use std::{
    future::pending,
    net::SocketAddr,
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures_util::{FutureExt, SinkExt, StreamExt, future::BoxFuture};
use serde_json::Value;
use ssmssh::wire::{Body, OpenDataChannel};
use tokio::sync::oneshot;
use tokio_tungstenite::tungstenite::Message;
use uuid::Uuid;

use super::{
    http::{CallError, Caller, Socket},
    pace::{Pace, Pump},
    port::{Port, Progress},
};
use crate::agent::{Action, Agent, Outcome};

/// Agent: the heartbeat of the data channel.
const PING_INTERVAL: Duration = Duration::from_secs(54);
const FIRST_READ_DEADLINE: Duration = Duration::from_secs(114);
const READ_DEADLINE: Duration = Duration::from_mins(1);
/// Agent: `getRetryer`, doubling from 100 ms up to 5 s, six tries.
const RETRY_INITIAL: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(5);
const RETRIES: u32 = 6;

/// What a worker is started with.
#[derive(Debug)]
pub(super) struct Assignment {
    pub(super) session: String,
    pub(super) properties: Value,
    pub(super) address: SocketAddr,
    pub(super) instance: String,
    pub(super) version: String,
    pub(super) pace: Pace,
}

/// Serves the session to its end. `cancel` is `channel_closed` on the control channel.
pub(super) async fn run(assignment: Assignment, caller: Caller, mut cancel: oneshot::Receiver<()>) -> Outcome {
    let mut worker = Worker::new(assignment, caller);
    loop {
        if let Some(outcome) = worker.drain().await {
            return outcome;
        }
        tokio::select! {
            _ = &mut cancel, if !worker.cancelled => worker.cancel(),
            step = worker.next_step() => worker.apply(step),
        }
    }
}

struct Worker {
    agent: Agent,
    assignment: Assignment,
    caller: Caller,
    client_id: Uuid,
    link: Link,
    port: Port,
    pump: Pump,
    cancelled: bool,
}

/// The WebSocket, or the attempt to get one.
enum Link {
    Open {
        socket: Box<Socket>,
        heartbeat: Heartbeat,
    },
    Opening(BoxFuture<'static, Option<Box<Socket>>>),
    /// All tries failed; the agent's worker stays up without a connection.
    Lost,
}

struct Heartbeat {
    next_ping: Instant,
    read_deadline: Instant,
}

enum Step {
    Opened(Option<Box<Socket>>),
    Frame(Bytes),
    Ignored,
    Disconnected,
    Port(Progress),
    Timeout,
}

impl Worker {
    fn new(assignment: Assignment, caller: Caller) -> Self {
        let now = Instant::now();
        let agent = Agent::new(&assignment.session, &assignment.version, assignment.properties.clone(), now);
        let client_id = Uuid::new_v4();
        let link = Link::Opening(opening(&assignment, &caller, client_id));
        let (port, pump) = (Port::new(assignment.pace.read_size()), Pump::new(assignment.pace));
        Self { agent, assignment, caller, client_id, link, port, pump, cancelled: false }
    }

    /// Carries out what the engine asks for, until it asks for nothing or is done.
    async fn drain(&mut self) -> Option<Outcome> {
        loop {
            self.transmit().await;
            match self.agent.poll_action()? {
                Action::Connect => self.connect_port().await,
                Action::Write(data) => self.port.set_unwritten(data),
                Action::ClosePort => self.port.close(),
                Action::Close(outcome) => return Some(outcome),
            }
        }
    }

    async fn transmit(&mut self) {
        let Link::Open { socket, .. } = &mut self.link else { return };
        let mut sent = Ok(());
        let mut any = false;
        while let Some(frame) = self.agent.poll_transmit() {
            any = true;
            sent = socket.feed(Message::Binary(frame)).await;
        }
        if any && (sent.is_err() || socket.flush().await.is_err()) {
            self.disconnect();
        }
    }

    async fn connect_port(&mut self) {
        match self.port.connect(self.assignment.address).await {
            Ok(()) => self.agent.handle_port_connected(),
            Err(error) => {
                tracing::info!(%error, address = %self.assignment.address, "the port refuses");
                self.agent.handle_port_refused();
            }
        }
    }

    async fn next_step(&mut self) -> Step {
        let now = Instant::now();
        let deadline = self.agent.poll_timeout();
        let next_read = self.pump.next_read(now).filter(|_| self.agent.is_port_wanted());
        let reading = self.agent.is_port_wanted() && next_read.is_none();
        tokio::select! {
            step = self.link.next(self.agent.is_reading()) => step,
            progress = self.port.progress(reading) => Step::Port(progress),
            () = sleep_until(deadline) => Step::Timeout,
            () = sleep_until(next_read) => Step::Ignored,
        }
    }

    fn apply(&mut self, step: Step) {
        let now = Instant::now();
        match step {
            Step::Opened(Some(socket)) => {
                let heartbeat = Heartbeat { next_ping: now + PING_INTERVAL, read_deadline: now + FIRST_READ_DEADLINE };
                self.link = Link::Open { socket, heartbeat };
                self.agent.handle_connected(now);
            }
            Step::Opened(None) => self.link = Link::Lost,
            Step::Frame(frame) => self.agent.handle_frame(frame, now),
            Step::Disconnected => self.disconnect(),
            Step::Port(Progress::Read(data)) => {
                self.pump.pause(now);
                self.agent.handle_port_data(data, now);
            }
            Step::Port(Progress::Ended { clean }) => self.agent.handle_port_closed(clean, now),
            Step::Port(Progress::Written(written)) => self.agent.handle_port_written(written, now),
            Step::Timeout => self.agent.handle_timeout(now),
            Step::Ignored => {}
        }
    }

    fn cancel(&mut self) {
        self.cancelled = true;
        self.agent.handle_cancel(Instant::now());
    }

    fn disconnect(&mut self) {
        self.agent.handle_disconnected();
        self.link = Link::Opening(opening(&self.assignment, &self.caller, self.client_id));
    }
}

impl Link {
    async fn next(&mut self, reading: bool) -> Step {
        match self {
            Self::Opening(opening) => Step::Opened(opening.await),
            Self::Open { socket, heartbeat } => {
                tokio::select! {
                    message = socket.next(), if reading => heartbeat.judge(message),
                    () = sleep_until(Some(heartbeat.next_ping)) => {
                        let _ = socket.send(Message::Ping(Bytes::from_static(b"keepalive"))).await;
                        heartbeat.next_ping += PING_INTERVAL;
                        Step::Ignored
                    }
                }
            }
            Self::Lost => pending().await,
        }
    }
}

impl Heartbeat {
    /// A read after the deadline fails as it does in the agent, even if something is there to be read.
    fn judge(&mut self, message: Option<Result<Message, tokio_tungstenite::tungstenite::Error>>) -> Step {
        let now = Instant::now();
        if now > self.read_deadline {
            return Step::Disconnected;
        }
        match message {
            Some(Ok(Message::Binary(frame))) => Step::Frame(frame),
            Some(Ok(Message::Pong(_))) => {
                self.read_deadline = now + READ_DEADLINE;
                Step::Ignored
            }
            Some(Ok(Message::Close(_)) | Err(_)) | None => Step::Disconnected,
            Some(Ok(_)) => Step::Ignored,
        }
    }
}

fn opening(assignment: &Assignment, caller: &Caller, client_id: Uuid) -> BoxFuture<'static, Option<Box<Socket>>> {
    let (session, instance, caller) = (assignment.session.clone(), assignment.instance.clone(), caller.clone());
    async move {
        let mut delay = RETRY_INITIAL;
        for _ in 0..RETRIES {
            match open(&caller, &session, &instance, client_id).await {
                Ok(socket) => return Some(Box::new(socket)),
                Err(CallError::Status(_, text)) if text.contains("Session is already terminated") => return None,
                Err(error) => tracing::debug!(%error, %session, "the data channel could not be opened"),
            }
            tokio::time::sleep(delay).await;
            delay = (delay * 2).min(RETRY_MAX);
        }
        None
    }
    .boxed()
}

async fn open(caller: &Caller, session: &str, instance: &str, client_id: Uuid) -> Result<Socket, CallError> {
    let path = format!("/v1/data-channel/{session}");
    let token = caller.create(&path).await?;
    let mut socket = caller.open(&format!("{path}?role=publish_subscribe")).await?;
    let open = OpenDataChannel::agent(Uuid::new_v4(), &token, client_id, instance);
    socket.send(Message::text(open.to_json())).await.map_err(Box::new)?;
    Ok(socket)
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
        None => pending().await,
    }
}
