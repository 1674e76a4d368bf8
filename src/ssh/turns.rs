//! Whose turn it is to open a channel.
//!
//! A server opens only so many session channels at once (OpenSSH's `MaxSessions`, 10) and refuses the others. A channel
//! that is refused while others of ours are open waits until one of them ends. Those that wait come in the order in which
//! they asked, newcomers behind them, and each that ends lets one try.

use std::{
    collections::BTreeMap,
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{Notify, oneshot},
    time::timeout,
};

#[derive(Debug, Default)]
pub(super) struct Turns {
    state: Mutex<State>,
    /// Nothing is active any more.
    idle: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// Channels that are open or asked for.
    active: usize,
    /// Channels that have ended.
    ended: u64,
    next_ticket: u64,
    waiting: BTreeMap<u64, oneshot::Sender<Slot>>,
}

/// The place of a channel that is open or asked for. Dropping it lets the next one try.
#[derive(Debug)]
pub(super) struct Slot {
    turns: Arc<Turns>,
    /// How many had ended when this one was asked for.
    since: u64,
    /// It counts among the active.
    is_active: bool,
}

/// A place among those that wait. Dropping it leaves them; a turn that has come meanwhile goes to the next.
#[derive(Debug)]
pub(super) struct Place {
    turns: Arc<Turns>,
    ticket: u64,
    turn: Option<oneshot::Receiver<Slot>>,
}

/// What a refusal means.
#[derive(Debug)]
pub(super) enum Refused {
    /// Nothing of ours is open that could make room.
    ForGood,
    /// One has ended since it was asked for.
    TryAgain(Slot),
    /// Others are open.
    Wait(Place),
}

impl Turns {
    /// A slot at once, unless others wait for theirs.
    pub(super) fn begin(self: &Arc<Self>) -> Result<Slot, Place> {
        let mut state = self.lock();
        if state.waiting.is_empty() { Ok(self.slot(&mut state)) } else { Err(self.place(&mut state, None)) }
    }

    fn slot(self: &Arc<Self>, state: &mut State) -> Slot {
        state.active += 1;
        Slot { turns: Arc::clone(self), since: state.ended, is_active: true }
    }

    fn place(self: &Arc<Self>, state: &mut State, ticket: Option<u64>) -> Place {
        let ticket = ticket.unwrap_or_else(|| {
            state.next_ticket += 1;
            state.next_ticket
        });
        let (turn, is_turn) = oneshot::channel();
        state.waiting.insert(ticket, turn);
        Place { turns: Arc::clone(self), ticket, turn: Some(is_turn) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until no channel is open or asked for. Cancel safe.
    pub(super) async fn idle(&self) {
        loop {
            let idle = self.idle.notified();
            if self.lock().active == 0 {
                return;
            }
            idle.await;
        }
    }

    fn ended(&self) -> u64 {
        self.lock().ended
    }
}

impl Slot {
    /// The server has refused it; `ticket` is that of the place that it had, if it had one.
    pub(super) fn refused(mut self, ticket: Option<u64>) -> Refused {
        let turns = Arc::clone(&self.turns);
        let mut state = turns.lock();
        if self.since != state.ended {
            self.since = state.ended;
            return Refused::TryAgain(self);
        }
        self.is_active = false;
        state.active -= 1;
        if state.active > 0 {
            return Refused::Wait(turns.place(&mut state, ticket));
        }
        // Nobody is left who could make room for those that wait: they hear of it when their sender is dropped.
        let waiting = mem::take(&mut state.waiting);
        drop(state);
        drop(waiting);
        Refused::ForGood
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if !self.is_active {
            return;
        }
        let next = {
            let mut state = self.turns.lock();
            state.active -= 1;
            state.ended += 1;
            if state.active == 0 {
                self.turns.idle.notify_waiters();
            }
            let next = state.waiting.pop_first();
            next.map(|(_, turn)| (turn, self.turns.slot(&mut state)))
        };
        if let Some((turn, slot)) = next {
            // Whoever has gone meanwhile drops it, which lets the next one try.
            drop(turn.send(slot));
        }
    }
}

impl Place {
    pub(super) fn ticket(&self) -> u64 {
        self.ticket
    }

    /// Waits for the turn; nothing where there is none to come, because nothing is open any more or, for `limit`, nothing
    /// has ended.
    pub(super) async fn turn(mut self, limit: Duration) -> Option<Slot> {
        let mut turn = self.turn.take()?;
        loop {
            let ended = self.turns.ended();
            match timeout(limit, &mut turn).await {
                Ok(turn) => return turn.ok(),
                Err(_) if self.turns.ended() != ended => {}
                Err(_) => return None,
            }
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let left = self.turns.lock().waiting.remove(&self.ticket);
        drop(left);
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use futures_util::poll;

    use super::*;

    const LONG: Duration = Duration::from_hours(1);

    fn place(refused: Refused) -> Place {
        match refused {
            Refused::Wait(place) => place,
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn those_that_wait_are_served_in_their_order_and_newcomers_behind_them() {
        let turns = Arc::new(Turns::default());
        let [open, first, second] = [(); 3].map(|()| turns.begin().expect("nobody waits"));
        let (first, second) = (place(first.refused(None)), place(second.refused(None)));
        let newcomer = turns.begin().expect_err("others wait");
        let ticket = first.ticket();
        let (mut first, mut second) = (pin!(first.turn(LONG)), pin!(second.turn(LONG)));
        let mut newcomer = pin!(newcomer.turn(LONG));
        assert!(poll!(&mut first).is_pending());
        drop(open);
        assert!(poll!(&mut newcomer).is_pending() && poll!(&mut second).is_pending());
        let slot = first.await.expect("its turn");
        let other = turns.slot(&mut turns.lock());
        let mut first = pin!(place(slot.refused(Some(ticket))).turn(LONG));
        drop(other);
        assert!(poll!(&mut second).is_pending(), "who was refused again keeps the place");
        drop(first.as_mut().await.expect("its turn"));
        drop(second.await.expect("its turn"));
        newcomer.await.expect("its turn");
    }

    #[tokio::test]
    async fn whoever_stops_waiting_holds_up_nobody() {
        let turns = Arc::new(Turns::default());
        let [open, first, second] = [(); 3].map(|()| turns.begin().expect("nobody waits"));
        let (first, second) = (place(first.refused(None)), place(second.refused(None)));
        let (mut first, mut second) = (Box::pin(first.turn(LONG)), pin!(second.turn(LONG)));
        assert!(poll!(&mut first).is_pending() && poll!(&mut second).is_pending());
        drop(open);
        drop(first);
        drop(second.await.expect("the turn that the first did not take"));
        assert_eq!(turns.lock().active, 0);
        assert!(turns.begin().is_ok(), "nobody waits any more");
    }

    #[tokio::test]
    async fn a_refusal_with_none_open_is_one_for_all_that_wait() {
        let turns = Arc::new(Turns::default());
        let [first, second] = [(); 2].map(|()| turns.begin().expect("nobody waits"));
        let waiting = place(first.refused(None));
        assert!(matches!(second.refused(None), Refused::ForGood));
        assert!(waiting.turn(LONG).await.is_none());
        assert_eq!(turns.lock().active, 0);
    }

    #[tokio::test]
    async fn a_channel_that_ends_before_the_refusal_is_heard_is_not_waited_for() {
        let turns = Arc::new(Turns::default());
        let [open, refused] = [(); 2].map(|()| turns.begin().expect("nobody waits"));
        drop(open);
        let Refused::TryAgain(slot) = refused.refused(None) else { panic!("there is room") };
        assert!(matches!(slot.refused(None), Refused::ForGood));
    }

    #[tokio::test(start_paused = true)]
    async fn the_wait_ends_when_nothing_has_ended_for_so_long() {
        let turns = Arc::new(Turns::default());
        let [open, other, refused] = [(); 3].map(|()| turns.begin().expect("nobody waits"));
        let waiting = place(refused.refused(None));
        let (before, its_turn) = oneshot::channel();
        turns.lock().waiting.insert(0, before);
        let ending = async {
            tokio::time::sleep(LONG / 2).await;
            drop(open);
        };
        let begun = tokio::time::Instant::now();
        let (turn, ()) = tokio::join!(waiting.turn(LONG), ending);
        assert!(turn.is_none() && begun.elapsed() > LONG, "one had ended in the first hour");
        drop((other, its_turn));
    }
}
