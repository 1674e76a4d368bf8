//! Shared by both commands.

mod absent;
mod agent;
mod args;
mod askpass;
mod connect;
mod environment;
mod escape;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod identity;
mod logging;
mod modes;
mod notices;
mod options;
mod progress;
mod report;
mod session;
mod settings;
mod signals;
mod ssmcp;
mod ssmssh;
mod stdio;
mod target;
mod terminal;
mod units;
mod waiting;

use std::panic::{UnwindSafe, catch_unwind};

use report::CliError;

/// Runs `ssmssh` with the arguments and the environment of the process, and returns its exit status.
///
/// The caller has to end the process with it: a thread that waits for input may be left behind.
pub fn ssmssh() -> i32 {
    stdio::keep_input_from_children();
    status_of(|| ssmssh::main(std::env::args_os()))
}

/// Runs `ssmcp` with the arguments and the environment of the process, and returns its exit status.
///
/// The caller has to end the process with it, as with `ssmssh`.
pub fn ssmcp() -> i32 {
    stdio::keep_input_from_children();
    status_of(|| ssmcp::main(std::env::args_os()))
}

/// The exit status of `main`; a panic, which has printed its message, is a failure like any other.
fn status_of(main: impl FnOnce() -> u8 + UnwindSafe) -> i32 {
    catch_unwind(main).unwrap_or(report::FAILURE).into()
}

/// Runs `work` on a runtime with `workers` threads, without waiting for what is still blocked when it is done.
fn run_to_end<T>(workers: usize, work: impl Future<Output = Result<T, CliError>>) -> Result<T, CliError> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(workers).enable_all().build();
    let runtime = runtime.map_err(CliError::Runtime)?;
    let result = runtime.block_on(work);
    runtime.shutdown_background();
    result
}
