use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use bytes::BufMut as _;
use proptest::prelude::*;
use tokio::io::DuplexStream;

use crate::copy::*;
use crate::ssh::sftp::scripted::{Received, serve_some};
use crate::ssh::sftp::{Attributes, Sftp};

/// The files of one machine, which any number of servers serve.
pub(super) type Disk = Arc<Mutex<BTreeMap<Vec<u8>, Vec<u8>>>>;

/// A server that is gone after so many requests. A handle is the name of its file.
pub(super) fn server(disk: &Disk, requests: usize) -> DuplexStream {
    server_offering(&[], disk, requests)
}

fn server_offering(extensions: &[&str], disk: &Disk, requests: usize) -> DuplexStream {
    serve_some(extensions, requests, answers(disk))
}

pub(super) fn answers(disk: &Disk) -> impl FnMut(Received) -> Vec<u8> + Send + 'static {
    let disk = Arc::clone(disk);
    let attributes =
        |content: &Vec<u8>| Attributes { size: Some(content.len() as u64), ..Attributes::with_permissions(0o100_644) };
    move |mut request| {
        let mut disk = disk.lock().unwrap();
        let name = request.string().to_vec();
        match request.verb {
            3 => {
                if request.u32() & 8 != 0 {
                    disk.insert(name.clone(), Vec::new());
                } else if !disk.contains_key(&name) {
                    return request.status(2);
                }
                request.handle(&name)
            }
            7 | 8 | 17 => match disk.get(&name) {
                Some(content) => request.attributes(&attributes(content)),
                None => request.status(2),
            },
            5 => {
                let (content, from) = (&disk[&name], usize::try_from(request.u64()).unwrap());
                let to = content.len().min(from + request.u32() as usize);
                if from >= to { request.status(1) } else { request.data(&content[from..to]) }
            }
            6 => {
                let (from, data) = (usize::try_from(request.u64()).unwrap(), request.string());
                let content = disk.get_mut(&name).unwrap();
                content.resize(content.len().max(from + data.len()), 0);
                content[from..from + data.len()].copy_from_slice(&data);
                request.status(0)
            }
            13 => request.status(if disk.remove(&name).is_some() { 0 } else { 2 }),
            18 => {
                let content = disk.remove(&name).unwrap();
                disk.insert(request.string().to_vec(), content);
                request.status(0)
            }
            _ => request.status(0),
        }
    }
}

/// A machine over a stream for each of `lives`, which tell after how many requests it is lost.
async fn node(disk: &Disk, lives: &[usize]) -> RemoteEndpoint {
    let mut servers = Vec::new();
    for requests in lives {
        servers.push(Sftp::new(server(disk, *requests)).await.unwrap());
    }
    let endpoint = RemoteEndpoint::new(servers.remove(0), "node");
    for sftp in servers {
        endpoint.add(sftp);
    }
    endpoint
}

pub(super) fn content(length: usize) -> Vec<u8> {
    (0..length).map(|at| u8::try_from(at * 31 / 7 % 251).unwrap()).collect()
}

async fn check_down(length: usize, lives: &[usize]) {
    let folder = tempfile::tempdir().unwrap();
    let disk = Disk::default();
    disk.lock().unwrap().insert(b"file".to_vec(), content(length));
    let node = node(&disk, lives).await;
    let target = folder.path().join("file");
    let copied =
        copy(vec![Location::remote(&node, "file")], Location::local(target.clone()), CopyOptions::default(), |_| {});
    check(copied.await, node.streams() > 0, std::fs::read(target).ok(), &content(length));
    assert!(std::fs::read_dir(folder.path()).unwrap().count() <= 1, "a temporary file is left");
}

async fn check_up(length: usize, lives: &[usize]) {
    let folder = tempfile::tempdir().unwrap();
    let disk = Disk::default();
    let source = folder.path().join("file");
    std::fs::write(&source, content(length)).unwrap();
    let node = node(&disk, lives).await;
    let copied =
        copy(vec![Location::local(source)], Location::remote(&node, "file"), CopyOptions::default(), |_| {}).await;
    let written = disk.lock().unwrap().remove(&b"file"[..]);
    check(copied, node.streams() > 0, written, &content(length));
}

/// The bytes are right, or the error is.
fn check(copied: Result<Summary, CopyError>, is_alive: bool, written: Option<Vec<u8>>, content: &[u8]) {
    match copied {
        Ok(summary) => {
            assert!(summary.is_complete(), "{:?}", summary.failures);
            assert!(written.is_some_and(|written| written == content), "the bytes differ");
        }
        Err(error) => {
            assert!(matches!(error, CopyError::Lost { .. }), "{error}");
            assert!(!is_alive, "{error}, but a stream is left");
            assert!(written.is_none_or(|written| written == content), "half a file has the name");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn the_bytes_are_right_or_the_error_is_whichever_streams_are_lost(
        length in prop_oneof![0..200_000usize, 400_000..1_500_000usize],
        lives in proptest::collection::vec(2..60usize, 1..5),
        lasts in any::<bool>(),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let lives: Vec<_> = lives.into_iter().chain(lasts.then_some(usize::MAX)).collect();
        runtime.block_on(check_down(length, &lives));
        runtime.block_on(check_up(length, &lives));
    }
}

#[tokio::test]
async fn every_stream_carries_a_part_of_a_large_file() {
    let disk = Disk::default();
    disk.lock().unwrap().insert(b"file".to_vec(), content(4_000_000));
    // Each of them is asked for less than the whole file and would be lost over it.
    check_down(4_000_000, &[80; 4]).await;
}

/// A server that counts what it is asked for.
fn counting(disk: &Disk, count: &Arc<Mutex<BTreeMap<usize, usize>>>, id: usize) -> DuplexStream {
    let (mut answer, count) = (answers(disk), Arc::clone(count));
    serve_some(&[], usize::MAX, move |request| {
        // Openings of files, and reads and writes.
        if matches!(request.verb, 3 | 5 | 6) {
            *count.lock().unwrap().entry(id).or_default() += 1;
        }
        answer(request)
    })
}

/// How many openings, reads and writes each of four streams carried of a copy up.
async fn shares(from: &std::path::Path) -> Vec<usize> {
    let (disk, count) = (Disk::default(), Arc::default());
    let first = Sftp::new(counting(&disk, &count, 0)).await.unwrap();
    let node = RemoteEndpoint::new(first, "node");
    for id in 1..4 {
        node.add(Sftp::new(counting(&disk, &count, id)).await.unwrap());
    }
    let target = Location::remote(&node, "up");
    let options = CopyOptions::default().recursive(true);
    let summary = copy(vec![Location::local(from.to_owned())], target, options, |_| {}).await.unwrap();
    assert!(summary.is_complete(), "{summary:?}");
    let count = count.lock().unwrap();
    (0..4).map(|id| count.get(&id).copied().unwrap_or_default()).collect()
}

#[tokio::test]
async fn small_files_are_spread_and_a_large_one_is_split_over_all_streams() {
    let folder = tempfile::tempdir().unwrap();
    let (small, large) = (folder.path().join("small"), folder.path().join("large"));
    std::fs::create_dir(&small).unwrap();
    for number in 0..200 {
        std::fs::write(small.join(number.to_string()), b"abc").unwrap();
    }
    std::fs::write(&large, content(8_000_000)).unwrap();
    for path in [small, large] {
        let shares = shares(&path).await;
        assert!(shares.iter().all(|share| *share >= 10), "{}: {shares:?}", path.display());
    }
}

#[tokio::test]
async fn a_stream_that_finds_another_file_behind_the_name_is_not_used() {
    let (disk, other, folder) = (Disk::default(), Disk::default(), tempfile::tempdir().unwrap());
    disk.lock().unwrap().insert(b"file".to_vec(), content(4_000_000));
    other.lock().unwrap().insert(b"file".to_vec(), vec![0; 4_000_001]);
    let node = node(&disk, &[usize::MAX]).await;
    node.add(Sftp::new(server(&other, usize::MAX)).await.unwrap());
    // Of two streams that do nothing the first is picked.
    let to = Location::local(folder.path().join("file"));
    let summary = copy(vec![Location::remote(&node, "file")], to, CopyOptions::default(), |_| {}).await.unwrap();
    assert!(summary.is_complete(), "{summary:?}");
    assert!(std::fs::read(folder.path().join("file")).unwrap() == content(4_000_000));
}

/// A write that waits to be sent has got room but has not used it yet when the file is to be forced to the disk.
#[tokio::test]
async fn nothing_is_forced_to_the_disk_before_it_was_sent() {
    let disk = Disk::default();
    let forced = server_offering(&["fsync@openssh.com"], &disk, usize::MAX);
    let node = RemoteEndpoint::new(Sftp::new(forced).await.unwrap(), "node");
    let path = BytePath::from("file");
    let target = node.create(&path, 0o600).await.unwrap();
    let mut others: Vec<_> = (0..16).map(|_| node.stat(&path)).collect();
    for other in &mut others {
        assert!(futures_util::poll!(other).is_pending());
    }
    let mut write = target.write(0, content(1000).into());
    assert!(futures_util::poll!(&mut write).is_pending());
    futures_util::future::join_all(others).await;
    let (flushed, written) = tokio::join!(target.flush_behind().unwrap(), write);
    flushed.unwrap();
    written.unwrap();
    target.finish(Change::default(), &BytePath::from("name")).await.unwrap();
    assert_eq!(disk.lock().unwrap()[&b"name"[..]], content(1000));
}

/// Openings under way, and the most that ever were.
type Openings = Arc<Mutex<(usize, usize)>>;

async fn open_slowly(disk: Disk, openings: Openings) -> Result<Sftp, Box<dyn std::error::Error + Send + Sync>> {
    {
        let mut openings = openings.lock().unwrap();
        openings.0 += 1;
        openings.1 = openings.1.max(openings.0);
    }
    // Long enough for everything else that is to be opened at the same time.
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    openings.lock().unwrap().0 -= 1;
    Ok(Sftp::new(server(&disk, usize::MAX)).await?)
}

#[tokio::test(start_paused = true)]
async fn no_more_than_three_streams_are_being_opened_at_a_time() {
    let (disk, openings) = (Disk::default(), Openings::default());
    let first = Sftp::new(server(&disk, usize::MAX)).await.unwrap();
    let (of_disk, seen) = (Arc::clone(&disk), Arc::clone(&openings));
    let node = RemoteEndpoint::new(first, "node")
        .more_streams(Streams::exactly(8), move |_| open_slowly(Arc::clone(&of_disk), Arc::clone(&seen)));
    let totals = || Totals { files: 1, bytes: 1 << 30, bytes_done: 1, is_all_found: true, ..Totals::default() };
    let grown = async {
        while node.streams() < 8 {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    };
    tokio::select! {
        () = node.grow(&totals) => unreachable!("it never ends"),
        () = grown => {}
    }
    assert_eq!(openings.lock().unwrap().1, 3);
}

/// A server that takes no more than `most` bytes in a read or a write, says so, and gives fewer than it is asked for.
fn modest_server(disk: &Disk, most: u32) -> DuplexStream {
    let disk = Arc::clone(disk);
    serve_some(&["limits@openssh.com"], usize::MAX, move |mut request| {
        let mut disk = disk.lock().unwrap();
        let name = request.string();
        match request.verb {
            200 => request.reply(201, |out| {
                for limit in [0, u64::from(most), u64::from(most), 0] {
                    out.put_u64(limit);
                }
            }),
            3 => {
                disk.entry(name.to_vec()).or_default();
                request.handle(&name)
            }
            5 => {
                let (content, from) = (&disk[&name[..]], usize::try_from(request.u64()).unwrap());
                let asked = request.u32();
                assert!(asked <= most, "{asked} bytes were asked for");
                let to = content.len().min(from + (asked as usize).min(1000));
                if from >= to { request.status(1) } else { request.data(&content[from..to]) }
            }
            6 => {
                let (from, data) = (usize::try_from(request.u64()).unwrap(), request.string());
                assert!(data.len() <= most as usize, "{} bytes were sent", data.len());
                let content = disk.get_mut(&name[..]).unwrap();
                content.resize(content.len().max(from + data.len()), 0);
                content[from..from + data.len()].copy_from_slice(&data);
                request.status(0)
            }
            7 | 8 | 17 => match disk.get(&name[..]) {
                Some(content) => {
                    let size = Some(content.len() as u64);
                    request.attributes(&Attributes { size, ..Attributes::with_permissions(0o100_644) })
                }
                None => request.status(2),
            },
            18 => {
                let content = disk.remove(&name[..]).unwrap();
                disk.insert(request.string().to_vec(), content);
                request.status(0)
            }
            _ => request.status(0),
        }
    })
}

#[tokio::test]
async fn no_piece_is_longer_than_the_server_takes_and_short_ones_are_asked_for_again() {
    let (disk, folder) = (Disk::default(), tempfile::tempdir().unwrap());
    let node = RemoteEndpoint::new(Sftp::new(modest_server(&disk, 3000)).await.unwrap(), "node");
    std::fs::write(folder.path().join("file"), content(50_000)).unwrap();
    let here = |name: &str| Location::local(folder.path().join(name));
    let there = || Location::remote(&node, "file");
    copy(vec![here("file")], there(), CopyOptions::default(), |_| {}).await.unwrap();
    assert!(disk.lock().unwrap()[&b"file"[..]] == content(50_000));
    copy(vec![there()], here("back"), CopyOptions::default(), |_| {}).await.unwrap();
    assert!(std::fs::read(folder.path().join("back")).unwrap() == content(50_000));
}
