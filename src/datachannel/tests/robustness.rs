//! Whatever a peer sends, in whatever order.

use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone)]
enum Step {
    Receive { kind: &'static str, sequence: i64, payload_type: u32, payload: Vec<u8> },
    Bytes(Vec<u8>),
    Write(usize),
    Read,
    Pass(u64),
    Connect,
    Disconnect,
    Finish,
}

const KINDS: &[&str] = &["output_stream_data", "acknowledge", "pause_publication", "input_stream_data", "nonsense"];

fn payload() -> impl Strategy<Value = Vec<u8>> {
    let ack = (-2..12i64).prop_map(|sequence| format!(r#"{{"AcknowledgedMessageSequenceNumber":{sequence}}}"#));
    prop_oneof![
        Just(REQUEST.as_bytes().to_vec()),
        Just(br#"{"RequestedClientActions":[{"ActionType":"KMSEncryption"}]}"#.to_vec()),
        Just(b"{}".to_vec()),
        ack.prop_map(String::into_bytes),
        prop::collection::vec(any::<u8>(), 0..20),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let receive = (prop::sample::select(KINDS), -1..6i64, 0..13u32, payload())
        .prop_map(|(kind, sequence, payload_type, payload)| Step::Receive { kind, sequence, payload_type, payload });
    let close =
        payload().prop_map(|payload| Step::Receive { kind: "channel_closed", sequence: 0, payload_type: 0, payload });
    prop_oneof![
        20 => receive,
        1 => close,
        1 => prop::collection::vec(any::<u8>(), 0..150).prop_map(Step::Bytes),
        4 => (0..40_000usize).prop_map(Step::Write),
        2 => Just(Step::Read),
        4 => (0..2000u64).prop_map(Step::Pass),
        1 => Just(Step::Connect),
        1 => Just(Step::Disconnect),
        1 => Just(Step::Finish),
    ]
}

fn take(bench: &mut Bench, step: Step) -> Result<(), ChannelError> {
    match step {
        Step::Receive { kind, sequence, payload_type, payload } => {
            return bench.try_receive(MessageKind::from_name(kind), sequence, payload_type.into(), &payload);
        }
        Step::Bytes(bytes) => return bench.channel.handle_frame(bytes.into(), bench.now),
        Step::Pass(millis) => {
            bench.pass(Duration::from_millis(millis));
            return bench.channel.handle_timeout(bench.now);
        }
        Step::Write(length) => drop(bench.write(&vec![0; length])),
        Step::Read => drop(bench.read()),
        Step::Connect => bench.channel.handle_connected("token", bench.now),
        Step::Disconnect => bench.channel.handle_disconnected(bench.now),
        Step::Finish => bench.channel.finish(bench.now),
    }
    Ok(())
}

proptest! {
    #[test]
    fn no_sequence_of_inputs_breaks_the_engine(
        is_open in any::<bool>(), steps in prop::collection::vec(step(), 0..100),
    ) {
        let config = Config { max_payload: 1 << 10, max_in_flight: 8 << 10, ..Config::default() };
        let mut bench = if is_open { Bench::open(config) } else { Bench::new(config) };
        for step in steps {
            let result = take(&mut bench, step);
            prop_assert!(result.is_ok() || bench.channel.is_closed());
            let frames = bench.frames();
            prop_assert!(frames.is_empty() || !bench.channel.is_closed());
            prop_assert!(bench.channel.poll_timeout().is_none_or(|deadline| deadline > bench.now));
            prop_assert!(bench.channel.stats().in_flight <= (8 << 10) + 1024);
        }
    }
}
