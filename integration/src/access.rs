//! The client's credentials: which are good at present, and where the client finds them.

use std::{
    collections::HashSet,
    fs, io,
    path::{Path, PathBuf},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, SystemTime},
};

use serde_json::json;
use tempfile::NamedTempFile;

use crate::home::write_private;
use crate::sigv4::{self, AccessKey, Authorization, Request, Scope, SignatureError};

/// Where a client within the lab finds its credentials.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum CredentialSource {
    /// `AWS_ACCESS_KEY_ID` and so on. Nobody can give a running client new ones.
    #[default]
    Environment,
    /// The shared credentials file, rewritten when they change.
    File,
    /// A `credential_process` in the configuration file, which gives those of the moment.
    Process,
}

/// Access keys of AWS's shape. `Debug` shows the id only.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Credentials {
    /// `ASIA…`
    pub access_key_id: String,
    /// The secret that goes with it.
    pub secret_access_key: String,
    /// The session token that goes with it.
    pub session_token: String,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials").field("access_key_id", &self.access_key_id).finish_non_exhaustive()
    }
}

impl From<&AccessKey> for Credentials {
    fn from(key: &AccessKey) -> Self {
        Self {
            access_key_id: key.id.clone(),
            secret_access_key: key.secret.clone(),
            session_token: key.token.clone().unwrap_or_default(),
        }
    }
}

/// What the API and the upgrade check clients against.
#[derive(Debug)]
pub(crate) struct Access {
    directory: PathBuf,
    lifetime: Option<Duration>,
    /// How far the lab's clock is ahead of the real one.
    ahead: Duration,
    state: Mutex<State>,
    throttled: AtomicU32,
}

#[derive(Debug)]
struct State {
    key: AccessKey,
    expired: HashSet<String>,
}

impl Access {
    /// The first key, written to files in `directory`. `lifetime` is what the files say of it.
    pub(crate) fn new(directory: PathBuf, lifetime: Option<Duration>, ahead: Duration) -> io::Result<Self> {
        let state = State { key: AccessKey::random(), expired: HashSet::new() };
        let access = Self { directory, lifetime, ahead, state: Mutex::new(state), throttled: AtomicU32::new(0) };
        let process = access.directory.join("credentials.json");
        let config = format!("[default]\ncredential_process = cat \"{}\"\n", process.display());
        write_private(&access.config_file(), &config)?;
        access.write_files(&access.key())?;
        Ok(access)
    }

    /// The key that was made last.
    pub(crate) fn key(&self) -> AccessKey {
        self.state().key.clone()
    }

    /// The shared credentials file.
    pub(crate) fn credentials_file(&self) -> PathBuf {
        self.directory.join("credentials")
    }

    /// The configuration file with the process.
    pub(crate) fn config_file(&self) -> PathBuf {
        self.directory.join("config")
    }

    /// The present key is good no longer.
    pub(crate) fn expire(&self) {
        let mut state = self.state();
        let id = state.key.id.clone();
        state.expired.insert(id);
    }

    /// A new key takes the place of the present one, in the files too.
    pub(crate) fn rotate(&self) -> io::Result<AccessKey> {
        let key = AccessKey::random();
        let mut state = self.state();
        self.write_files(&key)?;
        let old = std::mem::replace(&mut state.key, key.clone());
        state.expired.insert(old.id);
        Ok(key)
    }

    /// Lets the next `calls` of the API be one too many.
    pub(crate) fn throttle(&self, calls: u32) {
        self.throttled.store(calls, Ordering::Relaxed);
    }

    /// Whether this call is one too many.
    pub(crate) fn is_throttled(&self) -> bool {
        self.throttled.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok()
    }

    pub(crate) fn verify(&self, request: Request<'_>, scope: Scope<'_>) -> Result<(), SignatureError> {
        let id = Authorization::parse(request.headers)?.key_id;
        let state = self.state();
        if state.expired.contains(id) {
            return Err(SignatureError::Expired);
        }
        sigv4::verify(request, &state.key, scope, self.now())
    }

    /// The time in the lab.
    pub(crate) fn now(&self) -> SystemTime {
        SystemTime::now() + self.ahead
    }

    fn write_files(&self, key: &AccessKey) -> io::Result<()> {
        let token = key.token.as_deref().unwrap_or_default();
        let (id, secret) = (&key.id, &key.secret);
        let shared = format!(
            "[default]\naws_access_key_id = {id}\naws_secret_access_key = {secret}\naws_session_token = {token}\n"
        );
        self.replace(&self.credentials_file(), &shared)?;
        let mut answer = json!({ "Version": 1, "AccessKeyId": id, "SecretAccessKey": secret, "SessionToken": token });
        if let Some(lifetime) = self.lifetime {
            answer["Expiration"] = sigv4::rfc3339(SystemTime::now() + lifetime).into();
        }
        self.replace(&self.directory.join("credentials.json"), &answer.to_string())
    }

    /// Whoever reads the file meanwhile reads the old or the new one whole.
    fn replace(&self, path: &Path, text: &str) -> io::Result<()> {
        let file = NamedTempFile::new_in(&self.directory)?;
        fs::write(file.path(), text)?;
        file.persist(path).map_err(|error| error.error)?;
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rotated_key_is_in_both_files_and_only_the_owner_can_read_them() {
        use std::os::unix::fs::PermissionsExt;
        let directory = tempfile::tempdir().unwrap();
        let access = Access::new(directory.path().to_owned(), Some(Duration::from_mins(1)), Duration::ZERO).unwrap();
        let first = access.key();
        let second = access.rotate().unwrap();
        assert_ne!(first.id, second.id);
        for name in ["credentials", "credentials.json"] {
            let path = directory.path().join(name);
            let text = fs::read_to_string(&path).unwrap();
            assert!(text.contains(&second.id) && !text.contains(&first.id), "{text}");
            assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        }
    }

    #[test]
    fn throttling_ends_after_its_calls() {
        let directory = tempfile::tempdir().unwrap();
        let access = Access::new(directory.path().to_owned(), None, Duration::ZERO).unwrap();
        access.throttle(2);
        assert_eq!([(); 3].map(|()| access.is_throttled()), [true, true, false]);
    }
}
