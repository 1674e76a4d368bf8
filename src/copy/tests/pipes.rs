use std::io::Cursor;

use tokio::io::AsyncReadExt as _;
use tokio::time::Instant;

use crate::copy::*;
use crate::ssh::sftp::scripted::serve;
use crate::ssh::sftp::{Attributes, Sftp};

fn content(length: u32) -> Vec<u8> {
    (0..length).map(|n| n.wrapping_mul(2_654_435_761).to_be_bytes()[0]).collect()
}

fn input(bytes: Vec<u8>) -> Location {
    Location::reader("standard input", Cursor::new(bytes))
}

/// What arrives behind the writer, once it is shut down.
fn output() -> (Location, impl Future<Output = Vec<u8>>) {
    let (here, mut there) = tokio::io::duplex(10_000);
    let all = async move {
        let mut all = Vec::new();
        there.read_to_end(&mut all).await.unwrap();
        all
    };
    (Location::writer("standard output", here), all)
}

async fn run(source: Location, target: Location) -> Summary {
    copy(vec![source], target, CopyOptions::default().recursive(true), |_| {}).await.unwrap()
}

#[tokio::test]
async fn what_a_reader_gives_becomes_a_file() {
    for length in [0, 1, 262_144, 3_000_001] {
        let folder = tempfile::tempdir().unwrap();
        let (path, content) = (folder.path().join("file"), content(length));
        let summary = run(input(content.clone()), Location::local(path.clone())).await;
        assert!(summary.is_complete() && std::fs::read(path).unwrap() == content, "{length}: {summary:?}");
    }
}

#[tokio::test]
async fn a_reader_is_read_to_its_end_whatever_size_was_expected() {
    for expected in [1, 300_000, 300_001, 4_000_000] {
        let folder = tempfile::tempdir().unwrap();
        let (path, content) = (folder.path().join("file"), content(300_000));
        let reader = Location::reader_of_size("standard input", expected, Cursor::new(content.clone()));
        let last = std::sync::Mutex::new(Totals::default());
        let note = |progress: Progress<'_>| *last.lock().unwrap() = progress.totals;
        let target = Location::local(path.clone());
        let summary = copy(vec![reader], target, CopyOptions::default(), note).await.unwrap();
        assert!(summary.is_complete() && std::fs::read(path).unwrap() == content, "{expected}: {summary:?}");
        let totals = *last.lock().unwrap();
        assert_eq!((totals.bytes, totals.bytes_done), (300_000, 300_000), "{expected}");
    }
}

/// A size alone does not make it a file that could be read again.
#[tokio::test]
async fn what_a_reader_of_known_size_gave_is_not_gone_on_with() {
    let (folder, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let content = content(4 << 20);
    let run = async |bytes: &[u8], is_stopped: bool| {
        let (mut feed, reader) = tokio::io::duplex(1 << 20);
        let (enough, target) = (tokio::sync::Notify::new(), Location::local(folder.path().join("file")));
        let note = |progress: Progress<'_>| {
            if is_stopped && progress.totals.bytes_done >= 3 << 20 {
                enough.notify_one();
            }
        };
        let reader = Location::reader_of_size("standard input", 4 << 20, reader);
        let options = CopyOptions::default().journal(state.path());
        let copying = copy_until(vec![reader], target, options, note, enough.notified());
        let feeding = async {
            tokio::io::AsyncWriteExt::write_all(&mut feed, bytes).await.ok();
            if is_stopped {
                std::future::pending::<()>().await;
            }
            drop(feed);
            std::future::pending::<()>().await;
        };
        tokio::select! {
            outcome = copying => outcome,
            () = feeding => unreachable!("it waits for ever"),
        }
    };
    let stopped = run(&content[..(7 << 19)], true).await;
    assert!(matches!(stopped, Err(CopyError::Stopped { can_resume: false })), "{stopped:?}");
    for folder in [&folder, &state] {
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }
    let again = tokio::time::timeout(std::time::Duration::from_mins(1), run(&content, false)).await;
    let summary = again.expect("it does not wait for what is gone").unwrap();
    assert!(summary.is_complete() && summary.bytes_kept == 0, "{summary:?}");
    assert!(std::fs::read(folder.path().join("file")).unwrap() == content);
}

#[tokio::test]
async fn a_reader_that_fails_leaves_no_file() {
    struct Broken;
    impl AsyncRead for Broken {
        fn poll_read(
            self: std::pin::Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
            _: &mut tokio::io::ReadBuf<'_>,
        ) -> std::task::Poll<std::io::Result<()>> {
            std::task::Poll::Ready(Err(std::io::Error::other("out of order")))
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let reader = Location::reader("standard input", Cursor::new(content(500_000)).chain(Broken));
    let summary = run(reader, Location::local(folder.path().join("file"))).await;
    assert_eq!(summary.failures[0].to_string(), "standard input: out of order");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn what_is_read_has_no_name_for_a_directory() {
    let folder = tempfile::tempdir().unwrap();
    let summary = run(input(b"x".to_vec()), Location::local(folder.path().to_owned())).await;
    assert!(summary.failures[0].to_string().contains("name the file"), "{}", summary.failures[0]);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn a_writer_gets_the_bytes_in_order_however_short_the_reads() {
    // More than may be in flight: what waits for its turn must leave room for what it waits for.
    let content = content(40_000_000);
    let (served, mut turn) = (content.clone(), 0u32);
    let stream = serve(&[], move |mut request| match request.verb {
        3 => request.handle(b"h"),
        8 | 17 => request
            .attributes(&Attributes { size: Some(served.len() as u64), ..Attributes::with_permissions(0o100_644) }),
        5 => {
            let _handle = request.string();
            let offset = usize::try_from(request.u64()).unwrap();
            turn = turn.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let longest = request.u32().min(1 + (turn >> 15)) as usize;
            let end = served.len().min(offset + longest);
            if offset >= end { request.status(1) } else { request.data(&served[offset..end]) }
        }
        _ => request.status(0),
    });
    let node = RemoteEndpoint::new(Sftp::new(stream).await.unwrap(), "node");
    let (writer, written) = output();
    let (summary, written) = tokio::join!(run(Location::remote(&node, "file"), writer), written);
    assert!(summary.is_complete() && written == content, "{} of {} bytes", written.len(), content.len());
}

#[tokio::test]
async fn a_directory_is_not_written_to_a_writer() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("file"), b"x").unwrap();
    let (writer, written) = output();
    let (summary, written) = tokio::join!(run(Location::local(folder.path().to_owned()), writer), written);
    assert!(summary.failures[0].to_string().starts_with("standard output: takes one file"), "{summary:?}");
    assert_eq!(written, b"");
}

#[tokio::test(start_paused = true)]
async fn a_limit_holds_for_all_files_together() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for name in ["a", "b", "c", "d"] {
        std::fs::write(from.path().join(name), content(100_000)).unwrap();
    }
    let sources = ["a", "b", "c", "d"].map(|name| Location::local(from.path().join(name)));
    let options = CopyOptions::default().rate_limit(NonZeroU64::new(1_000_000).unwrap());
    let started = Instant::now();
    let summary = copy(sources.into(), Location::local(to.path().to_owned()), options, |_| {}).await.unwrap();
    assert!(summary.is_complete());
    // By the clock of the test, which moves only while all wait. The last piece is not waited for.
    let elapsed = started.elapsed().as_secs_f64();
    assert!((0.25..0.45).contains(&elapsed), "{elapsed}");
}
