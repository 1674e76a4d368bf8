//! A side of a copy that is nothing but memory: what the trait promises, and no more.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::SystemTime;

use bytes::Bytes;
use futures_util::FutureExt as _;
use ssmssh::copy::{
    Answer, BytePath, Change, CopyError, Endpoint, Entry, FileKind, Finished, Metadata, Side, SourceFile, TargetFile,
};

/// What new files and directories do not get.
const UMASK: u32 = 0o022;
/// Odd and small, so that files are read and written in many pieces.
const PIECE: u32 = 1021;

/// Files and directories by their path from the starting directory. Clones share them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Memory(Arc<Mutex<BTreeMap<Vec<u8>, Node>>>);

#[derive(Debug, Clone)]
pub(crate) struct Node {
    /// None for a directory.
    pub(crate) content: Option<Vec<u8>>,
    pub(crate) mode: u32,
    pub(crate) modified: SystemTime,
}

impl Memory {
    pub(crate) fn umask() -> u32 {
        UMASK
    }

    pub(crate) fn nodes(&self) -> MutexGuard<'_, BTreeMap<Vec<u8>, Node>> {
        self.0.lock().expect("no test panics with it")
    }

    pub(crate) fn put(&self, path: &[u8], content: Option<&[u8]>, mode: u32) {
        let node = Node { content: content.map(<[u8]>::to_vec), mode, modified: SystemTime::now() };
        self.nodes().insert(path.to_vec(), node);
    }

    fn find(&self, path: &BytePath) -> Result<Node, CopyError> {
        let key = key(path);
        let root = || key.is_empty().then_some(Node { content: None, mode: 0o755, modified: SystemTime::UNIX_EPOCH });
        self.nodes().get(&key).cloned().or_else(root).ok_or_else(|| refused(NO_ENTRY))
    }

    fn entries(&self, base: &[u8]) -> Vec<Entry> {
        let name = |path: &[u8]| {
            let inner = if base.is_empty() { path } else { path.strip_prefix(base)?.strip_prefix(b"/")? };
            (!inner.contains(&b'/')).then(|| inner.to_vec())
        };
        let nodes = self.nodes();
        let named = nodes.iter().filter_map(|(path, node)| Some((name(path)?, node)));
        named.map(|(name, node)| Entry { name, metadata: metadata_of(node) }).collect()
    }

    /// The place for something new, in a directory that is there.
    fn vacancy(&self, path: &BytePath) -> Result<Vec<u8>, CopyError> {
        match self.find(&path.parent())?.content {
            Some(_) => Err(refused(NOT_A_DIRECTORY)),
            None if self.find(path).is_ok() => Err(refused(EXISTS)),
            None => Ok(key(path)),
        }
    }
}

const NO_ENTRY: i32 = 2;
const EXISTS: i32 = 17;
const NOT_A_DIRECTORY: i32 = 20;
const IS_A_DIRECTORY: i32 = 21;

fn refused(code: i32) -> CopyError {
    CopyError::Local(io::Error::from_raw_os_error(code))
}

/// One spelling for each path.
fn key(path: &BytePath) -> Vec<u8> {
    let parts = path.as_bytes().split(|byte| *byte == b'/').filter(|part| !matches!(*part, b"" | b"."));
    parts.collect::<Vec<_>>().join(&b'/')
}

fn metadata_of(node: &Node) -> Metadata {
    let (kind, size) = match &node.content {
        Some(content) => (FileKind::File, content.len() as u64),
        None => (FileKind::Directory, 0),
    };
    let times = Some((node.modified, node.modified));
    Metadata { kind: Some(kind), size: Some(size), mode: Some(node.mode), times, owner: None }
}

fn ready<'a, T: Send + 'a>(outcome: Result<T, CopyError>) -> Answer<'a, T> {
    std::future::ready(outcome).boxed()
}

impl Endpoint for Memory {
    fn side(&self) -> Side {
        Side::Remote("memory".into())
    }

    fn resolve<'a>(&'a self, typed: &'a BytePath) -> Answer<'a, BytePath> {
        ready(Ok(if typed.as_bytes().is_empty() { BytePath::from(".") } else { typed.clone() }))
    }

    fn stat<'a>(&'a self, path: &'a BytePath) -> Answer<'a, Metadata> {
        ready(self.find(path).map(|node| metadata_of(&node)))
    }

    fn lstat<'a>(&'a self, path: &'a BytePath) -> Answer<'a, Metadata> {
        self.stat(path)
    }

    fn canonical<'a>(&'a self, path: &'a BytePath) -> Answer<'a, BytePath> {
        ready(self.find(path).map(|_| BytePath::from("/").join(&key(path))))
    }

    fn list<'a>(&'a self, path: &'a BytePath) -> Answer<'a, Vec<Entry>> {
        match self.find(path).map(|node| node.content) {
            Ok(None) => ready(Ok(self.entries(&key(path)))),
            Ok(Some(_)) => ready(Err(refused(NOT_A_DIRECTORY))),
            Err(error) => ready(Err(error)),
        }
    }

    fn open<'a>(&'a self, path: &'a BytePath, _: u64) -> Answer<'a, (Box<dyn SourceFile>, Metadata)> {
        let opened = self.find(path).and_then(|node| {
            let metadata = metadata_of(&node);
            let content = node.content.ok_or_else(|| refused(IS_A_DIRECTORY))?;
            Ok((Box::new(Source(content.into())) as Box<dyn SourceFile>, metadata))
        });
        ready(opened)
    }

    fn create<'a>(&'a self, path: &'a BytePath, mode: u32) -> Answer<'a, Box<dyn TargetFile>> {
        let created = self.vacancy(path).map(|at| {
            self.put(&at, Some(b""), 0o600);
            Box::new(Target { memory: self.clone(), at, granted: mode & !UMASK }) as Box<dyn TargetFile>
        });
        ready(created)
    }

    fn make_directory<'a>(&'a self, path: &'a BytePath, mode: u32) -> Answer<'a, bool> {
        let outcome = match self.find(path).map(|node| node.content) {
            Ok(None) => Ok(false),
            Ok(Some(_)) => Err(CopyError::FileInTheWay),
            Err(_) => self.vacancy(path).map(|at| self.put(&at, None, mode & !UMASK)).map(|()| true),
        };
        ready(outcome)
    }

    fn remove<'a>(&'a self, path: &'a BytePath) -> Answer<'a, ()> {
        let is_file = self.find(path).map(|node| node.content.is_some());
        ready(is_file.and_then(|is_file| {
            let removed = is_file.then(|| self.nodes().remove(&key(path)));
            removed.map(|_| ()).ok_or_else(|| refused(IS_A_DIRECTORY))
        }))
    }

    fn change<'a>(&'a self, path: &'a BytePath, change: Change) -> Answer<'a, ()> {
        ready(self.find(path).map(|_| {
            if let Some(node) = self.nodes().get_mut(&key(path)) {
                apply(node, change);
            }
        }))
    }
}

fn apply(node: &mut Node, change: Change) {
    node.mode = change.mode.unwrap_or(node.mode);
    node.modified = change.times.map_or(node.modified, |(_, modified)| modified);
}

/// A file as it was when it was opened.
struct Source(Bytes);

impl SourceFile for Source {
    fn max_read(&self) -> u32 {
        PIECE
    }

    fn read(&self, offset: u64, length: u32) -> Answer<'_, Bytes> {
        let start = usize::try_from(offset).map_or(self.0.len(), |start| start.min(self.0.len()));
        let end = self.0.len().min(start + length as usize);
        ready(Ok(self.0.slice(start..end)))
    }
}

struct Target {
    memory: Memory,
    at: Vec<u8>,
    granted: u32,
}

impl TargetFile for Target {
    fn max_write(&self) -> u32 {
        PIECE
    }

    fn write(&self, offset: u64, data: Bytes) -> Answer<'_, ()> {
        let mut nodes = self.memory.nodes();
        let content = nodes.get_mut(&self.at).and_then(|node| node.content.as_mut());
        let written = content.ok_or_else(|| refused(NO_ENTRY)).map(|content| {
            let start = usize::try_from(offset).expect("what fits in memory");
            content.resize(content.len().max(start + data.len()), 0);
            content[start..start + data.len()].copy_from_slice(&data);
        });
        ready(written)
    }

    fn finish(self: Box<Self>, change: Change, to: &BytePath) -> Answer<'_, Finished> {
        let mut nodes = self.memory.nodes();
        let finished = nodes.remove(&self.at).ok_or_else(|| refused(NO_ENTRY)).map(|mut node| {
            node.mode = self.granted;
            apply(&mut node, change);
            let metadata = metadata_of(&node);
            nodes.insert(key(to), node);
            Finished::from(metadata)
        });
        drop(nodes);
        ready(finished)
    }
}
