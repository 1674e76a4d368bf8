//! What happens to a copy over several sessions when one of them, or the opening of one, goes wrong.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use ssm_lab::{Cut, Event, Lab};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Command;

use crate::cli_failures::encrypted_key;
use crate::copy_cli::{World, until};
use crate::copy_sftp::noise;
use crate::copy_streams::sessions;
use crate::support::sshd::Sshd;

/// Ten seconds of one stream at the agent's pace.
const LENGTH: usize = 8 << 20;

fn count(world: &World, is_one: impl Fn(&Event) -> bool) -> usize {
    world.lab.events().iter().filter(|event| is_one(event)).count()
}

/// A copy over three sessions, down or up, into which `interfere` steps once all three are open.
async fn disturbed(is_upload: bool, interfere: impl FnOnce(&Lab)) -> World {
    let world = World::new().await;
    let content = noise(LENGTH, 11);
    let (from, to) =
        if is_upload { (world.here("file"), world.there("copy")) } else { (world.there("file"), world.here("copy")) };
    fs::write(&from, &content).expect("written");
    let (there, back) = (world.node("copy"), world.node("file"));
    // An upload would be over too soon at full speed.
    let slow = ["-vv", "-j3", "--max-payload=1024", "--max-frames-per-second=600"];
    let operands = if is_upload { ["file".into(), there] } else { [back, "copy".into()] };
    let arguments: Vec<_> = slow.iter().map(std::ffi::OsString::from).chain(operands).collect();
    let arguments: Vec<_> = arguments.iter().map(std::ffi::OsString::as_os_str).collect();
    let mut copying = world.command(&arguments).spawn().expect("ssmcp runs");
    let mut lines = BufReader::new(copying.stderr.take().expect("piped")).lines();
    let mut said = String::new();
    let mut interfere = Some(interfere);
    while let Some(line) = lines.next_line().await.expect("text") {
        said += &(line + "\n");
        if said.contains("streams in use: 3,")
            && let Some(interfere) = interfere.take()
        {
            interfere(&world.lab);
        }
    }
    let status = copying.wait().await.expect("it ends");
    assert_eq!((status.code(), interfere.is_none()), (Some(0), true), "{said}");
    assert!(fs::read(to).expect("a copy") == content);
    until("no session is left", || world.lab.open_sessions() == 0).await;
    world
}

#[tokio::test]
async fn a_session_whose_socket_is_cut_is_resumed_under_the_copy() {
    for cut in [Cut::Reset, Cut::Bye] {
        let world = disturbed(false, |lab| assert!(lab.cut_client(2, cut))).await;
        assert_eq!(count(&world, |event| matches!(event, Event::SessionResumed { .. })), 1);
        assert_eq!(sessions(&world), 3);
    }
}

#[tokio::test]
async fn a_session_that_is_ended_leaves_its_work_to_the_others_and_is_replaced() {
    for (session, is_upload) in [(1, false), (2, false), (1, true), (3, true)] {
        let end = |lab: &Lab| assert!(lab.end_session(session, "terminated by an administrator"));
        let world = disturbed(is_upload, end).await;
        // What the lost one had carried to the node is hashed there, by one more where the first is gone.
        let expected = 4 + usize::from(session == 1 && is_upload);
        assert_eq!(sessions(&world), expected, "session {session}, upload: {is_upload}");
    }
}

#[tokio::test]
async fn a_copy_that_is_throttled_goes_on_with_the_streams_it_has() {
    let world = World::new().await;
    let content = noise(4 << 20, 12);
    fs::write(world.there("file"), &content).unwrap();
    let source = world.node("file");
    let copying = world.command(&["-j4".as_ref(), source.as_os_str(), "copy".as_ref()]).spawn().expect("ssmcp runs");
    until("the first session is started", || sessions(&world) == 1).await;
    // Whatever is opened from here on, and tried again.
    world.lab.throttle(9);
    let Output { status, stderr, .. } = copying.wait_with_output().await.expect("it ends");
    assert_eq!((status.code(), String::from_utf8_lossy(&stderr).as_ref()), (Some(0), ""));
    assert!(fs::read(world.here("copy")).unwrap() == content);
    let is_throttled = |event: &Event| matches!(event, Event::Refused { code, .. } if code == "ThrottlingException");
    assert!(count(&world, is_throttled) >= 3, "{:?}", world.lab.events());
}

/// A port that leads its first connection to one server and all later ones to another.
async fn two_faced(first: &Sshd, later: &Sshd) -> (u16, Arc<AtomicUsize>) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
    let (port, addresses) = (listener.local_addr().expect("bound").port(), [first.address(), later.address()]);
    let connections = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&connections);
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let address = addresses[seen.fetch_add(1, Ordering::SeqCst).min(1)];
            tokio::spawn(async move {
                let mut server = TcpStream::connect(address).await.expect("it listens");
                let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
            });
        }
    });
    (port, connections)
}

/// `ssmcp` that logs in with the key of `sshd`, from the empty folder `here`.
pub(crate) fn ssmcp(lab: &Lab, here: &std::path::Path, key: &std::path::Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ssmcp"));
    command.args(["-o", &format!("User={}", Sshd::user())]).arg("-i").arg(key).current_dir(here);
    command.env_clear().envs(lab.env()).env("HOME", here);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    command
}

#[tokio::test]
async fn a_stream_with_another_host_key_is_never_used_and_the_copy_says_so() {
    for checking in ["accept-new", "off"] {
        let (sshd, other) = (Sshd::start(), Sshd::start());
        let (port, connections) = two_faced(&sshd, &other).await;
        let lab = Lab::builder().sshd(port).start().await.expect("a lab");
        let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let content = noise(2 << 20, 13);
        fs::write(there.path().join("file"), &content).unwrap();
        let mut copying = ssmcp(&lab, here.path(), &sshd.user_key_file());
        copying.arg(format!("-oStrictHostKeyChecking={checking}"));
        copying.arg("-j3").arg(format!("{}:{}", lab.node(), there.path().join("file").display())).arg("copy");
        let Output { status, stderr, .. } = copying.output().await.expect("ssmcp runs");
        let said = String::from_utf8_lossy(&stderr);
        assert_eq!(status.code(), Some(0), "{said}");
        assert!(fs::read(here.path().join("copy")).unwrap() == content);
        assert!(connections.load(Ordering::SeqCst) > 1, "there was no second stream");
        assert_eq!(said.matches("shows another host key than the first").count(), 1, "{said}");
        assert!(!other.log().contains("userauth"), "{}", other.log());
    }
}

#[tokio::test]
async fn a_passphrase_is_asked_for_once_for_all_streams() {
    let world = World::new().await;
    let key = encrypted_key(&world.lab, &world.here(""));
    let askpass = world.here("askpass");
    fs::write(&askpass, "#!/bin/sh\necho asked >> asked\necho correct horse\n").unwrap();
    fs::set_permissions(&askpass, PermissionsExt::from_mode(0o700)).unwrap();
    let content = noise(3 << 20, 14);
    fs::write(world.there("file"), &content).unwrap();
    let source = world.node("file");
    let mut copying = world.command(&["-j3".as_ref(), "-i".as_ref(), key.as_ref(), &source, "copy".as_ref()]);
    copying.env("SSH_ASKPASS", &askpass).env("SSH_ASKPASS_REQUIRE", "force");
    let Output { status, stderr, .. } = copying.output().await.expect("ssmcp runs");
    assert_eq!((status.code(), String::from_utf8_lossy(&stderr).as_ref()), (Some(0), ""));
    assert!(fs::read(world.here("copy")).unwrap() == content);
    assert_eq!(fs::read_to_string(world.here("asked")).unwrap(), "asked\n");
    assert_eq!(sessions(&world), 3);
}
