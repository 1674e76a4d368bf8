//! Copies that end while a file gets its name.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use tokio::sync::Notify;

use super::striped::{Disk, answers, content, server};
use crate::copy::*;
use crate::ssh::sftp::Sftp;
use crate::ssh::sftp::scripted::serve;

const LENGTH: usize = 2_000_000;

/// Uploads a file until the node has given it its name; whoever asked for that is never told.
async fn stop_at_the_name(disk: &Disk, source: &Path, options: CopyOptions) {
    let (mut answer, renamed) = (answers(disk), Arc::new(Notify::new()));
    let seen = Arc::clone(&renamed);
    let stream = serve(&[], move |request| {
        let is_rename = request.verb == 18;
        let said = answer(request);
        if is_rename {
            seen.notify_one();
            return Vec::new();
        }
        said
    });
    let node = RemoteEndpoint::new(Sftp::new(stream).await.unwrap(), "node");
    let source = vec![Location::local(source.to_owned())];
    tokio::select! {
        ended = copy(source, Location::remote(&node, "file"), options, |_| {}) => panic!("{ended:?}"),
        () = renamed.notified() => {}
    }
    assert_eq!(disk.lock().unwrap().keys().collect::<Vec<_>>(), [b"file"]);
}

/// What the next run finds written, and what it writes, if `meanwhile` happens before it.
async fn go_on_after(options: CopyOptions, meanwhile: impl FnOnce(&mut Vec<u8>)) -> (u64, u64) {
    let (disk, folder) = (Disk::default(), tempfile::tempdir().unwrap());
    let (source, options) = (folder.path().join("file"), options.journal(folder.path().join("state")));
    fs::write(&source, content(LENGTH)).unwrap();
    stop_at_the_name(&disk, &source, options.clone()).await;
    meanwhile(disk.lock().unwrap().get_mut(&b"file"[..]).unwrap());
    let node = RemoteEndpoint::new(Sftp::new(server(&disk, usize::MAX)).await.unwrap(), "node");
    let source = vec![Location::local(source)];
    let summary = copy(source, Location::remote(&node, "file"), options, |_| {}).await.unwrap();
    assert!(summary.is_complete(), "{summary:?}");
    let disk = disk.lock().unwrap();
    assert!(disk.len() == 1 && disk[&b"file"[..]] == content(LENGTH));
    assert_eq!(fs::read_dir(folder.path().join("state")).unwrap().count(), 0, "a journal is left");
    (summary.bytes_kept, summary.bytes)
}

#[tokio::test]
async fn a_file_that_got_its_name_when_nobody_was_told_is_not_sent_again() {
    for options in [CopyOptions::default(), CopyOptions::default().preserve(true)] {
        assert_eq!(go_on_after(options, |_| {}).await, (LENGTH as u64, 0));
    }
}

#[tokio::test]
async fn a_file_that_has_the_name_and_differs_is_replaced() {
    assert_eq!(go_on_after(CopyOptions::default(), |written| written[LENGTH / 2] ^= 1).await, (0, LENGTH as u64));
    assert_eq!(go_on_after(CopyOptions::default(), |written| written.truncate(LENGTH - 1)).await, (0, LENGTH as u64));
}
