//! The engine's cost, as a ratio to plain SHA-256 over the same bytes in the same run: what the protocol asks for on
//! every message, and so the best that could be. `cargo bench --bench engine`, or `just bench`.
//!
//! A ratio of 1 is the speed of SHA-256; both are measured in turns and the best turn of each counts, so that other
//! work on the machine disturbs little.
#![expect(clippy::print_stdout, reason = "the results are what it is for")]
#![expect(clippy::unwrap_used, reason = "a benchmark may panic")]
#![expect(clippy::cast_precision_loss, reason = "sizes and times are small")]

use std::hint::black_box;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use sha2::{Digest, Sha256};
use ssmssh::datachannel::{Config, DataChannel, Transmit};
use ssmssh::wire::{Acknowledge, Body, FLAGS_SINGLE, Message, MessageKind, PayloadType};
use uuid::Uuid;

/// Many short turns: of some of them the scheduler keeps away, however busy the machine is.
const TURNS: usize = 200;
const BYTES: usize = 1 << 20;
const KIB: usize = 1 << 10;
const REQUEST: &[u8] =
    br#"{"AgentVersion":"3.3.0.0","RequestedClientActions":[{"ActionType":"SessionType","ActionParameters":{"SessionType":"Port","Properties":{"portNumber":"22"}}}]}"#;

fn main() {
    println!("payload    SHA-256     send  ratio     receive  ratio   (MB/s)");
    for payload in [KIB, 8 * KIB, 16 * KIB, 32 * KIB] {
        let (mut hash, mut send, mut receive) = (Duration::MAX, Duration::MAX, Duration::MAX);
        let data = vec![7; payload];
        let acks = acks(BYTES / payload);
        let frames = frames(&data, BYTES / payload);
        for _ in 0..TURNS {
            hash = hash.min(timed(|| hashing(&data)));
            send = send.min(sending(&data, &acks));
            receive = receive.min(receiving(&frames));
        }
        let speed = |time: Duration| BYTES as f64 / 1e6 / time.as_secs_f64();
        let ratio = |time: Duration| hash.as_secs_f64() / time.as_secs_f64();
        println!(
            "{:3} KiB  {:9.0} {:8.0} {:6.2} {:11.0} {:6.2}",
            payload / KIB,
            speed(hash),
            speed(send),
            ratio(send),
            speed(receive),
            ratio(receive)
        );
    }
}

fn timed(work: impl FnOnce()) -> Duration {
    let start = Instant::now();
    work();
    start.elapsed()
}

fn hashing(data: &[u8]) {
    for _ in 0..BYTES / data.len() {
        black_box(Sha256::digest(black_box(data)));
    }
}

/// Writes, takes the frames, and takes in an acknowledgement of each, some messages later.
fn sending(data: &[u8], acks: &[Bytes]) -> Duration {
    let (mut channel, now) = established(data.len());
    timed(|| {
        let mut acks = acks.iter();
        for count in 0..BYTES / data.len() {
            assert_eq!(channel.write(data, now), data.len());
            while let Some(frame) = channel.poll_transmit(now) {
                black_box(frame);
            }
            if count >= 2 {
                channel.handle_frame(acks.next().unwrap().clone(), now).unwrap();
            }
        }
    })
}

/// Takes in the messages in batches, sends the acknowledgements and reads the bytes.
fn receiving(frames: &[Bytes]) -> Duration {
    let (mut channel, now) = established(KIB);
    timed(|| {
        for batch in frames.chunks(32) {
            for frame in batch {
                channel.handle_frame(frame.clone(), now).unwrap();
            }
            while let Some(frame) = channel.poll_transmit(now) {
                black_box(frame);
            }
            while let Some(bytes) = channel.read() {
                black_box(bytes);
            }
        }
    })
}

/// A channel past its handshake.
fn established(payload: usize) -> (DataChannel, Instant) {
    let mut config = Config::default();
    config.max_payload = payload;
    config.max_frames_per_second = None;
    let now = Instant::now();
    let mut channel = DataChannel::new(config, 1, now, SystemTime::UNIX_EPOCH);
    channel.handle_connected("token", now);
    let handshake = [
        message(MessageKind::OutputStreamData, 0, PayloadType::HandshakeRequest, Bytes::from_static(REQUEST)),
        message(MessageKind::OutputStreamData, 1, PayloadType::HandshakeComplete, Bytes::from_static(b"{}")),
        message(MessageKind::OutputStreamData, 2, PayloadType::Output, Bytes::from_static(b"hello")),
        ack(0),
    ];
    for frame in handshake {
        channel.handle_frame(frame, now).unwrap();
        while let Some(Transmit::Binary(_) | Transmit::Text(_)) = channel.poll_transmit(now) {}
    }
    channel.read().unwrap();
    (channel, now)
}

fn acks(count: usize) -> Vec<Bytes> {
    (1..=i64::try_from(count).unwrap()).map(ack).collect()
}

fn ack(sequence: i64) -> Bytes {
    let body = Acknowledge {
        message_type: "input_stream_data".into(),
        message_id: Uuid::from_u128(7),
        sequence,
        is_sequential: true,
    };
    message(MessageKind::Acknowledge, 0, PayloadType::NONE, body.to_payload())
}

fn frames(data: &[u8], count: usize) -> Vec<Bytes> {
    let data = Bytes::copy_from_slice(data);
    let last = i64::try_from(count).unwrap() + 3;
    (3..last)
        .map(|sequence| message(MessageKind::OutputStreamData, sequence, PayloadType::Output, data.clone()))
        .collect()
}

fn message(kind: MessageKind, sequence: i64, payload_type: PayloadType, payload: Bytes) -> Bytes {
    let flags = if kind == MessageKind::Acknowledge { FLAGS_SINGLE } else { 0 };
    Message { kind, created_millis: 1, sequence, flags, id: Uuid::from_u128(9), payload_type, payload }.encode()
}
