//! Names for files that are not whole yet, and a list of those that exist.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use uuid::Uuid;

use super::journal::Journal;
use super::warnings::Warnings;
use super::{BytePath, CopyError, Endpoint, Shortfall, Streams};

/// The longest name that common file systems take, in bytes.
const MAX_NAME: usize = 255;
/// What stands between a target's name and the random part of its temporary name, and the length of that.
const MARK: &[u8] = b".ssmcp-";
const RANDOM: usize = 8;
/// How long an orderly stop waits for the removal of what is unfinished: people wait for it. What is left by then goes in
/// the background, or when the same copy is made again.
const CLEAN_UP: Duration = Duration::from_millis(500);

/// A new name beside `target`: hidden, and unlike any other.
pub(super) fn temporary_name(target: &BytePath) -> BytePath {
    let random = Uuid::new_v4().simple().to_string();
    let name = target.name().unwrap_or_default();
    let kept = beginning(name, MAX_NAME - 1 - MARK.len() - RANDOM);
    target.parent().join(&[b".", kept, MARK, &random.as_bytes()[..RANDOM]].concat())
}

/// At most `longest` bytes of a name. Text stays text, since some file systems take nothing else.
fn beginning(name: &[u8], longest: usize) -> &[u8] {
    let longest = longest.min(name.len());
    match str::from_utf8(name) {
        Ok(text) => &name[..text.floor_char_boundary(longest)],
        Err(_) => &name[..longest],
    }
}

/// Whether it is a name that `temporary_name` makes.
pub(super) fn is_temporary(path: &BytePath) -> bool {
    let name = path.name().unwrap_or_default();
    let suffix = name.len().checked_sub(MARK.len() + RANDOM).and_then(|at| name[at..].strip_prefix(MARK));
    name.starts_with(b".") && suffix.is_some_and(|random| random.iter().all(u8::is_ascii_hexdigit))
}

/// The temporary files that exist now. Whatever is left when it is dropped is removed in the background.
#[derive(Debug)]
pub(super) struct Unfinished {
    endpoint: Arc<dyn Endpoint>,
    journal: Option<Arc<Journal>>,
    paths: Mutex<BTreeSet<BytePath>>,
    warnings: Arc<Warnings>,
}

impl Unfinished {
    pub(super) fn new(endpoint: Arc<dyn Endpoint>, journal: Option<Arc<Journal>>, warnings: Arc<Warnings>) -> Self {
        Self { endpoint, journal, paths: Mutex::default(), warnings }
    }

    pub(super) fn add(&self, path: &BytePath) {
        self.lock().insert(path.clone());
    }

    /// The file has got its name, was never there, or is left to the journal.
    pub(super) fn forget(&self, path: &BytePath) {
        self.lock().remove(path);
    }

    /// Whether it would be removed when the copy ends now.
    pub(super) fn has(&self, path: &BytePath) -> bool {
        self.lock().contains(path)
    }

    /// Removes a file; one that the side refuses to remove is told at the end.
    pub(super) async fn remove(&self, path: &BytePath) {
        // Another stream may do what one that is lost did not.
        for _ in 0..Streams::MOST {
            let removed = self.endpoint.remove(path).await;
            let is_lost = removed.as_ref().is_err_and(CopyError::is_of_stream);
            if let Some(journal) = &self.journal
                && removed.as_ref().err().is_none_or(CopyError::is_not_found)
            {
                journal.gone(path);
            }
            if let Err(error) = removed
                && error.is_refusal()
            {
                self.warnings.add(path, (Shortfall::Removal, Some(error)));
            }
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
        assert!(is_temporary(&name.as_str().into()));
        assert_ne!(name, temporary_name(&"dir/file".into()).to_string());
    }

    #[test]
    fn a_file_of_somebody_else_does_not_have_a_temporary_name() {
        for other in ["file", ".file", ".f.ssmcp-1234567", ".f.ssmcp-1234567x", "f.ssmcp-12345678", ".ssmcp-", ""] {
            assert!(!is_temporary(&other.into()), "{other}");
        }
    }

    #[test]
    fn a_temporary_name_is_no_longer_than_a_name_may_be() {
        let name = temporary_name(&BytePath::new(vec![b'x'; MAX_NAME]));
        assert_eq!(name.name().map(<[u8]>::len), Some(MAX_NAME));
    }

    #[test]
    fn the_temporary_name_of_a_long_text_is_text() {
        for text in ["é".repeat(127), format!("x{}", "é".repeat(127)), "🦀".repeat(63)] {
            let name = temporary_name(&text.as_str().into());
            let name = str::from_utf8(name.as_bytes()).expect("no letter is cut in two");
            assert!(name.len() > MAX_NAME - 4 && name.len() <= MAX_NAME, "{name}");
            assert!(is_temporary(&name.into()));
        }
    }
}
