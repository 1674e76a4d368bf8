use std::fs::Permissions;
mod bounds;
mod forced;
mod hostile;
mod lost;
mod pipes;
mod private;
mod refusals;
mod renamed;
mod special;
mod stopped;
mod striped;
mod swapped;
mod trees;
mod waits;

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::{Arc, Mutex};

use tokio::io::DuplexStream;

use super::*;
use crate::ssh::sftp::scripted::{Received, serve};
use crate::ssh::sftp::{Attributes, Sftp};

const POSIX_RENAME: &str = "posix-rename@openssh.com";

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

fn local(path: &Path) -> Location {
    Location::local(path.to_owned())
}

fn recursive() -> CopyOptions {
    CopyOptions::default().recursive(true)
}

async fn node(stream: DuplexStream) -> RemoteEndpoint {
    RemoteEndpoint::new(Sftp::new(stream).await.unwrap(), "node")
}

fn names_in(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

fn file(size: u64) -> Attributes {
    Attributes { size: Some(size), ..Attributes::with_permissions(0o100_644) }
}

fn directory() -> Attributes {
    Attributes::with_permissions(0o040_755)
}

/// A server with one directory that lists `names`, each a file of three bytes.
fn one_directory(names: &'static [&'static [u8]]) -> DuplexStream {
    let mut is_listed = false;
    serve(&[], move |mut request| match request.verb {
        7 | 8 | 17 => {
            let is_directory = request.string() == "dir";
            request.attributes(&if is_directory { directory() } else { file(3) })
        }
        3 | 11 => request.handle(b"h"),
        12 if !is_listed => {
            is_listed = true;
            request.names(&names.iter().map(|name| (*name, file(3))).collect::<Vec<_>>())
        }
        12 => request.status(1),
        5 => read_reply(&mut request, b"abc"),
        _ => request.status(0),
    })
}

fn read_reply(request: &mut Received, content: &[u8]) -> Vec<u8> {
    let _handle = request.string();
    let offset = usize::try_from(request.u64()).unwrap();
    let end = content.len().min(offset + request.u32() as usize);
    if offset >= end { request.status(1) } else { request.data(&content[offset..end]) }
}

#[tokio::test]
async fn a_hostile_listing_writes_nothing_outside_the_target() {
    let folder = folder();
    let target = folder.path().join("inner");
    let names: &[&[u8]] = &[b".", b"..", b"../escaped", b"/tmp/escaped", b"a/../../escaped", b"", b"good", b"good"];
    let remote = Location::remote(&node(one_directory(names)).await, "dir");
    let summary = copy(vec![remote], local(&target), recursive(), |_| {}).await.unwrap();
    assert_eq!((names_in(folder.path()), names_in(&target)), (vec!["inner".into()], vec!["good".into()]));
    assert_eq!((summary.files, summary.failures.len()), (1, 5), "{:?}", summary.failures);
    let told = "node:dir: the listing holds the name `../escaped`, which no file can have";
    assert!(summary.failures.iter().any(|failure| failure.to_string() == told), "{:?}", summary.failures);
}

#[tokio::test]
async fn a_file_that_shrinks_is_told_and_leaves_nothing_and_one_that_grows_arrives_as_it_was() {
    for (told, there, warnings) in [(5, None, 0), (2, Some(&b"ab"[..]), 1)] {
        let folder = folder();
        let stream = serve(&[], move |mut request| match request.verb {
            3 => request.handle(b"h"),
            8 | 17 => request.attributes(&file(told)),
            5 => read_reply(&mut request, b"abc"),
            _ => request.status(0),
        });
        let remote = Location::remote(&node(stream).await, "file");
        let summary = copy(vec![remote], local(folder.path()), CopyOptions::default(), |_| {}).await.unwrap();
        let is_shrunk =
            summary.failures.iter().any(|failure| failure.to_string().starts_with("node:file: became shorter"));
        assert_eq!((is_shrunk, summary.warnings.len()), (there.is_none(), warnings), "{summary:?}");
        assert_eq!(std::fs::read(folder.path().join("file")).ok().as_deref(), there);
        assert_eq!(names_in(folder.path()).len(), warnings);
    }
}

#[tokio::test]
async fn a_file_that_is_written_to_while_it_is_read_is_told_and_leaves_nothing() {
    let (folder, mut asked) = (folder(), 0);
    let stream = serve(&[], move |mut request| match request.verb {
        3 => request.handle(b"h"),
        8 | 17 => {
            asked += 1;
            request.attributes(&Attributes { times: Some((asked / 3, asked / 3)), ..file(100_000) })
        }
        5 => read_reply(&mut request, &b"x".repeat(100_000)),
        _ => request.status(0),
    });
    let remote = Location::remote(&node(stream).await, "file");
    let summary = copy(vec![remote], local(folder.path()), CopyOptions::default(), |_| {}).await.unwrap();
    let told: Vec<_> = summary.failures.iter().map(ToString::to_string).collect();
    assert_eq!((told, names_in(folder.path())), (vec!["node:file: was changed while it was read".to_owned()], vec![]));
}

#[tokio::test]
async fn a_file_of_the_system_without_a_size_is_read_to_its_end() {
    let folder = folder();
    let stream = serve(&[], |mut request| match request.verb {
        3 => request.handle(b"h"),
        8 | 17 => request.attributes(&file(0)),
        5 => read_reply(&mut request, b"processor: 0\n"),
        _ => request.status(0),
    });
    let remote = Location::remote(&node(stream).await, "/proc/cpuinfo");
    copy(vec![remote], local(folder.path()), CopyOptions::default(), |_| {}).await.unwrap();
    assert_eq!(std::fs::read(folder.path().join("cpuinfo")).unwrap(), b"processor: 0\n");
}

/// Uploads one file to a server that offers `extensions`; returns the requests that it saw by name and path.
async fn requests_of_an_upload(extensions: &[&str], rename_fails_once: bool) -> Vec<String> {
    let folder = folder();
    std::fs::write(folder.path().join("file"), b"abc").unwrap();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&seen);
    let (mut refuse, mut is_there) = (rename_fails_once, false);
    let stream = serve(extensions, move |mut request| {
        let text = String::from_utf8_lossy(&request.string()).into_owned();
        let text = text.split(".ssmcp-").next().unwrap_or_default().to_owned();
        log.lock().unwrap().push(format!("{} {text}", request.verb));
        match request.verb {
            3 => request.handle(b"h"),
            8 => request.attributes(&file(3)),
            7 if is_there => request.attributes(&file(3)),
            7 | 17 => request.status(2),
            18 if std::mem::take(&mut refuse) => {
                is_there = true;
                request.status(4)
            }
            _ => request.status(0),
        }
    });
    let remote = Location::remote(&node(stream).await, "up");
    let summary = copy(vec![local(&folder.path().join("file"))], remote, CopyOptions::default(), |_| {}).await.unwrap();
    assert!(summary.is_complete(), "{:?}", summary.failures);
    let seen = seen.lock().unwrap();
    seen.clone()
}

#[tokio::test]
async fn an_upload_is_renamed_into_place_after_everything_else() {
    // stat, lstat and lstat of the target; open, stat, narrow, write, set the mode, stat, close, rename.
    let plain = ["17 up", "7 up", "7 up", "3 .up", "8 h", "10 h", "6 h", "10 h", "8 h", "4 h", "18 .up"];
    assert_eq!(requests_of_an_upload(&[], false).await, plain);
    let replaced = requests_of_an_upload(&[], true).await;
    assert_eq!(replaced[10..], ["18 .up", "7 up", "18 up", "18 .up", "13 .up"]);
    let posix = requests_of_an_upload(&[POSIX_RENAME], false).await;
    assert_eq!(posix.last().map(String::as_str), Some("200 posix-rename@openssh.com"));
}

#[tokio::test]
async fn a_small_upload_waits_three_times() {
    let folder = folder();
    std::fs::write(folder.path().join("file"), b"abc").unwrap();
    let mut held = Vec::new();
    // What is sent together is answered together; a request that waited for another's answer would wait for ever.
    let stream = serve(&[POSIX_RENAME, "fsync@openssh.com"], move |mut request| match request.verb {
        3 => request.handle(b"h"),
        7 | 17 => request.status(2),
        200 => [held.drain(..).flatten().collect(), request.status(0)].concat(),
        8 => {
            held.push(request.attributes(&file(3)));
            Vec::new()
        }
        verb => {
            assert!([4, 6, 10].contains(&verb), "{verb} {:?}", request.string());
            held.push(request.status(0));
            Vec::new()
        }
    });
    let remote = Location::remote(&node(stream).await, "up");
    let summary = copy(vec![local(&folder.path().join("file"))], remote, CopyOptions::default(), |_| {}).await.unwrap();
    assert!(summary.is_complete(), "{:?}", summary.failures);
}

#[tokio::test]
async fn a_small_download_waits_twice() {
    let folder = folder();
    let mut held = Vec::new();
    let stream = serve(&[], move |mut request| match request.verb {
        3 => request.handle(b"h"),
        17 => request.attributes(&file(3)),
        8 => {
            held.push(request.attributes(&file(3)));
            Vec::new()
        }
        5 => {
            held.push(read_reply(&mut request, b"abc"));
            if held.len() == 3 { held.drain(..).flatten().collect() } else { Vec::new() }
        }
        _ => request.status(0),
    });
    let remote = Location::remote(&node(stream).await, "file");
    let summary = copy(vec![remote], local(folder.path()), CopyOptions::default(), |_| {}).await.unwrap();
    assert!(summary.is_complete(), "{:?}", summary.failures);
    assert_eq!(std::fs::read(folder.path().join("file")).unwrap(), b"abc");
}

#[tokio::test]
async fn several_sources_need_a_directory() {
    let folder = folder();
    let sources = || vec![local(&folder.path().join("a")), local(&folder.path().join("b"))];
    let refused = copy(sources(), local(&folder.path().join("none")), CopyOptions::default(), |_| {}).await;
    assert!(matches!(refused, Err(CopyError::TargetMissing { .. })));
    let nothing = copy(Vec::new(), local(folder.path()), CopyOptions::default(), |_| {}).await;
    assert!(matches!(nothing, Err(CopyError::NoSources)));
}

#[tokio::test]
async fn failures_name_their_path_and_the_other_files_go_on() {
    let folder = folder();
    let (from, to) = (folder.path().join("from"), folder.path().join("to"));
    std::fs::create_dir_all(from.join("sub")).unwrap();
    std::fs::create_dir_all(to.join("taken")).unwrap();
    std::fs::write(to.join("sub"), b"a file").unwrap();
    for name in ["taken", "fine", "sub/lost"] {
        std::fs::write(from.join(name), name).unwrap();
    }
    let sources = ["taken", "sub", "missing", "fine"].iter().map(|name| local(&from.join(name))).collect();
    let summary = copy(sources, local(&to), recursive(), |_| {}).await.unwrap();
    let mut messages: Vec<_> = summary.failures.iter().map(ToString::to_string).collect();
    messages.sort();
    assert!(messages[0].ends_with("from/missing: no such file or directory"), "{messages:?}");
    assert!(messages[1].ends_with("to/sub: a file is where the directory should be"), "{messages:?}");
    assert!(messages[2].ends_with("to/taken: a directory is where the file should be"), "{messages:?}");
    assert_eq!((messages.len(), names_in(&to)), (3, vec!["fine".into(), "sub".into(), "taken".into()]));
}

#[tokio::test]
async fn a_link_to_its_own_directory_is_told_and_left() {
    let folder = folder();
    let from = folder.path().join("from");
    std::fs::create_dir_all(from.join("sub")).unwrap();
    std::fs::write(from.join("sub/file"), b"x").unwrap();
    std::os::unix::fs::symlink("..", from.join("sub/up")).unwrap();
    std::os::unix::fs::symlink("sub/file", from.join("link")).unwrap();
    let to = folder.path().join("to");
    let summary = copy(vec![local(&from)], local(&to), recursive(), |_| {}).await.unwrap();
    assert!(matches!(&summary.failures[..], [Failure { error: CopyError::LinkLoop, .. }]), "{:?}", summary.failures);
    assert_eq!(names_in(&to), ["link", "sub"]);
    assert!(std::fs::symlink_metadata(to.join("link")).unwrap().is_file(), "links are followed");
}

#[tokio::test]
async fn modes_follow_scp() {
    let folder = folder();
    let path = |name: &str| folder.path().join(name);
    let mode = |name: &str| std::fs::metadata(path(name)).unwrap().permissions().mode() & 0o7777;
    let set = |name: &str, mode| std::fs::set_permissions(path(name), Permissions::from_mode(mode)).unwrap();
    std::fs::create_dir(path("dir")).unwrap();
    for (name, bits) in [("source", 0o4751), ("kept", 0o604), ("preserved", 0o600)] {
        std::fs::write(path(name), name).unwrap();
        set(name, bits);
    }
    set("dir", 0o550);
    // The umask, by what it leaves of a file made here.
    std::fs::write(path("probe"), b"").unwrap();
    set("probe", mode("probe"));
    let umask = 0o666 & !mode("probe");
    for (target, options) in [
        ("new", CopyOptions::default()),
        ("kept", CopyOptions::default()),
        ("preserved", CopyOptions::default().preserve(true)),
    ] {
        let summary = copy(vec![local(&path("source"))], local(&path(target)), options, |_| {}).await.unwrap();
        assert!(summary.is_complete(), "{:?}", summary.failures);
        assert_eq!(std::fs::read(path(target)).unwrap(), b"source");
    }
    assert_eq!([mode("new"), mode("kept"), mode("preserved")], [0o751 & !umask, 0o604, 0o751]);
    copy(vec![local(&path("dir"))], local(&path("newdir")), recursive(), |_| {}).await.unwrap();
    assert_eq!(mode("newdir"), 0o550);
}

#[tokio::test]
async fn a_stopped_copy_removes_what_is_unfinished() {
    let folder = folder();
    let (reading, mut is_reading) = tokio::sync::mpsc::unbounded_channel();
    let stream = serve(&[], move |request| match request.verb {
        3 => request.handle(b"h"),
        8 | 17 => request.attributes(&file(1 << 30)),
        5 => {
            reading.send(()).ok();
            Vec::new()
        }
        _ => request.status(0),
    });
    let remote = Location::remote(&node(stream).await, "big");
    let stop = async {
        is_reading.recv().await;
        assert_eq!(names_in(folder.path()).len(), 1, "the temporary file");
    };
    let stopped = copy_until(vec![remote], local(folder.path()), CopyOptions::default(), |_| {}, stop).await;
    assert!(matches!(stopped, Err(CopyError::Stopped { .. })));
    assert_eq!(names_in(folder.path()), Vec::<String>::new());
}

#[tokio::test]
async fn progress_tells_every_file_and_every_byte() {
    let folder = folder();
    let from = folder.path().join("from");
    std::fs::create_dir(&from).unwrap();
    std::fs::write(from.join("one"), vec![1; 300_000]).unwrap();
    std::fs::write(from.join("two"), b"").unwrap();
    let last = Mutex::new(Totals::default());
    let finished = Mutex::new(Vec::new());
    let note = |progress: Progress<'_>| {
        *last.lock().unwrap() = progress.totals;
        if let Event::Finished { path } = progress.event {
            finished.lock().unwrap().push(path.name().unwrap().to_vec());
        }
    };
    copy(vec![local(&from)], local(&folder.path().join("to")), recursive(), note).await.unwrap();
    let expected = Totals {
        files: 2,
        files_done: 2,
        bytes: 300_000,
        bytes_done: 300_000,
        streams: 1,
        is_all_found: true,
        ..Totals::default()
    };
    assert_eq!(*last.lock().unwrap(), expected);
    finished.lock().unwrap().sort();
    assert_eq!(*finished.lock().unwrap(), [b"one", b"two"]);
}
