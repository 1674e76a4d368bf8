use proptest::prelude::*;

use super::{super::tests::start, *};

const MS: Duration = Duration::from_millis(1);
const NOTHING: [u64; 0] = [];

struct Bench {
    outbox: Outbox,
    now: Instant,
}

impl Bench {
    /// With an estimate of 80 ms: lost after 90 ms, silent after more than that.
    fn new() -> Self {
        let mut bench = Self { outbox: Outbox::default(), now: start() };
        for _ in 0..50 {
            bench.push(1);
            bench.now += 80 * MS;
            bench.ack(bench.outbox.next_sequence() - 1);
        }
        bench
    }

    fn push(&mut self, count: usize) -> u64 {
        let first = self.outbox.next_sequence();
        for _ in 0..count {
            let name = self.outbox.next_sequence().to_string();
            self.outbox.push(name.into(), 100, true, self.now);
        }
        first
    }

    fn ack(&mut self, sequence: u64) -> bool {
        self.outbox.acknowledge(i64::try_from(sequence).unwrap(), self.now).is_some()
    }

    fn resends(&mut self) -> Vec<u64> {
        let frames = std::iter::from_fn(|| self.outbox.next_resend(self.now));
        frames.map(|frame| std::str::from_utf8(&frame).unwrap().parse().unwrap()).collect()
    }

    /// What is sent again while time passes.
    fn run(&mut self, time: Duration) -> Vec<u64> {
        let end = self.now + time;
        let mut resent = self.resends();
        while let Some(deadline) = self.outbox.deadline().filter(|deadline| *deadline <= end) {
            self.now = deadline;
            self.outbox.handle_timeout(self.now);
            resent.extend(self.resends());
        }
        self.now = end;
        resent
    }
}

#[test]
fn a_message_that_later_ones_overtook_is_resent_after_about_a_round_trip() {
    let mut bench = Bench::new();
    let first = bench.push(3);
    bench.now += 80 * MS;
    bench.ack(first + 1);
    assert_eq!(bench.run(9 * MS), NOTHING);
    assert_eq!(bench.run(2 * MS), [first]);
}

#[test]
fn a_message_overtaken_and_acknowledged_in_time_is_not_resent() {
    let mut bench = Bench::new();
    let first = bench.push(2);
    bench.now += 80 * MS;
    bench.ack(first + 1);
    bench.now += 5 * MS;
    bench.ack(first);
    assert_eq!(bench.run(Duration::from_secs(9)), NOTHING);
    assert!(bench.outbox.is_empty() && bench.outbox.deadline().is_none());
}

#[test]
fn each_resend_of_an_overtaken_message_waits_twice_as_long() {
    let mut bench = Bench::new();
    let stuck = bench.push(1);
    let mut resends = Vec::new();
    let begin = bench.now;
    while bench.now < begin + Duration::from_secs(6) {
        let next = bench.push(1);
        resends.extend(bench.run(80 * MS).iter().map(|_| bench.now.duration_since(begin)));
        bench.ack(next);
    }
    assert!(bench.outbox.bytes() == 100 && bench.outbox.messages[0].is_some() && bench.outbox.base == stuck);
    let gaps: Vec<Duration> = resends.windows(2).map(|pair| pair[1].saturating_sub(pair[0])).collect();
    assert!(gaps.windows(2).all(|pair| pair[1] + 80 * MS >= pair[0]), "{gaps:?}");
    assert!((6..=10).contains(&resends.len()), "{resends:?}");
}

#[test]
fn silence_is_probed_with_doubling_waits_up_to_a_second() {
    let mut bench = Bench::new();
    let only = bench.push(1);
    let mut waits = Vec::new();
    for _ in 0..6 {
        let before = bench.now;
        bench.now = bench.outbox.deadline().unwrap();
        bench.outbox.handle_timeout(bench.now);
        assert_eq!(bench.resends(), [only]);
        waits.push(bench.now.duration_since(before));
    }
    assert!(waits[0] > 89 * MS && waits[0] < 92 * MS, "{waits:?}");
    assert!(waits[1..4].iter().zip(&waits).all(|(next, last)| *next == *last * 2), "{waits:?}");
    assert_eq!(waits[4..], [Duration::from_secs(1); 2]);
}

#[test]
fn while_acknowledgements_trickle_in_nothing_is_resent() {
    let mut bench = Bench::new();
    let first = bench.push(200);
    for sequence in first..first + 200 {
        assert_eq!(bench.run(85 * MS), NOTHING);
        bench.ack(sequence);
    }
}

#[test]
fn a_window_lost_whole_is_probed_in_doubling_numbers() {
    let mut bench = Bench::new();
    let first = bench.push(100);
    let mut rounds = Vec::new();
    while !bench.outbox.is_empty() {
        bench.now = bench.outbox.deadline().unwrap();
        bench.outbox.handle_timeout(bench.now);
        let probes = bench.resends();
        bench.now += 80 * MS;
        rounds.push(probes.len());
        for sequence in probes {
            assert!(bench.ack(sequence));
        }
    }
    assert!(rounds.len() <= 8, "{rounds:?}");
    assert_eq!(rounds.iter().sum::<usize>(), 100, "{rounds:?} from {first}");
}

#[test]
fn after_a_stall_the_rest_of_the_window_is_not_resent() {
    let mut bench = Bench::new();
    let first = bench.push(100);
    let probed = bench.run(Duration::from_secs(10));
    assert!(probed.len() < 25, "{probed:?}");
    for sequence in first..first + 100 {
        bench.now += MS;
        bench.ack(sequence);
        assert_eq!(bench.resends(), NOTHING);
    }
}

#[test]
fn a_resent_message_gives_no_sample() {
    let mut bench = Bench::new();
    let before = bench.outbox.round_trip();
    let only = bench.push(1);
    bench.run(Duration::from_secs(5));
    bench.ack(only);
    assert_eq!(bench.outbox.round_trip(), before);
}

#[test]
fn after_a_reconnect_everything_is_resent_in_order_but_what_is_acknowledged_meanwhile() {
    let mut bench = Bench::new();
    let first = bench.push(5);
    bench.ack(first + 1);
    bench.outbox.resend_all(bench.now);
    bench.ack(first + 3);
    assert_eq!(bench.resends(), [first, first + 2, first + 4]);
}

#[test]
fn the_span_reaches_from_the_oldest_to_the_newest() {
    let mut bench = Bench::new();
    let first = bench.push(4);
    bench.ack(first + 1);
    bench.ack(first + 2);
    assert_eq!((bench.outbox.span(), bench.outbox.bytes()), (4, 200));
    bench.ack(first);
    assert_eq!((bench.outbox.span(), bench.outbox.bytes()), (1, 100));
}

#[test]
fn an_old_agents_lost_acknowledgement_is_not_waited_for_for_ever() {
    for (is_old, forgotten) in [(true, 1), (false, 0)] {
        let mut bench = Bench::new();
        if is_old {
            bench.outbox.expect_single_acknowledgements();
        }
        bench.push(1);
        for _ in 0..300 {
            let next = bench.push(1);
            bench.run(80 * MS);
            bench.ack(next);
        }
        bench.run(Duration::from_secs(2));
        assert_eq!((bench.outbox.forgotten(), bench.outbox.is_empty()), (forgotten, is_old));
    }
}

/// Every message is in exactly the index its place names.
fn assert_consistent(outbox: &Outbox) {
    let live =
        outbox.messages.iter().zip(outbox.base..).filter_map(|(sent, sequence)| Some((sent.as_ref()?, sequence)));
    let (mut flying, mut overdue, mut lost, mut bytes) = (0, 0, 0, 0);
    for (sent, sequence) in live {
        bytes += sent.payload;
        let is_indexed = match sent.place {
            Place::Flying => (flying += 1, outbox.flying.get(&sent.transmission) == Some(&sequence)).1,
            Place::Overdue(deadline) => (overdue += 1, outbox.overdue.contains(&(deadline, sequence))).1,
            Place::Lost => (lost += 1, outbox.lost.contains(&sequence)).1,
        };
        assert!(is_indexed, "{sequence}: {sent:?}");
    }
    assert_eq!((flying, overdue, lost), (outbox.flying.len(), outbox.overdue.len(), outbox.lost.len()));
    assert_eq!(bytes, outbox.bytes());
    assert_eq!(outbox.is_empty(), outbox.deadline().is_none());
    assert!(outbox.messages.front().is_none_or(Option::is_some));
}

proptest! {
    #[test]
    fn whatever_happens_every_message_is_accounted_for(steps in prop::collection::vec((0..6, 0..20u64), 0..200)) {
        let mut bench = Bench::new();
        for (step, number) in steps {
            match step {
                0 => drop(bench.push(usize::try_from(number).unwrap())),
                1 => drop(bench.ack(bench.outbox.base + number)),
                2 => bench.now += Duration::from_millis(number * number),
                3 => bench.outbox.handle_timeout(bench.now),
                4 => drop(bench.resends()),
                _ => bench.outbox.resend_all(bench.now),
            }
            assert_consistent(&bench.outbox);
        }
    }
}
