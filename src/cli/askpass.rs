//! Asking for a passphrase: on the terminal, or through the program that `SSH_ASKPASS` names.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::process::Stdio;

use tokio::process::Command;
use tokio::sync::oneshot;
use zeroize::Zeroizing;

use super::settings::Askpass;
use super::terminal::ModeGuard;

/// What somebody typed; wiped when dropped.
pub(crate) type Secret = Zeroizing<String>;

/// Longest answer, in bytes, as in OpenSSH. It is read in one piece, so that no copy of it is left behind.
const LONGEST: usize = 1024;

/// Nobody answered.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum AskError {
    #[error("there is no terminal to ask on, and SSH_ASKPASS names no program")]
    NoTerminal,
    #[error("asking on the terminal failed")]
    Terminal(#[source] io::Error),
    #[error("`{program}` (SSH_ASKPASS) failed")]
    Program { program: String, source: io::Error },
    #[error("no passphrase was given")]
    Declined,
}

/// Asks for a secret with `prompt`.
///
/// Cancelling it gives the terminal back; what is typed until the next newline is then still read and thrown away.
pub(crate) async fn ask(prompt: &str, askpass: Option<&Askpass>) -> Result<Secret, AskError> {
    let preferred = askpass.filter(|askpass| askpass.prefer);
    if let Some(askpass) = preferred {
        return ask_program(prompt, askpass).await;
    }
    match (OpenOptions::new().read(true).write(true).open("/dev/tty"), askpass) {
        (Ok(terminal), _) => ask_terminal(prompt, terminal).await,
        (Err(_), Some(askpass)) => ask_program(prompt, askpass).await,
        (Err(_), None) => Err(AskError::NoTerminal),
    }
}

/// The line is read by a thread of its own, left behind if the question is cancelled.
async fn ask_terminal(prompt: &str, mut terminal: File) -> Result<Secret, AskError> {
    let silent = ModeGuard::without_echo(terminal.as_fd()).map_err(AskError::Terminal)?;
    terminal.write_all(prompt.as_bytes()).map_err(AskError::Terminal)?;
    let mut line = OpenLine(terminal.try_clone().ok());
    let (answer, answered) = oneshot::channel();
    std::thread::spawn(move || answer.send(read_line(terminal)));
    let answer = answered.await.unwrap_or_else(|gone| Err(io::Error::other(gone)));
    line.0 = None;
    drop(silent);
    given(answer.map_err(AskError::Terminal)?)
}

/// The question stands on the terminal. Dropped without an answer, whose newline the terminal shows itself, it ends the
/// line.
struct OpenLine(Option<File>);

impl Drop for OpenLine {
    fn drop(&mut self) {
        if let Some(terminal) = &mut self.0 {
            let _ = terminal.write_all(b"\n");
        }
    }
}

async fn ask_program(prompt: &str, askpass: &Askpass) -> Result<Secret, AskError> {
    let failed = |source| AskError::Program { program: askpass.program.display().to_string(), source };
    let mut program = Command::new(&askpass.program);
    program.arg(prompt).stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true);
    let output = program.spawn().map_err(failed)?.wait_with_output().await.map_err(failed)?;
    let answer = Zeroizing::new(output.stdout);
    if output.status.success() { given(first_line(&answer).map_err(failed)?) } else { Err(AskError::Declined) }
}

fn given(secret: Secret) -> Result<Secret, AskError> {
    if secret.is_empty() { Err(AskError::Declined) } else { Ok(secret) }
}

/// A terminal hands out whole lines, so one read is one answer.
fn read_line(mut terminal: impl Read) -> io::Result<Secret> {
    let mut line = Zeroizing::new(vec![0; LONGEST]);
    let length = terminal.read(&mut line)?;
    first_line(&line[..length])
}

fn first_line(bytes: &[u8]) -> io::Result<Secret> {
    let line = bytes.split(|byte| matches!(byte, b'\n' | b'\r')).next().unwrap_or_default();
    let text = str::from_utf8(line).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
    Ok(Zeroizing::new(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// A program that answers with what `script` prints.
    async fn answer(script: &str) -> Result<Secret, AskError> {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("ask");
        std::fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(&program, PermissionsExt::from_mode(0o700)).unwrap();
        ask("Passphrase for `key`: ", Some(&Askpass { program, prefer: true })).await
    }

    #[tokio::test]
    async fn the_program_is_given_the_question_and_its_first_line_is_the_answer() {
        assert_eq!(answer(r#"printf '%s\nmore\n' "<$1>""#).await.unwrap().as_str(), "<Passphrase for `key`: >");
    }

    #[tokio::test]
    async fn a_program_that_fails_or_says_nothing_has_given_no_passphrase() {
        assert!(matches!(answer("echo secret; exit 1").await, Err(AskError::Declined)));
        assert!(matches!(answer("echo").await, Err(AskError::Declined)));
    }

    #[tokio::test]
    async fn a_program_that_is_missing_is_named() {
        let askpass = Askpass { program: "/nowhere/ask".into(), prefer: true };
        let error = ask("?", Some(&askpass)).await.unwrap_err().to_string();
        assert_eq!(error, "`/nowhere/ask` (SSH_ASKPASS) failed");
    }

    #[test]
    fn a_line_ends_at_its_newline_and_may_be_the_last() {
        assert_eq!(read_line(&b"correct horse\n"[..]).unwrap().as_str(), "correct horse");
        assert_eq!(read_line(&b"battery"[..]).unwrap().as_str(), "battery");
        assert!(read_line(&b"\xff\n"[..]).is_err());
    }
}
