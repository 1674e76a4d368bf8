//! Copies that are stopped, or whose future is dropped.

use std::fs;
use std::path::Path;
use std::time::Duration;

use tempfile::TempDir;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::copy::*;
use crate::ssh::sftp::scripted::{Received, serve};
use crate::ssh::sftp::{Attributes, Sftp};

const MIB: u64 = 1 << 20;

/// A source as its server tells of it.
#[derive(Clone, Copy)]
struct Told {
    size: u64,
    modified: u32,
    content: u8,
}

const BEFORE: Told = Told { size: 4 * MIB, modified: 1, content: 7 };

fn file(told: Told) -> Attributes {
    let times = Some((told.modified, told.modified));
    Attributes { size: Some(told.size), times, ..Attributes::with_permissions(0o100_644) }
}

fn names_in(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// A server of `file`, of which it gives so many bytes, whoever wants more waits for ever; and of `small`, of ten bytes.
async fn source(mut given: u64, large: Told, small: Told) -> RemoteEndpoint {
    let stream = serve(&[], move |mut request| {
        let name = request.string();
        let told = if name == "small" { Told { size: 10, ..small } } else { large };
        match request.verb {
            3 => request.handle(&name),
            8 | 17 => request.attributes(&file(told)),
            5 => {
                let offset = request.u64();
                let length = u64::from(request.u32()).min(told.size.saturating_sub(offset));
                let wanted = if name == "small" { 0 } else { length };
                match given.checked_sub(wanted) {
                    None => Vec::new(),
                    Some(_) if length == 0 => request.status(1),
                    Some(rest) => {
                        given = rest;
                        request.data(&vec![told.content; usize::try_from(length).unwrap()])
                    }
                }
            }
            _ => request.status(0),
        }
    });
    RemoteEndpoint::new(Sftp::new(stream).await.unwrap(), "node")
}

fn both(node: &RemoteEndpoint) -> Vec<Location> {
    ["small", "file"].map(|name| Location::remote(node, name)).into()
}

/// Begins a copy into `folder` and drops it once `bytes` of the large file are written, at which moment `look` is called.
async fn drop_at(bytes: u64, folder: &Path, options: CopyOptions, look: impl Fn() + Send + Sync) {
    let (far_side, enough) = (source(bytes, BEFORE, BEFORE).await, Notify::new());
    let note = |progress: Progress<'_>| {
        if progress.totals.bytes_done == bytes + 10 && progress.totals.files_done == 1 {
            look();
            enough.notify_one();
        }
    };
    let target = Location::local(folder.to_owned());
    tokio::select! {
        ended = copy(both(&far_side), target, options, note) => panic!("{ended:?}"),
        () = enough.notified() => {}
    }
}

/// Two folders: for the copies, and for their journal.
fn folders() -> (TempDir, TempDir) {
    (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap())
}

/// Copies all again, from sources that are told of so.
async fn go_on(folder: &Path, state: &Path, large: Told, small: Told) -> Summary {
    let node = source(u64::MAX, large, small).await;
    let options = CopyOptions::default().journal(state);
    let summary = copy(both(&node), Location::local(folder.to_owned()), options, |_| {}).await.unwrap();
    assert!(summary.is_complete(), "{summary:?}");
    assert_eq!(names_in(folder), ["file", "small"], "nothing temporary is left");
    for (name, told, size) in [("file", large, large.size), ("small", small, 10)] {
        let content = vec![told.content; usize::try_from(size).unwrap()];
        assert!(fs::read(folder.join(name)).unwrap() == content, "{name}");
    }
    summary
}

#[tokio::test]
async fn a_copy_whose_future_is_dropped_is_removed_in_the_background() {
    let folder = tempfile::tempdir().unwrap();
    drop_at(2 * MIB, folder.path(), CopyOptions::default(), || {}).await;
    let removed = async {
        while names_in(folder.path()) != ["small"] {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_mins(1), removed).await.expect("it is removed");
}

#[tokio::test]
async fn a_copy_whose_future_is_dropped_can_be_gone_on_with_where_there_is_a_journal() {
    let (folder, state) = folders();
    drop_at(2 * MIB, folder.path(), CopyOptions::default().journal(state.path()), || {}).await;
    let summary = go_on(folder.path(), state.path(), BEFORE, BEFORE).await;
    assert_eq!((summary.bytes_kept, summary.bytes), (2 * MIB + 10, 2 * MIB), "{summary:?}");
}

#[tokio::test]
async fn what_was_begun_of_a_source_with_another_size_or_time_starts_over() {
    for large in [Told { modified: 2, ..BEFORE }, Told { size: 5 * MIB, ..BEFORE }] {
        let (folder, state) = folders();
        drop_at(2 * MIB, folder.path(), CopyOptions::default().journal(state.path()), || {}).await;
        let summary = go_on(folder.path(), state.path(), large, BEFORE).await;
        assert_eq!((summary.bytes_kept, summary.bytes), (10, large.size), "{summary:?}");
    }
}

#[tokio::test]
async fn what_was_finished_is_copied_again_when_its_source_has_changed() {
    let (folder, state) = folders();
    drop_at(2 * MIB, folder.path(), CopyOptions::default().journal(state.path()), || {}).await;
    let summary = go_on(folder.path(), state.path(), BEFORE, Told { modified: 2, content: 8, ..BEFORE }).await;
    assert_eq!((summary.bytes_kept, summary.bytes), (2 * MIB, 2 * MIB + 10), "{summary:?}");
}

/// Whatever kills a run leaves the journal as it is at that moment.
#[tokio::test]
async fn the_journal_is_never_far_behind_what_is_written() {
    let (folder, state) = folders();
    let killed = tempfile::tempdir().unwrap();
    let save = || {
        for name in names_in(state.path()) {
            fs::copy(state.path().join(&name), killed.path().join(&name)).unwrap();
        }
    };
    drop_at(3 * MIB, folder.path(), CopyOptions::default().journal(state.path()), save).await;
    let summary = go_on(folder.path(), killed.path(), BEFORE, BEFORE).await;
    assert!(summary.bytes_kept >= 2 * MIB - 65_536, "{summary:?}");
}

#[tokio::test(start_paused = true)]
async fn a_far_side_that_answers_no_more_does_not_hold_up_a_stop() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("file"), vec![7; 100_000]).unwrap();
    let writing = Arc::new(Notify::new());
    let seen = Arc::clone(&writing);
    let stream = serve(&[], move |request: Received| match request.verb {
        3 => request.handle(b"h"),
        8 => request.attributes(&file(Told { size: 0, ..BEFORE })),
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
