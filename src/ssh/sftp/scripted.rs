//! A server for tests that answers as it is told to.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::{Buf as _, BufMut, Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

use super::Attributes;
use super::wire::{Reader, put_string};

/// A request as the server sees it.
pub(crate) struct Received {
    pub(crate) verb: u8,
    pub(crate) id: u32,
    fields: Reader,
}

impl Received {
    pub(crate) fn string(&mut self) -> Bytes {
        self.fields.string().expect("a string in the request")
    }

    pub(crate) fn u32(&mut self) -> u32 {
        self.fields.u32().expect("an integer in the request")
    }

    pub(crate) fn u64(&mut self) -> u64 {
        self.fields.u64().expect("an integer in the request")
    }

    pub(crate) fn status(&self, code: u32) -> Vec<u8> {
        self.reply(101, |out| {
            out.put_u32(code);
            put_string(out, b"told so");
            put_string(out, b"");
        })
    }

    pub(crate) fn handle(&self, raw: &[u8]) -> Vec<u8> {
        self.reply(102, |out| put_string(out, raw))
    }

    pub(crate) fn data(&self, data: &[u8]) -> Vec<u8> {
        self.reply(103, |out| put_string(out, data))
    }

    pub(crate) fn names(&self, names: &[(&[u8], Attributes)]) -> Vec<u8> {
        self.reply(104, |out| {
            out.put_u32(u32::try_from(names.len()).expect("few names"));
            for (name, attributes) in names {
                put_string(out, name);
                put_string(out, b"-rw-r--r-- 1 root");
                attributes.encode(out);
            }
        })
    }

    pub(crate) fn attributes(&self, attributes: &Attributes) -> Vec<u8> {
        self.reply(105, |out| attributes.encode(out))
    }

    pub(crate) fn reply(&self, kind: u8, fill: impl FnOnce(&mut BytesMut)) -> Vec<u8> {
        let mut body = BytesMut::new();
        body.put_u8(kind);
        body.put_u32(self.id);
        fill(&mut body);
        packet(&body)
    }
}

pub(crate) fn packet(body: &[u8]) -> Vec<u8> {
    let mut packet = BytesMut::new();
    put_string(&mut packet, body);
    packet.to_vec()
}

/// The first packet of a server of `version` that offers `extensions`, each of version 1 unless it says `name=version`.
pub(crate) fn version_packet(version: u32, extensions: &[&str]) -> Vec<u8> {
    let mut body = BytesMut::new();
    body.put_u8(2);
    body.put_u32(version);
    for name in extensions {
        let (name, version) = name.split_once('=').unwrap_or((name, "1"));
        put_string(&mut body, name.as_bytes());
        put_string(&mut body, version.as_bytes());
    }
    packet(&body)
}

/// Starts a server that sends what `answer` returns for each request, and returns the client's end of its stream.
pub(crate) fn serve<F>(extensions: &[&str], answer: F) -> DuplexStream
where
    F: FnMut(Received) -> Vec<u8> + Send + 'static,
{
    serve_some(extensions, usize::MAX, answer)
}

/// How many requests were answered together, each time the server answered.
pub(crate) type Rounds = Arc<Mutex<Vec<usize>>>;

/// As [`serve`], but over a long way: nothing is answered before the client has nothing more to send. So each round is a
/// round trip, whatever the machine is busy with. The clock of the runtime has to be paused.
pub(crate) fn serve_in_rounds<F>(extensions: &[&str], rounds: &Rounds, answer: F) -> DuplexStream
where
    F: FnMut(Received) -> Vec<u8> + Send + 'static,
{
    let (client, server) = tokio::io::duplex(64 * 1024);
    tokio::spawn(run_in_rounds(server, version_packet(3, extensions), Arc::clone(rounds), answer));
    client
}

/// As [`serve`], but the server is gone after so many requests.
pub(crate) fn serve_some<F>(extensions: &[&str], requests: usize, answer: F) -> DuplexStream
where
    F: FnMut(Received) -> Vec<u8> + Send + 'static,
{
    let (client, server) = tokio::io::duplex(64 * 1024);
    tokio::spawn(run(server, version_packet(3, extensions), requests, answer));
    client
}

async fn run<F: FnMut(Received) -> Vec<u8>>(
    mut stream: DuplexStream,
    greeting: Vec<u8>,
    requests: usize,
    mut answer: F,
) {
    let Some(_init) = next_packet(&mut stream).await else { return };
    if stream.write_all(&greeting).await.is_err() {
        return;
    }
    for _ in 0..requests {
        let Some(packet) = next_packet(&mut stream).await else { return };
        if stream.write_all(&answer(received(packet))).await.is_err() {
            return;
        }
    }
}

async fn run_in_rounds<F: FnMut(Received) -> Vec<u8>>(
    mut stream: DuplexStream,
    greeting: Vec<u8>,
    rounds: Rounds,
    mut answer: F,
) {
    let Some(_init) = next_packet(&mut stream).await else { return };
    let (mut held, mut count, mut sent) = (greeting, 0, BytesMut::new());
    loop {
        // A paused clock moves only while nobody has anything to do.
        match tokio::time::timeout(Duration::from_millis(1), stream.read_buf(&mut sent)).await {
            Ok(Ok(1..)) => {}
            Ok(_) => return,
            Err(_) => {
                if count > 0 {
                    rounds.lock().expect("no test panics with it").push(std::mem::take(&mut count));
                }
                if stream.write_all(&std::mem::take(&mut held)).await.is_err() {
                    return;
                }
            }
        }
        while let Some(packet) = take_packet(&mut sent) {
            held.extend(answer(received(packet)));
            count += 1;
        }
    }
}

fn take_packet(sent: &mut BytesMut) -> Option<Bytes> {
    let length = u32::from_be_bytes(sent.first_chunk().copied()?) as usize;
    if sent.len() < 4 + length {
        return None;
    }
    sent.advance(4);
    Some(sent.split_to(length).freeze())
}

fn received(packet: Bytes) -> Received {
    let mut fields = Reader::new(packet);
    let verb = fields.u8().expect("a type");
    let id = fields.u32().expect("an id");
    Received { verb, id, fields }
}

async fn next_packet(stream: &mut DuplexStream) -> Option<Bytes> {
    let length = stream.read_u32().await.ok()?;
    let mut packet = vec![0; length as usize];
    stream.read_exact(&mut packet).await.ok()?;
    Some(packet.into())
}
