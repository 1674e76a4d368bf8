//! The other side of an SFTP session.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::FutureExt as _;
use futures_util::future::try_join_all;

use super::endpoint::{Answer, Change, Endpoint, Entry, FileKind, MAX_ENTRIES, Metadata, SourceFile, TargetFile};
use super::remote_file::{RemoteSource, RemoteTarget};
use super::{BytePath, CopyError, Side};
use crate::ssh::sftp::{Attributes, Sftp};

pub(super) const PERMISSION_BITS: u32 = 0o7777;
/// Most listing requests sent ahead. A server gives about 100 names per reply.
const LISTINGS_AHEAD: usize = 16;

/// A machine's files through its SFTP server. Relative paths start from the login directory.
#[derive(Debug, Clone)]
pub struct RemoteEndpoint {
    sftp: Sftp,
    name: Arc<str>,
}

impl RemoteEndpoint {
    /// The files that `sftp` reaches; messages call the machine `name`.
    pub fn new(sftp: Sftp, name: &str) -> Self {
        Self { sftp, name: name.into() }
    }

    async fn list_all(&self, path: &BytePath) -> Result<Vec<Entry>, CopyError> {
        let handle = self.sftp.open_dir(path.as_bytes()).await?;
        let mut entries = Vec::new();
        let mut ahead = 1;
        loop {
            // Requests on one handle are carried out in order, so the replies are consecutive parts.
            for names in try_join_all((0..ahead).map(|_| self.sftp.read_dir(&handle))).await? {
                let Some(names) = names else { return Ok(entries) };
                let names = names.into_iter().filter(|entry| !matches!(&entry.name[..], b"." | b".."));
                entries.extend(
                    names.map(|entry| Entry { name: entry.name.to_vec(), metadata: metadata_of(&entry.attributes) }),
                );
                if entries.len() > MAX_ENTRIES {
                    return Err(CopyError::TooManyEntries(MAX_ENTRIES));
                }
            }
            ahead = (ahead * 2).min(LISTINGS_AHEAD);
        }
    }
}

impl Endpoint for RemoteEndpoint {
    fn side(&self) -> Side {
        Side::Remote(Arc::clone(&self.name))
    }

    fn resolve<'a>(&'a self, typed: &'a BytePath) -> Answer<'a, BytePath> {
        async move {
            let from_login = |rest: &[u8]| {
                let start = rest.iter().position(|byte| *byte != b'/').unwrap_or(rest.len());
                BytePath::from(".").join(&rest[start..])
            };
            let path = match typed.as_bytes() {
                b"" | b"~" => BytePath::from("."),
                [b'~', b'/', rest @ ..] => from_login(rest),
                [b'~', ..] => BytePath::new(self.sftp.expand_path(typed.as_bytes()).await?),
                _ => typed.clone(),
            };
            Ok(if path.as_bytes().is_empty() { BytePath::from(".") } else { path })
        }
        .boxed()
    }

    fn stat<'a>(&'a self, path: &'a BytePath) -> Answer<'a, Metadata> {
        async move { Ok(metadata_of(&self.sftp.stat(path.as_bytes()).await?)) }.boxed()
    }

    fn lstat<'a>(&'a self, path: &'a BytePath) -> Answer<'a, Metadata> {
        async move { Ok(metadata_of(&self.sftp.lstat(path.as_bytes()).await?)) }.boxed()
    }

    fn canonical<'a>(&'a self, path: &'a BytePath) -> Answer<'a, BytePath> {
        async move { Ok(BytePath::new(self.sftp.realpath(path.as_bytes()).await?)) }.boxed()
    }

    fn list<'a>(&'a self, path: &'a BytePath) -> Answer<'a, Vec<Entry>> {
        self.list_all(path).boxed()
    }

    fn open<'a>(&'a self, path: &'a BytePath, size: u64) -> Answer<'a, (Box<dyn SourceFile>, Metadata)> {
        async move {
            let (file, metadata) = RemoteSource::open(&self.sftp, path, size).await?;
            Ok((Box::new(file) as Box<dyn SourceFile>, metadata))
        }
        .boxed()
    }

    fn create<'a>(&'a self, path: &'a BytePath, mode: u32) -> Answer<'a, Box<dyn TargetFile>> {
        async move { Ok(Box::new(RemoteTarget::create(&self.sftp, path, mode).await?) as Box<dyn TargetFile>) }.boxed()
    }

    fn make_directory<'a>(&'a self, path: &'a BytePath, mode: u32) -> Answer<'a, bool> {
        async move {
            let refused = match self.sftp.mkdir(path.as_bytes(), &Attributes::with_permissions(mode)).await {
                Ok(()) => return Ok(true),
                Err(error) => error,
            };
            // The protocol has no code for "exists already".
            match self.stat(path).await.map(|metadata| metadata.kind) {
                Ok(Some(FileKind::Directory)) => Ok(false),
                Ok(Some(_)) => Err(CopyError::FileInTheWay),
                _ => Err(refused.into()),
            }
        }
        .boxed()
    }

    fn remove<'a>(&'a self, path: &'a BytePath) -> Answer<'a, ()> {
        async move { Ok(self.sftp.remove(path.as_bytes()).await?) }.boxed()
    }

    fn change<'a>(&'a self, path: &'a BytePath, change: Change) -> Answer<'a, ()> {
        async move { Ok(self.sftp.setstat(path.as_bytes(), &attributes_of(change)).await?) }.boxed()
    }
}

pub(super) fn metadata_of(attributes: &Attributes) -> Metadata {
    let time = |seconds: u32| UNIX_EPOCH + Duration::from_secs(seconds.into());
    Metadata {
        kind: attributes.kind(),
        size: attributes.size,
        mode: attributes.permissions.map(|mode| mode & PERMISSION_BITS),
        times: attributes.times.map(|(accessed, modified)| (time(accessed), time(modified))),
    }
}

pub(super) fn attributes_of(change: Change) -> Attributes {
    let times = change.times.map(|(accessed, modified)| (seconds(accessed), seconds(modified)));
    Attributes { permissions: change.mode, times, ..Attributes::default() }
}

/// Seconds since 1970 as the protocol has them, which end in 2106.
fn seconds(time: SystemTime) -> u32 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    u32::try_from(since).unwrap_or(u32::MAX)
}
