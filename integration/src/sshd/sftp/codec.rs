//! The packets: numbers, strings, and the answers made of them.

use std::{ffi::OsStr, io, os::unix::ffi::OsStrExt, path::Path};

use bytes::{BufMut, Bytes, BytesMut};

use super::attributes::Attributes;

/// `SSH_FXP_*` of requests.
pub(super) mod request {
    pub(in super::super) const INIT: u8 = 1;
    pub(in super::super) const OPEN: u8 = 3;
    pub(in super::super) const CLOSE: u8 = 4;
    pub(in super::super) const READ: u8 = 5;
    pub(in super::super) const WRITE: u8 = 6;
    pub(in super::super) const LSTAT: u8 = 7;
    pub(in super::super) const FSTAT: u8 = 8;
    pub(in super::super) const SETSTAT: u8 = 9;
    pub(in super::super) const FSETSTAT: u8 = 10;
    pub(in super::super) const OPENDIR: u8 = 11;
    pub(in super::super) const READDIR: u8 = 12;
    pub(in super::super) const REMOVE: u8 = 13;
    pub(in super::super) const MKDIR: u8 = 14;
    pub(in super::super) const RMDIR: u8 = 15;
    pub(in super::super) const REALPATH: u8 = 16;
    pub(in super::super) const STAT: u8 = 17;
    pub(in super::super) const RENAME: u8 = 18;
    pub(in super::super) const READLINK: u8 = 19;
    pub(in super::super) const SYMLINK: u8 = 20;
    pub(in super::super) const EXTENDED: u8 = 200;
}

const VERSION: u8 = 2;
const STATUS: u8 = 101;
const HANDLE: u8 = 102;
const DATA: u8 = 103;
const NAME: u8 = 104;
const ATTRS: u8 = 105;
const EXTENDED_REPLY: u8 = 201;

/// `SSH_FX_*`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Status {
    Ok = 0,
    Eof = 1,
    NoSuchFile = 2,
    PermissionDenied = 3,
    Failure = 4,
    BadMessage = 5,
    Unsupported = 8,
}

/// Why a request is answered with a status.
#[derive(Debug)]
pub(super) struct Refusal {
    status: Status,
    text: String,
}

impl From<Status> for Refusal {
    fn from(status: Status) -> Self {
        Self { status, text: format!("{status:?}") }
    }
}

impl From<io::Error> for Refusal {
    fn from(error: io::Error) -> Self {
        let status = match error.kind() {
            io::ErrorKind::NotFound => Status::NoSuchFile,
            io::ErrorKind::PermissionDenied => Status::PermissionDenied,
            _ => Status::Failure,
        };
        Self { status, text: error.to_string() }
    }
}

impl From<rustix::io::Errno> for Refusal {
    fn from(error: rustix::io::Errno) -> Self {
        io::Error::from(error).into()
    }
}

/// What a request is answered with, other than a refusal.
#[derive(Debug)]
pub(super) enum Answer {
    Done,
    Handle(u32),
    Data(BytesMut),
    /// Names with their attributes.
    Names(Vec<(Vec<u8>, Attributes)>),
    Attributes(Attributes),
    /// The numbers of an extended reply.
    Numbers(Vec<u64>),
}

pub(super) type Result<T> = std::result::Result<T, Refusal>;

/// A packet being read.
#[derive(Debug)]
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl<'a> Reader<'a> {
    pub(super) fn u8(&mut self) -> Result<u8> {
        Ok(self.take(1)?[0])
    }

    pub(super) fn u32(&mut self) -> Result<u32> {
        Ok(self.take(4)?.iter().fold(0, |number, byte| number << 8 | u32::from(*byte)))
    }

    pub(super) fn u64(&mut self) -> Result<u64> {
        Ok(u64::from(self.u32()?) << 32 | u64::from(self.u32()?))
    }

    pub(super) fn string(&mut self) -> Result<&'a [u8]> {
        let length = self.u32()?;
        self.take(length as usize)
    }

    pub(super) fn path(&mut self) -> Result<&'a Path> {
        Ok(Path::new(OsStr::from_bytes(self.string()?)))
    }

    /// A handle as this server gives them out.
    pub(super) fn handle(&mut self) -> Result<u32> {
        let bytes: [u8; 4] = self.string()?.try_into().map_err(|_| Status::Failure)?;
        Ok(u32::from_be_bytes(bytes))
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(Status::BadMessage)?;
        self.0 = rest;
        Ok(taken)
    }
}

/// The greeting, with the extensions that are offered, all in version 1.
pub(super) fn version(extensions: &[&str]) -> Bytes {
    let mut packet = start(VERSION);
    packet.put_u32(3);
    for name in extensions {
        put_string(&mut packet, name.as_bytes());
        put_string(&mut packet, b"1");
    }
    seal(packet)
}

/// The packet that answers request `id`.
pub(super) fn encode(id: u32, answer: Result<Answer>) -> Bytes {
    match answer {
        Ok(answer) => encode_answer(id, answer),
        Err(refusal) => encode_status(id, refusal.status, &refusal.text),
    }
}

fn encode_answer(id: u32, answer: Answer) -> Bytes {
    let begin = |kind| {
        let mut packet = start(kind);
        packet.put_u32(id);
        packet
    };
    match answer {
        Answer::Done => encode_status(id, Status::Ok, ""),
        Answer::Handle(handle) => {
            let mut packet = begin(HANDLE);
            put_string(&mut packet, &handle.to_be_bytes());
            seal(packet)
        }
        Answer::Data(data) => {
            let mut packet = begin(DATA);
            put_string(&mut packet, &data);
            seal(packet)
        }
        Answer::Names(names) => {
            let mut packet = begin(NAME);
            packet.put_u32(u32::try_from(names.len()).unwrap_or(0));
            for (name, attributes) in names {
                put_string(&mut packet, &name);
                put_string(&mut packet, &attributes.long_name(&name));
                attributes.encode(&mut packet);
            }
            seal(packet)
        }
        Answer::Attributes(attributes) => {
            let mut packet = begin(ATTRS);
            attributes.encode(&mut packet);
            seal(packet)
        }
        Answer::Numbers(numbers) => {
            let mut packet = begin(EXTENDED_REPLY);
            for number in numbers {
                packet.put_u64(number);
            }
            seal(packet)
        }
    }
}

fn encode_status(id: u32, status: Status, text: &str) -> Bytes {
    let mut packet = start(STATUS);
    packet.put_u32(id);
    packet.put_u32(status as u32);
    put_string(&mut packet, text.as_bytes());
    put_string(&mut packet, b"en");
    seal(packet)
}

/// A packet that begins with room for its length.
fn start(kind: u8) -> BytesMut {
    let mut packet = BytesMut::with_capacity(64);
    packet.put_u32(0);
    packet.put_u8(kind);
    packet
}

fn put_string(packet: &mut BytesMut, bytes: &[u8]) {
    packet.put_u32(u32::try_from(bytes.len()).unwrap_or(0));
    packet.put_slice(bytes);
}

fn seal(mut packet: BytesMut) -> Bytes {
    let length = u32::try_from(packet.len() - 4).unwrap_or(0);
    packet[..4].copy_from_slice(&length.to_be_bytes());
    packet.freeze()
}
