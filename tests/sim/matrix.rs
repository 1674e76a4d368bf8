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

fn rate(bytes: u128, took: Duration) -> u128 {
    bytes / took.as_millis()
}
