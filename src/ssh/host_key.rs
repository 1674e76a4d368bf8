//! Which host keys are believed.

use std::path::PathBuf;

use russh::keys::{HashAlg, PublicKey};

/// What happens with a host key that is not on record, spelled as OpenSSH spells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StrictHostKeyChecking {
    /// Refuse unknown host keys.
    Yes,
    /// Record unknown host keys, refuse changed ones.
    AcceptNew,
    /// Accept whatever key the server shows; read and write nothing. Whoever sits in between is let in.
    Off,
}

/// Decides about a server's host key.
#[derive(Debug, Clone)]
pub struct HostKeyCheck {
    policy: Option<StrictHostKeyChecking>,
    _known_hosts: PathBuf,
    _name: String,
}

/// A host key that was accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct HostKey {
    /// The key's type, as in `ssh-ed25519`.
    pub key_type: String,
    /// The SHA-256 fingerprint, as `ssh-keygen -l` prints it.
    pub fingerprint: String,
    /// Whether it was recorded just now.
    pub newly_recorded: bool,
}

/// Why a host key was not accepted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HostKeyError {
    /// The caller did not say which host keys are accepted.
    #[error("no policy for host keys was given")]
    NoPolicy,
}

impl HostKeyCheck {
    /// A check for `host` and `port` against a file in OpenSSH's format, made when it is needed.
    pub fn new(policy: StrictHostKeyChecking, known_hosts: PathBuf, host: &str, port: u16) -> Self {
        Self { policy: Some(policy), _known_hosts: known_hosts, _name: format!("[{host}]:{port}") }
    }

    pub(super) fn none() -> Self {
        Self { policy: None, _known_hosts: PathBuf::new(), _name: String::new() }
    }

    #[expect(clippy::unused_async, reason = "reads the file")]
    pub(super) async fn known_algorithms(&self) -> Result<Vec<String>, HostKeyError> {
        Ok(Vec::new())
    }

    #[expect(clippy::unused_async, reason = "reads and writes the file")]
    pub(super) async fn check(&self, key: &PublicKey) -> Result<HostKey, HostKeyError> {
        if self.policy != Some(StrictHostKeyChecking::Off) {
            return Err(HostKeyError::NoPolicy);
        }
        Ok(HostKey {
            key_type: key.algorithm().to_string(),
            fingerprint: key.fingerprint(HashAlg::Sha256).to_string(),
            newly_recorded: false,
        })
    }
}
