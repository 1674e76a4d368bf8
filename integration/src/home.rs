//! The lab's directory: one-time keys, the files that the environment points to, and a login directory.

mod leftovers;

use std::{
    fs::{DirBuilder, File, OpenOptions, Permissions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use russh::keys::{Algorithm, PrivateKey, ssh_key::LineEnding};
use tempfile::TempDir;

/// How the names of the lab's directories begin.
const PREFIX: &str = "ssm-lab-";

/// A temporary directory that only its owner can look into, removed on drop.
#[derive(Debug)]
pub(crate) struct Home {
    directory: TempDir,
    /// Locked for as long as this lab lives, so that a later one can tell.
    _alive: File,
    pub(crate) identity: PathBuf,
    pub(crate) known_hosts: PathBuf,
    pub(crate) login: PathBuf,
    /// An empty file, for whatever must not come from the user's own configuration.
    pub(crate) empty: PathBuf,
    pub(crate) client_key: PrivateKey,
}

impl Home {
    /// Makes one, and removes those of labs that were killed.
    pub(crate) fn create() -> io::Result<Self> {
        leftovers::remove(&std::env::temp_dir());
        let private = Permissions::from_mode(0o700);
        let directory = tempfile::Builder::new().prefix(PREFIX).permissions(private).tempdir()?;
        // The system's temporary directory may be a link, and what the login directory is called must not depend on it.
        let path = directory.path().canonicalize()?;
        let home = Self {
            identity: path.join("id_ed25519"),
            known_hosts: path.join("known_hosts"),
            login: path.join("home"),
            empty: path.join("empty"),
            client_key: new_key("ssm-lab client")?,
            _alive: leftovers::mark(&path)?,
            directory,
        };
        create_private_dir(&home.login)?;
        write_private(&home.empty, "")?;
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
        create_private_dir(&login).map(|()| login)
    }

    pub(crate) fn login_of(&self, node: &str) -> PathBuf {
        self.login.with_file_name(format!("home-{node}"))
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }
}

fn create_private_dir(path: &Path) -> io::Result<()> {
    DirBuilder::new().mode(0o700).create(path)
}

/// Writes a new file that only its owner can read.
pub(crate) fn write_private(path: &Path, text: &str) -> io::Result<()> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?.write_all(text.as_bytes())
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

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        path.metadata().unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn nobody_else_can_look_into_the_labs_directory_or_its_files() {
        let home = Home::create().unwrap();
        let another = home.add_login("i-0").unwrap();
        home.record_host_key("i-0", &new_key("x").unwrap()).unwrap();
        for directory in [home.path(), &home.login, &another] {
            assert_eq!(mode(directory), 0o700, "{}", directory.display());
        }
        for file in std::fs::read_dir(home.path()).unwrap().map(|entry| entry.unwrap().path()) {
            assert_eq!(mode(&file) & 0o077, 0, "{}", file.display());
        }
    }
}
