//! A side of a copy that runs short of something.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::FutureExt as _;
use rustix::io::Errno;
use ssmssh::copy::{
    Answer, BytePath, Change, CopyError, Endpoint, Entry, Finished, Metadata, Side, SourceFile, TargetFile,
};

/// When it is noticed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    Creating,
    Writing,
    Finishing,
}

/// Another endpoint, on which the system refuses one stage of files under one name.
#[derive(Debug)]
pub(crate) struct Short {
    pub(crate) endpoint: Arc<dyn Endpoint>,
    pub(crate) name: &'static str,
    pub(crate) stage: Stage,
    pub(crate) errno: Errno,
}

impl Short {
    fn refused(errno: Errno) -> CopyError {
        CopyError::from(io::Error::from(errno))
    }
}

struct ShortFile {
    inner: Box<dyn TargetFile>,
    stage: Stage,
    errno: Errno,
}

impl TargetFile for ShortFile {
    fn max_write(&self) -> u32 {
        self.inner.max_write()
    }

    fn write(&self, offset: u64, data: Bytes) -> Answer<'_, ()> {
        // Some of it has room.
        let is_refused = self.stage == Stage::Writing && offset > 0;
        if is_refused {
            std::future::ready(Err(Short::refused(self.errno))).boxed()
        } else {
            self.inner.write(offset, data)
        }
    }

    fn finish(self: Box<Self>, change: Change, to: &BytePath) -> Answer<'_, Finished> {
        if self.stage == Stage::Finishing {
            return std::future::ready(Err(Short::refused(self.errno))).boxed();
        }
        let to = to.clone();
        async move { self.inner.finish(change, &to).await }.boxed()
    }
}

impl Endpoint for Short {
    fn side(&self) -> Side {
        self.endpoint.side()
    }

    fn resolve<'a>(&'a self, typed: &'a BytePath) -> Answer<'a, BytePath> {
        self.endpoint.resolve(typed)
    }

    fn stat<'a>(&'a self, path: &'a BytePath) -> Answer<'a, Metadata> {
        self.endpoint.stat(path)
    }

    fn lstat<'a>(&'a self, path: &'a BytePath) -> Answer<'a, Metadata> {
        self.endpoint.lstat(path)
    }

    fn canonical<'a>(&'a self, path: &'a BytePath) -> Answer<'a, BytePath> {
        self.endpoint.canonical(path)
    }

    fn list<'a>(&'a self, path: &'a BytePath) -> Answer<'a, Vec<Entry>> {
        self.endpoint.list(path)
    }

    fn open<'a>(&'a self, path: &'a BytePath, size: u64) -> Answer<'a, (Box<dyn SourceFile>, Metadata)> {
        self.endpoint.open(path, size)
    }

    fn create<'a>(&'a self, path: &'a BytePath, mode: u32) -> Answer<'a, Box<dyn TargetFile>> {
        let is_it = path.to_string().contains(&format!("/.{}.", self.name));
        let Self { stage, errno, .. } = *self;
        async move {
            if is_it && stage == Stage::Creating {
                return Err(Self::refused(errno));
            }
            let file = self.endpoint.create(path, mode).await?;
            Ok(if is_it { Box::new(ShortFile { inner: file, stage, errno }) as Box<dyn TargetFile> } else { file })
        }
        .boxed()
    }

    fn make_directory<'a>(&'a self, path: &'a BytePath, mode: u32) -> Answer<'a, bool> {
        self.endpoint.make_directory(path, mode)
    }

    fn remove<'a>(&'a self, path: &'a BytePath) -> Answer<'a, ()> {
        self.endpoint.remove(path)
    }

    fn change<'a>(&'a self, path: &'a BytePath, change: Change) -> Answer<'a, ()> {
        self.endpoint.change(path, change)
    }
}
