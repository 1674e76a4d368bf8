//! The HTTP client of the SDK: HTTP/1.1 over the stream's own way out, so that proxies and certificates are the same for
//! the API and for the WebSocket.
//!
//! Every request has a connection of its own. A session makes two of them, an hour apart, and after a machine has slept
//! a connection that was kept is one that is dead and does not show it.

use std::error::Error;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpClient, SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::body::SdkBody;
use http::header::HOST;
use http::{HeaderValue, Request, Uri};
use http_body_util::Limited;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::time::timeout;

use crate::stream::{DialError, Network, Transport, is_loopback};

/// No answer of the API or of a credentials provider is larger; more is not read.
const LARGEST_BODY: usize = 1 << 20;

/// An HTTP client that leaves this machine over `network`, for an [`SdkConfig`](aws_config::SdkConfig) of one's own.
///
/// It honours the time-outs of the configuration. Every request has a connection of its own. Requests over `http://` go to
/// this machine and to the metadata services of EC2, ECS and EKS only.
pub fn http_client(network: Network) -> SharedHttpClient {
    SharedHttpClient::new(Direct { network })
}

#[derive(Debug)]
struct Direct {
    network: Network,
}

impl HttpClient for Direct {
    fn http_connector(&self, settings: &HttpConnectorSettings, _: &RuntimeComponents) -> SharedHttpConnector {
        SharedHttpConnector::new(Connector { network: self.network.clone(), settings: settings.clone() })
    }
}

#[derive(Debug)]
struct Connector {
    network: Network,
    settings: HttpConnectorSettings,
}

impl HttpConnector for Connector {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let (network, settings) = (self.network.clone(), self.settings.clone());
        HttpConnectorFuture::new(async move { exchange(&network, &settings, request).await })
    }
}

async fn exchange(
    network: &Network,
    settings: &HttpConnectorSettings,
    request: HttpRequest,
) -> Result<HttpResponse, ConnectorError> {
    let request = request.try_into_http1x().map_err(|error| ConnectorError::user(error.into()))?;
    let (uri, request) = to_origin(request)?;
    let dialled = dial(network, &uri, settings.connect_timeout()).await;
    let dialled =
        dialled.map_err(|source| undialled(Unreached { host: authority_of(&uri), source: Arc::new(source) }))?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(dialled)).await.map_err(broken)?;
    // Ends with the response's body, or when both ends of it are dropped.
    drop(tokio::spawn(connection));
    let response = within(settings.read_timeout(), sender.send_request(request)).await?.map_err(broken)?;
    HttpResponse::try_from(response.map(|body| SdkBody::from_body_1_x(Limited::new(body, LARGEST_BODY))))
        .map_err(|error| ConnectorError::other(error.into(), None))
}

pub(super) async fn dial(network: &Network, uri: &Uri, limit: Option<Duration>) -> Result<Transport, DialError> {
    if uri.scheme_str() == Some("http") && !uri.host().is_some_and(is_near) {
        return Err(DialError::NotEncrypted);
    }
    match limit {
        Some(limit) => timeout(limit, network.dial(uri)).await.unwrap_or_else(|_| Err(network.late(uri, limit))),
        None => network.dial(uri).await,
    }
}

/// Whether what goes to this host without encryption passes no network: it is this machine, or the metadata service of the
/// instance (169.254.169.254, `fd00:ec2::254`), the task (169.254.170.2) or the pod (169.254.170.23, `fd00:ec2::23`).
pub(super) fn is_near(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    is_loopback(host)
        || match address {
            Ok(IpAddr::V4(address)) => address.is_link_local(),
            Ok(IpAddr::V6(address)) => address.segments()[..2] == [0xfd00, 0x0ec2],
            Err(_) => false,
        }
}

fn authority_of(uri: &Uri) -> String {
    let host = uri.host().unwrap_or_default();
    match (uri.port_u16(), uri.scheme_str()) {
        (None, _) | (Some(443), Some("https")) => host.to_owned(),
        (Some(port), _) => format!("{host}:{port}"),
    }
}

/// Which host could not be reached.
#[derive(Debug, thiserror::Error)]
#[error("cannot connect to {host}")]
struct Unreached {
    host: String,
    source: Arc<DialError>,
}

/// The request as it is put to the host itself: the host in its header, the rest in the request line.
fn to_origin(mut request: Request<SdkBody>) -> Result<(Uri, Request<SdkBody>), ConnectorError> {
    let user = |error: http::Error| ConnectorError::user(error.into());
    let uri = request.uri().clone();
    if !request.headers().contains_key(HOST) {
        let authority = uri.authority().map_or("", |authority| authority.as_str());
        let host = HeaderValue::from_str(authority).map_err(|error| user(error.into()))?;
        request.headers_mut().insert(HOST, host);
    }
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    *request.uri_mut() = path.parse().map_err(|error: http::uri::InvalidUri| user(error.into()))?;
    Ok((uri, request))
}

async fn within<F: Future>(limit: Option<Duration>, future: F) -> Result<F::Output, ConnectorError> {
    match limit {
        Some(limit) => {
            let late = |_| ConnectorError::timeout(DialError::TimedOut(limit).into());
            timeout(limit, future).await.map_err(late)
        }
        None => Ok(future.await),
    }
}

/// Only what may pass is an I/O error to the SDK, which tries those again.
fn undialled(error: Unreached) -> ConnectorError {
    match &*error.source {
        DialError::TimedOut(_) | DialError::ProxySilent { .. } => ConnectorError::timeout(error.into()),
        source if source.is_transient() => ConnectorError::io(error.into()),
        _ => ConnectorError::other(error.into(), None),
    }
}

fn broken(error: hyper::Error) -> ConnectorError {
    if error.is_user() { ConnectorError::user(error.into()) } else { ConnectorError::io(error.into()) }
}

/// The failure of the way out within an error of the SDK, whose own words add nothing to it: the host, and what is wrong.
pub(super) fn unreached<'a>(error: &'a (dyn Error + 'static)) -> Option<(&'a str, &'a Arc<DialError>)> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(Unreached { host, source }) = error.downcast_ref() {
            return Some((host, source));
        }
        next = error.source();
    }
    None
}
