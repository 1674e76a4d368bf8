//! The `ssmssh` command.

fn main() {}
