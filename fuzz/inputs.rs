//! What each fuzz target does with an input. The tests replay the committed corpus through the same functions.
#![allow(dead_code, reason = "each target uses one of them")]

use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use ssmssh::datachannel::{Config, DataChannel};
use ssmssh::wire::{
    Acknowledge, Body, ChannelClosed, Frame, HandshakeComplete, HandshakeRequest, HandshakeResponse, Message,
    MessageKind, PayloadType, SessionTypeParameters,
};
use uuid::Uuid;

/// Any bytes are a message or an error, and a message survives being written and read again.
pub(crate) fn decode_message(data: &[u8]) {
    let Ok(frame) = Frame::decode(Bytes::copy_from_slice(data)) else { return };
    let again = Message::decode(frame.message.encode());
    // A kind that is no text, or longer than its field, is not written as it was read.
    if !matches!(frame.message.kind, MessageKind::Other(_)) {
        assert_eq!(again, Ok(frame.message));
    }
}

/// Any bytes are a body or an error, and a body that was read can be written and read again.
pub(crate) fn handshake_json(data: &[u8]) {
    round_trip::<HandshakeRequest>(data);
    round_trip::<HandshakeResponse>(data);
    round_trip::<HandshakeComplete>(data);
    round_trip::<SessionTypeParameters>(data);
    round_trip::<Acknowledge>(data);
    round_trip::<ChannelClosed>(data);
}

fn round_trip<T: Body>(data: &[u8]) {
    let Ok(body) = T::from_json(data) else { return };
    assert!(T::from_json(body.to_json().as_bytes()).is_ok());
}

/// Steps of an engine's life, one after another out of the input: an operation, its number, and for messages a length
/// and so many bytes of payload.
pub(crate) fn channel_ops(data: &[u8]) {
    let mut config = Config::default();
    (config.max_payload, config.max_in_flight) = (1 << 10, 8 << 10);
    let mut now = Instant::now();
    let mut channel = DataChannel::new(config, 1, now, SystemTime::UNIX_EPOCH);
    let mut input = data;
    while let Some((&[operation, number], rest)) = input.split_first_chunk() {
        input = rest;
        let mut result = Ok(());
        match operation % 8 {
            0 => channel.handle_connected("token", now),
            1 => channel.handle_disconnected(now),
            2 => {
                channel.write(&vec![number; usize::from(number) * 100], now);
            }
            3 => while channel.read().is_some() {},
            4 => {
                now += Duration::from_millis(u64::from(number) * 5);
                result = channel.handle_timeout(now);
            }
            5 => channel.finish(now),
            _ => result = channel.handle_frame(message(operation, number, &mut input), now),
        }
        assert!(result.is_ok() || channel.is_closed());
        while channel.poll_transmit(now).is_some() {}
        while channel.poll_event().is_some() {}
        assert!(channel.poll_timeout().is_none_or(|deadline| deadline > now));
        assert!(channel.stats().in_flight <= (8 << 10) + 1024);
    }
}

fn message(operation: u8, number: u8, input: &mut &[u8]) -> Bytes {
    let kind = match operation / 8 % 4 {
        0 => MessageKind::OutputStreamData,
        1 => MessageKind::Acknowledge,
        2 => MessageKind::ChannelClosed,
        _ => MessageKind::PausePublication,
    };
    let (&length, rest) = input.split_first().unwrap_or((&0, &[]));
    let (payload, rest) = rest.split_at(rest.len().min(usize::from(length)));
    *input = rest;
    Message {
        kind,
        created_millis: 1,
        sequence: i64::from(number) - 2,
        flags: 0,
        id: Uuid::nil(),
        payload_type: PayloadType::from(u32::from(operation / 32)),
        payload: Bytes::copy_from_slice(payload),
    }
    .encode()
}
