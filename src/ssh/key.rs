//! Private key files: who may read them, their formats, their passphrases.

use std::{
    fmt, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use russh::keys::HashAlg;

/// Why a key file is of no use.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// The file could not be opened or read.
    #[error("cannot read the private key {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The key is encrypted and no passphrase was given.
    #[error("the private key {} needs a passphrase", path.display())]
    PassphraseNeeded {
        /// The file.
        path: PathBuf,
    },
    /// The passphrase does not open the key.
    #[error("wrong passphrase for the private key {}", path.display())]
    WrongPassphrase {
        /// The file.
        path: PathBuf,
    },
}

/// A private key file that may be read, with a key that may be encrypted.
pub struct KeyFile {
    path: PathBuf,
    text: String,
}

impl KeyFile {
    /// Opens and reads a key file.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, KeyError> {
        let path = path.as_ref().to_owned();
        match std::fs::read_to_string(&path) {
            Ok(text) => Ok(Self { path, text }),
            Err(source) => Err(KeyError::Io { path, source }),
        }
    }

    /// The file's path as it was given.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether [`decode`](Self::decode) needs a passphrase.
    pub fn is_encrypted(&self) -> bool {
        matches!(russh::keys::decode_secret_key(&self.text, None), Err(russh::keys::Error::KeyIsEncrypted))
    }

    /// The key itself.
    pub fn decode(&self, passphrase: Option<&str>) -> Result<PrivateKey, KeyError> {
        let path = self.path.clone();
        let key = russh::keys::decode_secret_key(&self.text, passphrase)
            .map_err(|_| KeyError::WrongPassphrase { path: path.clone() })?;
        Ok(PrivateKey { key: Arc::new(key), path: Some(path) })
    }
}

/// A private key to log in with.
#[derive(Clone)]
pub struct PrivateKey {
    key: Arc<russh::keys::PrivateKey>,
    path: Option<PathBuf>,
}

impl PrivateKey {
    pub(super) fn inner(&self) -> Arc<russh::keys::PrivateKey> {
        Arc::clone(&self.key)
    }

    /// Type, fingerprint, and where it came from.
    pub(super) fn describe(&self) -> String {
        let path = self.path.as_ref().map(|path| format!(" {}", path.display())).unwrap_or_default();
        format!("{} {}{path}", self.key.algorithm(), self.fingerprint())
    }

    /// The SHA-256 fingerprint of the public half, as `ssh-keygen -l` prints it.
    pub fn fingerprint(&self) -> String {
        self.key.fingerprint(HashAlg::Sha256).to_string()
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PrivateKey").field(&self.describe()).finish()
    }
}
