//! The `ssm-lab` command line.

mod args;
mod child;

use std::{
    ffi::OsString,
    fmt::Write as _,
    io::{self, Write as _},
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};

use clap::Parser;
use ssm_lab::{Lab, LabBuilder};
use tokio::signal::unix::{Signal, SignalKind, signal};

use args::Args;

/// The exit status of every failure of the lab itself.
const FAILURE: u8 = 125;

pub(crate) fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(usage) => {
            let _ = usage.print();
            return if usage.use_stderr() { ExitCode::from(FAILURE) } else { ExitCode::SUCCESS };
        }
    };
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error),
    };
    runtime.block_on(run(args))
}

async fn run(mut args: Args) -> ExitCode {
    let command = std::mem::take(&mut args.command);
    let lab = match builder(args).start().await {
        Ok(lab) => lab,
        Err(error) => return fail(&error),
    };
    let code = work(&lab, &command).await;
    lab.shutdown().await;
    code.unwrap_or_else(|error| fail(&error))
}

async fn work(lab: &Lab, command: &[OsString]) -> io::Result<ExitCode> {
    if !await_agent(lab).await? {
        return Ok(ExitCode::from(FAILURE));
    }
    if command.is_empty() { serve(lab).await } else { child::run(lab, command).await }
}

/// Where a real agent is to be the node, nothing can be done without it. Says whether it came before a signal did.
async fn await_agent(lab: &Lab) -> io::Result<bool> {
    let Some(activation) = lab.activation() else { return Ok(true) };
    let (code, id, region) = (activation.code, activation.id, lab.region());
    diagnose("waiting for an agent to be the node; register one with");
    diagnose(&format!("  amazon-ssm-agent -register -y -region {region} -code {code} -id {id}"));
    let mut ending = Ending::new()?;
    tokio::select! {
        connected = lab.wait_for_node(Duration::MAX) => Ok(connected),
        () = ending.wait() => Ok(false),
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

    async fn wait(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = self.hangup.recv() => {}
        }
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

/// Prints what to export, and serves until a signal.
async fn serve(lab: &Lab) -> io::Result<ExitCode> {
    let mut ending = Ending::new()?;
    let mut stdout = io::stdout();
    stdout.write_all(exports(lab).as_bytes())?;
    stdout.flush()?;
    diagnose("serving; Ctrl-C ends it");
    ending.wait().await;
    Ok(ExitCode::SUCCESS)
}

/// Lines for a POSIX shell.
fn exports(lab: &Lab) -> String {
    let mut text = format!("unset {}\n", Lab::env_remove().join(" "));
    for (name, value) in lab.env() {
        let _ = writeln!(text, "export {name}='{}'", value.replace('\'', r"'\''"));
    }
    text
}

fn fail(error: &dyn std::error::Error) -> ExitCode {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let _ = write!(text, ": {cause}");
        source = cause.source();
    }
    diagnose(&text);
    ExitCode::from(FAILURE)
}

fn diagnose(text: &str) {
    let _ = writeln!(io::stderr(), "ssm-lab: {text}");
}
