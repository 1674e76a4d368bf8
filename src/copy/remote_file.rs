//! Open files of an SFTP server.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use futures_util::FutureExt as _;

use super::BytePath;
use super::endpoint::{Answer, Change, Metadata, SourceFile, TargetFile};
use super::remote::{PERMISSION_BITS, attributes_of, metadata_of};
use crate::ssh::sftp::{Attributes, Extension, Handle, Limits, OpenFlags, Queued, Sftp, SftpError};

/// The longest read or write asked for: two of the 32 KiB that fit in an SSH packet, so that a request's own cost
/// halves, while a single one does not hold up the others for long on a slow link.
const PIECE: u32 = 64 * 1024;

/// A file open for reading.
pub(super) struct RemoteSource {
    sftp: Sftp,
    handle: Handle,
    limits: Limits,
    /// What was asked for together with the attributes.
    ahead: Mutex<Vec<(u64, u32, Queued<Bytes>)>>,
}

impl RemoteSource {
    /// Opens a file. Two round trips, in the second of which a file of at most a piece is read whole.
    pub(super) async fn open(sftp: &Sftp, path: &BytePath, size: u64) -> Result<(Self, Metadata), SftpError> {
        let handle = sftp.open(path.as_bytes(), OpenFlags::READ, &Attributes::default()).await?;
        let limits = sftp.limits().await;
        let attributes = sftp.queue_fstat(&handle).await?;
        let mut ahead = Vec::new();
        if let Some(size @ 1..) = u32::try_from(size).ok().filter(|size| *size <= limits.read.min(PIECE)) {
            // The piece and the probe behind it, as a `Transfer` will ask for them.
            for (offset, length) in [(0, size), (size.into(), 1)] {
                ahead.push((offset, length, sftp.queue_read(&handle, offset, length).await?));
            }
        }
        let metadata = metadata_of(&attributes.await?);
        Ok((Self { sftp: sftp.clone(), handle, limits, ahead: Mutex::new(ahead) }, metadata))
    }

    fn take_ahead(&self, offset: u64, length: u32) -> Option<Queued<Bytes>> {
        let mut ahead = self.ahead.lock().unwrap_or_else(PoisonError::into_inner);
        let at = ahead.iter().position(|(from, long, _)| (*from, *long) == (offset, length))?;
        Some(ahead.swap_remove(at).2)
    }
}

impl SourceFile for RemoteSource {
    fn max_read(&self) -> u32 {
        self.limits.read.min(PIECE)
    }

    fn read(&self, offset: u64, length: u32) -> Answer<'_, Bytes> {
        async move {
            match self.take_ahead(offset, length) {
                Some(data) => Ok(data.await?),
                None => Ok(self.sftp.read(&self.handle, offset, length).await?),
            }
        }
        .boxed()
    }
}

/// A new file open for writing, to its owner alone.
pub(super) struct RemoteTarget {
    sftp: Sftp,
    handle: Handle,
    path: BytePath,
    limits: Limits,
    /// Answers that are needed only at the end.
    narrowed: Mutex<Option<Narrowed>>,
    is_synced: AtomicBool,
    mode: u32,
}

/// The attributes that the server gave a new file, and whether the file is closed to others since.
struct Narrowed {
    before: Queued<Attributes>,
    done: Queued<()>,
}

impl RemoteTarget {
    /// Creates a file. One round trip: that it is closed to others is asked for before any of its content is sent, and
    /// the server carries out what concerns one handle in order.
    pub(super) async fn create(sftp: &Sftp, path: &BytePath, mode: u32) -> Result<Self, SftpError> {
        let flags = OpenFlags::WRITE | OpenFlags::CREATE | OpenFlags::EXCLUSIVE;
        let handle = sftp.open(path.as_bytes(), flags, &Attributes::with_permissions(mode)).await?;
        let narrowed = if mode & !0o600 == 0 {
            None
        } else {
            let before = sftp.queue_fstat(&handle).await?;
            let done = sftp.queue_fsetstat(&handle, &Attributes::with_permissions(0o600)).await?;
            Some(Narrowed { before, done })
        };
        let limits = sftp.limits().await;
        let (sftp, path) = (sftp.clone(), path.clone());
        Ok(Self { sftp, handle, path, limits, narrowed: Mutex::new(narrowed), is_synced: AtomicBool::new(false), mode })
    }

    async fn sync(&self) -> Result<(), SftpError> {
        if self.is_synced.swap(true, Ordering::Relaxed) || !self.sftp.offers(Extension::Fsync) {
            return Ok(());
        }
        self.sftp.fsync(&self.handle).await
    }

    /// The attributes, the end of the handle and the new name leave together, once the content is safe.
    async fn publish(self, change: Change, to: &BytePath) -> Result<(), SftpError> {
        self.sync().await?;
        let Self { sftp, handle, path, narrowed, mode, .. } = self;
        let granted = match narrowed.into_inner().unwrap_or_else(PoisonError::into_inner) {
            None => mode,
            Some(Narrowed { before, done }) => {
                done.await?;
                before.await?.permissions.map_or(0o600, |granted| granted & PERMISSION_BITS)
            }
        };
        let change = Change { mode: Some(change.mode.unwrap_or(granted)), ..change };
        let changed = sftp.queue_fsetstat(&handle, &attributes_of(change)).await?;
        let closed = sftp.queue_close(handle).await?;
        if !(sftp.offers(Extension::Fsync) && sftp.offers(Extension::PosixRename)) {
            changed.await?;
            // Without fsync the close may be the first to tell of data that could not be stored.
            closed.await?;
            return rename(&sftp, path.as_bytes(), to.as_bytes()).await;
        }
        let renamed = sftp.queue_posix_rename(path.as_bytes(), to.as_bytes()).await?;
        changed.await?;
        closed.await?;
        renamed.await
    }
}

impl TargetFile for RemoteTarget {
    fn max_write(&self) -> u32 {
        self.limits.write.min(PIECE)
    }

    fn write(&self, offset: u64, data: Bytes) -> Answer<'_, ()> {
        async move { Ok(self.sftp.write(&self.handle, offset, data).await?) }.boxed()
    }

    fn flush_behind(&self) -> Option<Answer<'_, ()>> {
        Some(async move { Ok(self.sync().await?) }.boxed())
    }

    fn finish(self: Box<Self>, change: Change, to: &BytePath) -> Answer<'_, ()> {
        async move { Ok(self.publish(change, to).await?) }.boxed()
    }
}

/// Gives a file a name that another may have.
async fn rename(sftp: &Sftp, from: &[u8], to: &[u8]) -> Result<(), SftpError> {
    if sftp.offers(Extension::PosixRename) {
        return sftp.posix_rename(from, to).await;
    }
    let Err(refused) = sftp.rename(from, to).await else { return Ok(()) };
    // Version 3 renames over nothing: the target goes first. Between the two the name is missing, which is the best
    // that such a server allows; what was written is whole under its temporary name.
    sftp.remove(to).await.map_err(|_| refused)?;
    sftp.rename(from, to).await
}
