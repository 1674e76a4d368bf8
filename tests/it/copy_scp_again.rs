//! Copies over the SCP protocol that are repeated, tried out or compared.

use std::ffi::OsStr;
use std::fs;
use std::io::{Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{FileExt as _, symlink};
use std::path::Path;
use std::time::{Duration, SystemTime};

use ssmssh::copy::{CopyOptions, Event, Failure, Location, Progress, Skip, Summary, copy};
use tempfile::TempDir;

use crate::copy_cli::silent_success;
use crate::copy_scp::{long_ago, mode, modified, scp_in, scp_with, set};
use crate::copy_scp_options::{fast_node, output, said};
use crate::copy_sftp::{noise, tree};

fn folder() -> TempDir {
    tempfile::tempdir().expect("a directory")
}

fn recursive() -> CopyOptions {
    CopyOptions::default().recursive(true)
}

async fn run(source: Location, target: Location, options: CopyOptions) -> Summary {
    copy(vec![source], target, options, |_| {}).await.expect("a summary")
}

fn told(summary: &Summary) -> Vec<String> {
    summary.failures.iter().map(Failure::to_string).collect()
}

fn soon() -> SystemTime {
    SystemTime::now() + Duration::from_hours(1)
}

/// A tree, and one like it that has a newer file and one of the same time.
fn two_trees(from: &Path, to: &Path) {
    for root in [from, to] {
        fs::create_dir_all(root.join("sub")).expect("as it should");
    }
    for (name, there) in [("sub/newer", soon()), ("sub/older", SystemTime::UNIX_EPOCH), ("same", long_ago())] {
        fs::write(from.join(name), b"here.").expect("as it should");
        fs::write(to.join(name), b"there").expect("as it should");
        set(&from.join(name), 0o644, long_ago());
        set(&to.join(name), 0o644, there);
    }
    fs::write(from.join("sub/missing"), b"here.").expect("as it should");
}

/// The files that are as they were.
fn untouched(root: &Path) -> Vec<&'static str> {
    let is_as_before = |name: &&str| fs::read(root.join(name)).expect("as it should") == b"there";
    assert_eq!(fs::read(root.join("sub/missing")).expect("as it should"), b"here.");
    ["sub/newer", "sub/older", "same"].into_iter().filter(is_as_before).collect()
}

#[tokio::test]
async fn files_that_the_target_has_are_skipped_in_every_direction() {
    for (skip, expected) in [(Skip::Newer, &["sub/newer", "same"][..]), (Skip::Same, &["same"]), (Skip::Nothing, &[])] {
        let (here, node, other) = (folder(), folder(), folder());
        let (scp, second) = (scp_in(node.path()), scp_in(other.path()));
        two_trees(&here.path().join("from"), &node.path().join("to/from"));
        two_trees(&node.path().join("from"), &here.path().join("to/from"));
        two_trees(&node.path().join("from"), &other.path().join("named"));
        let options = || recursive().skip(skip);
        let up = run(Location::local(here.path().join("from")), Location::scp(&scp, "~/to"), options()).await;
        let down = run(Location::scp(&scp, "from"), Location::local(here.path().join("to")), options()).await;
        let over = run(Location::scp(&scp, "from/."), Location::scp(&second, "named"), options()).await;
        for (summary, root) in
            [(up, node.path().join("to/from")), (down, here.path().join("to/from")), (over, other.path().join("named"))]
        {
            assert_eq!(
                (untouched(&root), summary.skipped),
                (expected.to_vec(), expected.len() as u64),
                "{skip:?} {root:?}"
            );
            assert_eq!((summary.files, told(&summary)), (4 - expected.len() as u64, vec![]), "{skip:?} {root:?}");
        }
    }
}

#[tokio::test]
async fn what_the_target_has_is_asked_once_for_many_sources_and_names_of_any_bytes() {
    let (here, node) = (folder(), folder());
    let mut sources = Vec::new();
    for number in 0..300 {
        let name = format!("-it's $(x) *{number}{}", "y".repeat(200));
        for (root, content) in [(here.path(), "here."), (node.path(), "there")] {
            fs::write(root.join(&name), content).unwrap();
            set(&root.join(&name), 0o644, long_ago());
        }
        sources.push(Location::local(here.path().join(&name)));
    }
    let summary = copy(sources, Location::scp(&scp_in(node.path()), ""), recursive().skip(Skip::Newer), |_| {}).await;
    let summary = summary.unwrap();
    assert_eq!((summary.files, summary.skipped, told(&summary)), (0, 300, vec![]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_prints_every_file_with_its_new_name_and_writes_nothing() {
    let node = fast_node().await;
    for root in [node.here("tree"), node.path("far")] {
        fs::create_dir_all(root.join("sub")).unwrap();
        fs::write(root.join("sub/file"), b"x").unwrap();
        fs::write(root.join("kept"), b"x").unwrap();
    }
    fs::create_dir_all(node.path("into/tree")).unwrap();
    fs::write(node.path("into/tree/kept"), b"newer").unwrap();
    let before = tree(&node.path(""));
    for (source, target, lines) in [
        (
            "tree".to_owned(),
            node.at("into"),
            &["tree/kept -> into/tree/kept", "tree/sub/file -> into/tree/sub/file"][..],
        ),
        ("tree".to_owned(), node.at("new"), &["tree/kept -> new/kept", "tree/sub/file -> new/sub/file"]),
        ("tree/kept".to_owned(), node.at("into"), &["tree/kept -> into/kept"]),
        (node.at("far"), "new".to_owned(), &["far/kept -> new/kept", "far/sub/file -> new/sub/file"]),
        (node.at("far"), node.at("over"), &["far/kept -> over/kept", "far/sub/file -> over/sub/file"]),
    ] {
        let printed = output(&node, &["-r", "--dry-run", &source, &target].map(OsStr::new), b"").await;
        assert_eq!(said(&printed), silent_success());
        let text = String::from_utf8(printed.stdout).unwrap();
        let mut found: Vec<_> = text.lines().collect();
        found.sort_unstable();
        assert_eq!(found, lines, "{source} {target}");
    }
    let skipping = output(&node, &["-r", "--newer", "--dry-run", "tree", &node.at("into")].map(OsStr::new), b"").await;
    assert_eq!(String::from_utf8(skipping.stdout).unwrap(), "tree/sub/file -> into/tree/sub/file\n");
    let (code, told) = node.run(&["--dry-run", "tree/kept", "tree/sub/file", &node.at("none")]).await;
    assert!(code == Some(255) && told.ends_with(":none: there is no such directory\n"), "{told}");
    assert!(tree(&node.path("")) == before && !node.here("new").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn verified_copies_go_in_every_direction() {
    let node = fast_node().await;
    fs::create_dir_all(node.here("tree/it's")).unwrap();
    fs::write(node.here("tree/it's/$(x)"), noise(200_000, 1)).unwrap();
    fs::write(node.here("tree/-none"), b"").unwrap();
    fs::write(node.here("tree/*"), b"x").unwrap();
    node.succeed(&["--verify", "-r", "tree", &node.at("~/up")]).await;
    node.succeed(&["--verify", "-r", &node.at("up"), "down"]).await;
    node.succeed(&["--verify", "-r", &node.at("up/."), &node.at("over")]).await;
    node.succeed(&["--verify", "-r", "tree", "tree", &node.at("over")]).await;
    for root in [node.path("up"), node.here("down"), node.path("over/tree")] {
        assert!(tree(&root) == tree(&node.here("tree")), "{}", root.display());
    }
    let piped = output(&node, &["--verify", &node.at("up/it's/*"), "-"].map(OsStr::new), b"").await;
    assert!(piped.status.success() && piped.stdout == noise(200_000, 1));
}

#[tokio::test]
async fn many_files_are_compared_and_the_last_of_one_name() {
    let (here, node) = (folder(), folder());
    for tree in ["one/x", "two/x"] {
        fs::create_dir_all(here.path().join(tree)).unwrap();
        for number in 0..150 {
            fs::write(here.path().join(tree).join(format!("{number}")), format!("{tree} {number}")).unwrap();
        }
    }
    let sources = ["one/x", "two/x"].map(|tree| Location::local(here.path().join(tree)));
    let target = Location::scp(&scp_in(node.path()), "");
    let summary = copy(sources.into(), target, recursive().verify(true), |_| {}).await.unwrap();
    assert_eq!((summary.files, told(&summary)), (300, vec![]));
    assert!(tree(&node.path().join("x")) == tree(&here.path().join("two/x")));
}

/// A folder with `sh`, `scp`, and a program that hashes in its own way, if any.
fn programs(sha256sum: Option<&str>) -> TempDir {
    let bin = folder();
    for (name, program) in [("sh", "/bin/sh"), ("scp", "/usr/bin/scp"), ("cat", "/bin/cat")] {
        symlink(program, bin.path().join(name)).expect("as it should");
    }
    if let Some(script) = sha256sum {
        let program = bin.path().join("sha256sum");
        fs::write(&program, format!("#!/bin/sh\n{script}\n")).expect("as it should");
        set(&program, 0o755, long_ago());
    }
    bin
}

#[tokio::test]
async fn a_difference_is_told_and_a_download_leaves_its_target_as_it_was() {
    let (here, node, bin) = (folder(), folder(), programs(Some(&format!("cat >/dev/null; echo {:064} -", 0))));
    let scp = scp_with(node.path(), &bin.path().to_string_lossy());
    let file = here.path().join("file");
    fs::write(&file, b"old").unwrap();
    let options = || CopyOptions::default().verify(true);
    let up = run(Location::local(file.clone()), Location::scp(&scp, "up"), options()).await;
    let words = "node:up: what has this name now differs by SHA-256 from what was sent, and is not to be trusted";
    assert_eq!((told(&up), up.files), (vec![words.to_owned()], 0));
    fs::write(node.path().join("new"), b"new").unwrap();
    let down = run(Location::scp(&scp, "new"), Location::local(file.clone()), options()).await;
    assert!(
        told(&down)[0].contains("differs from the file on node by SHA-256; the target was left as it was"),
        "{down:?}"
    );
    assert_eq!((fs::read(&file).unwrap(), fs::read_dir(here.path()).unwrap().count()), (b"old".to_vec(), 1));
}

#[tokio::test]
async fn files_are_read_back_where_no_program_hashes() {
    let (here, node, bin) = (folder(), folder(), programs(None));
    let scp = scp_with(node.path(), &bin.path().to_string_lossy());
    let content = noise(300_000, 8);
    fs::write(here.path().join("file"), &content).unwrap();
    fs::write(here.path().join("none"), b"").unwrap();
    let options = || recursive().verify(true);
    let up = run(Location::local(here.path().to_owned()), Location::scp(&scp, "up"), options()).await;
    let down = run(Location::scp(&scp, "up"), Location::local(here.path().join("down")), options()).await;
    assert_eq!((up.files, down.files, told(&up), told(&down)), (2, 2, vec![], vec![]));
    assert!(fs::read(here.path().join("down/file")).unwrap() == content);
}

#[tokio::test]
async fn a_file_whose_directory_a_pattern_leaves_open_cannot_be_verified() {
    let (here, node) = (folder(), folder());
    for name in ["a/x", "b/y", "c/x"] {
        fs::create_dir(node.path().join(name).parent().unwrap()).unwrap();
        fs::write(node.path().join(name), name).unwrap();
    }
    let scp = scp_in(node.path());
    let into = || Location::local(here.path().to_owned());
    let source = || Location::scp(&scp, "*/[xy]").matching();
    let verified = run(source(), into(), CopyOptions::default().verify(true)).await;
    let words = "node:*/[xy]: the SCP protocol cannot tell in which of several directories a file lies, to verify it";
    assert_eq!(told(&verified), [words]);
    // Of two sources with one name only one can get it.
    let copied = run(source(), into(), CopyOptions::default()).await;
    assert_eq!((copied.files, told(&copied).len()), (2, 1));
    assert!(
        told(&copied)[0].ends_with("another source has the same name, and only one of them can get it"),
        "{copied:?}"
    );
    assert_eq!(fs::read(here.path().join("x")).unwrap(), b"a/x");
}

#[tokio::test]
async fn of_two_sources_with_one_name_the_first_gets_it_and_directories_are_merged() {
    let (here, node) = (folder(), folder());
    let scp = scp_in(node.path());
    for root in [here.path(), node.path()] {
        for (name, content) in [
            ("one/x", "first"),
            ("two/x", "second"),
            ("one/d/f", "first"),
            ("two/d/f", "second"),
            ("two/d/g", "second"),
        ] {
            fs::create_dir_all(root.join(name).parent().unwrap()).unwrap();
            fs::write(root.join(name), content).unwrap();
        }
        fs::create_dir(root.join("into")).unwrap();
    }
    fs::create_dir(node.path().join("over")).unwrap();
    let here_at = |name: &str| Location::local(here.path().join(name));
    let there_at = |name: &str| Location::scp(&scp, name);
    let names = ["one/x", "two/x", "one/d", "two/d"];
    for (sources, target, root) in [
        (names.map(here_at), there_at("into"), node.path().join("into")),
        (names.map(there_at), here_at("into"), here.path().join("into")),
        (names.map(there_at), there_at("over"), node.path().join("over")),
    ] {
        let summary = copy(sources.into(), target, recursive(), |_| {}).await.unwrap();
        assert!(told(&summary).len() == 1 && told(&summary)[0].contains("two/x: another source"), "{summary:?}");
        let read = |name: &str| fs::read_to_string(root.join(name)).unwrap();
        assert_eq!(["x", "d/f", "d/g"].map(read), ["first", "second", "second"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn standard_input_from_a_file_becomes_a_file_and_from_a_pipe_says_what_is_missing() {
    let node = fast_node().await;
    let content = noise(300_000, 6);
    fs::write(node.here("dump"), &content).unwrap();
    fs::create_dir(node.path("dir")).unwrap();
    for (skipped, target) in [(0, "dump"), (1000, "tail")] {
        let mut file = fs::File::open(node.here("dump")).unwrap();
        file.seek(SeekFrom::Start(skipped)).unwrap();
        let ran = node.world.command(&["-", &node.at(target)].map(OsStr::new)).stdin(file).output().await.unwrap();
        assert_eq!(said(&ran), silent_success());
        assert!(fs::read(node.path(target)).unwrap() == content[usize::try_from(skipped).unwrap()..], "{target}");
    }
    let file = fs::File::open(node.here("dump")).unwrap();
    let ran = node.world.command(&["-", &node.at("dir")].map(OsStr::new)).stdin(file).output().await.unwrap();
    let (code, told) = said(&ran);
    assert_eq!((code, told.contains("name the file"), tree(&node.path("dir")).len()), (Some(1), true, 0), "{told}");
    let (code, told) = said(&output(&node, &["-", &node.at("piped")].map(OsStr::new), b"x").await);
    let words = "ssmcp: standard input: its size is not known beforehand, which the SCP protocol has to tell";
    assert!(code == Some(1) && told.starts_with(words) && !node.path("piped").exists(), "{told}");
}

#[tokio::test]
async fn a_source_that_changes_while_it_is_sent_is_told() {
    let (here, node) = (folder(), folder());
    let file = here.path().join("file");
    // It is written to, and its time put back at once.
    for byte in [1, 2] {
        fs::write(&file, noise(500_000, 4)).unwrap();
        set(&file, 0o644, long_ago());
        let change = |progress: Progress<'_>| {
            if matches!(progress.event, Event::Advanced { .. }) {
                fs::File::options().write(true).open(&file).unwrap().write_all_at(&[byte], 0).unwrap();
                set(&file, 0o644, long_ago());
            }
        };
        let source = vec![Location::local(file.clone())];
        let target = Location::scp(&scp_in(node.path()), "copy");
        let summary = copy(source, target, CopyOptions::default(), change).await.unwrap();
        assert_eq!((summary.files, told(&summary).len()), (0, 1));
        assert!(told(&summary)[0].ends_with("was changed while it was read"), "{summary:?}");
    }
}

#[tokio::test]
async fn a_file_that_grows_while_scp_sends_it_arrives_as_it_was_and_is_told() {
    let (here, node) = (folder(), folder());
    let (file, content) = (here.path().join("file"), noise(500_000, 4));
    fs::write(&file, &content).unwrap();
    for verify in [false, true] {
        let grow = |progress: Progress<'_>| {
            if matches!(progress.event, Event::Advanced { .. }) {
                fs::File::options().append(true).open(&file).unwrap().write_all(b"more").unwrap();
            }
        };
        fs::write(&file, &content).unwrap();
        let target = Location::scp(&scp_in(node.path()), "copy");
        let options = CopyOptions::default().verify(verify);
        let summary = copy(vec![Location::local(file.clone())], target, options, grow).await.unwrap();
        assert!(summary.is_complete() && summary.warnings.len() == 1, "{summary:?}");
        assert!(fs::read(node.path().join("copy")).unwrap() == content);
    }
}

#[tokio::test]
async fn a_download_writes_nothing_behind_a_link_that_takes_a_directorys_place() {
    let (node, here) = (folder(), folder());
    fs::create_dir_all(node.path().join("tree/sub")).unwrap();
    for name in ["tree/one", "tree/sub/two"] {
        fs::write(node.path().join(name), b"new").unwrap();
    }
    let (into, outside) = (here.path().join("into"), here.path().join("outside"));
    for directory in [&into, &outside] {
        fs::create_dir(directory).unwrap();
    }
    set(&outside, 0o711, long_ago());
    // Whatever comes first, the directory is there by then, and is swapped.
    let swap = |progress: Progress<'_>| {
        if matches!(progress.event, Event::Started { .. })
            && fs::rename(into.join("tree"), here.path().join("moved")).is_ok()
        {
            symlink(&outside, into.join("tree")).unwrap();
        }
    };
    let source = Location::scp(&scp_in(node.path()), "tree");
    let target = Location::local(into.clone());
    let summary = copy(vec![source], target, recursive().preserve(true), swap).await.expect("a summary");
    assert!(!summary.is_complete());
    assert_eq!((tree(&outside).len(), mode(&outside), modified(&outside)), (0, 0o711, long_ago()));
}

#[tokio::test]
async fn a_file_that_has_the_very_name_comes_before_the_pattern() {
    let (node, into) = (folder(), folder());
    for name in ["{a,b}", "a", "b", "[ab]"] {
        fs::create_dir_all(node.path().join("nm")).unwrap();
        fs::write(node.path().join("nm").join(name), name).unwrap();
    }
    let names = async |pattern: &str| {
        let target = tempfile::tempdir_in(into.path()).unwrap();
        let source = Location::scp(&scp_in(node.path()), pattern).matching();
        let summary = run(source, Location::local(target.path().to_owned()), CopyOptions::default()).await;
        assert!(summary.is_complete(), "{summary:?}");
        tree(target.path()).into_keys().map(|name| name.to_string_lossy().into_owned()).collect::<Vec<_>>()
    };
    assert_eq!(names("nm/{a,b}").await, ["{a,b}"]);
    assert_eq!(names("nm/[ab]").await, ["[ab]"]);
    for name in ["{a,b}", "[ab]"] {
        fs::remove_file(node.path().join("nm").join(name)).unwrap();
    }
    assert_eq!(names("nm/{a,b}").await, ["a", "b"]);
    assert_eq!(names("nm/[ab]").await, ["a", "b"]);
}
