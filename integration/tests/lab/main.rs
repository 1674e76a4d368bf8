//! The lab from outside: a hand-written client, and OpenSSH's.

#![expect(clippy::unwrap_used, reason = "a helper of tests may panic as they do")]

mod agent;
mod api;
mod client;
mod command;
mod credentials;
mod cuts;
mod endings;
mod frames;
mod gateway;
mod node;
mod openssh;
mod plugin;
mod real_agent;
mod terminal;
