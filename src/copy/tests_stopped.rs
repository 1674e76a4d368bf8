//! Copies that are stopped, or whose future is dropped.

use std::fs;
use std::path::Path;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::*;
use crate::ssh::sftp::scripted::{Received, serve};
use crate::ssh::sftp::{Attributes, Sftp};

const MIB: u64 = 1 << 20;

fn file(size: u64) -> Attributes {
    Attributes { size: Some(size), times: Some((1, 1)), ..Attributes::with_permissions(0o100_644) }
}

fn names_in(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect()
}

/// A file of 4 MiB, of which it gives so many bytes; whoever wants more waits for ever.
async fn source(mut given: u64) -> RemoteEndpoint {
    let stream = serve(&[], move |mut request| match request.verb {
        3 => request.handle(b"h"),
        8 | 17 => request.attributes(&file(4 * MIB)),
        5 => {
            let (_handle, offset) = (request.string(), request.u64());
            let length = u64::from(request.u32()).min((4 * MIB).saturating_sub(offset));
            match given.checked_sub(length) {
                None => Vec::new(),
                Some(_) if length == 0 => request.status(1),
                Some(rest) => {
                    given = rest;
                    request.data(&vec![7; usize::try_from(length).unwrap()])
                }
            }
        }
        _ => request.status(0),
    });
    RemoteEndpoint::new(Sftp::new(stream).await.unwrap(), "node")
}

/// Begins a copy into `folder` and drops it once `bytes` are written.
async fn drop_at(bytes: u64, folder: &Path, options: CopyOptions) {
    let (far_side, enough) = (source(bytes).await, Notify::new());
    let note = |progress: Progress<'_>| {
        if progress.totals.bytes_done >= bytes {
            enough.notify_one();
        }
    };
    let target = Location::local(folder.to_owned());
    tokio::select! {
        ended = copy(vec![Location::remote(&far_side, "file")], target, options, note) => panic!("{ended:?}"),
        () = enough.notified() => {}
    }
}

#[tokio::test]
async fn a_copy_whose_future_is_dropped_is_removed_in_the_background() {
    let folder = tempfile::tempdir().unwrap();
    drop_at(2 * MIB, folder.path(), CopyOptions::default()).await;
    let removed = async {
        while !names_in(folder.path()).is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_mins(1), removed).await.expect("it is removed");
}

#[tokio::test]
async fn a_copy_whose_future_is_dropped_can_be_gone_on_with_where_there_is_a_journal() {
    let (folder, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let options = || CopyOptions::default().journal(state.path());
    drop_at(2 * MIB, folder.path(), options()).await;
    let node = source(u64::MAX).await;
    let target = Location::local(folder.path().to_owned());
    let summary = copy(vec![Location::remote(&node, "file")], target, options(), |_| {}).await.unwrap();
    assert_eq!((summary.bytes_kept, summary.bytes, summary.is_complete()), (2 * MIB, 2 * MIB, true), "{summary:?}");
    assert_eq!(names_in(folder.path()), ["file"]);
}

#[tokio::test(start_paused = true)]
async fn a_far_side_that_answers_no_more_does_not_hold_up_a_stop() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("file"), vec![7; 100_000]).unwrap();
    let writing = Arc::new(Notify::new());
    let seen = Arc::clone(&writing);
    let stream = serve(&[], move |request: Received| match request.verb {
        3 => request.handle(b"h"),
        8 => request.attributes(&file(0)),
        7 | 17 => request.status(2),
        10 => request.status(0),
        _ => {
            seen.notify_one();
            Vec::new()
        }
    });
    let node = RemoteEndpoint::new(Sftp::new(stream).await.unwrap(), "node");
    let source = Location::local(folder.path().join("file"));
    let stopping = std::sync::Mutex::new(None);
    let stop = async {
        writing.notified().await;
        *stopping.lock().unwrap() = Some(Instant::now());
    };
    let stopped = copy_until(vec![source], Location::remote(&node, "up"), CopyOptions::default(), |_| {}, stop).await;
    assert!(matches!(stopped, Err(CopyError::Stopped { can_resume: false })), "{stopped:?}");
    // By the clock of the test, which moves only while all wait.
    let waited = stopping.lock().unwrap().unwrap().elapsed();
    assert!(waited < Duration::from_secs(1), "{waited:?}");
}
