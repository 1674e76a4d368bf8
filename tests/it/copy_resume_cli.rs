//! `ssmcp` killed in the middle of a copy, then run again.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Output;

use tokio::process::Child;

use crate::copy_cli::{World, until};
use crate::copy_sftp::noise;

const MIB: u64 = 1024 * 1024;
/// What may be sent twice, for each stream.
const TWICE: u64 = 8 * MIB;

/// A copy of `file` into a directory `into`, on the node or here.
struct Copy<'a> {
    world: &'a World,
    is_upload: bool,
    streams: &'static str,
}

impl Copy<'_> {
    fn from(&self) -> PathBuf {
        if self.is_upload { self.world.here("file") } else { self.world.there("file") }
    }

    fn to(&self) -> PathBuf {
        if self.is_upload { self.world.there("into") } else { self.world.here("into") }
    }

    fn arguments(&self) -> Vec<OsString> {
        let (source, target) = if self.is_upload {
            ("file".into(), self.world.node("into"))
        } else {
            (self.world.node("file"), "into".into())
        };
        ["-o", "LogLevel=DEBUG", "-j", self.streams].into_iter().map(OsString::from).chain([source, target]).collect()
    }

    fn start(&self) -> Child {
        self.world.program().args(self.arguments()).spawn().expect("ssmcp runs")
    }

    /// Bytes that arrived so far.
    fn arrived(&self) -> u64 {
        let sizes = fs::read_dir(self.to())
            .expect("a folder")
            .map(|entry| entry.expect("an entry").metadata().map_or(0, |found| found.blocks()));
        sizes.sum::<u64>() * 512
    }

    async fn kill_at(&self, bytes: u64) {
        let mut child = self.start();
        until("the copy is under way", || self.arrived() >= bytes).await;
        child.kill().await.expect("killed");
    }

    async fn finish(&self) -> (String, u64) {
        let Output { status, stderr, .. } = self.start().wait_with_output().await.expect("ssmcp runs");
        let said = String::from_utf8_lossy(&stderr).into_owned();
        assert_eq!(status.code(), Some(0), "{said}");
        let kept = said.split("bytes_kept=").nth(1).expect("a summary in the log");
        let kept = kept.chars().take_while(char::is_ascii_digit).collect::<String>().parse().expect("a number");
        (said, kept)
    }
}

fn count(folder: &Path) -> usize {
    fs::read_dir(folder).map_or(0, Iterator::count)
}

async fn check(is_upload: bool, streams: &'static str, size: u64) {
    let world = World::new().await;
    let copy = Copy { world: &world, is_upload, streams };
    let content = noise(usize::try_from(size).expect("small"), 11);
    fs::write(copy.from(), &content).expect("written");
    fs::create_dir(copy.to()).expect("made");
    let mut arrived = 0;
    for tenths in [3, 5, 8] {
        copy.kill_at(size * tenths / 10).await;
        assert_eq!(count(&copy.to()), 1, "one temporary file, whoever wrote to it");
        assert!(copy.arrived() >= arrived, "it started over");
        arrived = copy.arrived();
    }
    let (said, kept) = copy.finish().await;
    let most = TWICE * streams.parse::<u64>().expect("a number");
    assert!(arrived - kept.min(arrived) <= most && kept > 0, "of {arrived} bytes {kept} were kept\n{said}");
    assert!(fs::read(copy.to().join("file")).expect("readable") == content);
    assert_eq!(count(&copy.to()), 1, "a temporary file is left");
    assert_eq!(count(&world.here(".local/state/ssmssh/copies")), 0, "a journal is left");
}

#[tokio::test]
async fn an_upload_that_was_killed_goes_on() {
    check(true, "1", 40 * MIB).await;
}

#[tokio::test]
async fn an_upload_over_several_sessions_that_was_killed_goes_on() {
    check(true, "3", 64 * MIB).await;
}

#[tokio::test]
async fn a_download_that_was_killed_goes_on() {
    check(false, "1", 8 * MIB).await;
}

#[tokio::test]
async fn a_download_over_several_sessions_that_was_killed_goes_on() {
    check(false, "4", 16 * MIB).await;
}

#[tokio::test]
async fn a_copy_is_the_same_however_its_paths_are_spelled() {
    let world = World::new().await;
    let content = noise(16 << 20, 13);
    fs::write(world.here("file"), &content).unwrap();
    fs::create_dir(world.here("sub")).unwrap();
    fs::create_dir(world.there("into")).unwrap();
    let copy = Copy { world: &world, is_upload: true, streams: "1" };
    copy.kill_at(4 * MIB).await;
    // `file` and `into`, otherwise.
    let start = |directory: &str, source: OsString, target: &str| {
        let mut command = world.program();
        command.current_dir(world.here(directory)).args(["-o", "LogLevel=DEBUG", "-j1"]);
        command.arg(source).arg(world.node(target)).spawn().expect("ssmcp runs")
    };
    let mut arrived = copy.arrived();
    for (directory, source, target) in [
        ("", OsString::from("./file"), "into/"),
        ("sub", "..//file".into(), ".//into"),
        ("sub", world.here("file").into(), "./into/."),
    ] {
        let mut child = start(directory, source, target);
        until("it goes on", || copy.arrived() >= arrived + 2 * MIB).await;
        child.kill().await.expect("killed");
        assert_eq!(count(&copy.to()), 1, "{target}: it is not the same file");
        arrived = copy.arrived();
    }
    let (said, kept) = copy.finish().await;
    assert!(kept >= MIB, "{said}");
    assert!(fs::read(copy.to().join("file")).unwrap() == content);
    assert_eq!((count(&copy.to()), count(&world.here(".local/state/ssmssh/copies"))), (1, 0));
}

#[tokio::test]
async fn after_control_c_it_says_how_to_go_on() {
    let world = World::new().await;
    fs::write(world.there("file"), noise(16 << 20, 12)).unwrap();
    fs::create_dir(world.here("into")).unwrap();
    let copy = Copy { world: &world, is_upload: false, streams: "4" };
    let child = copy.start();
    until("the copy is under way", || copy.arrived() >= 4 * MIB).await;
    let id = child.id().and_then(|id| rustix::process::Pid::from_raw(id.cast_signed())).expect("it runs");
    rustix::process::kill_process(id, rustix::process::Signal::INT).expect("signalled");
    let output = child.wait_with_output().await.expect("it ends");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(crate::support::cli::status_in_shell(output.status), Some(130), "{said}");
    assert!(said.contains("the same command goes on from here"), "{said}");
    until("no session is left", || world.lab.open_sessions() == 0).await;
    let (said, kept) = copy.finish().await;
    assert!(kept >= MIB, "{said}");
    assert!(fs::read(world.here("into/file")).unwrap() == noise(16 << 20, 12));
    assert_eq!(count(&world.here("into")), 1);
}
