//! The SFTP subsystem, version 3, over this machine's file system. Names are bytes.

mod attributes;
mod codec;
mod server;

use std::path::PathBuf;

use bytes::Bytes;
use russh::{
    Channel,
    server::{Handle, Msg},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt, split},
    sync::mpsc,
};

use server::Server;

/// Largest packet taken (OpenSSH: `SFTP_MAX_MSG_LENGTH`).
const MAX_PACKET: u32 = 256 * 1024;
/// Requests and answers that wait on either side of the file system.
const QUEUE: usize = 64;

/// Serves the channel until the client closes it or sends what is no packet. Relative paths start at `home`.
pub(super) async fn serve(channel: Channel<Msg>, handle: Handle, home: PathBuf) {
    let id = channel.id();
    let (mut reader, mut writer) = split(channel.into_stream());
    let (requests, mut pending) = mpsc::channel::<Bytes>(QUEUE);
    let (replies, mut answers) = mpsc::channel::<Bytes>(QUEUE);
    let files = tokio::task::spawn_blocking(move || {
        let mut server = Server::new(home);
        while let Some(request) = pending.blocking_recv() {
            if replies.blocking_send(server.answer(&request)).is_err() {
                return;
            }
        }
    });
    let reading = async {
        while let Some(request) = read_packet(&mut reader).await {
            if requests.send(request).await.is_err() {
                break;
            }
        }
        drop(requests);
    };
    let writing = async move {
        while let Some(answer) = answers.recv().await {
            if writer.write_all(&answer).await.is_err() {
                return;
            }
        }
        let _ = writer.shutdown().await;
        let _ = handle.exit_status_request(id, 0).await;
    };
    tokio::join!(reading, writing);
    let _ = files.await;
}

async fn read_packet(reader: &mut (impl AsyncRead + Unpin)) -> Option<Bytes> {
    let length = reader.read_u32().await.ok().filter(|length| (1..=MAX_PACKET).contains(length))?;
    let mut packet = vec![0; length as usize];
    reader.read_exact(&mut packet).await.ok()?;
    Some(packet.into())
}
