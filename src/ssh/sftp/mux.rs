//! Many requests on one stream: the task that sends them, and the table that brings each reply to its asker.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::packet::{Frame, Reply, Request, Verb, decode_reply};
use super::wire::take_packet;
use super::{ProtocolError, SftpError};

/// Requests that wait to be sent. With writes of 255 KiB, the largest OpenSSH takes, that is 4 MiB.
const QUEUE: usize = 16;
/// Requests are gathered up to this many bytes per write, so that a burst of small ones shares a packet below.
const BATCH: usize = 64 * 1024;

/// How long a stream that takes no more requests may still tell why.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// An open file or directory of the server, in the session that opened it: any other refuses it with
/// [`SftpError::ForeignHandle`].
///
/// Dropping it closes it in the background, without a look at the outcome; `Sftp::close` tells the outcome.
#[derive(Debug)]
pub struct Handle {
    raw: Bytes,
    orphans: mpsc::UnboundedSender<Bytes>,
}

impl Handle {
    /// From here on the caller sees to it that the handle is closed.
    pub(super) fn disarm(mut self) {
        self.raw = Bytes::new();
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        if !self.raw.is_empty() {
            // With the session over, the server has closed everything by itself.
            let _ = self.orphans.send(self.raw.clone());
        }
    }
}

/// A reply as its asker gets it: a handle closes itself when the asker is gone.
#[derive(Debug)]
pub(super) enum Answer {
    Handle(Handle),
    Other(Reply),
}

type Waiter = oneshot::Sender<Result<Answer, SftpError>>;

/// The asking side. The task ends when the last clone is dropped, after everything queued was sent.
#[derive(Debug, Clone)]
pub(super) struct Mux {
    queue: mpsc::Sender<Frame>,
    table: Arc<Table>,
}

impl Mux {
    /// Starts the task that owns `stream`.
    pub(super) fn spawn<S>(stream: S) -> Self
    where
        S: AsyncRead + AsyncWrite + Send + 'static,
    {
        let (queue, requests) = mpsc::channel(QUEUE);
        let (orphans, abandoned) = mpsc::unbounded_channel();
        let table = Arc::new(Table { state: Mutex::default(), orphans });
        let mux = Self { queue, table: Arc::clone(&table) };
        tokio::spawn(async move {
            let (reader, writer) = tokio::io::split(stream);
            let mut reading = std::pin::pin!(read_replies(reader, &table));
            let end = tokio::select! {
                end = &mut reading => end,
                end = write_requests(writer, requests, abandoned, &table) => match end {
                    Ok(()) => Ok(()),
                    Err(error) => Err(reason(error, reading).await),
                },
            };
            table.end(&end.err().unwrap_or(SftpError::Ended));
        });
        mux
    }

    /// The server's name of a handle that this session opened. Servers give the same names in every session.
    pub(super) fn raw<'h>(&self, handle: &'h Handle) -> Result<&'h [u8], SftpError> {
        let is_own = handle.orphans.same_channel(&self.table.orphans);
        if is_own { Ok(&handle.raw) } else { Err(SftpError::ForeignHandle) }
    }

    /// Sends `request` and waits for its reply.
    pub(super) async fn call(&self, request: Request) -> Result<Answer, SftpError> {
        let reply = self.send(request).await?;
        reply.await.unwrap_or(Err(SftpError::Ended))
    }

    /// Ends the session over a reply that its asker found to be false.
    pub(super) fn condemn(&self, error: ProtocolError) -> SftpError {
        let error = SftpError::from(error);
        self.table.end(&error);
        error
    }

    /// Queues `request`; its reply comes through the receiver. Cancelled, nothing was sent.
    pub(super) async fn send(
        &self,
        request: Request,
    ) -> Result<oneshot::Receiver<Result<Answer, SftpError>>, SftpError> {
        request.check_length()?;
        // The id is taken only once there is room, so that a request given up while it waits leaves no trace.
        let Ok(room) = self.queue.reserve().await else { return Err(self.table.why_ended()) };
        let (waiter, reply) = oneshot::channel();
        let id = self.table.expect_reply(Some(waiter))?;
        room.send(request.into_frame(id));
        Ok(reply)
    }
}

/// Who waits for which reply.
#[derive(Debug)]
struct Table {
    state: Mutex<State>,
    orphans: mpsc::UnboundedSender<Bytes>,
}

#[derive(Debug, Default)]
struct State {
    next_id: u32,
    /// `None` when nobody wants to know.
    waiting: HashMap<u32, Option<Waiter>>,
    ended: Option<SftpError>,
}

impl Table {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn expect_reply(&self, waiter: Option<Waiter>) -> Result<u32, SftpError> {
        let mut state = self.lock();
        if let Some(error) = &state.ended {
            return Err(error.clone());
        }
        while state.waiting.contains_key(&state.next_id) {
            state.next_id = state.next_id.wrapping_add(1);
        }
        let id = state.next_id;
        state.next_id = id.wrapping_add(1);
        state.waiting.insert(id, waiter);
        Ok(id)
    }

    fn deliver(&self, id: u32, reply: Reply) -> Result<(), SftpError> {
        let Some(waiter) = self.lock().waiting.remove(&id) else {
            return Err(ProtocolError::UnknownId(id).into());
        };
        let answer = match reply {
            Reply::Handle(raw) => Answer::Handle(Handle { raw, orphans: self.orphans.clone() }),
            other => Answer::Other(other),
        };
        if let Some(waiter) = waiter {
            // An asker that has gone drops the answer, and with it the handle.
            let _ = waiter.send(Ok(answer));
        }
        Ok(())
    }

    /// Tells everybody that the session is over. The first reason stays.
    fn end(&self, error: &SftpError) {
        tracing::debug!(%error, "the SFTP session is over");
        let waiting = {
            let mut state = self.lock();
            state.ended.get_or_insert_with(|| error.clone());
            std::mem::take(&mut state.waiting)
        };
        for waiter in waiting.into_values().flatten() {
            let _ = waiter.send(Err(error.clone()));
        }
    }

    fn why_ended(&self) -> SftpError {
        self.lock().ended.clone().unwrap_or(SftpError::Ended)
    }
}

/// Why the session is over, when writing has failed: a stream that is lost often tells its reader more.
async fn reason(refused: SftpError, reading: impl Future<Output = Result<(), SftpError>>) -> SftpError {
    match timeout(LAST_WORDS, reading).await {
        Ok(Err(error @ (SftpError::Connection(_) | SftpError::Protocol(_)))) => error,
        _ => refused,
    }
}

async fn read_replies<R: AsyncRead + Unpin>(mut reader: R, table: &Table) -> Result<(), SftpError> {
    let mut buffer = BytesMut::with_capacity(BATCH);
    loop {
        while let Some(packet) = take_packet(&mut buffer)? {
            let (id, reply) = decode_reply(packet)?;
            table.deliver(id, reply)?;
        }
        buffer.reserve(BATCH / 4);
        if reader.read_buf(&mut buffer).await? == 0 {
            return Err(SftpError::Ended);
        }
    }
}

async fn write_requests<W: AsyncWrite + Unpin>(
    mut writer: W,
    mut requests: mpsc::Receiver<Frame>,
    mut abandoned: mpsc::UnboundedReceiver<Bytes>,
    table: &Table,
) -> Result<(), SftpError> {
    let mut batch = BytesMut::with_capacity(BATCH);
    loop {
        tokio::select! {
            request = requests.recv() => match request {
                Some(frame) => append(&mut batch, &frame),
                None => break,
            },
            Some(raw) = abandoned.recv() => append(&mut batch, &close_unheard(&raw, table)?),
        }
        while batch.len() < BATCH
            && let Ok(frame) = requests.try_recv()
        {
            append(&mut batch, &frame);
        }
        writer.write_all(&batch).await?;
        writer.flush().await?;
        batch.clear();
    }
    Ok(writer.shutdown().await?)
}

fn append(batch: &mut BytesMut, frame: &Frame) {
    batch.extend_from_slice(&frame.head);
    batch.extend_from_slice(&frame.body);
}

/// Closes a handle that nobody owns any more.
fn close_unheard(raw: &[u8], table: &Table) -> Result<Frame, SftpError> {
    let id = table.expect_reply(None)?;
    Ok(Request::new(Verb::Close).string(raw).into_frame(id))
}
