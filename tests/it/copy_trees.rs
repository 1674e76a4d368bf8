//! Links, patterns and holes, to and from real servers.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt as _, MetadataExt as _, symlink};
use std::path::{Path, PathBuf};

use ssmssh::copy::{CopyOptions, Exclude, Links, Location, Skip, Summary, copy};

use crate::support::places::{Files, Place};

const MIB: u64 = 1 << 20;

fn root(place: &Place) -> &Path {
    let Files::Disk(path) = &place.files else { panic!("not on a disk") };
    path
}

fn recursive() -> CopyOptions {
    CopyOptions::default().recursive(true)
}

async fn run_whole(from: Location, to: Location, options: CopyOptions) -> Summary {
    let summary = copy(vec![from], to, options, |_| {}).await.expect("a summary");
    assert!(summary.is_complete(), "{:?}", summary.failures);
    summary
}

/// There and back between this machine and `place`.
async fn links(place: &Place) {
    let here = Place::local().await;
    let options = || recursive().links(Links::Keep);
    here.files.make_directory("from");
    here.files.put("from/file", b"x", 0o644);
    symlink("file", root(&here).join("from/link")).expect("done");
    symlink("/nowhere/at all", root(&here).join("from/dangling")).expect("done");
    place.files.make_directory("tree");
    place.files.put("tree/link", b"was a file", 0o644);
    run_whole(here.at("from/."), place.at("tree"), options()).await;
    run_whole(here.at("from/."), place.at("tree"), options()).await;
    run_whole(place.at("tree"), here.at("back"), options()).await;
    for root in [root(place).join("tree"), root(&here).join("back")] {
        let target = |name: &str| fs::read_link(root.join(name)).expect("done");
        assert_eq!((target("link"), target("dangling")), (PathBuf::from("file"), PathBuf::from("/nowhere/at all")));
        assert_eq!(fs::read_dir(&root).expect("done").count(), 3, "nothing temporary is left");
    }
    let planted = root(place).join("tree/sub");
    symlink(root(&here), &planted).expect("done");
    here.files.make_directory("from/sub");
    here.files.put("from/sub/escaped", b"x", 0o644);
    let summary = copy(vec![here.at("from/.")], place.at("tree"), options(), |_| {}).await.expect("done");
    let told: Vec<_> = summary.failures.iter().map(ToString::to_string).collect();
    assert!(told.len() == 1 && told[0].contains("tree/sub: a link is where the directory should be"), "{told:?}");
    assert!(!root(&here).join("escaped").exists());
}

#[tokio::test]
async fn links_go_to_openssh_and_back() {
    links(&Place::openssh().await).await;
}

#[tokio::test]
async fn links_go_to_the_labs_server_and_back() {
    links(&Place::embedded().await).await;
}

#[tokio::test]
async fn patterns_are_matched_on_the_node() {
    let (here, place) = (Place::local().await, Place::openssh().await);
    place.files.make_directory("logs");
    for name in ["logs/a.gz", "logs/b.gz", "logs/c.txt", "logs/.d.gz"] {
        place.files.put(name, name.as_bytes(), 0o644);
    }
    here.files.make_directory("to");
    run_whole(place.at("l*/{a,b}*.gz").matching(), here.at("to"), CopyOptions::default()).await;
    run_whole(place.at("~/logs/*.txt").matching(), here.at("to"), CopyOptions::default()).await;
    let names = fs::read_dir(root(&here).join("to")).unwrap().map(|entry| entry.unwrap().file_name());
    let mut names: Vec<_> = names.collect();
    names.sort();
    assert_eq!(names, ["a.gz", "b.gz", "c.txt"]);
    let none = copy(vec![place.at("logs/*.zip").matching()], here.at("to"), CopyOptions::default(), |_| {}).await;
    assert_eq!(none.unwrap().failures[0].to_string(), "node:logs/*.zip: nothing matches this pattern");
}

#[tokio::test]
async fn a_repeated_copy_skips_what_is_the_same_and_leaves_out_what_is_excluded() {
    let (here, place) = (Place::local().await, Place::openssh().await);
    here.files.make_directory("from");
    for name in ["from/a", "from/b", "from/c.tmp"] {
        here.files.put(name, name.as_bytes(), 0o644);
        here.files.set_modified(name, 1_000_000_000);
    }
    let options = || recursive().preserve(true).skip(Skip::Same).exclude(Exclude::new("*.tmp").expect("a pattern"));
    let first = run_whole(here.at("from"), place.at("tree"), options()).await;
    here.files.set_modified("from/b", 1_000_000_001);
    let second = run_whole(here.at("from/."), place.at("tree"), options()).await;
    assert_eq!((first.files, first.skipped, second.files, second.skipped), (2, 0, 1, 1));
    assert!(place.files.read("tree/c.tmp").is_none());
}

/// A file of 16 MiB with three pieces of data, none of them at its end.
fn make_sparse(path: &Path) -> Vec<u8> {
    let file = File::create(path).expect("done");
    let mut content = vec![0; usize::try_from(16 * MIB).expect("small")];
    for at in [0, 5 * MIB + 17, 11 * MIB] {
        file.write_all_at(b"some data", at).expect("done");
        content[usize::try_from(at).expect("small")..][..9].copy_from_slice(b"some data");
    }
    file.set_len(16 * MIB).expect("done");
    content
}

/// Bytes on the disk.
fn allocated(path: &Path) -> u64 {
    fs::metadata(path).expect("a file").blocks() * 512
}

#[tokio::test]
async fn holes_stay_holes_each_way() {
    let (here, place) = (Place::local().await, Place::openssh().await);
    let content = make_sparse(&root(&here).join("sparse"));
    let has_holes = allocated(&root(&here).join("sparse")) < MIB;
    let up = run_whole(here.at("sparse"), place.at("there"), CopyOptions::default()).await;
    run_whole(place.at("there"), here.at("back"), CopyOptions::default()).await;
    run_whole(here.at("sparse"), here.at("beside"), CopyOptions::default()).await;
    for path in [root(&place).join("there"), root(&here).join("back"), root(&here).join("beside")] {
        assert!(fs::read(&path).unwrap() == content, "{}", path.display());
        assert!(!has_holes || allocated(&path) < MIB, "{}: {} bytes", path.display(), allocated(&path));
    }
    assert!(!has_holes || up.bytes < MIB, "holes are not sent: {} bytes", up.bytes);
}
