//! As little of a client as can speak to the lab. It shares the message format with the product and nothing else; it signs
//! with AWS's own crate.

use std::time::{Duration, SystemTime};

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
    Acknowledge, ActionStatus, Body, ChannelClosed, Flag, HandshakeRequest, HandshakeResponse, Message, MessageKind,
    OpenDataChannel, PayloadType, ProcessedClientAction,
};
use tokio::{net::TcpStream, time::timeout};
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream, client_async,
    tungstenite::{self, client::IntoClientRequest},
};
use uuid::Uuid;

/// Far longer than anything here takes.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

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
    let (url, body) = (format!("{}/", lab.endpoint_url()), input.to_string());
    let host = lab.endpoint_url().trim_start_matches("http://");
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
    let input = json!({
        "Target": lab.node(),
        "DocumentName": "AWS-StartSSHSession",
        "Parameters": { "portNumber": [port.to_string()] },
    });
    let (status, answer) = call(lab, Some(&Signer::of(lab)), "StartSession", input).await;
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

/// A client without windows, pacing or resends: enough for a link that loses nothing.
pub(crate) struct Client {
    socket: Socket,
    id: Uuid,
    next_sequence: i64,
    expected: i64,
    received: Vec<u8>,
    pub(crate) agent_version: String,
    pub(crate) closed: Option<ChannelClosed>,
}

impl Client {
    /// Opens the channel and does the handshake.
    pub(crate) async fn connect(lab: &Lab, grant: &Value) -> Self {
        let socket = upgrade(Some(&Signer::of(lab)), grant).await.unwrap();
        let mut client = Self {
            socket,
            id: Uuid::new_v4(),
            next_sequence: 0,
            expected: 0,
            received: Vec::new(),
            agent_version: String::new(),
            closed: None,
        };
        client.open(grant).await;
        client.run_until(|client| client.expected >= 2).await;
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
        while !done(self) {
            match timeout(PATIENCE, self.socket.next()).await.expect("the lab goes on").expect("open").unwrap() {
                tungstenite::Message::Binary(frame) => self.handle(Message::decode(frame).unwrap()).await,
                tungstenite::Message::Close(frame) => panic!("closed: {frame:?}"),
                _ => {}
            }
        }
    }

    async fn handle(&mut self, message: Message) {
        match message.kind {
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
        self.send_message(MessageKind::Acknowledge, 0, PayloadType::NONE, acknowledge.to_payload()).await;
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
        let sequence = self.next_sequence;
        self.next_sequence += 1;
        self.send_message(MessageKind::InputStreamData, sequence, payload_type, payload).await;
    }

    async fn send_message(&mut self, kind: MessageKind, sequence: i64, payload_type: PayloadType, payload: Bytes) {
        let message =
            Message { kind, created_millis: 1, sequence, flags: 0, id: Uuid::new_v4(), payload_type, payload };
        self.socket.send(tungstenite::Message::Binary(message.encode())).await.unwrap();
    }
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
