//! Copies to and from a real `sftp-server`, spoken to over its standard streams.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Mutex;
use std::time::{Duration, SystemTime};

use ssmssh::copy::{
    BytePath, CopyError, CopyOptions, Event, Location, Progress, RemoteEndpoint, Summary, copy, copy_until,
};
use ssmssh::ssh::sftp::Sftp;
use tempfile::TempDir;
use tokio::process::{Child, Command};

use crate::support::sshd::Sshd;

/// A server whose login directory is `dir`. Dropping it kills it.
pub(crate) struct Server {
    pub(crate) dir: TempDir,
    process: Child,
    pub(crate) endpoint: RemoteEndpoint,
}

impl Server {
    pub(crate) async fn start() -> Self {
        Self::with(&[]).await
    }

    pub(crate) async fn with(options: &[&str]) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let mut process = Command::new(program())
            .args(options)
            .current_dir(dir.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("sftp-server runs");
        let (input, output) = (process.stdin.take().expect("piped"), process.stdout.take().expect("piped"));
        let sftp = Sftp::new(tokio::io::join(output, input)).await.expect("a session");
        Self { dir, process, endpoint: RemoteEndpoint::new(sftp, "node") }
    }

    pub(crate) fn at(&self, path: impl Into<Vec<u8>>) -> Location {
        Location::remote(&self.endpoint, BytePath::new(path))
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
}

pub(crate) fn program() -> &'static Path {
    let places = [
        "/usr/lib/openssh/sftp-server",
        "/usr/libexec/openssh/sftp-server",
        "/usr/lib/ssh/sftp-server",
        "/usr/libexec/sftp-server",
    ];
    let found = places.into_iter().map(Path::new).find(|path| path.exists());
    found.expect("these tests talk to a real sftp-server: install openssh-sftp-server")
}

fn local(path: impl Into<PathBuf>) -> Location {
    Location::local(path.into())
}

fn recursive() -> CopyOptions {
    CopyOptions::default().recursive(true)
}

async fn run(source: Location, target: Location, options: CopyOptions) -> Summary {
    copy(vec![source], target, options, |_| {}).await.expect("a summary")
}

async fn run_whole(source: Location, target: Location, options: CopyOptions) -> Summary {
    let summary = run(source, target, options).await;
    assert!(summary.is_complete(), "{:?}", summary.failures);
    summary
}

/// Everything under `root`: directories with `None`, files with their content.
pub(crate) fn tree(root: &Path) -> BTreeMap<OsString, Option<Vec<u8>>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(root).expect("a directory") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().expect("a name").to_owned();
        if path.is_dir() {
            found.extend(tree(&path).into_iter().map(|(inner, content)| {
                let inner = [name.as_bytes(), b"/", inner.as_bytes()].concat();
                (OsString::from_vec(inner), content)
            }));
            found.insert(name, None);
        } else {
            found.insert(name, Some(fs::read(&path).expect("readable")));
        }
    }
    found
}

/// Bytes that do not repeat, the same for the same `seed`.
pub(crate) fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    std::iter::repeat_with(&mut next).flatten().take(length).collect()
}

/// A thousand small files in nested directories, with names that break careless programs.
fn make_tree(root: &Path) {
    let odd: [&[u8]; 8] =
        [b"with space", b"quo'te\"s", b"new\nline", b"\xff\xfe\x80", b"-r", b"~", b"*?[x]", b"\xc3\xa9t\xc3\xa9"];
    for directory in 0..10u64 {
        let path = root.join(format!("d{directory}/nested"));
        fs::create_dir_all(&path).expect("made");
        for file in 0..99u64 {
            let length = usize::try_from(file * 37 % 5000).expect("small");
            fs::write(path.join(format!("f{file}")), noise(length, directory * 100 + file + 1)).expect("written");
        }
    }
    for name in odd {
        fs::write(root.join(OsStr::from_bytes(name)), name).expect("written");
        let directory = root.join(OsStr::from_bytes(&[b"dir ", name].concat()));
        fs::create_dir(&directory).expect("made");
        fs::write(directory.join(OsStr::from_bytes(name)), b"").expect("written");
    }
    fs::create_dir(root.join("empty")).expect("made");
    fs::write(root.join("x".repeat(255)), b"the longest name").expect("written");
}

#[tokio::test]
async fn a_tree_of_a_thousand_files_survives_each_way() {
    let (here, server) = (tempfile::tempdir().unwrap(), Server::start().await);
    let from = here.path().join("from");
    make_tree(&from);
    let up = run_whole(local(&from), server.at("up"), recursive()).await;
    assert_eq!((up.files, tree(&server.path("up")) == tree(&from)), (1007, true));
    run_whole(server.at("up"), local(here.path().join("back")), recursive()).await;
    assert!(tree(&here.path().join("back")) == tree(&from));
}

#[tokio::test]
async fn a_large_file_survives_each_way() {
    let (here, server) = (tempfile::tempdir().unwrap(), Server::start().await);
    let content = noise(32 * 1024 * 1024 + 12_345, 7);
    fs::write(here.path().join("large"), &content).unwrap();
    let up = run_whole(local(here.path().join("large")), server.at(""), CopyOptions::default()).await;
    assert_eq!((up.files, up.bytes), (1, content.len() as u64));
    assert!(fs::read(server.path("large")).unwrap() == content);
    run_whole(server.at("~/large"), local(here.path().join("back")), CopyOptions::default()).await;
    assert!(fs::read(here.path().join("back")).unwrap() == content);
}

#[tokio::test]
async fn a_copy_goes_from_one_node_to_another() {
    let (one, two) = (Server::start().await, Server::start().await);
    fs::write(one.path("file"), noise(300_000, 3)).unwrap();
    run_whole(one.at("file"), two.at("~"), CopyOptions::default()).await;
    assert!(fs::read(two.path("file")).unwrap() == noise(300_000, 3));
}

#[tokio::test]
async fn modes_and_times_are_kept_when_asked_for() {
    let (here, server) = (tempfile::tempdir().unwrap(), Server::with(&["-u", "027"]).await);
    let from = here.path().join("from");
    fs::create_dir(&from).unwrap();
    fs::write(from.join("file"), b"x").unwrap();
    let then = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    for (path, mode) in [(from.join("file"), 0o6757), (from.clone(), 0o705)] {
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        fs::File::open(&path).unwrap().set_modified(then).unwrap();
    }
    let mode = |path: &str| fs::metadata(server.path(path)).unwrap().mode() & 0o7777;
    let time = |path: &str| fs::metadata(server.path(path)).unwrap().modified().unwrap();

    run_whole(local(&from), server.at("plain"), recursive()).await;
    assert_eq!([mode("plain"), mode("plain/file")], [0o700, 0o750], "less the umask");
    assert!(time("plain/file") > then);

    run_whole(local(&from), server.at("kept"), recursive().preserve(true)).await;
    assert_eq!([mode("kept"), mode("kept/file")], [0o705, 0o757], "never setuid");
    assert_eq!([time("kept"), time("kept/file")], [then; 2]);

    let back = here.path().join("back");
    run_whole(server.at("kept"), local(&back), recursive().preserve(true)).await;
    let metadata = fs::metadata(back.join("file")).unwrap();
    assert_eq!((metadata.mode() & 0o7777, metadata.modified().unwrap()), (0o757, then));
    assert_eq!(fs::metadata(back).unwrap().modified().unwrap(), then);
}

#[tokio::test]
async fn a_file_that_was_there_is_replaced_and_keeps_its_mode() {
    let (here, server) = (tempfile::tempdir().unwrap(), Server::start().await);
    fs::write(here.path().join("new"), b"new").unwrap();
    fs::create_dir(server.path("dir")).unwrap();
    for name in ["dir/old", "dir/new", "dir/behind"] {
        fs::write(server.path(name), b"something older").unwrap();
        fs::set_permissions(server.path(name), fs::Permissions::from_mode(0o640)).unwrap();
    }
    std::os::unix::fs::symlink("dir/behind", server.path("link")).unwrap();
    for target in ["dir/old", "dir", "link"] {
        run_whole(local(here.path().join("new")), server.at(target), CopyOptions::default()).await;
    }
    for name in ["dir/old", "dir/new", "dir/behind"] {
        assert_eq!(fs::read(server.path(name)).unwrap(), b"new");
        assert_eq!(fs::metadata(server.path(name)).unwrap().mode() & 0o777, 0o640);
    }
    assert!(fs::symlink_metadata(server.path("link")).unwrap().is_symlink(), "a link that was named is followed");
    assert_eq!(tree(server.dir.path()).len(), 5, "no temporary file is left");
}

#[tokio::test]
async fn what_the_node_refuses_is_told_with_its_side_and_path() {
    let (here, server) = (tempfile::tempdir().unwrap(), Server::start().await);
    fs::write(here.path().join("file"), b"x").unwrap();
    fs::create_dir_all(server.path("dir/file")).unwrap();
    fs::write(server.path("flat"), b"x").unwrap();
    let message = async |target: &str| {
        let summary = run(local(here.path().join("file")), server.at(target), CopyOptions::default()).await;
        summary.failures.first().map(ToString::to_string).unwrap_or_default()
    };
    assert_eq!(message("dir").await, "node:dir/file: a directory is where the file should be");
    assert_eq!(message("none/file").await, "node:none/file: no such file or directory");
    assert!(message("flat/file").await.starts_with("node:flat/file: "), "{}", message("flat/file").await);
    let missing = run(server.at("a\nb"), local(here.path()), CopyOptions::default()).await;
    assert_eq!(missing.failures[0].to_string(), "node:a\\nb: no such file or directory");
    let slash = copy(vec![server.at("flat")], local(here.path().join("none/")), CopyOptions::default(), |_| {}).await;
    assert!(slash.is_ok_and(|summary| summary.failures.len() == 1));
}

#[tokio::test]
async fn a_node_that_denies_writing_denies_each_file_and_the_copy_goes_on() {
    let (here, server) = (tempfile::tempdir().unwrap(), Server::with(&["-R"]).await);
    let sources = ["one", "two"].map(|name| {
        fs::write(here.path().join(name), name).unwrap();
        local(here.path().join(name))
    });
    let summary = copy(sources.to_vec(), server.at(""), CopyOptions::default(), |_| {}).await.unwrap();
    let mut messages: Vec<_> = summary.failures.iter().map(ToString::to_string).collect();
    messages.sort();
    assert_eq!(messages, ["node:one: permission denied", "node:two: permission denied"]);
}

#[tokio::test]
async fn a_server_that_dies_leaves_nothing_that_looks_whole() {
    let here = tempfile::tempdir().unwrap();
    for is_upload in [true, false] {
        let mut server = Server::start().await;
        let (from, to) = (here.path().join("big"), here.path().join("copy"));
        for path in [from.clone(), server.path("big")] {
            fs::File::create(path).unwrap().set_len(1 << 30).unwrap();
        }
        let (source, target) =
            if is_upload { (local(from), server.at("copy")) } else { (server.at("big"), local(&to)) };
        let (moving, mut is_moving) = tokio::sync::mpsc::unbounded_channel();
        let note = move |progress: Progress<'_>| {
            if matches!(progress.event, Event::Advanced { .. }) {
                let _ = moving.send(());
            }
        };
        let copying = copy(vec![source], target, CopyOptions::default(), note);
        let kill = async {
            is_moving.recv().await;
            server.process.kill().await.unwrap();
        };
        let (outcome, ()) = tokio::join!(copying, kill);
        assert!(matches!(outcome, Err(CopyError::Lost { .. })), "{outcome:?}");
        assert!(!to.exists() && !server.path("copy").exists());
        let left = fs::read_dir(here.path()).unwrap().map(|entry| entry.unwrap().file_name());
        assert_eq!(left.collect::<Vec<_>>(), ["big"], "nothing is left on this machine");
    }
}

#[tokio::test]
async fn a_stopped_upload_removes_its_temporary_file_from_the_node() {
    let (here, server) = (tempfile::tempdir().unwrap(), Server::start().await);
    // Without holes, which are told of before there is anything in the file.
    fs::write(here.path().join("big"), vec![7; 64 << 20]).unwrap();
    let is_moving = tokio::sync::Notify::new();
    let modes = Mutex::new(Vec::new());
    let note = |progress: Progress<'_>| {
        if matches!(progress.event, Event::Advanced { .. }) {
            let found = fs::read_dir(server.dir.path()).unwrap().map(|entry| entry.unwrap().metadata().unwrap());
            modes.lock().unwrap().extend(found.filter(|found| found.len() > 0).map(|found| found.mode()));
            is_moving.notify_one();
        }
    };
    let source = vec![local(here.path().join("big"))];
    let stopped = copy_until(source, server.at("copy"), CopyOptions::default(), note, is_moving.notified()).await;
    assert!(matches!(stopped, Err(CopyError::Stopped { .. })));
    assert_eq!(tree(server.dir.path()).len(), 0);
    assert!(modes.lock().unwrap().iter().all(|mode| mode & 0o7777 == 0o600), "open to its owner alone");
}

#[tokio::test]
async fn a_copy_runs_over_a_session_of_a_real_sshd() {
    let (here, sshd) = (tempfile::tempdir().unwrap(), Sshd::start());
    let from = here.path().join("from");
    make_tree(&from);
    let stream = tokio::net::TcpStream::connect(sshd.address()).await.unwrap();
    let session = sshd.client().connect(stream).await.unwrap();
    let sftp = Sftp::new(session.subsystem("sftp").await.unwrap()).await.unwrap();
    let endpoint = RemoteEndpoint::new(sftp, "node");
    let at = |name: &str| Location::remote(&endpoint, BytePath::from(here.path().join(name)));
    run_whole(local(&from), at("up"), recursive()).await;
    run_whole(at("up"), local(here.path().join("back")), recursive()).await;
    assert!(tree(&here.path().join("back")) == tree(&from));
}
