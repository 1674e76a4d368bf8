//! The `ssm-lab` command.

fn main() {}
