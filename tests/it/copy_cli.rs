//! `ssmcp` as people run it, against the lab.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::process::{Output, Stdio};
use std::time::Duration;

use ssm_lab::{Lab, LabBuilder};
use tempfile::TempDir;
use tokio::process::Command;

/// A lab, and two empty folders: `ssmcp` runs in one, and the other is what it copies to on the node.
pub(crate) struct World {
    pub(crate) lab: Lab,
    here: TempDir,
    there: TempDir,
}

impl World {
    pub(crate) async fn new() -> Self {
        Self::with(Lab::builder().openssh()).await
    }

    pub(crate) async fn with(lab: LabBuilder) -> Self {
        let folder = || TempDir::new().expect("a folder");
        Self { lab: lab.start().await.expect("a lab"), here: folder(), there: folder() }
    }

    pub(crate) fn here(&self, name: &str) -> PathBuf {
        self.here.path().join(name)
    }

    pub(crate) fn there(&self, name: impl AsRef<OsStr>) -> PathBuf {
        self.there.path().join(name.as_ref())
    }

    /// A path on the node.
    pub(crate) fn node(&self, name: impl AsRef<OsStr>) -> OsString {
        let mut operand = OsString::from(format!("{}:", self.lab.node()));
        operand.push(self.there(name));
        operand
    }

    /// `ssmcp` with an environment that points at the lab and holds nothing else.
    pub(crate) fn command(&self, arguments: &[&OsStr]) -> Command {
        let mut command = self.program();
        command.args(["-o", "LogLevel=QUIET"]).args(arguments);
        command
    }

    /// The same, and it says what it likes.
    pub(crate) fn program(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ssmcp"));
        command
            .current_dir(self.here.path())
            .env_clear()
            .envs(self.lab.env())
            .env("HOME", self.here.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command
    }

    pub(crate) async fn run(&self, arguments: &[&dyn AsRef<OsStr>]) -> (Option<i32>, String) {
        let arguments: Vec<_> = arguments.iter().map(|argument| (*argument).as_ref()).collect();
        let Output { status, stdout, stderr } = self.command(&arguments).output().await.expect("ssmcp runs");
        assert_eq!(stdout, b"", "standard output is nobody's");
        until("no session is left", || self.lab.open_sessions() == 0).await;
        (status.code(), String::from_utf8(stderr).expect("text"))
    }
}

pub(crate) fn silent_success() -> (Option<i32>, String) {
    (Some(0), String::new())
}

#[tokio::test]
async fn files_go_there_and_back_and_nothing_is_said() {
    let world = World::new().await;
    let content: Vec<u8> = (0..300_000u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    fs::write(world.here("file"), &content).unwrap();
    assert_eq!(world.run(&[&"file", &world.node("")]).await, silent_success());
    assert!(fs::read(world.there("file")).unwrap() == content);
    assert_eq!(world.run(&[&"-p", &world.node("file"), &"back"]).await, silent_success());
    assert!(fs::read(world.here("back")).unwrap() == content);
}

#[tokio::test]
async fn trees_go_there_with_names_of_any_bytes() {
    let world = World::new().await;
    let name = OsStr::from_bytes(b"caf\xe9 \n'\"$(x)");
    fs::create_dir(world.here("tree")).unwrap();
    fs::create_dir(world.here("tree/empty")).unwrap();
    fs::write(world.here("tree").join(name), b"x").unwrap();
    assert_eq!(world.run(&[&"-r", &"tree", &world.node("up")]).await, silent_success());
    assert_eq!(fs::read(world.there("up").join(name)).unwrap(), b"x");
    assert!(world.there("up/empty").is_dir());
    let odd = world.node(OsStr::from_bytes(b"up/caf\xe9 \n'\"$(x)"));
    assert_eq!(world.run(&[&odd, &world.node("copy")]).await, silent_success(), "on the node");
    assert_eq!(fs::read(world.there("copy")).unwrap(), b"x");
}

#[tokio::test]
async fn what_cannot_be_copied_is_named_and_the_rest_is_copied() {
    let world = World::new().await;
    fs::write(world.here("fine"), b"x").unwrap();
    fs::create_dir(world.here("dir")).unwrap();
    let (code, said) = world.run(&[&"dir", &"missing\x1b[2J", &"fine", &world.node("")]).await;
    let mut lines: Vec<_> = said.lines().collect();
    lines.sort_unstable();
    assert_eq!(
        lines,
        [
            "ssmcp: 2 files or directories could not be copied",
            "ssmcp: dir: is a directory; `-r` (recursive) copies directories",
            "ssmcp: missing\\u{1b}[2J: no such file or directory",
        ]
    );
    assert_eq!((code, fs::read(world.there("fine")).unwrap()), (Some(1), b"x".to_vec()));
}

#[tokio::test]
async fn mistakes_are_told_before_anybody_is_asked() {
    let world = World::new().await;
    let (code, said) = world.run(&[&"a", &"b"]).await;
    assert_eq!(code, Some(255));
    assert!(said.starts_with("ssmcp: a and the target are both on this machine, where `cp` copies"), "{said}");
    let (code, said) = world.run(&[&"a", &"host:b"]).await;
    assert_eq!((code, said.contains("write `./host:b` for a local file")), (Some(255), true), "{said}");
    let (code, said) = world.run(&[&"--frobnicate"]).await;
    assert_eq!((code, said.starts_with("ssmcp: unexpected argument '--frobnicate'")), (Some(255), true), "{said}");
}

#[tokio::test]
async fn a_node_without_sftp_says_what_it_lacks() {
    for (command, way, reason) in [
        ("exit 127", "copy over the SCP protocol with", "scp does not start (exit code 127)"),
        (
            "echo Welcome to this node",
            "use SFTP on",
            "the server broke the SFTP protocol: `Welcome to this node` came instead of the SFTP protocol",
        ),
    ] {
        let world = World::with(Lab::builder().openssh_option(format!("ForceCommand {command}"))).await;
        let (code, said) = world.run(&[&world.node("x"), &"."]).await;
        let expected = format!("ssmcp: cannot {way} {}: {reason}", world.lab.node());
        assert_eq!((code, said.starts_with(&expected)), (Some(255), true), "{said}");
    }
}

#[tokio::test]
async fn an_interrupted_copy_leaves_nothing_behind_and_says_so_by_its_status() {
    let world = World::new().await;
    fs::File::create(world.there("big")).unwrap().set_len(1 << 30).unwrap();
    fs::create_dir(world.here("into")).unwrap();
    let source = world.node("big");
    let child = world.command(&[OsStr::new("--no-resume"), &source, OsStr::new("into")]).spawn().expect("ssmcp runs");
    let temporary = || fs::read_dir(world.here("into")).unwrap().count();
    until("the copy is under way", || temporary() == 1).await;
    let id = child.id().and_then(|id| rustix::process::Pid::from_raw(id.cast_signed())).expect("it runs");
    rustix::process::kill_process(id, rustix::process::Signal::INT).expect("signalled");
    let output = child.wait_with_output().await.expect("it ends");
    assert_eq!((crate::support::cli::status_in_shell(output.status), temporary()), (Some(130), 0));
    until("no session is left", || world.lab.open_sessions() == 0).await;
}

pub(crate) async fn until(what: &str, is_true: impl Fn() -> bool) {
    let waiting = async {
        while !is_true() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_mins(1), waiting).await.unwrap_or_else(|_| panic!("not in time: {what}"));
}
