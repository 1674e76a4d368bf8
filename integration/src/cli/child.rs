//! The command that runs within the lab.

use std::{ffi::OsString, io, os::unix::process::ExitStatusExt, path::PathBuf, process::ExitStatus};

use rustix::process::{Pid, Signal, kill_process};
use ssm_lab::Lab;
use tokio::{
    process::{Child, Command},
    signal::unix::{self, SignalKind, signal},
};

use super::End;

/// Exit statuses of shells for a command that is not there, or cannot be run.
const NOT_FOUND: u8 = 127;
const NOT_EXECUTABLE: u8 = 126;

/// Runs the command to its end, in the lab's own process group and on the lab's own terminal.
pub(super) async fn run(lab: &Lab, command: &[OsString]) -> io::Result<End> {
    let (program, arguments) = command.split_first().ok_or(io::ErrorKind::InvalidInput)?;
    let mut child = Command::new(program);
    child.args(arguments);
    for name in Lab::env_remove() {
        child.env_remove(name);
    }
    child.envs(lab.env()).env("PATH", search_path()?);
    let mut signals = Signals::new()?;
    match child.spawn() {
        Ok(child) => Ok(end(signals.wait(child).await?)),
        Err(error) => {
            super::diagnose(&format!("{}: {error}", program.to_string_lossy()));
            Ok(End::Status(if error.kind() == io::ErrorKind::NotFound { NOT_FOUND } else { NOT_EXECUTABLE }))
        }
    }
}

/// The signals that would end the lab before its command.
struct Signals {
    interrupt: unix::Signal,
    quit: unix::Signal,
    terminate: unix::Signal,
    hangup: unix::Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            quit: signal(SignalKind::quit())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// Waits for the child. What the terminal sends, it sends to the child too; what was sent to the lab alone is passed on.
    async fn wait(&mut self, mut child: Child) -> io::Result<ExitStatus> {
        loop {
            tokio::select! {
                status = child.wait() => return status,
                _ = self.interrupt.recv() => {}
                _ = self.quit.recv() => {}
                _ = self.terminate.recv() => pass_on(&child, Signal::TERM),
                _ = self.hangup.recv() => pass_on(&child, Signal::HUP),
            }
        }
    }
}

fn pass_on(child: &Child, signal: Signal) {
    if let Some(pid) = child.id().and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?)) {
        let _ = kill_process(pid, signal);
    }
}

/// The commands of the lab's own build come first.
fn search_path() -> io::Result<OsString> {
    #[expect(clippy::disallowed_methods, reason = "the lab's command line is where the lab's environment is read")]
    let path = std::env::var_os("PATH").unwrap_or_default();
    let own: Option<PathBuf> = std::env::current_exe()?.parent().map(PathBuf::from);
    std::env::join_paths(own.into_iter().chain(std::env::split_paths(&path))).map_err(io::Error::other)
}

/// The lab ends as its command did. Signals that tell of a fault in the command are none in the lab, so they become a status.
fn end(status: ExitStatus) -> End {
    const ASKED: [Signal; 4] = [Signal::HUP, Signal::INT, Signal::QUIT, Signal::TERM];
    match (status.code(), status.signal()) {
        (_, Some(number)) if ASKED.iter().any(|signal| signal.as_raw() == number) => End::Signal(number),
        (code, signal) => {
            let code = code.or(signal.map(|number| 128 + number)).and_then(|code| u8::try_from(code).ok());
            End::Status(code.unwrap_or(u8::MAX))
        }
    }
}
