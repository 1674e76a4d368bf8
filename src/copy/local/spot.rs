//! Where something lies on this machine. What a copy writes lies in a directory that is held open: whoever puts a link in the
//! place of a directory while the copy goes on leads nothing astray.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, openat, statat};
use rustix::io::Errno;

use crate::copy::{BytePath, CopyError};

/// Enough to find what lies in a directory: its content need not be readable.
#[cfg(any(target_os = "linux", target_os = "android"))]
const SEARCH: OFlags = OFlags::PATH;
#[cfg(not(any(target_os = "linux", target_os = "android")))]
const SEARCH: OFlags = OFlags::RDONLY;

/// The directory that a copy's target is or lies in, as it was when the copy began.
#[derive(Debug)]
pub(super) struct Base {
    path: BytePath,
    directory: Result<Arc<OwnedFd>, Errno>,
}

impl Base {
    /// The user named it: links that lead to it are followed.
    pub(super) fn open(path: &BytePath) -> Self {
        let flags = SEARCH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = openat(CWD, path.as_path(), flags, Mode::empty()).map(Arc::new);
        Self { path: path.tidied(), directory }
    }

    /// The spot of `path`; `None` if that lies elsewhere.
    pub(super) fn find(&self, path: &BytePath) -> Option<Result<Spot, CopyError>> {
        let path = path.tidied();
        let rest = match (self.path.as_bytes(), path.as_bytes()) {
            (b".", b".") => b"",
            (b".", inside) if !inside.starts_with(b"/") => inside,
            _ if path.is_within(&self.path) => {
                let rest = &path.as_bytes()[self.path.as_bytes().len()..];
                rest.strip_prefix(b"/").unwrap_or(rest)
            }
            _ => return None,
        };
        let names: Vec<_> = rest.split(|byte| *byte == b'/').map(BytePath::new).collect();
        if names.iter().any(|name| name.as_bytes() == b"..") {
            return None;
        }
        Some(self.walk(&names))
    }

    fn walk(&self, names: &[BytePath]) -> Result<Spot, CopyError> {
        let mut directory = self.directory.clone().map_err(io::Error::from)?;
        let (last, above) = names.split_last().expect("whatever is split has a part");
        for name in above {
            directory = Arc::new(enter(directory.as_fd(), name.as_path())?);
        }
        let name = if last.as_bytes().is_empty() { Path::new(".") } else { last.as_path() };
        Ok(Spot { directory: Some(directory), name: name.to_owned() })
    }
}

/// Opens a directory that is no link to one.
fn enter(directory: BorrowedFd<'_>, name: &Path) -> Result<OwnedFd, CopyError> {
    let flags = SEARCH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(directory, name, flags, Mode::empty()).map_err(|error| {
        let found = statat(directory, name, AtFlags::SYMLINK_NOFOLLOW);
        match found.map(|found| FileType::from_raw_mode(found.st_mode)) {
            Ok(FileType::Symlink) => CopyError::LinkInTheWay,
            _ => io::Error::from(error).into(),
        }
    })
}

/// A name in a directory that is held open, or a path from the working directory on.
#[derive(Debug, Clone)]
pub(super) struct Spot {
    directory: Option<Arc<OwnedFd>>,
    name: PathBuf,
}

impl Spot {
    /// A path as somebody typed it: links in it are followed.
    pub(super) fn typed(path: &BytePath) -> Self {
        Self { directory: None, name: path.as_path().to_owned() }
    }

    pub(super) fn directory(&self) -> BorrowedFd<'_> {
        self.directory.as_ref().map_or(CWD, |directory| directory.as_fd())
    }

    pub(super) fn name(&self) -> &Path {
        &self.name
    }

    /// Another name in the same directory; `None` where it is not held.
    pub(super) fn beside(&self, name: &BytePath) -> Option<Self> {
        let directory = Some(Arc::clone(self.directory.as_ref()?));
        Some(Self { directory, name: name.as_path().to_owned() })
    }

    /// Opens what is there, without waiting for the other end of a pipe. In a directory that is held it is no link.
    pub(super) fn open(&self, flags: OFlags) -> io::Result<File> {
        self.create(flags, 0)
    }

    /// As `open`, with the mode that a new file gets.
    #[allow(clippy::useless_conversion, reason = "systems differ in the size of a mode")]
    pub(super) fn create(&self, flags: OFlags, mode: u32) -> io::Result<File> {
        let follow = if self.directory.is_some() { OFlags::NOFOLLOW } else { OFlags::empty() };
        let flags = flags | follow | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(mode.try_into().map_err(io::Error::other)?);
        Ok(openat(self.directory(), &self.name, flags, mode)?.into())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_spot_is_found_under_every_spelling_and_nowhere_else() {
        let base = |path: &str| Base { path: BytePath::from(path).tidied(), directory: Err(Errno::NOENT) };
        for (held, path) in
            [(".", "x"), (".", "./a//x"), ("into/", "into/x"), ("/", "/x"), ("/a", "/a//b/x"), ("a", "a")]
        {
            assert!(base(held).find(&path.into()).is_some(), "{path} in {held}");
        }
        for (held, path) in [(".", "/x"), ("into", "intox"), ("/a", "b"), (".", "../x"), ("a", "a/../x"), ("/a", "/b")]
        {
            assert!(base(held).find(&path.into()).is_none(), "{path} in {held}");
        }
    }

    #[test]
    fn a_link_on_the_way_to_a_spot_is_told_and_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| BytePath::from(folder.path().join(name));
        fs::create_dir_all(at("real/inner").as_path()).unwrap();
        std::os::unix::fs::symlink("real", at("link").as_path()).unwrap();
        let base = Base::open(&folder.path().to_owned().into());
        let spot = base.find(&at("real/inner/x")).unwrap().unwrap();
        assert_eq!(spot.name(), Path::new("x"));
        let refused = base.find(&at("link/inner/x")).unwrap().unwrap_err();
        assert!(matches!(refused, CopyError::LinkInTheWay), "{refused}");
    }
}
