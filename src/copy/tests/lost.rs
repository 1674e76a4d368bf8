//! Copies whose streams are all lost, and that get others.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use proptest::prelude::*;

use super::striped::{Disk, content, server};
use crate::copy::*;
use crate::ssh::sftp::Sftp;

/// A machine whose streams live for so many requests, one after the other; then it is out of reach. Counts what was opened.
async fn node(disk: &Disk, lives: &[usize], streams: Streams) -> (RemoteEndpoint, Arc<AtomicUsize>) {
    let mut later: VecDeque<_> = lives.iter().copied().collect();
    let first = Sftp::new(server(disk, later.pop_front().expect("one at least"))).await.unwrap();
    let (disk, later) = (Arc::clone(disk), Mutex::new(later));
    let opened = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&opened);
    let open = move |_| {
        let life = later.lock().unwrap().pop_front();
        count.fetch_add(1, Ordering::Relaxed);
        let disk = Arc::clone(&disk);
        async move {
            match life {
                Some(life) => Ok(Sftp::new(server(&disk, life)).await?),
                None => Err("the node is out of reach".into()),
            }
        }
    };
    (RemoteEndpoint::new(first, "node").more_streams(streams, open), opened)
}

/// Copies a file of `length` bytes up or down. Returns what came of it, if anything, and how many streams were opened.
async fn copy_over(
    length: usize,
    is_upload: bool,
    lives: &[usize],
    streams: Streams,
) -> (Result<Summary, CopyError>, Option<Vec<u8>>, usize) {
    let (disk, folder) = (Disk::default(), tempfile::tempdir().unwrap());
    let (node, opened) = node(&disk, lives, streams).await;
    let (here, there) = (folder.path().join("file"), Location::remote(&node, "file"));
    let local = Location::local(here.clone());
    if is_upload {
        std::fs::write(&here, content(length)).unwrap();
        let copied = copy(vec![local], there, CopyOptions::default(), |_| {}).await;
        let disk = disk.lock().unwrap();
        assert!(copied.is_err() || disk.len() == 1, "a temporary file is left");
        (copied, disk.get(&b"file"[..]).cloned(), opened.load(Ordering::Relaxed))
    } else {
        disk.lock().unwrap().insert(b"file".to_vec(), content(length));
        let copied = copy(vec![there], local, CopyOptions::default(), |_| {}).await;
        assert!(std::fs::read_dir(folder.path()).unwrap().count() <= 1, "a temporary file is left");
        (copied, std::fs::read(here).ok(), opened.load(Ordering::Relaxed))
    }
}

const LENGTH: usize = 2_000_000;

#[tokio::test(start_paused = true)]
async fn a_copy_over_one_stream_goes_on_over_the_next_where_the_last_was_lost() {
    for is_upload in [true, false] {
        for streams in [Streams::exactly(1), Streams::auto()] {
            // A stream has about 10 requests before the first byte, and 65 KiB a request or less.
            let (copied, written, opened) = copy_over(LENGTH, is_upload, &[14, 14, 14, usize::MAX], streams).await;
            let summary = copied.unwrap();
            assert!(summary.is_complete(), "{:?}", summary.failures);
            assert!(written.unwrap() == content(LENGTH));
            assert!(opened >= 1, "{opened} were opened");
            assert_eq!(summary.bytes, LENGTH as u64, "upload: {is_upload}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn streams_that_carry_nothing_and_nodes_out_of_reach_end_it() {
    for (lives, at_most) in [(&[20, 2, 2, 2, 2, 2, 2, 2, 2, 2][..], 6), (&[20], 5)] {
        for is_upload in [true, false] {
            let (copied, written, opened) = copy_over(LENGTH, is_upload, lives, Streams::exactly(1)).await;
            assert!(matches!(copied, Err(CopyError::Lost { .. })), "{copied:?}");
            assert!((2..=at_most).contains(&opened), "{opened} were tried");
            assert!(written.is_none(), "half a file has the name");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_copy_that_is_stopped_does_not_wait_for_another_stream() {
    let (disk, folder) = (Disk::default(), tempfile::tempdir().unwrap());
    let (node, _) = node(&disk, &[20], Streams::exactly(1)).await;
    let local = Location::local(folder.path().join("file"));
    disk.lock().unwrap().insert(b"file".to_vec(), content(LENGTH));
    let a_while = tokio::time::sleep(std::time::Duration::from_secs(2));
    let source = vec![Location::remote(&node, "file")];
    let stopped = copy_until(source, local, CopyOptions::default(), |_| {}, a_while).await;
    assert!(matches!(stopped, Err(CopyError::Stopped { .. })), "{stopped:?}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "a temporary file is left");
}

/// What the first stream had written is gone when the second looks: the machine was started anew in between.
#[tokio::test(start_paused = true)]
async fn what_a_lost_stream_wrote_is_compared_before_it_gets_its_name() {
    let (disk, folder) = (Disk::default(), tempfile::tempdir().unwrap());
    let first = Sftp::new(server(&disk, 12)).await.unwrap();
    let of_node = Arc::clone(&disk);
    let node = RemoteEndpoint::new(first, "node").more_streams(Streams::exactly(1), move |_| {
        let disk = Arc::clone(&of_node);
        async move {
            disk.lock().unwrap().values_mut().for_each(|content| content.fill(0));
            Ok(Sftp::new(server(&disk, usize::MAX)).await?)
        }
    });
    let here = folder.path().join("file");
    std::fs::write(&here, content(LENGTH)).unwrap();
    let to = || Location::remote(&node, "file");
    let summary = copy(vec![Location::local(here.clone())], to(), CopyOptions::default(), |_| {}).await.unwrap();
    assert!(matches!(&summary.failures[0].error, CopyError::Differs { .. }), "{:?}", summary.failures);
    assert_eq!(disk.lock().unwrap().len(), 0);
    // What comes out of a pipe is compared by what was read of it.
    let reader = Location::reader("standard input", std::io::Cursor::new(content(LENGTH)));
    let verified = CopyOptions::default().verify(true);
    let summary = copy(vec![reader], to(), verified, |_| {}).await.unwrap();
    assert!(summary.is_complete(), "{:?}", summary.failures);
    assert!(disk.lock().unwrap()[&b"file"[..]] == content(LENGTH));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn the_bytes_are_right_or_no_stream_could_be_had(
        length in prop_oneof![0..200_000usize, 400_000..1_500_000usize],
        lives in proptest::collection::vec(2..60usize, 1..8),
        lasts in any::<bool>(),
        streams in 1..4usize,
        is_upload in any::<bool>(),
    ) {
        let lives: Vec<_> = lives.into_iter().chain(lasts.then_some(usize::MAX)).collect();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        let (copied, written, opened) =
            runtime.block_on(copy_over(length, is_upload, &lives, Streams::exactly(streams)));
        match copied {
            Ok(summary) => {
                prop_assert!(summary.is_complete(), "{:?}", summary.failures);
                prop_assert!(written.is_some_and(|written| written == content(length)), "the bytes differ");
            }
            Err(error) => {
                prop_assert!(matches!(error, CopyError::Lost { .. }), "{}", error);
                prop_assert!(opened >= 4, "{error} after {opened} tries");
                prop_assert!(written.is_none_or(|written| written == content(length)), "half a file has the name");
            }
        }
    }
}
