//! What the target has already.

use std::time::{SystemTime, UNIX_EPOCH};

use super::{CopyError, FileKind, Metadata};

/// Whether what has a directory's name is a directory. A link to one is not: it may lead anywhere.
pub(super) fn check_directory(found: &Metadata) -> Result<(), CopyError> {
    match found.kind {
        Some(FileKind::Directory) => Ok(()),
        Some(FileKind::Symlink) => Err(CopyError::LinkInTheWay),
        _ => Err(CopyError::FileInTheWay),
    }
}

/// Whether what has a file's or link's name may be replaced.
pub(super) fn check_replaceable(found: &Metadata) -> Result<(), CopyError> {
    match found.kind {
        Some(FileKind::Directory) => Err(CopyError::DirectoryInTheWay),
        Some(FileKind::Special) => Err(CopyError::NotRegular),
        Some(FileKind::File | FileKind::Symlink) | None => Ok(()),
    }
}

/// Which files are left as they are at the target, so that a copy can be repeated at little cost.
///
/// Times are compared in whole seconds, which is all that SFTP tells. A time or size that a side does not tell skips
/// nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Skip {
    /// None: each is replaced.
    #[default]
    Nothing,
    /// Those modified when the source was, or later.
    Newer,
    /// Those of the source's size and time of modification: of use for copies that keep the times
    /// ([`CopyOptions::preserve`](super::CopyOptions::preserve)) only.
    Same,
}

impl Skip {
    /// Whether the file at the target stays.
    pub(super) fn keeps(self, target: &Metadata, source: &Metadata) -> bool {
        let (Some(there), Some(here)) = (modified(target), modified(source)) else { return false };
        match self {
            Self::Nothing => false,
            Self::Newer => there >= here,
            Self::Same => there == here && target.size.is_some() && target.size == source.size,
        }
    }
}

/// Seconds since 1970, negative before.
fn modified(metadata: &Metadata) -> Option<i128> {
    let (_, modified) = metadata.times?;
    Some(whole_seconds(modified))
}

fn whole_seconds(time: SystemTime) -> i128 {
    match time.duration_since(UNIX_EPOCH) {
        Ok(since) => since.as_secs().into(),
        Err(before) => -i128::from(before.duration().as_secs()),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::copy::FileKind;

    fn file(size: u64, milliseconds: u64) -> Metadata {
        let time = UNIX_EPOCH + Duration::from_millis(milliseconds);
        Metadata {
            kind: Some(FileKind::File),
            size: Some(size),
            mode: None,
            times: Some((UNIX_EPOCH, time)),
            owner: None,
        }
    }

    #[test]
    fn times_are_compared_in_whole_seconds() {
        let source = file(3, 5_900);
        for (target, newer, same) in [
            (file(3, 5_000), true, true),
            (file(3, 4_999), false, false),
            (file(3, 6_000), true, false),
            (file(4, 5_000), true, false),
        ] {
            assert_eq!((Skip::Newer.keeps(&target, &source), Skip::Same.keeps(&target, &source)), (newer, same));
            assert!(!Skip::Nothing.keeps(&target, &source));
        }
    }

    #[test]
    fn what_a_side_does_not_tell_skips_nothing() {
        let source = file(3, 1);
        assert!(!Skip::Same.keeps(&Metadata { size: None, ..source }, &Metadata { size: None, ..source }));
        assert!(!Skip::Newer.keeps(&Metadata { times: None, ..source }, &source));
    }
}
