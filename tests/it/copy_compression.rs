//! Which copies are compressed, and over which sessions.

use std::fs;

use crate::copy_cli::{World, silent_success};
use crate::copy_sftp::noise;
use crate::copy_streams::sessions;
use crate::support::logs::log_lines;

/// Long enough at the agent's pace for another stream to be worth its while.
const LENGTH: usize = 6 << 20;

#[tokio::test]
async fn one_compressed_stream_takes_the_place_of_a_plain_one_where_that_pays() {
    let world = World::new().await;
    let text = log_lines(LENGTH);
    fs::write(world.there("log"), &text).unwrap();
    assert_eq!(world.run(&[&"-j1", &world.node("log"), &"log"]).await, silent_success());
    assert!(fs::read(world.here("log")).unwrap() == text);
    assert_eq!(sessions(&world), 2);
}

#[tokio::test]
async fn data_that_is_compressed_already_stays_on_the_stream_it_is_on() {
    let world = World::new().await;
    let packed = noise(2 << 20, 3);
    fs::write(world.there("packed"), &packed).unwrap();
    assert_eq!(world.run(&[&"-j1", &world.node("packed"), &"packed"]).await, silent_success());
    assert!(fs::read(world.here("packed")).unwrap() == packed);
    assert_eq!(sessions(&world), 1);
}

#[tokio::test]
async fn what_is_asked_for_is_done_from_the_first_stream_on() {
    let world = World::new().await;
    let text = log_lines(LENGTH);
    fs::write(world.here("log"), &text).unwrap();
    for (nth, words) in [["-j1", "-C"], ["-j1", "--compression=on"], ["-j1", "-oCompression=yes"]].iter().enumerate() {
        assert_eq!(world.run(&[&words[0], &words[1], &"log", &world.node("up")]).await, silent_success());
        assert_eq!(world.run(&[&words[0], &words[1], &world.node("up"), &"down"]).await, silent_success());
        assert!(fs::read(world.here("down")).unwrap() == text, "{words:?}");
        assert_eq!(sessions(&world), 2 * (nth + 1), "{words:?}");
    }
}

#[tokio::test]
async fn a_tree_of_both_kinds_arrives_whole_over_streams_of_both_kinds() {
    let world = World::new().await;
    fs::create_dir(world.there("tree")).unwrap();
    let content = |file: u64| if file.is_multiple_of(2) { log_lines(700_000) } else { noise(300_000, file) };
    for file in 0..10 {
        fs::write(world.there(format!("tree/{file}")), content(file)).unwrap();
    }
    assert_eq!(world.run(&[&"-r", &"-j3", &world.node("tree"), &"tree"]).await, silent_success());
    for file in 0..10 {
        assert!(fs::read(world.here("tree").join(file.to_string())).unwrap() == content(file), "{file}");
    }
}
