//! Requests and replies as values, and their bytes.

use bytes::{BufMut, Bytes, BytesMut};

use super::wire::{MAX_PACKET, Reader, put_string};
use super::{Attributes, ProtocolError, SftpError};
use crate::ssh::quote;

/// The version this client speaks, as every server in use does.
pub(super) const VERSION: u32 = 3;
/// A handle is opaque, and at most this long (draft, section 6.2).
const MAX_HANDLE: usize = 256;
/// Length field, type and id.
const HEADER: usize = 9;

/// The types of request, numbered as on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Verb {
    Init = 1,
    Open = 3,
    Close = 4,
    Read = 5,
    Write = 6,
    Lstat = 7,
    Fstat = 8,
    Setstat = 9,
    Fsetstat = 10,
    Opendir = 11,
    Readdir = 12,
    Remove = 13,
    Mkdir = 14,
    Rmdir = 15,
    Realpath = 16,
    Stat = 17,
    Rename = 18,
    Readlink = 19,
    Symlink = 20,
    Extended = 200,
}

impl Verb {
    /// The draft's name, for messages.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Init => "INIT",
            Self::Open => "OPEN",
            Self::Close => "CLOSE",
            Self::Read => "READ",
            Self::Write => "WRITE",
            Self::Lstat => "LSTAT",
            Self::Fstat => "FSTAT",
            Self::Setstat => "SETSTAT",
            Self::Fsetstat => "FSETSTAT",
            Self::Opendir => "OPENDIR",
            Self::Readdir => "READDIR",
            Self::Remove => "REMOVE",
            Self::Mkdir => "MKDIR",
            Self::Rmdir => "RMDIR",
            Self::Realpath => "REALPATH",
            Self::Stat => "STAT",
            Self::Rename => "RENAME",
            Self::Readlink => "READLINK",
            Self::Symlink => "SYMLINK",
            Self::Extended => "EXTENDED",
        }
    }
}

/// How a file is opened; combined with `|`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpenFlags(u32);

impl OpenFlags {
    /// For reading.
    pub const READ: Self = Self(0x01);
    /// For writing.
    pub const WRITE: Self = Self(0x02);
    /// Every write goes to the end.
    pub const APPEND: Self = Self(0x04);
    /// Created if it does not exist.
    pub const CREATE: Self = Self(0x08);
    /// Emptied if it exists.
    pub const TRUNCATE: Self = Self(0x10);
    /// With `CREATE`: an error if it exists, a dangling link included.
    pub const EXCLUSIVE: Self = Self(0x20);
}

impl std::ops::BitOr for OpenFlags {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// A request under construction: the fields after its id, and data that is appended without a copy.
pub(super) struct Request {
    verb: Verb,
    head: BytesMut,
    body: Bytes,
}

/// A request's bytes, ready to be sent.
pub(super) struct Frame {
    pub(super) head: Bytes,
    pub(super) body: Bytes,
}

impl Request {
    pub(super) fn new(verb: Verb) -> Self {
        let mut head = BytesMut::with_capacity(96);
        head.put_bytes(0, HEADER);
        Self { verb, head, body: Bytes::new() }
    }

    pub(super) fn extended(name: &str) -> Self {
        Self::new(Verb::Extended).string(name.as_bytes())
    }

    pub(super) fn open(path: &[u8], flags: OpenFlags, attributes: &Attributes) -> Self {
        Self::new(Verb::Open).string(path).u32(flags.0).attributes(attributes)
    }

    pub(super) fn read(handle: &[u8], offset: u64, length: u32) -> Self {
        Self::new(Verb::Read).string(handle).u64(offset).u32(length)
    }

    pub(super) fn write(handle: &[u8], offset: u64, data: Bytes) -> Self {
        let length = u32::try_from(data.len()).unwrap_or(u32::MAX);
        let request = Self::new(Verb::Write).string(handle).u64(offset).u32(length);
        Self { body: data, ..request }
    }

    /// A link at `link` that points to `target`. OpenSSH takes the two in the other order than the draft says, and
    /// every server in use follows OpenSSH.
    pub(super) fn symlink(target: &[u8], link: &[u8]) -> Self {
        Self::new(Verb::Symlink).string(target).string(link)
    }

    pub(super) fn string(mut self, bytes: &[u8]) -> Self {
        put_string(&mut self.head, bytes);
        self
    }

    pub(super) fn attributes(mut self, attributes: &Attributes) -> Self {
        attributes.encode(&mut self.head);
        self
    }

    pub(super) fn u32(mut self, value: u32) -> Self {
        self.head.put_u32(value);
        self
    }

    fn u64(mut self, value: u64) -> Self {
        self.head.put_u64(value);
        self
    }

    pub(super) fn verb(&self) -> Verb {
        self.verb
    }

    /// Whether the request fits in a packet that every server with default limits takes.
    pub(super) fn check_length(&self) -> Result<(), SftpError> {
        if self.head.len() + self.body.len() > MAX_PACKET { Err(SftpError::RequestTooLong) } else { Ok(()) }
    }

    /// The request's bytes under `id`; the length was checked by `check_length`.
    pub(super) fn into_frame(mut self, id: u32) -> Frame {
        let length = u32::try_from(self.head.len() + self.body.len() - 4).unwrap_or(u32::MAX);
        self.head[..4].copy_from_slice(&length.to_be_bytes());
        self.head[4] = self.verb as u8;
        self.head[5..HEADER].copy_from_slice(&id.to_be_bytes());
        Frame { head: self.head.freeze(), body: self.body }
    }
}

/// The first packet, which carries the version where others have their id.
pub(super) fn init() -> Frame {
    Request::new(Verb::Init).into_frame(VERSION)
}

/// One name of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirEntry {
    /// The name as the server sent it: any bytes at all, checked by nobody yet.
    pub name: Bytes,
    /// What the server tells about it, links not followed.
    pub attributes: Attributes,
}

/// An answer, before it is known what was asked.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Reply {
    Status(Status),
    Handle(Bytes),
    Data(Bytes),
    Names(Vec<DirEntry>),
    Attributes(Attributes),
    Extended(Bytes),
}

/// The outcome of a request that returns nothing, or of one that failed.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Status {
    code: u32,
    text: Bytes,
}

impl Status {
    pub(super) fn is_end_of_file(&self) -> bool {
        self.code == 1
    }

    pub(super) fn into_result(self, verb: Verb) -> Result<(), SftpError> {
        let text = || quote::said(&String::from_utf8_lossy(&self.text));
        match self.code {
            0 => Ok(()),
            2 => Err(SftpError::NoSuchFile),
            3 => Err(SftpError::PermissionDenied),
            4 => Err(SftpError::Failure(text())),
            8 => Err(SftpError::Unsupported(verb.name())),
            code => Err(SftpError::Status { code, text: text() }),
        }
    }
}

/// Decodes a packet that must be a reply: its request's id and its content.
pub(super) fn decode_reply(packet: Bytes) -> Result<(u32, Reply), ProtocolError> {
    let mut reader = Reader::new(packet);
    let kind = reader.u8()?;
    let id = reader.u32()?;
    let reply = match kind {
        101 => Reply::Status(decode_status(&mut reader)?),
        102 => Reply::Handle(decode_handle(&mut reader)?),
        103 => Reply::Data(reader.string()?),
        104 => Reply::Names(decode_names(&mut reader)?),
        105 => Reply::Attributes(Attributes::decode(&mut reader)?),
        201 => Reply::Extended(reader.rest()),
        other => return Err(ProtocolError::UnknownType(other)),
    };
    Ok((id, reply))
}

fn decode_status(reader: &mut Reader) -> Result<Status, ProtocolError> {
    let code = reader.u32()?;
    // Early servers of this version sent the code alone.
    let text = if reader.is_empty() { Bytes::new() } else { reader.string()? };
    Ok(Status { code, text })
}

fn decode_handle(reader: &mut Reader) -> Result<Bytes, ProtocolError> {
    let handle = reader.string()?;
    if (1..=MAX_HANDLE).contains(&handle.len()) { Ok(handle) } else { Err(ProtocolError::Handle(handle.len())) }
}

fn decode_names(reader: &mut Reader) -> Result<Vec<DirEntry>, ProtocolError> {
    // No capacity from the count: it is the server's claim, the packet's length is the bound.
    let mut names = Vec::new();
    for _ in 0..reader.u32()? {
        let name = reader.string()?;
        reader.string()?; // a line as `ls -l` prints it, for people
        names.push(DirEntry { name, attributes: Attributes::decode(reader)? });
    }
    Ok(names)
}

/// Decodes the answer to `init`: the names and versions of the extensions offered.
pub(super) fn decode_version(packet: Bytes) -> Result<Vec<(Bytes, Bytes)>, ProtocolError> {
    let mut reader = Reader::new(packet);
    match reader.u8()? {
        2 => {}
        other => return Err(ProtocolError::UnknownType(other)),
    }
    match reader.u32()? {
        VERSION => {}
        other => return Err(ProtocolError::Version(other)),
    }
    let mut extensions = Vec::new();
    while !reader.is_empty() {
        extensions.push((reader.string()?, reader.string()?));
    }
    Ok(extensions)
}
