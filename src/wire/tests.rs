use bytes::Bytes;
use proptest::prelude::*;

use super::*;

const ID: Uuid = Uuid::from_u128(0x0011_2233_4455_4677_8899_aabb_ccdd_eeff);

fn bytes_of(hex: &str) -> Bytes {
    let digits: Vec<u8> = hex.lines().filter(|line| !line.starts_with('#')).flat_map(str::bytes).collect();
    data_encoding::HEXLOWER.decode(&digits).unwrap().into()
}

macro_rules! vector {
    ($name:literal) => {
        bytes_of(include_str!(concat!("../../tests/vectors/", $name, ".hex")))
    };
}

fn message(kind: MessageKind, payload_type: PayloadType, payload: &[u8]) -> Message {
    Message {
        kind,
        created_millis: 1_700_000_000_123,
        sequence: 0,
        flags: 0,
        id: ID,
        payload_type,
        payload: Bytes::copy_from_slice(payload),
    }
}

/// The vector reads as `expected`, and `expected` is written as the vector.
fn assert_same(vector: &Bytes, expected: &Message) {
    let frame = Frame::decode(vector.clone()).unwrap();
    assert_eq!(&frame.message, expected);
    assert!(frame.is_digest_right());
    assert_eq!(expected.encode(), vector);
    assert_eq!(frame.encode(), vector);
    assert_eq!(Frame::new(expected.clone()), frame);
}

#[test]
fn stream_data_has_the_layout_of_the_vectors() {
    let input = message(MessageKind::InputStreamData, PayloadType::Output, b"SSH-2.0-test\r\n");
    assert_same(&vector!("input_stream_data"), &Message { sequence: 1, ..input });
    let all: Vec<u8> = (0..=255).collect();
    let output = message(MessageKind::OutputStreamData, PayloadType::Output, &all);
    assert_same(&vector!("output_stream_data"), &Message { sequence: (1 << 40) + 7, ..output });
}

#[test]
fn an_acknowledgement_has_the_layout_of_the_vectors() {
    let ack = Acknowledge {
        message_type: MessageKind::OutputStreamData.as_str().into(),
        message_id: ID,
        sequence: 17,
        is_sequential: true,
    };
    let ack = message(MessageKind::Acknowledge, PayloadType::NONE, &ack.to_payload());
    assert_same(&vector!("acknowledge"), &Message { flags: FLAGS_SINGLE, ..ack });
}

#[test]
fn the_handshake_has_the_layout_of_the_vectors() {
    let request = Message::decode(vector!("handshake_request")).unwrap();
    assert_eq!((request.payload_type, request.flags), (PayloadType::HandshakeRequest, FLAGS_FIRST));
    assert_eq!(HandshakeRequest::from_json(&request.payload).unwrap().agent_version, "3.3.0.0");
    assert_same(&vector!("handshake_request"), &request);

    let response = Message::decode(vector!("handshake_response")).unwrap();
    assert_eq!(response.payload_type, PayloadType::HandshakeResponse);
    assert_eq!(HandshakeResponse::from_json(&response.payload).unwrap().to_payload(), response.payload);
    assert_same(&vector!("handshake_response"), &response);

    let complete = Message::decode(vector!("handshake_complete")).unwrap();
    assert_eq!((complete.payload_type, complete.sequence), (PayloadType::HandshakeComplete, 1));
    assert_eq!(HandshakeComplete::from_json(&complete.payload).unwrap().to_payload(), complete.payload);
    assert_same(&vector!("handshake_complete"), &complete);
}

#[test]
fn a_terminate_session_flag_has_the_layout_of_the_vectors() {
    let flag = message(MessageKind::InputStreamData, PayloadType::Flag, &Flag::TerminateSession.encode());
    assert_same(&vector!("terminate_session"), &Message { sequence: 9, ..flag });
}

#[test]
fn what_the_service_writes_carelessly_is_read_all_the_same() {
    let closed = Frame::decode(vector!("channel_closed")).unwrap();
    assert_eq!(closed.message.kind, MessageKind::ChannelClosed);
    assert_eq!(closed.message.payload_type, PayloadType::Other(261));
    assert_eq!(ChannelClosed::from_json(&closed.message.payload).unwrap().output, "timed out");
    assert!(!closed.is_digest_right());

    let pause = Frame::decode(vector!("pause_publication")).unwrap();
    assert_eq!((pause.message.kind, pause.payload_length), (MessageKind::PausePublication, u32::MAX));
    assert_eq!(pause.message.payload, "");
}

#[test]
fn a_header_longer_than_the_protocols_is_refused() {
    let frame = vector!("longer_header");
    let length = frame.len();
    let refused = Message::decode(frame).unwrap_err();
    assert!(
        matches!(refused, DecodeError::HeaderLength { header_length: 117.., length: l } if l == length),
        "{refused}"
    );
}

#[test]
fn a_wrong_digest_is_seen_but_does_not_stop_decoding() {
    let frame = Frame::decode(vector!("wrong_digest")).unwrap();
    assert_eq!(frame.message.payload, "bent");
    assert!(!frame.is_digest_right());
    assert_eq!(frame.encode(), vector!("wrong_digest"));
}

#[test]
fn a_decoded_payload_is_a_slice_of_the_frame() {
    let frame = vector!("output_stream_data");
    let payload = Message::decode(frame.clone()).unwrap().payload;
    assert_eq!(payload.as_ptr(), frame[PREFIX_LENGTH..].as_ptr());
}

#[test]
fn every_frame_shorter_than_the_prefix_is_refused() {
    let frame = vector!("terminate_session");
    for length in 0..PREFIX_LENGTH {
        assert_eq!(Message::decode(frame.slice(..length)), Err(DecodeError::TooShort { length }));
    }
    assert_eq!(Message::decode(frame.slice(..PREFIX_LENGTH)).unwrap().payload, "");
}

#[test]
fn any_other_header_length_is_refused() {
    for header_length in [0, 1, 115, 117, 120, 121, 0x7fff_ffff, u32::MAX - 3, u32::MAX] {
        let mut frame = vector!("terminate_session").to_vec();
        frame[..4].copy_from_slice(&header_length.to_be_bytes());
        let length = frame.len();
        assert_eq!(Message::decode(frame.into()), Err(DecodeError::HeaderLength { header_length, length }));
    }
}

#[test]
fn a_blank_message_type_is_refused() {
    for blank in [b' ', 0] {
        let mut frame = vector!("terminate_session").to_vec();
        frame[4..36].fill(blank);
        assert_eq!(Message::decode(frame.into()), Err(DecodeError::EmptyMessageType));
    }
}

#[test]
fn a_name_longer_than_its_field_is_cut() {
    let long = message(MessageKind::Other("x".repeat(40)), PayloadType::NONE, b"p");
    let read = Message::decode(long.encode()).unwrap();
    assert_eq!(read, Message { kind: MessageKind::Other("x".repeat(32)), ..long });
}

fn any_message() -> impl Strategy<Value = Message> {
    let kind = "[a-z_]{1,32}|input_stream_data|output_stream_data|acknowledge|channel_closed";
    let fields = (kind, any::<u64>(), any::<i64>(), any::<u64>(), any::<u128>(), any::<u32>());
    (fields, prop::collection::vec(any::<u8>(), 0..300)).prop_map(|(fields, payload)| Message {
        kind: MessageKind::from_name(&fields.0),
        created_millis: fields.1,
        sequence: fields.2,
        flags: fields.3,
        id: Uuid::from_u128(fields.4),
        payload_type: fields.5.into(),
        payload: payload.into(),
    })
}

proptest! {
    #[test]
    fn a_message_survives_the_wire(message in any_message()) {
        let frame = Frame::decode(message.encode()).unwrap();
        prop_assert!(frame.is_digest_right());
        prop_assert_eq!(frame.payload_length as usize, message.payload.len());
        prop_assert_eq!(frame.message, message);
    }

    #[test]
    fn no_bytes_make_the_decoder_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = Frame::decode(bytes.into());
    }

    #[test]
    fn no_damage_to_a_frame_makes_the_decoder_panic(
        message in any_message(), at in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<prop::sample::Index>(),
    ) {
        let mut bytes = message.encode().to_vec();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        bytes.truncate(cut.index(bytes.len() + 1));
        if let Ok(frame) = Frame::decode(bytes.into()) {
            let _ = frame.is_digest_right();
            let _ = Frame::decode(frame.encode());
        }
    }

    #[test]
    fn no_bytes_make_a_body_panic(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
        let _ = HandshakeRequest::from_json(&bytes);
        let _ = Acknowledge::from_json(&bytes);
        let _ = ChannelClosed::from_json(&bytes);
        let _ = Flag::decode(&bytes);
    }
}
