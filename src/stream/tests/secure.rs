//! WebSockets over TLS, and through a proxy, on loopback.

use std::path::PathBuf;
use std::sync::Arc;

use futures_util::StreamExt;
use http::Uri;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;
use tokio_tungstenite::tungstenite::Message;

use super::network::{connect_over, patiently, send};
use crate::datachannel::Transmit;
use crate::stream::socket::ConnectError;
use crate::stream::{DialError, Network, ProxyConfig};

/// A certificate authority that nobody knows, with its own certificate in a file.
struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    folder: TempDir,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        // Of two authorities with one name, a wrong one would only seem to have signed badly.
        params.distinguished_name.push(DnType::CommonName, uuid::Uuid::new_v4().to_string());
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("ca.pem"), issuer.pem()).unwrap();
        Self { issuer, folder }
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    fn network(&self) -> Network {
        Network::new().ca_bundle(self.file())
    }

    /// A server that proves to be `name`.
    fn acceptor(&self, name: &str) -> TlsAcceptor {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new([name.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)
            .unwrap();
        TlsAcceptor::from(Arc::new(config))
    }

    /// A WebSocket server as `name`, on every connection of which one text is expected; its port.
    async fn serve(&self, name: &str) -> u16 {
        let (listener, acceptor) = (TcpListener::bind("127.0.0.1:0").await.unwrap(), self.acceptor(name));
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            while let Ok((connection, _)) = listener.accept().await {
                let Ok(connection) = acceptor.accept(connection).await else { continue };
                let mut socket = tokio_tungstenite::accept_async(connection).await.unwrap();
                let Message::Text(open) = socket.next().await.unwrap().unwrap() else { panic!("not the open message") };
                assert_eq!(open.as_str(), "open");
            }
        });
        port
    }
}

fn url(port: u16) -> Uri {
    format!("wss://localhost:{port}/v1/data-channel/jo-0a1?role=publish_subscribe").parse().unwrap()
}

/// Connects and says something.
async fn greet(network: &Network, port: u16) -> Result<(), DialError> {
    match connect_over(network, &url(port), Vec::new()).await {
        Ok(mut socket) => {
            send(&mut *socket, Transmit::Text("open".into())).await;
            Ok(())
        }
        Err(ConnectError::Dial(error)) => Err(error),
        Err(other) => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_server_whose_authority_is_in_the_bundle_is_connected_to() {
    let authority = Authority::new();
    let port = authority.serve("localhost").await;
    greet(&authority.network(), port).await.unwrap();
}

#[tokio::test]
async fn a_server_with_another_name_is_refused() {
    let authority = Authority::new();
    let port = authority.serve("other.example").await;
    let error = greet(&authority.network(), port).await.unwrap_err();
    let DialError::Certificate { host, source } = &error else { panic!("{error:?}") };
    assert_eq!(host, "localhost");
    assert!(source.to_string().contains("other.example"), "{source}");
    assert!(!error.is_transient());
}

#[tokio::test]
async fn a_server_whose_authority_is_unknown_is_refused() {
    let authority = Authority::new();
    let port = authority.serve("localhost").await;
    let error = greet(&Authority::new().network(), port).await.unwrap_err();
    let DialError::Certificate { source, .. } = &error else { panic!("{error:?}") };
    assert!(source.to_string().contains("UnknownIssuer"), "{source}");
}

#[tokio::test]
async fn a_bundle_that_is_of_no_use_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("roots.pem");
    let port = Authority::new().serve("localhost").await;
    let missing = greet(&Network::new().ca_bundle(&file), port).await.unwrap_err();
    assert!(missing.to_string().contains("roots.pem"), "{missing}");
    for content in ["", "no certificate", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
        std::fs::write(&file, content).unwrap();
        let error = greet(&Network::new().ca_bundle(&file), port).await.unwrap_err();
        assert!(matches!(&error, DialError::CaBundle { file: named, .. } if *named == file), "{error:?}");
    }
}

/// A proxy that lets those through who say `authorization`, or everybody; its port. It answers others with `refusal`.
async fn proxy(authorization: Option<&'static str>, refusal: &'static str) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(near.read_u8().await.unwrap());
            }
            let head = String::from_utf8(head).unwrap();
            let wanted = authorization.map(|value| format!("\r\nProxy-Authorization: {value}\r\n"));
            if wanted.is_some_and(|wanted| !head.contains(&wanted)) {
                near.write_all(refusal.as_bytes()).await.unwrap();
                continue;
            }
            let target = head.strip_prefix("CONNECT ").and_then(|rest| rest.split(' ').next()).unwrap();
            assert!(head.contains(&format!("\r\nHost: {target}\r\n")), "{head}");
            let mut far = TcpStream::connect(target).await.unwrap();
            near.write_all(b"HTTP/1.0 200 Connection established\r\nVia: test\r\n\r\n").await.unwrap();
            tokio::spawn(async move { copy_bidirectional(&mut near, &mut far).await });
        }
    });
    port
}

fn through(authority: &Authority, proxy: &str) -> Network {
    authority.network().proxy(ProxyConfig::new(proxy, "").unwrap())
}

#[tokio::test]
async fn a_proxy_leads_to_the_host_with_credentials_where_it_wants_them() {
    let authority = Authority::new();
    let server = authority.serve("localhost").await;
    let open = proxy(None, "").await;
    greet(&through(&authority, &format!("http://127.0.0.1:{open}")), server).await.unwrap();
    let closed = proxy(Some("Basic am86c0BjcmV0"), "").await;
    greet(&through(&authority, &format!("http://jo:s%40cret@127.0.0.1:{closed}")), server).await.unwrap();
}

#[tokio::test]
async fn a_proxy_spoken_to_over_tls_proves_its_own_name() {
    let authority = Authority::new();
    let server = authority.serve("localhost").await;
    let (inner, acceptor) = (proxy(None, "").await, authority.acceptor("127.0.0.1"));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let outer = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        let (connection, _) = listener.accept().await.unwrap();
        let mut near = acceptor.accept(connection).await.unwrap();
        let mut far = TcpStream::connect(("127.0.0.1", inner)).await.unwrap();
        copy_bidirectional(&mut near, &mut far).await
    });
    greet(&through(&authority, &format!("https://127.0.0.1:{outer}")), server).await.unwrap();
}

#[tokio::test]
async fn what_a_proxy_refuses_names_the_proxy_and_the_status_but_no_password() {
    let authority = Authority::new();
    for (login, wanted, words) in [
        ("jo:secret@", "", "it did not accept the user and password"),
        ("jo:secret@", "Proxy-Authenticate: Basic realm=\"x\"\r\n", "it did not accept the user and password (Basic)"),
        ("", "Proxy-Authenticate: Basic realm=\"x\"\r\n", "it wants a user and a password (Basic)"),
        ("", "", "it wants a login"),
        (
            "jo:secret@",
            "Proxy-Authenticate: Negotiate\r\nProxy-Authenticate: NTLM\r\n",
            "it wants a login by Negotiate or NTLM, and only Basic can be given",
        ),
    ] {
        let answer = format!("HTTP/1.1 407 Login\r\n{wanted}Content-Length: 5\r\n\r\nLogin");
        let port = proxy(Some("Basic x"), answer.leak()).await;
        let error = greet(&through(&authority, &format!("http://{login}127.0.0.1:{port}")), 9).await.unwrap_err();
        let expected = format!("the proxy 127.0.0.1:{port} refused the connection with HTTP status 407: {words}");
        assert_eq!(error.to_string(), expected);
        assert!(!format!("{error:?}").contains("secret") && !error.is_transient());
    }
    for broken in ["", "SSH-2.0-OpenSSH\r\n\r\n", "HTTP/1.1 oops\r\n\r\n"] {
        let port = proxy(Some("Basic x"), broken).await;
        let error = greet(&through(&authority, &format!("http://127.0.0.1:{port}")), 9).await.unwrap_err();
        assert!(matches!(error, DialError::ProxyAnswer { .. }), "{error:?}");
    }
}

#[tokio::test]
async fn a_proxy_that_is_not_there_is_named() {
    let authority = Authority::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let error = greet(&through(&authority, &format!("http://127.0.0.1:{port}")), 9).await.unwrap_err();
    assert_eq!(error.to_string(), format!("the proxy 127.0.0.1:{port} cannot be reached"));
    assert!(error.is_transient());
}

#[tokio::test]
async fn a_connection_that_is_not_encrypted_never_goes_through_a_proxy() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url: Uri = format!("ws://{}/x", listener.local_addr().unwrap()).parse().unwrap();
    let server = async {
        let (connection, _) = listener.accept().await.unwrap();
        tokio_tungstenite::accept_async(connection).await.unwrap()
    };
    let network = Network::new().proxy(ProxyConfig::new("http://127.0.0.1:9", "").unwrap());
    let (_server, client) = patiently(async { tokio::join!(server, connect_over(&network, &url, Vec::new())) }).await;
    client.unwrap();
}
