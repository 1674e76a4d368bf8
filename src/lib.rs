//! SSH and file copy to machines behind AWS Systems Manager Session Manager, in one process.

pub mod aws;
#[cfg(feature = "cli")]
#[doc(hidden)]
pub mod cli;
mod client;
pub mod copy;
pub mod datachannel;
pub mod ssh;
pub mod stream;
pub mod wire;

pub use client::{Client, ClientBuilder, ClientError, Connection};
