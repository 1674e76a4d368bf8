//! Directories that somebody swaps for links while a copy goes on: nothing is written behind the link, and what is there
//! keeps its mode.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::hostile::messages;
use crate::copy::*;

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

/// A tree, a directory that it is copied into, and one that nothing is to be written to.
struct World(tempfile::TempDir);

impl World {
    fn new() -> Self {
        let world = Self(tempfile::tempdir().unwrap());
        for directory in ["from/tree/sub/deep", "shared", "outside/deep"] {
            fs::create_dir_all(world.at(directory)).unwrap();
        }
        for name in ["from/tree/one", "from/tree/sub/two", "from/tree/sub/deep/three"] {
            fs::write(world.at(name), b"new").unwrap();
        }
        for directory in ["outside", "outside/deep"] {
            set_mode(&world.at(directory), 0o711);
        }
        world
    }

    fn at(&self, path: &str) -> std::path::PathBuf {
        self.0.path().join(path)
    }

    /// Puts a link to the outside in the place of a directory, if it is there.
    fn swap(&self, path: &str) {
        if fs::rename(self.at(path), self.at("moved")).is_ok() {
            symlink(self.at("outside"), self.at(path)).unwrap();
        }
    }

    /// Copies the tree; `swapped` becomes a link at the `moment`-th thing that is told. Returns how many things were told.
    async fn copy(&self, swapped: &str, moment: usize) -> (usize, Summary) {
        let told = AtomicUsize::new(0);
        let options = CopyOptions::default().recursive(true).preserve(true).verify(true);
        let source = Location::local(self.at("from/tree"));
        let report = |_: Progress<'_>| {
            if told.fetch_add(1, Ordering::Relaxed) == moment {
                self.swap(swapped);
            }
        };
        let summary = copy(vec![source], Location::local(self.at("shared")), options, report).await.unwrap();
        (told.into_inner(), summary)
    }

    fn is_untouched(&self) {
        assert_eq!(fs::read_dir(self.at("outside/deep")).unwrap().count(), 0);
        assert_eq!(fs::read_dir(self.at("outside")).unwrap().count(), 1);
        assert_eq!((mode(&self.at("outside")), mode(&self.at("outside/deep"))), (0o711, 0o711));
    }
}

#[tokio::test]
async fn nothing_is_written_behind_a_link_that_takes_a_directorys_place_during_the_copy() {
    let mut refusals = 0;
    for swapped in ["shared", "shared/tree", "shared/tree/sub"] {
        let mut moment = 0;
        loop {
            let world = World::new();
            let (told, summary) = world.copy(swapped, moment).await;
            world.is_untouched();
            for message in messages(&summary) {
                refusals += 1;
                let link = "a link is where the directory should be, and a copy does not write through it";
                // Between the two halves of the swap nothing has the name.
                let is_expected = [link, "no such file or directory"].iter().any(|reason| message.ends_with(reason));
                assert!(is_expected, "{message}");
            }
            moment += 1;
            if moment >= told {
                break;
            }
        }
    }
    assert!(refusals > 0, "no swap met the copy");
}

#[tokio::test]
async fn a_copy_into_a_directory_that_was_moved_away_ends_where_it_began() {
    let world = World::new();
    let (_, summary) = world.copy("shared", 0).await;
    assert!(summary.is_complete(), "{summary:?}");
    assert_eq!(fs::read(world.at("moved/tree/sub/deep/three")).unwrap(), b"new");
}
