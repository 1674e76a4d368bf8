//! The `ssm-lab` command line.

mod args;
mod child;

use std::{fmt::Write as _, io::Write as _, path::PathBuf, process::ExitCode};

use clap::Parser;
use ssm_lab::{Lab, LabBuilder};
use tokio::signal::unix::{SignalKind, signal};

use args::Args;

/// The exit status of every failure of the lab itself.
const FAILURE: u8 = 125;

pub(crate) fn main() -> ExitCode {
    let args = Args::parse();
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
    let code = if command.is_empty() { serve(&lab).await } else { child::run(&lab, &command).await };
    lab.shutdown().await;
    code.unwrap_or_else(|error| fail(&error))
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
async fn serve(lab: &Lab) -> std::io::Result<ExitCode> {
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let mut hangup = signal(SignalKind::hangup())?;
    let mut stdout = std::io::stdout();
    stdout.write_all(exports(lab).as_bytes())?;
    stdout.flush()?;
    diagnose("serving; Ctrl-C ends it");
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
        _ = hangup.recv() => {}
    }
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
    let _ = writeln!(std::io::stderr(), "ssm-lab: {text}");
}
