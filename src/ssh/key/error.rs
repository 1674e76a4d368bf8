//! Why a key is of no use, and what to do about it.

use std::io;

/// An error of a private key. `key` is its file, quoted for a shell, or the label that the caller gave it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "`key` is explained above, the other fields by the messages")]
pub enum KeyError {
    /// The system does not let us read it.
    #[error("cannot read the private key {key}")]
    Unreadable { key: String, source: io::Error },
    /// It is not a file.
    #[error("the private key {key} is {what}, not a file")]
    NotAFile { key: String, what: &'static str },
    /// It belongs to somebody who could change it.
    #[error("the private key {key} belongs to user id {owner}; it must belong to you or to root")]
    ForeignOwner { key: String, owner: u32 },
    /// It has a permission other than that its owner may read it.
    #[error(
        "the permissions {mode:04o} of the private key {key} are too open: only you may read it, and nobody may write it; run: chmod 0400 {key}"
    )]
    TooOpen { key: String, mode: u32 },
    /// It is larger than any private key.
    #[error("{key} is larger than any private key; is it the right file?")]
    TooLarge { key: String },
    /// There is nothing in it.
    #[error("the private key {key} is empty")]
    Empty { key: String },
    /// It is the public half.
    #[error("{key} is a public key; give the private key that belongs to it, usually the same name without .pub")]
    PublicKey { key: String },
    /// It is a certificate.
    #[error("{key} is a certificate; give the private key that belongs to it")]
    Certificate { key: String },
    /// Its end is missing.
    #[error("the private key {key} is cut short; copy the whole file, from the BEGIN line to the END line")]
    Truncated { key: String },
    /// Nothing in it looks like a key.
    #[error("{key} is not a private key in a known format (PEM, PKCS#8, OpenSSH or PPK)")]
    NotAKey { key: String },
    /// It is a key, but of a kind that is not supported.
    #[error("the private key {key} cannot be used: {what}")]
    Unsupported { key: String, what: String },
    /// It is encrypted.
    #[error("the private key {key} needs a passphrase")]
    PassphraseNeeded { key: String },
    /// The passphrase does not open it.
    #[error("wrong passphrase for the private key {key}")]
    WrongPassphrase { key: String },
    /// It has the form of a key, but does not make sense.
    #[error("the private key {key} is damaged: {reason}")]
    Damaged { key: String, reason: String },
}

/// A [`KeyError`] about content whose name is not known yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fault {
    Empty,
    PublicKey,
    Certificate,
    Truncated,
    NotAKey,
    Unsupported(String),
    PassphraseNeeded,
    WrongPassphrase,
    Damaged(String),
}

impl Fault {
    pub(super) fn about(self, key: &str) -> KeyError {
        let key = key.to_owned();
        match self {
            Self::Empty => KeyError::Empty { key },
            Self::PublicKey => KeyError::PublicKey { key },
            Self::Certificate => KeyError::Certificate { key },
            Self::Truncated => KeyError::Truncated { key },
            Self::NotAKey => KeyError::NotAKey { key },
            Self::Unsupported(what) => KeyError::Unsupported { key, what },
            Self::PassphraseNeeded => KeyError::PassphraseNeeded { key },
            Self::WrongPassphrase => KeyError::WrongPassphrase { key },
            Self::Damaged(reason) => KeyError::Damaged { key, reason },
        }
    }
}
