//! The HTTP client of the SDK: rustls with ring, and no certificate is read before the first `https://` request.

use aws_smithy_http_client::Builder;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore};
use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpClient, SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;

/// The client for the SDK and for every credentials provider.
///
/// The SDK's own client parses the system's root certificates as soon as a service client is made, which takes longer
/// than a whole StartSession on loopback. This one decides for each request.
pub(super) fn client() -> SharedHttpClient {
    SharedHttpClient::new(ByScheme { plain: trusting(TrustStore::empty()), tls: trusting(TrustStore::default()) })
}

fn trusting(roots: TrustStore) -> SharedHttpClient {
    let context = TlsContext::builder().with_trust_store(roots).build().unwrap_or_default();
    Builder::new().tls_provider(Provider::Rustls(CryptoMode::Ring)).tls_context(context).build_https()
}

/// Sends `https://` requests through the client that trusts the system's roots, all others through one that trusts none.
#[derive(Debug, Clone)]
struct ByScheme {
    plain: SharedHttpClient,
    tls: SharedHttpClient,
}

impl HttpClient for ByScheme {
    fn http_connector(&self, settings: &HttpConnectorSettings, components: &RuntimeComponents) -> SharedHttpConnector {
        let (settings, components) = (settings.clone(), components.clone());
        SharedHttpConnector::new(Connector { clients: self.clone(), settings, components })
    }
}

#[derive(Debug)]
struct Connector {
    clients: ByScheme,
    settings: HttpConnectorSettings,
    components: RuntimeComponents,
}

impl HttpConnector for Connector {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let is_tls = request.uri().starts_with("https:");
        let client = if is_tls { &self.clients.tls } else { &self.clients.plain };
        client.http_connector(&self.settings, &self.components).call(request)
    }
}
