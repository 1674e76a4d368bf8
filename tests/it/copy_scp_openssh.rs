//! The same commands by OpenSSH's `scp -O` and by `ssmcp` on a node without SFTP: the same trees, the same exit status.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use tokio::process::Command;

use crate::copy_scp::{Node, long_ago, mode, modified, set};
use crate::copy_scp_options::fast_node;
use crate::copy_sftp::noise;

/// Commands without the program; `@` is the node. Each runs in a folder of its own, filled by [`fill`]. OpenSSH's `scp`
/// cannot send `tree/.` to a directory that is there, since its own other end refuses the name, and leaves braces to the
/// shell of the node, which may not know them.
const COMMANDS: [&str; 21] = [
    "file @:new",
    "file @:old",
    "file @:dir",
    "-p file @:new",
    "-r tree @:new",
    "-rp tree @:new",
    "-rp tree @:dir",
    "-rp tree other @:dir",
    "file missing tree @:dir",
    "-r file @:none/new",
    "@:file new",
    "@:file old",
    "-p @:file dir",
    "-r @:tree new",
    "-rp @:tree new",
    "-rp @:tree @:other dir",
    "@:file @:missing @:tree dir",
    "@:f* dir",
    "-r @:tree/[ef]* dir",
    "@:tree/e* @:tree/deep/f @:x* dir",
    "-3 -rp @:tree @:copy",
];

/// The same on both sides: a few files, a tree, and places to copy to.
fn fill(root: &Path) {
    for directory in ["tree/deep", "tree/empty", "other", "dir/tree"] {
        fs::create_dir_all(root.join(directory)).expect("as it should");
    }
    for (name, content, mode) in [
        ("file", noise(70_000, 3), 0o640),
        ("old", b"something older, and longer".repeat(9000), 0o600),
        ("tree/exec", noise(10, 4), 0o755),
        ("tree/e", Vec::new(), 0o400),
        ("tree/deep/f", noise(100_000, 5), 0o644),
        ("tree/deep/it's $(x)", b"x".to_vec(), 0o644),
        ("other/-f", b"y".to_vec(), 0o644),
        ("dir/tree/exec", b"in the way".to_vec(), 0o600),
    ] {
        fs::write(root.join(name), content).expect("as it should");
        set(&root.join(name), mode, long_ago());
    }
    symlink("exec", root.join("tree/link")).expect("as it should");
    symlink("deep", root.join("tree/linked")).expect("as it should");
    for (name, mode) in [("tree/deep", 0o711), ("tree/empty", 0o555), ("tree", 0o755), ("other", 0o700)] {
        set(&root.join(name), mode, long_ago() + Duration::from_secs(5));
    }
}

type Walk = BTreeMap<PathBuf, (u32, Option<SystemTime>, Option<Vec<u8>>)>;

/// Everything below `root`: permissions, time of modification unless that is today, and content.
fn walk(root: &Path) -> Walk {
    let (mut found, mut open) = (BTreeMap::new(), vec![root.to_owned()]);
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(directory).expect("as it should") {
            let path = entry.expect("as it should").path();
            let is_directory = fs::symlink_metadata(&path).expect("as it should").is_dir();
            let content = (!path.is_dir()).then(|| fs::read(&path).expect("as it should"));
            let time = Some(modified(&path)).filter(|time| *time < SystemTime::now() - Duration::from_hours(24));
            found.insert(path.strip_prefix(root).expect("as it should").to_owned(), (mode(&path), time, content));
            open.extend(is_directory.then_some(path));
        }
    }
    found
}

/// What a command does to the two sides.
type Outcome = (Option<i32>, [Walk; 2]);

/// `scp -O` with a shell in `there` in place of `ssh`.
async fn openssh(arguments: &str) -> Outcome {
    let folder = tempfile::tempdir().expect("as it should");
    let [here, there] = ["here", "there"].map(|side| folder.path().join(side));
    for side in [&here, &there] {
        fs::create_dir(side).expect("as it should");
        fill(side);
    }
    let ssh = folder.path().join("ssh");
    let script = "#!/bin/sh\nfor last do :; done\ncd \"$THERE\" && HOME=$THERE exec sh -c \"$last\"\n";
    fs::write(&ssh, script).expect("as it should");
    set(&ssh, 0o755, long_ago());
    let mut scp = Command::new("scp");
    scp.args(["-q", "-O", "-S"]).arg(&ssh).args(arguments.replace('@', "node").split(' '));
    let output = scp.current_dir(&here).env("THERE", &there).output().await.expect("scp runs");
    (output.status.code(), [walk(&here), walk(&there)])
}

async fn ours(node: &Node, arguments: &str) -> Outcome {
    let (here, there) = (node.here(""), node.path(""));
    for side in [&here, &there] {
        let _ = fs::remove_dir_all(side);
        fs::create_dir(side).expect("as it should");
        fill(side);
    }
    let arguments = arguments.replace('@', node.world.lab.node());
    let (code, _) = node.run(&arguments.split(' ').collect::<Vec<_>>()).await;
    (code, [walk(&here), walk(&there)])
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_commands_leave_the_same_trees_and_status() {
    let node = fast_node().await;
    let mut differences = Vec::new();
    for arguments in COMMANDS {
        let (scp, ssmcp) = (openssh(arguments).await, ours(&node, arguments).await);
        if scp.0 != ssmcp.0 {
            differences.push(format!("{arguments}: status {:?} and {:?}", scp.0, ssmcp.0));
        }
        for (scp, ssmcp) in scp.1.iter().zip(&ssmcp.1) {
            for path in scp.keys().chain(ssmcp.keys()).filter(|path| scp.get(*path) != ssmcp.get(*path)) {
                let shown = [scp, ssmcp].map(|walk| {
                    let (mode, time, content) = walk.get(path)?;
                    Some(format!("{mode:o} {time:?} {:?} bytes", content.as_ref().map(Vec::len)))
                });
                differences.push(format!("{arguments}: {} is {shown:?}", path.display()));
            }
        }
    }
    assert!(differences.is_empty(), "{differences:#?}");
}
