//! What the stream's halves and its driver share: the engine, and who waits for it.

use std::io;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::SystemTime;

use bytes::{Buf, Bytes};
use tokio::io::ReadBuf;
use tokio::sync::watch;
use uuid::Uuid;

use super::clock::now;
use super::{ConnectionState, SessionId, StreamError};
use crate::datachannel::{Config, DataChannel};

/// What the user wants of the session; it only ever rises.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Goal {
    /// Carry bytes.
    Run,
    /// Deliver what was written, then end.
    Finish,
    /// The same, and nobody reads any more.
    Abandon,
    /// End now.
    Terminate,
}

pub(super) struct Shared {
    state: Mutex<State>,
    pub(super) goal: watch::Sender<Goal>,
    pub(super) connection: watch::Sender<ConnectionState>,
    /// The outcome, once the session is told to end and that is confirmed.
    pub(super) over: watch::Sender<Option<Result<(), StreamError>>>,
    /// The service has ended the session, or will not say so any more.
    pub(super) gone: watch::Sender<bool>,
    pub(super) session: OnceLock<SessionId>,
    pub(super) agent_version: OnceLock<String>,
}

pub(super) struct State {
    pub(super) channel: DataChannel,
    /// The rest of the chunk that the reader took last.
    unread: Bytes,
    /// How the stream ended, for readers and writers: the session may still have to be terminated.
    pub(super) ended: Option<Result<(), StreamError>>,
    pub(super) reader: Option<Waker>,
    pub(super) writer: Option<Waker>,
    pub(super) opener: Option<Waker>,
    closer: Option<Waker>,
    driver: Option<Waker>,
}

/// Remembers who to wake.
fn wait(slot: &mut Option<Waker>, cx: &Context<'_>) {
    match slot {
        Some(waker) => waker.clone_from(cx.waker()),
        None => *slot = Some(cx.waker().clone()),
    }
}

/// Wakes whoever waits.
pub(super) fn wake(slot: &mut Option<Waker>) {
    if let Some(waker) = slot.take() {
        waker.wake();
    }
}

impl Shared {
    pub(super) fn new(config: Config) -> Self {
        let channel = DataChannel::new(config, random(), now(), SystemTime::now());
        let (unread, ended) = (Bytes::new(), None);
        let (reader, writer, opener, closer, driver) = (None, None, None, None, None);
        Self {
            state: Mutex::new(State { channel, unread, ended, reader, writer, opener, closer, driver }),
            goal: watch::Sender::new(Goal::Run),
            connection: watch::Sender::new(ConnectionState::Opening),
            over: watch::Sender::new(None),
            gone: watch::Sender::new(false),
            session: OnceLock::new(),
            agent_version: OnceLock::new(),
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        // A panic in the engine ends the driver; whoever asks afterwards is told by `ended`.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn goal(&self) -> Goal {
        *self.goal.borrow()
    }

    pub(super) fn raise(&self, goal: Goal) {
        let is_raised = self.goal.send_if_modified(|current| {
            let is_higher = goal > *current;
            *current = goal.max(*current);
            is_higher
        });
        if is_raised {
            wake(&mut self.lock().driver);
        }
    }

    /// The driver is woken by this context from now on.
    pub(super) fn attend(&self, cx: &Context<'_>) -> MutexGuard<'_, State> {
        let mut state = self.lock();
        wait(&mut state.driver, cx);
        state
    }

    /// No more bytes will come than the channel holds, and none are taken. The first reason stays.
    pub(super) fn end(&self, outcome: Result<(), StreamError>) {
        let mut state = self.lock();
        state.ended.get_or_insert(outcome);
        wake(&mut state.reader);
        wake(&mut state.writer);
    }

    /// Everything is done, also at the service.
    pub(super) fn conclude(&self, outcome: Result<(), StreamError>) {
        self.end(outcome.clone());
        self.connection.send_replace(ConnectionState::Closed);
        self.over.send_if_modified(|over| {
            let is_first = over.is_none();
            over.get_or_insert(outcome);
            is_first
        });
        let mut state = self.lock();
        wake(&mut state.opener);
        wake(&mut state.closer);
    }

    /// Ready when bytes can flow, or never will.
    pub(super) fn poll_open(&self, cx: &Context<'_>) -> Poll<Result<(), StreamError>> {
        let mut state = self.lock();
        if self.agent_version.get().is_some() {
            return Poll::Ready(Ok(()));
        }
        if let Some(outcome) = &*self.over.borrow() {
            return Poll::Ready(outcome.clone().and(Err(StreamError::EndedEarly)));
        }
        wait(&mut state.opener, cx);
        Poll::Pending
    }

    pub(super) fn poll_read(&self, cx: &Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut state = self.lock();
        let was_full = state.channel.is_inbox_full();
        if state.take(buf) > 0 || buf.remaining() == 0 {
            if was_full && !state.channel.is_inbox_full() {
                wake(&mut state.driver);
            }
            return Poll::Ready(Ok(()));
        }
        if let Some(outcome) = &state.ended {
            return Poll::Ready(outcome.clone().map_err(io::Error::from));
        }
        wait(&mut state.reader, cx);
        Poll::Pending
    }

    pub(super) fn poll_write(&self, cx: &Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        if data.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let mut state = self.lock();
        if let Some(outcome) = &state.ended {
            let error = outcome.clone().err().unwrap_or(StreamError::ShutDown);
            return Poll::Ready(Err(error.into()));
        }
        if self.goal() != Goal::Run {
            return Poll::Ready(Err(StreamError::ShutDown.into()));
        }
        let taken = state.channel.write(data, now());
        if taken == 0 {
            wait(&mut state.writer, cx);
            return Poll::Pending;
        }
        wake(&mut state.driver);
        Poll::Ready(Ok(taken))
    }

    /// Ready when everything is done.
    pub(super) fn poll_over(&self, cx: &Context<'_>) -> Poll<io::Result<()>> {
        let mut state = self.lock();
        if let Some(outcome) = &*self.over.borrow() {
            return Poll::Ready(outcome.clone().map_err(io::Error::from));
        }
        wait(&mut state.closer, cx);
        Poll::Pending
    }
}

impl State {
    /// Moves what has arrived into `buf`; says how much.
    fn take(&mut self, buf: &mut ReadBuf<'_>) -> usize {
        let room = buf.remaining();
        while buf.remaining() > 0 {
            if self.unread.is_empty() {
                let Some(chunk) = self.channel.read() else { break };
                self.unread = chunk;
            }
            let length = self.unread.len().min(buf.remaining());
            buf.put_slice(&self.unread[..length]);
            self.unread.advance(length);
        }
        room - buf.remaining()
    }
}

/// 64 random bits. A version 4 identifier has 122; its fixed ones lie apart in the two halves.
pub(super) fn random() -> u64 {
    let (high, low) = Uuid::new_v4().as_u64_pair();
    high ^ low.rotate_left(32)
}
