//! A [`Sink`] and the program that fills it.

use bytes::{Bytes, BytesMut};

use super::ScpEndpoint;
use super::error::ScpError;
use super::line::Words;
use super::peer::Peer;
use super::request::{Flags, Request};
use super::sink::{Received, Sink};
use crate::copy::{BytePath, Location};

/// One request, being answered. Dropping it ends the program.
pub(super) struct Receiver {
    sink: Sink,
    peer: Peer,
    /// Something was told that explains an exit code.
    is_told: bool,
    file: FileState,
    /// Bytes of the file that nobody took yet.
    buffer: BytesMut,
    /// What came and was looked at.
    first: Option<Received>,
}

/// How far the file in hand is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FileState {
    Offered,
    Flowing,
    Ended,
}

impl Receiver {
    pub(super) async fn start(endpoint: &ScpEndpoint, request: Request, flags: Flags) -> Result<Self, ScpError> {
        let peer = Peer::start(endpoint, request.command(flags)).await?;
        Ok(Self::with(Sink::new(request, flags.recursive), peer))
    }

    /// As `start`, of what a source stands for. A file that has the very name comes before a pattern: where the name itself
    /// has what a shell would expand, it is asked for first. Returns what was asked for.
    pub(super) async fn start_for(
        endpoint: &ScpEndpoint,
        source: &Location,
        request: Request,
        flags: Flags,
    ) -> Result<(Request, Self), ScpError> {
        let is_odd = source.path.as_bytes().iter().any(|byte| matches!(byte, b'{' | b'['));
        if source.is_pattern && is_odd {
            let literal = Request::new(&source.path);
            let mut receiver = Self::start(endpoint, literal.clone(), flags).await?;
            if let Ok(Some(first @ (Received::File(_) | Received::Directory(_)))) = receiver.next().await {
                receiver.first = Some(first);
                return Ok((literal, receiver));
            }
        }
        let receiver = Self::start(endpoint, request.clone(), flags).await?;
        Ok((request, receiver))
    }

    /// As `start`, to be told what there is: with times, and a wait less for everything.
    pub(super) async fn survey(endpoint: &ScpEndpoint, request: Request, recursive: bool) -> Result<Self, ScpError> {
        let flags = Flags { recursive, preserve: true, directory: false };
        let peer = Peer::start(endpoint, request.command(flags)).await?;
        Ok(Self::with(Sink::with_times(request, recursive), peer))
    }

    fn with(sink: Sink, peer: Peer) -> Self {
        Self { sink, peer, is_told: false, file: FileState::Ended, buffer: BytesMut::new(), first: None }
    }

    /// What comes next; `None` once the program has ended as it should. Cancel safe.
    pub(super) async fn next(&mut self) -> Result<Option<Received>, ScpError> {
        if let Some(first) = self.first.take() {
            return Ok(Some(first));
        }
        loop {
            if let Some(received) = self.sink.poll_event()? {
                self.note(&received);
                return Ok(Some(received));
            }
            self.flush().await;
            let bytes = self.peer.read().await?;
            if bytes.is_empty() {
                return self.end().await.map(|()| None);
            }
            self.sink.handle_input(bytes);
        }
    }

    /// Takes the directory that was offered.
    pub(super) fn accept_directory(&mut self) {
        self.sink.accept();
    }

    /// The next bytes of the file that was offered, which is accepted with the first call: `length` of them unless it ends
    /// before; none at its end. Cancel safe.
    pub(super) async fn read(&mut self, length: usize) -> Result<Bytes, ScpError> {
        if self.file == FileState::Offered {
            self.file = FileState::Flowing;
            self.sink.accept();
        }
        while self.file == FileState::Flowing && self.buffer.len() < length {
            match self.next().await? {
                Some(Received::Data(bytes)) if self.buffer.is_empty() => self.buffer = bytes.into(),
                Some(Received::Data(bytes)) => self.buffer.extend_from_slice(&bytes),
                Some(Received::FileEnd(Some(words))) => return Err(ScpError::Refused(words.reason())),
                Some(Received::FileEnd(None)) => {}
                _ => return Err(ScpError::OutOfTurn("something else came where a file's bytes should be")),
            }
        }
        let length = length.min(self.buffer.len());
        Ok(self.buffer.split_to(length).freeze())
    }

    /// Leaves the file that was offered behind, wherever it stands: refuses it, or lets the rest of it pass.
    pub(super) async fn leave_file(&mut self, reason: &Words) -> Result<(), ScpError> {
        if self.file == FileState::Offered {
            self.file = FileState::Ended;
            self.refuse(reason);
        }
        while self.file == FileState::Flowing {
            self.next().await?;
        }
        self.buffer.clear();
        Ok(())
    }

    pub(super) fn refuse(&mut self, reason: &Words) {
        self.is_told = true;
        self.sink.refuse(reason);
    }

    pub(super) fn take_said(&self) -> Vec<BytePath> {
        self.peer.take_said()
    }

    fn note(&mut self, received: &Received) {
        match received {
            Received::File(_) => self.file = FileState::Offered,
            Received::FileEnd(words) => {
                self.file = FileState::Ended;
                self.is_told |= words.is_some();
            }
            Received::Complaint(_) => self.is_told = true,
            _ => {}
        }
    }

    /// A program that has gone shows when it is read from, and why.
    async fn flush(&mut self) {
        while let Some(bytes) = self.sink.poll_transmit() {
            self.peer.queue(bytes);
        }
        let _ = self.peer.flush().await;
    }

    async fn end(&mut self) -> Result<(), ScpError> {
        if !self.sink.has_begun() {
            return Err(ScpError::NotStarted(self.peer.failed_exit().await));
        }
        if self.sink.handle_end().is_err() {
            return Err(ScpError::EndedEarly(self.peer.failed_exit().await));
        }
        self.peer.shut_down().await;
        let exit = self.peer.exit().await;
        if self.is_told || exit.code.is_none_or(|code| code == 0) { Ok(()) } else { Err(ScpError::EndedEarly(exit)) }
    }
}
