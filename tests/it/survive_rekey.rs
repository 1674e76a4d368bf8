//! New keys, agreed in the middle of everything: by either side, across stalls and resumptions.

use std::sync::Arc;
use std::time::Duration;

use ssm_lab::{Cut, Event, Lab, Pace};
use ssmssh::aws::AwsService;
use ssmssh::stream::TargetId;
use ssmssh::{Client, Connection};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::stream::lab_config;
use crate::support::cli::{Cli, noise};
use crate::support::ssh::within;
use crate::support::sshd::Sshd;

/// A real server that tells of every change of keys, behind a lab that cuts the connection again and again.
struct World {
    sshd: Sshd,
    lab: Lab,
}

impl World {
    async fn new(server_config: &str) -> Self {
        let sshd = Sshd::with(&["ed25519"], &format!("LogLevel DEBUG1\n{server_config}"));
        let lab = Lab::builder()
            .sshd(sshd.address().port())
            .pace(Pace::Ideal)
            .delay(Duration::from_millis(5))
            .cut_every(Cut::Bye, Duration::from_millis(500))
            .cuts([Cut::Bye, Cut::Silence, Cut::Reset])
            .silence(Duration::from_millis(700));
        Self { sshd, lab: lab.start().await.expect("a lab") }
    }

    async fn connect(&self, bytes: usize, time: Duration) -> Connection {
        let service = AwsService::from_sdk_config(&lab_config(&self.lab).build()).expect("region and credentials");
        let client = Client::with_service(Arc::new(service));
        let node = TargetId::new(self.lab.node()).expect("a node id");
        let session = self.sshd.client().rekey_after(bytes, time);
        within(client.connect(&node, self.sshd.address().port().try_into().expect("bound"), session))
            .await
            .expect("let in")
    }

    /// How often keys were changed after the first ones.
    fn rekeys(&self) -> usize {
        let log = self.sshd.log();
        log.matches("rekey out after").count().max(log.matches("SSH2_MSG_NEWKEYS received").count().saturating_sub(1))
    }

    fn cuts(&self) -> usize {
        self.lab.events().iter().filter(|event| matches!(event, Event::ClientDisconnected { .. })).count()
    }
}

/// Sends `length` bytes through `cat`, both ways at once.
async fn echoes(connection: &Connection, length: usize) {
    let sent = noise(length);
    let mut cat = connection.command("cat").spawn().await.expect("started");
    let (mut input, mut output) = (cat.stdin.take().expect("piped"), cat.stdout.take().expect("piped"));
    let mut received = Vec::new();
    let write = async {
        input.write_all(&sent).await.expect("the connection holds");
        input.shutdown().await.expect("the connection holds");
    };
    let (read, ()) = within(async { tokio::join!(output.read_to_end(&mut received), write) }).await;
    read.expect("the connection holds");
    assert!(received == sent, "{} of {length} bytes came back, or others", received.len());
    assert!(within(cat.wait()).await.expect("an exit status").success());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_client_changes_keys_by_bytes_under_a_connection_that_is_cut() {
    let world = World::new("").await;
    let connection = world.connect(1 << 20, Duration::from_hours(1)).await;
    echoes(&connection, 12 << 20).await;
    assert!(world.rekeys() >= 5, "{} changes of keys", world.rekeys());
    assert!(world.cuts() >= 1, "no cut was in time");
    within(connection.close()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_server_changes_keys_by_bytes_under_a_connection_that_is_cut() {
    let world = World::new("RekeyLimit 1M").await;
    let connection = world.connect(usize::MAX, Duration::from_hours(1)).await;
    echoes(&connection, 12 << 20).await;
    assert!(world.rekeys() >= 5, "{} changes of keys", world.rekeys());
    within(connection.close()).await.unwrap();
}

/// As an hour of real use: the time comes while nothing flows, in the middle of a stall, and just when the connection is
/// being resumed.
#[tokio::test(flavor = "multi_thread")]
async fn keys_are_changed_by_time_through_stalls_and_resumptions() {
    let world = World::new("RekeyLimit default 1s").await;
    let connection = world.connect(usize::MAX, Duration::from_millis(300)).await;
    while world.rekeys() < 12 || world.cuts() < 4 {
        echoes(&connection, 256 << 10).await;
    }
    within(connection.close()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_takes_sshs_own_option_for_it() {
    let world = World::new("").await;
    let key = world.sshd.user_key_file();
    let data = noise(6 << 20);
    let args = ["-q", "-l", &Sshd::user(), "-i", key.to_str().unwrap(), "-p", &world.sshd.address().port().to_string()]
        .map(str::to_owned);
    let cli = Cli::in_lab(&world.lab).args(args).args(["-o", "RekeyLimit=512K 1s", world.lab.node(), "cat"]);
    let ran = cli.run_with(&data).await;
    // The server's messages for its developers come along on stderr.
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    assert!(ran.stdout == data);
    assert!(world.rekeys() >= 5, "{} changes of keys", world.rekeys());
}
