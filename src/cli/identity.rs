//! From key files to keys to log in with.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::agent::{self, Source, in_order};
use super::askpass::{self, AskError};
use super::report;
use super::settings::{Askpass, ConnectionSettings, IdentityFiles};
use super::waiting::Waiting;
use crate::files::Opened;
use crate::ssh::{AgentKey, Identity, KeyError, KeyFile, PrivateKey};

/// What is waited for, as messages call it.
pub(super) const AGENT: &str = "the SSH agent";
pub(super) const KEY: &str = "the private key to be decrypted";

/// How often a passphrase is asked for, as in OpenSSH.
const TRIES: usize = 3;

/// How the line of a public key begins.
const PUBLIC_KEY_TYPES: [&str; 3] = ["ssh-", "ecdsa-sha2-", "sk-"];
const LONGEST_TYPE: usize = 16;
/// No file of a public key is larger.
const LARGEST_PUBLIC_KEY: usize = 64 * 1024;

/// There is no key to log in with.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum IdentityError {
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error("no private key to log in with: none of {} can be used{}", list(.tried), in_vain(.agent.as_deref()))]
    NoneUsable {
        tried: Vec<PathBuf>,
        /// Why the agent was of no help.
        agent: Option<String>,
    },
    #[error("{} is a public key, and no private key belongs to it here{}", path.display(), in_vain(.agent.as_deref()))]
    PublicAlone { path: PathBuf, agent: Option<String> },
    #[error("no private key to log in with: there is no home directory to look for one in")]
    NoHome,
    #[error("the private key {} needs a passphrase, and BatchMode forbids to ask", path.display())]
    BatchMode { path: PathBuf },
    #[error("the private key {} needs a passphrase", path.display())]
    Ask { path: PathBuf, source: AskError },
}

fn list(paths: &[PathBuf]) -> String {
    paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
}

fn in_vain(agent: Option<&str>) -> String {
    agent.map(|why| format!("; {why}")).unwrap_or_default()
}

/// Finds the keys, those of the agent too, and opens the files, asking for passphrases where that is needed. Nothing else has been begun yet, so a key that
/// is refused costs no session.
///
/// Cancelling it gives the terminal back.
pub(crate) async fn load(settings: &ConnectionSettings) -> Result<Vec<Identity>, IdentityError> {
    hide_memory();
    let asking = Waiting::begin(AGENT, settings.tells_waits());
    let (held, in_vain) = agent::keys(&settings.agent).await;
    drop(asking);
    let only_named = settings.agent.identities_only;
    let unlock = Unlock {
        batch_mode: settings.batch_mode,
        tells_waits: settings.tells_waits(),
        askpass: settings.askpass.as_ref(),
        in_vain,
    };
    match &settings.identities {
        IdentityFiles::Named(paths) => {
            // All are judged before the first question.
            let files = paths.iter().map(|path| Named::open(path)).collect::<Result<Vec<_>, _>>()?;
            unlock.named(in_order(held, files, true, only_named, |key, file| file.is_half_of(key))).await
        }
        IdentityFiles::Usual(paths) => {
            let files = paths.iter().filter_map(|path| open_if_usable(path, !settings.is_quiet())).collect();
            let sources =
                in_order(held, files, false, only_named, |key, file| public_half(file) == Some(key.public_key()));
            unlock.usual(sources, paths, !settings.is_quiet()).await
        }
    }
}

/// From now on there is a key in memory: no core of this process is written, and nobody else of this user reads it. A system
/// that cannot do it does without.
fn hide_memory() {
    #[cfg(target_os = "linux")]
    let hidden = rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable);
    #[cfg(not(target_os = "linux"))]
    let hidden = {
        use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
        setrlimit(Resource::Core, Rlimit { current: Some(0), ..getrlimit(Resource::Core) })
    };
    if let Err(error) = hidden {
        tracing::debug!(%error, "a core of this process would show its keys");
    }
}

/// A file that was asked for.
struct Named {
    path: PathBuf,
    /// Of a public key alone this is the error of reading it as a private one.
    file: Result<KeyFile, KeyError>,
    public_key: Option<String>,
}

impl Named {
    /// With an agent the public half is enough: the private one may be in a token, or on another machine.
    fn open(path: &Path) -> Result<Self, KeyError> {
        let public_alone = path.extension().is_some_and(|extension| extension == "pub");
        let path = path.to_owned();
        let file = KeyFile::open(&path);
        let public_key = match &file {
            Ok(file) => public_half(file),
            Err(_) if public_alone => public_line(&path),
            Err(KeyError::Unreadable { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                public_beside(&path)
            }
            Err(_) => None,
        };
        if public_key.is_none() {
            return Ok(Self { path, file: Ok(file?), public_key });
        }
        Ok(Self { path, file, public_key })
    }

    fn is_half_of(&self, key: &AgentKey) -> bool {
        self.public_key.as_ref() == Some(&key.public_key())
    }
}

/// Whether the path leads to a file: only its public half may be there.
fn is_readable(path: &Path) -> bool {
    Opened::open(path).is_ok()
}

/// The public half of a file, from beside it where the file does not tell.
fn public_half(file: &KeyFile) -> Option<String> {
    file.public_key().or_else(|| public_beside(file.path()))
}

fn public_beside(path: &Path) -> Option<String> {
    let mut name = path.as_os_str().to_owned();
    name.push(".pub");
    public_line(Path::new(&name))
}

/// The type and the key of a public key file, without its comment. What does not begin as one is not read: it may be a
/// private key, whose file is judged by other rules.
fn public_line(path: &Path) -> Option<String> {
    let mut file = Opened::open(path).ok()?;
    let begins_as_public = |begin: &[u8]| PUBLIC_KEY_TYPES.iter().any(|name| begin.starts_with(name.as_bytes()));
    if !begins_as_public(&file.peek(LONGEST_TYPE).ok()?) {
        return None;
    }
    let content = file.read(LARGEST_PUBLIC_KEY).ok()?;
    let mut words = content.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
    let mut word = || str::from_utf8(words.next()?).ok();
    Some(format!("{} {}", word()?, word()?))
}

struct Unlock<'a> {
    batch_mode: bool,
    tells_waits: bool,
    askpass: Option<&'a Askpass>,
    /// Why the agent is of no help.
    in_vain: Option<String>,
}

impl Unlock<'_> {
    async fn named(&self, sources: Vec<Source<AgentKey, Named>>) -> Result<Vec<Identity>, IdentityError> {
        let judge = |source: Source<AgentKey, Named>| match source {
            Source::Held(key) => Ok(Source::Held(key)),
            Source::File(Named { path, file: Err(_), public_key: Some(_) }) if is_readable(&path) => {
                Err(IdentityError::PublicAlone { path, agent: self.in_vain.clone() })
            }
            Source::File(named) => Ok(Source::File(named.file?)),
        };
        let sources = sources.into_iter().map(judge).collect::<Result<Vec<_>, IdentityError>>()?;
        let mut keys = Vec::with_capacity(sources.len());
        for source in sources {
            keys.push(match source {
                Source::Held(key) => key.into(),
                Source::File(file) => self.key(Arc::new(file)).await?.into(),
            });
        }
        Ok(keys)
    }

    /// The agent's keys and those in the usual places that need no question; only where there is none, the first that
    /// needs one.
    async fn usual(
        &self,
        sources: Vec<Source<AgentKey, KeyFile>>,
        paths: &[PathBuf],
        warn: bool,
    ) -> Result<Vec<Identity>, IdentityError> {
        let (mut keys, mut locked) = (Vec::new(), None);
        for source in sources {
            match source {
                Source::Held(key) => keys.push(key.into()),
                Source::File(file) if file.is_encrypted() => locked = locked.or(Some(file)),
                Source::File(file) => keys.extend(usable(file.decode(None), warn).map(Identity::from)),
            }
        }
        match locked {
            _ if !keys.is_empty() => Ok(keys),
            Some(file) => Ok(vec![self.key(Arc::new(file)).await?.into()]),
            None if paths.is_empty() => Err(IdentityError::NoHome),
            None => Err(IdentityError::NoneUsable { tried: paths.to_vec(), agent: self.in_vain.clone() }),
        }
    }

    async fn key(&self, file: Arc<KeyFile>) -> Result<PrivateKey, IdentityError> {
        if !file.is_encrypted() {
            return Ok(file.decode(None)?);
        }
        let path = || file.path().to_owned();
        if self.batch_mode {
            return Err(IdentityError::BatchMode { path: path() });
        }
        let name = report::escape(&file.path().to_string_lossy());
        let mut prompt = format!("Passphrase for `{name}`: ");
        for _ in 1..TRIES {
            let passphrase = self.ask(&file, &prompt).await?;
            match decrypted(&file, passphrase, self.tells_waits).await {
                Err(KeyError::WrongPassphrase { .. }) => {}
                decoded => return Ok(decoded?),
            }
            prompt = format!("Wrong passphrase, try again for `{name}`: ");
        }
        let passphrase = self.ask(&file, &prompt).await?;
        Ok(decrypted(&file, passphrase, self.tells_waits).await?)
    }

    async fn ask(&self, file: &KeyFile, prompt: &str) -> Result<askpass::Secret, IdentityError> {
        let answer = askpass::ask(prompt, self.askpass).await;
        answer.map_err(|source| IdentityError::Ask { path: file.path().to_owned(), source })
    }
}

/// A key is derived from the passphrase by so much work that a signal would have to wait for it. Cancelled, it goes on in a
/// thread of its own.
async fn decrypted(file: &Arc<KeyFile>, passphrase: askpass::Secret, tells: bool) -> Result<PrivateKey, KeyError> {
    let _waiting = Waiting::begin(KEY, tells);
    let file = Arc::clone(file);
    let decoded = tokio::task::spawn_blocking(move || file.decode(Some(&passphrase))).await;
    decoded.unwrap_or_else(|gone| std::panic::resume_unwind(gone.into_panic()))
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
            report::note(&format!("warning: {}; the key is left out", report::with_causes(error)));
        }
    };
    result.inspect_err(warned).ok()
}
