//! Why a host key is not accepted.

use std::{io, path::PathBuf};

use super::MIN_RSA_BITS;
use crate::ssh::quote;

/// Why a host key was not accepted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HostKeyError {
    /// The caller did not say which host keys are accepted.
    #[error("no policy for host keys was given")]
    NoPolicy,
    /// The caller's name for the host cannot stand in a file of known hosts.
    #[error("`{host}` is not a host name: it needs 1 to 255 letters, digits, or characters of `-._:%`")]
    NotAHost {
        /// The name, with what a terminal would not show escaped.
        host: String,
    },
    /// The server's host key cannot be understood.
    #[error("the server's host key cannot be understood")]
    Malformed,
    /// The server's RSA key is too short to be believed.
    #[error("the host key of {host} is an RSA key of {bits} bits; fewer than {MIN_RSA_BITS} are not secure")]
    WeakRsa {
        /// The host as it would be recorded.
        host: String,
        /// The length of its modulus.
        bits: usize,
    },
    /// The server shows or uses another kind of key than the key exchange has agreed on.
    #[error("{host} agreed to the host key algorithm {agreed}, but used {used}")]
    NotAsAgreed {
        /// The host as it would be recorded.
        host: String,
        /// The algorithm that both sides have agreed on.
        agreed: String,
        /// The type of the key, or the algorithm of the signature.
        used: String,
    },
    /// A line that is about the host, or revokes keys, cannot be understood.
    #[error("{}:{line} is about {host}, but {what}", quote::path(.known_hosts))]
    Odd {
        /// The host as it would be recorded.
        host: String,
        /// The file of known hosts.
        known_hosts: PathBuf,
        /// The line.
        line: usize,
        /// What is wrong with it.
        what: &'static str,
    },
    /// The file of known hosts cannot be read.
    #[error("cannot read the known hosts in {}", quote::path(.path))]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A file of known hosts cannot be changed.
    #[error("cannot change the known hosts in {}", quote::path(.path))]
    Unwritable {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The host is not on record, and the policy is to refuse those. Keys are given as type and fingerprint.
    #[error(
        "the host key of {host} is not known: {shown}; compare it with what `ssh-keygen -l` prints on the host, then \
         connect once with StrictHostKeyChecking=accept-new"
    )]
    Unknown {
        /// The host as it would be recorded.
        host: String,
        /// The key that the server shows.
        shown: String,
    },
    /// The host is on record with another key.
    #[error(
        "the host key of {host} has changed, or someone is intercepting the connection: the server shows {shown}, but \
         {}:{line} has {known}", quote::path(.known_hosts)
    )]
    Changed {
        /// The host as it is recorded.
        host: String,
        /// The key that the server shows.
        shown: String,
        /// The key on record.
        known: String,
        /// The file of known hosts.
        known_hosts: PathBuf,
        /// The line of the key on record.
        line: usize,
    },
    /// The key is marked as revoked.
    #[error(
        "the host key of {host} is revoked: {shown} ({}:{line}); whoever has it is not to be trusted",
        quote::path(.known_hosts)
    )]
    Revoked {
        /// The host.
        host: String,
        /// The key that the server shows.
        shown: String,
        /// The file of known hosts.
        known_hosts: PathBuf,
        /// The line that revokes it.
        line: usize,
    },
    /// It is not the key that it has to be. Keys are given as type and fingerprint.
    #[error("{host} shows another host key than before: {shown}, not {expected}")]
    NotPinned {
        /// The host as it would be recorded.
        host: String,
        /// The key that the server shows.
        shown: String,
        /// The key that was accepted before.
        expected: String,
    },
}
