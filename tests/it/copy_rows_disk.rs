//! What a download forces to this machine's disk, and when: seen by a library that stands between `ssmcp` and libc.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use ssm_lab::{Lab, Pace};

use crate::copy_cli::World;

/// Notes what is forced to the disk, one line each: its path, and the names in the directory that it is or lies in.
const SHIM: &str = r#"
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void note(const char *path) {
    const char *log = getenv("DISK_LOG");
    int fd = log ? open(log, O_WRONLY | O_APPEND | O_CREAT, 0600) : -1;
    if (fd < 0) return;
    char directory[4096];
    snprintf(directory, sizeof directory, "%s", path);
    DIR *names = opendir(directory);
    if (!names && strrchr(directory, '/')) {
        *strrchr(directory, '/') = 0;
        names = opendir(directory);
    }
    dprintf(fd, "%s", path);
    struct dirent *found;
    while (names && (found = readdir(names))) dprintf(fd, " %s", found->d_name);
    dprintf(fd, "\n");
    if (names) closedir(names);
    close(fd);
}

int fsync(int fd) {
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    path[length < 0 ? 0 : length] = 0;
    note(path);
    return ((int (*)(int))dlsym(RTLD_NEXT, "fsync"))(fd);
}
"#;

fn build_shim(folder: &Path) -> PathBuf {
    let (source, library) = (folder.join("shim.c"), folder.join("shim.so"));
    fs::write(&source, SHIM).expect("written");
    let built = Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(&library).arg(source).arg("-ldl").status();
    assert!(built.expect("cc runs, as it does to link this test").success(), "the shim is built");
    library
}

/// The names that were in the directory of `path`, or in the directory `path`, each time that it was forced to the disk.
fn forced(log: &[String], is_it: impl Fn(&Path) -> bool) -> Vec<Vec<&str>> {
    let lines = log.iter().map(|line| line.split(' ').collect::<Vec<_>>());
    let found: Vec<_> = lines.filter(|line| is_it(Path::new(line[0]))).map(|line| line[1..].to_vec()).collect();
    assert!(!found.is_empty(), "not forced: {log:#?}");
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_gets_its_name_behind_its_bytes_and_its_directory_is_forced_behind_the_name() {
    let world = World::with(Lab::builder().openssh().pace(Pace::Ideal)).await;
    fs::create_dir_all(world.there("tree/sub")).unwrap();
    for name in ["tree/one", "tree/sub/two"] {
        fs::write(world.there(name), name).unwrap();
    }
    let (library, log) = (build_shim(&world.here("")), world.here("log"));
    let source = world.node("tree");
    let mut command = world.command(&["-r".as_ref(), &source, "copy".as_ref()]);
    let output = command.env("LD_PRELOAD", library).env("DISK_LOG", &log).output().await.unwrap();
    assert_eq!((output.status.code(), String::from_utf8_lossy(&output.stderr).as_ref()), (Some(0), ""));
    let log: Vec<_> = fs::read_to_string(log).unwrap().lines().map(str::to_owned).collect();
    for (name, directory) in [("one", "copy"), ("two", "copy/sub")] {
        let is_temporary = |path: &Path| {
            path.file_name().is_some_and(|it| it.to_string_lossy().starts_with(&format!(".{name}.ssmcp-")))
        };
        assert!(forced(&log, is_temporary).iter().all(|names| !names.contains(&name)), "{name}: {log:#?}");
        assert!(forced(&log, |path| path.ends_with(directory)).last().unwrap().contains(&name), "{name}: {log:#?}");
    }
    let parent = world.here("").canonicalize().unwrap();
    forced(&log, |path| path == parent);
}
