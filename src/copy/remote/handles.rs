//! The handles of one file, on as many streams as carry a part of it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::OnceCell;

use super::attributes::metadata_of;
use super::lanes::{Lane, Lanes, Slot};
use crate::copy::endpoint::Metadata;
use crate::copy::{BytePath, CopyError};
use crate::ssh::sftp::{Attributes, Handle, OpenFlags, Sftp, SftpError};

/// Bytes at the start of a file that stay on its first stream.
pub(super) const SPREAD_FROM: u64 = 256 * 1024;

/// A file's handles: one for each stream that carries a part of it.
pub(super) struct Handles {
    pub(super) lanes: Arc<Lanes>,
    pub(super) first: Lane,
    pub(super) path: BytePath,
    flags: OpenFlags,
    /// What every stream has to find behind the name, when it is a file to be read.
    expected: Option<Metadata>,
    /// A stream found more behind the name than was expected: the same file, grown, or another one.
    has_grown: AtomicBool,
    pub(super) open: Mutex<BTreeMap<usize, Arc<OnceCell<Handle>>>>,
    /// Streams on which the file could not be opened again.
    refused: Mutex<BTreeSet<usize>>,
}

impl Handles {
    pub(super) fn new(
        lanes: &Arc<Lanes>,
        first: Lane,
        handle: Handle,
        path: &BytePath,
        expected: Option<Metadata>,
    ) -> Self {
        let flags = if expected.is_some() { OpenFlags::READ } else { OpenFlags::WRITE };
        let open = BTreeMap::from([(first.id(), Arc::new(OnceCell::new_with(Some(handle))))]);
        Self {
            lanes: Arc::clone(lanes),
            first,
            path: path.clone(),
            flags,
            expected,
            has_grown: AtomicBool::new(false),
            open: Mutex::new(open),
            refused: Mutex::default(),
        }
    }

    /// Waits for a stream with room for `length` bytes at `offset`.
    pub(super) async fn slot(&self, offset: u64, length: u32) -> Result<(Slot, Arc<OnceCell<Handle>>), CopyError> {
        let stick = (offset < SPREAD_FROM).then_some(self.first.id());
        let mut refusal = None;
        while let Some(slot) = self.lanes.room(length, stick, &self.refused).await {
            match self.handle_on(&slot).await {
                Ok(handle) => return Ok((slot, handle)),
                Err(error) => {
                    tracing::debug!(%error, path = %self.path, "a stream cannot carry a part of this file");
                    lock(&self.refused).insert(slot.id());
                    refusal = Some(error);
                }
            }
        }
        Err(refusal.unwrap_or_else(|| self.lanes.cause().into()))
    }

    async fn handle_on(&self, slot: &Slot) -> Result<Arc<OnceCell<Handle>>, CopyError> {
        let cell = Arc::clone(lock(&self.open).entry(slot.id()).or_default());
        cell.get_or_try_init(async || self.check(slot.heed(self.open_again(slot.sftp()).await)?).await).await?;
        Ok(cell)
    }

    async fn open_again(&self, sftp: &Sftp) -> Result<(Handle, Metadata), SftpError> {
        let handle = sftp.open(self.path.as_bytes(), self.flags, &Attributes::default()).await?;
        let found = sftp.fstat(&handle).await?;
        Ok((handle, metadata_of(&found)))
    }

    async fn check(&self, (handle, found): (Handle, Metadata)) -> Result<Handle, CopyError> {
        match &self.expected {
            Some(expected) if is_longer(expected, &found) && self.has_first_grown(&found).await => {
                self.has_grown.store(true, Ordering::Relaxed);
                Ok(handle)
            }
            Some(expected) if !is_same(expected, &found) => Err(CopyError::Replaced),
            _ => Ok(handle),
        }
    }

    /// Whether the file that the first stream has open is as long by now as what another one found behind the name.
    async fn has_first_grown(&self, found: &Metadata) -> bool {
        let Some((lane, cell)) = self.on_first() else { return false };
        let Ok(handle) = opened(&cell) else { return false };
        lane.heed(lane.sftp().fstat(handle).await).is_ok_and(|first| metadata_of(&first).size >= found.size)
    }

    /// Whether what some stream has read may be another file's.
    pub(super) fn is_in_doubt(&self) -> bool {
        self.has_grown.load(Ordering::Relaxed)
    }

    /// A stream that has the file open; when all that had it are lost, it is opened once more.
    pub(super) async fn some(&self) -> Result<(Lane, Arc<OnceCell<Handle>>), CopyError> {
        if let Some(id) = self.usable() {
            return Ok((self.lanes.lane(id), Arc::clone(&lock(&self.open)[&id])));
        }
        let lane = self.lanes.pick().await;
        let cell = Arc::clone(lock(&self.open).entry(lane.id()).or_default());
        cell.get_or_try_init(async || self.check(lane.heed(self.open_again(lane.sftp()).await)?).await).await?;
        Ok((lane, cell))
    }

    /// The stream that opened it, as long as it is not lost.
    pub(super) fn on_first(&self) -> Option<(&Lane, Arc<OnceCell<Handle>>)> {
        let id = self.first.id();
        (!self.lanes.is_lost(id)).then(|| (&self.first, Arc::clone(&lock(&self.open)[&id])))
    }

    /// The stream that opened it, or else another that has it open and is not lost.
    fn usable(&self) -> Option<usize> {
        let open = lock(&self.open);
        let usable = |id: &usize| open[id].initialized() && !self.lanes.is_lost(*id);
        Some(self.first.id()).filter(usable).or_else(|| open.keys().copied().find(usable))
    }

    /// How many of the streams that have carried a part of it are lost.
    pub(super) fn lost(&self) -> usize {
        lock(&self.open).iter().filter(|(id, handle)| handle.initialized() && self.lanes.is_lost(**id)).count()
    }

    /// Whether an operation that failed so can be done by another stream.
    pub(super) fn can_go_on(&self, error: &SftpError) -> bool {
        error.is_fatal() && self.lanes.is_alive()
    }
}

fn is_longer(expected: &Metadata, found: &Metadata) -> bool {
    expected.kind == found.kind && expected.size.zip(found.size).is_some_and(|(expected, found)| found > expected)
}

fn is_same(one: &Metadata, other: &Metadata) -> bool {
    let modified = |metadata: &Metadata| metadata.times.map(|(_, modified)| modified);
    (one.kind, one.size, modified(one)) == (other.kind, other.size, modified(other))
}

/// The handle that `Handles` gave out, which is open.
pub(super) fn opened(cell: &OnceCell<Handle>) -> Result<&Handle, SftpError> {
    cell.get().ok_or(SftpError::Ended)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
