//! `AwsService` and `SsmStream` through the lab, to a TCP port that is no SSH server.

use std::sync::Arc;
use std::time::Duration;

use aws_config::{Region, SdkConfig};
use aws_credential_types::Credentials;
use aws_credential_types::provider::SharedCredentialsProvider;
use ssm_lab::{Cut, Event, Lab, LabBuilder, Pace};
use ssmssh::aws::AwsService;
use ssmssh::stream::{
    SSH_PORT, ServiceError, SsmService, SsmStream, StartRequest, StreamError, StreamOptions, TargetId,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy, split};
use tokio::net::TcpListener;

/// A port that sends back what it gets.
async fn echo_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a loopback port");
    let port = listener.local_addr().expect("an address").port();
    tokio::spawn(async move {
        while let Ok((connection, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut reader, mut writer) = connection.into_split();
                let _ = copy(&mut reader, &mut writer).await;
            });
        }
    });
    port
}

pub(crate) async fn lab(customize: impl FnOnce(LabBuilder) -> LabBuilder) -> Lab {
    customize(Lab::builder().sshd(echo_port().await).pace(Pace::Ideal)).start().await.expect("a lab")
}

pub(crate) fn lab_config(lab: &Lab) -> aws_types::sdk_config::Builder {
    let token = Some(lab.session_token().to_owned());
    let credentials = Credentials::new(lab.access_key_id(), lab.secret_access_key(), token, None, "lab");
    SdkConfig::builder()
        .region(Region::new(lab.region().to_owned()))
        .endpoint_url(lab.endpoint_url())
        .credentials_provider(SharedCredentialsProvider::new(credentials))
}

fn service(lab: &Lab) -> AwsService {
    AwsService::from_sdk_config(&lab_config(lab).build()).expect("region and credentials are set")
}

async fn open(lab: &Lab) -> Result<SsmStream, StreamError> {
    let request = StartRequest::new(TargetId::new(lab.node()).expect("a node id"), SSH_PORT);
    SsmStream::open(Arc::new(service(lab)), request, StreamOptions::default()).await
}

fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|at| u8::try_from((at * 7 + at / 251) % 256).expect("a byte")).collect()
}

async fn echoes(stream: SsmStream, length: usize) -> SsmStream {
    let sent = pattern(length);
    let mut received = vec![0; length];
    let (mut reader, mut writer) = split(stream);
    let (wrote, read) = tokio::join!(writer.write_all(&sent), reader.read_exact(&mut received));
    wrote.expect("a write");
    read.expect("a read");
    assert!(received == sent, "the echo is what was sent");
    reader.unsplit(writer)
}

#[tokio::test]
async fn bytes_go_there_and_back_and_the_session_ends_with_the_stream() {
    let lab = lab(|lab| lab).await;
    let stream = open(&lab).await.unwrap();
    assert_eq!(lab.open_sessions(), 1);
    let mut stream = echoes(stream, 3 << 20).await;
    stream.shutdown().await.unwrap();
    stream.handle().closed().await.unwrap();
    let ended = async {
        while lab.open_sessions() > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), ended).await.unwrap();
    let called = |event: &Event| matches!(event, Event::TerminateCalled { .. });
    assert!(!lab.events().iter().any(called), "the flag has ended it");
}

#[tokio::test]
async fn bytes_survive_a_connection_that_is_cut_again_and_again() {
    for cut in [Cut::Bye, Cut::Reset] {
        let lab = lab(|lab| lab.cut_every(cut, Duration::from_millis(300))).await;
        let mut stream = open(&lab).await.unwrap();
        let resumed = |event: &Event| matches!(event, Event::SessionResumed { .. });
        while lab.events().iter().filter(|event| resumed(event)).count() < 3 {
            stream = echoes(stream, 1 << 20).await;
        }
        stream.shutdown().await.unwrap();
    }
}

#[tokio::test]
async fn what_iam_denies_is_named() {
    let start = open(&lab(|lab| lab.deny("ssm:StartSession")).await).await.unwrap_err();
    let StreamError::Service(ServiceError::Denied(denied)) = start else { panic!("{start:?}") };
    assert_eq!(denied.action, "ssm:StartSession");
    let upgrade = open(&lab(|lab| lab.deny("ssmmessages:OpenDataChannel")).await).await.unwrap_err();
    let StreamError::UpgradeDenied(denied) = upgrade else { panic!("{upgrade:?}") };
    assert_eq!(denied.action, "ssmmessages:OpenDataChannel");
}

#[tokio::test]
async fn an_unknown_node_is_not_connected_in_the_region_that_was_asked() {
    let lab = lab(|lab| lab).await;
    let request = StartRequest::new(TargetId::new("i-0fedcba9876543210").unwrap(), SSH_PORT);
    let failure = service(&lab).start(&request).await.unwrap_err();
    let ServiceError::TargetNotConnected { region, .. } = failure else { panic!("{failure:?}") };
    assert_eq!(region, lab.region());
}

#[tokio::test]
async fn a_port_on_which_nothing_listens_is_named_and_the_session_ends() {
    let free =
        TcpListener::bind("127.0.0.1:0").await.expect("a loopback port").local_addr().expect("an address").port();
    let lab = Lab::builder().sshd(free).pace(Pace::Ideal).start().await.expect("a lab");
    let request = StartRequest::new(TargetId::new(lab.node()).expect("a node id"), SSH_PORT);
    let mut options = StreamOptions::default();
    options.port_timeout = Duration::from_secs(1);
    let mut stream = SsmStream::open(Arc::new(service(&lab)), request, options).await.unwrap();
    stream.write_all(b"SSH-2.0-x\r\n").await.unwrap();
    let error = stream.read_u8().await.unwrap_err();
    let found = StreamError::from_io(&error);
    assert!(matches!(found, Some(StreamError::NothingListens { port: 22, .. })), "{error:?}");
    let _ = stream.handle().closed().await;
    assert_eq!(lab.open_sessions(), 0);
}
