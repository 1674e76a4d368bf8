//! A real OpenSSH server with a configuration of its own.
//!
//! It runs in inetd mode, one process a connection, behind a listener of the test: so there is no port to race for and
//! nothing to wait for. It needs no privileges: whoever runs the tests is the user that logs in.

use std::{
    fs,
    io::ErrorKind,
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    os::{fd::OwnedFd, unix::fs::PermissionsExt},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
};

use ssmssh::ssh::{HostKeyCheck, KeyFile, PrivateKey, SessionBuilder, StrictHostKeyChecking};

/// A running server. Dropping it ends it and every connection to it.
pub(crate) struct Sshd {
    dir: tempfile::TempDir,
    address: SocketAddr,
    connections: Arc<Mutex<Vec<Child>>>,
    stopped: Arc<AtomicBool>,
    listener: Option<JoinHandle<()>>,
}

impl Sshd {
    /// A server with an Ed25519 host key that lets in the key of [`user_key`](Self::user_key).
    pub(crate) fn start() -> Self {
        Self::with(&["ed25519"], "")
    }

    /// A server with host keys of these types and more lines for its configuration. Of options that are given twice,
    /// sshd takes the first, so these lines win.
    pub(crate) fn with(host_keys: &[&str], config: &str) -> Self {
        let program = program();
        let dir = tempfile::tempdir().expect("a directory");
        let host_keys: String = host_keys.iter().map(|key_type| host_key(dir.path(), key_type)).collect();
        keygen(&["-t", "ed25519", "-N", "", "-f"], &dir.path().join("user"));
        let authorized = dir.path().join("authorized_keys");
        fs::copy(dir.path().join("user.pub"), &authorized).expect("copied");
        let text = format!(
            "{config}\n{host_keys}PidFile none\nUsePAM no\nStrictModes no\nPermitRootLogin yes\nPrintMotd no\n\
             PrintLastLog no\nPasswordAuthentication no\nKbdInteractiveAuthentication no\nLogLevel VERBOSE\n\
             MaxSessions 64\nAcceptEnv TEST_*\nSubsystem sftp internal-sftp\nAuthorizedKeysFile {}\n",
            authorized.display()
        );
        fs::write(dir.path().join("sshd_config"), text).expect("written");
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let mut sshd = Self {
            address: listener.local_addr().expect("bound"),
            dir,
            connections: Arc::default(),
            stopped: Arc::default(),
            listener: None,
        };
        sshd.listener = Some(sshd.serve(program, listener));
        sshd
    }

    fn serve(&self, program: PathBuf, listener: TcpListener) -> JoinHandle<()> {
        let (dir, connections) = (self.dir.path().to_owned(), Arc::clone(&self.connections));
        let stopped = Arc::clone(&self.stopped);
        std::thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                if stopped.load(Ordering::Acquire) {
                    break;
                }
                let child = answer(&program, &dir, stream);
                connections.lock().expect("no test panics with it").push(child);
            }
        })
    }

    /// The same server as one that listens for itself, and so counts who is not logged in yet.
    pub(crate) fn listening(&self) -> Listening {
        for _ in 0..10 {
            // Somebody else may get the port in between.
            let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
            let port = free.local_addr().expect("bound").port();
            drop(free);
            let log = self.dir.path().join(format!("log-{port}"));
            let mut child = Command::new(program())
                .args(["-D", "-o", "ListenAddress=127.0.0.1", "-p", &port.to_string(), "-f"])
                .arg(self.dir.path().join("sshd_config"))
                .arg("-E")
                .arg(&log)
                .stdin(Stdio::null())
                .spawn()
                .expect("sshd runs");
            while child.try_wait().expect("our own child").is_none() {
                if TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok() {
                    return Listening { child, port, log };
                }
                std::thread::sleep(std::time::Duration::from_millis(5));
            }
        }
        panic!("sshd gets no port");
    }

    /// The loopback address that it listens on.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The name of the user that may log in: the one who runs the tests.
    pub(crate) fn user() -> String {
        let name = Command::new("id").arg("-un").output().expect("id runs").stdout;
        String::from_utf8(name).expect("a name").trim().to_owned()
    }

    /// The key that is let in, as a file.
    pub(crate) fn user_key_file(&self) -> PathBuf {
        let path = self.dir.path().join("user");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o400)).expect("our own file");
        path
    }

    /// The key that is let in.
    pub(crate) fn user_key(&self) -> PrivateKey {
        KeyFile::open(self.user_key_file()).and_then(|file| file.decode(None)).expect("a key")
    }

    /// Lets in another key, given as a line of `authorized_keys`.
    pub(crate) fn authorize(&self, public_key: &str) {
        let path = self.dir.path().join("authorized_keys");
        let keys = fs::read_to_string(&path).expect("readable");
        fs::write(path, format!("{keys}{public_key}\n")).expect("writable");
    }

    /// The public line of a host key.
    pub(crate) fn host_key(&self, key_type: &str) -> String {
        fs::read_to_string(self.dir.path().join(format!("host_{key_type}.pub"))).expect("readable")
    }

    /// A file for known hosts that does not exist yet.
    pub(crate) fn known_hosts(&self) -> PathBuf {
        self.dir.path().join("client/known_hosts")
    }

    /// A builder that gets in.
    pub(crate) fn client(&self) -> SessionBuilder {
        self.stranger().identity(self.user_key())
    }

    /// A builder for another user.
    pub(crate) fn client_as(&self, user: &str) -> SessionBuilder {
        self.builder(user).identity(self.user_key())
    }

    /// A builder with everything but a key.
    pub(crate) fn stranger(&self) -> SessionBuilder {
        self.builder(&Self::user())
    }

    fn builder(&self, user: &str) -> SessionBuilder {
        let policy = StrictHostKeyChecking::AcceptNew;
        let check = HostKeyCheck::new(policy, self.known_hosts(), "node", self.address.port());
        SessionBuilder::new(user).host_keys(check)
    }

    /// What the server wrote about its connections, for messages of failed tests.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }
}

/// A server that listens for itself. Dropping it ends it.
pub(crate) struct Listening {
    child: Child,
    pub(crate) port: u16,
    log: PathBuf,
}

impl Listening {
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Release);
        drop(TcpStream::connect(self.address));
        if let Some(listener) = self.listener.take() {
            let _ = listener.join();
        }
        let mut connections = self.connections.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        for child in connections.iter_mut() {
            let _ = child.kill();
            let _ = child.wait();
        }
        #[expect(clippy::print_stderr, reason = "it explains a failed test")]
        if std::thread::panicking() {
            eprintln!("--- what sshd says ---\n{}", self.log());
        }
    }
}

fn program() -> PathBuf {
    let places = ["/usr/sbin/sshd", "/usr/local/sbin/sshd", "/usr/bin/sshd", "/sbin/sshd"];
    let found = places.into_iter().map(Path::new).find(|path| path.exists());
    found.expect("these tests talk to a real sshd: install openssh-server").to_owned()
}

fn host_key(dir: &Path, key_type: &str) -> String {
    // `rsa -b 1024` is a type too.
    let path = dir.join(format!("host_{}", key_type.replace(' ', "_")));
    let words: Vec<_> = ["-t"].into_iter().chain(key_type.split(' ')).chain(["-N", "", "-f"]).collect();
    keygen(&words, &path);
    format!("HostKey {}\n", path.display())
}

fn keygen(arguments: &[&str], path: &Path) {
    let made = Command::new("ssh-keygen").arg("-q").args(arguments).arg(path).status();
    assert!(made.expect("ssh-keygen runs: install openssh-client").success(), "ssh-keygen {arguments:?}");
}

fn answer(program: &Path, dir: &Path, stream: TcpStream) -> Child {
    let log = fs::OpenOptions::new().create(true).append(true).open(dir.join("log")).expect("a log");
    let input = OwnedFd::from(stream.try_clone().expect("another descriptor"));
    let child = Command::new(program)
        .args(["-i", "-e", "-f"])
        .arg(dir.join("sshd_config"))
        .stdin(Stdio::from(input))
        .stdout(Stdio::from(OwnedFd::from(stream)))
        .stderr(log)
        .spawn();
    match child {
        Ok(child) => child,
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {
            panic!("cannot run {}: {error}", program.display())
        }
        Err(error) => panic!("sshd: {error}"),
    }
}
