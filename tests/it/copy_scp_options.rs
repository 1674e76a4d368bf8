//! Every option and operand of `ssmcp` that the SCP protocol can express, against an OpenSSH server without SFTP.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::process::{Output, Stdio};

use rustix::process::Signal;
use serde_json::Value;
use ssm_lab::{Event, Lab, Pace};
use tokio::io::AsyncWriteExt;

use crate::copy_cli::{silent_success, until};
use crate::copy_scp::{Node, long_ago, mode, modified, set};
use crate::copy_sftp::{noise, tree};
use crate::support::cli::{Cli, kill};
use crate::support::pty::Terminal;

const SECOND: &str = "i-0fedcba9876543210";
const MIB: usize = 1024 * 1024;

pub(crate) async fn fast_node() -> Node {
    Node::of(Lab::builder().pace(Pace::Ideal), "Subsystem none /bin/false").await
}

/// Runs it with `input` on a pipe.
pub(crate) async fn output(node: &Node, arguments: &[&OsStr], input: &[u8]) -> Output {
    let mut child = node.world.command(arguments).stdin(Stdio::piped()).spawn().expect("ssmcp runs");
    let mut stdin = child.stdin.take().expect("piped");
    let feed = async {
        let _ = stdin.write_all(input).await;
        drop(stdin);
    };
    let (output, ()) = tokio::join!(child.wait_with_output(), feed);
    until("no session is left", || node.world.lab.open_sessions() == 0).await;
    output.expect("it ends")
}

/// Its exit status and what it says, without what the start-up files of whoever runs the tests print on the node.
pub(crate) fn said(output: &Output) -> (Option<i32>, String) {
    let told = String::from_utf8_lossy(&output.stderr);
    let is_noise = |line: &&str| {
        line.strip_prefix("ssmcp: i-")
            .is_some_and(|rest| rest.split_once(':').is_some_and(|(_, text)| text.starts_with(' ')))
    };
    (
        crate::support::cli::status_in_shell(output.status),
        told.split_inclusive('\n').filter(|line| !is_noise(line)).collect(),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn options_of_scp_are_taken_in_both_directions() {
    let node = fast_node().await;
    let content = noise(40_000, 7);
    fs::write(node.here("file"), &content).unwrap();
    let identity = node.world.lab.identity().to_string_lossy().into_owned();
    fs::copy(node.world.lab.identity(), node.here("key")).unwrap();
    let configured = format!("IdentityFile={identity}");
    for options in [
        &["-q"][..],
        &["-C"],
        &["-i", "key"],
        &["-l", "100000"],
        &["-P", "22"],
        &["-o", "Compression=yes", "-oConnectTimeout=20", "-o", &configured],
        &["-3"],
        // Without an SFTP subsystem there is nothing to insist on.
        &["-s"],
        &["-B", "-T", "-4", "-O"],
        &["-rpq"],
    ] {
        node.succeed(&[options, &["file", &node.at("up")]].concat()).await;
        node.succeed(&[options, &[&node.at("up"), "down"]].concat()).await;
        assert!(fs::read(node.path("up")).unwrap() == content, "{options:?}");
        assert!(fs::read(node.here("down")).unwrap() == content, "{options:?}");
        fs::remove_file(node.path("up")).unwrap();
        fs::remove_file(node.here("down")).unwrap();
    }
    let (code, told) = node.run(&["-P", "1", "file", &node.at("up")]).await;
    assert!(code == Some(255) && !node.path("up").exists(), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn verbose_tells_the_stages() {
    let node = fast_node().await;
    fs::write(node.here("file"), b"x").unwrap();
    let Output { status, stderr, .. } =
        node.world.program().args(["-v", "file", &node.at("")]).output().await.expect("ssmcp runs");
    let told = String::from_utf8_lossy(&stderr);
    assert!(status.success() && told.contains("StartSession") && told.contains("using the SCP protocol"), "{told}");
    assert!(node.path("file").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn one_operand_may_be_standard_output() {
    let node = fast_node().await;
    let content = noise(700_000, 2);
    fs::write(node.path("down"), &content).unwrap();
    let piped = output(&node, &[node.at("down").as_ref(), "-".as_ref()], b"").await;
    assert_eq!(said(&piped), silent_success());
    assert!(piped.stdout == content);
    fs::create_dir(node.path("dir")).unwrap();
    let refused = output(&node, &["-r".as_ref(), node.at("dir").as_ref(), "-".as_ref()], b"").await;
    let (code, told) = said(&refused);
    assert!(code == Some(1) && told.contains("a directory cannot be written to it"), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn files_and_trees_go_from_one_node_to_another() {
    let node = Node::of(Lab::builder().pace(Pace::Ideal).another_node(SECOND), "Subsystem none /bin/false").await;
    fs::create_dir_all(node.path("tree/empty")).unwrap();
    fs::write(node.path("tree/file"), noise(300_000, 5)).unwrap();
    fs::write(node.path("tree/none"), b"").unwrap();
    set(&node.path("tree/none"), 0o640, long_ago());
    let there = node.world.lab.home_of(SECOND);
    // The other node has SFTP, and is asked to do without where both should.
    for (protocol, name) in [("-q", "one"), ("-O", "both")] {
        node.succeed(&[protocol, "-3", "-rp", &node.at("tree"), &format!("{SECOND}:{name}")]).await;
        assert!(tree(&there.join(name)) == tree(&node.path("tree")), "{name}");
        let empty = there.join(name).join("none");
        assert_eq!((mode(&empty), modified(&empty)), (0o640, long_ago()), "{name}");
        node.succeed(&[protocol, &format!("{SECOND}:{name}/file"), &node.at(name)]).await;
        assert!(fs::read(node.path(name)).unwrap() == noise(300_000, 5), "{name}");
    }
    let events = node.world.lab.events();
    let started = events.iter().filter(|event| matches!(event, Event::SessionStarted { .. }));
    assert_eq!(started.count(), 8, "one on each node for each copy");
}

#[tokio::test(flavor = "multi_thread")]
async fn names_are_bytes_in_both_directions() {
    let node = fast_node().await;
    let names: [&[u8]; 8] = [
        b"caf\xe9 \xff",
        b"two  words",
        b"quo'te\"s",
        b"$(id) `id`; &",
        b"-rf",
        b"\\back\\slash",
        b"*?[x]{a,b}",
        b"tab\tand\x1b[2Jcolour",
    ];
    fs::create_dir(node.here("names")).unwrap();
    for name in names {
        fs::write(node.here("names").join(OsStr::from_bytes(name)), name).unwrap();
    }
    node.succeed(&["-r", "names", &node.at("up")]).await;
    assert!(tree(&node.path("up")) == tree(&node.here("names")));
    node.succeed(&["-r", &node.at("up"), "down"]).await;
    assert!(tree(&node.here("down")) == tree(&node.here("names")));
    // As operands of their own.
    for (number, name) in names.into_iter().enumerate() {
        let (back, node_side) = (format!("back{number}"), node.at(&format!("new{number}")));
        let local = [b"./names/", name].concat();
        let typed: Vec<u8> = name
            .iter()
            .flat_map(|byte| if b"*?[]{}\\".contains(byte) { vec![b'\\', *byte] } else { vec![*byte] })
            .collect();
        let remote = [node.at("up/").as_bytes(), &typed].concat();
        let up = output(&node, &["--".as_ref(), OsStr::from_bytes(&local), node_side.as_ref()], b"").await;
        let down = output(&node, &["--".as_ref(), OsStr::from_bytes(&remote), back.as_ref()], b"").await;
        assert_eq!((said(&up), said(&down)), (silent_success(), silent_success()), "{}", String::from_utf8_lossy(name));
        assert_eq!(fs::read(node.path(&format!("new{number}"))).unwrap(), name);
        assert_eq!(fs::read(node.here(&back)).unwrap(), name);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_with_a_line_feed_is_named_and_everything_else_is_copied() {
    let node = fast_node().await;
    fs::create_dir_all(node.here("tree/di\nr")).unwrap();
    fs::write(node.here("tree/fi\nle"), b"x").unwrap();
    fs::write(node.here("tree/fine"), b"x").unwrap();
    let (code, told) = node.run(&["-r", "tree", &node.at("up")]).await;
    assert_eq!((code, tree(&node.path("up")).len()), (Some(1), 1));
    for name in ["up/di\\nr", "up/fi\\nle"] {
        let line = format!(
            "ssmcp: {}:{name}: the name holds a line feed, which the SCP protocol cannot carry",
            node.world.lab.node()
        );
        assert!(told.lines().any(|told| told == line), "{told}");
    }
    // The other way scp spells such a name anew, and a single one is known by how it was asked for.
    fs::write(node.path("li\nne"), b"y").unwrap();
    node.succeed(&[&node.at("li\nne"), "back"]).await;
    assert_eq!(fs::read(node.here("back")).unwrap(), b"y");
}

#[tokio::test(flavor = "multi_thread")]
async fn exclusions_and_links_are_as_with_sftp() {
    let node = fast_node().await;
    for root in [node.here("tree"), node.path("far")] {
        fs::create_dir_all(root.join("cache/deep")).unwrap();
        for name in ["a.o", "b.c", "cache/x", "cache/deep/y"] {
            fs::write(root.join(name), name).unwrap();
        }
        symlink("b.c", root.join("link")).unwrap();
    }
    let exclude = ["-r", "--exclude", "*.o", "--exclude", "cache/"];
    node.succeed(&[&exclude[..], &["tree", &node.at("up")]].concat()).await;
    node.succeed(&[&exclude[..], &[&node.at("far"), "down"]].concat()).await;
    node.succeed(&[&exclude[..], &[&node.at("far"), &node.at("over")]].concat()).await;
    for root in [node.path("up"), node.here("down"), node.path("over")] {
        let found = tree(&root);
        assert_eq!(found.keys().collect::<Vec<_>>(), ["b.c", "link"], "{}", root.display());
        assert!(
            fs::symlink_metadata(root.join("link")).unwrap().is_file() && found["link".as_ref() as &OsStr].is_some()
        );
    }
    let (code, told) = node.run(&["-r", "--links", "tree", &node.at("kept")]).await;
    assert_eq!((code, told.contains("the SCP protocol cannot carry links")), (Some(255), true), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn json_tells_each_file_of_each_direction() {
    let node = fast_node().await;
    fs::write(node.here("a"), b"content").unwrap();
    for (source, target) in
        [("a".to_owned(), node.at("b")), (node.at("b"), "c".to_owned()), (node.at("b"), node.at("d"))]
    {
        let piped = output(&node, &["--json", &source, &target].map(OsStr::new), b"").await;
        let lines = piped.stdout.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        let events: Vec<Value> = lines.map(|line| serde_json::from_slice(line).expect("JSON")).collect();
        let finished: Vec<_> = events.iter().filter(|event| event["event"] == "finished").collect();
        assert_eq!((finished.len(), &finished[0]["path"]), (1, &source.rsplit(':').next().into()), "{events:?}");
        let last = events.last().unwrap();
        let told = ["event", "status", "exit_status", "files", "bytes"].map(|field| last[field].clone());
        assert_eq!(told, ["summary".into(), "complete".into(), 0.into(), 1.into(), Value::from(7)]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminal_shows_an_upload_and_ctrl_c_ends_it_here_and_there() {
    let node = Node::new().await;
    fs::write(node.here("big"), vec![1; 64 * MIB]).unwrap();
    let cli = Cli::program(env!("CARGO_BIN_EXE_ssmcp")).with_lab(&node.world.lab);
    let big = node.here("big");
    let mut terminal = Terminal::start(cli.args(["-l", "4000"]).args([big.as_os_str(), node.at("copy").as_ref()]));
    terminal.see(" of 64.00 MiB").await;
    terminal.see(" left  1 file").await;
    terminal.type_keys("\u{3}").await;
    assert_eq!(terminal.wait().await, 130);
    terminal.see("stopped: 0 files are copied; the same command copies all again").await;
    until("no session is left", || node.world.lab.open_sessions() == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_copy_ends_in_every_direction() {
    let node = Node::new().await;
    fs::File::create(node.here("big")).unwrap().set_len(1 << 30).unwrap();
    fs::File::create(node.path("big")).unwrap().set_len(1 << 30).unwrap();
    for (source, target) in
        [("big".to_owned(), node.at("up")), (node.at("big"), "down".into()), (node.at("big"), node.at("over"))]
    {
        let mut child = node.world.command(&["--json", &source, &target].map(OsStr::new)).spawn().expect("ssmcp runs");
        let mut lines =
            tokio::io::AsyncBufReadExt::lines(tokio::io::BufReader::new(child.stdout.take().expect("piped")));
        let mut is_signalled = false;
        while let Some(line) = lines.next_line().await.unwrap() {
            let event: Value = serde_json::from_str(&line).unwrap();
            let is_moving = event["event"] == "progress" && event["bytes"].as_u64() > Some(0);
            if is_moving && !std::mem::replace(&mut is_signalled, true) {
                kill(&child, Signal::INT);
            }
        }
        assert_eq!(crate::support::cli::status_in_shell(child.wait().await.unwrap()), Some(130), "{source} {target}");
        until("no session is left", || node.world.lab.open_sessions() == 0).await;
    }
    assert!(!node.here("down").exists());
}
