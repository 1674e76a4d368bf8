//! What `ssmcp` says on standard error: with `-v`, with `-q`, and about what cannot be.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::symlink;
use std::time::{Duration, SystemTime};

use ssm_lab::{Lab, Pace};

use crate::copy_cli::World;
use crate::support::cli::noise;

/// What it says with `words` and then `paths`, and its exit status.
async fn said(world: &World, words: &[&str], paths: &[&OsStr]) -> (Option<i32>, String) {
    let output = world.program().args(words).args(paths).output().await.expect("ssmcp runs");
    (output.status.code(), String::from_utf8(output.stderr).expect("text"))
}

fn has_line(text: &str, start: &str, end: &str) -> bool {
    text.lines().any(|line| line.strip_prefix(start).is_some_and(|rest| rest.ends_with(end)))
}

#[tokio::test(flavor = "multi_thread")]
async fn v_tells_the_stages_of_every_stream_by_its_name() {
    let world = World::new().await;
    fs::write(world.there("noise"), noise(4 << 20)).unwrap();
    let (code, said) = said(&world, &["-v", "-j", "2"], &[&world.node("noise"), ".".as_ref()]).await;
    assert_eq!(code, Some(0), "{said}");
    for stream in ["stream 1", "stream 2"] {
        for stage in ["StartSession", "WebSocket", "handshake", "key exchange", "authentication"] {
            assert!(has_line(&said, &format!("ssmcp: {stream}: {stage} "), " ms"), "{stream}, {stage}: {said}");
        }
        assert!(has_line(&said, &format!("ssmcp: {stream}: SSM session lab-"), ""), "{said}");
    }
    assert!(has_line(&said, "ssmcp: ready after ", " ms"), "{said}");
    assert!(has_line(&said, "ssmcp: streams in use: 2, 0 with compression", ""), "{said}");
    assert!(has_line(&said, "ssmcp: no more streams than 2: ", "as many as are allowed"), "{said}");
    assert!(has_line(&said, "ssmcp: no compression: ", " %)"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn v_tells_why_streams_were_added_and_compressed() {
    let world = World::new().await;
    let line = b"2026-11-22T03:00:00Z INFO request served path=/index.html status=200\n";
    fs::write(world.there("log"), line.repeat(8 << 20 >> 6)).unwrap();
    let (code, said) = said(&world, &["-v"], &[&world.node("log"), ".".as_ref()]).await;
    assert_eq!(code, Some(0), "{said}");
    assert!(has_line(&said, "ssmcp: compression (a sample of it packs to ", " %)"), "{said}");
    assert!(has_line(&said, "ssmcp: streams in use: ", " with compression"), "{said}");
    assert!(!said.contains("ssmcp: channel "), "a channel is a stream's: {said}");
    assert!(said.contains(" streams in place of 1: at ") || said.contains("ssmcp: no more streams than 1: "), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn v_tells_nodes_apart() {
    const SECOND: &str = "i-0fedcba9876543210";
    let world = World::with(Lab::builder().pace(Pace::Ideal).another_node(SECOND)).await;
    fs::write(world.lab.home().join("file"), b"content").unwrap();
    let (from, to) = (format!("{}:file", world.lab.node()), format!("{SECOND}:file"));
    let (code, said) = said(&world, &["-v", "-j", "1", &from, &to], &[]).await;
    assert_eq!(code, Some(0), "{said}");
    for node in [world.lab.node(), SECOND] {
        assert!(has_line(&said, &format!("ssmcp: {node}: handshake "), " ms"), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn v_tells_what_is_not_copied_and_why() {
    let world = World::new().await;
    fs::write(world.here("file"), b"content").unwrap();
    let old = SystemTime::now() - Duration::from_hours(1);
    fs::File::options().write(true).open(world.here("file")).unwrap().set_modified(old).unwrap();
    let there = world.node("");
    let (code, _) = said(&world, &["-q", "-p", "file", "missing"], &[&there]).await;
    assert_eq!(code, Some(1));
    let (_, again) = said(&world, &["-v", "-p", "file", "missing"], &[&there]).await;
    assert!(has_line(&again, "ssmcp: file: an earlier run has finished it", ""), "{again}");
    let (_, skipped) = said(&world, &["-v", "-p", "--skip-same", "file"], &[&there]).await;
    assert!(has_line(&skipped, "ssmcp: file: skipped, the target has the same size and time", ""), "{skipped}");
    let (_, newer) = said(&world, &["-v", "--newer", "file"], &[&there]).await;
    assert!(has_line(&newer, "ssmcp: file: skipped, the target has it as new or newer", ""), "{newer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn q_leaves_errors_and_nothing_else() {
    let world = World::new().await;
    symlink("nowhere", world.here("link")).unwrap();
    fs::write(world.here("file"), b"content").unwrap();
    let there = world.node("");
    let (_, loud) = said(&world, &["--known-hosts", "new", "file"], &[&there]).await;
    assert!(loud.contains("new host key of "), "{loud}");
    let quiet = said(&world, &["-q", "--known-hosts", "newer", "file"], &[&there]).await;
    assert_eq!(quiet, (Some(0), String::new()));
    let (code, text) = said(&world, &["-q", "link", "file"], &[&there]).await;
    assert_eq!((code, text.as_str()), (Some(1), "ssmcp: link: is a link that leads nowhere\n"));
    let (code, text) = said(&world, &["-q", "-o", "Frob=x", "file"], &[&there]).await;
    assert!(code == Some(255) && text.starts_with("ssmcp: `-o Frob=x`"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn i_names_the_key_that_logs_in() {
    let world = World::new().await;
    fs::write(world.here("file"), b"content").unwrap();
    fs::copy(world.lab.identity(), world.here("key")).unwrap();
    let run = async |words: &[&str]| {
        let mut command = world.program();
        let output = command.env_remove("SSMSSH_IDENTITY").args(words).arg(world.node("")).output().await.unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let (code, said) = run(&["file"]).await;
    assert!(code == Some(255) && said.contains("no private key"), "{said}");
    let (code, said) = run(&["-i", "key", "-v", "file"]).await;
    assert!(code == Some(0) && said.contains("offering the key key"), "{said}");
    assert_eq!(fs::read(world.there("file")).unwrap(), b"content");
}

#[tokio::test(flavor = "multi_thread")]
async fn links_that_lead_nowhere_are_told_apart_with_one_hint() {
    let world = World::new().await;
    fs::create_dir(world.there("tree")).unwrap();
    for name in ["tree/one", "tree/two"] {
        symlink("nowhere", world.there(name)).unwrap();
    }
    let (code, said) = said(&world, &["-r"], &[&world.node("tree"), ".".as_ref()]).await;
    let count = |text: &str| said.lines().filter(|line| line.contains(text)).count();
    assert_eq!((code, count("is a link that leads nowhere"), count("hint: `--links`")), (Some(1), 2, 1), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pipe_takes_one_file_and_a_target_of_several_is_a_directory_of_its_side() {
    let world = World::new().await;
    for name in ["a.log", "b.log"] {
        fs::write(world.there(name), name).unwrap();
        fs::write(world.here(name), name).unwrap();
    }
    let (code, text) = said(&world, &["-q"], &[&world.node("*.log"), "-".as_ref()]).await;
    assert_eq!((code, text.as_str()), (Some(1), "ssmcp: standard output: takes one file, and there are 2\n"));
    let target = world.node("none");
    let (code, text) = said(&world, &["-q", "a.log", "b.log"], &[&target]).await;
    let expected = format!("ssmcp: {}: there is no such directory\n", target.to_string_lossy());
    assert_eq!((code, text), (Some(255), expected));
    let (code, text) = said(&world, &["-", "-"], &[]).await;
    assert!(code == Some(255) && text.starts_with("ssmcp: standard input and the target are both on"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_comes_before_the_warning_about_its_goodbye() {
    let world = World::with(Lab::builder().openssh().deny("ssm:TerminateSession")).await;
    fs::write(world.here("file"), b"content").unwrap();
    let (code, said) = said(&world, &["-P", "9", "-o", "ConnectTimeout=1", "file"], &[&world.node("")]).await;
    let at = |text: &str| said.find(text).unwrap_or_else(|| panic!("{text}: {said}"));
    assert!(code == Some(255) && at("not logged in within 1 s") < at("could not be terminated"), "{said}");
}
