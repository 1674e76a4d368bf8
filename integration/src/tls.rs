//! TLS for the listener that a real agent connects to: the agent speaks nothing else.

use std::{path::Path, sync::Arc};

use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        self, ServerConfig,
        crypto::ring,
        pki_types::{
            CertificateDer, PrivateKeyDer,
            pem::{self, PemObject},
        },
    },
};

/// The certificate or the key of the agent's listener cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// A file cannot be read, or is not PEM.
    #[error("`{file}` is not a PEM file that can be read")]
    Pem {
        /// The file.
        file: String,
        /// What is wrong with it.
        #[source]
        source: pem::Error,
    },
    /// The certificate and the key do not go together.
    #[error("the certificate and the key cannot be used together")]
    Unusable(#[from] rustls::Error),
}

/// An acceptor with the certificate chain and the key in these PEM files.
pub(crate) fn acceptor(certificate: &Path, key: &Path) -> Result<TlsAcceptor, TlsError> {
    let failed = |file: &Path| {
        let file = file.display().to_string();
        move |source| TlsError::Pem { file, source }
    };
    let chain = CertificateDer::pem_file_iter(certificate).map_err(failed(certificate))?;
    let chain = chain.collect::<Result<Vec<_>, _>>().map_err(failed(certificate))?;
    let key = PrivateKeyDer::from_pem_file(key).map_err(failed(key))?;
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}
