//! What the copy knows of a file, as SFTP says it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::copy::endpoint::{Change, Metadata};
use crate::ssh::sftp::Attributes;

pub(super) const PERMISSION_BITS: u32 = 0o7777;

pub(super) fn metadata_of(attributes: &Attributes) -> Metadata {
    let time = |seconds: u32| UNIX_EPOCH + Duration::from_secs(seconds.into());
    Metadata {
        kind: attributes.kind(),
        size: attributes.size,
        mode: attributes.permissions.map(|mode| mode & PERMISSION_BITS),
        times: attributes.times.map(|(accessed, modified)| (time(accessed), time(modified))),
        owner: attributes.owner,
    }
}

pub(super) fn attributes_of(change: Change) -> Attributes {
    let times = change.times.map(|(accessed, modified)| (seconds(accessed), seconds(modified)));
    Attributes { permissions: change.mode, times, owner: change.owner, ..Attributes::default() }
}

/// The nearest time that the protocol has.
pub(super) fn carried(time: SystemTime) -> SystemTime {
    let most = UNIX_EPOCH + Duration::from_secs(u32::MAX.into());
    // What follows the last second is cut off with every fraction of one.
    if time < most + Duration::from_secs(1) { time.max(UNIX_EPOCH) } else { most }
}

/// Seconds since 1970 as the protocol has them, which end in 2106.
fn seconds(time: SystemTime) -> u32 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    u32::try_from(since).unwrap_or(u32::MAX)
}
