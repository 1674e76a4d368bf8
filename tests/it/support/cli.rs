//! The commands as a user starts them, in an environment in which nothing of the tests' own user can be seen.

use std::ffi::OsStr;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use ssm_lab::{Lab, Pace};
use tempfile::TempDir;
use tokio::io::AsyncWriteExt;
use tokio::process::{Child, Command};

/// Within this everything in these tests happens, on however slow a machine. Reaching it is a failure.
pub(crate) const LIMIT: Duration = Duration::from_mins(1);

/// A lab that is as fast as it can be.
pub(crate) async fn fast_lab() -> Lab {
    Lab::builder().pace(Pace::Ideal).start().await.expect("a lab")
}

/// A command that is about to be started.
pub(crate) struct Cli {
    command: Command,
    home: TempDir,
}

impl Cli {
    /// `ssmssh` with neither AWS settings nor keys.
    pub(crate) fn ssmssh() -> Self {
        Self::program(env!("CARGO_BIN_EXE_ssmssh"))
    }

    /// Any program, such as the shell that `ssmssh` is started from.
    pub(crate) fn program(program: &str) -> Self {
        let home = tempfile::tempdir().expect("a home directory");
        let mut command = Command::new(program);
        command.env_clear().kill_on_drop(true);
        command.env("HOME", home.path()).env("PATH", "/usr/bin:/bin").env("TERM", "xterm-256color");
        Self { command, home }
    }

    /// `ssmssh` with the environment of a lab.
    pub(crate) fn in_lab(lab: &Lab) -> Self {
        Self::ssmssh().with_lab(lab)
    }

    pub(crate) fn with_lab(mut self, lab: &Lab) -> Self {
        self.command.envs(lab.env());
        self
    }

    pub(crate) fn args<S: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.command.args(args);
        self
    }

    pub(crate) fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    pub(crate) fn env_remove(mut self, name: &str) -> Self {
        self.command.env_remove(name);
        self
    }

    /// The home directory that it sees.
    pub(crate) fn home(&self) -> &Path {
        self.home.path()
    }

    /// Runs it without input.
    pub(crate) async fn run(self) -> Ran {
        self.run_with(b"").await
    }

    /// Runs it with `input` on a pipe.
    pub(crate) async fn run_with(self, input: &[u8]) -> Ran {
        let mut running = self.spawn();
        let mut stdin = running.child.stdin.take().expect("piped");
        let feed = async {
            // Whoever does not read to the end has a reason.
            let _ = stdin.write_all(input).await;
            drop(stdin);
        };
        let (ran, ()) = tokio::join!(running.finish(), feed);
        ran
    }

    /// Starts it with pipes.
    pub(crate) fn spawn(mut self) -> Running {
        self.command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Running { child: self.command.spawn().expect("started"), _home: self.home }
    }

    /// The parts, for starting it in another way.
    pub(crate) fn into_parts(self) -> (Command, TempDir) {
        (self.command, self.home)
    }
}

/// A command that was started. Dropping it kills it.
pub(crate) struct Running {
    pub(crate) child: Child,
    _home: TempDir,
}

impl Running {
    /// Waits for its end.
    pub(crate) async fn finish(self) -> Ran {
        let output =
            tokio::time::timeout(LIMIT, self.child.wait_with_output()).await.expect("it ends").expect("waited");
        let stderr = String::from_utf8(output.stderr).expect("UTF-8 on stderr");
        Ran { code: status_in_shell(output.status), stdout: output.stdout, stderr }
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(&self.child, signal);
    }
}

/// Sends a signal to a process that was not waited for yet.
pub(crate) fn kill(child: &Child, signal: Signal) {
    let id = child.id().and_then(|id| Pid::from_raw(id.try_into().ok()?)).expect("a running process");
    kill_process(id, signal).expect("signalled");
}

/// The exit status as a shell shows it: 128 plus the number of a signal that ended the command.
pub(crate) fn status_in_shell(status: ExitStatus) -> Option<i32> {
    status.code().or_else(|| status.signal().map(|signal| 128 + signal))
}

/// What a command left behind.
#[derive(Debug)]
pub(crate) struct Ran {
    /// As a shell shows it.
    pub(crate) code: Option<i32>,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
}

impl Ran {
    pub(crate) fn out(&self) -> &str {
        str::from_utf8(&self.stdout).expect("UTF-8 on stdout")
    }

    /// Everything, for a snapshot, `secrets` of this run replaced by their names.
    pub(crate) fn shown(&self, secrets: &[(&str, &str)]) -> String {
        let code = self.code.map_or("signal".to_owned(), |code| code.to_string());
        let text = format!("code {code}\n--- stdout\n{}--- stderr\n{}", self.out(), self.stderr);
        secrets.iter().fold(text, |text, (secret, name)| text.replace(secret, name))
    }
}

/// Bytes in which nothing repeats: a swap or a gap cannot hide.
pub(crate) fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    (0..length).map(|_| next()).collect()
}

/// Waits for something that happens in another process or task.
pub(crate) async fn eventually(what: &str, condition: impl Fn() -> bool) {
    let happens = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(LIMIT, happens).await.unwrap_or_else(|_| panic!("in {LIMIT:?} never: {what}"));
}

/// Waits until no SSM session is open. The node tells the service a moment after it has told the client.
pub(crate) async fn all_sessions_over(lab: &Lab) {
    eventually("all SSM sessions are over", || lab.open_sessions() == 0).await;
}
