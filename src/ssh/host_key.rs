//! Which host keys are believed: the policy, and the file that they are kept in.

use std::{
    fs::{DirBuilder, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use russh::keys::PublicKey;

use super::{
    known_hosts::{HostKeyBlob, Record, Verdict, host_name, judge, records},
    quote,
};

/// What happens with a host key, spelled as OpenSSH spells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StrictHostKeyChecking {
    /// Refuse a host that is not on record, and a changed or revoked key.
    Yes,
    /// Record the key of a host that is not on record; refuse a changed or revoked key.
    AcceptNew,
    /// Accept whatever key the server shows, revoked ones included, and record none. Whoever sits in between is let in. A
    /// key that is on record otherwise is warned of in the log.
    Off,
}

/// Decides about a server's host key.
#[derive(Debug, Clone)]
pub struct HostKeyCheck {
    policy: Option<StrictHostKeyChecking>,
    known_hosts: PathBuf,
    name: String,
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
}

/// Why a host key was not accepted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HostKeyError {
    /// The caller did not say which host keys are accepted.
    #[error("no policy for host keys was given")]
    NoPolicy,
    /// What the server calls its host key cannot be written down.
    #[error("the server's host key makes no sense")]
    Malformed,
    /// The file of known hosts cannot be read.
    #[error("cannot read the known hosts in {}: {source}", quote::path(.path))]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A new host key cannot be recorded.
    #[error(
        "cannot record the host key in {}: {source}; name a file that can be written, or connect with \
         StrictHostKeyChecking=off, which checks nothing", quote::path(.path)
    )]
    Unwritable {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The host is not on record, and the policy is to refuse those. Keys are given as type and fingerprint.
    #[error(
        "the host key of {host} is not known: {shown}; compare it with what `ssh-keygen -l` prints on the host, then \
         connect once with StrictHostKeyChecking=accept-new to record it in {}", quote::path(.known_hosts)
    )]
    Unknown {
        /// The host as it would be recorded.
        host: String,
        /// The key that the server shows.
        shown: String,
        /// The file of known hosts.
        known_hosts: PathBuf,
    },
    /// The host is on record with another key.
    #[error(
        "the host key of {host} has changed, or somebody sits in between: the server shows {shown}, but {}:{line} has \
         {known}. If the host was installed anew, remove the old key with: {}", quote::path(.known_hosts), self.removal()
    )]
    Changed {
        /// The host as it is recorded.
        host: String,
        /// The key that the server shows.
        shown: String,
        /// The key on record.
        known: String,
        /// The file of known hosts.
        known_hosts: PathBuf,
        /// The line of the key on record.
        line: usize,
    },
    /// The key is marked as revoked.
    #[error(
        "the host key of {host} is revoked: {shown} ({}:{line}); whoever has it is not to be trusted",
        quote::path(.known_hosts)
    )]
    Revoked {
        /// The host.
        host: String,
        /// The key that the server shows.
        shown: String,
        /// The file of known hosts.
        known_hosts: PathBuf,
        /// The line that revokes it.
        line: usize,
    },
    /// It is not the key that it has to be. Keys are given as type and fingerprint.
    #[error("{host} shows another host key than before: {shown}, not {expected}")]
    NotPinned {
        /// The host as it would be recorded.
        host: String,
        /// The key that the server shows.
        shown: String,
        /// The key that was accepted before.
        expected: String,
    },
}

impl HostKeyError {
    /// The command that removes the old key.
    fn removal(&self) -> String {
        match self {
            Self::Changed { host, known_hosts, .. } => {
                format!("ssh-keygen -R {} -f {}", quote::text(host), quote::path(known_hosts))
            }
            _ => String::new(),
        }
    }
}

impl HostKeyCheck {
    /// A check for `host` and `port` against a file in OpenSSH's format. The file, and the directories to it, are made
    /// when the first key is recorded.
    pub fn new(policy: StrictHostKeyChecking, known_hosts: PathBuf, host: &str, port: u16) -> Self {
        Self { policy: Some(policy), known_hosts, name: host_name(host, port), pinned: None }
    }

    /// Accepts no other key than `key`, whatever the policy, and that one as far as the policy does: for another
    /// connection to a host that has shown it.
    #[must_use]
    pub fn pinned(self, key: HostKey) -> Self {
        Self { pinned: Some(key), ..self }
    }

    /// Refuses every key.
    pub(super) fn none() -> Self {
        Self { policy: None, known_hosts: PathBuf::new(), name: String::new(), pinned: None }
    }

    /// The types of the keys on record for the host. Cancel safe.
    pub(super) async fn known_types(&self) -> Result<Vec<String>, HostKeyError> {
        match self.policy {
            None => Err(HostKeyError::NoPolicy),
            Some(_) if let Some(key) = &self.pinned => Ok(vec![key.key_type.clone()]),
            Some(StrictHostKeyChecking::Off) => Ok(self.on_file(Self::read_types).await.unwrap_or_default()),
            Some(_) => self.on_file(Self::read_types).await,
        }
    }

    /// Decides about the key that the server has proven to hold. Cancelling it may leave the key recorded.
    pub(super) async fn check(&self, shown: &PublicKey) -> Result<HostKey, HostKeyError> {
        let Some(shown) = shown.to_bytes().ok().and_then(HostKeyBlob::new) else {
            return Err(HostKeyError::Malformed);
        };
        self.on_file(move |check| check.decide(&shown)).await
    }

    /// Files are slow: they are read on a thread that may wait.
    async fn on_file<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Self) -> Result<T, HostKeyError> + Send + 'static,
    ) -> Result<T, HostKeyError> {
        let check = self.clone();
        let done = tokio::task::spawn_blocking(move || work(&check)).await;
        done.unwrap_or_else(|stopped| {
            Err(HostKeyError::Unreadable { path: self.known_hosts.clone(), source: io::Error::other(stopped) })
        })
    }

    fn read_types(&self) -> Result<Vec<String>, HostKeyError> {
        let records = records(&self.read()?, &self.name);
        let valid = records.iter().filter(|record| !record.revoked);
        Ok(valid.map(|record| record.key.key_type().to_owned()).collect())
    }

    fn decide(&self, shown: &HostKeyBlob) -> Result<HostKey, HostKeyError> {
        let policy = self.policy.ok_or(HostKeyError::NoPolicy)?;
        self.compare_with_pinned(shown)?;
        if policy == StrictHostKeyChecking::Off {
            if let Some(objection) = self.objection(shown) {
                tracing::warn!("{objection}; accepted all the same: StrictHostKeyChecking is off");
            }
            return Ok(accepted(shown, false));
        }
        if self.is_known(&self.read()?, shown)? {
            return Ok(accepted(shown, false));
        }
        match policy {
            StrictHostKeyChecking::AcceptNew => self.record(shown),
            _ => Err(self.unknown(shown)),
        }
    }

    /// What a check would have against the key, where there is a file to check with.
    fn objection(&self, shown: &HostKeyBlob) -> Option<HostKeyError> {
        self.is_known(&self.read().ok()?, shown).err()
    }

    fn compare_with_pinned(&self, shown: &HostKeyBlob) -> Result<(), HostKeyError> {
        match &self.pinned {
            Some(key) if (key.key_type.as_str(), &key.fingerprint) != (shown.key_type(), &shown.fingerprint()) => {
                let expected = format!("{} {}", key.key_type, key.fingerprint);
                Err(HostKeyError::NotPinned { host: self.name.clone(), shown: shown.to_string(), expected })
            }
            _ => Ok(()),
        }
    }

    /// Whether the key is on record; an error if it must not be accepted.
    fn is_known(&self, file: &[u8], shown: &HostKeyBlob) -> Result<bool, HostKeyError> {
        let (host, known_hosts) = (self.name.clone(), self.known_hosts.clone());
        match judge(&records(file, &self.name), shown) {
            Verdict::Known => Ok(true),
            Verdict::Unknown => Ok(false),
            Verdict::Changed(Record { key, line, .. }) => {
                Err(HostKeyError::Changed { host, shown: shown.to_string(), known: key.to_string(), known_hosts, line })
            }
            Verdict::Revoked(Record { line, .. }) => {
                Err(HostKeyError::Revoked { host, shown: shown.to_string(), known_hosts, line })
            }
        }
    }

    /// Adds the key to the file, unless another process was faster.
    fn record(&self, shown: &HostKeyBlob) -> Result<HostKey, HostKeyError> {
        let mut file = open_to_append(&self.known_hosts).map_err(|source| self.unwritable(source))?;
        let mut content = Vec::new();
        file.read_to_end(&mut content).map_err(|source| self.unwritable(source))?;
        if self.is_known(&content, shown)? {
            return Ok(accepted(shown, false));
        }
        let separator = if content.last().is_some_and(|&last| last != b'\n') { "\n" } else { "" };
        let line = format!("{separator}{}\n", shown.line_for(&self.name));
        file.write_all(line.as_bytes()).map_err(|source| self.unwritable(source))?;
        Ok(accepted(shown, true))
    }

    fn read(&self) -> Result<Vec<u8>, HostKeyError> {
        match std::fs::read(&self.known_hosts) {
            Ok(content) => Ok(content),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(source) => Err(HostKeyError::Unreadable { path: self.known_hosts.clone(), source }),
        }
    }

    fn unwritable(&self, source: io::Error) -> HostKeyError {
        HostKeyError::Unwritable { path: self.known_hosts.clone(), source }
    }

    fn unknown(&self, shown: &HostKeyBlob) -> HostKeyError {
        HostKeyError::Unknown {
            host: self.name.clone(),
            shown: shown.to_string(),
            known_hosts: self.known_hosts.clone(),
        }
    }
}

fn accepted(shown: &HostKeyBlob, newly_recorded: bool) -> HostKey {
    HostKey { key_type: shown.key_type().to_owned(), fingerprint: shown.fingerprint(), newly_recorded }
}

/// Opens the file for this process alone among those that record keys; dropping it unlocks it.
fn open_to_append(path: &Path) -> io::Result<File> {
    if let Some(directory) = path.parent().filter(|directory| !directory.as_os_str().is_empty()) {
        DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    }
    let file = OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(path)?;
    file.lock()?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use StrictHostKeyChecking::{AcceptNew, Off, Yes};

    use super::*;

    fn key(body: u8) -> HostKeyBlob {
        let mut blob = b"\0\0\0\x0bssh-ed25519".to_vec();
        blob.push(body);
        HostKeyBlob::new(blob).expect("a type")
    }

    fn check(policy: StrictHostKeyChecking, file: &Path) -> HostKeyCheck {
        HostKeyCheck::new(policy, file.to_owned(), "i-0abc", 2222)
    }

    #[test]
    fn accept_new_records_a_key_once_in_a_private_file() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("state/deep/known_hosts");
        assert!(check(AcceptNew, &file).decide(&key(1)).expect("accepted").newly_recorded);
        assert!(!check(AcceptNew, &file).decide(&key(1)).expect("accepted").newly_recorded);
        assert_eq!(std::fs::read_to_string(&file).expect("written"), key(1).line_for("[i-0abc]:2222") + "\n");
        let mode = |path: &Path| std::fs::metadata(path).expect("there").permissions().mode() & 0o777;
        assert_eq!((mode(&file), mode(file.parent().expect("deep"))), (0o600, 0o700));
    }

    #[test]
    fn a_new_line_is_not_glued_to_one_that_lacks_its_end() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("known_hosts");
        std::fs::write(&file, key(9).line_for("other")).expect("written");
        check(AcceptNew, &file).decide(&key(1)).expect("accepted");
        assert!(check(Yes, &file).decide(&key(1)).is_ok());
        assert!(HostKeyCheck::new(Yes, file, "other", 22).decide(&key(9)).is_ok());
    }

    #[test]
    fn a_changed_key_is_refused_with_both_fingerprints_and_the_command_that_removes_the_old_one() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("known hosts");
        check(AcceptNew, &file).decide(&key(1)).expect("accepted");
        let error = check(AcceptNew, &file).decide(&key(2)).expect_err("changed").to_string();
        let file = quote::path(&file);
        assert!(error.contains(&key(1).fingerprint()) && error.contains(&key(2).fingerprint()), "{error}");
        assert!(error.contains(&format!("{file}:1 has ssh-ed25519 SHA256:")), "{error}");
        assert!(error.ends_with(&format!("ssh-keygen -R '[i-0abc]:2222' -f {file}")), "{error}");
    }

    #[test]
    fn yes_refuses_a_host_that_is_not_on_record_and_writes_nothing() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("known_hosts");
        let error = check(Yes, &file).decide(&key(1)).expect_err("unknown").to_string();
        assert!(error.contains(&key(1).fingerprint()) && error.contains("accept-new"), "{error}");
        assert!(!file.exists());
    }

    #[test]
    fn off_accepts_everything_and_writes_no_file() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("known_hosts");
        std::fs::write(&file, format!("@revoked {}", key(1).line_for("*"))).expect("written");
        assert!(check(Off, &file).decide(&key(1)).is_ok());
        assert!(check(Off, &file).objection(&key(1)).is_some() && check(Off, &file).objection(&key(2)).is_none());
        let error = check(AcceptNew, &file).decide(&key(1)).expect_err("revoked");
        assert!(error.to_string().contains("is revoked"), "{error}");
        assert!(check(Off, &dir.path().join("none")).decide(&key(1)).is_ok());
        assert!(!dir.path().join("none").exists());
    }

    #[test]
    fn without_a_policy_every_key_is_refused() {
        assert!(matches!(HostKeyCheck::none().decide(&key(1)), Err(HostKeyError::NoPolicy)));
    }

    #[test]
    fn a_file_that_cannot_be_read_is_an_error_and_not_an_empty_one() {
        let dir = tempfile::tempdir().expect("a directory");
        assert!(matches!(check(AcceptNew, dir.path()).decide(&key(1)), Err(HostKeyError::Unreadable { .. })));
        std::fs::write(dir.path().join("file"), "").expect("written");
        let below_a_file = dir.path().join("file/known_hosts");
        assert!(check(AcceptNew, &below_a_file).decide(&key(1)).is_err());
    }

    #[test]
    fn concurrent_first_connections_record_a_key_once() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("known_hosts");
        let new = std::thread::scope(|scope| {
            let threads: Vec<_> =
                (0..8).map(|_| scope.spawn(|| check(AcceptNew, &file).decide(&key(1)).expect("accepted"))).collect();
            threads.into_iter().filter_map(|thread| thread.join().ok()).filter(|key| key.newly_recorded).count()
        });
        assert_eq!(new, 1);
        assert_eq!(std::fs::read_to_string(&file).expect("written").lines().count(), 1);
    }

    #[test]
    fn the_types_on_record_are_reported_without_revoked_ones() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("known_hosts");
        let name = "[i-0abc]:2222";
        std::fs::write(&file, format!("@revoked {}\n", key(2).line_for(name))).expect("written");
        assert!(check(Yes, &file).read_types().expect("read").is_empty());
        check(AcceptNew, &file).decide(&key(1)).expect("accepted");
        assert_eq!(check(Yes, &file).read_types().expect("read"), ["ssh-ed25519"]);
    }

    #[test]
    fn a_pinned_key_is_the_only_one_whatever_the_policy_and_is_still_checked() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("known_hosts");
        let first = check(AcceptNew, &file).decide(&key(1)).expect("accepted");
        for policy in [Yes, AcceptNew, Off] {
            let pinned = check(policy, &file).pinned(first.clone());
            assert!(pinned.decide(&key(1)).is_ok());
            assert!(matches!(pinned.decide(&key(2)), Err(HostKeyError::NotPinned { .. })), "{policy:?}");
        }
        std::fs::write(&file, key(2).line_for("[i-0abc]:2222")).expect("written");
        let changed = check(AcceptNew, &file).pinned(first).decide(&key(1));
        assert!(matches!(changed, Err(HostKeyError::Changed { .. })));
    }
}
