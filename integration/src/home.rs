//! The lab's directory: one-time keys, the files that the environment points to, and a login directory.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use russh::keys::{Algorithm, PrivateKey, ssh_key::LineEnding};
use tempfile::TempDir;

/// A temporary directory, removed on drop.
#[derive(Debug)]
pub(crate) struct Home {
    directory: TempDir,
    pub(crate) identity: PathBuf,
    pub(crate) known_hosts: PathBuf,
    pub(crate) login: PathBuf,
    /// An empty file, for whatever must not come from the user's own configuration.
    pub(crate) empty: PathBuf,
    pub(crate) client_key: PrivateKey,
}

impl Home {
    pub(crate) fn create() -> io::Result<Self> {
        let directory = tempfile::Builder::new().prefix("ssm-lab-").tempdir()?;
        // The system's temporary directory may be a link, and what the login directory is called must not depend on it.
        let path = directory.path().canonicalize()?;
        let home = Self {
            identity: path.join("id_ed25519"),
            known_hosts: path.join("known_hosts"),
            login: path.join("home"),
            empty: path.join("empty"),
            client_key: new_key("ssm-lab client")?,
            directory,
        };
        fs::create_dir(&home.login)?;
        fs::write(&home.empty, "")?;
        write_key(&home.client_key, &home.identity)?;
        Ok(home)
    }

    /// Notes a node's host key where clients of the lab look for it, so that they need not believe the first they see.
    pub(crate) fn record_host_key(&self, node: &str, key: &PrivateKey) -> io::Result<()> {
        let line = format!("{node} {}\n", key.public_key().to_openssh().map_err(io::Error::other)?);
        let mut file = OpenOptions::new().append(true).create(true).mode(0o600).open(&self.known_hosts)?;
        file.write_all(line.as_bytes())
    }

    /// Makes the login directory of one more node.
    pub(crate) fn add_login(&self, node: &str) -> io::Result<PathBuf> {
        let login = self.login_of(node);
        fs::create_dir(&login).map(|()| login)
    }

    pub(crate) fn login_of(&self, node: &str) -> PathBuf {
        self.login.with_file_name(format!("home-{node}"))
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }
}

/// A fresh Ed25519 key.
pub(crate) fn new_key(comment: &str) -> io::Result<PrivateKey> {
    let mut key = PrivateKey::random(&mut rand::rng(), Algorithm::Ed25519).map_err(io::Error::other)?;
    key.set_comment(comment);
    Ok(key)
}

/// Writes a private key that only its owner can read.
pub(crate) fn write_key(key: &PrivateKey, path: &Path) -> io::Result<()> {
    let text = key.to_openssh(LineEnding::LF).map_err(io::Error::other)?;
    OpenOptions::new().write(true).create_new(true).mode(0o400).open(path)?.write_all(text.as_bytes())
}
