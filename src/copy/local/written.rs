//! What a copy writes on this machine.

use std::fs::{File, FileTimes, Permissions};
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt as _, fchown};
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};

use bytes::Bytes;
use rustix::fs::{AtFlags, OFlags, renameat, symlinkat, unlinkat};

use super::sparse::write_sparsely;
use super::spot::Spot;
use super::{LocalEndpoint, PERMISSION_BITS, PIECE, metadata_of, on_thread, spawn};
use crate::copy::endpoint::{Answer, Change, Finished, TargetFile};
use crate::copy::{BytePath, CopyError, Shortfall, Unset};

/// The permissions of a file under its temporary name: a later run opens it again, whatever its source allows.
const OWNERS: u32 = 0o600;

/// A file under its temporary name.
pub(super) struct NewFile {
    file: Arc<File>,
    /// The permissions that the umask leaves a new file.
    granted: u32,
    spot: Spot,
    path: BytePath,
    /// Finds the spot of its name.
    endpoint: LocalEndpoint,
    /// Nothing was in it, so that zeros need not be written.
    is_empty: bool,
    /// Held alone while the size is set, so that nobody makes the file longer in between.
    growing: Arc<RwLock<()>>,
}

impl NewFile {
    pub(super) fn new(opened: (File, u32, Spot), path: &BytePath, endpoint: &LocalEndpoint, is_empty: bool) -> Self {
        let ((file, granted, spot), endpoint) = (opened, endpoint.clone());
        Self { file: Arc::new(file), granted, spot, path: path.clone(), endpoint, is_empty, growing: Arc::default() }
    }

    /// Where `to` is: in the directory that the file was made in, whatever has that directory's name by now.
    fn spot_of(&self, to: &BytePath) -> Result<Spot, CopyError> {
        let is_beside = to.parent() == self.path.parent();
        let name = to.name().filter(|_| is_beside).map(BytePath::new);
        match name.and_then(|name| self.spot.beside(&name)) {
            Some(spot) => Ok(spot),
            None => self.endpoint.spot(to),
        }
    }
}

impl TargetFile for NewFile {
    fn max_write(&self) -> u32 {
        PIECE
    }

    fn write(&self, offset: u64, data: Bytes) -> Answer<'_, ()> {
        let (file, growing) = (Arc::clone(&self.file), Arc::clone(&self.growing));
        let is_empty = self.is_empty;
        spawn(move || {
            if is_empty { write_with_holes(&file, &growing, &data, offset) } else { file.write_all_at(&data, offset) }
        })
    }

    fn has_holes(&self) -> bool {
        true
    }

    fn granted(&self) -> Option<u32> {
        Some(self.granted)
    }

    fn finish(self: Box<Self>, change: Change, to: &BytePath) -> Answer<'_, Finished> {
        let to = to.clone();
        let change = Change { mode: Some(change.mode.unwrap_or(self.granted)), ..change };
        on_thread(move || {
            let to = self.spot_of(&to)?;
            let unset = apply_what_goes(&self.file, change)?;
            self.file.sync_all()?;
            let metadata = metadata_of(&self.file.metadata()?);
            rename(&self.spot, &to)?;
            Ok::<_, CopyError>(Finished { metadata, unset })
        })
    }
}

fn write_with_holes(file: &File, growing: &RwLock<()>, data: &[u8], offset: u64) -> io::Result<()> {
    let may_be_short = {
        let _others_too = growing.read().unwrap_or_else(PoisonError::into_inner);
        write_sparsely(file, data, offset)?
    };
    if may_be_short {
        let _alone = growing.write().unwrap_or_else(PoisonError::into_inner);
        let end = offset + data.len() as u64;
        if file.metadata()?.len() < end {
            file.set_len(end)?;
        }
    }
    Ok(())
}

/// A file just created. If nobody waits for it any more, it is removed again.
pub(super) struct JustCreated {
    file: Option<(File, u32)>,
    spot: Spot,
}

impl JustCreated {
    pub(super) fn deliver(mut self) -> (File, u32, Spot) {
        let (file, granted) = self.file.take().expect("taken by this method only, which consumes the value");
        (file, granted, self.spot.clone())
    }
}

impl Drop for JustCreated {
    fn drop(&mut self) {
        if self.file.is_some() {
            let _ = remove(&self.spot);
        }
    }
}

pub(super) fn create(spot: Spot, mode: u32) -> io::Result<JustCreated> {
    let file = spot.create(OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL, mode | OWNERS)?;
    let mut created = JustCreated { file: None, spot };
    let (file, granted) = created.file.insert((file, mode));
    let held = file.metadata()?.mode() & PERMISSION_BITS;
    if held != OWNERS {
        file.set_permissions(Permissions::from_mode(OWNERS))?;
    }
    *granted = held & (mode | !OWNERS);
    Ok(created)
}

/// A file of our own, no link to another.
pub(super) fn reopen(spot: Spot, granted: u32) -> io::Result<(File, u32, Spot)> {
    let file = spot.open(OFlags::WRONLY | OFlags::NOFOLLOW)?;
    if file.metadata()?.uid() != rustix::process::geteuid().as_raw() {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    Ok((file, granted, spot))
}

pub(super) fn remove(spot: &Spot) -> io::Result<()> {
    Ok(unlinkat(spot.directory(), spot.name(), AtFlags::empty())?)
}

/// Gives a link a name that a file or link has.
pub(super) fn replace_by_link(spot: &Spot, to: &Path, temporary: &Spot) -> io::Result<()> {
    symlinkat(to, temporary.directory(), temporary.name())?;
    rename(temporary, spot).inspect_err(|_| {
        let _ = remove(temporary);
    })
}

fn rename(from: &Spot, to: &Spot) -> io::Result<()> {
    Ok(renameat(from.directory(), from.name(), to.directory(), to.name())?)
}

/// As `apply`, and returns what the file system or the user's rights do not allow.
fn apply_what_goes(file: &File, change: Change) -> Result<Vec<Unset>, CopyError> {
    let mut unset = Vec::new();
    let mut note = |lacks, outcome: io::Result<()>| match outcome.map_err(CopyError::from) {
        Err(error) if error.is_refusal() => {
            unset.push((lacks, Some(error)));
            Ok(())
        }
        outcome => outcome,
    };
    if let Some(owner) = change.owner {
        note(Shortfall::Owner, keep_owner(file, owner))?;
    }
    note(Shortfall::Times, apply(file, Change { mode: None, ..change }))?;
    note(Shortfall::Permissions, apply(file, Change { times: None, ..change }))?;
    Ok(unset)
}

/// Gives a file to another user and group; to the group alone where that is all that is allowed.
fn keep_owner(file: &File, (user, group): (u32, u32)) -> io::Result<()> {
    let found = file.metadata()?;
    if (found.uid(), found.gid()) == (user, group) {
        return Ok(());
    }
    fchown(file, Some(user), Some(group)).inspect_err(|_| {
        let _ = fchown(file, None, Some(group));
    })
}

pub(super) fn apply(file: &File, change: Change) -> io::Result<()> {
    if let Some((accessed, modified)) = change.times {
        file.set_times(FileTimes::new().set_accessed(accessed).set_modified(modified))?;
    }
    match change.mode {
        Some(mode) => file.set_permissions(Permissions::from_mode(mode)),
        None => Ok(()),
    }
}
