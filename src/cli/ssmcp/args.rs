//! What `ssmcp` is told on its command line.

use std::ffi::OsString;

use clap::Parser;

use crate::cli::args::ConnectionArgs;
use crate::copy::{Compression, Streams};

/// Copy files to, from and between nodes behind AWS Session Manager
#[derive(Debug, Clone, Parser)]
#[command(name = "ssmcp", version, args_override_self = true, max_term_width = 100, after_help = NOTES)]
#[command(override_usage = "ssmcp [OPTIONS] SOURCE... TARGET")]
pub(super) struct SsmcpArgs {
    /// TCP port of the SSH server on the node
    #[arg(short = 'P', value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    pub port: Option<u16>,

    /// Copy directories with all that lies in them; links are followed
    #[arg(short = 'r')]
    pub recursive: bool,

    /// Keep the times and permissions of the sources
    #[arg(short = 'p')]
    pub preserve: bool,

    /// SSM sessions that carry the files at the same time, each with its own SSH connection: 1 to 16, or `auto`, which
    /// opens up to 8 while each step makes the copy faster
    #[arg(short = 'j', long, value_name = "N", default_value = "auto", value_parser = parse_streams)]
    pub streams: Streams,

    /// Whether the files are compressed on their way: `on` (as -C), `off`, or `auto`, which does it where a sample of them
    /// shows that it pays [default: auto]
    #[arg(long, value_name = "WHEN", value_parser = parse_compression)]
    pub compression: Option<Compression>,

    /// Files and directories, the last of them the target: a PATH on this machine or [USER@]NODE:PATH
    #[arg(value_name = "PATH", required = true)]
    pub operands: Vec<OsString>,

    // Last, because its heading holds for all that follows.
    #[command(flatten)]
    pub connection: ConnectionArgs,
}

const NOTES: &str = "\
A path on a node is relative to the login directory, which `NODE:` and `NODE:~` name too.
A local path with a colon in it is written `./a:b`.
Each file is written under a temporary name and renamed when it is whole.

Exit status:
  0 if everything was copied; 1 if something was not; 255 if nothing could be copied at all;
  128+n if signal n ended it, with temporary files removed

Environment:
  SSMSSH_USER, SSMSSH_IDENTITY, SSMSSH_KNOWN_HOSTS and those of the AWS tools, as for ssmssh";

fn parse_streams(text: &str) -> Result<Streams, String> {
    if text == "auto" {
        return Ok(Streams::auto());
    }
    let number = text.parse().ok().filter(|streams| (1..=Streams::MOST).contains(streams));
    number.map(Streams::exactly).ok_or_else(|| format!("expected `auto` or a number from 1 to {}", Streams::MOST))
}

fn parse_compression(text: &str) -> Result<Compression, &'static str> {
    match text {
        "auto" => Ok(Compression::Auto),
        "on" => Ok(Compression::On),
        "off" => Ok(Compression::Off),
        _ => Err("expected `auto`, `on` or `off`"),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_declaration_is_consistent() {
        SsmcpArgs::command().debug_assert();
    }
}
