//! What was typed, checked for form only. What it means together with the environment is `settings`' business.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::builder::NonEmptyStringValueParser;
use clap::{ArgAction, Args, Parser, value_parser};
use http::uri::Authority;

use super::target::Target;

/// How to reach a node and log in: the options that both commands share.
#[expect(clippy::struct_excessive_bools, reason = "flags as they were typed")]
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Connection")]
pub(crate) struct ConnectionArgs {
    /// Private key file; may be given several times
    #[arg(short = 'i', value_name = "FILE")]
    pub(crate) identities: Vec<PathBuf>,

    /// An option as ssh spells it, such as `-o StrictHostKeyChecking=yes`; an unknown one lists the known
    #[arg(short = 'o', value_name = "KEY=VALUE")]
    pub(crate) options: Vec<OsString>,

    /// Compress what is sent and received (as `-o Compression=yes`)
    #[arg(short = 'C')]
    pub(crate) compress: bool,

    /// Profile of the AWS configuration
    #[arg(long, value_name = "NAME")]
    pub(crate) profile: Option<String>,

    /// AWS region of the node
    #[arg(long, value_name = "REGION")]
    pub(crate) region: Option<String>,

    /// Where the SSM API is, if not at the region's usual place
    #[arg(long, value_name = "URL")]
    pub(crate) endpoint_url: Option<String>,

    /// Use IPv4 only, on this machine's side
    #[arg(short = '4', overrides_with = "ipv6")]
    pub(crate) ipv4: bool,

    /// Use IPv6 only, on this machine's side
    #[arg(short = '6', overrides_with = "ipv4")]
    pub(crate) ipv6: bool,

    /// File of known host keys
    #[arg(long, value_name = "FILE")]
    pub(crate) known_hosts: Option<PathBuf>,

    /// Why you connect; kept with the session's record
    #[arg(long, value_name = "TEXT")]
    pub(crate) reason: Option<String>,

    /// How long a lost connection is tried to be resumed, and a node waited for that answers nothing, in seconds
    /// [default: 600]
    #[arg(long, value_name = "SECONDS", value_parser = value_parser!(u32).range(..=MAX_SECONDS))]
    pub(crate) resume_timeout: Option<u32>,

    /// Ask the SSH server for a sign of life after so many seconds of silence, so that the session does not count as
    /// idle; 0 for never, the default. As `-o ServerAliveInterval`, which gives up after three without an answer
    #[arg(long, value_name = "SECONDS", value_parser = value_parser!(u32).range(..=MAX_SECONDS))]
    pub(crate) keepalive: Option<u32>,

    /// Largest payload of one message, in bytes, 1024 to 65536 [default: 16384; `ssmcp`: 32768]
    #[arg(long, value_name = "BYTES", value_parser = value_parser!(u32).range(1024..=65536))]
    pub(crate) max_payload: Option<u32>,

    /// Most messages sent in a second, 0 for no limit [default: 900]
    #[arg(long, value_name = "N")]
    pub(crate) max_frames_per_second: Option<u32>,

    /// Host that takes the data, if not the one that the service names: that of a VPC endpoint without a DNS name of
    /// its own
    #[arg(long, value_name = "HOST[:PORT]", value_parser = host)]
    pub(crate) stream_host: Option<String>,

    /// Print errors only
    #[arg(short = 'q')]
    pub(crate) quiet: bool,

    /// Print each stage with its duration; twice: what the program reports for its developers
    #[arg(short = 'v', action = ArgAction::Count)]
    pub(crate) verbose: u8,
}

/// A day: whoever waits longer has mistaken the unit.
const MAX_SECONDS: i64 = 86_400;

/// A host, and a port where it is not the usual one.
fn host(text: &str) -> Result<String, &'static str> {
    let authority: Option<Authority> = text.parse().ok();
    let is_host = authority.is_some_and(|it| !it.host().is_empty() && !text.contains('@') && !text.ends_with(':'));
    if is_host { Ok(text.to_owned()) } else { Err("expected a host such as vpce-0a1b.example.com, without a scheme") }
}

/// A shell or a command on a node behind AWS Session Manager
#[derive(Debug, Clone, Parser)]
#[command(name = "ssmssh", version, args_override_self = true, max_term_width = 100, after_help = SSMSSH_NOTES)]
pub(crate) struct SsmsshArgs {
    /// User to log in as
    #[arg(short = 'l', value_name = "USER", value_parser = NonEmptyStringValueParser::new())]
    pub(crate) user: Option<String>,

    /// TCP port of the SSH server on the node
    #[arg(short = 'p', value_name = "PORT", value_parser = value_parser!(u16).range(1..))]
    pub(crate) port: Option<u16>,

    /// Ask for a pseudo-terminal for a command too; twice: even if standard input is no terminal
    #[arg(short = 't', action = ArgAction::Count)]
    pub(crate) tty: u8,

    /// Ask for no pseudo-terminal
    #[arg(short = 'T', conflicts_with = "tty")]
    pub(crate) no_tty: bool,

    /// Read nothing from standard input
    #[arg(short = 'n')]
    pub(crate) null_stdin: bool,

    /// Forward no agent, no X11, no GSSAPI credentials: as it is, in any case
    #[arg(short = 'a', short_aliases = ['x', 'k'], hide = true, action = ArgAction::Count)]
    pub(crate) forward_nothing: u8,

    /// Node to reach: `i-…` or `mi-…`
    #[arg(value_name = "[USER@]NODE")]
    pub(crate) target: Target,

    /// Command to run instead of a shell, its words joined by spaces; options behind its first word are its own
    #[arg(value_name = "COMMAND", trailing_var_arg = true)]
    pub(crate) command: Vec<OsString>,

    // Last, because its heading holds for all that follows.
    #[command(flatten)]
    pub(crate) connection: ConnectionArgs,
}

const SSMSSH_NOTES: &str = "\
Exit status:
  that of the remote command; 128+n if signal n ended it; 255 for every failure of ssmssh itself;
  128+n if signal n ended ssmssh; 141 if the reader of standard output went away

Environment:
  SSMSSH_USER         user, if neither `user@` nor -l names one; else ec2-user
  SSMSSH_IDENTITY     private key file, if no -i names one; else ~/.ssh/id_ed25519, id_ecdsa, id_rsa
  SSH_AUTH_SOCK       socket of an agent whose keys are tried too (-o IdentityAgent, -o IdentitiesOnly)
  SSMSSH_KNOWN_HOSTS  file of known host keys; else ~/.local/state/ssmssh/known_hosts
  AWS_PROFILE, AWS_REGION and the other variables of the AWS tools

Keys:
  ~. at the beginning of a line ends the session, ~? lists the others";

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    const NODE: &str = "i-0123456789abcdef0";

    fn parse(words: &[&str]) -> Result<SsmsshArgs, clap::Error> {
        SsmsshArgs::try_parse_from([&["ssmssh"], words].concat())
    }

    fn command(words: &[&str]) -> Vec<OsString> {
        parse(words).unwrap().command
    }

    #[test]
    fn the_declaration_is_consistent() {
        SsmsshArgs::command().debug_assert();
    }

    #[test]
    fn options_may_stand_before_the_node_and_right_behind_it() {
        let before = parse(&["-vp", "2222", "-t", NODE, "top"]).unwrap();
        let behind = parse(&[NODE, "-v", "-p2222", "-t", "top"]).unwrap();
        for args in [before, behind] {
            assert_eq!((args.connection.verbose, args.port, args.tty), (1, Some(2222), 1));
            assert_eq!(args.command, ["top"]);
        }
    }

    #[test]
    fn what_follows_the_first_word_of_the_command_is_the_commands() {
        assert_eq!(command(&[NODE, "ls", "-l", "--", "-v", "--help", "-V"]), ["ls", "-l", "--", "-v", "--help", "-V"]);
    }

    #[test]
    fn a_command_that_begins_with_a_dash_stands_behind_two_dashes() {
        assert_eq!(command(&[NODE, "--", "-odd", "--", "x"]), ["-odd", "--", "x"]);
    }

    #[test]
    fn flags_count_and_the_last_of_a_repeated_value_wins() {
        let args = parse(&["-tt", "-l", "a", "-l", "b", "-i", "x", "-i", "y", NODE]).unwrap();
        assert_eq!((args.tty, args.user.as_deref()), (2, Some("b")));
        assert_eq!(args.connection.identities, [PathBuf::from("x"), PathBuf::from("y")]);
    }

    #[test]
    fn a_command_may_hold_bytes_that_are_not_utf8() {
        use std::os::unix::ffi::OsStringExt;
        let word = OsString::from_vec(b"\xff\x01".to_vec());
        let words = ["ssmssh".into(), NODE.into(), word.clone()];
        assert_eq!(SsmsshArgs::try_parse_from::<_, OsString>(words).unwrap().command, [word]);
    }

    #[test]
    fn options_of_the_stream_outside_of_their_limits_are_refused_with_them() {
        let message = |words: &[&str]| parse(&[words, &[NODE]].concat()).unwrap_err().to_string();
        assert!(message(&["--max-payload", "512"]).contains("512 is not in 1024..=65536"));
        assert!(message(&["--resume-timeout", "86401"]).contains("86401 is not in 0..=86400"));
        assert!(message(&["--keepalive", "30s"]).contains("--keepalive <SECONDS>"));
        for host in ["", "https://vpce.example.com", "me@vpce.example.com", "a b", "vpce:"] {
            assert!(message(&["--stream-host", host]).contains("expected a host"), "{host}");
        }
        assert!(parse(&["--stream-host", "vpce.example.com:8443", NODE]).is_ok());
    }

    #[test]
    fn switching_off_what_is_never_on_is_taken_as_said() {
        assert!(parse(&["-axk", NODE]).is_ok());
    }

    #[test]
    fn of_two_address_families_the_last_counts() {
        let family = |words: &[&str]| parse(words).map(|args| (args.connection.ipv4, args.connection.ipv6)).unwrap();
        assert_eq!([family(&["-4", NODE]), family(&["-46", NODE])], [(true, false), (false, true)]);
    }

    #[test]
    fn a_node_is_required_and_checked() {
        assert!(parse(&[]).is_err());
        assert!(parse(&["example.com"]).unwrap_err().to_string().contains("is not a node id"));
        assert!(parse(&["-p", "0", NODE]).is_err());
        assert!(parse(&["-l", "", NODE]).is_err());
        assert!(parse(&["-tT", NODE]).is_err());
    }
}
