//! A device of the node as a target, such as `/dev/null`.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::FutureExt as _;

use super::lanes::{Lane, Lanes};
use super::refusal::explain_write;
use crate::copy::endpoint::{Answer, Change, Finished, TargetFile};
use crate::copy::{BytePath, CopyError};
use crate::ssh::sftp::{Attributes, Handle, OpenFlags, SftpError};

const KIND: u32 = 0o170_000;
const CHARACTER_DEVICE: u32 = 0o020_000;
const PIECE: u32 = 32 * 1024;

/// A device that is written into.
pub(super) struct Device {
    lanes: Arc<Lanes>,
    lane: Lane,
    handle: Handle,
    path: BytePath,
}

impl Device {
    /// Opens a character device. A server waits in opening a pipe until somebody reads that, and answers nothing else
    /// meanwhile.
    pub(super) async fn open(lanes: &Arc<Lanes>, path: &BytePath) -> Result<Self, CopyError> {
        let lane = lanes.pick().await;
        let found = lane.heed(lane.sftp().stat(path.as_bytes()).await)?;
        if found.permissions.is_none_or(|mode| mode & KIND != CHARACTER_DEVICE) {
            return Err(CopyError::NotRegular);
        }
        let opened = lane.sftp().open(path.as_bytes(), OpenFlags::WRITE, &Attributes::default()).await;
        let handle = lane.heed(opened)?;
        Ok(Self { lanes: Arc::clone(lanes), lane, handle, path: path.clone() })
    }

    async fn explain(&self, outcome: Result<(), SftpError>) -> Result<(), CopyError> {
        match self.lane.heed(outcome) {
            Err(error) => Err(explain_write(&self.lanes, &self.path, error).await),
            Ok(()) => Ok(()),
        }
    }
}

impl TargetFile for Device {
    fn max_write(&self) -> u32 {
        PIECE
    }

    fn write(&self, offset: u64, data: Bytes) -> Answer<'_, ()> {
        async move {
            let written = async { self.lane.sftp().queue_write(&self.handle, offset, data).await?.await };
            self.explain(written.await).await
        }
        .boxed()
    }

    fn finish(self: Box<Self>, _: Change, _: &BytePath) -> Answer<'_, Finished> {
        async move {
            let Self { lane, handle, .. } = *self;
            let closed = async { lane.sftp().queue_close(handle).await?.await };
            lane.heed(closed.await)?;
            Ok(Finished::default())
        }
        .boxed()
    }
}
