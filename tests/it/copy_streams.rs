//! Copies over several streams at once.

use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::sync::{Arc, Mutex};

use ssm_lab::Event;
use ssmssh::copy::{BytePath, CopyOptions, Event as Copied, Location, Progress, RemoteEndpoint, Streams, copy};
use ssmssh::ssh::sftp::Sftp;
use tokio::process::{Child, Command};

use crate::copy_cli::{World, silent_success};
use crate::copy_sftp::{noise, program};

pub(crate) fn sessions(world: &World) -> usize {
    world.lab.events().iter().filter(|event| matches!(event, Event::SessionStarted { .. })).count()
}

#[tokio::test]
async fn a_large_file_goes_over_as_many_sessions_as_were_asked_for() {
    let world = World::new().await;
    let content = noise(4 * 1024 * 1024, 5);
    fs::write(world.there("file"), &content).unwrap();
    assert_eq!(world.run(&[&"-j", &"4", &world.node("file"), &"down"]).await, silent_success());
    assert!(fs::read(world.here("down")).unwrap() == content);
    assert_eq!(sessions(&world), 4);
    assert_eq!(world.run(&[&"-j4", &"down", &world.node("up")]).await, silent_success());
    assert!(fs::read(world.there("up")).unwrap() == content);
}

#[tokio::test]
async fn one_session_is_opened_when_one_is_asked_for_or_there_is_little_to_copy() {
    let world = World::new().await;
    fs::write(world.here("large"), noise(4 * 1024 * 1024, 5)).unwrap();
    fs::write(world.here("small"), noise(1000, 5)).unwrap();
    assert_eq!(world.run(&[&"-j1", &"large", &world.node("")]).await, silent_success());
    assert_eq!(sessions(&world), 1);
    assert_eq!(world.run(&[&"small", &world.node("")]).await, silent_success());
    assert_eq!(world.run(&[&"-j8", &"small", &world.node("")]).await, silent_success());
    assert_eq!(sessions(&world), 3);
}

#[tokio::test]
async fn a_slow_download_gets_more_sessions_by_itself() {
    let world = World::new().await;
    let content = noise(6 * 1024 * 1024, 6);
    fs::write(world.there("file"), &content).unwrap();
    assert_eq!(world.run(&[&world.node("file"), &"down"]).await, silent_success());
    assert!(fs::read(world.here("down")).unwrap() == content);
    assert!((2..=8).contains(&sessions(&world)), "{} sessions", sessions(&world));
}

/// SFTP servers in one directory, each a process of its own, in the order in which they were started.
#[derive(Clone, Default)]
struct Servers(Arc<Mutex<Vec<Child>>>);

impl Servers {
    async fn start(self, directory: std::path::PathBuf) -> Sftp {
        let mut process = Command::new(program())
            .current_dir(directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("sftp-server runs");
        let (input, output) = (process.stdin.take().expect("piped"), process.stdout.take().expect("piped"));
        let session = Sftp::new(tokio::io::join(output, input)).await.expect("a session");
        // Only now does it count: one that is still starting could not take over anything.
        self.0.lock().expect("no test panics with it").push(process);
        session
    }

    /// Kills the first two of three at once.
    fn kill_two(&self) {
        let mut processes = self.0.lock().expect("no test panics with it");
        if processes.len() == 3 {
            processes[..2].iter_mut().for_each(|process| process.start_kill().expect("killed"));
        }
    }
}

async fn endpoint(servers: &Servers, directory: &Path) -> RemoteEndpoint {
    let (more, directory) = (servers.clone(), directory.to_owned());
    let first = more.clone().start(directory.clone()).await;
    RemoteEndpoint::new(first, "node").more_streams(Streams::exactly(3), move |_| {
        let starting = more.clone().start(directory.clone());
        async { Ok(starting.await) }
    })
}

#[tokio::test]
async fn streams_that_die_leave_their_work_to_the_others() {
    let content = noise(96 * 1024 * 1024, 8);
    for is_upload in [true, false] {
        let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let servers = Servers::default();
        let endpoint = endpoint(&servers, there.path()).await;
        let (local, remote) =
            (Location::local(here.path().join("file")), Location::remote(&endpoint, BytePath::from("file")));
        let (source, target, from, to) =
            if is_upload { (local, remote, &here, &there) } else { (remote, local, &there, &here) };
        fs::write(from.path().join("file"), &content).unwrap();
        let kill = |progress: Progress<'_>| {
            if matches!(progress.event, Copied::Advanced { .. }) {
                servers.kill_two();
            }
        };
        let summary = copy(vec![source], target, CopyOptions::default(), kill).await.unwrap();
        assert!(summary.is_complete(), "{:?}", summary.failures);
        assert!(servers.0.lock().unwrap().len() >= 3, "it was over before there were three streams");
        assert!(fs::read(to.path().join("file")).unwrap() == content);
        assert_eq!(fs::read_dir(to.path()).unwrap().count(), 1, "no temporary file is left");
    }
}
