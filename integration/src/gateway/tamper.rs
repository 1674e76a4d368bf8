//! What the lab does to frames: the oddities of the service's own messages, and frames that are no messages at all. Pure.

use bytes::{Bytes, BytesMut};
use ssmssh::wire::{Frame, HEADER_LENGTH, Message, MessageKind, PREFIX_LENGTH, PayloadType};

use crate::task;

/// The payload type that `channel_closed` is told to carry.
const ODD_CLOSED_TYPE: u32 = 261;
/// How many kinds of malformed frames there are.
pub(super) const MALFORMED_KINDS: u64 = 8;

/// The message type of a frame that may be malformed: the relay looks, but judges nothing.
pub(super) fn kind(frame: &[u8]) -> &[u8] {
    frame.get(4..36).unwrap_or_default().trim_ascii_end()
}

/// Whether the payload type of a frame is `payload_type`.
pub(super) fn has_payload_type(frame: &[u8], payload_type: PayloadType) -> bool {
    frame.get(112..116) == Some(&u32::from(payload_type).to_be_bytes())
}

/// `start_publication` or `pause_publication`.
pub(super) fn publication(kind: MessageKind, odd: bool) -> Bytes {
    let mut frame = Frame::new(task::message(kind, 0, "{}"));
    if odd {
        frame.digest = [0xa5; 32];
        frame.payload_length = frame.payload_length.swap_bytes();
    }
    frame.encode()
}

/// `channel_closed` with this body.
pub(super) fn channel_closed(body: impl Into<Bytes>, odd: bool) -> Bytes {
    let message = task::message(MessageKind::ChannelClosed, 0, body);
    if !odd {
        return message.encode();
    }
    let frame = Message { payload_type: PayloadType::from(ODD_CLOSED_TYPE), ..message }.encode();
    let mut frame = BytesMut::from(frame);
    frame[4 + MessageKind::ChannelClosed.as_str().len()..36].fill(0);
    frame.freeze()
}

/// A frame of `length` bytes, as far as it holds a header, of a type that nobody knows.
pub(super) fn oversized(length: usize) -> Bytes {
    let payload = vec![b'x'; length.saturating_sub(PREFIX_LENGTH)];
    task::message(MessageKind::from_name("lab_oversized"), 0, payload).encode()
}

/// A frame that must change nothing, made beside the sound frame `next`: each `number` modulo [`MALFORMED_KINDS`] of another
/// kind.
pub(super) fn malformed(number: u64, next: &Bytes) -> Bytes {
    let sound = || BytesMut::from(&task::message(MessageKind::Other("lab_unknown".to_owned()), 0, "{}").encode()[..]);
    match number % MALFORMED_KINDS {
        0 => Bytes::new(),
        1 => Bytes::from_static(b"abc"),
        2 => sound().split_to(PREFIX_LENGTH - 1).freeze(),
        3 => with_header_length(sound(), 0),
        4 => with_header_length(sound(), u32::MAX),
        5 => with_header_length(sound(), HEADER_LENGTH + 1000),
        6 => corrupted(next),
        _ => task::message(MessageKind::Acknowledge, 0, "{\"AcknowledgedMessageSequenceNumber\":").encode(),
    }
}

fn with_header_length(mut frame: BytesMut, length: u32) -> Bytes {
    frame[..4].copy_from_slice(&length.to_be_bytes());
    frame.freeze()
}

/// The frame with its last byte changed, so that the digest of its payload is wrong.
fn corrupted(frame: &Bytes) -> Bytes {
    let mut frame = BytesMut::from(&frame[..]);
    if let Some(last) = frame.last_mut() {
        *last ^= 1;
    }
    frame.freeze()
}

#[cfg(test)]
mod tests {
    use ssmssh::wire::{Body, ChannelClosed};

    use super::*;

    #[test]
    fn odd_messages_are_still_read_by_who_does_not_judge_them() {
        for odd in [false, true] {
            let closed = Message::decode(channel_closed(r#"{"Output":"why"}"#, odd)).unwrap();
            assert_eq!(closed.kind, MessageKind::ChannelClosed);
            assert_eq!(ChannelClosed::from_json(&closed.payload).unwrap().output, "why");
            let pause = Frame::decode(publication(MessageKind::PausePublication, odd)).unwrap();
            assert_eq!(pause.message.kind, MessageKind::PausePublication);
            assert_eq!((pause.is_digest_right(), pause.payload_length == 2), (!odd, !odd));
        }
    }

    #[test]
    fn no_malformed_frame_is_a_sound_message() {
        let next = task::message(MessageKind::OutputStreamData, 0, "data").encode();
        for number in 0..MALFORMED_KINDS {
            let frame = malformed(number, &next);
            let sound = Frame::decode(frame)
                .is_ok_and(|frame| frame.is_digest_right() && frame.message.kind != MessageKind::Acknowledge);
            assert!(!sound, "{number}");
        }
    }
}
