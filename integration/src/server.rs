//! The listener: HTTP/1.1 on loopback, for clients and nodes alike.

use std::{convert::Infallible, sync::Arc};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header, request::Parts};
use http_body_util::{BodyExt, Full, Limited};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{handshake::server::create_response, protocol::Role},
};

use crate::{
    api::{ApiError, Service},
    conn::Conn,
    gateway::{self, Side, WebSocket},
    sigv4,
    tasks::Tasks,
};

/// Largest body of a request; the real ones are below 64 KiB.
const MAX_BODY: usize = 1 << 20;

/// Accepts connections until the lab ends.
pub(crate) async fn serve(listener: TcpListener, tls: Option<TlsAcceptor>, service: Arc<Service>, tasks: Tasks) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => tasks.spawn(serve_connection(stream, tls.clone(), Arc::clone(&service), tasks.clone())),
            // Out of descriptors, most likely: those that close make room.
            Err(_) => tokio::time::sleep(std::time::Duration::from_millis(10)).await,
        }
    }
}

async fn serve_connection(stream: TcpStream, tls: Option<TlsAcceptor>, service: Arc<Service>, tasks: Tasks) {
    let _ = stream.set_nodelay(true);
    let conn = match tls {
        None => Conn::Plain(stream),
        Some(acceptor) => match acceptor.accept(stream).await {
            Ok(stream) => Conn::Tls(Box::new(stream)),
            Err(error) => return tracing::warn!(%error, "TLS handshake failed"),
        },
    };
    let router = Router { service, tasks };
    let handle = service_fn(|request| router.handle(request));
    let served = http1::Builder::new().serve_connection(TokioIo::new(conn), handle).with_upgrades().await;
    if let Err(error) = served {
        tracing::debug!(%error, "HTTP connection ended");
    }
}

struct Router {
    service: Arc<Service>,
    tasks: Tasks,
}

type Answer = Response<Full<Bytes>>;

impl Router {
    async fn handle(&self, request: Request<Incoming>) -> Result<Answer, Infallible> {
        let path = request.uri().path().to_owned();
        let method = request.method().clone();
        let mut answer = match (method, path.trim_start_matches('/').split('/').collect::<Vec<_>>().as_slice()) {
            (Method::POST, [""]) => self.call(request).await,
            (Method::POST, ["v1", "control-channel", node]) => self.create(request, Channel::Control(node)).await,
            (Method::POST, ["v1", "data-channel", session]) => self.create(request, Channel::Data(session)).await,
            (Method::GET, ["v1", "control-channel", node]) => self.open_control(request, (*node).to_owned()),
            (Method::GET, ["v1", "data-channel", session]) => self.open_data(request, session),
            _ => plain(StatusCode::NOT_FOUND, "no such resource"),
        };
        let date = httpdate::fmt_http_date(self.service.now());
        answer.headers_mut().insert(header::DATE, header::HeaderValue::from_str(&date).expect("ASCII"));
        Ok(answer)
    }

    async fn call(&self, request: Request<Incoming>) -> Answer {
        match read_body(request).await {
            Ok((parts, body)) => self.service.call(&parts.uri, &parts.headers, &body).await,
            Err(answer) => answer,
        }
    }

    /// The node asks for the token of a WebSocket.
    async fn create(&self, request: Request<Incoming>, channel: Channel<'_>) -> Answer {
        let (parts, body) = match read_body(request).await {
            Ok(read) => read,
            Err(answer) => return answer,
        };
        if let Err(error) = self.service.authorize_node(signed_parts(&parts, &body)) {
            return self.forbid("CreateChannel", &error);
        }
        let token = match channel {
            Channel::Control(node) => Some(self.service.gateway.create_control_channel(node)),
            Channel::Data(session) => self.service.gateway.create_data_channel(session),
        };
        match token {
            Some(token) => created(&token),
            None => plain(StatusCode::BAD_REQUEST, "Session is already terminated"),
        }
    }

    fn open_control(&self, request: Request<Incoming>, node: String) -> Answer {
        let (parts, _) = parts_of(&request);
        if let Err(error) = self.service.authorize_node(signed_parts(&parts, &[])) {
            return self.forbid("OpenControlChannel", &error);
        }
        let gateway = Arc::clone(&self.service.gateway);
        self.upgrade(request, move |socket| async move { gateway.serve_control(&node, socket).await })
    }

    fn open_data(&self, request: Request<Incoming>, session: &str) -> Answer {
        let (parts, _) = parts_of(&request);
        let side = match self.service.authorize_upgrade(signed_parts(&parts, &[])) {
            Ok(true) => Side::Node,
            Ok(false) => Side::Client,
            Err(error) => return self.forbid("OpenDataChannel", &error),
        };
        let gateway = Arc::clone(&self.service.gateway);
        match gateway.session(session) {
            Some(session) => {
                self.upgrade(request, move |socket| async move { gateway.serve_data(session, side, socket).await })
            }
            None => plain(StatusCode::NOT_FOUND, "no such session"),
        }
    }

    fn upgrade<S, F>(&self, request: Request<Incoming>, serve: S) -> Answer
    where
        S: FnOnce(WebSocket) -> F + Send + 'static,
        F: Future<Output = ()> + Send,
    {
        let (_, bare) = parts_of(&request);
        let Ok(response) = create_response(&bare) else {
            return plain(StatusCode::BAD_REQUEST, "not a WebSocket upgrade");
        };
        let upgraded = hyper::upgrade::on(request);
        self.tasks.spawn(async move {
            let Ok(Ok(parts)) = upgraded.await.map(hyper::upgrade::Upgraded::downcast::<TokioIo<Conn>>) else { return };
            let read = parts.read_buf.to_vec();
            let config = Some(gateway::config());
            let conn = parts.io.into_inner();
            serve(WebSocketStream::from_partially_read(conn, read, Role::Server, config).await).await;
        });
        response.map(|()| Full::default())
    }

    fn forbid(&self, operation: &str, error: &ApiError) -> Answer {
        self.service.refuse(operation, error.code, &error.message);
        plain(StatusCode::FORBIDDEN, &error.message)
    }
}

enum Channel<'a> {
    Control(&'a str),
    Data(&'a str),
}

fn parts_of(request: &Request<Incoming>) -> (Parts, Request<()>) {
    let mut bare = Request::new(());
    *bare.method_mut() = request.method().clone();
    *bare.uri_mut() = request.uri().clone();
    *bare.version_mut() = request.version();
    bare.headers_mut().clone_from(request.headers());
    let (parts, ()) = bare.clone().into_parts();
    (parts, bare)
}

fn signed_parts<'a>(parts: &'a Parts, body: &'a [u8]) -> sigv4::Request<'a> {
    sigv4::Request { method: &parts.method, uri: &parts.uri, headers: &parts.headers, body }
}

async fn read_body(request: Request<Incoming>) -> Result<(Parts, Bytes), Answer> {
    let (parts, body) = request.into_parts();
    match Limited::new(body, MAX_BODY).collect().await {
        Ok(body) => Ok((parts, body.to_bytes())),
        Err(error) => Err(plain(StatusCode::BAD_REQUEST, &error.to_string())),
    }
}

/// The gateway's only XML: the agent reads the two fields and no other.
fn created(token: &str) -> Answer {
    let body = format!(
        "<CreateChannelResponse><MessageSchemaVersion>1.0</MessageSchemaVersion>\
         <TokenValue>{token}</TokenValue></CreateChannelResponse>"
    );
    let mut response = plain(StatusCode::CREATED, &body);
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/xml"));
    response
}

fn plain(status: StatusCode, text: &str) -> Answer {
    let mut response = Response::new(Full::new(Bytes::from(text.to_owned())));
    *response.status_mut() = status;
    response
}
