//! `[user@]NODE` and `[user@]NODE:path`, as people type them.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;
use std::str::FromStr;

use super::units;
use crate::stream::{TargetId, TargetIdError};

/// A node and, where one was typed, the user to log in as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) user: Option<String>,
    pub(crate) node: TargetId,
}

/// One side of a copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Operand {
    /// A path on this machine.
    Local(PathBuf),
    /// Standard input, or standard output as the target.
    Pipe,
    /// A path on a node. Names there are bytes; an empty path is the login directory.
    Remote { target: Target, path: Vec<u8> },
}

/// The text names no target.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum TargetError {
    #[error(transparent)]
    Node(#[from] TargetIdError),
    #[error("`{0}` has nothing before the `@`: expected `user@NODE`")]
    EmptyUser(String),
    #[error("`{text}`: a port is named with `-p {port}`")]
    Port { text: String, port: String },
    #[error("`{0}` is not UTF-8, which the name of a user or a node must be")]
    NotUtf8(String),
    #[error("a path is empty: the working directory is `.`, the login directory `NODE:`")]
    EmptyPath,
    #[error("`{0}` is a node, not a path on it: write `{0}:` for its login directory, or `./{0}` for a local file")]
    NoColon(String),
    #[error("`{operand}` looks like a path on a node, but {reason}; write `./{operand}` for a local file")]
    NotARemotePath { operand: String, reason: Box<TargetError> },
}

impl FromStr for Target {
    type Err = TargetError;

    /// The user is all before the last `@`: names in a directory service may hold one themselves.
    fn from_str(text: &str) -> Result<Self, TargetError> {
        let (user, node) = match text.rsplit_once('@') {
            Some(("", _)) => return Err(TargetError::EmptyUser(text.to_owned())),
            Some((user, node)) => (Some(user.to_owned()), node),
            None => (None, text),
        };
        TargetId::new(node)
            .map(|id| Self { user, node: id })
            .map_err(|error| with_port(text, node).unwrap_or(error.into()))
    }
}

/// `NODE:22`, as a URL has it.
fn with_port(text: &str, node: &str) -> Option<TargetError> {
    let (node, port) = node.rsplit_once(':')?;
    TargetId::new(node).ok()?;
    units::port(port).map(|_| TargetError::Port { text: text.to_owned(), port: port.to_owned() })
}

/// scp's `[NODE]:path`, for hosts whose names hold colons, without its brackets.
fn without_brackets(host: &[u8]) -> Vec<u8> {
    let at = host.iter().rposition(|byte| *byte == b'@').map_or(0, |at| at + 1);
    let (user, name) = host.split_at(at);
    let inner = name.strip_prefix(b"[").and_then(|name| name.strip_suffix(b"]"));
    [user, inner.unwrap_or(name)].concat()
}

impl Operand {
    /// Remote when a colon comes before the first slash, as in scp. What looks remote and names no node is an error
    /// rather than a local file of that name.
    pub(crate) fn parse(text: &OsStr) -> Result<Self, TargetError> {
        let bytes = text.as_bytes();
        let boundary = bytes.iter().position(|byte| matches!(byte, b':' | b'/'));
        let Some(colon) = boundary.filter(|at| bytes[*at] == b':') else { return Self::here(text) };
        let (host, path) = (&bytes[..colon], &bytes[colon + 1..]);
        let remote = |target| Self::Remote { target, path: path.to_vec() };
        parse_bytes(&without_brackets(host)).map(remote).map_err(|reason| {
            let operand = text.to_string_lossy().into_owned();
            TargetError::NotARemotePath { operand, reason: Box::new(reason) }
        })
    }
}

impl Operand {
    /// What has no colon. A node's name is no likely name for a file.
    fn here(text: &OsStr) -> Result<Self, TargetError> {
        match text.to_str() {
            Some("") => Err(TargetError::EmptyPath),
            Some("-") => Ok(Self::Pipe),
            Some(text) if text.parse::<Target>().is_ok() => Err(TargetError::NoColon(text.to_owned())),
            _ => Ok(Self::Local(text.into())),
        }
    }

    pub(crate) fn is_remote(&self) -> bool {
        matches!(self, Self::Remote { .. })
    }
}

impl fmt::Display for Operand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Local(path) => path.display().fmt(f),
            Self::Pipe => f.write_str("-"),
            Self::Remote { target, path } => write!(f, "{}:{}", target.node, path.escape_ascii()),
        }
    }
}

fn parse_bytes(host: &[u8]) -> Result<Target, TargetError> {
    match String::from_utf8(host.to_vec()) {
        Ok(text) => text.parse(),
        Err(_) => Err(TargetError::NotUtf8(OsString::from_vec(host.to_vec()).to_string_lossy().into_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODE: &str = "i-0123456789abcdef0";

    fn target(user: Option<&str>) -> Target {
        Target { user: user.map(str::to_owned), node: TargetId::new(NODE).unwrap() }
    }

    fn operand(text: impl AsRef<[u8]>) -> Result<Operand, TargetError> {
        Operand::parse(OsStr::from_bytes(text.as_ref()))
    }

    #[test]
    fn a_node_stands_alone_or_behind_a_user() {
        assert_eq!(NODE.parse(), Ok(target(None)));
        assert_eq!(format!("ubuntu@{NODE}").parse(), Ok(target(Some("ubuntu"))));
    }

    #[test]
    fn a_user_name_may_hold_an_at_sign() {
        assert_eq!(format!("me@corp.example@{NODE}").parse(), Ok(target(Some("me@corp.example"))));
    }

    #[test]
    fn an_empty_user_is_refused() {
        let text = format!("@{NODE}");
        assert_eq!(text.parse::<Target>(), Err(TargetError::EmptyUser(text)));
    }

    #[test]
    fn a_port_behind_the_node_is_answered_with_its_option() {
        let error = format!("me@{NODE}:22").parse::<Target>().unwrap_err();
        assert_eq!(error.to_string(), format!("`me@{NODE}:22`: a port is named with `-p 22`"));
        assert!(matches!(format!("{NODE}:x").parse::<Target>(), Err(TargetError::Node(_))));
    }

    #[test]
    fn brackets_around_the_node_are_scps_and_go() {
        let remote = |user| Operand::Remote { target: target(user), path: b"x:[y]".to_vec() };
        assert_eq!(operand(format!("[{NODE}]:x:[y]")), Ok(remote(None)));
        assert_eq!(operand(format!("me@[{NODE}]:x:[y]")), Ok(remote(Some("me"))));
        assert!(operand(format!("[{NODE}:x")).is_err());
    }

    #[test]
    fn a_host_name_is_no_node() {
        assert!(matches!("example.com".parse::<Target>(), Err(TargetError::Node(_))));
    }

    #[test]
    fn a_colon_before_any_slash_makes_an_operand_remote() {
        let remote = |path: &[u8]| Operand::Remote { target: target(Some("root")), path: path.to_vec() };
        assert_eq!(operand(format!("root@{NODE}:/srv/a:b")), Ok(remote(b"/srv/a:b")));
        assert_eq!(operand(format!("root@{NODE}:")), Ok(remote(b"")));
    }

    #[test]
    fn a_slash_before_the_colon_or_no_colon_makes_it_local() {
        for path in ["./a:b", "/a:b", "a", "./-", "..", "./i-0123456789abcdef0"] {
            assert_eq!(operand(path), Ok(Operand::Local(path.into())), "{path}");
        }
    }

    #[test]
    fn a_node_without_a_colon_is_told_how_to_be_a_target() {
        for text in [NODE.to_owned(), format!("root@{NODE}")] {
            let error = operand(&text).unwrap_err().to_string();
            assert!(error.contains(&format!("write `{text}:` for its login directory")), "{error}");
        }
    }

    #[test]
    fn a_dash_is_a_pipe_and_nothing_is_a_mistake() {
        assert_eq!((operand("-"), operand("")), (Ok(Operand::Pipe), Err(TargetError::EmptyPath)));
    }

    #[test]
    fn bytes_of_a_path_survive_on_either_side() {
        let mut text = format!("{NODE}:").into_bytes();
        text.extend(b"caf\xe9\n");
        assert_eq!(operand(text), Ok(Operand::Remote { target: target(None), path: b"caf\xe9\n".to_vec() }));
        assert_eq!(operand(b"caf\xe9"), Ok(Operand::Local(OsStr::from_bytes(b"caf\xe9").into())));
    }

    #[test]
    fn what_looks_remote_but_names_no_node_says_how_to_mean_a_local_file() {
        let error = operand("backup:today").unwrap_err().to_string();
        assert!(error.contains("`backup` is not a node id"), "{error}");
        assert!(error.ends_with("write `./backup:today` for a local file"), "{error}");
        assert!(operand(b"\xff:x").unwrap_err().to_string().contains("not UTF-8"));
    }
}
