//! From any side to a node's `scp`.

use std::collections::HashSet;
use std::time::{SystemTime, UNIX_EPOCH};

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;

use super::download::words_of;
use super::line::{Times, Words};
use super::relay::Relay;
use super::request::{Flags, Request};
use super::sender::{Outgoing, Sender};
use super::survey::Survey;
use super::verify::Unverified;
use super::{ScpEndpoint, ScpError, Taken, is_excluded, say};
use crate::copy::endpoint::{Entry, FileKind, Metadata};
use crate::copy::path::is_unsafe_name;
use crate::copy::pattern::is_pattern;
use crate::copy::plan::{MAX_DEPTH, Place};
use crate::copy::progress::FileMeter;
use crate::copy::run::Begun;
use crate::copy::run::{Run, leads_back};
use crate::copy::{BytePath, CopyError, CopyOptions, Endpoint, Event, Failure, Location, Side, Skip, Summary, sources};

/// What scp assumes where a side tells no permissions.
const DEFAULT_MODE: u32 = 0o666;
pub(super) const MODE_BITS: u32 = 0o777;
/// The name offered for what gets the name of the target anyway.
pub(super) const ANY_NAME: &[u8] = b"directory";

/// All sources on their way to one target.
pub(super) struct Upload<'a, 'm> {
    pub(super) run: &'a Run<'m>,
    pub(super) endpoint: &'a ScpEndpoint,
    pub(super) sender: Sender,
    /// The target is there and a directory.
    pub(super) is_directory: bool,
    pub(super) survey: Survey,
    pub(super) unverified: Unverified,
    pub(super) taken: Taken,
}

/// Where something lies in its tree.
struct Spot {
    place: Place,
    /// From the source's name on.
    path: BytePath,
    depth: usize,
}

impl Spot {
    fn join(&self, name: &[u8]) -> Self {
        Self { place: self.place.join(name), path: self.path.join(name), depth: self.depth + 1 }
    }
}

impl<'a, 'm> Upload<'a, 'm> {
    pub(super) async fn run(
        run: &'a Run<'m>,
        endpoint: &'a ScpEndpoint,
        summary: &mut Summary,
    ) -> Result<(), CopyError> {
        let mut upload = match Self::start(run, endpoint).await {
            Ok(upload) => upload,
            Err(ScpError::Refused(words)) => {
                tracing::debug!(%words, "refused");
                let (side, path) = (endpoint.side(), run.destination.path.clone());
                return Err(if words.reason().to_string().contains("No such file") {
                    CopyError::TargetMissing { side, path }
                } else {
                    CopyError::TargetNotDirectory { side, path }
                });
            }
            Err(error) => return Err(ended(endpoint, error)),
        };
        let outcome = upload.send_all(summary).await;
        // What was sent before is answered, whatever came then.
        let outcome = match outcome {
            Ok(()) => upload.sender.finish().await.map_err(|error| ended(endpoint, error)),
            failed => failed,
        };
        upload.settle(summary)?;
        let outcome = match outcome {
            Ok(()) => upload.verify(summary).await,
            failed => failed,
        };
        say(run, endpoint, &upload.sender.take_said());
        outcome
    }

    /// Several sources need a directory; a source without a name of its own fills one that is there, or becomes it.
    async fn start(run: &'a Run<'m>, endpoint: &'a ScpEndpoint) -> Result<Self, ScpError> {
        let (path, options) = (&run.destination.path, run.options());
        let flags = Flags { recursive: options.recursive, preserve: options.preserve, directory: false };
        let is_several = run.sources.len() > 1 || run.sources.iter().any(stands_for_several);
        let mut started = None;
        if is_several || is_name_needed(options) || run.sources.iter().any(is_nameless) {
            match Sender::start(endpoint, path, Flags { directory: true, ..flags }).await {
                Err(ScpError::Refused(_)) if !is_several => {}
                sender => started = Some(sender?),
            }
        }
        let is_directory = started.is_some();
        let mut sender = match started {
            Some(sender) => sender,
            None => Sender::start(endpoint, path, flags).await?,
        };
        if options.verify {
            sender.take_digests();
        }
        let (survey, unverified, taken) = (Survey::default(), Unverified::default(), Taken::default());
        Ok(Self { run, endpoint, sender, is_directory, survey, unverified, taken })
    }

    async fn send_all(&mut self, summary: &mut Summary) -> Result<(), CopyError> {
        let sources = &self.run.sources;
        let mut found = Vec::new();
        for (origin, source) in sources.iter().enumerate() {
            let is_asked = source.endpoint.over_scp().is_none();
            found.push(if is_asked { self.find(origin, summary).await? } else { Vec::new() });
        }
        let targets: Vec<&BytePath> = found.iter().flatten().map(|place| &place.target).collect();
        self.look_at(&targets).await?;
        for ((origin, source), places) in sources.iter().enumerate().zip(found) {
            if let Some(from) = source.endpoint.over_scp() {
                Relay::run(self, from, origin, summary).await?;
            }
            for place in places {
                self.send_source(place, summary).await?;
            }
        }
        self.run.meter.tell(Event::Found, |totals| totals.is_all_found = true);
        Ok(())
    }

    /// What a source that can be asked stands for, and where that goes.
    async fn find(&mut self, origin: usize, summary: &mut Summary) -> Result<Vec<Place>, CopyError> {
        let source = &self.run.sources[origin];
        let (paths, mut failures) = match sources::find(std::slice::from_ref(source)).await {
            Ok(found) => found,
            Err(failure) => (Vec::new(), vec![failure]),
        };
        let mut places = Vec::new();
        for (_, path) in paths {
            if source.endpoint.is_pipe() && self.is_directory {
                failures.push(Failure::new(source.endpoint.side(), &path, CopyError::Nameless));
            } else {
                let name = path.name().map(<[u8]>::to_vec);
                places.push(self.root(origin, path, name.as_deref()));
            }
        }
        for failure in failures {
            self.run.record(summary, failure)?;
        }
        Ok(places)
    }

    /// Finds out what is at these targets, if that makes a difference.
    pub(super) async fn look_at(&mut self, targets: &[&BytePath]) -> Result<(), CopyError> {
        if self.run.options().skip == Skip::Nothing {
            return Ok(());
        }
        let looking = self.survey.ask(self.endpoint, targets, self.run.options().recursive).await;
        looking.map_err(|error| self.ended(error))
    }

    async fn send_source(&mut self, place: Place, summary: &mut Summary) -> Result<(), CopyError> {
        let name = place.source.name().map(<[u8]>::to_vec);
        match sources::stat_behind(self.run.source(&place), &place.source).await {
            Ok(metadata) => {
                let spot = Spot { place, path: BytePath::new(name.clone().unwrap_or_default()), depth: 0 };
                self.send(spot, name.as_deref(), metadata, summary).await
            }
            Err(error) => self.run.record(summary, self.run.at_source(&place, error)),
        }
    }

    pub(super) fn root(&self, origin: usize, source: BytePath, name: Option<&[u8]>) -> Place {
        let base = &self.run.destination.path;
        let target = match name {
            Some(name) if self.is_directory => base.join(name),
            _ => base.clone(),
        };
        Place { origin, source, target }
    }

    /// Sends what lies at `spot`: under `name`, or, without one, what lies in it.
    fn send<'b>(
        &'b mut self,
        spot: Spot,
        name: Option<&'b [u8]>,
        metadata: Metadata,
        summary: &'b mut Summary,
    ) -> BoxFuture<'b, Result<(), CopyError>> {
        async move {
            let is_directory = metadata.kind == Some(FileKind::Directory);
            if is_excluded(self.run.options(), &spot.path, is_directory) {
                return Ok(());
            }
            let refusal = match metadata.kind {
                _ if spot.depth == 0 && self.taken.refuses(&spot.place.target, is_directory) => CopyError::SameName,
                Some(FileKind::Directory) if !self.run.options().recursive => CopyError::IsDirectory,
                Some(FileKind::Directory) if spot.depth > MAX_DEPTH => CopyError::TooDeep(MAX_DEPTH),
                Some(FileKind::Directory) => return self.send_directory(spot, name, metadata, summary).await,
                Some(FileKind::Special | FileKind::Symlink) => CopyError::NotRegular,
                Some(FileKind::File) | None => {
                    let is_last = spot.depth == 0 && spot.place.origin + 1 == self.run.sources.len();
                    return self.send_file(spot.place, name.unwrap_or(ANY_NAME), metadata, is_last, summary).await;
                }
            };
            self.run.record(summary, self.run.at_source(&spot.place, refusal))
        }
        .boxed()
    }

    async fn send_directory(
        &mut self,
        spot: Spot,
        name: Option<&[u8]>,
        metadata: Metadata,
        summary: &mut Summary,
    ) -> Result<(), CopyError> {
        let place = &spot.place;
        let entries = match self.run.source(place).list(&place.source).await {
            Ok(entries) => entries,
            Err(error) => return self.run.record(summary, self.run.at_source(place, error)),
        };
        let is_there = (name.is_some() || !self.is_directory) && !self.run.options().dry_run;
        if is_there {
            let (mode, times) = (mode_of(&metadata), self.times_of(&metadata));
            let offered = self.sender.directory(name.unwrap_or(ANY_NAME), mode, times).await;
            if !self.is_accepted(offered, place, summary)? {
                return Ok(());
            }
        }
        let mut names = HashSet::new();
        for Entry { name, metadata } in entries {
            let inside = spot.join(&name);
            if is_unsafe_name(&name) {
                let error = CopyError::UnsafeName(BytePath::new(name));
                self.run.record(summary, self.run.at_source(place, error))?;
            } else if !names.insert(name.clone()) {
                self.run.record(summary, self.run.at_source(&inside.place, CopyError::DuplicateName))?;
            } else {
                match look(self.run, &inside.place, metadata).await {
                    Ok(metadata) => self.send(inside, Some(&name), metadata, summary).await?,
                    Err(error) => self.run.record(summary, self.run.at_source(&inside.place, error))?,
                }
            }
        }
        if is_there {
            self.sender.end_directory();
        }
        Ok(())
    }

    async fn send_file(
        &mut self,
        place: Place,
        name: &[u8],
        listed: Metadata,
        is_last: bool,
        summary: &mut Summary,
    ) -> Result<(), CopyError> {
        if self.is_left(&place, &listed, is_last) {
            return Ok(());
        }
        let opened = self.run.source(&place).open(&place.source, listed.size.unwrap_or(0)).await;
        let (reader, metadata) = match opened {
            Ok((_, metadata)) if metadata.kind.is_some_and(|kind| kind != FileKind::File) => {
                return self.run.record(summary, self.run.at_source(&place, CopyError::NotRegular));
            }
            Ok(opened) => opened,
            Err(error) => return self.run.record(summary, self.run.at_source(&place, error)),
        };
        let Some(size) = metadata.size else {
            return self.run.record(summary, self.run.at_source(&place, ScpError::UnknownSize.into()));
        };
        self.tell_found(size, is_last);
        self.verify_before(&place.target, summary).await?;
        let offered = self.sender.file(name, mode_of(&metadata), size, self.times_of(&metadata)).await;
        self.run.note_time_range(&place.target, metadata.times.filter(|_| self.run.options().preserve));
        if !self.is_accepted(offered, &place, summary)? {
            return Ok(());
        }
        self.run.meter.tell(Event::Started { path: &place.source, size: Some(size) }, |_| {});
        let sent = {
            let mut meter = FileMeter::new(&self.run.meter, &place.source, Some(size));
            let copy = self.run.file_copy(self.run.source(&place), &place, &metadata, false);
            let outgoing = Outgoing::new(&mut self.sender);
            match copy.pump(&*reader, &outgoing, &metadata, &Begun::in_place(), &mut meter).await {
                Ok((sent, has_grown)) => copy.check_sent(&*reader, &metadata, has_grown, (&outgoing, sent)).await,
                Err(failure) => Err(failure),
            }
        };
        self.end_file(place, sent, summary).await
    }

    pub(super) async fn end_file(
        &mut self,
        place: Place,
        sent: Result<(), Failure>,
        summary: &mut Summary,
    ) -> Result<(), CopyError> {
        match sent {
            Ok(()) => self.sender.end_file(place),
            Err(Failure { error: CopyError::Scp(error), side, .. })
                if side == self.endpoint.side() && !matches!(error, ScpError::UnknownSize) =>
            {
                return Err(self.ended(error));
            }
            Err(failure) => self.fail_file(failure, summary).await?,
        }
        self.settle(summary)?;
        self.verify_some(summary).await
    }

    /// Whether a file that was found is not sent: the target keeps what it has, or nothing is sent at all.
    pub(super) fn is_left(&mut self, place: &Place, metadata: &Metadata, is_last: bool) -> bool {
        let (options, size) = (self.run.options(), metadata.size.unwrap_or(0));
        let carried = Metadata { times: metadata.times.map(|times| self.run.carried(times)), ..*metadata };
        let is_kept = self.survey.keeps(options.skip, &place.target, &carried);
        if !is_kept && !options.dry_run {
            // A later source of that name goes over this one, whatever was there before.
            self.survey.forget(&place.target);
            return false;
        }
        self.tell_found(size, is_last);
        if is_kept {
            self.run.meter.skipped(&place.source, size, options.skip);
        } else {
            self.run.would_copy(place, metadata.size);
        }
        true
    }

    /// Gives the file that is under way the length that was announced, and tells the far side that it is not whole.
    pub(super) async fn fail_file(&mut self, failure: Failure, summary: &mut Summary) -> Result<(), CopyError> {
        let words = words_of(&failure);
        self.run.record(summary, failure)?;
        self.sender.end_failed_file(words).await.map_err(|error| self.ended(error))
    }

    /// Whether the far side takes what was offered; the reason is recorded if not.
    pub(super) fn is_accepted(
        &mut self,
        offered: Result<Option<Words>, ScpError>,
        place: &Place,
        summary: &mut Summary,
    ) -> Result<bool, CopyError> {
        self.settle(summary)?;
        let error = match offered {
            Ok(None) => return Ok(true),
            Ok(Some(words)) => ScpError::Refused(words),
            Err(error @ ScpError::LineFeed) => error,
            Err(error) => return Err(self.ended(error)),
        };
        self.run.record(summary, self.refused(place, error))?;
        Ok(false)
    }

    /// Takes over what the far side has answered by now.
    pub(super) fn settle(&mut self, summary: &mut Summary) -> Result<(), CopyError> {
        for (sent, words) in self.sender.take_settled() {
            match words {
                None => self.stored(sent),
                Some(words) => self.run.record(summary, self.refused(&sent.place, ScpError::Refused(words)))?,
            }
        }
        Ok(())
    }

    pub(super) fn finished(&self, place: &Place) {
        self.run.meter.tell(Event::Finished { path: &place.source }, |totals| totals.files_done += 1);
    }

    fn refused(&self, place: &Place, error: ScpError) -> Failure {
        match error {
            ScpError::Refused(words) => {
                let (path, reason) = words.split().unwrap_or_else(|| (place.target.clone(), words));
                Failure::new(self.endpoint.side(), &path, ScpError::Refused(reason).into())
            }
            other => self.run.at_target(place, other.into()),
        }
    }

    pub(super) fn tell_found(&self, size: u64, is_last: bool) {
        self.run.meter.tell(Event::Found, |totals| {
            totals.files += 1;
            totals.bytes = totals.bytes.saturating_add(size);
            totals.is_all_found = is_last;
        });
    }

    /// The end of the side that takes is the end of the copy.
    pub(super) fn ended(&self, source: ScpError) -> CopyError {
        ended(self.endpoint, source)
    }

    fn times_of(&self, metadata: &Metadata) -> Option<Times> {
        let (accessed, modified) = metadata.times.filter(|_| self.run.options().preserve)?;
        Some(Times { modified: seconds(modified), accessed: seconds(accessed) })
    }
}

/// What a name in a directory is, links followed.
async fn look(run: &Run<'_>, place: &Place, listed: Metadata) -> Result<Metadata, CopyError> {
    if !matches!(listed.kind, None | Some(FileKind::Symlink)) {
        return Ok(listed);
    }
    let source = run.source(place);
    let metadata = sources::stat_behind(source, &place.source).await?;
    let is_link = listed.kind.is_some() && metadata.kind == Some(FileKind::Directory);
    if is_link && leads_back(source, &place.source).await? { Err(CopyError::LinkLoop) } else { Ok(metadata) }
}

fn ended(endpoint: &ScpEndpoint, source: ScpError) -> CopyError {
    CopyError::ScpEnded { side: endpoint.side(), source }
}

fn stands_for_several(source: &Location) -> bool {
    match source.endpoint.over_scp() {
        Some(_) => !Request::of(source).is_ok_and(|request| request.is_single()),
        None => source.is_pattern && is_pattern(source.path.as_bytes()),
    }
}

/// Whether each file's whole path has to be known here.
fn is_name_needed(options: &CopyOptions) -> bool {
    options.verify || options.dry_run || options.skip != Skip::Nothing
}

fn is_nameless(source: &Location) -> bool {
    match source.path.as_bytes() {
        _ if source.endpoint.is_pipe() => true,
        [b'~', rest @ ..] if source.endpoint.side() != Side::Local => !rest.contains(&b'/'),
        _ => source.path.name().is_none(),
    }
}

fn mode_of(metadata: &Metadata) -> u32 {
    let default = if metadata.kind == Some(FileKind::Directory) { MODE_BITS } else { DEFAULT_MODE };
    metadata.mode.map_or(default, |mode| mode & MODE_BITS)
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}
