//! Which host keys are believed: the policy, and the file that they are kept in.

use std::{
    fs::{DirBuilder, File},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt},
    path::{Path, PathBuf},
};

use russh::keys::{Algorithm, PublicKey};
use rustix::fs::{Mode, OFlags};

mod error;
mod forget;
#[cfg(test)]
mod tests;

use super::{
    algorithms,
    known_hosts::{HostKeyBlob, Oddity, Record, Records, Verdict, host_name, is_host, judge, records},
    quote,
};
use crate::files::{self, FileFault, Opened, Ownership};

pub use error::HostKeyError;

/// The largest file of known hosts: more than 100,000 lines.
const LARGEST_FILE: usize = 16 * 1024 * 1024;

/// The shortest RSA key that is believed, as in OpenSSH's distributions and NIST SP 800-131A.
const MIN_RSA_BITS: usize = 2048;

/// What happens with a host key, spelled as OpenSSH spells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StrictHostKeyChecking {
    /// Refuse a host that is not on record, and a changed or revoked key.
    Yes,
    /// Record the key of a host that is not on record; refuse a changed or revoked key.
    AcceptNew,
    /// Check nothing: accept whatever key the server shows, revoked ones included, and record none. Whoever intercepts the
    /// connection is let in. An objection is logged as a warning. Weak RSA keys are refused all the same.
    Off,
}

/// Decides about a server's host key.
#[derive(Debug, Clone)]
pub struct HostKeyCheck {
    policy: Option<StrictHostKeyChecking>,
    /// All are read; new keys go into the first.
    known_hosts: Vec<PathBuf>,
    /// As it is recorded; an error of the caller's that shows when the check is used.
    name: Result<String, String>,
    /// The only key that is accepted.
    pinned: Option<HostKey>,
}

/// A host key that was accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct HostKey {
    /// The key's type, as in `ssh-ed25519`.
    pub key_type: String,
    /// The SHA-256 fingerprint, as `ssh-keygen -l` prints it.
    pub fingerprint: String,
    /// Whether it was recorded just now.
    pub newly_recorded: bool,
    /// Whether a file of known hosts has it, so that the next connection can tell a change.
    pub is_recorded: bool,
}

/// A key that may be accepted once the signature with it is judged too.
#[derive(Debug)]
pub(super) struct Examined {
    pub(super) key: HostKey,
    blob: HostKeyBlob,
    is_new: bool,
}

impl HostKeyCheck {
    /// A check for `host` and `port` against a file in OpenSSH's format. The file, and the directories to it, are made
    /// when the first key is recorded. `/dev/null` is no file: every host is new, and no key is recorded.
    ///
    /// A `host` that a line of such a file cannot carry is [`HostKeyError::NotAHost`] when a connection is made.
    pub fn new(policy: StrictHostKeyChecking, known_hosts: PathBuf, host: &str, port: u16) -> Self {
        Self::with_files(policy, vec![known_hosts], host, port)
    }

    /// The same with any number of files: all are read, and new keys are recorded in the first. Without a file every host
    /// is new.
    pub fn with_files(policy: StrictHostKeyChecking, mut known_hosts: Vec<PathBuf>, host: &str, port: u16) -> Self {
        known_hosts.retain(|path| path != Path::new("/dev/null"));
        let name = if is_host(host) { Ok(host_name(host, port)) } else { Err(host.escape_debug().take(80).collect()) };
        Self { policy: Some(policy), known_hosts, name, pinned: None }
    }

    /// Accepts no other key than `key`, whatever the policy, and that one as far as the policy does: for another
    /// connection to a host that has shown it.
    #[must_use]
    pub fn pinned(self, key: HostKey) -> Self {
        Self { pinned: Some(key), ..self }
    }

    /// Refuses every key.
    pub(super) fn none() -> Self {
        Self { policy: None, known_hosts: Vec::new(), name: Ok(String::new()), pinned: None }
    }

    /// The types of the keys on record for the host. Cancel safe.
    pub(super) async fn known_types(&self) -> Result<Vec<String>, HostKeyError> {
        self.name()?;
        match self.policy {
            None => Err(HostKeyError::NoPolicy),
            Some(_) if let Some(key) = &self.pinned => Ok(vec![key.key_type.clone()]),
            Some(StrictHostKeyChecking::Off) => Ok(self.on_file(Self::read_types).await.unwrap_or_default()),
            Some(_) => self.on_file(Self::read_types).await,
        }
    }

    /// Decides about the key that the server has proven to hold; nothing is recorded yet. Cancel safe.
    pub(super) async fn examine(&self, shown: &PublicKey) -> Result<Examined, HostKeyError> {
        let Some(blob) = shown.to_bytes().ok().and_then(HostKeyBlob::new) else {
            return Err(HostKeyError::Malformed);
        };
        let bits = shown.key_data().rsa().map(|key| usize::try_from(key.key_size()).unwrap_or_default());
        if let Some(bits) = bits.filter(|&bits| bits < MIN_RSA_BITS) {
            return Err(HostKeyError::WeakRsa { host: self.name()?, bits });
        }
        self.on_file(move |check| check.decide(blob)).await
    }

    /// Whether the key is of the kind that was agreed on.
    pub(super) fn has_agreed_type(&self, examined: &Examined, agreed: &Algorithm) -> Result<(), HostKeyError> {
        let used = examined.blob.key_type();
        self.is_as_agreed(used == algorithms::key_type(agreed), agreed.as_str(), used)
    }

    /// Whether the signature, as it came, was made with the algorithm that was agreed on.
    pub(super) fn has_agreed_signature(&self, signature: &[u8], agreed: &str) -> Result<(), HostKeyError> {
        let used = HostKeyBlob::new(signature.to_vec()).ok_or(HostKeyError::Malformed)?;
        self.is_as_agreed(used.key_type() == agreed, agreed, used.key_type())
    }

    fn is_as_agreed(&self, is_so: bool, agreed: &str, used: &str) -> Result<(), HostKeyError> {
        if is_so {
            return Ok(());
        }
        let used = used.escape_debug().take(80).collect();
        Err(HostKeyError::NotAsAgreed { host: self.name()?, agreed: agreed.to_owned(), used })
    }

    /// Records a key that is new. Where that is not possible it is accepted for this connection, with a warning, as ssh
    /// does. Cancelling it may leave the key recorded.
    pub(super) async fn record(&self, examined: Examined) -> Result<HostKey, HostKeyError> {
        if !examined.is_new {
            return Ok(examined.key);
        }
        self.on_file(move |check| check.record_in_file(&examined)).await
    }

    /// Files are slow: they are read on a thread that may wait.
    async fn on_file<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Self) -> Result<T, HostKeyError> + Send + 'static,
    ) -> Result<T, HostKeyError> {
        let check = self.clone();
        let done = tokio::task::spawn_blocking(move || work(&check)).await;
        done.unwrap_or_else(|stopped| {
            let path = self.known_hosts.first().cloned().unwrap_or_default();
            Err(HostKeyError::Unreadable { path, source: io::Error::other(stopped) })
        })
    }

    fn name(&self) -> Result<String, HostKeyError> {
        self.name.clone().map_err(|host| HostKeyError::NotAHost { host })
    }

    fn read_types(&self) -> Result<Vec<String>, HostKeyError> {
        let mut types = Vec::new();
        for path in &self.known_hosts {
            let file = read(path)?;
            if let Some(ownership) = file.as_ref().map(|file| file.ownership) {
                warn_of_writers(path, ownership);
            }
            types.extend(self.records_of(file).types().map(ToOwned::to_owned));
        }
        Ok(types)
    }

    fn decide(&self, blob: HostKeyBlob) -> Result<Examined, HostKeyError> {
        let policy = self.policy.ok_or(HostKeyError::NoPolicy)?;
        self.compare_with_pinned(&blob)?;
        if policy == StrictHostKeyChecking::Off {
            if let Err(objection) = self.is_known(&blob) {
                tracing::warn!("{objection}; accepted all the same: StrictHostKeyChecking is off");
            }
            return Ok(Examined { key: accepted(&blob, false), blob, is_new: false });
        }
        let is_new = !self.is_known(&blob)?;
        if is_new && policy == StrictHostKeyChecking::Yes {
            return Err(HostKeyError::Unknown { host: self.name()?, shown: blob.to_string() });
        }
        Ok(Examined { key: accepted(&blob, !is_new), blob, is_new })
    }

    fn compare_with_pinned(&self, shown: &HostKeyBlob) -> Result<(), HostKeyError> {
        match &self.pinned {
            Some(key) if (key.key_type.as_str(), &key.fingerprint) != (shown.key_type(), &shown.fingerprint()) => {
                let expected = format!("{} {}", key.key_type, key.fingerprint);
                Err(HostKeyError::NotPinned { host: self.name()?, shown: shown.to_string(), expected })
            }
            _ => Ok(()),
        }
    }

    /// Whether the key is on record; an error if it must not be accepted.
    fn is_known(&self, shown: &HostKeyBlob) -> Result<bool, HostKeyError> {
        let mut verdicts = Vec::with_capacity(self.known_hosts.len());
        for path in &self.known_hosts {
            verdicts.push((judge(&self.records_of(read(path)?), shown), path));
        }
        // What stands against the key in any file outweighs what stands for it in another.
        verdicts.sort_by_key(|(verdict, _)| verdict.weight());
        verdicts.into_iter().next().map_or(Ok(false), |(verdict, path)| self.heed(verdict, path, shown))
    }

    fn heed(&self, verdict: Verdict, path: &Path, shown: &HostKeyBlob) -> Result<bool, HostKeyError> {
        let (host, known_hosts, shown) = (self.name()?, path.to_owned(), shown.to_string());
        match verdict {
            Verdict::Known => Ok(true),
            Verdict::Unknown => Ok(false),
            Verdict::Changed(Record { key, line, .. }) => {
                Err(HostKeyError::Changed { host, shown, known: key.to_string(), known_hosts, line })
            }
            Verdict::Revoked(Record { line, .. }) => Err(HostKeyError::Revoked { host, shown, known_hosts, line }),
            Verdict::Odd(Oddity { line, what, .. }) => Err(HostKeyError::Odd { host, known_hosts, line, what }),
        }
    }

    /// Adds the key to the first file, unless another process was faster.
    fn record_in_file(&self, examined: &Examined) -> Result<HostKey, HostKeyError> {
        let Some(path) = self.known_hosts.first() else { return Ok(examined.key.clone()) };
        let mut file = match lock_to_append(path) {
            Ok(file) => file,
            Err(error) => {
                self.warn_unrecorded(path, &error);
                return Ok(examined.key.clone());
            }
        };
        // Under the lock, and by this very file: another process may have recorded the host meanwhile.
        let content = read_opened(path, &file)?;
        let verdict = judge(&records(&content, &self.name()?), &examined.blob);
        if self.heed(verdict, path, &examined.blob)? {
            return Ok(HostKey { is_recorded: true, ..examined.key.clone() });
        }
        let separator = if content.last().is_some_and(|&last| last != b'\n') { "\n" } else { "" };
        let line = format!("{separator}{}\n", examined.blob.line_for(&self.name()?));
        if let Err(error) = file.write_all(line.as_bytes()) {
            self.warn_unrecorded(path, &error);
            // A half line would be a line that cannot be understood.
            let _ = file.set_len(u64::try_from(content.len()).unwrap_or(u64::MAX));
            return Ok(examined.key.clone());
        }
        Ok(HostKey { newly_recorded: true, is_recorded: true, ..examined.key.clone() })
    }

    fn warn_unrecorded(&self, path: &Path, error: &io::Error) {
        let (host, path) = (self.name.as_deref().unwrap_or_default(), quote::path(path));
        tracing::warn!("cannot record the host key of {host} in {path}: {error}; it is accepted for this run only");
    }

    fn records_of(&self, file: Option<KnownHosts>) -> Records {
        file.map_or_else(Records::default, |file| records(&file.content, self.name.as_deref().unwrap_or_default()))
    }
}

/// A file of known hosts as it was read.
struct KnownHosts {
    content: Vec<u8>,
    ownership: Ownership,
}

/// The file as it is now; nothing where there is none.
fn read(path: &Path) -> Result<Option<KnownHosts>, HostKeyError> {
    let read = || {
        let mut file = Opened::open(path)?;
        Ok(KnownHosts { content: file.read(LARGEST_FILE)?.to_vec(), ownership: file.ownership })
    };
    match read() {
        Ok(file) => Ok(Some(file)),
        Err(fault) if FileFault::is_missing(&fault) => Ok(None),
        Err(fault) => Err(HostKeyError::Unreadable { path: path.to_owned(), source: fault.into() }),
    }
}

fn read_opened(path: &Path, file: &File) -> Result<Vec<u8>, HostKeyError> {
    let read = |file: File| Ok::<_, FileFault>(Opened::judge(file)?.read(LARGEST_FILE)?.to_vec());
    let unreadable = |source| HostKeyError::Unreadable { path: path.to_owned(), source };
    read(file.try_clone().map_err(unreadable)?).map_err(|fault| unreadable(fault.into()))
}

/// Who may change the file decides which host keys are believed.
fn warn_of_writers(path: &Path, ownership: Ownership) {
    let directory = path.parent().filter(|directory| !directory.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let sticky = 0o1000;
    let directory = std::fs::metadata(directory).map(|metadata| Ownership::of(&metadata));
    let is_open = |of: Ownership| of.others_may_write() && !(of.is_trusted() && of.mode & sticky != 0);
    let path = quote::path(path);
    if ownership.others_may_write() {
        tracing::warn!("others may write the known hosts in {path}, and so decide which host keys are accepted");
    } else if directory.is_ok_and(is_open) {
        tracing::warn!("others may write the directory of {path}, and so decide which host keys are accepted");
    }
}

fn accepted(shown: &HostKeyBlob, is_recorded: bool) -> HostKey {
    let (key_type, fingerprint) = (shown.key_type().to_owned(), shown.fingerprint());
    HostKey { key_type, fingerprint, newly_recorded: false, is_recorded }
}

/// Opens the file for this process alone among those that record keys; dropping it unlocks it.
fn lock_to_append(path: &Path) -> io::Result<File> {
    if let Some(directory) = path.parent().filter(|directory| !directory.as_os_str().is_empty()) {
        DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    }
    let flags = OFlags::RDWR | OFlags::APPEND | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    loop {
        let file = File::from(rustix::fs::open(path, flags, Mode::RUSR | Mode::WUSR)?);
        let locked = file.metadata()?;
        if !locked.is_file() {
            return Err(FileFault::NotAFile(files::kind_of(locked.file_type())).into());
        }
        file.lock()?;
        // Whoever had the lock may have put another file in this one's place.
        let there = std::fs::metadata(path);
        if there.is_ok_and(|there| (there.dev(), there.ino()) == (locked.dev(), locked.ino())) {
            return Ok(file);
        }
    }
}
