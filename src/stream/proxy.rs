//! Which connections go through a proxy, and how a proxy is asked for one.

use std::fmt;
use std::sync::Arc;

use http::{HeaderValue, Uri};
use hyper_util::client::proxy::matcher::Matcher;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::dial::{DialError, Transport};

/// The longest answer of a proxy that is read. Some send a page with their refusal; its head is much shorter.
const MAX_ANSWER: usize = 16 << 10;

/// An HTTP proxy for encrypted connections, and the hosts that are reached without it.
///
/// Connections that are not encrypted never go through a proxy: they lead to this machine, or to the metadata service of
/// the instance or container that it is. `Debug` shows no password.
#[derive(Clone, Default)]
pub struct ProxyConfig {
    given: Option<Arc<Given>>,
}

struct Given {
    url: String,
    bypassed: String,
    matcher: Matcher,
}

/// The text is no URL of a proxy. It is not shown, because it may hold a password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the proxy's URL is not of the form `http://[USER:PASSWORD@]HOST[:PORT]` or `https://…`")]
pub struct ProxyError;

impl ProxyConfig {
    /// The proxy at `url`, as `HTTPS_PROXY` names it: `http://[USER:PASSWORD@]HOST[:PORT]`, where user and password are
    /// percent-encoded; `https://` for a proxy that is itself spoken to over TLS; `http://` may be left out.
    ///
    /// `no_proxy` is a list with commas, as in `NO_PROXY`: a domain stands for itself and everything below it (with or
    /// without a leading dot or `*.`), an address or a network (`10.0.0.0/8`) for hosts given as addresses, `*` for
    /// everything.
    pub fn new(url: &str, no_proxy: &str) -> Result<Self, ProxyError> {
        let bypassed: Vec<&str> = no_proxy
            .split([',', ' '])
            .map(|entry| if entry.starts_with("*.") { &entry[1..] } else { entry })
            .filter(|entry| !entry.is_empty())
            .collect();
        let bypassed = bypassed.join(",");
        let matcher = Matcher::builder().https(url).no(bypassed.as_str()).build();
        // Built without exceptions: what cannot be understood is not intercepted either.
        let probe = Matcher::builder().https(url).build().intercept(&Uri::from_static("https://a.example"));
        let is_http = |uri: &Uri| matches!(uri.scheme_str(), Some("http" | "https"));
        let has_host = |uri: &Uri| uri.host().is_some_and(|host| !host.is_empty());
        if !probe.is_some_and(|proxy| is_http(proxy.uri()) && has_host(proxy.uri())) {
            return Err(ProxyError);
        }
        Ok(Self { given: Some(Arc::new(Given { url: url.to_owned(), bypassed, matcher })) })
    }

    /// The proxy through which an encrypted connection to this host goes.
    pub(super) fn for_host(&self, host: &str) -> Option<Proxy> {
        let bracketed = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
        let target: Uri = format!("https://{bracketed}/").parse().ok()?;
        let found = self.given.as_ref()?.matcher.intercept(&target)?;
        Some(Proxy { uri: found.uri().clone(), authorization: found.basic_auth().cloned() })
    }
}

impl fmt::Debug for ProxyConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.given {
            Some(given) => given.matcher.fmt(f),
            None => f.write_str("direct"),
        }
    }
}

impl PartialEq for ProxyConfig {
    fn eq(&self, other: &Self) -> bool {
        let text = |config: &Self| config.given.as_ref().map(|given| (given.url.clone(), given.bypassed.clone()));
        text(self) == text(other)
    }
}

impl Eq for ProxyConfig {}

/// One proxy. Its credentials are apart from its URI.
pub(super) struct Proxy {
    /// Where it is: scheme, host and port.
    pub(super) uri: Uri,
    authorization: Option<HeaderValue>,
}

impl Proxy {
    /// Its host and port, for errors.
    pub(super) fn name(&self) -> String {
        self.uri.authority().map(ToString::to_string).unwrap_or_default()
    }

    /// Has `transport`, which leads to the proxy, lead to the host.
    pub(super) async fn tunnel(&self, mut transport: Transport, host: &str, port: u16) -> Result<Transport, DialError> {
        let target = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
        let mut request = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n").into_bytes();
        if let Some(authorization) = &self.authorization {
            request.extend_from_slice(b"Proxy-Authorization: ");
            request.extend_from_slice(authorization.as_bytes());
            request.extend_from_slice(b"\r\n");
        }
        request.extend_from_slice(b"\r\n");
        transport.write_all(&request).await?;
        transport.flush().await?;
        match read_status(&mut transport).await? {
            Some(200..=299) => Ok(transport),
            Some(status) => Err(DialError::ProxyRefused { proxy: self.name(), status }),
            None => Err(DialError::ProxyAnswer { proxy: self.name() }),
        }
    }
}

/// The status of the answer, once its head has been read; nothing if it is none. Behind the head of a good answer the
/// tunnel begins, in which this side speaks first: nothing of it can have been read.
async fn read_status(transport: &mut Transport) -> Result<Option<u16>, DialError> {
    let mut answer = Vec::with_capacity(512);
    while !answer.windows(4).any(|end| end == b"\r\n\r\n") {
        if answer.len() >= MAX_ANSWER || transport.read_buf(&mut answer).await? == 0 {
            break;
        }
    }
    let line = answer.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let mut words = std::str::from_utf8(line).unwrap_or_default().split(' ');
    let is_http = words.next().is_some_and(|version| version.starts_with("HTTP/1."));
    Ok(words.next().and_then(|status| status.parse().ok()).filter(|_| is_http))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxied(no_proxy: &str, host: &str) -> bool {
        ProxyConfig::new("http://proxy.example:3128", no_proxy).unwrap().for_host(host).is_some()
    }

    #[test]
    fn the_forms_of_a_proxys_url_are_understood() {
        for (url, expected) in [
            ("http://proxy.example:3128", "proxy.example:3128"),
            ("http://proxy.example:3128/", "proxy.example:3128"),
            ("proxy.example:3128", "proxy.example:3128"),
            ("https://proxy.example", "proxy.example"),
            ("http://jo:secret@proxy.example:3128", "proxy.example:3128"),
            ("http://[::1]:3128", "[::1]:3128"),
        ] {
            let proxy = ProxyConfig::new(url, "").unwrap().for_host("a.example").unwrap();
            assert_eq!(proxy.name(), expected, "{url}");
        }
    }

    #[test]
    fn what_is_no_http_proxy_is_refused_without_being_shown() {
        for url in ["", "socks5://jo:secret@proxy.example", "ftp://proxy.example", "http://", "jo:secret@"] {
            let error = ProxyConfig::new(url, "").unwrap_err();
            assert!(!error.to_string().contains("secret"), "{error}");
        }
    }

    #[test]
    fn credentials_are_decoded_and_not_shown() {
        let config = ProxyConfig::new("http://jo:s%40cret@proxy.example:3128", "").unwrap();
        let proxy = config.for_host("a.example").unwrap();
        // `jo:s@cret` in base64.
        assert_eq!(proxy.authorization.as_ref().unwrap(), "Basic am86c0BjcmV0");
        let shown = format!("{config:?} {}", proxy.name());
        assert!(!shown.contains("cret") && shown.contains("proxy.example:3128"), "{shown}");
    }

    #[test]
    fn hosts_that_are_excepted_are_reached_directly() {
        for (no_proxy, host, expected) in [
            ("", "a.example", true),
            ("a.example", "a.example", false),
            ("a.example", "x.a.example", false),
            (".a.example", "x.a.example", false),
            ("*.a.example", "x.a.example", false),
            ("b.example, a.example", "A.Example", false),
            ("example", "notexample", true),
            ("*", "a.example", false),
            ("10.0.0.0/8", "10.1.2.3", false),
            ("10.0.0.0/8", "11.1.2.3", true),
            ("::1", "::1", false),
        ] {
            assert_eq!(proxied(no_proxy, host), expected, "{host} with {no_proxy:?}");
        }
    }

    #[test]
    fn without_a_proxy_everything_is_reached_directly() {
        assert!(ProxyConfig::default().for_host("a.example").is_none());
    }
}
