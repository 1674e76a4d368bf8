//! What `ssmcp` promises and only the built command can show.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Output;

use ssm_lab::{Lab, Pace};

use crate::copy_cli::{World, silent_success, until};
use crate::copy_sftp::noise;
use crate::copy_streams::sessions;
use crate::copy_stripes::ssmcp;
use crate::support::sshd::Sshd;

const DIFFERENT: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

/// A node that finds a program of ours where `sha256sum` should be: it leaves a trace, and its answer is always the same.
async fn node_with_a_hash_of_its_own(bin: &tempfile::TempDir) -> World {
    let program = bin.path().join("sha256sum");
    fs::write(&program, format!("#!/bin/sh\n: >{}/was_run\necho {DIFFERENT} -\n", bin.path().display()))
        .expect("written");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("our own file");
    let path = format!("SetEnv PATH={}:/usr/bin:/bin", bin.path().display());
    World::with(Lab::builder().openssh().openssh_option(path).pace(Pace::Ideal)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn verify_asks_the_nodes_program_and_leaves_the_target_where_it_disagrees() {
    let bin = tempfile::tempdir().unwrap();
    let world = node_with_a_hash_of_its_own(&bin).await;
    fs::write(world.here("file"), noise(500_000, 3)).unwrap();
    assert_eq!(world.run(&[&"file", &world.node("plain")]).await, silent_success());
    assert!(!bin.path().join("was_run").exists(), "nobody asked");
    fs::write(world.there("copy"), b"before").unwrap();
    let (code, said) = world.run(&[&"--verify", &"file", &world.node("copy")]).await;
    assert_eq!((code, said.contains("differs from the file on this machine by SHA-256")), (Some(1), true), "{said}");
    assert_eq!(fs::read(world.there("copy")).unwrap(), b"before");
    let (code, said) = world.run(&[&"--verify", &world.node("plain"), &"back"]).await;
    assert_eq!((code, said.contains("the copy on this machine differs")), (Some(1), true), "{said}");
    assert!(!world.here("back").exists());
    let left = fs::read_dir(world.there("")).unwrap().count();
    assert_eq!(left, 2, "nothing temporary is left");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_is_reached_once_however_often_it_is_named() {
    let world = World::with(Lab::builder().openssh().pace(Pace::Ideal)).await;
    for name in ["a", "b"] {
        fs::write(world.there(name), name).unwrap();
    }
    let (a, b, to) = (world.node("a"), world.node("b"), world.node("to"));
    fs::create_dir(world.there("to")).unwrap();
    assert_eq!(world.run(&[&"-j1", &a, &b, &to]).await, silent_success());
    assert_eq!((fs::read(world.there("to/b")).unwrap(), sessions(&world)), (b"b".to_vec(), 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_is_not_copied_into_itself() {
    let world = World::with(Lab::builder().openssh().pace(Pace::Ideal)).await;
    fs::create_dir_all(world.there("v/sub")).unwrap();
    fs::write(world.there("v/file"), b"x").unwrap();
    let v = world.node("v");
    for to in ["v", "v/", "v/sub", "v/new", "v/sub/../sub/"] {
        let (code, said) = world.run(&[&"-r", &v, &world.node(to)]).await;
        assert_eq!(
            (code, said.contains("v: a directory cannot be copied into itself")),
            (Some(1), true),
            "{to}: {said}"
        );
        assert_eq!(fs::read_dir(world.there("v")).unwrap().count(), 2, "{to}");
        assert_eq!(fs::read_dir(world.there("v/sub")).unwrap().count(), 0, "{to}");
    }
    assert_eq!(world.run(&[&"-r", &v, &world.node("vv")]).await, silent_success());
    assert!(world.there("vv/sub").is_dir());
}

#[tokio::test(flavor = "multi_thread")]
async fn times_and_modes_are_kept_with_p_and_files_that_are_newer_are_left_with_newer() {
    let world = World::with(Lab::builder().openssh().pace(Pace::Ideal)).await;
    fs::create_dir(world.here("tree")).unwrap();
    fs::write(world.here("tree/file"), b"one").unwrap();
    fs::set_permissions(world.here("tree/file"), fs::Permissions::from_mode(0o604)).unwrap();
    let then = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000_000);
    for name in ["tree/file", "tree"] {
        fs::File::open(world.here(name)).unwrap().set_modified(then).unwrap();
    }
    assert_eq!(world.run(&[&"-rp", &"tree", &world.node("copy")]).await, silent_success());
    let found = fs::metadata(world.there("copy/file")).unwrap();
    assert_eq!((found.permissions().mode() & 0o777, found.modified().unwrap()), (0o604, then));
    assert_eq!(fs::metadata(world.there("copy")).unwrap().modified().unwrap(), then);
    fs::write(world.there("copy/file"), b"two").unwrap();
    assert_eq!(world.run(&[&"--newer", &"tree/file", &world.node("copy")]).await, silent_success());
    assert_eq!(fs::read(world.there("copy/file")).unwrap(), b"two");
    assert_eq!(world.run(&[&"tree/file", &world.node("copy")]).await, silent_success());
    assert_eq!(fs::read(world.there("copy/file")).unwrap(), b"one");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_touches_nothing_that_is_there() {
    let world = World::with(Lab::builder().openssh().pace(Pace::Ideal)).await;
    fs::create_dir(world.here("tree")).unwrap();
    fs::create_dir(world.there("tree")).unwrap();
    fs::set_permissions(world.here("tree"), fs::Permissions::from_mode(0o700)).unwrap();
    fs::set_permissions(world.there("tree"), fs::Permissions::from_mode(0o755)).unwrap();
    let before = fs::metadata(world.there("tree")).unwrap();
    fs::write(world.here("tree/file"), b"x").unwrap();
    let target = world.node("");
    let arguments = ["-rp", "--dry-run", "tree"].map(OsStr::new);
    let Output { status, .. } = world.command(&[&arguments[..], &[&target]].concat()).output().await.unwrap();
    until("no session is left", || world.lab.open_sessions() == 0).await;
    let after = fs::metadata(world.there("tree")).unwrap();
    assert!(status.success());
    assert_eq!((after.modified().unwrap(), after.permissions()), (before.modified().unwrap(), before.permissions()));
    assert_eq!(fs::read_dir(world.there("tree")).unwrap().count(), 0);
    assert!(!world.here(".local/state/ssmssh/copies").read_dir().is_ok_and(|mut found| found.next().is_some()));
}

#[tokio::test(flavor = "multi_thread")]
async fn another_port_is_that_of_every_stream() {
    let sshd = Sshd::start();
    let (lab, here) = (Lab::builder().no_sshd().start().await.expect("a lab"), tempfile::tempdir().unwrap());
    fs::write(here.path().join("file"), noise(3 << 20, 5)).unwrap();
    let port = sshd.address().port().to_string();
    let mut copying = ssmcp(&lab, here.path(), &sshd.user_key_file());
    let source = format!("{}:{}", lab.node(), here.path().join("file").display());
    let Output { status, stderr, .. } = copying.args(["-P", &port, "-j2", &source, "copy"]).output().await.unwrap();
    assert_eq!(status.code(), Some(0), "{}", String::from_utf8_lossy(&stderr));
    assert!(fs::read(here.path().join("copy")).unwrap() == noise(3 << 20, 5));
    assert_eq!(sshd.log().matches("Accepted publickey").count(), 2, "{}", sshd.log());
}
