//! The library's way in: `Client` and `Connection` over the lab.

use std::time::Duration;

use ssm_lab::Lab;
use ssmssh::ssh::{HostKeyCheck, KeyFile, SessionBuilder, StrictHostKeyChecking};
use ssmssh::stream::{ServiceError, StreamError, TargetId};
use ssmssh::{Client, ClientError, Connection, SSH_PORT};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};

use crate::support::cli::{LIMIT, eventually, fast_lab};

/// A client that takes its credentials from the lab and not from the environment of the tests.
fn client(lab: &Lab) -> Client {
    use ssmssh::aws::AwsService;
    let credentials = aws_credential_types::Credentials::new(
        lab.access_key_id(),
        lab.secret_access_key(),
        Some(lab.session_token().to_owned()),
        None,
        "lab",
    );
    let config = aws_types::SdkConfig::builder()
        .region(aws_types::region::Region::new(lab.region().to_owned()))
        .endpoint_url(lab.endpoint_url())
        .credentials_provider(aws_credential_types::provider::SharedCredentialsProvider::new(credentials))
        .build();
    Client::with_service(std::sync::Arc::new(AwsService::from_sdk_config(&config).expect("a service")))
}

fn node(lab: &Lab) -> TargetId {
    TargetId::new(lab.node()).expect("a node id")
}

fn session(lab: &Lab) -> SessionBuilder {
    let key = KeyFile::open(lab.identity()).expect("a key file").decode(None).expect("a key");
    let host_keys = HostKeyCheck::new(StrictHostKeyChecking::AcceptNew, lab.known_hosts().to_owned(), lab.node(), 22);
    SessionBuilder::new(lab.user()).identity(key).host_keys(host_keys)
}

async fn connect(client: &Client, lab: &Lab) -> Connection {
    client.connect(&node(lab), SSH_PORT, session(lab)).await.expect("connected")
}

/// No session is open when the client says so, neither for it nor for the service.
async fn idle(client: &Client, lab: &Lab) {
    tokio::time::timeout(LIMIT, client.wait_idle()).await.expect("idle");
    assert_eq!((client.open_sessions().len(), lab.open_sessions()), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_runs_commands_and_close_ends_the_ssm_session() {
    let lab = fast_lab().await;
    let client = client(&lab);
    let connection = connect(&client, &lab).await;
    assert!(connection.session_id().is_some());
    let output = connection.command("echo hello; exit 3").output().await.unwrap();
    assert_eq!((output.stdout.as_slice(), output.status.code()), (&b"hello\n"[..], Some(3)));
    let session = connection.session_id().cloned();
    assert_eq!(client.open_sessions(), session.into_iter().collect::<Vec<_>>());
    connection.close().await.unwrap();
    idle(&client, &lab).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_raw_stream_reaches_the_port() {
    let lab = fast_lab().await;
    let mut stream = client(&lab).open(&node(&lab), SSH_PORT).await.unwrap();
    let mut greeting = [0; 8];
    stream.read_exact(&mut greeting).await.unwrap();
    assert_eq!(&greeting, b"SSH-2.0-");
}

#[tokio::test(flavor = "multi_thread")]
async fn dropping_a_connection_ends_the_ssm_session_even_under_a_flood() {
    let lab = fast_lab().await;
    let client = client(&lab);
    let connection = connect(&client, &lab).await;
    let mut child = connection.command("yes").spawn().await.unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).await.unwrap();
    drop((connection, child));
    idle(&client, &lab).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_is_open_until_the_service_has_ended_it_however_long_its_node_takes() {
    let lab = fast_lab().await;
    let (one, other) = (client(&lab), client(&lab));
    let connections = (connect(&one, &lab).await, connect(&other, &lab).await);
    drop(connections.0);
    tokio::time::timeout(LIMIT, one.wait_ended()).await.expect("told to end");
    tokio::time::timeout(LIMIT, one.wait_idle()).await.expect("idle");
    assert_eq!((one.open_sessions().len(), other.open_sessions().len(), lab.open_sessions()), (0, 1, 1));
    drop(connections.1);
    idle(&other, &lab).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn aborting_a_connection_ends_the_ssm_session_even_when_nothing_gets_through() {
    let lab = fast_lab().await;
    let client = client(&lab);
    let connection = connect(&client, &lab).await;
    let mut faults = lab.faults();
    faults.loss = 1.0;
    lab.set_faults(faults);
    connection.abort();
    idle(&client, &lab).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_connect_leaves_no_session() {
    let lab = Lab::builder().worker_start(Duration::from_hours(1)).start().await.unwrap();
    let client = client(&lab);
    let (id, builder) = (node(&lab), session(&lab));
    tokio::select! {
        _ = client.connect(&id, SSH_PORT, builder) => panic!("the node never starts"),
        () = eventually("a session is started", || lab.open_sessions() == 1) => {}
    }
    idle(&client, &lab).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_service_refuses_is_the_services_error() {
    let lab = fast_lab().await;
    let missing = TargetId::new("mi-00000000000000000").unwrap();
    let error = client(&lab).open(&missing, SSH_PORT).await.unwrap_err();
    assert!(matches!(error, ClientError::Service(ServiceError::TargetNotConnected { .. })), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_ends_below_ssh_is_told_as_the_streams_error() {
    let lab = fast_lab().await;
    let client = client(&lab);
    let connection = connect(&client, &lab).await;
    let mut faults = lab.faults();
    faults.refuse_resume = true;
    lab.set_faults(faults);
    lab.cut_clients(ssm_lab::Cut::Reset);
    let error = ClientError::from(connection.command("true").output().await.unwrap_err());
    let is_the_streams = matches!(error, ClientError::Stream(StreamError::Lost { .. } | StreamError::Cut(_)));
    assert!(is_the_streams || matches!(error, ClientError::Service(_)), "{error:?}");
}
