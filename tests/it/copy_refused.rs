//! Files and directories that may not be read or written, and what has no room, through the built `ssmcp` and by a user who
//! is not root.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use ssm_lab::{Lab, Pace};
use ssmssh::copy::{BytePath, CopyOptions, Location, RemoteEndpoint, copy};
use ssmssh::ssh::sftp::Sftp;
use tempfile::TempDir;
use tokio::process::{Child, Command};

use crate::copy_cli::{World, until};
use crate::copy_sftp::{noise, program};

/// Whom nothing is allowed that is not allowed to everybody.
const NOBODY: u32 = 65534;

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// A program, run by somebody whom permissions hold back.
fn unprivileged(program: &Path) -> Command {
    if !is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command.arg(format!("--reuid={NOBODY}")).arg(format!("--regid={NOBODY}")).arg("--clear-groups").arg(program);
    command
}

/// Gives it to whoever runs what is unprivileged.
fn give_away(path: &Path) {
    if is_root() {
        chown(path, Some(NOBODY), Some(NOBODY)).expect("given away");
    }
}

fn set_mode(path: impl AsRef<Path>, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("changed");
}

async fn fast_world() -> World {
    World::with(Lab::builder().openssh().pace(Pace::Ideal)).await
}

/// `ssmcp` where anybody can run it, with a key that its user can read.
struct Stranger<'a> {
    world: &'a World,
    program: PathBuf,
    key: PathBuf,
}

impl<'a> Stranger<'a> {
    fn new(world: &'a World) -> Self {
        let (program, key) = (world.here("ssmcp"), world.here("key"));
        fs::copy(env!("CARGO_BIN_EXE_ssmcp"), &program).expect("copied");
        fs::copy(world.lab.identity(), &key).expect("copied");
        set_mode(&key, 0o400);
        give_away(&key);
        give_away(&world.here(""));
        Self { world, program, key }
    }

    /// A directory that belongs to it.
    fn make_directory(&self, name: &str) {
        fs::create_dir(self.world.here(name)).expect("made");
        give_away(&self.world.here(name));
    }

    fn write(&self, name: &str, content: &[u8]) {
        fs::write(self.world.here(name), content).expect("written");
        give_away(&self.world.here(name));
    }

    /// The exit status, and the lines it says, in order of the alphabet.
    async fn run(&self, arguments: &[&OsStr]) -> (Option<i32>, Vec<String>) {
        let mut command = unprivileged(&self.program);
        command
            .args(["-o", "LogLevel=QUIET"])
            .args(arguments)
            .current_dir(self.world.here(""))
            .env_clear()
            .envs(self.world.lab.env())
            .env("PATH", "/usr/bin:/bin")
            .env("HOME", self.world.here(""))
            .env("SSMSSH_IDENTITY", &self.key)
            .env("SSMSSH_KNOWN_HOSTS", self.world.here("known_hosts"))
            .env("AWS_CONFIG_FILE", "/dev/null")
            .env("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
            .stdin(Stdio::null())
            .kill_on_drop(true);
        let output = command.output().await.expect("ssmcp runs: as root this needs util-linux's setpriv");
        until("no session is left", || self.world.lab.open_sessions() == 0).await;
        (output.status.code(), lines(&output.stderr))
    }
}

fn lines(said: &[u8]) -> Vec<String> {
    let mut lines: Vec<_> = String::from_utf8_lossy(said).lines().map(str::to_owned).collect();
    lines.sort();
    lines
}

fn names_in(folder: PathBuf) -> Vec<OsString> {
    let mut names: Vec<_> =
        fs::read_dir(folder).expect("a directory").map(|entry| entry.expect("an entry").file_name()).collect();
    names.sort();
    names
}

#[tokio::test(flavor = "multi_thread")]
async fn what_may_not_be_read_here_is_named_and_the_rest_is_copied() {
    let world = fast_world().await;
    let stranger = Stranger::new(&world);
    for directory in ["tree", "tree/closed", "tree/open"] {
        stranger.make_directory(directory);
    }
    for name in ["tree/secret", "tree/fine", "tree/open/fine", "tree/closed/unseen"] {
        stranger.write(name, b"x");
    }
    set_mode(world.here("tree/secret"), 0o000);
    set_mode(world.here("tree/closed"), 0o000);
    let (code, said) = stranger.run(&["-r".as_ref(), "tree".as_ref(), &world.node("copy")]).await;
    assert_eq!(
        said,
        [
            "ssmcp: 2 files or directories could not be copied",
            "ssmcp: tree/closed: permission denied",
            "ssmcp: tree/secret: permission denied"
        ]
    );
    assert_eq!((code, names_in(world.there("copy"))), (Some(1), vec!["closed".into(), "fine".into(), "open".into()]));
    assert_eq!(fs::read(world.there("copy/open/fine")).unwrap(), b"x");
    for closed in [world.here("tree/closed"), world.there("copy/closed")] {
        set_mode(closed, 0o755);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn where_nothing_may_be_written_here_each_file_is_named() {
    let world = fast_world().await;
    let stranger = Stranger::new(&world);
    for directory in ["into", "into/closed", "into/open"] {
        stranger.make_directory(directory);
    }
    stranger.write("into/closed/one", b"before");
    for directory in ["closed", "open"] {
        fs::create_dir(world.there(directory)).unwrap();
        for name in ["one", "two"] {
            fs::write(world.there(directory).join(name), b"new").unwrap();
        }
    }
    set_mode(world.here("into/closed"), 0o555);
    let sources = [world.node("closed"), world.node("open")];
    let (code, said) = stranger.run(&["-r".as_ref(), &sources[0], &sources[1], "into".as_ref()]).await;
    assert_eq!(
        said,
        [
            "ssmcp: 2 files or directories could not be copied",
            "ssmcp: into/closed/one: permission denied",
            "ssmcp: into/closed/two: permission denied"
        ]
    );
    assert_eq!((code, fs::read(world.here("into/closed/one")).unwrap()), (Some(1), b"before".to_vec()));
    assert_eq!(names_in(world.here("into/closed")), ["one"]);
    assert_eq!(names_in(world.here("into/open")), ["one", "two"]);
    set_mode(world.here("into/closed"), 0o755);
}

/// OpenSSH's server, run by somebody whom permissions hold back.
struct Node {
    directory: TempDir,
    endpoint: RemoteEndpoint,
    _process: Child,
}

impl Node {
    async fn start() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        give_away(directory.path());
        let mut process = unprivileged(program())
            .current_dir(directory.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("it runs: as root this needs util-linux's setpriv");
        let (input, output) = (process.stdin.take().expect("piped"), process.stdout.take().expect("piped"));
        let sftp = Sftp::new(tokio::io::join(output, input)).await.expect("a session");
        Self { directory, endpoint: RemoteEndpoint::new(sftp, "node"), _process: process }
    }

    fn put(&self, name: &str, mode: u32) {
        let path = self.directory.path().join(name);
        fs::create_dir_all(path.parent().expect("it has one")).expect("made");
        fs::write(&path, b"before").expect("written");
        give_away(path.parent().expect("it has one"));
        give_away(&path);
        set_mode(path, mode);
    }

    fn at(&self, name: &str) -> Location {
        Location::remote(&self.endpoint, BytePath::from(name))
    }
}

async fn failures(sources: Vec<Location>, to: Location) -> (u64, Vec<String>) {
    let summary = copy(sources, to, CopyOptions::default().recursive(true), |_| {}).await.expect("a summary");
    let mut told: Vec<_> = summary.failures.iter().map(ToString::to_string).collect();
    told.sort();
    (summary.files, told)
}

#[tokio::test]
async fn what_may_not_be_read_on_the_node_is_named_with_it_and_the_rest_is_copied() {
    let (node, here) = (Node::start().await, tempfile::tempdir().unwrap());
    for (name, mode) in [("tree/secret", 0), ("tree/fine", 0o644), ("tree/closed/unseen", 0o644)] {
        node.put(name, mode);
    }
    let closed = node.directory.path().join("tree/closed");
    set_mode(&closed, 0);
    let told = failures(vec![node.at("tree")], Location::local(here.path().join("copy"))).await;
    let expected = ["node:tree/closed: permission denied", "node:tree/secret: permission denied"];
    assert_eq!(told, (1, expected.map(str::to_owned).to_vec()));
    assert_eq!(names_in(here.path().join("copy")), ["closed", "fine"]);
    for closed in [closed, here.path().join("copy/closed")] {
        set_mode(closed, 0o755);
    }
}

#[tokio::test]
async fn where_nothing_may_be_written_on_the_node_each_file_is_named_with_it() {
    let (node, here) = (Node::start().await, tempfile::tempdir().unwrap());
    node.put("closed/one", 0o644);
    let closed = node.directory.path().join("closed");
    set_mode(&closed, 0o555);
    let sources = ["one", "two"].map(|name| {
        fs::write(here.path().join(name), b"new").unwrap();
        Location::local(here.path().join(name))
    });
    let told = failures(sources.into(), node.at("closed")).await;
    let expected = ["node:closed/one: permission denied", "node:closed/two: permission denied"];
    assert_eq!(told, (0, expected.map(str::to_owned).to_vec()));
    assert_eq!(
        (names_in(closed.clone()), fs::read(closed.join("one")).unwrap()),
        (vec!["one".into()], b"before".to_vec())
    );
    set_mode(closed, 0o755);
}

#[tokio::test]
async fn rights_are_lent_again_where_something_failed_in_a_directory_that_has_them_no_more() {
    let (node, here) = (Node::start().await, tempfile::tempdir().unwrap());
    let tree = here.path().join("tree");
    fs::create_dir_all(tree.join("late")).unwrap();
    fs::write(tree.join("fine"), b"x").unwrap();
    node.put("into/other", 0o644);
    let state = tempfile::tempdir().unwrap();
    let run = async || {
        let options = CopyOptions::default().recursive(true).journal(state.path().join("copies"));
        let sources = vec![Location::local(tree.clone()), Location::local(here.path().join("missing"))];
        copy(sources, node.at("into"), options, |_| {}).await.expect("a summary").failures.len()
    };
    set_mode(&tree, 0o555);
    let there = node.directory.path().join("into/tree");
    let mode = || fs::metadata(&there).unwrap().permissions().mode() & 0o7777;
    assert_eq!((run().await, mode(), names_in(there.clone())), (1, 0o555, vec!["fine".into(), "late".into()]));
    set_mode(&tree, 0o755);
    fs::write(tree.join("later"), b"x").unwrap();
    set_mode(&tree, 0o555);
    assert_eq!((run().await, mode()), (1, 0o555));
    assert_eq!(names_in(there.clone()), ["fine", "late", "later"]);
    set_mode(&tree, 0o755);
    set_mode(there, 0o755);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_longer_than_the_process_may_write_is_named_and_the_rest_is_copied() {
    let world = fast_world().await;
    for (name, length) in [("big", 4 << 20), ("small", 1000)] {
        fs::write(world.there(name), noise(length, 3)).unwrap();
    }
    fs::create_dir(world.here("into")).unwrap();
    fs::write(world.here("into/big"), b"before").unwrap();
    let program = world.program();
    let mut command = Command::new("sh");
    // In units of 512 or 1024 bytes.
    command.args(["-c", "ulimit -f 2048; exec \"$@\"", "sh"]).arg(program.as_std().get_program());
    for (name, value) in program.as_std().get_envs() {
        command.env(name, value.unwrap_or_default());
    }
    command.args(["-o", "LogLevel=QUIET"]).args([world.node("big"), world.node("small"), "into".into()]);
    let output = command.current_dir(world.here("")).stdin(Stdio::null()).output().await.expect("ssmcp runs");
    let reason = "is longer than the file system, or a limit on this process (`ulimit -f`), allows";
    assert_eq!(lines(&output.stderr), [format!("ssmcp: into/big: {reason}")]);
    assert_eq!((output.status.code(), fs::read(world.here("into/big")).unwrap()), (Some(1), b"before".to_vec()));
    assert_eq!(names_in(world.here("into")), ["big", "small"]);
    until("no session is left", || world.lab.open_sessions() == 0).await;
}

/// The server says no more than "Failure", as it does where a quota is used up.
#[tokio::test(flavor = "multi_thread")]
async fn what_the_node_does_not_take_for_an_unknown_reason_comes_with_a_guess_and_the_rest_is_copied() {
    let server = format!("trap '' XFSZ; ulimit -f 2048; exec {}", program().display());
    let world = World::with(Lab::builder().openssh_option(format!("ForceCommand {server}")).pace(Pace::Ideal)).await;
    for (name, length) in [("big", 4 << 20), ("small", 1000)] {
        fs::write(world.here(name), noise(length, 3)).unwrap();
    }
    fs::write(world.there("big"), b"before").unwrap();
    let mut command = world.program();
    let output = command.args(["-q", "big", "small"]).arg(world.node("")).output().await.expect("ssmcp runs");
    let told = format!("ssmcp: {}: the server answered: Failure", world.node("big").display());
    assert_eq!((output.status.code(), lines(&output.stderr)), (Some(1), vec![told.clone()]));
    let output = world.program().args(["big", "small"]).arg(world.node("")).output().await.expect("ssmcp runs");
    let said = lines(&output.stderr);
    let guess = "ssmcp: hint: a quota, or a limit on the size of files, may be the reason".to_owned();
    assert!(said.contains(&told) && said.contains(&guess), "{said:?}");
    assert_eq!(fs::read(world.there("big")).unwrap(), b"before");
    assert_eq!(names_in(world.there("")), ["big", "small"]);
    until("no session is left", || world.lab.open_sessions() == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn standard_output_without_room_is_told() {
    let world = fast_world().await;
    fs::write(world.there("big"), noise(1 << 20, 3)).unwrap();
    let full = fs::File::options().write(true).open("/dev/full").expect("a disk that is always full");
    let source = world.node("big");
    let child = world.command(&[&source, "-".as_ref()]).stdout(full).spawn().expect("ssmcp runs");
    let output = child.wait_with_output().await.expect("it ends");
    assert_eq!(lines(&output.stderr), ["ssmcp: standard output: no space is left on the disk"]);
    assert_eq!(output.status.code(), Some(1));
    until("no session is left", || world.lab.open_sessions() == 0).await;
}
