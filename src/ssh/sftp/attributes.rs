//! File attributes as version 3 has them: every field may be missing.

use bytes::{BufMut, BytesMut};

use super::ProtocolError;
use super::wire::Reader;

const SIZE: u32 = 0x0000_0001;
const OWNER: u32 = 0x0000_0002;
const PERMISSIONS: u32 = 0x0000_0004;
const TIMES: u32 = 0x0000_0008;
const EXTENDED: u32 = 0x8000_0000;

const KIND_MASK: u32 = 0o170_000;

/// What a server says, or is told, about a file. A missing field is unknown, or left as it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Attributes {
    /// Size in bytes.
    pub size: Option<u64>,
    /// Numeric user and group.
    pub owner: Option<(u32, u32)>,
    /// Permission bits, and the file's kind when a server reports them.
    pub permissions: Option<u32>,
    /// Time of last access and of last modification, in seconds since 1970.
    pub times: Option<(u32, u32)>,
}

/// What a name stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A pipe, a socket or a device.
    Special,
}

impl FileKind {
    /// The kind that the upper bits of a mode tell, if they tell one.
    pub fn of_mode(mode: u32) -> Option<Self> {
        match mode & KIND_MASK {
            0 => None,
            0o100_000 => Some(Self::File),
            0o040_000 => Some(Self::Directory),
            0o120_000 => Some(Self::Symlink),
            _ => Some(Self::Special),
        }
    }
}

impl Attributes {
    /// Attributes that set the permission bits and nothing else.
    pub fn with_permissions(mode: u32) -> Self {
        Self { permissions: Some(mode), ..Self::default() }
    }

    /// The file's kind, when the server told the permissions.
    pub fn kind(&self) -> Option<FileKind> {
        self.permissions.and_then(FileKind::of_mode)
    }

    pub(super) fn encode(&self, out: &mut BytesMut) {
        let flag = |present: bool, flag: u32| if present { flag } else { 0 };
        out.put_u32(
            flag(self.size.is_some(), SIZE)
                | flag(self.owner.is_some(), OWNER)
                | flag(self.permissions.is_some(), PERMISSIONS)
                | flag(self.times.is_some(), TIMES),
        );
        if let Some(size) = self.size {
            out.put_u64(size);
        }
        if let Some((user, group)) = self.owner {
            out.put_u32(user);
            out.put_u32(group);
        }
        if let Some(mode) = self.permissions {
            out.put_u32(mode);
        }
        if let Some((accessed, modified)) = self.times {
            out.put_u32(accessed);
            out.put_u32(modified);
        }
    }

    pub(super) fn decode(reader: &mut Reader) -> Result<Self, ProtocolError> {
        let flags = reader.u32()?;
        let mut attributes = Self::default();
        if flags & SIZE != 0 {
            attributes.size = Some(reader.u64()?);
        }
        if flags & OWNER != 0 {
            attributes.owner = Some((reader.u32()?, reader.u32()?));
        }
        if flags & PERMISSIONS != 0 {
            attributes.permissions = Some(reader.u32()?);
        }
        if flags & TIMES != 0 {
            attributes.times = Some((reader.u32()?, reader.u32()?));
        }
        if flags & EXTENDED != 0 {
            skip_extended(reader)?;
        }
        Ok(attributes)
    }
}

fn skip_extended(reader: &mut Reader) -> Result<(), ProtocolError> {
    // Each pair takes at least eight bytes of the packet, so a false count ends in `Truncated`.
    for _ in 0..reader.u32()? {
        reader.string()?;
        reader.string()?;
    }
    Ok(())
}
