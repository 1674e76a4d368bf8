//! The way out of this machine: name resolution, TCP, the proxy, TLS. The API and the WebSocket both take it.

use std::collections::VecDeque;
use std::fmt;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use http::Uri;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::{sleep, timeout};

use super::proxy::{Proxy, ProxyConfig};
use super::service::report_wait;
use super::tls::{self, Roots};

/// The longest wait for one address.
const ADDRESS_TIMEOUT: Duration = Duration::from_secs(5);

/// How long an address has the network for itself before the next is tried beside it (RFC 8305, section 5).
const HEAD_START: Duration = Duration::from_millis(250);

/// How connections leave this machine: through which proxy, and whose certificates they believe.
///
/// The default is to connect directly and to believe the certificates that the system believes. Cloning is cheap; clones
/// share the certificates that were read.
#[derive(Debug, Clone, Default)]
pub struct Network {
    proxy: ProxyConfig,
    roots: Roots,
    family: AddressFamily,
}

/// Which of a host's addresses are tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AddressFamily {
    /// All of them.
    #[default]
    Any,
    /// Those of IPv4.
    Inet,
    /// Those of IPv6.
    Inet6,
}

impl AddressFamily {
    fn has(self, address: &SocketAddr) -> bool {
        match self {
            Self::Any => true,
            Self::Inet => address.is_ipv4(),
            Self::Inet6 => address.is_ipv6(),
        }
    }

    /// What a host lacks.
    fn missing(self) -> &'static str {
        match self {
            Self::Any => "it has no address",
            Self::Inet => "it has no IPv4 address",
            Self::Inet6 => "it has no IPv6 address",
        }
    }
}

impl Network {
    /// Direct connections, and the system's root certificates.
    pub fn new() -> Self {
        Self::default()
    }

    /// Encrypted connections go through this proxy. Default: none.
    #[must_use]
    pub fn proxy(mut self, proxy: ProxyConfig) -> Self {
        self.proxy = proxy;
        self
    }

    /// The root certificates are those of this PEM file, in place of the system's, as with `AWS_CA_BUNDLE`: for a proxy
    /// that opens TLS, or an endpoint of one's own. Default: the system's. The file is read at the first connection that
    /// is encrypted.
    #[must_use]
    pub fn ca_bundle(mut self, file: impl Into<PathBuf>) -> Self {
        self.roots = Roots::of_file(file.into());
        self
    }

    /// Only these addresses are tried, of a proxy where there is one. Default: all.
    #[must_use]
    pub fn address_family(mut self, family: AddressFamily) -> Self {
        self.family = family;
        self
    }

    /// Does in advance what an encrypted connection will need.
    pub(super) fn prepare(&self) {
        let roots = self.roots.clone();
        // A failure is met again, and told, where the connection is made.
        drop(tokio::spawn(async move { roots.config().await }));
    }

    /// A connection to the host of `uri`, encrypted for `https` and `wss`. Cancelling it closes what was opened.
    pub(crate) async fn dial(&self, uri: &Uri) -> Result<Transport, DialError> {
        let is_tls = is_tls(uri);
        let (host, port) = host_and_port(uri);
        if !is_tls {
            return self.tcp(host, port).await;
        }
        let reached = async {
            match self.proxy.for_host(host) {
                Some(proxy) => self.through(&proxy, host, port).await,
                None => self.tcp(host, port).await,
            }
        };
        let (config, transport) = tokio::try_join!(self.roots.config(), reached)?;
        tls::encrypt(config, (host, port), transport).await
    }

    /// What it means that nothing came of a connection to `uri` within `waited`: where there is a proxy, it is the proxy that
    /// was waited for.
    pub(crate) fn late(&self, uri: &Uri, waited: Duration) -> DialError {
        let proxy = is_tls(uri).then(|| self.proxy.for_host(host_and_port(uri).0)).flatten();
        match proxy {
            Some(proxy) => DialError::ProxySilent { proxy: proxy.name(), waited },
            None => DialError::TimedOut(waited),
        }
    }

    async fn through(&self, proxy: &Proxy, host: &str, port: u16) -> Result<Transport, DialError> {
        report_wait(&format!("the proxy {}", proxy.name()));
        let reached = async {
            let (proxy_host, proxy_port) = host_and_port(&proxy.uri);
            let transport = self.tcp(proxy_host, proxy_port).await?;
            if is_tls(&proxy.uri) {
                tls::encrypt(self.roots.config().await?, (proxy_host, proxy_port), transport).await
            } else {
                Ok(transport)
            }
        };
        let unreachable = |source| DialError::Proxy { proxy: proxy.name(), source: Box::new(source) };
        let tunnel = proxy.tunnel(reached.await.map_err(unreachable)?, host, port).await?;
        report_wait(host);
        Ok(tunnel)
    }

    /// A connection to whichever of the host's addresses answers first.
    async fn tcp(&self, host: &str, port: u16) -> Result<Transport, DialError> {
        let unresolved = |source| DialError::Resolve { host: host.to_owned(), source };
        let found = lookup_host((host, port)).await.map_err(unresolved)?;
        let addresses = found.filter(|address| self.family.has(address));
        let no_address = || unresolved(io::Error::new(ErrorKind::NotFound, self.family.missing()));
        let tcp = first_of(by_turns(addresses), connect).await.unwrap_or_else(|| Err(no_address()))?;
        tcp.set_nodelay(true)?;
        Ok(Box::new(tcp))
    }
}

fn is_tls(uri: &Uri) -> bool {
    matches!(uri.scheme_str(), Some("https" | "wss"))
}

/// The host, without the brackets of an IPv6 address, and the port.
fn host_and_port(uri: &Uri) -> (&str, u16) {
    let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    (host, uri.port_u16().unwrap_or(if is_tls(uri) { 443 } else { 80 }))
}

async fn connect(address: SocketAddr) -> Result<TcpStream, DialError> {
    let tcp = timeout(ADDRESS_TIMEOUT, TcpStream::connect(address)).await;
    Ok(tcp.map_err(|_| DialError::TimedOut(ADDRESS_TIMEOUT))??)
}

/// The addresses of both families by turns, beginning with the one that the system prefers: a family that leads nowhere
/// costs one head start, however many addresses it has.
fn by_turns(addresses: impl Iterator<Item = SocketAddr>) -> VecDeque<SocketAddr> {
    let mut addresses = addresses.peekable();
    let is_v6_first = addresses.peek().is_some_and(SocketAddr::is_ipv6);
    let (mut first, mut second): (VecDeque<_>, VecDeque<_>) =
        addresses.partition(|address| address.is_ipv6() == is_v6_first);
    let mut turns = VecDeque::with_capacity(first.len() + second.len());
    while !first.is_empty() || !second.is_empty() {
        turns.extend(first.pop_front());
        turns.extend(second.pop_front());
    }
    turns
}

/// Tries each address when the one before has failed or has had its head start; the first that answers is taken, and the
/// others are dropped. None where there are no addresses; the last failure where none answers.
async fn first_of<T, F: Future<Output = Result<T, DialError>>>(
    mut addresses: VecDeque<SocketAddr>,
    connect: impl Fn(SocketAddr) -> F,
) -> Option<Result<T, DialError>> {
    let (mut tries, mut failure) = (FuturesUnordered::new(), None);
    loop {
        match addresses.pop_front() {
            Some(address) => tries.push(connect(address)),
            None if tries.is_empty() => return failure,
            None => {}
        }
        let more = !addresses.is_empty();
        tokio::select! {
            Some(result) = tries.next() => match result {
                Ok(connection) => return Some(Ok(connection)),
                Err(error) => failure = Some(Err(error)),
            },
            () = sleep(HEAD_START), if more => {}
        }
    }
}

/// A connection, of whatever layers.
pub(crate) type Transport = Box<dyn Layer>;

/// What a connection can do.
pub(crate) trait Layer: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Layer for T {}

impl fmt::Debug for dyn Layer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Layer")
    }
}

/// Why a host could not be reached.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DialError {
    /// The host's name has no address here.
    #[error("the name {host} cannot be resolved")]
    Resolve {
        /// The host.
        host: String,
        /// What the resolver said.
        #[source]
        source: io::Error,
    },
    /// The proxy could not be reached.
    #[error("the proxy {proxy} cannot be reached")]
    Proxy {
        /// Its host and port.
        proxy: String,
        /// Why.
        #[source]
        source: Box<DialError>,
    },
    /// The proxy wants a login, or another one (407).
    #[error("the proxy {proxy} refused the connection with HTTP status 407: {}", login_wanted(.schemes, *.is_given))]
    ProxyLogin {
        /// Its host and port.
        proxy: String,
        /// The kinds of login that it takes, in its words, such as `Basic` or `NTLM`. Only `Basic` can be given.
        schemes: Vec<String>,
        /// Whether user and password were sent.
        is_given: bool,
    },
    /// The proxy, or what it leads to, took the connection and then said nothing in time.
    #[error("the proxy {proxy} did not answer within {} s", .waited.as_secs())]
    ProxySilent {
        /// Its host and port.
        proxy: String,
        /// How long it was waited.
        waited: Duration,
    },
    /// The proxy did not agree.
    #[error("the proxy {proxy} refused the connection with HTTP status {status}")]
    ProxyRefused {
        /// Its host and port.
        proxy: String,
        /// The status that it answered.
        status: u16,
    },
    /// What answered was no HTTP proxy.
    #[error("the proxy {proxy} did not answer as an HTTP proxy does")]
    ProxyAnswer {
        /// Its host and port.
        proxy: String,
    },
    /// The host did not prove that it is the host.
    #[error("the certificate of {host} was not accepted")]
    Certificate {
        /// The host, or the proxy.
        host: String,
        /// What is wrong with it.
        #[source]
        source: io::Error,
    },
    /// What answers on the port does not speak TLS.
    #[error("what answers on port {port} of {host} does not speak TLS")]
    NotTls {
        /// The host, or the proxy.
        host: String,
        /// The TCP port.
        port: u16,
    },
    /// The file of root certificates is of no use.
    #[error("no root certificates can be read from {}", .file.display())]
    CaBundle {
        /// The file.
        file: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The request would pass a network without encryption.
    #[error("`http://` is for this machine only: use `https://`")]
    NotEncrypted,
    /// The system has no root certificates.
    #[error("the system has no usable root certificates: install them, or name a file of them")]
    NoRoots,
    /// There was no answer in time.
    #[error("there was no answer within {0:?}")]
    TimedOut(Duration),
    /// Any other failure of the network.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl DialError {
    /// Whether another try may succeed.
    pub(crate) fn is_transient(&self) -> bool {
        match self {
            Self::Resolve { .. } | Self::TimedOut(_) | Self::Io(_) | Self::ProxySilent { .. } => true,
            Self::Proxy { source, .. } => source.is_transient(),
            Self::ProxyRefused { status, .. } => *status >= 500,
            Self::ProxyLogin { .. }
            | Self::NotEncrypted
            | Self::ProxyAnswer { .. }
            | Self::Certificate { .. }
            | Self::NotTls { .. }
            | Self::CaBundle { .. }
            | Self::NoRoots => false,
        }
    }

    pub(super) fn kind(&self) -> ErrorKind {
        match self {
            Self::Resolve { .. } => ErrorKind::NotFound,
            Self::Proxy { source, .. } => source.kind(),
            Self::ProxyRefused { .. } | Self::ProxyLogin { .. } => ErrorKind::ConnectionRefused,
            Self::ProxySilent { .. } | Self::TimedOut(_) => ErrorKind::TimedOut,
            Self::Io(error) => error.kind(),
            Self::ProxyAnswer { .. }
            | Self::NotEncrypted
            | Self::Certificate { .. }
            | Self::NotTls { .. }
            | Self::CaBundle { .. }
            | Self::NoRoots => ErrorKind::InvalidData,
        }
    }
}

/// Which login a proxy wants, and what was wrong with the one that it got.
fn login_wanted(schemes: &[String], is_given: bool) -> String {
    let takes_basic = schemes.iter().any(|scheme| scheme.eq_ignore_ascii_case("Basic"));
    match (schemes, takes_basic, is_given) {
        ([], _, true) => "it did not accept the user and password".to_owned(),
        ([], _, false) => "it wants a login".to_owned(),
        (_, true, true) => "it did not accept the user and password (Basic)".to_owned(),
        (_, true, false) => "it wants a user and a password (Basic)".to_owned(),
        (schemes, false, _) => format!("it wants a login by {}, and only Basic can be given", schemes.join(" or ")),
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;
    use std::sync::Mutex;

    use tokio::time::Instant;

    use super::*;

    fn addresses(list: &[&str]) -> VecDeque<SocketAddr> {
        by_turns(list.iter().map(|text| text.parse().unwrap()))
    }

    #[test]
    fn the_families_take_turns_and_the_preferred_one_begins() {
        let turns = addresses(&["[::1]:1", "[::2]:1", "[::3]:1", "1.1.1.1:1", "1.1.1.2:1"]);
        let expected = ["[::1]:1", "1.1.1.1:1", "[::2]:1", "1.1.1.2:1", "[::3]:1"];
        assert_eq!(turns, expected.map(|text| text.parse().unwrap()));
        assert!(by_turns(std::iter::empty()).is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_that_leads_nowhere_costs_its_head_start_only() {
        let start = Instant::now();
        let tried = Mutex::new(Vec::new());
        let answered = first_of(addresses(&["1.1.1.1:1", "1.1.1.2:1", "1.1.1.3:1", "1.1.1.4:1"]), async |address| {
            tried.lock().unwrap().push(start.elapsed());
            if address.to_string() != "1.1.1.3:1" {
                pending::<()>().await;
            }
            Ok(address)
        });
        assert_eq!(answered.await.unwrap().unwrap().to_string(), "1.1.1.3:1");
        assert_eq!(*tried.lock().unwrap(), [Duration::ZERO, HEAD_START, HEAD_START * 2]);
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_that_refuses_makes_room_at_once_and_the_last_failure_is_told() {
        let start = Instant::now();
        let refused = |address: SocketAddr| async move {
            Err::<(), _>(DialError::Io(io::Error::new(ErrorKind::ConnectionRefused, address.to_string())))
        };
        let failure = first_of(addresses(&["1.1.1.1:1", "1.1.1.2:1"]), refused).await.unwrap().unwrap_err();
        assert_eq!((failure.to_string().as_str(), start.elapsed()), ("1.1.1.2:1", Duration::ZERO));
        assert!(first_of(VecDeque::new(), refused).await.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_address_may_still_answer_while_others_are_tried() {
        let slow = |address: SocketAddr| async move {
            let time = if address.port() == 1 { HEAD_START * 3 } else { Duration::from_hours(1) };
            sleep(time).await;
            Ok(address.port())
        };
        assert_eq!(first_of(addresses(&["1.1.1.1:1", "1.1.1.2:2"]), slow).await.unwrap().unwrap(), 1);
    }
}
