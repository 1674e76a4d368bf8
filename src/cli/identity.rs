//! From key files to keys to log in with.

use std::io;
use std::path::{Path, PathBuf};

use super::askpass::{self, AskError};
use super::report;
use super::settings::{Askpass, ConnectionSettings, IdentityFiles};
use crate::ssh::{KeyError, KeyFile, PrivateKey};

/// How often a passphrase is asked for, as in OpenSSH.
const TRIES: usize = 3;

/// There is no key to log in with.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum IdentityError {
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error("no private key to log in with: none of {} can be used", list(.tried))]
    NoneUsable { tried: Vec<PathBuf> },
    #[error("no private key to log in with: there is no home directory to look for one in")]
    NoHome,
    #[error("the private key {} needs a passphrase, and BatchMode forbids to ask", path.display())]
    BatchMode { path: PathBuf },
    #[error("the private key {} needs a passphrase: {source}", path.display())]
    Ask { path: PathBuf, source: AskError },
}

fn list(paths: &[PathBuf]) -> String {
    paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
}

/// Reads and opens the keys, asking for passphrases where that is needed. Nothing else has been begun yet, so a key that
/// is refused costs no session.
///
/// Cancelling it gives the terminal back.
pub(crate) async fn load(settings: &ConnectionSettings) -> Result<Vec<PrivateKey>, IdentityError> {
    let unlock = Unlock { batch_mode: settings.batch_mode, askpass: settings.askpass.as_ref() };
    match &settings.identities {
        IdentityFiles::Named(paths) => {
            // All are judged before the first question.
            let files = paths.iter().map(KeyFile::open).collect::<Result<Vec<_>, _>>()?;
            let mut keys = Vec::with_capacity(files.len());
            for file in &files {
                keys.push(unlock.key(file).await?);
            }
            Ok(keys)
        }
        IdentityFiles::Usual(paths) => unlock.usual(paths, !settings.is_quiet()).await,
    }
}

struct Unlock<'a> {
    batch_mode: bool,
    askpass: Option<&'a Askpass>,
}

impl Unlock<'_> {
    /// The keys in the usual places that need no question; only where there is none, the first that needs one.
    async fn usual(&self, paths: &[PathBuf], warn: bool) -> Result<Vec<PrivateKey>, IdentityError> {
        if paths.is_empty() {
            return Err(IdentityError::NoHome);
        }
        let files: Vec<_> = paths.iter().filter_map(|path| open_if_usable(path, warn)).collect();
        let (locked, open): (Vec<_>, Vec<_>) = files.iter().partition(|file| file.is_encrypted());
        let keys: Vec<_> = open.into_iter().filter_map(|file| usable(file.decode(None), warn)).collect();
        match locked.first() {
            _ if !keys.is_empty() => Ok(keys),
            Some(file) => Ok(vec![self.key(file).await?]),
            None => Err(IdentityError::NoneUsable { tried: paths.to_vec() }),
        }
    }

    async fn key(&self, file: &KeyFile) -> Result<PrivateKey, IdentityError> {
        if !file.is_encrypted() {
            return Ok(file.decode(None)?);
        }
        let path = || file.path().to_owned();
        if self.batch_mode {
            return Err(IdentityError::BatchMode { path: path() });
        }
        let mut prompt = format!("Passphrase for `{}`: ", report::escape(&file.path().to_string_lossy()));
        for _ in 1..TRIES {
            let passphrase = self.ask(file, &prompt).await?;
            match file.decode(Some(&passphrase)) {
                Err(KeyError::WrongPassphrase { .. }) => {}
                decoded => return Ok(decoded?),
            }
            if !prompt.starts_with("Wrong") {
                prompt.insert_str(0, "Wrong. ");
            }
        }
        let passphrase = self.ask(file, &prompt).await?;
        Ok(file.decode(Some(&passphrase))?)
    }

    async fn ask(&self, file: &KeyFile, prompt: &str) -> Result<askpass::Secret, IdentityError> {
        let answer = askpass::ask(prompt, self.askpass).await;
        answer.map_err(|source| IdentityError::Ask { path: file.path().to_owned(), source })
    }
}

/// Nobody named this file, so that it is missing is no mistake, and that it is unusable is a warning.
fn open_if_usable(path: &Path, warn: bool) -> Option<KeyFile> {
    match KeyFile::open(path) {
        Err(KeyError::Unreadable { source, .. }) if source.kind() == io::ErrorKind::NotFound => None,
        opened => usable(opened, warn),
    }
}

fn usable<T>(result: Result<T, KeyError>, warn: bool) -> Option<T> {
    let warned = |error: &KeyError| {
        if warn {
            report::note(&format!("warning: {error}; the key is left out"));
        }
    };
    result.inspect_err(warned).ok()
}
