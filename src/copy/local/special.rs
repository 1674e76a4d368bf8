//! Targets that are no files: pipes, devices and open descriptors, which are written into as they are.

use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_util::FutureExt as _;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use tokio::net::unix::pipe;

use super::spawn;
use crate::copy::pipe::{Pipe, Writer};
use crate::copy::{BytePath, CopyError};

/// Links that may lead on from one to the next, as on Linux.
const MOST_LINKS: usize = 40;
/// How often a pipe is asked whether somebody reads it now.
const ASK_AGAIN: Duration = Duration::from_millis(50);

/// What a path leads to when each link is followed, the last one too and wherever it leads.
pub(super) enum End {
    /// A name, which something may have or not.
    Name(PathBuf),
    /// An open descriptor of this process, by a path such as `/dev/stdout` that names it.
    Descriptor(PathBuf, u32),
}

pub(super) fn end_of(path: &Path) -> io::Result<End> {
    let mut path = path.to_owned();
    for _ in 0..MOST_LINKS {
        match fs::symlink_metadata(&path) {
            Ok(found) if found.is_symlink() => {}
            _ => return Ok(End::Name(path)),
        }
        let parent = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let parent = parent.canonicalize()?;
        let name = path.file_name().unwrap_or_default();
        if is_own_descriptors(&parent)
            && let Some(number) = name.to_str().and_then(|name| name.parse().ok())
        {
            return Ok(End::Descriptor(parent.join(name), number));
        }
        path = parent.join(fs::read_link(&path)?);
    }
    Err(Errno::LOOP.into())
}

/// `/proc/PID/fd`, or the same of one of its threads.
fn is_own_descriptors(directory: &Path) -> bool {
    let own = Path::new("/proc").join(std::process::id().to_string());
    directory.starts_with(own) && directory.ends_with("fd")
}

/// The pipe, device or descriptor that `path` leads to, if it leads to one.
pub(super) fn find(path: &BytePath) -> Option<Pipe<Writer>> {
    let end = end_of(path.as_path()).ok()?;
    let (opened, descriptor) = match end {
        End::Name(path) => (path, None),
        End::Descriptor(path, number) => (path, Some(number)),
    };
    let kind = fs::metadata(&opened).ok()?.file_type();
    let is_special = !kind.is_file() && !kind.is_dir() && !kind.is_socket();
    match descriptor {
        // Nobody is to write where the data comes from.
        Some(0) => None,
        // Whoever opens a file anew writes from its beginning on; the one that the shell opened stands at its end.
        Some(1) => Some(Pipe::later(path, async { over(rustix::io::dup(rustix::stdio::stdout())) }.boxed())),
        Some(2) => Some(Pipe::later(path, async { over(rustix::io::dup(rustix::stdio::stderr())) }.boxed())),
        Some(_) if kind.is_file() => Some(Pipe::later(path, open(opened, OFlags::APPEND).boxed())),
        _ if is_special => Some(Pipe::later(path, open(opened, OFlags::empty()).boxed())),
        _ => None,
    }
}

fn over(descriptor: Result<OwnedFd, Errno>) -> Result<Writer, CopyError> {
    let file = File::from(descriptor.map_err(io::Error::from)?);
    Ok(Box::new(tokio::fs::File::from_std(file)))
}

/// Opens it; a pipe as soon as somebody reads it.
async fn open(path: PathBuf, kept: OFlags) -> Result<Writer, CopyError> {
    let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC | kept;
    loop {
        let opening = path.clone();
        let opened = spawn(move || {
            let is_pipe = fs::metadata(&opening)?.file_type().is_fifo();
            match rustix::fs::open(&opening, flags, Mode::empty()) {
                Err(Errno::NXIO) if is_pipe => Ok(None),
                opened => Ok(Some((opened?, is_pipe))),
            }
        });
        match opened.await? {
            Some((descriptor, true)) => return Ok(Box::new(pipe::Sender::from_owned_fd(descriptor)?)),
            Some((descriptor, false)) => {
                let may_wait = rustix::fs::fcntl_setfl(&descriptor, kept);
                return over(may_wait.map(|()| descriptor));
            }
            None => tokio::time::sleep(ASK_AGAIN).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_link_is_followed_to_its_end_be_anything_there_or_not() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().canonicalize().unwrap();
        fs::create_dir(folder.join("sub")).unwrap();
        for (link, to) in [("sub/first", "second"), ("sub/second", "../missing"), ("round", "round")] {
            symlink(to, folder.join(link)).unwrap();
        }
        let end = end_of(&folder.join("sub/first")).unwrap();
        assert!(matches!(end, End::Name(path) if path == folder.join("sub/../missing")));
        assert!(end_of(&folder.join("round")).is_err());
        symlink("/dev/fd/1", folder.join("sub/out")).unwrap();
        assert!(matches!(end_of(&folder.join("sub/out")).unwrap(), End::Descriptor(_, 1)));
        assert!(matches!(end_of(Path::new("/dev/null")).unwrap(), End::Name(path) if path == Path::new("/dev/null")));
    }
}
