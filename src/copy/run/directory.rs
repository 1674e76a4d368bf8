//! The target's directories: made before what lies in them, finished behind it.

use std::collections::BTreeSet;

use super::Run;
use crate::copy::endpoint::{Change, FileKind, Metadata};
use crate::copy::existing::check_directory;
use crate::copy::plan::{Outcome, Place};
use crate::copy::{BytePath, CopyError, Failure, Shortfall, Summary};

impl Run<'_> {
    pub(in crate::copy) async fn make_directory(
        &self,
        place: &Place,
        mode: u32,
        is_named: bool,
    ) -> Result<Outcome, Failure> {
        let target = &*self.destination.endpoint;
        let make = async {
            let is_directory = |found: Metadata| found.kind == Some(FileKind::Directory);
            if is_named && target.stat(&place.target).await.is_ok_and(is_directory) {
                return Ok(false);
            }
            if !self.options.dry_run {
                return target.make_directory(&place.target, mode).await;
            }
            match target.lstat(&place.target).await {
                Ok(found) => check_directory(&found).map(|()| false),
                Err(error) if error.is_not_found() => Ok(true),
                Err(error) => Err(error),
            }
        };
        make.await.map(|is_new| Outcome::Made { is_new }).map_err(|error| self.at_target(place, error))
    }

    /// Notes which of the owner's rights a directory has only until it is filled: if this run cannot take them back, the
    /// next one does.
    pub(super) async fn note_rights(&self, place: &Place, lent: u32, outcome: &Outcome) -> Result<(), Failure> {
        let Some(journal) = self.journal().filter(|_| lent != 0 && !self.options.dry_run) else { return Ok(()) };
        if matches!(outcome, Outcome::Made { is_new: true }) {
            journal.lend(&place.target);
        } else if journal.is_lent(&place.target) {
            // The run before may have taken them back, and something in it failed.
            let target = &*self.destination.endpoint;
            let again = async {
                match target.stat(&place.target).await?.mode {
                    Some(rights) if rights & lent != lent => {
                        target.change(&place.target, Change { mode: Some(rights | lent), ..Change::default() }).await
                    }
                    _ => Ok(()),
                }
            };
            again.await.map_err(|error| self.at_target(place, error))?;
        }
        Ok(())
    }

    pub(in crate::copy) async fn finish_directory(
        &self,
        place: &Place,
        source: Metadata,
        was_made: bool,
    ) -> Result<Outcome, Failure> {
        let target = &*self.destination.endpoint;
        let source_mode = source.mode.unwrap_or(0o777) & 0o777;
        let lent = 0o700 & !source_mode;
        let was_made = was_made || self.journal().is_some_and(|journal| journal.is_lent(&place.target));
        let finish = async {
            let mode = if self.options.preserve {
                Some(source_mode)
            } else if was_made && lent != 0 {
                // The owner's rights were lent while the directory was filled.
                target.stat(&place.target).await?.mode.map(|mode| mode & !lent)
            } else {
                None
            };
            let times = source.times.filter(|_| self.options.preserve);
            self.set(&place.target, Change { mode, times, owner: None }).await?;
            self.note_time_range(&place.target, times);
            target.sync_directory(&place.target).await
        };
        finish.await.map(|()| Outcome::Done).map_err(|error| self.at_target(place, error))
    }

    /// Sets what can be set; a refusal leaves the directory as it is, and is told with the others at the end.
    async fn set(&self, path: &BytePath, change: Change) -> Result<(), CopyError> {
        let target = &*self.destination.endpoint;
        if change.is_empty() {
            return Ok(());
        }
        match target.change(path, change).await {
            Err(error) if error.is_refusal() => {}
            outcome => return outcome,
        }
        // One of them may be allowed.
        let alone = [
            (Shortfall::Permissions, Change { mode: change.mode, ..Change::default() }),
            (Shortfall::Times, Change { times: change.times, ..Change::default() }),
        ];
        for (lacks, change) in alone.into_iter().filter(|(_, change)| !change.is_empty()) {
            match target.change(path, change).await {
                Err(error) if error.is_refusal() => self.warnings.add(path, (lacks, Some(error))),
                outcome => outcome?,
            }
        }
        Ok(())
    }

    /// Forces the new names in these directories to the disk; those deeper down were when their directory was finished.
    pub(super) async fn sync_all(
        &self,
        directories: &BTreeSet<BytePath>,
        summary: &mut Summary,
    ) -> Result<(), CopyError> {
        let target = &*self.destination.endpoint;
        if !self.options.dry_run {
            for directory in directories {
                if let Err(error) = target.sync_directory(directory).await {
                    self.record(summary, Failure::new(target.side(), directory, error))?;
                }
            }
        }
        Ok(())
    }
}
