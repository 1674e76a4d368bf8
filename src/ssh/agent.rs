//! Keys that an agent holds: which there are, and what they sign.

use std::{
    fmt, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use russh::{
    SendError, Signer,
    keys::{
        self, Algorithm, HashAlg, PublicKey,
        agent::{AgentIdentity, client::AgentClient},
    },
};
use tokio::{net::UnixStream, time::timeout};

use super::{key::public_line, quote};

/// Longest wait for an agent's list of keys, which it has at hand.
const LIST_LIMIT: Duration = Duration::from_secs(5);
/// Longest wait for a signature: a person may be asked to confirm it, or to touch a token.
const SIGN_LIMIT: Duration = Duration::from_mins(1);

/// An agent that holds private keys and signs with them, such as `ssh-agent`, by the path of its socket. Nothing is
/// connected before it is asked, and nothing stays connected: dropping it does nothing.
#[derive(Debug, Clone)]
pub struct SshAgent {
    socket: Arc<Path>,
}

/// An agent did not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AgentError {
    /// Nobody is at the socket, or whoever was there has hung up.
    #[error("no agent answers at {socket}")]
    Unreachable {
        /// The socket's path.
        socket: String,
        /// What the system says.
        source: io::Error,
    },
    /// The agent takes too long: 5 s to list its keys, 60 s to sign.
    #[error("the agent at {socket} has not answered within {} s", limit.as_secs())]
    Silent {
        /// The socket's path.
        socket: String,
        /// How long it was waited for.
        limit: Duration,
    },
    /// The agent does not sign: it is locked, the key is gone, or somebody said no.
    #[error("the agent at {socket} refuses to sign")]
    Refused {
        /// The socket's path.
        socket: String,
    },
    /// The agent answers something that was not asked for.
    #[error("the answer of the agent at {socket} cannot be used")]
    Protocol {
        /// The socket's path.
        socket: String,
        /// What is wrong with it.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl SshAgent {
    /// The agent that listens on this Unix socket, as `SSH_AUTH_SOCK` names it.
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Self { socket: socket.into().into() }
    }

    /// The keys that it holds and that can log in, in its order. Certificates are left out. A locked agent tells of none.
    /// An agent that has not answered after 5 s is an error.
    ///
    /// Cancelling it hangs up.
    pub async fn keys(&self) -> Result<Vec<AgentKey>, AgentError> {
        let list = async { AgentClient::connect(self.connect().await?).request_identities().await };
        let held = self.within(LIST_LIMIT, list).await?;
        Ok(held.into_iter().filter_map(|identity| self.key(identity)).collect())
    }

    fn key(&self, identity: AgentIdentity) -> Option<AgentKey> {
        match identity {
            AgentIdentity::PublicKey { key, comment } if can_log_in(&key.algorithm()) => {
                Some(AgentKey { key, label: quote::text(&comment), agent: self.clone() })
            }
            _ => None,
        }
    }

    async fn connect(&self) -> Result<UnixStream, keys::Error> {
        Ok(UnixStream::connect(&self.socket).await?)
    }

    async fn within<T>(
        &self,
        limit: Duration,
        asked: impl Future<Output = Result<T, keys::Error>>,
    ) -> Result<T, AgentError> {
        let socket = quote::path(&self.socket);
        match timeout(limit, asked).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(keys::Error::IO(source))) => Err(AgentError::Unreachable { socket, source }),
            Ok(Err(keys::Error::AgentFailure)) => Err(AgentError::Refused { socket }),
            Ok(Err(error)) => Err(AgentError::Protocol { socket, source: error.into() }),
            Err(_) => Err(AgentError::Silent { socket, limit }),
        }
    }
}

fn can_log_in(algorithm: &Algorithm) -> bool {
    use Algorithm::{Ecdsa, Ed25519, Rsa, SkEcdsaSha2NistP256, SkEd25519};
    matches!(algorithm, Ed25519 | Ecdsa { .. } | Rsa { .. } | SkEd25519 | SkEcdsaSha2NistP256)
}

/// A key that an agent holds: its public half, and whom to ask for signatures. Every login with it asks the agent anew.
#[derive(Clone)]
pub struct AgentKey {
    key: PublicKey,
    label: String,
    agent: SshAgent,
}

impl AgentKey {
    /// The public half as a line of `authorized_keys`, without a comment.
    pub fn public_key(&self) -> String {
        public_line(&self.key)
    }

    pub(super) fn public(&self) -> &PublicKey {
        &self.key
    }

    /// What messages call the key: its comment, type and fingerprint.
    pub(super) fn describe(&self) -> String {
        let (label, key_type) = (&self.label, self.key.algorithm());
        format!("{label} of the agent ({key_type} {})", self.key.fingerprint(HashAlg::Sha256))
    }
}

impl fmt::Debug for AgentKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("AgentKey").field(&format_args!("{}", self.describe())).finish()
    }
}

/// Why there is no signature.
pub(super) enum SignError {
    Agent(AgentError),
    /// The connection ended meanwhile.
    Disconnected,
}

impl From<SendError> for SignError {
    fn from(_: SendError) -> Self {
        Self::Disconnected
    }
}

/// Asks the key's agent.
pub(super) struct AgentSigner<'a>(pub(super) &'a AgentKey);

impl Signer for AgentSigner<'_> {
    type Error = SignError;

    /// For RSA `hash` is never missing, and russh refuses an answer with another one: so nothing is signed with SHA-1.
    async fn auth_sign(
        &mut self,
        key: &AgentIdentity,
        hash: Option<HashAlg>,
        data: Vec<u8>,
    ) -> Result<Vec<u8>, SignError> {
        let agent = &self.0.agent;
        let sign = async { AgentClient::connect(agent.connect().await?).sign_request(key, hash, data).await };
        agent.within(SIGN_LIMIT, sign).await.map_err(SignError::Agent)
    }
}
