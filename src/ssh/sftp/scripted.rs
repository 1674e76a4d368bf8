//! A server for tests that answers as it is told to.

use bytes::{BufMut, Bytes, BytesMut};
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
        let mut fields = Reader::new(packet);
        let verb = fields.u8().expect("a type");
        let id = fields.u32().expect("an id");
        if stream.write_all(&answer(Received { verb, id, fields })).await.is_err() {
            return;
        }
    }
}

async fn next_packet(stream: &mut DuplexStream) -> Option<Bytes> {
    let length = stream.read_u32().await.ok()?;
    let mut packet = vec![0; length as usize];
    stream.read_exact(&mut packet).await.ok()?;
    Some(packet.into())
}
