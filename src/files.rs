//! Small files that somebody else may have prepared: keys, known hosts, records, certificates.
//!
//! A file is judged by its descriptor, after links were followed and the file was opened, so that nothing can be swapped in
//! between. Opening neither waits for the other end of a FIFO nor takes a terminal, and no more than a limit is ever read.

use std::{
    fs::{File, FileType, Metadata},
    io::{self, Read},
    os::unix::fs::{FileTypeExt, MetadataExt},
    path::Path,
};

use rustix::fs::{Mode, OFlags};
use zeroize::Zeroizing;

/// Permission bits with setuid, setgid and sticky.
const ALL_BITS: u32 = 0o7777;
const OTHERS_WRITE: u32 = 0o022;

/// Why a file is not read.
#[derive(Debug)]
pub(crate) enum FileFault {
    /// What the system says.
    Io(io::Error),
    /// It is not a regular file: `a directory`, `a FIFO`, and so on.
    NotAFile(&'static str),
    /// It has more bytes than the limit.
    TooLarge,
}

impl FileFault {
    pub(crate) fn is_missing(&self) -> bool {
        let missing = [io::ErrorKind::NotFound, io::ErrorKind::NotADirectory];
        matches!(self, Self::Io(error) if missing.contains(&error.kind()))
    }
}

impl From<FileFault> for io::Error {
    fn from(fault: FileFault) -> Self {
        match fault {
            FileFault::Io(error) => error,
            FileFault::NotAFile(what) => Self::new(io::ErrorKind::InvalidInput, format!("it is {what}, not a file")),
            FileFault::TooLarge => Self::new(io::ErrorKind::FileTooLarge, "it is too large"),
        }
    }
}

/// Whose a file is, and who may do what with it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ownership {
    pub(crate) owner: u32,
    /// The permission bits, with setuid, setgid and sticky.
    pub(crate) mode: u32,
}

impl Ownership {
    pub(crate) fn of(metadata: &Metadata) -> Self {
        Self { owner: metadata.uid(), mode: metadata.mode() & ALL_BITS }
    }

    /// Whether it belongs to this user or to root.
    pub(crate) fn is_trusted(self) -> bool {
        self.owner == 0 || self.owner == rustix::process::geteuid().as_raw()
    }

    /// Whether somebody else may change it: what `StrictModes` of OpenSSH's server refuses.
    pub(crate) fn others_may_write(self) -> bool {
        !self.is_trusted() || self.mode & OTHERS_WRITE != 0
    }
}

/// A regular file that is open to be read.
#[derive(Debug)]
pub(crate) struct Opened {
    file: File,
    pub(crate) ownership: Ownership,
}

impl Opened {
    /// Opens a regular file to read it.
    pub(crate) fn open(path: &Path) -> Result<Self, FileFault> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        let file = rustix::fs::open(path, flags, Mode::empty()).map_err(|errno| FileFault::Io(errno.into()))?;
        Self::judge(file.into())
    }

    /// The same for a file that is open already.
    pub(crate) fn judge(file: File) -> Result<Self, FileFault> {
        let metadata = file.metadata().map_err(FileFault::Io)?;
        if !metadata.is_file() {
            return Err(FileFault::NotAFile(kind_of(metadata.file_type())));
        }
        Ok(Self { file, ownership: Ownership::of(&metadata) })
    }

    /// The first bytes, which stay to be read: as many as `limit` at most.
    #[cfg(feature = "cli")]
    pub(crate) fn peek(&self, limit: usize) -> Result<Vec<u8>, FileFault> {
        let mut begin = vec![0; limit];
        let length = std::os::unix::fs::FileExt::read_at(&self.file, &mut begin, 0).map_err(FileFault::Io)?;
        begin.truncate(length);
        Ok(begin)
    }

    /// All of it, if that is at most `limit` bytes. The buffer never grows beyond what was reserved for it at first, so no
    /// copy of a secret is left behind.
    pub(crate) fn read(&mut self, limit: usize) -> Result<Zeroizing<Vec<u8>>, FileFault> {
        let size = self.file.metadata().map_err(FileFault::Io)?.len();
        let room = usize::try_from(size).unwrap_or(usize::MAX).min(limit).max(limit.min(64 * 1024)) + 1;
        let mut content = Zeroizing::new(Vec::with_capacity(room));
        let most = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
        self.file.by_ref().take(most).read_to_end(&mut content).map_err(FileFault::Io)?;
        if content.len() > limit { Err(FileFault::TooLarge) } else { Ok(content) }
    }
}

/// What messages call something that is not a regular file.
pub(crate) fn kind_of(kind: FileType) -> &'static str {
    if kind.is_dir() {
        "a directory"
    } else if kind.is_fifo() {
        "a FIFO"
    } else if kind.is_socket() {
        "a socket"
    } else {
        "a device"
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn read(path: &Path, limit: usize) -> Result<Zeroizing<Vec<u8>>, FileFault> {
        Opened::open(path)?.read(limit)
    }

    #[test]
    fn what_is_no_regular_file_is_named_and_waits_for_nobody() {
        let dir = tempfile::tempdir().expect("a directory");
        let fifo = dir.path().join("fifo");
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, Mode::RUSR, 0).expect("a FIFO");
        let link = dir.path().join("link");
        symlink(&fifo, &link).expect("a link");
        for (path, expected) in [
            (dir.path(), "a directory"),
            (&fifo, "a FIFO"),
            (&link, "a FIFO"),
            (Path::new("/dev/zero"), "a device"),
            (Path::new("/dev/null"), "a device"),
        ] {
            let fault = read(path, 10).expect_err("no file");
            assert!(matches!(fault, FileFault::NotAFile(what) if what == expected), "{fault:?}");
        }
        assert!(read(&dir.path().join("none"), 10).expect_err("missing").is_missing());
        assert!(read(&dir.path().join("fifo/below"), 10).expect_err("missing").is_missing());
    }

    #[test]
    fn a_file_is_read_up_to_the_limit_and_not_a_byte_beyond() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("file");
        std::fs::write(&path, vec![7; 100_000]).expect("written");
        assert_eq!(read(&path, 100_000).expect("read").len(), 100_000);
        assert!(matches!(read(&path, 99_999), Err(FileFault::TooLarge)));
        let huge = dir.path().join("huge");
        File::create(&huge).expect("made").set_len(1 << 40).expect("a hole");
        assert!(matches!(read(&huge, 10), Err(FileFault::TooLarge)));
    }

    #[test]
    fn others_who_may_write_are_noticed() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("file");
        std::fs::write(&path, "x").expect("written");
        for (mode, others) in [(0o600, false), (0o644, false), (0o664, true), (0o602, true)] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).expect("set");
            let opened = Opened::open(&path).expect("open");
            assert_eq!(opened.ownership.others_may_write(), others, "{mode:o}");
        }
    }
}
