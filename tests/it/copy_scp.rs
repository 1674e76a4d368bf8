//! Copies over the SCP protocol: `ssmcp` against an OpenSSH server whose SFTP subsystem is switched off, and the library
//! against OpenSSH's `scp`.

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::{Duration, SystemTime};

use ssm_lab::{Lab, LabBuilder};
use ssmssh::copy::scp::{ScpChannel, ScpEndpoint, ScpError};
use ssmssh::copy::{CopyError, CopyOptions, Event, Location, Progress, copy, copy_until};
use tempfile::TempDir;
use tokio::process::Command;

use crate::copy_cli::{World, silent_success, until};
use crate::copy_sftp::{Server, noise, tree};

/// A node without SFTP, on which users log in to a directory of their own.
pub(crate) struct Node {
    pub(crate) world: World,
    login: TempDir,
}

impl Node {
    pub(crate) async fn new() -> Self {
        Self::with("Subsystem none /bin/false").await
    }

    async fn with(subsystem: &str) -> Self {
        Self::of(Lab::builder(), subsystem).await
    }

    pub(crate) async fn of(lab: LabBuilder, subsystem: &str) -> Self {
        let login = tempfile::tempdir().expect("a directory");
        let path = login.path().display();
        let command = format!("ForceCommand cd {path} && HOME={path} exec sh -c \"$SSH_ORIGINAL_COMMAND\"");
        let world = World::with(lab.openssh_option(subsystem).openssh_option(command)).await;
        Self { world, login }
    }

    /// A path on the node, as it is typed.
    pub(crate) fn at(&self, path: &str) -> String {
        format!("{}:{path}", self.world.lab.node())
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.login.path().join(name)
    }

    pub(crate) fn here(&self, name: &str) -> PathBuf {
        self.world.here(name)
    }

    pub(crate) async fn run(&self, arguments: &[&str]) -> (Option<i32>, String) {
        let arguments: Vec<_> = arguments.iter().map(|argument| argument as &dyn AsRef<std::ffi::OsStr>).collect();
        let (code, told) = self.world.run(&arguments).await;
        // What the start-up files of whoever runs the tests print is passed on.
        let noise = format!("ssmcp: {}: ", self.world.lab.node());
        (code, told.split_inclusive('\n').filter(|line| !line.starts_with(&noise)).collect())
    }

    pub(crate) async fn succeed(&self, arguments: &[&str]) {
        assert_eq!(self.run(arguments).await, silent_success(), "{arguments:?}");
    }
}

pub(crate) fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("there").mode() & 0o7777
}

pub(crate) fn modified(path: &Path) -> SystemTime {
    fs::metadata(path).expect("there").modified().expect("told")
}

pub(crate) fn set(path: &Path, mode: u32, time: SystemTime) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("changed");
    fs::File::open(path).expect("there").set_modified(time).expect("changed");
}

pub(crate) fn long_ago() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000)
}

#[tokio::test]
async fn without_sftp_files_go_there_and_back_by_scp() {
    let node = Node::new().await;
    for size in [0, 1, 300_000] {
        let content = noise(size, 3);
        fs::write(node.here("file"), &content).unwrap();
        node.succeed(&["-q", "-C", "file", &node.at("")]).await;
        assert!(fs::read(node.path("file")).unwrap() == content);
        node.succeed(&[&node.at("file"), "back"]).await;
        assert!(fs::read(node.here("back")).unwrap() == content);
    }
    assert_eq!(fs::read_dir(node.login.path()).unwrap().count(), 1, "no temporary file");
}

#[tokio::test]
async fn it_is_said_in_one_line_that_scp_is_used_and_why() {
    let node = Node::new().await;
    fs::write(node.path("file"), b"x").unwrap();
    let Output { status, stderr, .. } = Command::new(env!("CARGO_BIN_EXE_ssmcp"))
        .args([&node.at("file"), "."])
        .current_dir(node.here(""))
        .env_clear()
        .envs(node.world.lab.env())
        .env("HOME", node.here(""))
        .stdin(Stdio::null())
        .output()
        .await
        .expect("ssmcp runs");
    let said = String::from_utf8(stderr).unwrap();
    let line = format!("ssmcp: {} has no SFTP subsystem: using the SCP protocol\n", node.world.lab.node());
    assert!(status.success() && said.matches(&line).count() == 1, "{said}");
}

#[tokio::test]
async fn scp_is_used_when_it_is_asked_for_whatever_the_node_has() {
    let marker = tempfile::tempdir().unwrap();
    let sftp = format!("Subsystem sftp touch {}/started", marker.path().display());
    let node = Node::with(&sftp).await;
    fs::write(node.here("file"), b"x").unwrap();
    node.succeed(&["-O", "file", &node.at("up")]).await;
    node.succeed(&["-O", &node.at("up"), "down"]).await;
    assert_eq!((fs::read(node.path("up")).unwrap(), fs::read(node.here("down")).unwrap()), (b"x".into(), b"x".into()));
    assert_eq!(fs::read_dir(marker.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn trees_go_both_ways_with_their_times_and_permissions() {
    let node = Node::new().await;
    for directory in ["from", "from/empty", "from/a b", "from/a b/deep"] {
        fs::create_dir(node.here(directory)).unwrap();
    }
    fs::write(node.here("from/none"), b"").unwrap();
    fs::write(node.here("from/a b/it's"), noise(70_000, 1)).unwrap();
    fs::write(node.here("from/a b/deep/$(x)"), b"x").unwrap();
    symlink("none", node.here("from/link")).unwrap();
    set(&node.here("from/none"), 0o640, long_ago());
    set(&node.here("from/a b"), 0o711, long_ago());
    node.succeed(&["-rp", "from", &node.at("up")]).await;
    assert!(tree(&node.path("up")) == tree(&node.here("from")));
    assert!(fs::symlink_metadata(node.path("up/link")).unwrap().is_file(), "links are followed");
    node.succeed(&["-p", "-r", &node.at("up"), "down"]).await;
    assert!(tree(&node.here("down")) == tree(&node.here("from")));
    for root in [node.path("up"), node.here("down")] {
        assert_eq!([mode(&root.join("none")), mode(&root.join("a b"))], [0o640, 0o711]);
        assert_eq!([modified(&root.join("none")), modified(&root.join("a b"))], [long_ago(); 2]);
    }
    // Into a directory that is there, a tree keeps its name; one without a name of its own is spread out.
    fs::create_dir(node.here("into")).unwrap();
    node.succeed(&["-r", &node.at("up"), "into"]).await;
    assert!(tree(&node.here("into/up")) == tree(&node.here("from")));
    node.succeed(&["-r", &node.at("up/."), "flat"]).await;
    node.succeed(&["-r", "flat/.", &node.at("new")]).await;
    node.succeed(&["-r", "flat/.", &node.at("new")]).await;
    assert!(tree(&node.here("flat")) == tree(&node.here("from")));
    assert!(tree(&node.path("new")) == tree(&node.here("from")));
}

#[tokio::test]
async fn a_file_that_was_there_keeps_its_permissions_and_a_new_one_gets_the_sources() {
    let node = Node::new().await;
    fs::write(node.here("file"), b"new").unwrap();
    fs::write(node.path("old"), b"something older").unwrap();
    set(&node.here("file"), 0o750, long_ago());
    set(&node.path("old"), 0o604, long_ago());
    node.succeed(&["file", &node.at("old")]).await;
    node.succeed(&["file", &node.at("fresh")]).await;
    assert_eq!((mode(&node.path("old")), mode(&node.path("fresh")) & 0o700), (0o604, 0o700));
    assert!(fs::read(node.path("old")).unwrap() == b"new" && modified(&node.path("fresh")) > long_ago());
    node.succeed(&[&node.at("fresh"), "again"]).await;
    assert_eq!(mode(&node.here("again")), mode(&node.path("fresh")));
}

#[tokio::test]
async fn several_sources_go_into_a_directory() {
    let node = Node::new().await;
    for name in ["a", "b"] {
        fs::write(node.here(name), name).unwrap();
        fs::write(node.path(&format!("{name}.there")), name).unwrap();
    }
    fs::create_dir(node.path("into")).unwrap();
    node.succeed(&["a", "b", &node.at("into")]).await;
    assert_eq!(tree(&node.path("into")).len(), 2);
    fs::create_dir(node.here("into")).unwrap();
    node.succeed(&[&node.at("a.there"), &node.at("b.there"), "into"]).await;
    assert_eq!(tree(&node.here("into")).len(), 2);
    for (sources, target) in
        [(["a".into(), "b".into()], node.at("none")), ([node.at("a.there"), node.at("b.there")], "none".into())]
    {
        let (code, said) = node.run(&[&sources[0], &sources[1], &target]).await;
        assert_eq!((code, said), (Some(255), format!("ssmcp: {target}: there is no such directory\n")));
    }
    assert!(!node.path("none").exists() && !node.here("none").exists());
}

#[tokio::test]
async fn patterns_homes_and_relative_paths_are_the_nodes() {
    let node = Node::new().await;
    fs::create_dir(node.path("logs")).unwrap();
    for name in ["logs/a.gz", "logs/b.gz", "logs/c.txt", "logs/.hidden.gz", "logs/*", "top"] {
        fs::write(node.path(name), name).unwrap();
    }
    let found = |into: &str| tree(&node.here(into)).into_keys().collect::<Vec<_>>();
    for (number, (asked, expected)) in [
        ("logs/*.gz", vec!["a.gz", "b.gz"]),
        ("logs/[ac]*", vec!["a.gz", "c.txt"]),
        ("~/logs/?.txt", vec!["c.txt"]),
        ("logs/{a,b}.gz", vec!["a.gz", "b.gz"]),
        ("logs/\\*", vec!["*"]),
        ("~/top", vec!["top"]),
        ("./logs/../top", vec!["top"]),
    ]
    .into_iter()
    .enumerate()
    {
        let into = format!("into{number}");
        fs::create_dir(node.here(&into)).unwrap();
        node.succeed(&[&node.at(asked), &into]).await;
        assert_eq!(found(&into), expected, "{asked}");
    }
    let (code, said) = node.run(&[&node.at("logs/*.zip"), "."]).await;
    let expected = format!("ssmcp: {}:logs/*.zip: No such file or directory\n", node.world.lab.node());
    assert_eq!((code, said), (Some(1), expected));
    fs::write(node.here("a:b"), b"x").unwrap();
    fs::write(node.here("-r"), b"x").unwrap();
    node.succeed(&["./a:b", &node.at("~/colon")]).await;
    node.succeed(&["--", "-r", &node.at("-p")]).await;
    node.succeed(&["--", &node.at("-p"), "dash"]).await;
    assert!(node.path("colon").exists() && node.path("-p").exists() && node.here("dash").exists());
}

#[tokio::test]
async fn what_cannot_be_copied_is_named_and_the_rest_is_copied() {
    let node = Node::new().await;
    let name = node.world.lab.node().to_owned();
    fs::create_dir_all(node.path("tree/sub")).unwrap();
    fs::write(node.path("tree/fine"), b"x").unwrap();
    let (code, said) = node.run(&[&node.at("tree"), &node.at("missing"), &node.at("tree/fine"), "."]).await;
    assert_eq!(
        said,
        format!(
            "ssmcp: {name}:tree: not a regular file\nssmcp: {name}:missing: No such file or directory\n\
             ssmcp: 2 files or directories could not be copied\n"
        )
    );
    assert_eq!((code, fs::read(node.here("fine")).unwrap()), (Some(1), b"x".to_vec()));

    fs::create_dir_all(node.here("up/taken")).unwrap();
    fs::write(node.here("up/sub"), b"x").unwrap();
    fs::write(node.here("up/two\nlines"), b"x").unwrap();
    fs::write(node.path("taken"), b"a file").unwrap();
    fs::create_dir(node.path("sub")).unwrap();
    let (code, said) = node.run(&["-r", "up/taken", "up/sub", "up/two\nlines", "fine", "gone", &node.at(".")]).await;
    let mut lines: Vec<_> = said.lines().collect();
    lines.sort_unstable();
    assert_eq!(
        lines,
        [
            "ssmcp: 4 files or directories could not be copied".to_owned(),
            "ssmcp: gone: no such file or directory".to_owned(),
            format!("ssmcp: {name}:./sub: Is a directory"),
            format!("ssmcp: {name}:./taken: Not a directory"),
            format!("ssmcp: {name}:two\\nlines: the name holds a line feed, which the SCP protocol cannot carry"),
        ]
    );
    assert_eq!((code, fs::read(node.path("fine")).unwrap()), (Some(1), b"x".to_vec()));
}

#[tokio::test]
async fn a_node_without_scp_either_says_what_it_lacks() {
    let lab = Lab::builder()
        .openssh_option("Subsystem none /bin/false")
        .openssh_option("ForceCommand PATH=/nonexistent; eval \"$SSH_ORIGINAL_COMMAND\"");
    let world = World::with(lab).await;
    let (code, said) = world.run(&[&world.node("x"), &"."]).await;
    let expected = format!(
        "ssmcp: cannot copy over the SCP protocol with {}: scp does not start (exit code 127): ",
        world.lab.node()
    );
    assert!(code == Some(255) && said.starts_with(&expected) && said.contains("scp"), "{said}");
}

#[tokio::test]
async fn an_interrupted_download_leaves_nothing_behind() {
    let node = Node::new().await;
    fs::File::create(node.path("big")).unwrap().set_len(1 << 30).unwrap();
    fs::create_dir(node.here("into")).unwrap();
    let source = node.at("big");
    let child = node.world.command(&[source.as_ref(), "into".as_ref()]).spawn().expect("ssmcp runs");
    let files = || fs::read_dir(node.here("into")).unwrap().count();
    until("the copy is under way", || files() == 1).await;
    let id = child.id().and_then(|id| rustix::process::Pid::from_raw(id.cast_signed())).expect("it runs");
    rustix::process::kill_process(id, rustix::process::Signal::INT).expect("signalled");
    let output = child.wait_with_output().await.expect("it ends");
    assert_eq!((crate::support::cli::status_in_shell(output.status), files()), (Some(130), 0));
    until("no session is left", || node.world.lab.open_sessions() == 0).await;
}

#[tokio::test]
async fn a_copy_goes_from_node_to_node_over_this_machine() {
    let node = Node::new().await;
    fs::create_dir_all(node.path("tree/sub")).unwrap();
    fs::write(node.path("tree/sub/file"), noise(200_000, 9)).unwrap();
    fs::write(node.path("tree/empty"), b"").unwrap();
    set(&node.path("tree/empty"), 0o640, long_ago());
    node.succeed(&["-rp", &node.at("tree"), &node.at("copy")]).await;
    assert!(tree(&node.path("copy")) == tree(&node.path("tree")));
    let copied = node.path("copy/empty");
    assert_eq!((mode(&copied), modified(&copied)), (0o640, long_ago()));
    fs::create_dir(node.path("into")).unwrap();
    node.succeed(&["-r", &node.at("tree/*"), &node.at("into")]).await;
    node.succeed(&["-r", &node.at("tree/."), &node.at("flat")]).await;
    assert!(tree(&node.path("into")) == tree(&node.path("tree")));
    assert!(tree(&node.path("flat")) == tree(&node.path("tree")));
    let (code, said) = node.run(&[&node.at("none"), &node.at("tree/empty"), &node.at("into/sub")]).await;
    assert!(code == Some(1) && said.contains("none: No such file or directory"), "{said}");
    assert!(node.path("into/sub/empty").exists());
}

/// OpenSSH's `scp` in a directory, without anything between.
pub(crate) fn scp_in(directory: &Path) -> ScpEndpoint {
    scp_with(directory, "/usr/bin:/bin")
}

/// The same, with these programs only.
pub(crate) fn scp_with(directory: &Path, programs: &str) -> ScpEndpoint {
    let (directory, programs) = (directory.to_owned(), programs.to_owned());
    ScpEndpoint::new("node", move |command| {
        let spawned = Command::new("/bin/sh")
            .arg("-c")
            .arg(OsString::from_vec(command))
            .current_dir(&directory)
            .env("HOME", &directory)
            .env("PATH", &programs)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn();
        async move {
            let mut child = spawned?;
            let whole = "piped";
            let (input, output) = (child.stdin.take().expect(whole), child.stdout.take().expect(whole));
            let errors = child.stderr.take().expect(whole);
            let ended = async move { child.wait().await.ok()?.code().and_then(|code| u32::try_from(code).ok()) };
            Ok(ScpChannel::new(input, output, errors, ended))
        }
    })
}

#[tokio::test]
async fn each_kind_of_side_goes_with_scp() {
    let (sftp, directory) = (Server::start().await, tempfile::tempdir().unwrap());
    let scp = scp_in(directory.path());
    fs::create_dir_all(sftp.path("tree/sub")).unwrap();
    fs::write(sftp.path("tree/sub/file"), noise(3 << 20, 4)).unwrap();
    fs::write(sftp.path("tree/small"), b"x").unwrap();
    let recursive = || CopyOptions::default().recursive(true);
    let up = copy(vec![sftp.at("tree")], Location::scp(&scp, "up"), recursive(), |_| {}).await.unwrap();
    assert!(up.is_complete() && up.files == 2 && up.bytes == (3 << 20) + 1, "{up:?}");
    assert!(tree(&directory.path().join("up")) == tree(&sftp.path("tree")));
    fs::create_dir(sftp.path("back")).unwrap();
    fs::write(directory.path().join("more"), b"y").unwrap();
    let sources = vec![Location::scp(&scp, "up"), sftp.at("tree/small"), Location::scp(&scp, "mo*").matching()];
    let back = copy(sources, sftp.at("back"), recursive(), |_| {}).await.unwrap();
    assert!(back.is_complete() && back.files == 4, "{back:?}");
    assert!(tree(&sftp.path("back/up")) == tree(&sftp.path("tree")));
    assert!(sftp.path("back/small").exists() && sftp.path("back/more").exists());
}

#[tokio::test]
async fn progress_tells_every_file_and_every_byte_of_each_direction() {
    let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let scp = scp_in(there.path());
    fs::create_dir(here.path().join("tree")).unwrap();
    for (name, size) in [("one", 300_000), ("two", 0), ("three", 5)] {
        fs::write(here.path().join("tree").join(name), noise(size, 2)).unwrap();
    }
    let options = || CopyOptions::default().recursive(true);
    for (from, to) in [
        (Location::local(here.path().join("tree")), Location::scp(&scp, "up")),
        (Location::scp(&scp, "up"), Location::scp(&scp, "over")),
        (Location::scp(&scp, "over"), Location::local(here.path().join("down"))),
    ] {
        let seen = std::sync::Mutex::new((None, Vec::new()));
        let note = |progress: Progress<'_>| {
            let mut seen = seen.lock().unwrap();
            seen.0 = Some(progress.totals);
            if let Event::Finished { path } = progress.event {
                seen.1.push(path.name().unwrap().to_vec());
            }
        };
        let summary = copy(vec![from], to, options(), note).await.unwrap();
        let (totals, mut finished) = seen.into_inner().unwrap();
        let totals = totals.unwrap();
        finished.sort();
        assert_eq!(finished, [&b"one"[..], b"three", b"two"]);
        assert_eq!((totals.files, totals.files_done, totals.bytes, totals.bytes_done), (3, 3, 300_005, 300_005));
        assert!(totals.is_all_found && summary.is_complete() && summary.files == 3, "{summary:?}");
    }
}

#[tokio::test]
async fn a_file_whose_size_is_not_told_beforehand_is_refused() {
    let there = tempfile::tempdir().unwrap();
    let scp = scp_in(there.path());
    let summary = copy(
        vec![Location::reader("standard input", &b"abc"[..])],
        Location::scp(&scp, "file"),
        CopyOptions::default(),
        |_| {},
    );
    let summary = summary.await.unwrap();
    assert!(matches!(summary.failures[0].error, CopyError::Scp(ScpError::UnknownSize)), "{:?}", summary.failures);
    let made_up = copy(
        vec![Location::local(PathBuf::from("/proc/version"))],
        Location::scp(&scp, "file"),
        CopyOptions::default(),
        |_| {},
    );
    let made_up = made_up.await.unwrap();
    assert!(matches!(made_up.failures[0].error, CopyError::Scp(ScpError::UnknownSize)), "{:?}", made_up.failures);
}

#[tokio::test]
async fn a_download_fills_a_pipe_too() {
    let there = tempfile::tempdir().unwrap();
    fs::write(there.path().join("file"), noise(1 << 20, 3)).unwrap();
    let scp = scp_in(there.path());
    let (ours, theirs) = tokio::io::duplex(4096);
    let mut piped = Vec::new();
    let target = Location::writer("standard output", theirs);
    let copying = copy(vec![Location::scp(&scp, "file")], target, CopyOptions::default(), |_| {});
    let mut ours = ours;
    let reading = tokio::io::AsyncReadExt::read_to_end(&mut ours, &mut piped);
    let (summary, read) = tokio::join!(copying, reading);
    assert!(summary.unwrap().is_complete() && read.is_ok() && piped == noise(1 << 20, 3));
}

#[tokio::test]
async fn a_stopped_upload_ends_the_program_on_the_node() {
    let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fs::File::create(here.path().join("big")).unwrap().set_len(1 << 40).unwrap();
    let scp = scp_in(there.path());
    let is_moving = tokio::sync::Notify::new();
    let note = |progress: Progress<'_>| {
        if matches!(progress.event, Event::Advanced { .. }) {
            is_moving.notify_one();
        }
    };
    let source = vec![Location::local(here.path().join("big"))];
    let target = Location::scp(&scp, "copy");
    let stopped = copy_until(source, target, CopyOptions::default(), note, is_moving.notified()).await;
    assert!(matches!(stopped, Err(CopyError::Stopped { .. })));
    assert!(there.path().join("copy").exists(), "scp writes in place");
}

#[tokio::test]
async fn a_disk_that_is_full_over_there_is_told_for_each_file() {
    let here = tempfile::tempdir().unwrap();
    fs::write(here.path().join("file"), noise(100_000, 3)).unwrap();
    let scp = scp_in(Path::new("/dev"));
    let source = vec![Location::local(here.path().join("file"))];
    let summary = copy(source, Location::scp(&scp, "full"), CopyOptions::default(), |_| {}).await.unwrap();
    let told = summary.failures.first().map(ToString::to_string).unwrap_or_default();
    assert_eq!((told.as_str(), summary.files), ("node:full: No space left on device", 0));
}
