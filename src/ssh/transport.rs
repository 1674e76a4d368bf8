//! The caller's stream with three additions: the error it reported is kept as it was, it can be cut off, and a write
//! never waits.
//!
//! russh's loop neither reads nor lets another channel send while a write waits. So what the stream does not take is kept
//! here and handed on whenever russh reads, which it does for as long as it has nothing else to do. How much that can be
//! is the [`Backlog`]'s business.

use std::{
    error::Error,
    fmt, io,
    pin::Pin,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
    time::Instant,
};

use bytes::{Buf, BytesMut};

use futures_util::task::AtomicWaker;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::backlog::Backlog;

/// Bytes kept for the stream at most, where what russh sends by itself adds up beside what the channels may.
const MAX_UNSENT: usize = 1 << 20;

/// What the stream under the session reported.
///
/// `source` is that error itself, an [`io::Error`], whose `get_ref` is whatever the stream put in.
#[derive(Debug, Clone)]
pub struct TransportError(pub(super) Arc<io::Error>);

impl TransportError {
    /// The stream's own error.
    pub fn as_io(&self) -> &io::Error {
        &self.0
    }
}

impl fmt::Display for TransportError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl Error for TransportError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&*self.0)
    }
}

/// The part of [`Transport`] that outlives its move into the connection's task.
#[derive(Debug)]
pub(super) struct TransportState {
    pub(super) backlog: Backlog,
    error: OnceLock<TransportError>,
    aborted: AtomicBool,
    reader: AtomicWaker,
    writer: AtomicWaker,
}

impl TransportState {
    /// The first error of the stream.
    pub(super) fn error(&self) -> Option<TransportError> {
        self.error.get().cloned()
    }

    /// Makes every operation fail, so that whoever holds the stream lets go of it.
    pub(super) fn abort(&self) {
        self.aborted.store(true, Ordering::Release);
        self.reader.wake();
        self.writer.wake();
    }

    fn is_aborted(&self) -> bool {
        self.aborted.load(Ordering::Acquire)
    }

    /// Keeps the error and gives a stand-in of the same kind to the SSH implementation.
    fn keep(&self, error: io::Error) -> io::Error {
        let kind = error.kind();
        let error = TransportError(Arc::new(error));
        io::Error::new(kind, self.error.get_or_init(|| error).clone())
    }
}

/// The stream as the SSH implementation sees it.
pub(super) struct Transport<S> {
    stream: S,
    /// What the stream is still to take.
    unsent: BytesMut,
    /// The stream is still to be flushed.
    needs_flush: bool,
    /// The stream refused what is no longer in `unsent`. Whoever writes next is told; what can be read is read first.
    refused: Option<io::Error>,
    state: Arc<TransportState>,
}

impl<S> Transport<S> {
    pub(super) fn new(stream: S) -> (Self, Arc<TransportState>) {
        let state = Arc::new(TransportState {
            backlog: Backlog::new(Instant::now()),
            error: OnceLock::new(),
            aborted: AtomicBool::new(false),
            reader: AtomicWaker::new(),
            writer: AtomicWaker::new(),
        });
        let kept = Arc::clone(&state);
        (Self { stream, unsent: BytesMut::new(), needs_flush: false, refused: None, state: kept }, state)
    }
}

impl<S: AsyncWrite + Unpin> Transport<S> {
    /// Hands on what is kept for the stream.
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while !self.unsent.is_empty() {
            match ready!(Pin::new(&mut self.stream).poll_write(cx, &self.unsent)) {
                Ok(taken @ 1..) => {
                    self.unsent.advance(taken);
                    self.state.backlog.taken(taken, self.unsent.len(), Instant::now());
                }
                Ok(0) => self.refuse(io::ErrorKind::WriteZero.into()),
                Err(error) => self.refuse(error),
            }
        }
        if self.needs_flush {
            let flushed = ready!(Pin::new(&mut self.stream).poll_flush(cx));
            self.needs_flush = false;
            flushed.unwrap_or_else(|error| self.refuse(error));
        }
        Poll::Ready(())
    }

    fn refuse(&mut self, error: io::Error) {
        self.refused = Some(self.state.keep(error));
        self.unsent.clear();
        self.state.backlog.flushed(0);
    }

    fn heed_refusal(&mut self) -> io::Result<()> {
        self.refused.take().map_or(Ok(()), Err)
    }
}

fn aborted<T>() -> Poll<io::Result<T>> {
    Poll::Ready(Err(io::Error::new(io::ErrorKind::ConnectionAborted, "the session was given up")))
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Transport<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.state.reader.register(cx.waker());
        if self.state.is_aborted() {
            return aborted();
        }
        // Where the stream takes no more, it wakes this reader as soon as it does.
        let _ = self.poll_drain(cx);
        Pin::new(&mut self.stream).poll_read(cx, buf).map_err(|error| self.state.keep(error))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Transport<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.state.writer.register(cx.waker());
        if self.state.is_aborted() {
            return aborted();
        }
        let drained = self.poll_drain(cx);
        self.heed_refusal()?;
        if drained.is_ready()
            && let Poll::Ready(taken) = Pin::new(&mut self.stream).poll_write(cx, buf)
        {
            let taken = taken.map_err(|error| self.state.keep(error))?;
            self.state.backlog.taken(taken, 0, Instant::now());
            return Poll::Ready(Ok(taken));
        }
        if self.unsent.len() >= MAX_UNSENT {
            return Poll::Pending;
        }
        self.unsent.extend_from_slice(buf);
        Poll::Ready(Ok(buf.len()))
    }

    /// Does not wait for the stream to take what is kept for it.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.state.writer.register(cx.waker());
        if self.state.is_aborted() {
            return aborted();
        }
        self.needs_flush = true;
        let _ = self.poll_drain(cx);
        self.heed_refusal()?;
        self.state.backlog.flushed(self.unsent.len());
        Poll::Ready(Ok(()))
    }

    /// Never fails: russh would drop its own, more telling, error for the one of the shutdown that follows it.
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.state.writer.register(cx.waker());
        if self.state.is_aborted() {
            return Poll::Ready(Ok(()));
        }
        ready!(self.poll_drain(cx));
        Pin::new(&mut self.stream).poll_shutdown(cx).map(|result| {
            if let Err(error) = result {
                self.state.keep(error);
            }
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[derive(Debug, PartialEq, thiserror::Error)]
    #[error("the tunnel fell in")]
    struct TunnelError;

    struct Broken;

    impl AsyncWrite for Broken {
        fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, _: &[u8]) -> Poll<io::Result<usize>> {
            Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, TunnelError)))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    impl AsyncRead for Broken {
        fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, TunnelError)))
        }
    }

    #[tokio::test]
    async fn the_error_of_the_stream_is_kept_as_it_was() {
        let (mut transport, state) = Transport::new(Broken);
        let stand_in = transport.read_u8().await.expect_err("broken");
        assert_eq!(stand_in.kind(), io::ErrorKind::TimedOut);
        let kept = state.error().expect("recorded");
        let inner = kept.as_io().get_ref().and_then(|inner| inner.downcast_ref::<TunnelError>());
        assert_eq!(inner, Some(&TunnelError));
    }

    #[tokio::test]
    async fn an_aborted_stream_fails_who_waits_on_it() {
        let (near, _far) = tokio::io::duplex(16);
        let (mut transport, state) = Transport::new(near);
        let mut read = std::pin::pin!(transport.read_u8());
        assert!(futures_util::poll!(&mut read).is_pending());
        state.abort();
        assert_eq!(read.await.expect_err("aborted").kind(), io::ErrorKind::ConnectionAborted);
        assert!(transport.write_u8(0).await.is_err());
        assert!(state.error().is_none(), "giving up is not an error of the stream");
    }

    #[tokio::test]
    async fn a_write_that_the_stream_does_not_take_waits_for_nobody_and_is_handed_on_by_reading() {
        let (near, mut far) = tokio::io::duplex(4);
        let (mut transport, _) = Transport::new(near);
        transport.write_all(b"twelve bytes").await.expect("kept");
        transport.flush().await.expect("no wait");
        let mut got = [0; 12];
        let reading = async {
            far.read_exact(&mut got).await.expect("all of it");
            far.write_u8(7).await.expect("room");
        };
        let (answer, ()) = tokio::join!(transport.read_u8(), reading);
        assert_eq!(answer.expect("an answer"), 7);
        assert_eq!(&got, b"twelve bytes");
    }

    #[tokio::test]
    async fn a_shutdown_hands_on_what_was_kept_first() {
        let (near, mut far) = tokio::io::duplex(4);
        let (mut transport, _) = Transport::new(near);
        transport.write_all(b"twelve bytes").await.expect("kept");
        let mut got = Vec::new();
        let (shut, read) = tokio::join!(transport.shutdown(), far.read_to_end(&mut got));
        shut.expect("an end");
        assert_eq!((read.expect("all of it"), &got[..]), (12, &b"twelve bytes"[..]));
    }

    #[tokio::test]
    async fn what_can_be_read_is_read_although_the_stream_takes_no_more_and_the_next_write_is_told() {
        let (near, mut far) = tokio::io::duplex(4);
        far.write_all(b"end").await.expect("room");
        let (mut transport, _) = Transport::new(near);
        transport.write_all(b"twelve bytes").await.expect("kept");
        drop(far);
        let mut got = Vec::new();
        transport.read_to_end(&mut got).await.expect("the rest");
        assert_eq!(got, b"end");
        assert_eq!(transport.write_u8(0).await.expect_err("broken").kind(), io::ErrorKind::BrokenPipe);
    }
}
