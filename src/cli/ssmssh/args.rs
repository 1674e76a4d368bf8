//! What `ssmssh` is told on its command line.

use std::ffi::OsString;

use clap::builder::NonEmptyStringValueParser;
use clap::{ArgAction, Parser};

use crate::cli::args::ConnectionArgs;
use crate::cli::target::Target;
use crate::cli::units;

/// A shell or a command on a node behind AWS Session Manager
#[derive(Debug, Clone, Parser)]
#[command(name = "ssmssh", version, args_override_self = true, max_term_width = 100, after_help = SSMSSH_NOTES)]
pub(crate) struct SsmsshArgs {
    /// User to log in as
    #[arg(short = 'l', value_name = "USER", value_parser = NonEmptyStringValueParser::new())]
    pub(crate) user: Option<String>,

    /// TCP port of the SSH server on the node
    #[arg(short = 'p', value_name = "PORT", value_parser = units::port_option)]
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

    /// Remove the recorded host key of NODE, and do nothing else
    #[arg(long)]
    pub(crate) forget_host: bool,

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
  SSH_AUTH_SOCK       socket of an agent whose keys are tried too
                      (-o IdentityAgent, -o IdentitiesOnly)
  SSMSSH_KNOWN_HOSTS  file of known host keys; else ~/.local/state/ssmssh/known_hosts
  AWS_PROFILE, AWS_REGION and the other variables of the AWS tools

Keys:
  ~. at the beginning of a line ends the session, ~? lists the others";

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

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
        assert!(
            SSMSSH_NOTES.lines().all(|line| line.chars().count() <= 100),
            "else clap breaks what is broken already"
        );
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
    fn switching_off_what_is_never_on_is_taken_as_said() {
        assert!(parse(&["-axk", NODE]).is_ok());
    }

    #[test]
    fn a_port_that_is_none_is_answered_with_what_is() {
        for wrong in ["0", "65536", "ssh"] {
            let said = parse(&["-p", wrong, NODE]).unwrap_err().to_string();
            assert!(said.contains("expected a port, 1 to 65535"), "{said}");
        }
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
