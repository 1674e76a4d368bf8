//! The far side's program: its streams, what it prints beside the protocol, and how it ends.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::{Buf as _, Bytes, BytesMut};
use futures_util::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::error::{Exit, ScpError};
use super::{ScpChannel, ScpEndpoint};
use crate::copy::BytePath;

/// Longest wait for the program's first word, in seconds: a shell has to start, and a server to look up a file.
const FIRST_WORD: u64 = 30;
/// Longest wait for the program to end once nothing more comes from it.
const LAST_WORD: Duration = Duration::from_secs(2);
/// Bytes read at once.
const CHUNK: usize = 64 * 1024;
/// Most lines kept of what it prints beside the protocol, and their length.
const MAX_LINES: usize = 32;
const MAX_LINE: usize = 512;

/// A running `scp`. Dropping it closes its channel.
pub(super) struct Peer {
    input: Box<dyn AsyncWrite + Send + Unpin>,
    output: Box<dyn AsyncRead + Send + Unpin>,
    ended: Option<BoxFuture<'static, Option<u32>>>,
    queued: VecDeque<Bytes>,
    said: Arc<Mutex<Said>>,
    listening: JoinHandle<()>,
    was_heard: bool,
}

impl Peer {
    pub(super) async fn start(endpoint: &ScpEndpoint, command: Vec<u8>) -> Result<Self, ScpError> {
        let ScpChannel { input, output, errors, ended } = endpoint.run(command).await?;
        let said = Arc::new(Mutex::new(Said::default()));
        let listening = tokio::spawn(listen(errors, Arc::clone(&said)));
        Ok(Self { input, output, ended: Some(ended), queued: VecDeque::new(), said, listening, was_heard: false })
    }

    /// What arrives next; nothing at the end. Cancel safe.
    pub(super) async fn read(&mut self) -> Result<BytesMut, ScpError> {
        let mut chunk = BytesMut::with_capacity(CHUNK);
        let reading = self.output.read_buf(&mut chunk);
        let read = if self.was_heard {
            reading.await
        } else {
            timeout(Duration::from_secs(FIRST_WORD), reading).await.map_err(|_| ScpError::Silent(FIRST_WORD))?
        };
        self.was_heard = true;
        read.map(|_| chunk).map_err(ScpError::Connection)
    }

    pub(super) fn queue(&mut self, bytes: Bytes) {
        self.queued.push_back(bytes);
    }

    /// Writes what is queued. Cancel safe: what is not written stays queued.
    pub(super) async fn flush(&mut self) -> io::Result<()> {
        while let Some(front) = self.queued.front_mut() {
            while front.has_remaining() {
                if self.input.write_buf(front).await? == 0 {
                    return Err(io::ErrorKind::WriteZero.into());
                }
            }
            self.queued.pop_front();
        }
        self.input.flush().await
    }

    /// Tells the program that nothing more comes.
    pub(super) async fn shut_down(&mut self) {
        let _ = self.input.shutdown().await;
    }

    /// How the program ended, once nothing comes from it any more.
    pub(super) async fn exit(&mut self) -> Exit {
        let ending = async {
            // Its last words come before its end.
            let _ = (&mut self.listening).await;
            match self.ended.take() {
                Some(ended) => ended.await,
                None => None,
            }
        };
        let code = timeout(LAST_WORD, ending).await.unwrap_or(None);
        Exit { code, said: None }
    }

    /// As `exit`, with its last words.
    pub(super) async fn failed_exit(&mut self) -> Exit {
        let exit = self.exit().await;
        let said = self.said.lock().unwrap_or_else(PoisonError::into_inner).lines.pop();
        Exit { said, ..exit }
    }

    /// What it has printed beside the protocol and nobody was told yet.
    pub(super) fn take_said(&self) -> Vec<BytePath> {
        std::mem::take(&mut self.said.lock().unwrap_or_else(PoisonError::into_inner).lines)
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

#[derive(Default)]
struct Said {
    lines: Vec<BytePath>,
    count: usize,
}

/// Reads to the end, so that nobody waits for it, and keeps the first lines.
async fn listen(mut errors: Box<dyn AsyncRead + Send + Unpin>, said: Arc<Mutex<Said>>) {
    let (mut chunk, mut line) = (BytesMut::new(), Vec::new());
    while errors.read_buf(&mut chunk).await.is_ok_and(|read| read > 0) {
        for byte in chunk.split() {
            match byte {
                b'\n' => keep(&mut line, &said),
                byte if line.len() < MAX_LINE => line.push(byte),
                _ => {}
            }
        }
    }
    keep(&mut line, &said);
}

fn keep(line: &mut Vec<u8>, said: &Mutex<Said>) {
    let line = std::mem::take(line);
    let text = line.trim_ascii_end();
    let mut said = said.lock().unwrap_or_else(PoisonError::into_inner);
    if !text.is_empty() && said.count < MAX_LINES {
        said.count += 1;
        said.lines.push(BytePath::new(text));
    }
}
