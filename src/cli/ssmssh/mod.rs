//! The `ssmssh` command.

pub(super) mod args;
mod settings;

use std::ffi::OsString;
use std::io::IsTerminal;
use std::time::{Duration, Instant};

use clap::Parser;
use rustix::termios::tcgetattr;
use tokio::time::timeout;

use super::absent::{self, Absent};
use super::connect::{self, Dialer, LAST_WAIT};
use super::environment::Environment;
use super::logging;
use super::modes;
use super::options::{LogLevel, RequestTty};
use super::report::{self, CliError, FAILURE};
use super::session::{self, Ending, Input};
use super::signals::{self, EndSignal, EndSignals};
use super::stdio;
use super::terminal::{self, ModeGuard};
use super::waiting;
use crate::client::{ClientError, Connection};
use crate::ssh::{Child, Command, ExitStatus, Pty};
use args::SsmsshArgs;
use settings::SsmsshSettings;

/// Exit status when the reader of standard output goes away: what shells make of SIGPIPE.
const OUTPUT_CLOSED: u8 = 128 + 13;

/// One thread for SSH and the terminal, one for the data channel beside it: encryption of both can go on at once.
const WORKERS: usize = 2;

/// Longest wait for the SSM session to end after `~.`.
const LAST_MOMENT: Duration = Duration::from_millis(400);

/// Longest wait, after a signal, for the command to end by it, and as long again for the goodbye to the node.
const FAREWELL: Duration = Duration::from_millis(500);

/// Runs the command and returns its exit status.
pub(crate) fn main(args: impl IntoIterator<Item = OsString>) -> u8 {
    let started = Instant::now();
    report::init("ssmssh");
    terminal::restore_on_panic();
    let settings = match settings(args) {
        Ok(settings) => settings,
        Err(error) => return report::print(&error, LogLevel::Info),
    };
    let level = settings.connection.log_level;
    logging::init(level);
    super::run_to_end(WORKERS, run(&settings, started)).unwrap_or_else(|error| report::print(&error, level))
}

fn settings(args: impl IntoIterator<Item = OsString>) -> Result<SsmsshSettings, CliError> {
    let args = SsmsshArgs::try_parse_from(args).map_err(|usage| match Absent::in_usage(&usage, absent::OF_SSMSSH) {
        Some(absent) => CliError::Absent(absent),
        None => CliError::Usage(usage),
    })?;
    Ok(SsmsshSettings::resolve(&args, &Environment::of_process())?)
}

/// Whatever ends it, a signal included, the SSM session is ended too before it returns, as far as 2 s suffice.
async fn run(settings: &SsmsshSettings, started: Instant) -> Result<u8, CliError> {
    let mut signals = EndSignals::catch().map_err(CliError::Signals)?;
    if settings.forget_host {
        return connect::forget(&settings.connection, &settings.target).await.map(|()| 0);
    }
    let dialer = Dialer::new(&settings.connection);
    let mut waited = None;
    let ended = work(settings, &dialer, &mut signals, &mut waited, started).await;
    let (signal, patience) = match &ended {
        Ok(Ending::Signalled(signal)) => {
            (Some(*signal), connect::interrupted(waited.as_deref(), settings.connection.is_quiet(), LAST_WAIT))
        }
        // Somebody waits for the prompt, and the connection may well be dead.
        Ok(Ending::Disconnected) => (None, LAST_MOMENT),
        _ => (None, LAST_WAIT),
    };
    // What is wrong comes before what may go wrong with the goodbye.
    let exit_status = match ended {
        Ok(ended) => exit_code(&ended),
        Err(error) => report::print(&error, settings.connection.log_level),
    };
    // A second signal is from somebody who does not want to wait.
    tokio::select! {
        () = dialer.wait_idle(patience) => {}
        _ = signals.recv() => {}
    }
    if let Some(signal) = signal {
        signal.end_process();
    }
    Ok(exit_status)
}

async fn work(
    settings: &SsmsshSettings,
    dialer: &Dialer<'_>,
    signals: &mut EndSignals,
    waited: &mut Option<String>,
    started: Instant,
) -> Result<Ending, CliError> {
    let pty = pty(settings);
    let (connection, mut child) = tokio::select! {
        begun = begin(settings, dialer, pty.as_ref()) => begun?,
        (signal, what) = async { (signals.recv().await, waiting::current()) } => {
            *waited = what;
            return Ok(Ending::Signalled(signal));
        }
    };
    logging::ready(started);
    let ended = tokio::select! {
        ended = on_terminal(&mut child, input(settings, pty.is_some())) => ended?,
        signal = signals.recv() => {
            if pty.is_none() {
                let _ = timeout(FAREWELL, pass_on(&mut child, signal)).await;
            }
            Ending::Signalled(signal)
        }
    };
    tell_refused(&child);
    if let Ending::Exited(status) = &ended
        && !settings.connection.is_quiet()
    {
        tell_odd_signal(status);
    }
    if pty.is_some() && !settings.connection.is_quiet() {
        report::verbatim(&format!("Connection to {} closed.\n", settings.target.node));
    }
    drop(child);
    tokio::select! {
        // How the command ended is known, and nothing that comes after it changes that.
        () = part(connection, &ended) => Ok(ended),
        signal = signals.recv() => Ok(Ending::Signalled(signal)),
    }
}

/// A command that has a terminal is hung up when that goes; any other would not notice that nobody waits for it.
async fn pass_on(child: &mut Child, signal: EndSignal) {
    let _ = child.signal(signal.name()).await;
    let _ = child.wait().await;
}

async fn part(connection: Connection, ended: &Ending) {
    match ended {
        Ending::Exited(_) => connect::close(connection).await,
        Ending::Signalled(_) => drop(timeout(FAREWELL, connect::close(connection)).await),
        // A reader that is gone, or a connection that is stuck, leaves nothing to be polite about.
        Ending::Disconnected | Ending::OutputClosed => connection.abort(),
    }
}

async fn begin(
    settings: &SsmsshSettings,
    dialer: &Dialer<'_>,
    pty: Option<&Pty>,
) -> Result<(Connection, Child), CliError> {
    let connection = dialer.connect(&settings.target, pty.is_some()).await?;
    dialer.forget_keys().await;
    let command = match &settings.command {
        Some(line) => connection.command(line.clone()),
        None => connection.shell(),
    };
    let command = pty.cloned().into_iter().fold(command, Command::pty);
    let command = settings.remote_env.iter().fold(command, |command, (name, value)| command.env(name, value));
    let child = command.spawn().await.map_err(ClientError::from)?;
    Ok((connection, child))
}

/// The conversation, in raw mode where the input is typed.
async fn on_terminal(child: &mut Child, input: Input) -> Result<Ending, CliError> {
    let raw = (input == Input::Keyboard).then(|| ModeGuard::raw(stdio::input()));
    let _raw = raw.transpose().map_err(|source| CliError::Terminal { action: "change", source })?;
    session::converse(child, input).await
}

/// The pseudo-terminal to ask for: a likeness of the one on standard input.
fn pty(settings: &SsmsshSettings) -> Option<Pty> {
    let stdin = stdio::input();
    let is_terminal = has_keyboard(settings);
    let wanted = match settings.request_tty {
        RequestTty::No => false,
        RequestTty::Auto => settings.command.is_none() && is_terminal,
        RequestTty::Yes => is_terminal,
        RequestTty::Force => true,
    };
    if settings.request_tty == RequestTty::Yes && !wanted && !settings.connection.is_quiet() {
        report::note("no pseudo-terminal is asked for, because standard input is no terminal (-tt asks all the same)");
    }
    wanted.then(|| {
        let size = terminal::size(stdin);
        Pty {
            term: settings.term.clone(),
            cols: size.ws_col.into(),
            rows: size.ws_row.into(),
            width_px: size.ws_xpixel.into(),
            height_px: size.ws_ypixel.into(),
            modes: tcgetattr(stdin).map(|modes| modes::encode(&modes)).unwrap_or_default(),
        }
    })
}

fn has_keyboard(settings: &SsmsshSettings) -> bool {
    !settings.null_stdin && stdio::input().is_terminal()
}

fn input(settings: &SsmsshSettings, has_pty: bool) -> Input {
    if settings.null_stdin {
        Input::None
    } else if has_pty && has_keyboard(settings) {
        Input::Keyboard
    } else {
        Input::Stream
    }
}

fn exit_code(ended: &Ending) -> u8 {
    match ended {
        Ending::Exited(status) => status_code(status),
        Ending::Disconnected => FAILURE,
        Ending::OutputClosed => OUTPUT_CLOSED,
        Ending::Signalled(signal) => signal.exit_code(),
    }
}

/// Servers refuse most variables, and few commands miss them: it is for who asks.
fn tell_refused(child: &Child) {
    let refused = child.refused_env();
    if !refused.is_empty() {
        let names = refused.join(", ");
        tracing::info!(target: "ssmssh::detail", "not taken by the node (AcceptEnv of its sshd_config): {names}");
    }
}

/// A signal that has no number here leaves nothing but a failure to report.
fn tell_odd_signal(status: &ExitStatus) {
    if let Some(name) = status.signal().filter(|name| signals::number(name).is_none()) {
        report::note(&format!("the command was ended by a signal that has no number here: {name}"));
    }
}

/// As a shell would report the command had it run here: the low byte of its code, or 128 plus its signal.
fn status_code(status: &ExitStatus) -> u8 {
    let signal = || status.signal().and_then(signals::number).map(|number| 128 + number);
    status.code().map(|code| code.to_le_bytes()[0]).or_else(signal).unwrap_or(FAILURE)
}
