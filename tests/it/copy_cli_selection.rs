//! What `ssmcp` is told to copy and to leave.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use crate::copy_cli::{World, silent_success, until};

#[tokio::test]
async fn patterns_links_and_exclusions_choose_what_is_copied() {
    let world = World::new().await;
    fs::create_dir_all(world.there("logs/cache")).unwrap();
    for name in ["logs/a.gz", "logs/b.gz", "logs/c.txt", "logs/cache/x"] {
        fs::write(world.there(name), name).unwrap();
    }
    symlink("a.gz", world.there("logs/latest")).unwrap();
    assert_eq!(world.run(&[&world.node("logs/[ab].gz"), &"."]).await, silent_success());
    assert!(world.here("a.gz").exists() && world.here("b.gz").exists());
    let arguments = ["-r", "--links", "--exclude", "*.gz", "--exclude", "cache/"];
    let mut arguments: Vec<&dyn AsRef<OsStr>> = arguments.iter().map(|word| word as _).collect();
    let (source, target) = (world.node("logs"), "tree");
    arguments.extend([&source as &dyn AsRef<_>, &target]);
    assert_eq!(world.run(&arguments).await, silent_success());
    let mut names: Vec<_> = fs::read_dir(world.here("tree")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["c.txt", "latest"]);
    assert_eq!(fs::read_link(world.here("tree/latest")).unwrap(), Path::new("a.gz"));
    let (code, said) = world.run(&[&world.node("logs/*.zip"), &"."]).await;
    assert_eq!((code, said.ends_with("logs/*.zip: nothing matches this pattern\n")), (Some(1), true), "{said}");
}

#[tokio::test]
async fn a_dry_run_prints_what_a_repeated_copy_would_do() {
    let world = World::new().await;
    fs::create_dir(world.here("tree")).unwrap();
    for name in ["tree/old", "tree/new\x1b[2J"] {
        fs::write(world.here(name), name).unwrap();
    }
    assert_eq!(world.run(&[&"-p", &"tree/old", &world.node("")]).await, silent_success());
    let there = world.node("");
    let mut arguments = ["-p", "--skip-same", "--dry-run", "tree/old", "tree/new\x1b[2J"].map(OsStr::new).to_vec();
    arguments.push(&there);
    let output = world.command(&arguments).output().await.unwrap();
    until("no session is left", || world.lab.open_sessions() == 0).await;
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{said}");
    let target = world.there("new");
    assert_eq!(said, format!("tree/new\\u{{1b}}[2J -> {}\\u{{1b}}[2J\n", target.display()));
    assert_eq!(fs::read_dir(world.there("")).unwrap().count(), 1);
}

#[tokio::test]
async fn a_malformed_pattern_is_a_mistake_of_the_command_line() {
    let world = World::new().await;
    let (code, said) = world.run(&[&"--exclude", &"[a", &"x", &world.node("")]).await;
    assert_eq!((code, said.contains("the pattern `[a` is malformed")), (Some(255), true), "{said}");
}
