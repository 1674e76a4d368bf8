//! What another program could read in the memory of the commands.

use std::{
    fs::{self, File},
    io::{ErrorKind, Read as _, Seek as _, SeekFrom},
};

use russh::keys::PrivateKey;
use tokio::io::{AsyncBufReadExt as _, BufReader};

use crate::support::cli::{Cli, fast_lab};

/// How often the bytes are in the memory of the process that it may write; nothing where it cannot be read.
fn count_in_memory(pid: u32, bytes: &[u8]) -> Option<usize> {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps"));
    let memory = maps.and_then(|maps| Ok((maps, File::open(format!("/proc/{pid}/mem"))?)));
    let (maps, mut memory) = match memory {
        Err(error) if error.kind() == ErrorKind::PermissionDenied => return None,
        opened => opened.expect("a running process"),
    };
    let mut count = 0;
    for line in maps.lines() {
        let (range, rights) = line.split_once(' ').expect("a mapping");
        if !rights.starts_with("rw") {
            continue;
        }
        let (start, end) = range.split_once('-').expect("a range");
        let address = |text| u64::from_str_radix(text, 16).expect("an address");
        let mut content = Vec::new();
        if memory.seek(SeekFrom::Start(address(start))).is_ok() {
            let _ = (&memory).take(address(end) - address(start)).read_to_end(&mut content);
        }
        count += content.windows(bytes.len()).filter(|window| *window == bytes).count();
    }
    Some(count)
}

/// Whoever is not root cannot read the memory at all, because the process has made itself undumpable. The stack of the thread
/// that has signed may hold a copy until the thread goes as deep again; a key that is kept is there in every run.
#[tokio::test(flavor = "multi_thread")]
async fn no_private_key_is_left_in_memory_once_somebody_is_logged_in() {
    let lab = fast_lab().await;
    let key = PrivateKey::read_openssh_file(lab.identity()).expect("the lab's key");
    let seed = key.key_data().ed25519().expect("an Ed25519 key").private.to_bytes();
    let mut found = Vec::new();
    for _ in 0..12 {
        let mut running = Cli::in_lab(&lab).args([lab.node(), "echo ready; cat"]).spawn();
        let mut lines = BufReader::new(running.child.stdout.take().expect("piped")).lines();
        assert_eq!(lines.next_line().await.expect("a line").as_deref(), Some("ready"));
        let pid = running.child.id().expect("it runs");
        let is_root = rustix::process::geteuid().is_root();
        let count = count_in_memory(pid, &seed);
        if count == is_root.then_some(0) {
            return;
        }
        found.push(count);
    }
    panic!("copies of the key stay in every run: {found:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_crashes_leaves_no_core_with_a_key_in_it() {
    let lab = fast_lab().await;
    let script = "ulimit -c unlimited; exec \"$0\" \"$@\"";
    let args = ["-c", script, env!("CARGO_BIN_EXE_ssmssh"), lab.node(), "echo ready; cat"];
    let mut running = Cli::program("/bin/sh").with_lab(&lab).args(args).spawn();
    let mut lines = BufReader::new(running.child.stdout.take().expect("piped")).lines();
    assert_eq!(lines.next_line().await.expect("a line").as_deref(), Some("ready"));
    running.signal(rustix::process::Signal::SEGV);
    let status = running.child.wait().await.expect("it ends");
    let core = std::os::unix::process::ExitStatusExt::core_dumped(&status);
    assert!(!core, "{status}");
}
