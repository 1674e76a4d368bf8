//! The WebSocket itself, over TCP on loopback.

use std::future::poll_fn;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use http::{HeaderName, HeaderValue, Uri};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::Role;
use tokio_tungstenite::tungstenite::protocol::frame::Frame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};

use super::world::pattern;
use crate::datachannel::Transmit;
use crate::stream::liveness::KeepAlive;
use crate::stream::socket::{Connect, ConnectError, Socket, WebSocket, limits};
use crate::stream::{Network, UpgradeHeaders};

const TARGET: &str = "/v1/data-channel/jo@example.com-0a1?role=publish_subscribe&cell-number=AA+/x%2B==";

/// The future's output, unless it hangs in real time.
pub(super) async fn patiently<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(Duration::from_secs(20), future).await.expect("the wait has a bound")
}

/// The next frame, with what keeps the connection alive meanwhile.
async fn receive(socket: &mut dyn Socket) -> std::io::Result<Bytes> {
    let poll = |cx: &mut Context<'_>| match socket.poll_receive(cx) {
        Poll::Pending => match socket.keep_alive(cx, true, false) {
            Ok(()) => Poll::Pending,
            Err(error) => Poll::Ready(Err(error)),
        },
        ready @ Poll::Ready(_) => ready,
    };
    poll_fn(poll).await
}

async fn listener() -> (TcpListener, Uri) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}{TARGET}", listener.local_addr().unwrap()).parse().unwrap();
    (listener, url)
}

async fn connect(url: &Uri, headers: UpgradeHeaders) -> Result<Box<dyn Socket>, ConnectError> {
    connect_over(&Network::new(), url, headers).await
}

pub(super) async fn connect_over(
    network: &Network,
    url: &Uri,
    headers: UpgradeHeaders,
) -> Result<Box<dyn Socket>, ConnectError> {
    patiently(Connect::connect(network, url, headers)).await
}

/// The head of the request that a client sends, and what it makes of `answer`.
async fn refused_with(answer: &'static str) -> (String, ConnectError) {
    let (listener, url) = listener().await;
    let server = async {
        let (mut connection, _) = listener.accept().await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(connection.read_u8().await.unwrap());
        }
        connection.write_all(answer.as_bytes()).await.unwrap();
        String::from_utf8(head).unwrap()
    };
    let signature = (HeaderName::from_static("authorization"), HeaderValue::from_static("AWS4-HMAC-SHA256 x"));
    let (head, refused) = tokio::join!(server, connect(&url, vec![signature]));
    (head.to_ascii_lowercase().replace(url.authority().unwrap().as_str(), "HOST"), refused.err().unwrap())
}

pub(super) async fn send(socket: &mut dyn Socket, frame: Transmit) {
    poll_fn(|cx| socket.poll_ready(cx)).await.unwrap();
    socket.send(frame).unwrap();
    poll_fn(|cx| socket.poll_flush(cx)).await.unwrap();
}

#[tokio::test]
async fn the_upgrade_asks_for_the_url_as_given_and_for_no_extension() {
    let (head, refused) = refused_with("HTTP/1.1 503 Busy\r\n\r\n").await;
    assert!(matches!(refused, ConnectError::Refused(503)), "{refused:?}");
    assert!(head.starts_with(&format!("get {} http/1.1\r\n", TARGET.to_ascii_lowercase())), "{head}");
    assert!(head.contains("\r\nhost: HOST\r\n"), "{head}");
    assert!(head.contains("\r\nauthorization: aws4-hmac-sha256 x\r\n"), "{head}");
    assert!(!head.contains("sec-websocket-protocol") && !head.contains("sec-websocket-extensions"), "{head}");
}

#[tokio::test]
async fn a_403_keeps_what_the_service_said() {
    let (_, refused) = refused_with("HTTP/1.1 403 Forbidden\r\n\r\nno \x1b[31mOpenDataChannel\n").await;
    let ConnectError::Denied(text, _) = refused else { panic!("{refused:?}") };
    assert_eq!(text, "no  [31mOpenDataChannel");
}

#[tokio::test]
async fn frames_of_any_size_pass_whole_and_fragments_are_put_together() {
    let (listener, url) = listener().await;
    let large = Bytes::from(pattern(100 << 10));
    let server = async {
        let (connection, _) = listener.accept().await.unwrap();
        let mut socket = tokio_tungstenite::accept_async(connection).await.unwrap();
        let Message::Text(open) = socket.next().await.unwrap().unwrap() else { panic!("not the open message") };
        assert_eq!(open.as_str(), "open");
        let echoed = socket.next().await.unwrap().unwrap();
        socket.send(echoed).await.unwrap();
        let first = Frame::message(&b"frag"[..], OpCode::Data(Data::Binary), false);
        let second = Frame::message(&b"ments"[..], OpCode::Data(Data::Continue), true);
        for part in [first, second] {
            socket.send(Message::Frame(part)).await.unwrap();
        }
        socket
    };
    let client = async {
        let mut socket = connect(&url, Vec::new()).await.unwrap();
        send(&mut *socket, Transmit::Text("open".into())).await;
        send(&mut *socket, Transmit::Binary(large.clone())).await;
        assert!(patiently(poll_fn(|cx| socket.poll_receive(cx))).await.unwrap() == large);
        assert_eq!(patiently(poll_fn(|cx| socket.poll_receive(cx))).await.unwrap(), "fragments");
        socket
    };
    let _both = patiently(async { tokio::join!(server, client) }).await;
}

/// A client and the other end.
async fn pair() -> (Box<dyn Socket>, WebSocketStream<tokio::io::DuplexStream>) {
    let (near, far) = tokio::io::duplex(4096);
    let server = WebSocketStream::from_raw_socket(near, Role::Server, None).await;
    let client = WebSocketStream::from_raw_socket(far, Role::Client, Some(limits())).await;
    (Box::new(WebSocket::new(client, KeepAlive::USUAL)), server)
}

#[tokio::test(start_paused = true)]
async fn a_silent_connection_is_kept_by_pings_and_lives_by_their_answers() {
    let (mut client, mut server) = pair().await;
    let pinged = async {
        // Far more pings than fit into the time after which a peer counts as dead.
        for _ in 0..50 {
            assert!(matches!(server.next().await.unwrap().unwrap(), Message::Ping(_)));
        }
        server.send(Message::binary(&b"data"[..])).await.unwrap();
        // Keeps answering until the client has read it.
        while server.next().await.is_some_and(|message| message.is_ok()) {}
    };
    tokio::select! {
        frame = receive(&mut *client) => assert_eq!(frame.unwrap(), "data"),
        () = pinged => unreachable!("the client is there"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_answers_nothing_is_gone() {
    let (mut client, _server) = pair().await;
    let error = receive(&mut *client).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::TimedOut);
}

#[tokio::test(start_paused = true)]
async fn a_peer_whose_receive_buffer_is_full_is_gone_when_it_says_nothing() {
    let (mut client, _server) = pair().await;
    while poll_fn(|cx| Poll::Ready(client.poll_ready(cx))).await.is_ready() {
        client.send(Transmit::Binary(Bytes::from(pattern(64 << 10)))).unwrap();
    }
    let error = receive(&mut *client).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::TimedOut);
}

#[tokio::test(start_paused = true)]
async fn a_ping_of_the_service_is_answered() {
    let (mut client, mut server) = pair().await;
    server.send(Message::Ping(Bytes::from_static(b"keepalive"))).await.unwrap();
    let ponged =
        async { while !matches!(server.next().await.unwrap().unwrap(), Message::Pong(text) if text == "keepalive") {} };
    tokio::select! {
        frame = receive(&mut *client) => panic!("{frame:?}"),
        () = ponged => {}
    }
}

/// What waits to be sent to a service that asks and does not listen, counted by letting it listen in the end.
#[tokio::test(start_paused = true)]
async fn a_service_that_pings_and_does_not_read_fills_no_memory_with_answers() {
    let (mut client, server) = pair().await;
    let (mut pings, mut answers) = server.split();
    let flood = async {
        for _ in 0..100_000 {
            pings.send(Message::Ping(Bytes::from_static(&[7; 125]))).await.unwrap();
        }
        pings
    };
    let _pings = tokio::select! {
        frame = receive(&mut *client) => panic!("{frame:?}"),
        pings = flood => pings,
    };
    let mut held = 0;
    let counted = async {
        while let Ok(Some(Ok(message))) = tokio::time::timeout(Duration::from_secs(1), answers.next()).await {
            held += message.len();
        }
    };
    tokio::select! {
        frame = receive(&mut *client) => panic!("{frame:?}"),
        () = counted => {}
    }
    assert!(held <= 2 << 20, "{held} bytes of answers waited");
}
