//! What files that are there did not get, counted, so that each kind is told once.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, PoisonError};

use super::error::prefix;
use super::{BytePath, CopyError, Side};

/// What a file, directory or link that is there did not get.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Shortfall {
    /// Its permissions.
    Permissions,
    /// Its times.
    Times,
    /// Its times as they are: the protocol cannot carry them, so the nearest that it carries were set.
    TimeRange,
    /// The owner and group of the file that it replaces.
    Owner,
    /// Its end: it is a temporary file that could not be removed.
    Removal,
    /// What its source got while it was read: the copy is the source as it was when it was opened. The path of such a
    /// warning is the source's.
    Growth,
}

impl Shortfall {
    /// Its name, for programs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Permissions => "permissions",
            Self::Times => "times",
            Self::TimeRange => "time_range",
            Self::Owner => "owner",
            Self::Removal => "removal",
            Self::Growth => "growth",
        }
    }
}

/// Something that a copy could not do for files that are there.
#[derive(Debug)]
#[non_exhaustive]
pub struct Warning {
    /// The side of the files.
    pub side: Side,
    /// The first of them.
    pub path: BytePath,
    /// How many there are.
    pub files: u64,
    /// What they lack.
    pub lacks: Shortfall,
    /// Why the first of them does, where somebody said so.
    pub reason: Option<CopyError>,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", prefix(&self.side), self.path)?;
        if self.files > 1 {
            write!(f, " and {} more", self.files - 1)?;
        }
        f.write_str(match self.lacks {
            Shortfall::Permissions => ": copied, but the permissions could not be set",
            Shortfall::Times => ": copied, but the times could not be set",
            Shortfall::TimeRange => ": copied, but the protocol cannot carry the time: the nearest that it can was set",
            Shortfall::Owner => ": copied, but owner and group could not be kept",
            Shortfall::Removal => ": this temporary file stays, because it could not be removed",
            Shortfall::Growth => ": became longer while it was read; the copy is the file as it was when it was opened",
        })?;
        match &self.reason {
            Some(reason) => write!(f, ": {reason}"),
            None => Ok(()),
        }
    }
}

/// What one file lacks, and why.
pub type Unset = (Shortfall, Option<CopyError>);

/// The warnings of a copy so far.
#[derive(Debug, Default)]
pub(super) struct Warnings(Mutex<BTreeMap<Shortfall, Files>>);

/// Some files that lack the same.
#[derive(Debug)]
struct Files {
    /// Their side, if it is not the target.
    side: Option<Side>,
    first: BytePath,
    count: u64,
    /// Why the first is one of them.
    reason: Option<CopyError>,
}

impl Warnings {
    pub(super) fn add(&self, path: &BytePath, unset: Unset) {
        self.add_on(None, path, unset);
    }

    /// A file that was read became longer meanwhile.
    pub(super) fn grew(&self, side: Side, path: &BytePath) {
        self.add_on(Some(side), path, (Shortfall::Growth, None));
    }

    fn add_on(&self, side: Option<Side>, path: &BytePath, (lacks, reason): Unset) {
        let mut kinds = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let files = kinds.entry(lacks);
        files.or_insert_with(|| Files { side, first: path.clone(), count: 0, reason }).count += 1;
    }

    pub(super) fn take(&self, target: &Side) -> Vec<Warning> {
        let kinds = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        let warning = |(lacks, Files { side, first, count, reason })| {
            let side = side.unwrap_or_else(|| target.clone());
            Warning { side, path: first, files: count, lacks, reason }
        };
        kinds.into_iter().map(warning).collect()
    }
}
