//! The examples do what they say, against the lab.

use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use ssm_lab::Lab;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncReadExt};
use tokio::net::TcpListener;
use tokio::process::Command;

use crate::support::cli::all_sessions_over;

#[tokio::test]
async fn exec_prints_what_the_command_prints_and_ends_with_its_status() {
    let lab = Lab::builder().start().await.expect("a lab");
    let output = run(&lab, "exec", &[&key(&lab), lab.user(), lab.node(), "echo out; echo err >&2; exit 3"]).await;
    assert_eq!(text(&output), ("out\n".into(), "err\n".into(), Some(3)));
    all_sessions_over(&lab).await;
}

#[tokio::test]
async fn copy_file_copies_a_tree_and_says_how_much() {
    let lab = Lab::builder().start().await.expect("a lab");
    let tree = TempDir::new().expect("a folder");
    std::fs::create_dir(tree.path().join("inner")).expect("a folder");
    std::fs::write(tree.path().join("inner/file"), "content").expect("a file");
    let source = tree.path().display().to_string();
    let output = run(&lab, "copy_file", &[&key(&lab), lab.user(), lab.node(), &source, "tree"]).await;
    assert_eq!(text(&output), ("1 files, 7 bytes\n".into(), String::new(), Some(0)));
    assert_eq!(std::fs::read(lab.home().join("tree/inner/file")).expect("the copy"), b"content");
    all_sessions_over(&lab).await;
}

#[tokio::test]
async fn forward_leads_programs_of_this_machine_to_a_port_of_the_node() {
    let lab = Lab::builder().openssh().start().await.expect("a lab");
    let mut forward = command(&lab, "forward", &[lab.node(), "22", "0"], lab.home());
    let mut forward = forward.stdout(Stdio::piped()).spawn().expect("it runs");
    let mut port = String::new();
    let mut said = tokio::io::BufReader::new(forward.stdout.take().expect("piped"));
    said.read_line(&mut port).await.expect("a port");
    let ssh = Command::new("ssh")
        .args([
            "-F",
            "none",
            "-o",
            "BatchMode=yes",
            "-o",
            "StrictHostKeyChecking=no",
            "-o",
            "UserKnownHostsFile=/dev/null",
        ])
        .args(["-q", "-p", port.trim(), "-l", lab.user(), "-i", &key(&lab), "127.0.0.1", "echo here"])
        .output();
    assert_eq!(text(&ssh.await.expect("ssh runs")), ("here\n".into(), String::new(), Some(0)));
    all_sessions_over(&lab).await;
}

#[tokio::test]
async fn deploy_switches_every_node_to_the_new_release() {
    let fleet = Fleet::start().await;
    fleet.install("app-1");
    let output = fleet.deploy("app-2", "cat app/current > running").await;
    let expected = fleet.said("runs releases/app-2");
    assert_eq!((sorted_lines(&output), output.status.code()), (expected, Some(0)), "{output:?}");
    assert_eq!(fleet.each(|home| read(home, "running")), ["app-2", "app-2"]);
    assert_eq!(fleet.each(|home| read(home, "app/releases/app-1")), ["app-1", "app-1"]);
    all_sessions_over(&fleet.lab).await;
}

#[tokio::test]
async fn deploy_brings_every_node_back_when_a_restart_fails_on_one() {
    let fleet = Fleet::start().await;
    fleet.install("app-1");
    std::fs::write(fleet.lab.home_of(OTHER).join("broken"), "app-2").expect("a file");
    let restart = "cat app/current > running; if cmp -s running broken; then echo no >&2; exit 4; fi";
    let output = fleet.deploy("app-2", restart).await;
    let other = |line: &str| format!("{OTHER}: {line}");
    let mut expected = fleet.said("back to releases/app-1");
    expected.extend([other("the restart failed with exit code 4: no"), fleet.first("runs releases/app-2")]);
    expected.sort();
    assert_eq!((sorted_lines(&output), output.status.code()), (expected, Some(1)), "{output:?}");
    assert_eq!(fleet.each(|home| read(home, "running")), ["app-1", "app-1"]);
    all_sessions_over(&fleet.lab).await;
}

#[tokio::test]
async fn deploy_leaves_no_link_behind_when_the_first_release_fails() {
    let fleet = Fleet::start().await;
    let output = fleet.deploy("app-1", "exit 1").await;
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(fleet.each(|home| home.join("app/current").symlink_metadata().is_err()).into_iter().all(|gone| gone));
}

#[tokio::test]
async fn deploy_touches_no_node_when_one_cannot_be_reached() {
    let fleet = Fleet::start().await;
    fleet.install("app-1");
    let artefact = fleet.artefact("app-2");
    let lab = &fleet.lab;
    let missing = "i-0000000000000dead";
    let output = run(lab, "deploy", &[&key(lab), lab.user(), &artefact, "app", "true", lab.node(), missing]).await;
    let said = text(&output);
    assert!(said.0.starts_with(missing) && said.0.ends_with("no node was touched\n"), "{output:?}");
    assert_eq!(said.2, Some(1));
    assert_eq!(fleet.each(|home| read(home, "app/current")), ["app-1", "app-1"]);
    all_sessions_over(lab).await;
}

const OTHER: &str = "i-0fedcba9876543210";

/// Two nodes to deploy to.
struct Fleet {
    lab: Lab,
    builds: TempDir,
}

impl Fleet {
    async fn start() -> Self {
        let lab = Lab::builder().another_node(OTHER).start().await.expect("a lab");
        Self { lab, builds: TempDir::new().expect("a folder") }
    }

    fn each<T>(&self, look: impl Fn(&Path) -> T) -> [T; 2] {
        [look(self.lab.home()), look(&self.lab.home_of(OTHER))]
    }

    /// Lets both run this release.
    fn install(&self, release: &str) {
        self.each(|home| {
            std::fs::create_dir_all(home.join("app/releases")).expect("a folder");
            std::fs::write(home.join("app/releases").join(release), release).expect("a release");
            std::os::unix::fs::symlink(format!("releases/{release}"), home.join("app/current")).expect("a link");
        });
    }

    /// A file that holds its name.
    fn artefact(&self, release: &str) -> String {
        let path = self.builds.path().join(release);
        std::fs::write(&path, release).expect("a build");
        path.display().to_string()
    }

    async fn deploy(&self, release: &str, restart: &str) -> Output {
        let (lab, artefact) = (&self.lab, self.artefact(release));
        run(lab, "deploy", &[&key(lab), lab.user(), &artefact, "app", restart, lab.node(), OTHER]).await
    }

    fn first(&self, line: &str) -> String {
        format!("{}: {line}", self.lab.node())
    }

    fn said(&self, line: &str) -> Vec<String> {
        vec![self.first(line), format!("{OTHER}: {line}")]
    }
}

fn read(home: &Path, name: &str) -> String {
    std::fs::read_to_string(home.join(name)).expect("a file")
}

fn sorted_lines(output: &Output) -> Vec<String> {
    let mut lines: Vec<_> = text(output).0.lines().map(str::to_owned).collect();
    lines.sort();
    lines
}

#[tokio::test]
async fn any_transport_reaches_an_ssh_server_over_tcp() {
    let lab = Lab::builder().start().await.expect("a lab");
    let address = lab.sshd_address();
    let (host, port) = (address.ip().to_string(), address.port().to_string());
    let output = run(&lab, "any_transport", &[&key(&lab), lab.user(), &host, &port, "echo hello"]).await;
    assert_eq!(text(&output), ("hello\n".into(), String::new(), Some(0)));
}

#[tokio::test]
async fn raw_stream_pushes_every_byte_and_prints_the_rate() {
    let lab = Lab::builder().start().await.expect("a lab");
    let (listener, port) = listen().await;
    let sink = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.expect("the node's connection");
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).await.expect("a sound connection");
        bytes.len()
    });
    let output = run(&lab, "raw_stream", &[lab.node(), &port, "push", "1000000"]).await;
    assert!(text(&output).0.starts_with("push: 1000000 bytes in "), "{output:?}");
    assert_eq!(sink.await.expect("the sink"), 1_000_000);
    all_sessions_over(&lab).await;
}

#[tokio::test]
async fn raw_stream_needs_nothing_but_the_labs_own_services() {
    let lab = Lab::builder().start().await.expect("a lab");
    for (port, direction) in [("9", "push"), ("19", "pull")] {
        let output = run(&lab, "raw_stream", &[lab.node(), port, direction, "100000", "0"]).await;
        assert!(text(&output).0.starts_with(&format!("{direction}: 100000 bytes in ")), "{output:?}");
    }
    all_sessions_over(&lab).await;
}

/// Runs an example in an empty folder, with an environment that points at the lab and holds nothing else.
async fn run(lab: &Lab, example: &str, arguments: &[&str]) -> Output {
    let folder = TempDir::new().expect("a folder");
    command(lab, example, arguments, folder.path()).output().await.expect("the example")
}

fn command(lab: &Lab, example: &str, arguments: &[&str], folder: &Path) -> Command {
    let program = examples().join(example);
    assert!(program.exists(), "{} is missing: build the examples too", program.display());
    let mut command = Command::new(program);
    command
        .args(arguments)
        .current_dir(folder)
        .env_clear()
        .envs(lab.env())
        .env("HOME", folder)
        .stdin(Stdio::null())
        .kill_on_drop(true);
    command
}

/// Beside this test's own binary, where cargo puts them.
fn examples() -> PathBuf {
    let test = std::env::current_exe().expect("this test's path");
    test.ancestors().nth(2).expect("the target folder").join("examples")
}

async fn listen() -> (TcpListener, String) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
    let port = listener.local_addr().expect("an address").port().to_string();
    (listener, port)
}

fn key(lab: &Lab) -> String {
    lab.identity().display().to_string()
}

fn text(output: &Output) -> (String, String, Option<i32>) {
    let utf8 = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (utf8(&output.stdout), utf8(&output.stderr), output.status.code())
}
