//! How much channels may hand to russh before the stream has taken what they handed it earlier.
//!
//! russh takes whatever it is given, up to the server's window, which is 2 MiB with OpenSSH: two seconds of a link of
//! 1 MB/s, and behind it waits whatever any channel of the connection sends next. What waits in a channel's own pipe is in
//! nobody's way. So a channel hands over one packet at a time, in turn with the others, and only as much is under way in
//! russh and in front of the stream as the stream takes in [`AHEAD`].

use std::{
    sync::{Mutex as StdMutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::sync::{Mutex, Notify};

/// What the stream takes in this time may wait for it: a channel that is told of room is back with bytes well within it.
const AHEAD: Duration = Duration::from_millis(20);
/// How often the stream's rate is judged.
const JUDGED: Duration = Duration::from_millis(10);
/// Bytes that may wait on the slowest stream and on the fastest. A packet of SSH is 32 KiB at most.
const LIMITS: (u64, u64) = (32 << 10, 512 << 10);

#[derive(Debug)]
pub(super) struct Backlog {
    state: StdMutex<State>,
    /// Room was made.
    room: Notify,
    /// Held by the channel that is next.
    turn: Mutex<()>,
}

#[derive(Debug)]
struct State {
    limit: u64,
    /// Handed to russh since its last flush.
    handed: u64,
    /// Flushed by russh and not taken by the stream.
    unsent: u64,
    flushes: u64,
    taken: u64,
    judged_at: Instant,
}

/// The permission to hand over a packet.
#[derive(Debug)]
pub(super) struct Turn {
    flushes: u64,
}

impl Backlog {
    pub(super) fn new(now: Instant) -> Self {
        let state = State { limit: LIMITS.0, handed: 0, unsent: 0, flushes: 0, taken: 0, judged_at: now };
        Self { state: StdMutex::new(state), room: Notify::new(), turn: Mutex::new(()) }
    }

    /// Waits until a packet may be handed to russh. Channels that wait are served in turn. Cancel safe.
    pub(super) async fn turn(&self) -> Turn {
        let _next = self.turn.lock().await;
        loop {
            // Made before the look at the state, so that whatever changes after it is heard.
            let room = self.room.notified();
            if let Some(turn) = self.try_turn() {
                return turn;
            }
            room.await;
        }
    }

    fn try_turn(&self) -> Option<Turn> {
        let state = self.lock();
        (state.handed + state.unsent < state.limit).then_some(Turn { flushes: state.flushes })
    }

    /// So many bytes were handed to russh. If it has flushed since the turn began it may have sent them already, and
    /// nobody would ever take them off the count: they are left out.
    pub(super) fn handed(&self, turn: &Turn, bytes: usize) {
        let mut state = self.lock();
        if state.flushes == turn.flushes {
            state.handed += bytes as u64;
        }
    }

    /// russh holds nothing any more of what it was handed; `unsent` bytes are left for the stream to take.
    pub(super) fn flushed(&self, unsent: usize) {
        self.change(|state| {
            state.flushes += 1;
            state.handed = 0;
            state.unsent = unsent as u64;
        });
    }

    /// The stream took `bytes`, and `unsent` are left.
    pub(super) fn taken(&self, bytes: usize, unsent: usize, now: Instant) {
        self.change(|state| {
            state.unsent = unsent as u64;
            state.judge(bytes as u64, now);
        });
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        let has_room = {
            let mut state = self.lock();
            change(&mut state);
            state.handed + state.unsent < state.limit
        };
        if has_room {
            // Only one can be waiting: it has the turn.
            self.room.notify_one();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// The limit follows what the stream takes in [`AHEAD`].
    fn judge(&mut self, bytes: u64, now: Instant) {
        self.taken += bytes;
        let elapsed = now.saturating_duration_since(self.judged_at);
        if elapsed >= JUDGED {
            let ahead = u128::from(self.taken) * AHEAD.as_nanos() / elapsed.as_nanos();
            self.limit = u64::try_from(ahead).unwrap_or(u64::MAX).clamp(LIMITS.0, LIMITS.1);
            (self.taken, self.judged_at) = (0, now);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::poll;
    use std::pin::pin;

    use super::*;

    const LEAST: usize = 32 << 10;

    async fn hand(backlog: &Backlog, bytes: usize) {
        let turn = backlog.turn().await;
        backlog.handed(&turn, bytes);
    }

    #[tokio::test]
    async fn a_channel_waits_until_the_stream_has_taken_what_was_handed_over() {
        let now = Instant::now();
        let backlog = Backlog::new(now);
        hand(&backlog, LEAST).await;
        let mut next = pin!(hand(&backlog, 1));
        assert!(poll!(&mut next).is_pending());
        backlog.flushed(LEAST);
        assert!(poll!(&mut next).is_pending(), "russh is rid of it, the stream has not got it");
        backlog.taken(LEAST, 0, now);
        next.await;
    }

    #[tokio::test]
    async fn channels_are_served_in_turn() {
        let backlog = Backlog::new(Instant::now());
        hand(&backlog, LEAST).await;
        let (mut first, mut second) = (pin!(hand(&backlog, LEAST)), pin!(hand(&backlog, 1)));
        assert!(poll!(&mut first).is_pending() && poll!(&mut second).is_pending());
        backlog.flushed(0);
        assert!(poll!(&mut second).is_pending(), "it came second");
        first.await;
        assert!(poll!(&mut second).is_pending());
        backlog.flushed(0);
        second.await;
    }

    #[tokio::test]
    async fn what_is_flushed_before_it_is_counted_leaves_no_trace() {
        let backlog = Backlog::new(Instant::now());
        let turn = backlog.turn().await;
        backlog.flushed(0);
        backlog.handed(&turn, LEAST);
        hand(&backlog, 1).await;
    }

    #[test]
    fn the_limit_follows_what_the_stream_takes() {
        let mut now = Instant::now();
        let backlog = Backlog::new(now);
        for (rate, limit) in [(10_000_000, 200_000), (100_000, LIMITS.0), (1_000_000_000, LIMITS.1)] {
            for _ in 0..10 {
                now += Duration::from_millis(10);
                backlog.taken(rate / 100, 0, now);
            }
            assert_eq!(backlog.lock().limit, limit, "at {rate} bytes a second");
        }
    }
}
