//! A bounded byte pipe inside the process: whole chunks go in without a copy, bytes come out, and the end is either
//! clean or a reason.

use std::{
    collections::VecDeque,
    future::poll_fn,
    io,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker, ready},
};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{SshError, channel::Outcome};

/// A pipe that holds `limit` bytes at most; one chunk may exceed it.
pub(super) fn pipe(limit: usize) -> (PipeWriter, PipeReader) {
    let shared = Arc::new(Mutex::new(State { limit, ..State::default() }));
    (PipeWriter(Arc::clone(&shared)), PipeReader(shared))
}

#[derive(Debug, Default)]
struct State {
    limit: usize,
    chunks: VecDeque<Bytes>,
    len: usize,
    end: Option<Result<(), Outcome>>,
    reader_gone: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

impl State {
    fn push(&mut self, chunk: Bytes) {
        self.len += chunk.len();
        self.chunks.push_back(chunk);
        wake(&mut self.reader);
    }

    /// The first end counts.
    fn end(&mut self, end: Result<(), Outcome>) {
        self.end.get_or_insert(end);
        wake(&mut self.reader);
    }

    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<Result<usize, ReaderGone>> {
        if self.reader_gone || self.end.is_some() {
            return Poll::Ready(Err(ReaderGone));
        }
        if self.len < self.limit {
            return Poll::Ready(Ok(self.limit - self.len));
        }
        self.writer = Some(cx.waker().clone());
        Poll::Pending
    }

    fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        if let Some(chunk) = self.chunks.pop_front() {
            self.len -= chunk.len();
            wake(&mut self.writer);
            return Poll::Ready(Some(chunk));
        }
        if self.end.is_some() {
            return Poll::Ready(None);
        }
        self.reader = Some(cx.waker().clone());
        Poll::Pending
    }
}

fn wake(waker: &mut Option<Waker>) {
    if let Some(waker) = waker.take() {
        waker.wake();
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Nobody will read what is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ReaderGone;

/// The end that is written to. Dropping it is a clean end of file.
#[derive(Debug)]
pub(super) struct PipeWriter(Arc<Mutex<State>>);

impl PipeWriter {
    /// Waits for room and hands over the chunk. Cancelling it loses the chunk.
    pub(super) async fn send(&mut self, chunk: Bytes) -> Result<(), ReaderGone> {
        poll_fn(|cx| lock(&self.0).poll_room(cx)).await?;
        lock(&self.0).push(chunk);
        Ok(())
    }

    /// What was written is all there is.
    pub(super) fn finish(&mut self) {
        lock(&self.0).end(Ok(()));
    }

    /// What was written is not all there was, and why. Without effect after `finish`.
    pub(super) fn fail(&mut self, why: Outcome) {
        lock(&self.0).end(Err(why));
    }
}

impl AsyncWrite for PipeWriter {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let mut state = lock(&self.0);
        let room = ready!(state.poll_room(cx)).map_err(|ReaderGone| {
            io::Error::new(io::ErrorKind::BrokenPipe, "the remote side no longer reads from this channel")
        })?;
        let taken = buf.len().min(room);
        if let Some(chunk) = buf.get(..taken).filter(|chunk| !chunk.is_empty()) {
            state.push(Bytes::copy_from_slice(chunk));
        }
        Poll::Ready(Ok(taken))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.finish();
        Poll::Ready(Ok(()))
    }
}

impl Drop for PipeWriter {
    fn drop(&mut self) {
        self.finish();
    }
}

/// The end that is read from. Dropping it discards what is inside and what is still written.
#[derive(Debug)]
pub(super) struct PipeReader(Arc<Mutex<State>>);

impl PipeReader {
    /// The next chunk, or nothing at the end, clean or not. Cancel safe.
    pub(super) async fn recv(&mut self) -> Option<Bytes> {
        poll_fn(|cx| lock(&self.0).poll_chunk(cx)).await
    }
}

impl AsyncRead for PipeReader {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut state = lock(&self.0);
        let Some(mut chunk) = ready!(state.poll_chunk(cx)) else {
            return Poll::Ready(match &state.end {
                Some(Err(why)) => Err(SshError::from(why.clone()).into()),
                _ => Ok(()),
            });
        };
        let taken = chunk.len().min(buf.remaining());
        buf.put_slice(&chunk.split_to(taken));
        if chunk.has_remaining() {
            state.len += chunk.len();
            state.chunks.push_front(chunk);
        }
        Poll::Ready(Ok(()))
    }
}

impl Drop for PipeReader {
    fn drop(&mut self) {
        let mut state = lock(&self.0);
        state.reader_gone = true;
        state.chunks.clear();
        state.len = 0;
        wake(&mut state.writer);
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::ssh::Lost;

    #[tokio::test]
    async fn what_goes_in_comes_out_in_order_and_then_ends() {
        let (mut writer, mut reader) = pipe(8);
        let write = async move {
            for chunk in [&b"first "[..], b"second, longer than the limit ", b"third"] {
                writer.send(Bytes::from_static(chunk)).await.expect("the reader is there");
            }
        };
        let mut text = String::new();
        let (read, ()) = tokio::join!(reader.read_to_string(&mut text), write);
        read.expect("a clean end");
        assert_eq!(text, "first second, longer than the limit third");
    }

    #[tokio::test]
    async fn a_full_pipe_takes_no_more_until_something_is_read() {
        let (mut writer, mut reader) = pipe(4);
        assert_eq!(writer.write(b"abcdef").await.expect("room"), 4);
        assert!(futures_util::poll!(std::pin::pin!(writer.write(b"e"))).is_pending());
        let mut two = [0; 2];
        reader.read_exact(&mut two).await.expect("two bytes");
        assert_eq!(writer.write(b"efgh").await.expect("room"), 2);
    }

    #[tokio::test]
    async fn a_failed_pipe_gives_what_it_has_and_then_the_reason() {
        let (mut writer, mut reader) = pipe(64);
        writer.send(Bytes::from_static(b"half")).await.expect("room");
        writer.fail(Outcome::Lost(Lost::Eof));
        drop(writer);
        let mut got = Vec::new();
        let error = reader.read_to_end(&mut got).await.expect_err("not a clean end");
        assert_eq!(got, b"half");
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }

    #[tokio::test]
    async fn a_writer_learns_that_the_reader_is_gone() {
        let (mut writer, reader) = pipe(1);
        writer.write_all(b"a").await.expect("room");
        drop(reader);
        assert_eq!(writer.write(b"b").await.expect_err("no reader").kind(), io::ErrorKind::BrokenPipe);
        assert_eq!(writer.send(Bytes::from_static(b"c")).await, Err(ReaderGone));
    }
}
