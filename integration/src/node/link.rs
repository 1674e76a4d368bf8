//! The WebSocket of a session, with the agent's heartbeat.

use std::{
    future::pending,
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt, future::BoxFuture};
use tokio::time::timeout_at;
use tokio_tungstenite::tungstenite::{self, Message};

use super::http::Socket;

/// Agent: the heartbeat of the data channel. The deadline moves with each PONG only.
const PING_INTERVAL: Duration = Duration::from_secs(54);
const FIRST_READ_DEADLINE: Duration = Duration::from_secs(114);
const READ_DEADLINE: Duration = Duration::from_mins(1);

/// The WebSocket, or the attempt to get one.
pub(super) enum Link {
    Open {
        socket: Box<Socket>,
        heartbeat: Heartbeat,
    },
    Opening(BoxFuture<'static, Option<Box<Socket>>>),
    /// All tries failed; the agent's worker stays up without a connection.
    Lost,
}

/// What happened to the link.
pub(super) enum LinkStep {
    Opened(Option<Box<Socket>>),
    Frame(Bytes),
    Ignored,
    Disconnected,
}

impl Link {
    pub(super) fn open(socket: Box<Socket>, now: Instant) -> Self {
        Self::Open { socket, heartbeat: Heartbeat::new(now) }
    }

    /// What happens next. Without `reading` even the deadline of reading goes unnoticed, as in the agent.
    pub(super) async fn next(&mut self, reading: bool) -> LinkStep {
        let (socket, heartbeat) = match self {
            Self::Opening(opening) => return LinkStep::Opened(opening.await),
            Self::Open { socket, heartbeat } => (socket, heartbeat),
            Self::Lost => return pending().await,
        };
        tokio::select! {
            biased;
            () = sleep_until(Some(heartbeat.next_deadline(reading))) => {
                match heartbeat.handle_timeout(reading, Instant::now()) {
                    Beat::Nothing => LinkStep::Ignored,
                    Beat::Ping => ping(socket, heartbeat.read_deadline).await,
                    Beat::Dead => LinkStep::Disconnected,
                }
            }
            message = socket.next(), if reading => heartbeat.take(message),
        }
    }
}

async fn ping(socket: &mut Socket, deadline: Instant) -> LinkStep {
    let sending = socket.send(Message::Ping(Bytes::from_static(b"keepalive")));
    match timeout_at(deadline.into(), sending).await {
        Ok(_) => LinkStep::Ignored,
        Err(_) => LinkStep::Disconnected,
    }
}

/// When to ping, and when a socket counts as dead. Pure.
#[derive(Debug)]
pub(super) struct Heartbeat {
    next_ping: Instant,
    pub(super) read_deadline: Instant,
}

#[derive(Debug, PartialEq, Eq)]
enum Beat {
    Nothing,
    Ping,
    Dead,
}

impl Heartbeat {
    fn new(now: Instant) -> Self {
        Self { next_ping: now + PING_INTERVAL, read_deadline: now + FIRST_READ_DEADLINE }
    }

    fn next_deadline(&self, reading: bool) -> Instant {
        if reading { self.next_ping.min(self.read_deadline) } else { self.next_ping }
    }

    fn handle_timeout(&mut self, reading: bool, now: Instant) -> Beat {
        if reading && now >= self.read_deadline {
            Beat::Dead
        } else if now >= self.next_ping {
            self.next_ping += PING_INTERVAL;
            Beat::Ping
        } else {
            Beat::Nothing
        }
    }

    fn handle_pong(&mut self, now: Instant) {
        self.read_deadline = now + READ_DEADLINE;
    }

    fn take(&mut self, message: Option<Result<Message, tungstenite::Error>>) -> LinkStep {
        match message {
            Some(Ok(Message::Binary(frame))) => LinkStep::Frame(frame),
            Some(Ok(Message::Pong(_))) => {
                self.handle_pong(Instant::now());
                LinkStep::Ignored
            }
            Some(Ok(Message::Close(_)) | Err(_)) | None => LinkStep::Disconnected,
            Some(Ok(_)) => LinkStep::Ignored,
        }
    }
}

pub(super) async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
        None => pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The seconds at which a socket was pinged, and at which it died, within five minutes.
    fn live(reading: impl Fn(u64) -> bool, pong_after: Option<Duration>) -> (Vec<u64>, Option<u64>) {
        let start = Instant::now();
        let mut heartbeat = Heartbeat::new(start);
        let mut pings = Vec::new();
        for second in 0..300 {
            let now = start + Duration::from_secs(second);
            match heartbeat.handle_timeout(reading(second), now) {
                Beat::Nothing => assert!(heartbeat.next_deadline(reading(second)) > now),
                Beat::Ping => {
                    pings.push(second);
                    if let Some(delay) = pong_after {
                        heartbeat.handle_pong(now + delay);
                    }
                }
                Beat::Dead => return (pings, Some(second)),
            }
        }
        (pings, None)
    }

    #[test]
    fn the_node_pings_every_54_seconds_and_lives_on_prompt_pongs() {
        assert_eq!(live(|_| true, Some(Duration::from_secs(5))), (vec![54, 108, 162, 216, 270], None));
    }

    #[test]
    fn the_first_deadline_is_at_114_seconds_and_later_ones_a_minute_after_a_pong() {
        assert_eq!(live(|_| true, None), (vec![54, 108], Some(114)));
        let start = Instant::now();
        let mut heartbeat = Heartbeat::new(start);
        heartbeat.handle_pong(start + Duration::from_secs(54));
        assert_eq!(heartbeat.read_deadline, start + Duration::from_secs(114));
        heartbeat.handle_pong(start + Duration::from_secs(108));
        assert_eq!(heartbeat.read_deadline, start + Duration::from_secs(168));
    }

    #[test]
    fn a_node_that_is_stuck_in_a_write_pings_on_and_finds_the_deadline_passed_when_it_reads_again() {
        assert_eq!(live(|second| second > 130, None), (vec![54, 108], Some(131)));
    }
}
