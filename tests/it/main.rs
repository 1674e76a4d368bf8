//! In-process tests: the whole product over the lab, its parts against real peers, and the house rules.

mod architecture;
mod cli_commands;
mod cli_failures;
mod cli_openssh;
mod cli_terminal;
mod client;
mod copy_cli;
mod copy_compression;
mod copy_endpoints;
mod copy_sftp;
mod copy_streams;
mod dependencies;
mod examples;
mod ssh_commands;
mod ssh_compression;
mod ssh_login;
mod ssh_peer;
mod stream;
mod stream_network;
mod support;
