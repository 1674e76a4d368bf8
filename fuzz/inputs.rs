//! What each fuzz target does with an input. The tests replay the committed corpus through the same functions.
#![allow(dead_code, reason = "each target uses one of them")]

use std::time::{Duration, Instant, SystemTime};

use bytes::{Bytes, BytesMut};
use ssmssh::copy::scp::{Received, Request, Sink, Source};
use ssmssh::copy::{BytePath, Endpoint as _, RemoteEndpoint};
use ssmssh::datachannel::{Config, DataChannel};
use ssmssh::ssh::sftp::{Attributes, OpenFlags, Sftp, SftpError};
use ssmssh::wire::{
    Acknowledge, Body, ChannelClosed, Frame, HandshakeComplete, HandshakeRequest, HandshakeResponse, Message,
    MessageKind, PayloadType, SessionTypeParameters,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use uuid::Uuid;

/// Any bytes are a message or an error, and a message survives being written and read again.
pub(crate) fn decode_message(data: &[u8]) {
    let Ok(frame) = Frame::decode(Bytes::copy_from_slice(data)) else { return };
    let again = Message::decode(frame.message.encode());
    // A kind that is no text, or longer than its field, is not written as it was read.
    if !matches!(frame.message.kind, MessageKind::Other(_)) {
        assert_eq!(again, Ok(frame.message));
    }
}

/// Any bytes are a body or an error, and a body that was read can be written and read again.
pub(crate) fn handshake_json(data: &[u8]) {
    round_trip::<HandshakeRequest>(data);
    round_trip::<HandshakeResponse>(data);
    round_trip::<HandshakeComplete>(data);
    round_trip::<SessionTypeParameters>(data);
    round_trip::<Acknowledge>(data);
    round_trip::<ChannelClosed>(data);
}

fn round_trip<T: Body>(data: &[u8]) {
    let Ok(body) = T::from_json(data) else { return };
    assert!(T::from_json(body.to_json().as_bytes()).is_ok());
}

/// Steps of an engine's life, one after another out of the input: an operation, its number, and for messages a length
/// and so many bytes of payload.
pub(crate) fn channel_ops(data: &[u8]) {
    let mut config = Config::default();
    (config.max_payload, config.max_in_flight) = (1 << 10, 8 << 10);
    let mut now = Instant::now();
    let mut channel = DataChannel::new(config, 1, now, SystemTime::UNIX_EPOCH);
    let mut input = data;
    while let Some((&[operation, number], rest)) = input.split_first_chunk() {
        input = rest;
        let mut result = Ok(());
        match operation % 8 {
            0 => channel.handle_connected("token", now),
            1 => channel.handle_disconnected(now),
            2 => {
                channel.write(&vec![number; usize::from(number) * 100], now);
            }
            3 => while channel.read().is_some() {},
            4 => {
                now += Duration::from_millis(u64::from(number) * 5);
                result = channel.handle_timeout(now);
            }
            5 => channel.finish(now),
            _ => result = channel.handle_frame(message(operation, number, &mut input), now),
        }
        assert!(result.is_ok() || channel.is_closed());
        while channel.poll_transmit(now).is_some() {}
        while channel.poll_event().is_some() {}
        assert!(channel.poll_timeout().is_none_or(|deadline| deadline > now));
        assert!(channel.stats().in_flight <= (8 << 10) + 1024);
    }
}

/// Whatever a node's `scp -f` sends is received or refused, and never under a name that leads elsewhere.
pub(crate) fn scp_sink(data: &[u8]) {
    let Ok(request) = Request::matching(&"*".into()) else { return };
    let mut sink = Sink::new(request, true);
    for chunk in data.chunks(7) {
        sink.handle_input(BytesMut::from(chunk));
        loop {
            match sink.poll_event() {
                Ok(Some(Received::File(header) | Received::Directory(header))) => {
                    let name = &header.name[..];
                    assert!(!matches!(name, b"" | b"." | b"..") && !name.contains(&b'/') && !name.contains(&0));
                    sink.accept();
                }
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(_) => return,
            }
            while sink.poll_transmit().is_some() {}
        }
    }
    let _ = sink.handle_end();
}

/// Whatever a node's `scp -t` answers is an answer or an error.
pub(crate) fn scp_source(data: &[u8]) {
    let mut source = Source::new();
    for chunk in data.chunks(3) {
        source.handle_input(chunk);
        while let Ok(Some(_)) = source.poll_event() {
            let _ = source.file(b"name", 0o644, 1, None);
            source.data(Bytes::from_static(b"x"));
            source.end_file(None);
            while source.poll_transmit().is_some() {}
        }
    }
}

fn message(operation: u8, number: u8, input: &mut &[u8]) -> Bytes {
    let kind = match operation / 8 % 4 {
        0 => MessageKind::OutputStreamData,
        1 => MessageKind::Acknowledge,
        2 => MessageKind::ChannelClosed,
        _ => MessageKind::PausePublication,
    };
    let (&length, rest) = input.split_first().unwrap_or((&0, &[]));
    let (payload, rest) = rest.split_at(rest.len().min(usize::from(length)));
    *input = rest;
    Message {
        kind,
        created_millis: 1,
        sequence: i64::from(number) - 2,
        flags: 0,
        id: Uuid::nil(),
        payload_type: PayloadType::from(u32::from(operation / 32)),
        payload: Bytes::copy_from_slice(payload),
    }
    .encode()
}

/// Whatever an SFTP server answers, every request has an outcome: steps of a session, each of what is asked, the type of
/// the answer, a length, and so many bytes of answer. The first byte says what the server offers.
pub(crate) fn sftp_reply(data: &[u8]) {
    let Some((&offered, steps)) = data.split_first() else { return };
    let (asked, answers) = steps_of(steps);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    runtime.block_on(async {
        let (client, server) = tokio::io::duplex(1 << 20);
        let serving = tokio::spawn(serve(server, offered, answers));
        let session = async {
            let sftp = Sftp::new(client).await?;
            for ask in asked {
                if ask_for(&sftp, ask).await.is_err_and(|error| error.is_fatal()) {
                    break;
                }
            }
            Ok::<_, SftpError>(())
        };
        tokio::time::timeout(Duration::from_mins(1), session).await.expect("every request has an outcome").ok();
        serving.abort();
    });
}

/// Type and content of an answer.
type Reply = (u8, Vec<u8>);

fn steps_of(mut input: &[u8]) -> (Vec<u8>, Vec<Reply>) {
    let (mut asked, mut answers) = (Vec::new(), Vec::new());
    while let Some((&[ask, kind, length], rest)) = input.split_first_chunk() {
        let (body, rest) = rest.split_at(rest.len().min(usize::from(length)));
        input = rest;
        asked.push(ask);
        answers.push((kind, body.to_vec()));
    }
    (asked, answers)
}

async fn ask_for(sftp: &Sftp, ask: u8) -> Result<(), SftpError> {
    match ask % 8 {
        0 => sftp.stat(b"x").await.map(drop),
        1 => sftp.readlink(b"x").await.map(drop),
        2 => sftp.realpath(b"x").await.map(drop),
        3 => sftp.expand_path(b"~").await.map(drop),
        4 => sftp.remove(b"x").await,
        5 => {
            let file = sftp.open(b"x", OpenFlags::READ, &Attributes::default()).await?;
            let data = sftp.read(&file, 0, 16).await?;
            assert!(data.len() <= 16, "more than was asked for");
            sftp.close(file).await
        }
        6 => {
            let directory = sftp.open_dir(b"x").await?;
            while sftp.read_dir(&directory).await?.is_some() {}
            Ok(())
        }
        _ => {
            let listed = RemoteEndpoint::new(sftp.clone(), "node").list(&BytePath::from("x")).await;
            let names = listed.iter().flatten();
            assert!(names.into_iter().all(|entry| !matches!(&entry.name[..], b"." | b"..")));
            Ok(())
        }
    }
}

/// Answers every request with the next answer, and goes when there is none, or after one that breaks the protocol.
async fn serve(mut stream: DuplexStream, offered: u8, answers: Vec<Reply>) -> Option<()> {
    let greeting = greeting(offered);
    receive(&mut stream).await?;
    stream.write_all(&greeting).await.ok()?;
    for (kind, body) in answers {
        let request = receive(&mut stream).await?;
        let id = request.get(1..5)?;
        let types = [101, 102, 103, 104, 105, 201];
        match types.get(usize::from(kind % 8)) {
            Some(known) => stream.write_all(&packet(&[&[*known], id, &body].concat())).await.ok()?,
            None if kind % 8 == 6 => return stream.write_all(&body).await.ok(),
            None => return stream.write_all(&packet(&body)).await.ok(),
        }
    }
    Some(())
}

fn greeting(offered: u8) -> Vec<u8> {
    let names = ["posix-rename@openssh.com", "fsync@openssh.com", "limits@openssh.com", "expand-path@openssh.com"];
    let mut body = vec![2, 0, 0, 0, 3];
    for (_, name) in (0..).zip(names).filter(|(bit, _)| offered >> bit & 1 == 1) {
        body.extend(packet(name.as_bytes()));
        body.extend(packet(b"1"));
    }
    packet(&body)
}

/// Bytes behind their length, as packets and strings are.
fn packet(body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len()).expect("short");
    [&length.to_be_bytes(), body].concat()
}

async fn receive(stream: &mut DuplexStream) -> Option<Vec<u8>> {
    let length = stream.read_u32().await.ok()?;
    let mut packet = vec![0; length as usize];
    stream.read_exact(&mut packet).await.ok()?;
    Some(packet)
}
