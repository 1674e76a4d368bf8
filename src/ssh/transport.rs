//! The caller's stream with two additions: the error it reported is kept as it was, and it can be cut off.

use std::{
    error::Error,
    fmt, io,
    pin::Pin,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
};

use futures_util::task::AtomicWaker;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

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
#[derive(Debug, Default)]
pub(super) struct TransportState {
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
    state: Arc<TransportState>,
}

impl<S> Transport<S> {
    pub(super) fn new(stream: S) -> (Self, Arc<TransportState>) {
        let state = Arc::new(TransportState::default());
        (Self { stream, state: Arc::clone(&state) }, state)
    }
}

fn aborted<T>() -> Poll<io::Result<T>> {
    Poll::Ready(Err(io::Error::new(io::ErrorKind::ConnectionAborted, "the session was given up")))
}

impl<S: AsyncRead + Unpin> AsyncRead for Transport<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.state.reader.register(cx.waker());
        if self.state.is_aborted() {
            return aborted();
        }
        Pin::new(&mut self.stream).poll_read(cx, buf).map_err(|error| self.state.keep(error))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Transport<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.state.writer.register(cx.waker());
        if self.state.is_aborted() {
            return aborted();
        }
        Pin::new(&mut self.stream).poll_write(cx, buf).map_err(|error| self.state.keep(error))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.state.writer.register(cx.waker());
        if self.state.is_aborted() {
            return aborted();
        }
        Pin::new(&mut self.stream).poll_flush(cx).map_err(|error| self.state.keep(error))
    }

    /// Never fails: russh would drop its own, more telling, error for the one of the shutdown that follows it.
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.state.writer.register(cx.waker());
        if self.state.is_aborted() {
            return Poll::Ready(Ok(()));
        }
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
}
