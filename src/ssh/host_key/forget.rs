//! Removing a host from the files of known hosts.

use std::{fs::File, io::Write, os::unix::fs::OpenOptionsExt, path::Path};

use super::{HostKeyCheck, HostKeyError, KnownHosts, lock_to_append, read};
use crate::ssh::known_hosts::without;

/// The permission bits of a file.
const PERMISSIONS: u32 = 0o777;

impl HostKeyCheck {
    /// Removes the lines that name the host from all files, and says how many there were. Wildcards, revoked keys and
    /// authorities stay, because they are not about this host alone. The content before is kept beside each file with
    /// `.old` behind its name.
    ///
    /// Cancelling it may leave some files done and others not; each of them is replaced as a whole.
    pub async fn forget(&self) -> Result<usize, HostKeyError> {
        self.name()?;
        self.on_file(Self::forget_in_files).await
    }

    pub(super) fn forget_in_files(&self) -> Result<usize, HostKeyError> {
        let (name, mut removed) = (self.name()?, 0);
        for path in &self.known_hosts {
            if read(path)?.is_none_or(|file| without(&file.content, &name).1 == 0) {
                continue;
            }
            let failed = |source| HostKeyError::Unwritable { path: path.clone(), source };
            // Under the lock, so that no key is lost that another process records meanwhile.
            let _lock = lock_to_append(path).map_err(failed)?;
            let Some(KnownHosts { content, ownership }) = read(path)? else { continue };
            let (rest, count) = without(&content, &name);
            if count > 0 {
                // Links stay links: the file behind them is the one that is replaced.
                let path = std::fs::canonicalize(path).map_err(failed)?;
                replace(&path, ".old", &content, ownership.mode).map_err(failed)?;
                replace(&path, "", &rest, ownership.mode).map_err(failed)?;
            }
            removed += count;
        }
        Ok(removed)
    }
}

/// Gives the file, or the one with `suffix` behind its name, another content; never a part of it.
fn replace(path: &Path, suffix: &str, content: &[u8], mode: u32) -> std::io::Result<()> {
    let beside = |suffix: &str| {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        name
    };
    let new = beside(".new");
    let _ = std::fs::remove_file(&new);
    let mut file: File =
        std::fs::OpenOptions::new().write(true).create_new(true).mode(mode & PERMISSIONS).open(&new)?;
    file.write_all(content)?;
    file.sync_all()?;
    std::fs::rename(&new, beside(suffix))
}
