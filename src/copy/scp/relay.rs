//! From one node's `scp` to another's, through this machine and no file of it.

use super::line::Words;
use super::receiver::Receiver;
use super::request::Request;
use super::sink::{Header, Received};
use super::upload::{ANY_NAME, MODE_BITS, Upload};
use super::{ScpEndpoint, ScpError, flags, is_excluded, metadata_of, say};
use crate::copy::endpoint::FileKind;
use crate::copy::plan::Place;
use crate::copy::progress::FileMeter;
use crate::copy::{BytePath, CopyError, Endpoint, Event, Failure, Summary};

/// Bytes passed on at once.
const PIECE: u32 = 64 * 1024;

/// What one source brings, on its way to the target of an upload.
pub(super) struct Relay<'r, 'a, 'm> {
    upload: &'r mut Upload<'a, 'm>,
    from: &'r ScpEndpoint,
    origin: usize,
    typed: &'r BytePath,
    is_single: bool,
    receiver: Receiver,
    open: Vec<Directory>,
}

/// A directory that is being passed on.
struct Directory {
    place: Place,
    /// From the source's name on.
    path: BytePath,
    /// It is one over there too.
    is_there: bool,
}

impl<'r, 'a, 'm> Relay<'r, 'a, 'm> {
    /// Passes on all that the source at `origin` stands for.
    pub(super) async fn run(
        upload: &'r mut Upload<'a, 'm>,
        from: &'r ScpEndpoint,
        origin: usize,
        summary: &mut Summary,
    ) -> Result<(), CopyError>
    where
        'a: 'r,
    {
        let run = upload.run;
        let typed = &run.sources[origin].path;
        let request = match Request::of(&run.sources[origin]) {
            Ok(request) => request,
            Err(error) => return run.record(summary, Failure::new(from.side(), typed, error)),
        };
        let started = Receiver::start_for(from, &run.sources[origin], request, flags(run.options()));
        let (is_single, receiver) = match started.await {
            Ok((request, receiver)) => (request.is_single(), receiver),
            Err(error) => return run.record(summary, Failure::new(from.side(), typed, error.into())),
        };
        let mut relay = Self { upload, from, origin, typed, is_single, receiver, open: Vec::new() };
        let outcome = relay.pass_all(summary).await;
        // What is open over there is closed, so that the next source does not land in it.
        for _ in relay.open.iter().filter(|directory| directory.is_there) {
            relay.upload.sender.end_directory();
        }
        say(run, from, &relay.receiver.take_said());
        outcome
    }

    async fn pass_all(&mut self, summary: &mut Summary) -> Result<(), CopyError> {
        loop {
            let received = match self.receiver.next().await {
                Ok(Some(received)) => received,
                Ok(None) => return Ok(()),
                Err(error) => return self.record(error, summary),
            };
            match received {
                Received::Directory(header) => self.directory(&header, summary).await?,
                Received::DirectoryEnd => {
                    if self.open.pop().is_some_and(|directory| directory.is_there) {
                        self.upload.sender.end_directory();
                    }
                }
                Received::File(header) => {
                    if let Some(error) = self.file(&header, summary).await? {
                        return self.record(error, summary);
                    }
                }
                Received::Complaint(words) => self.record(ScpError::Refused(words), summary)?,
                Received::Data(_) | Received::FileEnd(_) => {}
            }
        }
    }

    async fn directory(&mut self, header: &Header, summary: &mut Summary) -> Result<(), CopyError> {
        let (place, path) = (self.place(&header.name), self.path(&header.name));
        if is_excluded(self.upload.run.options(), &path, true) {
            self.receiver.refuse(&not_taken());
            return Ok(());
        }
        if let Some(refusal) = self.enter(&place, true).await? {
            self.receiver.refuse(&not_taken());
            return self.upload.run.record(summary, refusal);
        }
        let is_nameless = header.name.is_empty() && self.upload.is_directory;
        let is_there = !is_nameless && !self.upload.run.options().dry_run;
        if is_there {
            let times = header.times.filter(|_| self.upload.run.options().preserve);
            let name = name_of(header);
            let offered = self.upload.sender.directory(name, header.mode & MODE_BITS, times).await;
            if !self.upload.is_accepted(offered, &place, summary)? {
                self.receiver.refuse(&not_taken());
                return Ok(());
            }
        }
        self.receiver.accept_directory();
        self.open.push(Directory { place, path, is_there });
        Ok(())
    }

    /// Returns how the node that sends ended, if it did.
    async fn file(&mut self, header: &Header, summary: &mut Summary) -> Result<Option<ScpError>, CopyError> {
        let place = self.place(&header.name);
        if is_excluded(self.upload.run.options(), &self.path(&header.name), false) {
            return Ok(self.receiver.leave_file(&not_taken()).await.err());
        }
        if let Some(refusal) = self.enter(&place, false).await? {
            self.upload.run.record(summary, refusal)?;
            return Ok(self.receiver.leave_file(&not_taken()).await.err());
        }
        let is_last = self.open.is_empty() && self.is_single && self.origin + 1 == self.upload.run.sources.len();
        if self.upload.is_left(&place, &metadata_of(header, FileKind::File), is_last) {
            return Ok(self.receiver.leave_file(&not_taken()).await.err());
        }
        self.upload.tell_found(header.size, is_last);
        self.upload.verify_before(&place.target, summary).await?;
        let times = header.times.filter(|_| self.upload.run.options().preserve);
        let name = name_of(header);
        let offered = self.upload.sender.file(name, header.mode & MODE_BITS, header.size, times).await;
        if !self.upload.is_accepted(offered, &place, summary)? {
            return Ok(self.receiver.leave_file(&not_taken()).await.err());
        }
        self.upload.run.meter.tell(Event::Started { path: &place.source, size: Some(header.size) }, |_| {});
        match self.pump(&place.source, header.size).await? {
            Ok(()) => self.upload.end_file(place, Ok(()), summary).await.map(|()| None),
            Err(error) => {
                let is_of_file = matches!(error, ScpError::Refused(_));
                let words = Words::new(error.to_string().as_bytes());
                self.upload.fail_file(self.upload.run.at_source(&place, error.into()), summary).await?;
                Ok((!is_of_file).then_some(ScpError::GaveUp(words)))
            }
        }
    }

    /// Before anything else is done about what comes first.
    async fn enter(&mut self, place: &Place, is_directory: bool) -> Result<Option<Failure>, CopyError> {
        if !self.open.is_empty() {
            return Ok(None);
        }
        if self.upload.taken.refuses(&place.target, is_directory) {
            return Ok(Some(self.upload.run.at_source(place, CopyError::SameName)));
        }
        self.upload.look_at(&[&place.target]).await?;
        Ok(None)
    }

    /// The inner error is the end of the file, or of the node that sends it.
    async fn pump(&mut self, path: &BytePath, size: u64) -> Result<Result<(), ScpError>, CopyError> {
        let run = self.upload.run;
        let mut meter = FileMeter::new(&run.meter, path, Some(size));
        loop {
            let piece = run.limit.as_ref().map_or(PIECE, |limit| limit.piece().min(PIECE));
            let data = match self.receiver.read(piece as usize).await {
                Ok(data) if data.is_empty() => return Ok(Ok(())),
                Ok(data) => data,
                Err(error) => return Ok(Err(error)),
            };
            let length = u32::try_from(data.len()).unwrap_or(u32::MAX);
            if let Some(limit) = &run.limit {
                limit.pass(length).await;
            }
            let sent = self.upload.sender.data(data).await;
            sent.map_err(|error| self.upload.ended(error))?;
            meter.wrote(length, 1);
        }
    }

    fn place(&self, name: &[u8]) -> Place {
        match self.open.last() {
            Some(directory) => directory.place.join(name),
            None => self.upload.root(self.origin, self.typed.clone(), Some(name).filter(|name| !name.is_empty())),
        }
    }

    fn path(&self, name: &[u8]) -> BytePath {
        self.open.last().map_or_else(|| BytePath::new(name), |directory| directory.path.join(name))
    }

    fn record(&self, error: ScpError, summary: &mut Summary) -> Result<(), CopyError> {
        let (path, error) = match error {
            ScpError::Refused(words) => {
                let (path, reason) = words.split().unwrap_or_else(|| (self.typed.clone(), words));
                (path, ScpError::Refused(reason))
            }
            error => (self.typed.clone(), error),
        };
        self.upload.run.record(summary, Failure::new(self.from.side(), &path, error.into()))
    }
}

fn name_of(header: &Header) -> &[u8] {
    if header.name.is_empty() { ANY_NAME } else { &header.name }
}

fn not_taken() -> Words {
    Words::new(b"the target does not take it")
}
