//! The `ssmcp` command.

pub(super) mod args;
mod failures;
mod files;
mod json;
mod nodes;
mod pace;
mod selection;
mod settings;
mod show;

use std::ffi::OsString;
use std::time::{Duration, Instant};

use super::connect::{self, Dialer, LAST_WAIT};
use super::environment::Environment;
use super::logging;
use super::options::LogLevel;
use super::report::{self, CliError};
use super::signals::{EndSignal, EndSignals, outlive_file_size_limit};
use super::{terminal, waiting};
use crate::copy::{CopyError, Summary, Totals, copy_until};
use crate::stream::StreamError;
use json::{End, Status};
use nodes::{close_all, connect_all};
use settings::{SsmcpSettings, settings};
use show::Show;

/// Exit status when some of it could not be copied.
const INCOMPLETE: u8 = 1;
/// Exit status when the reader of standard output went away: that of a process that SIGPIPE ended.
const OUTPUT_CLOSED: u8 = 141;

/// Longest wait for the SSM sessions to end after a signal: somebody waits.
const LAST_MOMENT: Duration = Duration::from_millis(400);

/// One thread for SSH and the files, one for the data channel beside it: encryption of both can go on at once.
const WORKERS: usize = 2;

/// Runs the command and returns its exit status.
pub(crate) fn main(args: impl IntoIterator<Item = OsString>) -> u8 {
    let started = Instant::now();
    report::init("ssmcp");
    terminal::restore_on_panic();
    let settings = match settings(args, &Environment::of_process()) {
        Ok(settings) => settings,
        Err(error) => return report::print(&error, LogLevel::Info),
    };
    let level = settings.connection.log_level;
    logging::init(level);
    super::run_to_end(WORKERS, run(&settings, started)).unwrap_or_else(|error| report::print(&error, level))
}

/// How a run ended that nothing ended early.
enum Ending {
    /// As far as it could be copied.
    Copied(Summary),
    /// By a signal, and whether the same command goes on where it was.
    Stopped { signal: EndSignal, can_resume: bool },
    /// Whoever read standard output has seen enough.
    ReaderGone,
}

/// Whatever ends it, a signal included, the SSM sessions are ended too before it returns, as far as 2 s suffice.
async fn run(settings: &SsmcpSettings, started: Instant) -> Result<u8, CliError> {
    let mut signals = EndSignals::catch().map_err(CliError::Signals)?;
    outlive_file_size_limit().map_err(CliError::Signals)?;
    let dialer = Dialer::new(&settings.connection);
    let show = Show::new(settings);
    let mut waited = None;
    let outcome = work(settings, &dialer, &show, &mut signals, &mut waited, started).await;
    // What is wrong comes before what may go wrong with the goodbye.
    let end = end_of(&outcome, settings.connection.log_level);
    let exit_status = end.exit_status;
    let stopped = if let Ok(Ending::Stopped { signal, .. }) = &outcome { Some(*signal) } else { None };
    let patience = if stopped.is_some() { LAST_MOMENT } else { LAST_WAIT };
    let patience = connect::interrupted(waited.as_deref(), settings.connection.is_quiet(), patience);
    // A second signal is from somebody who does not want to wait.
    tokio::select! {
        () = dialer.wait_idle(patience) => {}
        _ = signals.recv() => {}
    }
    tokio::select! {
        () = show.end(end) => {}
        _ = signals.recv() => {}
    }
    if let Some(signal) = stopped {
        signal.end_process();
    }
    Ok(exit_status)
}

async fn work(
    settings: &SsmcpSettings,
    dialer: &Dialer<'_>,
    show: &Show<'_>,
    signals: &mut EndSignals,
    waited: &mut Option<String>,
    started: Instant,
) -> Result<Ending, CliError> {
    let nodes = tokio::select! {
        nodes = connect_all(settings, dialer) => nodes?,
        (signal, what) = async { (signals.recv().await, waiting::current()) } => {
            *waited = what;
            return Ok(Ending::Stopped { signal, can_resume: false });
        }
    };
    logging::ready(started);

    let sources = settings.sources.iter().map(|operand| nodes::source(operand, &nodes)).collect();
    let target = nodes::target(&settings.target, &nodes);
    let mut ended_by = None;
    let stop = async { ended_by = Some(signals.recv().await) };
    let copying = copy_until(sources, target, settings.copy_options(), |progress| show.show(progress), stop);
    let copied = tokio::select! {
        copied = copying => copied,
        never = show.keep_up_to_date() => match never {},
    };
    show.close(copied.as_ref().ok());
    match (copied, ended_by) {
        (Ok(summary), _) => {
            tokio::select! {
                () = close_all(nodes) => {}
                _ = signals.recv() => {}
            }
            let is_reader_gone = summary.failures.iter().any(|failure| settings.is_reader_gone(failure));
            Ok(if is_reader_gone { Ending::ReaderGone } else { Ending::Copied(summary) })
        }
        (Err(CopyError::Stopped { can_resume }), Some(signal)) => {
            if !settings.connection.is_quiet() {
                report::note(&how_to_go_on(&show.totals(), can_resume));
            }
            Ok(Ending::Stopped { signal, can_resume })
        }
        (Err(error), _) => {
            if matches!(error, CopyError::Lost { can_resume: true, .. }) && !settings.connection.is_quiet() {
                report::note(&how_to_go_on(&show.totals(), true));
            }
            Err(with_the_cause_below(error))
        }
    }
}

/// What is told about a run that is over, and its exit status. What is wrong is printed.
fn end_of(outcome: &Result<Ending, CliError>, level: LogLevel) -> End {
    let end = |status, exit_status| End { status, exit_status, failures: 0, can_resume: false, message: None };
    match outcome {
        Ok(Ending::Copied(summary)) if summary.is_complete() => end(Status::Complete, 0),
        Ok(Ending::Copied(summary)) => {
            let failures = summary.failures.len();
            if failures > 1 {
                report::note(&format!("{failures} files or directories could not be copied"));
            }
            End { failures, ..end(Status::Incomplete, INCOMPLETE) }
        }
        Ok(Ending::Stopped { signal, can_resume }) => {
            End { can_resume: *can_resume, ..end(Status::Stopped, signal.exit_code()) }
        }
        Ok(Ending::ReaderGone) => end(Status::Stopped, OUTPUT_CLOSED),
        Err(error) => {
            let printed = report::print(error, level);
            // No more than a file that is not there: what is wrong is what was named.
            let is_about_names = matches!(error, CliError::Copy(CopyError::TargetNotDirectory { .. }));
            let exit_status = if is_about_names { INCOMPLETE } else { printed };
            End { message: Some(report::message(error)), ..end(Status::Failed, exit_status) }
        }
    }
}

fn how_to_go_on(totals: &Totals, can_resume: bool) -> String {
    let files = match totals {
        Totals { files_done: 1, .. } => "1 file is".to_owned(),
        Totals { files_done, .. } => format!("{files_done} files are"),
    };
    let again = if can_resume { "goes on from here" } else { "copies all again" };
    format!("stopped: {files} copied; the same command {again}")
}

/// Where the stream below is what failed, its error is the one that tells something.
fn with_the_cause_below(error: CopyError) -> CliError {
    match StreamError::find(&error) {
        Some(below) => CliError::Client(below.clone().into()),
        None => CliError::Copy(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_that_is_stopped_says_how_to_go_on() {
        let mut totals = Totals::default();
        assert_eq!(how_to_go_on(&totals, false), "stopped: 0 files are copied; the same command copies all again");
        totals.files_done = 1;
        assert_eq!(how_to_go_on(&totals, true), "stopped: 1 file is copied; the same command goes on from here");
    }

    #[test]
    fn how_it_ended_decides_the_exit_status() {
        let exit_status = |outcome| end_of(&outcome, LogLevel::Quiet).exit_status;
        assert_eq!(exit_status(Ok(Ending::Copied(Summary::default()))), 0);
        assert_eq!(exit_status(Ok(Ending::ReaderGone)), 141);
        let side = crate::copy::Side::Local;
        let no_directory = CopyError::TargetNotDirectory { side, path: "x".into() };
        assert_eq!(exit_status(Err(CliError::Copy(no_directory))), 1);
    }
}
