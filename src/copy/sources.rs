//! What the sources stand for: patterns are matched against what their side lists.

use futures_util::future::join_all;
use futures_util::stream::{self, StreamExt as _};

use super::endpoint::MAX_ENTRIES;
use super::path::is_unsafe_name;
use super::pattern::{fits_name, is_pattern, spellings, unescape};
use super::{BytePath, CopyError, Endpoint, Entry, Failure, FileKind, Location, Metadata};

/// Questions asked at once.
const AHEAD: usize = 16;

/// A source and its place among those that were named.
pub(super) type Source = (usize, BytePath);

/// Finds what each source stands for. Those that stand for nothing are failures; the end of a stream is an error.
pub(super) async fn find(sources: &[Location]) -> Result<(Vec<Source>, Vec<Failure>), Failure> {
    let found = join_all(sources.iter().map(Location::find)).await;
    let (mut paths, mut failures) = (Vec::new(), Vec::new());
    for (origin, (location, outcome)) in sources.iter().zip(found).enumerate() {
        let failure = |(path, error)| Failure::new(location.endpoint.side(), &path, error);
        for outcome in outcome {
            match outcome.map_err(failure) {
                Ok(path) => paths.push((origin, path)),
                Err(lost) if lost.error.is_of_stream() => return Err(lost),
                Err(failed) => failures.push(failed),
            }
        }
    }
    Ok((paths, failures))
}

type Outcome = Result<BytePath, (BytePath, CopyError)>;

impl Location {
    async fn find(&self) -> Vec<Outcome> {
        let endpoint = &*self.endpoint;
        let typed = endpoint.resolve(&self.path).await;
        if !self.is_pattern || !is_pattern(self.path.as_bytes()) {
            return vec![typed.map_err(|error| (self.path.clone(), error))];
        }
        if let Ok(path) = typed
            && endpoint.lstat(&path).await.is_ok()
        {
            return vec![Ok(path)];
        }
        match spellings(self.path.as_bytes()) {
            Ok(spellings) => {
                let spellings = spellings.into_iter().map(BytePath::new);
                join_all(spellings.map(|spelling| find_spelling(endpoint, spelling)))
                    .await
                    .into_iter()
                    .flatten()
                    .collect()
            }
            Err(error) => vec![Err((self.path.clone(), error))],
        }
    }
}

/// What one spelling of a pattern stands for.
async fn find_spelling(endpoint: &dyn Endpoint, typed: BytePath) -> Vec<Outcome> {
    let found = if is_pattern(typed.as_bytes()) {
        matches(endpoint, typed.as_bytes()).await
    } else {
        // As when it had been named by itself: that it is missing is found out later.
        endpoint.resolve(&BytePath::new(unescape(typed.as_bytes()))).await.map(|path| vec![path])
    };
    match found {
        Ok(paths) if paths.is_empty() => vec![Err((typed, CopyError::NoMatch))],
        Ok(paths) => paths.into_iter().map(Ok).collect(),
        Err(error) => vec![Err((typed, error))],
    }
}

/// Everything that fits a pattern, in the order of its bytes.
async fn matches(endpoint: &dyn Endpoint, pattern: &[u8]) -> Result<Vec<BytePath>, CopyError> {
    let mut parts: Vec<_> = pattern.split(|byte| *byte == b'/').collect();
    let first = parts.iter().position(|part| is_pattern(part)).unwrap_or(parts.len());
    let behind = parts.split_off(first);
    let mut start = unescape(&parts.join(&b'/'));
    if first > 0 && start.is_empty() {
        start.push(b'/');
    }
    let mut found = vec![endpoint.resolve(&BytePath::new(start)).await?];
    let mut is_seen = true;
    for (at, part) in behind.iter().enumerate() {
        if is_pattern(part) {
            found = list_all(endpoint, found, part, at + 1 < behind.len()).await?;
        } else {
            let name = unescape(part);
            found = found.iter().map(|path| path.join(&name)).collect();
        }
        is_seen = is_pattern(part) || part.is_empty();
    }
    if !is_seen {
        found = existing(endpoint, found).await?;
    }
    found.sort_unstable();
    Ok(found)
}

/// Every name in `directories` that fits. Directories that cannot be listed hold none, unless that is all there is.
async fn list_all(
    endpoint: &dyn Endpoint,
    directories: Vec<BytePath>,
    pattern: &[u8],
    only_directories: bool,
) -> Result<Vec<BytePath>, CopyError> {
    let mut lists = stream::iter(directories)
        .map(|directory| async move {
            let list = endpoint.list(&directory).await;
            (directory, list)
        })
        .buffered(AHEAD);
    let (mut found, mut refused) = (Vec::new(), None);
    while let Some((directory, list)) = lists.next().await {
        let entries = match list {
            Ok(entries) => entries,
            Err(error) if error.is_of_stream() => return Err(error),
            Err(error) => {
                refused.get_or_insert(error);
                continue;
            }
        };
        for Entry { name, metadata } in entries {
            let may_hold = !matches!(metadata.kind, Some(FileKind::File | FileKind::Special));
            if fits_name(pattern, &name) && (may_hold || !only_directories) {
                if is_unsafe_name(&name) {
                    return Err(CopyError::UnsafeName(BytePath::new(name)));
                }
                found.push(directory.join(&name));
            }
        }
        if found.len() > MAX_ENTRIES {
            return Err(CopyError::TooManyEntries(MAX_ENTRIES));
        }
    }
    match refused {
        Some(error) if found.is_empty() && !error.is_not_found() => Err(error),
        _ => Ok(found),
    }
}

async fn existing(endpoint: &dyn Endpoint, paths: Vec<BytePath>) -> Result<Vec<BytePath>, CopyError> {
    let mut looks = stream::iter(paths)
        .map(|path| async move {
            let found = endpoint.lstat(&path).await;
            (path, found)
        })
        .buffered(AHEAD);
    let mut found = Vec::new();
    while let Some((path, look)) = looks.next().await {
        match look {
            Ok(_) => found.push(path),
            Err(error) if error.is_of_stream() => return Err(error),
            Err(_) => {}
        }
    }
    Ok(found)
}

/// What a path leads to. Where that is nothing, a link says so of itself.
pub(super) async fn stat_behind(endpoint: &dyn Endpoint, path: &BytePath) -> Result<Metadata, CopyError> {
    let missing = match endpoint.stat(path).await {
        Err(error) if error.is_not_found() => error,
        found => return found,
    };
    match endpoint.lstat(path).await {
        Ok(Metadata { kind: Some(FileKind::Symlink), .. }) => Err(CopyError::DanglingLink),
        _ => Err(missing),
    }
}
