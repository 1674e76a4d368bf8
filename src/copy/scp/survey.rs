//! What is where files are to go. The far side tells it as if it sent it, and each file is refused: no byte of it moves.

use std::collections::{HashMap, HashSet};

use super::digest::MAX_WORDS;
use super::line::Words;
use super::receiver::Receiver;
use super::request::{Request, quoted};
use super::sink::{Header, Received};
use super::{ScpEndpoint, ScpError, metadata_of};
use crate::copy::endpoint::{FileKind, MAX_ENTRIES, Metadata};
use crate::copy::{BytePath, Skip};

/// The files that were there before anything was sent.
#[derive(Debug, Default)]
pub(super) struct Survey {
    files: HashMap<BytePath, Metadata>,
    asked: HashSet<BytePath>,
}

impl Survey {
    /// Finds out what has these names, which lie in one directory, and what lies in them. What was asked for before is
    /// not asked for again.
    pub(super) async fn ask(
        &mut self,
        endpoint: &ScpEndpoint,
        roots: &[&BytePath],
        recursive: bool,
    ) -> Result<(), ScpError> {
        let mut together = Vec::new();
        let mut length = 0;
        for &root in roots {
            if !self.asked.insert(root.clone()) {
                continue;
            }
            // What has no name of its own is known only by being asked for alone.
            if root.name().is_none() {
                self.ask_for(endpoint, &[root], recursive).await?;
                continue;
            }
            length += quoted(root).len() + 1;
            together.push(root);
            if length > MAX_WORDS {
                self.ask_for(endpoint, &std::mem::take(&mut together), recursive).await?;
                length = 0;
            }
        }
        if together.is_empty() { Ok(()) } else { self.ask_for(endpoint, &together, recursive).await }
    }

    /// Whether the file at `target` stays as it is.
    pub(super) fn keeps(&self, skip: Skip, target: &BytePath, source: &Metadata) -> bool {
        self.files.get(target).is_some_and(|there| skip.keeps(there, source))
    }

    /// Something else is there now.
    pub(super) fn forget(&mut self, target: &BytePath) {
        self.files.remove(target);
    }

    async fn ask_for(&mut self, endpoint: &ScpEndpoint, roots: &[&BytePath], recursive: bool) -> Result<(), ScpError> {
        let request = Request::all(roots.iter().copied());
        let mut receiver = Receiver::survey(endpoint, request, recursive).await?;
        let by_name: HashMap<_, _> = roots.iter().filter_map(|root| Some((root.name()?, *root))).collect();
        let root_of = |name: &[u8]| if let [root] = roots { Some(*root) } else { by_name.get(name).copied() };
        let mut open: Vec<BytePath> = Vec::new();
        let path_of = |open: &[BytePath], Header { name, .. }: &Header| match open.last() {
            Some(directory) => Some(directory.join(name)),
            None => root_of(name).cloned(),
        };
        while let Some(received) = receiver.next().await? {
            match received {
                Received::Directory(header) => {
                    open.push(path_of(&open, &header).unwrap_or_default());
                    receiver.accept_directory();
                }
                Received::DirectoryEnd => drop(open.pop()),
                Received::File(header) => {
                    let metadata = metadata_of(&header, FileKind::File);
                    self.files.extend(path_of(&open, &header).map(|path| (path, metadata)));
                    receiver.leave_file(&Words::new(b"not wanted")).await?;
                }
                // What is not there cannot be sent.
                Received::Complaint(_) | Received::Data(_) | Received::FileEnd(_) => {}
            }
            if self.files.len() > MAX_ENTRIES {
                return Err(ScpError::TooManyNames(MAX_ENTRIES));
            }
        }
        Ok(())
    }
}
