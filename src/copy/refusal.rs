//! What is behind a refusal that a server does not explain.
//!
//! SFTP has no code for a full or read-only disk: OpenSSH's server answers "Failure" to both, and to much else.

use std::sync::Arc;

use super::lanes::Lanes;
use super::{BytePath, CopyError};
use crate::ssh::sftp::{Extension, SftpError};

/// With less than this left, a disk is full: no piece of a file fits.
const LITTLE: u64 = 64 * 1024;

/// Asks the server about the file system that was to hold `path`, when what it said may be about that.
pub(super) async fn explain(lanes: &Arc<Lanes>, path: &BytePath, error: CopyError) -> CopyError {
    let CopyError::Remote(SftpError::Failure(_)) = &error else { return error };
    let lane = lanes.pick();
    if !lane.sftp().offers(Extension::Statvfs) {
        return error;
    }
    match lane.heed(lane.sftp().statvfs(path.parent().as_bytes()).await) {
        Ok(space) if space.is_read_only => CopyError::ReadOnly,
        Ok(space) if space.bytes < LITTLE || space.files == Some(0) => CopyError::DiskFull,
        _ => error,
    }
}

/// As [`explain`], for content that was not taken.
pub(super) async fn explain_write(lanes: &Arc<Lanes>, path: &BytePath, error: CopyError) -> CopyError {
    match explain(lanes, path, error).await {
        CopyError::Remote(refused @ SftpError::Failure(_)) => CopyError::NotTaken(refused),
        explained => explained,
    }
}
