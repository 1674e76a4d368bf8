//! Trees that hold what cannot be copied, names at the limit, links' times, lent rights, and two trees of one name.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, Timespec, Timestamps};
use rustix::fs::{makedev, mkdirat, mkfifoat, mknodat, openat, utimensat};
use ssmssh::copy::{CopyError, CopyOptions, Event, Links, Location, Progress, Summary, copy, copy_until};
use tokio::sync::Notify;

use crate::copy_sftp::noise;
use crate::support::cli::LIMIT;
use crate::support::places::Place;

/// Each behaviour with copies up and down.
macro_rules! each_way {
    ($($name:ident: $from:ident to $to:ident),*) => {$(
        mod $name {
            use super::*;

            #[tokio::test]
            async fn what_is_no_file_is_named_and_never_waited_for() {
                special_files(&Place::$from().await, &Place::$to().await).await;
            }

            #[tokio::test]
            async fn a_name_of_the_greatest_length_is_kept() {
                longest_names(&Place::$from().await, &Place::$to().await).await;
            }

            #[tokio::test]
            async fn a_path_that_is_too_long_is_named_and_the_others_go_on() {
                long_sources(&Place::$from().await, &Place::$to().await).await;
            }

            #[tokio::test]
            async fn a_name_that_is_too_long_for_the_target_is_named() {
                long_targets(&Place::$from().await, &Place::$to().await).await;
            }

            #[tokio::test]
            async fn directories_of_one_name_are_merged_in_order() {
                merging(&Place::$from().await, &Place::$to().await).await;
            }

            #[tokio::test]
            async fn the_times_of_a_link_are_kept_with_the_link() {
                dated_links(&Place::$from().await, &Place::$to().await).await;
            }

            #[tokio::test]
            async fn rights_that_an_interrupted_copy_lent_are_taken_back_by_the_next() {
                lent_rights(&Place::$from().await, &Place::$to().await).await;
            }
        }
    )*};
}

each_way!(up: local to openssh, down: openssh to local);

fn recursive() -> CopyOptions {
    CopyOptions::default().recursive(true)
}

async fn run(sources: Vec<Location>, to: Location, options: CopyOptions) -> Summary {
    let copying = copy(sources, to, options, |_| {});
    tokio::time::timeout(LIMIT, copying).await.expect("nothing waits for ever").expect("a summary")
}

async fn run_whole(sources: Vec<Location>, to: Location, options: CopyOptions) {
    let summary = run(sources, to, options).await;
    assert!(summary.is_complete(), "{:?}", summary.failures);
}

fn messages(summary: &Summary) -> Vec<String> {
    let mut messages: Vec<_> = summary.failures.iter().map(ToString::to_string).collect();
    messages.sort();
    messages
}

async fn special_files(from: &Place, to: &Place) {
    from.files.make_directory("tree");
    from.files.make_directory("tree/sub");
    from.files.put("tree/file", b"x", 0o644);
    let root = from.root().join("tree");
    mkfifoat(CWD, root.join("fifo"), Mode::RWXU).expect("made");
    let _socket = UnixListener::bind(root.join("socket")).expect("bound");
    symlink("/dev/zero", root.join("zero")).expect("made");
    symlink("..", root.join("sub/loop")).expect("made");
    symlink("fifo", root.join("to fifo")).expect("made");
    let mut names = vec!["fifo", "socket", "to fifo", "zero"];
    // Only root may make devices.
    if mknodat(CWD, root.join("device"), FileType::CharacterDevice, Mode::RWXU, makedev(1, 5)).is_ok() {
        names.insert(0, "device");
    }
    let summary = run(vec![from.at("tree")], to.at("copy"), recursive()).await;
    let special = names
        .iter()
        .map(|name| format!("{}: is neither a regular file nor a directory", from.shown(&format!("tree/{name}"))));
    let back = format!("{}: the link leads back to a directory that it is in", from.shown("tree/sub/loop"));
    let mut expected: Vec<_> = special.chain([back]).collect();
    expected.sort();
    assert_eq!(messages(&summary), expected);
    assert_eq!(to.files.all(), [&b"copy/"[..], b"copy/file", b"copy/sub/"], "and nothing else is made");
}

async fn longest_names(from: &Place, to: &Place) {
    from.files.make_directory("tree");
    let names = ["x".repeat(255).into_bytes(), format!("{}x", "é".repeat(127)).into_bytes(), vec![0xff; 255]];
    for name in &names {
        from.files.put([b"tree/", &name[..]].concat(), name, 0o644);
    }
    run_whole(vec![from.at("tree")], to.at("copy"), recursive()).await;
    for name in &names {
        assert_eq!(to.files.read([b"copy/", &name[..]].concat()).as_ref(), Some(name));
    }
    assert_eq!(to.files.all().len(), 4, "nothing temporary is left");
}

/// A chain of directories with names of `length` bytes, made without its whole path.
fn make_chain(base: &Path, length: usize, count: usize) {
    let flags = OFlags::DIRECTORY | OFlags::RDONLY;
    let mut directory = openat(CWD, base, flags, Mode::empty()).expect("opened");
    let name = "d".repeat(length);
    for _ in 0..count {
        mkdirat(&directory, &name, Mode::RWXU).expect("made");
        directory = openat(&directory, &name, flags, Mode::empty()).expect("opened");
    }
}

/// Only this way: OpenSSH's server leaves out of a listing what is at a path that is too long for it.
#[tokio::test]
async fn a_path_that_is_too_long_in_a_tree_is_named_and_the_rest_is_copied() {
    let (from, to) = (Place::local().await, Place::openssh().await);
    // The target's paths stay short enough.
    let base = vec!["b".repeat(200); 10].join("/");
    fs::create_dir_all(from.root().join(&base).join("tree")).expect("made");
    from.files.put(format!("{base}/tree/file"), b"x", 0o644);
    make_chain(&from.root().join(&base).join("tree"), 100, 30);
    let summary = run(vec![from.at(format!("{base}/tree"))], to.at("copy"), recursive()).await;
    let told = messages(&summary);
    assert_eq!(told.len(), 1, "{told:?}");
    let start = from.shown(&format!("{base}/tree/ddd"));
    assert!(
        told[0].starts_with(&start) && told[0].ends_with("d: the name or the path is too long for that side"),
        "{told:?}"
    );
    assert_eq!(to.files.read("copy/file").as_deref(), Some(&b"x"[..]));
    assert!(to.files.all().len() > 15, "directories on the way are made");
}

async fn long_sources(from: &Place, to: &Place) {
    from.files.put("file", b"x", 0o644);
    to.files.make_directory("into");
    let long = vec!["d".repeat(100); 50].join("/");
    let summary = run(vec![from.at(&long), from.at("file")], to.at("into"), recursive()).await;
    assert_eq!(messages(&summary), [format!("{}: the name or the path is too long for that side", from.shown(&long))]);
    assert_eq!(to.files.read("into/file").as_deref(), Some(&b"x"[..]));
}

async fn long_targets(from: &Place, to: &Place) {
    from.files.put("file", b"x", 0o644);
    let name = "x".repeat(300);
    let summary = run(vec![from.at("file")], to.at(&name), recursive()).await;
    assert_eq!(messages(&summary), [format!("{}: the name or the path is too long for that side", to.shown(&name))]);
    assert_eq!(to.files.all(), Vec::<Vec<u8>>::new());
}

async fn merging(from: &Place, to: &Place) {
    for (number, side) in ["a", "b", "c"].iter().enumerate() {
        from.files.make_directory(side);
        from.files.make_directory(format!("{side}/x"));
        from.files.put(format!("{side}/x/only {side}"), b"x", 0o644);
        for file in 0..40 {
            // The first is the largest, so that it would end last.
            let content = noise(1 + (3 - number) * file * 1000, number as u64 * 2 + 1);
            from.files.put(format!("{side}/x/{file}"), &content, 0o644);
        }
    }
    to.files.make_directory("into");
    run_whole(["a/x", "b/x", "c/x"].map(|name| from.at(name)).into(), to.at("into"), recursive()).await;
    for file in 0..40 {
        let read = |place: &Place, name: String| place.files.read(name).expect("there");
        assert!(read(to, format!("into/x/{file}")) == read(from, format!("c/x/{file}")), "{file}: the last one wins");
    }
    // Contents of directories, one after the other, into one that is there.
    run_whole(["b/x/.", "a/x/."].map(|name| from.at(name)).into(), to.at("into"), recursive()).await;
    assert!(to.files.read("into/7") == from.files.read("a/x/7"));
    for side in ["a", "b", "c"] {
        assert!(to.files.read(format!("into/x/only {side}")).is_some(), "they are merged");
    }
}

fn modified(path: &Path) -> i64 {
    fs::symlink_metadata(path).expect("there").mtime()
}

async fn dated_links(from: &Place, to: &Place) {
    from.files.make_directory("tree");
    from.files.put("tree/file", b"x", 0o644);
    let link = from.root().join("tree/link");
    symlink("file", &link).expect("made");
    symlink("nowhere", from.root().join("tree/dangling")).expect("made");
    let then = Timespec { tv_sec: 1_000_000_000, tv_nsec: 0 };
    let times = Timestamps { last_access: then, last_modification: then };
    for name in ["link", "dangling"] {
        utimensat(CWD, from.root().join("tree").join(name), &times, AtFlags::SYMLINK_NOFOLLOW).expect("dated");
    }
    let keeping = || recursive().links(Links::Keep);
    run_whole(vec![from.at("tree")], to.at("plain"), keeping()).await;
    run_whole(vec![from.at("tree")], to.at("kept"), keeping().preserve(true)).await;
    let file = modified(&from.root().join("tree/file"));
    let root = to.root();
    assert_eq!(["kept/link", "kept/dangling"].map(|name| modified(&root.join(name))), [1_000_000_000; 2]);
    assert_eq!(modified(&root.join("kept/file")), file, "what the link leads to has its own");
    assert!(modified(&root.join("plain/link")) > 1_000_000_000, "only when asked for");
}

async fn lent_rights(from: &Place, to: &Place) {
    const SIZE: usize = 24 << 20;
    from.files.make_directory("tree");
    from.files.make_directory("tree/sub");
    from.files.put("tree/sub/big", &noise(SIZE, 5), 0o644);
    from.files.set_modified("tree/sub/big", 1_000_000_000);
    for directory in ["tree/sub", "tree"] {
        from.files.set_mode(directory, 0o550);
    }
    let state = tempfile::tempdir().expect("a directory");
    for preserve in [false, true] {
        let name = format!("copy {preserve}");
        let options = || recursive().preserve(preserve).journal(state.path().join("copies"));
        let enough = Notify::new();
        let note = |progress: Progress<'_>| {
            if matches!(progress.event, Event::Advanced { written, .. } if written > 2 << 20) {
                enough.notify_one();
            }
        };
        let (source, target) = (vec![from.at("tree")], to.at(&name));
        let stopped = copy_until(source.clone(), target.clone(), options(), note, enough.notified()).await;
        assert!(matches!(stopped, Err(CopyError::Stopped { can_resume: true })), "{stopped:?}");
        let modes = || [&name, &format!("{name}/sub")].map(|name| to.files.mode(name));
        assert_eq!(modes(), [0o750; 2], "lent while it is filled");
        run_whole(source, target, options()).await;
        assert_eq!(modes(), [0o550; 2], "-p: {preserve}");
        assert!(to.files.read(format!("{name}/sub/big")) == from.files.read("tree/sub/big"));
        let [inner, outer] = [format!("{name}/sub"), name].map(|name| to.root().join(name));
        make_writable(&[outer, inner]);
    }
    make_writable(&["tree", "tree/sub"].map(|name| from.root().join(name)));
}

/// So that whoever is not root can remove what is in them.
fn make_writable(directories: &[PathBuf]) {
    for directory in directories {
        fs::set_permissions(directory, fs::Permissions::from_mode(0o755)).expect("changed");
    }
}
