//! Places to copy to and from: every kind of endpoint, with a way to look at its files that does not go through it.

use std::any::Any;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use ssm_lab::Lab;
use ssmssh::copy::{BytePath, Endpoint, LocalEndpoint, Location, RemoteEndpoint, Side};
use ssmssh::ssh::sftp::Sftp;
use ssmssh::ssh::{HostKeyCheck, KeyFile, SessionBuilder, StrictHostKeyChecking};
use tempfile::TempDir;
use tokio::net::TcpStream;

use super::memory::Memory;
use super::sshd::Sshd;
use crate::copy_scp::scp_in;
use crate::copy_sftp::Server;

/// A starting directory behind an endpoint.
pub(crate) struct Place {
    pub(crate) endpoint: Arc<dyn Endpoint>,
    /// Stands before each path; the remote sides have a starting directory of their own.
    base: BytePath,
    pub(crate) files: Files,
    /// Servers, sessions and directories that have to live as long.
    _alive: Box<dyn Any>,
}

/// The files of a place, looked at from outside.
pub(crate) enum Files {
    Disk(PathBuf),
    Memory(Memory),
}

impl Place {
    #[expect(clippy::unused_async, reason = "all places are made alike")]
    pub(crate) async fn memory() -> Self {
        let memory = Memory::default();
        let endpoint = Arc::new(memory.clone());
        Self { endpoint, base: BytePath::from(""), files: Files::Memory(memory), _alive: Box::new(()) }
    }

    #[expect(clippy::unused_async, reason = "all places are made alike")]
    pub(crate) async fn local() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().to_owned();
        Self {
            endpoint: Arc::new(LocalEndpoint::default()),
            base: path.clone().into(),
            files: Files::Disk(path),
            _alive: Box::new(directory),
        }
    }

    /// The SFTP server of the lab, over an SSH session.
    pub(crate) async fn embedded() -> Self {
        let lab = Lab::builder().start().await.expect("a lab");
        let login = KeyFile::open(lab.identity()).and_then(|file| file.decode(None)).expect("the lab's key");
        let known = TempDir::new().expect("a directory");
        let hosts =
            HostKeyCheck::new(StrictHostKeyChecking::AcceptNew, known.path().join("known_hosts"), lab.node(), 22);
        let stream = TcpStream::connect(lab.sshd_address()).await.expect("it listens");
        let session = SessionBuilder::new(lab.user()).identity(login).host_keys(hosts).connect(stream).await;
        let session = session.expect("let in");
        let sftp = Sftp::new(session.subsystem("sftp").await.expect("started")).await.expect("a session");
        let path = lab.home().to_owned();
        Self::behind(sftp, path, (lab, session, known))
    }

    /// OpenSSH's `sftp-server`.
    pub(crate) async fn openssh() -> Self {
        let server = Server::start().await;
        let (endpoint, path) = (server.endpoint.clone(), server.dir.path().to_owned());
        Self {
            endpoint: Arc::new(endpoint),
            base: BytePath::from(""),
            files: Files::Disk(path),
            _alive: Box::new(server),
        }
    }

    /// OpenSSH's SFTP server behind its `sshd`.
    pub(crate) async fn sshd() -> Self {
        let (sshd, directory) = (Sshd::start(), tempfile::tempdir().expect("a directory"));
        let stream = TcpStream::connect(sshd.address()).await.expect("it listens");
        let session = sshd.client().connect(stream).await.expect("let in");
        let sftp = Sftp::new(session.subsystem("sftp").await.expect("started")).await.expect("a session");
        let path = directory.path().to_owned();
        let base = path.clone().into();
        Self { base, ..Self::behind(sftp, path, (directory, session, sshd)) }
    }

    /// OpenSSH's `scp`.
    #[expect(clippy::unused_async, reason = "all places are made alike")]
    pub(crate) async fn scp() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().to_owned();
        Self {
            endpoint: Arc::new(scp_in(&path)),
            base: BytePath::from(""),
            files: Files::Disk(path),
            _alive: Box::new(directory),
        }
    }

    fn behind(sftp: Sftp, path: PathBuf, alive: impl Any) -> Self {
        Self {
            endpoint: Arc::new(RemoteEndpoint::new(sftp, "node")),
            base: BytePath::from(""),
            files: Files::Disk(path),
            _alive: Box::new(alive),
        }
    }

    /// The directory it starts from, where that is on a disk.
    pub(crate) fn root(&self) -> &Path {
        let Files::Disk(path) = &self.files else { panic!("not on a disk") };
        path
    }

    /// How messages name a file of this place.
    pub(crate) fn shown(&self, name: &str) -> String {
        match self.endpoint.side() {
            Side::Remote(node) => format!("{node}:{}", self.path(name)),
            Side::Local => self.path(name).to_string(),
        }
    }

    /// What `name` means here, for the endpoint's own methods.
    pub(crate) fn path(&self, name: impl AsRef<[u8]>) -> BytePath {
        if self.base.as_bytes().is_empty() { BytePath::new(name.as_ref()) } else { self.base.join(name.as_ref()) }
    }

    pub(crate) fn at(&self, name: impl AsRef<[u8]>) -> Location {
        Location::on(Arc::clone(&self.endpoint), self.path(name))
    }
}

impl Files {
    pub(crate) fn put(&self, name: impl AsRef<[u8]>, content: &[u8], mode: u32) {
        match self {
            Self::Disk(root) => {
                fs::write(join(root, name.as_ref()), content).expect("written");
                self.set_mode(name, mode);
            }
            Self::Memory(memory) => memory.put(name.as_ref(), Some(content), mode),
        }
    }

    pub(crate) fn make_directory(&self, name: impl AsRef<[u8]>) {
        match self {
            Self::Disk(root) => fs::create_dir(join(root, name.as_ref())).expect("made"),
            Self::Memory(memory) => memory.put(name.as_ref(), None, 0o755),
        }
    }

    pub(crate) fn read(&self, name: impl AsRef<[u8]>) -> Option<Vec<u8>> {
        match self {
            Self::Disk(root) => fs::read(join(root, name.as_ref())).ok(),
            Self::Memory(memory) => memory.nodes().get(name.as_ref())?.content.clone(),
        }
    }

    pub(crate) fn mode(&self, name: impl AsRef<[u8]>) -> u32 {
        match self {
            Self::Disk(root) => fs::metadata(join(root, name.as_ref())).expect("there").mode() & 0o7777,
            Self::Memory(memory) => memory.nodes()[name.as_ref()].mode,
        }
    }

    pub(crate) fn set_mode(&self, name: impl AsRef<[u8]>, mode: u32) {
        match self {
            Self::Disk(root) => {
                fs::set_permissions(join(root, name.as_ref()), fs::Permissions::from_mode(mode)).expect("changed");
            }
            Self::Memory(memory) => memory.nodes().get_mut(name.as_ref()).expect("there").mode = mode,
        }
    }

    pub(crate) fn modified(&self, name: impl AsRef<[u8]>) -> SystemTime {
        match self {
            Self::Disk(root) => fs::metadata(join(root, name.as_ref())).expect("there").modified().expect("told"),
            Self::Memory(memory) => memory.nodes()[name.as_ref()].modified,
        }
    }

    pub(crate) fn set_modified(&self, name: impl AsRef<[u8]>, seconds: u64) {
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        match self {
            Self::Disk(root) => {
                let file = fs::File::open(join(root, name.as_ref())).expect("there");
                file.set_times(fs::FileTimes::new().set_accessed(time).set_modified(time)).expect("changed");
            }
            Self::Memory(memory) => memory.nodes().get_mut(name.as_ref()).expect("there").modified = time,
        }
    }

    /// Every path, those of directories with a slash at the end.
    pub(crate) fn all(&self) -> Vec<Vec<u8>> {
        let mut found = match self {
            Self::Disk(root) => below(root, b""),
            Self::Memory(memory) => {
                let end = |is_directory: bool| if is_directory { &b"/"[..] } else { b"" };
                let nodes = memory.nodes();
                nodes.iter().map(|(path, node)| [path, end(node.content.is_none())].concat()).collect()
            }
        };
        found.sort();
        found
    }

    /// The permission bits that new files do not get.
    pub(crate) fn umask(&self) -> u32 {
        match self {
            Self::Disk(_) => {
                let probe = tempfile::tempdir().expect("a directory");
                let path = probe.path().join("probe");
                fs::write(&path, b"").expect("written");
                0o666 & !fs::metadata(path).expect("there").mode()
            }
            Self::Memory(_) => Memory::umask(),
        }
    }
}

fn join(root: &Path, name: &[u8]) -> PathBuf {
    root.join(OsStr::from_bytes(name))
}

fn below(root: &Path, base: &[u8]) -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(join(root, base)).expect("a directory") {
        let entry = entry.expect("an entry");
        let path = [base, entry.file_name().as_bytes()].concat();
        if entry.file_type().expect("told").is_dir() {
            let base = [&path[..], b"/"].concat();
            found.extend(below(root, &base));
            found.push(base);
        } else {
            found.push(path);
        }
    }
    found
}
