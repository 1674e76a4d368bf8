//! Files that vanish, shrink, grow or change while they are copied, here and on nodes.

use std::fs::{self, File, FileTimes};
use std::os::unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, SystemTime};

use tokio::io::AsyncReadExt as _;

use ssmssh::copy::{CopyOptions, Event, Location, Progress, Summary, copy};

use crate::copy_cli::until;
use crate::copy_sftp::noise;
use crate::support::places::Place;

/// Each behaviour with a source of each of these kinds.
macro_rules! from_every_source {
    ($($name:ident: $from:ident to $to:ident),*) => {$(
        mod $name {
            use super::*;

            #[tokio::test]
            async fn a_file_that_vanishes_before_it_is_opened_is_named_and_the_others_go_on() {
                vanishing(&Place::$from().await, &Place::$to().await).await;
            }

            #[tokio::test]
            async fn a_file_that_is_cut_short_while_it_is_read_is_named_and_the_others_go_on() {
                let cut = |path: &Path| open(path).set_len(8 << 20).expect("cut");
                changing(&Place::$from().await, &Place::$to().await, cut, "became shorter while it was read: ").await;
            }

            #[tokio::test]
            async fn a_file_that_is_appended_to_while_it_is_read_arrives_as_it_was_and_is_told_once() {
                growing(&Place::$from().await, &Place::$to().await).await;
            }

            #[tokio::test]
            async fn a_file_that_is_appended_to_and_rewritten_while_it_is_read_is_named_and_the_others_go_on() {
                let rewrite = |path: &Path| {
                    write_in_place(path);
                    append(path);
                };
                changing(&Place::$from().await, &Place::$to().await, rewrite, "was changed while it was read").await;
            }

            #[tokio::test]
            async fn a_file_that_is_written_to_while_it_is_read_is_named_and_the_others_go_on() {
                let write = |path: &Path| {
                    write_in_place(path);
                    date(path, SystemTime::now() + Duration::from_mins(1));
                };
                changing(&Place::$from().await, &Place::$to().await, write, "was changed while it was read").await;
            }
        }
    )*};
}

from_every_source!(up: local to openssh, up_to_sshd: local to sshd, down: openssh to local, down_from_sshd: sshd to local,
    down_from_the_lab: embedded to local);

/// More than may be in flight, so that what is done at its first progress is done before it is read to its end.
const SIZE: u64 = 24 << 20;

fn recursive() -> CopyOptions {
    CopyOptions::default().recursive(true)
}

fn open(path: &Path) -> File {
    File::options().write(true).open(path).expect("there")
}

fn append(path: &Path) {
    open(path).write_all_at(b"more", SIZE).expect("written");
}

/// Changes what was read first.
fn write_in_place(path: &Path) {
    open(path).write_all_at(b"torn", 0).expect("written");
}

fn date(path: &Path, modified: SystemTime) {
    open(path).set_times(FileTimes::new().set_modified(modified)).expect("dated");
}

/// Copies, and calls `meddle` once, as soon as `is_time`.
async fn copy_while(
    (from, to): (Location, Location),
    options: CopyOptions,
    is_time: impl Fn(&Event<'_>) -> bool + Send + Sync,
    meddle: impl FnOnce() + Send,
) -> Summary {
    let meddle = Mutex::new(Some(meddle));
    let note = |progress: Progress<'_>| {
        if is_time(&progress.event)
            && let Some(meddle) = meddle.lock().expect("no panic").take()
        {
            meddle();
        }
    };
    let summary = copy(vec![from], to, options, note).await.expect("a summary");
    assert!(meddle.lock().expect("no panic").is_none(), "the time has come");
    summary
}

fn messages(summary: &Summary) -> Vec<String> {
    summary.failures.iter().map(ToString::to_string).collect()
}

fn names_in(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).expect("a directory");
    let mut names: Vec<_> =
        entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

async fn vanishing(from: &Place, to: &Place) {
    for directory in ["tree", "tree/sub"] {
        from.files.make_directory(directory);
    }
    for name in ["tree/a", "tree/gone", "tree/sub/b"] {
        from.files.put(name, name.as_bytes(), 0o644);
    }
    let gone = from.root().join("tree/gone");
    let is_time =
        |event: &Event<'_>| matches!(event, Event::Started { path, .. } if path.as_bytes().ends_with(b"/gone"));
    let remove = || fs::remove_file(&gone).expect("removed");
    let summary = copy_while((from.at("tree"), to.at("copy")), recursive(), is_time, remove).await;
    assert_eq!(messages(&summary), [format!("{}: no such file or directory", from.shown("tree/gone"))]);
    assert_eq!((summary.files, names_in(&to.root().join("copy"))), (2, vec!["a".to_owned(), "sub".to_owned()]));
    assert_eq!(to.files.read("copy/sub/b").as_deref(), Some(&b"tree/sub/b"[..]));
}

/// A tree with a file of `SIZE`, whose copy replaces another.
fn make_tree(from: &Place, to: &Place) -> PathBuf {
    from.files.make_directory("tree");
    from.files.put("tree/big", &noise(usize::try_from(SIZE).expect("small"), 3), 0o644);
    from.files.put("tree/other", b"x", 0o644);
    for directory in ["copy", "copy/tree"] {
        to.files.make_directory(directory);
    }
    to.files.put("copy/tree/big", b"before", 0o644);
    from.root().join("tree/big")
}

fn is_under_way(event: &Event<'_>) -> bool {
    matches!(event, Event::Advanced { path, .. } if path.as_bytes().ends_with(b"/big"))
}

async fn changing(from: &Place, to: &Place, change: impl FnOnce(&Path) + Send, reason: &str) {
    let big = make_tree(from, to);
    let both = (from.at("tree"), to.at("copy"));
    let summary = copy_while(both, recursive(), is_under_way, || change(&big)).await;
    let told = messages(&summary);
    let expected = format!("{}: {reason}", from.shown("tree/big"));
    assert!(told.len() == 1 && told[0].starts_with(&expected), "{told:?}, not {expected}");
    check_kept(to, &summary);
}

async fn growing(from: &Place, to: &Place) {
    let big = make_tree(from, to);
    let before = from.files.read("tree/big");
    let both = (from.at("tree"), to.at("copy"));
    let summary = copy_while(both, recursive(), is_under_way, || append(&big)).await;
    assert!(summary.is_complete() && summary.files == 2, "{:?}", summary.failures);
    check_growth(&summary, &from.shown("tree/big"));
    assert!(to.files.read("copy/tree/big") == before, "the first bytes, and no more");
}

fn check_growth(summary: &Summary, name: &str) {
    let told: Vec<_> = summary.warnings.iter().map(ToString::to_string).collect();
    let words = "became longer while it was read; the copy is the file as it was when it was opened";
    assert_eq!(told, [format!("{name}: {words}")]);
}

#[tokio::test]
async fn what_goes_into_a_pipe_from_a_file_that_grows_is_the_file_as_it_was() {
    let (from, to) = (Place::openssh().await, Place::local().await);
    let big = make_tree(&from, &to);
    let before = from.files.read("tree/big").expect("there");
    let (here, mut there) = tokio::io::duplex(64 * 1024);
    let reading = tokio::spawn(async move {
        let mut got = Vec::new();
        there.read_to_end(&mut got).await.map(|_| got)
    });
    let both = (from.at("tree/big"), Location::writer("out", here));
    let summary = copy_while(both, CopyOptions::default(), is_under_way, || append(&big)).await;
    assert!(summary.is_complete(), "{:?}", summary.failures);
    check_growth(&summary, &from.shown("tree/big"));
    assert!(reading.await.expect("no panic").expect("read") == before);
}

/// The target is as it was, and the other file has arrived.
fn check_kept(to: &Place, summary: &Summary) {
    assert_eq!(to.files.read("copy/tree/big").as_deref(), Some(&b"before"[..]));
    assert_eq!(
        (summary.files, names_in(&to.root().join("copy/tree"))),
        (1, vec!["big".to_owned(), "other".to_owned()])
    );
}

/// Waits until whatever is done to a file from now on gives it another time than it has.
async fn let_the_clock_tick(path: &Path) {
    let changed = |path: &Path| fs::metadata(path).map(|found| (found.ctime(), found.ctime_nsec())).expect("there");
    let probe = path.with_file_name("probe");
    until("the clock ticks", || {
        fs::write(&probe, b"").expect("written");
        changed(&probe) > changed(path)
    })
    .await;
    fs::remove_file(probe).expect("removed");
}

#[tokio::test]
async fn a_file_of_this_machine_that_is_written_to_and_dated_back_is_found_out() {
    let (from, to) = (Place::local().await, Place::openssh().await);
    let big = make_tree(&from, &to);
    let before = fs::metadata(&big).unwrap().modified().unwrap();
    let_the_clock_tick(&big).await;
    let change = || {
        write_in_place(&big);
        date(&big, before);
    };
    let summary = copy_while((from.at("tree"), to.at("copy")), recursive(), is_under_way, change).await;
    assert_eq!(messages(&summary), [format!("{}: was changed while it was read", from.shown("tree/big"))]);
    check_kept(&to, &summary);
}

#[tokio::test]
async fn a_file_of_this_machine_whose_mode_is_changed_is_copied_all_the_same() {
    let (from, to) = (Place::local().await, Place::openssh().await);
    let big = make_tree(&from, &to);
    let_the_clock_tick(&big).await;
    let change = || fs::set_permissions(&big, fs::Permissions::from_mode(0o600)).unwrap();
    let summary = copy_while((from.at("tree"), to.at("copy")), recursive(), is_under_way, change).await;
    assert!(summary.is_complete(), "{:?}", summary.failures);
    assert!(to.files.read("copy/tree/big") == from.files.read("tree/big"));
}

#[tokio::test]
async fn a_file_of_a_node_that_is_written_to_and_dated_back_is_found_out_by_verifying() {
    let (from, to) = (Place::openssh().await, Place::local().await);
    let big = make_tree(&from, &to);
    let before = fs::metadata(&big).unwrap().modified().unwrap();
    let change = || {
        write_in_place(&big);
        date(&big, before);
    };
    let both = (from.at("tree"), to.at("copy"));
    let summary = copy_while(both, recursive().verify(true), is_under_way, change).await;
    let told = messages(&summary);
    assert!(told.len() == 1 && told[0].contains("differs from the file on node by SHA-256"), "{told:?}");
    check_kept(&to, &summary);
}
