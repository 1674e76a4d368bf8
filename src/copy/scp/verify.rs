//! Whether what a node has written is what was sent to it. It has the target's name by then.

use super::digest::{self, MAX_WORDS};
use super::request::quoted;
use super::sender::Sent;
use super::upload::Upload;
use super::{ScpEndpoint, ScpError};
use crate::copy::plan::Place;
use crate::copy::{BytePath, CopyError, Summary};

/// Files that are asked about together.
const AT_ONCE: usize = 64;

/// Files that are written and not compared yet.
#[derive(Debug, Default)]
pub(super) struct Unverified {
    files: Vec<(Place, [u8; 32])>,
    /// Of their names in a command.
    length: usize,
}

impl Unverified {
    fn add(&mut self, place: Place, digest: [u8; 32]) {
        self.length += quoted(&place.target).len() + 1;
        self.files.push((place, digest));
    }

    fn has(&self, target: &BytePath) -> bool {
        self.files.iter().any(|(place, _)| place.target == *target)
    }

    fn is_full(&self) -> bool {
        self.files.len() >= AT_ONCE || self.length >= MAX_WORDS
    }

    async fn compare(self, endpoint: &ScpEndpoint) -> Result<Vec<(Place, Result<(), ScpError>)>, ScpError> {
        let paths: Vec<_> = self.files.iter().map(|(place, _)| &place.target).collect();
        let found = digest::of_all(endpoint, &paths).await?;
        let compare = |((place, sent), found): ((Place, [u8; 32]), Result<[u8; 32], ScpError>)| {
            let outcome = found.and_then(|found| if found == sent { Ok(()) } else { Err(ScpError::Differs) });
            (place, outcome)
        };
        Ok(self.files.into_iter().zip(found).map(compare).collect())
    }
}

impl Upload<'_, '_> {
    /// Takes note of a file that the node says it has stored.
    pub(super) fn stored(&mut self, sent: Sent) {
        match sent.digest {
            Some(digest) => self.unverified.add(sent.place, digest),
            None => self.finished(&sent.place),
        }
    }

    /// Compares what there is to compare, once that is enough to ask for.
    pub(super) async fn verify_some(&mut self, summary: &mut Summary) -> Result<(), CopyError> {
        if self.unverified.is_full() { self.verify(summary).await } else { Ok(()) }
    }

    /// Compares what has this name, before something else gets it.
    pub(super) async fn verify_before(&mut self, target: &BytePath, summary: &mut Summary) -> Result<(), CopyError> {
        if self.run.options().verify && (self.sender.has_unsettled(target) || self.unverified.has(target)) {
            self.sender.settle().await.map_err(|error| self.ended(error))?;
            self.settle(summary)?;
            self.verify(summary).await?;
        }
        Ok(())
    }

    pub(super) async fn verify(&mut self, summary: &mut Summary) -> Result<(), CopyError> {
        let unverified = std::mem::take(&mut self.unverified);
        if unverified.files.is_empty() {
            return Ok(());
        }
        let compared = unverified.compare(self.endpoint).await.map_err(|error| self.ended(error))?;
        for (place, outcome) in compared {
            match outcome {
                Ok(()) => self.finished(&place),
                Err(error) => self.run.record(summary, self.run.at_target(&place, error.into()))?,
            }
        }
        Ok(())
    }
}
