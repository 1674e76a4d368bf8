//! Servers that lie, break the protocol or are out of room: they gain nothing, and nothing half-written gets a name.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::BufMut as _;
use tokio::io::DuplexStream;

use crate::copy::*;
use crate::ssh::sftp::scripted::{Received, serve};
use crate::ssh::sftp::{Attributes, Sftp};

const STATVFS: &str = "statvfs@openssh.com=2";
const MIB: u64 = 1 << 20;

async fn node(stream: DuplexStream) -> RemoteEndpoint {
    RemoteEndpoint::new(Sftp::new(stream).await.unwrap(), "node")
}

async fn server(answer: impl FnMut(Received) -> Vec<u8> + Send + 'static) -> RemoteEndpoint {
    node(serve(&[], answer)).await
}

fn file(size: u64) -> Attributes {
    Attributes { size: Some(size), ..Attributes::with_permissions(0o100_644) }
}

fn directory() -> Attributes {
    Attributes::with_permissions(0o040_755)
}

fn link() -> Attributes {
    Attributes::with_permissions(0o120_777)
}

fn recursive() -> CopyOptions {
    CopyOptions::default().recursive(true)
}

/// Copies `path` of the node into `folder`.
async fn down(node: &RemoteEndpoint, path: &str, folder: &Path, options: CopyOptions) -> Result<Summary, CopyError> {
    copy(vec![Location::remote(node, path)], Location::local(folder.to_owned()), options, |_| {}).await
}

/// Copies two files of 3 bytes to the node.
pub(super) async fn up(node: &RemoteEndpoint) -> Summary {
    let folder = tempfile::tempdir().unwrap();
    let source = |name: &str| {
        fs::write(folder.path().join(name), b"abc").unwrap();
        Location::local(folder.path().join(name))
    };
    copy(vec![source("one"), source("two")], Location::remote(node, "dir"), CopyOptions::default(), |_| {})
        .await
        .unwrap()
}

pub(super) fn messages(summary: &Summary) -> Vec<String> {
    let mut messages: Vec<_> = summary.failures.iter().map(ToString::to_string).collect();
    messages.sort();
    messages
}

fn names_in(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// What of three bytes a read asks for.
fn read(request: &mut Received) -> Vec<u8> {
    let _handle = request.string();
    let offset = usize::try_from(request.u64()).unwrap();
    let end = 3.min(offset + request.u32() as usize);
    if offset >= end { request.status(1) } else { request.data(&b"abc"[offset..end]) }
}

/// A server whose directory `dir` lists `names`; whatever is read is three bytes long, every link leads to `leads_to`.
fn listing(names: Vec<(Vec<u8>, Attributes)>, leads_to: &Path) -> impl FnMut(Received) -> Vec<u8> + Send + 'static {
    use std::os::unix::ffi::OsStrExt as _;
    let leads_to = leads_to.as_os_str().as_bytes().to_vec();
    let mut is_listed = false;
    move |mut request| match request.verb {
        7 | 17 => {
            let path = request.string();
            let name = path.strip_prefix(b"dir/").unwrap_or_default();
            match names.iter().find(|(listed, _)| listed == name) {
                Some((_, attributes)) if request.verb == 7 || *attributes != link() => request.attributes(attributes),
                Some(_) => request.attributes(&directory()),
                None if path == "dir" => request.attributes(&directory()),
                None => request.status(2),
            }
        }
        8 => request.attributes(&file(3)),
        3 => request.handle(b"file"),
        11 => {
            let path = request.string();
            is_listed = path != "dir";
            request.handle(b"directory")
        }
        12 if std::mem::replace(&mut is_listed, true) => request.status(1),
        12 => request.names(&names.iter().map(|(name, attributes)| (&name[..], *attributes)).collect::<Vec<_>>()),
        19 => request.names(&[(&leads_to, Attributes::default())]),
        5 => read(&mut request),
        _ => request.status(0),
    }
}

#[tokio::test]
async fn a_link_and_a_directory_of_one_name_do_not_lead_outside() {
    let folder = tempfile::tempdir().unwrap();
    let (outside, target) = (folder.path().join("outside"), folder.path().join("target"));
    fs::create_dir_all(&outside).unwrap();
    fs::create_dir_all(&target).unwrap();
    let names = vec![(b"x".to_vec(), link()), (b"x".to_vec(), directory()), (b"y".to_vec(), link())];
    let node = server(listing(names, &outside)).await;
    let summary = down(&node, "dir", &target, recursive().links(Links::Keep)).await.unwrap();
    assert_eq!(messages(&summary), ["node:dir/x: the listing holds this name twice"]);
    assert!(target.join("dir/x").is_symlink() && target.join("dir/y").is_symlink());
    // The next copy finds the links that this one was made to plant.
    let names = vec![(b"x".to_vec(), directory()), (b"y".to_vec(), file(3))];
    let node = server(listing(names, &outside)).await;
    let summary = down(&node, "dir", &target, recursive()).await.unwrap();
    assert!(
        messages(&summary)[0]
            .ends_with("dir/x: a link is where the directory should be, and a copy does not write through it")
    );
    assert_eq!(names_in(&outside), Vec::<String>::new());
    assert_eq!(fs::read(target.join("dir/y")).unwrap(), b"abc");
    assert!(!target.join("dir/y").is_symlink(), "a file takes a link's place");
}

#[tokio::test]
async fn a_link_that_cannot_be_made_is_told_and_the_others_go_on() {
    use std::os::unix::ffi::OsStrExt as _;
    let folder = tempfile::tempdir().unwrap();
    let names = vec![(b"bad".to_vec(), link()), (b"good".to_vec(), file(3))];
    let node = server(listing(names, Path::new(std::ffi::OsStr::from_bytes(b"a\0b")))).await;
    let summary = down(&node, "dir", folder.path(), recursive().links(Links::Keep)).await.unwrap();
    assert_eq!((summary.failures.len(), names_in(&folder.path().join("dir"))), (1, vec!["good".to_owned()]));
}

#[tokio::test]
async fn a_pattern_brings_nothing_but_names_that_fit_it() {
    let folder = tempfile::tempdir().unwrap();
    let names = [&b"a.gz"[..], b"other", b"../escaped.gz", b"/tmp/escaped.gz", b".hidden.gz", b"x/b.gz"];
    let names = names.iter().map(|name| (name.to_vec(), file(3))).collect();
    let node = server(listing(names, Path::new("/"))).await;
    let source = || Location::remote(&node, "dir/*.gz").matching();
    let summary =
        copy(vec![source()], Location::local(folder.path().to_owned()), CopyOptions::default(), |_| {}).await.unwrap();
    assert_eq!((names_in(folder.path()), summary.is_complete()), (vec!["a.gz".to_owned()], true), "{summary:?}");
    let node = server(listing(vec![(b"a\0.gz".to_vec(), file(3))], Path::new("/"))).await;
    let source = Location::remote(&node, "dir/*.gz").matching();
    let summary =
        copy(vec![source], Location::local(folder.path().to_owned()), CopyOptions::default(), |_| {}).await.unwrap();
    assert!(matches!(summary.failures[0].error, CopyError::UnsafeName(_)), "{summary:?}");
}

#[tokio::test]
async fn a_listing_without_an_end_is_left() {
    for name in [vec![b'x'], vec![b'x'; 2000]] {
        let folder = tempfile::tempdir().unwrap();
        let (long, count) = (name.len() > 64, 100_000 / (name.len() + 40));
        let mut template = Vec::new();
        let node = server(move |mut request| match request.verb {
            7 | 17 => {
                let is_directory = request.string() == "dir";
                request.attributes(&if is_directory { directory() } else { file(3) })
            }
            3 | 11 => request.handle(b"h"),
            12 => {
                if template.is_empty() {
                    template = request.names(&vec![(&name[..], file(3)); count]);
                }
                // The id stands behind the length and the type.
                template[5..9].copy_from_slice(&request.id.to_be_bytes());
                template.clone()
            }
            _ => request.status(0),
        })
        .await;
        let summary = down(&node, "dir", folder.path(), recursive()).await.unwrap();
        let error = &summary.failures[0].error;
        let is_left = match error {
            CopyError::ListingTooLong(_) => long,
            CopyError::TooManyEntries(_) => !long,
            _ => false,
        };
        assert!(is_left, "{error}");
        assert_eq!((summary.files, summary.failures.len()), (0, 1));
    }
}

#[tokio::test]
async fn a_directory_that_holds_itself_is_left_in_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let mut is_listed = false;
    let node = server(move |request| match request.verb {
        7 | 17 => request.attributes(&directory()),
        11 => {
            is_listed = false;
            request.handle(b"h")
        }
        12 if std::mem::replace(&mut is_listed, true) => request.status(1),
        12 => request.names(&[(b"again", directory())]),
        _ => request.status(0),
    })
    .await;
    let summary = down(&node, "dir", folder.path(), recursive()).await.unwrap();
    assert!(matches!(&summary.failures[..], [Failure { error: CopyError::TooDeep(64), .. }]), "{summary:?}");
}

#[tokio::test]
async fn a_file_that_does_not_end_is_left_where_it_should() {
    let folder = tempfile::tempdir().unwrap();
    let node = server(|mut request| match request.verb {
        3 => request.handle(b"h"),
        8 | 17 => request.attributes(&file(MIB)),
        5 => {
            let (_handle, _offset) = (request.string(), request.u64());
            let length = request.u32() as usize;
            request.data(&vec![7; length])
        }
        _ => request.status(0),
    })
    .await;
    let summary = down(&node, "endless", folder.path(), CopyOptions::default()).await.unwrap();
    assert!(summary.is_complete() && summary.warnings.len() == 1, "{summary:?}");
    assert_eq!(std::fs::metadata(folder.path().join("endless")).unwrap().len(), MIB);
}

#[tokio::test]
async fn a_file_that_turns_out_to_be_something_else_is_not_read() {
    let folder = tempfile::tempdir().unwrap();
    for found in [directory(), Attributes::with_permissions(0o020_666)] {
        let node = server(move |request| match request.verb {
            3 => request.handle(b"h"),
            17 => request.attributes(&file(3)),
            8 => request.attributes(&found),
            _ => request.status(0),
        })
        .await;
        let summary = down(&node, "x", folder.path(), CopyOptions::default()).await.unwrap();
        assert!(matches!(&summary.failures[..], [Failure { error: CopyError::NotRegular, .. }]), "{summary:?}");
        assert_eq!(names_in(folder.path()), Vec::<String>::new());
    }
}

#[tokio::test]
async fn replies_in_another_order_are_no_harm() {
    let folder = tempfile::tempdir().unwrap();
    let content: Vec<u8> = (0..300_000u32).flat_map(u32::to_le_bytes).collect();
    let (served, mut held) = (content.clone(), Vec::new());
    let node = server(move |mut request| match request.verb {
        3 => request.handle(b"h"),
        8 | 17 => request.attributes(&file(served.len() as u64)),
        5 => {
            let (_handle, offset) = (request.string(), usize::try_from(request.u64()).unwrap());
            let end = served.len().min(offset + request.u32() as usize);
            held.push(if offset >= end { request.status(1) } else { request.data(&served[offset..end]) });
            if held.len() < 4 && end < served.len() { Vec::new() } else { held.drain(..).rev().flatten().collect() }
        }
        _ => request.status(0),
    })
    .await;
    let summary = down(&node, "x", folder.path(), CopyOptions::default()).await.unwrap();
    assert!(summary.is_complete(), "{summary:?}");
    assert!(fs::read(folder.path().join("x")).unwrap() == content);
}

/// A reply to a read that breaks the protocol.
type Broken = fn(Received) -> Vec<u8>;

#[tokio::test]
async fn a_server_that_breaks_the_protocol_ends_the_copy_and_leaves_nothing() {
    let broken: [(&str, Broken); 7] = [
        ("another id", |mut request| {
            request.id += 1000;
            request.data(b"abc")
        }),
        ("twice", |request| [request.data(b"ab"), request.data(b"ab")].concat()),
        ("too much", |request| request.data(&[0; 1000])),
        ("another type", |request| request.handle(b"h")),
        ("cut short", |request| request.reply(103, |out| out.put_u32(1000))),
        ("too long", |_| vec![0x7f, 0, 0, 0]),
        ("no reply at all", |request| request.reply(77, |_| {})),
    ];
    for (name, reply) in broken {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("x"), b"before").unwrap();
        let node = server(move |request| match request.verb {
            3 => request.handle(b"h"),
            8 | 17 => request.attributes(&file(3)),
            5 => reply(request),
            _ => request.status(0),
        })
        .await;
        let outcome = down(&node, "x", folder.path(), CopyOptions::default()).await;
        assert!(matches!(outcome, Err(CopyError::Lost { .. })), "{name}: {outcome:?}");
        assert_eq!(
            (names_in(folder.path()), fs::read(folder.path().join("x")).unwrap()),
            (vec!["x".to_owned()], b"before".to_vec()),
            "{name}"
        );
    }
}

/// A server with a directory `dir` into which files are copied; `answer` may have other answers.
pub(super) async fn taking(
    extensions: &[&str],
    mut answer: impl FnMut(&mut Received) -> Option<Vec<u8>> + Send + 'static,
) -> RemoteEndpoint {
    let stream = serve(extensions, move |mut request| match answer(&mut request) {
        Some(answer) => answer,
        None => match request.verb {
            3 => request.handle(b"h"),
            8 => request.attributes(&file(3)),
            7 | 17 => {
                let is_directory = request.string() == "dir";
                if is_directory { request.attributes(&directory()) } else { request.status(2) }
            }
            _ => request.status(0),
        },
    });
    node(stream).await
}

#[tokio::test]
async fn a_server_that_stores_less_than_it_says_is_found_out_before_the_rename() {
    for extensions in [&[][..], &["fsync@openssh.com", "posix-rename@openssh.com"]] {
        let is_renamed = Arc::new(AtomicBool::new(false));
        let noted = Arc::clone(&is_renamed);
        let node = taking(extensions, move |request| {
            let is_rename = request.verb == 18 || (request.verb == 200 && request.string() != "fsync@openssh.com");
            noted.fetch_or(is_rename, Ordering::Relaxed);
            (request.verb == 8).then(|| request.attributes(&file(0)))
        })
        .await;
        let told = ["one", "two"].map(|name| format!("node:dir/{name}: the server took 3 bytes and holds 0"));
        assert_eq!(messages(&up(&node).await), told);
        assert!(!is_renamed.load(Ordering::Relaxed), "{extensions:?}");
    }
}

/// A reply to `statvfs`: the fields that count, the others as a server has them.
pub(super) fn space(request: &Received, blocks: u64, files: u64, flags: u64) -> Vec<u8> {
    request.reply(201, |out| {
        for field in [4096, 4096, 1000, blocks, blocks, 1000, files, files, 7, flags, 255] {
            out.put_u64(field);
        }
    })
}

#[tokio::test]
async fn a_disk_that_is_full_or_read_only_is_named_when_the_server_says_no_more_than_failure() {
    let cases = [
        (6, 0, 9, 0, "no space is left on the disk"),
        (3, 1000, 0, 0, "no space is left on the disk"),
        (3, 1000, 9, 1, "the file system is read-only"),
        (6, 1000, 9, 0, "the server answered: told so"),
        (18, 1000, 9, 0, "the server does not rename the whole copy to its name: the server answered: told so"),
    ];
    for (refused, blocks, files, flags, reason) in cases {
        let node = taking(&[STATVFS], move |request| match request.verb {
            200 => Some(space(request, blocks, files, flags)),
            verb if verb == refused => Some(request.status(4)),
            _ => None,
        })
        .await;
        let told = ["one", "two"].map(|name| format!("node:dir/{name}: {reason}"));
        assert_eq!(messages(&up(&node).await), told, "{refused}");
    }
}

#[tokio::test]
async fn what_cannot_be_replaced_keeps_its_name() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("x"), b"new").unwrap();
    let there = Arc::new(Mutex::new(BTreeMap::from([("x".to_owned(), "old")])));
    let files = Arc::clone(&there);
    // Its rename replaces nothing, and the new file cannot have the name.
    let stream = serve(&[], move |mut request| {
        let (verb, name, mut files) = (request.verb, request.string(), files.lock().unwrap());
        let name = String::from_utf8(name.to_vec()).unwrap();
        match verb {
            3 => {
                files.insert(name, "new");
                request.handle(b"h")
            }
            8 => request.attributes(&file(3)),
            7 | 17 if files.contains_key(&name) => request.attributes(&file(3)),
            7 | 17 => request.status(2),
            13 => request.status(if files.remove(&name).is_some() { 0 } else { 2 }),
            18 => {
                let to = String::from_utf8(request.string().to_vec()).unwrap();
                if files.contains_key(&to) || (files.get(&name) == Some(&"new")) {
                    return request.status(4);
                }
                let content = files.remove(&name);
                files.extend(content.map(|content| (to, content)));
                request.status(0)
            }
            _ => request.status(0),
        }
    });
    let target = Location::remote(&node(stream).await, "x");
    let source = Location::local(folder.path().join("x"));
    let summary = copy(vec![source], target, CopyOptions::default(), |_| {}).await.unwrap();
    assert_eq!(
        messages(&summary),
        ["node:x: the server does not rename the whole copy to its name: the server answered: told so"]
    );
    assert_eq!(*there.lock().unwrap(), BTreeMap::from([("x".to_owned(), "old")]));
}

#[tokio::test]
async fn without_room_for_one_file_the_others_go_on() {
    let node = taking(&[STATVFS], {
        let mut opened = 0;
        move |request| match request.verb {
            200 => Some(space(request, 0, 9, 0)),
            3 => {
                opened += 1;
                Some(request.handle(&[opened]))
            }
            6 => {
                let is_first = request.string() == [1][..];
                is_first.then(|| request.status(4))
            }
            _ => None,
        }
    })
    .await;
    let summary = up(&node).await;
    assert_eq!((summary.files, summary.failures.len()), (1, 1), "{summary:?}");
    assert!(matches!(summary.failures[0].error, CopyError::DiskFull));
}

#[tokio::test]
async fn a_disk_that_is_full_at_the_last_write_is_named() {
    for (blocks, reason) in [(0, "no space is left on the disk"), (1000, "the server took 3 bytes and holds 0")] {
        let node = taking(&[STATVFS], move |request| match request.verb {
            200 => Some(space(request, blocks, 9, 0)),
            8 => Some(request.attributes(&file(0))),
            _ => None,
        })
        .await;
        let told = ["one", "two"].map(|name| format!("node:dir/{name}: {reason}"));
        assert_eq!(messages(&up(&node).await), told);
    }
}
