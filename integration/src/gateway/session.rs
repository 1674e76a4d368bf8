//! One SSM session: two slots, a pipe in each direction, and the tokens that open either side.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use ssmssh::wire::{Body, ChannelClosed, Flag, MessageKind, PREFIX_LENGTH, PayloadType};
use tokio::sync::watch;
use uuid::Uuid;

use super::{pipe::Pipe, socket::Slot, tamper};
use crate::{
    events::{Event, Events},
    faults::{Cut, Faults, Interruption, Meter, Oversize},
    task,
    tasks::Tasks,
};

/// What `channel_closed` says when the service has had enough.
const IDLE_TEXT: &str = "Your session timed out due to inactivity.";
const DURATION_TEXT: &str = "Your session reached its maximum duration.";

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
    /// 1 is the first that was started.
    pub(crate) number: usize,
    pub(crate) client: Arc<Slot>,
    pub(crate) agent: Arc<Slot>,
    to_client: Pipe,
    to_agent: Pipe,
    state: Mutex<State>,
    /// Messages in both directions together.
    relayed: AtomicU64,
    /// Messages for the client.
    relayed_to_client: AtomicU64,
    cuts: AtomicUsize,
    faults: watch::Receiver<Faults>,
    events: Events,
}

#[derive(Debug)]
struct State {
    ended: bool,
    client_token: Option<Token>,
    agent_token: Option<Token>,
    meter: Meter,
    handshake_cuts: u32,
    started: Instant,
    last_data: Instant,
}

#[derive(Debug)]
struct Token {
    value: String,
    expires: Instant,
}

impl Session {
    pub(crate) fn new(
        (id, number): (String, usize),
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
            number,
            client,
            agent,
            state: Mutex::new(State::new()),
            relayed: AtomicU64::new(0),
            relayed_to_client: AtomicU64::new(0),
            cuts: AtomicUsize::new(0),
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

    /// The socket of `side` is a new one.
    pub(crate) fn handle_attached(&self, side: Side) {
        if side == Side::Client {
            self.state().meter = Meter::default();
        }
    }

    /// A binary message from `side`.
    pub(crate) async fn relay(&self, side: Side, frame: Bytes) {
        match side {
            Side::Node if tamper::kind(&frame) == b"agent_session_state" => return,
            Side::Node => self.relay_to_client(frame).await,
            Side::Client => {
                if !self.admits(&frame) {
                    return;
                }
                self.to_agent.relay(frame).await;
            }
        }
        let relayed = self.relayed.fetch_add(1, Ordering::Relaxed) + 1;
        let due = {
            let faults = self.faults.borrow();
            faults.cut_after_messages == Some(relayed)
                || faults.cut_every_messages.is_some_and(|every| relayed.is_multiple_of(every.get()))
        };
        if due {
            self.cut_next();
        }
    }

    async fn relay_to_client(&self, frame: Bytes) {
        self.note_data(&frame);
        for extra in self.extras(&frame) {
            self.to_client.relay(extra).await;
        }
        if !self.cuts_handshake(&frame) {
            self.to_client.relay(frame).await;
        }
    }

    /// Cuts in place of relaying the agent's request: a client that had it would not wait for it on the next socket.
    fn cuts_handshake(&self, frame: &Bytes) -> bool {
        let starts_handshake = tamper::has_payload_type(frame, PayloadType::HandshakeRequest)
            && tamper::kind(frame) == MessageKind::OutputStreamData.as_str().as_bytes();
        let is_due = starts_handshake && self.state().handshake_cuts < self.faults.borrow().cut_handshakes;
        let cuts = is_due && self.cut_next();
        self.state().handshake_cuts += u32::from(cuts);
        cuts
    }

    /// What the lab sends the client before `frame`.
    fn extras(&self, frame: &Bytes) -> Vec<Bytes> {
        let number = self.relayed_to_client.fetch_add(1, Ordering::Relaxed);
        let faults = self.faults.borrow();
        let oversized = faults.oversized_frame.filter(|_| number == 0).map(tamper::oversized);
        let malformed = faults.malformed_every.filter(|every| number.is_multiple_of(every.get()));
        let malformed = malformed.map(|every| tamper::malformed(number / every, frame));
        oversized.into_iter().chain(malformed).collect()
    }

    /// Whether a client's message is taken; what is to be seen of it is noted.
    fn admits(&self, frame: &Bytes) -> bool {
        self.note_data(frame);
        if tamper::kind(frame) == MessageKind::InputStreamData.as_str().as_bytes() {
            if is_terminate_flag(frame) {
                self.events.record(Event::TerminateFlagSeen { session: self.id.clone() });
            }
            if !self.admits_payload(frame.len().saturating_sub(PREFIX_LENGTH)) {
                return false;
            }
        }
        self.meter_frame();
        true
    }

    fn admits_payload(&self, length: usize) -> bool {
        let (limit, oversize) = {
            let faults = self.faults.borrow();
            (faults.payload_limit, faults.oversize)
        };
        if limit.is_none_or(|limit| length <= limit) {
            return true;
        }
        self.events.record(Event::PayloadRefused { session: self.id.clone(), length });
        if oversize == Oversize::Close {
            self.client.interrupt(Interruption::TooBig);
        }
        false
    }

    fn meter_frame(&self) {
        let Some(limit) = self.faults.borrow().frame_limit else { return };
        if self.state().meter.exceeds(limit, Instant::now()) {
            self.events.record(Event::FrameLimitExceeded { session: self.id.clone() });
            self.agent.offer(self.publication(MessageKind::PausePublication));
            self.cut_next();
        }
    }

    fn note_data(&self, frame: &Bytes) {
        let data = tamper::kind(frame).ends_with(b"_stream_data");
        if data && tamper::has_payload_type(frame, PayloadType::Output) {
            self.state().last_data = Instant::now();
        }
    }

    /// Cuts the client's socket, if there is one, in the way whose turn it is.
    pub(crate) fn cut_next(&self) -> bool {
        let past = self.cuts.load(Ordering::Relaxed);
        let interruption = {
            let faults = self.faults.borrow();
            if !faults.cuts_session(self.number) {
                return false;
            }
            faults.cut_number(past)
        };
        let cut = self.client.interrupt(interruption);
        self.cuts.fetch_add(usize::from(cut), Ordering::Relaxed);
        cut
    }

    /// Cuts the socket of `side` now; says whether there is one.
    pub(crate) fn cut(&self, side: Side, cut: Cut) -> bool {
        self.slot(side).interrupt(self.faults.borrow().interruption(cut))
    }

    /// Ends the session when its time has come. To be run beside it.
    pub(crate) async fn watch_limits(self: Arc<Self>) {
        let mut faults = self.faults.clone();
        while !self.is_ended() {
            let limit = self.next_limit(&faults.borrow_and_update());
            tokio::select! {
                changed = faults.changed() => if changed.is_err() { return },
                () = reach(limit) => self.end_if_due(),
            }
        }
    }

    fn end_if_due(&self) {
        let limit = self.next_limit(&self.faults.borrow());
        if let Some((_, output)) = limit.filter(|(due, _)| *due <= Instant::now()) {
            self.end(output);
        }
    }

    /// When the session is to end by itself, unless there is data until then, and with what text.
    fn next_limit(&self, faults: &Faults) -> Option<(Instant, &'static str)> {
        let state = self.state();
        let idle = faults.idle_timeout.map(|limit| (state.last_data + limit, IDLE_TEXT));
        let longest = faults.max_duration.map(|limit| (state.started + limit, DURATION_TEXT));
        idle.into_iter().chain(longest).min()
    }

    /// Ends the session once: both sides get `channel_closed` behind what is on its way, the client with `output`. Says
    /// whether it was not over.
    pub(crate) fn end(&self, output: &str) -> bool {
        if std::mem::replace(&mut self.state().ended, true) {
            return false;
        }
        self.events.record(Event::SessionEnded { session: self.id.clone(), output: output.to_owned() });
        self.to_agent.finish(self.channel_closed(&self.node, ""));
        self.to_client.finish(self.channel_closed(&self.id, output));
        true
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
        tamper::channel_closed(body.to_payload(), self.faults.borrow().odd_messages)
    }

    /// Tells both sides whether somebody listens.
    pub(crate) fn publish(&self, kind: &MessageKind) {
        let frame = self.publication(kind.clone());
        self.client.offer(frame.clone());
        self.agent.offer(frame);
    }

    fn publication(&self, kind: MessageKind) -> Bytes {
        tamper::publication(kind, self.faults.borrow().odd_messages)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn new() -> Self {
        let now = Instant::now();
        Self {
            ended: false,
            client_token: None,
            agent_token: None,
            meter: Meter::default(),
            handshake_cuts: 0,
            started: now,
            last_data: now,
        }
    }

    fn token(&mut self, side: Side) -> &mut Option<Token> {
        match side {
            Side::Client => &mut self.client_token,
            Side::Node => &mut self.agent_token,
        }
    }
}

async fn reach(limit: Option<(Instant, &'static str)>) {
    match limit {
        Some((due, _)) => tokio::time::sleep_until(due.into()).await,
        None => std::future::pending().await,
    }
}

fn is_terminate_flag(frame: &[u8]) -> bool {
    tamper::has_payload_type(frame, PayloadType::Flag)
        && frame.get(PREFIX_LENGTH..).and_then(Flag::decode) == Some(Flag::TerminateSession)
}
