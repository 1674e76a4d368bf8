//! How often a copy waits for the far side, counted in round trips.

use std::fs;
use std::sync::Mutex;

use crate::ssh::sftp::scripted::{Received, Rounds, serve_in_rounds};
use crate::ssh::sftp::{Attributes, Sftp};

use crate::copy::*;

const MIB: usize = 1 << 20;
const FILES: usize = 300;
const PIPELINED: [&str; 2] = ["fsync@openssh.com", "posix-rename@openssh.com"];

fn file(size: u64) -> Attributes {
    Attributes { size: Some(size), ..Attributes::with_permissions(0o100_644) }
}

fn recursive() -> CopyOptions {
    CopyOptions::default().recursive(true)
}

async fn node<F>(extensions: &[&str], rounds: &Rounds, answer: F) -> RemoteEndpoint
where
    F: FnMut(Received) -> Vec<u8> + Send + 'static,
{
    RemoteEndpoint::new(Sftp::new(serve_in_rounds(extensions, rounds, answer)).await.unwrap(), "node")
}

fn rounds_of(rounds: &Rounds) -> Vec<usize> {
    rounds.lock().unwrap().clone()
}

#[tokio::test(start_paused = true)]
async fn a_tree_goes_up_in_as_many_round_trips_as_a_few_files() {
    let (folder, rounds) = (tempfile::tempdir().unwrap(), Rounds::default());
    for number in 0..FILES {
        fs::write(folder.path().join(number.to_string()), b"abc").unwrap();
    }
    let node = node(&PIPELINED, &rounds, |mut request| match request.verb {
        3 => {
            let path = request.string();
            request.handle(&path)
        }
        8 => request.attributes(&file(3)),
        7 | 17 => request.status(2),
        _ => request.status(0),
    })
    .await;
    let from = Location::local(folder.path().to_owned());
    let summary = copy(vec![from], Location::remote(&node, "up"), recursive(), |_| {}).await.unwrap();
    assert_eq!((summary.files, summary.is_complete()), (FILES as u64, true), "{summary:?}");
    let rounds = rounds_of(&rounds);
    // Three for a file, 64 files at a time, and the directory.
    assert!(rounds.len() <= 25, "{} round trips: {rounds:?}", rounds.len());
}

/// A directory `dir` that lists `names` files of three bytes, a hundred in a reply.
fn directory(names: usize) -> impl FnMut(Received) -> Vec<u8> + Send + 'static {
    let mut listed = 0;
    move |mut request| match request.verb {
        7 | 8 | 17 => {
            let is_directory = request.string() == "dir";
            request.attributes(&if is_directory { Attributes::with_permissions(0o040_755) } else { file(3) })
        }
        3 | 11 => request.handle(b"h"),
        12 if listed < names => {
            let part: Vec<_> = (listed..names.min(listed + 100)).map(|name| name.to_string()).collect();
            listed += part.len();
            request.names(&part.iter().map(|name| (name.as_bytes(), file(3))).collect::<Vec<_>>())
        }
        12 => request.status(1),
        5 => {
            let (_handle, offset) = (request.string(), request.u64());
            if offset < 3 { request.data(b"abc") } else { request.status(1) }
        }
        _ => request.status(0),
    }
}

#[tokio::test(start_paused = true)]
async fn a_tree_comes_down_in_as_many_round_trips_as_a_few_files() {
    let (folder, rounds) = (tempfile::tempdir().unwrap(), Rounds::default());
    let node = node(&[], &rounds, directory(FILES)).await;
    let to = Location::local(folder.path().to_owned());
    let summary = copy(vec![Location::remote(&node, "dir")], to, recursive(), |_| {}).await.unwrap();
    assert_eq!((summary.files, summary.is_complete()), (FILES as u64, true), "{summary:?}");
    let rounds = rounds_of(&rounds);
    // Two for a file, 64 files at a time, and the directory.
    assert!(rounds.len() <= 20, "{} round trips: {rounds:?}", rounds.len());
}

#[tokio::test(start_paused = true)]
async fn a_long_listing_is_asked_for_ahead() {
    let rounds = Rounds::default();
    let node = node(&[], &rounds, directory(4000)).await;
    assert_eq!(node.list(&"dir".into()).await.unwrap().len(), 4000);
    let rounds = rounds_of(&rounds);
    // It takes 41 replies: 1, 2, 4, 8 and 16 at a time, behind the one that opens it.
    assert!(rounds.len() <= 8, "{} round trips: {rounds:?}", rounds.len());
}

/// How many bytes of a file of this length were on their way in each round trip.
async fn outstanding(length: usize) -> Vec<usize> {
    let (folder, rounds, asked) = (tempfile::tempdir().unwrap(), Rounds::default(), Arc::new(Mutex::new(Vec::new())));
    let (piece, seen) = (vec![7; 65_536], Arc::clone(&asked));
    let node = node(&[], &rounds, move |mut request| match request.verb {
        3 => request.handle(b"h"),
        8 | 17 => request.attributes(&file(length as u64)),
        5 => {
            let (_handle, offset) = (request.string(), usize::try_from(request.u64()).unwrap());
            let end = length.min(offset + request.u32() as usize);
            seen.lock().unwrap().push(end.saturating_sub(offset));
            if offset >= end { request.status(1) } else { request.data(&piece[..end - offset]) }
        }
        _ => request.status(0),
    })
    .await;
    let to = Location::local(folder.path().to_owned());
    let summary = copy(vec![Location::remote(&node, "file")], to, CopyOptions::default(), |_| {}).await.unwrap();
    assert!(summary.is_complete(), "{summary:?}");
    // Behind the questions about the file there are only reads, and an end.
    let mut asked = asked.lock().unwrap().clone().into_iter();
    let reads = rounds_of(&rounds).into_iter().filter(|requests| *requests > 1);
    reads.map(|requests| asked.by_ref().take(requests).sum()).collect()
}

#[tokio::test(start_paused = true)]
async fn what_is_outstanding_on_a_stream_follows_what_comes_back_within_bounds() {
    let rounds = outstanding(48 * MIB).await;
    assert!((MIB / 4..=MIB / 2).contains(&rounds[0]), "{rounds:?}");
    let most = *rounds.iter().max().unwrap();
    assert!((3 * MIB..=4 * MIB).contains(&most), "{rounds:?}");
    assert!(rounds.len() <= 24, "{} round trips: {rounds:?}", rounds.len());
}
