//! The SHA-256 of files on the far side, beside the protocol: by a program there that hashes, otherwise by receiving the
//! file once more.

use sha2::{Digest as _, Sha256};

use super::receiver::Receiver;
use super::request::{Flags, Request, quoted};
use super::sink::Received;
use super::{ScpEndpoint, ScpError};
use crate::copy::{BytePath, remote_digest};

/// Longest list of files in one command, in bytes: shells take twice as much at least.
pub(super) const MAX_WORDS: usize = 48 * 1024;
/// Most that is read of what the program prints: for each file, and besides.
const LINE: u64 = 256;
const NOISE: u64 = 64 * 1024;
/// Bytes received at once.
const PIECE: usize = 64 * 1024;

/// The digest of each file; why not, if a file cannot be read.
pub(super) async fn of_all(
    endpoint: &ScpEndpoint,
    paths: &[&BytePath],
) -> Result<Vec<Result<[u8; 32], ScpError>>, ScpError> {
    let command = remote_digest::command(paths.iter().map(|path| quoted(path)));
    let printed = endpoint.output(command, NOISE + LINE * paths.len() as u64).await?;
    let mut digests = Vec::new();
    for (path, digest) in paths.iter().zip(remote_digest::parse(&printed, paths.len())) {
        digests.push(match digest {
            Some(digest) => Ok(digest),
            None => received(endpoint, path, u64::MAX).await,
        });
    }
    Ok(digests)
}

pub(super) async fn of_one(endpoint: &ScpEndpoint, path: &BytePath) -> Result<[u8; 32], ScpError> {
    of_all(endpoint, &[path]).await?.pop().unwrap_or(Err(ScpError::OutOfTurn("no file came")))
}

/// The digest of its first `size` bytes.
pub(super) async fn of_beginning(endpoint: &ScpEndpoint, path: &BytePath, size: u64) -> Result<[u8; 32], ScpError> {
    let command = remote_digest::command_of_beginning(quoted(path), size);
    let printed = endpoint.output(command, NOISE + LINE).await?;
    let of_nothing = <[u8; 32]>::from(Sha256::digest(b""));
    match remote_digest::parse(&printed, 1).pop().flatten() {
        // A system that cannot cut a file gives nothing to hash.
        Some(digest) if digest != of_nothing => Ok(digest),
        _ => received(endpoint, path, size).await,
    }
}

/// The digest of what comes first when the file is asked for.
async fn received(endpoint: &ScpEndpoint, path: &BytePath, size: u64) -> Result<[u8; 32], ScpError> {
    tracing::debug!(%path, "no program there hashes it: it is read back");
    let mut receiver = Receiver::start(endpoint, Request::new(path), Flags::default()).await?;
    loop {
        match receiver.next().await? {
            Some(Received::File(_)) => break,
            Some(Received::Complaint(words)) => return Err(ScpError::Refused(words.reason())),
            Some(_) => {}
            None => return Err(ScpError::OutOfTurn("no file came")),
        }
    }
    let (mut hash, mut left) = (Sha256::new(), size);
    loop {
        let data = receiver.read(PIECE).await?;
        if data.is_empty() {
            return Ok(hash.finalize().into());
        }
        let wanted = usize::try_from(left).unwrap_or(usize::MAX).min(data.len());
        hash.update(&data[..wanted]);
        left -= wanted as u64;
    }
}
