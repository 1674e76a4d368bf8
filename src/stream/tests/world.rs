//! The other side of everything: the control plane, the network, and the node.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::{SinkExt, StreamExt};
use http::Uri;
use tokio::io::DuplexStream;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message as WsMessage;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role};
use uuid::Uuid;

use crate::stream::liveness::KeepAlive;
use crate::stream::socket::{Connect, ConnectError, Socket, WebSocket, limits};
use crate::stream::*;
use crate::wire::{
    Acknowledge, Body, ChannelClosed, FLAGS_SINGLE, Flag, Message, MessageKind, OpenDataChannel, PayloadType,
};

pub(super) const TOKEN: &str = "first-token-of-the-session";
pub(super) const RESUME_TOKEN: &str = "second-token-of-the-session";
pub(super) const URL: &str = "ws://127.0.0.1:9/v1/data-channel/jo-0a1?role=publish_subscribe&cell-number=AA+/x==";
/// In virtual time, which costs nothing: longer than any wait of the product.
pub(super) const PATIENCE: Duration = Duration::from_hours(1);

/// A control plane that says what it was told to and remembers what it was asked.
#[derive(Default)]
pub(super) struct Service {
    pub(super) calls: Mutex<Vec<String>>,
    pub(super) start_failure: Mutex<Option<ServiceError>>,
    pub(super) resume_failures: Mutex<VecDeque<ServiceError>>,
    pub(super) terminate_failure: Mutex<Option<ServiceError>>,
    pub(super) stream_url: Mutex<Option<String>>,
    /// Whether a signature is made anew for a time of the service's.
    pub(super) is_clock_wrong: std::sync::atomic::AtomicBool,
    /// Where set, StartSession waits for it.
    pub(super) start_gate: Mutex<Option<Arc<Notify>>>,
}

impl Service {
    fn called(&self, call: &str) {
        self.calls.lock().unwrap().push(call.to_owned());
    }

    pub(super) fn calls(&self) -> Vec<String> {
        self.calls.lock().unwrap().clone()
    }

    fn grant(&self, token: &str) -> Grant {
        let stream_url = self.stream_url.lock().unwrap().clone().unwrap_or_else(|| URL.to_owned());
        Grant { session: SessionId("jo-0a1".into()), stream_url, token: token.to_owned() }
    }
}

impl SsmService for Service {
    fn learn_time(&self, _: std::time::SystemTime) -> bool {
        self.is_clock_wrong.swap(false, std::sync::atomic::Ordering::Relaxed)
    }

    fn start<'a>(&'a self, _request: &'a StartRequest) -> BoxFuture<'a, Result<Grant, ServiceError>> {
        self.called("start");
        let gate = self.start_gate.lock().unwrap().clone();
        Box::pin(async move {
            if let Some(gate) = gate {
                gate.notified().await;
            }
            match self.start_failure.lock().unwrap().take() {
                Some(failure) => Err(failure),
                None => Ok(self.grant(TOKEN)),
            }
        })
    }

    fn resume<'a>(&'a self, _session: &'a SessionId) -> BoxFuture<'a, Result<Grant, ServiceError>> {
        self.called("resume");
        let failure = self.resume_failures.lock().unwrap().pop_front();
        Box::pin(async move { failure.map_or_else(|| Ok(self.grant(RESUME_TOKEN)), Err) })
    }

    fn terminate<'a>(&'a self, _session: &'a SessionId) -> BoxFuture<'a, Result<(), ServiceError>> {
        self.called("terminate");
        let failure = self.terminate_failure.lock().unwrap().take();
        Box::pin(async move { failure.map_or(Ok(()), Err) })
    }

    fn sign_upgrade<'a>(&'a self, _stream_url: &'a str) -> BoxFuture<'a, Result<UpgradeHeaders, ServiceError>> {
        self.called("sign");
        let count = self.calls().iter().filter(|call| *call == "sign").count();
        let signature = (http::header::AUTHORIZATION, http::HeaderValue::from(count));
        Box::pin(async move { Ok(vec![signature]) })
    }

    fn configured_host(&self) -> Option<&str> {
        Some("127.0.0.1")
    }
}

/// One try of the client to connect.
pub(super) struct Dial {
    pub(super) url: String,
    headers: UpgradeHeaders,
    answer: oneshot::Sender<Result<DuplexStream, ConnectError>>,
}

impl Dial {
    pub(super) async fn accept(self) -> Node {
        let (near, far) = tokio::io::duplex(64 << 10);
        let socket = WebSocketStream::from_raw_socket(near, Role::Server, None).await;
        let _ = self.answer.send(Ok(far));
        Node { socket, agent: Agent::default() }
    }

    /// Which signature it came with, counted from 1.
    pub(super) fn signature(&self) -> &str {
        self.headers[0].1.to_str().unwrap()
    }

    pub(super) fn refuse(self, error: ConnectError) {
        let _ = self.answer.send(Err(error));
    }
}

struct Net(mpsc::UnboundedSender<Dial>);

impl Connect for Net {
    fn connect<'a>(
        &'a self,
        url: &'a Uri,
        headers: UpgradeHeaders,
    ) -> BoxFuture<'a, Result<Box<dyn Socket>, ConnectError>> {
        Box::pin(async move {
            let (answer, answered) = oneshot::channel();
            let _ = self.0.send(Dial { url: url.to_string(), headers, answer });
            let transport = answered.await.unwrap_or_else(|_| Err(io::Error::other("the world has ended").into()))?;
            let socket = WebSocketStream::from_raw_socket(transport, Role::Client, Some(limits())).await;
            Ok(Box::new(WebSocket::new(socket, KeepAlive::USUAL)) as Box<dyn Socket>)
        })
    }
}

pub(super) struct World {
    pub(super) service: Arc<Service>,
    net: Arc<dyn Connect>,
    dials: mpsc::UnboundedReceiver<Dial>,
}

impl World {
    pub(super) fn new() -> Self {
        let (sender, dials) = mpsc::unbounded_channel();
        Self { service: Arc::default(), net: Arc::new(Net(sender)), dials }
    }

    pub(super) fn open(&self, options: StreamOptions) -> Opening {
        let request = StartRequest::new(TargetId::new("i-0123456789abcdef0").unwrap(), SSH_PORT);
        let service = Arc::clone(&self.service) as Arc<dyn SsmService>;
        open_with(service, Arc::clone(&self.net), request, options)
    }

    pub(super) async fn dial(&mut self) -> Dial {
        patiently(self.dials.recv()).await.unwrap()
    }

    /// An open stream and the node at its end.
    pub(super) async fn stream(&mut self, options: StreamOptions) -> (SsmStream, Node) {
        let opening = self.open(options);
        let mut node = self.dial().await.accept().await;
        assert_eq!(node.opened().await.token_value, TOKEN);
        let (stream, ()) = tokio::join!(patiently(opening), node.shake_hands());
        (stream.unwrap(), node)
    }
}

/// Short waits for what a test makes fail.
pub(super) fn brisk() -> StreamOptions {
    StreamOptions { drain_timeout: Duration::from_secs(1), ..StreamOptions::default() }
}

/// The future's output, unless it hangs.
pub(super) async fn patiently<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(PATIENCE, future).await.expect("the wait has a bound")
}

/// Waits until the condition holds.
pub(super) async fn until(mut condition: impl FnMut() -> bool) {
    let poll = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    patiently(poll).await;
}

/// The agent, with the service's end of its WebSocket.
pub(super) struct Node {
    socket: WebSocketStream<DuplexStream>,
    agent: Agent,
}

/// What the agent keeps from one WebSocket to the next.
#[derive(Default)]
pub(super) struct Agent {
    /// The sequence number of the next message it sends.
    next: i64,
    /// The sequence number of the next message it delivers.
    expected: i64,
}

impl Agent {
    pub(super) fn moves_to(self, node: Node) -> Node {
        Node { agent: self, ..node }
    }
}

impl Node {
    /// Cuts the connection without a word.
    pub(super) fn hang_up(self) -> Agent {
        self.agent
    }

    /// Closes the WebSocket as the service does every hour.
    pub(super) async fn say_bye(self) -> Agent {
        self.close_websocket(1000, "Bye").await
    }

    pub(super) async fn close_websocket(mut self, code: u16, reason: &'static str) -> Agent {
        let frame = CloseFrame { code: CloseCode::from(code), reason: reason.into() };
        self.socket.close(Some(frame)).await.unwrap();
        self.agent
    }

    /// The next message is lost on its way.
    pub(super) fn skip(&mut self) {
        self.agent.next += 1;
    }

    pub(super) async fn opened(&mut self) -> OpenDataChannel {
        match patiently(self.socket.next()).await {
            Some(Ok(WsMessage::Text(text))) => OpenDataChannel::from_json(text.as_bytes()).unwrap(),
            other => panic!("not an open message: {other:?}"),
        }
    }

    pub(super) async fn shake_hands(&mut self) {
        self.shake_hands_as("3.3.0.0").await;
    }

    pub(super) async fn shake_hands_as(&mut self, version: &str) {
        let request = r#"{"AgentVersion":"VERSION","RequestedClientActions":[{"ActionType":"SessionType","ActionParameters":{"SessionType":"Port","Properties":{"portNumber":"22"}}}]}"#;
        self.send(PayloadType::HandshakeRequest, request.replace("VERSION", version)).await;
        assert_eq!(self.receive().await.0, PayloadType::HandshakeResponse);
        self.send(PayloadType::HandshakeComplete, "{}").await;
    }

    pub(super) async fn send(&mut self, payload_type: PayloadType, payload: impl Into<Bytes>) {
        let message = message(MessageKind::OutputStreamData, self.agent.next, payload_type, payload.into());
        self.agent.next += 1;
        self.socket.send(WsMessage::Binary(message.encode())).await.unwrap();
    }

    /// Output of any length, in messages of 1 KiB, as the agent sends it.
    pub(super) async fn print(&mut self, output: &[u8]) {
        for chunk in output.chunks(1024) {
            self.send(PayloadType::Output, Bytes::copy_from_slice(chunk)).await;
        }
    }

    /// Does nothing but answer pings for a while; says how many there were.
    pub(super) async fn idle(&mut self, time: Duration) -> usize {
        let mut pings = 0;
        let answering = async {
            while let Some(Ok(message)) = self.socket.next().await {
                pings += usize::from(matches!(message, WsMessage::Ping(_)));
            }
            panic!("the client is gone");
        };
        let _ = tokio::time::timeout(time, answering).await;
        pings
    }

    /// The next stream message, acknowledged, in order; `None` when the client is gone.
    pub(super) async fn next(&mut self) -> Option<(PayloadType, Bytes)> {
        loop {
            let message = self.next_unacknowledged().await?;
            let id = message.id;
            self.acknowledge(message.sequence, id).await;
            if message.sequence == self.agent.expected {
                self.agent.expected += 1;
                return Some((message.payload_type, message.payload));
            }
        }
    }

    pub(super) async fn receive(&mut self) -> (PayloadType, Bytes) {
        patiently(self.next()).await.expect("the client is there")
    }

    /// The next stream message; the agent keeps its knowledge of it to itself.
    pub(super) async fn next_unacknowledged(&mut self) -> Option<Message> {
        loop {
            match self.socket.next().await? {
                Ok(WsMessage::Binary(frame)) => {
                    let message = Message::decode(frame).unwrap();
                    if message.kind == MessageKind::InputStreamData {
                        return Some(message);
                    }
                }
                Ok(WsMessage::Close(_)) | Err(_) => return None,
                Ok(_) => {}
            }
        }
    }

    pub(super) async fn acknowledge(&mut self, sequence: i64, message_id: Uuid) {
        let message_type = MessageKind::InputStreamData.as_str().to_owned();
        let body = Acknowledge { message_type, message_id, sequence, is_sequential: true };
        let mut ack = message(MessageKind::Acknowledge, 0, PayloadType::NONE, body.to_payload());
        ack.flags = FLAGS_SINGLE;
        // A client that has ended hears nothing.
        let _ = self.socket.send(WsMessage::Binary(ack.encode())).await;
    }

    /// Exactly this much input, acknowledged. A question whether anybody is there is none.
    pub(super) async fn read(&mut self, length: usize) -> Vec<u8> {
        let mut input = Vec::new();
        while input.len() < length {
            let (payload_type, payload) = self.receive().await;
            if payload_type == PayloadType::Size {
                continue;
            }
            assert_eq!(payload_type, PayloadType::Output);
            input.extend_from_slice(&payload);
        }
        assert_eq!(input.len(), length);
        input
    }

    /// Waits for the wish to end.
    pub(super) async fn terminated(&mut self) {
        let (payload_type, payload) = self.receive().await;
        assert_eq!((payload_type, Flag::decode(&payload)), (PayloadType::Flag, Some(Flag::TerminateSession)));
    }

    /// The service's word that the session is over.
    pub(super) async fn close_channel(&mut self, output: &str) {
        let body = ChannelClosed { output: output.to_owned(), ..ChannelClosed::default() };
        let message = message(MessageKind::ChannelClosed, 0, PayloadType::NONE, body.to_payload());
        self.socket.send(WsMessage::Binary(message.encode())).await.unwrap();
    }
}

fn message(kind: MessageKind, sequence: i64, payload_type: PayloadType, payload: Bytes) -> Message {
    Message { kind, created_millis: 1, sequence, flags: 0, id: Uuid::new_v4(), payload_type, payload }
}

/// Bytes that differ from each other.
pub(super) fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|at| u8::try_from((at * 7 + at / 251) % 256).unwrap()).collect()
}
