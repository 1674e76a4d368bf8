//! `ssmcp` with `-` on one side, and from node to node.

use std::ffi::OsStr;
use std::fs;
use std::process::{Output, Stdio};

use ssm_lab::{Lab, Pace};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::copy_cli::{World, until};
use crate::support::cli::noise;

const SECOND: &str = "i-0fedcba9876543210";

async fn fast_world() -> World {
    World::with(Lab::builder().openssh().pace(Pace::Ideal)).await
}

/// Runs it with `input` on a pipe.
async fn piped(world: &World, arguments: &[&OsStr], input: &[u8]) -> Output {
    let mut child = world.command(arguments).stdin(Stdio::piped()).spawn().expect("ssmcp runs");
    let mut stdin = child.stdin.take().expect("piped");
    let feed = async {
        let _ = stdin.write_all(input).await;
        drop(stdin);
    };
    let (output, ()) = tokio::join!(child.wait_with_output(), feed);
    until("no session is left", || world.lab.open_sessions() == 0).await;
    output.expect("it ends")
}

fn outcome(output: &Output) -> (Option<i32>, String) {
    (crate::support::cli::status_in_shell(output.status), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn standard_input_becomes_a_file_on_the_node() {
    let world = fast_world().await;
    for input in [noise(3_000_000), Vec::new()] {
        let output = piped(&world, &["-".as_ref(), &world.node("up")], &input).await;
        assert_eq!((outcome(&output), output.stdout.len()), ((Some(0), String::new()), 0));
        assert!(fs::read(world.there("up")).unwrap() == input, "{} bytes", input.len());
    }
    assert_eq!(fs::read_dir(world.there("")).unwrap().count(), 1, "no temporary file is left");
}

/// What came through a pipe is gone, so there is nothing to go on with.
#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_copy_of_standard_input_leaves_neither_file_nor_journal() {
    let world = fast_world().await;
    fs::create_dir(world.there("into")).unwrap();
    let size = || {
        let entries = fs::read_dir(world.there("into")).expect("a folder");
        entries.map(|entry| entry.expect("an entry").metadata().map_or(0, |found| found.len())).sum::<u64>()
    };
    let journals = || fs::read_dir(world.here(".local/state/ssmssh/copies")).map_or(0, Iterator::count);
    for signal in [rustix::process::Signal::INT, rustix::process::Signal::KILL] {
        let mut command = world.program();
        let mut child = command.args(["-".as_ref(), &*world.node("into/x")]).stdin(Stdio::piped()).spawn().unwrap();
        let mut stdin = child.stdin.take().expect("piped");
        stdin.write_all(&noise(4 << 20)).await.unwrap();
        until("enough has arrived to be worth keeping", || size() >= 3 << 20).await;
        crate::support::cli::kill(&child, signal);
        let output = child.wait_with_output().await.unwrap();
        if signal == rustix::process::Signal::INT {
            let (code, said) = outcome(&output);
            assert_eq!((code, said.contains("copies all again")), (Some(130), true), "{said}");
            assert_eq!((size(), journals()), (0, 0));
        }
    }
    assert!(size() > 0, "nobody was there to remove it");
    // Not by `piped`: the session of the killed one stays open.
    let mut again = world.command(&["-".as_ref(), &world.node("into//x")]);
    let mut child = again.stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().expect("piped").write_all(b"whole").await.unwrap();
    assert_eq!(outcome(&child.wait_with_output().await.unwrap()), (Some(0), String::new()));
    assert_eq!((fs::read(world.there("into/x")).unwrap(), journals()), (b"whole".to_vec(), 0));
    assert_eq!(fs::read_dir(world.there("into")).unwrap().count(), 1, "what the killed one had left is removed");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_comes_from_standard_input_is_verified_too() {
    let world = fast_world().await;
    let input = noise(1 << 20);
    let output = piped(&world, &["--verify".as_ref(), "-".as_ref(), &world.node("up")], &input).await;
    assert_eq!(outcome(&output), (Some(0), String::new()));
    assert!(fs::read(world.there("up")).unwrap() == input);
}

#[tokio::test(flavor = "multi_thread")]
async fn standard_input_has_no_name_for_a_directory() {
    let world = fast_world().await;
    let output = piped(&world, &["-".as_ref(), &world.node("")], b"x").await;
    let (code, said) = outcome(&output);
    assert_eq!((code, said.contains("name the file")), (Some(1), true), "{said}");
    assert_eq!(fs::read_dir(world.there("")).unwrap().count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_comes_out_in_order_however_many_streams_carry_it() {
    let world = fast_world().await;
    let content = noise(12_000_000);
    fs::write(world.there("down"), &content).unwrap();
    let output = piped(&world, &["-j".as_ref(), "4".as_ref(), &world.node("down"), "-".as_ref()], b"").await;
    assert_eq!(outcome(&output), (Some(0), String::new()));
    assert!(output.stdout == content, "{} of {} bytes", output.stdout.len(), content.len());
    assert_eq!(fs::read_dir(world.here("")).unwrap().filter(|it| it.as_ref().unwrap().path().is_file()).count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_has_seen_enough_ends_it_without_a_word() {
    let world = fast_world().await;
    fs::File::create(world.there("big")).unwrap().set_len(1 << 30).unwrap();
    let source = world.node("big");
    let mut child = world.command(&[&source, "-".as_ref()]).spawn().expect("ssmcp runs");
    let mut stdout = child.stdout.take().expect("piped");
    stdout.read_exact(&mut [0; 1000]).await.unwrap();
    drop(stdout);
    let output = child.wait_with_output().await.expect("it ends");
    assert_eq!(outcome(&output), (Some(141), String::new()));
    until("no session is left", || world.lab.open_sessions() == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_goes_from_node_to_node_without_a_file_here() {
    let world = World::with(Lab::builder().pace(Pace::Ideal).another_node(SECOND)).await;
    let content = noise(8_000_000);
    fs::write(world.lab.home().join("from"), &content).unwrap();
    for streams in ["1", "3"] {
        let (source, target) = (format!("{}:from", world.lab.node()), format!("{SECOND}:to-{streams}"));
        let output = piped(&world, &["-j", streams, &source, &target].map(OsStr::new), b"").await;
        assert_eq!(outcome(&output), (Some(0), String::new()));
        let copy = world.lab.home_of(SECOND).join(format!("to-{streams}"));
        assert!(fs::read(copy).unwrap() == content, "{streams} streams");
    }
    let files_here = fs::read_dir(world.here("")).unwrap().filter(|it| it.as_ref().unwrap().path().is_file());
    assert_eq!(files_here.count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn standard_output_by_its_path_gets_the_file_behind_what_is_there() {
    let world = fast_world().await;
    fs::write(world.there("x"), noise(300_000)).unwrap();
    let source = world.node("x");
    let link = world.here("out");
    std::os::unix::fs::symlink("/dev/stdout", &link).unwrap();
    for target in ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1", "out"] {
        let output = world.command(&[&source, target.as_ref()]).output().await.expect("ssmcp runs");
        assert_eq!(outcome(&output), (Some(0), String::new()), "{target}");
        assert!(output.stdout == noise(300_000), "{target}: {} bytes", output.stdout.len());
        let file = world.here("redirected");
        fs::write(&file, b"before").unwrap();
        let stdout = fs::File::options().append(true).open(&file).unwrap();
        let child = world.command(&[&source, target.as_ref()]).stdout(stdout).spawn().expect("ssmcp runs");
        assert_eq!(outcome(&child.wait_with_output().await.unwrap()), (Some(0), String::new()), "{target}");
        assert!(fs::read(file).unwrap() == [&b"before"[..], &noise(300_000)].concat(), "{target}");
    }
    assert!(link.is_symlink() && fs::symlink_metadata("/dev/stdout").unwrap().is_symlink());
    until("no session is left", || world.lab.open_sessions() == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_nodes_dev_null_takes_a_file() {
    let world = fast_world().await;
    fs::write(world.here("x"), noise(300_000)).unwrap();
    for options in [&[][..], &["-O"]] {
        let output = world.program().args(options).arg("x").arg(format!("{}:/dev/null", world.lab.node())).output();
        assert_eq!(outcome(&output.await.expect("ssmcp runs")), (Some(0), String::new()), "{options:?}");
    }
    until("no session is left", || world.lab.open_sessions() == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standard_input_that_is_closed_is_no_empty_file() {
    let world = fast_world().await;
    fs::write(world.there("up"), b"before").unwrap();
    let run = async |redirection: &str| {
        let program = world.program();
        let mut shell = tokio::process::Command::new("sh");
        shell.args(["-c", &format!("exec \"$@\" {redirection}"), "sh"]).arg(program.as_std().get_program());
        for (name, value) in program.as_std().get_envs() {
            shell.env(name, value.unwrap_or_default());
        }
        let output = shell.arg("-").arg(world.node("up")).current_dir(world.here("")).output().await;
        until("no session is left", || world.lab.open_sessions() == 0).await;
        outcome(&output.expect("a shell runs"))
    };
    let (code, said) = run("<&-").await;
    assert!(code == Some(1) && said.contains("standard input: bad file descriptor"), "{said}");
    assert_eq!(fs::read(world.there("up")).unwrap(), b"before");
    assert_eq!(run("</dev/null").await, (Some(0), String::new()));
    assert_eq!(fs::read(world.there("up")).unwrap(), b"");
}
