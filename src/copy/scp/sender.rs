//! A [`Source`] and the program that takes what it sends.

use std::collections::VecDeque;
use std::io;
use std::sync::PoisonError;

use bytes::Bytes;
use futures_util::FutureExt as _;
use sha2::{Digest as _, Sha256};
use tokio::sync::{Mutex, watch};

use super::ScpEndpoint;
use super::error::ScpError;
use super::line::{Times, Words};
use super::peer::Peer;
use super::request::{Flags, target_command};
use super::source::{Answered, Source};
use crate::copy::endpoint::{Answer, Change, Finished, TargetFile};
use crate::copy::plan::Place;
use crate::copy::{BytePath, CopyError};

/// Bytes written at once, and given for those of a file that cannot be read.
const PIECE: u32 = 64 * 1024;
static ZEROS: [u8; PIECE as usize] = [0; PIECE as usize];

/// The program that takes files, running. Dropping it ends the program.
pub(super) struct Sender {
    source: Source,
    peer: Peer,
    /// Bytes that the current file still has to get.
    left: u64,
    /// Of what the current file got, if digests are asked for.
    hash: Option<Sha256>,
    /// Files whose end is not answered yet, the oldest first; nothing where the answer is no news.
    unsettled: VecDeque<Option<Sent>>,
    settled: Vec<(Sent, Option<Words>)>,
}

/// A file that was sent.
#[derive(Debug)]
pub(super) struct Sent {
    pub(super) place: Place,
    /// Of its bytes, if it was asked for.
    pub(super) digest: Option<[u8; 32]>,
}

impl Sender {
    /// Starts it. `Err` with [`ScpError::Refused`]: `path` is no directory, and `flags` ask for one.
    pub(super) async fn start(endpoint: &ScpEndpoint, path: &BytePath, flags: Flags) -> Result<Self, ScpError> {
        let peer = Peer::start(endpoint, target_command(path, flags)).await?;
        let mut sender =
            Self { source: Source::new(), peer, left: 0, hash: None, unsettled: VecDeque::new(), settled: Vec::new() };
        match sender.answer().await? {
            Answered::Refused(words) => Err(ScpError::Refused(words)),
            _ => Ok(sender),
        }
    }

    /// From now on the digest of every file is taken on its way.
    pub(super) fn take_digests(&mut self) {
        self.hash = Some(Sha256::new());
    }

    /// Offers a file; words if the far side does not take it.
    pub(super) async fn file(
        &mut self,
        name: &[u8],
        mode: u32,
        size: u64,
        times: Option<Times>,
    ) -> Result<Option<Words>, ScpError> {
        self.source.file(name, mode, size, times)?;
        let refusal = self.verdict().await?;
        self.left = if refusal.is_none() { size } else { 0 };
        self.hash = self.hash.take().map(|_| Sha256::new());
        Ok(refusal)
    }

    /// Offers a directory; words if the far side does not take it.
    pub(super) async fn directory(
        &mut self,
        name: &[u8],
        mode: u32,
        times: Option<Times>,
    ) -> Result<Option<Words>, ScpError> {
        self.source.directory(name, mode, times)?;
        self.verdict().await
    }

    pub(super) fn end_directory(&mut self) {
        self.source.end_directory();
    }

    /// Sends bytes of the file that was accepted. Once it was polled, they count as sent: cancelling it leaves the rest
    /// for later.
    pub(super) async fn data(&mut self, bytes: Bytes) -> Result<(), ScpError> {
        self.left = self.left.checked_sub(bytes.len() as u64).ok_or(ScpError::UnknownSize)?;
        if let Some(hash) = &mut self.hash {
            hash.update(&bytes);
        }
        self.source.data(bytes);
        self.flush().await
    }

    /// Ends the file, all of whose bytes are sent.
    pub(super) fn end_file(&mut self, place: Place) {
        self.source.end_file(None);
        let digest = self.hash.as_mut().map(|hash| hash.finalize_reset().into());
        self.unsettled.push_back(Some(Sent { place, digest }));
    }

    /// Ends a file of whose bytes some are missing, and says why.
    pub(super) async fn end_failed_file(&mut self, why: Words) -> Result<(), ScpError> {
        while self.left > 0 {
            let length = self.left.min(PIECE.into());
            let zeros = &ZEROS[..usize::try_from(length).unwrap_or(ZEROS.len())];
            self.data(Bytes::from_static(zeros)).await?;
        }
        self.source.end_file(Some(&why));
        self.unsettled.push_back(None);
        Ok(())
    }

    /// Waits until every answer is there.
    pub(super) async fn settle(&mut self) -> Result<(), ScpError> {
        self.flush().await?;
        while self.poll()?.is_some() {}
        while !self.source.is_settled() {
            self.wait().await?;
            while self.poll()?.is_some() {}
        }
        Ok(())
    }

    /// Waits until every answer is there, and for the program's end.
    pub(super) async fn finish(&mut self) -> Result<(), ScpError> {
        self.settle().await?;
        self.peer.shut_down().await;
        self.peer.exit().await;
        Ok(())
    }

    /// Whether the end of a file that gets this name is not answered yet.
    pub(super) fn has_unsettled(&self, target: &BytePath) -> bool {
        self.unsettled.iter().flatten().any(|sent| sent.place.target == *target)
    }

    /// The files that were answered since this was last called; with words: they are not stored.
    pub(super) fn take_settled(&mut self) -> Vec<(Sent, Option<Words>)> {
        std::mem::take(&mut self.settled)
    }

    pub(super) fn take_said(&self) -> Vec<BytePath> {
        self.peer.take_said()
    }

    async fn verdict(&mut self) -> Result<Option<Words>, ScpError> {
        self.flush().await?;
        match self.answer().await? {
            Answered::Refused(words) => Ok(Some(words)),
            _ => Ok(None),
        }
    }

    /// The next answer that is not about a file's end.
    async fn answer(&mut self) -> Result<Answered, ScpError> {
        loop {
            if let Some(answered) = self.poll()? {
                return Ok(answered);
            }
            self.wait().await?;
        }
    }

    fn poll(&mut self) -> Result<Option<Answered>, ScpError> {
        while let Some(answered) = self.source.poll_event()? {
            let words = match answered {
                Answered::Stored => None,
                Answered::NotStored(words) => Some(words),
                other => return Ok(Some(other)),
            };
            self.settled.extend(self.unsettled.pop_front().flatten().map(|sent| (sent, words)));
        }
        Ok(None)
    }

    async fn wait(&mut self) -> Result<(), ScpError> {
        let bytes = self.peer.read().await?;
        if bytes.is_empty() {
            let exit = self.peer.failed_exit().await;
            return Err(if self.source.has_begun() { ScpError::EndedEarly(exit) } else { ScpError::NotStarted(exit) });
        }
        self.source.handle_input(&bytes);
        Ok(())
    }

    async fn flush(&mut self) -> Result<(), ScpError> {
        while let Some(bytes) = self.source.poll_transmit() {
            self.peer.queue(bytes);
        }
        match self.peer.flush().await {
            Ok(()) => Ok(()),
            Err(error) => Err(self.why_broken(error).await),
        }
    }

    /// A program that takes nothing more has said why.
    async fn why_broken(&mut self, error: io::Error) -> ScpError {
        tracing::debug!(%error, "scp takes nothing more");
        loop {
            if let Err(error) = self.wait().await {
                return error;
            }
            match self.source.poll_event() {
                Err(error) => return error,
                Ok(Some(Answered::Refused(words) | Answered::NotStored(words))) => return ScpError::GaveUp(words),
                Ok(_) => {}
            }
        }
    }
}

/// The file that a [`Sender`] sends now, as something that is written to: in order, whatever the order of the calls.
pub(super) struct Outgoing<'a> {
    sender: Mutex<&'a mut Sender>,
    position: watch::Sender<u64>,
    hash: std::sync::Mutex<Sha256>,
}

impl<'a> Outgoing<'a> {
    pub(super) fn new(sender: &'a mut Sender) -> Self {
        Self { sender: Mutex::new(sender), position: watch::Sender::new(0), hash: std::sync::Mutex::default() }
    }
}

impl TargetFile for Outgoing<'_> {
    fn max_write(&self) -> u32 {
        PIECE
    }

    fn write(&self, offset: u64, data: Bytes) -> Answer<'_, ()> {
        async move {
            // Fails when the sender is gone, which `self` holds.
            let _ = self.position.subscribe().wait_for(|position| *position == offset).await;
            let length = data.len() as u64;
            self.hash.lock().unwrap_or_else(PoisonError::into_inner).update(&data);
            let sent = self.sender.lock().await.data(data).await;
            self.position.send_replace(offset + length);
            sent.map_err(CopyError::Scp)
        }
        .boxed()
    }

    fn digest(&self) -> Option<[u8; 32]> {
        Some(self.hash.lock().unwrap_or_else(PoisonError::into_inner).clone().finalize().into())
    }

    fn finish(self: Box<Self>, _: Change, _: &BytePath) -> Answer<'_, Finished> {
        std::future::ready(Ok(Finished::default())).boxed()
    }
}
