//! From a node's `scp` to a side that can be asked.

use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use futures_util::FutureExt as _;
use tokio::sync::{Mutex, watch};

use super::line::{Times, Words};
use super::receiver::Receiver;
use super::request::Request;
use super::sink::{Header, Received};
use super::{ScpEndpoint, ScpError, Taken, flags, is_excluded, say};
use crate::copy::endpoint::{Answer, FileKind, Metadata, SourceFile};
use crate::copy::plan::{Outcome, Place};
use crate::copy::run::Run;
use crate::copy::target::Target;
use crate::copy::{BytePath, CopyError, Endpoint, Event, Failure, Summary};

/// Bytes of a file given on at once.
const PIECE: u32 = 64 * 1024;

/// What one source brings.
pub(super) struct Download<'a, 'm> {
    run: &'a Run<'m>,
    endpoint: &'a ScpEndpoint,
    /// Which of the sources it is, and what it was called.
    origin: usize,
    typed: &'a BytePath,
    request: Request,
    target: &'a Target,
    taken: &'a mut Taken,
    receiver: Arc<Mutex<Receiver>>,
    is_single: bool,
    /// The target's own name is taken.
    is_taken: bool,
    open: Vec<Directory>,
}

/// A directory that is being filled.
struct Directory {
    place: Place,
    /// From the source's name on.
    path: BytePath,
    metadata: Metadata,
    was_made: bool,
}

impl<'a, 'm> Download<'a, 'm> {
    /// Receives all that the source at `origin` stands for.
    pub(super) async fn run(
        run: &'a Run<'m>,
        endpoint: &'a ScpEndpoint,
        origin: usize,
        target: &'a Target,
        taken: &'a mut Taken,
        summary: &mut Summary,
    ) -> Result<(), CopyError> {
        let typed = &run.sources[origin].path;
        let request = match request(run, origin) {
            Ok(request) => request,
            Err(error) => return run.record(summary, Failure::new(endpoint.side(), typed, error)),
        };
        let started = Receiver::start_for(endpoint, &run.sources[origin], request, flags(run.options()));
        let (request, receiver) = match started.await {
            Ok((request, receiver)) => (request, Arc::new(Mutex::new(receiver))),
            Err(error) => return run.record(summary, Failure::new(endpoint.side(), typed, error.into())),
        };
        let is_single = request.is_single();
        let (is_taken, open) = (false, Vec::new());
        let mut download =
            Self { run, endpoint, origin, typed, request, target, taken, receiver, is_single, is_taken, open };
        let outcome = download.receive(summary).await;
        say(run, endpoint, &download.receiver.lock().await.take_said());
        match outcome {
            // Whatever was to come after this is not known.
            Err(Stop::Peer(error)) => run.record(summary, Failure::new(endpoint.side(), typed, error.into())),
            Err(Stop::Copy(error)) => Err(error),
            Ok(()) => Ok(()),
        }
    }

    async fn receive(&mut self, summary: &mut Summary) -> Result<(), Stop> {
        loop {
            let received = self.receiver.lock().await.next().await?;
            let failure = match received {
                None => return Ok(()),
                Some(Received::Directory(header)) => self.directory(&header).await.err(),
                Some(Received::File(header)) => self.file(&header).await?.err(),
                Some(Received::DirectoryEnd) => self.end_directory().await.err(),
                Some(Received::Complaint(words)) => Some(self.complaint(&words)),
                Some(Received::Data(_) | Received::FileEnd(_)) => {
                    return Err(ScpError::OutOfTurn("bytes of no file").into());
                }
            };
            if let Some(failure) = failure {
                self.run.record(summary, failure)?;
            }
        }
    }

    async fn directory(&mut self, header: &Header) -> Result<(), Failure> {
        let path = self.path(&header.name);
        if is_excluded(self.run.options(), &path, true) {
            self.receiver.lock().await.refuse(&Words::new(b"not wanted"));
            return Ok(());
        }
        let metadata = metadata_of(header, FileKind::Directory);
        let made = match self.place(&header.name, true) {
            Ok(place) => self.make(&place, header.mode).await.map(|was_made| (place, was_made)),
            Err(failure) => Err(failure),
        };
        let mut receiver = self.receiver.lock().await;
        match made {
            Ok((place, was_made)) => {
                receiver.accept_directory();
                self.open.push(Directory { place, path, metadata, was_made });
                Ok(())
            }
            Err(failure) => {
                receiver.refuse(&words_of(&failure));
                Err(failure)
            }
        }
    }

    async fn make(&self, place: &Place, mode: u32) -> Result<bool, Failure> {
        let is_named = place.target == *self.target.path();
        let outcome = self.run.make_directory(place, mode & 0o777 | 0o700, is_named).await?;
        Ok(matches!(outcome, Outcome::Made { is_new: true }))
    }

    async fn end_directory(&mut self) -> Result<(), Failure> {
        let Some(Directory { place, metadata, was_made, .. }) = self.open.pop() else { return Ok(()) };
        if self.run.options().dry_run {
            return Ok(());
        }
        self.run.finish_directory(&place, metadata, was_made).await.map(drop)
    }

    /// The outer error is the far side's end, the inner one that of this file alone.
    async fn file(&mut self, header: &Header) -> Result<Result<(), Failure>, Stop> {
        if is_excluded(self.run.options(), &self.path(&header.name), false) {
            self.receiver.lock().await.leave_file(&Words::new(b"not wanted")).await?;
            return Ok(Ok(()));
        }
        let metadata = metadata_of(header, FileKind::File);
        let is_last = self.is_single && self.open.is_empty() && self.origin + 1 == self.run.sources.len();
        self.run.meter.tell(Event::Found, |totals| {
            totals.files += 1;
            totals.bytes = totals.bytes.saturating_add(header.size);
            totals.is_all_found = is_last;
        });
        let outcome = match self.place(&header.name, false) {
            Ok(place) => self.write(&place, metadata).await,
            Err(failure) => Err(failure),
        };
        let outcome = match outcome {
            // The far side is gone, and not just this file.
            Err(Failure { error: CopyError::Scp(error), .. }) if !matches!(error, ScpError::Refused(_)) => {
                return Err(error.into());
            }
            outcome => outcome,
        };
        let words = outcome.as_ref().err().map_or_else(|| Words::new(b"not wanted"), words_of);
        self.receiver.lock().await.leave_file(&words).await?;
        Ok(outcome)
    }

    async fn write(&self, place: &Place, metadata: Metadata) -> Result<(), Failure> {
        let source = self.endpoint.receiving(Incoming::new(Arc::clone(&self.receiver), metadata));
        let is_fresh = self.open.last().is_some_and(|directory| directory.was_made);
        self.run.copy_file_from(&source, place, metadata, is_fresh).await.map(drop)
    }

    /// Where something of this name goes.
    fn place(&mut self, name: &[u8], is_directory: bool) -> Result<Place, Failure> {
        if let Some(directory) = self.open.last() {
            return Ok(directory.place.join(name));
        }
        let source = self.request.path_of(name).unwrap_or_else(|| self.typed.parent().join(name));
        let target = match self.target {
            Target::Directory(path) if name.is_empty() => path.clone(),
            Target::Directory(path) => path.join(name),
            Target::Name(path) | Target::Special(path) if !std::mem::replace(&mut self.is_taken, true) => path.clone(),
            Target::Name(path) | Target::Special(path) => {
                let error =
                    CopyError::TargetNotDirectory { side: self.run.destination.endpoint.side(), path: path.clone() };
                return Err(Failure::new(self.endpoint.side(), &source, error));
            }
        };
        if self.taken.refuses(&target, is_directory) {
            return Err(Failure::new(self.endpoint.side(), &source, CopyError::SameName));
        }
        Ok(Place { origin: self.origin, source, target })
    }

    fn path(&self, name: &[u8]) -> BytePath {
        self.open.last().map_or_else(|| BytePath::new(name), |directory| directory.path.join(name))
    }

    fn complaint(&self, words: &Words) -> Failure {
        let (path, reason) = words.split().unwrap_or_else(|| (self.typed.clone(), words.clone()));
        Failure::new(self.endpoint.side(), &path, ScpError::Refused(reason).into())
    }
}

/// What is asked for, if all that was asked for can be had.
fn request(run: &Run<'_>, origin: usize) -> Result<Request, CopyError> {
    let request = Request::of(&run.sources[origin])?;
    let is_compared = run.options().verify && !run.destination.endpoint.is_pipe();
    if is_compared && request.path_of(b"").is_none() {
        return Err(ScpError::Unable("tell in which of several directories a file lies, to verify it").into());
    }
    Ok(request)
}

/// Why a source is left.
enum Stop {
    /// Its program is gone or cannot be trusted.
    Peer(ScpError),
    /// Nothing more can be copied at all.
    Copy(CopyError),
}

impl From<ScpError> for Stop {
    fn from(error: ScpError) -> Self {
        Self::Peer(error)
    }
}

impl From<CopyError> for Stop {
    fn from(error: CopyError) -> Self {
        Self::Copy(error)
    }
}

pub(super) fn words_of(failure: &Failure) -> Words {
    Words::new(failure.error.to_string().as_bytes())
}

pub(super) fn metadata_of(header: &Header, kind: FileKind) -> Metadata {
    let time = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
    let times = header.times.map(|Times { modified, accessed }| (time(accessed), time(modified)));
    Metadata { kind: Some(kind), size: Some(header.size), mode: Some(header.mode), times, owner: None }
}

/// The file that arrives, as something that is read from: in order, whatever the order of the calls.
#[derive(Clone)]
pub(super) struct Incoming {
    receiver: Arc<Mutex<Receiver>>,
    metadata: Metadata,
    position: watch::Sender<u64>,
}

impl Incoming {
    fn new(receiver: Arc<Mutex<Receiver>>, metadata: Metadata) -> Self {
        Self { receiver, metadata, position: watch::Sender::new(0) }
    }

    pub(super) fn open(&self) -> (Box<dyn SourceFile>, Metadata) {
        (Box::new(self.clone()), self.metadata)
    }
}

impl SourceFile for Incoming {
    fn max_read(&self) -> u32 {
        PIECE
    }

    fn read(&self, offset: u64, length: u32) -> Answer<'_, Bytes> {
        async move {
            // Fails when the sender is gone, which `self` holds.
            let _ = self.position.subscribe().wait_for(|position| *position == offset).await;
            let data = self.receiver.lock().await.read(length as usize).await?;
            self.position.send_replace(offset + data.len() as u64);
            Ok(data)
        }
        .boxed()
    }
}
