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
use crate::files::Opened;

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

/// Twenty times what a system's bundle has.
const LARGEST_BUNDLE: usize = 4 << 20;

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
    let read = || -> io::Result<RootCertStore> {
        let mut roots = RootCertStore::empty();
        let content = Opened::open(&file)?.read(LARGEST_BUNDLE)?;
        let content = content.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&content);
        for certificate in CertificateDer::pem_slice_iter(content) {
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

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    /// What is wrong with a bundle; nothing, where it can be used.
    fn fault(file: PathBuf) -> String {
        match of_file(file) {
            Ok(_) => String::new(),
            Err(DialError::CaBundle { source, .. }) => source.to_string(),
            Err(other) => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_bundle_that_is_no_file_or_endless_is_named_and_one_with_odd_text_is_taken() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let key = rcgen::generate_simple_self_signed(["a.example".to_owned()]).unwrap();
        let pem = key.cert.pem();
        rustix::fs::mknodat(rustix::fs::CWD, path("fifo"), rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR, 0)
            .unwrap();
        fs::File::create(path("huge")).unwrap().set_len(1 << 40).unwrap();
        fs::create_dir(path("directory")).unwrap();
        fs::write(path("empty"), "").unwrap();
        fs::write(path("bom"), format!("\u{feff}{pem}")).unwrap();
        fs::write(path("crlf"), pem.replace('\n', "\r\n")).unwrap();
        fs::write(path("unfinished"), pem.trim_end()).unwrap();
        fs::write(path("latin1"), [b"# caf\xe9\n", pem.as_bytes()].concat()).unwrap();
        for (name, said) in [
            ("none", "No such file"),
            ("directory", "it is a directory"),
            ("fifo", "it is a FIFO"),
            ("/dev/zero", "it is a device"),
            ("/dev/null", "it is a device"),
            ("huge", "it is too large"),
            ("empty", "no PEM certificate"),
            ("bom", ""),
            ("crlf", ""),
            ("unfinished", ""),
            ("latin1", ""),
        ] {
            let link = path("link");
            let _ = fs::remove_file(&link);
            symlink(path(name), &link).unwrap();
            for file in [path(name), link] {
                let fault = fault(file);
                assert!(fault.contains(said) && fault.is_empty() == said.is_empty(), "{name}: {fault}");
            }
        }
    }
}
