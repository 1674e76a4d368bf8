//! A limit on what a copy moves: a bucket that fills with time and that bytes are taken from before they move.

use std::num::NonZeroU64;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::{Instant, sleep};

/// What a pause saves up for a burst behind it.
const BURST: Duration = Duration::from_millis(100);
/// A piece takes no more than one of so many parts of a second, so that a slow copy moves evenly.
const PIECES_A_SECOND: u64 = 8;
/// Smaller pieces would cost more than they carry.
const LEAST_PIECE: u32 = 4096;

/// The limit of one copy, whatever the number of its files and streams.
#[derive(Debug)]
pub(super) struct Limit {
    bytes_per_second: NonZeroU64,
    /// Held by who waits for his turn, so that nobody overtakes and nothing is set aside for who gives up.
    bucket: Mutex<Bucket>,
}

impl Limit {
    pub(super) fn new(bytes_per_second: NonZeroU64) -> Self {
        Self { bytes_per_second, bucket: Mutex::new(Bucket { bytes_per_second, free_at: None }) }
    }

    /// The longest piece that moves evenly.
    pub(super) fn piece(&self) -> u32 {
        u32::try_from(self.bytes_per_second.get() / PIECES_A_SECOND).unwrap_or(u32::MAX).max(LEAST_PIECE)
    }

    /// Returns when so many bytes may move. Cancelling it takes nothing.
    pub(super) async fn pass(&self, bytes: u32) {
        let mut bucket = self.bucket.lock().await;
        sleep(bucket.wait(Instant::now())).await;
        bucket.take(Instant::now(), bytes);
    }
}

/// How far ahead of its time the copy is. Pure.
#[derive(Debug)]
struct Bucket {
    bytes_per_second: NonZeroU64,
    /// When everything taken so far is paid for.
    free_at: Option<Instant>,
}

impl Bucket {
    fn wait(&self, now: Instant) -> Duration {
        self.free_at.map_or(Duration::ZERO, |at| at.saturating_duration_since(now))
    }

    fn take(&mut self, now: Instant, bytes: u32) {
        let earliest = now.checked_sub(BURST).unwrap_or(now);
        let nanoseconds = u64::from(bytes).saturating_mul(1_000_000_000) / self.bytes_per_second;
        self.free_at = Some(self.free_at.map_or(now, |at| at.max(earliest)) + Duration::from_nanos(nanoseconds));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bucket(bytes_per_second: u64) -> Bucket {
        Bucket { bytes_per_second: NonZeroU64::new(bytes_per_second).unwrap(), free_at: None }
    }

    /// How long it takes to move so many pieces one after the other.
    fn seconds_for(mut bucket: Bucket, pieces: u32, length: u32) -> f64 {
        let start = Instant::now();
        let mut now = start;
        for _ in 0..pieces {
            now += bucket.wait(now);
            bucket.take(now, length);
        }
        (now + bucket.wait(now) - start).as_secs_f64()
    }

    #[test]
    fn many_pieces_take_as_long_as_the_limit_says() {
        let seconds = seconds_for(bucket(1_000_000), 1000, 10_000);
        assert!((9.9..10.1).contains(&seconds), "{seconds}");
    }

    #[test]
    fn the_first_piece_moves_at_once_and_a_pause_saves_up_little() {
        let (mut bucket, start) = (bucket(1000), Instant::now());
        assert_eq!(bucket.wait(start), Duration::ZERO);
        bucket.take(start, 1000);
        assert_eq!(bucket.wait(start), Duration::from_secs(1));
        let later = start + Duration::from_hours(1);
        bucket.take(later, 1000);
        assert_eq!(bucket.wait(later), Duration::from_millis(900));
    }

    #[test]
    fn a_slow_copy_moves_in_small_pieces() {
        let piece = |bytes_per_second| Limit::new(NonZeroU64::new(bytes_per_second).unwrap()).piece();
        assert_eq!([piece(1), piece(800_000), piece(u64::MAX)], [LEAST_PIECE, 100_000, u32::MAX]);
    }

    #[tokio::test(start_paused = true)]
    async fn who_gives_up_waiting_takes_nothing() {
        let limit = Limit::new(NonZeroU64::new(1000).unwrap());
        limit.pass(1000).await;
        let given_up = tokio::time::timeout(Duration::from_millis(1), limit.pass(u32::MAX)).await;
        assert!(given_up.is_err());
        let free_at = limit.bucket.lock().await.free_at.unwrap();
        assert!(free_at < Instant::now() + Duration::from_secs(2));
    }
}
