//! The one task of a stream: it carries frames between the engine and the socket, has a lost connection resumed, and sees
//! to it that the session ends.

use std::collections::VecDeque;
use std::future::{Future as _, poll_fn};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Uri;
use tokio::time::{Sleep, sleep, timeout};

use super::clock::now;
use super::link::{Link, Outage};
use super::payload::LargePayloads;
use super::quote::{REFUSAL, VERSION, quote};
use super::service::{Grant, SsmService, StartRequest, report_stage, report_wait};
use super::shared::{Goal, Shared, State, wake};
use super::silence::Silence;
use super::socket::{Connect, Socket};
use super::stop::Stop;
use super::{ConnectionState, StreamError, StreamOptions, url};
use crate::datachannel::{CloseReason, Event, Transmit};

/// Most frames taken from the socket before the engine sees them: their acknowledgements leave in one write.
const RECEIVE_BATCH: usize = 64;

/// Bytes taken from the engine before the socket sees them. What the socket does not take stays in the engine.
const SEND_BATCH: usize = 256 << 10;

/// A shutdown takes no longer than this, however much the node has to say.
const FINISH_LIMIT: Duration = Duration::from_secs(30);

/// Longest wait for the service to say that a session is over whose node has confirmed to end it. Agents drain for 2 s.
const LAST_WORD: Duration = Duration::from_secs(5);

/// A connection that has lasted this long has ended an outage, also where nothing was to be carried.
const SETTLED: Duration = Duration::from_secs(10);

pub(super) struct Setup {
    pub(super) service: Arc<dyn SsmService>,
    pub(super) connect: Arc<dyn Connect>,
    pub(super) request: StartRequest,
    pub(super) options: StreamOptions,
    pub(super) shared: Arc<Shared>,
}

/// Runs a stream from StartSession to its end.
pub(super) async fn run(setup: Setup) {
    let shared = Arc::clone(&setup.shared);
    let _told = TellAnyway(Arc::clone(&shared));
    let outcome = start_to_end(setup).await;
    shared.conclude(outcome);
    shared.gone.send_replace(true);
}

/// Whoever waits is told, also where the task is dropped with its runtime. The first conclusion stays.
struct TellAnyway(Arc<Shared>);

impl Drop for TellAnyway {
    fn drop(&mut self) {
        let reason = if std::thread::panicking() { StreamError::Panicked } else { StreamError::RuntimeGone };
        self.0.conclude(Err(reason));
        self.0.gone.send_replace(true);
    }
}

async fn start_to_end(setup: Setup) -> Result<(), StreamError> {
    let Setup { service, connect, request, options, shared } = setup;
    if !service.configured_host().is_some_and(url::is_loopback) {
        connect.prepare();
    }
    let grant = service.start(&request).await?;
    let _ = shared.session.set(grant.session.clone());
    tracing::info!(target: "ssmssh::detail", "SSM session {}", grant.session);
    let link = Link { service, connect, request, options, shared, session: grant.session.clone() };
    let end = match link.first_socket(&grant).await {
        Ok((url, socket)) => Driver::new(&link, url, socket).run(&grant).await,
        Err(error) => End { outcome: Err(error), is_over: false },
    };
    link.shared.end(end.outcome.clone());
    tracing::debug!(session = %link.session, stats = ?link.shared.lock().channel.stats(), "the stream has ended");
    if end.is_over { end.outcome } else { link.terminate(end.outcome).await }
}

/// How a stream ended, and whether the session is over at the service, too.
struct End {
    outcome: Result<(), StreamError>,
    is_over: bool,
}

#[expect(clippy::struct_excessive_bools, reason = "each is independent of the others")]
struct Driver<'a> {
    link: &'a Link,
    url: Uri,
    socket: Box<dyn Socket>,
    started: Instant,
    /// Taken from the socket; the engine takes no more than its inbox holds.
    received: VecDeque<Bytes>,
    outgoing: VecDeque<Transmit>,
    /// The engine may have more to send than was taken from it.
    has_more: bool,
    is_listening: bool,
    is_flushed: bool,
    /// The node has still to acknowledge something.
    is_owed: bool,
    timer: Pin<Box<Sleep>>,
    finishing: Option<Finishing>,
    /// All is confirmed, and nothing is waited for but the service's last word.
    is_over: bool,
    connected: Connected,
    /// The outage under way, until a connection has carried something or has lasted.
    outage: Option<Outage>,
    large_payloads: LargePayloads,
    silence: Silence,
    /// Since when an acknowledgement would have been seen: the socket is new, or was not read until then.
    attentive_since: Instant,
}

/// The present connection.
#[derive(Clone, Copy)]
struct Connected {
    since: Instant,
    /// The progress when it began.
    progress: u64,
}

/// How much the connections have carried to this side, in messages.
fn progress(state: &State) -> u64 {
    let seen = state.channel.stats();
    seen.acks_received + seen.messages_received
}

/// A shutdown under way.
#[derive(Clone, Copy)]
struct Finishing {
    since: Instant,
    /// When the node was heard last.
    heard: Instant,
}

impl<'a> Driver<'a> {
    fn new(link: &'a Link, url: Uri, socket: Box<dyn Socket>) -> Self {
        Self {
            link,
            url,
            socket,
            started: now(),
            received: VecDeque::with_capacity(RECEIVE_BATCH),
            outgoing: VecDeque::new(),
            has_more: false,
            is_listening: true,
            is_flushed: true,
            is_owed: false,
            timer: Box::pin(sleep(Duration::ZERO)),
            finishing: None,
            is_over: false,
            connected: Connected { since: now(), progress: 0 },
            outage: None,
            large_payloads: LargePayloads::default(),
            silence: Silence::default(),
            attentive_since: now(),
        }
    }

    /// Carries frames until the end.
    async fn run(mut self, grant: &Grant) -> End {
        self.link.shared.lock().channel.handle_connected(&grant.token, now());
        loop {
            let stop = poll_fn(|cx| self.poll(cx)).await;
            tracing::info!(target: "ssmssh::detail", "data channel: {stop}");
            let (outcome, is_over) = match stop {
                Stop::Lost(cut) => match self.resume(cut).await {
                    Ok(()) => continue,
                    Err(outcome) => (outcome, false),
                },
                Stop::Closed(reason) => (self.closed(reason), true),
                Stop::Finished => {
                    self.link.shared.conclude(Ok(()));
                    self.hear_the_last_word().await;
                    (Ok(()), true)
                }
                Stop::GivenUp => (self.given_up(), false),
                Stop::Failed(error) => (Err(error), false),
            };
            self.socket.close();
            return End { outcome, is_over };
        }
    }

    /// The session is open until the service has closed it, too.
    async fn hear_the_last_word(&mut self) {
        self.is_over = true;
        let last_word = timeout(LAST_WORD, poll_fn(|cx| self.poll(cx))).await;
        tracing::debug!(session = %self.link.session, is_told = last_word.is_ok(), "the session is over");
    }

    fn closed(&self, reason: CloseReason) -> Result<(), StreamError> {
        match reason {
            CloseReason::Ended if self.is_open() => Ok(()),
            CloseReason::Ended => Err(StreamError::EndedEarly),
            CloseReason::ByService(text) => Err(StreamError::Ended(quote(&text, REFUSAL, &[]))),
            CloseReason::Incomplete => Err(StreamError::Incomplete),
        }
    }

    fn given_up(&self) -> Result<(), StreamError> {
        match self.link.shared.goal() {
            Goal::Finish | Goal::Abandon if self.is_open() => {
                let is_delivered = self.link.shared.lock().channel.is_delivered();
                if is_delivered { Ok(()) } else { Err(StreamError::Unconfirmed) }
            }
            _ => Err(StreamError::Terminated),
        }
    }

    fn is_open(&self) -> bool {
        self.link.shared.agent_version.get().is_some()
    }

    /// Gets a new socket for the lost one; otherwise says how the stream ended.
    async fn resume(&mut self, cut: io::Error) -> Result<(), Result<(), StreamError>> {
        let (shared, is_open) = (&self.link.shared, self.is_open());
        self.outgoing.clear();
        self.received.clear();
        let lost = now();
        // A connection that says nothing more was gone long before that was noticed.
        let is_silent = cut.kind() == io::ErrorKind::TimedOut;
        let heard = if is_silent { self.socket.last_heard().min(lost) } else { lost };
        let cut = Arc::new(cut);
        let progress = {
            let mut state = shared.lock();
            state.channel.handle_disconnected(lost);
            self.large_payloads.cut(state.channel.unproven_payload(), &cut).map_err(Err)?;
            progress(&state)
        };
        if progress != self.connected.progress || lost - self.connected.since >= SETTLED {
            self.outage = None;
        }
        let outage = self.outage.get_or_insert_with(|| Outage::new(heard, lost));
        let (since, until) = (outage.since, self.link.gives_up(outage.noticed, is_open));
        let cause = cut.to_string();
        shared.connection.send_replace(ConnectionState::Reconnecting { since, until, cause, obstacle: None });
        let cut = StreamError::Cut(cut);
        let (socket, token) = tokio::select! {
            next = self.link.resume(&self.url, cut, outage, is_open) => next.map_err(Err)?,
            () = self.link.is_given_up(is_open) => return Err(self.given_up()),
        };
        self.socket = socket;
        self.is_flushed = true;
        self.connected = Connected { since: now(), progress };
        self.attentive_since = self.connected.since;
        shared.lock().channel.handle_connected(&token, self.connected.since);
        if let Some(finishing) = &mut self.finishing {
            finishing.heard = self.connected.since;
        }
        let state = if is_open { ConnectionState::Connected } else { ConnectionState::Opening };
        shared.connection.send_replace(state);
        Ok(())
    }

    /// Input, one step of the engine, output, until all of them wait.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Stop> {
        loop {
            let was_listening = self.is_listening;
            let received = self.receive(cx);
            let deadline = match self.step(cx) {
                Ok(deadline) => deadline,
                Err(stop) => return Poll::Ready(stop),
            };
            let is_busy = match received.and_then(|more| Ok(more | self.send(cx)?)) {
                Ok(is_busy) => is_busy,
                Err(error) => return Poll::Ready(Stop::Lost(error)),
            };
            let listens_again = self.is_listening && !was_listening;
            if !is_busy && !listens_again {
                ready!(self.poll_timer(cx, deadline));
            }
        }
    }

    /// Takes what has arrived; says whether there may be more.
    fn receive(&mut self, cx: &mut Context<'_>) -> io::Result<bool> {
        while self.is_listening && self.received.len() < RECEIVE_BATCH {
            match self.socket.poll_receive(cx) {
                Poll::Ready(frame) => self.received.push_back(frame?),
                Poll::Pending => {
                    self.socket.keep_alive(cx, true, self.is_owed)?;
                    return Ok(false);
                }
            }
        }
        if !self.is_listening {
            self.socket.keep_alive(cx, false, self.is_owed)?;
        }
        Ok(self.is_listening)
    }

    /// Gives the engine what happened and takes what it wants sent; says when it wants to be called again.
    fn step(&mut self, cx: &mut Context<'_>) -> Result<Option<Instant>, Stop> {
        let now = now();
        let mut state = self.link.shared.attend(cx);
        let is_heard = !self.received.is_empty();
        while !state.channel.is_inbox_full() {
            let Some(frame) = self.received.pop_front() else { break };
            state.channel.handle_frame(frame, now).map_err(|error| Stop::Failed(error.into()))?;
        }
        if state.channel.poll_timeout().is_some_and(|deadline| deadline <= now) {
            state.channel.handle_timeout(now).map_err(|error| Stop::Failed(error.into()))?;
        }
        let limit = self.follow_goal(&mut state, is_heard, now)?;
        self.ask(&mut state, now);
        self.refill(&mut state, now);
        self.tell(&mut state)?;
        let proof = self.expect_proof(&state, now)?;
        self.is_owed = state.channel.stats().in_flight > 0;
        Ok(state.channel.poll_timeout().into_iter().chain(limit).chain(proof).min())
    }

    /// Gives up on bytes that nobody acknowledges; says until when to wait for that.
    fn expect_proof(&mut self, state: &State, now: Instant) -> Result<Option<Instant>, Stop> {
        let was_listening = std::mem::replace(&mut self.is_listening, !state.channel.is_inbox_full());
        if !was_listening {
            self.attentive_since = now;
        }
        if !self.is_listening {
            return Ok(None);
        }
        let port = state.channel.unanswered_since().map(|sent| self.link.port_deadline(sent.max(self.attentive_since)));
        if port.is_some_and(|deadline| deadline <= now) {
            return Err(Stop::Failed(self.link.nothing_listens()));
        }
        let answer = self.expect_answer(state, now)?;
        let Some((size, sent)) = state.channel.unproven_payload() else { return Ok(earlier(port, answer)) };
        let overtaken = state.channel.unproven_overtaken_since();
        let deadline = match overtaken {
            Some(since) => LargePayloads::deadline(since, self.attentive_since),
            None => LargePayloads::question(sent, self.attentive_since),
        };
        if deadline <= now && overtaken.is_some() {
            return Err(Stop::Failed(StreamError::PayloadRefused { size, cut: None }));
        }
        Ok(earlier(Some(deadline).filter(|deadline| *deadline > now), earlier(port, answer)))
    }

    /// Asks whether anything small gets through where a large payload does not, and whether a node is there that has nothing
    /// to answer.
    fn ask(&mut self, state: &mut State, now: Instant) {
        if !self.is_listening || !self.is_open() {
            return;
        }
        let unproven = state.channel.unproven_payload();
        if unproven.is_some_and(|(_, sent)| LargePayloads::question(sent, self.attentive_since) <= now) {
            state.channel.send_question();
        }
        if !state.channel.is_agent_terse()
            && self.silence.asks(self.link.options.node_timeout, self.attentive_since, now)
        {
            state.channel.send_probe();
        }
    }

    /// Tells of a node that answers nothing, and gives it up in the end; says when to look again.
    fn expect_answer(&mut self, state: &State, now: Instant) -> Result<Option<Instant>, Stop> {
        if state.channel.is_agent_terse() {
            return Ok(None);
        }
        let limit = self.link.options.node_timeout;
        self.silence.observe(&state.channel.stats(), self.attentive_since, now);
        if self.silence.outlasts(limit, now) {
            let target = self.link.request.target.clone();
            let unproven = state.channel.unproven_payload().map(|(size, _)| size);
            return Err(Stop::Failed(StreamError::NodeSilent { target, waited: limit, unproven }));
        }
        let until = self.silence.gives_up(limit).unwrap_or(now + limit);
        let notable = self.silence.notable(now).map(|since| ConnectionState::Unanswered { since, until });
        self.link.shared.connection.send_if_modified(|shown| match (&*shown, &notable) {
            (ConnectionState::Connected, Some(silent)) => {
                *shown = silent.clone();
                true
            }
            (ConnectionState::Unanswered { .. }, None) => {
                *shown = ConnectionState::Connected;
                true
            }
            _ => false,
        });
        Ok(self.silence.deadline(limit, now))
    }

    /// Does what the user wants; says until when a shutdown may take.
    fn follow_goal(&mut self, state: &mut State, is_heard: bool, now: Instant) -> Result<Option<Instant>, Stop> {
        let goal = self.link.shared.goal();
        if goal == Goal::Run || self.is_over {
            return Ok(None);
        }
        if goal == Goal::Terminate || !self.is_open() {
            return Err(Stop::GivenUp);
        }
        state.channel.finish(now);
        if goal == Goal::Abandon {
            while state.channel.read().is_some() {}
        }
        let finishing = self.finishing.get_or_insert(Finishing { since: now, heard: now });
        if is_heard {
            finishing.heard = now;
        }
        let limit = (finishing.heard + self.link.options.drain_timeout).min(finishing.since + FINISH_LIMIT);
        if now >= limit { Err(Stop::GivenUp) } else { Ok(Some(limit)) }
    }

    /// Takes frames for the socket once it has taken all before.
    fn refill(&mut self, state: &mut State, now: Instant) {
        if !self.outgoing.is_empty() {
            return;
        }
        let mut bytes = 0;
        while bytes < SEND_BATCH {
            let Some(frame) = state.channel.poll_transmit(now) else { break };
            bytes += match &frame {
                Transmit::Text(text) => text.len(),
                Transmit::Binary(frame) => frame.len(),
            };
            self.outgoing.push_back(frame);
        }
        self.has_more = bytes >= SEND_BATCH;
    }

    /// Passes the engine's events on.
    fn tell(&self, state: &mut State) -> Result<(), Stop> {
        while let Some(event) = state.channel.poll_event() {
            match event {
                Event::Readable => wake(&mut state.reader),
                Event::Writable => wake(&mut state.writer),
                Event::Established { agent_version } => {
                    report_stage("handshake", self.started);
                    report_wait("the SSH server on the node");
                    let _ = self.link.shared.agent_version.set(quote(&agent_version, VERSION, &[]));
                    self.link.shared.connection.send_replace(ConnectionState::Connected);
                    wake(&mut state.opener);
                }
                Event::Finished => return Err(Stop::Finished),
                Event::Closed(reason) => return Err(Stop::Closed(reason)),
            }
        }
        Ok(())
    }

    /// Gives the socket what it takes; says whether the engine may have more for it.
    fn send(&mut self, cx: &mut Context<'_>) -> io::Result<bool> {
        while !self.outgoing.is_empty() {
            if self.socket.poll_ready(cx)?.is_pending() {
                return Ok(false);
            }
            if let Some(frame) = self.outgoing.pop_front() {
                self.socket.send(frame)?;
                self.is_flushed = false;
            }
        }
        if !self.has_more && !self.is_flushed {
            self.is_flushed = self.socket.poll_flush(cx)?.is_ready();
        }
        Ok(self.has_more)
    }

    fn poll_timer(&mut self, cx: &mut Context<'_>, deadline: Option<Instant>) -> Poll<()> {
        // What is due now and waits for the socket will be done when the socket is ready.
        let is_blocked = !self.outgoing.is_empty();
        let Some(deadline) = deadline.filter(|deadline| !is_blocked || *deadline > now()) else {
            return Poll::Pending;
        };
        if self.timer.deadline() != deadline.into() {
            self.timer.as_mut().reset(deadline.into());
        }
        self.timer.as_mut().poll(cx)
    }
}

fn earlier(one: Option<Instant>, other: Option<Instant>) -> Option<Instant> {
    one.into_iter().chain(other).min()
}
