//! Pipes as sides of a copy: bytes of unknown number that are read or written once, from the first to the last.
//!
//! A copy asks for many pieces at once and gets them in any order. Here each piece waits for the one before it: the pipe
//! itself is handed on from offset to offset.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::oneshot;

use super::endpoint::{Answer, Change, Endpoint, Entry, FileKind, Finished, Metadata, SourceFile, TargetFile};
use super::{BytePath, CopyError, Side};

/// Longest piece.
const PIECE: u32 = 256 * 1024;
/// A pipe tells nothing about what comes through it.
const UNKNOWN: Metadata = Metadata { kind: Some(FileKind::File), size: None, mode: None, times: None, owner: None };

pub(super) type Reader = Box<dyn AsyncRead + Send + Unpin>;
pub(super) type Writer = Box<dyn AsyncWrite + Send + Unpin>;

/// A pipe that is read or written, until the copy opens it.
pub(super) struct Pipe<T> {
    name: BytePath,
    /// How many bytes come out of it, where that is known.
    size: Option<u64>,
    /// The permissions that a new file gets.
    mode: Option<u32>,
    unopened: Mutex<Option<Unopened<T>>>,
}

enum Unopened<T> {
    Ready(T),
    Later(BoxFuture<'static, Result<T, CopyError>>),
}

impl<T> Pipe<T> {
    pub(super) fn new(name: &str, pipe: T) -> Self {
        Self { name: name.into(), size: None, mode: None, unopened: Mutex::new(Some(Unopened::Ready(pipe))) }
    }

    /// One that is opened when the copy comes to it.
    pub(super) fn later(name: &BytePath, open: BoxFuture<'static, Result<T, CopyError>>) -> Self {
        Self { name: name.clone(), size: None, mode: None, unopened: Mutex::new(Some(Unopened::Later(open))) }
    }

    pub(super) fn of_size(self, size: u64) -> Self {
        Self { size: Some(size), ..self }
    }

    pub(super) fn of_mode(self, mode: u32) -> Self {
        Self { mode: Some(mode), ..self }
    }

    fn metadata(&self) -> Metadata {
        Metadata { size: self.size, mode: self.mode, ..UNKNOWN }
    }

    async fn open(&self) -> Result<InOrder<T>, CopyError> {
        let unopened = lock(&self.unopened).take().ok_or(CopyError::OnlyOnce)?;
        match unopened {
            Unopened::Ready(pipe) => Ok(InOrder::new(pipe)),
            Unopened::Later(open) => open.await.map(InOrder::new),
        }
    }
}

impl<T> fmt::Debug for Pipe<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pipe").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Endpoint for Pipe<Reader> {
    fn side(&self) -> Side {
        Side::Local
    }

    fn is_pipe(&self) -> bool {
        true
    }

    fn resolve<'a>(&'a self, _: &'a BytePath) -> Answer<'a, BytePath> {
        ready(Ok(self.name.clone()))
    }

    fn stat<'a>(&'a self, _: &'a BytePath) -> Answer<'a, Metadata> {
        ready(Ok(self.metadata()))
    }

    fn lstat<'a>(&'a self, _: &'a BytePath) -> Answer<'a, Metadata> {
        ready(Ok(self.metadata()))
    }

    fn canonical<'a>(&'a self, path: &'a BytePath) -> Answer<'a, BytePath> {
        ready(Ok(path.clone()))
    }

    fn list<'a>(&'a self, _: &'a BytePath) -> Answer<'a, Vec<Entry>> {
        ready(Err(refused(io::ErrorKind::NotADirectory)))
    }

    fn open<'a>(&'a self, _: &'a BytePath, _: u64) -> Answer<'a, (Box<dyn SourceFile>, Metadata)> {
        async { Pipe::open(self).await.map(|pipe| (Box::new(pipe) as Box<dyn SourceFile>, self.metadata())) }.boxed()
    }

    fn create<'a>(&'a self, _: &'a BytePath, _: u32) -> Answer<'a, Box<dyn TargetFile>> {
        ready(Err(refused(io::ErrorKind::Unsupported)))
    }

    fn make_directory<'a>(&'a self, _: &'a BytePath, _: u32) -> Answer<'a, bool> {
        ready(Err(refused(io::ErrorKind::Unsupported)))
    }

    fn remove<'a>(&'a self, _: &'a BytePath) -> Answer<'a, ()> {
        ready(Err(refused(io::ErrorKind::Unsupported)))
    }

    fn change<'a>(&'a self, _: &'a BytePath, _: Change) -> Answer<'a, ()> {
        ready(Err(refused(io::ErrorKind::Unsupported)))
    }
}

impl Endpoint for Pipe<Writer> {
    fn side(&self) -> Side {
        Side::Local
    }

    fn is_pipe(&self) -> bool {
        true
    }

    fn resolve<'a>(&'a self, _: &'a BytePath) -> Answer<'a, BytePath> {
        ready(Ok(self.name.clone()))
    }

    /// Nothing can be in the way.
    fn stat<'a>(&'a self, _: &'a BytePath) -> Answer<'a, Metadata> {
        ready(Err(refused(io::ErrorKind::NotFound)))
    }

    fn lstat<'a>(&'a self, _: &'a BytePath) -> Answer<'a, Metadata> {
        ready(Err(refused(io::ErrorKind::NotFound)))
    }

    fn canonical<'a>(&'a self, path: &'a BytePath) -> Answer<'a, BytePath> {
        ready(Ok(path.clone()))
    }

    fn list<'a>(&'a self, _: &'a BytePath) -> Answer<'a, Vec<Entry>> {
        ready(Err(refused(io::ErrorKind::NotADirectory)))
    }

    fn open<'a>(&'a self, _: &'a BytePath, _: u64) -> Answer<'a, (Box<dyn SourceFile>, Metadata)> {
        ready(Err(refused(io::ErrorKind::Unsupported)))
    }

    /// Its name is no file's: what is written is gone.
    fn create<'a>(&'a self, _: &'a BytePath, _: u32) -> Answer<'a, Box<dyn TargetFile>> {
        async { Pipe::open(self).await.map(|pipe| Box::new(pipe) as Box<dyn TargetFile>) }.boxed()
    }

    fn make_directory<'a>(&'a self, _: &'a BytePath, _: u32) -> Answer<'a, bool> {
        ready(Err(CopyError::DirectoryIntoPipe))
    }

    fn remove<'a>(&'a self, _: &'a BytePath) -> Answer<'a, ()> {
        ready(Ok(()))
    }

    fn change<'a>(&'a self, _: &'a BytePath, _: Change) -> Answer<'a, ()> {
        ready(Ok(()))
    }
}

impl SourceFile for InOrder<Reader> {
    fn max_read(&self) -> u32 {
        PIECE
    }

    /// Less than `length` is the end.
    fn read(&self, offset: u64, length: u32) -> Answer<'_, Bytes> {
        async move {
            let Some(mut pipe) = self.turn(offset).await? else { return Ok(Bytes::new()) };
            let mut data = Vec::with_capacity(length as usize);
            if let Err(error) = (&mut pipe).take(length.into()).read_to_end(&mut data).await {
                self.end(End::Failed);
                return Err(error.into());
            }
            lock(&self.0).hash.update(&data);
            if data.len() < length as usize {
                self.end(End::Met);
            } else {
                self.pass_on(pipe, offset + u64::from(length));
            }
            Ok(data.into())
        }
        .boxed()
    }

    fn digest(&self) -> Option<[u8; 32]> {
        Some(lock(&self.0).hash.clone().finalize().into())
    }
}

impl TargetFile for InOrder<Writer> {
    fn max_write(&self) -> u32 {
        PIECE
    }

    fn write(&self, offset: u64, data: Bytes) -> Answer<'_, ()> {
        async move {
            let mut pipe = self.turn(offset).await?.ok_or_else(|| refused(io::ErrorKind::BrokenPipe))?;
            if let Err(error) = pipe.write_all(&data).await {
                self.end(End::Failed);
                return Err(error.into());
            }
            lock(&self.0).hash.update(&data);
            self.pass_on(pipe, offset + data.len() as u64);
            Ok(())
        }
        .boxed()
    }

    fn digest(&self) -> Option<[u8; 32]> {
        Some(lock(&self.0).hash.clone().finalize().into())
    }

    fn finish(self: Box<Self>, _: Change, _: &BytePath) -> Answer<'_, Finished> {
        async move {
            match self.take() {
                Some(mut pipe) => Ok(pipe.shutdown().await.map(|()| UNKNOWN.into())?),
                None => Err(refused(io::ErrorKind::BrokenPipe)),
            }
        }
        .boxed()
    }
}

/// A pipe that is handed on from offset to offset.
struct InOrder<T>(Mutex<State<T>>);

struct State<T> {
    next: u64,
    /// Here while nobody uses it.
    pipe: Option<T>,
    waiting: BTreeMap<u64, oneshot::Sender<T>>,
    end: Option<End>,
    /// Of what has gone through.
    hash: Sha256,
}

/// Why nothing more goes through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Met,
    /// Whoever saw it tells why.
    Failed,
}

impl<T> InOrder<T> {
    fn new(pipe: T) -> Self {
        Self(Mutex::new(State { next: 0, pipe: Some(pipe), waiting: BTreeMap::new(), end: None, hash: Sha256::new() }))
    }

    /// Waits until everything before `offset` has gone through; `None` behind the end.
    async fn turn(&self, offset: u64) -> Result<Option<T>, CopyError> {
        let handed = {
            let mut state = lock(&self.0);
            if state.next == offset
                && let Some(pipe) = state.pipe.take()
            {
                return Ok(Some(pipe));
            }
            if state.end.is_some() {
                return state.after_end();
            }
            let (hand, handed) = oneshot::channel();
            state.waiting.insert(offset, hand);
            handed
        };
        match handed.await {
            Ok(pipe) => Ok(Some(pipe)),
            Err(_) => lock(&self.0).after_end(),
        }
    }

    /// Everything before `next` has gone through.
    fn pass_on(&self, pipe: T, next: u64) {
        let mut state = lock(&self.0);
        state.next = next;
        state.pipe = match state.waiting.remove(&next) {
            Some(hand) => hand.send(pipe).err(),
            None => Some(pipe),
        };
    }

    fn end(&self, end: End) {
        let mut state = lock(&self.0);
        state.end = Some(end);
        state.waiting.clear();
    }

    fn take(&self) -> Option<T> {
        lock(&self.0).pipe.take()
    }
}

impl<T> State<T> {
    fn after_end(&self) -> Result<Option<T>, CopyError> {
        if self.end == Some(End::Met) { Ok(None) } else { Err(refused(io::ErrorKind::BrokenPipe)) }
    }
}

fn refused(kind: io::ErrorKind) -> CopyError {
    CopyError::Local(kind.into())
}

fn ready<'a, T: Send + 'a>(outcome: Result<T, CopyError>) -> Answer<'a, T> {
    std::future::ready(outcome).boxed()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use futures_util::future::join_all;

    use super::*;

    fn reader(bytes: &[u8]) -> InOrder<Reader> {
        InOrder::new(Box::new(io::Cursor::new(bytes.to_vec())))
    }

    #[tokio::test]
    async fn pieces_are_read_in_order_whatever_the_order_of_asking() {
        let pipe = reader(b"abcdefgh");
        let read = join_all([6, 3, 0, 9].map(|offset| pipe.read(offset, 3))).await;
        let read: Vec<_> = read.into_iter().map(Result::unwrap).collect();
        assert_eq!(read, ["gh", "def", "abc", ""]);
        assert_eq!(pipe.read(8, 1).await.unwrap(), "", "asked for again behind the end");
    }

    #[tokio::test]
    async fn pieces_are_written_in_order_whatever_the_order_they_come_in() {
        let (here, mut there) = tokio::io::duplex(64);
        let pipe: InOrder<Writer> = InOrder::new(Box::new(here));
        let pieces = [(4, "ef"), (2, "cd"), (0, "ab")];
        for outcome in join_all(pieces.map(|(offset, data)| pipe.write(offset, data.into()))).await {
            outcome.unwrap();
        }
        Box::new(pipe).finish(Change::default(), &"-".into()).await.unwrap();
        let mut written = String::new();
        there.read_to_string(&mut written).await.unwrap();
        assert_eq!(written, "abcdef");
    }

    #[tokio::test]
    async fn a_reader_that_goes_away_fails_what_waits_too() {
        let (here, there) = tokio::io::duplex(1);
        drop(there);
        let pipe: InOrder<Writer> = InOrder::new(Box::new(here));
        for outcome in join_all([2, 0].map(|offset| pipe.write(offset, "ab".into()))).await {
            let is_broken = matches!(&outcome, Err(CopyError::Local(e)) if e.kind() == io::ErrorKind::BrokenPipe);
            assert!(is_broken, "{outcome:?}");
        }
    }

    #[tokio::test]
    async fn a_pipe_is_opened_once() {
        let pipe = Pipe::<Reader>::new("standard input", Box::new(io::Cursor::new(b"x")));
        assert!(Endpoint::open(&pipe, &"-".into(), 0).await.is_ok());
        assert!(matches!(Endpoint::open(&pipe, &"-".into(), 0).await.err(), Some(CopyError::OnlyOnce)));
    }
}
