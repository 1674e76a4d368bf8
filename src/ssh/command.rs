//! Commands on the remote side, in the manner of `std::process`.

use std::{
    fmt, io,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf},
    sync::{mpsc, oneshot, watch},
};

use super::{
    Lost, Session, SshError,
    channel::{Control, Ends, Order, Outcome},
    pipe::{PipeReader, PipeWriter},
    pty::Pty,
    request::{self, Request},
};

/// A command, or the login shell, that is about to run on the remote side.
#[must_use = "a command does nothing until it is spawned"]
pub struct Command<'a> {
    session: &'a Session,
    program: Program,
    pty: Option<Pty>,
    env: Vec<(String, String)>,
    kill_on_drop: bool,
    output_limit: usize,
}

/// Most bytes of each stream that [`Command::output`] collects, unless told otherwise.
const OUTPUT_LIMIT: usize = 64 << 20;

enum Program {
    Shell,
    Exec(Vec<u8>),
}

impl<'a> Command<'a> {
    pub(super) fn exec(session: &'a Session, command: Vec<u8>) -> Self {
        Self {
            session,
            program: Program::Exec(command),
            pty: None,
            env: Vec::new(),
            kill_on_drop: false,
            output_limit: OUTPUT_LIMIT,
        }
    }

    pub(super) fn shell(session: &'a Session) -> Self {
        Self {
            session,
            program: Program::Shell,
            pty: None,
            env: Vec::new(),
            kill_on_drop: false,
            output_limit: OUTPUT_LIMIT,
        }
    }

    /// Runs it on a pseudo-terminal. Its stderr then arrives as stdout, as on every terminal.
    pub fn pty(mut self, pty: Pty) -> Self {
        self.pty = Some(pty);
        self
    }

    /// Asks for an environment variable. Servers refuse those that their configuration does not list (`AcceptEnv`), and the
    /// command runs without: [`Child::refused_env`] and [`Output::refused_env`] tell.
    pub fn env(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }

    /// Whether the server is asked to kill the command, with its process group, when the [`Child`] and its streams are
    /// dropped or the session is closed while it runs. Default: no. It holds where [`Child::signal`] does, and a pseudo-terminal
    /// holds elsewhere.
    pub fn kill_on_drop(mut self, yes: bool) -> Self {
        self.kill_on_drop = yes;
        self
    }

    /// How many bytes of stdout, and of stderr, [`Command::output`] collects; beyond that it ends with
    /// [`SshError::OutputTooLong`], which holds what came until then, and the command's channel is closed. Default 64 MiB, since
    /// all of it is held in memory and the node decides how much comes. Zero allows no output at all; `usize::MAX` is no limit.
    pub fn output_limit(mut self, bytes: usize) -> Self {
        self.output_limit = bytes;
        self
    }

    /// Opens a channel and starts the command. This takes one round trip: the requests for the terminal, the
    /// environment and the command leave together, and their answers are not waited for. When the server refuses the
    /// terminal or the command, [`Child::wait`] and reads from its streams report [`SshError::RequestRefused`].
    ///
    /// Where the server opens no more channels while others of this session are open, it waits its turn; see
    /// [`SessionBuilder::channel_wait`](super::SessionBuilder::channel_wait). A command, variable or terminal with a NUL byte
    /// in it, or longer than 255 KiB, is refused before anything is opened ([`SshError::NulByte`], [`SshError::TooLong`]).
    /// What the node itself takes may be less: Linux runs no command above 128 KiB.
    ///
    /// Cancel safe: a channel that is open by then is closed.
    pub async fn spawn(self) -> Result<Child, SshError> {
        let Self { session, program, pty, env, kill_on_drop, .. } = self;
        let env = env.into_iter().map(|(name, value)| Request::Env { name, value });
        let program = match program {
            Program::Shell => Request::Shell,
            Program::Exec(command) => Request::Exec(command),
        };
        let requests = pty.map(Request::Pty).into_iter().chain(env).chain([program]).collect();
        Ok(Child::new(session.opening.open(Order { requests, kill_on_drop }).await?))
    }

    /// Runs it with an empty stdin and collects what it prints, up to [`Command::output_limit`].
    ///
    /// Cancelling it closes the channel, as dropping a [`Child`] does.
    pub async fn output(self) -> Result<Output, SshError> {
        let limit = self.output_limit;
        let mut child = self.spawn().await?;
        drop(child.stdin.take());
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        let (out, err) = (child.stdout.take(), child.stderr.take());
        let collecting =
            async { tokio::try_join!(collect(out, limit, &mut stdout), collect(err, limit, &mut stderr)).map(drop) };
        match collecting.await {
            Ok(()) => {}
            Err(Uncollected::Failed(error)) => return Err(error),
            Err(Uncollected::TooMuch) => return Err(SshError::OutputTooLong { limit, stdout, stderr }),
        }
        let status = child.wait().await?;
        Ok(Output { status, stdout, stderr, refused_env: child.refused_env() })
    }

    /// Runs it with an empty stdin and discards what it prints.
    ///
    /// Cancelling it closes the channel, as dropping a [`Child`] does.
    pub async fn status(self) -> Result<ExitStatus, SshError> {
        let mut child = self.spawn().await?;
        drop((child.stdout.take(), child.stderr.take()));
        child.wait().await
    }
}

enum Uncollected {
    TooMuch,
    Failed(SshError),
}

/// Reads to the end, `limit` bytes at most.
async fn collect(stream: Option<impl AsyncRead + Unpin>, limit: usize, all: &mut Vec<u8>) -> Result<(), Uncollected> {
    let Some(stream) = stream else { return Ok(()) };
    let mut stream = stream.take(u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1));
    stream.read_to_end(all).await.map_err(|error| Uncollected::Failed(unwrap_io(error)))?;
    if all.len() > limit {
        all.truncate(limit);
        return Err(Uncollected::TooMuch);
    }
    Ok(())
}

/// The streams of this module fail with nothing but an `SshError`.
fn unwrap_io(error: io::Error) -> SshError {
    error.downcast::<SshError>().unwrap_or(SshError::Lost(Lost::Eof))
}

/// What a finished command printed, and how it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// How it ended.
    pub status: ExitStatus,
    /// What it wrote to stdout.
    pub stdout: Vec<u8>,
    /// What it wrote to stderr.
    pub stderr: Vec<u8>,
    /// The names of the variables that the server did not take.
    pub refused_env: Vec<String>,
}

/// A running command.
///
/// Its channel is closed when it and the streams taken out of it are all dropped. What that does to the command is the
/// server's business. OpenSSH's hangs up its pseudo-terminal, so that it gets a SIGHUP; a command without one only finds its
/// input at the end, and a broken pipe where it writes: one that does neither runs on. [`Command::kill_on_drop`] ends it where
/// the server allows that, [`Command::pty`] elsewhere. Closing or dropping the [`Session`] does not wait for it, and does no
/// more to it.
///
/// A stream that stays inside and is not read stops the command once the buffers between are full, and with it,
/// SSH having one window for both and russh one loop for all channels, every other stream of the session. Drop a stream that
/// is not wanted: what arrives for it is then discarded.
#[derive(Debug)]
pub struct Child {
    /// Bytes for the command. Shutting it down or dropping it is the command's end of file.
    pub stdin: Option<ChildStdin>,
    /// Bytes from the command.
    pub stdout: Option<ChildStdout>,
    /// Bytes from the command's stderr; empty with a pseudo-terminal.
    pub stderr: Option<ChildStderr>,
    control: mpsc::Sender<Control>,
    outcome: watch::Receiver<Option<Outcome>>,
    refused_env: Arc<Mutex<Vec<String>>>,
}

impl Child {
    fn new(ends: Ends) -> Self {
        let Ends { stdin, stdout, stderr, control, outcome, refused_env } = ends;
        Self {
            stdin: Some(ChildStdin { pipe: stdin, _channel: control.clone() }),
            stdout: Some(ChildStdout { pipe: stdout, _channel: control.clone() }),
            stderr: Some(ChildStderr { pipe: stderr, _channel: control.clone() }),
            control,
            outcome,
            refused_env,
        }
    }

    /// Waits until the server has said how the command ended. What it printed may still be waiting in its streams.
    ///
    /// Drops `stdin` if it is still here, so that a command that reads to the end of file ends. A connection that is lost
    /// before the status arrives is an error, never a status.
    ///
    /// Cancel safe, and may be called again.
    pub async fn wait(&mut self) -> Result<ExitStatus, SshError> {
        drop(self.stdin.take());
        let outcome = self.outcome.wait_for(Option::is_some).await.map_or(None, |outcome| outcome.clone());
        match outcome {
            Some(Outcome::Exit(status)) => Ok(status),
            Some(other) => Err(other.into()),
            None => Err(Lost::Closed.into()),
        }
    }

    /// Tells the remote terminal its new size. Without effect once the channel is closed.
    ///
    /// Cancelling it may leave the size unsent.
    pub async fn resize(&self, cols: u32, rows: u32, width_px: u32, height_px: u32) {
        let _ = self.control.send(Control::Resize { cols, rows, width_px, height_px }).await;
    }

    /// Sends a signal, named as in `TERM` or `INT`, ahead of whatever is asked of the session after this returns.
    /// It goes to the command's process group, and nothing comes back: servers may ignore it. OpenSSH passes on ABRT, ALRM, FPE,
    /// HUP, ILL, INT, KILL, PIPE, QUIT, SEGV, TERM, USR1 and USR2 since 8.1, unless the user is root, or the command one that
    /// the server's configuration or the key forces.
    ///
    /// Fails with nothing but a name that cannot be sent: one with a NUL byte, or longer than 255 KiB. Cancelling it may
    /// leave the signal unsent.
    pub async fn signal(&self, name: &str) -> Result<(), SshError> {
        request::check("the signal's name", name.as_bytes())?;
        let (sent, is_sent) = oneshot::channel();
        if self.control.send(Control::Signal { name: name.to_owned(), sent }).await.is_ok() {
            let _ = is_sent.await;
        }
        Ok(())
    }

    /// The names of the variables that the server did not take, in the order in which they were asked for. All of them are
    /// known once the command has printed something or [`Child::wait`] has returned.
    pub fn refused_env(&self) -> Vec<String> {
        self.refused_env.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The stdin of a [`Child`]. What is written counts as taken when it is queued for the connection; a queue of 256 KiB
/// and the server's window hold back a writer that is too fast.
#[derive(Debug)]
pub struct ChildStdin {
    pipe: PipeWriter,
    _channel: mpsc::Sender<Control>,
}

/// The stdout of a [`Child`]. It ends with an error unless the command itself ended it.
#[derive(Debug)]
pub struct ChildStdout {
    pipe: PipeReader,
    _channel: mpsc::Sender<Control>,
}

/// The stderr of a [`Child`]. It ends with an error unless the command itself ended it.
#[derive(Debug)]
pub struct ChildStderr {
    pipe: PipeReader,
    _channel: mpsc::Sender<Control>,
}

/// A subsystem of the server, such as `sftp`, as a stream both ways.
///
/// When the server has no such subsystem, the first read fails with [`SshError::RequestRefused`] inside. Shutting it
/// down is the subsystem's end of file; dropping it closes the channel.
#[derive(Debug)]
pub struct Subsystem {
    stdin: PipeWriter,
    stdout: PipeReader,
    _channel: mpsc::Sender<Control>,
}

impl Subsystem {
    pub(super) async fn open(session: &Session, name: &str) -> Result<Self, SshError> {
        let requests = vec![Request::Subsystem(name.to_owned())];
        let order = Order { requests, kill_on_drop: false };
        let Ends { stdin, stdout, control, .. } = session.opening.open(order).await?;
        Ok(Self { stdin, stdout, _channel: control })
    }
}

macro_rules! delegate {
    (read $type:ty, $field:ident) => {
        impl AsyncRead for $type {
            fn poll_read(
                mut self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                buf: &mut ReadBuf<'_>,
            ) -> Poll<io::Result<()>> {
                Pin::new(&mut self.$field).poll_read(cx, buf)
            }
        }
    };
    (write $type:ty, $field:ident) => {
        impl AsyncWrite for $type {
            fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
                Pin::new(&mut self.$field).poll_write(cx, buf)
            }

            fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                Pin::new(&mut self.$field).poll_flush(cx)
            }

            fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                Pin::new(&mut self.$field).poll_shutdown(cx)
            }
        }
    };
}

delegate!(write ChildStdin, pipe);
delegate!(read ChildStdout, pipe);
delegate!(read ChildStderr, pipe);
delegate!(write Subsystem, stdin);
delegate!(read Subsystem, stdout);

/// How a command ended: with a code of its own, or by a signal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExitStatus(Ending);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Ending {
    Exited(u32),
    Killed { signal: String, core_dumped: bool, message: String },
}

impl ExitStatus {
    pub(super) fn exited(code: u32) -> Self {
        Self(Ending::Exited(code))
    }

    pub(super) fn killed(signal: String, core_dumped: bool, message: String) -> Self {
        Self(Ending::Killed { signal, core_dumped, message })
    }

    /// Whether the command exited with code 0.
    pub fn success(&self) -> bool {
        self.code() == Some(0)
    }

    /// The command's exit code, unless a signal ended it.
    pub fn code(&self) -> Option<u32> {
        match self.0 {
            Ending::Exited(code) => Some(code),
            Ending::Killed { .. } => None,
        }
    }

    /// The signal that ended the command, without `SIG`: `TERM`, `KILL`.
    pub fn signal(&self) -> Option<&str> {
        match &self.0 {
            Ending::Exited(_) => None,
            Ending::Killed { signal, .. } => Some(signal),
        }
    }

    /// Whether the command left a core dump.
    pub fn core_dumped(&self) -> bool {
        matches!(self.0, Ending::Killed { core_dumped: true, .. })
    }

    /// The server's words about a signal, mostly empty. Text from the network: do not print it to a terminal
    /// unfiltered.
    pub fn message(&self) -> Option<&str> {
        match &self.0 {
            Ending::Killed { message, .. } if !message.is_empty() => Some(message),
            _ => None,
        }
    }
}

impl fmt::Display for ExitStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Ending::Exited(code) => write!(f, "exit code {code}"),
            Ending::Killed { signal, core_dumped: false, .. } => write!(f, "killed by SIG{signal}"),
            Ending::Killed { signal, core_dumped: true, .. } => write!(f, "killed by SIG{signal}, core dumped"),
        }
    }
}
