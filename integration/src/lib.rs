//! A local Session Manager on loopback: the SSM API, the message gateway, and a managed node with an SSH server behind it.
//!
//! ```text
//!   client ── HTTP, signed ──► api ──┐
//!   client ══ WebSocket ══════► gateway ══ WebSocket ══ node (agent) ── TCP ── sshd
//! ```
//!
//! The node calls the gateway over the same HTTP and WebSocket interface as AWS's own agent. Everything listens on
//! 127.0.0.1 only, on random ports, with keys made for one run.
//!
//! ```no_run
//! # async fn example() -> Result<(), ssm_lab::LabError> {
//! let lab = ssm_lab::Lab::builder().delay(std::time::Duration::from_millis(20)).loss(0.01).start().await?;
//! let mut command = std::process::Command::new("ssmssh");
//! command.args([lab.node(), "uname"]).envs(lab.env());
//! # let _ = command;
//! lab.shutdown().await;
//! # Ok(())
//! # }
//! ```

mod access;
pub mod agent;
mod api;
mod builder;
mod conn;
mod events;
mod faults;
mod gateway;
mod home;
mod lab;
mod node;
mod openssh;
mod registration;
mod server;
mod services;
mod sigv4;
mod sshd;
mod task;
mod tasks;
mod tls;

pub use access::{CredentialSource, Credentials};
pub use builder::LabBuilder;
pub use events::Event;
pub use faults::{Cut, Faults, Oversize};
pub use lab::{Activation, Lab, LabError};
pub use node::Pace;
pub use openssh::OpenSshError;
pub use tls::TlsError;
