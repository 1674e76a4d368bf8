//! Sessions of the SSH client, and a stream to look over its shoulder.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use ssmssh::ssh::{Session, SessionBuilder, SshError};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

use super::sshd::Sshd;

/// Nothing here takes a second; whatever takes this long hangs.
const GENEROUS: Duration = Duration::from_mins(1);

/// The result of `work`, which must not hang.
pub(crate) async fn within<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(GENEROUS, work).await.expect("it hangs")
}

/// What comes of connecting to the server.
pub(crate) async fn connect(sshd: &Sshd, builder: SessionBuilder) -> Result<Session, SshError> {
    let stream = TcpStream::connect(sshd.address()).await.expect("it listens");
    within(builder.connect(stream)).await
}

/// A session with the server.
pub(crate) async fn session(sshd: &Sshd) -> Session {
    connect(sshd, sshd.client()).await.expect("let in")
}

/// A stream that counts how often its reader waits for an answer to what was written, and that can be broken.
pub(crate) struct Watched<E> {
    stream: TcpStream,
    pub(crate) waits: Arc<AtomicUsize>,
    turn: Turn,
    pub(crate) broken: Arc<AtomicBool>,
    error: fn() -> E,
}

#[derive(Clone, Copy)]
enum Turn {
    Wrote,
    Waits,
    Read,
}

impl<E: Into<Box<dyn std::error::Error + Send + Sync>>> Watched<E> {
    pub(crate) fn new(stream: TcpStream, error: fn() -> E) -> Self {
        Self { stream, waits: Arc::default(), turn: Turn::Read, broken: Arc::default(), error }
    }

    fn check(&self) -> io::Result<()> {
        if self.broken.load(Ordering::Acquire) {
            return Err(io::Error::new(io::ErrorKind::TimedOut, (self.error)()));
        }
        Ok(())
    }
}

impl<E: Into<Box<dyn std::error::Error + Send + Sync>>> AsyncRead for Watched<E> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.check()?;
        let result = Pin::new(&mut self.stream).poll_read(cx, buf);
        self.turn = match (self.turn, &result) {
            (Turn::Wrote, Poll::Pending) => Turn::Waits,
            (Turn::Waits, Poll::Ready(_)) => {
                self.waits.fetch_add(1, Ordering::AcqRel);
                Turn::Read
            }
            (_, Poll::Ready(_)) => Turn::Read,
            (turn, Poll::Pending) => turn,
        };
        result
    }
}

impl<E: Into<Box<dyn std::error::Error + Send + Sync>>> AsyncWrite for Watched<E> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.check()?;
        self.turn = Turn::Wrote;
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
