//! The SFTP subsystem, version 3, over any byte stream.
//!
//! [`Sftp`] speaks draft-ietf-secsh-filexfer-02 and the extensions of OpenSSH's `PROTOCOL` that a copy needs. Names
//! are bytes from end to end; requests are pipelined and matched by id; nothing times out by itself, because a slow
//! link is not a dead one. What the server sends is checked and bounded before it is believed.
//!
//! ```text
//!   open ─┐                       ┌─ write_requests ──► server
//!   read ─┼─► bounded queue ──► task                      │
//!  write ─┘   (back-pressure)     └─ read_replies  ◄──────┘
//!     ▲                                   │
//!     └───────── reply, by id ◄───────────┘
//! ```

mod attributes;
mod error;
mod mux;
mod packet;
mod session;
mod wire;

#[cfg(test)]
pub(crate) mod scripted;
#[cfg(test)]
mod tests;

pub use attributes::{Attributes, FileKind};
pub use error::{ProtocolError, SftpError, StreamFailure};
pub use mux::Handle;
pub use packet::{DirEntry, OpenFlags};
pub(crate) use session::Queued;
pub use session::{Extension, Limits, Sftp, Space};
