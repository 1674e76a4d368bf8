//! The way to the service as companies build it: a proxy, an authority of their own, and a host of their own.

use std::fs;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use ssmssh::aws::{self, AwsService};
use ssmssh::stream::{
    Network, ProxyConfig, SSH_PORT, ServiceError, SsmService, SsmStream, StartRequest, StreamError, StreamOptions,
    TargetId,
};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;

use super::stream::{lab, lab_config};

/// A lab behind TLS, as `localhost` at a port of its own, and the file of the authority that vouches for it.
pub(crate) struct Secure {
    port: u16,
    pub(crate) bundle: PathBuf,
    _folder: TempDir,
}

impl Secure {
    pub(crate) async fn before(lab: &ssm_lab::Lab) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("a certificate");
        let folder = tempfile::tempdir().expect("a folder");
        let bundle = folder.path().join("ca.pem");
        fs::write(&bundle, issuer.pem()).expect("a file");

        let acceptor = acceptor(&issuer);
        let inner = lab.endpoint_url().strip_prefix("http://").expect("a plain URL").trim_end_matches('/').to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a loopback port");
        let port = listener.local_addr().expect("an address").port();
        tokio::spawn(async move {
            while let Ok((connection, _)) = listener.accept().await {
                let (acceptor, inner) = (acceptor.clone(), inner.clone());
                tokio::spawn(async move {
                    let mut near = acceptor.accept(connection).await?;
                    copy_bidirectional(&mut near, &mut TcpStream::connect(inner).await?).await
                });
            }
        });
        Self { port, bundle, _folder: folder }
    }

    pub(crate) fn host(&self) -> String {
        format!("localhost:{}", self.port)
    }

    fn network(&self) -> Network {
        Network::new().ca_bundle(&self.bundle)
    }

    fn service(&self, lab: &ssm_lab::Lab, network: Network) -> AwsService {
        let config = lab_config(lab).endpoint_url(format!("https://{}", self.host()));
        AwsService::from_sdk_config(&config.http_client(aws::http_client(network)).build())
            .expect("a region and credentials")
    }
}

fn acceptor(issuer: &CertifiedIssuer<'_, KeyPair>) -> TlsAcceptor {
    let key = KeyPair::generate().expect("a key");
    let certificate = CertificateParams::new(["localhost".to_owned()])
        .expect("a name")
        .signed_by(&key, issuer)
        .expect("a certificate");
    let key = PrivateKeyDer::try_from(key.serialize_der()).expect("a key");
    let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .expect("TLS versions")
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)
        .expect("the key is the certificate's");
    TlsAcceptor::from(Arc::new(config))
}

/// tinyproxy in the foreground, on a free port, for `jo` with the password `secret`. It ends with this value.
pub(crate) struct Tinyproxy {
    pub(crate) port: u16,
    log: PathBuf,
    _folder: TempDir,
    _process: Child,
}

impl Tinyproxy {
    pub(crate) async fn start() -> Self {
        // Between choosing the port and listening on it somebody else may take it.
        for _ in 0..5 {
            let free = TcpListener::bind("127.0.0.1:0").await.expect("a loopback port");
            let port = free.local_addr().expect("an address").port();
            drop(free);
            if let Some(started) = Self::start_on(port).await {
                return started;
            }
        }
        panic!("tinyproxy does not start; is it installed?");
    }

    async fn start_on(port: u16) -> Option<Self> {
        let folder = tempfile::tempdir().expect("a folder");
        let (config, log) = (folder.path().join("tinyproxy.conf"), folder.path().join("log"));
        let text = format!(
            "Port {port}\nListen 127.0.0.1\nTimeout 60\nMaxClients 20\nAllow 127.0.0.1\nBasicAuth jo secret\n\
             LogFile \"{}\"\nLogLevel Connect\n",
            log.display()
        );
        fs::write(&config, text).expect("a file");
        let mut command = Command::new("tinyproxy");
        command.arg("-d").arg("-c").arg(&config).stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
        let mut process = command.spawn().expect("tinyproxy of Debian");
        while process.try_wait().expect("a process").is_none() {
            if TcpStream::connect(("127.0.0.1", port)).await.is_ok() {
                return Some(Self { port, log, _folder: folder, _process: process });
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        None
    }

    fn config(&self, user: &str) -> ProxyConfig {
        ProxyConfig::new(&format!("http://{user}@127.0.0.1:{}", self.port), "").expect("a URL")
    }

    /// How many connections to `host` it was asked for.
    pub(crate) fn connects(&self, host: &str) -> usize {
        fs::read_to_string(&self.log).expect("a log").matches(&format!("CONNECT {host} HTTP/1.1")).count()
    }
}

fn request(lab: &ssm_lab::Lab) -> StartRequest {
    StartRequest::new(TargetId::new(lab.node()).expect("a node id"), SSH_PORT)
}

async fn open(lab: &ssm_lab::Lab, secure: &Secure, api: Network, websocket: Network) -> Result<SsmStream, StreamError> {
    let mut options = StreamOptions::default();
    options.network = websocket;
    options.stream_host = Some(secure.host());
    SsmStream::open(Arc::new(secure.service(lab, api)), request(lab), options).await
}

#[tokio::test]
async fn api_and_websocket_go_through_the_proxy_to_a_host_that_the_bundle_vouches_for() {
    let lab = lab(|lab| lab).await;
    let (secure, proxy) = (Secure::before(&lab).await, Tinyproxy::start().await);
    let network = secure.network().proxy(proxy.config("jo:secret"));
    let mut stream = open(&lab, &secure, network.clone(), network).await.unwrap();
    stream.write_all(b"there and back").await.unwrap();
    let mut echo = [0; 14];
    stream.read_exact(&mut echo).await.unwrap();
    assert_eq!(&echo, b"there and back");
    stream.shutdown().await.unwrap();
    assert!(proxy.connects(&secure.host()) >= 2, "one for the API and one for the WebSocket");
}

#[tokio::test]
async fn what_the_proxy_refuses_is_told_for_both_and_not_tried_again() {
    let lab = lab(|lab| lab).await;
    let (secure, proxy) = (Secure::before(&lab).await, Tinyproxy::start().await);
    let refused = || secure.network().proxy(proxy.config("jo:wrong-one"));
    let name = format!("127.0.0.1:{}", proxy.port);

    let api = secure.service(&lab, refused()).start(&request(&lab)).await.unwrap_err();
    let ServiceError::NotReached { source: api, .. } = &api else { panic!("{api:?}") };
    let websocket = open(&lab, &secure, secure.network(), refused()).await.unwrap_err();
    let StreamError::Connect { source, .. } = &websocket else { panic!("{websocket:?}") };
    for text in [api.to_string(), source.to_string()] {
        assert!(text.contains(&format!("the proxy {name} refused the connection with HTTP status 40")), "{text}");
        assert!(!text.contains("wrong-one"), "{text}");
    }
}

#[tokio::test]
async fn an_api_whose_authority_is_unknown_is_not_asked() {
    let lab = lab(|lab| lab).await;
    let (secure, other) = (Secure::before(&lab).await, Secure::before(&lab).await);
    let error = secure.service(&lab, other.network()).start(&request(&lab)).await.unwrap_err();
    let ServiceError::NotReached { source, .. } = &error else { panic!("{error:?}") };
    assert!(source.to_string().contains("the certificate of localhost was not accepted"), "{source}");
    let missing = secure.service(&lab, Network::new().ca_bundle("/nowhere/roots.pem")).start(&request(&lab)).await;
    let Err(ServiceError::NotReached { source, .. }) = missing else { panic!("{missing:?}") };
    assert!(source.to_string().contains("/nowhere/roots.pem"), "{source}");
}
