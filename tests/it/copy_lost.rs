//! Copies all of whose SSM sessions end in the middle: others take their place.

use std::ffi::OsString;
use std::fs;
use std::process::Output;
use std::time::Duration;

use ssm_lab::{Lab, LabBuilder};

use crate::copy_cli::{World, until};
use crate::copy_sftp::noise;
use crate::copy_streams::sessions;

/// Some seconds of one stream at the agent's pace.
const LENGTH: usize = 3 << 20;

/// A copy up or down over `streams`, whose first session is ended once `is_time`.
async fn ended(lab: LabBuilder, is_upload: bool, streams: &str, is_time: impl Fn(&World, u64) -> bool) -> World {
    let world = World::with(lab).await;
    let content = noise(LENGTH, 21);
    fs::create_dir(world.here("into")).expect("made");
    fs::create_dir(world.there("into")).expect("made");
    let (from, to) =
        if is_upload { (world.here("file"), world.there("into")) } else { (world.there("file"), world.here("into")) };
    fs::write(&from, &content).expect("written");
    // An upload would be over too soon at full speed.
    let slow = ["-j", streams, "--max-payload=1024", "--max-frames-per-second=600"].map(OsString::from);
    let operands = if is_upload { ["file".into(), world.node("into")] } else { [world.node("file"), "into".into()] };
    let arguments: Vec<_> = slow.into_iter().chain(operands).collect();
    let arguments: Vec<_> = arguments.iter().map(OsString::as_os_str).collect();
    let copying = world.command(&arguments).spawn().expect("ssmcp runs");
    let arrived = || {
        let entries = fs::read_dir(&to).expect("a folder");
        entries.map(|entry| entry.expect("an entry").metadata().map_or(0, |found| found.len())).sum()
    };
    until("it is time", || is_time(&world, arrived())).await;
    assert!(world.lab.end_session(1, "terminated by an administrator"));
    let Output { status, stderr, .. } = copying.wait_with_output().await.expect("it ends");
    assert_eq!((status.code(), String::from_utf8_lossy(&stderr).as_ref()), (Some(0), ""));
    assert!(fs::read(to.join("file")).expect("a copy") == content);
    assert_eq!(fs::read_dir(&to).expect("a folder").count(), 1, "a temporary file is left");
    until("no session is left", || world.lab.open_sessions() == 0).await;
    world
}

#[tokio::test]
async fn a_copy_over_one_session_goes_on_over_another_when_it_is_ended() {
    for (is_upload, streams) in [(true, "1"), (false, "1"), (true, "auto")] {
        let world = ended(Lab::builder().openssh(), is_upload, streams, |_, arrived| arrived >= 1 << 20).await;
        let sessions = sessions(&world);
        // One more to hash what arrived over the first.
        let most = if is_upload { 3 } else { 2 };
        assert!(streams == "auto" || (2..=most).contains(&sessions), "{sessions} sessions, upload: {is_upload}");
    }
}

#[tokio::test]
async fn a_session_that_ends_while_all_others_are_being_opened_is_waited_over() {
    for is_upload in [true, false] {
        let lab = Lab::builder().openssh().worker_start(Duration::from_millis(300));
        let world = ended(lab, is_upload, "3", |world, _| sessions(world) > 1).await;
        assert!(sessions(&world) >= 3, "{} sessions", sessions(&world));
    }
}
