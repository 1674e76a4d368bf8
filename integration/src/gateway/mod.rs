//! The message gateway: nodes on control channels, sessions between two WebSockets each.

mod control;
mod pipe;
mod session;
mod socket;
mod tamper;

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use ssmssh::wire::{Body, MessageKind, OpenDataChannel};
use tokio::sync::watch;
use uuid::Uuid;

pub(crate) use self::{
    control::wait_until_connected,
    session::{Session, Side},
    socket::{WebSocket, config},
};
use crate::{
    events::{Event, Events},
    faults::{Cut, Faults},
    task::{self, AgentTask, INTERACTIVE_SHELL},
    tasks::Tasks,
};
use control::Node;
use socket::Receive;

/// How long the token of a fresh node socket is good.
const NODE_TOKEN_LIFETIME: Duration = Duration::from_mins(1);

/// The gateway of one lab.
#[derive(Debug)]
pub(crate) struct Gateway {
    tasks: Tasks,
    events: Events,
    faults: watch::Receiver<Faults>,
    client_token_lifetime: Duration,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    nodes: HashMap<String, Arc<Node>>,
    sessions: HashMap<String, Arc<Session>>,
    /// Those that the API does not know any more.
    forgotten: HashSet<String>,
    /// How many sessions were asked for.
    numbered: usize,
}

/// What a client needs to open its side of a session.
#[derive(Debug)]
pub(crate) struct Opening {
    pub(crate) session: String,
    pub(crate) token: String,
}

/// The node is not connected.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct NotConnected;

/// Why a session was not resumed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum ResumeError {
    Unknown,
    Ended,
}

impl Gateway {
    pub(crate) fn new(
        tasks: Tasks,
        events: Events,
        faults: watch::Receiver<Faults>,
        client_token_lifetime: Duration,
    ) -> Self {
        Self { tasks, events, faults, client_token_lifetime, state: Mutex::default() }
    }

    /// A new session to `port` of a connected node, which is told at once.
    pub(crate) fn start_session(&self, node: &str, document: &str, port: u16) -> Result<Opening, NotConnected> {
        let id = format!("lab-{}", &Uuid::new_v4().simple().to_string()[..17]);
        let task = task::frame(INTERACTIVE_SHELL, &AgentTask::port_session(document, &id, port, "lab"));
        let connected = self.state().nodes.get(node).cloned().ok_or(NotConnected)?;
        let session = self.add_session(id.clone(), node);
        let token = session.issue_token(Side::Client, self.client_token_lifetime);
        if !connected.slot.offer(task) {
            self.state().sessions.remove(&id);
            return Err(NotConnected);
        }
        self.events.record(Event::SessionStarted { session: id.clone() });
        self.tasks.spawn(session.watch_limits());
        Ok(Opening { session: id, token })
    }

    fn add_session(&self, id: String, node: &str) -> Arc<Session> {
        let mut state = self.state();
        state.numbered += 1;
        let name = (id.clone(), state.numbered);
        let session = Session::new(name, node.to_owned(), &self.tasks, self.faults.clone(), self.events.clone());
        let session = Arc::new(session);
        state.sessions.insert(id, Arc::clone(&session));
        session
    }

    /// A new token for the client of a session that is not over.
    pub(crate) fn resume_session(&self, id: &str) -> Result<Opening, ResumeError> {
        let session = self.known(id).ok_or(ResumeError::Unknown)?;
        if session.is_ended() || self.faults.borrow().refuse_resume {
            return Err(ResumeError::Ended);
        }
        self.events.record(Event::SessionResumed { session: id.to_owned() });
        Ok(Opening { session: id.to_owned(), token: session.issue_token(Side::Client, self.client_token_lifetime) })
    }

    /// Ends a session as TerminateSession does; says whether there is such a session.
    pub(crate) fn terminate_session(&self, id: &str) -> bool {
        let Some(session) = self.known(id) else { return false };
        self.events.record(Event::TerminateCalled { session: id.to_owned() });
        let node = self.state().nodes.get(&session.node).cloned();
        if let Some(node) = node {
            node.slot.offer(session.channel_closed(&session.node, ""));
        }
        session.end("");
        true
    }

    /// Sessions that are not over.
    pub(crate) fn open_sessions(&self) -> usize {
        self.state().sessions.values().filter(|session| !session.is_ended()).count()
    }

    /// Cuts every client's socket.
    pub(crate) fn cut_clients(&self, cut: Cut) {
        for session in self.state().sessions.values() {
            session.cut(Side::Client, cut);
        }
    }

    /// Cuts the client's socket of the session with this number; says whether there is one.
    pub(crate) fn cut_client(&self, number: usize, cut: Cut) -> bool {
        self.numbered(number).is_some_and(|session| session.cut(Side::Client, cut))
    }

    /// Ends the session with this number; says whether there is one that was not over.
    pub(crate) fn end_session(&self, number: usize, output: &str) -> bool {
        self.numbered(number).is_some_and(|session| session.end(output))
    }

    fn numbered(&self, number: usize) -> Option<Arc<Session>> {
        self.state().sessions.values().find(|session| session.number == number).cloned()
    }

    /// Ends every session with this text, as the service does.
    pub(crate) fn end_sessions(&self, output: &str) {
        for session in self.state().sessions.values() {
            session.end(output);
        }
    }

    /// Knows no session any more.
    pub(crate) fn forget_sessions(&self) {
        let mut state = self.state();
        state.forgotten = state.sessions.keys().cloned().collect();
    }

    /// Cuts every socket that a node has for a session.
    pub(crate) fn cut_nodes(&self, cut: Cut) {
        for session in self.state().sessions.values() {
            session.cut(Side::Node, cut);
        }
    }

    /// The session, unless it was forgotten.
    fn known(&self, id: &str) -> Option<Arc<Session>> {
        let state = self.state();
        state.sessions.get(id).filter(|_| !state.forgotten.contains(id)).cloned()
    }

    pub(crate) fn session(&self, id: &str) -> Option<Arc<Session>> {
        self.state().sessions.get(id).cloned()
    }

    /// A token for a node's data channel; none where the session is over or another node's.
    pub(crate) fn create_data_channel(&self, id: &str) -> Option<String> {
        let session = self.session(id).filter(|session| !session.is_ended())?;
        Some(session.issue_token(Side::Node, NODE_TOKEN_LIFETIME))
    }

    /// One side's WebSocket of a session, from its open message to its end.
    pub(crate) async fn serve_data(&self, session: Arc<Session>, side: Side, mut socket: WebSocket) {
        let open = socket::read_open_message(&mut socket).await;
        let open = open.and_then(|text| OpenDataChannel::from_json(text.as_bytes()).ok());
        let Some(open) = open.filter(|open| session.redeem_token(side, &open.token_value)) else {
            self.refuse_open(side);
            return socket::close(socket, "the token is not valid").await;
        };
        self.events.record(connected(&session, side, &open));
        let mut attachment = session.slot(side).attach();
        attachment.faults = (side == Side::Client).then(|| self.faults.clone());
        session.handle_attached(side);
        session.publish(&MessageKind::StartPublication);
        let number = attachment.number();
        tokio::select! {
            () = attachment.serve(socket, Relay { session: &session, side }) => {}
            () = self.cut_by_time(&session), if side == Side::Client => {}
        }
        let gone = session.slot(side).detach(number);
        self.events.record(disconnected(&session, side));
        if gone && side == Side::Client && !session.is_ended() {
            session.publish(&MessageKind::PausePublication);
        }
    }

    /// Cuts the client's socket as `cut_every` says; never ends.
    async fn cut_by_time(&self, session: &Session) {
        let Some(interval) = self.faults.borrow().cut_every else { return std::future::pending().await };
        loop {
            tokio::time::sleep(interval).await;
            session.cut_next();
        }
    }

    fn refuse_open(&self, side: Side) {
        self.events.record(Event::Refused {
            operation: "OpenDataChannel".to_owned(),
            code: "InvalidToken".to_owned(),
            reason: format!("the {side:?}'s open message carries no valid token"),
        });
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One side's messages on their way to the other.
struct Relay<'a> {
    session: &'a Session,
    side: Side,
}

impl Receive for Relay<'_> {
    async fn receive(&self, frame: Bytes) {
        self.session.relay(self.side, frame).await;
    }
}

fn connected(session: &Session, side: Side, open: &OpenDataChannel) -> Event {
    let id = session.id.clone();
    match side {
        Side::Client => Event::ClientConnected { session: id, client_id: open.client_id.to_string() },
        Side::Node => Event::NodeConnected { session: id },
    }
}

fn disconnected(session: &Session, side: Side) -> Event {
    let session = session.id.clone();
    match side {
        Side::Client => Event::ClientDisconnected { session },
        Side::Node => Event::NodeDisconnected { session },
    }
}
