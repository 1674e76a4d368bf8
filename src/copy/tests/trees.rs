//! What is copied of a tree, and what is left: links, patterns, files that are there already, dry runs.

use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, SystemTime};

use crate::copy::*;

/// Two folders, in one of which lies what is copied.
struct World {
    folder: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        let world = Self { folder: tempfile::tempdir().unwrap() };
        fs::create_dir(world.path("from")).unwrap();
        fs::create_dir(world.path("to")).unwrap();
        world
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn at(&self, name: &str) -> Location {
        Location::local(self.path(name))
    }

    fn write(&self, files: &[&str]) {
        for name in files {
            fs::create_dir_all(self.path(name).parent().unwrap()).unwrap();
            fs::write(self.path(name), *name).unwrap();
        }
    }

    fn link(&self, to: impl AsRef<Path>, name: &str) {
        symlink(to, self.path(name)).unwrap();
    }

    /// Copies `sources` into `to`.
    async fn copy(&self, sources: &[&str], options: CopyOptions) -> Summary {
        let sources = sources.iter().map(|name| self.at(name)).collect();
        copy(sources, self.at("to"), options, |_| {}).await.unwrap()
    }

    async fn copy_whole(&self, sources: &[&str], options: CopyOptions) -> Summary {
        let summary = self.copy(sources, options).await;
        assert!(summary.is_complete(), "{:?}", summary.failures);
        summary
    }

    fn names(&self, folder: &str) -> Vec<String> {
        let entries = fs::read_dir(self.path(folder)).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    fn date(&self, name: &str, seconds: u64) {
        let file = fs::File::options().write(true).open(self.path(name)).unwrap();
        file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)).unwrap();
    }

    fn leads_to(&self, name: &str) -> PathBuf {
        fs::read_link(self.path(name)).unwrap()
    }
}

fn recursive() -> CopyOptions {
    CopyOptions::default().recursive(true)
}

fn keeping_links() -> CopyOptions {
    recursive().links(Links::Keep)
}

#[tokio::test]
async fn links_are_kept_as_they_are_dangling_ones_too() {
    let world = World::new();
    world.write(&["from/tree/file", "outside/secret"]);
    for (name, to) in [("a", "file"), ("b", "no such file"), ("c", "/"), ("d", "..")] {
        world.link(to, &format!("from/tree/{name}"));
    }
    world.link("tree", "from/top");
    let summary = world.copy_whole(&["from/tree", "from/top"], keeping_links()).await;
    assert_eq!(summary.files, 6);
    for (name, to) in
        [("tree/a", "file"), ("tree/b", "no such file"), ("tree/c", "/"), ("tree/d", ".."), ("top", "tree")]
    {
        assert_eq!(world.leads_to(&format!("to/{name}")), Path::new(to));
    }
}

#[tokio::test]
async fn a_kept_link_replaces_a_file_or_link_but_no_directory() {
    let world = World::new();
    world.write(&["from/x", "to/file", "to/directory/y", "outside"]);
    world.link(world.path("outside"), "to/link");
    for name in ["file", "link", "directory"] {
        world.link("x", &format!("from/{name}"));
    }
    let summary = world.copy(&["from/file", "from/link", "from/directory"], keeping_links()).await;
    assert!(matches!(&summary.failures[..], [Failure { error: CopyError::DirectoryInTheWay, .. }]), "{summary:?}");
    assert_eq!((world.leads_to("to/file"), world.leads_to("to/link")), ("x".into(), "x".into()));
    assert_eq!(fs::read(world.path("outside")).unwrap(), b"outside");
    assert_eq!(world.names("to"), ["directory", "file", "link"], "nothing temporary is left");
}

#[tokio::test]
async fn a_link_that_a_copy_planted_is_not_written_through() {
    let world = World::new();
    world.write(&["from/two/x/passwd"]);
    fs::create_dir(world.path("from/one")).unwrap();
    fs::create_dir(world.path("outside")).unwrap();
    world.link(world.path("outside"), "from/one/x");
    world.copy_whole(&["from/one/x"], keeping_links()).await;
    for options in [recursive(), keeping_links()] {
        let summary = world.copy(&["from/two/x"], options).await;
        assert!(matches!(&summary.failures[..], [Failure { error: CopyError::LinkInTheWay, .. }]), "{summary:?}");
    }
    assert_eq!(world.names("outside"), Vec::<String>::new());
    assert!(world.path("to/x").is_symlink(), "the link is as it was");
}

#[tokio::test]
async fn a_file_takes_the_place_of_a_link_inside_the_destination() {
    let world = World::new();
    world.write(&["from/tree/file", "outside"]);
    fs::create_dir(world.path("to/tree")).unwrap();
    world.link(world.path("outside"), "to/tree/file");
    world.copy_whole(&["from/tree"], recursive()).await;
    assert_eq!(fs::read(world.path("outside")).unwrap(), b"outside");
    assert!(!world.path("to/tree/file").is_symlink());
}

#[tokio::test]
async fn a_link_that_was_named_as_the_target_is_followed() {
    let world = World::new();
    world.write(&["from/tree/file"]);
    world.link("to", "named");
    let into = copy(vec![world.at("from/tree/.")], world.at("named"), recursive(), |_| {}).await.unwrap();
    assert!(into.is_complete(), "{into:?}");
    assert_eq!(world.names("to"), ["file"]);
}

async fn matched(world: &World, pattern: &[u8]) -> (Vec<String>, Vec<String>) {
    let whole = [world.path("from").as_os_str().as_bytes(), b"/", pattern].concat();
    let found = Mutex::new(Vec::new());
    let note = |progress: Progress<'_>| {
        if let Event::WouldCopy { path, .. } = progress.event {
            found.lock().unwrap().push(path.to_string().rsplit_once("from/").unwrap().1.to_owned());
        }
    };
    let source = Location::local(BytePath::new(whole)).matching();
    let summary = copy(vec![source], world.at("to"), recursive().dry_run(true), note).await.unwrap();
    let failures =
        summary.failures.iter().map(|failure| failure.to_string().rsplit_once("from/").unwrap().1.to_owned());
    (found.into_inner().unwrap(), failures.collect())
}

#[tokio::test]
async fn patterns_stand_for_what_they_match() {
    let world = World::new();
    world.write(&["from/a.gz", "from/b.gz", "from/.c.gz", "from/x/a.log", "from/y/b.log", "from/y/c.log", "from/[a]*"]);
    for (pattern, expected) in [
        ("*.gz", &["a.gz", "b.gz"][..]),
        (".*.gz", &[".c.gz"]),
        ("?/[ab].log", &["x/a.log", "y/b.log"]),
        ("*/b*", &["y/b.log"]),
        ("{y,x}/[ab].log", &["x/a.log", "y/b.log"]),
        ("{a.gz,y/?.log}", &["a.gz", "y/b.log", "y/c.log"]),
        ("[!a].gz", &["b.gz"]),
        ("[a]*", &["[a]*"]),
        ("\\[a\\]*", &["[a]*"]),
        ("x*/", &["x/a.log"]),
    ] {
        let (mut found, failures) = matched(&world, pattern.as_bytes()).await;
        let mut expected = expected.to_vec();
        found.sort();
        expected.sort_unstable();
        assert_eq!((found, failures.len()), (expected.iter().map(ToString::to_string).collect(), 0), "{pattern}");
    }
}

#[tokio::test]
async fn a_pattern_that_matches_nothing_is_named() {
    let world = World::new();
    world.write(&["from/a"]);
    assert_eq!(matched(&world, b"*.gz").await.1, ["*.gz: nothing matches this pattern"]);
    assert_eq!(matched(&world, b"{a,b*}").await, (vec!["a".into()], vec!["b*: nothing matches this pattern".into()]));
    assert_eq!(matched(&world, b"none/*").await.1, ["none/*: nothing matches this pattern"]);
    assert_eq!(matched(&world, b"*/none").await.1, ["*/none: nothing matches this pattern"]);
}

#[tokio::test]
async fn patterns_and_names_are_bytes() {
    let world = World::new();
    let name = std::ffi::OsStr::from_bytes(b"caf\xe9");
    fs::write(world.path("from").join(name), b"x").unwrap();
    assert_eq!(matched(&world, b"c?f\xe9*").await.0, ["caf\\xe9"]);
}

#[tokio::test]
async fn what_is_excluded_is_not_copied() {
    let world = World::new();
    world.write(&["from/tree/a.c", "from/tree/a.o", "from/tree/cache/x", "from/tree/sub/cache", "from/tree/sub/b.o"]);
    let excludes = ["*.o", "cache/"].map(|pattern| Exclude::new(pattern).unwrap());
    let options = excludes.into_iter().fold(recursive(), CopyOptions::exclude);
    assert_eq!(world.copy_whole(&["from/tree"], options).await.files, 2);
    assert_eq!(
        (world.names("to/tree"), world.names("to/tree/sub")),
        (vec!["a.c".into(), "sub".into()], vec!["cache".into()])
    );
}

#[tokio::test]
async fn files_that_need_no_copy_are_skipped_and_counted() {
    let world = World::new();
    world.write(&["from/tree/old", "from/tree/same", "from/tree/new", "from/tree/none"]);
    for (name, here, there) in [("old", 20, 10), ("same", 20, 20), ("new", 20, 30)] {
        world.write(&[&format!("to/tree/{name}")]);
        fs::write(world.path(&format!("to/tree/{name}")), format!("FROM/TREE/{name}")).unwrap();
        world.date(&format!("from/tree/{name}"), here);
        world.date(&format!("to/tree/{name}"), there);
    }
    world.date("from/tree/none", 20);
    let content = |name: &str| fs::read_to_string(world.path(&format!("to/tree/{name}"))).unwrap();
    let last = Mutex::new(Totals::default());
    let note = |progress: Progress<'_>| *last.lock().unwrap() = progress.totals;
    let summary = copy(vec![world.at("from/tree")], world.at("to"), recursive().skip(Skip::Newer), note).await.unwrap();
    assert_eq!((summary.files, summary.skipped, summary.is_complete()), (2, 2, true));
    let totals = *last.lock().unwrap();
    assert_eq!((totals.files, totals.files_done, totals.bytes), (2, 2, totals.bytes_done));
    assert_eq!(
        ["old", "same", "new", "none"].map(|name| content(name).starts_with("from")),
        [true, false, false, true]
    );
    let again = world.copy_whole(&["from/tree"], recursive().preserve(true).skip(Skip::Same)).await;
    assert_eq!((again.files, again.skipped), (3, 1), "one was the same");
    let again = world.copy_whole(&["from/tree"], recursive().preserve(true).skip(Skip::Same)).await;
    assert_eq!((again.files, again.skipped), (0, 4), "the times were kept");
}

#[tokio::test]
async fn a_dry_run_tells_what_it_would_do_and_writes_nothing() {
    let world = World::new();
    world.write(&["from/tree/sub/file", "from/tree/taken", "from/tree/fine", "to/tree/taken/x"]);
    fs::create_dir(world.path("from/tree/empty")).unwrap();
    world.link("fine", "from/tree/link");
    let found = Mutex::new(Vec::new());
    let note = |progress: Progress<'_>| {
        if let Event::WouldCopy { target, .. } = progress.event {
            found.lock().unwrap().push(target.as_path().strip_prefix(world.path("to")).unwrap().to_owned());
        }
    };
    let options = keeping_links().dry_run(true);
    let summary = copy(vec![world.at("from/tree")], world.at("to"), options, note).await.unwrap();
    assert!(matches!(&summary.failures[..], [Failure { error: CopyError::DirectoryInTheWay, .. }]), "{summary:?}");
    let mut found = found.into_inner().unwrap();
    found.sort();
    assert_eq!(found, ["tree/fine", "tree/link", "tree/sub/file"].map(PathBuf::from));
    assert_eq!((summary.files, summary.bytes, world.names("to/tree")), (0, 0, vec!["taken".to_owned()]));
}

#[tokio::test]
async fn empty_files_and_directories_are_copied() {
    let world = World::new();
    world.write(&["from/tree/sub/x"]);
    fs::write(world.path("from/tree/nothing"), b"").unwrap();
    fs::create_dir(world.path("from/tree/empty")).unwrap();
    world.copy_whole(&["from/tree"], recursive()).await;
    assert_eq!(world.names("to/tree"), ["empty", "nothing", "sub"]);
    assert_eq!(fs::metadata(world.path("to/tree/nothing")).unwrap().len(), 0);
}

#[tokio::test]
async fn two_sources_that_would_get_one_name_do_not_race_for_it() {
    let world = World::new();
    world.write(&["from/one/x", "from/two/x", "from/one/tree/a", "from/two/tree/b"]);
    let sources = ["from/one/x", "from/two/x", "from/one/tree", "from/two/tree"];
    let summary = world.copy(&sources, recursive()).await;
    assert!(matches!(&summary.failures[..], [Failure { error: CopyError::SameName, .. }]), "{summary:?}");
    assert!(fs::read_to_string(world.path("to/x")).unwrap().ends_with("/x"));
    assert_eq!(world.names("to/tree"), ["a", "b"], "directories are merged");
}
