//! Logging in: which identity is tried when, and with which signature.

use russh::{
    MethodSet,
    client::{AuthResult, Handle},
    keys::{HashAlg, PrivateKeyWithHashAlg},
};

use super::{
    AgentError, AuthenticationError, Identity, Lost, Shared, SshError,
    agent::{AgentSigner, SignError},
    handler::Events,
    quote,
};

/// Tries the identities in their order until one is let in.
pub(super) async fn authenticate(
    handle: &mut Handle<Events>,
    shared: &Shared,
    user: &str,
    identities: &[Identity],
) -> Result<(), SshError> {
    let mut login = Login { handle, shared, user, tried: Vec::new(), rsa: RsaHashes::Unknown, is_agent_silent: false };
    let mut methods = None;
    for key in identities {
        match login.try_key(key).await? {
            Answer::LetIn => return Ok(()),
            Answer::Unsigned => {}
            Answer::Refused(offered) => {
                let keys_allowed = offered.iter().any(|method| method == "publickey");
                methods = Some(offered);
                if !keys_allowed {
                    break;
                }
            }
        }
    }
    let tried = login.tried.clone();
    let user = user.to_owned();
    Err(match methods {
        Some(methods) => AuthenticationError::Refused { user, tried, methods }.into(),
        None => return login.without_key().await,
    })
}

/// What is known about the server's `server-sig-algs`.
enum RsaHashes {
    Unknown,
    /// The server did not say, or says that it takes none of SHA-2.
    Any,
    Only(HashAlg),
}

struct Login<'a> {
    handle: &'a mut Handle<Events>,
    shared: &'a Shared,
    user: &'a str,
    tried: Vec<String>,
    rsa: RsaHashes,
    /// An agent that has not signed in time is not asked again.
    is_agent_silent: bool,
}

/// What came of a key.
enum Answer {
    LetIn,
    /// With the methods that the server still offers.
    Refused(Vec<String>),
    /// The server would take it, but the agent does not sign.
    Unsigned,
}

impl Login<'_> {
    async fn try_key(&mut self, key: &Identity) -> Result<Answer, SshError> {
        if self.is_agent_silent && matches!(key, Identity::Agent(_)) {
            return Ok(Answer::Unsigned);
        }
        self.tried.push(key.describe());
        if !key.is_rsa() {
            return self.sign_in(key, None).await;
        }
        if self.tried.len() > 1 {
            self.ask_for_rsa_hashes().await;
        }
        if let RsaHashes::Only(hash) = self.rsa {
            return self.sign_in(key, Some(hash)).await;
        }
        // The list of what the server takes comes with the answer to the key exchange, but russh waits a second for a
        // server that sends none. Nearly all take SHA-512, so the list is consulted only after a refusal.
        let answer = self.sign_in(key, Some(HashAlg::Sha512)).await?;
        if !matches!(answer, Answer::Refused(_)) {
            return Ok(answer);
        }
        self.ask_for_rsa_hashes().await;
        match self.rsa {
            RsaHashes::Only(HashAlg::Sha512) => Ok(answer),
            _ => self.sign_in(key, Some(HashAlg::Sha256)).await,
        }
    }

    async fn ask_for_rsa_hashes(&mut self) {
        if matches!(self.rsa, RsaHashes::Unknown) {
            self.rsa = match self.handle.best_supported_rsa_hash().await {
                Ok(Some(Some(hash))) => RsaHashes::Only(hash),
                _ => RsaHashes::Any,
            };
        }
    }

    async fn sign_in(&mut self, identity: &Identity, hash: Option<HashAlg>) -> Result<Answer, SshError> {
        tracing::info!(target: "ssmssh::detail", "offering the key {}", identity.describe());
        let result = match identity {
            Identity::Key(key) => {
                let signer = PrivateKeyWithHashAlg::new(key.inner(), hash);
                self.handle.authenticate_publickey(self.user, signer).await
            }
            Identity::Agent(key) => {
                let (public, mut signer) = (key.public().clone(), AgentSigner(key));
                tracing::info!(target: "ssmssh::wait", "the SSH agent, which may ask you to confirm");
                match self.handle.authenticate_publickey_with(self.user, public, hash, &mut signer).await {
                    Err(SignError::Agent(error)) => return Ok(self.unsigned(&error)),
                    Err(SignError::Disconnected) => Err(russh::Error::SendError),
                    Ok(result) => Ok(result),
                }
            }
        };
        self.answer(result, &identity.describe()).await
    }

    fn unsigned(&mut self, error: &AgentError) -> Answer {
        tracing::info!(target: "ssmssh::detail", "{error}; the next key is tried");
        self.is_agent_silent = matches!(error, AgentError::Silent { .. });
        if let Some(tried) = self.tried.last_mut() {
            tried.push_str(": ");
            tried.push_str(&error.to_string());
        }
        Answer::Unsigned
    }

    /// Some servers let a user in without any proof; the others say what they want.
    async fn without_key(&mut self) -> Result<(), SshError> {
        let result = self.handle.authenticate_none(self.user).await;
        match self.answer(result, "no key").await? {
            Answer::Refused(methods) if self.tried.is_empty() => {
                Err(AuthenticationError::NoIdentity { user: self.user.to_owned(), methods }.into())
            }
            Answer::Refused(methods) => {
                let (user, tried) = (self.user.to_owned(), self.tried.clone());
                Err(AuthenticationError::Refused { user, tried, methods }.into())
            }
            Answer::LetIn | Answer::Unsigned => Ok(()),
        }
    }

    async fn answer(&self, result: Result<AuthResult, russh::Error>, key: &str) -> Result<Answer, SshError> {
        match result {
            Ok(AuthResult::Success) => Ok(Answer::LetIn),
            Ok(AuthResult::Failure { remaining_methods, partial_success: true }) => {
                let (user, key) = (self.user.to_owned(), key.to_owned());
                Err(AuthenticationError::MoreRequired { user, key, methods: names(&remaining_methods) }.into())
            }
            // russh reports the end of the connection as a refusal with nothing left to try.
            Ok(AuthResult::Failure { remaining_methods, .. }) if !remaining_methods.is_empty() => {
                Ok(Answer::Refused(names(&remaining_methods)))
            }
            Ok(AuthResult::Failure { .. }) | Err(_) => Err(self.disconnected().await),
        }
    }

    async fn disconnected(&self) -> SshError {
        let lost = self.shared.lost().await;
        match lost {
            // russh ends the connection when the server offers no method that it knows.
            Lost::Protocol(error) if matches!(error.downcast_ref(), Some(russh::Error::NoAuthMethod)) => {
                let (user, tried) = (self.user.to_owned(), self.tried.clone());
                AuthenticationError::Refused { user, tried, methods: Vec::new() }.into()
            }
            Lost::Transport(_) | Lost::NotUtf8 => lost.into(),
            lost => {
                AuthenticationError::Disconnected { user: self.user.to_owned(), tried: self.tried.clone(), lost }.into()
            }
        }
    }
}

fn names(methods: &MethodSet) -> Vec<String> {
    methods.iter().map(|method| quote::said(&String::from(method))).collect()
}
