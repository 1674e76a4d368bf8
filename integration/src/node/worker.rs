//! One session on the node: drives the agent engine between a WebSocket and a port.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use futures_util::{FutureExt, SinkExt, future::BoxFuture};
use serde_json::Value;
use ssmssh::wire::{Body, OpenDataChannel};
use tokio::{
    sync::{oneshot, watch},
    time::timeout_at,
};
use tokio_tungstenite::tungstenite::Message;
use uuid::Uuid;

use super::{
    http::{CallError, Caller, Socket},
    link::{Link, LinkStep, sleep_until},
    pace::{Pace, Pump},
    port::{Port, Progress},
};
use crate::{
    agent::{Action, Agent, Outcome},
    faults::Faults,
};

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
    pub(super) connect_time: Duration,
    pub(super) completion_lag: Duration,
    pub(super) faults: watch::Receiver<Faults>,
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

enum Step {
    Link(LinkStep),
    Port(Progress),
    Timeout,
    Ignored,
}

impl Worker {
    fn new(assignment: Assignment, caller: Caller) -> Self {
        let now = Instant::now();
        let mut agent = Agent::new(&assignment.session, &assignment.version, assignment.properties.clone(), now);
        agent.set_completion_lag(assignment.completion_lag);
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
                Action::Connect => self.port.connect(self.assignment.address, self.assignment.connect_time),
                Action::Write(data) => self.port.set_unwritten(data),
                Action::ClosePort => self.port.close(),
                Action::Close(outcome) => return Some(outcome),
            }
        }
    }

    async fn transmit(&mut self) {
        let Link::Open { socket, heartbeat } = &mut self.link else { return };
        let agent = &mut self.agent;
        let sending = async {
            let mut any = false;
            while let Some(frame) = agent.poll_transmit() {
                any = true;
                socket.feed(Message::Binary(frame)).await?;
            }
            if any { socket.flush().await } else { Ok(()) }
        };
        // A writer that is stuck ends with the reader's deadline, which closes the socket under it.
        if !matches!(timeout_at(heartbeat.read_deadline.into(), sending).await, Ok(Ok(()))) {
            self.disconnect();
        }
    }

    async fn next_step(&mut self) -> Step {
        let now = Instant::now();
        let deadline = self.agent.poll_timeout();
        let next_read = self.pump.next_read(now).filter(|_| self.agent.is_port_wanted());
        let reading = self.agent.is_port_wanted() && next_read.is_none();
        let stalled = self.assignment.faults.borrow_and_update().stalled_port && self.port.is_connected();
        tokio::select! {
            step = self.link.next(self.agent.is_reading()) => Step::Link(step),
            progress = self.port.progress(reading), if !stalled => Step::Port(progress),
            () = sleep_until(deadline) => Step::Timeout,
            () = sleep_until(next_read) => Step::Ignored,
            Ok(()) = self.assignment.faults.changed() => Step::Ignored,
        }
    }

    fn apply(&mut self, step: Step) {
        let now = Instant::now();
        match step {
            Step::Link(LinkStep::Opened(Some(socket))) => {
                self.link = Link::open(socket, now);
                self.agent.handle_connected(now);
            }
            Step::Link(LinkStep::Opened(None)) => self.link = Link::Lost,
            Step::Link(LinkStep::Frame(frame)) => self.agent.handle_frame(frame, now),
            Step::Link(LinkStep::Disconnected) => self.disconnect(),
            Step::Port(progress) => self.apply_progress(progress, now),
            Step::Timeout => self.agent.handle_timeout(now),
            Step::Link(LinkStep::Ignored) | Step::Ignored => {}
        }
    }

    fn apply_progress(&mut self, progress: Progress, now: Instant) {
        match progress {
            Progress::Connected(Ok(())) => self.agent.handle_port_connected(),
            Progress::Connected(Err(error)) => {
                tracing::info!(%error, address = %self.assignment.address, "the port refuses");
                self.agent.handle_port_refused();
            }
            Progress::Read(data) => {
                self.pump.pause(now);
                self.agent.handle_port_data(data, now);
            }
            Progress::Ended { clean } => self.agent.handle_port_closed(clean, now),
            Progress::Written(written) => self.agent.handle_port_written(written, now),
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
