//! The `ssmcp` command.

fn main() {}
