//! Names for files that are not whole yet, and a list of those that exist.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use uuid::Uuid;

use super::{BytePath, Endpoint, Streams};

/// The longest name that common file systems take, in bytes.
const MAX_NAME: usize = 255;
/// How long an orderly stop waits for the removal of what is unfinished.
const CLEAN_UP: Duration = Duration::from_secs(2);

/// A new name beside `target`: hidden, and unlike any other.
pub(super) fn temporary_name(target: &BytePath) -> BytePath {
    let random = Uuid::new_v4().simple().to_string();
    let suffix = format!(".ssmcp-{}", &random[..8]);
    let name = target.name().unwrap_or_default();
    let kept = name.len().min(MAX_NAME - 1 - suffix.len());
    target.parent().join(&[b".", &name[..kept], suffix.as_bytes()].concat())
}

/// The temporary files that exist now. Whatever is left when it is dropped is removed in the background.
#[derive(Debug)]
pub(super) struct Unfinished {
    endpoint: Arc<dyn Endpoint>,
    paths: Mutex<BTreeSet<BytePath>>,
}

impl Unfinished {
    pub(super) fn new(endpoint: Arc<dyn Endpoint>) -> Self {
        Self { endpoint, paths: Mutex::default() }
    }

    pub(super) fn add(&self, path: &BytePath) {
        self.lock().insert(path.clone());
    }

    /// The file has got its name, or was never there.
    pub(super) fn forget(&self, path: &BytePath) {
        self.lock().remove(path);
    }

    /// Removes a file; that it cannot be removed is no news to somebody who has a worse failure to report.
    pub(super) async fn remove(&self, path: &BytePath) {
        // Another stream may do what one that is lost did not.
        for _ in 0..Streams::MOST {
            let is_lost = self.endpoint.remove(path).await.is_err_and(|error| error.is_of_stream());
            if !is_lost || self.endpoint.streams() == 0 {
                break;
            }
        }
        self.forget(path);
    }

    pub(super) async fn remove_all(&self) {
        let paths: Vec<_> = self.lock().iter().cloned().collect();
        let removals = join_all(paths.iter().map(|path| self.remove(path)));
        if tokio::time::timeout(CLEAN_UP, removals).await.is_err() {
            tracing::warn!("temporary files are left behind, because the far side does not answer");
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeSet<BytePath>> {
        self.paths.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        let paths = std::mem::take(&mut *self.lock());
        if let (false, Ok(runtime)) = (paths.is_empty(), tokio::runtime::Handle::try_current()) {
            let endpoint = Arc::clone(&self.endpoint);
            runtime.spawn(async move { join_all(paths.iter().map(|path| endpoint.remove(path))).await });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_temporary_name_lies_beside_its_target_hidden_and_new() {
        let name = temporary_name(&"dir/file".into()).to_string();
        assert!(name.starts_with("dir/.file.ssmcp-") && name.len() == "dir/.file.ssmcp-".len() + 8, "{name}");
        assert_ne!(name, temporary_name(&"dir/file".into()).to_string());
    }

    #[test]
    fn a_temporary_name_is_no_longer_than_a_name_may_be() {
        let name = temporary_name(&BytePath::new(vec![b'x'; MAX_NAME]));
        assert_eq!(name.name().map(<[u8]>::len), Some(MAX_NAME));
    }
}
