//! What a copy holds at most, whatever it is given.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::join_all;

use crate::copy::*;
use crate::ssh::sftp::scripted::serve;
use crate::ssh::sftp::{Attributes, Sftp};

const MIB: u64 = 1 << 20;
const PIECE: u32 = 64 * 1024;
static CONTENT: [u8; PIECE as usize] = [0; PIECE as usize];

/// A side with a directory of large files that are read at once, and in which whatever is written is never taken.
#[derive(Debug, Default)]
struct Stuck {
    streams: usize,
    /// Bytes that were read.
    read: Arc<AtomicU64>,
    opened: AtomicUsize,
    /// Names in each directory, and the size of each file.
    names: usize,
    size: u64,
}

fn ready<'a, T: Send + 'a>(answer: T) -> Answer<'a, T> {
    std::future::ready(Ok(answer)).boxed()
}

fn is_file(path: &BytePath) -> bool {
    path.name().is_some_and(|name| name.starts_with(b"file"))
}

impl Stuck {
    fn metadata(&self, path: &BytePath) -> Metadata {
        let kind = if is_file(path) { FileKind::File } else { FileKind::Directory };
        Metadata { kind: Some(kind), size: Some(self.size), mode: Some(0o644), times: None, owner: None }
    }
}

impl Endpoint for Stuck {
    fn side(&self) -> Side {
        Side::Remote("node".into())
    }

    fn streams(&self) -> usize {
        self.streams
    }

    fn resolve<'a>(&'a self, typed: &'a BytePath) -> Answer<'a, BytePath> {
        ready(typed.clone())
    }

    fn stat<'a>(&'a self, path: &'a BytePath) -> Answer<'a, Metadata> {
        ready(self.metadata(path))
    }

    fn lstat<'a>(&'a self, path: &'a BytePath) -> Answer<'a, Metadata> {
        let is_there = !path.as_bytes().contains(&b'*');
        std::future::ready(if is_there { Ok(self.metadata(path)) } else { Err(CopyError::NoMatch) }).boxed()
    }

    fn canonical<'a>(&'a self, path: &'a BytePath) -> Answer<'a, BytePath> {
        ready(path.clone())
    }

    fn list<'a>(&'a self, path: &'a BytePath) -> Answer<'a, Vec<Entry>> {
        let name = |number| format!("{}{number}", if path == &"all".into() { "dir" } else { "file" }).into_bytes();
        let names = if path == &"all".into() { 2 } else { self.names };
        let entry = |name: Vec<u8>| Entry { metadata: self.metadata(&BytePath::new(&*name)), name };
        ready((0..names).map(|number| entry(name(number))).collect())
    }

    fn open<'a>(&'a self, path: &'a BytePath, _: u64) -> Answer<'a, (Box<dyn SourceFile>, Metadata)> {
        self.opened.fetch_add(1, Ordering::Relaxed);
        ready((
            Box::new(Full { size: self.size, read: Arc::clone(&self.read) }) as Box<dyn SourceFile>,
            self.metadata(path),
        ))
    }

    fn create<'a>(&'a self, _: &'a BytePath, _: u32) -> Answer<'a, Box<dyn TargetFile>> {
        ready(Box::new(Clogged) as Box<dyn TargetFile>)
    }

    fn make_directory<'a>(&'a self, _: &'a BytePath, _: u32) -> Answer<'a, bool> {
        ready(true)
    }

    fn remove<'a>(&'a self, _: &'a BytePath) -> Answer<'a, ()> {
        ready(())
    }

    fn change<'a>(&'a self, _: &'a BytePath, _: Change) -> Answer<'a, ()> {
        ready(())
    }
}

struct Full {
    size: u64,
    read: Arc<AtomicU64>,
}

impl SourceFile for Full {
    fn max_read(&self) -> u32 {
        PIECE
    }

    fn read(&self, offset: u64, length: u32) -> Answer<'_, Bytes> {
        let length = u64::from(length).min(self.size - offset);
        self.read.fetch_add(length, Ordering::Relaxed);
        ready(Bytes::from_static(&CONTENT[..usize::try_from(length).unwrap()]))
    }
}

struct Clogged;

impl TargetFile for Clogged {
    fn max_write(&self) -> u32 {
        PIECE
    }

    fn write(&self, _: u64, _: Bytes) -> Answer<'_, ()> {
        std::future::pending().boxed()
    }

    fn finish(self: Box<Self>, _: Change, _: &BytePath) -> Answer<'_, Finished> {
        std::future::pending().boxed()
    }
}

/// Copies until nothing moves any more; returns how many bytes were read by then, and how many files were begun.
async fn until_it_is_stuck(streams: usize, names: usize, size: u64) -> (u64, u64) {
    let source = Arc::new(Stuck { streams, names, size, ..Stuck::default() });
    let target = Arc::new(Stuck::default());
    let options = CopyOptions::default().recursive(true);
    let copying = copy(vec![Location::on(source.clone(), "dir")], Location::on(target, "to"), options, |_| {});
    assert!(tokio::time::timeout(Duration::from_secs(1), copying).await.is_err(), "it was to be stuck");
    (source.read.load(Ordering::Relaxed), source.opened.load(Ordering::Relaxed) as u64)
}

#[tokio::test(start_paused = true)]
async fn what_is_read_and_not_written_has_a_bound_however_many_streams_there_are() {
    for streams in [1, 8, 16] {
        let (read, _) = until_it_is_stuck(streams, 200, 64 * MIB).await;
        assert!((4 * MIB..=32 * MIB).contains(&read), "{streams} streams, {read} bytes");
    }
}

/// What is begun and lost is sent again by a run that goes on.
#[tokio::test(start_paused = true)]
async fn no_more_files_are_begun_than_the_streams_can_carry() {
    for (streams, most) in [(1, 2), (2, 4), (16, 8)] {
        let (_, begun) = until_it_is_stuck(streams, 200, 64 * MIB).await;
        assert!((1..=most).contains(&begun), "{streams} streams, {begun} files");
    }
}

/// Each holds a file open, and servers allow some hundred.
#[tokio::test(start_paused = true)]
async fn small_files_are_begun_by_the_hundred_and_not_by_the_thousand() {
    for (streams, most) in [(1, 64), (2, 128), (16, 256)] {
        let (_, begun) = until_it_is_stuck(streams, 1000, 10).await;
        assert!((most / 2..=most).contains(&begun), "{streams} streams, {begun} files");
    }
}

#[tokio::test]
async fn a_pattern_that_fits_without_an_end_is_left() {
    let source = Arc::new(Stuck { streams: 1, names: 600_000, ..Stuck::default() });
    let folder = tempfile::tempdir().unwrap();
    let source = Location::on(source, "all/*/*").matching();
    let to = Location::local(folder.path().to_owned());
    let summary = copy(vec![source], to, CopyOptions::default().dry_run(true), |_| {}).await.unwrap();
    assert!(matches!(&summary.failures[..], [Failure { error: CopyError::TooManyEntries(_), .. }]), "{summary:?}");
}

#[tokio::test]
async fn long_lists_come_in_one_at_a_time_and_short_ones_beside_them() {
    let given = Arc::new(Mutex::new((HashMap::<Bytes, usize>::new(), Vec::new())));
    let seen = Arc::clone(&given);
    let names: Vec<_> = (0..1000).map(|number| format!("f{number:04}").into_bytes()).collect();
    let server = serve(&[], move |mut request| match request.verb {
        11 => {
            let path = request.string();
            request.handle(&path)
        }
        12 => {
            let (handle, mut given) = (request.string(), seen.lock().unwrap());
            let count = *given.0.entry(handle.clone()).and_modify(|count| *count += 1).or_insert(1);
            let most = if handle.starts_with(b"long") { 30 } else { 2 };
            if count > 10 {
                given.1.push(handle);
            }
            let told: Vec<_> = names.iter().map(|name| (&name[..], Attributes::with_permissions(0o100_644))).collect();
            if count > most { request.status(1) } else { request.names(&told) }
        }
        _ => request.status(0),
    });
    let node = RemoteEndpoint::new(Sftp::new(server).await.unwrap(), "node");
    let paths: Vec<BytePath> = ["long1", "short1", "long2", "short2", "long3"].map(BytePath::from).into();
    let lists = join_all(paths.iter().map(|path| node.list(path))).await;
    let counts: Vec<_> = lists.into_iter().map(|list| list.unwrap().len()).collect();
    assert_eq!(counts, [30_000, 2000, 30_000, 2000, 30_000]);
    let mut turns = std::mem::take(&mut given.lock().unwrap().1);
    turns.dedup();
    assert_eq!(turns.len(), 3, "{turns:?}");
}
