//! The typed requests.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, Shared};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

use super::mux::{Answer, Mux};
use super::packet::{Reply, Request, Verb, decode_version, init};
use super::wire::{Reader, check_length, is_text};
use super::{Attributes, DirEntry, Handle, OpenFlags, ProtocolError, SftpError};
use crate::ssh::quote;

/// Most bytes that are read of a text that comes in place of the first packet.
const MAX_TEXT: usize = 2048;
/// How long the rest of its first line may take.
const REST_OF_LINE: Duration = Duration::from_secs(1);

/// An SFTP session.
///
/// Clones share it. Every method takes `&self` and any number may be under way at once: requests leave in the order
/// in which they are made, replies come back in any order. A method that is cancelled before its request is queued
/// sends nothing; after that the request is carried out and its reply discarded, a handle among it closed. Requests
/// have no time limit of their own. Dropping the last clone ends the session once everything queued was sent.
///
/// Paths are bytes; relative ones start from where the server starts, which is the login directory.
#[derive(Clone)]
pub struct Sftp {
    mux: Mux,
    offered: [bool; Extension::ALL.len()],
    limits: Shared<BoxFuture<'static, Limits>>,
}

/// A request that has its place in the queue: whatever is asked for later reaches the server behind it.
///
/// Awaiting it gives the outcome; dropped, the request is carried out all the same.
pub(crate) type Queued<T> = BoxFuture<'static, Result<T, SftpError>>;

/// Extensions that this client knows how to use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extension {
    /// `posix-rename@openssh.com`: a rename that replaces its target at once.
    PosixRename,
    /// `fsync@openssh.com`: an open file forced to the disk.
    Fsync,
    /// `limits@openssh.com`: the lengths that the server takes.
    Limits,
    /// `expand-path@openssh.com`: `~` and `~user` at the start of a path.
    ExpandPath,
    /// `statvfs@openssh.com`: what is left of a file system.
    Statvfs,
    /// `lsetstat@openssh.com`: attributes of a link itself.
    Lsetstat,
}

impl Extension {
    const ALL: [Self; 6] =
        [Self::PosixRename, Self::Fsync, Self::Limits, Self::ExpandPath, Self::Statvfs, Self::Lsetstat];

    fn name(self) -> &'static str {
        match self {
            Self::PosixRename => "posix-rename@openssh.com",
            Self::Fsync => "fsync@openssh.com",
            Self::Limits => "limits@openssh.com",
            Self::ExpandPath => "expand-path@openssh.com",
            Self::Statvfs => "statvfs@openssh.com",
            Self::Lsetstat => "lsetstat@openssh.com",
        }
    }

    /// Another version would have another meaning.
    fn version(self) -> &'static str {
        if self == Self::Statvfs { "2" } else { "1" }
    }
}

/// The lengths that the server takes, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Most bytes that one read returns.
    pub read: u32,
    /// Most bytes in one write.
    pub write: u32,
    /// Most handles open at once, when the server told.
    pub handles: Option<u64>,
}

/// What is left of a file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// Bytes that a user without privileges may still use.
    pub bytes: u64,
    /// Files that such a user may still make, when they are counted.
    pub files: Option<u64>,
    /// Whether nothing can be written at all.
    pub is_read_only: bool,
}

impl Space {
    /// `SSH2_FXE_STATVFS_ST_RDONLY`.
    const READ_ONLY: u64 = 1;

    fn decode(bytes: Bytes) -> Result<Self, ProtocolError> {
        let mut reader = Reader::new(bytes);
        let mut fields = [0; 11];
        for field in &mut fields {
            *field = reader.u64()?;
        }
        let [_, fragment, _, _, blocks, all_files, _, files, _, flags, _] = fields;
        Ok(Self {
            bytes: blocks.saturating_mul(fragment),
            files: (all_files > 0).then_some(files),
            is_read_only: flags & Self::READ_ONLY != 0,
        })
    }
}

impl Default for Limits {
    /// What the draft obliges every server to take.
    fn default() -> Self {
        Self { read: Self::LEAST, write: Self::LEAST, handles: None }
    }
}

impl Limits {
    const LEAST: u32 = 32 * 1024;
    /// A reply with this much data still fits in the longest packet accepted, and a write in OpenSSH's.
    const MOST: u32 = 255 * 1024;

    fn decode(bytes: Bytes) -> Result<Self, ProtocolError> {
        let mut reader = Reader::new(bytes);
        let (_packet, read, write, handles) = (reader.u64()?, reader.u64()?, reader.u64()?, reader.u64()?);
        // Zero stands for "not told". A server that claims to take less than a useful amount is believed.
        let length = |told: u64| match u32::try_from(told) {
            Ok(0) => Self::LEAST,
            Ok(told) => told.min(Self::MOST),
            Err(_) => Self::MOST,
        };
        Ok(Self { read: length(read), write: length(write), handles: Some(handles).filter(|told| *told > 0) })
    }
}

impl Sftp {
    /// Starts a session on `stream`, the open `sftp` subsystem; one round trip.
    ///
    /// It waits for as long as the stream lives. Cancelling it drops the stream. Needs a tokio runtime, on which the
    /// task that owns the stream runs until the session ends.
    pub async fn new<S>(mut stream: S) -> Result<Self, SftpError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        stream.write_all(&init().head).await?;
        stream.flush().await?;
        let extensions = decode_version(read_first_packet(&mut stream).await?)?;
        let offered = Extension::ALL
            .map(|known| extensions.iter().any(|(name, version)| name == known.name() && version == known.version()));
        let mux = Mux::spawn(stream);
        let limits = if offered[Extension::Limits as usize] { ask_limits(&mux).await? } else { unasked_limits() };
        Ok(Self { mux, offered, limits })
    }

    /// Whether the server offers `extension`.
    pub fn offers(&self, extension: Extension) -> bool {
        self.offered[extension as usize]
    }

    /// The lengths that the server takes; asked once, when the session starts, so that this seldom waits.
    /// Cancelling it changes nothing.
    pub async fn limits(&self) -> Limits {
        self.limits.clone().await
    }

    /// Opens a file. With `OpenFlags::CREATE`, `attributes` are those of a new file, less the server's umask.
    pub async fn open(&self, path: &[u8], flags: OpenFlags, attributes: &Attributes) -> Result<Handle, SftpError> {
        self.handle(Request::open(path, flags, attributes)).await
    }

    /// Closes a file or directory. An error may be the first word of data that could not be stored. Cancelled, the
    /// handle is closed all the same.
    pub async fn close(&self, handle: Handle) -> Result<(), SftpError> {
        self.queue_close(handle).await?.await
    }

    /// Reads up to `length` bytes at `offset`: fewer when the server gives fewer, none at the end of the file.
    pub async fn read(&self, handle: &Handle, offset: u64, length: u32) -> Result<Bytes, SftpError> {
        self.queue_read(handle, offset, length).await?.await
    }

    /// Writes `data`, no longer than [`Limits::write`], at `offset`.
    pub async fn write(&self, handle: &Handle, offset: u64, data: Bytes) -> Result<(), SftpError> {
        self.status(Request::write(self.mux.raw(handle)?, offset, data)).await
    }

    /// The attributes of what `path` names, links followed.
    pub async fn stat(&self, path: &[u8]) -> Result<Attributes, SftpError> {
        self.attributes(Request::new(Verb::Stat).string(path)).await
    }

    /// The attributes of what `path` names, a link's own.
    pub async fn lstat(&self, path: &[u8]) -> Result<Attributes, SftpError> {
        self.attributes(Request::new(Verb::Lstat).string(path)).await
    }

    /// The attributes of an open file.
    pub async fn fstat(&self, handle: &Handle) -> Result<Attributes, SftpError> {
        self.queue_fstat(handle).await?.await
    }

    /// Sets those of the attributes that are given.
    pub async fn setstat(&self, path: &[u8], attributes: &Attributes) -> Result<(), SftpError> {
        self.status(Request::new(Verb::Setstat).string(path).attributes(attributes)).await
    }

    /// Sets those of the attributes that are given; a link's own.
    pub async fn lsetstat(&self, path: &[u8], attributes: &Attributes) -> Result<(), SftpError> {
        self.status(self.extended(Extension::Lsetstat)?.string(path).attributes(attributes)).await
    }

    /// Sets those of an open file's attributes that are given.
    pub async fn fsetstat(&self, handle: &Handle, attributes: &Attributes) -> Result<(), SftpError> {
        self.queue_fsetstat(handle, attributes).await?.await
    }

    /// Opens a directory for [`Sftp::read_dir`].
    pub async fn open_dir(&self, path: &[u8]) -> Result<Handle, SftpError> {
        self.handle(Request::new(Verb::Opendir).string(path)).await
    }

    /// The next names of a directory, `.` and `..` among them; `None` after the last.
    pub async fn read_dir(&self, handle: &Handle) -> Result<Option<Vec<DirEntry>>, SftpError> {
        match self.mux.call(Request::new(Verb::Readdir).string(self.mux.raw(handle)?)).await? {
            Answer::Other(Reply::Names(names)) if names.is_empty() => {
                Err(self.mux.condemn(ProtocolError::EmptyListing))
            }
            Answer::Other(Reply::Names(names)) => Ok(Some(names)),
            Answer::Other(Reply::Status(status)) if status.is_end_of_file() => Ok(None),
            other => Err(self.unexpected(other, Verb::Readdir)),
        }
    }

    /// Makes a directory.
    pub async fn mkdir(&self, path: &[u8], attributes: &Attributes) -> Result<(), SftpError> {
        self.status(Request::new(Verb::Mkdir).string(path).attributes(attributes)).await
    }

    /// Removes an empty directory.
    pub async fn rmdir(&self, path: &[u8]) -> Result<(), SftpError> {
        self.status(Request::new(Verb::Rmdir).string(path)).await
    }

    /// Removes a file or a link.
    pub async fn remove(&self, path: &[u8]) -> Result<(), SftpError> {
        self.status(Request::new(Verb::Remove).string(path)).await
    }

    /// Renames; fails when `to` exists.
    pub async fn rename(&self, from: &[u8], to: &[u8]) -> Result<(), SftpError> {
        self.status(Request::new(Verb::Rename).string(from).string(to)).await
    }

    /// Renames, replacing `to` at once, as rename(2) does.
    pub async fn posix_rename(&self, from: &[u8], to: &[u8]) -> Result<(), SftpError> {
        self.queue_posix_rename(from, to).await?.await
    }

    /// Forces an open file to the disk.
    pub async fn fsync(&self, handle: &Handle) -> Result<(), SftpError> {
        self.queue_fsync(handle).await?.await
    }

    /// The absolute path, with links and `..` resolved.
    pub async fn realpath(&self, path: &[u8]) -> Result<Bytes, SftpError> {
        self.name(Request::new(Verb::Realpath).string(path)).await
    }

    /// The absolute path, `~` and `~user` at its start expanded.
    pub async fn expand_path(&self, path: &[u8]) -> Result<Bytes, SftpError> {
        self.name(self.extended(Extension::ExpandPath)?.string(path)).await
    }

    /// What is left of the file system that holds `path`.
    pub async fn statvfs(&self, path: &[u8]) -> Result<Space, SftpError> {
        let request = self.extended(Extension::Statvfs)?.string(path);
        match self.mux.call(request).await? {
            Answer::Other(Reply::Extended(bytes)) => Space::decode(bytes).map_err(|error| self.mux.condemn(error)),
            other => Err(self.unexpected(other, Verb::Extended)),
        }
    }

    /// Where a link points to.
    pub async fn readlink(&self, path: &[u8]) -> Result<Bytes, SftpError> {
        self.name(Request::new(Verb::Readlink).string(path)).await
    }

    /// Makes a link at `link` that points to `target`.
    pub async fn symlink(&self, target: &[u8], link: &[u8]) -> Result<(), SftpError> {
        self.status(Request::symlink(target, link)).await
    }

    fn extended(&self, extension: Extension) -> Result<Request, SftpError> {
        let name = extension.name();
        if self.offers(extension) { Ok(Request::extended(name)) } else { Err(SftpError::Unsupported(name)) }
    }

    pub(crate) async fn queue_close(&self, handle: Handle) -> Result<Queued<()>, SftpError> {
        let queued = self.queue_status(Request::new(Verb::Close).string(self.mux.raw(&handle)?)).await?;
        handle.disarm();
        Ok(queued)
    }

    pub(crate) async fn queue_read(
        &self,
        handle: &Handle,
        offset: u64,
        length: u32,
    ) -> Result<Queued<Bytes>, SftpError> {
        let answer = self.mux.send(Request::read(self.mux.raw(handle)?, offset, length)).await?;
        let this = self.clone();
        let data = async move {
            match answer.await.unwrap_or(Err(SftpError::Ended))? {
                Answer::Other(Reply::Data(data)) if data.len() > length as usize => {
                    Err(this.mux.condemn(ProtocolError::TooMuchData { asked: length, got: data.len() }))
                }
                Answer::Other(Reply::Data(data)) => Ok(data),
                Answer::Other(Reply::Status(status)) if status.is_end_of_file() => Ok(Bytes::new()),
                other => Err(this.unexpected(other, Verb::Read)),
            }
        };
        Ok(data.boxed())
    }

    /// As `write`, once the request is queued: what is queued after it is carried out after it.
    pub(crate) async fn queue_write(&self, handle: &Handle, offset: u64, data: Bytes) -> Result<Queued<()>, SftpError> {
        self.queue_status(Request::write(self.mux.raw(handle)?, offset, data)).await
    }

    pub(crate) async fn queue_fstat(&self, handle: &Handle) -> Result<Queued<Attributes>, SftpError> {
        let answer = self.mux.send(Request::new(Verb::Fstat).string(self.mux.raw(handle)?)).await?;
        let this = self.clone();
        Ok(async move { this.attributes_in(answer.await.unwrap_or(Err(SftpError::Ended))?, Verb::Fstat) }.boxed())
    }

    pub(crate) async fn queue_fsetstat(
        &self,
        handle: &Handle,
        attributes: &Attributes,
    ) -> Result<Queued<()>, SftpError> {
        self.queue_status(Request::new(Verb::Fsetstat).string(self.mux.raw(handle)?).attributes(attributes)).await
    }

    pub(crate) async fn queue_fsync(&self, handle: &Handle) -> Result<Queued<()>, SftpError> {
        self.queue_status(self.extended(Extension::Fsync)?.string(self.mux.raw(handle)?)).await
    }

    pub(crate) async fn queue_posix_rename(&self, from: &[u8], to: &[u8]) -> Result<Queued<()>, SftpError> {
        self.queue_status(self.extended(Extension::PosixRename)?.string(from).string(to)).await
    }

    async fn queue_status(&self, request: Request) -> Result<Queued<()>, SftpError> {
        let verb = request.verb();
        let answer = self.mux.send(request).await?;
        let this = self.clone();
        let outcome = async move {
            match answer.await.unwrap_or(Err(SftpError::Ended))? {
                Answer::Other(Reply::Status(status)) => status.into_result(verb),
                other => Err(this.unexpected(other, verb)),
            }
        };
        Ok(outcome.boxed())
    }

    async fn status(&self, request: Request) -> Result<(), SftpError> {
        self.queue_status(request).await?.await
    }

    async fn handle(&self, request: Request) -> Result<Handle, SftpError> {
        let verb = request.verb();
        match self.mux.call(request).await? {
            Answer::Handle(handle) => Ok(handle),
            other @ Answer::Other(_) => Err(self.unexpected(other, verb)),
        }
    }

    async fn attributes(&self, request: Request) -> Result<Attributes, SftpError> {
        let verb = request.verb();
        self.attributes_in(self.mux.call(request).await?, verb)
    }

    fn attributes_in(&self, answer: Answer, verb: Verb) -> Result<Attributes, SftpError> {
        match answer {
            Answer::Other(Reply::Attributes(attributes)) => Ok(attributes),
            other => Err(self.unexpected(other, verb)),
        }
    }

    async fn name(&self, request: Request) -> Result<Bytes, SftpError> {
        let verb = request.verb();
        match self.mux.call(request).await? {
            Answer::Other(Reply::Names(mut names)) if names.len() == 1 => Ok(names.remove(0).name),
            other => Err(self.unexpected(other, verb)),
        }
    }

    /// The error in an answer that is not the one hoped for: the server's status, or a wrong type.
    fn unexpected(&self, answer: Answer, verb: Verb) -> SftpError {
        let refused = match answer {
            Answer::Other(Reply::Status(status)) => status.into_result(verb).err(),
            _ => None,
        };
        refused.unwrap_or_else(|| self.mux.condemn(ProtocolError::WrongReply(verb.name())))
    }
}

impl fmt::Debug for Sftp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let offered = Extension::ALL.into_iter().filter(|extension| self.offers(*extension));
        f.debug_struct("Sftp").field("offered", &offered.collect::<Vec<_>>()).finish_non_exhaustive()
    }
}

async fn read_first_packet<S: AsyncRead + Unpin>(stream: &mut S) -> Result<Bytes, SftpError> {
    let mut field = [0; 4];
    if let Err(error) = stream.read_exact(&mut field).await {
        return Err(match SftpError::from(error) {
            SftpError::Ended => SftpError::NotStarted,
            other => other,
        });
    }
    if is_text(field) {
        return Err(ProtocolError::TextOnStream(read_line(field, stream).await).into());
    }
    let mut packet = vec![0; check_length(field)?];
    stream.read_exact(&mut packet).await?;
    Ok(packet.into())
}

/// The first line of the text that begins with `field`, as much of it as comes in time. Blank lines before it do not count.
async fn read_line<S: AsyncRead + Unpin>(field: [u8; 4], stream: &mut S) -> String {
    let mut text = field.to_vec();
    let reading = async {
        while text.len() < MAX_TEXT && !text.trim_ascii_start().contains(&b'\n') {
            match stream.read_u8().await {
                Ok(byte) => text.push(byte),
                Err(_) => break,
            }
        }
    };
    // Whoever prints a prompt waits after it.
    let _ = timeout(REST_OF_LINE, reading).await;
    let line = text.trim_ascii().split(|byte| *byte == b'\n').next().unwrap_or_default();
    quote::said(&String::from_utf8_lossy(line.trim_ascii()))
}

/// Sends the question now and leaves the answer to whoever needs it first: it costs no round trip of its own.
async fn ask_limits(mux: &Mux) -> Result<Shared<BoxFuture<'static, Limits>>, SftpError> {
    let reply = mux.send(Request::extended(Extension::Limits.name())).await?;
    let limits = async move {
        match reply.await {
            Ok(Ok(Answer::Other(Reply::Extended(bytes)))) => Limits::decode(bytes).unwrap_or_default(),
            _ => Limits::default(),
        }
    };
    Ok(limits.boxed().shared())
}

fn unasked_limits() -> Shared<BoxFuture<'static, Limits>> {
    std::future::ready(Limits::default()).boxed().shared()
}
