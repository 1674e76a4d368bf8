//! The TCP connection behind a session.

use std::{io, net::SocketAddr, time::Duration};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
};

/// Connected or not; reading and writing wait for ever where there is nothing to read or write.
#[derive(Default)]
pub(super) struct Port {
    connecting: Option<BoxFuture<'static, io::Result<TcpStream>>>,
    halves: Option<(OwnedReadHalf, OwnedWriteHalf)>,
    unwritten: Bytes,
    buffer: Vec<u8>,
    ended: bool,
}

impl Port {
    pub(super) fn new(read_size: usize) -> Self {
        Self { buffer: vec![0; read_size], ..Self::default() }
    }

    /// Connects in the background of [`progress`](Self::progress), after `delay`.
    pub(super) fn connect(&mut self, address: SocketAddr, delay: Duration) {
        self.connecting = Some(Box::pin(async move {
            tokio::time::sleep(delay).await;
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            Ok(stream)
        }));
    }

    pub(super) fn is_connected(&self) -> bool {
        self.halves.is_some()
    }

    pub(super) fn close(&mut self) {
        (self.halves, self.connecting) = (None, None);
        self.unwritten = Bytes::new();
    }

    /// Queues what [`write`](Self::write) writes.
    pub(super) fn set_unwritten(&mut self, data: Bytes) {
        self.unwritten = data;
    }

    /// Whichever comes first: the connection, bytes read, if `reading`, or the queued bytes all written. Cancelling it loses nothing.
    pub(super) async fn progress(&mut self, reading: bool) -> Progress {
        if let Some(connecting) = &mut self.connecting {
            let connected = connecting.await;
            self.connecting = None;
            return Progress::Connected(connected.map(|stream| self.halves = Some(stream.into_split())));
        }
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
            Progress::Read(_) | Progress::Connected(_) => {}
        }
        progress
    }
}

/// What happened at the port.
pub(super) enum Progress {
    Connected(io::Result<()>),
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
