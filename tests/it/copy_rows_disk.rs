//! What a download forces to this machine's disk, and when: seen by a library that stands between `ssmcp` and libc.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use ssm_lab::{Lab, Pace};

use crate::copy_cli::World;

/// Notes what is forced to the disk and what is renamed, one line each.
const SHIM: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static void note(const char *verb, const char *path, const char *to) {
    const char *log = getenv("DISK_LOG");
    int fd = log ? open(log, O_WRONLY | O_APPEND | O_CREAT, 0600) : -1;
    if (fd < 0) return;
    dprintf(fd, "%s %s %s\n", verb, path, to);
    close(fd);
}

int fsync(int fd) {
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    path[length < 0 ? 0 : length] = 0;
    int outcome = ((int (*)(int))dlsym(RTLD_NEXT, "fsync"))(fd);
    note("fsync", path, "");
    return outcome;
}

int rename(const char *from, const char *to) {
    note("rename", from, to);
    return ((int (*)(const char *, const char *))dlsym(RTLD_NEXT, "rename"))(from, to);
}
"#;

fn build_shim(folder: &Path) -> PathBuf {
    let (source, library) = (folder.join("shim.c"), folder.join("shim.so"));
    fs::write(&source, SHIM).expect("written");
    let built = Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(&library).arg(source).arg("-ldl").status();
    assert!(built.expect("cc runs, as it does to link this test").success(), "the shim is built");
    library
}

/// Where the first line that begins with `verb` and names a path with this end stands.
fn at(log: &[String], verb: &str, end: &str) -> usize {
    let is_it = |line: &&String| line.starts_with(verb) && line.trim_end().ends_with(end);
    let found = log.iter().find(is_it).unwrap_or_else(|| panic!("no {verb} of {end}: {log:#?}"));
    log.iter().position(|line| line == found).expect("it was found")
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
    for (name, directory) in [("copy/one", "/copy"), ("copy/sub/two", "/copy/sub")] {
        let renamed = at(&log, "rename ", name);
        let temporary = log[renamed].split(' ').nth(1).unwrap();
        assert!(at(&log, "fsync ", temporary) < renamed, "{name}: {log:#?}");
        assert!(at(&log, "fsync ", directory) > renamed, "{name}: {log:#?}");
    }
    let parent = world.here("").canonicalize().unwrap();
    at(&log, "fsync ", parent.to_str().unwrap().trim_end_matches('/'));
}
