//! Everything of the library can be used from any task: its futures are `Send`, what it gives out is `Send` and `Sync`.
//!
//! The compiler proves it below, of each item by name. The tests compare the names with those in the sources, so that a new
//! item cannot slip past.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use ssmssh::{Client, ClientBuilder, Connection, SSH_PORT, aws, copy, ssh, ssh::sftp, stream};
use tokio::io::DuplexStream;

const fn is_send<T: Send>(_: &T) {}
const fn is_shared<T: Send + Sync + ?Sized>() {}

/// Proves of each call that its future is `Send`, and lists them by file and name.
macro_rules! futures {
    ($($file:literal $name:ident($($argument:ident: $type:ty),*) { $future:expr })*) => {
        const FUTURES: &[(&str, &str)] = &[$(($file, stringify!($name))),*];
        $(const _: () = {
            #[expect(dead_code, reason = "it is enough that it compiles")]
            fn call($($argument: $type),*) {
                is_send(&$future);
            }
        };)*
    };
}

futures! {
    "ssh/sftp/session.rs" limits(session: &sftp::Sftp) { session.limits() }
    "ssh/sftp/session.rs" open(session: &sftp::Sftp, path: &[u8], flags: sftp::OpenFlags, attributes: &sftp::Attributes) { session.open(path, flags, attributes) }
    "ssh/sftp/session.rs" close(session: &sftp::Sftp, handle: sftp::Handle) { session.close(handle) }
    "ssh/sftp/session.rs" read(session: &sftp::Sftp, handle: &sftp::Handle, offset: u64, length: u32) { session.read(handle, offset, length) }
    "ssh/sftp/session.rs" write(session: &sftp::Sftp, handle: &sftp::Handle, offset: u64, data: bytes::Bytes) { session.write(handle, offset, data) }
    "ssh/sftp/session.rs" stat(session: &sftp::Sftp, path: &[u8]) { session.stat(path) }
    "ssh/sftp/session.rs" lstat(session: &sftp::Sftp, path: &[u8]) { session.lstat(path) }
    "ssh/sftp/session.rs" fstat(session: &sftp::Sftp, handle: &sftp::Handle) { session.fstat(handle) }
    "ssh/sftp/session.rs" setstat(session: &sftp::Sftp, path: &[u8], attributes: &sftp::Attributes) { session.setstat(path, attributes) }
    "ssh/sftp/session.rs" lsetstat(session: &sftp::Sftp, path: &[u8], attributes: &sftp::Attributes) { session.lsetstat(path, attributes) }
    "ssh/sftp/session.rs" fsetstat(session: &sftp::Sftp, handle: &sftp::Handle, attributes: &sftp::Attributes) { session.fsetstat(handle, attributes) }
    "ssh/sftp/session.rs" open_dir(session: &sftp::Sftp, path: &[u8]) { session.open_dir(path) }
    "ssh/sftp/session.rs" read_dir(session: &sftp::Sftp, handle: &sftp::Handle) { session.read_dir(handle) }
    "ssh/sftp/session.rs" mkdir(session: &sftp::Sftp, path: &[u8], attributes: &sftp::Attributes) { session.mkdir(path, attributes) }
    "ssh/sftp/session.rs" rmdir(session: &sftp::Sftp, path: &[u8]) { session.rmdir(path) }
    "ssh/sftp/session.rs" remove(session: &sftp::Sftp, path: &[u8]) { session.remove(path) }
    "ssh/sftp/session.rs" rename(session: &sftp::Sftp, from: &[u8], to: &[u8]) { session.rename(from, to) }
    "ssh/sftp/session.rs" posix_rename(session: &sftp::Sftp, from: &[u8], to: &[u8]) { session.posix_rename(from, to) }
    "ssh/sftp/session.rs" fsync(session: &sftp::Sftp, handle: &sftp::Handle) { session.fsync(handle) }
    "ssh/sftp/session.rs" realpath(session: &sftp::Sftp, path: &[u8]) { session.realpath(path) }
    "ssh/sftp/session.rs" expand_path(session: &sftp::Sftp, path: &[u8]) { session.expand_path(path) }
    "ssh/sftp/session.rs" statvfs(session: &sftp::Sftp, path: &[u8]) { session.statvfs(path) }
    "ssh/sftp/session.rs" readlink(session: &sftp::Sftp, path: &[u8]) { session.readlink(path) }
    "ssh/sftp/session.rs" symlink(session: &sftp::Sftp, target: &[u8], link: &[u8]) { session.symlink(target, link) }
    "ssh/sftp/session.rs" new(stream: DuplexStream) { sftp::Sftp::new(stream) }
    "ssh/host_key/forget.rs" forget(check: &ssh::HostKeyCheck) { check.forget() }
    "ssh/command.rs" spawn(command: ssh::Command<'static>) { command.spawn() }
    "ssh/command.rs" output(command: ssh::Command<'static>) { command.output() }
    "ssh/command.rs" status(command: ssh::Command<'static>) { command.status() }
    "ssh/command.rs" wait(child: &mut ssh::Child) { child.wait() }
    "ssh/command.rs" resize(child: &ssh::Child) { child.resize(80, 24, 0, 0) }
    "ssh/command.rs" signal(child: &ssh::Child) { child.signal("TERM") }
    "ssh/agent.rs" keys(agent: &ssh::SshAgent) { agent.keys() }
    "ssh/mod.rs" connect(builder: ssh::SessionBuilder, stream: DuplexStream) { builder.connect(stream) }
    "ssh/mod.rs" subsystem(session: &ssh::Session) { session.subsystem("sftp") }
    "ssh/mod.rs" close(session: ssh::Session) { session.close() }
    "aws/mod.rs" build(builder: aws::AwsServiceBuilder) { builder.build() }
    "stream/mod.rs" open(service: Arc<dyn stream::SsmService>, request: stream::StartRequest, options: stream::StreamOptions) { stream::SsmStream::open(service, request, options) }
    "stream/mod.rs" closed(handle: &stream::StreamHandle) { handle.closed() }
    "stream/mod.rs" gone(handle: &stream::StreamHandle) { handle.gone() }
    "client.rs" build(builder: ClientBuilder) { builder.build() }
    "client.rs" open(client: &Client, target: &stream::TargetId) { client.open(target, SSH_PORT) }
    "client.rs" connect(client: &Client, target: &stream::TargetId, session: ssh::SessionBuilder) { client.connect(target, SSH_PORT, session) }
    "client.rs" login(client: &Client, stream: stream::SsmStream, session: ssh::SessionBuilder) { client.login(stream, session) }
    "client.rs" wait_idle(client: &Client) { client.wait_idle() }
    "client.rs" wait_ended(client: &Client) { client.wait_ended() }
    "client.rs" close(connection: Connection) { connection.close() }
    "copy/mod.rs" copy(from: copy::Location, to: copy::Location, options: copy::CopyOptions) { copy::copy(vec![from], to, options, |_| {}) }
    "copy/mod.rs" copy_until(from: copy::Location, to: copy::Location, options: copy::CopyOptions) { copy::copy_until(vec![from], to, options, |_| {}, std::future::pending()) }
}

/// Proves of each type that it is `Send` and `Sync`, and lists them by name.
macro_rules! shared {
    ($($module:path { $($name:ident $(<$lifetime:lifetime>)?),* })*) => {
        const TYPES: &[&str] = &[$($(stringify!($name)),*),*];
        $(const _: () = {
            #[allow(unused_imports, reason = "one module may be a part of another")]
            use $module::*;
            $(is_shared::<$name $(<$lifetime>)?>();)*
        };)*
    };
}

shared! {
    ssmssh { Client, ClientBuilder, ClientError, Connection }
    ssmssh::aws { AwsService, AwsServiceBuilder }
    ssmssh::copy { BytePath, Change, Compression, CopyError, CopyOptions, Entry, Event<'static>, Exclude, Failure, Finished, Links, LocalEndpoint, Location, Metadata, Piece, Progress<'static>, Ranges, RemoteEndpoint, Shortfall, Side, Skip, StreamKind, Streams, Summary, Totals, Transfer, Warning, Window }
    ssmssh::copy::scp { Answered, Control, Exit, Header, LineError, Received, Reply, Request, ScpEndpoint, ScpError, Sink, Source, Times, Words }
    ssmssh::datachannel { ChannelError, CloseReason, Config, DataChannel, Event, Stats, Transmit }
    ssmssh::ssh { AgentError, AgentKey, AuthenticationError, Child, ChildStderr, ChildStdin, ChildStdout, Command<'static>, ExitStatus, HostKey, HostKeyCheck, HostKeyError, Identity, KeyError, KeyFile, Lost, Output, PrivateKey, Pty, PtyMode, Session, SessionBuilder, SshAgent, SshError, StrictHostKeyChecking, Subsystem, TransportError }
    ssmssh::ssh::sftp { Attributes, DirEntry, Extension, FileKind, Handle, Limits, OpenFlags, ProtocolError, Sftp, SftpError, Space, StreamFailure }
    ssmssh::stream { AddressFamily, ConnectionState, Denied, DialError, Grant, Network, Obstacle, Opening, ProxyConfig, ProxyError, ServiceError, SessionId, SsmStream, StartRequest, StreamError, StreamHandle, StreamOptions, TargetId, TargetIdError, UrlError }
    ssmssh::wire { Acknowledge, ActionStatus, AgentSessionState, BodyError, ChannelClosed, DecodeError, EncryptionChallenge, Flag, Frame, FrameBuf, HandshakeComplete, HandshakeRequest, HandshakeResponse, Header<'static>, Ids, Message, MessageKind, OpenDataChannel, PayloadType, ProcessedClientAction, RequestedClientAction, SessionTypeParameters, Size }
}

/// The streams of a program's own, which are handed over as a whole: nothing of it is shared.
const SENT_ONLY: &str = "ScpChannel";

const _: () = {
    const fn is_sent<T: Send>() {}
    is_sent::<copy::scp::ScpChannel>();
    is_shared::<dyn stream::SsmService>();
    is_shared::<dyn copy::Endpoint>();
    is_shared::<dyn copy::SourceFile>();
    is_shared::<dyn copy::TargetFile>();
};

/// The library's sources by their names below `src`, without tests and without the commands.
fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder of sources") {
        let path = entry.expect("an entry").path();
        if path.is_dir() && !path.ends_with("src/cli") && !path.ends_with("src/bin") && !path.ends_with("tests") {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") && !path.ends_with("tests.rs") {
            found.push(path);
        }
    }
}

/// What stands behind one of `words` at the beginning of a line of the library, with the file. All that is `pub` is public:
/// the compiler warns of what is not.
fn declared(words: &[&str]) -> BTreeSet<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&root, &mut files);
    let mut found = BTreeSet::new();
    for path in files {
        let file = path.strip_prefix(&root).expect("below it").to_str().expect("a name").to_owned();
        for line in fs::read_to_string(&path).expect("a source file").lines() {
            let Some(rest) = words.iter().find_map(|word| line.trim_start().strip_prefix(word)) else { continue };
            let name = rest.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or_default();
            found.insert((file.clone(), name.to_owned()));
        }
    }
    found
}

#[test]
fn every_public_async_function_gives_a_future_that_can_be_spawned() {
    let asserted = FUTURES.iter().map(|(file, name)| ((*file).to_owned(), (*name).to_owned())).collect();
    assert_eq!(declared(&["pub async fn "]), asserted);
}

#[test]
fn everything_public_can_be_shared_between_tasks() {
    let names: BTreeSet<_> = declared(&["pub struct ", "pub enum "]).into_iter().map(|(_, name)| name).collect();
    assert_eq!(names, TYPES.iter().chain([&SENT_ONLY]).map(|name| (*name).to_owned()).collect());
}

#[test]
fn a_public_function_that_gives_a_future_in_another_way_is_looked_at() {
    let mut found = Vec::new();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    sources(&root, &mut found);
    let texts: Vec<_> = found.iter().map(|path| fs::read_to_string(path).expect("a source file")).collect();
    let ways = texts.iter().flat_map(|text| text.lines()).filter(|line| {
        let line = line.trim_start();
        line.starts_with("pub fn ") && (line.contains("-> impl Future") || line.contains("-> BoxFuture"))
    });
    assert_eq!(ways.collect::<Vec<_>>(), Vec::<&str>::new(), "say `async fn`, or prove it above");
}
