//! Which connections go through a proxy, and how a proxy is asked for one.

use std::fmt;
use std::io;
use std::sync::Arc;

use http::{HeaderValue, Uri};
use hyper_util::client::proxy::matcher::Matcher;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};

use super::dial::{DialError, Transport};

/// The longest answer of a proxy that is read. Some send a page with their refusal; its head is much shorter.
const MAX_ANSWER: usize = 16 << 10;
/// Most kinds of login that are named, and the longest name of one.
const MAX_SCHEMES: usize = 4;
const MAX_SCHEME: usize = 20;

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

/// The text is no URL of a proxy. Nothing of it is shown, because it may hold a password.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProxyError {
    /// It has another form.
    #[error("the proxy's URL is not of the form `http://[USER:PASSWORD@]HOST[:PORT]` or `https://…`")]
    Form,
    /// The user or the password holds characters that end it in a URL.
    #[error(
        "the user and password in the proxy's URL have to be percent-encoded: `@` is %40, `/` is %2F, `#` is %23, `%` is %25"
    )]
    Encoding,
}

impl ProxyConfig {
    /// The proxy at `url`, as `HTTPS_PROXY` names it: `http://[USER:PASSWORD@]HOST[:PORT]`, where user and password are
    /// percent-encoded; `https://` for a proxy that is itself spoken to over TLS; `http://` may be left out.
    ///
    /// `no_proxy` is a list with commas, as in `NO_PROXY`: a domain stands for itself and everything below it (with or
    /// without a leading dot or `*.`), an address or a network (`10.0.0.0/8`) for hosts given as addresses, `*` for
    /// everything.
    pub fn new(url: &str, no_proxy: &str) -> Result<Self, ProxyError> {
        check(url)?;
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
            return Err(ProxyError::Form);
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

/// Whether it is clear where the password ends and the host begins. What a lenient parser makes of the rest of a password is
/// a host, which is asked for by name and shown in errors.
fn check(url: &str) -> Result<(), ProxyError> {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let (authority, path) = rest.split_at(rest.find(['/', '?', '#', '\\']).unwrap_or(rest.len()));
    let userinfo = authority.rsplit_once('@').map_or("", |(userinfo, _)| userinfo);
    if path.contains('@') || userinfo.contains('@') || !is_percent_encoded(userinfo) {
        return Err(ProxyError::Encoding);
    }
    if matches!(path, "" | "/") { Ok(()) } else { Err(ProxyError::Form) }
}

/// Printable ASCII, in which each `%` begins two hexadecimal digits.
fn is_percent_encoded(text: &str) -> bool {
    let is_byte = |part: &str| part.len() >= 2 && part.bytes().take(2).all(|digit| digit.is_ascii_hexdigit());
    text.bytes().all(|byte| byte.is_ascii_graphic()) && text.split('%').skip(1).all(is_byte)
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
        match read_answer(&mut transport).await? {
            Some(Answer { status: 200..=299, .. }) => Ok(transport),
            Some(Answer { status: 407, schemes }) => {
                Err(DialError::ProxyLogin { proxy: self.name(), schemes, is_given: self.authorization.is_some() })
            }
            Some(Answer { status, .. }) => Err(DialError::ProxyRefused { proxy: self.name(), status }),
            None => Err(DialError::ProxyAnswer { proxy: self.name() }),
        }
    }
}

/// What a proxy answered.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) status: u16,
    /// The kinds of login that it names.
    schemes: Vec<String>,
}

/// The answer, once its head has been read; nothing if it is none. Behind the head of a good answer the tunnel begins, in
/// which this side speaks first: nothing of it can have been read.
async fn read_answer(transport: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<Answer>> {
    let mut head = Vec::with_capacity(512);
    loop {
        let seen = head.len().saturating_sub(3);
        let read = (&mut *transport).take((MAX_ANSWER - head.len()) as u64).read_buf(&mut head).await?;
        if read == 0 || head[seen..].windows(4).any(|end| end == b"\r\n\r\n") {
            return Ok(parse_answer(&head));
        }
    }
}

/// Reads the head of an answer, as far as it came. Whatever else it holds is not looked at.
pub(super) fn parse_answer(head: &[u8]) -> Option<Answer> {
    let mut lines = head.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
    let mut words = std::str::from_utf8(lines.next()?).ok()?.split(' ');
    words.next().filter(|version| version.starts_with("HTTP/1."))?;
    let status = words.next()?.parse().ok().filter(|status| (100..1000).contains(status))?;
    let named = lines.take_while(|line| !line.is_empty()).filter_map(|line| std::str::from_utf8(line).ok());
    let challenges = named.filter_map(|line| line.split_once(':'));
    let challenges = challenges.filter(|(name, _)| name.trim_end().eq_ignore_ascii_case("proxy-authenticate"));
    let schemes = challenges.filter_map(|(_, challenge)| scheme(challenge)).take(MAX_SCHEMES).collect();
    Some(Answer { status, schemes })
}

/// The kind of login that a challenge begins with, if it is the token that it should be.
fn scheme(challenge: &str) -> Option<String> {
    let word = challenge.split([' ', ',', '\t']).find(|word| !word.is_empty())?;
    let is_token = word.len() <= MAX_SCHEME && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    is_token.then(|| word.to_owned())
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
    fn a_password_that_is_not_percent_encoded_is_refused_with_the_remedy_and_without_being_shown() {
        for url in [
            "http://jo:sec@ret@proxy.example:3128",
            "http://jo:sec/ret@proxy.example:3128",
            "http://jo:sec#ret@proxy.example:3128",
            "http://jo:sec?ret@proxy.example:3128",
            "http://jo:sec\\ret@proxy.example:3128",
            "http://jo:1234/ret@proxy.example:3128",
            "jo:sec/ret@proxy.example:3128",
            "http://jo:sec%ret@proxy.example:3128",
            "http://jo:sec ret@proxy.example:3128",
            "http://jo:secrét@proxy.example:3128",
            "http://jo:sec\nret@proxy.example:3128",
        ] {
            let error = ProxyConfig::new(url, "").unwrap_err();
            assert_eq!(error, ProxyError::Encoding, "{url}");
            let shown = format!("{error} {error:?}");
            assert!(shown.contains("percent-encoded") && !shown.contains("sec") && !shown.contains("ret"), "{shown}");
        }
        assert_eq!(ProxyConfig::new("http://proxy.example:3128/path", "").unwrap_err(), ProxyError::Form);
    }

    #[test]
    fn an_answer_is_read_whatever_a_proxy_says() {
        let answer = |head: &[u8]| parse_answer(head).map(|Answer { status, schemes }| (status, schemes.join(",")));
        for (head, expected) in [
            (&b"HTTP/1.1 200 OK\r\n\r\n"[..], Some((200, ""))),
            (b"HTTP/1.0 200\r\n\r\n", Some((200, ""))),
            (b"HTTP/1.1 407 No\r\nProxy-Authenticate: Basic realm=\"x\"\r\n\r\n", Some((407, "Basic"))),
            (
                b"HTTP/1.1 407 No\r\nproxy-authenticate:NTLM\r\nProxy-Authenticate: Negotiate\r\n\r\n",
                Some((407, "NTLM,Negotiate")),
            ),
            (b"HTTP/1.1 407 No\r\nProxy-Authenticate: \x1b[31mevil\r\n\r\nProxy-Authenticate: Basic", Some((407, ""))),
            (b"HTTP/1.1 407 No\r\nProxy-Authenticate:\r\nX: \xff\r\n", Some((407, ""))),
            (b"HTTP/1.1 99999 OK\r\n\r\n", None),
            (b"HTTP/1.1 -1 OK\r\n\r\n", None),
            (b"SSH-2.0-OpenSSH_9.2\r\n", None),
            (b"\xff\xfe 200", None),
            (b"HTTP/1.1", None),
            (b"", None),
        ] {
            let expected = expected.map(|(status, schemes)| (status, schemes.to_owned()));
            assert_eq!(answer(head), expected, "{}", head.escape_ascii());
        }
    }

    #[tokio::test]
    async fn an_answer_without_an_end_is_read_up_to_its_limit() {
        let mut endless = tokio::io::repeat(b'x');
        assert_eq!(read_answer(&mut endless).await.unwrap(), None);
        let mut flood = (&b"HTTP/1.1 503 Busy\r\n"[..]).chain(tokio::io::repeat(b'x'));
        assert_eq!(read_answer(&mut flood).await.unwrap().map(|answer| answer.status), Some(503));
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
