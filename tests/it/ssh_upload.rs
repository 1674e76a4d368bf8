//! What an upload leaves in the way of the session's other channels.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf},
    net::TcpStream,
    time::timeout,
};

use crate::support::{ssh::within, sshd::Sshd};

/// A stream that takes nothing more once it is told so.
struct Stalling {
    stream: TcpStream,
    is_stalled: Arc<AtomicBool>,
}

impl AsyncRead for Stalling {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Stalling {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if self.is_stalled.load(Ordering::Relaxed) {
            return Poll::Pending;
        }
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[tokio::test]
async fn an_upload_on_a_stream_that_takes_nothing_is_held_back_in_its_own_channel() {
    let sshd = Sshd::start();
    let is_stalled = Arc::new(AtomicBool::new(false));
    let stream = TcpStream::connect(sshd.address()).await.expect("it listens");
    let stream = Stalling { stream, is_stalled: Arc::clone(&is_stalled) };
    let session = within(sshd.client().connect(stream)).await.expect("let in");
    let mut child = within(session.command("cat > /dev/null").spawn()).await.expect("spawned");
    let mut stdin = child.stdin.take().expect("stdin");
    is_stalled.store(true, Ordering::Relaxed);

    let (block, mut taken) = (vec![0; 32 << 10], 0);
    while let Ok(written) = timeout(Duration::from_millis(500), stdin.write(&block)).await {
        taken += written.expect("an open channel");
    }
    // The channel's own pipe holds 256 KiB, and a packet or two are on their way; the server would take 2 MiB.
    assert!(taken <= 384 << 10, "{taken} bytes were taken");
}
