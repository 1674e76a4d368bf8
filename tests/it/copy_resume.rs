//! Interrupted copies that go on, to and from a real `sftp-server`.

use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use ssmssh::copy::{
    BytePath, CopyError, CopyOptions, Event, Location, Progress, RemoteEndpoint, Summary, copy, copy_until,
};
use ssmssh::ssh::sftp::Sftp;
use tempfile::TempDir;
use tokio::process::{Child, Command};
use tokio::sync::Notify;

use crate::copy_sftp::{noise, program};
use crate::support::sshd::Sshd;

const MIB: u64 = 1024 * 1024;
const SIZE: u64 = 24 * MIB;

/// Two folders, a server in one of them, and a journal. The source is called `file`, its copy too.
struct World {
    here: TempDir,
    there: TempDir,
    state: TempDir,
    is_upload: bool,
}

/// A server; dropping it kills it.
struct Server {
    process: Child,
    endpoint: RemoteEndpoint,
}

impl Server {
    async fn start(directory: &Path) -> Self {
        let mut process = Command::new(program())
            .current_dir(directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("sftp-server runs");
        let (input, output) = (process.stdin.take().expect("piped"), process.stdout.take().expect("piped"));
        let sftp = Sftp::new(tokio::io::join(output, input)).await.expect("a session");
        Self { process, endpoint: RemoteEndpoint::new(sftp, "node") }
    }
}

impl World {
    fn new(is_upload: bool) -> Self {
        let folder = || tempfile::tempdir().expect("a folder");
        let world = Self { here: folder(), there: folder(), state: folder(), is_upload };
        world.write_source(&noise(usize::try_from(SIZE).expect("small"), 9));
        world
    }

    fn from(&self) -> &Path {
        if self.is_upload { self.here.path() } else { self.there.path() }
    }

    fn to(&self) -> &Path {
        if self.is_upload { self.there.path() } else { self.here.path() }
    }

    /// An old file, so that its time tells of every change.
    fn write_source(&self, content: &[u8]) {
        let path = self.from().join("file");
        fs::write(&path, content).expect("written");
        make_old(&path);
    }

    fn options(&self) -> CopyOptions {
        CopyOptions::default().recursive(true).journal(self.state.path().join("copies"))
    }

    fn locations(&self, server: &Server, source: &str, target: &str) -> (Vec<Location>, Location) {
        let remote = |name: &str| Location::remote(&server.endpoint, BytePath::from(name));
        let local = |name: &str| Location::local(self.here.path().join(name));
        if self.is_upload { (vec![local(source)], remote(target)) } else { (vec![remote(source)], local(target)) }
    }

    /// Copies until `is_enough`; what was kept is there then.
    async fn interrupt(&self, source: &str, target: &str, is_enough: impl Fn(&Progress<'_>) -> bool + Send + Sync) {
        let server = Server::start(self.there.path()).await;
        let (sources, target) = self.locations(&server, source, target);
        let enough = Notify::new();
        let note = |progress: Progress<'_>| {
            if is_enough(&progress) {
                enough.notify_one();
            }
        };
        let stopped = copy_until(sources, target, self.options(), note, enough.notified()).await;
        assert!(matches!(stopped, Err(CopyError::Stopped { can_resume: true })), "{stopped:?}");
    }

    async fn interrupt_at(&self, bytes: u64) {
        self.interrupt("file", "file", |progress| progress.totals.bytes_done >= bytes).await;
    }

    async fn copy(&self, source: &str, target: &str, options: CopyOptions) -> Summary {
        let server = Server::start(self.there.path()).await;
        let (sources, target) = self.locations(&server, source, target);
        copy(sources, target, options, |_| {}).await.expect("a summary")
    }

    async fn go_on(&self) -> Summary {
        self.copy("file", "file", self.options()).await
    }

    fn check_whole(&self, summary: &Summary) {
        assert!(summary.is_complete(), "{:?}", summary.failures);
        assert!(
            fs::read(self.to().join("file")).expect("readable")
                == fs::read(self.from().join("file")).expect("readable")
        );
        assert_eq!(names(self.to()), ["file"], "no temporary file is left");
        assert_eq!(names(&self.state.path().join("copies")), Vec::<String>::new(), "no journal is left");
    }

    /// The only temporary file.
    fn temporary(&self) -> PathBuf {
        let is_temporary = |name: &String| name.contains(".ssmcp-");
        let found: Vec<_> = names(self.to()).into_iter().filter(is_temporary).collect();
        assert_eq!(found.len(), 1, "{found:?}");
        self.to().join(&found[0])
    }
}

fn make_old(path: &Path) {
    let then = SystemTime::now() - Duration::from_hours(1);
    fs::File::options().write(true).open(path).and_then(|file| file.set_modified(then)).expect("our own file");
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten();
    let mut names: Vec<_> =
        entries.map(|entry| entry.expect("an entry").file_name().into_string().expect("text")).collect();
    names.sort();
    names
}

#[tokio::test]
async fn a_file_goes_on_wherever_it_was_interrupted_and_however_often() {
    for is_upload in [true, false] {
        let world = World::new(is_upload);
        for bytes in [2, 7, 11, 19] {
            world.interrupt_at(bytes * MIB).await;
            assert_eq!(fs::metadata(world.temporary()).unwrap().mode() & 0o7777, 0o600, "open to its owner alone");
        }
        let summary = world.go_on().await;
        assert!(summary.bytes_kept >= 11 * MIB, "{summary:?}");
        assert_eq!(summary.bytes + summary.bytes_kept, SIZE);
        world.check_whole(&summary);
    }
}

#[tokio::test]
async fn a_lost_session_leaves_what_was_written() {
    for is_upload in [true, false] {
        let world = World::new(is_upload);
        let mut server = Server::start(world.there.path()).await;
        let (sources, target) = world.locations(&server, "file", "file");
        let enough = Notify::new();
        let note = |progress: Progress<'_>| {
            if progress.totals.bytes_done >= 9 * MIB {
                enough.notify_one();
            }
        };
        let kill = async {
            enough.notified().await;
            server.process.kill().await.unwrap();
        };
        let (outcome, ()) = tokio::join!(copy(sources, target, world.options(), note), kill);
        assert!(matches!(outcome, Err(CopyError::Lost { can_resume: true, .. })), "{outcome:?}");
        let summary = world.go_on().await;
        assert!(summary.bytes_kept >= MIB, "{summary:?}");
        world.check_whole(&summary);
    }
}

#[tokio::test]
async fn a_file_that_has_changed_starts_over() {
    for is_upload in [true, false] {
        let world = World::new(is_upload);
        world.interrupt_at(8 * MIB).await;
        fs::write(world.from().join("file"), noise(usize::try_from(SIZE).unwrap(), 10)).unwrap();
        let summary = world.go_on().await;
        assert_eq!((summary.bytes, summary.bytes_kept), (SIZE, 0));
        world.check_whole(&summary);
    }
}

#[tokio::test]
async fn a_file_that_looks_the_same_and_is_another_one_starts_over() {
    let world = World::new(true);
    let modified = fs::metadata(world.from().join("file")).unwrap().modified().unwrap();
    world.interrupt_at(8 * MIB).await;
    world.write_source(&noise(usize::try_from(SIZE).unwrap(), 10));
    fs::File::options().write(true).open(world.from().join("file")).unwrap().set_modified(modified).unwrap();
    let summary = world.go_on().await;
    assert_eq!(summary.bytes_kept, 0);
    world.check_whole(&summary);
}

#[tokio::test]
async fn a_temporary_file_that_is_gone_or_cut_off_is_not_gone_on_with() {
    for is_upload in [true, false] {
        let world = World::new(is_upload);
        world.interrupt_at(8 * MIB).await;
        fs::remove_file(world.temporary()).unwrap();
        world.interrupt_at(8 * MIB).await;
        fs::File::options().write(true).open(world.temporary()).unwrap().set_len(MIB).unwrap();
        world.interrupt_at(8 * MIB).await;
        // Somebody else's link has the name now.
        let (temporary, elsewhere) = (world.temporary(), world.state.path().join("elsewhere"));
        fs::rename(&temporary, &elsewhere).unwrap();
        std::os::unix::fs::symlink(&elsewhere, &temporary).unwrap();
        let summary = world.go_on().await;
        assert_eq!(summary.bytes_kept, 0);
        world.check_whole(&summary);
    }
}

#[tokio::test]
async fn a_byte_that_flipped_in_what_was_written_is_found() {
    for is_upload in [true, false] {
        let world = World::new(is_upload);
        world.interrupt_at(8 * MIB).await;
        fs::write(world.to().join("file"), b"older").unwrap();
        let partial = fs::File::options().read(true).write(true).open(world.temporary()).unwrap();
        let mut byte = [0];
        partial.read_exact_at(&mut byte, 100_000).unwrap();
        partial.write_all_at(&[byte[0] ^ 1], 100_000).unwrap();
        let summary = world.go_on().await;
        let message = summary.failures[0].to_string();
        let sides = if is_upload { ["node", "this machine"] } else { ["this machine", "node"] };
        assert!(message.contains(&format!("on {} differs from the file on {}", sides[0], sides[1])), "{message}");
        assert_eq!(fs::read(world.to().join("file")).unwrap(), b"older");
        assert_eq!(names(world.to()), ["file"]);
        world.check_whole(&world.go_on().await);
    }
}

#[tokio::test]
async fn starting_over_removes_what_was_left() {
    for is_upload in [true, false] {
        let world = World::new(is_upload);
        world.interrupt_at(8 * MIB).await;
        let summary = world.copy("file", "file", world.options().start_over(true)).await;
        assert_eq!((summary.bytes, summary.bytes_kept), (SIZE, 0));
        world.check_whole(&summary);
    }
}

#[tokio::test]
async fn a_tree_goes_on_with_the_files_that_are_not_done() {
    for is_upload in [true, false] {
        let world = World::new(is_upload);
        let from = world.from().join("tree");
        fs::create_dir_all(from.join("sub")).unwrap();
        for number in 0..300u64 {
            let path = from.join(format!("sub/{number}"));
            fs::write(&path, noise(20_000, number + 1)).unwrap();
            make_old(&path);
        }
        fs::write(from.join("big"), noise(9 << 20, 1)).unwrap();
        make_old(&from.join("big"));
        world.interrupt("tree", "new", |progress| progress.totals.files_done >= 100).await;
        let to = world.to().join("new");
        let done: Vec<_> = names(&to.join("sub")).into_iter().filter(|name| !name.starts_with('.')).collect();
        fs::write(to.join("sub").join(&done[0]), b"changed").unwrap();
        fs::remove_file(to.join("sub").join(&done[1])).unwrap();
        make_old(&from.join("sub").join(&done[2]));
        let summary = world.copy("tree", "new", world.options()).await;
        assert!(summary.is_complete(), "{:?}", summary.failures);
        assert!(summary.bytes_kept >= 90 * 20_000, "{summary:?}");
        assert_eq!(summary.files, 301);
        assert_eq!(names(&to), ["big", "sub"], "it is the copy still, not where the copy goes");
        assert_eq!(names(&to.join("sub")), names(&from.join("sub")));
        for number in 0..300u64 {
            let name = format!("sub/{number}");
            assert!(fs::read(to.join(&name)).unwrap() == fs::read(from.join(&name)).unwrap(), "{name}");
        }
    }
}

#[tokio::test]
async fn whatever_runs_after_an_interruption_takes_the_copy_for_the_copy() {
    let world = World::new(true);
    let from = world.from().join("tree");
    fs::create_dir(&from).unwrap();
    for name in ["a", "b"] {
        fs::write(from.join(name), noise(9 << 20, 1)).unwrap();
        make_old(&from.join(name));
    }
    world.interrupt("tree", "new", |progress| progress.totals.bytes_done >= 4 << 20).await;
    let before = names(&world.to().join("new"));
    let summary = world.copy("tree", "new", world.options().dry_run(true)).await;
    assert!(summary.is_complete(), "{:?}", summary.failures);
    assert_eq!(names(&world.to().join("new")), before, "a dry run changes nothing");
    let summary = world.copy("tree", "new", world.options().start_over(true)).await;
    assert_eq!((summary.files, summary.bytes_kept), (2, 0));
    assert_eq!(names(&world.to().join("new")), ["a", "b"]);
}

/// A tree with one file of so many bytes, and the file's path in it.
fn tree(world: &World, name: &str) -> PathBuf {
    let from = world.from().join("tree");
    let file = from.join(name);
    fs::create_dir_all(file.parent().expect("in the tree")).expect("made");
    fs::write(&file, noise(9 << 20, 1)).expect("written");
    make_old(&file);
    file
}

#[tokio::test]
async fn a_copy_into_what_an_interrupted_copy_made_is_another_copy() {
    let world = World::new(true);
    tree(&world, "sub/big");
    for into in ["new/.", "new/"] {
        world.interrupt("tree", "new", |progress| progress.totals.bytes_done >= 4 << 20).await;
        let inside = world.copy("tree", into, world.options()).await;
        assert_eq!((inside.is_complete(), inside.bytes_kept), (true, 0), "{inside:?}");
        assert_eq!(names(&world.to().join("new/tree/sub")), ["big"], "{into}");
        let summary = world.copy("tree", "new", world.options()).await;
        assert!(summary.is_complete() && summary.bytes_kept >= MIB, "{summary:?}");
        assert_eq!(names(&world.to().join("new/sub")), ["big"], "{into}");
        fs::remove_dir_all(world.to().join("new")).unwrap();
    }
}

#[tokio::test]
async fn a_copy_stopped_before_anything_was_worth_keeping_is_the_copy_still() {
    let world = World::new(true);
    tree(&world, "sub/big");
    let server = Server::start(world.there.path()).await;
    let (sources, target) = world.locations(&server, "tree", "new");
    let begun = Notify::new();
    let note = |progress: Progress<'_>| {
        if matches!(progress.event, Event::Started { .. }) {
            begun.notify_one();
        }
    };
    let stopped = copy_until(sources, target, world.options(), note, begun.notified()).await;
    assert!(matches!(stopped, Err(CopyError::Stopped { can_resume: false })), "{stopped:?}");
    assert_eq!(names(&world.to().join("new")), ["sub"]);
    let summary = world.copy("tree", "new", world.options().dry_run(true)).await;
    assert!(summary.is_complete(), "{summary:?}");
    let summary = world.copy("tree", "new", world.options()).await;
    assert!(summary.is_complete(), "{summary:?}");
    assert_eq!(names(&world.to().join("new")), ["sub"]);
    assert_eq!(names(&world.to().join("new/sub")), ["big"]);
    assert_eq!(names(&world.state.path().join("copies")), Vec::<String>::new());
}

#[tokio::test]
async fn a_directory_called_like_the_home_is_a_directory() {
    let world = World::new(true);
    let file = tree(&world, "~/big");
    world.interrupt("tree/.", "", |progress| progress.totals.bytes_done >= 4 << 20).await;
    let summary = world.copy("tree/.", "", world.options()).await;
    assert!(summary.is_complete() && summary.bytes_kept >= MIB, "{summary:?}");
    assert_eq!(names(&world.to().join("~")), ["big"]);
    assert!(fs::read(world.to().join("~/big")).unwrap() == fs::read(file).unwrap());
}

#[tokio::test]
async fn what_failed_is_tried_again_and_nothing_else() {
    let world = World::new(true);
    let from = world.from().join("tree");
    fs::create_dir(&from).unwrap();
    for name in ["fine", "taken"] {
        fs::write(from.join(name), noise(50_000, 3)).unwrap();
        make_old(&from.join(name));
    }
    fs::create_dir_all(world.to().join("new/taken")).unwrap();
    let failed = world.copy("tree/.", "new", world.options()).await;
    assert_eq!(failed.failures.len(), 1, "{:?}", failed.failures);
    fs::remove_dir(world.to().join("new/taken")).unwrap();
    let summary = world.copy("tree/.", "new", world.options()).await;
    assert_eq!((summary.is_complete(), summary.bytes, summary.bytes_kept), (true, 50_000, 50_000), "{summary:?}");
}

#[tokio::test]
async fn a_copy_from_node_to_node_goes_on() {
    let world = World::new(true);
    let run = async |until: u64| {
        let (one, two) = (Server::start(world.from()).await, Server::start(world.to()).await);
        let at = |server: &Server| Location::remote(&server.endpoint, BytePath::from("file"));
        let enough = Notify::new();
        let note = |progress: Progress<'_>| {
            if progress.totals.bytes_done >= until {
                enough.notify_one();
            }
        };
        copy_until(vec![at(&one)], at(&two), world.options(), note, enough.notified()).await
    };
    assert!(matches!(run(8 * MIB).await, Err(CopyError::Stopped { can_resume: true })));
    let summary = run(u64::MAX).await.unwrap();
    assert!(summary.bytes_kept >= 2 * MIB, "{summary:?}");
    world.check_whole(&summary);
}

/// A node whose commands are counted, and answered by `answer` if it is not empty.
async fn node_that_hashes(sshd: &Sshd, count: &Arc<AtomicUsize>, answer: &'static str) -> RemoteEndpoint {
    let stream = tokio::net::TcpStream::connect(sshd.address()).await.expect("a connection");
    let session = Arc::new(sshd.client().connect(stream).await.expect("a session"));
    let sftp = Sftp::new(session.subsystem("sftp").await.expect("a session")).await.expect("a session");
    let count = Arc::clone(count);
    RemoteEndpoint::new(sftp, "node").commands(move |command| {
        count.fetch_add(1, Ordering::Relaxed);
        let command = if answer.is_empty() { command } else { format!("echo {answer}").into_bytes() };
        let session = Arc::clone(&session);
        async move { session.command(command).output().await }
    })
}

#[tokio::test]
async fn a_file_is_verified_by_the_nodes_own_program_where_there_is_one() {
    let wrong = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef -";
    let sshd = Sshd::start();
    for is_upload in [true, false] {
        for (answer, is_equal) in [("", true), ("command not found", true), (wrong, false)] {
            let world = World::new(is_upload);
            let count = Arc::default();
            let endpoint = node_that_hashes(&sshd, &count, answer).await;
            let remote = Location::remote(&endpoint, BytePath::from(world.there.path().join("file")));
            let local = Location::local(world.here.path().join("file"));
            let (source, target) = if is_upload { (local, remote) } else { (remote, local) };
            let summary = copy(vec![source], target, world.options().verify(true), |_| {}).await.unwrap();
            assert_eq!((summary.is_complete(), count.load(Ordering::Relaxed)), (is_equal, 1), "{:?}", summary.failures);
            if is_equal {
                world.check_whole(&summary);
            } else {
                assert!(matches!(summary.failures[0].error, CopyError::Differs { .. }));
                assert_eq!(names(world.to()), Vec::<String>::new());
            }
        }
    }
}

#[tokio::test]
async fn without_a_journal_nothing_is_left() {
    let world = World::new(true);
    let server = Server::start(world.there.path()).await;
    let (sources, target) = world.locations(&server, "file", "file");
    let moving = Notify::new();
    let note = |progress: Progress<'_>| {
        if matches!(progress.event, Event::Advanced { .. }) && progress.totals.bytes_done > 4 * MIB {
            moving.notify_one();
        }
    };
    let stopped = copy_until(sources, target, CopyOptions::default(), note, moving.notified()).await;
    assert!(matches!(stopped, Err(CopyError::Stopped { can_resume: false })), "{stopped:?}");
    assert_eq!(names(world.to()), Vec::<String>::new());
}
