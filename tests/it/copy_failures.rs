//! Disks that are full or take no writes, here and on a node.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use rustix::io::Errno;
use ssmssh::copy::{CopyOptions, Location, Summary, copy};

use crate::copy_sftp::noise;
use crate::support::places::{Files, Place};
use crate::support::short::{Short, Stage};

/// A file system of 256 KiB. Dropping it unmounts it.
struct SmallDisk(PathBuf);

impl SmallDisk {
    /// Only root may mount one; everybody else skips the test.
    #[expect(clippy::print_stderr, reason = "a test that was skipped has to say so")]
    fn mount(at: PathBuf) -> Option<Self> {
        fs::create_dir(&at).expect("made");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=256k", "tmpfs"]).arg(&at).output();
        if !mounted.is_ok_and(|mounted| mounted.status.success()) {
            eprintln!("SKIPPED: a small disk cannot be mounted at {}", at.display());
            return None;
        }
        Some(Self(at))
    }

    fn protect(&self) {
        let mounted = Command::new("mount").args(["-o", "remount,ro"]).arg(&self.0).status();
        assert!(mounted.is_ok_and(|mounted| mounted.success()), "it was mounted before");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

fn root(place: &Place) -> &Path {
    let Files::Disk(path) = &place.files else { panic!("not on a disk") };
    path
}

fn names_in(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).expect("a directory");
    let mut names: Vec<_> =
        entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

async fn run(sources: Vec<Location>, to: Location) -> Summary {
    copy(sources, to, CopyOptions::default(), |_| {}).await.expect("a summary")
}

fn messages(summary: &Summary) -> Vec<String> {
    let mut messages: Vec<_> = summary.failures.iter().map(ToString::to_string).collect();
    messages.sort();
    messages
}

/// `reason` is how a full disk is called there.
async fn fill(place: &Place, reason: &str) {
    let Some(disk) = SmallDisk::mount(root(place).join("disk")) else { return };
    let here = Place::local().await;
    here.files.put("big", &noise(1 << 20, 7), 0o644);
    here.files.put("small", b"fits", 0o644);
    place.files.put("disk/big", b"before", 0o644);
    let summary = run(vec![here.at("big")], place.at("disk/")).await;
    let [message] = &messages(&summary)[..] else { panic!("{summary:?}") };
    assert!(message.ends_with(&format!("disk/big: {reason}")), "{message}");
    assert_eq!(names_in(&disk.0), ["big"], "what was written is removed");
    assert_eq!(place.files.read("disk/big").as_deref(), Some(&b"before"[..]));
    let summary = run(vec![here.at("small")], place.at("disk/")).await;
    assert!(summary.is_complete(), "there is room again: {summary:?}");
}

async fn protect(place: &Place, reason: &str) {
    let Some(disk) = SmallDisk::mount(root(place).join("disk")) else { return };
    let here = Place::local().await;
    for name in ["one", "two"] {
        here.files.put(name, b"new", 0o644);
        place.files.put(format!("disk/{name}"), b"before", 0o644);
    }
    disk.protect();
    let summary = run(vec![here.at("one"), here.at("two")], place.at("disk/")).await;
    let told = messages(&summary);
    assert_eq!(told.len(), 2, "{told:?}");
    for (message, name) in told.iter().zip(["one", "two"]) {
        assert!(message.ends_with(&format!("disk/{name}: {reason}")), "{message}");
        assert_eq!(place.files.read(format!("disk/{name}")).as_deref(), Some(&b"before"[..]));
    }
}

#[tokio::test]
async fn a_disk_that_is_full_on_this_machine_fails_the_file_and_keeps_the_one_before() {
    fill(&Place::local().await, "no space is left on the disk").await;
}

#[tokio::test]
async fn a_disk_that_is_full_on_the_node_fails_the_file_and_keeps_the_one_before() {
    fill(&Place::openssh().await, "no space is left on the disk").await;
}

#[tokio::test]
async fn a_disk_of_this_machine_that_takes_no_writes_fails_each_file() {
    protect(&Place::local().await, "the file system is read-only").await;
}

#[tokio::test]
async fn a_disk_of_the_node_that_takes_no_writes_fails_each_file() {
    protect(&Place::openssh().await, "the file system is read-only").await;
}

/// What the system may refuse at any stage of a file, without a disk on which it does.
#[tokio::test]
async fn whatever_this_machine_runs_short_of_fails_the_file_and_keeps_the_one_before() {
    let node = Place::openssh().await;
    node.files.put("big", &noise(1 << 20, 7), 0o644);
    node.files.put("small", b"fits", 0o644);
    let here = Place::local().await;
    for (errno, reason) in [
        (Errno::NOSPC, "no space is left on the disk"),
        (Errno::DQUOT, "the disk quota is used up"),
        (Errno::ROFS, "the file system is read-only"),
        (Errno::FBIG, "is longer than the file system, or a limit on this process (`ulimit -f`), allows"),
        (Errno::IO, "input/output error"),
    ] {
        for stage in [Stage::Creating, Stage::Writing, Stage::Finishing] {
            let into = format!("{} {stage:?}", errno.raw_os_error());
            here.files.make_directory(&into);
            here.files.put(format!("{into}/big"), b"before", 0o644);
            let endpoint = Arc::new(Short { endpoint: Arc::clone(&here.endpoint), name: "big", stage, errno });
            let to = Location::on(endpoint, here.path(&into));
            let sources = vec![node.at("big"), node.at("small")];
            let summary = copy(sources, to, CopyOptions::default(), |_| {}).await.expect("a summary");
            assert_eq!(messages(&summary), [format!("{}: {reason}", here.shown(&format!("{into}/big")))]);
            assert_eq!(
                (summary.files, names_in(&here.root().join(&into))),
                (1, vec!["big".to_owned(), "small".into()])
            );
            assert_eq!(here.files.read(format!("{into}/big")).as_deref(), Some(&b"before"[..]));
        }
    }
}
