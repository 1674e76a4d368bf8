//! Carries out a plan: many steps at once, within bounds.

mod directory;
mod file;
mod resume;
mod verify;

pub(super) use resume::Begun;
use resume::open_journal;

use std::collections::BTreeSet;
use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use futures_util::future::join_all;
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use tokio::sync::Semaphore;

use super::endpoint::{FileKind, Metadata};
use super::journal::Journal;
use super::plan::{Found, Look, Outcome, Place, Plan, Step, StepId};
use super::progress::{Event, FileMeter, Meter};
use super::rate::Limit;
use super::sources::stat_behind;
use super::temporary::{Unfinished, is_temporary};
use super::warnings::Warnings;
use super::{
    BytePath, CopyError, CopyOptions, Endpoint, Failure, Location, Progress, Shortfall, Skip, Streams, Summary, Totals,
    scp, target,
};
use file::{FILE_WINDOW, FileCopy, There};

/// Steps under way at once. A small file takes two or three round trips, each of them a wait in which others can move.
/// Servers allow some hundred open files at least.
const STEPS_AT_ONCE: usize = 64;
/// Bytes in flight, all files together: enough for the windows of eight streams.
const BUDGET: u32 = 32 * 1024 * 1024;
/// Bytes for which files are begun, for each stream.
const BEGUN: u64 = 8 * 1024 * 1024;
/// With more streams more steps are under way, but no more than this: each may hold a file open here.
const MOST_STEPS: usize = 256;

/// One copy.
pub(super) struct Run<'a> {
    pub(super) sources: Vec<Location>,
    pub(super) destination: Location,
    options: CopyOptions,
    pub(super) meter: Meter<'a>,
    unfinished: Unfinished,
    journal: Option<Arc<Journal>>,
    /// The target, if it is neither a file nor a directory.
    pub(super) special: OnceLock<BytePath>,
    pub(super) warnings: Arc<Warnings>,
    budget: Arc<Semaphore>,
    pub(super) limit: Option<Limit>,
}

impl<'a> Run<'a> {
    pub(super) async fn new(
        sources: Vec<Location>,
        destination: Location,
        options: CopyOptions,
        report: &'a (dyn Fn(Progress<'_>) + Send + Sync),
    ) -> Self {
        let destination = match destination.endpoint.for_one_copy(&destination.path).await {
            Some(endpoint) => Location { endpoint, ..destination },
            None => destination,
        };
        let warnings = Arc::<Warnings>::default();
        let journal = open_journal(&sources, &destination, &options).await;
        Self {
            sources,
            limit: options.rate_limit.map(Limit::new),
            options,
            meter: Meter::new(report),
            unfinished: Unfinished::new(Arc::clone(&destination.endpoint), journal.clone(), Arc::clone(&warnings)),
            warnings,
            journal,
            special: OnceLock::new(),
            destination,
            budget: Arc::new(Semaphore::new(BUDGET as usize)),
        }
    }

    pub(super) async fn copy(&self) -> Result<Summary, CopyError> {
        let totals = || self.meter.totals();
        let growing = join_all(self.endpoints().map(|endpoint| endpoint.grow(&totals)));
        tokio::select! {
            biased;
            // First, so that a stream that is lost right away is waited for too.
            _ = growing => unreachable!("an endpoint grows until it is cancelled"),
            outcome = self.copy_all() => outcome.map_err(|error| self.with_the_way_on(error)),
        }
    }

    fn endpoints(&self) -> impl Iterator<Item = &dyn Endpoint> {
        self.sources.iter().chain([&self.destination]).map(|location| &*location.endpoint)
    }

    async fn copy_all(&self) -> Result<Summary, CopyError> {
        if self.sources.is_empty() {
            return Err(CopyError::NoSources);
        }
        if self.options.start_over && !self.options.dry_run {
            self.remove_leftovers().await;
        }
        let mut summary = Summary::default();
        if scp::is_needed(&self.sources, &self.destination) {
            scp::copy(self, &mut summary).await?;
        } else {
            let all: Vec<_> = (0..self.sources.len()).collect();
            self.copy_planned(&all, &mut summary).await?;
        }
        self.warn(&mut summary);
        if let Some(journal) = &self.journal {
            journal.close(summary.is_complete(), self.options.start_over);
        }
        let Totals { files_done, files_skipped, bytes_done, bytes_kept, .. } = self.meter.totals();
        tracing::debug!(files_done, bytes_done, bytes_kept, "copied");
        let bytes = bytes_done.saturating_sub(bytes_kept);
        Ok(Summary { files: files_done, skipped: files_skipped, bytes, bytes_kept, ..summary })
    }

    /// Copies some of the sources, whose sides and the destination's answer questions.
    pub(super) async fn copy_planned(&self, origins: &[usize], summary: &mut Summary) -> Result<(), CopyError> {
        let sources: Vec<_> = origins.iter().map(|origin| self.sources[*origin].clone()).collect();
        match self
            .again_if_lost(|| target::assign(&sources, &self.destination, self.journal.as_deref(), &self.special))
            .await
        {
            Ok((mut places, failures)) => {
                for failure in failures {
                    self.record(summary, failure)?;
                }
                for place in &mut places {
                    place.origin = origins[place.origin];
                }
                let roots = parents(&places);
                self.carry_out(Plan::new(places, self.options.clone()), summary).await?;
                self.sync_all(&roots, summary).await?;
                if !self.options.dry_run {
                    self.remove_leftovers().await;
                }
                Ok(())
            }
            Err(failure) if failure.error.is_about_target() => Err(failure.error),
            Err(failure) => self.record(summary, failure),
        }
    }

    pub(super) fn options(&self) -> &CopyOptions {
        &self.options
    }

    /// Removes what is unfinished, but for what the journal says can be gone on with.
    pub(super) async fn stop(&self) -> CopyError {
        self.unfinished.remove_all().await;
        let can_resume = self.can_resume();
        if let Some(journal) = &self.journal {
            journal.close(false, self.options.start_over);
        }
        CopyError::Stopped { can_resume }
    }

    /// The journal, if this copy is to use it.
    fn journal(&self) -> Option<&Journal> {
        self.journal.as_deref().filter(|_| !self.options.start_over)
    }

    fn can_resume(&self) -> bool {
        self.journal().is_some_and(Journal::can_resume)
    }

    fn with_the_way_on(&self, error: CopyError) -> CopyError {
        match error {
            CopyError::Lost { side, source, .. } => CopyError::Lost { side, can_resume: self.can_resume(), source },
            error => error,
        }
    }

    /// Removes what earlier runs left and nobody goes on with.
    async fn remove_leftovers(&self) {
        let leftovers = self.journal.as_ref().map(|journal| journal.leftovers()).unwrap_or_default();
        join_all(leftovers.iter().filter(|path| is_temporary(path)).map(|path| self.unfinished.remove(path))).await;
    }

    async fn carry_out(&self, mut plan: Plan, summary: &mut Summary) -> Result<(), CopyError> {
        let mut running = FuturesUnordered::new();
        // The files under way, each with the share of the budget that it can use.
        let mut weight = 0;
        let mut found = Found::default();
        loop {
            let streams = self.endpoints().map(Endpoint::streams).max().unwrap_or(1).max(1);
            let steps = streams.saturating_mul(STEPS_AT_ONCE).min(MOST_STEPS);
            while running.len() < steps && weight < BEGUN.saturating_mul(streams as u64).min(BUDGET.into()) {
                let Some((id, step)) = plan.poll_step() else { break };
                let share = share_of(&step);
                weight += share;
                running.push(self.perform(id, step, share));
            }
            while let Some((place, error)) = plan.poll_failure() {
                self.record(summary, self.at_source(&place, error))?;
            }
            self.meter.found(found, plan.found());
            found = plan.found();
            let Some((id, share, outcome)) = running.next().await else { return Ok(()) };
            weight -= share;
            let outcome = match outcome {
                Ok(outcome) => outcome,
                Err(failure) => {
                    self.record(summary, failure)?;
                    Outcome::Failed
                }
            };
            plan.handle_outcome(id, outcome);
        }
    }

    async fn perform(&self, id: StepId, step: Step, share: u64) -> (StepId, u64, Result<Outcome, Failure>) {
        let outcome = self.again_if_lost(|| self.attempt(&step)).await;
        (id, share, outcome)
    }

    async fn attempt(&self, step: &Step) -> Result<Outcome, Failure> {
        match step {
            Step::Stat { place, look } => self.stat(place, *look).await,
            Step::List { place } => self.list(place).await,
            Step::MakeDirectory { place, mode, lent, is_named } => {
                let outcome = self.make_directory(place, *mode, *is_named).await?;
                if let Some(journal) = &self.journal {
                    journal.has_directory();
                }
                self.note_rights(place, *lent, &outcome).await?;
                Ok(outcome)
            }
            Step::CopyFile { place, metadata, is_fresh } => self.copy_file(place, *metadata, *is_fresh).await,
            Step::CopyLink { place, metadata } => self.copy_link(place, *metadata).await,
            Step::FinishDirectory { .. } if self.options.dry_run => Ok(Outcome::Done),
            Step::FinishDirectory { place, metadata, was_made } => {
                self.finish_directory(place, *metadata, *was_made).await
            }
        }
    }

    /// Does something again as long as it fails with a stream that has others beside it, or will have. Whatever it had
    /// done by then can be done again.
    async fn again_if_lost<T, F, O>(&self, mut attempt: F) -> Result<T, Failure>
    where
        F: FnMut() -> O,
        O: Future<Output = Result<T, Failure>>,
    {
        let mut outcome = attempt().await;
        for _ in 0..Streams::MOST {
            if !outcome.as_ref().is_err_and(|failure| self.can_try_again(failure)) {
                break;
            }
            outcome = attempt().await;
        }
        outcome
    }

    fn can_try_again(&self, failure: &Failure) -> bool {
        failure.error.is_of_stream() && self.endpoints().all(|endpoint| endpoint.streams() > 0 && !endpoint.is_pipe())
    }

    async fn stat(&self, place: &Place, look: Look) -> Result<Outcome, Failure> {
        let source = self.source(place);
        let found = async {
            let metadata = match look {
                Look::Itself => source.lstat(&place.source).await?,
                Look::Through | Look::Behind => stat_behind(source, &place.source).await?,
            };
            let is_behind = look == Look::Behind && metadata.kind == Some(FileKind::Directory);
            if is_behind && leads_back(source, &place.source).await? {
                return Err(CopyError::LinkLoop);
            }
            Ok(Outcome::Found(metadata))
        };
        found.await.map_err(|error| self.at_source(place, error))
    }

    async fn list(&self, place: &Place) -> Result<Outcome, Failure> {
        let entries = self.source(place).list(&place.source).await;
        entries.map(Outcome::Listed).map_err(|error| self.at_source(place, error))
    }

    async fn copy_file(&self, place: &Place, metadata: Metadata, is_fresh: bool) -> Result<Outcome, Failure> {
        self.copy_file_from(self.source(place), place, metadata, is_fresh).await
    }

    /// As `copy_file`, from a side that has this one file.
    pub(super) async fn copy_file_from(
        &self,
        source: &dyn Endpoint,
        place: &Place,
        metadata: Metadata,
        is_fresh: bool,
    ) -> Result<Outcome, Failure> {
        let copy = self.file_copy(source, place, &metadata, is_fresh);
        if self.is_kept(place, &metadata, is_fresh).await? {
            self.meter.skipped(&place.source, metadata.size.unwrap_or(0), self.options.skip);
            return Ok(Outcome::Done);
        }
        if self.options.dry_run {
            copy.in_the_way().await.map_err(|error| self.at_target(place, error))?;
            return Ok(self.would_copy(place, metadata.size));
        }
        self.meter.tell(Event::Started { path: &place.source, size: metadata.size }, |_| {});
        let meter = tokio::sync::Mutex::new(FileMeter::new(&self.meter, &place.source, metadata.size));
        self.again_if_lost(async || {
            let mut meter = meter.lock().await;
            meter.start_over();
            copy.run(&mut meter).await
        })
        .await?;
        drop(meter);
        self.meter.tell(Event::Finished { path: &place.source }, |totals| totals.files_done += 1);
        Ok(Outcome::Done)
    }

    /// Times as the target keeps them.
    pub(super) fn carried(&self, (accessed, modified): (SystemTime, SystemTime)) -> (SystemTime, SystemTime) {
        let target = &*self.destination.endpoint;
        (target.carried(accessed), target.carried(modified))
    }

    /// Whether the target has a file that stays.
    async fn is_kept(&self, place: &Place, source: &Metadata, is_fresh: bool) -> Result<bool, Failure> {
        if is_fresh || self.options.skip == Skip::Nothing {
            return Ok(false);
        }
        match self.destination.endpoint.lstat(&place.target).await {
            Ok(found) => {
                let source = Metadata { times: source.times.map(|times| self.carried(times)), ..*source };
                Ok(found.kind == Some(FileKind::File) && self.options.skip.keeps(&found, &source))
            }
            Err(error) if error.is_of_stream() => Err(self.at_target(place, error)),
            Err(_) => Ok(false),
        }
    }

    pub(super) fn would_copy(&self, place: &Place, size: Option<u64>) -> Outcome {
        self.meter.tell(Event::WouldCopy { path: &place.source, target: &place.target, size }, |_| {});
        Outcome::Done
    }

    async fn copy_link(&self, place: &Place, metadata: Metadata) -> Result<Outcome, Failure> {
        if self.options.dry_run {
            return Ok(self.would_copy(place, None));
        }
        let to = self.source(place).read_link(&place.source).await.map_err(|error| self.at_source(place, error))?;
        let target = &*self.destination.endpoint;
        let make = async {
            target.make_link(&place.target, &to).await?;
            match metadata.times.filter(|_| self.options.preserve) {
                Some(times) => self.date_link(&place.target, times).await,
                None => Ok(()),
            }
        };
        make.await.map_err(|error| self.at_target(place, error))?;
        self.meter.tell(Event::Finished { path: &place.source }, |totals| totals.files_done += 1);
        Ok(Outcome::Done)
    }

    async fn date_link(&self, path: &BytePath, times: (SystemTime, SystemTime)) -> Result<(), CopyError> {
        self.note_time_range(path, Some(times));
        match self.destination.endpoint.date_link(path, times).await {
            Err(error) if error.is_refusal() => {
                self.warnings.add(path, (Shortfall::Times, Some(error)));
                Ok(())
            }
            dated => dated,
        }
    }

    /// Notes that a file gets other times than it was to get.
    pub(super) fn note_time_range(&self, path: &BytePath, times: Option<(SystemTime, SystemTime)>) {
        let target = &*self.destination.endpoint;
        if times
            .is_some_and(|(accessed, modified)| [accessed, modified].iter().any(|time| target.carried(*time) != *time))
        {
            self.warnings.add(path, (Shortfall::TimeRange, None));
        }
    }

    fn warn(&self, summary: &mut Summary) {
        for warning in self.warnings.take(&self.destination.endpoint.side()) {
            self.meter.tell(Event::Warned(&warning), |_| {});
            summary.warnings.push(warning);
        }
    }

    pub(super) fn file_copy<'b>(
        &'b self,
        source: &'b dyn Endpoint,
        place: &'b Place,
        found: &'b Metadata,
        is_fresh: bool,
    ) -> FileCopy<'b> {
        FileCopy {
            source,
            target: &*self.destination.endpoint,
            place,
            found,
            preserve: self.options.preserve,
            verify: self.options.verify,
            there: match self.special.get() {
                _ if is_fresh => There::Nothing,
                Some(special) if *special == place.target => There::Special,
                _ => There::Unknown,
            },
            unfinished: &self.unfinished,
            warnings: &self.warnings,
            journal: self.journal(),
            budget: &self.budget,
            limit: self.limit.as_ref(),
        }
    }

    /// Puts a failure on the list, unless it is the end of everything.
    pub(super) fn record(&self, summary: &mut Summary, failure: Failure) -> Result<(), CopyError> {
        let failure = match failure.into_lost() {
            Ok(lost) => return Err(lost),
            Err(failure) => failure,
        };
        self.meter.tell(Event::Failed(&failure), |_| {});
        summary.failures.push(failure);
        Ok(())
    }

    pub(super) fn source(&self, place: &Place) -> &dyn Endpoint {
        &*self.sources[place.origin].endpoint
    }

    pub(super) fn at_source(&self, place: &Place, error: CopyError) -> Failure {
        Failure::new(self.source(place).side(), &place.source, error)
    }

    pub(super) fn at_target(&self, place: &Place, error: CopyError) -> Failure {
        Failure::new(self.destination.endpoint.side(), &place.target, error)
    }
}

/// The directories in which sources get their names.
fn parents(places: &[Place]) -> BTreeSet<BytePath> {
    places.iter().map(|place| place.target.parent()).collect()
}

/// The part of the budget that a step can use.
fn share_of(step: &Step) -> u64 {
    match step {
        Step::CopyFile { metadata, .. } => metadata.size.unwrap_or(0).min(FILE_WINDOW),
        _ => 0,
    }
}

/// Whether the directory behind a link holds the link.
pub(super) async fn leads_back(endpoint: &dyn Endpoint, link: &BytePath) -> Result<bool, CopyError> {
    let parent = link.parent();
    let (behind, holder) = tokio::try_join!(endpoint.canonical(link), endpoint.canonical(&parent))?;
    Ok(holder.is_within(&behind))
}
