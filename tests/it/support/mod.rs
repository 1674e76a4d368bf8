//! What the tests of this binary stand on.

pub(crate) mod cli;
pub(crate) mod gate;
pub(crate) mod logs;
pub(crate) mod memory;
pub(crate) mod places;
pub(crate) mod pty;
pub(crate) mod short;
pub(crate) mod ssh;
pub(crate) mod sshd;
