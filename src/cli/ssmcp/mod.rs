//! The `ssmcp` command.

mod args;
mod nodes;
mod settings;

use std::ffi::OsString;
use std::time::Instant;

use super::connect::Dialer;
use super::environment::Environment;
use super::logging;
use super::options::LogLevel;
use super::progress::ProgressLine;
use super::report::{self, CliError};
use super::signals::EndSignals;
use super::terminal;
use crate::copy::{CopyError, CopyOptions, Summary, copy_until};
use crate::stream::StreamError;
use nodes::{close_all, connect_all, location};
use settings::{SsmcpSettings, settings};

/// Exit status when some of it could not be copied.
const INCOMPLETE: u8 = 1;

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

/// Whatever ends it, a signal included, the SSM sessions are ended too before it returns, as far as 2 s suffice.
async fn run(settings: &SsmcpSettings, started: Instant) -> Result<u8, CliError> {
    let mut signals = EndSignals::catch().map_err(CliError::Signals)?;
    let dialer = Dialer::new(&settings.connection);
    let result = work(settings, &dialer, &mut signals, started).await;
    // A second signal is from somebody who does not want to wait.
    tokio::select! {
        () = dialer.wait_idle() => {}
        _ = signals.recv() => {}
    }
    result
}

async fn work(
    settings: &SsmcpSettings,
    dialer: &Dialer<'_>,
    signals: &mut EndSignals,
    started: Instant,
) -> Result<u8, CliError> {
    let nodes = tokio::select! {
        nodes = connect_all(settings, dialer) => nodes?,
        signal = signals.recv() => return Ok(signal.exit_code()),
    };
    logging::stage("total", started.elapsed());

    let sources = settings.sources.iter().map(|operand| location(operand, &nodes)).collect();
    let options = CopyOptions::default().recursive(settings.recursive).preserve(settings.preserve);
    let line = ProgressLine::new(settings.connection.is_quiet());
    let mut ended_by = None;
    let stop = async { ended_by = Some(signals.recv().await) };
    let copied =
        copy_until(sources, location(&settings.target, &nodes), options, |progress| line.show(progress), stop).await;
    match (copied, ended_by) {
        (Ok(summary), _) => {
            line.finish(&summary);
            tokio::select! {
                () = close_all(nodes) => {}
                _ = signals.recv() => {}
            }
            Ok(exit_code(&summary))
        }
        (Err(_), Some(signal)) => {
            line.clear();
            Ok(signal.exit_code())
        }
        (Err(error), None) => {
            line.clear();
            Err(with_the_cause_below(error))
        }
    }
}

fn exit_code(summary: &Summary) -> u8 {
    match summary.failures.len() {
        0 => return 0,
        1 => {}
        failures => report::note(&format!("{failures} files or directories could not be copied")),
    }
    INCOMPLETE
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
    fn what_failed_decides_the_exit_status() {
        assert_eq!(exit_code(&Summary::default()), 0);
    }
}
