//! Targets that are no files, or links to something else.

use std::fs;
use std::io::Read as _;
use std::os::unix::fs::symlink;
use std::path::Path;

use super::hostile::messages;
use crate::copy::*;
use crate::ssh::sftp::scripted::serve;
use crate::ssh::sftp::{Attributes, Sftp};

/// A directory with a file, a pipe and a link to the pipe.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, folder.path().join("pipe"), rustix::fs::Mode::RWXU).unwrap();
    symlink("pipe", folder.path().join("link")).unwrap();
    fs::write(folder.path().join("file"), b"new").unwrap();
    folder
}

async fn run(source: &Path, target: &Path) -> Summary {
    let options = CopyOptions::default().recursive(true);
    copy(vec![Location::local(source.to_owned())], Location::local(target.to_owned()), options, |_| {}).await.unwrap()
}

#[tokio::test]
async fn a_pipe_that_is_named_is_written_into_and_stays() {
    let folder = folder();
    for name in ["pipe", "link"] {
        let pipe = folder.path().join("pipe");
        let reading = std::thread::spawn(move || {
            let mut read = Vec::new();
            fs::File::open(pipe).unwrap().read_to_end(&mut read).map(|_| read)
        });
        let summary = run(&folder.path().join("file"), &folder.path().join(name)).await;
        assert!(summary.is_complete(), "{summary:?}");
        assert_eq!(reading.join().unwrap().unwrap(), b"new", "{name}");
    }
    assert!(folder.path().join("link").is_symlink());
}

#[tokio::test]
async fn a_copy_to_a_pipe_that_nobody_reads_can_be_stopped() {
    let folder = folder();
    let (source, target) = (folder.path().join("file"), folder.path().join("pipe"));
    let stop = tokio::time::sleep(std::time::Duration::from_millis(20));
    let outcome =
        copy_until(vec![Location::local(source)], Location::local(target), CopyOptions::default(), |_| {}, stop).await;
    assert!(matches!(outcome, Err(CopyError::Stopped { .. })), "{outcome:?}");
}

#[tokio::test]
async fn devices_and_pipes_are_neither_read_nor_replaced_inside_a_tree() {
    let folder = folder();
    let (from, into) = (folder.path().join("from"), folder.path().join("into"));
    for directory in [&from, &into] {
        fs::create_dir(directory).unwrap();
    }
    fs::write(from.join("pipe"), b"x").unwrap();
    fs::rename(folder.path().join("pipe"), into.join("pipe")).unwrap();
    let read = run(&into.join("pipe"), &folder.path().join("copy")).await;
    assert!(matches!(read.failures[0].error, CopyError::NotRegular));
    let replaced = run(&from.join("."), &into).await;
    assert!(matches!(replaced.failures[0].error, CopyError::NotRegular), "{replaced:?}");
    assert_eq!(fs::read_dir(&into).unwrap().count(), 1, "no temporary file is left");
}

#[tokio::test]
async fn a_link_that_leads_to_nothing_yet_gets_its_file_where_it_leads() {
    let folder = folder();
    fs::create_dir(folder.path().join("sub")).unwrap();
    symlink("sub/next", folder.path().join("dangling")).unwrap();
    symlink("last", folder.path().join("sub/next")).unwrap();
    let summary = run(&folder.path().join("file"), &folder.path().join("dangling")).await;
    assert!(summary.is_complete(), "{summary:?}");
    assert_eq!(fs::read(folder.path().join("sub/last")).unwrap(), b"new");
    assert!(folder.path().join("dangling").is_symlink() && folder.path().join("sub/next").is_symlink());
}

#[tokio::test]
async fn a_device_of_this_machine_takes_what_comes_and_says_what_it_does_not() {
    let folder = folder();
    assert!(run(&folder.path().join("file"), Path::new("/dev/null")).await.is_complete());
    symlink("/dev/null", folder.path().join("nowhere")).unwrap();
    assert!(run(&folder.path().join("file"), &folder.path().join("nowhere")).await.is_complete());
    if Path::new("/dev/full").exists() {
        let summary = run(&folder.path().join("file"), Path::new("/dev/full")).await;
        assert_eq!(messages(&summary), ["/dev/full: no space is left on the disk"]);
    }
}

/// A node with one thing of this kind, which is all it takes data for.
async fn onto(mode: u32) -> (Summary, u64) {
    let folder = folder();
    let taken = std::sync::Arc::new(std::sync::atomic::AtomicU64::new(0));
    let count = std::sync::Arc::clone(&taken);
    let stream = serve(&[], move |mut request| match request.verb {
        7 | 17 => request.attributes(&Attributes::with_permissions(mode)),
        3 => request.handle(b"it"),
        6 => {
            let (_handle, _offset, data) = (request.string(), request.u64(), request.string());
            count.fetch_add(data.len() as u64, std::sync::atomic::Ordering::Relaxed);
            request.status(0)
        }
        4 => request.status(0),
        _ => request.status(3),
    });
    let node = RemoteEndpoint::new(Sftp::new(stream).await.unwrap(), "node");
    let source = Location::local(folder.path().join("file"));
    let summary = copy(vec![source], Location::remote(&node, "/dev/it"), CopyOptions::default(), |_| {}).await.unwrap();
    (summary, taken.load(std::sync::atomic::Ordering::Relaxed))
}

#[tokio::test]
async fn a_device_of_a_node_is_written_into_and_a_pipe_is_refused() {
    let (summary, taken) = onto(0o020_666).await;
    assert!(summary.is_complete() && taken == 3, "{summary:?}");
    let (summary, taken) = onto(0o010_666).await;
    assert_eq!(
        (messages(&summary), taken),
        (vec!["node:/dev/it: is neither a regular file nor a directory".into()], 0)
    );
}
