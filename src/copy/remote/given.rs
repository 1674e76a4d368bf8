//! What a new file gets besides its content: permissions, owner and group, times. A server may refuse each of them.

use super::attributes::PERMISSION_BITS;
use super::file::OWNERS;
use crate::copy::{CopyError, Shortfall, Unset};
use crate::ssh::sftp::{Attributes, Handle, Queued, Sftp, SftpError};

/// The rights that a umask takes away everywhere.
const OTHERS_WRITE: u32 = 0o022;

/// The attributes that the server gave a new file, and whether the file is closed to others since.
pub(super) struct Narrowed {
    pub(super) before: Queued<Attributes>,
    pub(super) done: Queued<()>,
    pub(super) told: Option<Result<Attributes, SftpError>>,
}

/// The permissions that a new file gets when no others are given, and its owner where the server told it.
pub(super) async fn granted_at_last(
    narrowed: Option<Narrowed>,
    mode: u32,
) -> Result<(u32, Option<(u32, u32)>), SftpError> {
    let Some(Narrowed { before, done, told }) = narrowed else { return Ok((mode, None)) };
    // A server that sets no permissions leaves the file as it was created.
    refusal(done.await)?;
    let told = match told {
        Some(told) => told,
        None => before.await,
    };
    match told {
        Ok(told) => Ok((granted_by(&told, mode), told.owner)),
        Err(error) if error.is_fatal() => Err(error),
        // What the server's umask leaves of it is not known.
        Err(_) => Ok((mode & !OTHERS_WRITE, None)),
    }
}

/// What a server refused, if that is all.
pub(super) fn refusal(outcome: Result<(), SftpError>) -> Result<Option<SftpError>, SftpError> {
    match outcome {
        Err(error) if error.is_fatal() => Err(error),
        outcome => Ok(outcome.err()),
    }
}

/// Gives a file the user and group that another has, or the group alone where that is all that is allowed. Returns why it
/// has not both.
pub(super) async fn keep_owner(
    sftp: &Sftp,
    handle: &Handle,
    own: Option<(u32, u32)>,
    wanted: (u32, u32),
) -> Result<Option<SftpError>, SftpError> {
    let own = match own {
        Some(own) => Some(own),
        None => match sftp.fstat(handle).await {
            Err(error) if error.is_fatal() => return Err(error),
            told => told.ok().and_then(|told| told.owner),
        },
    };
    let Some(own) = own.filter(|own| *own != wanted) else { return Ok(None) };
    let give = async |owner| {
        let attributes = Attributes { owner: Some(owner), ..Attributes::default() };
        refusal(sftp.queue_fsetstat(handle, &attributes).await?.await)
    };
    let refused = give(wanted).await?;
    if refused.is_some() && own.1 != wanted.1 {
        give((own.0, wanted.1)).await?;
    }
    Ok(refused)
}

/// What a file does not have of what it was to have, where `refused` was all that the server said.
pub(super) fn lacking(wanted: &Attributes, told: &Attributes, refused: &SftpError) -> Vec<Unset> {
    let bits = |attributes: &Attributes| attributes.permissions.map(|mode| mode & PERMISSION_BITS);
    let reason = || Some(CopyError::from(refused.clone()));
    let permissions = (bits(wanted) != bits(told)).then(|| (Shortfall::Permissions, reason()));
    let times = (wanted.times.is_some() && wanted.times != told.times).then(|| (Shortfall::Times, reason()));
    permissions.into_iter().chain(times).collect()
}

/// What the server leaves of `mode`, by the attributes of a file that was created with its owner's rights besides.
pub(super) fn granted_by(attributes: &Attributes, mode: u32) -> u32 {
    attributes.permissions.map_or(OWNERS, |granted| granted & PERMISSION_BITS) & (mode | !OWNERS)
}
