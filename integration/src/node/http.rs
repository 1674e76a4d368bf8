//! The node's calls to the gateway: signed REST for a token, then a signed WebSocket upgrade.

use std::{
    io,
    net::SocketAddr,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::{net::TcpStream, time::timeout};
use tokio_tungstenite::{WebSocketStream, client_async_with_config, tungstenite};
use uuid::Uuid;

use crate::{
    gateway,
    sigv4::{self, AccessKey, Scope},
};

/// Agent: the REST client's timeout.
const TIMEOUT: Duration = Duration::from_secs(15);

pub(super) type Socket = WebSocketStream<TcpStream>;

/// Where the gateway is, and as whom to call it.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    pub(crate) address: SocketAddr,
    pub(crate) region: String,
    pub(crate) key: AccessKey,
}

/// A call to the gateway failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum CallError {
    #[error("the gateway cannot be reached")]
    Connect(#[from] io::Error),
    #[error("the gateway does not speak HTTP")]
    Http(#[from] hyper::Error),
    #[error("the gateway answered {0}: {1}")]
    Status(StatusCode, String),
    #[error("the gateway did not answer in time")]
    Timeout(#[from] tokio::time::error::Elapsed),
    #[error("the WebSocket could not be opened")]
    WebSocket(#[from] Box<tungstenite::Error>),
}

impl Caller {
    /// Asks for the token of the channel at `path`.
    pub(super) async fn create(&self, path: &str) -> Result<String, CallError> {
        let id = || Uuid::new_v4().to_string();
        let body = json!({ "MessageSchemaVersion": "1.0", "RequestId": id(), "ClientId": id() }).to_string();
        let mut request = self.request("POST", path, body.into_bytes());
        request.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
        self.sign(&mut request);
        let (status, body) = timeout(TIMEOUT, self.send(request)).await??;
        let text = String::from_utf8_lossy(&body).into_owned();
        match token_value(&text) {
            Some(token) if status == StatusCode::CREATED => Ok(token.to_owned()),
            _ => Err(CallError::Status(status, text)),
        }
    }

    /// Opens the WebSocket at `path`.
    pub(super) async fn open(&self, path: &str) -> Result<Socket, CallError> {
        let mut request = self.request("GET", path, Vec::new());
        self.sign(&mut request);
        let headers = request.headers_mut();
        for (name, value) in [("upgrade", "websocket"), ("connection", "Upgrade"), ("sec-websocket-version", "13")] {
            headers.insert(name, header::HeaderValue::from_static(value));
        }
        let key = tungstenite::handshake::client::generate_key();
        headers.insert("sec-websocket-key", header::HeaderValue::from_str(&key).expect("base64 is printable"));
        *request.uri_mut() = format!("ws://{}{path}", self.address).parse().expect("a path that was one before");
        let stream = TcpStream::connect(self.address).await?;
        stream.set_nodelay(true)?;
        let opening = client_async_with_config(request.map(|_| ()), stream, Some(gateway::config()));
        let (socket, _) = timeout(TIMEOUT, opening).await?.map_err(Box::new)?;
        Ok(socket)
    }

    fn request(&self, method: &str, path: &str, body: Vec<u8>) -> Request<Vec<u8>> {
        let request = Request::builder().method(method).uri(path).header(header::HOST, self.address.to_string());
        request.body(body).expect("ids are made of characters that a path may have")
    }

    fn sign(&self, request: &mut Request<Vec<u8>>) {
        let scope = Scope { region: &self.region, service: "ssmmessages" };
        sigv4::sign(request, &self.key, scope, SystemTime::now());
    }

    async fn send(&self, request: Request<Vec<u8>>) -> Result<(StatusCode, Bytes), CallError> {
        let stream = TcpStream::connect(self.address).await?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let call = async {
            let response = sender.send_request(request.map(|body| Full::new(Bytes::from(body)))).await?;
            let status = response.status();
            Ok::<_, hyper::Error>((status, response.into_body().collect().await?.to_bytes()))
        };
        tokio::pin!(call, connection);
        Ok(tokio::select! {
            answer = &mut call => answer?,
            ended = connection => { ended?; call.await? }
        })
    }
}

/// The one element of the answer that matters.
fn token_value(xml: &str) -> Option<&str> {
    xml.split_once("<TokenValue>")?.1.split_once("</TokenValue>").map(|(token, _)| token)
}
