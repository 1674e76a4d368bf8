//! File attributes: as they are on the wire, and in the file system.

use std::{
    fs::Metadata,
    io,
    os::{
        fd::AsFd,
        unix::fs::{MetadataExt, PermissionsExt},
    },
    path::Path,
};

use bytes::{BufMut, BytesMut};
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, futimens, utimensat};

use super::codec::{Reader, Result};

const SIZE: u32 = 1;
const OWNER: u32 = 2;
const PERMISSIONS: u32 = 4;
const TIMES: u32 = 8;
const EXTENDED: u32 = 0x8000_0000;

/// What a packet says about a file; what it does not say is absent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Attributes {
    size: Option<u64>,
    owner: Option<(u32, u32)>,
    pub(super) permissions: Option<u32>,
    /// Access and modification, in seconds.
    times: Option<(u32, u32)>,
}

impl From<Metadata> for Attributes {
    fn from(metadata: Metadata) -> Self {
        let seconds = |time: i64| u32::try_from(time).unwrap_or(0);
        Self {
            size: Some(metadata.size()),
            owner: Some((metadata.uid(), metadata.gid())),
            permissions: Some(metadata.mode()),
            times: Some((seconds(metadata.atime()), seconds(metadata.mtime()))),
        }
    }
}

impl Attributes {
    pub(super) fn decode(reader: &mut Reader<'_>) -> Result<Self> {
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
            for _ in 0..reader.u32()? {
                reader.string()?;
                reader.string()?;
            }
        }
        Ok(attributes)
    }

    pub(super) fn encode(&self, packet: &mut BytesMut) {
        let flag = |present: bool, flag: u32| if present { flag } else { 0 };
        packet.put_u32(
            flag(self.size.is_some(), SIZE)
                | flag(self.owner.is_some(), OWNER)
                | flag(self.permissions.is_some(), PERMISSIONS)
                | flag(self.times.is_some(), TIMES),
        );
        if let Some(size) = self.size {
            packet.put_u64(size);
        }
        if let Some((user, group)) = self.owner {
            packet.put_u32(user);
            packet.put_u32(group);
        }
        if let Some(mode) = self.permissions {
            packet.put_u32(mode);
        }
        if let Some((access, modification)) = self.times {
            packet.put_u32(access);
            packet.put_u32(modification);
        }
    }

    /// Gives an open file these attributes.
    pub(super) fn apply_to_file(&self, file: &std::fs::File) -> Result<()> {
        if let Some(size) = self.size {
            file.set_len(size)?;
        }
        if let Some((user, group)) = self.owner {
            std::os::unix::fs::fchown(file, Some(user), Some(group))?;
        }
        if let Some(mode) = self.permissions {
            file.set_permissions(PermissionsExt::from_mode(mode & 0o7777))?;
        }
        if let Some(times) = self.times {
            futimens(file.as_fd(), &timestamps(times))?;
        }
        Ok(())
    }

    /// Gives the file at `path` these attributes. Of a link itself, owner and times can be changed, nothing else.
    pub(super) fn apply_to_path(&self, path: &Path, follow: bool) -> Result<()> {
        if follow {
            if let Some(size) = self.size {
                std::fs::OpenOptions::new().write(true).open(path)?.set_len(size)?;
            }
            if let Some(mode) = self.permissions {
                std::fs::set_permissions(path, PermissionsExt::from_mode(mode & 0o7777))?;
            }
        }
        if let Some((user, group)) = self.owner {
            let change = if follow { std::os::unix::fs::chown } else { std::os::unix::fs::lchown };
            change(path, Some(user), Some(group))?;
        }
        if let Some(times) = self.times {
            let flags = if follow { AtFlags::empty() } else { AtFlags::SYMLINK_NOFOLLOW };
            utimensat(CWD, path, &timestamps(times), flags)?;
        }
        Ok(())
    }

    /// A line as `ls -l` prints it, which some clients show.
    pub(super) fn long_name(&self, name: &[u8]) -> Vec<u8> {
        let mode = self.permissions.unwrap_or_default();
        let (user, group) = self.owner.unwrap_or_default();
        let size = self.size.unwrap_or_default();
        let mut line = format!("{} 1 {user:<8} {group:<8} {size:>8} Jan  1  1970 ", mode_text(mode)).into_bytes();
        line.extend_from_slice(name);
        line
    }
}

fn timestamps((access, modification): (u32, u32)) -> Timestamps {
    let time = |seconds: u32| Timespec { tv_sec: seconds.into(), tv_nsec: 0 };
    Timestamps { last_access: time(access), last_modification: time(modification) }
}

fn mode_text(mode: u32) -> String {
    let kind = match mode & 0o170_000 {
        0o040_000 => 'd',
        0o120_000 => 'l',
        _ => '-',
    };
    let bits = "rwxrwxrwx".chars().enumerate();
    std::iter::once(kind)
        .chain(bits.map(|(bit, letter)| if mode & (0o400 >> bit) == 0 { '-' } else { letter }))
        .collect()
}

/// Reading a directory gives attributes where it can: an entry may be gone by now.
pub(super) fn of_entry(path: &Path) -> io::Result<Attributes> {
    std::fs::symlink_metadata(path).map(Attributes::from)
}
