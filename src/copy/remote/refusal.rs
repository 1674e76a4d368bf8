//! What is behind a refusal that a server does not explain.
//!
//! SFTP has no code for a full or read-only disk: OpenSSH's server answers "Failure" to both, and to much else. To names
//! that are too long it answers "Bad message".

use std::sync::Arc;

use super::lanes::Lanes;
use crate::copy::{BytePath, CopyError};
use crate::ssh::sftp::{Extension, FileKind, SftpError};

/// With less than this left, a disk is full: no piece of a file fits.
const LITTLE: u64 = 64 * 1024;

/// Codes that version 3 does not have and some servers send all the same.
const WRITE_PROTECT: u32 = 12;
const NO_SPACE: u32 = 14;
const QUOTA_EXCEEDED: u32 = 15;
/// What OpenSSH's server makes of `ENAMETOOLONG`.
const BAD_MESSAGE: u32 = 5;
/// No system takes less: a path of this length, or a name in it (eCryptfs).
const LONG_PATH: usize = 1023;
const LONG_NAME: usize = 143;

/// What a server's code means for `path`, where that can be told without asking.
pub(super) fn meaning(path: &BytePath, error: SftpError) -> CopyError {
    let SftpError::Status { code, .. } = &error else { return error.into() };
    match *code {
        WRITE_PROTECT => CopyError::ReadOnly,
        NO_SPACE => CopyError::DiskFull,
        QUOTA_EXCEEDED => CopyError::QuotaUsedUp,
        BAD_MESSAGE if is_long(path.as_bytes()) => CopyError::TooLongName,
        _ => error.into(),
    }
}

fn is_long(path: &[u8]) -> bool {
    path.len() > LONG_PATH || path.split(|byte| *byte == b'/').any(|name| name.len() > LONG_NAME)
}

/// Asks the server about the file system that was to hold `path`, when what it said may be about that.
pub(super) async fn explain(lanes: &Arc<Lanes>, path: &BytePath, error: SftpError) -> CopyError {
    let error = meaning(path, error);
    let missing = match &error {
        CopyError::Remote(SftpError::Failure(_)) => 0,
        CopyError::Remote(SftpError::NotStored { taken, held }) => taken.saturating_sub(*held),
        _ => return error,
    };
    let lane = lanes.pick().await;
    if !lane.sftp().offers(Extension::Statvfs) {
        return error;
    }
    match lane.heed(lane.sftp().statvfs(path.parent().as_bytes()).await) {
        Ok(space) if space.is_read_only => CopyError::ReadOnly,
        Ok(space) if space.bytes < LITTLE.max(missing) || space.files == Some(0) => CopyError::DiskFull,
        _ => error,
    }
}

/// As [`explain`], for content that was not taken.
pub(super) async fn explain_write(lanes: &Arc<Lanes>, path: &BytePath, error: SftpError) -> CopyError {
    match explain(lanes, path, error).await {
        CopyError::Remote(refused @ SftpError::Failure(_)) => CopyError::NotTaken(refused),
        explained => explained,
    }
}

/// As [`explain`], for a new name that was not taken.
pub(super) async fn explain_new(lanes: &Arc<Lanes>, path: &BytePath, error: SftpError) -> CopyError {
    let explained = explain_write(lanes, path, error).await;
    if !matches!(explained, CopyError::NotTaken(_)) {
        return explained;
    }
    let lane = lanes.pick().await;
    match lane.heed(lane.sftp().stat(path.parent().as_bytes()).await) {
        Ok(parent) if parent.kind().is_some_and(|kind| kind != FileKind::Directory) => CopyError::FileInTheWay,
        _ => explained,
    }
}
