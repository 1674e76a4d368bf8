//! TLS: whom to believe, and the handshake.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::OnceCell;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, Error as TlsError, RootCertStore, crypto};

use super::dial::{DialError, Transport};

/// The root certificates that vouch for servers. Read at the first use, and then kept; clones share them.
#[derive(Debug, Clone, Default)]
pub(super) enum Roots {
    /// The system's.
    #[default]
    System,
    /// Those of one file.
    File(Arc<Bundle>),
}

#[derive(Debug)]
pub(super) struct Bundle {
    path: PathBuf,
    config: OnceCell<Arc<ClientConfig>>,
}

impl Roots {
    pub(super) fn of_file(path: PathBuf) -> Self {
        Self::File(Arc::new(Bundle { path, config: OnceCell::new() }))
    }

    /// The settings for a handshake. Reading the system's certificates takes tens of milliseconds: once in a process, off
    /// the async threads, and only where TLS is used.
    pub(super) async fn config(&self) -> Result<Arc<ClientConfig>, DialError> {
        static SYSTEM: OnceCell<Arc<ClientConfig>> = OnceCell::const_new();
        let found = match self {
            Self::System => SYSTEM.get_or_try_init(|| off_thread(of_system)).await?,
            Self::File(bundle) => {
                let path = bundle.path.clone();
                bundle.config.get_or_try_init(|| off_thread(move || of_file(path))).await?
            }
        };
        Ok(Arc::clone(found))
    }
}

async fn off_thread<F>(load: F) -> Result<Arc<ClientConfig>, DialError>
where
    F: FnOnce() -> Result<Arc<ClientConfig>, DialError> + Send + 'static,
{
    tokio::task::spawn_blocking(load).await.map_err(io::Error::other)?
}

fn of_system() -> Result<Arc<ClientConfig>, DialError> {
    let loaded = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    let (usable, unusable) = roots.add_parsable_certificates(loaded.certs);
    tracing::debug!(usable, unusable, errors = ?loaded.errors, "loaded the system's root certificates");
    if usable == 0 { Err(DialError::NoRoots) } else { trusting(roots) }
}

fn of_file(file: PathBuf) -> Result<Arc<ClientConfig>, DialError> {
    let read = || {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_file_iter(&file).map_err(io::Error::other)? {
            roots.add(certificate.map_err(io::Error::other)?).map_err(io::Error::other)?;
        }
        if roots.is_empty() { Err(io::Error::other("it holds no PEM certificate")) } else { Ok(roots) }
    };
    match read() {
        Ok(roots) => trusting(roots),
        Err(source) => Err(DialError::CaBundle { file, source }),
    }
}

fn trusting(roots: RootCertStore) -> Result<Arc<ClientConfig>, DialError> {
    let config = ClientConfig::builder_with_provider(Arc::new(crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

/// Encrypts a connection to `host`, which must prove that it is this host.
pub(super) async fn encrypt(
    config: Arc<ClientConfig>,
    (host, port): (&str, u16),
    transport: Transport,
) -> Result<Transport, DialError> {
    let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
    match TlsConnector::from(config).connect(name, transport).await {
        Ok(encrypted) => Ok(Box::new(encrypted)),
        Err(source) if is_about_certificate(&source) => Err(DialError::Certificate { host: host.to_owned(), source }),
        // What is no TLS record at all, as HTTP's "400 Bad Request" is.
        Err(error) if matches!(tls_error(&error), Some(TlsError::InvalidMessage(_))) => {
            Err(DialError::NotTls { host: host.to_owned(), port })
        }
        Err(other) => Err(other.into()),
    }
}

fn tls_error(error: &io::Error) -> Option<&TlsError> {
    error.get_ref().and_then(|cause| cause.downcast_ref())
}

fn is_about_certificate(error: &io::Error) -> bool {
    matches!(tls_error(error), Some(TlsError::InvalidCertificate(_) | TlsError::NoCertificatesPresented))
}
