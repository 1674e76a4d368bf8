//! What could not be copied, line by line as it happens, and what would help, once for each kind.

use std::collections::HashSet;
use std::error::Error;
use std::sync::{Mutex, PoisonError};

use crate::cli::report;
use crate::copy::{CopyError, Failure};

/// Prints failures.
#[derive(Debug)]
pub(super) struct Failures {
    with_hints: bool,
    told: Mutex<HashSet<&'static str>>,
}

impl Failures {
    pub(super) fn new(with_hints: bool) -> Self {
        Self { with_hints, told: Mutex::default() }
    }

    pub(super) fn show(&self, failure: &Failure) {
        report::note(&report::followed(failure.to_string(), cause(&failure.error)));
        if let Some(hint) = hint(&failure.error).filter(|hint| self.with_hints && self.is_new(hint)) {
            report::advise(hint);
        }
    }

    fn is_new(&self, hint: &'static str) -> bool {
        self.told.lock().unwrap_or_else(PoisonError::into_inner).insert(hint)
    }
}

/// What this machine's system says is told in our words.
pub(super) fn cause(error: &CopyError) -> Option<&(dyn Error + 'static)> {
    match error {
        CopyError::Local(_) => None,
        CopyError::NoNewFile(behind) => cause(behind),
        error => error.source(),
    }
}

fn hint(error: &CopyError) -> Option<&'static str> {
    match error {
        CopyError::NotTaken(_) => Some("a quota, or a limit on the size of files, may be the reason"),
        CopyError::NotRenamed(_) => {
            Some("`-O` writes into files as they are, without a temporary name, where the node has scp")
        }
        CopyError::NoNewFile(_) => Some("the directory takes no new file; `-O` writes into the one that is there"),
        CopyError::DanglingLink => Some("`--links` copies links as links, `--exclude GLOB` leaves them out"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ssh::sftp::SftpError;

    #[test]
    fn where_only_the_directory_is_closed_the_way_that_writes_in_place_is_named() {
        let denied = || CopyError::Remote(SftpError::PermissionDenied);
        let told = CopyError::NoNewFile(Box::new(denied()));
        assert_eq!(told.to_string(), denied().to_string());
        for error in [told, CopyError::NotRenamed(SftpError::PermissionDenied)] {
            assert!(hint(&error).is_some_and(|hint| hint.contains("`-O`")), "{error}");
        }
        assert_eq!(hint(&denied()), None);
    }
}
