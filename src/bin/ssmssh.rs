//! The `ssmssh` command.

#[expect(clippy::disallowed_methods, reason = "threads that wait for input must not hold up the end of the process")]
fn main() {
    std::process::exit(ssmssh::cli::ssmssh())
}
