//! The HTTP client of the SDK: HTTP/1.1 over the stream's own way out, so that proxies and certificates are the same for
//! the API and for the WebSocket.
//!
//! Every request has a connection of its own. A session makes two of them, an hour apart, and after a machine has slept
//! a connection that was kept is one that is dead and does not show it.

use std::error::Error;
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
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::time::timeout;

use crate::stream::{DialError, Network};

/// An HTTP client that leaves this machine over `network`, for an [`SdkConfig`](aws_config::SdkConfig) of one's own.
///
/// It honours the time-outs of the configuration. Every request has a connection of its own.
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
    let dialled = within(settings.connect_timeout(), network.dial(&uri)).await?.map_err(undialled)?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(dialled)).await.map_err(broken)?;
    // Ends with the response's body, or when both ends of it are dropped.
    drop(tokio::spawn(connection));
    let response = within(settings.read_timeout(), sender.send_request(request)).await?.map_err(broken)?;
    HttpResponse::try_from(response.map(SdkBody::from_body_1_x))
        .map_err(|error| ConnectorError::other(error.into(), None))
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
fn undialled(error: DialError) -> ConnectorError {
    if error.is_transient() { ConnectorError::io(error.into()) } else { ConnectorError::other(error.into(), None) }
}

fn broken(error: hyper::Error) -> ConnectorError {
    if error.is_user() { ConnectorError::user(error.into()) } else { ConnectorError::io(error.into()) }
}

/// The failure of the way out within an error of the SDK, whose own words add nothing to it.
pub(super) fn dial_error<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a DialError> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        next = error.source();
    }
    None
}
