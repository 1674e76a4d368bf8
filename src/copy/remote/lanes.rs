//! The streams of one side: which of them carries what, and which are gone.
//!
//! Each stream is a lane with a window of its own, so that a slow one is given less and holds nobody up. What it has in
//! flight follows what it moves: a window that is emptied quickly grows, one that takes long shrinks. A lane that others
//! have replaced is retired: it ends what it has begun, and carries something new only when all others are lost. When all
//! are lost and somebody sees to another, whoever needs one waits for that.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::compression::{Sample, StreamKind, packed_length};
use crate::ssh::sftp::{Sftp, SftpError};

/// Bytes that a stream may have in flight at first, at least and at most. The last fills a path of 20 MB/s and 200 ms.
const FIRST_WINDOW: u64 = 512 * 1024;
const LEAST_WINDOW: u64 = 256 * 1024;
const MOST_WINDOW: u64 = 4 * 1024 * 1024;
/// How much longer than the quickest piece one may wait in a stream's queue: enough to keep it busy, little enough that
/// what another stream could do sooner does not wait for long.
const QUEUE: Duration = Duration::from_millis(400);

/// What one stream may have in flight. Pure.
#[derive(Debug)]
struct Pace {
    window: u64,
    quickest: Duration,
}

impl Pace {
    fn new() -> Self {
        Self { window: FIRST_WINDOW, quickest: Duration::MAX }
    }

    /// A piece of `length` was moved, `took` after it was asked for.
    fn handle_moved(&mut self, length: u64, took: Duration, was_full: bool) {
        self.quickest = self.quickest.min(took);
        if took > self.quickest.saturating_mul(2).saturating_add(QUEUE) {
            self.window = self.window.saturating_sub(length / 2).max(LEAST_WINDOW);
        } else if was_full {
            self.window = (self.window + length).min(MOST_WINDOW);
        }
    }
}

#[derive(Debug)]
struct State {
    sftp: Sftp,
    kind: StreamKind,
    is_lost: bool,
    is_retired: bool,
    /// Files open and questions asked.
    uses: usize,
    in_flight: u64,
    /// Slots given out so far, and the last of them that left no room for another.
    slots: u64,
    filled_by: u64,
    pace: Pace,
}

impl State {
    fn new(sftp: Sftp, kind: StreamKind) -> Self {
        let (is_lost, is_retired, uses, in_flight) = Default::default();
        Self { sftp, kind, is_lost, is_retired, uses, in_flight, slots: 0, filled_by: 0, pace: Pace::new() }
    }

    fn is_plain(&self) -> bool {
        self.kind == StreamKind::Plain && !self.is_lost && !self.is_retired
    }

    fn has_room(&self, length: u64) -> bool {
        !self.is_lost && (self.in_flight == 0 || self.in_flight + length <= self.pace.window)
    }
}

/// All streams of a side.
#[derive(Debug, Default)]
pub(super) struct Lanes {
    states: Mutex<Vec<State>>,
    freed: Notify,
    /// Somebody opens streams, and has not given up.
    is_growing: AtomicBool,
    /// How the last of those that are lost was lost.
    cause: Mutex<Option<SftpError>>,
    /// What passes is looked at only where that decides something.
    sample: Mutex<Option<Sample>>,
}

impl Lanes {
    pub(super) fn add(&self, sftp: Sftp, kind: StreamKind) {
        self.lock().push(State::new(sftp, kind));
        self.freed.notify_waiters();
    }

    /// How many take work: those that are not lost, without the retired ones as long as there are others.
    pub(super) fn open(&self) -> usize {
        let states = self.lock();
        let count = |is_retired| states.iter().filter(|it| !it.is_lost && it.is_retired == is_retired).count();
        match count(false) {
            0 => count(true),
            active => active,
        }
    }

    /// Whether what needs a stream is worth beginning: one is there, or may come.
    pub(super) fn is_alive(&self) -> bool {
        self.is_growing.load(Ordering::SeqCst) || self.open() > 0
    }

    /// Whether those who need a stream are to wait for it when all are lost.
    pub(super) fn set_growing(&self, is_growing: bool) {
        if self.is_growing.swap(is_growing, Ordering::SeqCst) != is_growing {
            self.freed.notify_waiters();
        }
    }

    /// Why there is no stream.
    pub(super) fn cause(&self) -> SftpError {
        lock(&self.cause).clone().unwrap_or(SftpError::Ended)
    }

    /// How many of those do not compress.
    pub(super) fn plain(&self) -> usize {
        self.lock().iter().filter(|state| state.is_plain()).count()
    }

    /// Retires a lane that does not compress, if there is one.
    pub(super) fn retire_plain(&self) {
        if let Some(state) = self.lock().iter_mut().find(|state| state.is_plain()) {
            state.is_retired = true;
        }
        self.freed.notify_waiters();
    }

    /// From now on what passes is looked at.
    pub(super) fn start_sampling(&self) {
        lock(&self.sample).get_or_insert_default();
    }

    /// How far what passed can be compressed, if enough has.
    pub(super) fn ratio(&self) -> Option<f64> {
        lock(&self.sample).as_ref()?.ratio()
    }

    /// Looks at a piece that passes, now and then.
    pub(super) fn look_at(&self, data: &[u8]) {
        let length = lock(&self.sample).as_mut().map_or(0, |sample| sample.handle_passing(data.len()));
        if length > 0 {
            let packed = packed_length(&data[..length]);
            if let Some(sample) = &mut *lock(&self.sample) {
                sample.handle_packed(length as u64, packed);
            }
        }
    }

    pub(super) fn is_lost(&self, id: usize) -> bool {
        self.lock()[id].is_lost
    }

    /// The least busy lane, and a retired one if there is no other. If there is none of those, waits for one, as long as
    /// one may come; a lost one then.
    pub(super) async fn pick(self: &Arc<Self>) -> Lane {
        loop {
            // Made before the look at the lanes, so that whatever changes after it is heard.
            let changed = self.freed.notified();
            match self.try_pick() {
                Some(lane) => return lane,
                None => changed.await,
            }
        }
    }

    fn try_pick(self: &Arc<Self>) -> Option<Lane> {
        let mut states = self.lock();
        let busy = |state: &State| (state.is_lost, state.is_retired, state.in_flight, state.uses);
        let (id, state) = states.iter_mut().enumerate().min_by_key(|(_, state)| busy(state)).expect("one at least");
        if state.is_lost && self.is_growing.load(Ordering::SeqCst) {
            return None;
        }
        state.uses += 1;
        Some(Lane { lanes: Arc::clone(self), id, sftp: state.sftp.clone() })
    }

    pub(super) fn lane(self: &Arc<Self>, id: usize) -> Lane {
        let state = &mut self.lock()[id];
        state.uses += 1;
        Lane { lanes: Arc::clone(self), id, sftp: state.sftp.clone() }
    }

    /// Waits until a lane has room for `length` bytes. The lane `stick` is taken at once as long as it is not lost.
    /// `None`: none is left that is not in `refused`, and none may come.
    pub(super) async fn room(
        self: &Arc<Self>,
        length: u32,
        stick: Option<usize>,
        refused: &Mutex<BTreeSet<usize>>,
    ) -> Option<Slot> {
        loop {
            // Made before the look at the lanes, so that whatever changes after it is heard.
            let freed = self.freed.notified();
            let refused = refused.lock().unwrap_or_else(PoisonError::into_inner).clone();
            match self.try_room(length.into(), stick, &refused) {
                Room::Here(slot) => return Some(slot),
                Room::None => return None,
                Room::Later => freed.await,
            }
        }
    }

    fn try_room(self: &Arc<Self>, length: u64, stick: Option<usize>, refused: &BTreeSet<usize>) -> Room {
        let mut states = self.lock();
        let is_usable = |id: &usize| !states[*id].is_lost && !refused.contains(id);
        let wished = stick.filter(is_usable);
        let (retired, active): (Vec<_>, Vec<_>) =
            (0..states.len()).filter(is_usable).partition(|id| states[*id].is_retired);
        let usable = if active.is_empty() { retired } else { active };
        if usable.is_empty() {
            let is_cut_off = states.iter().all(|state| state.is_lost);
            let may_come = is_cut_off && self.is_growing.load(Ordering::SeqCst);
            return if may_come { Room::Later } else { Room::None };
        }
        let free = |id: &usize| states[*id].has_room(length);
        let spare = |id: &usize| states[*id].pace.window.saturating_sub(states[*id].in_flight);
        let Some(id) = wished.or_else(|| usable.into_iter().filter(free).max_by_key(spare)) else { return Room::Later };
        let state = &mut states[id];
        state.in_flight += length;
        state.slots += 1;
        let nth = state.slots;
        if !state.has_room(length) {
            state.filled_by = nth;
        }
        let slot = Slot { lanes: Arc::clone(self), id, sftp: state.sftp.clone(), length, nth, since: Instant::now() };
        if states.iter().any(|state| state.has_room(length)) {
            // Who waits next may find room too.
            self.freed.notify_one();
        }
        Room::Here(slot)
    }

    fn lose(&self, id: usize, cause: &SftpError) {
        if !std::mem::replace(&mut self.lock()[id].is_lost, true) {
            *lock(&self.cause) = Some(cause.clone());
        }
        self.freed.notify_waiters();
    }

    fn lock(&self) -> MutexGuard<'_, Vec<State>> {
        lock(&self.states)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

enum Room {
    Here(Slot),
    Later,
    None,
}

/// A stream in use for something; dropping it ends the use.
#[derive(Debug)]
pub(super) struct Lane {
    lanes: Arc<Lanes>,
    id: usize,
    sftp: Sftp,
}

impl Lane {
    pub(super) fn id(&self) -> usize {
        self.id
    }

    pub(super) fn sftp(&self) -> &Sftp {
        &self.sftp
    }

    /// Passes an outcome on; the lane is lost when that is what it says.
    pub(super) fn heed<T>(&self, outcome: Result<T, SftpError>) -> Result<T, SftpError> {
        heed(&self.lanes, self.id, outcome)
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        self.lanes.lock()[self.id].uses -= 1;
    }
}

/// Bytes in flight on a lane; dropping it makes room for others.
#[derive(Debug)]
pub(super) struct Slot {
    lanes: Arc<Lanes>,
    id: usize,
    sftp: Sftp,
    length: u64,
    /// Its number among those of its stream.
    nth: u64,
    since: Instant,
}

impl Slot {
    pub(super) fn id(&self) -> usize {
        self.id
    }

    pub(super) fn sftp(&self) -> &Sftp {
        &self.sftp
    }

    pub(super) fn heed<T>(&self, outcome: Result<T, SftpError>) -> Result<T, SftpError> {
        if outcome.is_ok() {
            let state = &mut self.lanes.lock()[self.id];
            // Answers may come in bursts, so what counts is whether the window was full while this was on its way.
            let was_full = state.filled_by >= self.nth;
            state.pace.handle_moved(self.length, self.since.elapsed(), was_full);
        }
        heed(&self.lanes, self.id, outcome)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.lanes.lock()[self.id].in_flight -= self.length;
        self.lanes.freed.notify_one();
    }
}

fn heed<T>(lanes: &Lanes, id: usize, outcome: Result<T, SftpError>) -> Result<T, SftpError> {
    if let Err(error) = &outcome
        && error.is_fatal()
    {
        lanes.lose(id, error);
    }
    outcome
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_grows_while_it_is_emptied_quickly_and_shrinks_when_it_is_not() {
        let mut pace = Pace::new();
        for _ in 0..1000 {
            pace.handle_moved(65_536, Duration::from_millis(100), true);
        }
        assert_eq!(pace.window, MOST_WINDOW);
        for _ in 0..1000 {
            pace.handle_moved(65_536, Duration::from_millis(700), true);
        }
        assert_eq!(pace.window, LEAST_WINDOW);
    }

    #[test]
    fn a_window_that_is_not_used_does_not_grow() {
        let mut pace = Pace::new();
        pace.handle_moved(65_536, Duration::from_millis(1), false);
        assert_eq!(pace.window, FIRST_WINDOW);
    }

    /// A stream that is not lost by itself.
    async fn stream() -> Sftp {
        Sftp::new(crate::ssh::sftp::scripted::serve(&[], |request| request.status(0))).await.unwrap()
    }

    #[tokio::test]
    async fn a_retired_stream_ends_what_it_began_and_takes_over_when_all_others_are_lost() {
        let lanes = Arc::new(Lanes::default());
        lanes.add(stream().await, StreamKind::Plain);
        lanes.add(stream().await, StreamKind::Compressed);
        lanes.retire_plain();
        assert_eq!((lanes.open(), lanes.plain(), lanes.pick().await.id()), (1, 0, 1));
        let refused = Mutex::default();
        let anywhere = lanes.room(1000, None, &refused).await.unwrap();
        let begun_there = lanes.room(1000, Some(0), &refused).await.unwrap();
        assert_eq!((anywhere.id(), begun_there.id()), (1, 0));
        lanes.lose(1, &SftpError::Ended);
        assert_eq!((lanes.open(), lanes.pick().await.id()), (1, 0));
        assert_eq!(lanes.room(1000, None, &refused).await.unwrap().id(), 0);
        lanes.lose(0, &SftpError::Ended);
        assert_eq!(lanes.open(), 0);
        assert!(lanes.room(1000, None, &refused).await.is_none());
    }
    #[tokio::test]
    async fn without_a_stream_everybody_waits_for_one_as_long_as_one_may_come() {
        let (lanes, refused) = (Arc::new(Lanes::default()), Mutex::default());
        lanes.add(stream().await, StreamKind::Plain);
        lanes.set_growing(true);
        lanes.lose(0, &SftpError::Ended);
        assert_eq!((lanes.open(), lanes.is_alive()), (0, true));
        let (mut room, mut pick) = (Box::pin(lanes.room(1000, Some(0), &refused)), Box::pin(lanes.pick()));
        assert!(futures_util::poll!(&mut room).is_pending() && futures_util::poll!(&mut pick).is_pending());
        lanes.add(stream().await, StreamKind::Plain);
        assert_eq!((room.await.unwrap().id(), pick.await.id()), (1, 1));
        lanes.lose(1, &SftpError::NotStarted);
        let (mut room, mut pick) = (Box::pin(lanes.room(1000, Some(0), &refused)), Box::pin(lanes.pick()));
        assert!(futures_util::poll!(&mut room).is_pending() && futures_util::poll!(&mut pick).is_pending());
        lanes.set_growing(false);
        assert!(room.await.is_none() && lanes.is_lost(pick.await.id()));
        assert!(!lanes.is_alive() && matches!(lanes.cause(), SftpError::NotStarted));
    }
}
