//! The `ssmcp` command.

#[expect(
    clippy::disallowed_methods,
    reason = "threads that read and write files must not hold up the end of the process"
)]
fn main() {
    std::process::exit(ssmssh::cli::ssmcp())
}
