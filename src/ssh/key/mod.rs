//! Private key files: who may read them, their formats, their passphrases.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
};

use russh::keys::{Algorithm, HashAlg, PublicKey};
use zeroize::{Zeroize as _, Zeroizing};

mod decode;
mod error;
mod legacy;
mod pem;
#[cfg(test)]
mod tests;

use super::quote;
use crate::files::{FileFault, Opened, Ownership};
use pem::Container;

pub use error::KeyError;

/// The only permission that a private key file may have: its owner reads it.
const OWNER_READS: u32 = 0o400;
/// No private key is larger: the largest RSA key that OpenSSH makes takes a fifth of it.
const LARGEST_FILE: usize = 64 * 1024;

/// A private key file that has passed the checks, with a key that may be encrypted. Its content is wiped from memory when it is
/// dropped.
pub struct KeyFile {
    path: PathBuf,
    label: String,
    container: Container,
}

impl KeyFile {
    /// Opens a private key file, judges it, and only then reads it.
    ///
    /// The file itself is judged, not the path: after links, and after it was opened. It must be a regular file of at most
    /// 64 KiB that belongs to the user or to root, with mode 0400 or less: not even its owner may write it. Opening does not
    /// wait for the other end of a FIFO.
    ///
    /// This reads a file; in an async program call it where that may take a moment.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, KeyError> {
        let path = path.as_ref();
        let key = quote::path(path);
        let content = read(path, &key)?;
        let container = pem::parse(&content).map_err(|fault| fault.about(&key))?;
        Ok(Self { path: path.to_owned(), label: key, container })
    }

    /// The path as it was given.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether [`decode`](Self::decode) needs a passphrase.
    pub fn is_encrypted(&self) -> bool {
        self.container.is_encrypted()
    }

    /// The public half as a line of `authorized_keys`, where no passphrase is needed to know it: of a key that is not
    /// encrypted, and of any in OpenSSH's own format.
    pub fn public_key(&self) -> Option<String> {
        let line = public_line_aside(&self.container);
        wipe_stack(USED_PAGES);
        line
    }

    /// The key itself. A passphrase for a key that is not encrypted is ignored. Deriving a key from a passphrase is made to be
    /// slow, a tenth of a second or more.
    pub fn decode(&self, passphrase: Option<&str>) -> Result<PrivateKey, KeyError> {
        PrivateKey::from_container(&self.container, &self.label, passphrase)
    }
}

impl fmt::Debug for KeyFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyFile")
            .field("path", &self.path)
            .field("is_encrypted", &self.is_encrypted())
            .finish_non_exhaustive()
    }
}

fn read(path: &Path, key: &str) -> Result<Zeroizing<Vec<u8>>, KeyError> {
    let fault = |fault| match fault {
        FileFault::Io(source) => KeyError::Unreadable { key: key.to_owned(), source },
        FileFault::NotAFile(what) => KeyError::NotAFile { key: key.to_owned(), what },
        FileFault::TooLarge => KeyError::TooLarge { key: key.to_owned() },
    };
    let mut file = Opened::open(path).map_err(fault)?;
    judge(file.ownership, rustix::process::geteuid().as_raw(), key)?;
    file.read(LARGEST_FILE).map_err(fault)
}

/// Whether a file with these properties may hold a private key of the user `uid`.
fn judge(Ownership { mode, owner }: Ownership, uid: u32, key: &str) -> Result<(), KeyError> {
    let key = key.to_owned();
    if owner != uid && owner != 0 {
        return Err(KeyError::ForeignOwner { key, owner });
    }
    if mode & !OWNER_READS != 0 {
        return Err(KeyError::TooOpen { key, mode });
    }
    Ok(())
}

/// A private key to log in with. It is wiped from memory when its last clone is dropped; `Debug` shows its fingerprint only.
#[derive(Clone)]
pub struct PrivateKey {
    key: Arc<russh::keys::PrivateKey>,
    label: String,
}

impl PrivateKey {
    /// A key from memory, in any of the formats that a file can have. `label` is what messages call it.
    pub fn parse(content: &[u8], label: &str, passphrase: Option<&str>) -> Result<Self, KeyError> {
        let container = pem::parse(content).map_err(|fault| fault.about(label))?;
        Self::from_container(&container, label, passphrase)
    }

    fn from_container(container: &Container, label: &str, passphrase: Option<&str>) -> Result<Self, KeyError> {
        let key = decode_aside(container, passphrase);
        wipe_stack(USED_PAGES);
        Ok(Self { key: key.map_err(|fault| fault.about(label))?, label: label.to_owned() })
    }

    /// The key's type, as in `ssh-ed25519`.
    pub fn key_type(&self) -> String {
        self.key.algorithm().to_string()
    }

    /// The SHA-256 fingerprint of the public half, as `ssh-keygen -l` prints it.
    pub fn fingerprint(&self) -> String {
        self.key.fingerprint(HashAlg::Sha256).to_string()
    }

    /// The public half as a line of `authorized_keys`, without a comment.
    pub fn public_key(&self) -> String {
        public_line(self.key.public_key())
    }

    pub(super) fn inner(&self) -> Arc<russh::keys::PrivateKey> {
        Arc::clone(&self.key)
    }

    pub(super) fn is_rsa(&self) -> bool {
        matches!(self.key.algorithm(), Algorithm::Rsa { .. })
    }

    /// What messages call the key: its name, type and fingerprint.
    pub(super) fn describe(&self) -> String {
        format!("{} ({} {})", self.label, self.key_type(), self.fingerprint())
    }
}

/// Decodes a key into its final place. What it is moved through on the way lies in the frames below this one.
#[inline(never)]
fn decode_aside(container: &Container, passphrase: Option<&str>) -> Result<Arc<russh::keys::PrivateKey>, error::Fault> {
    decode::decode(container, passphrase).map(Arc::new)
}

/// A private key is decoded for its public half too.
#[inline(never)]
fn public_line_aside(container: &Container) -> Option<String> {
    decode::public_half(container).as_ref().map(public_line)
}

/// More of the stack than decoding a key takes.
const USED_PAGES: usize = 24;

/// Overwrites so many pages of the stack below this frame: a value that is moved stays where it was.
#[inline(never)]
fn wipe_stack(pages: usize) {
    let mut page = [0_u8; 4096];
    page.zeroize();
    if pages > 0 {
        wipe_stack(pages - 1);
    }
    std::hint::black_box(&mut page);
}

/// A line of `authorized_keys` without a comment.
pub(super) fn public_line(key: &PublicKey) -> String {
    PublicKey::new(key.key_data().clone(), "").to_openssh().unwrap_or_default()
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PrivateKey").field(&format_args!("{} {}", self.key_type(), self.fingerprint())).finish()
    }
}
