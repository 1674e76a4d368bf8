//! One suite of behaviours for every kind of side that a copy can have.

use std::time::{Duration, SystemTime};

use ssmssh::copy::{CopyError, CopyOptions, FileKind, Location, Summary, copy};

use crate::copy_sftp::noise;
use crate::support::places::Place;

/// Each behaviour on each of these places, the other side being this machine's disk.
macro_rules! on_every_endpoint {
    ($($place:ident)*) => {$(
        mod $place {
            use super::*;

            #[tokio::test]
            async fn a_file_of_any_size_arrives_whole() {
                sizes(&Place::$place().await).await;
            }

            #[tokio::test]
            async fn any_name_but_one_with_a_slash_is_kept_byte_for_byte() {
                names(&Place::$place().await).await;
            }

            #[tokio::test]
            async fn a_file_is_replaced_as_a_whole_and_keeps_its_permissions() {
                replacing(&Place::$place().await).await;
            }

            #[tokio::test]
            async fn permissions_are_the_sources_less_the_umask_or_the_sources() {
                modes(&Place::$place().await).await;
            }

            #[tokio::test]
            async fn times_are_kept_when_asked_for() {
                times(&Place::$place().await).await;
            }

            #[tokio::test]
            async fn a_tree_arrives_with_its_empty_files_and_directories() {
                trees(&Place::$place().await).await;
            }

            #[tokio::test]
            async fn a_missing_source_is_told_and_the_others_go_on() {
                missing_source(&Place::$place().await).await;
            }

            #[tokio::test]
            async fn without_its_directory_a_target_is_refused_and_nothing_is_made() {
                missing_directory(&Place::$place().await).await;
            }

            #[tokio::test]
            async fn a_file_and_a_directory_do_not_replace_each_other() {
                in_the_way(&Place::$place().await).await;
            }

            #[tokio::test]
            async fn a_listing_names_everything_with_its_kind_and_size() {
                listing(&Place::$place().await).await;
            }

            #[tokio::test]
            async fn what_is_there_and_what_is_not_are_told_apart() {
                questions(&Place::$place().await).await;
            }
        }
    )*};
}

on_every_endpoint!(memory local embedded openssh);

/// What can be expected where nothing can be asked.
mod scp {
    use super::*;

    #[tokio::test]
    async fn a_file_of_any_size_arrives_whole() {
        sizes(&Place::scp().await).await;
    }

    #[tokio::test]
    async fn a_file_is_replaced_and_keeps_its_permissions() {
        replacing(&Place::scp().await).await;
    }

    #[tokio::test]
    async fn permissions_are_the_sources_less_the_umask_or_the_sources() {
        modes(&Place::scp().await).await;
    }

    #[tokio::test]
    async fn times_are_kept_when_asked_for() {
        times(&Place::scp().await).await;
    }

    #[tokio::test]
    async fn a_missing_source_is_told_and_the_others_go_on() {
        missing_source(&Place::scp().await).await;
    }

    #[tokio::test]
    async fn without_its_directory_a_target_is_refused_and_nothing_is_made() {
        missing_directory(&Place::scp().await).await;
    }
}

/// Long enough for several pieces, and for several of them under way.
const LARGE: usize = 3 << 20;

/// Names that careless programs break: as an option, a pattern, a host, a line, a home directory, as text.
const ODD_NAMES: [&[u8]; 10] =
    [b" a b ", b"quo'te\"s\\", b"two\nlines", b"\xff\xfe\x80", b"-r", b"~", b"*?[x]", b"a:b", b"\xc3\xa9", b"..."];

async fn run(from: Location, to: Location, options: CopyOptions) -> Summary {
    copy(vec![from], to, options, |_| {}).await.expect("a summary")
}

async fn run_whole(from: Location, to: Location, options: CopyOptions) {
    let summary = run(from, to, options).await;
    assert!(summary.is_complete(), "{:?}", summary.failures);
}

fn plain() -> CopyOptions {
    CopyOptions::default()
}

fn recursive() -> CopyOptions {
    plain().recursive(true)
}

fn preserving() -> CopyOptions {
    plain().preserve(true)
}

fn texts(summary: &Summary) -> Vec<String> {
    let mut messages: Vec<_> = summary.failures.iter().map(|failure| failure.to_string().to_lowercase()).collect();
    messages.sort();
    messages
}

async fn sizes(place: &Place) {
    let here = Place::local().await;
    for size in [0, 1, 4096, 32 << 10, LARGE + 17] {
        let content = noise(size, 7);
        here.files.put("file", &content, 0o644);
        run_whole(here.at("file"), place.at("there"), plain()).await;
        assert!(place.files.read("there").as_ref() == Some(&content), "{size} bytes up");
        run_whole(place.at("there"), here.at("back"), plain()).await;
        assert!(here.files.read("back").as_ref() == Some(&content), "{size} bytes down");
    }
    assert_eq!((place.files.all().len(), here.files.all().len()), (1, 2), "nothing else is left");
}

async fn names(place: &Place) {
    let here = Place::local().await;
    here.files.make_directory("from");
    for name in ODD_NAMES {
        here.files.put([b"from/", name].concat(), name, 0o644);
    }
    run_whole(here.at("from"), place.at("tree"), recursive()).await;
    run_whole(place.at("tree"), here.at("back"), recursive()).await;
    place.files.make_directory("one");
    for name in ODD_NAMES {
        assert_eq!(place.files.read([b"tree/", name].concat()).as_deref(), Some(name), "in a tree, up");
        assert_eq!(here.files.read([b"back/", name].concat()).as_deref(), Some(name), "in a tree, down");
        let (inside, copied) = ([b"tree/", name].concat(), [b"one/", name].concat());
        run_whole(here.at([b"from/", name].concat()), place.at(&copied), plain()).await;
        assert_eq!(place.files.read(&copied).as_deref(), Some(name), "by its name, up");
        run_whole(place.at(inside), here.at("single"), plain()).await;
        assert_eq!(here.files.read("single").as_deref(), Some(name), "by its name, down");
    }
}

async fn replacing(place: &Place) {
    let here = Place::local().await;
    for (old, new) in [(100_000, 10), (10, 100_000), (5, 0)] {
        let (old, new) = (noise(old, 1), noise(new, 2));
        here.files.put("new", &new, 0o755);
        place.files.put("file", &old, 0o640);
        run_whole(here.at("new"), place.at("file"), plain()).await;
        assert!(place.files.read("file").as_ref() == Some(&new));
        assert_eq!((place.files.mode("file"), place.files.all()), (0o640, vec![b"file".to_vec()]));
        here.files.put("old", &old, 0o600);
        run_whole(place.at("file"), here.at("old"), plain()).await;
        assert!(here.files.read("old").as_ref() == Some(&new) && here.files.mode("old") == 0o600);
    }
}

async fn modes(place: &Place) {
    let here = Place::local().await;
    for mode in [0o755, 0o640, 0o400, 0o666] {
        let name = format!("{mode:o}");
        here.files.put(&name, b"x", mode);
        run_whole(here.at(&name), place.at(&name), plain()).await;
        assert_eq!(place.files.mode(&name), mode & !place.files.umask(), "{mode:o} up");
        run_whole(here.at(&name), place.at("exact"), preserving()).await;
        assert_eq!(place.files.mode("exact"), mode, "{mode:o} up, preserved");
        run_whole(place.at("exact"), here.at("back"), preserving()).await;
        assert_eq!(here.files.mode("back"), mode, "{mode:o} down, preserved");
    }
}

async fn times(place: &Place) {
    let here = Place::local().await;
    let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
    here.files.make_directory("from");
    here.files.put("from/file", b"x", 0o644);
    here.files.set_modified("from/file", 1_000_000_000);
    here.files.set_modified("from", 1_100_000_000);
    run_whole(here.at("from"), place.at("tree"), recursive().preserve(true)).await;
    run_whole(place.at("tree"), here.at("back"), recursive().preserve(true)).await;
    run_whole(here.at("from/file"), place.at("now"), plain()).await;
    for (place, name) in [(place, "tree"), (&here, "back")] {
        assert_eq!(place.files.modified(format!("{name}/file")), at(1_000_000_000));
        assert_eq!(place.files.modified(name), at(1_100_000_000), "a directory's, set when it is full");
    }
    assert!(place.files.modified("now") > at(1_200_000_000), "only when asked for");
}

async fn trees(place: &Place) {
    let here = Place::local().await;
    for directory in ["from", "from/empty", "from/a", "from/a/b", "from/a/b/c"] {
        here.files.make_directory(directory);
    }
    for (file, length) in [("from/none", 0), ("from/a/one", 1), ("from/a/b/c/deep", 70_000)] {
        here.files.put(file, &noise(length, 3), 0o644);
    }
    for number in 0..100 {
        here.files.put(format!("from/a/b/{number}"), &noise(number * 13, 5), 0o644);
    }
    let inside = |place: &Place, root: &str| -> Vec<_> {
        let root = [root.as_bytes(), b"/"].concat();
        place.files.all().iter().filter_map(|path| Some(path.strip_prefix(&root[..])?.to_vec())).collect()
    };
    run_whole(here.at("from"), place.at("tree"), recursive()).await;
    assert_eq!(inside(place, "tree"), inside(&here, "from"));
    // Into a directory that is there, it keeps its name.
    here.files.make_directory("back");
    run_whole(place.at("tree"), here.at("back"), recursive()).await;
    assert_eq!(inside(&here, "back/tree"), inside(&here, "from"));
    let files = inside(&here, "from").into_iter().filter(|path| !path.ends_with(b"/"));
    for file in files {
        let read = |place: &Place, root: &str| place.files.read([root.as_bytes(), b"/", &file].concat());
        assert_eq!(read(&here, "back/tree"), read(&here, "from"));
    }
    let refused = run(place.at("tree"), here.at("flat"), plain()).await;
    assert!(matches!(refused.failures[0].error, CopyError::IsDirectory), "{:?}", refused.failures);
}

async fn missing_source(place: &Place) {
    let here = Place::local().await;
    for side in [place, &here] {
        side.files.put("fine", b"x", 0o644);
    }
    for (from, to) in [(place, &here), (&here, place)] {
        to.files.make_directory("into");
        let sources = vec![from.at("missing"), from.at("fine"), from.at("no/such")];
        let summary = copy(sources, to.at("into"), recursive(), |_| {}).await.expect("a summary");
        let messages = texts(&summary);
        let is_told = |name: &str| messages.iter().any(|text| text.contains(&format!("{name}: no such file")));
        assert!(messages.len() == 2 && is_told("missing") && is_told("no/such"), "{messages:?}");
        assert_eq!((summary.files, to.files.read("into/fine").as_deref()), (1, Some(&b"x"[..])));
    }
}

async fn missing_directory(place: &Place) {
    let here = Place::local().await;
    here.files.put("a", b"x", 0o644);
    here.files.put("b", b"x", 0o644);
    let summary = run(here.at("a"), place.at("no/such/name"), plain()).await;
    let messages = texts(&summary);
    assert!(messages.len() == 1 && messages[0].contains("no/such"), "{messages:?}");
    let several = copy(vec![here.at("a"), here.at("b")], place.at("none"), plain(), |_| {}).await;
    assert!(matches!(several, Err(CopyError::TargetMissing { .. })), "{several:?}");
    assert_eq!(place.files.all(), Vec::<Vec<u8>>::new());
}

async fn in_the_way(place: &Place) {
    let here = Place::local().await;
    here.files.make_directory("tree");
    here.files.put("tree/taken", b"new", 0o644);
    here.files.put("tree/fine", b"new", 0o644);
    here.files.make_directory("tree/sub");
    for directory in ["into", "into/tree", "into/tree/taken"] {
        place.files.make_directory(directory);
    }
    place.files.put("into/tree/sub", b"old", 0o644);
    let messages = texts(&run(here.at("tree"), place.at("into"), recursive()).await);
    assert_eq!(messages.len(), 2, "{messages:?}");
    assert!(messages[0].contains("tree/sub: a file is where the directory should be"), "{messages:?}");
    assert!(messages[1].contains("tree/taken: a directory is where the file should be"), "{messages:?}");
    assert_eq!(place.files.read("into/tree/sub").as_deref(), Some(&b"old"[..]));
    assert_eq!(place.files.read("into/tree/fine").as_deref(), Some(&b"new"[..]));
}

async fn listing(place: &Place) {
    place.files.make_directory("dir");
    place.files.make_directory("dir/sub");
    place.files.put("dir/sub/inner", b"not listed", 0o644);
    for (number, name) in ODD_NAMES.iter().enumerate() {
        place.files.put([b"dir/", *name].concat(), &noise(number, 1), 0o644);
    }
    let mut entries = place.endpoint.list(&place.path("dir")).await.expect("listed");
    entries.sort_by(|one, other| one.name.cmp(&other.name));
    let found = entries.iter().map(|entry| (&entry.name[..], entry.metadata.kind, entry.metadata.size));
    let is_directory = |kind: &Option<FileKind>| *kind == Some(FileKind::Directory);
    let (directories, files): (Vec<_>, Vec<_>) = found.partition(|(_, kind, _)| is_directory(kind));
    let mut expected: Vec<_> =
        (0..).zip(ODD_NAMES).map(|(size, name)| (name, Some(FileKind::File), Some(size))).collect();
    expected.sort_by_key(|(name, ..)| *name);
    assert_eq!(files, expected);
    assert_eq!(directories.iter().map(|(name, ..)| *name).collect::<Vec<_>>(), [b"sub"]);
    assert!(place.endpoint.list(&place.path("none")).await.is_err());
}

async fn questions(place: &Place) {
    let (endpoint, path) = (&place.endpoint, |name: &str| place.path(name));
    assert!(endpoint.stat(&path("dir")).await.is_err());
    assert!(endpoint.make_directory(&path("dir"), 0o755).await.expect("made"), "it is new");
    assert!(!endpoint.make_directory(&path("dir"), 0o755).await.expect("made"), "it is not new");
    assert_eq!(endpoint.stat(&path("dir")).await.expect("there").kind, Some(FileKind::Directory));
    place.files.put("dir/file", b"abc", 0o640);
    let found = endpoint.stat(&path("dir/file")).await.expect("there");
    assert_eq!((found.kind, found.size, found.mode), (Some(FileKind::File), Some(3), Some(0o640)));
    assert!(matches!(endpoint.make_directory(&path("dir/file"), 0o755).await, Err(CopyError::FileInTheWay)));
    assert!(endpoint.create(&path("dir/file"), 0o644).await.is_err(), "it never opens what is there");
    endpoint.remove(&path("dir/file")).await.expect("removed");
    assert!(endpoint.open(&path("dir/file"), 3).await.is_err());
    assert!(endpoint.remove(&path("dir/file")).await.is_err());
    assert_eq!(place.files.all(), [b"dir/"]);
}

/// Programs run copies beside each other in tasks of a runtime.
#[tokio::test]
async fn a_copy_can_be_spawned() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("a"), "text").unwrap();
    let (from, to) = (folder.path().join("a"), folder.path().join("b"));
    let copying = ssmssh::copy::copy_until(
        vec![Location::local(from)],
        Location::local(to.clone()),
        CopyOptions::default(),
        |_| {},
        std::future::pending(),
    );
    tokio::spawn(copying).await.unwrap().unwrap();
    assert_eq!(std::fs::read_to_string(to).unwrap(), "text");
}
