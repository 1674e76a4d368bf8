//! As little of a client as can speak to the lab. It shares the message format with the product and nothing else; it signs
//! with AWS's own crate.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime},
};

use aws_credential_types::Credentials;
use aws_sigv4::{
    http_request::{SignableBody, SignableRequest, SigningSettings, sign},
    sign::v4,
};
use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use ssm_lab::Lab;
use ssmssh::wire::{
    Acknowledge, ActionStatus, Body, ChannelClosed, Flag, Frame, HandshakeRequest, HandshakeResponse, Message,
    MessageKind, OpenDataChannel, PayloadType, ProcessedClientAction,
};
use tokio::{net::TcpStream, time::timeout};
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream, client_async,
    tungstenite::{self, client::IntoClientRequest},
};
use uuid::Uuid;

/// Far longer than anything here takes.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// How long the client waits before it sends its oldest message again.
const RESEND: Duration = Duration::from_millis(100);

/// What a request is signed with; tests change what they want to be wrong.
pub(crate) struct Signer {
    pub(crate) key_id: String,
    pub(crate) secret: String,
    pub(crate) token: Option<String>,
    pub(crate) region: String,
}

impl Signer {
    pub(crate) fn of(lab: &Lab) -> Self {
        Self {
            key_id: lab.access_key_id().to_owned(),
            secret: lab.secret_access_key().to_owned(),
            token: Some(lab.session_token().to_owned()),
            region: lab.region().to_owned(),
        }
    }

    pub(crate) fn headers(&self, service: &str, method: &str, url: &str, body: &[u8]) -> Vec<(String, String)> {
        let identity = Credentials::new(&self.key_id, &self.secret, self.token.clone(), None, "test").into();
        let params = v4::SigningParams::builder()
            .identity(&identity)
            .region(&self.region)
            .name(service)
            .time(SystemTime::now())
            .settings(SigningSettings::default())
            .build()
            .unwrap();
        let request = SignableRequest::new(method, url, std::iter::empty(), SignableBody::Bytes(body)).unwrap();
        let (instructions, _) = sign(request, &params.into()).unwrap().into_parts();
        instructions.headers().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
    }
}

/// One API call, signed by `signer` if there is one.
pub(crate) async fn call(lab: &Lab, signer: Option<&Signer>, operation: &str, input: Value) -> (u16, Value) {
    call_at(lab.endpoint_url(), signer, operation, input).await
}

async fn call_at(endpoint: &str, signer: Option<&Signer>, operation: &str, input: Value) -> (u16, Value) {
    let (url, body) = (format!("{endpoint}/"), input.to_string());
    let host = endpoint.trim_start_matches("http://");
    let mut request = hyper::Request::post("/").header("host", host);
    for (name, value) in signer.map(|it| it.headers("ssm", "POST", &url, body.as_bytes())).unwrap_or_default() {
        request = request.header(name, value);
    }
    let request = request
        .header("content-type", "application/x-amz-json-1.1")
        .header("x-amz-target", format!("AmazonSSM.{operation}"))
        .body(Full::new(Bytes::from(body)))
        .unwrap();
    let stream = TcpStream::connect(host).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    let connection = tokio::spawn(connection);
    let response = sender.send_request(request).await.unwrap();
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    connection.abort();
    (status, serde_json::from_slice(&body).unwrap())
}

/// StartSession to `port` of the lab's node.
pub(crate) async fn start(lab: &Lab, port: u16) -> Value {
    start_at(lab.endpoint_url(), &Signer::of(lab), lab.node(), port).await
}

/// StartSession to `port` of a node of the lab at `endpoint`.
pub(crate) async fn start_at(endpoint: &str, signer: &Signer, node: &str, port: u16) -> Value {
    let input = json!({
        "Target": node,
        "DocumentName": "AWS-StartSSHSession",
        "Parameters": { "portNumber": [port.to_string()] },
    });
    let (status, answer) = call_at(endpoint, Some(signer), "StartSession", input).await;
    assert_eq!(status, 200, "{answer}");
    answer
}

pub(crate) type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// Opens the WebSocket of a grant, signed by `signer` if there is one; the error is the HTTP status.
pub(crate) async fn upgrade(signer: Option<&Signer>, grant: &Value) -> Result<Socket, u16> {
    let url = grant["StreamUrl"].as_str().unwrap();
    let mut request = url.into_client_request().unwrap();
    for (name, value) in signer.map(|it| it.headers("ssmmessages", "GET", url, b"")).unwrap_or_default() {
        let name: http::HeaderName = name.parse().unwrap();
        request.headers_mut().insert(name, value.parse().unwrap());
    }
    let host = request.uri().authority().unwrap().to_string();
    let stream = MaybeTlsStream::Plain(TcpStream::connect(host).await.unwrap());
    match client_async(request, stream).await {
        Ok((socket, _)) => Ok(socket),
        Err(tungstenite::Error::Http(response)) => Err(response.status().as_u16()),
        Err(other) => panic!("{other}"),
    }
}

/// A client without windows or pacing, that sends again as the real plugin does: the oldest message only.
pub(crate) struct Client {
    socket: Socket,
    id: Uuid,
    next_sequence: i64,
    expected: i64,
    received: Vec<u8>,
    unacknowledged: BTreeMap<i64, Bytes>,
    pongs: usize,
    /// Frames that were no sound messages.
    pub(crate) malformed: usize,
    pub(crate) largest_frame: usize,
    pub(crate) agent_version: String,
    pub(crate) closed: Option<ChannelClosed>,
}

impl Client {
    /// Opens the channel and does the handshake.
    pub(crate) async fn connect(lab: &Lab, grant: &Value) -> Self {
        Self::connect_as(&Signer::of(lab), grant).await
    }

    pub(crate) async fn connect_as(signer: &Signer, grant: &Value) -> Self {
        let mut client = Self::open_as(signer, grant).await;
        client.run_until(|client| client.expected >= 2).await;
        client
    }

    /// Opens the channel and leaves the handshake to what reads.
    pub(crate) async fn open_only(lab: &Lab, grant: &Value) -> Self {
        Self::open_as(&Signer::of(lab), grant).await
    }

    async fn open_as(signer: &Signer, grant: &Value) -> Self {
        let socket = upgrade(Some(signer), grant).await.unwrap();
        let mut client = Self {
            socket,
            id: Uuid::new_v4(),
            next_sequence: 0,
            expected: 0,
            received: Vec::new(),
            unacknowledged: BTreeMap::new(),
            pongs: 0,
            malformed: 0,
            largest_frame: 0,
            agent_version: String::new(),
            closed: None,
        };
        client.open(grant).await;
        client
    }

    /// Goes on with the session on a new socket.
    pub(crate) async fn reconnect(&mut self, lab: &Lab, grant: &Value) {
        self.socket = upgrade(Some(&Signer::of(lab)), grant).await.unwrap();
        self.open(grant).await;
    }

    async fn open(&mut self, grant: &Value) {
        let token = grant["TokenValue"].as_str().unwrap();
        let open = OpenDataChannel::client(Uuid::new_v4(), token, self.id, "1.2.764.0");
        self.socket.send(tungstenite::Message::text(open.to_json())).await.unwrap();
    }

    pub(crate) async fn write(&mut self, data: &[u8]) {
        for chunk in data.chunks(16 * 1024) {
            self.send(PayloadType::Output, Bytes::copy_from_slice(chunk)).await;
        }
    }

    /// Writes one message, or not where the socket is gone.
    pub(crate) async fn try_write(&mut self, data: &[u8]) {
        let frame = self.stamp(PayloadType::Output, Bytes::copy_from_slice(data));
        let _ = self.socket.send(tungstenite::Message::Binary(frame)).await;
    }

    /// Reads until everything that was sent is acknowledged.
    pub(crate) async fn wait_acknowledged(&mut self) {
        self.run_until(|client| client.unacknowledged.is_empty()).await;
    }

    /// Whether a ping comes back in time.
    pub(crate) async fn is_answered_within(&mut self, limit: Duration) -> bool {
        self.socket.send(tungstenite::Message::Ping(Bytes::new())).await.unwrap();
        let pongs = self.pongs;
        timeout(limit, self.run_until(|client| client.pongs > pongs)).await.is_ok()
    }

    /// Reads until `count` bytes have arrived.
    pub(crate) async fn read(&mut self, count: usize) -> Vec<u8> {
        self.run_until(|client| client.received.len() >= count).await;
        self.received.drain(..count).collect()
    }

    pub(crate) async fn terminate(&mut self) {
        self.send(PayloadType::Flag, Bytes::copy_from_slice(&Flag::TerminateSession.encode())).await;
    }

    /// Reads until the service says that the session is over; gives its text.
    pub(crate) async fn wait_closed(&mut self) -> String {
        self.run_until(|client| client.closed.is_some()).await;
        self.closed.take().unwrap().output
    }

    /// Reads until the socket ends; gives the close frame's code and reason, if it ended with one.
    pub(crate) async fn wait_disconnected(&mut self) -> Option<(u16, String)> {
        let end = async {
            loop {
                match self.socket.next().await {
                    Some(Ok(tungstenite::Message::Close(Some(frame)))) => {
                        return Some((frame.code.into(), frame.reason.to_string()));
                    }
                    Some(Ok(_)) => {}
                    Some(Err(_)) | None => return None,
                }
            }
        };
        timeout(PATIENCE, end).await.unwrap()
    }

    async fn run_until(&mut self, done: impl Fn(&Self) -> bool) {
        let progress = async {
            while !done(self) {
                match timeout(RESEND, self.socket.next()).await {
                    Ok(message) => self.handle_message(message.expect("open").unwrap()).await,
                    Err(_) => self.resend().await,
                }
            }
        };
        timeout(PATIENCE, progress).await.expect("the lab goes on");
    }

    async fn resend(&mut self) {
        if let Some(frame) = self.unacknowledged.values().next() {
            self.socket.send(tungstenite::Message::Binary(frame.clone())).await.unwrap();
        }
    }

    async fn handle_message(&mut self, message: tungstenite::Message) {
        match message {
            tungstenite::Message::Binary(frame) => self.handle_frame(frame).await,
            tungstenite::Message::Pong(_) => self.pongs += 1,
            tungstenite::Message::Close(frame) => panic!("closed: {frame:?}"),
            _ => {}
        }
    }

    async fn handle_frame(&mut self, frame: Bytes) {
        self.largest_frame = self.largest_frame.max(frame.len());
        match Frame::decode(frame) {
            Ok(frame) if !frame.message.kind.is_stream_data() || frame.is_digest_right() => {
                self.handle(frame.message).await;
            }
            _ => self.malformed += 1,
        }
    }

    async fn handle(&mut self, message: Message) {
        match message.kind {
            MessageKind::Acknowledge => match Acknowledge::from_json(&message.payload) {
                Ok(acknowledge) => drop(self.unacknowledged.remove(&acknowledge.sequence)),
                Err(_) => self.malformed += 1,
            },
            MessageKind::OutputStreamData => self.handle_output(message).await,
            MessageKind::ChannelClosed => self.closed = Some(ChannelClosed::from_json(&message.payload).unwrap()),
            _ => {}
        }
    }

    async fn handle_output(&mut self, message: Message) {
        let acknowledge = Acknowledge {
            message_type: message.kind.as_str().to_owned(),
            message_id: message.id,
            sequence: message.sequence,
            is_sequential: true,
        };
        let frame = self::message(MessageKind::Acknowledge, 0, PayloadType::NONE, acknowledge.to_payload()).encode();
        self.socket.send(tungstenite::Message::Binary(frame)).await.unwrap();
        if message.sequence != self.expected {
            return;
        }
        self.expected += 1;
        match message.payload_type {
            PayloadType::HandshakeRequest => self.answer(&message.payload).await,
            PayloadType::Output => self.received.extend_from_slice(&message.payload),
            _ => {}
        }
    }

    async fn answer(&mut self, request: &[u8]) {
        let request = HandshakeRequest::from_json(request).unwrap();
        self.agent_version = request.agent_version;
        let processed = request.requested_client_actions.into_iter().map(|action| ProcessedClientAction {
            action_type: action.action_type,
            action_status: ActionStatus::Success,
            action_result: Value::Null,
            error: String::new(),
        });
        let response = HandshakeResponse {
            client_version: "1.2.764.0".to_owned(),
            processed_client_actions: processed.collect(),
            errors: None,
        };
        self.send(PayloadType::HandshakeResponse, response.to_payload()).await;
    }

    async fn send(&mut self, payload_type: PayloadType, payload: Bytes) {
        let frame = self.stamp(payload_type, payload);
        self.socket.send(tungstenite::Message::Binary(frame)).await.unwrap();
    }

    /// The frame of the next message, kept until it is acknowledged.
    fn stamp(&mut self, payload_type: PayloadType, payload: Bytes) -> Bytes {
        let frame = message(MessageKind::InputStreamData, self.next_sequence, payload_type, payload).encode();
        self.unacknowledged.insert(self.next_sequence, frame.clone());
        self.next_sequence += 1;
        frame
    }
}

fn message(kind: MessageKind, sequence: i64, payload_type: PayloadType, payload: impl Into<Bytes>) -> Message {
    let payload = payload.into();
    Message { kind, created_millis: 1, sequence, flags: 0, id: Uuid::new_v4(), payload_type, payload }
}

/// A TCP server on loopback that sends back what it gets.
pub(crate) async fn echo_server() -> u16 {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut reader, mut writer) = stream.split();
                let _ = tokio::io::copy(&mut reader, &mut writer).await;
            });
        }
    });
    port
}

/// Waits for `condition`, generously.
pub(crate) async fn eventually(what: &str, condition: impl Fn() -> bool) {
    let wait = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("never: {what}"));
}
