//! How fast an upload is, and how late a keystroke behind it, by path and window.

use std::{fmt::Write as _, time::Duration};

use crate::{
    app,
    link::Profile,
    scenarios::{base, ms},
    world::Scenario,
};

const KIB: usize = 1 << 10;

/// An upload at the default options but for the pace.
fn upload(path: Profile, bytes: usize) -> Scenario {
    let mut scenario = base();
    (scenario.up, scenario.down) = (path, Profile { rate: None, ..path });
    scenario.config = ssmssh::datachannel::Config::default();
    scenario.config.max_frames_per_second = None;
    scenario.agent.to_send = 1;
    scenario.app = app::Options { to_write: bytes, largest_write: 64 * KIB, read_pause: None, to_read: 1 };
    scenario
}

#[test]
fn a_keystroke_behind_an_upload_over_a_slow_link_is_not_late_and_the_link_is_full() {
    let path = Profile { delay: ms(20), rate: Some(1_000_000), ..Profile::default() };
    let outcome = upload(path, 16 << 20).run(0);
    assert!(outcome.upload.goodput() >= 900_000.0, "{} {outcome:?}", outcome.upload.goodput());
    assert!(outcome.upload.latest + path.delay <= ms(250), "{outcome:?}");
}

#[test]
fn an_upload_fills_a_long_fast_path() {
    let path = Profile { delay: ms(100), rate: Some(20_000_000), ..Profile::default() };
    let outcome = upload(path, 60 << 20).run(0);
    assert!(outcome.upload.goodput() >= 18_000_000.0, "{} {outcome:?}", outcome.upload.goodput());
}

/// Bytes a second of the largest payloads at the default pace.
const WHOLE_PACE: f64 = 900.0 * 16384.0;

fn paced_upload(round_trip: u64, bytes: usize) -> Scenario {
    let mut scenario = upload(Profile { delay: ms(round_trip / 2), ..Profile::default() }, bytes);
    scenario.config.max_frames_per_second = base().config.max_frames_per_second;
    scenario
}

#[test]
fn a_paced_upload_uses_the_whole_pace() {
    for round_trip in [2, 60, 200] {
        let outcome = paced_upload(round_trip, 64 << 20).run(0);
        assert!(outcome.upload.goodput() >= 0.97 * WHOLE_PACE, "{} {outcome:?}", outcome.upload.goodput());
        assert!(outcome.upload.latest <= ms(200 + round_trip), "{outcome:?}");
    }
}

#[test]
fn a_paced_upload_over_a_short_path_uses_the_whole_pace_from_the_first_byte_on() {
    let outcome = paced_upload(10, 32 << 20).run(0);
    let rate = f64::from(32 << 20) / outcome.took.as_secs_f64();
    assert!(rate >= 0.97 * WHOLE_PACE, "{rate} {outcome:?}");
}

#[test]
fn throughput_by_loss_round_trip_and_window() {
    let mut table = String::from("KB/s of 2 MiB over a path of 10 MB/s\n\nloss  round trip  64 KiB  1 MiB   8 MiB\n");
    for loss in [0, 20, 100] {
        for round_trip in [10, 50, 200] {
            write!(table, "{:3} %  {round_trip:7} ms", loss / 10).expect("a string takes all");
            for window in [64 << 10, 1 << 20, 8 << 20] {
                let path = Profile { delay: ms(round_trip / 2), loss, rate: Some(10_000_000), ..Profile::default() };
                let mut scenario = upload(path, 2 << 20);
                scenario.config.max_in_flight = window;
                write!(table, "  {:6}", rate(2 << 20, scenario.run(1).took)).expect("a string takes all");
            }
            table.push('\n');
        }
    }
    insta::assert_snapshot!(table);
}

/// Rates of home uplinks and worse, in bytes a second.
const SLOW_RATES: [u32; 5] = [60_000, 125_000, 250_000, 500_000, 1_000_000];

/// Five seconds of a slow link, more where the path is long; both ways as slow.
fn slow_upload(rate: u32, delay: u64, payload: usize, loss: u64) -> (Scenario, usize) {
    let bytes = usize::try_from(rate).expect("small") * (50 + usize::try_from(delay).expect("small")) / 10;
    let path = Profile { delay: ms(delay), rate: Some(rate), loss, ..Profile::default() };
    let mut scenario = upload(path, bytes);
    scenario.down = path;
    scenario.config = ssmssh::datachannel::Config::default();
    scenario.config.max_payload = payload;
    (scenario, bytes)
}

/// What a run costs: time over what the link needs for the bytes alone, and messages sent again without need.
struct Cost {
    time: f64,
    needless: f64,
    queued: Duration,
}

#[expect(clippy::cast_precision_loss, reason = "a run's numbers are small")]
impl Cost {
    fn of(rate: u32, delay: u64, payload: usize, loss: u64) -> Self {
        let (scenario, bytes) = slow_upload(rate, delay, payload, loss);
        let outcome = scenario.run(3);
        let justified = outcome.lost as f64;
        let resent = outcome.stats.messages_resent as f64;
        let ideal = bytes as f64 / f64::from(rate) + 2.0 * ms(delay).as_secs_f64();
        Self {
            time: outcome.took.as_secs_f64() / ideal,
            needless: (resent - justified).max(0.0) / outcome.stats.messages_sent as f64,
            queued: outcome.upload.latest,
        }
    }
}

#[test]
fn a_slow_link_carries_what_it_can_and_next_to_nothing_is_sent_twice() {
    let mut table = String::from(
        "time over what the link needs, needless resends per message in %, longest wait in ms\n\n\
         kB/s  delay  loss        1 KiB              16 KiB             32 KiB             64 KiB\n",
    );
    let mut faults = Vec::new();
    for rate in SLOW_RATES {
        for delay in [0, 2, 10, 50, 100] {
            for loss in [0, 10] {
                write!(table, "{:4} {delay:6} {:3} %", rate / 1000, loss / 10).expect("a string takes all");
                for payload in [1, 16, 32, 64] {
                    let cost = Cost::of(rate, delay, payload * KIB, loss);
                    write!(table, "  {:5.2} {:4.1} {:5}", cost.time, cost.needless * 100.0, cost.queued.as_millis())
                        .expect("a string takes all");
                    // Headers of 120 bytes a message are an eighth of the smallest payloads.
                    // On a long path the start counts for more in so short a run.
                    let allowed = if payload == 1 {
                        1.3
                    } else if delay < 100 {
                        1.15
                    } else {
                        1.2
                    };
                    if loss == 0 && (cost.time > allowed || cost.needless > 0.03) {
                        faults.push(format!("{rate} {delay} {payload}: {} {}", cost.time, cost.needless));
                    }
                }
                table.push('\n');
            }
        }
    }
    insta::assert_snapshot!(table);
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

fn rate(bytes: u128, took: Duration) -> u128 {
    bytes / took.as_millis()
}
