//! What is forced to the disk before a file gets its name, and what becomes of a copy whose node is started anew.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use proptest::prelude::*;
use tokio::io::DuplexStream;
use tokio::sync::Notify;

use super::striped::content;
use crate::copy::*;
use crate::ssh::sftp::scripted::serve_some;
use crate::ssh::sftp::{Attributes, Sftp};

const MIB: usize = 1 << 20;

/// A file, and what of it would be there after a loss of power.
#[derive(Debug, Default)]
struct File {
    content: Vec<u8>,
    forced: Vec<u8>,
}

#[derive(Debug, Default)]
struct Machine {
    files: BTreeMap<Vec<u8>, File>,
    /// Files that got their names before all of them was forced to the disk.
    hasty: Vec<Vec<u8>>,
}

type Node = Arc<Mutex<Machine>>;

impl Machine {
    fn rename(&mut self, from: &[u8], to: &[u8]) {
        let file = self.files.remove(from).expect("it exists");
        if file.content != file.forced {
            self.hasty.push(to.to_vec());
        }
        self.files.insert(to.to_vec(), file);
    }

    /// The only file, whatever its name is.
    fn only(&mut self) -> &mut File {
        assert_eq!(self.files.len(), 1);
        self.files.values_mut().next().expect("one")
    }
}

/// OpenSSH's server as far as a copy needs it, gone after so many requests. A handle is the name that the file had.
fn server(node: &Node, requests: usize) -> DuplexStream {
    let node = Arc::clone(node);
    let attributes =
        |file: &File| Attributes { size: Some(file.content.len() as u64), ..Attributes::with_permissions(0o100_600) };
    serve_some(&["fsync@openssh.com", "posix-rename@openssh.com"], requests, move |mut request| {
        let mut machine = node.lock().unwrap();
        let name = request.string().to_vec();
        match request.verb {
            3 => {
                if request.u32() & 8 != 0 {
                    machine.files.insert(name.clone(), File::default());
                } else if !machine.files.contains_key(&name) {
                    return request.status(2);
                }
                request.handle(&name)
            }
            5 => {
                let (content, from) = (&machine.files[&name].content, usize::try_from(request.u64()).unwrap());
                let to = content.len().min(from + request.u32() as usize);
                if from >= to { request.status(1) } else { request.data(&content[from..to]) }
            }
            6 => {
                let (from, data) = (usize::try_from(request.u64()).unwrap(), request.string());
                let content = &mut machine.files.get_mut(&name).unwrap().content;
                content.resize(content.len().max(from + data.len()), 0);
                content[from..from + data.len()].copy_from_slice(&data);
                request.status(0)
            }
            7 | 8 | 17 => match machine.files.get(&name) {
                Some(file) => request.attributes(&attributes(file)),
                None => request.status(2),
            },
            13 => request.status(if machine.files.remove(&name).is_some() { 0 } else { 2 }),
            200 if name == b"fsync@openssh.com" => {
                let file = machine.files.get_mut(&request.string()[..]).unwrap();
                file.forced.clone_from(&file.content);
                request.status(0)
            }
            200 => {
                let (from, to) = (request.string(), request.string());
                machine.rename(&from, &to);
                request.status(0)
            }
            _ => request.status(0),
        }
    })
}

async fn endpoint(node: &Node, lives: &[usize]) -> RemoteEndpoint {
    let endpoint = RemoteEndpoint::new(Sftp::new(server(node, lives[0])).await.unwrap(), "node");
    for requests in &lives[1..] {
        endpoint.add(Sftp::new(server(node, *requests)).await.unwrap());
    }
    endpoint
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn a_file_gets_its_name_with_all_its_bytes_forced_whatever_carried_them(
        lengths in proptest::collection::vec(prop_oneof![1..100_000usize, 300_000..2_000_000usize], 1..6),
        lives in proptest::collection::vec(10..80usize, 0..3),
    ) {
        let (node, folder) = (Node::default(), tempfile::tempdir().unwrap());
        let sources = lengths.iter().enumerate().map(|(number, length)| {
            let path = folder.path().join(number.to_string());
            std::fs::write(&path, content(*length)).unwrap();
            path
        });
        let sources: Vec<_> = sources.map(Location::local).collect();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let copied = runtime.block_on(async {
            let lives: Vec<_> = lives.iter().copied().chain([usize::MAX, usize::MAX]).collect();
            let endpoint = endpoint(&node, &lives).await;
            let copies = sources.into_iter().enumerate().map(|(number, source)| {
                let target = Location::remote(&endpoint, format!("{number}").as_str());
                copy(vec![source], target, CopyOptions::default(), |_| {})
            });
            futures_util::future::join_all(copies).await
        });
        let node = node.lock().unwrap();
        for (number, (copied, length)) in copied.into_iter().zip(lengths).enumerate() {
            prop_assert!(copied.is_ok_and(|summary| summary.is_complete()));
            prop_assert!(node.files[number.to_string().as_bytes()].content == content(length));
        }
        prop_assert!(node.hasty.is_empty(), "{:?}", node.hasty);
    }
}

/// An upload of 48 MiB that is interrupted at 44, after which the node is started anew. What the next runs of the same copy
/// come to.
async fn restarted(restart: impl Fn(&mut Machine)) -> (Node, Vec<Summary>) {
    let (node, folder) = (Node::default(), tempfile::tempdir().unwrap());
    let source = folder.path().join("source");
    std::fs::write(&source, content(48 * MIB)).unwrap();
    let options = || CopyOptions::default().journal(folder.path().join("copies"));
    let first = endpoint(&node, &[usize::MAX, usize::MAX]).await;
    let enough = Notify::new();
    let watch = |progress: Progress<'_>| {
        if progress.totals.bytes_done >= 44 * MIB as u64 {
            enough.notify_one();
        }
    };
    let target = Location::remote(&first, "copy");
    let stopped = copy_until(vec![Location::local(source.clone())], target, options(), watch, enough.notified()).await;
    assert!(matches!(stopped, Err(CopyError::Stopped { can_resume: true })), "{stopped:?}");
    drop(first);
    restart(&mut node.lock().unwrap());
    let mut summaries = Vec::new();
    while summaries.last().is_none_or(|last: &Summary| !last.is_complete()) && summaries.len() < 3 {
        let again = endpoint(&node, &[usize::MAX, usize::MAX]).await;
        let (source, target) = (Location::local(source.clone()), Location::remote(&again, "copy"));
        summaries.push(copy(vec![source], target, options(), |_| {}).await.unwrap());
    }
    assert!(std::fs::read_dir(folder.path().join("copies")).unwrap().count() == 0, "a journal is left");
    (node, summaries)
}

fn check_whole(node: &Node) {
    let mut node = node.lock().unwrap();
    assert!(node.only().content == content(48 * MIB) && node.hasty.is_empty());
    assert!(node.files.contains_key(&b"copy"[..]));
}

#[tokio::test]
async fn what_a_restart_left_of_a_file_is_gone_on_with_and_the_rest_is_sent_again() {
    let cut = |length| move |machine: &mut Machine| machine.only().content.truncate(length);
    for (length, is_kept) in [(40 * MIB, true), (32 * MIB, false), (0, false)] {
        let (node, summaries) = restarted(cut(length)).await;
        assert_eq!((summaries.len(), summaries[0].bytes_kept > 0), (1, is_kept), "{length}: {summaries:?}");
        assert!(summaries[0].bytes_kept <= (length / 2) as u64, "{summaries:?}");
        check_whole(&node);
    }
    let (node, summaries) = restarted(|machine| machine.files.clear()).await;
    assert_eq!((summaries.len(), summaries[0].bytes_kept), (1, 0));
    check_whole(&node);
}

#[tokio::test]
async fn a_restart_that_left_zeros_behind_never_gets_them_under_the_name() {
    let (node, summaries) = restarted(|machine| machine.only().content.fill(0)).await;
    assert_eq!((summaries.len(), summaries[0].bytes_kept), (1, 0), "the samples tell");
    check_whole(&node);
    // Where no sample is taken only the comparison of the whole tells.
    let hole = |machine: &mut Machine| machine.only().content[5 * MIB..5 * MIB + 4096].fill(0);
    let (node, summaries) = restarted(hole).await;
    assert!(matches!(summaries[0].failures[0].error, CopyError::Differs { .. }), "{summaries:?}");
    assert_eq!((summaries.len(), summaries[1].bytes_kept), (2, 0));
    check_whole(&node);
}
