//! Standard input and output on threads of their own.
//!
//! A read or write of a terminal or a pipe may block for ever, and the end of the process must not wait for it: tokio's
//! own standard streams would make the runtime's shutdown wait. These threads are simply left behind.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::pin::Pin;
use std::sync::OnceLock;
use std::task::{Context, Poll, ready};
use std::thread;

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use rustix::buffer::spare_capacity;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::pipe::PipeFlags;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{mpsc, oneshot};

/// Size of one read. Two of SSH's largest packets.
pub(crate) const CHUNK: usize = 64 * 1024;

/// Chunks that wait in either direction: they bound the memory, and keep both sides busy.
const QUEUE: usize = 8;

/// The user's standard input, once no child can have it.
static INPUT: OnceLock<OwnedFd> = OnceLock::new();

/// Moves standard input to a descriptor of its own, which no child inherits, and puts `/dev/null` in its place: a
/// `credential_process` that reads its standard input would take the user's data. To be called once, at the start.
pub(crate) fn keep_input_from_children() {
    let stdin = rustix::stdio::stdin();
    // Above the standard descriptors, which children inherit.
    let Ok(own) = rustix::io::fcntl_dupfd_cloexec(stdin, 3) else { return };
    let null = rustix::fs::open("/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
    if null.is_ok_and(|null| rustix::stdio::dup2_stdin(&null).is_ok()) {
        let _ = INPUT.set(own);
    }
}

/// The user's standard input.
pub(crate) fn input() -> BorrowedFd<'static> {
    INPUT.get().map_or_else(rustix::stdio::stdin, AsFd::as_fd)
}

/// Whether standard input was closed when the program started. The start-up of every Rust program opens `/dev/null` in its
/// place, to read and write, where whoever means `/dev/null` opens it to read.
pub(crate) fn is_input_closed() -> bool {
    let Ok(flags) = rustix::fs::fcntl_getfl(input()) else { return true };
    let is_null = || {
        let (found, null) = (rustix::fs::fstat(input()).ok()?, rustix::fs::stat("/dev/null").ok()?);
        Some(FileType::from_raw_mode(found.st_mode) == FileType::CharacterDevice && found.st_rdev == null.st_rdev)
    };
    flags & OFlags::RWMODE == OFlags::RDWR && is_null() == Some(true)
}

/// A standard input that was closed.
#[derive(Debug)]
pub(crate) struct Closed;

impl AsyncRead for Closed {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Err(Errno::BADF.into()))
    }
}

/// Standard input, chunk by chunk. Ends at end of file; a read that fails is the last item.
///
/// Nothing is read ahead of the queue. Dropping it ends the thread before its next read: what is typed after that is for
/// whoever comes next, such as the shell.
#[derive(Debug)]
pub(crate) struct Chunks {
    receiver: mpsc::Receiver<io::Result<Bytes>>,
    /// The thread waits for its other end too, which hangs up when this goes.
    _stop: Option<OwnedFd>,
}

impl Chunks {
    /// The next chunk; `None` at the end. Cancel safe.
    pub(crate) async fn recv(&mut self) -> Option<io::Result<Bytes>> {
        self.receiver.recv().await
    }
}

/// Begins to read standard input.
pub(crate) fn stdin() -> Chunks {
    let (chunks, receiver) = mpsc::channel(QUEUE);
    let (stopped, stop) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC).ok().unzip();
    thread::spawn(move || {
        while !chunks.is_closed() && is_to_be_read(stopped.as_ref()) {
            let chunk = read(input());
            let is_last = chunk.is_err();
            if matches!(&chunk, Ok(bytes) if bytes.is_empty()) || chunks.blocking_send(chunk).is_err() || is_last {
                return;
            }
        }
    });
    Chunks { receiver, _stop: stop }
}

/// Waits until there is something to read, or nobody wants it any more.
fn is_to_be_read(stopped: Option<&OwnedFd>) -> bool {
    let Some(stopped) = stopped else { return true };
    loop {
        let mut fds = [PollFd::from_borrowed_fd(input(), PollFlags::IN), PollFd::new(stopped, PollFlags::empty())];
        match poll(&mut fds, None) {
            Err(Errno::INTR) => {}
            // Whatever is wrong with standard input, the read will say so.
            _ => return fds[1].revents().is_empty(),
        }
    }
}

/// How many bytes standard input still has, if it is a file: of a pipe nobody knows.
pub(crate) fn size_of_stdin() -> Option<u64> {
    let stdin = input();
    let file = rustix::fs::fstat(stdin).ok()?;
    let size = u64::try_from(file.st_size).ok()?;
    let is_file = FileType::from_raw_mode(file.st_mode) == FileType::RegularFile;
    // Files that the system makes up as they are read say that they are empty.
    if is_file && size > 0 { size.checked_sub(rustix::fs::tell(stdin).ok()?) } else { None }
}

/// Standard input as a stream of bytes.
#[derive(Debug)]
pub(crate) struct Reader {
    chunks: Chunks,
    rest: Bytes,
}

impl Reader {
    pub(crate) fn stdin() -> Self {
        Self { chunks: stdin(), rest: Bytes::new() }
    }
}

impl AsyncRead for Reader {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.rest.is_empty() {
            match ready!(self.chunks.receiver.poll_recv(cx)) {
                Some(chunk) => self.rest = chunk?,
                None => return Poll::Ready(Ok(())),
            }
        }
        let length = self.rest.len().min(buf.remaining());
        buf.put_slice(&self.rest.split_to(length));
        Poll::Ready(Ok(()))
    }
}

/// Standard output or standard error, written by a thread.
///
/// Dropping it lets the thread write what it was given; [`Output::finish`] waits for that.
#[derive(Debug)]
pub(crate) struct Output {
    chunks: mpsc::Sender<Bytes>,
    written: oneshot::Receiver<io::Result<()>>,
}

/// Nobody takes the output any more; [`Output::finish`] knows why.
#[derive(Debug)]
pub(crate) struct Gone;

impl Output {
    pub(crate) fn stdout() -> Self {
        Self::to(rustix::stdio::stdout())
    }

    pub(crate) fn stderr() -> Self {
        Self::to(rustix::stdio::stderr())
    }

    fn to(sink: BorrowedFd<'static>) -> Self {
        let (chunks, mut receiver) = mpsc::channel::<Bytes>(QUEUE);
        let (done, written) = oneshot::channel();
        thread::spawn(move || {
            let mut written = Ok(());
            while let Some(chunk) = receiver.blocking_recv().filter(|_| written.is_ok()) {
                written = write_all(sink, &chunk);
            }
            let _ = done.send(written);
        });
        Self { chunks, written }
    }

    /// Queues `chunk`; waits while the queue is full. Cancelling it queues nothing.
    pub(crate) async fn write(&self, chunk: Bytes) -> Result<(), Gone> {
        self.chunks.send(chunk).await.map_err(|_| Gone)
    }

    /// Waits until all is written, or tells why it was not.
    pub(crate) async fn finish(self) -> io::Result<()> {
        drop(self.chunks);
        self.written.await.unwrap_or_else(|gone| Err(io::Error::other(gone)))
    }
}

/// An [`Output`] as a stream of bytes. Shutting it down waits until all is written.
pub(crate) struct Writer {
    /// `None` once it is shut down, so that the thread comes to its end.
    chunks: Option<mpsc::Sender<Bytes>>,
    queueing: Option<BoxFuture<'static, Result<(), mpsc::error::SendError<Bytes>>>>,
    written: oneshot::Receiver<io::Result<()>>,
}

impl Writer {
    pub(crate) fn stdout() -> Self {
        let Output { chunks, written } = Output::stdout();
        Self { chunks: Some(chunks), queueing: None, written }
    }

    /// Ready when the last chunk is in the queue.
    fn poll_queued(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(queueing) = &mut self.queueing else { return Poll::Ready(Ok(())) };
        let queued = ready!(queueing.poll_unpin(cx));
        self.queueing = None;
        if queued.is_ok() { Poll::Ready(Ok(())) } else { self.poll_written(cx) }
    }

    /// Ready when the thread is at its end.
    fn poll_written(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.written.poll_unpin(cx).map(|written| written.unwrap_or_else(|gone| Err(io::Error::other(gone))))
    }
}

impl AsyncWrite for Writer {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_queued(cx))?;
        let chunks = self.chunks.clone().ok_or(io::ErrorKind::BrokenPipe)?;
        let chunk = Bytes::copy_from_slice(&buf[..buf.len().min(CHUNK)]);
        let length = chunk.len();
        self.queueing = Some(async move { chunks.send(chunk).await }.boxed());
        Poll::Ready(Ok(length))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_queued(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_queued(cx))?;
        self.chunks = None;
        self.poll_written(cx)
    }
}

/// One read of up to [`CHUNK`] bytes; empty at end of file.
fn read(source: BorrowedFd<'_>) -> io::Result<Bytes> {
    let mut buffer = Vec::with_capacity(CHUNK);
    loop {
        match rustix::io::read(source, spare_capacity(&mut buffer)) {
            Ok(_) => return Ok(buffer.into()),
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => wait(source, PollFlags::IN)?,
            // The terminal hung up, or the process is in the background of another session.
            Err(Errno::IO) => return Ok(Bytes::new()),
            Err(error) => return Err(error.into()),
        }
    }
}

fn write_all(sink: BorrowedFd<'_>, mut rest: &[u8]) -> io::Result<()> {
    while !rest.is_empty() {
        match rustix::io::write(sink, rest) {
            Ok(written) => rest = &rest[written..],
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => wait(sink, PollFlags::OUT)?,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Another process may have made the shared file description non-blocking.
fn wait(fd: BorrowedFd<'_>, flags: PollFlags) -> io::Result<()> {
    match poll(&mut [PollFd::from_borrowed_fd(fd, flags)], None) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
