//! Opening a channel: when it is its turn, and in a task of its own, so that one who stops waiting leaves no channel open.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use russh::{
    Channel,
    client::{Handle, Msg},
};
use tokio::{sync::oneshot, task::JoinSet, time::timeout};
use tracing::Instrument as _;

use super::{
    Shared, SshError,
    channel::{self, Ends, Order},
    handler::Events,
    quote,
    turns::{Refused, Slot, Turns},
};

/// Longest wait for the channels of a session that is closed to say their last: they wait for nothing but russh.
const CLOSING: Duration = Duration::from_secs(1);

/// Where a session's channels are opened.
pub(super) struct Opening {
    handle: Arc<Handle<Events>>,
    shared: Arc<Shared>,
    turns: Arc<Turns>,
    /// How long a channel waits for its turn without any of the others having ended.
    patience: Duration,
    tasks: Mutex<JoinSet<()>>,
}

/// What came of asking for a channel.
enum Asked {
    Open(Box<Channel<Msg>>, Slot),
    Refused(String, Slot),
    Lost,
}

impl Opening {
    pub(super) fn new(handle: Handle<Events>, shared: Arc<Shared>, patience: Duration) -> Self {
        Self { handle: Arc::new(handle), shared, turns: Arc::default(), patience, tasks: Mutex::default() }
    }

    pub(super) fn is_closed(&self) -> bool {
        self.handle.is_closed()
    }

    /// Stops what is being opened, waits for what is open to be closed, and gives back russh's handle.
    pub(super) async fn stop(self) -> Option<Handle<Events>> {
        let mut tasks = self.tasks.into_inner().unwrap_or_else(PoisonError::into_inner);
        tasks.shutdown().await;
        let _ = timeout(CLOSING, self.turns.idle()).await;
        Arc::into_inner(self.handle)
    }

    /// Opens a channel and sends the requests on it.
    ///
    /// Cancel safe: what is open by then is closed.
    pub(super) async fn open(&self, order: Order) -> Result<Ends, SshError> {
        for request in &order.requests {
            request.check()?;
        }
        let opened = Instant::now();
        let mut refusal = None;
        let mut ticket = None;
        let mut turn = self.turns.begin();
        loop {
            let slot = match turn {
                Ok(slot) => slot,
                Err(place) => {
                    ticket = Some(place.ticket());
                    tracing::debug!("a channel waits until another one is closed");
                    let Some(slot) = place.turn(self.patience).await else {
                        let reason = refusal.unwrap_or_else(|| "too many are open".to_owned());
                        return Err(SshError::ChannelRefused { reason });
                    };
                    slot
                }
            };
            let (channel, slot) = match self.ask(slot).await {
                Asked::Open(channel, slot) => (channel, slot),
                Asked::Lost => return Err(self.shared.lost().await.into()),
                Asked::Refused(reason, slot) => {
                    turn = match slot.refused(ticket) {
                        Refused::ForGood => return Err(SshError::ChannelRefused { reason }),
                        Refused::TryAgain(slot) => Ok(slot),
                        Refused::Wait(place) => Err(place),
                    };
                    refusal = Some(reason);
                    continue;
                }
            };
            return Ok(channel::start(*channel, order, opened, slot, Arc::clone(&self.shared)));
        }
    }

    /// Asks the server for a channel.
    ///
    /// Cancel safe: a channel that the server has granted by then, or grants later, is closed.
    async fn ask(&self, slot: Slot) -> Asked {
        let (answer, answered) = oneshot::channel();
        let (handle, shared) = (Arc::clone(&self.handle), Arc::clone(&self.shared));
        let asking = async move {
            let asked = match handle.channel_open_session().await {
                Ok(channel) => Asked::Open(Box::new(channel), slot),
                Err(russh::Error::ChannelOpenFailure(failure)) => {
                    Asked::Refused(quote::said(failure.description()), slot)
                }
                Err(_) => Asked::Lost,
            };
            if let Err(Asked::Open(channel, slot)) = answer.send(asked) {
                let opened = Instant::now();
                drop(channel::start(*channel, Order::default(), opened, slot, shared));
            }
        };
        self.spawn(asking.in_current_span());
        answered.await.unwrap_or(Asked::Lost)
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        while tasks.try_join_next().is_some() {}
        tasks.spawn(task);
    }
}
