//! What `ssmcp` is told on its command line.

use std::ffi::OsString;

use clap::{Args, Parser};

use super::selection::Selection;
use crate::cli::args::ConnectionArgs;
use crate::cli::units;
use crate::copy::{Compression, Streams};

/// Copy files to, from and between nodes behind AWS Session Manager
#[derive(Debug, Clone, Parser)]
#[command(name = "ssmcp", version, args_override_self = true, max_term_width = 100, after_help = NOTES)]
#[command(override_usage = "ssmcp [OPTIONS] SOURCE... TARGET")]
#[expect(clippy::struct_excessive_bools, reason = "each is an option of its own on the command line")]
pub(crate) struct SsmcpArgs {
    /// TCP port of the SSH server on the node
    #[arg(short = 'P', value_name = "PORT", value_parser = units::port_option)]
    pub port: Option<u16>,

    /// Copy directories with all that lies in them
    #[arg(short = 'r')]
    pub recursive: bool,

    /// Keep the times and permissions of the sources
    #[arg(short = 'p')]
    pub preserve: bool,

    /// Use the SCP protocol, as is done anyway where a node has no SFTP subsystem: one stream, and a node writes its files
    /// in place
    #[arg(short = 'O', overrides_with = "sftp")]
    pub force_scp: bool,

    /// SSM sessions that carry the files at the same time, each with its own SSH connection: 1 to 16, or `auto`, which
    /// opens up to 8 while each step makes the copy faster
    #[arg(short = 'j', long, value_name = "N", default_value = "auto", value_parser = parse_streams)]
    pub streams: Streams,

    /// Whether the files are compressed on their way: `on` (as -C), `off`, or `auto`, which does it where a sample of them
    /// shows that it pays [default: auto]
    #[arg(long, value_name = "WHEN", value_parser = parse_compression)]
    pub compression: Option<Compression>,

    /// Most that is copied in a second, in Kbit, or in bits with a unit such as `10M`; all streams together
    #[arg(short = 'l', value_name = "LIMIT", value_parser = parse_limit)]
    pub limit: Option<u64>,

    /// Ask nothing: a key that needs a passphrase is an error (as `-o BatchMode=yes`)
    #[arg(short = 'B')]
    pub batch_mode: bool,

    /// Print events and a summary on standard output, one JSON object a line
    #[arg(long)]
    pub json: bool,

    #[command(flatten)]
    pub selection: Selection,

    #[command(flatten)]
    pub accepted: Accepted,

    /// Start over: what an interrupted copy left is removed, and nothing is kept for going on with this one
    #[arg(long)]
    pub no_resume: bool,

    /// Compare each file with its source by SHA-256 before it gets its name; a copy that goes on does that for the files
    /// that it goes on with
    #[arg(long)]
    pub verify: bool,

    /// Files and directories, the last of them the target: a PATH on this machine or [USER@]NODE:PATH; `-`
    /// is standard input, or standard output as the target
    #[arg(value_name = "PATH", required = true)]
    pub operands: Vec<OsString>,

    // Last, because its heading holds for all that follows.
    #[command(flatten)]
    pub connection: ConnectionArgs,
}

/// As in scp: 100 Gbit a second, which means no limit.
const MAX_LIMIT: u64 = 100 * 1024 * 1024;

/// Options of scp that ask for what is done anyway, or for what the way to a node leaves no choice in.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct Accepted {
    /// From node to node through this machine: always so.
    #[arg(short = '3', hide = true)]
    through_here: bool,
    /// SFTP: the default. Takes back -O.
    #[arg(short = 's', hide = true, overrides_with = "force_scp")]
    sftp: bool,
    /// No check of names against the pattern: they are checked for what could do harm, which is no option.
    #[arg(short = 'T', hide = true)]
    trusting: bool,
}

const NOTES: &str = "\
A path on a node is relative to the login directory, which `NODE:` and `NODE:~` name too.
Patterns in it (`'NODE:logs/*.gz'`, `? [a-z] {a,b}`) are matched on the node; a file that has the
very name comes first.
A local path with a colon in it is written `./a:b`, one named like an option or a node `./-`,
`./i-…`.
Each file is written under a temporary name and renamed when it is whole; links inside the target
are replaced, not followed, and a file with several names is replaced under one of them. A node
writes in place over the SCP protocol (-O), which carries no links (--links), no pipe on standard
input and no name with a line feed, and goes on with nothing.
A copy that was interrupted goes on where it was when the same command is run again: the same
paths, however they are spelled, and the same -r, -p, --links, --exclude, --newer and --skip-same.
What that takes is kept in $XDG_STATE_HOME/ssmssh/copies, or ~/.local/state/ssmssh/copies; what it
left is called `.NAME.ssmcp-XXXXXXXX`.
A file that is replaced keeps its permissions, owner and group where that is allowed, but no ACL and
no security label; a warning says where not. -O keeps all of them on the node.
What came from standard input cannot be gone on with; nothing is kept of it.
From node to node the bytes go through this machine, without a file here.
Standard input is one file that ends where the input ends, whatever ended it: `dump | ssmcp -
NODE:backup/dump`.
Standard output gets the bytes of one file in order, and those of a copy that fails later too.
-3, -s and -T of scp are accepted and change nothing.

Exit status:
  0 if everything was copied; 1 if something was not; 255 if the copy could not begin or be
  carried on, as without a connection; 128+n if signal n ended it; 141 if the reader of standard
  output went away

Environment:
  SSMSSH_USER, SSMSSH_IDENTITY, SSMSSH_KNOWN_HOSTS, XDG_STATE_HOME and those of the AWS tools, as
  for ssmssh";

fn parse_limit(text: &str) -> Result<u64, &'static str> {
    const EXPECTED: &str = "expected Kbit a second, 1 to 104857600, or bits with a unit such as 10M";
    units::kilobits(text).filter(|limit| (1..=MAX_LIMIT).contains(limit)).ok_or(EXPECTED)
}

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
        assert!(NOTES.lines().all(|line| line.chars().count() <= 100), "else clap breaks what is broken already");
    }
}
