//! Whether a copy is equal to its source, before it gets its name.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures_util::future::join;
use futures_util::stream::{self, StreamExt as _};
use sha2::{Digest as _, Sha256};
use tokio::sync::Semaphore;

use super::file::FileCopy;
use crate::copy::endpoint::SourceFile;
use crate::copy::{BytePath, CopyError, Endpoint, Failure, Piece};

/// Bytes asked for ahead when a file is read back, for each stream.
const AHEAD: u64 = 4 * 1024 * 1024;

impl FileCopy<'_> {
    /// Compares the first `size` bytes of the source and what was written of it by SHA-256.
    pub(super) async fn compare(
        &self,
        reader: &dyn SourceFile,
        written: Written<'_>,
        size: u64,
    ) -> Result<(), Failure> {
        let of_source = async {
            match reader.digest() {
                Some(digest) => Ok(digest),
                None => digest_of_beginning(self.source, &self.place.source, size, self.budget).await,
            }
        };
        let of_target = async {
            match written {
                Written::At(path) => digest(self.target, path, size, self.budget).await,
                Written::Known(digest) => Ok(digest),
            }
        };
        let (source, target) = join(of_source, of_target).await;
        let (source, target) =
            (source.map_err(|error| self.at_source(error))?, target.map_err(|error| self.at_target(error))?);
        if source == target {
            return Ok(());
        }
        Err(self.at_target(CopyError::Differs { source_side: self.source.side(), target: self.target.side() }))
    }
}

/// What was written.
#[derive(Debug, Clone, Copy)]
pub(super) enum Written<'a> {
    /// It lies here.
    At(&'a BytePath),
    /// It cannot be read back, and has this digest.
    Known([u8; 32]),
}

async fn digest_of_beginning(
    endpoint: &dyn Endpoint,
    path: &BytePath,
    size: u64,
    budget: &Arc<Semaphore>,
) -> Result<[u8; 32], CopyError> {
    match endpoint.digest_of_beginning(path, size).await? {
        Some(digest) => Ok(digest),
        None => read_digest(endpoint, path, size, budget).await,
    }
}

/// As the side finds it out; otherwise the file is read.
async fn digest(
    endpoint: &dyn Endpoint,
    path: &BytePath,
    size: u64,
    budget: &Arc<Semaphore>,
) -> Result<[u8; 32], CopyError> {
    match endpoint.digest(path, size).await? {
        Some(digest) => Ok(digest),
        None => read_digest(endpoint, path, size, budget).await,
    }
}

async fn read_digest(
    endpoint: &dyn Endpoint,
    path: &BytePath,
    size: u64,
    budget: &Semaphore,
) -> Result<[u8; 32], CopyError> {
    let (file, _) = endpoint.open(path, size).await?;
    let longest = u64::from(file.max_read().max(1));
    let ahead = usize::try_from(AHEAD * endpoint.streams().max(1) as u64 / longest).unwrap_or(usize::MAX).max(1);
    let pieces = (0..size).step_by(usize::try_from(longest).unwrap_or(usize::MAX)).map(|offset| {
        let length = u32::try_from((size - offset).min(longest)).expect("no longer than the longest");
        Piece { offset, length }
    });
    // Permits are given in the order in which they are asked for, so the piece that is next in turn always has its own.
    let mut read = stream::iter(pieces)
        .map(async |piece| {
            let permit = budget.acquire_many(piece.length).await.expect("nobody closes the budget");
            read_exactly(&*file, piece).await.map(|data| (data, permit))
        })
        .buffered(ahead);
    let mut hash = Sha256::new();
    while let Some(outcome) = read.next().await {
        let (data, _permit) = outcome?;
        hash.update(&data);
    }
    Ok(hash.finalize().into())
}

/// All bytes of a piece, however little each read gives.
pub(super) async fn read_exactly(file: &dyn SourceFile, piece: Piece) -> Result<Bytes, CopyError> {
    let whole = file.read(piece.offset, piece.length.min(file.max_read())).await?;
    if whole.len() == piece.length as usize {
        return Ok(whole);
    }
    let mut data = BytesMut::from(&whole[..]);
    while data.len() < piece.length as usize {
        let offset = piece.offset + data.len() as u64;
        let rest = u32::try_from(piece.length as usize - data.len()).map_err(|_| CopyError::TooMuchData)?;
        let more = file.read(offset, rest.min(file.max_read())).await?;
        if more.is_empty() {
            return Err(CopyError::Shrunk { expected: piece.offset + u64::from(piece.length), end: offset });
        }
        data.extend_from_slice(&more);
    }
    Ok(data.freeze())
}
