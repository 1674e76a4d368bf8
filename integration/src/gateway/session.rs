//! One SSM session: two slots, a pipe in each direction, and the tokens that open either side.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use ssmssh::wire::{Body, ChannelClosed, Flag, MessageKind};
use tokio::sync::watch;
use uuid::Uuid;

use super::{pipe::Pipe, socket::Slot};
use crate::{
    events::{Event, Events},
    faults::Faults,
    task,
    tasks::Tasks,
};

/// Who is at the other end of a data channel's WebSocket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Client,
    Node,
}

#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) id: String,
    pub(crate) node: String,
    pub(crate) client: Arc<Slot>,
    pub(crate) agent: Arc<Slot>,
    to_client: Pipe,
    to_agent: Pipe,
    state: Mutex<State>,
    relayed: AtomicU64,
    faults: watch::Receiver<Faults>,
    events: Events,
}

#[derive(Debug, Default)]
struct State {
    ended: bool,
    client_token: Option<Token>,
    agent_token: Option<Token>,
}

#[derive(Debug)]
struct Token {
    value: String,
    expires: Instant,
}

impl Session {
    pub(crate) fn new(
        id: String,
        node: String,
        tasks: &Tasks,
        faults: watch::Receiver<Faults>,
        events: Events,
    ) -> Self {
        let (client, agent) = (Arc::<Slot>::default(), Arc::<Slot>::default());
        Self {
            to_client: Pipe::new(tasks, 0, faults.clone(), Arc::clone(&client)),
            to_agent: Pipe::new(tasks, 1, faults.clone(), Arc::clone(&agent)),
            id,
            node,
            client,
            agent,
            state: Mutex::default(),
            relayed: AtomicU64::new(0),
            faults,
            events,
        }
    }

    pub(crate) fn slot(&self, side: Side) -> &Slot {
        match side {
            Side::Client => &self.client,
            Side::Node => &self.agent,
        }
    }

    /// A new token for one opening of `side`; older ones of that side are void.
    pub(crate) fn issue_token(&self, side: Side, lifetime: Duration) -> String {
        let value = format!("{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple());
        let token = Token { value: value.clone(), expires: Instant::now() + lifetime };
        *self.state().token(side) = Some(token);
        value
    }

    /// Takes the token out of use if `value` is right and in time.
    pub(crate) fn redeem_token(&self, side: Side, value: &str) -> bool {
        let mut state = self.state();
        let token = state.token(side);
        let valid = token.as_ref().is_some_and(|token| token.value == value && Instant::now() < token.expires);
        if valid {
            *token = None;
        }
        valid
    }

    pub(crate) fn is_ended(&self) -> bool {
        self.state().ended
    }

    /// A binary message from `side`.
    pub(crate) async fn relay(&self, side: Side, frame: Bytes) {
        match (side, kind(&frame)) {
            (Side::Node, b"agent_session_state") => return,
            (Side::Node, _) => self.to_client.relay(frame).await,
            (Side::Client, kind) => {
                if kind == b"input_stream_data" && is_terminate_flag(&frame) {
                    self.events.record(Event::TerminateFlagSeen { session: self.id.clone() });
                }
                self.to_agent.relay(frame).await;
            }
        }
        let relayed = self.relayed.fetch_add(1, Ordering::Relaxed) + 1;
        let faults = self.faults.borrow();
        if faults.cut_after_messages == Some(relayed) {
            self.client.cut(faults.cut);
        }
    }

    /// Ends the session once: both sides get `channel_closed` behind what is on its way, the client with `output`.
    pub(crate) fn end(&self, output: &str) {
        if std::mem::replace(&mut self.state().ended, true) {
            return;
        }
        self.events.record(Event::SessionEnded { session: self.id.clone(), output: output.to_owned() });
        self.to_agent.finish(self.channel_closed(&self.node, ""));
        self.to_client.finish(self.channel_closed(&self.id, output));
    }

    /// The service's last word, to either side.
    pub(crate) fn channel_closed(&self, destination: &str, output: &str) -> Bytes {
        let body = ChannelClosed {
            message_id: Uuid::new_v4().to_string(),
            created_date: task::now_millis().to_string(),
            destination_id: destination.to_owned(),
            session_id: self.id.clone(),
            message_type: MessageKind::ChannelClosed.as_str().to_owned(),
            schema_version: 1,
            output: output.to_owned(),
        };
        task::message(MessageKind::ChannelClosed, 0, body.to_payload()).encode()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn token(&mut self, side: Side) -> &mut Option<Token> {
        match side {
            Side::Client => &mut self.client_token,
            Side::Node => &mut self.agent_token,
        }
    }
}

/// The message type of a frame that may be malformed: the relay looks, but judges nothing.
fn kind(frame: &[u8]) -> &[u8] {
    frame.get(4..36).unwrap_or_default().trim_ascii_end()
}

fn is_terminate_flag(frame: &[u8]) -> bool {
    frame.get(112..116) == Some(&10u32.to_be_bytes())
        && frame.get(120..).and_then(Flag::decode) == Some(Flag::TerminateSession)
}
