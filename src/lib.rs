//! SSH and file copy to machines behind AWS Systems Manager Session Manager, in one process.
//!
//! ```text
//!   this program                                     the node
//!   ┌───────────────────────────────┐               ┌──────────────┐
//!   │ ssh, sftp ──▶ SsmStream ──────┼─▶ AWS's ──────┼─▶ SSM agent ─┼─▶ sshd
//!   │ (any stream)  (any bytes)     │   gateway     │              │
//!   └───────────────────────────────┘               └──────────────┘
//! ```
//!
//! Two legs, each of use without the other: [`stream`] makes a byte stream out of a Session Manager data channel and knows
//! nothing of SSH; [`ssh`] and [`copy`](mod@copy) use any byte stream and know nothing of AWS. [`Client`] joins them.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use ssmssh::{Client, SSH_PORT};
//! use ssmssh::ssh::{HostKeyCheck, KeyFile, SessionBuilder, StrictHostKeyChecking};
//! use ssmssh::stream::TargetId;
//!
//! let node = TargetId::new("i-0123456789abcdef0")?;
//! let key = KeyFile::open("key.pem")?.decode(None)?;
//! let hosts = HostKeyCheck::new(StrictHostKeyChecking::AcceptNew, "known_hosts".into(), node.as_str(), 22);
//! let login = SessionBuilder::new("ec2-user").identity(key).host_keys(hosts);
//!
//! let client = Client::builder().region("eu-central-1").build().await?;
//! let connection = client.connect(&node, SSH_PORT, login).await?;
//! let output = connection.command("uptime").output().await?;
//! connection.close().await?;
//! assert!(output.status.success());
//! # Ok(())
//! # }
//! ```
//!
//! # What it needs
//!
//! A tokio runtime with time and I/O enabled. AWS credentials, region and endpoint are found as every AWS SDK finds them.
//! Nothing else is read from the environment, the terminal or the home directory; what a program wants from there, it
//! passes in. The commands `ssmssh` and `ssmcp` live behind the feature `cli`, on by default; a program that embeds the
//! library turns it off.
//!
//! # What it refuses
//!
//! - A private key file that anybody but its owner could read, or that its owner could write: mode 0400 it must be.
//! - A host key that has changed or is revoked.
//! - A stream URL that leads anywhere but to the service, or to the endpoint that was configured.
//! - SHA-1 signatures, CBC ciphers, and to read a lost connection as the end of a file.
//!
//! # Where to look
//!
//! | for | see |
//! |---|---|
//! | a command, a shell, a file on a node | [`Client`], [`ssh::Session`], [`copy()`](copy::copy) |
//! | a raw stream to a port of the node | [`Client::open`], [`stream::SsmStream`] |
//! | SSH over a transport of your own | [`ssh::SessionBuilder::connect`] |
//! | another control plane than AWS's | [`stream::SsmService`], [`Client::with_service`] |
//! | the protocol without I/O, for a simulation or another runtime | [`datachannel::DataChannel`], [`wire`] |

pub mod aws;
#[cfg(feature = "cli")]
#[doc(hidden)]
pub mod cli;
mod client;
pub mod copy;
pub mod datachannel;
mod files;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
#[allow(missing_docs, reason = "for the fuzz targets only")]
pub mod fuzzing;
pub mod ssh;
pub mod stream;
pub mod wire;

pub use client::{Client, ClientBuilder, ClientError, Connection};
pub use stream::SSH_PORT;
