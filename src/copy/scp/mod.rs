//! The SCP protocol, for machines without an SFTP server.
//!
//! Two machines without I/O, [`Source`] and [`Sink`], speak it; [`ScpEndpoint`] is what a copy gets. A copy from or to
//! such a side cannot ask as it goes: what there is shows as it arrives, and what the far side does with what it gets is
//! known when it answers.
//!
//! ```text
//!   scp -f (node) ─► Receiver (Sink) ─► download ─► any other side
//!                          └──────────► relay ───┐
//!   any other side ─────────────────► upload ────┴─► Sender (Source) ─► scp -t (node)
//!                          scp -f (node) ─► survey ───┤ what is there already
//!                        sha256sum (node) ─► verify ──┘ whether it is there as it was sent
//! ```
//!
//! The far side is not believed: see [`Sink`]. Of names that hold a line feed `scp` sends another spelling, which is
//! what they are called here; they cannot be sent at all.

mod digest;
mod download;
mod endpoint;
mod error;
mod line;
mod pattern;
mod peer;
mod receiver;
mod relay;
mod request;
mod sender;
mod sink;
mod source;
mod survey;
mod upload;
mod verify;

#[cfg(test)]
mod tests;

use std::collections::HashSet;

pub use endpoint::{ScpChannel, ScpEndpoint};
pub use error::{Exit, ScpError};
pub use line::{Control, LineError, MAX_LINE, Reply, Times, Words};
pub use request::Request;
pub use sink::{Header, Received, Sink};
pub use source::{Answered, Source};

use download::{Download, metadata_of};
use request::Flags;
use upload::Upload;

use super::run::Run;
use super::{BytePath, CopyError, CopyOptions, Endpoint, Event, Failure, Links, Location, Skip, Summary, target};

/// Whether a copy needs this protocol.
pub(super) fn is_needed(sources: &[Location], destination: &Location) -> bool {
    sources.iter().chain([destination]).any(|location| location.endpoint.over_scp().is_some())
}

/// Copies over the protocol those of the sources that have no other way; all, if the destination has none.
pub(super) async fn copy(run: &Run<'_>, summary: &mut Summary) -> Result<(), CopyError> {
    check(run)?;
    if let Some(to) = run.destination.endpoint.over_scp() {
        return Upload::run(run, to, summary).await;
    }
    let Location { endpoint, path, .. } = &run.destination;
    let found = async {
        let target = target::find(&**endpoint, path, run.sources.len()).await?;
        target.note(&run.special);
        target.hold(&**endpoint).await?;
        Ok::<_, CopyError>(target)
    };
    let target = match found.await {
        Ok(target) => target,
        Err(error) if error.is_about_target() => return Err(error),
        Err(error) => return run.record(summary, Failure::new(endpoint.side(), path, error)),
    };
    let (received, planned): (Vec<_>, Vec<_>) =
        (0..run.sources.len()).partition(|origin| run.sources[*origin].endpoint.over_scp().is_some());
    if !planned.is_empty() {
        run.copy_planned(&planned, summary).await?;
    }
    let mut taken = Taken::default();
    for origin in received {
        if let Some(from) = run.sources[origin].endpoint.over_scp() {
            Download::run(run, from, origin, &target, &mut taken, summary).await?;
        }
    }
    run.meter.tell(Event::Found, |totals| totals.is_all_found = true);
    Ok(())
}

/// Whether the protocol can do what is asked for; better not at all than something else.
fn check(run: &Run<'_>) -> Result<(), ScpError> {
    if run.options().links == Links::Keep { Err(ScpError::Unable("carry links")) } else { Ok(()) }
}

/// The names that sources have got.
#[derive(Debug, Default)]
struct Taken(HashSet<BytePath>);

impl Taken {
    /// Whether a source before gets the name; directories may share one.
    fn refuses(&mut self, target: &BytePath, is_directory: bool) -> bool {
        if is_directory { self.0.contains(target) } else { !self.0.insert(target.clone()) }
    }
}

/// Whether something is left out; `path` begins with the source's name.
fn is_excluded(options: &CopyOptions, path: &BytePath, is_directory: bool) -> bool {
    options.exclude.iter().any(|exclude| exclude.fits(path.as_bytes(), is_directory))
}

/// How a source is asked for.
fn flags(options: &CopyOptions) -> Flags {
    let needs_times = options.preserve || options.skip != Skip::Nothing;
    Flags { recursive: options.recursive, preserve: needs_times, directory: false }
}

/// Passes on what the far side printed beside the protocol.
fn say(run: &Run<'_>, endpoint: &ScpEndpoint, lines: &[BytePath]) {
    let side = endpoint.side();
    for text in lines {
        run.meter.tell(Event::Said { side: &side, text }, |_| {});
    }
}
