//! What `ssmcp` shows while it copies: lines on a terminal, JSON lines on standard output.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;

use rustix::process::Signal;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader};

use crate::copy_cli::World;
use crate::support::cli::{Cli, eventually, kill, noise};
use crate::support::pty::Terminal;

const MIB: usize = 1024 * 1024;

fn events(stdout: &[u8]) -> Vec<Value> {
    stdout
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| serde_json::from_slice(line).expect("JSON"))
        .collect()
}

fn named<'a>(events: &'a [Value], name: &str) -> Vec<&'a Value> {
    events.iter().filter(|event| event["event"] == name).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn json_tells_each_file_and_ends_with_a_summary() {
    let world = World::new().await;
    let name = OsStr::from_bytes(b"caf\xe9");
    fs::write(world.here("").join(name), b"content").unwrap();
    let target = world.node("");
    let output = world.command(&["--json".as_ref(), name, "missing".as_ref(), &target]).output().await.unwrap();
    let events = events(&output.stdout);
    let finished = named(&events, "finished");
    assert_eq!((finished.len(), &finished[0]["path_base64"]), (1, &"Y2Fm6Q==".into()), "{events:?}");
    let failed = named(&events, "failed");
    assert_eq!((&failed[0]["side"], &failed[0]["path"]), (&"local".into(), &"missing".into()), "{events:?}");
    let last = events.last().unwrap();
    let told = ["event", "status", "exit_status", "files", "bytes", "failures"].map(|field| last[field].clone());
    assert_eq!(told, ["summary".into(), "incomplete".into(), 1.into(), 1.into(), 7.into(), Value::from(1)]);
    assert_eq!(crate::support::cli::status_in_shell(output.status), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("ssmcp: missing: "), "people read standard error");
}

#[tokio::test(flavor = "multi_thread")]
async fn json_tells_why_nothing_was_copied() {
    let world = World::new().await;
    let target = world.node("");
    let arguments = ["--json", "-i", "no-such-key", "x"].map(OsStr::new);
    let output = world.command(&[&arguments[..], &[&target]].concat()).output().await.unwrap();
    let events = events(&output.stdout);
    let last = events.last().unwrap();
    assert_eq!((&last["status"], &last["exit_status"]), (&"failed".into(), &255.into()), "{events:?}");
    assert!(last["message"].as_str().unwrap().contains("no-such-key"), "{last}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_stops_it_and_the_summary_says_so() {
    let world = World::new().await;
    fs::File::create(world.there("big")).unwrap().set_len(1 << 30).unwrap();
    let source = world.node("big");
    let mut child = world.command(&["--json".as_ref(), &source, "big".as_ref()]).spawn().expect("ssmcp runs");
    let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    let (mut last, mut is_signalled) = (Value::Null, false);
    while let Some(line) = lines.next_line().await.unwrap() {
        last = serde_json::from_str(&line).unwrap();
        let is_under_way = last["event"] == "progress" && last["bytes"].as_u64() > Some(0);
        if is_under_way && !std::mem::replace(&mut is_signalled, true) {
            kill(&child, Signal::TERM);
        }
    }
    assert_eq!((&last["status"], &last["exit_status"]), (&"stopped".into(), &143.into()), "{last}");
    assert_eq!(crate::support::cli::status_in_shell(child.wait().await.unwrap()), Some(143));
    eventually("no session is left", || world.lab.open_sessions() == 0).await;
}

/// A copy of 64 MiB on a terminal, slow enough to be looked at.
fn on_terminal(world: &World, more: &[&str]) -> Terminal {
    fs::write(world.here("big"), vec![1; 64 * MIB]).expect("a large file");
    let (source, target) = (world.here("big"), world.node("copy"));
    let cli = Cli::program(env!("CARGO_BIN_EXE_ssmcp")).with_lab(&world.lab);
    Terminal::start(cli.args(["-l", "4000"]).args(more).args([source.as_os_str(), &target]))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminal_shows_the_whole_copy_and_the_file_in_hand() {
    let world = World::new().await;
    let mut terminal = on_terminal(&world, &[]);
    terminal.see(" of 64.00 MiB").await;
    terminal.see(" left  1 file").await;
    terminal
        .until("the file in hand, on a line of its own", |screen| {
            let rows: Vec<_> = screen.rows(0, screen.size().1).collect();
            let row_with = |text: &str| rows.iter().position(|row| row.contains(text));
            row_with(" of 64.00 MiB").zip(row_with(" %  ")).is_some_and(|(whole, file)| file == whole + 1)
        })
        .await;
    terminal.resize(24, 30);
    terminal
        .until("the lines fit a smaller window", |screen| {
            let rows: Vec<_> = screen.rows(0, 24).collect();
            let has = |text: &str| rows.iter().filter(|row| row.contains(text)).count();
            has(" of 64.00 MiB") == 1 && has(" %  ...") == 1 && has("/big") == 1 && has("1 file") == 0
        })
        .await;
    terminal.type_keys("\u{3}").await;
    assert_eq!(terminal.wait().await, 130);
    terminal.see("stopped: 0 files are copied").await;
    assert!(!terminal.contents().contains(" of 64.00 MiB"), "{}", terminal.contents());
}

/// How many MiB the line for the whole copy says are there.
fn megabytes(screen: &vt100::Screen) -> Option<f64> {
    let contents = screen.contents();
    let (done, _) = contents.split_once(" MiB of ")?;
    done.rsplit(['\n', ' ']).next()?.parse().ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminal_shows_rate_files_and_streams_and_says_how_to_go_on() {
    let world = World::new().await;
    fs::create_dir(world.here("tree")).unwrap();
    for number in 0..40 {
        fs::write(world.here(&format!("tree/{number}")), noise(2 * MIB)).unwrap();
    }
    let (source, target) = (world.here("tree"), world.node("copy"));
    let cli = Cli::program(env!("CARGO_BIN_EXE_ssmcp")).with_lab(&world.lab);
    let mut terminal = Terminal::start(cli.args(["-r", "-j", "3", "-l", "40000"]).args([source.as_os_str(), &target]));
    terminal
        .until("bytes, rate, time left, files and streams", |screen| {
            let rows: Vec<_> = screen.rows(0, screen.size().1).collect();
            let whole = rows.iter().find(|row| row.contains(" MiB of 80.00 MiB  "));
            let has_all =
                |row: &String| ["iB/s  ", " left  ", "/40 files  3 streams"].iter().all(|part| row.contains(part));
            whole.is_some_and(has_all) && rows.iter().any(|row| row.contains(" %  ") && row.contains("tree/"))
        })
        .await;
    terminal.until("enough to go on with", |screen| megabytes(screen) > Some(8.0)).await;
    terminal.type_keys("\u{3}").await;
    assert_eq!(terminal.wait().await, 130);
    terminal.see("; the same command goes on from here").await;
    assert_eq!(terminal.contents().matches("stopped: ").count(), 1, "{}", terminal.contents());
    assert!(!terminal.contents().contains("MiB/s"), "the lines are gone: {}", terminal.contents());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_fails_stays_above_the_lines() {
    let world = World::new().await;
    fs::write(world.here("big"), vec![1; 64 * MIB]).unwrap();
    let (missing, source, target) = (world.here("missing"), world.here("big"), world.node(""));
    let cli = Cli::program(env!("CARGO_BIN_EXE_ssmcp")).with_lab(&world.lab);
    let paths = [missing.as_os_str(), source.as_os_str(), &target];
    let mut terminal = Terminal::start(cli.args(["-l", "4000"]).args(paths));
    terminal.until("the copy is under way", |screen| megabytes(screen) >= Some(0.1)).await;
    let contents = terminal.contents();
    let at = |text: &str| contents.find(text).unwrap_or_else(|| panic!("{text}: {contents}"));
    assert!(at("missing: no such file") < at(" of 64.00 MiB"), "{contents}");
    assert_eq!(contents.matches(" of 64.00 MiB").count(), 1, "{contents}");
    terminal.type_keys("\u{3}").await;
    assert_eq!(terminal.wait().await, 130);
    terminal.until("the failure is still there", |screen| screen.contents().contains("missing: no such file")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_agents_pace_is_told_once_on_a_terminal() {
    let world = World::new().await;
    fs::write(world.there("noise"), noise(64 * MIB)).unwrap();
    let (source, target) = (world.node("noise"), world.here("copy"));
    let cli = Cli::program(env!("CARGO_BIN_EXE_ssmcp")).with_lab(&world.lab);
    let words = ["-j", "1", "--compression", "off"];
    let mut terminal = Terminal::start(cli.args(words).args([source.as_os_str(), target.as_os_str()]));
    let advice = "is the pace of the node's SSM agent, not of the network";
    terminal.print(advice).await;
    // Three seconds and more of the same pace, in which it could be told again.
    terminal.until("more is copied", |screen| megabytes(screen) > Some(7.0)).await;
    assert_eq!(terminal.transcript().matches(advice).count(), 1);
    terminal.type_keys("\u{3}").await;
    assert_eq!(terminal.wait().await, 130);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_drawn_in_a_pipe_or_when_quiet() {
    let world = World::new().await;
    fs::write(world.here("file"), b"x").unwrap();
    let output =
        world.command(&["-o".as_ref(), "LogLevel=INFO".as_ref(), "file".as_ref(), &world.node("")]).output().await;
    let output = output.unwrap();
    assert_eq!((crate::support::cli::status_in_shell(output.status), output.stdout.len()), (Some(0), 0));
    let mut terminal = on_terminal(&world, &["-q"]);
    eventually("the copy is under way", || fs::read_dir(world.there("")).unwrap().count() > 1).await;
    terminal.type_keys("\u{3}").await;
    assert_eq!((terminal.wait().await, terminal.contents().replace("^C", "").trim()), (130, ""));
}
