//! What a channel is asked for, checked before anything of it is sent.
//!
//! A server ends the whole connection over a packet that is too long for it, and over a text with a NUL byte in it: with
//! everything that runs there.

use russh::{ChannelWriteHalf, client::Msg};

use super::{Pty, SshError};

/// The longest packet that OpenSSH takes is 256 KiB; the names and numbers in a request have the rest.
const MAX_REQUEST: usize = 255 << 10;

/// What a channel is asked for.
#[derive(Debug)]
pub(super) enum Request {
    Pty(Pty),
    Env { name: String, value: String },
    Shell,
    Exec(Vec<u8>),
    Subsystem(String),
}

/// What the server's answer to a request is about.
#[derive(Debug)]
pub(super) enum Asked {
    /// Nothing can go on without it.
    Needed(String),
    /// A variable, by its name.
    Env(String),
}

impl Request {
    /// Whether it can be sent.
    pub(super) fn check(&self) -> Result<(), SshError> {
        match self {
            Self::Pty(pty) => {
                check("the name of the terminal", pty.term.as_bytes())?;
                check_length("the terminal's name with its modes", pty.term.len() + pty.modes.len().saturating_mul(5))
            }
            Self::Env { name, value } => {
                check("the name of a variable", name.as_bytes())?;
                check("the value of a variable", value.as_bytes())?;
                check_length("a variable", name.len() + value.len())
            }
            Self::Shell => Ok(()),
            Self::Exec(command) => check("the command", command),
            Self::Subsystem(name) => check("the name of the subsystem", name.as_bytes()),
        }
    }

    /// What its answer will be about.
    pub(super) fn asked(&self) -> Asked {
        let needed = |what: &str| Asked::Needed(what.to_owned());
        match self {
            Self::Pty(_) => needed("a pseudo-terminal"),
            Self::Env { name, .. } => Asked::Env(name.clone()),
            Self::Shell => needed("a shell"),
            Self::Exec(_) => needed("the command"),
            Self::Subsystem(name) => needed(&format!("the subsystem {name:?}")),
        }
    }

    pub(super) async fn send(self, channel: &ChannelWriteHalf<Msg>) -> Result<(), russh::Error> {
        match self {
            Self::Pty(pty) => {
                let (modes, term) = (pty.russh_modes(), pty.term.as_str());
                channel.request_pty(true, term, pty.cols, pty.rows, pty.width_px, pty.height_px, &modes).await
            }
            Self::Env { name, value } => channel.set_env(true, name, value).await,
            Self::Shell => channel.request_shell(true).await,
            Self::Exec(command) => channel.exec(true, command).await,
            Self::Subsystem(name) => channel.request_subsystem(true, name).await,
        }
    }
}

/// Whether a server can be sent this text.
pub(super) fn check(what: &'static str, text: &[u8]) -> Result<(), SshError> {
    if text.contains(&0) {
        return Err(SshError::NulByte { what });
    }
    check_length(what, text.len())
}

fn check_length(what: &'static str, length: usize) -> Result<(), SshError> {
    if length > MAX_REQUEST { Err(SshError::TooLong { what, length, limit: MAX_REQUEST }) } else { Ok(()) }
}
