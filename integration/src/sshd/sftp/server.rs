//! One SFTP session's requests, each answered from the file system.

use std::{
    collections::HashMap,
    fs::{self, DirBuilder, File, OpenOptions, ReadDir},
    io,
    os::unix::{
        ffi::OsStrExt,
        fs::{DirBuilderExt, FileExt, OpenOptionsExt},
    },
    path::{Path, PathBuf},
};

use bytes::{Bytes, BytesMut};

use super::{
    attributes::{self, Attributes},
    codec::{self, Answer, Reader, Result, Status, request},
};

const EXTENSIONS: [&str; 6] = [
    "posix-rename@openssh.com",
    "hardlink@openssh.com",
    "fsync@openssh.com",
    "lsetstat@openssh.com",
    "limits@openssh.com",
    "expand-path@openssh.com",
];

/// A packet less the fields around the data (OpenSSH: `SFTP_MAX_READ_LENGTH`).
const MAX_DATA: u32 = super::MAX_PACKET - 1024;
const MAX_HANDLES: usize = 1000;
/// Names in one answer of READDIR.
const NAMES: usize = 100;

/// `SSH_FXF_*`.
const READ: u32 = 1;
const WRITE: u32 = 2;
const APPEND: u32 = 4;
const CREATE: u32 = 8;
const TRUNCATE: u32 = 16;
const EXCLUSIVE: u32 = 32;

/// The state of one session: its open files.
#[derive(Debug)]
pub(super) struct Server {
    home: PathBuf,
    handles: HashMap<u32, Handle>,
    next_handle: u32,
}

#[derive(Debug)]
enum Handle {
    File(File),
    Directory { path: PathBuf, entries: ReadDir, dots: bool },
}

impl Server {
    pub(super) fn new(home: PathBuf) -> Self {
        Self { home, handles: HashMap::new(), next_handle: 0 }
    }

    /// The answer to one packet.
    pub(super) fn answer(&mut self, packet: &[u8]) -> Bytes {
        let mut reader = Reader(packet);
        let (kind, id) = (reader.u8().unwrap_or_default(), reader.u32().unwrap_or_default());
        if kind == request::INIT {
            codec::version(&EXTENSIONS)
        } else {
            codec::encode(id, self.handle(kind, &mut reader))
        }
    }

    fn handle(&mut self, kind: u8, reader: &mut Reader<'_>) -> Result<Answer> {
        match kind {
            request::OPEN => self.open(reader),
            request::CLOSE => {
                self.handles.remove(&reader.handle()?).map(|_| Answer::Done).ok_or(Status::Failure.into())
            }
            request::READ => self.read(reader),
            request::WRITE => self.write(reader),
            request::FSTAT => Ok(Answer::Attributes(self.file(reader.handle()?)?.metadata()?.into())),
            request::FSETSTAT => {
                let handle = reader.handle()?;
                done(Attributes::decode(reader)?.apply_to_file(self.file(handle)?))
            }
            request::OPENDIR => self.open_directory(reader),
            request::READDIR => self.read_directory(reader),
            request::EXTENDED => self.extended(reader),
            // The draft has the link first; OpenSSH, and so everybody, sends the target first.
            request::SYMLINK => {
                let target = reader.path()?;
                done(std::os::unix::fs::symlink(target, self.resolve(reader.path()?)))
            }
            _ => self.handle_path(kind, reader),
        }
    }

    /// The requests that begin with a path.
    fn handle_path(&self, kind: u8, reader: &mut Reader<'_>) -> Result<Answer> {
        let path = self.resolve(reader.path()?);
        match kind {
            request::LSTAT => Ok(Answer::Attributes(fs::symlink_metadata(path)?.into())),
            request::STAT => Ok(Answer::Attributes(fs::metadata(path)?.into())),
            request::SETSTAT => done(Attributes::decode(reader)?.apply_to_path(&path, true)),
            request::REMOVE => done(fs::remove_file(path)),
            request::MKDIR => {
                let mode = Attributes::decode(reader)?.permissions.unwrap_or(0o777) & 0o7777;
                done(DirBuilder::new().mode(mode).create(path))
            }
            request::RMDIR => done(fs::remove_dir(path)),
            request::REALPATH => real_path(&path),
            request::RENAME => rename(&path, &self.resolve(reader.path()?)),
            request::READLINK => Ok(one_name(fs::read_link(path)?.as_os_str().as_bytes())),
            _ => Err(Status::Unsupported.into()),
        }
    }

    fn resolve(&self, path: &Path) -> PathBuf {
        self.home.join(path)
    }

    fn file(&self, handle: u32) -> Result<&File> {
        match self.handles.get(&handle) {
            Some(Handle::File(file)) => Ok(file),
            _ => Err(Status::Failure.into()),
        }
    }

    fn keep(&mut self, handle: Handle) -> Result<Answer> {
        if self.handles.len() >= MAX_HANDLES {
            return Err(Status::Failure.into());
        }
        self.next_handle += 1;
        self.handles.insert(self.next_handle, handle);
        Ok(Answer::Handle(self.next_handle))
    }

    fn open(&mut self, reader: &mut Reader<'_>) -> Result<Answer> {
        let (path, flags) = (self.resolve(reader.path()?), reader.u32()?);
        let mode = Attributes::decode(reader)?.permissions.unwrap_or(0o666) & 0o7777;
        let is = |flag: u32| flags & flag != 0;
        let file = OpenOptions::new()
            .read(is(READ))
            .write(is(WRITE))
            .append(is(APPEND))
            .create(is(CREATE))
            .truncate(is(TRUNCATE) && !is(APPEND))
            .create_new(is(CREATE) && is(EXCLUSIVE))
            .mode(mode)
            .open(path)?;
        self.keep(Handle::File(file))
    }

    fn read(&self, reader: &mut Reader<'_>) -> Result<Answer> {
        let (handle, offset, length) = (reader.handle()?, reader.u64()?, reader.u32()?);
        let mut data = BytesMut::zeroed(length.min(MAX_DATA) as usize);
        match self.file(handle)?.read_at(&mut data, offset)? {
            0 if length > 0 => Err(Status::Eof.into()),
            count => {
                data.truncate(count);
                Ok(Answer::Data(data))
            }
        }
    }

    fn write(&self, reader: &mut Reader<'_>) -> Result<Answer> {
        let (handle, offset) = (reader.handle()?, reader.u64()?);
        done(self.file(handle)?.write_all_at(reader.string()?, offset))
    }

    fn open_directory(&mut self, reader: &mut Reader<'_>) -> Result<Answer> {
        let path = self.resolve(reader.path()?);
        let entries = fs::read_dir(&path)?;
        self.keep(Handle::Directory { path, entries, dots: true })
    }

    fn read_directory(&mut self, reader: &mut Reader<'_>) -> Result<Answer> {
        let Some(Handle::Directory { path, entries, dots }) = self.handles.get_mut(&reader.handle()?) else {
            return Err(Status::Failure.into());
        };
        let mut names = Vec::new();
        if std::mem::take(dots) {
            for name in [".", ".."] {
                names.push((name.into(), attributes::of_entry(&path.join(name)).unwrap_or_default()));
            }
        }
        for entry in entries.take(NAMES) {
            let entry = entry?;
            let attributes = attributes::of_entry(&entry.path()).unwrap_or_default();
            names.push((entry.file_name().as_bytes().to_vec(), attributes));
        }
        if names.is_empty() { Err(Status::Eof.into()) } else { Ok(Answer::Names(names)) }
    }

    fn extended(&self, reader: &mut Reader<'_>) -> Result<Answer> {
        match reader.string()? {
            b"posix-rename@openssh.com" => done(fs::rename(self.resolve(reader.path()?), self.resolve(reader.path()?))),
            b"hardlink@openssh.com" => done(fs::hard_link(self.resolve(reader.path()?), self.resolve(reader.path()?))),
            b"fsync@openssh.com" => done(self.file(reader.handle()?)?.sync_all()),
            b"lsetstat@openssh.com" => {
                let path = self.resolve(reader.path()?);
                done(Attributes::decode(reader)?.apply_to_path(&path, false))
            }
            b"limits@openssh.com" => {
                let data = u64::from(MAX_DATA);
                Ok(Answer::Numbers(vec![super::MAX_PACKET.into(), data, data, MAX_HANDLES as u64]))
            }
            b"expand-path@openssh.com" => real_path(&self.expand(reader.path()?)),
            _ => Err(Status::Unsupported.into()),
        }
    }

    /// `~` alone or before a slash is the home directory; other users' have no meaning here.
    fn expand(&self, path: &Path) -> PathBuf {
        self.home.join(path.strip_prefix("~").unwrap_or(path))
    }
}

fn done<E>(result: std::result::Result<(), E>) -> Result<Answer>
where
    codec::Refusal: From<E>,
{
    Ok(result.map(|()| Answer::Done)?)
}

fn one_name(name: &[u8]) -> Answer {
    Answer::Names(vec![(name.to_vec(), Attributes::default())])
}

/// Resolves links and dots; the last component need not exist.
fn real_path(path: &Path) -> Result<Answer> {
    let real = path.canonicalize().or_else(|error| match (path.parent(), path.file_name()) {
        (Some(parent), Some(name)) if error.kind() == io::ErrorKind::NotFound => Ok(parent.canonicalize()?.join(name)),
        _ => Err(error),
    })?;
    Ok(one_name(real.as_os_str().as_bytes()))
}

/// As version 3 has it: never over something that exists.
fn rename(from: &Path, to: &Path) -> Result<Answer> {
    if fs::symlink_metadata(to).is_ok() {
        return Err(Status::Failure.into());
    }
    done(fs::rename(from, to))
}
