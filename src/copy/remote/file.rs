//! Open files of an SFTP server, over as many streams as there are.
//!
//! A file's first bytes go over the stream that opened it, so that a small file costs one handle. What lies behind is
//! given piece by piece to whichever stream has room; a stream that is lost has its pieces taken over by the others.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use futures_util::FutureExt as _;
use tokio::sync::OnceCell;

use super::attributes::{attributes_of, metadata_of};
use super::given::{Narrowed, granted_at_last, granted_by, keep_owner, lacking, refusal};
use super::handles::{Handles, SPREAD_FROM, opened};
use super::lanes::{Lanes, Slot};
use super::refusal::{explain, explain_write};
use crate::copy::endpoint::{Answer, Change, FileKind, Finished, Metadata, SourceFile, TargetFile};
use crate::copy::temporary::temporary_name;
use crate::copy::{BytePath, CopyError, Shortfall};
use crate::ssh::sftp::{Attributes, Extension, Handle, Limits, OpenFlags, Queued, Sftp, SftpError};

/// The longest read asked for: two of the 32 KiB that fit in an SSH packet, so that a request's own cost halves, while a
/// single one does not hold up the others for long on a slow link.
const PIECE: u32 = 64 * 1024;
/// The longest write, which is OpenSSH's limit. Each is answered, each answer is a message of the node, and each message costs
/// an acknowledgement out of the frames that may be sent in a second: with 64 KiB that would be a fifth of them.
const WRITE_PIECE: u32 = 255 * 1024;
/// The permissions of a file under its temporary name.
pub(super) const OWNERS: u32 = 0o600;

/// A file open for reading.
pub(super) struct RemoteSource {
    handles: Handles,
    limits: Limits,
    /// What was asked for together with the attributes.
    ahead: Mutex<Vec<(u64, u32, Queued<Bytes>)>>,
    /// Whether that was all of it.
    is_whole_ahead: bool,
}

impl RemoteSource {
    /// Opens a file. Two round trips, in the second of which a file of at most a piece is read whole.
    pub(super) async fn open(lanes: &Arc<Lanes>, path: &BytePath, size: u64) -> Result<(Self, Metadata), SftpError> {
        let lane = lanes.pick().await;
        let opening = async {
            let sftp = lane.sftp();
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
            Ok((handle, limits, ahead, metadata_of(&attributes.await?)))
        };
        let (handle, limits, ahead, metadata) = lane.heed(opening.await)?;
        let handles = Handles::new(lanes, lane, handle, path, Some(metadata));
        let is_whole_ahead = !ahead.is_empty();
        Ok((Self { handles, limits, ahead: Mutex::new(ahead), is_whole_ahead }, metadata))
    }

    fn take_ahead(&self, offset: u64, length: u32) -> Option<Queued<Bytes>> {
        let mut ahead = lock(&self.ahead);
        let at = ahead.iter().position(|(from, long, _)| (*from, *long) == (offset, length))?;
        Some(ahead.swap_remove(at).2)
    }

    async fn read_piece(&self, offset: u64, length: u32) -> Result<Bytes, CopyError> {
        let data = self.read_somewhere(offset, length).await?;
        self.handles.lanes.look_at(&data);
        Ok(data)
    }

    async fn read_somewhere(&self, offset: u64, length: u32) -> Result<Bytes, CopyError> {
        if let Some(data) = self.take_ahead(offset, length)
            && let Ok(data) = self.handles.first.heed(data.await)
        {
            return Ok(data);
        }
        loop {
            let (slot, handle) = self.handles.slot(offset, length).await?;
            let data = async { slot.sftp().read(opened(&handle)?, offset, length).await };
            match slot.heed(data.await) {
                Err(error) if self.handles.can_go_on(&error) => {}
                outcome => return Ok(outcome?),
            }
        }
    }
}

impl SourceFile for RemoteSource {
    fn max_read(&self) -> u32 {
        self.limits.read.min(PIECE)
    }

    fn read(&self, offset: u64, length: u32) -> Answer<'_, Bytes> {
        self.read_piece(offset, length).boxed()
    }

    fn was_touched(&self) -> Answer<'_, Option<bool>> {
        std::future::ready(Ok(self.handles.is_in_doubt().then_some(true))).boxed()
    }

    fn metadata(&self) -> Answer<'_, Option<Metadata>> {
        async move {
            if self.is_whole_ahead {
                return Ok(None);
            }
            loop {
                let (lane, cell) = self.handles.some().await?;
                let told = async { lane.sftp().fstat(opened(&cell)?).await };
                match lane.heed(told.await) {
                    Err(error) if self.handles.can_go_on(&error) => {}
                    told => return Ok(Some(metadata_of(&told?))),
                }
            }
        }
        .boxed()
    }
}

/// A new file open for writing, to its owner alone.
pub(super) struct RemoteTarget {
    handles: Handles,
    limits: Limits,
    mode: u32,
    /// Answers that are needed only at the end.
    narrowed: Mutex<Option<Narrowed>>,
    /// Whether some of it may go over another stream than the first.
    is_spread: AtomicBool,
    is_synced: AtomicBool,
    /// Past the last byte that the server was given.
    end: AtomicU64,
    /// Writes that wait to be sent: what the server is asked now it would do before them.
    waiting: AtomicUsize,
    /// How many of its streams were lost when somebody asked whether it is in doubt.
    doubted: AtomicUsize,
}

impl RemoteTarget {
    /// Creates a file. One round trip: that it is closed to others is asked for before any of its content is sent, and
    /// the server carries out what concerns one handle in order. Its owner can open it again from the first moment on, by
    /// other streams and in later runs, whatever `mode` says.
    pub(super) async fn create(lanes: &Arc<Lanes>, path: &BytePath, mode: u32) -> Result<Self, SftpError> {
        let lane = lanes.pick().await;
        let creating = async {
            let sftp = lane.sftp();
            let flags = OpenFlags::WRITE | OpenFlags::CREATE | OpenFlags::EXCLUSIVE;
            let handle = sftp.open(path.as_bytes(), flags, &Attributes::with_permissions(mode | OWNERS)).await?;
            let narrowed = if mode & !OWNERS == 0 {
                None
            } else {
                let before = sftp.queue_fstat(&handle).await?;
                let done = sftp.queue_fsetstat(&handle, &Attributes::with_permissions(OWNERS)).await?;
                Some(Narrowed { before, done, told: None })
            };
            Ok((handle, narrowed, sftp.limits().await))
        };
        let (handle, narrowed, limits) = lane.heed(creating.await)?;
        let handles = Handles::new(lanes, lane, handle, path, None);
        Ok(Self::over(handles, limits, mode, narrowed))
    }

    /// Opens a file that `create` made before, and that was given no name yet.
    pub(super) async fn reopen(lanes: &Arc<Lanes>, path: &BytePath, granted: u32) -> Result<Self, SftpError> {
        let lane = lanes.pick().await;
        let opening = async {
            let handle = lane.sftp().open(path.as_bytes(), OpenFlags::WRITE, &Attributes::default()).await?;
            Ok((handle, lane.sftp().limits().await))
        };
        let (handle, limits) = lane.heed(opening.await)?;
        Ok(Self::over(Handles::new(lanes, lane, handle, path, None), limits, granted, None))
    }

    fn over(handles: Handles, limits: Limits, mode: u32, narrowed: Option<Narrowed>) -> Self {
        Self {
            handles,
            limits,
            mode,
            narrowed: Mutex::new(narrowed),
            is_spread: AtomicBool::new(false),
            is_synced: AtomicBool::new(false),
            end: AtomicU64::new(0),
            waiting: AtomicUsize::new(0),
            doubted: AtomicUsize::new(0),
        }
    }

    async fn write_piece(&self, offset: u64, data: Bytes) -> Result<(), CopyError> {
        let length = u32::try_from(data.len()).unwrap_or(u32::MAX);
        self.handles.lanes.look_at(&data);
        self.end.fetch_max(offset + u64::from(length), Ordering::Relaxed);
        if offset >= SPREAD_FROM {
            self.is_spread.store(true, Ordering::Relaxed);
        }
        loop {
            self.waiting.fetch_add(1, Ordering::Relaxed);
            let sent = self.send_piece(offset, length, data.clone()).await;
            self.waiting.fetch_sub(1, Ordering::Relaxed);
            let (slot, sent) = sent?;
            let written = async { sent?.await };
            match slot.heed(written.await) {
                // What was forced to the disk before did not hold this piece.
                Err(error) if self.handles.can_go_on(&error) => self.is_spread.store(true, Ordering::Relaxed),
                outcome => return Ok(outcome?),
            }
        }
    }

    async fn explain_write(&self, error: SftpError) -> CopyError {
        explain_write(&self.handles.lanes, &self.handles.path, error).await
    }

    /// Sends a piece over a stream that has room for it.
    async fn send_piece(
        &self,
        offset: u64,
        length: u32,
        data: Bytes,
    ) -> Result<(Slot, Result<Queued<()>, SftpError>), CopyError> {
        let (slot, handle) = self.handles.slot(offset, length).await?;
        let sent = async { slot.sftp().queue_write(opened(&handle)?, offset, data).await }.await;
        Ok((slot, sent))
    }

    /// Forces to the disk whatever streams wrote.
    async fn sync(&self, sftp: &Sftp, handle: &Handle) -> Result<(), SftpError> {
        let is_done = self.is_synced.load(Ordering::Relaxed) && !self.is_spread.load(Ordering::Relaxed);
        if is_done || !sftp.offers(Extension::Fsync) {
            return Ok(());
        }
        let told = sftp.queue_fstat(handle).await?;
        match sftp.queue_fsync(handle).await?.await {
            // It has it, and does not do it.
            Err(SftpError::PermissionDenied | SftpError::Unsupported(_)) => {}
            synced => synced?,
        }
        check_stored(self.end.load(Ordering::Relaxed), &told.await)?;
        self.is_synced.store(true, Ordering::Relaxed);
        Ok(())
    }

    async fn flush(&self) -> Result<(), SftpError> {
        // Pieces that were added just before this may have been begun only now, or still wait to be sent.
        let is_behind = !self.is_spread.load(Ordering::Relaxed) && self.waiting.load(Ordering::Relaxed) == 0;
        let Some((lane, cell)) = self.handles.on_first().filter(|_| is_behind) else { return Ok(()) };
        match lane.heed(self.sync(lane.sftp(), opened(&cell)?).await) {
            // It is done at the end, by another stream.
            Err(error) if self.handles.can_go_on(&error) => Ok(()),
            synced => synced,
        }
    }

    /// Forces everything to the disk, on whichever stream is there.
    async fn sync_somewhere(&self) -> Result<(), CopyError> {
        let (lane, cell) = self.handles.some().await?;
        if self.handles.lost() > self.doubted.load(Ordering::Relaxed) {
            // One more is lost since somebody asked whether the file is in doubt.
            return Err(self.handles.lanes.cause().into());
        }
        match lane.heed(async { self.sync(lane.sftp(), opened(&cell)?).await }.await) {
            Err(error) => Err(self.explain_write(error).await),
            synced => Ok(synced?),
        }
    }

    async fn publish(self, change: Change, to: &BytePath) -> Result<Finished, CopyError> {
        let (lane, cell) = self.handles.some().await?;
        let mut is_named = true;
        let published = lane.heed(self.publish_on(lane.sftp(), cell, change, to, &mut is_named).await);
        published
            .map_err(|error| if is_named || error.is_fatal() { error.into() } else { CopyError::NotRenamed(error) })
    }

    /// The attributes, the end of the handle and the new name leave together; the content is safe by now. What the server
    /// refuses to set is left out; `is_named` becomes false when it refuses the name.
    async fn publish_on(
        self,
        sftp: &Sftp,
        cell: Arc<OnceCell<Handle>>,
        change: Change,
        to: &BytePath,
        is_named: &mut bool,
    ) -> Result<Finished, SftpError> {
        let narrowed = self.narrowed.into_inner().unwrap_or_else(PoisonError::into_inner);
        let (granted, own) = granted_at_last(narrowed, self.mode).await?;
        let taken = self.end.into_inner();
        let Handles { path, open, .. } = self.handles;
        drop(open);
        // Nothing is being read or written any more, so nobody else holds it.
        let handle = Arc::into_inner(cell).and_then(OnceCell::into_inner).ok_or(SftpError::Ended)?;
        let mut unset = Vec::new();
        if let Some(owner) = change.owner {
            let refused = keep_owner(sftp, &handle, own, owner).await?;
            unset.extend(refused.map(|error| (Shortfall::Owner, Some(error.into()))));
        }
        let change = Change { mode: Some(change.mode.unwrap_or(granted)), owner: None, ..change };
        let wanted = attributes_of(change);
        let changed = sftp.queue_fsetstat(&handle, &wanted).await?;
        let told = sftp.queue_fstat(&handle).await?;
        let closed = sftp.queue_close(handle).await?;
        let metadata;
        if sftp.offers(Extension::Fsync) && sftp.offers(Extension::PosixRename) {
            let renamed = sftp.queue_posix_rename(path.as_bytes(), to.as_bytes()).await?;
            let changed = refusal(changed.await)?;
            // The content is on the disk, whatever becomes of the handle.
            refusal(closed.await)?;
            *is_named = false;
            renamed.await?;
            let told = told.await.unwrap_or_default();
            unset.extend(changed.into_iter().flat_map(|error| lacking(&wanted, &told, &error)));
            metadata = metadata_of(&told);
        } else {
            let changed = refusal(changed.await)?;
            // Without fsync the close may be the first to tell of data that could not be stored.
            closed.await?;
            let told = told.await;
            check_stored(taken, &told)?;
            *is_named = false;
            rename(sftp, path.as_bytes(), to.as_bytes()).await?;
            let told = told.unwrap_or_default();
            unset.extend(changed.into_iter().flat_map(|error| lacking(&wanted, &told, &error)));
            metadata = metadata_of(&told);
        }
        *is_named = true;
        Ok(Finished { metadata, unset })
    }
}

impl TargetFile for RemoteTarget {
    fn max_write(&self) -> u32 {
        self.limits.write.min(WRITE_PIECE)
    }

    fn write(&self, offset: u64, data: Bytes) -> Answer<'_, ()> {
        async move {
            match self.write_piece(offset, data).await {
                Err(CopyError::Remote(error)) => Err(self.explain_write(error).await),
                written => written,
            }
        }
        .boxed()
    }

    fn has_holes(&self) -> bool {
        true
    }

    fn flush_behind(&self) -> Option<Answer<'_, ()>> {
        // Only what went over one stream is carried out in the order in which it was asked for.
        let is_ordered = !self.is_spread.load(Ordering::Relaxed);
        let flush = async move {
            match self.flush().await {
                Err(error) => Err(self.explain_write(error).await),
                flushed => Ok(flushed?),
            }
        };
        is_ordered.then(|| flush.boxed())
    }

    fn granted(&self) -> Option<u32> {
        let mut narrowed = lock(&self.narrowed);
        let Some(Narrowed { before, told, .. }) = narrowed.as_mut() else { return Some(self.mode) };
        if told.is_none() {
            *told = before.now_or_never();
        }
        told.as_ref().and_then(|told| told.as_ref().ok()).map(|told| granted_by(told, self.mode))
    }

    fn is_in_doubt(&self) -> bool {
        let lost = self.handles.lost();
        self.doubted.store(lost, Ordering::Relaxed);
        lost > 0
    }

    fn finish(self: Box<Self>, change: Change, to: &BytePath) -> Answer<'_, Finished> {
        let (lanes, path) = (Arc::clone(&self.handles.lanes), self.handles.path.clone());
        async move {
            self.sync_somewhere().await?;
            match self.publish(change, to).await {
                Err(CopyError::Remote(error)) => Err(explain(&lanes, &path, error).await),
                Err(CopyError::NotRenamed(error)) => match explain(&lanes, &path, error).await {
                    CopyError::Remote(error) if !error.is_fatal() => Err(CopyError::NotRenamed(error)),
                    explained => Err(explained),
                },
                published => published,
            }
        }
        .boxed()
    }
}

/// Whether a file is as long as what was written to it, as far as the server tells.
fn check_stored(taken: u64, told: &Result<Attributes, SftpError>) -> Result<(), SftpError> {
    match told {
        Ok(Attributes { size: Some(held), .. }) if *held < taken => Err(SftpError::NotStored { taken, held: *held }),
        Err(error) if error.is_fatal() => Err(error.clone()),
        _ => Ok(()),
    }
}

/// Gives a file a name that another may have.
pub(super) async fn rename(sftp: &Sftp, from: &[u8], to: &[u8]) -> Result<(), SftpError> {
    if sftp.offers(Extension::PosixRename) {
        return sftp.posix_rename(from, to).await;
    }
    let Err(refused) = sftp.rename(from, to).await else { return Ok(()) };
    // Version 3 renames over nothing: what has the name steps aside, and gets it back if the other cannot have it either.
    // Between the two the name is missing, which is the best that such a server allows.
    if sftp.lstat(to).await.map_or(true, |found| metadata_of(&found).kind == Some(FileKind::Directory)) {
        return Err(refused);
    }
    let aside = temporary_name(&BytePath::new(to));
    sftp.rename(to, aside.as_bytes()).await.map_err(|_| refused)?;
    if let Err(error) = sftp.rename(from, to).await {
        if sftp.rename(aside.as_bytes(), to).await.is_err() {
            tracing::warn!(path = %BytePath::new(to), %aside, "what had this name could not be given it back");
        }
        return Err(error);
    }
    if let Err(error) = sftp.remove(aside.as_bytes()).await {
        tracing::warn!(%aside, %error, "what was replaced could not be removed");
    }
    Ok(())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
