//! A machine that is reached by its `scp` command.

use std::convert::Infallible;
use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, pending, ready};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use super::ScpError;
use super::digest;
use super::download::Incoming;
use crate::copy::endpoint::{Answer, Change, Endpoint, Entry, Metadata, SourceFile, TargetFile};
use crate::copy::{BytePath, CopyError, Side};
use crate::ssh::Child;

type RunCommand = dyn Fn(Vec<u8>) -> BoxFuture<'static, Result<ScpChannel, Box<dyn Error + Send + Sync>>> + Send + Sync;

/// A machine's files through its `scp` command, for machines without an SFTP server.
///
/// Each source is a command of its own, and so is the target. What the far side writes it writes in place, under its
/// final name: whoever looks sees a file grow, and what is interrupted stays as far as it came. What is written here is
/// written under a temporary name as always. All goes over one stream, and nothing can be resumed. What was written there
/// is compared ([`CopyOptions::verify`](crate::copy::CopyOptions::verify)) when it has its name already, and to find out what
/// is there ([`CopyOptions::skip`](crate::copy::CopyOptions::skip)) costs a wait for each file.
///
/// Clones are the same machine. Dropping it ends nothing; a command ends with the copy that runs it.
#[derive(Clone)]
pub struct ScpEndpoint {
    name: Arc<str>,
    run: Arc<RunCommand>,
    /// The file that is being received, for the copy of just this one.
    incoming: Option<Incoming>,
}

impl ScpEndpoint {
    /// The machine on which `run` runs a command for the user's shell; messages call it `name`.
    ///
    /// ```no_run
    /// # use std::sync::Arc;
    /// # use ssmssh::copy::{Location, scp::ScpEndpoint};
    /// # fn example(session: Arc<ssmssh::ssh::Session>) -> Location {
    /// let node = ScpEndpoint::new("i-0123456789abcdef0", move |command| {
    ///     let session = Arc::clone(&session);
    ///     async move { Ok(session.command(command).spawn().await?.into()) }
    /// });
    /// Location::scp(&node, "logs/*.gz")
    /// # }
    /// ```
    pub fn new<F, O>(name: &str, run: F) -> Self
    where
        F: Fn(Vec<u8>) -> O + Send + Sync + 'static,
        O: Future<Output = Result<ScpChannel, Box<dyn Error + Send + Sync>>> + Send + 'static,
    {
        Self { name: name.into(), run: Arc::new(move |command| run(command).boxed()), incoming: None }
    }

    pub(super) async fn run(&self, command: Vec<u8>) -> Result<ScpChannel, ScpError> {
        tracing::debug!(command = %BytePath::new(&command[..]), "scp");
        (self.run)(command).await.map_err(ScpError::NotOpened)
    }

    /// What a command without input prints, `limit` bytes of it at most.
    pub(super) async fn output(&self, command: Vec<u8>, limit: u64) -> Result<Vec<u8>, ScpError> {
        let ScpChannel { mut input, output, mut errors, ended: _running } = self.run(command).await?;
        let _ = input.shutdown().await;
        let (mut printed, mut output) = (Vec::new(), output.take(limit));
        let ignoring = async {
            // It must not wait for somebody to take what it complains about.
            let _ = tokio::io::copy(&mut errors, &mut tokio::io::sink()).await;
            pending::<Infallible>().await
        };
        tokio::select! {
            read = output.read_to_end(&mut printed) => read.map_err(ScpError::Connection)?,
            never = ignoring => match never {},
        };
        Ok(printed)
    }

    /// The same machine, with one file that can be opened: the one that arrives.
    pub(super) fn receiving(&self, incoming: Incoming) -> Self {
        Self { incoming: Some(incoming), ..self.clone() }
    }
}

impl fmt::Debug for ScpEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScpEndpoint").field("name", &self.name).finish_non_exhaustive()
    }
}

/// A running command and its streams. Dropping it ends the command.
pub struct ScpChannel {
    pub(super) input: Box<dyn AsyncWrite + Send + Unpin>,
    pub(super) output: Box<dyn AsyncRead + Send + Unpin>,
    pub(super) errors: Box<dyn AsyncRead + Send + Unpin>,
    pub(super) ended: BoxFuture<'static, Option<u32>>,
}

impl ScpChannel {
    /// A command with these streams; `ended` tells its exit code, if there is one.
    pub fn new<I, O, E, F>(input: I, output: O, errors: E, ended: F) -> Self
    where
        I: AsyncWrite + Send + Unpin + 'static,
        O: AsyncRead + Send + Unpin + 'static,
        E: AsyncRead + Send + Unpin + 'static,
        F: Future<Output = Option<u32>> + Send + 'static,
    {
        Self { input: Box::new(input), output: Box::new(output), errors: Box::new(errors), ended: ended.boxed() }
    }
}

impl From<Child> for ScpChannel {
    /// # Panics
    ///
    /// If a stream of the child was taken out of it.
    fn from(mut child: Child) -> Self {
        let (input, output, errors) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let ended = async move {
            let status = child.wait().await.ok()?;
            // As a shell counts those that a signal ended.
            Some(status.code().unwrap_or(128))
        };
        let whole = "all streams are there";
        Self::new(input.expect(whole), output.expect(whole), errors.expect(whole), ended)
    }
}

impl fmt::Debug for ScpChannel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScpChannel").finish_non_exhaustive()
    }
}

/// Questions cannot be asked over the protocol: a copy sees what it is by [`Endpoint::over_scp`] and asks none.
impl Endpoint for ScpEndpoint {
    fn side(&self) -> Side {
        Side::Remote(Arc::clone(&self.name))
    }

    fn over_scp(&self) -> Option<&ScpEndpoint> {
        Some(self)
    }

    fn resolve<'a>(&'a self, typed: &'a BytePath) -> Answer<'a, BytePath> {
        ready(Ok(typed.clone())).boxed()
    }

    fn stat<'a>(&'a self, _: &'a BytePath) -> Answer<'a, Metadata> {
        unable("tell about a file")
    }

    fn lstat<'a>(&'a self, _: &'a BytePath) -> Answer<'a, Metadata> {
        unable("tell about a file")
    }

    fn canonical<'a>(&'a self, _: &'a BytePath) -> Answer<'a, BytePath> {
        unable("tell what a path leads to")
    }

    fn list<'a>(&'a self, _: &'a BytePath) -> Answer<'a, Vec<Entry>> {
        unable("list a directory")
    }

    fn open<'a>(&'a self, _: &'a BytePath, _: u64) -> Answer<'a, (Box<dyn SourceFile>, Metadata)> {
        match &self.incoming {
            Some(incoming) => ready(Ok(incoming.open())).boxed(),
            None => unable("open a file"),
        }
    }

    /// It is always known: there is no second reading of a file that arrives.
    fn digest<'a>(&'a self, path: &'a BytePath, _: u64) -> Answer<'a, Option<[u8; 32]>> {
        async move { Ok(Some(digest::of_one(self, path).await?)) }.boxed()
    }

    fn digest_of_beginning<'a>(&'a self, path: &'a BytePath, size: u64) -> Answer<'a, Option<[u8; 32]>> {
        async move { Ok(Some(digest::of_beginning(self, path, size).await?)) }.boxed()
    }

    fn create<'a>(&'a self, _: &'a BytePath, _: u32) -> Answer<'a, Box<dyn TargetFile>> {
        unable("create a file")
    }

    fn make_directory<'a>(&'a self, _: &'a BytePath, _: u32) -> Answer<'a, bool> {
        unable("make a directory")
    }

    fn remove<'a>(&'a self, _: &'a BytePath) -> Answer<'a, ()> {
        unable("remove a file")
    }

    /// The protocol has whole seconds since 1970.
    fn carried(&self, time: SystemTime) -> SystemTime {
        time.max(SystemTime::UNIX_EPOCH)
    }

    fn change<'a>(&'a self, _: &'a BytePath, _: Change) -> Answer<'a, ()> {
        unable("set attributes")
    }
}

fn unable<T: Send + 'static>(what: &'static str) -> Answer<'static, T> {
    ready(Err(CopyError::Scp(ScpError::Unable(what)))).boxed()
}
