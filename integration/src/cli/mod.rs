//! The `ssm-lab` command line.

mod args;
mod background;
mod child;
mod serving;
// The same way to write times and sizes as in the other commands.
#[allow(dead_code, reason = "the other commands take more kinds of values")]
#[path = "../../../src/cli/units.rs"]
mod units;

use std::{
    ffi::OsString,
    fmt::Write as _,
    io::{self, Write as _},
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};

use clap::Parser;
use rustix::process::{Resource, Rlimit, setrlimit, setsid};
use signal_hook::low_level::emulate_default_handler;
use ssm_lab::{Lab, LabBuilder};
use tokio::signal::unix::{Signal, SignalKind, signal};

use args::Args;
use serving::Announce;

/// The exit status of every failure of the lab itself.
const FAILURE: u8 = 125;

/// How the lab ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Status(u8),
    /// As this signal would have ended it, so that a shell's loop around it ends too.
    Signal(i32),
}

pub(crate) fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(usage) => return print_usage(&usage),
    };
    if args.background {
        return background::start();
    }
    if args.detached {
        // The terminal that it was started from may go.
        let _ = setsid();
    }
    let end = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime.block_on(run(args)),
        Err(error) => fail(&error),
    };
    end.take()
}

/// Help and version go to standard output; mistakes are told as those of the other commands are.
fn print_usage(usage: &clap::Error) -> ExitCode {
    if !usage.use_stderr() {
        let _ = usage.print();
        return ExitCode::SUCCESS;
    }
    let text = usage.render().to_string();
    let _ = write!(io::stderr(), "ssm-lab: {}", text.strip_prefix("error: ").unwrap_or(&text));
    ExitCode::from(FAILURE)
}

impl End {
    fn take(self) -> ExitCode {
        match self {
            Self::Status(code) => ExitCode::from(code),
            Self::Signal(number) => {
                // QUIT leaves no core of a lab that has ended in order.
                let _ = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
                let _ = emulate_default_handler(number);
                ExitCode::from(u8::try_from(128 + number).unwrap_or(FAILURE))
            }
        }
    }
}

async fn run(mut args: Args) -> End {
    let command = std::mem::take(&mut args.command);
    let announce = Announce::of(&args);
    let lab = match builder(args).start().await {
        Ok(lab) => lab,
        Err(error) => return fail(&error),
    };
    let end = work(&lab, &command, announce).await;
    lab.shutdown().await;
    end.unwrap_or_else(|error| fail(&error))
}

async fn work(lab: &Lab, command: &[OsString], announce: Announce) -> io::Result<End> {
    if let Err(number) = await_agent(lab).await? {
        return Ok(End::Signal(number));
    }
    if command.is_empty() { serving::serve(lab, announce).await } else { child::run(lab, command).await }
}

/// Where a real agent is to be the node, nothing can be done without it. The error is the signal that came before it.
async fn await_agent(lab: &Lab) -> io::Result<Result<(), i32>> {
    let Some(activation) = lab.activation() else { return Ok(Ok(())) };
    let (code, id, region) = (activation.code, activation.id, lab.region());
    diagnose("waiting for an agent to be the node; register one with");
    diagnose(&format!("  amazon-ssm-agent -register -y -region {region} -code {code} -id {id}"));
    let mut ending = Ending::new()?;
    tokio::select! {
        _ = lab.wait_for_node(Duration::MAX) => Ok(Ok(())),
        number = ending.wait() => Ok(Err(number)),
    }
}

/// The signals that end a lab without a command.
struct Ending {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl Ending {
    fn new() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// The number of the first that comes.
    async fn wait(&mut self) -> i32 {
        let kind = tokio::select! {
            _ = self.interrupt.recv() => SignalKind::interrupt(),
            _ = self.terminate.recv() => SignalKind::terminate(),
            _ = self.hangup.recv() => SignalKind::hangup(),
        };
        kind.as_raw_value()
    }
}

/// The embedded server's user gets the shell of whoever started the lab.
fn builder(args: Args) -> LabBuilder {
    #[expect(clippy::disallowed_methods, reason = "the lab's command line is where the lab's environment is read")]
    let shell = std::env::var_os("SHELL").map(PathBuf::from).filter(|shell| shell.is_absolute() && shell.exists());
    let builder = args.into_builder();
    match shell {
        Some(shell) => builder.shell(shell),
        None => builder,
    }
}

fn fail(error: &dyn std::error::Error) -> End {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let _ = write!(text, ": {cause}");
        source = cause.source();
    }
    diagnose(&text);
    End::Status(FAILURE)
}

fn diagnose(text: &str) {
    let _ = writeln!(io::stderr(), "ssm-lab: {text}");
}
