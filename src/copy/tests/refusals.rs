//! What is made of a server's codes and bare "Failure"s: disks, quotas and names that are too long.

use std::fs;

use super::hostile::{messages, space, taking, up};
use crate::copy::*;
use crate::ssh::sftp::scripted::Received;

const STATVFS: &str = "statvfs@openssh.com=2";
const FSYNC: &str = "fsync@openssh.com";
const BARE: &str = "the server answered: told so";

fn told(reason: &str) -> [String; 2] {
    ["one", "two"].map(|name| format!("node:dir/{name}: {reason}"))
}

/// Whether advice about quotas is due.
fn is_unexplained(summary: &Summary) -> bool {
    summary.failures.iter().all(|failure| matches!(failure.error, CopyError::NotTaken(_)))
}

/// A disk with room, which is read-only where `flags` say so.
fn extended(request: &mut Received, fsync: u32) -> Vec<u8> {
    if request.string() == FSYNC { request.status(fsync) } else { space(request, 1000, 9, 0) }
}

#[tokio::test]
async fn a_failure_that_nothing_explains_may_be_a_quotas() {
    // Creating, writing, and forcing to the disk.
    for refused in [3, 6, 200] {
        let node = taking(&[STATVFS, FSYNC], move |request| match request.verb {
            200 => Some(extended(request, if refused == 200 { 4 } else { 0 })),
            verb if verb == refused => Some(request.status(4)),
            _ => None,
        })
        .await;
        let summary = up(&node).await;
        assert_eq!((messages(&summary), is_unexplained(&summary)), (told(BARE).to_vec(), true), "{refused}");
    }
}

#[tokio::test]
async fn a_directory_that_cannot_be_made_for_an_unknown_reason_may_be_a_quotas() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("one")).unwrap();
    let node = taking(&[], |request| (request.verb == 14).then(|| request.status(4))).await;
    let source = Location::local(folder.path().join("one"));
    let options = CopyOptions::default().recursive(true);
    let summary = copy(vec![source], Location::remote(&node, "dir"), options, |_| {}).await.unwrap();
    assert_eq!((messages(&summary), is_unexplained(&summary)), (vec![format!("node:dir/one: {BARE}")], true));
}

#[tokio::test]
async fn codes_of_later_versions_are_understood() {
    let codes =
        [(12, "the file system is read-only"), (14, "no space is left on the disk"), (15, "the disk quota is used up")];
    for (code, reason) in codes {
        for refused in [3, 6, 18] {
            let node = taking(&[], move |request| (request.verb == refused).then(|| request.status(code))).await;
            assert_eq!(messages(&up(&node).await), told(reason), "{code} to {refused}");
        }
    }
}

#[tokio::test]
async fn bad_message_is_a_long_name_only_where_a_name_is_long() {
    for (name, reason) in [
        ("short".to_owned(), "the server answered with status 5: told so"),
        ("x".repeat(200), "the name or the path is too long for that side"),
    ] {
        let node = taking(&[], |request| (request.verb == 17).then(|| request.status(5))).await;
        let folder = tempfile::tempdir().unwrap();
        let source = Location::remote(&node, name.as_str());
        let to = Location::local(folder.path().to_owned());
        let summary = copy(vec![source], to, CopyOptions::default(), |_| {}).await.unwrap();
        assert_eq!(messages(&summary), [format!("node:{name}: {reason}")]);
    }
}

#[tokio::test]
async fn a_server_that_cannot_date_links_gets_them_all_the_same() {
    let folder = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink("somewhere", folder.path().join("link")).unwrap();
    let node = taking(&[], |_| None).await;
    let options = CopyOptions::default().links(Links::Keep).preserve(true);
    let source = vec![Location::local(folder.path().join("link"))];
    let summary = copy(source, Location::remote(&node, "dir"), options, |_| {}).await.unwrap();
    assert_eq!((summary.files, messages(&summary)), (1, Vec::new()));
}
