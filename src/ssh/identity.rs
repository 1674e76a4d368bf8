//! What a user logs in with, wherever its private half is.

use russh::keys::Algorithm;

use super::{AgentKey, PrivateKey};

/// A key to log in with: in memory, or held by an agent.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Identity {
    /// A private key in memory.
    Key(PrivateKey),
    /// A key that an agent signs with.
    Agent(AgentKey),
}

impl Identity {
    pub(super) fn is_rsa(&self) -> bool {
        match self {
            Self::Key(key) => key.is_rsa(),
            Self::Agent(key) => matches!(key.public().algorithm(), Algorithm::Rsa { .. }),
        }
    }

    pub(super) fn describe(&self) -> String {
        match self {
            Self::Key(key) => key.describe(),
            Self::Agent(key) => key.describe(),
        }
    }
}

impl From<PrivateKey> for Identity {
    fn from(key: PrivateKey) -> Self {
        Self::Key(key)
    }
}

impl From<AgentKey> for Identity {
    fn from(key: AgentKey) -> Self {
        Self::Agent(key)
    }
}
