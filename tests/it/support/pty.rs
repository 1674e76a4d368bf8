//! A person in front of a terminal: types, looks at the screen, changes the size of the window.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex};

use pty_process::{OwnedReadPty, OwnedWritePty, Size};
use rustix::process::Signal;
use rustix::termios::tcgetattr;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::Child;
use tokio::sync::watch;

use super::cli::{Cli, LIMIT, kill, status_in_shell};

const ROWS: u16 = 30;
const COLUMNS: u16 = 100;

/// A command on a pseudo-terminal of its own. Dropping it kills the command.
pub(crate) struct Terminal {
    keyboard: OwnedWritePty,
    /// The other end, kept open so that it can be looked at when the command is gone.
    line: OwnedFd,
    found: String,
    child: Child,
    screen: Arc<Mutex<vt100::Parser>>,
    transcript: Arc<Mutex<Vec<u8>>>,
    changed: watch::Receiver<()>,
    _home: TempDir,
}

impl Terminal {
    pub(crate) fn start(cli: Cli) -> Self {
        let (command, home) = cli.into_parts();
        let (pty, pts) = pty_process::open().expect("a pseudo-terminal");
        pty.resize(Size::new(ROWS, COLUMNS)).expect("resized");
        let line = pts.as_fd().try_clone_to_owned().expect("cloned");
        let found = modes(&line);
        let child = pty_process::Command::from(command).spawn(pts).expect("started");
        let (printed, keyboard) = pty.into_split();
        let screen = Arc::new(Mutex::new(vt100::Parser::new(ROWS, COLUMNS, 1000)));
        let (change, changed) = watch::channel(());
        let transcript = Arc::<Mutex<Vec<u8>>>::default();
        tokio::spawn(show(printed, Arc::clone(&screen), Arc::clone(&transcript), change));
        Self { keyboard, line, found, child, screen, transcript, changed, _home: home }
    }

    pub(crate) async fn type_keys(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).await.expect("typed");
    }

    pub(crate) fn resize(&mut self, columns: u16, rows: u16) {
        self.keyboard.resize(Size::new(rows, columns)).expect("resized");
        self.screen.lock().expect("unpoisoned").screen_mut().set_size(rows, columns);
    }

    /// Waits until `text` is on the screen. What is typed is on it too, so look for what only an answer contains.
    pub(crate) async fn see(&mut self, text: &str) {
        self.until(text, |screen| screen.contents().contains(text)).await;
    }

    /// Waits until the screen is as `condition` wants it.
    pub(crate) async fn until(&mut self, what: &str, condition: impl Fn(&vt100::Screen) -> bool) {
        let screen = Arc::clone(&self.screen);
        let holds = async {
            while !condition(screen.lock().expect("unpoisoned").screen()) {
                if self.changed.changed().await.is_err() {
                    break;
                }
            }
            condition(screen.lock().expect("unpoisoned").screen())
        };
        let holds = tokio::time::timeout(LIMIT, holds).await.unwrap_or(false);
        assert!(holds, "never on the screen: {what}\n{}", self.contents());
    }

    pub(crate) fn contents(&self) -> String {
        self.screen.lock().expect("unpoisoned").screen().contents()
    }

    /// Everything that was printed so far, as it came.
    pub(crate) fn transcript(&self) -> String {
        String::from_utf8_lossy(&self.transcript.lock().expect("unpoisoned")).into_owned()
    }

    /// Waits until `text` has been printed, on the screen still or not.
    pub(crate) async fn print(&mut self, text: &str) {
        let printed = async {
            while !self.transcript().contains(text) {
                self.changed.changed().await.expect("the terminal is there");
            }
        };
        tokio::time::timeout(LIMIT, printed).await.unwrap_or_else(|_| panic!("never printed: {text}"));
    }

    /// Waits until a shell on the other side answers.
    pub(crate) async fn log_in(&mut self) {
        self.type_keys("echo ready-$((40 + 2))\r").await;
        self.see("ready-42").await;
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(&self.child, signal);
    }

    /// The exit status as a shell shows it, once the command has ended.
    pub(crate) async fn wait(&mut self) -> i32 {
        let status = tokio::time::timeout(LIMIT, self.child.wait()).await;
        let status = status.unwrap_or_else(|_| panic!("it does not end:\n{}", self.contents()));
        status_in_shell(status.expect("waited")).expect("it has ended")
    }

    /// Whether the terminal has the modes it had at first.
    pub(crate) fn is_as_found(&self) -> bool {
        modes(&self.line) == self.found
    }
}

fn modes(line: &OwnedFd) -> String {
    format!("{:?}", tcgetattr(line).expect("modes"))
}

async fn show(
    mut printed: OwnedReadPty,
    screen: Arc<Mutex<vt100::Parser>>,
    transcript: Arc<Mutex<Vec<u8>>>,
    change: watch::Sender<()>,
) {
    let mut buffer = [0; 4096];
    while let Ok(length @ 1..) = printed.read(&mut buffer).await {
        screen.lock().expect("unpoisoned").process(&buffer[..length]);
        transcript.lock().expect("unpoisoned").extend_from_slice(&buffer[..length]);
        change.send_replace(());
    }
}
