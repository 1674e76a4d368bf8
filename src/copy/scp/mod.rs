//! The SCP protocol, for machines without an SFTP server.
//!
//! Two machines without I/O, [`Source`] and [`Sink`], speak it; [`ScpEndpoint`] is what a copy gets. A copy from or to
//! such a side cannot ask questions: what there is shows as it arrives, and what the far side does with what it gets is
//! known when it answers.
//!
//! ```text
//!   scp -f (node) ─► Receiver (Sink) ─► download ─► any other side
//!                          └──────────► relay ───┐
//!   any other side ─────────────────► upload ────┴─► Sender (Source) ─► scp -t (node)
//! ```
//!
//! The far side is not believed: see [`Sink`]. Of names that hold a line feed `scp` sends another spelling, which is
//! what they are called here; they cannot be sent at all.

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
mod upload;

#[cfg(test)]
mod tests;

pub use endpoint::{ScpChannel, ScpEndpoint};
pub use error::{Exit, ScpError};
pub use line::{Control, LineError, MAX_LINE, Reply, Times, Words};
pub use request::Request;
pub use sink::{Header, Received, Sink};
pub use source::{Answered, Source};

use download::Download;
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
    let target = match target::find(&**endpoint, path, run.sources.len()).await {
        Ok(target) => target,
        Err(error @ CopyError::TargetNotDirectory { .. }) => return Err(error),
        Err(error) => return run.record(summary, Failure::new(endpoint.side(), path, error)),
    };
    let (received, planned): (Vec<_>, Vec<_>) =
        (0..run.sources.len()).partition(|origin| run.sources[*origin].endpoint.over_scp().is_some());
    if !planned.is_empty() {
        run.copy_planned(&planned, summary).await?;
    }
    for origin in received {
        if let Some(from) = run.sources[origin].endpoint.over_scp() {
            Download::run(run, from, origin, &target, summary).await?;
        }
    }
    run.meter.tell(Event::Found, |totals| totals.is_all_found = true);
    Ok(())
}

/// Whether the protocol can do what is asked for; better not at all than something else.
fn check(run: &Run<'_>) -> Result<(), ScpError> {
    let (options, is_target) = (run.options(), run.destination.endpoint.over_scp().is_some());
    if options.verify {
        return Err(ScpError::Unable("verify what it carried"));
    }
    if options.links == Links::Keep {
        return Err(ScpError::Unable("carry links"));
    }
    if is_target && options.skip != Skip::Nothing {
        return Err(ScpError::Unable("tell what its target has already"));
    }
    if is_target && options.dry_run {
        return Err(ScpError::Unable("tell what would become of what it carries"));
    }
    Ok(())
}

/// Whether something is left out; `path` begins with the source's name.
fn is_excluded(options: &CopyOptions, path: &BytePath, is_directory: bool) -> bool {
    options.exclude.iter().any(|exclude| exclude.fits(path.as_bytes(), is_directory))
}

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
