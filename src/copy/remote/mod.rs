//! The other side of an SFTP session.

mod attributes;
mod compression;
mod file;
mod given;
mod growth;
mod handles;
mod lanes;
mod opening;
mod refusal;
mod special;

pub use compression::{Compression, StreamKind};
pub use growth::Streams;
pub use opening::OpenStream;

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, try_join_all};
use tokio::sync::Mutex;

use super::endpoint::{Answer, Change, Endpoint, Entry, MAX_ENTRIES, Metadata, SourceFile, TargetFile};
use super::existing::{check_directory, check_replaceable};
use super::remote_digest::Hasher;
use super::temporary::temporary_name;
use super::{BytePath, CopyError, Side, Totals};
use crate::ssh::sftp::{Attributes, Sftp, SftpError};
use crate::ssh::{Output, SshError};
use attributes::{attributes_of, carried, metadata_of};
use file::{RemoteSource, RemoteTarget, rename};
use lanes::Lanes;
use opening::Opening;
use refusal::{explain_new, meaning};
use special::Device;

/// Bytes of names that a directory may have: as many names as it may have, each of 64 bytes.
const MAX_LISTING: usize = 64 * MAX_ENTRIES;
/// Names from which on a list is a long one.
const LONG_LIST: usize = 4096;
/// Most listing requests sent ahead. A server gives about 100 names per reply.
const LISTINGS_AHEAD: usize = 16;

/// A machine's files through its SFTP server. Relative paths start from the login directory.
///
/// Clones share its streams; dropping the last ends them.
#[derive(Clone)]
pub struct RemoteEndpoint {
    lanes: Arc<Lanes>,
    name: Arc<str>,
    account: Arc<str>,
    hasher: Option<Arc<Hasher>>,
    compression: Compression,
    more: Option<Arc<More>>,
    /// Held while a long list comes in.
    long_lists: Arc<Mutex<()>>,
}

/// Where more streams come from.
struct More {
    streams: Streams,
    open: Box<OpenStream>,
    /// Held by the copy that opens them.
    growing: Mutex<()>,
}

impl RemoteEndpoint {
    /// The files that `sftp` reaches; messages call the machine `name`.
    pub fn new(sftp: Sftp, name: &str) -> Self {
        let lanes = Arc::new(Lanes::default());
        lanes.add(sftp, StreamKind::Plain);
        let name: Arc<str> = name.into();
        let (account, long_lists) = (Arc::clone(&name), Arc::default());
        Self { lanes, account, name, hasher: None, compression: Compression::Off, more: None, long_lists }
    }

    #[cfg(test)]
    pub(super) fn add(&self, sftp: Sftp) {
        self.lanes.add(sftp, StreamKind::Plain);
    }

    /// Lets copies open further streams with `open`, up to `streams`, three at a time, once there is work for them, and in
    /// place of those that are lost. A stream that cannot be opened is no error: after 5 s another is tried, then after 10
    /// and 20 s, one at a time from then on. When all are lost a copy waits for another so long, and anew each time that
    /// it has got further; without another it ends with [`CopyError::Lost`]. A copy that ends cancels those that are not
    /// open yet; the others stay for the next copy.
    ///
    /// `open` must see to it that it is the same machine, by its host key.
    #[must_use]
    pub fn more_streams<F, O>(self, streams: Streams, open: F) -> Self
    where
        F: Fn(StreamKind) -> O + Send + Sync + 'static,
        O: Future<Output = Result<Sftp, Box<dyn Error + Send + Sync>>> + Send + 'static,
    {
        let more = More { streams, open: Box::new(move |kind| open(kind).boxed()), growing: Mutex::new(()) };
        Self { more: Some(Arc::new(more)), ..self }
    }

    /// Tells this machine and user from any other, for the journal of an interrupted copy. Default: the machine's name.
    #[must_use]
    pub fn account(self, account: &str) -> Self {
        Self { account: account.into(), ..self }
    }

    /// Lets files be hashed on the machine, by programs that `run` runs there for the same user, a few at once. Without
    /// it, or where no such program is found, a file that is verified is read back.
    #[must_use]
    pub fn commands<F, O>(self, run: F) -> Self
    where
        F: Fn(Vec<u8>) -> O + Send + Sync + 'static,
        O: Future<Output = Result<Output, SshError>> + Send + 'static,
    {
        Self { hasher: Some(Arc::new(Hasher::new(run))), ..self }
    }

    /// Says which kind of streams [`RemoteEndpoint::more_streams`] opens. With [`Compression::Auto`] the first stream has
    /// to be without compression; where that pays it is kept in reserve while others compress, even if one was all that
    /// was asked for. Default: [`Compression::Off`].
    #[must_use]
    pub fn compression(self, compression: Compression) -> Self {
        if compression == Compression::Auto {
            self.lanes.start_sampling();
        }
        Self { compression, ..self }
    }

    async fn open_more(&self, more: &More, totals: &(dyn Fn() -> Totals + Send + Sync)) {
        // A copy names an endpoint once for each of its paths.
        let _growing = more.growing.lock().await;
        Opening::new(&self.lanes, &*more.open, more.streams, self.compression).go_on(totals).await;
    }

    /// Gives a link a name that a file or link has.
    async fn replace_by_link(&self, path: &BytePath, to: &BytePath, temporary: &BytePath) -> Result<(), SftpError> {
        let lane = self.lanes.pick().await;
        let replacing = async {
            lane.sftp().symlink(to.as_bytes(), temporary.as_bytes()).await?;
            let renamed = rename(lane.sftp(), temporary.as_bytes(), path.as_bytes()).await;
            if renamed.is_err() {
                let _ = lane.sftp().remove(temporary.as_bytes()).await;
            }
            renamed
        };
        lane.heed(replacing.await)
    }

    async fn list_all(&self, path: &BytePath) -> Result<Vec<Entry>, CopyError> {
        let lane = self.lanes.pick().await;
        let opened = lane.heed(lane.sftp().open_dir(path.as_bytes()).await);
        let handle = opened.map_err(|error| meaning(path, error))?;
        let (mut entries, mut length, mut ahead) = (Vec::new(), 0, 1);
        let mut turn = None;
        loop {
            // Long lists come one at a time: together they could fill the memory.
            if entries.len() > LONG_LIST && turn.is_none() {
                turn = Some(self.long_lists.lock().await);
            }
            // Requests on one handle are carried out in order, so the replies are consecutive parts.
            for names in lane.heed(try_join_all((0..ahead).map(|_| lane.sftp().read_dir(&handle))).await)? {
                let Some(names) = names else { return Ok(entries) };
                length += names.iter().map(|entry| entry.name.len()).sum::<usize>();
                let names = names.into_iter().filter(|entry| !matches!(&entry.name[..], b"." | b".."));
                entries.extend(
                    names.map(|entry| Entry { name: entry.name.to_vec(), metadata: metadata_of(&entry.attributes) }),
                );
                if entries.len() > MAX_ENTRIES {
                    return Err(CopyError::TooManyEntries(MAX_ENTRIES));
                }
                if length > MAX_LISTING {
                    return Err(CopyError::ListingTooLong(MAX_LISTING));
                }
            }
            ahead = (ahead * 2).min(LISTINGS_AHEAD);
        }
    }
}

impl fmt::Debug for RemoteEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RemoteEndpoint")
            .field("name", &self.name)
            .field("streams", &self.streams())
            .finish_non_exhaustive()
    }
}

/// Asks on whichever stream is least busy.
macro_rules! ask {
    ($endpoint:expr, $method:ident($($argument:expr),*)) => {{
        let lane = $endpoint.lanes.pick().await;
        lane.heed(lane.sftp().$method($($argument),*).await)
    }};
}

impl Endpoint for RemoteEndpoint {
    fn side(&self) -> Side {
        Side::Remote(Arc::clone(&self.name))
    }

    /// One that is waited for counts when there is no other.
    fn streams(&self) -> usize {
        self.lanes.open().max(usize::from(self.lanes.is_alive()))
    }

    fn grow<'a>(&'a self, totals: &'a (dyn Fn() -> Totals + Send + Sync)) -> BoxFuture<'a, ()> {
        match &self.more {
            Some(more) => self.open_more(more, totals).boxed(),
            None => std::future::pending().boxed(),
        }
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
                [b'~', ..] => BytePath::new(ask!(self, expand_path(typed.as_bytes()))?),
                _ => typed.clone(),
            };
            Ok(if path.as_bytes().is_empty() { BytePath::from(".") } else { path })
        }
        .boxed()
    }

    fn stat<'a>(&'a self, path: &'a BytePath) -> Answer<'a, Metadata> {
        async move {
            let told = ask!(self, stat(path.as_bytes())).map_err(|error| meaning(path, error))?;
            Ok(metadata_of(&told))
        }
        .boxed()
    }

    fn lstat<'a>(&'a self, path: &'a BytePath) -> Answer<'a, Metadata> {
        async move {
            let told = ask!(self, lstat(path.as_bytes())).map_err(|error| meaning(path, error))?;
            Ok(metadata_of(&told))
        }
        .boxed()
    }

    fn canonical<'a>(&'a self, path: &'a BytePath) -> Answer<'a, BytePath> {
        async move { Ok(BytePath::new(ask!(self, realpath(path.as_bytes()))?)) }.boxed()
    }

    fn list<'a>(&'a self, path: &'a BytePath) -> Answer<'a, Vec<Entry>> {
        self.list_all(path).boxed()
    }

    fn open<'a>(&'a self, path: &'a BytePath, size: u64) -> Answer<'a, (Box<dyn SourceFile>, Metadata)> {
        async move {
            let opened = RemoteSource::open(&self.lanes, path, size).await;
            let (file, metadata) = opened.map_err(|error| meaning(path, error))?;
            Ok((Box::new(file) as Box<dyn SourceFile>, metadata))
        }
        .boxed()
    }

    fn create<'a>(&'a self, path: &'a BytePath, mode: u32) -> Answer<'a, Box<dyn TargetFile>> {
        async move {
            match RemoteTarget::create(&self.lanes, path, mode).await {
                Ok(file) => Ok(Box::new(file) as Box<dyn TargetFile>),
                Err(error) => Err(explain_new(&self.lanes, path, error).await),
            }
        }
        .boxed()
    }

    fn open_special<'a>(&'a self, path: &'a BytePath) -> Answer<'a, Box<dyn TargetFile>> {
        async move { Ok(Box::new(Device::open(&self.lanes, path).await?) as Box<dyn TargetFile>) }.boxed()
    }

    fn identity(&self) -> String {
        self.account.to_string()
    }

    /// Relative paths start from the login directory, as `~` does. In a resolved path it is a name like any other.
    fn spelled_as_typed(&self, path: &BytePath) -> BytePath {
        match path.as_bytes() {
            b"~" => BytePath::from("."),
            [b'~', b'/', rest @ ..] => BytePath::from(".").join(BytePath::new(rest).tidied().as_bytes()).tidied(),
            _ => path.tidied(),
        }
    }

    fn digest<'a>(&'a self, path: &'a BytePath, size: u64) -> Answer<'a, Option<[u8; 32]>> {
        async move {
            match &self.hasher {
                Some(hasher) => Ok(hasher.digest(path, size).await),
                None => Ok(None),
            }
        }
        .boxed()
    }

    fn digest_of_beginning<'a>(&'a self, path: &'a BytePath, size: u64) -> Answer<'a, Option<[u8; 32]>> {
        async move {
            match &self.hasher {
                Some(hasher) => Ok(hasher.digest_of_beginning(path, size).await),
                None => Ok(None),
            }
        }
        .boxed()
    }

    fn reopen<'a>(&'a self, path: &'a BytePath, granted: u32) -> Answer<'a, Option<Box<dyn TargetFile>>> {
        async move {
            let file = RemoteTarget::reopen(&self.lanes, path, granted).await?;
            Ok(Some(Box::new(file) as Box<dyn TargetFile>))
        }
        .boxed()
    }

    fn make_directory<'a>(&'a self, path: &'a BytePath, mode: u32) -> Answer<'a, bool> {
        async move {
            let lane = self.lanes.pick().await;
            let answer = lane.sftp().mkdir(path.as_bytes(), &Attributes::with_permissions(mode)).await;
            let refused = match lane.heed(answer) {
                Ok(()) => return Ok(true),
                Err(error) => error,
            };
            // The protocol has no code for "exists already".
            match self.lstat(path).await {
                Ok(found) if found.kind.is_some() => check_directory(&found).map(|()| false),
                _ => Err(explain_new(&self.lanes, path, refused).await),
            }
        }
        .boxed()
    }

    fn remove<'a>(&'a self, path: &'a BytePath) -> Answer<'a, ()> {
        async move { Ok(ask!(self, remove(path.as_bytes()))?) }.boxed()
    }

    fn read_link<'a>(&'a self, path: &'a BytePath) -> Answer<'a, BytePath> {
        async move { Ok(BytePath::new(ask!(self, readlink(path.as_bytes()))?)) }.boxed()
    }

    fn make_link<'a>(&'a self, path: &'a BytePath, to: &'a BytePath) -> Answer<'a, ()> {
        async move {
            let Err(refused) = ask!(self, symlink(to.as_bytes(), path.as_bytes())) else { return Ok(()) };
            if refused.is_fatal() {
                return Err(refused.into());
            }
            // The protocol has no code for "exists already".
            let Ok(found) = self.lstat(path).await else { return Err(refused.into()) };
            check_replaceable(&found)?;
            Ok(self.replace_by_link(path, to, &temporary_name(path)).await?)
        }
        .boxed()
    }

    fn date_link<'a>(&'a self, path: &'a BytePath, times: (SystemTime, SystemTime)) -> Answer<'a, ()> {
        let attributes = attributes_of(Change { times: Some(times), ..Change::default() });
        async move {
            match ask!(self, lsetstat(path.as_bytes(), &attributes)) {
                // Of no other server can it be had.
                Err(SftpError::Unsupported(_)) => Ok(()),
                dated => Ok(dated?),
            }
        }
        .boxed()
    }

    fn carried(&self, time: SystemTime) -> SystemTime {
        carried(time)
    }

    fn change<'a>(&'a self, path: &'a BytePath, change: Change) -> Answer<'a, ()> {
        async move { Ok(ask!(self, setstat(path.as_bytes(), &attributes_of(change)))?) }.boxed()
    }
}
