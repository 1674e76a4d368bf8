//! What labs that were killed have left in the temporary directory.
//!
//! A lab holds a lock on a file in its directory. What is removed is a directory with such a name, of this user and closed
//! to all others, whose lock nobody holds.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt},
    path::Path,
};

use rustix::{
    fs::{FlockOperation, OFlags, flock},
    process::geteuid,
};

use super::PREFIX;

const LOCK: &str = "alive.lock";

/// Marks the directory as one whose lab lives, until the file is closed.
pub(super) fn mark(directory: &Path) -> io::Result<File> {
    // Nobody sees it under its name without its lock.
    let unlocked = directory.join("alive.new");
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&unlocked)?;
    flock(&file, FlockOperation::NonBlockingLockExclusive)?;
    fs::rename(unlocked, directory.join(LOCK))?;
    Ok(file)
}

/// Removes what is left of labs that are dead. What cannot be removed stays: it keeps no new lab from starting.
pub(super) fn remove(temporary: &Path) {
    let Ok(entries) = fs::read_dir(temporary) else { return };
    let named = entries.flatten().filter(|entry| entry.file_name().as_encoded_bytes().starts_with(PREFIX.as_bytes()));
    for path in named.map(|entry| entry.path()) {
        // The lock is held until all is gone, so that of two labs that start only one removes it.
        if let Some(_lock) = lock_of_dead(&path) {
            let _ = fs::remove_dir_all(&path);
        }
    }
}

/// The lock of a lab that has it no longer.
fn lock_of_dead(directory: &Path) -> Option<File> {
    let found = directory.symlink_metadata().ok().filter(std::fs::Metadata::is_dir)?;
    if !is_ours(&found) || found.permissions().mode() & 0o077 != 0 {
        return None;
    }
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let flags = i32::try_from(flags.bits()).ok()?;
    let lock = OpenOptions::new().read(true).custom_flags(flags).open(directory.join(LOCK)).ok()?;
    let found = lock.metadata().ok().filter(|found| found.is_file() && is_ours(found));
    found?;
    flock(&lock, FlockOperation::NonBlockingLockExclusive).ok().map(|()| lock)
}

fn is_ours(found: &fs::Metadata) -> bool {
    found.uid() == geteuid().as_raw()
}

#[cfg(test)]
mod tests {
    use std::fs::{Permissions, create_dir, set_permissions};

    use super::*;

    fn private_dir(path: &Path) {
        create_dir(path).unwrap();
        set_permissions(path, Permissions::from_mode(0o700)).unwrap();
    }

    #[test]
    fn only_what_a_dead_lab_of_ours_has_left_is_removed() {
        let temporary = tempfile::tempdir().unwrap();
        let path = |name: &str| temporary.path().join(name);
        for name in ["ssm-lab-dead", "ssm-lab-alive", "ssm-lab-unmarked", "ssm-lab-open", "other-dead"] {
            private_dir(&path(name));
        }
        for name in ["ssm-lab-dead", "ssm-lab-open", "other-dead"] {
            drop(mark(&path(name)).unwrap());
        }
        fs::write(path("ssm-lab-dead").join("file"), "x").unwrap();
        set_permissions(path("ssm-lab-open"), Permissions::from_mode(0o755)).unwrap();
        let _alive = mark(&path("ssm-lab-alive")).unwrap();
        std::os::unix::fs::symlink(path("other-dead"), path("ssm-lab-link")).unwrap();
        fs::write(path("ssm-lab-file"), "x").unwrap();

        remove(temporary.path());

        let mut left: Vec<_> = fs::read_dir(temporary.path()).unwrap().map(|it| it.unwrap().file_name()).collect();
        left.sort();
        let expected =
            ["other-dead", "ssm-lab-alive", "ssm-lab-file", "ssm-lab-link", "ssm-lab-open", "ssm-lab-unmarked"];
        assert_eq!(left, expected);
        assert!(path("other-dead").join(LOCK).exists());
    }
}
