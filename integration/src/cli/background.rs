//! `--background`: a lab that is a process of its own, ready when this one ends.

use std::{
    ffi::OsStr,
    io::{self, Read as _, Write as _},
    process::{Child, Command, ExitCode, Stdio},
    thread,
};

use super::{FAILURE, diagnose, fail};

/// Starts it with the same options, prints what it says is to be exported, and leaves it alone.
pub(super) fn start() -> ExitCode {
    match spawn().and_then(hand_over) {
        Ok(code) => code,
        Err(error) => fail(&error).take(),
    }
}

fn spawn() -> io::Result<Child> {
    let others = std::env::args_os().skip(1).filter(|argument| argument != OsStr::new("--background"));
    let mut command = Command::new(std::env::current_exe()?);
    command.args(others).arg("--detached");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()
}

/// It closes its output once it serves. If this process is ended before that, it finds no reader and ends too.
fn hand_over(mut lab: Child) -> io::Result<ExitCode> {
    let (stdout, stderr) = (lab.stdout.take(), lab.stderr.take());
    let complaints = thread::spawn(move || stderr.map(|mut from| io::copy(&mut from, &mut io::stderr())));
    let mut exports = String::new();
    stdout.map(|mut from| from.read_to_string(&mut exports)).transpose()?;
    let _ = complaints.join();
    if exports.is_empty() {
        let code = lab.wait()?.code().and_then(|code| u8::try_from(code).ok());
        return Ok(ExitCode::from(code.unwrap_or(FAILURE)));
    }
    let mut to = io::stdout();
    if let Err(error) = to.write_all(exports.as_bytes()).and_then(|()| to.flush()) {
        let _ = lab.kill();
        let _ = lab.wait();
        return Err(error);
    }
    diagnose("serving in the background; `kill $SSM_LAB_PID` ends it");
    Ok(ExitCode::SUCCESS)
}
