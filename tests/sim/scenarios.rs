//! The kinds of runs. Each runs with many seeds.

use std::{num::NonZeroU32, time::Duration};

use ssmssh::datachannel::Config;

use crate::{
    agent, app,
    link::Profile,
    world::{Outage, Scenario},
};

const SEEDS: std::ops::Range<u64> = 0..300;
const KIB: usize = 1 << 10;

pub(crate) const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// A shell's worth of bytes each way over a perfect path of 20 ms round trip.
pub(crate) fn base() -> Scenario {
    let mut config = Config::default();
    config.max_payload = KIB;
    config.max_in_flight = 16 * KIB;
    let path = Profile { delay: ms(10), ..Profile::default() };
    let (to_write, to_send) = (32 * KIB, 16 * KIB);
    Scenario {
        up: path,
        down: path,
        app: app::Options { to_write, largest_write: 4 * KIB, read_pause: None, to_read: to_send },
        agent: agent::Options { connect_delay: ms(3), speaks_first: true, to_send },
        config,
        outages: Vec::new(),
        limit: Duration::from_mins(2),
    }
}

/// `base` over a path that is the same both ways.
pub(crate) fn over(path: Profile) -> Scenario {
    Scenario { up: path, down: path, ..base() }
}

/// Nothing comes back but the first byte.
fn upload_only() -> Scenario {
    let mut scenario = base();
    scenario.agent.to_send = 1;
    scenario.app.to_read = 1;
    scenario
}

fn outage(after: u64, lasts: u64, is_noticed: bool) -> Outage {
    Outage { after: ms(after), lasts: ms(lasts), is_noticed }
}

pub(crate) fn bad_path() -> Profile {
    Profile { delay: ms(30), jitter: ms(10), loss: 20, duplication: 20, reordering: 50, ..Profile::default() }
}

#[test]
fn a_perfect_path_needs_no_resend() {
    for seed in SEEDS {
        let outcome = base().run(seed);
        assert_eq!((outcome.resent, outcome.stats.messages_repeated), (0, 0), "seed {seed}");
        assert!(outcome.took < Duration::from_secs(1), "seed {seed}: {outcome:?}");
    }
}

#[test]
fn a_run_is_fixed_by_its_seed() {
    let scenario = over(bad_path());
    assert_eq!(scenario.run(1), scenario.run(1));
    assert_ne!(scenario.run(1), scenario.run(2));
}

#[test]
fn lost_frames_are_made_good() {
    over(Profile { delay: ms(20), loss: 50, ..Profile::default() }).run_seeds(SEEDS);
}

#[test]
fn a_path_that_loses_a_third_still_gets_everything_across() {
    over(Profile { delay: ms(20), loss: 333, ..Profile::default() }).run_seeds(SEEDS);
}

#[test]
fn damaged_messages_from_the_agent_are_waited_for_again() {
    let down = Profile { delay: ms(20), damage: 50, ..Profile::default() };
    Scenario { down, ..base() }.run_seeds(SEEDS);
}

#[test]
fn duplicates_do_no_harm() {
    over(Profile { delay: ms(20), duplication: 300, ..Profile::default() }).run_seeds(SEEDS);
}

#[test]
fn reordered_frames_are_put_in_order() {
    over(Profile { delay: ms(20), jitter: ms(15), reordering: 300, ..Profile::default() }).run_seeds(SEEDS);
}

#[test]
fn everything_at_once_is_survived() {
    over(bad_path()).run_seeds(SEEDS);
}

#[test]
fn an_agent_that_connects_slowly_to_a_silent_server_loses_nothing() {
    let agent = agent::Options { connect_delay: ms(400), speaks_first: false, ..base().agent };
    let scenario = Scenario { agent, ..base() };
    scenario.run_seeds(SEEDS);
    Scenario { agent, ..over(bad_path()) }.run_seeds(SEEDS);
}

/// An upload that fills the window over a link much slower than the agent.
pub(crate) fn behind_a_queue() -> Scenario {
    let mut scenario = Scenario { up: Profile { delay: ms(5), rate: Some(20_000), ..Profile::default() }, ..base() };
    scenario.config.max_in_flight = 64 * KIB;
    scenario
}

#[test]
fn a_queue_longer_than_the_timeout_is_not_sent_twice() {
    for seed in SEEDS {
        let outcome = behind_a_queue().run(seed);
        assert!(outcome.resent <= 8, "seed {seed}: {outcome:?}");
    }
}

#[test]
fn a_slow_reader_holds_the_sender_back_without_loss() {
    let mut scenario = over(Profile { loss: 20, ..bad_path() });
    scenario.app.read_pause = Some(ms(20));
    scenario.run_seeds(SEEDS);
}

#[test]
fn a_paced_client_reaches_its_goal_at_the_rate() {
    for (path, rate, burst) in [(base().up, 50, 10), (bad_path(), 100, 20), (bad_path(), 20, 1)] {
        let mut scenario = over(path);
        scenario.config.max_frames_per_second = NonZeroU32::new(rate);
        scenario.config.burst = burst;
        scenario.run_seeds(SEEDS);
    }
}

#[test]
fn a_node_faster_than_the_pace_does_not_silence_the_client() {
    for seed in SEEDS {
        let mut scenario = base();
        scenario.config.max_frames_per_second = NonZeroU32::new(300);
        scenario.config.burst = 20;
        (scenario.agent.to_send, scenario.app.to_read) = (128 * KIB, 128 * KIB);
        scenario.run(seed);
    }
}

#[test]
fn a_window_of_one_message_is_enough() {
    let mut scenario = over(bad_path());
    scenario.config.max_in_flight = KIB;
    scenario.run_seeds(SEEDS);
}

#[test]
fn a_channel_outlives_its_websockets() {
    let outages: Vec<Outage> =
        [(40, 500), (35, 0), (200, 3000), (90, 1)].map(|(after, lasts)| outage(after, lasts, true)).into();
    Scenario { outages: outages.clone(), ..base() }.run_seeds(SEEDS);
    Scenario { outages, ..over(bad_path()) }.run_seeds(SEEDS);
}

#[test]
fn a_websocket_may_break_at_any_moment() {
    for after in 0..100 {
        Scenario { outages: vec![outage(after, 100, true)], ..base() }.run(after);
    }
}

#[test]
fn an_upload_goes_on_at_once_when_the_websocket_is_back() {
    let undisturbed = upload_only().run(0).took;
    for after in 0..100 {
        let outcome = Scenario { outages: vec![outage(after, 1000, true)], ..upload_only() }.run(after);
        let extra = outcome.took.saturating_sub(undisturbed);
        // The agent resends its side of the handshake every 200 to 300 ms.
        let limit = if after < 60 { ms(1600) } else { ms(1060) };
        assert!(extra <= limit, "{after}: {extra:?} more than {undisturbed:?}");
    }
}

#[test]
fn acknowledgements_lost_with_a_websocket_do_not_leave_the_agent_repeating_itself() {
    let mut scenario = base();
    scenario.up.delay = ms(40);
    scenario.down.delay = ms(0);
    (scenario.agent.to_send, scenario.app.to_read) = (128 * KIB, 128 * KIB);
    let undisturbed = scenario.run(0).took;
    for after in (90..200).step_by(10) {
        let outcome = Scenario { outages: vec![outage(after, 0, true)], ..scenario.clone() }.run(after);
        let extra = outcome.took.saturating_sub(undisturbed);
        // The agent would need 100 ms for each of the 40 that were on their way.
        assert!(extra < ms(300), "{after}: {extra:?} more than {undisturbed:?}, {outcome:?}");
    }
}

#[test]
fn what_the_path_swallows_unnoticed_is_made_good_soon() {
    for after in 0..100 {
        let outcome = Scenario { outages: vec![outage(after, 200, false)], ..base() }.run(after);
        // The agent's side takes up to 300 ms for each of the messages it lost.
        assert!(outcome.took < Duration::from_secs(9), "{after}: {outcome:?}");
    }
}

#[test]
fn a_window_of_lost_messages_is_made_good_in_a_few_round_trips() {
    let scenario = Scenario { outages: vec![outage(80, 1, false)], ..upload_only() };
    for seed in SEEDS {
        let outcome = scenario.run(seed);
        assert!(outcome.took < ms(1000), "seed {seed}: {outcome:?}");
    }
}
