//! Options of the engine, with their limits, and what it counts.

use std::{num::NonZeroU32, time::Duration};

/// What the open message and the handshake report. The service refuses clients below 1.2.764.0.
const CLIENT_VERSION: &str = "1.2.764.0";
/// Payloads the agent takes: what a message can carry is bounded by the service, and 64 KiB is beyond all reports.
const PAYLOAD_LIMITS: (usize, usize) = (1 << 10, 64 << 10);
/// Most messages between the oldest unacknowledged one and the newest. The agent stores 100,000 out of order and drops
/// what comes beyond (agent `session/config/config.go: IncomingMessageBufferCapacity`).
pub(super) const MAX_MESSAGES_IN_FLIGHT: usize = 10_000;
/// Most messages waiting for the reader or for their predecessors. The agent sends on without any window, and after
/// losses tens of thousands wait for the one that is missing.
pub(super) const MAX_INBOX_MESSAGES: usize = 128 << 10;
/// What a message that waits takes beside its payload, in bytes: its place in the queue, and the payload's allocation.
pub(super) const MESSAGE_COST: usize = 128;
/// Most acknowledgements waiting to be sent. A message beyond is not accepted: the agent will send it again.
pub(super) const MAX_ACKS_OWED: usize = MAX_INBOX_MESSAGES;
/// Acknowledgements sent again on a new WebSocket. Those that were on their way when the old one broke are lost, and the
/// agent makes up for that by itself no faster than one message every 100 ms, while nothing else is repaired. It sends
/// less than 1,000 messages a second, so these are the last quarter of a second at least.
pub(super) const MAX_ACKS_REMEMBERED: usize = 256;
/// The longest wait of an option: moments that far away can still be told, those after `Duration::MAX` cannot.
pub(crate) const LONGEST: Duration = Duration::from_hours(365 * 24);
/// The shortest: a network across the world gives no answer sooner.
pub(crate) const SHORTEST: Duration = Duration::from_secs(1);

/// Options of the engine. A value outside of its limits counts as the nearest one inside.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Config {
    /// The version reported to the service and to the agent, four numbers with dots between. Default `1.2.764.0`, which
    /// is the lowest that the service will go on to accept.
    pub client_version: String,
    /// Largest payload of one data message, in bytes. Default 16 KiB, 1 KiB to 64 KiB. The agent takes any size, at a
    /// cost per message rather than per byte, so larger is faster; what the service takes is not documented, and
    /// 32 KiB is the largest reported to work. Small writes are never padded or held back to fill it.
    pub max_payload: usize,
    /// Most bytes written and not acknowledged, in bytes. Default 8 MiB, at least `max_payload`. It bounds the memory of
    /// the outbox, and the throughput to this much a round trip. Within it the window follows what the path holds, with
    /// a queue of about 100 ms. At most 10,000 messages are in flight as well.
    pub max_in_flight: usize,
    /// Most frames sent in a second over a longer time: data, acknowledgements and what is sent again. Default 900;
    /// `None` is no limit. The service is reported to cut connections on which more than about 1,000 a second go for
    /// more than a moment. The cost is throughput: at most this many times `max_payload`. What waits merges into full
    /// messages meanwhile.
    pub max_frames_per_second: Option<NonZeroU32>,
    /// Frames that may be sent at once after a pause, whatever the rate. Default 200, at least 1. A quarter of them is
    /// kept for acknowledgements. Has no meaning without `max_frames_per_second`.
    pub burst: u32,
    /// Most memory for what was received and not read, including what waits for a missing predecessor, in bytes; each
    /// message counts 128 bytes beside its payload. Default 64 MiB, at least 1 MiB. At most 131,072 messages wait as well.
    /// Reached only when the reader stalls or after heavy loss; then the driver stops reading the socket.
    pub max_inbox: usize,
    /// How long to wait for the handshake once a WebSocket is open. Default 30 s: the agent gives up after 15 s, and may
    /// take its time to start. A WebSocket that is replaced meanwhile starts the wait anew. 1 s to a year.
    pub handshake_timeout: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            client_version: CLIENT_VERSION.to_owned(),
            max_payload: 16 << 10,
            max_in_flight: 8 << 20,
            max_frames_per_second: NonZeroU32::new(900),
            burst: 200,
            max_inbox: 64 << 20,
            handshake_timeout: Duration::from_secs(30),
        }
    }
}

impl Config {
    pub(super) fn within_limits(mut self) -> Self {
        self.max_payload = self.max_payload.clamp(PAYLOAD_LIMITS.0, PAYLOAD_LIMITS.1);
        self.max_in_flight = self.max_in_flight.max(self.max_payload);
        self.max_inbox = self.max_inbox.max(1 << 20);
        self.handshake_timeout = self.handshake_timeout.clamp(SHORTEST, LONGEST);
        self
    }
}

/// What the engine has seen. Counts are since the start, over all WebSockets.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Messages sent for the first time, the handshake's and the flag among them.
    pub messages_sent: u64,
    /// Messages sent again.
    pub messages_resent: u64,
    /// Messages given up as acknowledged because an old agent will not say so again.
    pub messages_forgotten: u64,
    /// Payload bytes of the messages sent for the first time.
    pub bytes_sent: u64,
    /// Acknowledgements sent, repeated ones included.
    pub acks_sent: u64,
    /// Acknowledgements to be sent again because the WebSocket that took them is gone.
    pub acks_repeated: u64,
    /// Acknowledgements of messages that were waiting for one.
    pub acks_received: u64,
    /// Acknowledgements of anything else: repeated, or of messages never sent.
    pub acks_ignored: u64,
    /// Stream messages accepted.
    pub messages_received: u64,
    /// Payload bytes given to the reader's queue.
    pub bytes_received: u64,
    /// Stream messages that arrived before a predecessor.
    pub messages_reordered: u64,
    /// Stream messages that arrived again; they are acknowledged again.
    pub messages_repeated: u64,
    /// Stream messages dropped because the inbox was full.
    pub messages_refused: u64,
    /// Stream messages dropped because their digest was wrong.
    pub digests_wrong: u64,
    /// Frames that are no message, and messages whose body cannot be read.
    pub malformed: u64,
    /// `start_publication` and `pause_publication`; both are ignored.
    pub publication_notices: u64,
    /// Messages of kinds that a client does not expect.
    pub unknown_messages: u64,
    /// Stream messages whose payload type a client does not expect; they are acknowledged.
    pub unknown_payloads: u64,
    /// The largest payload acknowledged, in bytes.
    pub largest_acknowledged: usize,
    /// Payload bytes sent and not acknowledged at present.
    pub in_flight: usize,
    /// Most payload bytes that may be written and not acknowledged at present.
    pub window: usize,
    /// The smoothed round-trip time, once there was a sample.
    pub round_trip: Option<Duration>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_outside_of_their_limits_count_as_the_nearest_inside() {
        let config = Config { max_payload: 1 << 30, max_in_flight: 0, max_inbox: 0, ..Config::default() };
        let config = config.within_limits();
        assert_eq!((config.max_payload, config.max_in_flight, config.max_inbox), (64 << 10, 64 << 10, 1 << 20));
        assert_eq!(Config { max_payload: 0, ..Config::default() }.within_limits().max_payload, 1 << 10);
    }
}
