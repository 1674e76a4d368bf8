//! The `ssm-lab` command: a command with a local Session Manager around it, or the lab alone.

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main()
}
