//! One command or shell: its input, its output and the terminal around them.

use std::future::pending;
use std::io;
use std::pin::pin;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, SimplexStream, WriteHalf};

use super::escape::{self, Escapes, Event};
use super::report::{self, CliError};
use super::signals::{EndSignal, TerminalChanges};
use super::stdio::{CHUNK, Chunks, Gone, Output, stdin};
use super::terminal;
use crate::ssh::{Child, ChildStdin, ExitStatus, SshError};

/// What may be typed while the connection takes nothing, in bytes. Until then `~.` is heard.
const TYPE_AHEAD: usize = 1 << 20;

/// Until the process is taken to be stopped for real: a process without job control is not, and goes on.
const STOP_TIMEOUT: Duration = Duration::from_millis(100);

/// Where input comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Input {
    /// Nowhere: it has ended.
    None,
    /// Standard input, as it is.
    Stream,
    /// The terminal in raw mode: escapes are looked for, and its size is followed.
    Keyboard,
}

/// How it ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// The remote side said how the command ended.
    Exited(ExitStatus),
    /// The user typed `~.`.
    Disconnected,
    /// Nobody reads standard output any more.
    OutputClosed,
    /// A signal to this process asked for it.
    Signalled(EndSignal),
}

/// Carries bytes both ways until the command has ended and all that it printed is written.
///
/// Cancelling it leaves the command to `child`, whose drop closes its channel.
pub(crate) async fn converse(child: &mut Child, input: Input) -> Result<Ending, CliError> {
    let (stdout, stderr) = (Output::stdout(), Output::stderr());
    let mut typed = pin!(feed(child.stdin.take(), input));
    let printed = {
        let (out, err) = (child.stdout.take(), child.stderr.take());
        let printed = async { tokio::try_join!(forward(out, &stdout), forward_or_discard(err, &stderr)) };
        tokio::select! {
            printed = printed => printed,
            () = &mut typed => return Ok(Ending::Disconnected),
            () = follow_terminal(child, input) => unreachable!("it follows for ever"),
        }
    };
    let written = async { tokio::join!(stdout.finish(), stderr.finish()).0 };
    let ended = async {
        let written = written.await;
        if printed.is_err() || written.is_err() {
            return output_failed(written);
        }
        Ok(Ending::Exited(child.wait().await.map_err(lost)?))
    };
    tokio::select! {
        ended = ended => ended,
        () = typed => Ok(Ending::Disconnected),
    }
}

fn lost(error: SshError) -> CliError {
    CliError::Client(error.into())
}

/// A reader that goes away is no mistake: `… | head` does it.
fn output_failed(written: io::Result<()>) -> Result<Ending, CliError> {
    match written {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(CliError::Output(error)),
        _ => Ok(Ending::OutputClosed),
    }
}

/// Copies until the end of `from`. That a connection is lost shows there as well, but what is said about it is what the
/// command's status says.
async fn forward(from: Option<impl AsyncRead + Unpin>, to: &Output) -> Result<(), Gone> {
    let Some(mut from) = from else { return Ok(()) };
    loop {
        let mut chunk = Vec::with_capacity(CHUNK);
        match from.read_buf(&mut chunk).await {
            Ok(0) | Err(_) => return Ok(()),
            Ok(_) => to.write(chunk.into()).await?,
        }
    }
}

/// The command goes on when only its complaints find no reader.
async fn forward_or_discard(mut from: Option<impl AsyncRead + Unpin>, to: &Output) -> Result<(), Gone> {
    if forward(from.as_mut(), to).await.is_err()
        && let Some(mut from) = from
    {
        let _ = tokio::io::copy(&mut from, &mut tokio::io::sink()).await;
    }
    Ok(())
}

/// Gives the command its input. Returns when the user asks to disconnect, and otherwise never.
async fn feed(to: Option<ChildStdin>, input: Input) {
    match (to, input) {
        (Some(to), Input::Stream) => feed_stream(to, stdin()).await,
        (Some(to), Input::Keyboard) => return feed_keyboard(to, stdin()).await,
        _ => {}
    }
    pending::<()>().await;
}

async fn feed_stream(mut to: ChildStdin, mut chunks: Chunks) {
    loop {
        match chunks.recv().await {
            Some(Ok(chunk)) if to.write_all(&chunk).await.is_err() => return,
            Some(Ok(_)) => {}
            Some(Err(error)) => break report::note(&format!("cannot read standard input: {error}")),
            None => break,
        }
    }
    let _ = to.shutdown().await;
}

/// Listening and sending go side by side, so that `~.` is heard while the connection takes nothing.
async fn feed_keyboard(mut to: ChildStdin, chunks: Chunks) {
    let (mut typed, keys) = tokio::io::simplex(TYPE_AHEAD);
    let send = async {
        let _ = tokio::io::copy(&mut typed, &mut to).await;
        let _ = to.shutdown().await;
        pending::<()>().await;
    };
    tokio::select! {
        () = listen(chunks, keys) => {}
        () = send => {}
    }
}

/// Returns at `~.`.
async fn listen(mut chunks: Chunks, mut keys: WriteHalf<SimplexStream>) {
    let mut escapes = Escapes::new();
    while let Some(Ok(chunk)) = chunks.recv().await {
        escapes.handle_input(&chunk);
        while let Some(event) = escapes.poll_event() {
            match event {
                Event::Send(bytes) => drop(keys.write_all(&bytes).await),
                Event::Help => report::verbatim(escape::HELP),
                Event::Suspend => suspend().await,
                Event::Disconnect => return,
            }
        }
    }
    let _ = keys.shutdown().await;
    pending::<()>().await;
}

/// Stops the process. Its modes come back with [`follow_terminal`] when it goes on, or at once if it was not stopped.
async fn suspend() {
    let Ok(mut changes) = TerminalChanges::catch() else { return };
    if terminal::stop().is_ok() {
        let _ = tokio::time::timeout(STOP_TIMEOUT, changes.recv()).await;
    }
    terminal::reapply();
}

/// Tells the remote terminal each new size, and keeps this one raw across stops.
async fn follow_terminal(child: &Child, input: Input) {
    let changes = (input == Input::Keyboard).then(TerminalChanges::catch);
    if let Some(Ok(mut changes)) = changes {
        loop {
            changes.recv().await;
            terminal::reapply();
            let size = terminal::size(super::stdio::input());
            let (cols, rows) = (size.ws_col.into(), size.ws_row.into());
            child.resize(cols, rows, size.ws_xpixel.into(), size.ws_ypixel.into()).await;
        }
    }
    pending::<()>().await;
}
