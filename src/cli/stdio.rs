//! Standard input and output on threads of their own.
//!
//! A read or write of a terminal or a pipe may block for ever, and the end of the process must not wait for it: tokio's
//! own standard streams would make the runtime's shutdown wait. These threads are simply left behind.

use std::io;
use std::os::fd::BorrowedFd;
use std::thread;

use bytes::Bytes;
use rustix::buffer::spare_capacity;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use tokio::sync::{mpsc, oneshot};

/// Size of one read. Two of SSH's largest packets.
pub(crate) const CHUNK: usize = 64 * 1024;

/// Chunks that wait in either direction: they bound the memory, and keep both sides busy.
const QUEUE: usize = 8;

/// Standard input, chunk by chunk. Ends at end of file; a read that fails is the last item.
///
/// Nothing is read ahead of the queue. Dropping the receiver ends the thread after its next read.
pub(crate) fn stdin() -> mpsc::Receiver<io::Result<Bytes>> {
    let (chunks, receiver) = mpsc::channel(QUEUE);
    thread::spawn(move || {
        loop {
            let chunk = read(rustix::stdio::stdin());
            let is_last = chunk.is_err();
            if matches!(&chunk, Ok(bytes) if bytes.is_empty()) || chunks.blocking_send(chunk).is_err() || is_last {
                return;
            }
        }
    });
    receiver
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
