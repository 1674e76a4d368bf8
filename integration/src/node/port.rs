//! The TCP connection behind a session.

use std::{io, net::SocketAddr};

use bytes::Bytes;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
};

/// Connected or not; reading and writing wait for ever where there is nothing to read or write.
#[derive(Debug, Default)]
pub(super) struct Port {
    halves: Option<(OwnedReadHalf, OwnedWriteHalf)>,
    unwritten: Bytes,
    buffer: Vec<u8>,
    ended: bool,
}

impl Port {
    pub(super) fn new(read_size: usize) -> Self {
        Self { buffer: vec![0; read_size], ..Self::default() }
    }

    pub(super) async fn connect(&mut self, address: SocketAddr) -> io::Result<()> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        self.halves = Some(stream.into_split());
        Ok(())
    }

    pub(super) fn close(&mut self) {
        self.halves = None;
        self.unwritten = Bytes::new();
    }

    /// Queues what [`write`](Self::write) writes.
    pub(super) fn set_unwritten(&mut self, data: Bytes) {
        self.unwritten = data;
    }

    /// Whichever comes first: bytes read, if `reading`, or the queued bytes all written. Cancelling it loses nothing.
    pub(super) async fn progress(&mut self, reading: bool) -> Progress {
        let Some((read_half, write_half)) = &mut self.halves else { return std::future::pending().await };
        let (reading, writing) = (reading && !self.ended, !self.unwritten.is_empty());
        let progress = tokio::select! {
            read = read_half.read(&mut self.buffer), if reading => match read {
                Ok(0) => Progress::Ended { clean: true },
                Ok(count) => Progress::Read(Bytes::copy_from_slice(&self.buffer[..count])),
                Err(_) => Progress::Ended { clean: false },
            },
            written = write_all(write_half, &mut self.unwritten), if writing => Progress::Written(written.is_ok()),
            else => std::future::pending().await,
        };
        match progress {
            Progress::Ended { .. } => self.ended = true,
            Progress::Written(_) => self.unwritten = Bytes::new(),
            Progress::Read(_) => {}
        }
        progress
    }
}

/// What happened at the port.
pub(super) enum Progress {
    Read(Bytes),
    Ended { clean: bool },
    Written(bool),
}

/// Advances `data` past what is written, so that it can be cancelled and called again.
async fn write_all(to: &mut OwnedWriteHalf, data: &mut Bytes) -> io::Result<()> {
    while !data.is_empty() {
        to.write_buf(data).await?;
    }
    Ok(())
}
