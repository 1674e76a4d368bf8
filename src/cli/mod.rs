//! Shared by both commands.

#![expect(dead_code, reason = "the commands are being assembled")]

mod args;
mod escape;
mod logging;
mod modes;
mod options;
mod report;
mod settings;
mod stdio;
mod target;
mod terminal;
