//! Where the sources go.

use std::sync::OnceLock;

use super::journal::Journal;
use super::plan::Place;
use super::sources;
use super::{BytePath, CopyError, Endpoint, Failure, FileKind, Location, Metadata};

/// What the destination turned out to be.
pub(super) enum Target {
    /// A directory: sources keep their names in it.
    Directory(BytePath),
    /// A name for the only source, whether something has it or not.
    Name(BytePath),
    /// What has the name is neither a file nor a directory: it is written into.
    Special(BytePath),
}

/// Finds out what `destination` is, and gives each source its target. Sources that stand for nothing are failures.
///
/// The journal has the last word about a directory that an earlier run may have made: it is the copy, not where the copy
/// goes.
pub(super) async fn assign(
    sources: &[Location],
    destination: &Location,
    journal: Option<&Journal>,
    special: &OnceLock<BytePath>,
) -> Result<(Vec<Place>, Vec<Failure>), Failure> {
    let endpoint = &*destination.endpoint;
    let (found, mut failures) = sources::find(sources).await?;
    let target = find(endpoint, &destination.path, sources.len().max(found.len())).await;
    let target = match target.map_err(|error| Failure::new(endpoint.side(), &destination.path, error))? {
        Target::Directory(path) if !says_directory(&destination.path) => match journal.filter(|it| it.is_named()) {
            Some(journal) => {
                journal.has_directory();
                Target::Name(path)
            }
            None => Target::Directory(path),
        },
        target => target,
    };
    if let (Some(journal), Target::Name(_)) = (journal, &target) {
        journal.name();
    }
    target.note(special);
    let held = target.hold(endpoint).await;
    held.map_err(|error| Failure::new(endpoint.side(), &destination.path, error))?;
    let mut places = Vec::new();
    for (origin, source) in found {
        let from = &*sources[origin].endpoint;
        if from.is_pipe() && matches!(target, Target::Directory(_)) {
            failures.push(Failure::new(from.side(), &source, CopyError::Nameless));
            continue;
        }
        let to = target.of(&source);
        if from.identity() == endpoint.identity() && leads_into(endpoint, &source, &to).await {
            failures.push(Failure::new(from.side(), &source, CopyError::IntoItself));
        } else {
            places.push(Place { origin, target: to, source });
        }
    }
    Ok((places, failures))
}

/// Whoever adds a slash, or a dot behind it, means a directory, whoever made it.
pub(super) fn says_directory(typed: &BytePath) -> bool {
    typed.is_directory_like() || typed.name().is_none()
}

/// Whether `target`, which need not be there, lies in the directory `source` of the same side: such a copy would copy its own
/// copies.
async fn leads_into(endpoint: &dyn Endpoint, source: &BytePath, target: &BytePath) -> bool {
    let Ok(source) = endpoint.canonical(source).await else { return false };
    let parent = endpoint.canonical(&target.parent()).await;
    let target = match (parent, target.name()) {
        (Ok(parent), Some(name)) => parent.join(name),
        _ => target.clone(),
    };
    source != target && target.is_within(&source)
}

impl Target {
    /// From now on what is written lies where the target was found.
    pub(super) async fn hold(&self, endpoint: &dyn Endpoint) -> Result<(), CopyError> {
        match self {
            Self::Directory(path) => endpoint.hold(path).await,
            Self::Name(path) | Self::Special(path) => endpoint.hold(&path.parent()).await,
        }
    }

    /// Tells the copy which path it writes into as it is.
    pub(super) fn note(&self, special: &OnceLock<BytePath>) {
        if let Self::Special(path) = self {
            special.get_or_init(|| path.clone());
        }
    }

    pub(super) fn path(&self) -> &BytePath {
        match self {
            Self::Directory(path) | Self::Name(path) | Self::Special(path) => path,
        }
    }

    fn of(&self, source: &BytePath) -> BytePath {
        match (self, source.name()) {
            (Self::Directory(directory), Some(name)) => directory.join(name),
            // What has no name of its own (`.`, `..`, `/`) puts its content straight into the directory.
            (Self::Directory(path), None) | (Self::Name(path) | Self::Special(path), _) => path.clone(),
        }
    }
}

pub(super) async fn find(endpoint: &dyn Endpoint, typed: &BytePath, sources: usize) -> Result<Target, CopyError> {
    let path = endpoint.resolve(typed).await?;
    let mut name: fn(BytePath) -> Target = Target::Name;
    let mut is_there = true;
    match endpoint.stat(&path).await {
        Ok(Metadata { kind: Some(FileKind::Directory), .. }) => return Ok(Target::Directory(path)),
        Ok(Metadata { kind: Some(FileKind::Special), .. }) => name = Target::Special,
        Ok(_) => {}
        Err(error) if error.is_not_found() => is_there = false,
        Err(error) => return Err(error),
    }
    if sources > 1 {
        let (side, path) = (endpoint.side(), typed.clone());
        return Err(if endpoint.is_pipe() {
            CopyError::SeveralIntoPipe(sources)
        } else if !is_there {
            CopyError::TargetMissing { side, path }
        } else {
            CopyError::TargetNotDirectory { side, path }
        });
    }
    // A link that the user named is written through, as by scp; links deeper in a tree are replaced.
    let is_link = match endpoint.lstat(&path).await {
        Err(error) if error.is_of_stream() => return Err(error),
        found => found.is_ok_and(|metadata| metadata.kind == Some(FileKind::Symlink)),
    };
    // Where it cannot be followed, nothing may take its place either.
    if is_link { endpoint.canonical(&path).await.map(name) } else { Ok(name(path)) }
}
